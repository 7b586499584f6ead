"""Records that pass between solvers and backends: scan results, gains, integrals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.floats import next_below

# Cached kernels contain these two numbers and are recompiled only if the kernel's file changes:
# touch the kernel files after a change here.
UNASSIGNED = -1
"""Label of a pixel that is in no mask, until it is resolved."""

CONTESTED = -2
"""Label of a pixel that is in several masks, until it is resolved."""

ULPS_ABOVE_ONE = 4
"""Units in the last place by which a probability may exceed 1: resampling and averages round."""

NEGLIGIBLE_PROB = 1e-16
"""Power sums leave out probabilities below this: their powers would be subnormal, and very slow."""

POWERS = 12
"""How many power sums ``split`` of a backend returns: ``sum p^j`` for ``j`` from 1 to 12."""

State = tuple[Tensor, ...]
"""The sums by which a model scores masks or labels: count and mass for independent labels."""


@dataclass(frozen=True)
class Survey:
    """The result of one scan of the maps, for every class of every image.

    Attributes
    ----------
    mass
        ``(batch, classes)`` float64: sum of the probabilities, the expected volume.
    peak
        ``(batch, classes)`` float64: the largest probability.
    likely_count, likely_mass
        ``(batch, classes)`` float64: how many probabilities exceed 1/2, and their sum.
    is_invalid
        Boolean scalar: some value is NaN or outside [0, 1].
    scan_tables
        Tables by block that the backend keeps for its later passes.
    """

    mass: Tensor
    peak: Tensor
    likely_count: Tensor
    likely_mass: Tensor
    is_invalid: Tensor
    scan_tables: Any = None

    def first_cuts(self, bonus: Tensor, offset: Tensor) -> Tensor:
        """Return cuts to start Dinkelbach's iteration from: ``(batch, classes)``.

        A cut is the largest ``(mass + bonus) / (count + offset)`` of three masks that need no
        further scan: the empty mask, the likeliest pixel, and all pixels above 1/2. The iteration
        must start at or below the optimum, and the fraction of a mask never exceeds the optimum.
        The optimum is at most 1/2, so the third mask usually comes close.
        """
        masks = ((0, 0), (1, self.peak), (self.likely_count, self.likely_mass))
        return torch.stack([(mass + bonus) / (count + offset) for count, mass in masks]).amax(0)

    def below_peak(self, cuts: Tensor) -> Tensor:
        """Lower cuts to just below the peak, so that the likeliest pixel stays in the mask.

        Without smoothing that pixel always raises the objective, but its fraction may round up to
        the peak, and the mask ``p > cut`` would be empty.
        """
        return torch.minimum(cuts, next_below(self.peak))

    def best_cuts(
        self,
        raise_cuts: Callable[..., Tensor],
        active: Tensor,
        bonus: float,
        offset: float,
        keep_peak: bool,
    ) -> Tensor:
        """Return the best cuts, ``(batch, classes)``, infinite for classes that are not active.

        Backends implement their ``best_cuts`` by this method. ``raise_cuts`` is the backend's,
        bound to the surveyed maps.
        """
        terms = torch.full_like(self.mass, bonus), self.mass + offset
        cuts = raise_cuts(self.first_cuts(*terms), active, *terms)
        return torch.where(active, self.below_peak(cuts) if keep_peak else cuts, torch.inf)


@dataclass(frozen=True)
class Gains:
    """What a class gains from one more pixel of probability ``p``, as a function of ``p``.

    The gain is ``(slope p - cost) / (size - shrink p)``, each term ``(batch, classes)`` float64.
    ``cost`` is the constant that is subtracted: a pixel of ``p = 0`` gains ``-cost / size``.
    """

    slope: Tensor
    cost: Tensor
    size: Tensor
    shrink: Tensor

    def terms(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the terms of the formula of the gain: ``(slope, cost, size, shrink)``."""
        return self.slope, self.cost, self.size, self.shrink

    def at(self, probs: Tensor) -> Tensor:
        """Return the gains of probabilities ``(batch, classes)``."""
        return (self.slope * probs - self.cost) / (self.size - self.shrink * probs)

    @classmethod
    def probability(cls, like: Tensor) -> Gains:
        """Return the gain that is ``p`` itself: the rule of argmax."""
        zero, one = torch.zeros_like(like), torch.ones_like(like)
        return cls(slope=one, cost=zero, size=one, shrink=zero)


@dataclass(frozen=True)
class GainCurves:
    """Gains that rise with ``p`` in any shape: a straight line ``slope p - cost`` in every bin.

    ``lines`` is ``(k, BINS, 2)`` float64, slope and ``cost``; the bins are those of ``bins``.
    ``rows`` is ``(k, 2)``: image and class of each row of ``lines``. A class without a row gets no
    pixel.
    """

    rows: Tensor
    lines: Tensor

    def at(self, probs: Tensor) -> Tensor:
        """Return the gains at probabilities ``(batch, classes)``; 0 for classes without a row."""
        values = probs[self.rows.unbind(1)]
        row = torch.arange(len(values), device=values.device)
        # Not `bin_of`: its logarithm wakes threads for few values.
        bins = torch.searchsorted(bin_edges(values.device), values) - 1
        slope, cost = self.lines[row, bins.clamp(0, BINS - 1)].unbind(1)
        return torch.zeros_like(probs).index_put(self.rows.unbind(1), slope * values - cost)

    @classmethod
    def through(cls, rows: Tensor, knots: Tensor) -> GainCurves:
        """Return the gains that equal ``knots``, ``(k, BINS + 1)``, at the edges of the bins."""
        edges = bin_edges(knots.device)
        slope = knots.diff(dim=1) / edges.diff()
        return cls(rows, torch.stack((slope, slope * edges[:-1] - knots[:, :-1]), 2))


class Steps(NamedTuple):
    """How one more pixel changes ``Integrals``, where the terms are defined; set by the metric."""

    per_hit: float
    per_mass: float
    per_count: float
    outside: bool


class Integrals(NamedTuple):
    """The expected metric of a mask minus a constant, as a sum over quadrature nodes for each row.

    The score is ``sum_k weight_k amount_k`` over the nodes ``k``. A pixel of probability ``p``
    outside the mask multiplies ``weight`` by ``left = 1 - p + p decay`` and adds ``-per_count p
    decay / left`` to ``amount``. When the pixel joins the mask, ``weight`` is multiplied by
    ``decay``, and also divided by ``left`` if ``steps.outside`` is True. ``amount`` then rises by
    ``per_hit p decay / left + per_mass p - per_count``.

    Attributes
    ----------
    decay, weight, amount
        ``(rows, nodes)`` float64. ``decay`` is ``exp(-u)`` at the nodes ``u``. ``weight`` is the
        weight of the node times a product over pixels. ``weight`` and ``amount`` cover the mask and
        all pixels that are surely outside of it.
    nodes
        ``(rows,)`` int64: how many nodes the row uses; the rest is padding.
    steps
        The numbers of the metric.
    """

    decay: Any
    weight: Any
    amount: Any
    nodes: Any
    steps: Steps
