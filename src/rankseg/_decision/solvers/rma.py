"""RankSEG-RMA (NeurIPS 2025, arXiv 2510.15362): masks, and labels that do not overlap."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._decision.solvers.correlated import Correlated
from rankseg._decision.solvers.models import Exact, ExactLabels, Independent, Model
from rankseg._decision.solvers.presence import eligible_classes, least_peak, present_classes
from rankseg._formulas.expectation import RATIOS
from rankseg._formulas.objectives import OBJECTIVES
from rankseg._formulas.records import Survey


def own_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the best mask of each class, bool ``(batch, classes, *spatial)``; masks may overlap.

    The best mask has the largest RMA objective, or expected metric with ``solver='exact'``.
    """
    present = present_classes(backend, maps, survey, settings)
    cuts = model_of(backend, maps, survey, settings, present, shared=False).cuts(present)
    masks: Tensor = backend.masks(maps, survey, cuts)
    return masks


def masks_at_once(backend: ModuleType, maps: Any, settings: Settings) -> tuple[Tensor, bool] | None:
    """Return the masks of `own_masks` and the fault flag, computed one row at a time, or None.

    A row is one class of one image. The backend scans a row, finds its cut and writes its mask
    before it goes on to the next row, so that the values are still in the cache. The flag is True
    if some value is no probability. Returns None if this backend or these settings need a survey of
    all rows first.
    """
    objective = OBJECTIVES[settings.metric](settings.smooth)
    exact, least = settings.solver == "exact", least_peak(settings)
    if settings.correlation > 0 or least is None:
        return None
    if exact:
        ratio, smooth = RATIOS[settings.metric], settings.smooth
        some = backend.exact_masks(maps, least, ratio, smooth, *objective.fraction_at_infinity)
        return None if some is None else _completed(some, backend, maps, settings)
    if objective.fraction is None:
        return None
    found: tuple[Tensor, bool] | None = backend.own_masks(
        maps, least, *objective.fraction, settings.smooth == 0
    )
    return found


def _completed(
    found: tuple[Tensor, bool, Tensor], backend: ModuleType, maps: Any, settings: Settings
) -> tuple[Tensor, bool]:
    """Return the masks found, but those of `own_masks` for the classes that are not ``known``."""
    masks, is_invalid, known = found
    if is_invalid or bool(known.all()):
        return masks, is_invalid
    all_masks = own_masks(backend, maps, backend.survey(maps), settings)
    return masks.where(known.view(*known.shape, *[1] * (masks.dim() - 2)), all_masks), is_invalid


def shared_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return one label for each pixel, from the masks of all classes, by the published rule.

    See `share_out` for the rule.
    """
    present = present_classes(backend, maps, survey, settings)
    model = model_of(backend, maps, survey, settings, present)
    return share_out(model, model.cuts(present), present, settings)


def model_of(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    settings: Settings,
    present: Tensor,
    shared: bool = True,
) -> Model:
    """Return the model (see `models`) that the settings ask for, for the classes ``present``.

    ``present`` is ``(batch, classes)`` boolean. ``shared`` is True if every pixel gets one label,
    and False if masks may overlap.
    """
    objective = OBJECTIVES[settings.metric](settings.smooth)
    eligible = eligible_classes(present) if shared else present
    if settings.correlation > 0:
        return Correlated.build(backend, maps, survey, objective, settings.correlation, eligible)
    if settings.solver == "exact" and shared:
        return ExactLabels.build(backend, maps, survey, objective, settings, eligible)
    if settings.solver == "exact":
        return Exact(backend, maps, survey, objective, settings)
    return Independent(backend, maps, survey, objective)


def share_out(model: Model, cuts: Tensor, present: Tensor, settings: Settings) -> Tensor:
    """Give every pixel one label by the published rule, ``(batch, *spatial)``.

    The mask of a class is the set of pixels above its cut, ``(batch, classes)``; classes that are
    not ``present`` have none. A pixel in exactly one mask gets that class. A pixel in several masks
    gets that one of their classes whose objective gains most. A pixel in no mask gets the eligible
    class that gains most, or void if ``unassigned_policy`` is ``'void'``.
    """
    leaves_void = settings.unassigned_policy == "void"
    eligible = torch.zeros_like(present) if leaves_void else eligible_classes(present)
    labels, state = model.claim(cuts)
    gains = model.increment(state)
    resolved: Tensor = model.backend.resolve(
        model.maps, model.survey, labels, cuts, gains, eligible, -torch.inf, settings.void_index
    )
    return resolved
