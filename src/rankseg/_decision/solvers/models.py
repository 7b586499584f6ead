"""What is assumed of the labels of an image, and so what a mask is worth.

A model knows the best cut of every class, and the worth of any labels. Solvers that share pixels
out among classes are written for any model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import optimal_cuts
from rankseg._decision.solvers.exact import exact_cuts
from rankseg._decision.solvers.exact_gains import Expectation
from rankseg._decision.solvers.unsettled import Unsettled
from rankseg._formulas.bins import bin_edges
from rankseg._formulas.expectation import RATIOS
from rankseg._formulas.objectives import Objective
from rankseg._formulas.records import GainCurves, Gains, State, Survey

SMALL = 100.0
"""Classes that expect fewer pixels get exact gains. Up to 1000 decides no crowd any better; see
``benchmarks/exact_labels.py``."""

MOST_SMALL = 256
"""Most classes of an image that get exact gains, at 2 ms each: those that expect most pixels.

With 4000 classes of 60 x 60 pixels, 256 take 1.4 s of one thread in all."""

ROWS = 8
"""Classes that get exact gains at a time on CPUs: temporaries stay in a cache, and torch wakes no
threads."""

ALL = slice(None)


class Model(Protocol):
    """What a solver asks of a model."""

    @property
    def backend(self) -> ModuleType:
        """The operations on the maps."""
        ...

    @property
    def maps(self) -> Any:
        """The maps, as the backend opened them."""
        ...

    @property
    def survey(self) -> Survey:
        """What the first scan told of them."""
        ...

    def cuts(self, active: Tensor) -> Tensor:
        """Return the best cut of every active class, infinite for the others."""
        ...

    def bracket(self, cuts: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Return ends below and above the best cuts, relatively at least by a margin."""
        ...

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        """Label the pixels above exactly one cut.

        Return also the states that the other pixels are won at.
        """
        ...

    def tally(self, labels: Tensor, images: Tensor | None = None) -> State:
        """Return the states of the labels; of other than these images, they need not be right."""
        ...

    def choose(self, images: Tensor, state: State, other: State) -> State:
        """Return the state of these images, ``(batch,)`` boolean, and the other of the rest."""
        ...

    def score(self, state: State) -> Tensor:
        """Return the worth of every class, ``(batch, classes)``."""
        ...

    def increment(self, state: State) -> Gains | GainCurves:
        """Return what one more pixel adds."""
        ...

    def slope(self, state: State, images: Tensor | None = None) -> Gains | GainCurves:
        """Return what an infinitesimal part of a pixel adds, in these images at least."""
        ...

    def of(self, part: Unsettled) -> Model:
        """Return the same model on the maps of unsettled pixels; the others have their labels."""
        ...

    def with_objective(self, objective: Objective) -> Model:
        """Return the same model with another objective for scores and gains."""
        ...


