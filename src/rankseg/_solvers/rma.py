"""RankSEG-RMA (NeurIPS 2025, arXiv 2510.15362): masks, and labels that do not overlap."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._records import Survey
from rankseg._objectives import OBJECTIVES
from rankseg._settings import Settings
from rankseg._solvers._cuts import optimal_cuts


def rma_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the mask of every class that maximises its own RMA objective."""
    objective = OBJECTIVES[settings.metric](settings.smooth)
    kept = survey.peak > settings.pruning_prob
    cuts = optimal_cuts(backend, maps, survey, objective, kept)
    masks: Tensor = backend.masks(maps, survey, cuts)
    return masks


def rma_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the published non-overlapping labels.

    Each class keeps its mask. A pixel in exactly one mask gets that class; one in several goes,
    among those, to the class that gains most by it; one in none goes to the class not pruned that
    gains most, or is left void.
    """
    objective = OBJECTIVES[settings.metric](settings.smooth)
    kept = survey.peak > settings.pruning_prob
    cuts = optimal_cuts(backend, maps, survey, objective, kept)
    labels, count, mass = backend.claim(maps, survey, cuts)
    gains = objective.increment(count, mass, survey.mass)
    eligible = eligible_classes(kept) & (settings.unassigned_policy == "max_score")
    resolved: Tensor = backend.resolve(
        maps, survey, labels, cuts, gains, eligible, -torch.inf, settings.void_index
    )
    return resolved


def eligible_classes(kept: Tensor) -> Tensor:
    """Return the classes a leftover pixel may get: those kept, or all if none is."""
    return kept | ~kept.any(1, keepdim=True)
