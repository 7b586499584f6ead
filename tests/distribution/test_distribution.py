"""The volume's distribution: against enumeration, convolution, the formula, and each other."""

from __future__ import annotations

import itertools
import math
import pickle
import subprocess
import sys
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings

import rankseg
from rankseg._formulas.refined_normal import refined_normal_cdf, refined_normal_pdf
from rankseg.distribution import PoissonBinomial, RefinedNormal, RefinedNormalPB
from support.maps import adversarial

DOUBLE = torch.float64
ADVERSARIAL = [name for name, _ in adversarial(np.random.default_rng(0), 1)]
SKEWS = [0.0, 0.1, -0.3, 1.0, -2.0, 3.0, 3.1, -3.1, 5.0, -8.0, 72.0, -1e6]


@pytest.fixture(autouse=True)
def _values_are_checked():
    """Check values as torch does from the start: its compiler turns that off for good."""
    torch.distributions.Distribution.set_default_validate_args(True)


def tensor(values):
    return torch.tensor(values, dtype=DOUBLE)


def adversarial_probs(name, pixels, seed=0):
    return dict(adversarial(np.random.default_rng(seed), pixels))[name]


# The oracles: all outcomes one by one, one convolution after another, the formula on a fine grid.


def enumerated(probs):
    """Return P(Y = k) from the probability of each of the 2^N outcomes."""
    table = np.zeros(len(probs) + 1)
    for labels in itertools.product([0, 1], repeat=len(probs)):
        table[sum(labels)] += math.prod(
            p if label else 1 - p for p, label in zip(probs, labels, strict=True)
        )
    return table


def convolved(probs):
    """Return P(Y = k) by adding one label at a time, in extended precision."""
    table = np.zeros(len(probs) + 1, np.longdouble)
    table[0] = 1
    for p in probs.astype(np.longdouble):
        table[1:] = table[1:] * (1 - p) + table[:-1] * p
        table[0] *= 1 - p
    return table


def volkova(x, skew):
    """Return F(x), written from the paper."""
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return math.erfc(-x / math.sqrt(2)) / 2 + skew * (1 - x * x) * density / 6


def proper(x, skew):
    """Return the largest F up to each of many increasing ``x``, within [0, 1]."""
    return np.clip(np.maximum.accumulate([volkova(point, skew) for point in x]), 0, 1)


GRID = np.linspace(-9, 9, 20001)


# PoissonBinomial: probabilities


