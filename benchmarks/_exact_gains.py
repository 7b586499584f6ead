"""What one more pixel adds to the expected metric itself, where RMA's increments stand for it now.

Let a mask hold ``n`` pixels. With the integrand of ``rankseg._expectation``, ``sum_k part_k
amount_k`` over the nodes, a pixel of probability ``p`` that joins it turns ``part`` into ``part t``
(Dice) or ``part t / (1 - p s)`` (IoU: it is no longer outside), and adds to ``amount`` as in
``Integrals``; its own label is one of those that the mask was judged by before. So what it adds is
a function of ``p`` alone, taken at the edges of the bins of a class profile, and the mask is known
by its profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._bins import bin_edges
from rankseg._backends._records import GainCurves, Gains, Survey
from rankseg._expectation import (
    RATIOS,
    Nodes,
    Ratio,
    Sums,
    count_nodes,
    integrand,
    place_nodes,
)
from rankseg._objectives import OBJECTIVES
from rankseg._settings import Settings
from rankseg._solvers._models import Exact, Independent
from rankseg._solvers.rma import eligible_classes

SMALL = 100.0
"""Classes that expect fewer pixels get integrals: a limit of 1000 decides no crowd any better."""

State = tuple[Tensor, Tensor, Tensor]
"""Count and mass of every class, and the profiles of the small ones."""


@dataclass(frozen=True)
class Expectation:
    """The expected metric of some masks, and what it becomes as a pixel joins: a row for each.

    Attributes
    ----------
    ratio, smooth
        The metric.
    nodes, part, amount
        ``(rows, nodes)``: the score is ``sum part * amount``, plus 1 if ``smooth`` is not 0.
    """

    ratio: Ratio
    smooth: float
    nodes: Nodes
    part: Tensor
    amount: Tensor

    @classmethod
    def of(cls, ratio: Ratio, smooth: float, inside: Tensor, whole: Tensor) -> Expectation:
        """Take masks and classes as profiles, ``(rows, BINS, 2)``: bins count for their mean."""
        outside = (whole - inside).clamp(min=0)
        count, mass = inside.sum(1).unbind(1)
        volume = whole[..., 1].sum(1)
        rest = ratio.rest(mass, volume - mass)
        rate = count + volume + smooth + 1
        needed = count_nodes(rate, count + smooth, rest)
        nodes = place_nodes(rate, needed, int(needed.max()))
        sums = (_sums(side, nodes.u) for side in (inside, outside))
        return cls(ratio, smooth, nodes, *integrand(ratio, smooth, nodes, count, mass, *sums))

    def value(self) -> Tensor:
        """Return the expected metric of the masks, ``(rows,)``."""
        return (self.part * self.amount).sum(1) + float(self.smooth > 0)

    def gains(self, probs: Tensor) -> Tensor:
        """Return what one more pixel of probabilities ``(rows, points)`` adds to each mask."""
        dice, less_one = self.ratio.dice, float(self.smooth > 0)
        total = torch.zeros_like(probs)
        nodes = (self.nodes.u, self.part, self.amount)
        for u, part, amount in zip(*(term.T.unsqueeze(2) for term in nodes), strict=True):
            t = torch.exp(-u)
            left = 1 - probs + probs * t
            hits = probs * t / left
            rise = 2 * hits - less_one if dice else probs + less_one * (hits - 1)
            total += part * ((amount + rise) * (t if dice else t / left) - amount)
        return total


def _sums(profile: Tensor, u: Tensor) -> Sums:
    """Return what the pixels of profiles contribute at every node, ``(rows, nodes)``."""
    count, mass = profile.unbind(2)
    probs = (mass / count.clamp(min=1)).clamp(max=1)
    logs, hits = [], []
    for node in u.T.unsqueeze(2):
        shrunk = probs * torch.expm1(-node)
        logs.append((count * torch.log1p(shrunk)).sum(1))
        hits.append((mass * torch.exp(-node) / (1 + shrunk)).sum(1))
    return Sums(torch.stack(logs, 1), torch.stack(hits, 1))


@dataclass(frozen=True)
class ExactGains(Exact):
    """Exact masks, whose pixels are shared out by what they add to the expected metric.

    ``rows`` lists image and class of the small ones, and ``whole`` holds their profiles.
    """

    rows: Tensor
    whole: Tensor

    @classmethod
    def build(
        cls, backend: ModuleType, maps: Any, survey: Survey, settings: Settings
    ) -> ExactGains:
        """Take the profile of the small classes that may be given to a pixel."""
        eligible = eligible_classes(survey.peak > settings.pruning_prob)
        small = eligible & (survey.mass < SMALL) & (survey.peak > 0)
        rows = small.nonzero()
        whole = backend.profile(maps, survey, rows)
        objective = OBJECTIVES[settings.metric](settings.smooth)
        return cls(backend, maps, survey, objective, settings, rows, whole)

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        labels, count, mass = self.backend.claim(self.maps, self.survey, cuts)
        return labels, (count, mass, self._profile(labels))

    def tally(self, labels: Tensor) -> State:
        count, mass = self.backend.tally(self.maps, self.survey, labels)
        return count, mass, self._profile(labels)

    def score(self, state: State) -> Tensor:
        scores = Independent.score(self, state[:2])
        if len(self.whole):
            scores = scores.index_put(self.rows.unbind(1), self._expectation(state).value())
        return scores

    def increment(self, state: State) -> Gains | GainCurves:
        return self._with_small(Independent.increment(self, state[:2]), state)

    def slope(self, state: State) -> Gains | GainCurves:
        return self._with_small(Independent.slope(self, state[:2]), state)

    def _profile(self, labels: Tensor) -> Tensor:
        none = torch.full_like(self.survey.mass, torch.inf)  # labels are told from empty masks
        return self.backend.exchange(self.maps, self.survey, labels, none, self.rows)

    def _expectation(self, state: State) -> Expectation:
        ratio = RATIOS[self.settings.metric]
        return Expectation.of(ratio, self.settings.smooth, state[2], self.whole)

    def _with_small(self, gains: Gains, state: State) -> Gains | GainCurves:
        """Replace the gains of the small classes."""
        if not len(self.whole):
            return gains
        edges = bin_edges(self.whole.device)
        # No pixel is above the peak, where an integral need not be finite.
        place = self.rows.unbind(1)
        peak = torch.searchsorted(edges, self.survey.peak[place].clamp(max=1))
        probs = torch.minimum(edges, edges[peak].unsqueeze(1))
        slope, toll, size, shrink = (term.unsqueeze(2) for term in gains.terms())
        knots = (slope * edges - toll) / (size - shrink * edges)
        knots = knots.index_put(place, self._expectation(state).gains(probs))
        every = torch.ones_like(self.survey.mass).nonzero()
        return GainCurves.through(every, knots.flatten(0, 1))
