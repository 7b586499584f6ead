"""What is assumed of the labels of an image, and so what a mask is worth.

A model knows the best cut of every class, and the worth of any labels. Solvers that share pixels
out among classes are written for any model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

from torch import Tensor

from rankseg._backends._records import GainCurves, Gains, Survey
from rankseg._objectives import Objective
from rankseg._settings import Settings
from rankseg._solvers._cuts import optimal_cuts
from rankseg._solvers.exact import exact_cuts


class Model(Protocol):
    """What a solver asks of a model; a *state* is what it needs to know of a mask."""

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

    def claim(self, cuts: Tensor) -> tuple[Tensor, Any]:
        """Label the pixels above exactly one cut.

        Return also the states that the other pixels are won at.
        """
        ...

    def tally(self, labels: Tensor) -> Any:
        """Return the states of the labels."""
        ...

    def score(self, state: Any) -> Tensor:
        """Return the worth of every class, ``(batch, classes)``."""
        ...

    def increment(self, state: Any) -> Gains | GainCurves:
        """Return what one more pixel adds."""
        ...

    def slope(self, state: Any) -> Gains | GainCurves:
        """Return what an infinitesimal part of a pixel adds."""
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

    def claim(self, cuts: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        labels, count, mass = self.backend.claim(self.maps, self.survey, cuts)
        return labels, (count + self.settled[0], mass + self.settled[1])

    def tally(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        count, mass = self.backend.tally(self.maps, self.survey, labels)
        return count, mass

    def score(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return self.objective.score(*state, self.survey.mass)

    def increment(self, state: tuple[Tensor, Tensor]) -> Gains:
        return self.objective.increment(*state, self.survey.mass)

    def slope(self, state: tuple[Tensor, Tensor]) -> Gains:
        return self.objective.slope(*state, self.survey.mass)

    def with_objective(self, objective: Objective) -> Independent:
        return replace(self, objective=objective)


@dataclass(frozen=True)
class Exact(Independent):
    """The same, with the cuts of the masks that maximise the expected metric itself.

    Pixels are shared out by RMA's gains. Exact ones would differ from them by the reciprocal of
    the volume, relatively, and cost an integral for every one.
    """

    settings: Settings

    def cuts(self, active: Tensor) -> Tensor:
        return exact_cuts(self.backend, self.maps, self.survey, self.settings, active)
