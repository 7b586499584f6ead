"""What the backends take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.floats import next_below

# Compiled kernels hold these two numbers, and are compiled anew only when their own file changes.
UNASSIGNED = -1
"""Label of a pixel that is in no mask, until it is resolved."""

CONTESTED = -2
"""Label of a pixel that is in several masks, until it is resolved."""

ULPS_ABOVE_ONE = 4
"""Units in the last place by which a probability may exceed 1: averaging and resampling round."""

DUST = 1e-16
"""Powers of a probability below this are left out: they would be subnormal, and very slow."""

POWERS = 12
"""How many power sums ``split`` gives."""

State = tuple[Tensor, ...]
"""What a model of the labels needs to know of masks, or of labels."""


@dataclass(frozen=True)
class Survey:
    """What one scan of the maps tells of every class of every image.

    Attributes
    ----------
    mass
        ``(batch, classes)`` float64: sum of the probabilities, the expected volume.
    peak
        ``(batch, classes)`` float64: the largest probability.
    likely_count, likely_mass
        ``(batch, classes)`` float64: how many probabilities exceed 1/2, and their sum.
    fault
        Boolean scalar: some value is NaN or outside [0, 1].
    detail
        Whatever else the backend remembers of the scan for its later passes.
    """

    mass: Tensor
    peak: Tensor
    likely_count: Tensor
    likely_mass: Tensor
    fault: Tensor
    detail: Any = None

    def first_cuts(self, bonus: Tensor, offset: Tensor) -> Tensor:
        """Return the largest ``(mass + bonus) / (count + offset)`` of three masks known at once.

        The empty one, the likeliest pixel, all above 1/2. Raising a cut needs a start that is not
        above the optimum, as no mask's fraction is. The optimal cut is never above 1/2, so the last
        of the three is usually close to it.
        """
        masks = ((0, 0), (1, self.peak), (self.likely_count, self.likely_mass))
        return torch.stack([(mass + bonus) / (count + offset) for count, mass in masks]).amax(0)

    def below_peak(self, cuts: Tensor) -> Tensor:
        """Lower cuts at the largest value: where it always pays, its fraction may round to it."""
        return torch.minimum(cuts, next_below(self.peak))

    def best_cuts(
        self,
        raise_cuts: Callable[..., Tensor],
        active: Tensor,
        bonus: float,
        offset: float,
        keep_peak: bool,
    ) -> Tensor:
        """Return what ``best_cuts`` of a backend does, by its ``raise_cuts`` on the same maps."""
        terms = torch.full_like(self.mass, bonus), self.mass + offset
        cuts = raise_cuts(self.first_cuts(*terms), active, *terms)
        return torch.where(active, self.below_peak(cuts) if keep_peak else cuts, torch.inf)


@dataclass(frozen=True)
class Gains:
    """What a class gains from one more pixel of probability ``p``, as a function of ``p``.

    ``(slope p - toll) / (size - shrink p)``, each ``(batch, classes)`` float64.
    """

    slope: Tensor
    toll: Tensor
    size: Tensor
    shrink: Tensor

    def terms(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four, in their order."""
        return self.slope, self.toll, self.size, self.shrink

    def at(self, probs: Tensor) -> Tensor:
        """Return the gains of probabilities ``(batch, classes)``."""
        return (self.slope * probs - self.toll) / (self.size - self.shrink * probs)

    @classmethod
    def probability(cls, like: Tensor) -> Gains:
        """Return the gain that is ``p`` itself: the rule of argmax."""
        zero, one = torch.zeros_like(like), torch.ones_like(like)
        return cls(slope=one, toll=zero, size=one, shrink=zero)


@dataclass(frozen=True)
class GainCurves:
    """Gains of any rising shape: a straight line ``slope p - toll`` for every bin of ``bins``.

    ``lines`` is ``(k, BINS, 2)`` float64; ``rows``, ``(k, 2)``, tells image and class of each. No
    other class is given a pixel.
    """

    rows: Tensor
    lines: Tensor

    def at(self, probs: Tensor) -> Tensor:
        """Return the gains of probabilities ``(batch, classes)``; 0 of other classes."""
        values = probs[self.rows.unbind(1)]
        row = torch.arange(len(values), device=values.device)
        bins = torch.searchsorted(bin_edges(values.device), values) - 1
        slope, toll = self.lines[row, bins.clamp(0, BINS - 1)].unbind(1)
        return torch.zeros_like(probs).index_put(self.rows.unbind(1), slope * values - toll)

    @classmethod
    def through(cls, rows: Tensor, knots: Tensor) -> GainCurves:
        """Return the gains with the values ``knots``, ``(k, BINS + 1)``, at the edges of bins."""
        edges = bin_edges(knots.device)
        slope = knots.diff(dim=1) / edges.diff()
        return cls(rows, torch.stack((slope, slope * edges[:-1] - knots[:, :-1]), 2))


class Steps(NamedTuple):
    """What one more pixel does to ``Integrals``, by metric."""

    per_hit: float
    per_mass: float
    per_count: float
    outside: bool


class Integrals(NamedTuple):
    """The expected metric of a mask, less a constant, as pixels join it: per row, a sum over nodes.

    The score is ``sum_k part_k amount_k``. A pixel of probability ``p`` outside the mask
    multiplies ``part`` by ``left = 1 - p + p label`` and adds ``-per_count p label / left`` to
    ``amount``. As it joins, ``part`` is multiplied by ``label``, and divided by ``left`` if only
    pixels ``outside`` belong there; ``amount`` rises by ``per_hit p label / left + per_mass p -
    per_count``.

    Attributes
    ----------
    label, part, amount
        ``(rows, nodes)`` float64, for the mask and the pixels known before.
    nodes
        ``(rows,)`` int64: how many of them the row has.
    steps
        The numbers that tell the metric.
    """

    label: Any
    part: Any
    amount: Any
    nodes: Any
    steps: Steps
