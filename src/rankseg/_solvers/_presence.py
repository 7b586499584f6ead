"""Which classes are in an image at all: those that are given pixels."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor

from rankseg._backends._records import Survey
from rankseg._settings import Settings


def present_classes(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the classes taken to be present, ``(batch, classes)`` boolean."""
    one_label = settings.output_mode == "multiclass" and survey.mass.shape[1] > 1
    if settings.presence == "argmax" and one_label:
        winners: Tensor = backend.winners(maps, survey)
        return winners
    return survey.peak > least_peak(settings)


def least_peak(settings: Settings) -> float:
    """Return what the largest probability of a present class exceeds, if its mask overlaps others.

    By argmax such a class is present if it is likelier than not somewhere.
    """
    return {"peak": settings.pruning_prob, "argmax": 0.5, "all": 0.0}[settings.presence]


def eligible_classes(kept: Tensor) -> Tensor:
    """Return the classes a leftover pixel may get: those kept, or all if none is."""
    return kept | ~kept.any(1, keepdim=True)
