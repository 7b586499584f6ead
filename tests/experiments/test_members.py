"""The labels for several maps of an image, against those of their mean."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("hydra")

from experiments.members import gains_of, members_labels, objective
from rankseg import RankSEG


def random_members(seed):
    """Return maps (3, 3, 40, 50) of members that differ in the volumes of the classes."""
    source = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, 3, 40, 50, generator=source)
    volumes = torch.randn(3, 3, 1, 1, generator=source)
    return (2 * shared + volumes + torch.randn(3, 3, 40, 50, generator=source)).softmax(1)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("seed", range(3))
def test_labels_score_more_than_those_of_the_mean_and_cannot_be_improved(metric, seed):
    members = random_members(seed)
    pixels = members.double().flatten(2)
    joint = RankSEG(metric, solver="joint", presence="argmax")(members.mean(0, keepdim=True))
    found = members_labels(members, metric).flatten()
    score, state = objective(pixels, found, metric)
    assert score > objective(pixels, joint.flatten(), metric)[0]
    assert (gains_of(pixels, *state, metric).argmax(0) != found).float().mean() < 0.002


def test_one_member_is_its_map():
    probs = (4 * torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))).softmax(1)
    joint = RankSEG("dice", solver="joint", presence="argmax")(probs)
    assert (members_labels(probs, "dice") != joint).float().mean() < 0.01


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_gains_are_the_derivative_of_the_objective(metric):
    pixels = torch.rand(3, 2, 5000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pixels /= pixels.sum(1, keepdim=True)
    labels = (pixels.mean(0)[1] > 0.6).long()
    before, state = objective(pixels, labels, metric)
    gains = gains_of(pixels, *state, metric)
    for place in range(20):
        changed = labels.clone()
        changed[place] = 1 - labels[place]
        rise = objective(pixels, changed, metric)[0] - before
        expected = gains[changed[place], place] - gains[labels[place], place]
        assert abs(rise - float(expected)) < 1e-6


@pytest.mark.parametrize(
    ("metric", "expected"), [("dice", 1.8 / 3.1 + 1.6 / 2.9), ("iou", 0.9 / 1.2 + 0.8 / 1.1)]
)
def test_the_objective_is_the_mean_of_those_of_the_members(metric, expected):
    pixels = torch.tensor([[[0.9, 0.2], [0.1, 0.8]]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    assert objective(pixels, labels, metric)[0] == pytest.approx(expected)
    other = torch.tensor([[[0.6, 0.3], [0.4, 0.7]]], dtype=torch.float64)
    both = objective(torch.cat([pixels, other]), labels, metric)[0]
    assert both == pytest.approx((expected + objective(other, labels, metric)[0]) / 2)
