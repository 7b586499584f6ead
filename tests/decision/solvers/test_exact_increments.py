"""What one more pixel adds to the expected metric, by which ``exact`` shares pixels out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG, _backends, expected_score
from rankseg._decision.settings import Settings
from rankseg._decision.solvers import models as _models
from rankseg._decision.solvers.models import ExactLabels
from rankseg._formulas.bins import bin_of
from rankseg._formulas.objectives import OBJECTIVES
from support import exact_oracles as oracle
from support import maps

METRICS = ("dice", "iou")


def model_of(probs, metric, smooth):
    tensor = torch.from_numpy(probs)
    backend, _ = _backends.choose(tensor.device)
    opened = backend.open_maps(tensor, None)
    settings = Settings(metric, smooth, pruning_prob=0.0)
    return ExactLabels.build(
        backend,
        opened,
        backend.survey(opened),
        OBJECTIVES[metric](smooth),
        settings,
        torch.ones(tensor.shape[:2], dtype=torch.bool),
    )


def state_of(model, labels):
    labels = torch.from_numpy(labels)
    return (*model.tally(labels), model.profile(labels))


@pytest.mark.parametrize("smooth", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("metric", METRICS)
def test_increments_are_differences_of_enumerated_scores(metric, smooth):
    for seed in range(6):
        probs = maps.softmax(1, 3, 9, scale=2.0, seed=seed, dtype="float64")
        labels = np.random.default_rng(seed).integers(-1, 3, (1, 9))
        labels[:, :2] = -1  # pixels for every class to gain
        labels = np.where(labels == seed % 4, -1, labels)  # of some seeds, a class without any
        model = model_of(probs, metric, smooth)
        state = state_of(model, labels)
        lines = model.increment(state).lines.view(3, -1, 2)
        expectation = model.expectation(state)
        for label, values in enumerate(probs[0]):
            mask = labels[0] == label
            joined = np.flatnonzero(~mask)
            masks = np.array([mask, *(mask | (np.arange(9) == pixel) for pixel in joined)])
            scores = oracle.by_enumeration(metric, values, masks, smooth)
            points = torch.from_numpy(values[joined]).expand(3, -1)
            found = expectation.gains(points)[label].numpy()
            np.testing.assert_allclose(found, scores[1:] - scores[0], atol=1e-12)
            # In straight lines between the edges of bins they lose little.
            bins = bin_of(points[0])
            slope, toll = lines[label, bins].unbind(1)
            np.testing.assert_allclose((slope * points[0] - toll).numpy(), found, atol=3e-5)


@pytest.mark.parametrize("smooth", [0.0, 0.7])
@pytest.mark.parametrize("metric", METRICS)
def test_classes_of_both_sizes_gain_as_their_scores_rise(metric, smooth, monkeypatch):
    monkeypatch.setattr(_models, "EXACT_GAINS_BELOW", 30.0)
    probs = maps.softmax(1, 4, 200, scale=2.0, dtype="float64")
    probs *= np.array([1.0, 0.3, 0.1, 0.9])[:, None]
    model = model_of(probs, metric, smooth)
    assert 0 < len(model.rows) < 4
    labels = torch.from_numpy(probs.argmax(1))
    labels[:, :50] = -1
    state = state_of(model, labels.numpy())
    lines = model.increment(state).lines.view(4, -1, 2)
    bins = bin_of(torch.from_numpy(probs))
    before = expected_score(probs, labels.numpy(), metric, smooth)
    for pixel in range(5):
        for label in range(4):
            after = labels.clone()
            after[0, pixel] = label
            rise = expected_score(probs, after.numpy(), metric, smooth) - before
            piece = bins[0, label, pixel]
            slope, toll = lines[label, piece].tolist()
            gain = slope * probs[0, label, pixel] - toll
            allowed = 3e-5 if [0, label] in model.rows.tolist() else 1e-3
            assert gain == pytest.approx(rise[0, label], abs=allowed)


@pytest.mark.parametrize("metric", METRICS)
def test_labels_of_small_regions_are_expected_to_score_more_than_by_the_gains_of_rma(
    metric, monkeypatch
):
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(40, 5, 4, 5, generator=generator, dtype=torch.float64).mul(2).softmax(1)
    scores = []
    for limit in (100.0, 0.0):
        monkeypatch.setattr(_models, "EXACT_GAINS_BELOW", limit)
        labels = RankSEG(metric, solver="exact", pruning_prob=0.0)(probs)
        scores.append(expected_score(probs, labels, metric).mean(1))
    assert scores[0].mean() > scores[1].mean() + 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sure_pixel_gains_as_an_almost_sure_one(backend, dtype):
    labels = [
        RankSEG("dice", solver="exact", pruning_prob=0.0)(
            torch.tensor([[[0.84, p, 0.0], [0.16, 1 - p, 0.0]]], dtype=dtype)
        )
        for p in (1.0, 1 - 1e-7)
    ]
    assert torch.equal(*labels)


@pytest.mark.parametrize("most", [1, 2, 64])
def test_of_very_many_small_classes_the_largest_get_exact_gains(most, monkeypatch, backend):
    monkeypatch.setattr(_models, "MOST_EXACT_GAINS", most)
    probs = maps.softmax(2, 5, 40, scale=2.0, dtype="float64")
    model = model_of(probs, "dice", 0.0)
    volumes = probs.sum(2)
    for image in range(2):
        chosen = model.rows[model.rows[:, 0] == image, 1].tolist()
        assert sorted(chosen) == sorted(np.argsort(-volumes[image])[:most].tolist())
    labels = RankSEG(solver="exact", pruning_prob=0.0)(probs)
    assert labels.shape == (2, 40)
