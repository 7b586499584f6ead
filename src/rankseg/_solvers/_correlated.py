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

from rankseg._backends._bins import bin_edges
from rankseg._backends._records import Gains, Survey
from rankseg._correlation import factor_nodes, given_factor
from rankseg._objectives import Objective
from rankseg._solvers import _profile_cuts as search
from rankseg._solvers._cuts import rows_of

ROWS = 32
"""Images and classes whose cuts are sought at a time, so that temporaries stay small."""


def factor_curves(correlation: float, device: torch.device) -> tuple[Tensor, search.Curves, Tensor]:
    """Return the probability given the factor as curves of the probability.

    Their values at the edges of bins, ``(BINS + 1, nodes)``, the curves, and the weights of the
    nodes. Without a correlation there is nothing to average over.
    """
    edges = bin_edges(device).unsqueeze(1)
    if correlation == 0:
        return edges, search.Curves.through(edges), torch.ones_like(edges[-1])
    factor, weights = factor_nodes(device=device)
    knots = given_factor(edges, factor, correlation)
    return knots, search.Curves.through(knots), weights


@dataclass(frozen=True)
class Average:
    """An objective averaged over the factor.

    Attributes
    ----------
    objective
        What is averaged.
    weights
        ``(nodes,)`` of the values of the factor.
    volume
        ``(rows, nodes)``: the expected volume given the factor, of each image and class.
    """

    objective: Objective
    weights: Tensor
    volume: Tensor

    def score(self, states: Tensor) -> Tensor:
        """Return the objective of masks, from their states ``(rows, masks, functions)``."""
        count, mass = states[..., :1], states[..., 2:]
        return self.objective.score(count, mass, self.volume.unsqueeze(1)) @ self.weights

    def gains_at(self, probs: Tensor, gains: Gains) -> Tensor:
        """Average gains, terms ``(rows, nodes)``, at ``(points, nodes)`` probabilities.

        Node by node, since all at once would be large. Returns ``(rows, points)``.
        """
        total = probs.new_zeros(len(self.volume), len(probs))
        for node, weight in enumerate(self.weights):
            slope, toll, size, shrink = (term[:, node, None] for term in gains.terms())
            total += weight * (slope * probs[:, node] - toll) / (size - shrink * probs[:, node])
        return total


@dataclass(frozen=True)
class Correlated:
    """The model; a state is count, mass and the sums given the factor, ``(rows, functions)``.

    ``rows`` lists image and class of the ``eligible``, those that may be given to a pixel; no
    others are looked at.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    eligible: Tensor
    rows: Tensor
    profile: Tensor
    knots: Tensor
    curves: search.Curves
    average: Average

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
        """Take the profile of the eligible classes."""
        knots, curves, weights = factor_curves(correlation, eligible.device)
        rows = rows_of(eligible)
        profile = backend.profile(maps, survey, eligible)[rows.unbind(1)]
        average = Average(objective, weights, curves.sums(profile)[:, 2:])
        return cls(backend, maps, survey, eligible, rows, profile, knots, curves, average)

    def cuts(self, active: Tensor) -> Tensor:
        found = [self._cuts_of(slice(i, i + ROWS)) for i in range(0, len(self.rows), ROWS)]
        cuts = self._by_class(torch.cat(found)) if found else torch.zeros_like(self.survey.mass)
        return torch.where(active, cuts, torch.inf)

    def claim(self, cuts: Tensor) -> tuple[Tensor, Tensor]:
        labels, _, _ = self.backend.claim(self.maps, self.survey, cuts)
        return labels, self.tally(labels)

    def tally(self, labels: Tensor) -> Tensor:
        profile = self.backend.profile(self.maps, self.survey, self.eligible, labels)
        return self.curves.sums(profile[self.rows.unbind(1)])

    def score(self, state: Tensor) -> Tensor:
        return self._by_class(self.average.score(state.unsqueeze(1)).squeeze(1))

    def increment(self, state: Tensor) -> Gains:
        return self._gains(self.average.objective.increment, state)

    def slope(self, state: Tensor) -> Gains:
        return self._gains(self.average.objective.slope, state)

    def _gains(self, kind: Any, state: Tensor) -> Gains:
        """Average one kind of gain over the factor: a curve over the bins for every class."""
        gains = kind(state[:, :1], state[:, 2:], self.average.volume)
        return Gains.through(self._by_class(self.average.gains_at(self.knots, gains)))

    def _by_class(self, values: Tensor) -> Tensor:
        """Spread values of rows, ``(rows, ...)``, over images and classes; 0 for the others."""
        table = values.new_zeros(*self.eligible.shape, *values.shape[1:])
        return table.index_put(self.rows.unbind(1), values)

    def _cuts_of(self, part: slice) -> Tensor:
        """Return the best cuts of some of the rows."""
        rows, average = self.rows[part], replace(self.average, volume=self.average.volume[part])
        bracket = search.best_bracket(self.profile[part], self.curves, average.score)
        if torch.compiler.is_compiling():  # a traced graph cannot look at counts: gather them all
            width, gathered = self.maps.pixels, torch.ones_like(bracket.extra, dtype=torch.bool)
        else:
            bracket = self._narrow_crowds(bracket, rows, average)
            gathered = bracket.extra <= search.CROWD
            width = max(1, int((bracket.extra * gathered).max()))
        low = torch.where(gathered, bracket.low, bracket.high)
        values = self.backend.between(self.maps, self.survey, low, bracket.high, rows, width)
        cuts = search.best_among(bracket, values, self.curves, average.score)
        return torch.where(gathered, cuts, search.best_end(bracket, average.score))

    def _narrow_crowds(
        self, bracket: search.Bracket, rows: Tensor, average: Average
    ) -> search.Bracket:
        """Narrow the brackets that hold too many values to gather."""
        crowded = search.is_crowded(bracket)
        while crowded.any():
            places = search.places_between(bracket)
            seen = [self._above(rows, place, crowded) for place in places.unbind(1)]
            count, mass = (torch.stack(terms, 1) for terms in zip(*seen, strict=True))
            narrowed = search.narrow(bracket, places, count, mass, self.curves, average.score)
            bracket = bracket.where(crowded, narrowed)
            crowded = search.is_crowded(bracket)
        return bracket

    def _above(self, rows: Tensor, cut: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and mass of the masks above a cut of every row, where active."""
        place = rows.unbind(1)
        cuts = torch.full_like(self.survey.mass, torch.inf).index_put(place, cut)
        chosen = torch.zeros_like(self.eligible).index_put(place, active)
        count, mass = self.backend.above(self.maps, self.survey, cuts, chosen)
        return count[place], mass[place]