@dataclass(frozen=True)
class Independent:
    """Labels are independent given the image, as in both papers; a state is count and mass.

    A mask is worth its RMA objective. Where the maps hold only some of the pixels, the others have
    their labels: ``settled``, count and mass of these.
    """

    backend: ModuleType
    maps: Any
    survey: Survey
    objective: Objective
    settled: tuple[Tensor | float, Tensor | float] = field(default=(0.0, 0.0), kw_only=True)

    def cuts(self, active: Tensor) -> Tensor:
        return optimal_cuts(self.backend, self.maps, self.survey, self.objective, active)

    def bracket(self, cuts: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        return (1 - margin) * cuts, (1 + margin) * cuts

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        labels, count, mass = self.backend.claim(self.maps, self.survey, cuts)
        return labels, (count + self.settled[0], mass + self.settled[1])

    def tally(self, labels: Tensor, images: Tensor | None = None) -> State:
        count, mass = self.backend.tally(self.maps, self.survey, labels)
        return count + self.settled[0], mass + self.settled[1]

    def choose(self, images: Tensor, state: State, other: State) -> State:
        chosen = images.unsqueeze(1)
        return tuple(torch.where(chosen, *pair) for pair in zip(state, other, strict=True))

    def score(self, state: State) -> Tensor:
        count, mass = state
        return self.objective.score(count, mass, self.survey.mass)

    def increment(self, state: State) -> Gains | GainCurves:
        count, mass = state
        return self.objective.increment(count, mass, self.survey.mass)

    def slope(self, state: State, images: Tensor | None = None) -> Gains:
        count, mass = state
        return self.objective.slope(count, mass, self.survey.mass)

    def of(self, part: Unsettled) -> Independent:
        return replace(self, maps=part.maps, survey=part.survey, settled=part.settled)

    def with_objective(self, objective: Objective) -> Independent:
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Exact(Independent):
    """The same, with the cuts of the masks that maximise the expected metric itself."""

    settings: Settings

    def cuts(self, active: Tensor) -> Tensor:
        return exact_cuts(self.backend, self.maps, self.survey, self.settings, active)


@dataclass(frozen=True)
class ExactLabels(Exact):
    """The same, with pixels shared out by what they add to the expected metric itself.

    ``rows`` lists image and class of the small ones, and ``whole`` holds their profiles: a state
    has the profiles of their masks too. To the others RMA's gains do, which differ by the
    reciprocal of the volume, relatively. ``eligible`` are those that a pixel may be given to.
    """

    eligible: Tensor
    rows: Tensor
    whole: Tensor

    @classmethod
    def build(
        cls,
        backend: ModuleType,
        maps: Any,
        survey: Survey,
        objective: Objective,
        settings: Settings,
        eligible: Tensor,
    ) -> Exact:
        """Take the profiles of small classes; without any, or in a traced graph, RMA's gains do."""
        exact = Exact(backend, maps, survey, objective, settings)
        if torch.compiler.is_compiling():
            return exact
        rows = _small(survey, eligible).nonzero()
        if not len(rows):
            return exact
        whole = backend.profile(maps, survey, rows)
        return cls(backend, maps, survey, objective, settings, eligible, rows, whole)

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        labels, state = super().claim(cuts)
        return labels, (*state, self.profile(labels))

    def increment(self, state: State) -> GainCurves:
        count, mass, _ = state
        return self.with_small(self.objective.increment(count, mass, self.survey.mass), state)

    def profile(self, labels: Tensor) -> Tensor:
        """Return the profiles of the pixels with the labels of small classes."""
        none = torch.full_like(self.survey.mass, torch.inf)  # labels are told from empty masks
        held: Tensor = self.backend.exchange(self.maps, self.survey, labels, none, self.rows)
        return held

    def expectation(self, state: State, rows: slice = ALL) -> Expectation:
        """Return the expected metric of small classes, or of some rows of these."""
        ratio = RATIOS[self.settings.metric]
        return Expectation.of(ratio, self.settings.smooth, state[2][rows], self.whole[rows])

    def with_small(self, gains: Gains, state: State) -> GainCurves:
        """Return the gains of all classes, those of small ones exact."""
        edges = bin_edges(self.whole.device)
        # No pixel is above the peak, where an integral need not be finite.
        peak = torch.searchsorted(edges, self.survey.peak[self.rows.unbind(1)].clamp(max=1))
        probs = torch.minimum(edges, edges[peak].unsqueeze(1))
        rows = self.eligible.nonzero()
        slope, toll, size, shrink = (term[rows.unbind(1)].unsqueeze(1) for term in gains.terms())
        knots = (slope * edges - toll) / (size - shrink * edges)
        small = _small(self.survey, self.eligible)[rows.unbind(1)]
        step = ROWS if probs.device.type == "cpu" else len(probs)
        parts = [slice(start, start + step) for start in range(0, len(probs), step)]
        exact = [self.expectation(state, part).gains(probs[part]) for part in parts]
        knots[small] = torch.cat(exact)
        return GainCurves.through(rows, knots)


def _small(survey: Survey, eligible: Tensor) -> Tensor:
    """Return which classes get exact gains: the small ones of an image, or some of very many."""
    small = eligible & (survey.mass < SMALL) & (survey.peak > 0)
    order = survey.mass.where(small, -1).argsort(dim=1, descending=True, stable=True)
    return small & (order.argsort(1) < MOST_SMALL)
