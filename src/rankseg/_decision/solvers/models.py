"""Models: assumptions on the joint distribution of the labels, and the objective that follows.

A model returns the best cut of every class, and the objective of any masks or labels. Solvers that
give each pixel one label use the methods of `Model` only, so that they work for any model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from rankseg._common.tracing import is_on_host, is_traced
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import optimal_cuts
from rankseg._decision.solvers.exact import exact_cuts
from rankseg._decision.solvers.exact_gains import Expectation
from rankseg._decision.solvers.unsettled import Unsettled
from rankseg._formulas.bins import bin_edges
from rankseg._formulas.expectation import RATIOS
from rankseg._formulas.objectives import Objective
from rankseg._formulas.records import GainCurves, Gains, State, Survey

EXACT_GAINS_BELOW = 100.0
"""A class whose expected volume (in pixels) is below this gets exact gains.

A limit of 1000 does not improve the labels of images with many small regions: see
``benchmarks/exact_labels.py``."""

MOST_EXACT_GAINS = 256
"""Most classes of an image that get exact gains, at 2 ms each: those of largest expected volume.

For 4000 classes on 60 x 60 pixels, 256 of them take 1.4 s of one thread in all."""

CLASSES_AT_ONCE = 8
"""Classes whose exact gains are computed at a time on CPUs: temporaries stay in the cache, and
torch wakes no threads."""


class Model(Protocol):
    """What solvers call. A *state* is what a model needs to score masks or labels, by class."""

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
        """The result of the first scan of the maps."""
        ...

    def cuts(self, active: Tensor) -> Tensor:
        """Return the best cut of every active class, infinite for the others: (batch, classes)."""
        ...

    def bracket(self, cuts: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Return a lower and an upper end around the best cuts, ``(batch, classes)`` each.

        ``margin`` is relative: at 0.1 the ends are at most 0.9 and at least 1.1 times the cut.
        """
        ...

    def claim(self, cuts: Tensor) -> tuple[Tensor, State]:
        """Label the pixels that exceed the cut of exactly one class.

        Return the labels, ``(batch, *spatial)``, and the state at which gains decide about the
        other pixels, which are marked as contested or unassigned.
        """
        ...

    def tally(self, labels: Tensor, images: Tensor | None = None) -> State:
        """Return the state of the labels, ``(batch, *spatial)``.

        The state is needed for ``images`` only, ``(batch,)`` boolean; by default for all.
        """
        ...

    def choose(self, images: Tensor, state: State, other: State) -> State:
        """Return ``state`` where ``images``, ``(batch,)`` boolean, is True, elsewhere ``other``."""
        ...

    def score(self, state: State) -> Tensor:
        """Return the objective of every class in this state, ``(batch, classes)``."""
        ...

    def increment(self, state: State) -> Gains | GainCurves:
        """Return how much one more pixel of probability p adds to the objective of each class."""
        ...

    def slope(self, state: State, images: Tensor | None = None) -> Gains | GainCurves:
        """Return the derivative of each class objective as a pixel of probability p joins.

        `increment` is the difference that a whole pixel makes. The slope is the difference that a
        fraction of a pixel makes, divided by the fraction, as the fraction goes to 0. It is needed
        for ``images`` only, as in `tally`.
        """
        ...

    def of(self, unsettled: Unsettled) -> Model:
        """Return the same model on the maps of the unsettled pixels; the rest keep their labels."""
        ...

    def with_objective(self, objective: Objective) -> Model:
        """Return the same model with another objective for scores and gains."""
        ...


@dataclass(frozen=True)
class Independent:
    """Labels of pixels are independent given the image, as in both papers.

    The objective is RMA's. A state is the count of pixels and the sum of their probabilities (the
    mass) for each class. If ``maps`` hold only the unsettled pixels, ``settled`` is count and mass
    of the pixels that have their labels already.
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

    def of(self, unsettled: Unsettled) -> Independent:
        return replace(
            self, maps=unsettled.maps, survey=unsettled.survey, settled=unsettled.settled
        )

    def with_objective(self, objective: Objective) -> Independent:
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Exact(Independent):
    """Independent labels, with the cuts of the masks that maximise the expected metric itself.

    Scores and gains are still RMA's.
    """

    settings: Settings

    def cuts(self, active: Tensor) -> Tensor:
        return exact_cuts(self.backend, self.maps, self.survey, self.settings, active)


@dataclass(frozen=True)
class ExactLabels(Exact):
    """`Exact`, with exact gains for small classes when pixels are given one label each.

    A small class has an expected volume below ``EXACT_GAINS_BELOW``. Larger classes use RMA's
    gains, whose relative error is about 1 / volume.

    Attributes
    ----------
    eligible
        ``(batch, classes)`` boolean: the classes that a pixel may be given to.
    rows
        ``(k, 2)``: image and class of the small classes.
    whole
        ``(k, BINS, 2)``: their profiles. A state is count, mass and the profiles of their masks.
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
        """Take the profiles of the small classes.

        Returns an `Exact`, with RMA's gains, if no class is small and in a traced graph.
        """
        exact = Exact(backend, maps, survey, objective, settings)
        if is_traced():
            return exact
        rows = _exact_gain_classes(survey, eligible).nonzero()
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
        """Return the profile of the pixels labelled as each small class: ``(k, BINS, 2)``."""
        # exchange() gives the difference from the masks above the cuts: these masks are empty.
        none = torch.full_like(self.survey.mass, torch.inf)
        held: Tensor = self.backend.exchange(self.maps, self.survey, labels, none, self.rows)
        return held

    def expectation(self, state: State, rows: slice = slice(None)) -> Expectation:
        """Return the expected metric of the small classes, or of those in a slice of ``rows``."""
        ratio = RATIOS[self.settings.metric]
        return Expectation.of(ratio, self.settings.smooth, state[2][rows], self.whole[rows])

    def with_small(self, gains: Gains, state: State) -> GainCurves:
        """Return the gains of all eligible classes: exact for small classes, RMA's for larger."""
        edges = bin_edges(self.whole.device)
        # No pixel is above the peak, where an integral need not be finite.
        peak = torch.searchsorted(edges, self.survey.peak[self.rows.unbind(1)].clamp(max=1))
        probs = torch.minimum(edges, edges[peak].unsqueeze(1))
        rows = self.eligible.nonzero()
        slope, cost, size, shrink = (term[rows.unbind(1)].unsqueeze(1) for term in gains.terms())
        knots = (slope * edges - cost) / (size - shrink * edges)
        small = _exact_gain_classes(self.survey, self.eligible)[rows.unbind(1)]
        step = CLASSES_AT_ONCE if is_on_host(probs) else len(probs)
        parts = [slice(start, start + step) for start in range(0, len(probs), step)]
        exact = [self.expectation(state, part).gains(probs[part]) for part in parts]
        knots[small] = torch.cat(exact)
        return GainCurves.through(rows, knots)


def _exact_gain_classes(survey: Survey, eligible: Tensor) -> Tensor:
    """Return which classes get exact gains: ``(batch, classes)`` boolean.

    These are the eligible classes with an expected volume below ``EXACT_GAINS_BELOW`` pixels. If an
    image has more than ``MOST_EXACT_GAINS`` of them, those with the largest expected volumes are
    taken.
    """
    small = eligible & (survey.mass < EXACT_GAINS_BELOW) & (survey.peak > 0)
    order = survey.mass.where(small, -1).argsort(dim=1, descending=True, stable=True)
    return small & (order.argsort(1) < MOST_EXACT_GAINS)
