"""BA and TRNA (RankSEG, JMLR 24(224), 2023): expected Dice by a refined normal volume.

With ``p_(1) >= p_(2) >= ...``, ``phi`` the distribution of the volume of a class and ``phi_-j``
that without pixel ``j`` (see :mod:`.volume`), ``g`` written for ``smooth``, the mask of the
``n`` likeliest pixels scores::

    BA   (13)  2 sum_{j<=n} p_(j) sum_l phi(l) / (n + l + g + 1)     +  g sum_l phi(l) / (n + l + g)
    TRNA (12)  2 sum_{j<=n} p_(j) sum_l phi_-j(l) / (n + l + g + 1)  +  g sum_l phi(l) / (n + l + g)

The result is the smallest ``n`` of largest score, among ``n`` up to the first with
``p_(1) + ... + p_(n) >= (n + g + N) p_(n+1)``, where ``N`` is the number of pixels.

The cost is not quadratic in pixels or volumes. The sums over ``l`` are smooth in ``n``, so they are
interpolated from a few ``n``. ``phi_-j`` depends on ``j`` only by ``p_(j)``, and smoothly, so TRNA
is a weighted sum of a few terms like those of BA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import stopping_cuts
from rankseg._decision.solvers.interpolation import chebyshev_nodes, interpolation, nodes_needed
from rankseg._decision.solvers.reciprocals import count_blocks
from rankseg._decision.solvers.volume import HEAVY, Volume
from rankseg._formulas.records import Survey

BA_BELOW = 0.2
"""``'BA+TRNA'`` takes BA if 1 / (standard deviation of the volume) is below this, as published."""


def masks_by_volume(
    terms_of: TermsOf, backend: ModuleType, maps: Any, survey: Survey, settings: Settings
) -> Tensor:
    """Return the mask of every class that maximises its expected Dice by BA, TRNA or either.

    ``terms_of`` is `ba_terms`, `trna_terms` or `ba_or_trna_terms`.

    A mask holds all pixels of equal probability or none of them. In a run of equal values the slope
    of the score changes its sign at most once, from minus to plus, so the best ``n`` is at an end.
    """
    if is_traced():
        raise RuntimeError(
            f"solver={settings.solver!r} sorts as many values as the maps demand, which no graph "
            "of torch.compile or torch.export can hold; call it outside of a graph, or take "
            "solver='RMA'"
        )
    cuts = torch.full_like(survey.peak, torch.inf)
    for row, values, low, volume in _classes(backend, maps, survey, settings):
        if backend.COMPILES:
            truncated = isinstance(terms_of(values, volume), TRNATerms)
            cuts[row] = _compiled_cut(values, low, volume, settings, truncated)
        else:
            terms = terms_of(values.clamp(max=1), volume)
            cuts[row] = _best_cut(values, low, gains(terms, volume, settings.smooth))
    masks: Tensor = backend.masks(maps, survey, cuts)
    return masks


def _classes(
    backend: ModuleType, maps: Any, survey: Survey, settings: Settings
) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor, Tensor, Volume]]:
    """Yield the inputs of the search for every class whose peak exceeds ``pruning_prob``.

    Each item has four fields: the indices of image and class; the probabilities of the pixels that
    may be in the mask (up to where the paper stops), largest first; the cut ``low`` that all of
    these exceed; and the distribution of the volume.
    """
    present = survey.peak > settings.pruning_prob
    pixels = backend.sizes(maps).unsqueeze(1)
    lows, count = stopping_cuts(backend, maps, survey, pixels + settings.smooth, present)
    moments = backend.moments(maps, survey, present)
    facts = torch.stack((*moments, pixels.expand_as(lows), count), -1)[present]
    mean, _, _, size, width = facts.unbind(1)
    sound = facts.isfinite().all(1) & (mean >= 0) & (mean <= size) & (width > 0)
    if not sound.all():  # the tables for such a volume might have any size
        raise ValueError("probs must not change during a call: they did, to no probabilities")
    rows = present.nonzero().unsqueeze(1)
    highest = torch.full((1,), torch.inf, dtype=lows.dtype, device=lows.device)
    for row, (mean, variance, third, size, width) in zip(rows, facts.tolist(), strict=True):
        at = row[:, 0], row[:, 1]
        low = lows[at]
        values = backend.between(maps, survey, low, highest, row, int(width))
        volume = Volume(mean, variance, third, int(size), settings.eps, low.device)
        yield at, values[0], low, volume


def _best_cut(values: Tensor, low: Tensor, scored: Iterator[tuple[slice, Tensor]]) -> Tensor:
    """Return the cut of the smallest mask of largest score; equal pixels are not separated.

    ``scored`` yields, block by block, a slice of ranks and the scores of the masks that end at
    these ranks, minus the score of the empty mask.
    """
    following = torch.cat((values[1:], low))
    cut, best = values[0], torch.zeros_like(values[0])
    for ranks, gain in scored:
        ends = following[ranks] < values[ranks]
        top, index = gain.where(ends, -torch.inf).max(0)
        cut = torch.where(top > best, following[ranks].take(index), cut)
        best = torch.maximum(top, best)
    return cut


def _compiled_cut(
    values: Tensor, low: Tensor, volume: Volume, settings: Settings, truncated: bool
) -> float:
    """Return the same cut as `_best_cut`, computed by a compiled function."""
    from rankseg._decision.solvers import numba_ba as compiled

    moments = compiled.Moments(volume.mean, volume.variance, volume.third, volume.size)
    refined_cut: Callable[..., float] = compiled.refined_cut
    return refined_cut(
        values.numpy(), low.item(), moments, settings.eps, settings.smooth, truncated
    )


class Terms(Protocol):
    """The first sum of a score, as a sum over a few rows; BA has one row.

    ``sum_{j<=n} p_(j) sum_l phi_-j(l) r(n + l)`` equals the sum over rows of
    ``(sum_{j<=n} shares[row, j]) (sum_l distributions[row, l] r(n + l))``.
    """

    @property
    def values(self) -> Tensor:
        """Probabilities of the pixels that may be taken, largest first: ``(pixels,)``."""
        ...

    @property
    def distributions(self) -> Tensor:
        """The distribution of the volume that each row assumes: ``(rows, width)``."""
        ...

    def shares(self, ranks: slice) -> Tensor:
        """Return what each pixel of a slice of ranks adds to each row: ``(rows, ranks)``."""
        ...


TermsOf = Callable[[Tensor, Volume], Terms]
"""Takes the probabilities of the pixels that may be taken, largest first, and the volume."""


@dataclass(frozen=True)
class BATerms:
    """The terms of BA: one distribution of the volume for all pixels."""

    values: Tensor
    volume: Volume

    @property
    def distributions(self) -> Tensor:
        return self.volume.probabilities

    def shares(self, ranks: slice) -> Tensor:
        return self.values[ranks].unsqueeze(0)


@dataclass(frozen=True)
class TRNATerms:
    """The terms of TRNA: for each pixel, the distribution of the volume of all other pixels.

    For pixels with ``p >= 1 - light`` or ``p <= light`` that distribution is a smooth function of
    ``p``, and is interpolated from a few nodes; each node is a row. Fewer than ``HEAVY`` pixels lie
    between: each has a large share of the variance, and gets a row for itself.
    """

    values: Tensor
    volume: Volume

    @cached_property
    def light(self) -> float:
        """The ``p`` up to 1/2 at which ``p (1 - p)`` is 1 / ``HEAVY`` of the variance, or 1/2."""
        share = 4 * self.volume.sd**2 / HEAVY
        return 0.5 if share >= 1 else share / (1 + math.sqrt(1 - share)) / 2

    @cached_property
    def heavy(self) -> Tensor:
        """Ranks of the pixels with ``light < p < 1 - light``, padded by the next ranks.

        ``(HEAVY,)``, or empty if ``light`` is 1/2.
        """
        number = HEAVY if self.light < 0.5 else 0
        sure = (self.values >= 1 - self.light).sum()
        return sure + torch.arange(number, device=sure.device)

    @cached_property
    def nodes(self) -> int:
        """Number of nodes for the interpolation in ``p``.

        The nearest singularity is where the remaining variance is 0. It lies off the real axis, at
        a distance that the standard deviation gives.
        """
        return nodes_needed(math.asinh(4 * max(self.volume.sd, math.sqrt(HEAVY) / 2)))

    @property
    def distributions(self) -> Tensor:
        doubt = self.light * (1 + chebyshev_nodes(self.nodes, self.values.device)) / 2
        heavy = self.values.take(self.heavy.clamp(max=len(self.values) - 1))
        return self.volume.without(torch.cat((1 - doubt, heavy, doubt)))

    def shares(self, ranks: slice) -> Tensor:
        p = self.values[ranks]
        sure, faint = p >= 1 - self.light, p <= self.light
        doubt = torch.minimum(p, 1 - p).clamp(max=self.light)
        nodes = interpolation(self.nodes, 2 * doubt / self.light - 1)
        every = torch.arange(ranks.start, ranks.stop, device=p.device)
        alone = (every == self.heavy.unsqueeze(1)) & ~sure & ~faint
        return p * torch.cat((nodes * sure, alone, nodes * (faint & ~sure)))


def ba_terms(values: Tensor, volume: Volume) -> Terms:
    """Return the terms of BA."""
    return BATerms(values, volume)


def trna_terms(values: Tensor, volume: Volume) -> Terms:
    """Return the terms of TRNA."""
    return TRNATerms(values, volume)


def ba_or_trna_terms(values: Tensor, volume: Volume) -> Terms:
    """Return the terms of BA for a volume of large standard deviation, otherwise those of TRNA."""
    return (ba_terms if 1 / volume.sd < BA_BELOW else trna_terms)(values, volume)


def gains(terms: Terms, volume: Volume, smooth: float) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of ranks, and the scores of the masks that end there minus the empty mask's.

    The difference is computed directly, because with large smoothing all scores round to 1. With
    ``r(l) = g / (l + g)``, the second sum of a score falls by ``n sum_l phi(l) r(l) / (n + l + g)``
    from 0 to ``n`` pixels.
    """
    integers = volume.integers
    distributions = terms.distributions
    taken = torch.zeros_like(distributions[:, :1])
    rows, first = len(distributions), volume.bounds[0]
    for block in count_blocks(len(terms.values), rows, first, volume.device):
        ranks = slice(block.start - 1, block.stop - 1)
        taken = taken[:, -1:] + terms.shares(ranks).cumsum(1)
        gain = 2 * (taken * block.moments(distributions, integers + (smooth + 1))).sum(0)
        if smooth > 0:
            lost = volume.probabilities * smooth / (integers + smooth)
            gain = gain - block.counts * block.moments(lost, integers + smooth)[0]
        yield ranks, gain
