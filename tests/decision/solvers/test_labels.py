"""Labels that do not overlap: the published rule, and the joint one that never scores less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankseg.functional import rankseg
from support import maps, oracles

PRUNING = (0.0, 0.4, 0.6, 1.0)


def published(probs, metric, smooth, pruning_prob, policy):
    """Return the labels of the slow rule, from the library's own masks."""
    masks = rankseg(probs, metric, smooth, "multilabel", "RMA", pruning_prob)
    return np.stack(
        [
            oracles.labels(
                metric, image, mask, image.max(1) > pruning_prob, smooth, policy, void=255
            )
            for image, mask in zip(probs, masks, strict=True)
        ]
    )


@pytest.mark.parametrize("pruning_prob", PRUNING)
@pytest.mark.parametrize("policy", ["max_score", "void"])
@pytest.mark.parametrize("smooth", [0.0, 0.7])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_labels_follow_the_published_rule(backend, metric, smooth, policy, pruning_prob):
    for seed, scale in enumerate((0.3, 1.0, 3.0, 8.0)):
        probs = maps.softmax(2, 5, 400, scale=scale, seed=seed, dtype="float64")
        options = {"pruning_prob": pruning_prob, "unassigned_policy": policy}
        labels = rankseg(probs, metric, smooth, solver="RMA", **options)
        expected = published(probs, metric, smooth, pruning_prob, policy)
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_labels_of_regions(backend, metric):
    # Large enough for blocks that lie wholly inside one mask, and to be shared between threads.
    probs = maps.smooth(2, 6, 192)
    flat = probs.reshape(2, 6, -1)
    expected = published(flat, metric, 0.0, 0.5, "max_score").reshape(2, 192, 192)
    np.testing.assert_array_equal(rankseg(probs, metric, solver="RMA"), expected)


def test_contested_and_unassigned_pixels_by_hand():
    # One pixel each is claimed alone: n = 1, S = 0.9 for both classes. The third is claimed by
    # both, the fourth by none; both classes gain alike but for p, so the larger p wins.
    probs = np.array([[[0.9, 0.0, 0.6, 0.02], [0.0, 0.9, 0.55, 0.03]]])
    masks = rankseg(probs, output_mode="multilabel")
    np.testing.assert_array_equal(masks[0], [[1, 0, 1, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(rankseg(probs), [[0, 1, 0, 1]])
    np.testing.assert_array_equal(rankseg(probs, unassigned_policy="void"), [[0, 1, 0, 255]])
    np.testing.assert_array_equal(
        rankseg(probs, unassigned_policy="void", void_index=-1), [[0, 1, 0, -1]]
    )
    np.testing.assert_array_equal(
        rankseg(probs, unassigned_policy="void", void_index=-2), [[0, 1, 0, -2]]
    )


def test_a_pruned_class_gets_no_pixel():
    probs = maps.softmax(1, 4, 500, scale=0.5)
    probs[:, 2] *= 0.1
    for solver in ("RMA", "joint"):
        labels = rankseg(probs, solver=solver, pruning_prob=float(probs[:, 2].max()))
        assert 2 not in labels
    assert 2 in rankseg(np.flip(probs, 1).copy(), pruning_prob=0.0)


def test_when_all_classes_are_pruned_every_class_may_have_a_pixel(backend):
    probs = maps.softmax(1, 3, 500, scale=0.1)
    for solver in ("RMA", "joint"):
        assert set(np.unique(rankseg(probs, solver=solver, pruning_prob=1.0))) == {0, 1, 2}
        void = rankseg(probs, solver=solver, pruning_prob=1.0, unassigned_policy="void")
        assert set(np.unique(void)) == {255}


@pytest.mark.parametrize("policy", ["max_score", "void"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
@given(seed=st.integers(0, 10_000), smooth=st.sampled_from([0.0, 0.5, 20.0]))
def test_joint_never_scores_less(metric, policy, seed, smooth):
    rng = np.random.default_rng(seed)
    probs = maps.softmax(1, int(rng.integers(2, 9)), 60, scale=rng.choice([0.3, 2, 6]), seed=seed)
    options = {"smooth": smooth, "unassigned_policy": policy, "pruning_prob": 0.3}
    scores = [
        oracles.labelling_score(
            metric, probs[0], rankseg(probs, metric, solver=s, **options), smooth
        )
        for s in ("RMA", "joint")
    ]
    assert scores[1] >= scores[0] - 1e-12


@pytest.mark.parametrize("smooth", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_joint_follows_the_steepest_class(backend, metric, smooth):
    moved = 0
    for seed in range(6):
        probs = maps.softmax(1, 8, 300, scale=1.2, seed=seed, dtype="float64")
        start = rankseg(probs, metric, smooth, solver="RMA", pruning_prob=0.2)[0]
        eligible = np.flatnonzero(probs[0].max(1) > 0.2)
        expected = oracles.joint_labels(metric, probs[0], start, smooth, eligible)
        labels = rankseg(probs, metric, smooth, solver="joint", pruning_prob=0.2)[0]
        np.testing.assert_array_equal(labels, expected)
        moved += (labels != start).sum()
    assert moved or smooth == 20.0  # so much smoothing leaves nothing to gain


def test_joint_scores_more_where_classes_compete(backend):
    probs = maps.softmax(1, 30, 4000, scale=1.5)
    scores = [
        oracles.labelling_score("dice", probs[0], rankseg(probs, solver=s, pruning_prob=0.1), 0.0)
        for s in ("RMA", "joint")
    ]
    assert scores[1] > scores[0] + 1e-4


@pytest.mark.parametrize("solver", ["RMA", "joint"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_backends_agree_bit_for_bit_where_sums_are_exact(monkeypatch, metric, solver):
    for dtype in maps.DTYPES:
        probs = maps.dyadic(2, 7, 5000, dtype=dtype)
        for policy in ("max_score", "void"):
            decided = []
            for name in ("native", "torch"):
                monkeypatch.setenv("RANKSEG_BACKEND", name)
                decided.append(rankseg(probs, metric, solver=solver, unassigned_policy=policy))
            np.testing.assert_array_equal(*decided)


def test_accuracy_is_argmax_or_one_half(backend):
    probs = maps.softmax(2, 9, 40, 50)
    np.testing.assert_array_equal(rankseg(probs, "acc"), probs.argmax(1))
    np.testing.assert_array_equal(rankseg(probs, "Accuracy", output_mode="multilabel"), probs > 0.5)
    one_hot = rankseg(probs, "acc", solver="argmax", output_mode="multilabel")
    np.testing.assert_array_equal(one_hot.argmax(1), probs.argmax(1))
    assert (one_hot.sum(1) == 1).all()


def test_ties_go_to_the_first_class(backend):
    probs = np.full((1, 4, 3000), 0.25, np.float32)
    assert (rankseg(probs, "acc") == 0).all()
