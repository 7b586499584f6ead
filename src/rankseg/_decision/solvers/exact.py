"""The masks that maximise the expected metric itself, not RMA's approximation of it.

An upper bound leaves few cuts that can be best; all of these are evaluated. For masks that may
overlap, the CPU backend applies the same rules row by row in one compiled function
(``numba_exact``), unless the image is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import fraction_cuts, rows_of
from rankseg._formulas.expectation import (
    DOUBLINGS,
    MARGIN,
    NEAR,
    RATIOS,
    ROUNDING,
    SERIES_PROB,
    SERIES_VOLUME,
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
from rankseg._formulas.records import NEGLIGIBLE_PROB, POWERS, Integrals, Survey

SCANNED_AT_ONCE = 1 << 18
"""Most values of several rows in one array: 2 MiB, unless a single row has more."""


def exact_cuts(
    backend: ModuleType, maps: Any, survey: Survey, settings: Settings, active: Tensor
) -> Tensor:
    """Return, per image and class, the cut of the mask that maximises the expected metric.

    The cuts are ``(batch, classes)`` float64, infinite for classes that are not ``active``. A mask
    holds the pixels with ``p > cut``. RMA's best value is a lower bound on the optimum. An upper
    bound on the metric of each mask then excludes all but a bracket of masks
    (:meth:`_Search.bracket`). The pixels inside the bracket are sorted, and the metric of each mask
    in the bracket is evaluated.
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
    """The masks that may be best, for every image and class: tensors ``(batch, classes, ...)``.

    Attributes
    ----------
    low, high
        The cut of the best mask is in ``[low, high]``: the mask holds every pixel with ``p > high``
        and no pixel with ``p <= low``.
    count, between
        How many pixels have ``p > high``, and how many have ``low < p <= high``.
    sums
        ``(batch, classes, 2, POWERS)``: power sums of the pixels with ``p > high``, then of those
        with ``p <= low``; see ``split``.
    """

    low: Tensor
    high: Tensor
    count: Tensor
    between: Tensor
    sums: Tensor

    def replaced(self, rows: Tensor, by: _Bracket) -> _Bracket:
        """Return the brackets, those marked in ``rows`` (boolean) taken from ``by``."""
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
        """Enclose the best mask of every class between two cuts.

        Let ``Y`` be a sum of independent labels with mean ``m``, and ``a >= 1``. Then ``E[1/(a +
        Y)]`` is at least ``1/(a + m)`` by Jensen's inequality. It is at most ``1/(a - 1 + m)``,
        since ``m E[1/(a + Y)] <= E[Y/(a - 1 + Y)] <= m/(a - 1 + m)``, and at most ``1/a``.

        So the metric of a mask of ``n`` pixels is at most ``(gain + g) / (n + max(rest - 1, 0) +
        g)``, where gain and rest are expected values. The best mask scores at least RMA's best
        value, by Jensen's inequality. The bound minus that value, times the denominator, is a
        concave function of ``n``. So the masks whose bound reaches RMA's value are an interval of
        ``n``, and any two masks that fail on either side enclose it. The interval is short: bound
        and value of a mask differ relatively by at most ``2/(n + rest - 1 + g)``.

        The bound needs ``a >= 1``, which the empty mask with ``g < 1`` violates. For that mask
        ``E[g/(g + Y)] <= P(Y = 0) + g E[2/(1 + Y)] <= exp(-m) + 2 g/m``.
        """
        pixels = torch.full_like(self.survey.mass, self.maps.pixels)
        if is_traced():  # a traced graph cannot look, and takes all masks
            none = torch.zeros_like(pixels)
            sums = none[..., None, None].expand(-1, -1, 2, POWERS)
            return _Bracket(none, none + torch.inf, none, pixels, sums)
        volume = self.survey.mass
        cut = fraction_cuts(self.backend, self.maps, self.survey, self.objective, self.active)
        value = self.ratio.value(cut)
        # With a small volume all pixels are sorted but those of small probability.
        few = volume + self.smooth < SERIES_VOLUME
        empty = exp(-volume) + 2 * self.smooth / volume >= value
        to_empty = few | (empty & (0 < self.smooth < 1))
        width = torch.minimum(self._half_width(cut), cut / 2).clamp(min=NEGLIGIBLE_PROB)
        low = (cut - width).clamp(min=0)
        low = torch.where(few, low.clamp(max=SERIES_PROB), low)
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
        """Guess how far from RMA's ``cut`` the bracket extends to either side.

        A mask that ends at a distance ``w`` from the cut gives up the sum of ``abs(p - cut)`` over
        the pixels between. With ``density`` pixels per unit of probability that is ``density w^2 /
        2``. The bound allows for about ``2 cut`` (two pixels at the cut), so ``w = sqrt(4 cut /
        density)``. The density is estimated from the pixels between the cut and 1/2.
        """
        survey, bonus = self.survey, self.objective.bonus(torch.full_like(cut, torch.inf), cut)
        likely = survey.likely_mass + bonus
        lost = cut * (survey.likely_count + self.objective.offset(survey.mass)) - likely
        distance = 0.5 - cut
        density = 2 * lost / distance**2
        guess = MARGIN / torch.rsqrt(4 * cut / density.clamp(min=1.0))
        return torch.where(distance > NEAR, guess, UNKNOWN)

    def _split(self, low: Tensor, high: Tensor, rows: Tensor) -> _Bracket:
        """Count and sum the pixels above, inside and below the brackets of ``rows`` (boolean)."""
        high = high.masked_fill(high >= self.survey.peak, torch.inf)
        rate = self.survey.mass + self.smooth
        degree = powers_needed(rate).masked_fill(rate < SERIES_VOLUME, POWERS) * rows
        return _Bracket(
            low, high, *self.backend.split(self.maps, self.survey, low, high, degree, rate)
        )

    def _open_ends(self, bracket: _Bracket, deficit: Tensor) -> tuple[Tensor, Tensor]:
        """Return where cuts below ``low`` may still be best, and where cuts above ``high`` may.

        Both are ``(batch, classes)`` boolean. ``deficit`` is 1 minus RMA's best value.
        """
        below, above = self.survey.mass - bracket.sums[:, :, 1, 0], bracket.sums[:, :, 0, 0]
        down = (bracket.low > 0) & self._may_be_best(
            bracket.count + bracket.between, below, deficit
        )
        up = (bracket.high < torch.inf) & self._may_be_best(bracket.count, above, deficit)
        return down, up

    def _may_be_best(self, count: Tensor, mass: Tensor, deficit: Tensor) -> Tensor:
        """Return whether the upper bound of a mask reaches ``1 - deficit``, up to rounding."""
        gain, rest = self._terms(mass)
        size = count + (rest - 1).clamp(min=0)
        whole = size + self.smooth
        return gain - size + deficit * whole >= -ROUNDING * whole

    def _terms(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected gain and the expected rest of a mask; see ``expectation``."""
        return self.ratio.gain(mass, mass), self.ratio.rest(mass, self.survey.mass - mass)

    def best_cut(self, bracket: _Bracket) -> Tensor:
        """Evaluate every mask inside the brackets; return the cut of the best, by class."""
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
        """Return the integrals of the smallest mask of each bracket, to which ``scan`` adds pixels.

        ``count`` and ``sums`` are those of `_Bracket`, for the rows to scan.
        """
        above, below = sums.unbind(1)
        inside, outside = series(above, nodes.u), series(below, nodes.u)
        weight, amount = integrand(
            self.ratio, self.smooth, nodes, count, above[:, 0], inside, outside
        )
        steps = self.ratio.steps(self.smooth)
        return Integrals(exp(-nodes.u), weight, amount, needed.long(), steps)

    def _chunks(self, between: Tensor, needed: Tensor) -> Iterator[tuple[Tensor, int, int]]:
        """Yield rows to scan together, ``(k, 2)``, and the most values and nodes any of them has.

        Rows with many values come first. A chunk has at most ``SCANNED_AT_ONCE`` values, unless it
        is a single row.
        """
        rows = rows_of(self.active)
        if is_traced():
            yield rows, self.maps.pixels, most_nodes(self.maps.pixels)
            return
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
