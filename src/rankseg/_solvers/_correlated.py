"""Labels that share a hidden factor: the model behind ``correlation``.

Given the factor, labels are independent (see ``_correlation``), and the objective is averaged over
it. Everything a mask is judged by is then a sum of functions of the probability, so the class
profile replaces most looks at the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._bins import BINS, bin_edges
from rankseg._backends._records import GainCurves, Survey, write_lines
from rankseg._loop import MOST_STEPS
from rankseg._objectives import Objective
from rankseg._quiet import product
from rankseg._settings import Settings
from rankseg._solvers import _profile_cuts as search
from rankseg._solvers._average import Average, Factor
from rankseg._solvers._cuts import optimal_cuts, rows_of
from rankseg._solvers._exact_average import exact_average
from rankseg._solvers._unsettled import Unsettled, split_off


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
    published
        ``(batch, classes)``: the best cuts if labels were independent, infinite for the others;
        None where pixels are not shared out.
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
    published: Tensor | None
    part: Unsettled

    @classmethod
    def build(
        cls,
        backend: ModuleType,
        maps: Any,
        survey: Survey,
        objective: Objective,
        settings: Settings,
        kept: Tensor,
        eligible: Tensor,
        shared: bool,
    ) -> Correlated:
        """Take the profile of the eligible classes, and find their best cuts.

        With the pixels to be ``shared`` out, those left unsettled are split off before.
        """
        rows = rows_of(eligible)
        profile = backend.profile(maps, survey, rows)
        first = profile[:, 0].clone()
        profile[:, 0] = 0  # no mask is to hold them
        average = _average(settings, objective, maps.pixels, rows.device)
        tracing = torch.compiler.is_compiling()
        # A fraction has one peak among the cuts, and the same search finds it.
        both = shared and objective.fraction is not None and not tracing
        searches = [
            _Search.start(
                backend, maps, survey, rows[some], average, profile[some], first[some], both
            )
            for some in average.factor.curves.parts(len(rows))
        ]
        published = None
        if shared and not both:
            published = optimal_cuts(backend, maps, survey, objective, eligible)
        part = Unsettled.all_of(maps, survey)
        if shared and len(rows) and not tracing:
            brackets = _brackets(rows, searches, published)
            part = split_off(backend, maps, survey, brackets, kept, settings.void_index)
        found = [each.best_cuts(part) for each in searches]
        (cuts, masks), *others = [_joined(terms) for terms in zip(*found, strict=True)]
        best = torch.zeros_like(survey.mass).index_put(rows.unbind(1), cuts)
        for _, held in others:
            published = _cuts_of_fractions(backend, maps, survey, objective, rows, held)
        average = average.over(torch.cat([each.average.whole for each in searches]))
        return cls(backend, maps, survey, rows, average, best, masks, published, part)

    def cuts(self, active: Tensor) -> Tensor:
        return torch.where(active, self.best, torch.inf)

    def claim(self, cuts: Tensor) -> tuple[Tensor, Tensor]:
        # Gains from the masks themselves: the labels score as much, and need not be tallied.
        labels, _, _ = self.backend.claim(self.maps, self.survey, cuts)
        return labels, self.masks

    def tally(self, labels: Tensor) -> Tensor:
        changes = self.backend.exchange(self.maps, self.survey, labels, self.best, self.rows)
        state = self.masks + self.average.factor.curves.sums(changes)
        return torch.where(state[:, :1] > 0, state, 0.0)  # no pixels: what is left is rounding

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

    def with_objective(self, objective: Objective) -> Correlated:
        return replace(self, average=replace(self.average, objective=objective))


@dataclass(frozen=True)
class _Search:
    """The search for the best cuts of some rows, once their brackets are known.

    By the average, then for ``objectives`` of 2 by what it were if labels were independent: what
    has a row for each image and class has all of them once more then.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    rows: Tensor
    average: Average
    objectives: int
    bracket: search.Bracket

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
        both: bool,
    ) -> _Search:
        """Start a search from the profiles of the rows, and what was ``first`` in their bins."""
        number = 1 + both
        compiled = _compiled(backend, average)
        if compiled is not None:
            average, bracket = compiled.best_brackets(average, profile, first, number)
        else:
            curves = average.factor.curves
            above = search.above_cells(profile, curves)
            average = average.over(above[:, 0] + product(first, curves.lines[0]))
            scores = [average.score, average.independent_score][:number]
            bracket = search.best_bracket(profile, above, curves, scores)
        return cls(backend, maps, survey, rows.repeat(number, 1), average, number, bracket)

    @property
    def score(self) -> search.Score:
        """The objectives, of rows that come once for each."""
        scores = [self.average.score, self.average.independent_score]
        return search.one_after_the_other(scores[: self.objectives])

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return between which values the cuts of every row lie, by all objectives."""
        shape = self.objectives, len(self.average.whole)
        low, high = self.bracket.low.view(shape).amin(0), self.bracket.top.view(shape).amax(0)
        return low.where(low > bin_edges(low.device)[1], 0.0), high  # the first bin was not seen

    def best_cuts(self, part: Unsettled) -> list[tuple[Tensor, Tensor]]:
        """Return for each objective the best cuts, and the states of the masks above them.

        The ``part`` of the pixels is to hold all values in the brackets.
        """
        bracket, width = self.bracket, self.maps.pixels
        if not torch.compiler.is_compiling():  # a traced graph cannot look at counts
            bracket = self._narrow_crowds(bracket)
            width = max([1, *bracket.extra.tolist()])
        found = self._best_among(bracket, part, width)
        return list(zip(*(term.tensor_split(self.objectives) for term in found), strict=True))

    def _best_among(
        self, bracket: search.Bracket, part: Unsettled, width: int
    ) -> tuple[Tensor, Tensor]:
        """Return the best of the cuts in the brackets, ``width`` of them at most, and its state.

        Of what is crowded still, where all values are as good as equal, the better end.
        """
        curves, score = self.average.factor.curves, self.score
        if width <= search.CROWD or torch.compiler.is_compiling():
            values = self._between(bracket, bracket.low, part, width)
            compiled = _compiled(self.backend, self.average)
            if compiled is not None:
                found: tuple[Tensor, Tensor] = compiled.best_among(self.average, bracket, values)
                return found
            return search.best_among(bracket, values, curves, score)
        crowded = bracket.extra > search.CROWD
        low = torch.where(crowded, bracket.high, bracket.low)
        values = self._between(bracket, low, part, search.CROWD)
        cuts, states = search.best_among(bracket, values, curves, score)
        end, states_there = search.best_end(bracket, score)
        states = torch.where(crowded.unsqueeze(1), states_there, states)
        return torch.where(crowded, end, cuts), states

    def _between(self, bracket: search.Bracket, low: Tensor, part: Unsettled, width: int) -> Tensor:
        """Gather the values of every bracket, from ``low`` on."""
        values: Tensor = self.backend.between(
            part.maps, part.survey, low, bracket.top, self.rows, width
        )
        return values

    def _narrow_crowds(self, bracket: search.Bracket) -> search.Bracket:
        """Narrow the brackets that hold too many values to gather."""
        for _ in range(MOST_STEPS):
            crowded = search.is_crowded(bracket)
            if not crowded.any():
                break
            places = search.places_between(bracket)
            seen = [self._above(place, crowded) for place in places.unbind(1)]
            count, mass = (torch.stack(terms, 1) for terms in zip(*seen, strict=True))
            narrowed = search.narrow(
                bracket, places, count, mass, self.average.factor.curves, self.score
            )
            bracket = bracket.where(crowded, narrowed)
        return bracket

    def _above(self, cut: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and mass of the masks above a cut of every row, where active."""
        seen = []
        terms = (term.tensor_split(self.objectives) for term in (self.rows, cut, active))
        for rows, at, there in zip(*terms, strict=True):
            place = rows.unbind(1)
            cuts = torch.full_like(self.survey.mass, torch.inf).index_put(place, at)
            chosen = torch.zeros_like(cuts, dtype=torch.bool).index_put(place, there)
            count, mass = self.backend.above(self.maps, self.survey, cuts, chosen)
            seen.append((count[place], mass[place]))
        count, mass = (torch.cat(terms) for terms in zip(*seen, strict=True))
        return count, mass


