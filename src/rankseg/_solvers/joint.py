"""Labels decided for all classes at once: a higher sum of objectives than class by class."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._records import UNASSIGNED, Survey
from rankseg._objectives import OBJECTIVES, Objective
from rankseg._settings import Settings
from rankseg._solvers._loop import while_rising
from rankseg._solvers.rma import eligible_classes, rma_labels

NOTICEABLE = 1e-12
"""Relative rise of the objective below which another pass would chase rounding."""


def joint_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return labels that maximise the sum of the class objectives together.

    Starting from the published labels, every pixel is given anew to the class whose objective
    rises fastest as the pixel joins it, and again as long as the sum over classes rises, image
    by image. The labels returned never score less than those it started from.
    """
    # A tensor, because a traced loop cannot refer to a number that may change between calls.
    smooth = torch.full((), settings.smooth, dtype=torch.float64, device=survey.mass.device)
    leaves_void = settings.unassigned_policy == "void"
    kept = survey.peak > settings.pruning_prob
    relabelling = _Relabelling(
        backend,
        maps,
        survey,
        OBJECTIVES[settings.metric](smooth),
        kept if leaves_void else eligible_classes(kept),
        leaves_void,
        void=settings.void_index,
    )
    labels = rma_labels(backend, maps, survey, settings)
    rising = torch.ones_like(survey.peak[:, 0], dtype=torch.bool)
    return while_rising(relabelling.step, labels, rising, survey.fault)


@dataclass(frozen=True)
class _Relabelling:
    """One pass over all pixels: from labels to labels that score more."""

    backend: ModuleType
    maps: Any
    survey: Survey
    objective: Objective
    eligible: Tensor
    leaves_void: bool
    void: int

    def step(self, labels: Tensor, rising: Tensor) -> tuple[Tensor, Tensor]:
        """Relabel the images that are ``rising``; keep what scores more, image by image."""
        volume = self.survey.mass
        count, mass = self.backend.tally(self.maps, self.survey, labels)
        proposed = self.backend.resolve(
            self.maps,
            self.survey,
            torch.full_like(labels, UNASSIGNED),
            torch.full_like(volume, torch.inf),  # nothing is contested
            self.objective.slope(count, mass, volume),
            self.eligible,
            0.0 if self.leaves_void else -torch.inf,  # void is a pixel that all classes lose by
            self.void,
        )
        old = self.objective.score(count, mass, volume).sum(1)
        new = self._score(proposed)
        rising = rising & (new > old * (1 + NOTICEABLE))
        image = rising.view(-1, *[1] * (labels.dim() - 1))
        return torch.where(image, proposed, labels), rising

    def _score(self, labels: Tensor) -> Tensor:
        count, mass = self.backend.tally(self.maps, self.survey, labels)
        return self.objective.score(count, mass, self.survey.mass).sum(1)