@given(st.lists(st.floats(0, 1), max_size=10))
@settings(max_examples=40)
def test_pmf_is_that_of_all_outcomes(probs):
    exact = PoissonBinomial(tensor(probs))
    table = exact.pmf(exact.enumerate_support())
    assert table.dtype == DOUBLE
    # Other libraries may have told this thread to take subnormal numbers for 0.
    np.testing.assert_allclose(table.numpy(), enumerated(probs), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("pixels", [1, 2, 12])
def test_pmf_is_that_of_all_outcomes_on_adversarial_maps(name, pixels):
    probs = adversarial_probs(name, pixels)
    exact = PoissonBinomial(tensor(probs))
    table = exact.pmf(exact.enumerate_support()).numpy()
    np.testing.assert_allclose(table, enumerated(probs), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("pixels", [257, 600, 2000])
def test_pmf_and_cdf_of_long_sums_keep_their_absolute_accuracy(name, pixels):
    probs = adversarial_probs(name, pixels)
    exact, expected = PoissonBinomial(tensor(probs)), convolved(probs)
    k = exact.enumerate_support()
    assert np.abs(exact.pmf(k).numpy() - expected).max() < 1e-15
    assert np.abs(exact.cdf(k).numpy() - expected.cumsum()).max() < 3e-15


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_pmf_of_short_sums_keeps_its_relative_accuracy(name):
    probs = adversarial_probs(name, 256)
    exact, expected = PoissonBinomial(tensor(probs)), convolved(probs)
    table = exact.pmf(exact.enumerate_support()).numpy()
    np.testing.assert_allclose(table, expected.astype(float), rtol=1e-13, atol=1e-290)


def test_rounding_of_many_factors_is_divided_out():
    # 1 - 1e-9 is rounded up by 2.7e-17, 256 times.
    none = PoissonBinomial(torch.full((256,), 1e-9, dtype=DOUBLE)).pmf(0)
    assert none.item() == pytest.approx(math.exp(256 * math.log1p(-1e-9)), rel=1e-15)


@pytest.mark.parametrize("p", [1e-5, 0.3, 0.97])
def test_a_hundred_thousand_labels_keep_the_accuracy_that_is_promised(p):
    exact = PoissonBinomial(torch.full((100_000,), p, dtype=DOUBLE))
    k = exact.enumerate_support()
    expected = scipy.stats.binom(100_000, p)
    assert np.abs(exact.pmf(k).numpy() - expected.pmf(k)).max() < 1e-14
    assert np.abs(exact.cdf(k).numpy() - expected.cdf(k)).max() < 1e-13


def test_order_of_labels_does_not_matter_for_a_long_sum():
    probs = tensor(np.random.default_rng(0).beta(0.1, 0.3, 5000))
    one, other = PoissonBinomial(probs), PoissonBinomial(probs.sort().values)
    k = one.enumerate_support()
    torch.testing.assert_close(one.pmf(k), other.pmf(k), rtol=0, atol=1e-15)


@pytest.mark.parametrize("pixels", [1, 5, 256, 257, 3000])
def test_certain_labels_give_one_value(pixels):
    probs = torch.arange(pixels) % 3 != 0
    exact = PoissonBinomial(probs.float())
    k = exact.enumerate_support()
    assert torch.equal(exact.pmf(k), (k == probs.sum()).double())
    assert torch.equal(exact.cdf(k), (k >= probs.sum()).double())
    assert torch.equal(exact.sample((7,)), probs.sum().expand(7))
    assert exact.variance == exact.skewness == exact.stddev == 0


def test_values_that_certain_labels_rule_out_have_no_probability():
    probs = torch.cat([torch.ones(300), torch.zeros(300), torch.full((400,), 0.5)])
    exact = PoissonBinomial(probs)
    impossible = torch.cat([torch.arange(300), torch.arange(701, 1001)])
    assert not exact.pmf(impossible).any()
    assert exact.pmf(500) > 0.03


def test_sum_of_no_labels_is_nothing():
    exact = PoissonBinomial(torch.zeros(2, 0))
    assert exact.pmf(torch.tensor([[-1], [0], [1]])).tolist() == [[0, 0], [1, 1], [0, 0]]
    assert exact.cdf(0).tolist() == [1, 1]
    assert exact.mean.tolist() == exact.variance.tolist() == exact.skewness.tolist() == [0, 0]


@pytest.mark.parametrize("pixels", [3, 600])
def test_empty_batch(pixels):
    exact = PoissonBinomial(torch.rand(0, pixels))
    assert exact.pmf(1).shape == exact.cdf(1).shape == exact.skewness.shape == (0,)
    assert exact.sample((4,)).shape == (4, 0)
    assert RefinedNormalPB.from_probs(torch.rand(0, pixels)).interval(0.1)[0].shape == (0,)


def test_one_pixel_is_bernoulli():
    exact = PoissonBinomial(torch.tensor([0.25]))
    assert exact.pmf(exact.enumerate_support()).tolist() == [0.75, 0.25]
    assert exact.mean == 0.25
    assert exact.variance == 0.1875
    assert exact.skewness.item() == pytest.approx(0.5 / math.sqrt(0.1875), rel=1e-14)


def test_any_real_number_may_be_scored():
    exact = PoissonBinomial(tensor([0.5, 0.5]))
    values = tensor([-math.inf, -0.5, 0, 0.5, 2, 2.5, 3, math.inf])
    assert exact.pmf(values).tolist() == [0, 0, 0.25, 0, 0.25, 0, 0, 0]
    assert exact.cdf(values).tolist() == [0, 0, 0.25, 0.25, 1, 1, 1, 1]
    assert exact.pmf(1) == 0.5
    assert exact.cdf([0, 1]).tolist() == [0.25, 0.75]
    assert exact.pmf(np.array([1.0], dtype=np.float16)).tolist() == [0.5]


def test_log_prob_is_the_logarithm_of_the_pmf_within_the_support():
    exact = PoissonBinomial(tensor([0.5, 0.0, 0.3]))
    k = exact.enumerate_support()
    assert torch.equal(exact.log_prob(k), exact.pmf(k).log())
    assert exact.log_prob(k)[3] == -math.inf
    for outside in (-1, 4, 0.5):
        with pytest.raises(ValueError, match="within the support"):
            exact.log_prob(torch.tensor(outside))
    assert PoissonBinomial(exact.probs, validate_args=False).log_prob(tensor(4)) == -math.inf


def test_equal_probabilities_are_binomial():
    exact = PoissonBinomial(torch.full((2, 40), 0.3, dtype=DOUBLE))
    binomial = torch.distributions.Binomial(40, tensor([0.3, 0.3]))
    k = torch.arange(41)[:, None]
    torch.testing.assert_close(exact.log_prob(k), binomial.log_prob(k.double()))
    torch.testing.assert_close(exact.mean, binomial.mean)
    torch.testing.assert_close(exact.variance, binomial.variance)


@pytest.mark.parametrize("pixels", [7, 300])
def test_probabilities_can_be_differentiated(pixels):
    probs = tensor(np.random.default_rng(1).random(pixels)).requires_grad_()
    k = pixels // 2
    PoissonBinomial(probs).pmf(k).backward()
    rest = PoissonBinomial(probs.detach()[1:])
    # P(Y = k) = p P(rest = k - 1) + (1 - p) P(rest = k)
    torch.testing.assert_close(probs.grad[0], rest.pmf(k - 1) - rest.pmf(k), rtol=1e-9, atol=1e-15)


# PoissonBinomial: moments, draws, shapes


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_moments_are_those_of_the_definition(name, dtype):
    probs = adversarial_probs(name, 200).astype(dtype)
    exact = PoissonBinomial(torch.from_numpy(probs))
    k, weight = np.arange(201), convolved(probs.astype(float))
    mean = (k * weight).sum()
    variance = ((k - mean) ** 2 * weight).sum()
    assert exact.mean.item() == pytest.approx(float(mean), rel=1e-12)
    assert exact.variance.item() == pytest.approx(float(variance), rel=1e-9, abs=1e-15)
    assert torch.equal(exact.stddev, exact.variance.sqrt())
    if variance > 1e-4:
        skewness = ((k - mean) ** 3 * weight).sum() / variance**1.5
        assert exact.skewness.item() == pytest.approx(float(skewness), rel=1e-6, abs=1e-9)
    assert exact.skewness.isfinite()


def test_skewness_of_tiny_probabilities_does_not_underflow():
    # One label of probability p has the skewness (1 - 2 p) / sqrt(p (1 - p)), p^-1/2 for small p.
    skewness = PoissonBinomial(tensor([1e-250])).skewness
    assert skewness.item() == pytest.approx(1e125, rel=1e-12)


def test_half_precision_does_not_overflow():
    exact = PoissonBinomial(torch.ones(70_000, dtype=torch.float16))
    assert exact.mean == 70_000
    assert exact.cdf(torch.tensor(60_000, dtype=torch.float16)) == 0


def test_draws_follow_the_pmf():
    torch.manual_seed(0)
    exact = PoissonBinomial(tensor([[0.9, 0.5, 0.1], [0.0, 0.2, 1.0]]))
    draws = exact.sample((20_000,))
    assert draws.shape == (20_000, 2)
    assert draws.dtype == torch.int64
    for k in range(4):
        deviation = (exact.pmf(k) * (1 - exact.pmf(k)) / 20_000).sqrt()
        assert (((draws == k).double().mean(0) - exact.pmf(k)).abs() <= 5 * deviation).all()
    assert exact.sample().shape == (2,)
    assert exact.sample((0, 3)).shape == (0, 3, 2)
    assert exact.sample((4, 3)).shape == (4, 3, 2)
    many = PoissonBinomial(tensor(np.tile(exact.probs.numpy(), (1, 300)))).sample((50,))
    assert (many[:, 1] >= 300).all()


def test_the_least_draw_is_still_possible(monkeypatch):
    monkeypatch.setattr(torch, "rand", torch.zeros)
    assert PoissonBinomial(tensor([1.0, 0.5])).sample() == 1


def test_support_is_the_integers_up_to_the_number_of_labels():
    exact = PoissonBinomial(torch.rand(2, 3, 4))
    assert exact.batch_shape == (2, 3)
    assert exact.event_shape == ()
    assert exact.enumerate_support().shape == (5, 2, 3)
    assert exact.enumerate_support(expand=False).shape == (5, 1, 1)
    assert exact.enumerate_support()[:, 1, 2].tolist() == [0, 1, 2, 3, 4]
    assert exact.support.is_discrete
    assert exact.support.check(torch.tensor([-1, 0, 4, 5])).tolist() == [False, True, True, False]


def test_batches_are_images_one_by_one():
    probs = torch.rand(2, 3, 700, generator=torch.Generator().manual_seed(0))
    exact = PoissonBinomial(probs)
    table = exact.pmf(exact.enumerate_support())
    for b, c in itertools.product(range(2), range(3)):
        alone = PoissonBinomial(probs[b, c])
        expected = alone.pmf(alone.enumerate_support())
        torch.testing.assert_close(table[:, b, c], expected, rtol=0, atol=1e-16)
    assert exact.pmf(torch.full((5, 1, 3), 350)).shape == (5, 2, 3)


@pytest.mark.parametrize("computed", [False, True])
def test_expand_repeats_the_batch(computed):
    exact = PoissonBinomial(torch.rand(3, 4))
    if computed:
        exact.cdf(1)
    wide = exact.expand((2, 3))
    assert type(wide) is PoissonBinomial
    assert wide.batch_shape == wide.mean.shape == (2, 3)
    assert wide.support.upper_bound == 4
    for k in range(5):
        assert torch.equal(wide.pmf(k), exact.pmf(k).expand(2, 3))
        assert torch.equal(wide.cdf(k), exact.cdf(k).expand(2, 3))
    assert wide.sample((5,)).shape == (5, 2, 3)


# RefinedNormalPB


@pytest.mark.parametrize("skew", SKEWS)
def test_cdf_is_the_formula_made_a_distribution(skew):
    refined = RefinedNormalPB(100, tensor(30.0), tensor(2.0), tensor(skew))
    cdf = refined.cdf(tensor(30 - 0.5 + 2 * GRID))
    # The grid meets the top of a hill to 1e-7 of its height.
    expected = proper(GRID, skew)
    np.testing.assert_allclose(cdf.numpy(), expected, rtol=1e-12, atol=1e-6 if skew else 1e-15)
    assert (cdf.diff() >= -1e-15).all()
    assert cdf.amin() >= 0
    assert cdf.amax() <= 1


@pytest.mark.parametrize("skew", SKEWS)
def test_pdf_is_the_derivative_of_the_cdf(skew):
    loc, scale = 30.0, 2.0
    refined = RefinedNormalPB(100, tensor(loc), tensor(scale), tensor(skew))
    values = tensor(loc - 0.5 + scale * GRID[::20]).requires_grad_()
    refined.cdf(values).sum().backward()
    torch.testing.assert_close(refined.pdf(values).detach(), values.grad, rtol=1e-12, atol=1e-15)
    assert (refined.pdf(values) >= 0).all()


@pytest.mark.parametrize("x", [-12.0, 12.0])
def test_pdf_reaches_as_far_out_as_float64(x):
    refined = RefinedNormalPB(100, tensor(0.5), tensor(1.0), tensor(0.0))
    assert refined.pdf(x).item() == pytest.approx(scipy.stats.norm.pdf(x), rel=1e-12, abs=0)


def test_bare_formulas_reach_the_ends_of_the_real_line():
    x, skew = tensor([-math.inf, -1e200, -45, 45, 1e200, math.inf]), tensor(0.3)
    assert refined_normal_cdf(x, skew).tolist() == [0, 0, 0, 1, 1, 1]
    assert refined_normal_pdf(x, skew).tolist() == [0] * 6


def test_bare_formulas_are_not_clamped():
    x = tensor(GRID[::50])
    for skew in (0.3, -2.0, 5.0):
        expected = [volkova(point, skew) for point in x.tolist()]
        cdf = refined_normal_cdf(x, tensor(skew))
        np.testing.assert_allclose(cdf, expected, rtol=1e-12, atol=1e-15)
        assert cdf.amin() < 0 or cdf.amax() > 1
        slope = torch.autograd.functional.jvp(
            lambda x, skew=skew: refined_normal_cdf(x, tensor(skew)), x, torch.ones_like(x)
        )[1]
        torch.testing.assert_close(refined_normal_pdf(x, tensor(skew)), slope)


def test_pmf_is_never_negative_by_rounding():
    refined = RefinedNormalPB(1000, tensor(0.0), tensor(100.0), tensor(-0.01))
    k = torch.linspace(700, 850, 10_001, dtype=DOUBLE)
    assert (refined.pmf(k) >= 0).all()
    assert (refined.cdf(k) < refined.cdf(k - 1)).any(), "no longer tests anything"


@pytest.mark.parametrize("skew", SKEWS)
def test_pmf_is_a_difference_of_the_cdf(skew):
    refined = RefinedNormalPB(20, tensor(6.0), tensor(1.7), tensor(skew))
    k = torch.arange(-20, 41)
    pmf = refined.pmf(k)
    torch.testing.assert_close(pmf, refined.cdf(k) - refined.cdf(k - 1), rtol=0, atol=2e-16)
    assert (pmf >= 0).all()
    assert pmf.sum().item() == pytest.approx(1, abs=1e-15)


def test_values_of_the_published_package():
    refined = RefinedNormalPB(10, 3.0, 1.5, 0.3)
    k = torch.tensor([0, 1, 2, 3, 4, 10, 11, -1])
    cdf = [0.0389, 0.1587, 0.3862, 0.6473, 0.8413, 1.0000, 1.0000, 0.0040]
    pmf = [3.4960e-02, 1.1971e-01, 2.2756e-01, 2.6112e-01, 1.9401e-01, 3.4928e-05]
    pdf = [6.7546e-02, 1.7745e-01, 2.6370e-01, 2.3948e-01, 1.4518e-01, 6.4425e-06]
    torch.testing.assert_close(refined.cdf(k), torch.tensor(cdf), rtol=0, atol=5e-5)
    torch.testing.assert_close(refined.pmf(k)[:6], torch.tensor(pmf), rtol=2e-3, atol=0)
    torch.testing.assert_close(refined.pdf(k)[:6], torch.tensor(pdf), rtol=1e-3, atol=0)
    assert refined.icdf(torch.tensor(0.5)).item() == pytest.approx(2.4252, abs=1e-4)
    first, last = refined.interval(torch.tensor([0, 0.1, 0.5, 0.9, 1]))
    assert first.tolist() == [0, 0, 0, 1, 1]
    assert last.tolist() == [10, 6, 4, 4, 3]


@pytest.mark.parametrize("skew", SKEWS)
def test_icdf_inverts_the_cdf(skew):
    refined = RefinedNormalPB(100, tensor(30.0), tensor(2.0), tensor(skew))
    p = tensor([1e-12, 1e-6, 0.01, 0.3, 0.5, 0.7, 0.99, 1 - 1e-9])
    value = refined.icdf(p)
    torch.testing.assert_close(refined.cdf(value), p, rtol=1e-7 * max(1, abs(skew)), atol=1e-15)
    assert (refined.cdf(value - 1e-9 * value.abs()) < p).all(), "a smaller value reaches p"


def test_icdf_is_the_normal_quantile_without_skewness_even_far_out():
    refined = RefinedNormalPB(100, tensor(0.5), tensor(1.0), tensor(0.0))
    p = [1e-300, 1e-100, 1e-20, 1e-3, 0.5, 0.999]
    expected = scipy.stats.norm.ppf(p)
    np.testing.assert_allclose(refined.icdf(tensor(p)), expected, rtol=1e-12, atol=1e-15)


def quantile(p, skew):
    """Return the first x of a fine grid where the proper distribution function reaches p."""
    return GRID[np.argmax(proper(GRID, skew) >= p)]


@pytest.mark.parametrize("skew", [0.0, 0.3, -0.8, 2.0])
def test_interval_rounds_the_quantiles_outwards(skew):
    for loc in (3.3, 11.75, 19.6):
        refined = RefinedNormalPB(20, loc, 2.3, skew)
        for p in (1e-6, 0.01, 0.2, 0.9):
            low, high = (loc + 2.3 * quantile(tail, skew) for tail in (p / 2, 1 - p / 2))
            first, last = refined.interval(p)
            assert first.item() == min(max(math.floor(low) - 1, 0), 20)
            assert last.item() == min(max(math.ceil(high), 0), 20)


@given(
    st.integers(1, 500),
    st.floats(0.02, 100),
    st.floats(-30, 30),
    st.floats(0, 1),
    st.floats(1e-9, 1),
)
def test_interval_leaves_out_no_more_than_the_mass_allowed(dim, scale, skew, place, p):
    refined = RefinedNormalPB(dim, tensor(place * dim), tensor(scale), tensor(skew))
    first, last = refined.interval(p)
    assert 0 <= first <= last <= dim
    below = refined.cdf(first - 1) if first > 0 else 0.0
    above = 1 - refined.cdf(last) if last < dim else 0.0
    assert below <= p / 2 + 1e-12
    assert above <= p / 2 + 1e-12


@pytest.mark.parametrize("skew", [0.0, 0.3, -0.3])
def test_interval_at_the_ends_of_what_may_be_left_out(skew):
    refined = RefinedNormalPB(1_000_000, tensor(3e5), tensor(100.0), tensor(skew))
    assert [end.item() for end in refined.interval(0)] == [0, 1_000_000]
    widths = []
    for p in (1e-300, 1e-17, 1e-6, 0.5, 1 - 1e-12, 1):
        first, last = refined.interval(p)
        assert first < last
        widths.append((last - first).item())
    assert widths == sorted(widths, reverse=True)
    longest = max(refined.interval(1e-300), key=lambda end: abs(end - 3e5))
    assert 3_650 < abs(longest - 3e5) < 3_800  # 37 deviations
    assert widths[-1] <= 2


def test_interval_of_parameters_far_outside_stays_inside():
    assert [end.item() for end in RefinedNormalPB(5, 100.0, 0.5, 0.0).interval(0.1)] == [5, 5]
    assert [end.item() for end in RefinedNormalPB(5, -100.0, 0.5, 0.0).interval(0.1)] == [0, 0]
    assert [end.item() for end in RefinedNormalPB(0, 0.0, 1.0, 0.0).interval(0.1)] == [0, 0]


def test_interval_counts_as_far_as_int64():
    first, last = RefinedNormalPB(20_000_001, 2e7, 1e3, 0.0).interval(1e-6)
    assert last.item() == 20_000_001
    assert first.dtype == last.dtype == torch.int64


def test_error_of_the_approximation_falls_with_the_variance():
    rng = np.random.default_rng(0)
    for pixels in (16, 64, 256, 1024, 4096):
        for shape in ((0.5, 1.5), (2, 2), (0.1, 0.3), (1, 6)):
            probs = tensor(rng.beta(*shape, pixels))
            exact, refined = PoissonBinomial(probs), RefinedNormalPB.from_probs(probs)
            normal = RefinedNormalPB(pixels, exact.mean, exact.stddev, 0.0)
            k = exact.enumerate_support()
            error = (refined.cdf(k) - exact.cdf(k)).abs().max()
            assert error * exact.variance < 0.02
            assert error < (normal.cdf(k) - exact.cdf(k)).abs().max()


def test_from_probs_takes_the_moments():
    probs = torch.rand(2, 3, 50, dtype=torch.float16)
    exact, refined = PoissonBinomial(probs), RefinedNormalPB.from_probs(probs)
    assert refined.batch_shape == (2, 3)
    assert (refined.dim == 50).all()
    assert refined.loc.dtype == refined.cdf(25).dtype == DOUBLE
    for ours, theirs in (
        (refined.mean, exact.mean),
        (refined.variance, exact.variance),
        (refined.stddev, exact.stddev),
        (refined.skew, exact.skewness),
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("pixels", [1, 40])
def test_extreme_maps_give_finite_answers(name, pixels):
    refined = RefinedNormalPB.from_probs(tensor(adversarial_probs(name, pixels)))
    k = torch.arange(-1, pixels + 2)
    for value in (refined.cdf(k), refined.pmf(k), refined.icdf(0.3)):
        assert value.isfinite().all()
    assert (refined.cdf(k).diff() >= 0).all()
    for p in (0, 1e-300, 0.01, 1):
        first, last = refined.interval(p)
        assert 0 <= first <= last <= pixels


def test_without_variance_the_sum_is_certain():
    refined = RefinedNormalPB.from_probs(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    k = torch.arange(-1, 4).expand(2, -1)
    assert refined.pmf(k).tolist() == [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    assert refined.cdf(k).tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]
    assert refined.pdf(k).tolist() == [[0] * 5] * 2
    assert refined.cdf(tensor([1.5, -0.5])).tolist() == [1, 1]
    assert refined.pdf(tensor([1.5, -0.5])).tolist() == [math.inf] * 2
    assert refined.icdf(0.3).tolist() == [1.5, -0.5]
    assert [end.tolist() for end in refined.interval(0.1)] == [[1, 0], [2, 0]]


def test_ends_of_the_real_line():
    refined = RefinedNormalPB(10, 3.0, 1.5, 0.3)
    values = torch.tensor([-math.inf, -1e38, 1e38, math.inf])
    assert refined.cdf(values).tolist() == [0, 0, 1, 1]
    assert refined.pdf(values).tolist() == refined.pmf(values).tolist() == [0, 0, 0, 0]


def test_parameters_broadcast_and_dtypes_follow_torch():
    refined = RefinedNormalPB(torch.tensor([10, 20, 30]), torch.tensor([[3.0], [4.0]]), 1.5, 0.25)
    for name in ("dim", "loc", "scale", "skew"):
        assert getattr(refined, name).shape == refined.batch_shape == (2, 3)
    assert refined.dim.dtype == torch.int64
    assert refined.skew.dtype == torch.float32  # not the integers of dim
    assert refined.cdf(2).dtype == refined.cdf(torch.tensor(2)).dtype == torch.float32
    assert refined.cdf(tensor(2)).dtype == refined.icdf(tensor(0.5)).dtype == DOUBLE
    double = RefinedNormalPB(10, tensor(3), torch.tensor(1.5), 0.1)
    assert double.skew.item() == 0.1
    assert double.cdf(torch.tensor(2.0)).dtype == DOUBLE
    half = RefinedNormalPB(300_000, torch.tensor(3.0, dtype=torch.float16), 1.0, 0.0)
    assert half.dim == 300_000
    assert half.cdf(3).dtype == torch.float16
    assert RefinedNormalPB(10.0, np.float64(3), 1, 0).dim.dtype == torch.int64


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), (2, 3)),
        ((3,), (2, 3)),
        ((2, 1), (2, 3)),
        ((2, 3), (2, 3)),
        ((2, 3, 11), (2, 3, 11)),
        ((2, 1, 11), (2, 3, 11)),
        ((2, 3, 11, 5), (2, 3, 11, 5)),
    ],
)
def test_values_broadcast_with_the_batch_or_follow_it(shape, expected):
    loc = torch.arange(6.0).reshape(2, 3)
    refined = RefinedNormalPB(10, loc, 1.5, 0.2)
    value = torch.rand(shape)
    extra = [1] * (len(shape) - 2)
    each = RefinedNormalPB(10, loc.reshape(2, 3, *extra).expand(expected), 1.5, 0.2)
    for method in ("cdf", "pdf", "pmf", "icdf"):
        assert getattr(refined, method)(value).shape == expected
        aligned = getattr(each, method)(value.expand(expected))
        assert torch.equal(getattr(refined, method)(value), aligned)
    assert refined.interval(value)[0].shape == refined.interval(value)[1].shape == expected