def correlated_masks(
    backend: ModuleType, maps: Any, objective: Objective, settings: Settings, least_peak: float
) -> tuple[Tensor, bool, Tensor]:
    """Return the best mask of every class by itself, if there is a fault, and which are known.

    Of a backend that compiles; a mask is not known where a bracket is crowded.
    """
    average = _average(settings, objective, maps.pixels, torch.device("cpu"))
    compiled = _compiled(backend, average)
    assert compiled is not None
    found: tuple[Tensor, bool, Tensor]
    found = compiled.own_masks(backend, maps, average, least_peak)
    return found


def _compiled(backend: ModuleType, average: Average) -> ModuleType | None:
    """Return the search as numba compiles it, where it is there: of no other average."""
    if not (backend.COMPILES and type(average) is Average):
        return None
    from rankseg._solvers import _numba_profile_cuts

    return _numba_profile_cuts


def _average(
    settings: Settings, objective: Objective, pixels: int, device: torch.device
) -> Average:
    """Return what is maximised, for images of so many pixels, of no rows yet."""
    if settings.solver == "exact":
        return exact_average(settings, objective, pixels, device)
    factor = Factor.of(settings.correlation, device)
    return Average(objective, factor, factor.no_rows())


def _brackets(
    rows: Tensor, searches: Sequence[_Search], published: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows and the ends between which all cuts lie, the ``published`` too if known."""
    low, high = _joined([each.ends() for each in searches])
    if published is not None:
        cuts = published[rows.unbind(1)]
        low, high = low.minimum(cuts), high.maximum(cuts)
    return rows, low, high


def _joined(terms: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join what is known of some rows after the others."""
    first, second = zip(*terms, strict=True)
    return torch.cat(first), torch.cat(second)


def _cuts_of_fractions(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    objective: Objective,
    rows: Tensor,
    masks: Tensor,
) -> Tensor:
    """Return the cuts of the best masks of independent labels, from the states of these.

    ``(batch, classes)``: the fraction of such a mask is its cut. What is in the first bin no mask
    held that was looked at: there the fraction is raised further.
    """
    bonus = torch.full_like(survey.mass, objective.endless[0])
    offset = survey.mass + objective.endless[1]
    row = rows.unbind(1)
    reached = (masks[:, 1] + bonus[row]) / (masks[:, 0] + offset[row])
    cuts = torch.full_like(survey.mass, torch.inf).index_put(row, reached)
    unseen = cuts <= bin_edges(cuts.device)[1]
    if bool(unseen.any()):
        cuts = cuts.maximum(survey.first_cuts(bonus, offset))
        cuts = backend.raise_cuts(maps, survey, cuts, unseen, bonus, offset)
    return survey.below_peak(cuts) if objective.smooth == 0 else cuts
