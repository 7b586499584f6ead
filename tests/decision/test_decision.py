"""What `decide` tells beside the prediction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rankseg import RankSEG, expected_score
from support import maps

OPTIONS = [
    {},
    {"metric": "iou", "smooth": 0.5, "unassigned_policy": "void"},
    {"solver": "joint"},
    {"solver": "exact"},
    {"correlation": 0.5},
    {"output_mode": "multilabel"},
    {"output_mode": "multilabel", "solver": "exact", "metric": "iou"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_tells_what_the_parts_tell(options):
    probs = torch.from_numpy(maps.softmax(2, 3, 20, 30))
    valid = torch.rand(2, 20, 30, generator=torch.manual_seed(0)) < 0.8
    decide = RankSEG(**options)
    told = decide.decide(probs, valid)
    settings = decide.settings
    prediction = decide(probs, valid)
    terms = {"valid": valid, "correlation": settings.correlation}
    assert torch.equal(told.prediction, prediction)
    score = expected_score(probs, prediction, settings.metric, settings.smooth, **terms)
    assert torch.equal(told.expected, score)
    multiclass = settings.output_mode == "multiclass"
    baseline = probs.argmax(1) if multiclass else probs > 0.5
    score = expected_score(probs, baseline, settings.metric, settings.smooth, **terms)
    assert torch.allclose(told.expected_argmax, score)
    for label in range(3):
        pixels = prediction == label if multiclass else prediction[:, label]
        assert torch.equal(told.volume[:, label], (pixels & valid).flatten(1).sum(1))
    if not multiclass:
        above = (probs.double() > told.cut[..., None, None]) & valid[:, None]
        assert torch.equal(above, prediction)
        assert torch.allclose(told.upper_bound, told.expected_mean)
    assert torch.allclose(told.expected_gain, told.expected.mean(1) - score.mean(1))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_nothing_is_expected_to_score_more_than_the_bound(metric):
    probs = maps.softmax(4, 3, 19, 19, dtype="float64") * np.array([0.1, 1, 6]).reshape(3, 1, 1)
    probs /= probs.sum(1, keepdims=True)
    bound = RankSEG(metric, solver="exact", pruning_prob=0.0).decide(probs).upper_bound
    for solver in ("RMA", "joint", "exact"):
        told = RankSEG(metric, solver=solver, pruning_prob=0.0).decide(probs)
        assert (told.expected.mean(1) <= bound + 1e-12).all()
        assert (told.expected_argmax.mean(1) <= bound + 1e-12).all()
        assert (told.expected_gain > 0).all()


def test_one_channel_and_arrays():
    probs = maps.softmax(2, 2, 20, 30)[:, 1:]
    told = RankSEG().decide(probs)
    assert all(isinstance(getattr(told, f.name), np.ndarray) for f in dataclasses.fields(told))
    assert told.expected.shape == told.volume.shape == told.cut.shape == (2, 1)
    assert np.array_equal(told.volume[:, 0], (told.prediction == 1).sum((1, 2)))


def test_absent_classes_count_in_no_mean():
    probs = maps.softmax(1, 3, 20, 20)
    probs[:, 2] *= 0.4
    told = RankSEG(output_mode="multilabel").decide(probs)
    assert told.present.tolist() == [[True, True, False]]
    assert told.expected_mean == pytest.approx(told.expected[:, :2].mean(1))


def test_a_record_cannot_be_changed():
    told = RankSEG().decide(maps.softmax(1, 3, 9))
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.cut = 0


def test_accuracy_has_no_expected_score():
    with pytest.raises(ValueError, match="metric must be 'dice' or 'iou'"):
        RankSEG("acc").decide(maps.softmax(1, 3, 9))


def test_correlations_that_need_factors_without_end_are_refused_before_the_work():
    with pytest.raises(ValueError, match=r"correlation must be in \[0, 0.999999\], got 0.99999999"):
        RankSEG(correlation=1 - 1e-8).decide(np.full((1, 2, 3), np.nan))