def test_refined_expand_repeats_the_batch():
    refined = RefinedNormalPB(10, torch.tensor([3.0, 4.0]), 1.5, 0.2)
    wide = refined.expand(torch.Size([5, 2]))
    assert type(wide) is RefinedNormalPB
    assert wide.batch_shape == wide.dim.shape == wide.mean.shape == (5, 2)
    assert torch.equal(wide.cdf(2), refined.cdf(2).expand(5, 2))
    assert torch.equal(wide.interval(0.1)[1], refined.interval(0.1)[1].expand(5, 2))


def test_parameters_can_be_differentiated():
    parameters = [tensor(value).requires_grad_() for value in (3.0, 1.5, 0.3)]
    k = torch.arange(8)
    for method in ("cdf", "pmf", "pdf"):
        assert torch.autograd.gradcheck(
            lambda *given, method=method: getattr(RefinedNormalPB(10, *given), method)(k),
            parameters,
        )
    assert not RefinedNormalPB(10, *parameters).icdf(0.3).requires_grad


# RefinedNormal, the SciPy distribution


REFINED = RefinedNormal(name="refined_normal")


@pytest.mark.parametrize("skew", SKEWS)
def test_scipy_and_torch_agree(skew):
    loc, scale = 7.0, 2.5
    torch_one = RefinedNormalPB(20, tensor(loc), tensor(scale), tensor(skew))
    k = np.linspace(-5, 25, 301)
    frozen = REFINED(skew, loc=loc, scale=scale)
    np.testing.assert_allclose(frozen.cdf(k + 0.5), torch_one.cdf(k), rtol=0, atol=1e-15)
    np.testing.assert_allclose(frozen.pdf(k + 0.5), torch_one.pdf(k), rtol=1e-12, atol=1e-15)
    p = np.array([1e-9, 0.01, 0.5, 0.9])
    np.testing.assert_allclose(frozen.ppf(p), torch_one.icdf(p) + 0.5, rtol=1e-12)


