"""Labels that share a hidden factor: the model behind ``correlation``.

Given the factor, labels are independent (see ``_correlation``), and the objective is averaged over
it. Everything a mask is judged by is then a sum of functions of the probability, so the class
profile replaces most looks at the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._bins import BINS
from rankseg._backends._records import GainCurves, Survey, write_lines
from rankseg._objectives import Objective
from rankseg._quiet import product
from rankseg._settings import Settings
from rankseg._solvers import _profile_cuts as search
from rankseg._solvers._average import Average, Factor
from rankseg._solvers._cuts import optimal_cuts, rows_of
from rankseg._solvers._exact_average import exact_average
from rankseg._solvers._unsettled import Unsettled, split_off
from rankseg._solvers._window import Window


@dataclass(frozen=True)
class Correlated:
    """The model; a state is count, mass and the sums given the factor, ``(rows, functions)``.

    Attributes
    ----------
    rows
        Image and class of the eligible, those that may be given to a pixel; no others are looked
        at.
    average
        What is maximised.
    best
        ``(batch, classes)``: the best cuts of these, 0 for the others.
    masks
        States of the masks above them. States of labels follow from where the two differ.
    window
        Where the best cuts of independent labels lie.
    part
        Pixels whose labels are not the same in this model and in that.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    rows: Tensor
    average: Average
    best: Tensor
    masks: Tensor
    window: Window
    part: Unsettled

    @classmethod
    def build(
        cls,
        backend: ModuleType,
        maps: Any,
        survey: Survey,
        objective: Objective,
        settings: Settings,
        eligible: Tensor,
        shared: bool,
    ) -> Correlated:
        """Take the profile of the eligible classes, and find their best cuts.

        With the pixels to be ``shared`` out, those left unsettled are split off before.
        """
        rows = rows_of(eligible)
        profile = backend.profile(maps, survey, rows)
        average: Average
        if settings.solver == "exact":
            average = exact_average(settings, objective, maps.pixels, rows.device)
        else:
            factor = Factor.of(settings.correlation, rows.device)
            average = Average(objective, factor, factor.no_rows())
        first = profile[:, 0].clone()
        profile[:, 0] = 0  # no mask is to hold them
        searches = [
            _Search.start(backend, maps, survey, rows[some], average, profile[some], first[some])
            for some in average.factor.curves.parts(len(rows))
        ]
        if searches:
            average = average.over(torch.cat([each.average.whole for each in searches]))
        above = [each.above for each in searches] or [profile.new_empty(0, 2, 2)]
        window = Window.of(rows, profile, torch.cat(above), first[:, 0], objective, survey.mass)
        part = Unsettled.all_of(maps, survey)
        if shared and searches and not torch.compiler.is_compiling():
            low = torch.cat([each.bracket.low for each in searches]).minimum(window.low)
            high = torch.cat([each.bracket.high for each in searches]).maximum(window.high)
            kept = survey.peak > settings.pruning_prob
            part = split_off(backend, maps, survey, (rows, low, high), kept, settings.void_index)
        found = [each.best_cuts(part) for each in searches]
        functions = average.factor.curves.functions
        cuts, masks = profile.new_empty(0), profile.new_empty(0, functions)
        if found:
            cuts, masks = (torch.cat(some) for some in zip(*found, strict=True))
        best = torch.zeros_like(survey.mass).index_put(rows.unbind(1), cuts)
        return cls(backend, maps, survey, rows, average, best, masks, window, part)

    def cuts(self, active: Tensor) -> Tensor:
        return torch.where(active, self.best, torch.inf)

    def claim(self, cuts: Tensor) -> tuple[Tensor, Tensor]:
        # Gains from the masks themselves: the labels score as much, and need not be tallied.
        labels, _, _ = self.backend.claim(self.maps, self.survey, cuts)
        return labels, self.masks

    def tally(self, labels: Tensor) -> Tensor:
        changes = self.backend.exchange(self.maps, self.survey, labels, self.best, self.rows)
        return self.masks + self.average.factor.curves.sums(changes)

    def score(self, state: Tensor) -> Tensor:
        scores = self.average.score(state.unsqueeze(1)).squeeze(1)
        return torch.zeros_like(self.best).index_put(self.rows.unbind(1), scores)

    def increment(self, state: Tensor) -> GainCurves:
        return self.slope(state)  # a pixel more or less: the same to a part in the volume

    def slope(self, state: Tensor) -> GainCurves:
        lines = state.new_empty(len(state), BINS, 2)
        for part in self.average.factor.curves.parts(len(state)):
            gains = self.average.over(self.average.whole[part]).slope(state[part])
            write_lines(gains, lines[part])
        return GainCurves(self.rows, lines)

    def of_part(self) -> Correlated:
        """Return the model on maps of the unsettled pixels; the others are as in the masks."""
        return replace(self, maps=self.part.maps, survey=self.part.survey)

    def published_cuts(self, objective: Objective) -> Tensor:
        """Return the best cuts if labels were independent, ``(batch, classes)``."""
        if torch.compiler.is_compiling() or bool((self.window.extra > search.CROWD).any()):
            active = torch.zeros_like(self.best, dtype=torch.bool)
            active = active.index_put(self.rows.unbind(1), active.new_ones(()))
            return optimal_cuts(self.backend, self.maps, self.survey, objective, active)
        return self.window.best_cuts(self.backend, self.part.maps, self.part.survey, objective)

    def with_objective(self, objective: Objective) -> Correlated:
        return replace(self, average=replace(self.average, objective=objective))


