"""Labels decided for all classes at once: a higher sum of objectives than class by class."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._records import UNASSIGNED, Survey
from rankseg._loop import while_rising
from rankseg._objectives import OBJECTIVES
from rankseg._settings import Settings
from rankseg._solvers._models import Model
from rankseg._solvers._presence import eligible_classes, present_classes
from rankseg._solvers.rma import labels_of, model_of

NOTICEABLE = 1e-12
"""Relative rise of the objective below which another pass would chase rounding."""


def joint_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return labels that maximise the sum of the class objectives together.

    Starting from the labels of the published rule, every pixel is given anew to the class whose
    objective rises fastest as the pixel joins it, and again as long as the sum over classes rises,
    image by image. The labels returned never score less than those it started from.
    """
    leaves_void = settings.unassigned_policy == "void"
    kept = present_classes(backend, maps, survey, settings)
    model = model_of(backend, maps, survey, settings, kept)
    labels = labels_of(model, kept, settings)
    # Tensors, because a traced loop cannot refer to a number that may change between calls.
    smooth, noticeable = (
        torch.full((), number, dtype=torch.float64, device=survey.mass.device)
        for number in (settings.smooth, NOTICEABLE)
    )
    relabelling = _Relabelling(
        model.with_objective(OBJECTIVES[settings.metric](smooth)),
        kept if leaves_void else eligible_classes(kept),
        leaves_void,
        settings.void_index,
        noticeable,
    )
    rising = torch.ones_like(survey.peak[:, 0], dtype=torch.bool)
    return while_rising(relabelling.step, labels, rising, survey.fault)


@dataclass(frozen=True)
class _Relabelling:
    """One pass over all pixels: from labels to labels that score more."""

    model: Model
    eligible: Tensor
    leaves_void: bool
    void: int
    noticeable: Tensor

    def step(self, labels: Tensor, rising: Tensor) -> tuple[Tensor, Tensor]:
        """Relabel the images that are ``rising``; keep what scores more, image by image."""
        model = self.model
        state = model.tally(labels)
        proposed = model.backend.resolve(
            model.maps,
            model.survey,
            torch.full_like(labels, UNASSIGNED),
            torch.full_like(model.survey.mass, torch.inf),  # nothing is contested
            model.slope(state),
            self.eligible,
            0.0 if self.leaves_void else -torch.inf,  # void is a pixel that all classes lose by
            self.void,
        )
        old = model.score(state).sum(1)
        new = model.score(model.tally(proposed)).sum(1)
        rising = rising & (new > old + self.noticeable * old.abs())
        image = rising.view(-1, *[1] * (labels.dim() - 1))
        return torch.where(image, proposed, labels), rising
