"""Labels that share a factor: the best cut is found, and labels never score less than before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._decision.solvers import joint
from rankseg._formulas import profile
from rankseg._formulas.bins import bin_edges
from rankseg._formulas.correlation import factor_nodes, given_factor
from support import maps, oracles

NEAR = 1e-5
"""How much of the objective may be lost to bins, of which the profile does not see the inside."""

SHARED = 1e-4
"""How much less labels may score that are shared out by the published rule, a heuristic."""

CASES = list(itertools.product(("dice", "iou"), (0.0, 0.5, 30.0), (0.2, 0.5, 0.9, 0.99)))


def lost(values, metric, smooth, correlation, **options):
    """Return how much the mask of one class falls short of the best cut."""
    decide = RankSEG(metric, smooth, "multilabel", "RMA", 0.0, correlation=correlation)
    mask = decide(values[None, None], **options)[0, 0]
    best = oracles.correlated_scores(metric, values, smooth, correlation).max()
    return best - oracles.correlated_mask_score(metric, values, mask, smooth, correlation)


@pytest.mark.parametrize("pixels", [1, 2, 14, 300, 5000])
def test_masks_reach_the_best_cut(pixels, backend):
    rng = np.random.default_rng(pixels)
    for name, values in maps.adversarial(rng, pixels):
        for case in rng.permutation(len(CASES))[:4]:
            assert lost(values, *CASES[case]) < NEAR, (name, CASES[case])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_masks_of_networks_reach_the_best_cut(dtype, backend):
    for seed, case in enumerate(CASES[:12:3]):
        values = maps.smooth(1, 3, 64, seed, dtype)[0, seed % 3].ravel()
        assert lost(values, *case) < NEAR


def test_masks_of_crowds_within_a_bin_reach_the_best_cut(backend):
    rng = np.random.default_rng(0)
    crowds = {
        "in one bin": 0.3 + 1e-4 * rng.random(4000),
        "in two bins": 0.3 + 0.006 * rng.random(4000),
        "equal": np.full(4000, 0.3),
        "equal in two bins": rng.choice([0.301, 0.304], 4000),
        "and one more": np.append(np.full(4000, 0.3), 0.9),
    }
    for name, values in crowds.items():
        for likely in (0, 2500, 20000):  # so that the best cut falls within the crowd or not
            image = np.concatenate((values, rng.uniform(0.4, 1, likely)))
            for metric, correlation in itertools.product(("dice", "iou"), (0.2, 0.7)):
                assert lost(image, metric, 0.0, correlation) < NEAR, (name, likely)


@pytest.mark.parametrize("policy", ["max_score", "void"])
@pytest.mark.parametrize("solver", ["RMA", "joint"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_labels_never_score_less_than_the_published_ones(metric, solver, policy, backend):
    won = 0
    for seed, (smooth, correlation) in enumerate(itertools.product((0.0, 3.0), (0.2, 0.5, 0.9))):
        probs = maps.softmax(3, 4, 23, 31, seed=seed, dtype="float64")
        options = {"unassigned_policy": policy}
        ours = RankSEG(metric, smooth, solver=solver, correlation=correlation, **options)(probs)
        published = RankSEG(metric, smooth, solver="RMA", **options)(probs)
        for image, own, other in zip(probs, ours, published, strict=True):
            flat = image.reshape(4, -1)
            terms = metric, flat
            new = oracles.correlated_labelling_score(*terms, own, smooth, correlation)
            old = oracles.correlated_labelling_score(*terms, other, smooth, correlation)
            assert new >= old - (NEAR if solver == "joint" else SHARED)
            won += new > old + NEAR
    assert won > 9


def test_joint_never_scores_less_than_rma(backend):
    for metric, correlation in itertools.product(("dice", "iou"), (0.3, 0.8)):
        probs = maps.softmax(2, 5, 40, 40, seed=3, dtype="float64")
        scores = {}
        for solver in ("RMA", "joint"):
            labels = RankSEG(metric, solver=solver, correlation=correlation)(probs)
            scores[solver] = [
                oracles.correlated_labelling_score(metric, p.reshape(5, -1), q, 0.0, correlation)
                for p, q in zip(probs, labels, strict=True)
            ]
        assert (np.subtract(scores["joint"], scores["RMA"]) > -NEAR).all()
        assert sum(scores["joint"]) > sum(scores["RMA"]) + 1e-6


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_no_correlation_is_the_published_rule(metric, mode, backend):
    probs = maps.softmax(2, 4, 60, 70)
    published = RankSEG(metric, output_mode=mode, solver="RMA")(probs)
    assert np.array_equal(
        RankSEG(metric, output_mode=mode, solver="RMA", correlation=0.0)(probs), published
    )
    assert not np.array_equal(
        RankSEG(metric, output_mode=mode, solver="RMA", correlation=0.4)(probs), published
    )


def test_full_correlation_is_the_threshold_where_few_pixels_are_doubtful(backend):
    probs = maps.smooth(1, 1, 64)
    probs = 1 / (1 + np.exp(-4 * np.random.default_rng(0).normal(size=probs.shape)))
    mask = RankSEG("dice", output_mode="multilabel", correlation=0.9999)(probs)
    assert (mask != (probs > 0.5)).mean() < 0.02
    published = RankSEG("dice", output_mode="multilabel", solver="RMA")(probs)
    assert (published != (probs > 0.5)).mean() > 0.02


def test_pruned_classes_and_pixels_not_valid_do_not_count(backend):
    probs = maps.softmax(2, 3, 30, 40)
    valid = np.random.default_rng(0).random((2, 30, 40)) < 0.5
    for mode in ("multiclass", "multilabel"):
        decide = RankSEG(output_mode=mode, correlation=0.5, pruning_prob=0.97)
        masked = decide(probs, valid)
        alone = [decide(p[:, v][None])[0] for p, v in zip(probs, valid, strict=True)]
        inside = masked if mode == "multiclass" else masked.transpose(0, 2, 3, 1)
        for image, keep, expected in zip(inside, valid, alone, strict=True):
            assert np.array_equal(image[keep], np.moveaxis(expected, 0, -1))
            assert (image[~keep] == (255 if mode == "multiclass" else 0)).all()


def test_probabilities_given_the_factor_average_to_themselves():
    probs = torch.linspace(0, 1, 101, dtype=torch.float64)
    for correlation, error in ((0.0, 1e-14), (0.2, 1e-6), (0.5, 2e-4)):
        factor, weights = factor_nodes()
        given = given_factor(probs.unsqueeze(1), factor, correlation)
        assert torch.allclose(given @ weights, probs, rtol=0, atol=error)
    assert torch.equal(given[0], torch.zeros(15).double())
    assert torch.equal(given[-1], torch.ones(15).double())


def test_sums_over_bins_are_those_over_pixels():
    values = torch.from_numpy(maps.softmax(1, 1, 900, scale=9.0, dtype="float64")).view(-1)
    values = values / values.max()
    knots = bin_edges(torch.device("cpu")).unsqueeze(1).pow(torch.tensor([1.0, 2.0, 0.5]))
    curves = profile.Curves.through(knots)
    from rankseg._backends import torch_reference

    opened = torch_reference.open_maps(values.view(1, 1, -1), None)
    survey = torch_reference.survey(opened)
    row = torch.zeros(1, 2, dtype=torch.long)
    sums = curves.sums(torch_reference.profile(opened, survey, row))[0]
    exact = torch.stack([torch.ones_like(values), values, values, values**2, values.sqrt()]).sum(1)
    assert torch.allclose(sums, exact, rtol=1e-5, atol=0)
    assert torch.allclose(sums[:3], exact[:3], rtol=1e-12, atol=0)


@pytest.mark.parametrize("ulps", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_joint_ends_where_values_exceed_one_by_rounding(metric, dtype, ulps, backend, monkeypatch):
    steps = []

    def counted(relabelling, best, rising, step=joint._Relabelling.step):
        scores = relabelling.model.score(relabelling.model.tally(best[0]))
        steps.append(float(scores.min()))  # rounding must not make that of no pixels negative
        return step(relabelling, best, rising)

    monkeypatch.setattr(joint._Relabelling, "step", counted)
    high = 1 + ulps * torch.finfo(dtype).eps
    for rest in (1.0, high, 0.5, 0.0):
        probs = torch.tensor([[[high, 1.0], [high, rest]]], dtype=dtype)
        labels = RankSEG(metric, solver="joint", correlation=0.5)(probs)
        assert set(labels.unique().tolist()) <= {0, 1}
    assert len(steps) < 20
    assert min(steps) >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_exceeds_one_by_rounding_counts_as_one(dtype, backend):
    rng = np.random.default_rng(0)
    for metric in ("dice", "iou"):
        decide = RankSEG(metric, 0.5, "multilabel", "RMA", 0.0, correlation=0.5)
        probs = torch.from_numpy(rng.random((2, 3, 30)) ** 3).to(dtype)
        sure = torch.from_numpy(rng.random((2, 3, 30)) < 0.3)
        above = 1 + 3 * torch.finfo(dtype).eps
        expected = decide(probs.masked_fill(sure, 1.0))
        assert torch.equal(decide(probs.masked_fill(sure, above)), expected)
