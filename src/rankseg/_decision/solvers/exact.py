"""The masks that maximise the expected metric itself: few cuts can be best, and all are tried.

On CPUs masks that share no pixels are found by the same rules class by class, in one compiled
function (``numba_exact``), unless classes are few and large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import fraction_cuts
from rankseg._formulas.expectation import (
    DOUBLINGS,
    FAINT,
    MANY,
    MARGIN,
    NEAR,
    RATIOS,
    ROUNDING,
    UNKNOWN,
    Nodes,
    Ratio,
    count_nodes,
    integrand,
    most_nodes,
    place_nodes,
    powers_needed,
    series,
)
from rankseg._formulas.objectives import OBJECTIVES, Objective
from rankseg._formulas.quiet import exp
from rankseg._formulas.records import DUST, POWERS, Integrals, Survey

SCANNED_AT_ONCE = 1 << 18
"""Most values of several rows in one array: 2 MiB, unless a single row has more."""


def exact_cuts(
    backend: ModuleType, maps: Any, survey: Survey, settings: Settings, active: Tensor
) -> Tensor:
    """Return, per image and class, the cut of the mask that maximises the expected metric.

    As those of RMA, the cuts are ``(batch, classes)`` float64, infinite for classes that are not
    ``active``, and a mask holds the pixels with ``p > cut``. Of the best mask RMA tells a value
    that it reaches, and an upper bound leaves few masks that can (:meth:`_Search.bracket`). The
    pixels these differ by are sorted, and the metric evaluated for each of them.
    """
    search = _Search(
        backend,
        maps,
        survey,
        OBJECTIVES[settings.metric](settings.smooth),
        RATIOS[settings.metric],
        settings.smooth,
        active & (survey.peak > 0),
    )
    return search.best_cut(search.bracket())


@dataclass(frozen=True)
class _Bracket:
    """The masks that may be best, of every image and class, all tensors ``(batch, classes, ...)``.

    Attributes
    ----------
    low, high
        Such a mask holds all pixels above ``high`` and none that are not above ``low``.
    count, between
        How many pixels are above ``high``, and how many in ``(low, high]``.
    sums
        Power sums of those above ``high``, and of those not above ``low``: see ``split``.
    """

    low: Tensor
    high: Tensor
    count: Tensor
    between: Tensor
    sums: Tensor

    def replaced(self, rows: Tensor, by: _Bracket) -> _Bracket:
        """Return the brackets with some of them replaced."""
        fields = zip(vars(self).values(), vars(by).values(), strict=True)
        return _Bracket(*(_replaced(old, rows, new) for old, new in fields))


@dataclass(frozen=True)
class _Search:
    """The search for the best mask of every class."""

    backend: ModuleType
    maps: Any
    survey: Survey
    objective: Objective
    ratio: Ratio
    smooth: float
    active: Tensor

    def bracket(self) -> _Bracket:
        """Enclose the best mask between two cuts.

        For a sum ``Y`` of independent labels with mean ``m``, and ``a >= 1``, ``E[1/(a + Y)]`` is
        at least ``1/(a + m)``, by Jensen's inequality; at most ``1/(a - 1 + m)``, since ``m E[1/(a
        + Y)] <= E[Y/(a - 1 + Y)] <= m/(a - 1 + m)``; and at most ``1/a``. So a mask's metric is
        at most ``(gain + g) / (n + max(rest - 1, 0) + g)``, with gain and rest in the mean. By
        Jensen, RMA's best value is one that the best mask reaches. Where the bound reaches it,
        their difference times the denominator is a concave function of ``n``: these masks are an
        interval, enclosed by any two where it does not. The interval is short, as bound and
        value of a mask differ by ``2/(n + rest - 1 + g)`` of themselves at most.

        The bound asks for ``a >= 1``, and leaves open the empty mask with ``g < 1``: there
        ``E[g/(g + Y)] <= P(Y = 0) + g E[2/(1 + Y)] <= exp(-m) + 2 g/m``.
        """
        pixels = torch.full_like(self.survey.mass, self.maps.pixels)
        if torch.compiler.is_compiling():  # a traced graph cannot look, and takes all masks
            none = torch.zeros_like(pixels)
            sums = none[..., None, None].expand(-1, -1, 2, POWERS)
            return _Bracket(none, none + torch.inf, none, pixels, sums)
        volume = self.survey.mass
        cut = fraction_cuts(self.backend, self.maps, self.survey, self.objective, self.active)
        value = self.ratio.value(cut)
        few = volume + self.smooth < MANY  # all but the faint are sorted: see ``FAINT``
        empty = exp(-volume) + 2 * self.smooth / volume >= value
        to_empty = few | (empty & (0 < self.smooth < 1))
        width = torch.minimum(self._half_width(cut), cut / 2).clamp(min=DUST)
        low = (cut - width).clamp(min=0)
        low = torch.where(few, low.clamp(max=FAINT), low)
        high = torch.where(to_empty, torch.inf, cut + width)
        unsure = self.active
        bracket = self._split(low, high, unsure)
        for doubled in range(DOUBLINGS + 2):
            down, up = self._open_ends(bracket, 1 - value)
            unsure = unsure & (down | up)
            if not bool(unsure.any()):
                break
            lower = (2 * bracket.low - cut).clamp(min=0)
            higher = 2 * bracket.high - cut
            if doubled >= DOUBLINGS:
                lower, higher = torch.zeros_like(lower), torch.full_like(higher, torch.inf)
            low = torch.where(down, lower, bracket.low)
            high = torch.where(up, higher, bracket.high)
            bracket = bracket.replaced(unsure, self._split(low, high, unsure))
        return bracket

    def _half_width(self, cut: Tensor) -> Tensor:
        """Guess how far from RMA's cut the bracket ends, if values are as dense as up to 1/2.

        What the bound is above RMA's value pays for about two pixels at the cut; the next ones
        cost their distance from the cut.
        """
        survey, bonus = self.survey, self.objective.bonus(torch.full_like(cut, torch.inf), cut)
        likely = survey.likely_mass + bonus
        lost = cut * (survey.likely_count + self.objective.offset(survey.mass)) - likely
        distance = 0.5 - cut
        density = 2 * lost / distance**2
        guess = MARGIN / torch.rsqrt(4 * cut / density.clamp(min=1.0))
        return torch.where(distance > NEAR, guess, UNKNOWN)

    def _split(self, low: Tensor, high: Tensor, rows: Tensor) -> _Bracket:
        """Learn what the brackets of some ``rows`` hold."""
        high = high.masked_fill(high >= self.survey.peak, torch.inf)
        rate = self.survey.mass + self.smooth
        degree = powers_needed(rate).masked_fill(rate < MANY, POWERS) * rows
        return _Bracket(
            low, high, *self.backend.split(self.maps, self.survey, low, high, degree, rate)
        )

    def _open_ends(self, bracket: _Bracket, deficit: Tensor) -> tuple[Tensor, Tensor]:
        """Say where smaller cuts may still be best, and where larger ones."""
        below, above = self.survey.mass - bracket.sums[:, :, 1, 0], bracket.sums[:, :, 0, 0]
        down = (bracket.low > 0) & self._may_be_best(
            bracket.count + bracket.between, below, deficit
        )
        up = (bracket.high < torch.inf) & self._may_be_best(bracket.count, above, deficit)
        return down, up

    def _may_be_best(self, count: Tensor, mass: Tensor, deficit: Tensor) -> Tensor:
        """Compare the bound of a mask with a value, given as what it lacks to 1."""
        gain, rest = self._terms(mass)
        size = count + (rest - 1).clamp(min=0)
        whole = size + self.smooth
        return gain - size + deficit * whole >= -ROUNDING * whole

    def _terms(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Return gain and rest of a mask in the mean."""
        return self.ratio.gain(mass, mass), self.ratio.rest(mass, self.survey.mass - mass)

    def best_cut(self, bracket: _Bracket) -> Tensor:
        """Evaluate every mask of the brackets; return the cuts of the best."""
        cut = torch.full_like(bracket.low, torch.inf)
        _, rest = self._terms(bracket.sums[:, :, 0, 0])
        rate = bracket.count + bracket.between + self.survey.mass + self.smooth + 1
        needed = count_nodes(rate, bracket.count + self.smooth, rest)
        for rows, width, most in self._chunks(bracket.between, needed):
            row = rows.unbind(1)
            low, high, between = bracket.low[row], bracket.high[row], bracket.between[row]
            values = self.backend.between(self.maps, self.survey, low, high, rows, width)
            nodes = place_nodes(rate[row], needed[row], most)
            integrals = self._integrals(nodes, needed[row], bracket.count[row], bracket.sums[row])
            taken = self.backend.scan(values, between.long(), integrals)
            following = values.gather(1, taken.clamp(max=width - 1).unsqueeze(1)).squeeze(1)
            cut = cut.index_put(row, torch.where(taken < between, following, low))
        return cut.where(self.active, torch.inf)

    def _integrals(self, nodes: Nodes, needed: Tensor, count: Tensor, sums: Tensor) -> Integrals:
        """Return the expected metric of the smallest mask of each bracket, ready to take more."""
        above, below = sums.unbind(1)
        inside, outside = series(above, nodes.u), series(below, nodes.u)
        part, amount = integrand(
            self.ratio, self.smooth, nodes, count, above[:, 0], inside, outside
        )
        steps = self.ratio.steps(self.smooth)
        return Integrals(exp(-nodes.u), part, amount, needed.long(), steps)

    def _chunks(self, between: Tensor, needed: Tensor) -> Iterator[tuple[Tensor, int, int]]:
        """List rows to scan together, with the most values and nodes that any of them has."""
        if torch.compiler.is_compiling():
            axes = [torch.arange(size, device=between.device) for size in between.shape]
            yield torch.cartesian_prod(*axes), self.maps.pixels, most_nodes(self.maps.pixels)
            return
        rows = self.active.nonzero()
        row = rows.unbind(1)
        widths, nodes = torch.stack((between[row], needed[row])).long().tolist()
        order = sorted(range(len(widths)), key=widths.__getitem__)
        while order:
            width = max(1, widths[order[-1]])
            some = order[-max(1, SCANNED_AT_ONCE // width) :]
            del order[-len(some) :]
            yield rows[torch.tensor(some, device=rows.device)], width, max(nodes[i] for i in some)


def _replaced(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    return torch.where(rows.view(*rows.shape, *[1] * (old.dim() - 2)), new, old)