@pytest.mark.parametrize("skew", [0.0, 0.3, -2.0, 5.0])
def test_scipy_density_integrates_to_the_distribution(skew):
    edges = np.linspace(-8, 8, 1601)
    pieces = [
        scipy.integrate.fixed_quad(REFINED.pdf, *pair, args=(skew,))[0]
        for pair in itertools.pairwise(edges)
    ]
    # A step within a piece costs at most the piece.
    np.testing.assert_allclose(np.cumsum(pieces), REFINED.cdf(edges[1:], skew), atol=5e-3)


def test_scipy_distribution_does_what_scipy_distributions_do():
    assert isinstance(RefinedNormal(), scipy.stats.rv_continuous)
    assert REFINED.name == "refined_normal"
    assert REFINED.shapes == "skew"
    assert REFINED.cdf([[0.0], [1.0]], [0.1, 0.2, 0.3]).shape == (2, 3)
    assert REFINED.ppf([0, 1], 0.3).tolist() == [-math.inf, math.inf]
    assert REFINED.cdf([-math.inf, 1e200, math.inf], 0.3).tolist() == [0, 1, 1]
    low, high = REFINED.interval(0.95, 0.3)
    assert REFINED.cdf(high, 0.3) - REFINED.cdf(low, 0.3) == pytest.approx(0.95, abs=1e-12)
    assert REFINED.interval(0.95, 0.3) == pytest.approx((-1.82785040, 2.10724441), abs=1e-8)
    draws = REFINED.rvs(0.3, size=4000, random_state=0)
    assert scipy.stats.kstest(draws, REFINED(0.3).cdf).pvalue > 0.01
    assert np.isnan(REFINED.cdf(0.0, [math.nan, math.inf])).all()
    assert pickle.loads(pickle.dumps(REFINED)).cdf(1.0, 0.3) == REFINED.cdf(1.0, 0.3)


