"""BA and TRNA: scores term by term as in the paper, and masks that reach the largest of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankseg import RankSEG, rankdice_ba
from rankseg._decision.solvers.ba import ba_terms, gains, trna_terms
from rankseg._decision.solvers.volume import Volume
from support import maps, oracles

TERMS = {"BA": ba_terms, "TRNA": trna_terms}
SMOOTHS = (0.0, 1e-12, 0.3, 1.0, 1e3, 1e9)
EPSILONS = (1e-4, 1e-300, 1e-12, 0.1, 0.9, 1 - 1e-9)


def scores_of_the_solver(values, solver, smooth, eps, number):
    """Return the library's scores of the masks of 1 to ``number`` pixels, less that of none."""
    ranked = np.sort(np.asarray(values, np.float64))[::-1].copy()
    moments = oracles.volume_moments(ranked)
    volume = Volume(*moments, ranked.size, eps, torch.device("cpu"))
    terms = TERMS[solver](torch.from_numpy(ranked[:number]), volume)
    return np.concatenate([gain.numpy() for _, gain in gains(terms, volume, smooth)])


def assert_scores(values, solver, smooth, eps):
    expected = oracles.dice_scores(values, solver, smooth, eps)
    if expected.size > 1:
        scores = scores_of_the_solver(values, solver, smooth, eps, expected.size - 1)
        error = np.abs(scores - (expected[1:] - expected[0])).max()
        assert error <= 1e-12 * expected.max() + 1e-320  # denormal numbers round coarsely


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("solver", ["BA", "TRNA"])
def test_scores_are_those_of_the_paper(solver, smooth):
    rng = np.random.default_rng(5)
    for pixels in (1, 2, 3, 8, 30):
        for _, values in maps.adversarial(rng, pixels):
            assert_scores(values, solver, smooth, EPSILONS[rng.integers(len(EPSILONS))])


@pytest.mark.parametrize("solver", ["BA", "TRNA"])
@given(
    values=hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)),
    eps=st.sampled_from(EPSILONS),
    smooth=st.sampled_from(SMOOTHS) | st.floats(1e-12, 1e9),
)
def test_scores_of_any_map(solver, values, smooth, eps):
    assert_scores(values, solver, smooth, eps)


def crowds(rng):
    """Yield maps with every kind of pixel TRNA tells apart, sure, heavy and faint, and many."""
    yield "all sure or faint", np.where(rng.random(400) < 0.4, 1.0, 0.0) * (1 - 1e-7)
    sure, heavy = 1 - 10.0 ** rng.uniform(-9, -3, 200), rng.uniform(0.05, 0.95, 9)
    yield "few heavy", np.concatenate([sure, heavy, 10.0 ** rng.uniform(-9, -3, 200)])
    yield "heavy at the limit", np.concatenate([np.full(17, 0.5), np.ones(60), np.zeros(60)])
    yield "none heavy", rng.beta(0.4, 0.4, 400)
    yield "ones and a doubt", np.concatenate([np.ones(300), [0.3], np.full(99, 1e-9)])


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("solver", ["BA", "TRNA"])
def test_scores_of_many_pixels(solver, smooth):
    for _, values in crowds(np.random.default_rng(1)):
        assert_scores(values, solver, smooth, 1e-4)


def test_scores_of_a_large_image():
    # Many blocks of counts, against every term of (13) at some counts.
    rng = np.random.default_rng(2)
    for values in (rng.beta(0.2, 0.2, 300_000), 1e-4 * rng.random(300_000)):
        moments = oracles.volume_moments(values)
        volumes = oracles.volume_range(*moments, values.size, 1e-4)
        phi = oracles.volume_pmf(volumes, *moments)
        ranked = np.sort(values)[::-1]
        scores = scores_of_the_solver(values, "BA", 0.5, 1e-4, 200_000)
        none = (phi * 0.5 / (volumes + 0.5)).sum()
        for n in (1, 25, 26, 300, 16_384, 16_409, 77_777, 200_000):
            score = 2 * ranked[:n].sum() * (phi / (n + volumes + 1.5)).sum()
            score += 0.5 * (phi / (n + volumes + 0.5)).sum()
            assert scores[n - 1] == pytest.approx(score - none, abs=1e-12 * score, rel=0)


def assert_largest_score(values, mask, solver, smooth, eps):
    scores = oracles.dice_scores(values, solver, smooth, eps)
    assert mask.sum() < scores.size
    assert scores[mask.sum()] >= scores.max() * (1 - 1e-11)
    assert values[mask].min(initial=1) >= values[~mask].max(initial=0)


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("solver", ["BA", "TRNA"])
@pytest.mark.parametrize("dtype", maps.DTYPES)
def test_masks_reach_the_largest_score(backend, dtype, solver, smooth):
    rng = np.random.default_rng(7)
    for pixels, eps in ((1, 1e-4), (2, 0.5), (7, 0.01), (20, 1e-4)):
        rows = [values for _, values in maps.adversarial(rng, pixels)]
        probs = np.stack(rows)[None].astype(dtype)
        masks = rankdice_ba(probs, solver, smooth, eps, pruning_prob=0.0)
        for values, mask in zip(probs[0], masks[0], strict=True):
            assert_largest_score(values, mask, solver, smooth, eps)


