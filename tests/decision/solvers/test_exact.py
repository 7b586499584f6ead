"""The exact solver reaches the largest expected metric, whatever the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankseg import RankSEG
from rankseg._decision.solvers import exact
from rankseg.functional import rankseg
from support import exact_oracles as oracles
from support import maps
from support import oracles as rule

METRICS = ("dice", "iou")
SMOOTHS = (0.0, 1e-12, 1e-3, 0.5, 1.0, 40.0, 1e9)
ROUNDING = 1e-12


def exact_mask(values, metric, smooth):
    """Return the mask of one map of one class."""
    probs = np.asarray(values)[None, None]
    options = {"solver": "exact", "output_mode": "multilabel", "pruning_prob": 0.0}
    return rankseg(probs, metric, smooth, **options)[0, 0]


def assert_best(values, metric, smooth, scores):
    """Check the mask against the expected metric of every cut, n = 0 to N."""
    values = np.asarray(values)
    mask = exact_mask(values, metric, smooth)
    if mask.any() and not mask.all():
        assert values[mask].min() > values[~mask].max()
    assert scores[mask.sum()] >= scores.max() * (1 - ROUNDING)


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", METRICS)
def test_all_labels_enumerated(backend, metric, smooth):
    rng = np.random.default_rng(2)
    for pixels in (1, 2, 3, 6, 11):
        for _, values in maps.adversarial(rng, pixels):
            assert_best(values, metric, smooth, oracles.cuts_by_enumeration(metric, values, smooth))


@pytest.mark.parametrize("metric", METRICS)
def test_all_labels_of_fourteen_pixels(metric):
    rng = np.random.default_rng(4)
    for smooth, power in zip(SMOOTHS, (1, 2, 0.3, 5, 1, 12, 2), strict=True):
        values = rng.random(14) ** power
        assert_best(values, metric, smooth, oracles.cuts_by_enumeration(metric, values, smooth))


@pytest.mark.parametrize("smooth", [40.0, 1e5, 1e9, 1e30])
@pytest.mark.parametrize("metric", METRICS)
def test_a_large_smooth_drowns_no_difference(backend, metric, smooth):
    rng = np.random.default_rng(3)
    for pixels in (1, 2, 7, 12):
        for _, values in maps.adversarial(rng, pixels):
            lost = -smooth * oracles.cuts_by_enumeration(metric, values, smooth, less_one=True)
            mask = exact_mask(values, metric, smooth)
            assert lost[mask.sum()] <= lost.min() * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("smooth", [0.0, 0.7, 30.0])
@pytest.mark.parametrize("metric", METRICS)
def test_no_mask_of_any_shape_is_better(metric, smooth):
    rng = np.random.default_rng(5)
    every = np.array(list(np.ndindex(*[2] * 9)), bool)
    for values in (rng.random(9), rng.random(9) ** 4, rng.beta(0.2, 0.2, 9)):
        scores = oracles.by_enumeration(metric, values, every, smooth)
        mask = exact_mask(values, metric, smooth)
        reached = oracles.by_enumeration(metric, values, mask[None], smooth)
        assert reached[0] == pytest.approx(scores.max(), rel=1e-13)


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", maps.DTYPES)
def test_every_cut_of_hundreds_of_pixels(backend, dtype, metric, smooth):
    # Expected volumes on both sides of 100, where power sums replace the sort.
    rng = np.random.default_rng(7)
    for pixels in (40, 230, 420):
        for _, values in maps.adversarial(rng, pixels):
            values = values.astype(dtype)
            scores = oracles.cuts_by_distribution(metric, values, smooth)
            assert_best(values, metric, smooth, scores)


@pytest.mark.parametrize("smooth", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("metric", METRICS)
def test_every_cut_of_two_thousand_pixels(backend, metric, smooth):
    rng = np.random.default_rng(8)
    for values in (rng.random(2000), rng.beta(0.1, 0.4, 2000), rng.random(2000) ** 9):
        assert_best(values, metric, smooth, oracles.cuts_by_distribution(metric, values, smooth))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pixels", [30_000, 1_000_000])
def test_every_cut_of_a_million_pixels(metric, pixels):
    rng = np.random.default_rng(9)
    names = ("uniform", "crowd at the cut", "two humps", "near one")
    rows = dict(maps.adversarial(rng, pixels))
    for name in names if pixels < 100_000 else names[:1]:
        values = rows[name].astype("float32")
        scores = np.append(0.0, oracles.cuts_by_quadrature(metric, values, 0.0))
        assert_best(values, metric, 0.0, scores)


@pytest.mark.parametrize("metric", METRICS)
@given(
    values=hnp.arrays(
        np.float32, st.integers(1, 12), elements=st.floats(0, 1, width=32, allow_subnormal=True)
    ),
    smooth=st.sampled_from(SMOOTHS) | st.floats(0, 1e9),
)
def test_any_map(metric, values, smooth):
    assert_best(values, metric, smooth, oracles.cuts_by_enumeration(metric, values, smooth))


def lesion(pixels, volume, blur):
    """Return a small region on a background that expects as much: where RMA loses most."""
    distance = np.abs(np.arange(pixels) - pixels / 2)
    region = 0.5 - 0.5 * np.tanh((distance - volume / 2) / blur)
    return np.clip(0.6 * region + volume / pixels / 2, 0, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_regions_that_expect_a_few_pixels(backend, metric):
    for volume in (0.5, 1, 2, 3, 5, 20, 80):
        for blur in (0.1, 1, 5):
            values = lesion(400, volume, blur)
            scores = oracles.cuts_by_distribution(metric, values, 0.0)
            assert_best(values, metric, 0.0, scores)


def test_rma_falls_short_where_few_pixels_are_expected():
    values = np.array([0.9] + [0.2] * 14)
    scores = oracles.cuts_by_distribution("dice", values, 0.0)
    options = {"output_mode": "multilabel", "pruning_prob": 0.0, "solver": "RMA"}
    rma = rankseg(values[None, None], "dice", **options).sum()
    assert scores[exact_mask(values, "dice", 0.0).sum()] == scores.max()
    assert scores.max() - scores[rma] > 0.01


@pytest.mark.parametrize("smooth", [0.0, 0.01, 1.0, 25.0])
@pytest.mark.parametrize("metric", METRICS)
def test_the_bound_that_confines_the_search(metric, smooth):
    rng = np.random.default_rng(10)
    for pixels in (1, 4, 60, 300):
        for name, values in maps.adversarial(rng, pixels):
            scores = oracles.cuts_by_distribution(metric, values, smooth)
            mass = np.concatenate([[0.0], np.sort(values)[::-1].cumsum()])
            count, volume = np.arange(mass.size), mass[-1]
            gain, rest = (2 * mass, volume) if metric == "dice" else (mass, volume - mass)
            below = count + np.maximum(rest - 1, 0) + smooth
            covered = count + smooth >= 1
            bound = (gain + smooth)[covered] / below[covered]
            assert (scores[covered] <= bound * (1 + 1e-12)).all(), name
            if 0 < smooth < 1 and volume > 1e-9:
                assert scores[0] <= np.exp(-volume) + 2 * smooth / volume


def regions(seed=0):
    """Return maps of many blocks, with regions of some and of thousands of pixels."""
    probs = maps.smooth(2, 4, 160, seed=seed)
    small = np.zeros((2, 1, 160, 160), np.float32)
    small[:, :, 70:72, 80:83] = np.random.default_rng(seed).random((2, 1, 2, 3))
    return np.concatenate([probs, small + 1e-5], 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [0.0, 0.5])
def test_the_first_guess_of_the_bracket_does_not_matter(backend, monkeypatch, smooth, metric):
    decide = RankSEG(metric, smooth, "multilabel", "exact", 0.0)
    masks = decide(regions())
    for margin in (1e-4, 30.0):
        monkeypatch.setattr(exact, "MARGIN", margin)
        np.testing.assert_array_equal(decide(regions()), masks)


def test_rows_scanned_together_do_not_matter(backend, monkeypatch):
    decide = RankSEG("dice", 0.0, "multilabel", "exact", 0.0)
    masks = decide(regions())
    for values in (1, 700):
        monkeypatch.setattr(exact, "SCANNED_AT_ONCE", values)
        np.testing.assert_array_equal(decide(regions()), masks)


@pytest.mark.parametrize("smooth", [0.0, 0.5])
@pytest.mark.parametrize("metric", METRICS)
def test_regions_of_many_blocks(backend, metric, smooth):
    probs = regions(seed=1)
    masks = rankseg(probs, metric, smooth, "multilabel", "exact", 0.0)
    for values, mask in zip(probs.reshape(10, -1), masks.reshape(10, -1), strict=True):
        scores = np.append(-1.0, oracles.cuts_by_quadrature(metric, values, smooth))
        assert values[mask].min() > values[~mask].max()
        assert scores[mask.sum()] >= scores.max() * (1 - ROUNDING)


def test_classes_below_pruning_prob_are_left_out(backend):
    probs = regions() * 0.7
    masks = rankseg(probs, "dice", 0.0, "multilabel", "exact", 0.0)
    pruned = rankseg(probs, "dice", 0.0, "multilabel", "exact", 0.69)
    kept = probs.reshape(2, 5, -1).max(2) > 0.69
    assert 0 < kept.sum() < 10
    np.testing.assert_array_equal(pruned, masks & kept[..., None, None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("metric", METRICS)
def test_probabilities_a_rounding_above_one_count_as_one(backend, metric, dtype):
    ones = torch.ones(1, 1, 3, dtype=dtype)
    probs = torch.cat([ones, torch.full((1, 1, 5), 0.3, dtype=dtype)], 2)
    above = probs.clone()
    above[..., :3] = 1 + 4 * torch.finfo(dtype).eps
    decide = RankSEG(metric, 0.0, "multilabel", "exact")
    assert torch.equal(decide(above), decide(probs))


@pytest.mark.parametrize("metric", METRICS)
def test_one_channel_as_labels(backend, metric):
    probs = regions()[:, :1]
    masks = rankseg(probs, metric, 0.5, "multilabel", "exact")
    labels = rankseg(probs, metric, 0.5, "multiclass", "exact")
    np.testing.assert_array_equal(labels, masks[:, 0])
    valid = probs[:, 0] < 0.9
    voided = rankseg(probs, metric, 0.5, "multiclass", "exact", valid=valid, void_index=7)
    assert (voided[~valid] == 7).all()


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("policy", ["max_score", "void"])
@pytest.mark.parametrize("smooth", [0.0, 0.5])
def test_several_classes_share_pixels_by_the_published_rule(metric, smooth, policy):
    probs = maps.softmax(3, 4, 15, 20, dtype="float64")
    options = {"pruning_prob": 0.6, "unassigned_policy": policy}
    labels = RankSEG(metric, smooth, solver="exact", **options)(probs)
    masks = RankSEG(metric, smooth, "multilabel", "exact", 0.6)(probs)
    for image, own, decided in zip(probs.reshape(3, 4, -1), masks, labels, strict=True):
        kept = image.max(1) > 0.6
        expected = rule.labels(metric, image, own.reshape(4, -1), kept, smooth, policy)
        np.testing.assert_array_equal(decided.ravel(), expected)


def test_options_it_does_not_take():
    with pytest.raises(TypeError, match="takes the options \\['presence'\\], got"):
        RankSEG("dice", solver="exact", output_mode="multilabel", void_index=3)
    with pytest.raises(ValueError, match="does not decide metric='acc'"):
        RankSEG("acc", solver="exact", output_mode="multilabel")


@pytest.mark.parametrize("wrong", [-1.0, 2.5, float("nan"), float("inf")])
def test_values_that_are_no_probabilities(backend, wrong):
    probs = regions()
    probs[1, 2, 3, 4] = wrong
    with pytest.raises(ValueError, match="probs must"):
        rankseg(probs, solver="exact", output_mode="multilabel")
