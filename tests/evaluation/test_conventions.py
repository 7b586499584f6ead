"""The averages of toolkits, against the toolkits; those of nnU-Net and MMSegmentation in
``tests/integrations``."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU
from torchmetrics.segmentation import DiceScore
from torchmetrics.segmentation import MeanIoU as MeanIoUOfTorchmetrics

from rankseg.evaluation import aggregate
from rankseg.metrics import count
from support.convention_cases import CASES


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(torch.from_numpy(labels), classes).movedim(-1, 1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_monai(case, metric):
    prediction, label, classes = CASES[case]
    theirs = (DiceMetric if metric == "dice" else MeanIoU)()
    theirs(one_hot(prediction, classes), one_hot(label, classes))
    found = aggregate(count(prediction, label, num_classes=classes), metric, "monai")
    assert found.mean == pytest.approx(theirs.aggregate().item(), abs=1e-6)
    by_class = theirs.aggregate(reduction="mean_batch").numpy()
    np.testing.assert_allclose(np.nan_to_num(found.by_class), np.nan_to_num(by_class), atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_torchmetrics(case, metric):
    prediction, label, classes = CASES[case]
    kind = DiceScore if metric == "dice" else MeanIoUOfTorchmetrics
    theirs = kind(num_classes=classes, input_format="index")
    # Of two axes, MeanIoU takes the batch for an image.
    theirs.update(torch.from_numpy(prediction)[:, None], torch.from_numpy(label)[:, None])
    found = aggregate(count(prediction, label, num_classes=classes), metric, "torchmetrics")
    assert found.mean == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_conventions_differ_where_classes_are_absent():
    prediction, label, classes = CASES["absent classes"]
    counts = count(prediction, label, num_classes=classes)
    means = {name: aggregate(counts, "iou", name).mean
             for name in ("nnunet", "monai", "torchmetrics", "mmseg")}  # fmt: skip
    assert len({round(mean, 6) for mean in means.values()}) == 4


def test_nothing_to_average():
    nothing = np.zeros((0, 4), int)
    for name in ("nnunet", "monai", "torchmetrics", "mmseg"):
        assert math.isnan(aggregate(count(nothing, nothing, num_classes=3), "dice", name).mean)
    with pytest.raises(ValueError, match="convention must be one of"):
        aggregate(count(nothing, nothing, num_classes=3), "dice", "kaggle")
