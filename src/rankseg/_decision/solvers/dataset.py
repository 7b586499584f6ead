"""``solver='dataset'``: labels or masks by the lines of a rule fitted to a whole data set."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._decision.solvers.baselines import label_by
from rankseg._decision.solvers.presence import eligible_classes, present_classes
from rankseg._formulas.records import Gains, Survey


def dataset_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the class of largest ``scale p - offset`` of every pixel; ties go to the first."""
    scale, offset = _terms(survey, settings)
    gains = Gains(scale, offset, size=torch.ones_like(scale), shrink=torch.zeros_like(scale))
    eligible = eligible_classes(present_classes(backend, maps, survey, settings))
    return label_by(backend, maps, survey, gains, eligible, settings.void_index)


def dataset_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return, for every present class, the mask of the pixels with ``p > offset / scale``."""
    scale, offset = _terms(survey, settings)
    present = present_classes(backend, maps, survey, settings)
    masks: Tensor = backend.masks(maps, survey, (offset / scale).where(present, torch.inf))
    return masks


def _terms(survey: Survey, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return scale and offset of every image and class, ``(batch, classes)`` each."""
    assert settings.rule is not None
    terms = settings.rule.scale, settings.rule.offset
    pairs = torch.tensor(terms, dtype=torch.float64, device=survey.mass.device)
    scale, offset = pairs.unsqueeze(1).expand(-1, *survey.mass.shape)
    return scale.contiguous(), offset.contiguous()