@dataclass(frozen=True)
class _Search:
    """The search for the best cuts of some rows, once their brackets are known.

    ``above`` are count and mass of the masks above the edges between cells of bins.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    rows: Tensor
    average: Average
    bracket: search.Bracket
    above: Tensor

    @classmethod
    def start(
        cls,
        backend: ModuleType,
        maps: Any,
        survey: Survey,
        rows: Tensor,
        average: Average,
        profile: Tensor,
        first: Tensor,
    ) -> _Search:
        """Start a search from the profiles of the rows, and what is ``first`` in their bins."""
        curves = average.factor.curves
        above = search.above_cells(profile, curves)
        average = average.over(above[:, 0] + product(first, curves.lines[0]))
        bracket = search.best_bracket(profile, above, curves, average.score)
        return cls(backend, maps, survey, rows, average, bracket, above[..., :2])

    def best_cuts(self, part: Unsettled) -> tuple[Tensor, Tensor]:
        """Return the best cuts, ``(rows,)``, and the states of the masks above them.

        The ``part`` of the pixels is to hold all values in the brackets.
        """
        curves, score = self.average.factor.curves, self.average.score
        bracket = self.bracket
        if torch.compiler.is_compiling():  # a traced graph cannot look at counts: gather them all
            width, gathered = self.maps.pixels, torch.ones_like(bracket.extra, dtype=torch.bool)
        else:
            bracket = self._narrow_crowds(bracket)
            gathered = bracket.extra <= search.CROWD
            width = max([1, *(bracket.extra * gathered).tolist()])
        low = torch.where(gathered, bracket.low, bracket.high)
        values = self.backend.between(part.maps, part.survey, low, bracket.high, self.rows, width)
        cuts, states = search.best_among(bracket, values, curves, score)
        end, states_there = search.best_end(bracket, score)
        states = torch.where(gathered.unsqueeze(1), states, states_there)
        return torch.where(gathered, cuts, end), states

    def _narrow_crowds(self, bracket: search.Bracket) -> search.Bracket:
        """Narrow the brackets that hold too many values to gather."""
        crowded = search.is_crowded(bracket)
        while crowded.any():
            places = search.places_between(bracket)
            seen = [self._above(place, crowded) for place in places.unbind(1)]
            count, mass = (torch.stack(terms, 1) for terms in zip(*seen, strict=True))
            curves, score = self.average.factor.curves, self.average.score
            narrowed = search.narrow(bracket, places, count, mass, curves, score)
            bracket = bracket.where(crowded, narrowed)
            crowded = search.is_crowded(bracket)
        return bracket

    def _above(self, cut: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and mass of the masks above a cut of every row, where active."""
        place = self.rows.unbind(1)
        cuts = torch.full_like(self.survey.mass, torch.inf).index_put(place, cut)
        chosen = torch.zeros_like(cuts, dtype=torch.bool).index_put(place, active)
        count, mass = self.backend.above(self.maps, self.survey, cuts, chosen)
        return count[place], mass[place]
