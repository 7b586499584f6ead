"""What the page shows of a case; the page itself is in ``tests/integrations/test_app.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import maps
from rankseg import RankSEG, expected_score
from rankseg.app import build, show


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_numbers_are_those_of_the_library(metric):
    probs = torch.from_numpy(maps.softmax(1, 3, 32, 32))
    shown = show(probs[0], ["a", "b", "c"], metric=metric, solver="joint", pruning_prob=0.3)
    labels = RankSEG(metric, solver="joint", pruning_prob=0.3)(probs)
    np.testing.assert_array_equal(shown.labels, labels[0])
    scores, plain = (expected_score(probs, one, metric)[0] for one in (labels, probs.argmax(1)))
    assert [row[0] for row in shown.rows] == ["a", "b", "c"]
    for number, row in enumerate(shown.rows):
        assert row[1] == str(int((probs.argmax(1) == number).sum()))
        assert row[2] == str(int((labels == number).sum()))
        assert row[4:] == [f"{plain[number].item():.3f}", f"{scores[number].item():.3f}"]
    assert {"dice": "Dice", "iou": "IoU"}[metric] in shown.summary


def test_pictures_show_the_labels_and_where_they_differ():
    probs = maps.softmax(1, 3, 32, 32)[0]
    shown = show(probs)
    times = len(shown.ours) // 32
    ours, plain, difference = (
        one[::times, ::times] for one in (shown.ours, shown.argmax, shown.difference)
    )
    differs = shown.labels != probs.argmax(0)
    np.testing.assert_array_equal((ours != plain).any(2), differs)
    np.testing.assert_array_equal((difference != 237).any(2), differs)
    assert 0 < differs.sum() < differs.size


def test_a_slice_of_a_volume_and_one_channel():
    volume = np.moveaxis(maps.softmax(1, 3, 32, 32)[0].reshape(3, 32, 8, 4), 1, 2)[:1]
    first, last = (show(volume, depth=depth) for depth in (0.0, 1.0))
    assert first.labels.shape == (8, 32, 4)
    assert first.ours.shape == last.ours.shape
    assert (first.ours != last.ours).any()


def test_without_gradio_the_error_says_what_to_install():
    try:
        import gradio  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'rankseg\[app\]'"):
            build()
