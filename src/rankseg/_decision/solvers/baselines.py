"""Baselines, optimal for pixel accuracy: argmax, and the threshold 0.5 for each class alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._formulas.records import UNASSIGNED, Gains, Survey


def argmax_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the likeliest class of every pixel; ties go to the first."""
    return _argmax(backend, maps, survey, settings.void_index)


def argmax_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return argmax as one mask for each class, ``(batch, classes, *spatial)``, without overlap."""
    labels = _argmax(backend, maps, survey, void=-1)
    classes = torch.arange(survey.mass.shape[1], device=labels.device)
    return labels.unsqueeze(1) == classes.view(-1, *[1] * (labels.dim() - 1))


def threshold_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return, for every class, the mask of the pixels whose probability exceeds 1/2."""
    masks: Tensor = backend.masks(maps, survey, torch.full_like(survey.mass, 0.5))
    return masks


def label_by(
    backend: ModuleType, maps: Any, survey: Survey, gains: Gains, eligible: Tensor, void: int
) -> Tensor:
    """Return the ``eligible`` class that gains most in every pixel; ties go to the first.

    ``eligible`` is ``(batch, classes)`` boolean. Pixels that are not valid become ``void``.
    """
    labels: Tensor = backend.resolve(
        maps,
        survey,
        torch.full((eligible.shape[0], *maps.spatial), UNASSIGNED, device=eligible.device),
        torch.full_like(survey.mass, torch.inf),
        gains,
        eligible,
        -torch.inf,
        void,
    )
    return labels


def _argmax(backend: ModuleType, maps: Any, survey: Survey, void: int) -> Tensor:
    every = torch.ones_like(survey.mass, dtype=torch.bool)
    return label_by(backend, maps, survey, Gains.probability(survey.mass), every, void)
