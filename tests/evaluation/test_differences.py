"""Paired differences and their intervals, against numbers derived by hand or from theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rankseg.evaluation import Difference, PairedTests, bootstrap_interval
from rankseg.evaluation import differences as _differences


class TestDifference:
    def test_wins_losses_and_ties_by_hand(self):
        values = np.array([0.2, -0.1, 1e-12, 0.0, math.nan, 0.3, -1e-12, -0.4, 0.1])
        difference = Difference.of(values)
        assert (difference.wins, difference.losses, difference.ties) == (3, 2, 3)
        assert difference.mean == pytest.approx(0.1 / 8)

    def test_clusters_stay_with_their_images(self):
        values = np.array([math.nan, 0.1, 0.3, -0.2, 0.0])
        clusters = ["a", "a", "a", "b", "b"]
        difference = Difference.of(values, clusters=clusters)
        # Of two clusters, the draws are the first alone, both, or the second alone.
        assert (difference.low, difference.high) == pytest.approx((-0.1, 0.2))
        assert (difference.wins, difference.losses, difference.ties) == (2, 1, 1)

    def test_no_images_give_no_number(self):
        difference = Difference.of(np.array([math.nan]))
        assert math.isnan(difference.mean)
        assert math.isnan(difference.low)
        assert (difference.wins, difference.losses, difference.ties) == (0, 0, 0)


class TestBootstrapInterval:
    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_zeros_and_ones_give_the_quantiles_of_a_binomial(self, confidence):
        # Means of resampled zeros and ones are Binomial(26, 11/26) / 26. With these numbers no
        # step of its distribution is within five standard errors of a level asked for.
        values = np.repeat([1.0, 0.0], [11, 15])
        chances = [math.comb(26, k) * 11**k * 15 ** (26 - k) / 26**26 for k in range(27)]
        levels = [(1 - confidence) / 2, (1 + confidence) / 2]
        expected = np.searchsorted(np.cumsum(chances), levels) / 26
        assert bootstrap_interval(values, confidence=confidence) == pytest.approx(expected)

    def test_many_values_give_nearly_the_normal_interval(self):
        values = np.random.default_rng(0).exponential(1, 400)
        half = 1.96 * values.std() / 20
        low, high = bootstrap_interval(values)
        assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
        assert high == pytest.approx(values.mean() + half, abs=0.05 * half)

    def test_two_values_are_its_ends_and_fewer_have_none(self):
        assert bootstrap_interval(np.array([0.3, -0.1])) == (-0.1, 0.3)
        assert all(map(math.isnan, bootstrap_interval(np.array([0.3]))))
        assert all(map(math.isnan, bootstrap_interval(np.array([]))))

    def test_is_the_same_at_every_call_and_moves_with_the_seed(self):
        values = np.random.default_rng(1).normal(size=30)
        assert bootstrap_interval(values) == bootstrap_interval(values)
        assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)

    def test_memory_is_bounded_without_changing_the_answer(self, monkeypatch):
        values = np.random.default_rng(1).normal(size=30)
        whole = bootstrap_interval(values)
        monkeypatch.setattr(_differences, "_RESAMPLED_AT_ONCE", 100)
        assert bootstrap_interval(values) == whole

    def test_each_value_a_cluster_of_its_own_is_the_default(self):
        values = np.random.default_rng(2).normal(size=20)
        assert bootstrap_interval(values, clusters=np.arange(20)) == bootstrap_interval(values)

    def test_clusters_are_drawn_whole(self):
        # Copies within clusters say nothing new: the interval is that of one value of each.
        values = np.random.default_rng(3).normal(size=12)
        copied, clusters = np.repeat(values, 5), np.repeat(np.arange(12), 5)
        shuffled = np.random.default_rng(4).permutation(60)
        expected = bootstrap_interval(values)
        found = bootstrap_interval(copied[shuffled], clusters=clusters[shuffled].tolist())
        assert found == pytest.approx(expected)
        low, high = bootstrap_interval(copied)
        assert high - low < 0.6 * (expected[1] - expected[0])  # about 1 / sqrt(5)

    def test_a_large_cluster_weighs_more_when_it_is_drawn(self):
        values, clusters = np.array([1.0, 0.0, 0.0, 0.0]), ["a", "b", "b", "b"]
        # The levels 0.3 and 0.7 of the means 0, 1/4 and 1, of chances 1/4, 1/2 and 1/4.
        found = bootstrap_interval(values, clusters=clusters, confidence=0.4)
        assert found == (0.25, 0.25)

    def test_fewer_than_two_clusters_have_none(self):
        assert all(map(math.isnan, bootstrap_interval(np.ones(3), clusters=["a"] * 3)))

    @pytest.mark.parametrize("clusters", [["a"], [], "ab", [["a", "b", "c"]]])
    def test_every_value_needs_its_cluster(self, clusters):
        with pytest.raises(ValueError, match="clusters must have one entry for each of the 3"):
            bootstrap_interval(np.ones(3), clusters=clusters)
        with pytest.raises(ValueError, match="clusters must have one entry for each of the 3"):
            Difference.of(np.array([1.0, 2.0, math.nan]), clusters=clusters)


class TestPairedTests:
    def test_against_scipy(self):
        values = np.array([0.01, 0.02, -0.005, 0.03, 0.04, 0.0, np.nan, 0.05])
        told = PairedTests.of(values)
        known = values[~np.isnan(values) & (values != 0)]
        assert told.units == 7
        assert told.wilcoxon == stats.wilcoxon(known).pvalue
        assert told.sign == stats.binomtest(5, 6).pvalue

    def test_clusters_are_averaged(self):
        values = np.array([0.3, -0.1, 0.2, 0.2, 0.1, np.nan])
        told = PairedTests.of(values, clusters=["a", "a", "b", "b", "c", "d"])
        assert told == PairedTests.of(np.array([0.1, 0.2, 0.1]))

    def test_a_band(self):
        values = np.array([0.01, 0.02, -0.005, 0.03])
        assert PairedTests.of(values, band=0.005).sign == stats.binomtest(3, 3).pvalue
        difference = Difference.of(values, band=0.01)
        assert (difference.wins, difference.losses, difference.ties) == (2, 0, 2)

    def test_nothing_but_ties(self):
        told = PairedTests.of(np.zeros(3))
        assert told.units == 3
        assert math.isnan(told.wilcoxon)
        assert math.isnan(told.sign)
        assert PairedTests.of(np.array([])).units == 0