@pytest.mark.parametrize("skew", SKEWS[:-2])
def test_scipy_moments_are_those_of_the_density(skew):
    x = np.linspace(-9, 9, 400_001)
    density = REFINED.pdf(x, skew)
    raw = [scipy.integrate.trapezoid(x**n * density, x) for n in range(5)]
    assert raw[0] == pytest.approx(1, abs=1e-4)
    assert [REFINED.moment(n, skew) for n in range(1, 5)] == pytest.approx(raw[1:], abs=2e-4)
    assert REFINED.moment(2, 0.0) == pytest.approx(1, abs=1e-12)
    mean, variance = REFINED.stats([skew, 0.0])
    assert mean.tolist() == pytest.approx([raw[1], 0], abs=2e-4)
    assert variance.tolist() == pytest.approx([raw[2] - raw[1] ** 2, 1], abs=2e-4)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")


def test_scipy_is_loaded_when_it_is_asked_for():
    code = (
        "import sys; from rankseg import *; import rankseg.distribution\n"
        "rankseg.distribution.RefinedNormalPB.from_probs(__import__('torch').rand(9)).interval(.1)\n"
        "print('scipy' in sys.modules)\n"
        "from rankseg import RefinedNormal\n"
        "print('scipy' in sys.modules, RefinedNormal is rankseg.distribution.RefinedNormal)"
    )
    assert run(code)[:2] == ["False", "True True"]


