"""The cut of every class: a pixel is in the mask of the class if its probability exceeds the cut.

No map is sorted. For a linear-fractional objective, Dinkelbach's iteration raises the cut; each
step counts and sums the values above the current cut. For Dice with smoothing, two such cuts
enclose the best one, and only the few pixels between the two are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced
from rankseg._formulas.objectives import Objective
from rankseg._formulas.records import Survey


def optimal_cuts(
    backend: ModuleType, maps: Any, survey: Survey, objective: Objective, active: Tensor
) -> Tensor:
    """Return, per image and class, the cut of the mask that maximises the RMA objective.

    ``(batch, classes)`` float64, infinite for classes that are not ``active``. The mask holds the
    pixels with ``p > cut``; pixels that equal the cut would not change the objective.
    """
    if objective.fraction is not None:
        keep_peak = objective.smooth == 0
        cut: Tensor = backend.best_cuts(maps, survey, active, *objective.fraction, keep_peak)
        return cut
    fraction = _Fraction.with_fewest_bonus(backend, maps, survey, objective, active)
    cut = _search_bracket(fraction, objective, fraction.best_cut())
    return torch.where(active, cut, torch.inf)


def stopping_cuts(
    backend: ModuleType, maps: Any, survey: Survey, offset: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """Return cut and count of the smallest mask that maximises ``mass / (count + offset)``.

    Both are ``(batch, classes)`` float64; the count is 0 for classes that are not ``active``. Take
    the pixels of a class from the largest probability down. The mask ends before the first pixel
    whose probability does not exceed ``mass / (count + offset)`` of the pixels before it.
    """
    none = torch.zeros_like(survey.mass)
    fraction = _Fraction(backend, maps, survey, active, none, none + offset)
    cut = fraction.best_cut()
    return cut, fraction.above(cut)[0]


def fraction_cuts(
    backend: ModuleType, maps: Any, survey: Survey, objective: Objective, active: Tensor
) -> Tensor:
    """Return, per image and class, a lower bound on the optimal cut: ``(batch, classes)`` float64.

    It is the largest ``(mass + bonus) / (count + offset)`` of any mask, with the limit of ``bonus``
    for infinitely many pixels. For a linear-fractional objective it is the optimal cut itself.
    """
    fraction = _Fraction.with_fewest_bonus(backend, maps, survey, objective, active)
    return fraction.best_cut()


@dataclass(frozen=True)
class _Fraction:
    """The fraction ``(mass + bonus) / (count + offset)`` of a mask, to be maximised over masks."""

    backend: ModuleType
    maps: Any
    survey: Survey
    active: Tensor
    bonus: Tensor
    offset: Tensor

    @classmethod
    def with_fewest_bonus(
        cls, backend: ModuleType, maps: Any, survey: Survey, objective: Objective, active: Tensor
    ) -> _Fraction:
        """Return the fraction with the smallest ``bonus``: its limit for infinitely many pixels."""
        volume = survey.mass
        bonus = objective.bonus(torch.full_like(volume, torch.inf), volume)
        return cls(backend, maps, survey, active, bonus, objective.offset(volume))

    def of(self, count: Tensor | float, mass: Tensor | float) -> Tensor:
        """Return the fraction of a mask."""
        return (mass + self.bonus) / (count + self.offset)

    def above(self, cut: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and mass of the mask above ``cut``."""
        count, mass = self.backend.above(self.maps, self.survey, cut, self.active)
        return count, mass

    def best_cut(self, start: Tensor | None = None) -> Tensor:
        """Return the largest fraction of any mask, by Dinkelbach's iteration from ``start``."""
        if start is None:
            start = self.survey.first_cuts(self.bonus, self.offset)
        raised: Tensor = self.backend.raise_cuts(
            self.maps, self.survey, start, self.active, self.bonus, self.offset
        )
        return raised


def _search_bracket(fraction: _Fraction, objective: Objective, low: Tensor) -> Tensor:
    """Return the best cut of an objective whose ``bonus`` falls as the mask grows.

    ``low`` was found with the smallest bonus, so it is at or below every optimum. The same
    iteration with the bonus of the empty mask gives a cut ``high`` at or above every optimum. So
    the best mask has at least the pixels above ``high``, and their count gives a smaller bonus: a
    second round lowers ``high``. The values between ``low`` and ``high`` are sorted, and the
    objective is evaluated at each.
    """
    volume = fraction.survey.mass
    widest_count, widest_mass = fraction.above(low)
    count = torch.zeros_like(volume)
    for _ in range(2):
        steeper = replace(fraction, bonus=objective.bonus(count, volume))
        high = steeper.best_cut(torch.maximum(low, steeper.of(widest_count, widest_mass)))
        count, mass = steeper.above(high)
    extra = (widest_count - count).long()
    rows, width = _rows_to_scan(extra, fraction.maps.pixels)
    if width == 0:
        return high
    row = rows.unbind(1)
    values = fraction.backend.between(
        fraction.maps, fraction.survey, low[row], high[row], rows, width
    )
    best = best_among(objective, values, extra[row], low[row], (count[row], mass[row], volume[row]))
    return high.index_put(row, best)


def rows_of(chosen: Tensor) -> Tensor:
    """List image and class of every row chosen, ``(rows, 2)``; in a traced graph list all rows."""
    if is_traced():
        axes = [torch.arange(size, device=chosen.device) for size in chosen.shape]
        return torch.cartesian_prod(*axes)
    return chosen.nonzero()


def _rows_to_scan(extra: Tensor, pixels: int) -> tuple[Tensor, int]:
    """Return the rows that have values to scan, and the largest number of values of any row.

    A traced graph cannot read the counts: it scans every row with all its pixels.
    """
    rows = rows_of(extra > 0)
    if is_traced():
        return rows, pixels
    return rows, int(extra.max()) if len(rows) else 0


def best_among(
    objective: Objective,
    values: Tensor,
    extra: Tensor,
    low: Tensor,
    base: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Return the best cut of each row, given the values that may still join the mask.

    ``values`` is ``(rows, width)``, largest first; the first ``extra`` of a row are used. ``base``
    is count and mass of the mask without these values, and the expected volume. A cut lies only
    where the sorted values fall: in a run of equal values the objective is best at an end.
    """
    taken = torch.arange(values.shape[1] + 1, device=values.device)
    first, last = values[:, :1], low.unsqueeze(1)
    following = torch.cat((values, last), 1).where(taken < extra.unsqueeze(1), last)
    previous = torch.cat((torch.full_like(first, torch.inf), values), 1)
    count, mass, volume = (term.unsqueeze(1) for term in base)
    gained = torch.cat((torch.zeros_like(first), values.cumsum(1)), 1)
    score = objective.score(count + taken, mass + gained, volume)
    cuts_here = (taken <= extra.unsqueeze(1)) & (previous > following)
    best = score.masked_fill(~cuts_here, -torch.inf).argmax(1, keepdim=True)
    return following.gather(1, best).squeeze(1)
