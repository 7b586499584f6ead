"""Where the best cuts of independent labels lie, told from the class profile."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._bins import bin_edges
from rankseg._backends._records import Survey
from rankseg._objectives import Objective
from rankseg._solvers._cuts import best_among
from rankseg._solvers._profile_cuts import CELL, bins_in_cells, from_above, take


@dataclass(frozen=True)
class Window:
    """The bins in which the best cuts lie.

    ``rows`` lists image and class. Of each, ``(rows,)``, the cut lies from ``low`` to ``high``:
    ``extra`` values are there, and above them ``count`` of total ``mass``.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    extra: Tensor
    count: Tensor
    mass: Tensor

    @classmethod
    def of(
        cls,
        rows: Tensor,
        profile: Tensor,
        above: Tensor,
        zeros: Tensor,
        objective: Objective,
        volume: Tensor,
    ) -> Window:
        """Return the window from profiles ``(rows, BINS, 2)``.

        ``above`` are count and mass of the masks above the edges between cells of their bins,
        ``zeros`` how many values their first bins held, ``volume`` is ``(batch, classes)``.

        The best fraction with the least bonus is lower than with the most, where they differ.
        """
        volume = volume[rows.unbind(1)].unsqueeze(1)
        offset = objective.offset(volume)
        least, most = (
            objective.bonus(torch.full_like(volume, count), volume) for count in (torch.inf, 0.0)
        )
        bins, ends = _bin_of_fraction(profile, above, least, offset)
        low, count = bins, ends[:, 0, 0]
        if objective.fraction is None:
            bins, ends = _bin_of_fraction(profile, above, most, offset)
        extra = count - ends[:, 1, 0] + zeros.where(low == 0, 0.0)
        edges = bin_edges(profile.device)
        return cls(rows, edges[low], edges[bins + 1], extra, *ends[:, 1].unbind(1))

    def best_cuts(
        self, backend: ModuleType, maps: Any, survey: Survey, objective: Objective
    ) -> Tensor:
        """Return the best cuts, ``(batch, classes)``; maps need only hold what is in the window."""
        row, extra = self.rows.unbind(1), self.extra.long()
        width = max([1, *extra.tolist()])
        values = backend.between(maps, survey, self.low, self.high, self.rows, width)
        base = self.count, self.mass, survey.mass[row]
        cut = best_among(objective, values, extra, self.low, base)
        cuts = torch.full_like(survey.mass, torch.inf).index_put(row, cut)
        return survey.below_peak(cuts) if objective.smooth == 0 else cuts


def _bin_of_fraction(
    profile: Tensor, above: Tensor, bonus: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Find the bin in which the largest fraction ``(mass + bonus) / (count + offset)`` lies.

    And count and mass of the masks above its two ends, ``(rows, 2, 2)``. The fraction is the root
    of a function that falls with the cut: its sign is looked at between cells, then within one.
    """
    edges = bin_edges(profile.device)
    cell = _last_rise(edges[:-1:CELL], above[:, :-1], bonus, offset)
    bins, inside = bins_in_cells(profile, cell.unsqueeze(1))
    masks = from_above(inside, take(above, cell + 1))
    place = _last_rise(edges[bins], masks[:, :-1], bonus, offset)
    return take(bins, place), torch.stack((take(masks, place), take(masks, place + 1)), 1)


def _last_rise(cuts: Tensor, masks: Tensor, bonus: Tensor, offset: Tensor) -> Tensor:
    """Return which of some rising cuts is the last below the fraction of its mask, or the first."""
    count, mass = masks.unbind(2)
    rises = mass + bonus > cuts * (count + offset)
    return (rises.sum(1) - 1).clamp_min(0)