def test_without_scipy_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "import rankseg\n"
        "print(hasattr(rankseg, 'RefinedAbnormal'), hasattr(rankseg.distribution, 'Normal'))\n"
        "try: rankseg.RefinedNormal\n"
        "except ImportError as error: print(error)"
    )
    assert run(code)[:2] == [
        "False False",
        "RefinedNormal needs scipy: pip install 'rankseg[stats]'",
    ]


def test_names_of_the_published_package():
    assert rankseg.RefinedNormal is rankseg.distribution.RefinedNormal is RefinedNormal
    assert rankseg.RefinedNormalPB is rankseg.distribution.RefinedNormalPB


# Wrong arguments


PB = PoissonBinomial(torch.full((2, 3), 0.5))
PARAMETERS = {"dim": 10, "loc": 3.0, "scale": 1.5, "skew": 0.3}
NORMAL = RefinedNormalPB(10, torch.zeros(2, 3), 1.0, 0.0)


@pytest.mark.parametrize(
    ("probs", "error", "message"),
    [
        ([0.5], TypeError, "probs must be a floating torch.Tensor, got list"),
        (np.array([0.5]), TypeError, "probs must .* got ndarray of float64"),
        (torch.tensor([1]), TypeError, "probs must .* got Tensor of torch.int64"),
        (torch.tensor(0.5), ValueError, r"probs must have the axes \(\*batch, N\)"),
        (torch.tensor([0.5, -0.25]), ValueError, r"probs must be in \[0, 1\], got -0.25"),
        (torch.tensor([[1.5], [0.0]]), ValueError, r"probs must be in \[0, 1\], got 1.5"),
        (torch.tensor([math.nan]), ValueError, r"probs must be in \[0, 1\], got nan"),
        (torch.zeros(3, device="meta"), TypeError, "probs must be .* got a meta tensor; it has"),
        (torch.zeros(3).to_sparse(), TypeError, "probs must be .* got a sparse_coo tensor; pass"),
    ],
)
def test_poisson_binomial_refuses(probs, error, message):
    for make in (PoissonBinomial, RefinedNormalPB.from_probs):
        with pytest.raises(error, match=message):
            make(probs)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"dim": "10"}, TypeError, "dim must be a real number or a tensor, got '10'"),
        ({"dim": True}, TypeError, "dim must be a real number or a tensor, got True"),
        ({"dim": -1}, ValueError, "dim must be an integer, at least 0, got -1"),
        ({"dim": 2.5}, ValueError, "dim must be an integer, at least 0, got 2.5"),
        ({"dim": torch.tensor([3.0, math.inf])}, ValueError, "dim must .* got inf"),
        ({"dim": 2**63}, ValueError, "dim must fit into int64"),
        ({"loc": None}, TypeError, "loc must be a real number or a tensor, got None"),
        ({"loc": [3.0]}, TypeError, r"loc must be a real number or a tensor, got \[3.0\]"),
        ({"loc": torch.tensor(1j)}, TypeError, "loc must hold real .* Tensor of torch.complex64"),
        ({"skew": torch.tensor(True)}, TypeError, "skew must hold real .* Tensor of torch.bool"),
        ({"loc": math.nan}, ValueError, "loc must be finite, got nan"),
        ({"scale": -1.0}, ValueError, "scale must be finite and at least 0, got -1.0"),
        ({"scale": math.inf}, ValueError, "scale must be finite and at least 0, got inf"),
        ({"skew": -math.inf}, ValueError, "skew must be finite, got -inf"),
        ({"loc": 10**400}, ValueError, "loc must be finite, got inf"),
        ({"skew": -(10**400)}, ValueError, "skew must be finite, got -inf"),
        ({"dim": Fraction(10**400, 3)}, ValueError, "dim must be an integer, at least 0, got inf"),
        ({"loc": torch.zeros(2, device="meta")}, TypeError, "loc must be .* got a meta tensor"),
        ({"scale": torch.ones(2).to_sparse()}, TypeError, "scale must be .* sparse_coo tensor"),
        (
            {"loc": torch.zeros(2), "skew": torch.zeros(3)},
            ValueError,
            r"must broadcast, got dim \(\), loc \(2,\), scale \(\), skew \(3,\)",
        ),
        (
            {"loc": torch.zeros(2), "skew": torch.zeros(2, device="meta")},
            ValueError,
            r"on one device, got {'loc': 'cpu', 'skew': 'meta'}",
        ),
    ],
)
def test_refined_normal_refuses_parameters(changed, error, message):
    with pytest.raises(error, match=message):
        RefinedNormalPB(**{**PARAMETERS, **changed})


