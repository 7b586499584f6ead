"""The model for ``correlation > 0``: all labels of a class in an image share a hidden factor.

Given the factor, labels are independent (see ``_formulas.correlation``). The objective is averaged
over the factor. It needs, for a mask, only sums of functions of the probability. These follow from
the class profile, so the pixels are read once and everything else works on a few thousand bins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._common.tracing import is_on_host
from rankseg._decision.solvers.cuts import rows_of
from rankseg._decision.solvers.unsettled import Unsettled
from rankseg._formulas.average import Average, best_cuts, factor_of
from rankseg._formulas.objectives import Objective
from rankseg._formulas.records import GainCurves, State, Survey

ALL = slice(None)


@dataclass(frozen=True)
class Correlated:
    """The model of correlated labels.

    A state is a tuple of one tensor, ``(rows, functions)``: the count of pixels, the mass, and the
    mass given each value of the factor.

    Attributes
    ----------
    rows
        ``(rows, 2)``: image and class of the eligible classes, those that a pixel may be given to.
    average
        The objective, averaged over the factor.
    best
        ``(batch, classes)``: the best cut of each eligible class, 0 for the other classes.
    edges
        ``(batch, classes)``: the best cut among the edges of the bins, 0 for the other classes.
    masks
        ``(rows, functions)``: the states of the masks above ``edges``. The state of labels is
        computed from the pixels where labels and these masks differ.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    rows: Tensor
    average: Average
    best: Tensor
    edges: Tensor
    masks: Tensor

    @classmethod
    def build(
        cls,
        backend: ModuleType,
        maps: Any,
        survey: Survey,
        objective: Objective,
        correlation: float,
        eligible: Tensor,
    ) -> Correlated:
        """Take the profiles of the eligible classes, and find their best cuts."""
        rows = rows_of(eligible)
        factor = factor_of(correlation, rows.device)
        profile = backend.profile(maps, survey, rows)
        average, cuts, edges, masks = best_cuts(profile, factor, objective)
        row, none = rows.unbind(1), torch.zeros_like(survey.mass)
        best, edges = none.index_put(row, cuts), none.index_put(row, edges)
        best = survey.below_peak(best) if objective.smooth == 0 else best
        return cls(backend, maps, survey, rows, average, best, edges, masks)

    def cuts(self, active: Tensor) -> Tensor:
        return torch.where(active, self.best, torch.inf)

    def bracket(self, cuts: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        # The bracket includes the edge: outside of it, cut and edge label every pixel alike.
        low = self.edges.minimum((1 - margin) * cuts).where(torch.isfinite(cuts), torch.inf)
        return low, self.edges.maximum((1 + margin) * cuts)

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        # The state is that of the masks: these labels score about the same, and a tally costs time.
        labels, _, _ = self.backend.claim(self.maps, self.survey, cuts)
        return labels, (self.masks,)

    def tally(self, labels: Tensor, images: Tensor | None = None) -> State:
        chosen = self._rows_of(images)
        rows, masks = self.rows[chosen], self.masks[chosen]
        changes = self.backend.exchange(self.maps, self.survey, labels, self.edges, rows)
        sums = masks + self.average.factor.curves.sums(changes)
        sums = torch.where(sums[:, :1] > 0, sums, 0.0)  # without pixels, rounding
        return (sums if chosen is ALL else self.masks.index_put((chosen,), sums),)

    def choose(self, images: Tensor, state: State, other: State) -> State:
        return (torch.where(images[self.rows[:, :1]], state[0], other[0]),)

    def score(self, state: State) -> Tensor:
        scores = self.average.score(state[0].unsqueeze(1)).squeeze(1)
        return torch.zeros_like(self.best).index_put(self.rows.unbind(1), scores)

    def increment(self, state: State) -> GainCurves:
        return self.slope(state)  # differs from the increment by about 1 / volume, relatively

    def slope(self, state: State, images: Tensor | None = None) -> GainCurves:
        chosen = self._rows_of(images)
        average = self.average.over(self.average.whole[chosen])
        return GainCurves(self.rows[chosen], average.gain_lines(state[0][chosen]))

    def _rows_of(self, images: Tensor | None) -> Any:
        """Return which rows are of some images; all of them where to look would be a wait."""
        if images is None or not is_on_host(images) or bool(images.all()):
            return ALL
        return images[self.rows[:, 0]].nonzero().squeeze(1)

    def of(self, unsettled: Unsettled) -> Correlated:
        return replace(self, maps=unsettled.maps, survey=unsettled.survey)

    def with_objective(self, objective: Objective) -> Correlated:
        return replace(self, average=replace(self.average, objective=objective))