@pytest.mark.parametrize("solver", ["BA", "TRNA"])
def test_equal_pixels_are_taken_together(backend, solver):
    # The oracle tries every number of them, and none scores more.
    rng = np.random.default_rng(8)
    for smooth in (0.0, 1.0, 30.0, 1e9):
        for pixels in (6, 14):
            probs = np.repeat(np.round(rng.random((1, 12, pixels // 2)) * 6) / 6, 2, axis=2)
            masks = rankdice_ba(probs, solver, smooth, pruning_prob=0.0)
            for values, mask in zip(probs[0], masks[0], strict=True):
                assert_largest_score(values, mask, solver, smooth, 1e-4)
                assert not set(values[mask]) & set(values[~mask])


@pytest.mark.parametrize("solver", ["BA", "TRNA"])
@pytest.mark.parametrize("smooth", [1e6, 1e9, 1e12])
def test_much_smoothing_keeps_the_order_of_close_candidates(backend, solver, smooth):
    # As smooth grows, smooth * (score - 1) tends to 2 C_n - n - mean: what exceeds 1/2 is taken.
    # In the scores themselves the last digit is worth 1e-16 smooth, far more than these differ.
    values = 0.5 + np.linspace(-1, 1, 40) * 2000 / smooth
    mask = rankdice_ba(np.float64(values)[None, None], solver, smooth, pruning_prob=0.0)[0, 0]
    np.testing.assert_array_equal(mask, values > 0.5)


def test_either_takes_ba_where_the_volume_is_wide(backend):
    rng = np.random.default_rng(3)
    narrow, wide = rng.beta(0.3, 0.3, (6, 120)), rng.beta(5, 5, (6, 120))
    differ = 0
    for probs, solver in ((narrow, "TRNA"), (wide, "BA")):
        assert ((probs * (1 - probs)).sum(1) > 25).all() == (solver == "BA")
        own, other = (rankdice_ba(probs[None], name) for name in ("BA", "TRNA"))
        either = rankdice_ba(probs[None], "BA+TRNA")
        np.testing.assert_array_equal(either, own if solver == "BA" else other)
        differ += (own != other).any()
    assert differ


def test_a_class_below_pruning_prob_is_empty(backend):
    probs = np.array([[[0.5, 0.4], [0.75, 0.4], [0.0, 0.0]]])
    masks = rankdice_ba(probs, pruning_prob=0.5)
    np.testing.assert_array_equal(masks, [[[0, 0], [1, 1], [0, 0]]])
    assert rankdice_ba(probs, pruning_prob=0.0)[0, :2].all()


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA"])
def test_half_precision_is_widened_exactly(backend, solver):
    probs = maps.softmax(2, 3, 900, dtype="float16")
    wide = rankdice_ba(probs.astype("float64"), solver)
    np.testing.assert_array_equal(rankdice_ba(probs, solver), wide)
    brain = torch.from_numpy(probs).bfloat16()
    assert torch.equal(rankdice_ba(brain, solver), rankdice_ba(brain.double(), solver))


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA"])
def test_backends_decide_alike_where_sums_are_exact(monkeypatch, solver):
    probs = maps.dyadic(2, 4, 70, 80)
    decided = []
    for name in ("numba", "torch"):
        monkeypatch.setenv("RANKSEG_BACKEND", name)
        decided.append(rankdice_ba(probs, solver, 0.5))
    np.testing.assert_array_equal(*decided)


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA"])
def test_one_channel_as_labels(backend, solver):
    probs = maps.softmax(2, 2, 30, 40)[:, 1:]
    masks = rankdice_ba(probs, solver, 0.5, 1e-3, 0.2)
    decide = RankSEG("dice", 0.5, "multiclass", solver, 0.2, eps=1e-3)
    labels = decide(probs)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, masks[:, 0])
    assert masks.any()
    assert not masks.all()


def test_probabilities_of_one_and_rounding_above(backend):
    ones = np.ones((1, 2, 5))
    assert rankdice_ba(ones, "TRNA").all()
    above = ones * (1 + 4 * np.finfo(float).eps)
    for solver in ("BA", "TRNA"):
        assert rankdice_ba(above, solver, 0.5).all()


def test_wider_tails_change_little():
    # What eps leaves out has that probability, and scores lie in [0, 2].
    values = np.random.default_rng(4).beta(0.4, 0.6, 200)
    wide, usual = (oracles.dice_scores(values, "BA", 0.0, eps) for eps in (1e-12, 1e-4))
    np.testing.assert_allclose(usual, wide, atol=2e-4)
    assert np.abs(usual - wide).max() > 1e-9
