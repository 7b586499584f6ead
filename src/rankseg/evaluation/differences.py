"""Paired differences of scores: their mean, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rankseg._common.arguments import refuse_blanks
from rankseg._common.optional import require
from rankseg._common.public import public

__all__ = [
    "RESAMPLES",
    "TIE",
    "Clusters",
    "Difference",
    "Floats",
    "PairedTests",
    "bootstrap_interval",
]

Floats: TypeAlias = NDArray[np.float64]
Clusters: TypeAlias = Sequence[str] | Sequence[int] | NDArray[Any]

TIE: Final = 1e-9
"""Scores that differ by no more are a tie: the same counts divided in another order."""

RESAMPLES: Final = 10_000

# Resampled images held in memory at once, eight bytes each.
_RESAMPLED_AT_ONCE: Final = 1 << 20


@public("rankseg.evaluation")
@dataclass(frozen=True)
class Difference:
    """The paired difference of two methods over images, as fractions; wins are for the first.

    Parameters
    ----------
    mean : float
        NaN if there are no images.
    low, high : float
        Ends of the 95 % bootstrap interval of the mean; see `bootstrap_interval`.
    wins, losses, ties : int
        Images; a tie is a difference of at most the band, 1e-9 if none is named.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int

    @classmethod
    def of(
        cls,
        values: Floats,
        *,
        clusters: Clusters | None = None,
        band: float = TIE,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> Difference:
        """Sum up the differences (images,) of which those that are NaN are left out.

        ``clusters``, ``resamples`` and ``seed`` are those of `bootstrap_interval`. Differences of
        at most ``band`` are ties.

        Examples
        --------
        >>> import numpy as np
        >>> from rankseg.evaluation import Difference
        >>> Difference.of(np.array([0.25, np.nan, 0.25]))
        Difference(mean=0.25, low=0.25, high=0.25, wins=2, losses=0, ties=0)
        """
        known = ~np.isnan(values)
        if clusters is not None:
            clusters = _check_clusters(clusters, values)[known]
        values = values[known]
        low, high = bootstrap_interval(values, clusters=clusters, resamples=resamples, seed=seed)
        return cls(
            mean=float(values.mean()) if len(values) else math.nan,
            low=low,
            high=high,
            wins=int((values > band).sum()),
            losses=int((values < -band).sum()),
            ties=int((np.abs(values) <= band).sum()),
        )


@public("rankseg.evaluation")
@dataclass(frozen=True)
class PairedTests:
    """Whether differences this one-sided would be surprising if there were none on the whole.

    Attributes
    ----------
    units : int
        How many images, or clusters of them, were tested.
    wilcoxon : float
        p-value of the signed-rank test, two-sided, of differences scattered evenly around 0. NaN
        if there are none but 0.
    sign : float
        p-value of the sign test, two-sided: wins as likely as losses, ties left out.
    """

    units: int
    wilcoxon: float
    sign: float

    @classmethod
    def of(
        cls, values: Floats, *, clusters: Clusters | None = None, band: float = TIE
    ) -> PairedTests:
        """Test the differences (images,), or with ``clusters`` their means by cluster.

        Differences of at most ``band`` are ties; those that are NaN are left out. Needs SciPy.

        Raises
        ------
        ImportError
            If SciPy is missing.
        ValueError
            If there are not as many clusters as values.

        Examples
        --------
        >>> import numpy as np
        >>> from rankseg.evaluation import PairedTests
        >>> PairedTests.of(np.array([0.01, 0.02, 0.03, 0.04, 0.05, -0.06]))
        PairedTests(units=6, wilcoxon=0.4375, sign=0.21875)
        """
        stats = require("scipy.stats", "stats", "testing differences")
        known = ~np.isnan(values)
        values, own = values[known], clusters
        if own is not None:
            _, member = np.unique(_check_clusters(own, known)[known], return_inverse=True)
            values = np.bincount(member, values) / np.bincount(member)
        wins, losses = int((values > band).sum()), int((values < -band).sum())
        if not wins + losses:
            return cls(len(values), math.nan, math.nan)
        ranked = np.where(np.abs(values) <= band, 0.0, values)
        signed_rank = stats.wilcoxon(ranked[ranked != 0]).pvalue
        return cls(
            len(values), float(signed_rank), float(stats.binomtest(wins, wins + losses).pvalue)
        )


def bootstrap_interval(
    values: Floats,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean, the same at every call.

    It takes the values for independent, or with ``clusters`` the clusters. Neighbouring frames of
    a video or slices of a volume are not independent: without clusters their interval is too
    narrow. With few clusters it still is.

    Parameters
    ----------
    values : ndarray
        float64 (n,).
    clusters : sequence of str or int, optional
        The cluster of every value, (n,): the video of a frame, the patient of a slice. The values
        of a cluster are drawn all together. Default: each value is a cluster of its own.
    confidence : float
        The probability between the two ends.
    resamples : int
        How many times as many clusters as there are are drawn with replacement.
    seed : int
        Of the draws.

    Returns
    -------
    low, high : float
        NaN for fewer than two clusters: one says nothing about how they scatter. For two, simply
        the means of the two.

    Raises
    ------
    ValueError
        If there are not as many clusters as values.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.evaluation import bootstrap_interval
    >>> bootstrap_interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    >>> bootstrap_interval(np.array([0.0, 1.0, 0.5, 0.5]), clusters=["a", "a", "b", "b"])
    (0.5, 0.5)
    """
    sums: NDArray[Any] = values
    sizes: NDArray[Any] = np.ones(len(values))
    if clusters is not None:
        _, member = np.unique(_check_clusters(clusters, values), return_inverse=True)
        sums, sizes = np.bincount(member, values), np.bincount(member)
    count = len(sums)
    if count < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _RESAMPLED_AT_ONCE // count)
    for start in range(0, resamples, step):
        block = means[start : start + step]
        drawn = generator.integers(count, size=(len(block), count))
        block[:] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_clusters(clusters: Clusters, values: NDArray[Any]) -> NDArray[Any]:
    """Return the clusters as an array, one for every value."""
    refuse_blanks("clusters", clusters)
    checked = np.asarray(clusters)
    if checked.shape != values.shape:
        raise ValueError(
            f"clusters must have one entry for each of the {len(values)} values, got "
            f"shape {checked.shape}"
        )
    return checked
