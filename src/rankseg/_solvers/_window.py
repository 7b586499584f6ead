"""Where the best cuts of independent labels lie, told from the class profile."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rankseg._backends._bins import BINS, bin_edges
from rankseg._backends._records import Survey
from rankseg._objectives import Objective
from rankseg._solvers._cuts import best_among, with_likeliest
from rankseg._solvers._profile_cuts import ROWS


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
    def of(cls, profile: Tensor, rows: Tensor, objective: Objective, volume: Tensor) -> Window:
        """Return the window from profiles ``(rows, BINS, 2)`` and volumes ``(batch, classes)``."""
        volume = volume[rows.unbind(1)].unsqueeze(1)
        parts = zip(profile.split(ROWS), volume.split(ROWS), strict=True)
        ends = [_bins_of_cuts(part, objective, volumes) for part, volumes in parts]
        return cls(rows, *(torch.cat(some) for some in zip(*ends, strict=True)))

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
        return with_likeliest(cuts, objective, survey)


def _bins_of_cuts(profile: Tensor, objective: Objective, volume: Tensor) -> list[Tensor]:
    """Find the bins in which the largest fraction lies with the least bonus and with the most.

    The fraction is the root of a function that falls with the cut, and changes its sign there.
    """
    edges = bin_edges(profile.device)
    count, mass = (
        term.sum(1, keepdim=True) - pad(term.cumsum(1), (1, 0)) for term in profile.unbind(2)
    )
    excess = mass - edges * (count + objective.offset(volume))
    least = objective.bonus(torch.full_like(volume, torch.inf), volume)
    most = objective.bonus(torch.zeros_like(volume), volume)
    lower = ((excess + least > 0).sum(1, keepdim=True) - 1).clamp(0, BINS - 1)
    upper = (excess + most > 0).sum(1, keepdim=True).clamp(1, BINS)
    above, mass_above = count.gather(1, upper), mass.gather(1, upper)
    extra = count.gather(1, lower) - above
    return [end.squeeze(1) for end in (edges[lower], edges[upper], extra, above, mass_above)]