@pytest.mark.parametrize("method", ["cdf", "pmf", "pdf"])
@pytest.mark.parametrize("distribution", [PB, NORMAL])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("1", TypeError, "value must be a real number or a tensor, got '1'"),
        (True, TypeError, "value must be a real number or a tensor, got True"),
        (None, TypeError, "value must be a real number or a tensor, got None"),
        (
            torch.tensor(1j),
            TypeError,
            "value must hold real numbers, got Tensor of torch.complex64",
        ),
        (math.nan, ValueError, "value must be a number, got nan"),
        (np.ma.array([1.0], mask=[True]), TypeError, "value must not be a masked array; "),
        (torch.zeros(3, device="meta"), TypeError, "value must be .* got a meta tensor; it has"),
        (torch.zeros(5), ValueError, r"these shapes must broadcast, got value \(5,\), batch_shape"),
    ],
)
def test_scoring_refuses(distribution, method, value, error, message):
    if method == "pdf" and distribution is PB:
        assert not hasattr(PB, "pdf")
        return
    with pytest.raises(error, match=message):
        getattr(distribution, method)(value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: NORMAL.icdf(0.0), ValueError, r"p must be in \(0, 1\), got 0.0"),
        (lambda: NORMAL.icdf(1), ValueError, r"p must be in \(0, 1\), got 1.0"),
        (lambda: NORMAL.icdf(math.nan), ValueError, "p must be a number, got nan"),
        (lambda: NORMAL.icdf(10**400), ValueError, r"p must be in \(0, 1\), got inf"),
        (lambda: NORMAL.icdf("a"), TypeError, "p must be a real number or a tensor, got 'a'"),
        (lambda: NORMAL.icdf(0.5, max_iter=0), ValueError, "max_iter must be at least 1, got 0"),
        (lambda: NORMAL.icdf(0.5, max_iter=2.5), TypeError, "max_iter must be an integer, got 2.5"),
        (lambda: NORMAL.icdf(0.5, tol=0), ValueError, "tol must be above 0, got 0"),
        (lambda: NORMAL.icdf(0.5, tol="a"), TypeError, "tol must be a real number, got 'a'"),
        (lambda: NORMAL.interval(-0.1), ValueError, r"p must be in \[0, 1\], got -0.1"),
        (lambda: NORMAL.interval(torch.tensor([0.2, 1.5])), ValueError, "p must be in .* got 1.5"),
        (lambda: NORMAL.interval(True), TypeError, "p must be a real number .* got True"),
        (lambda: NORMAL.interval(torch.zeros(5)), ValueError, r"broadcast, got p \(5,\)"),
        (lambda: NORMAL.expand((5, 4, 3)), RuntimeError, "expanded size"),
        (lambda: PB.expand((4,)), RuntimeError, "expanded size"),
    ],
)
def test_the_rest_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_values_beyond_float_are_infinite():
    for distribution in (PB, NORMAL):
        assert distribution.cdf(10**400).eq(1).all()
        assert distribution.cdf(-(10**400)).eq(0).all()


def test_values_of_parameters_go_unchecked_on_request():
    assert PoissonBinomial(torch.tensor([1.5]), validate_args=False).mean == 1.5
    assert RefinedNormalPB(-1, 3.0, 1.0, 0.1, validate_args=False).cdf(2) < 0.4
