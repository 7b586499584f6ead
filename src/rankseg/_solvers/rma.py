"""RankSEG-RMA (NeurIPS 2025, arXiv 2510.15362): masks, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._records import Survey
from rankseg._expectation import RATIOS
from rankseg._objectives import OBJECTIVES, Objective
from rankseg._settings import Settings
from rankseg._solvers._correlated import Correlated, correlated_masks
from rankseg._solvers._models import Exact, ExactLabels, Independent, Model
from rankseg._solvers._presence import eligible_classes, least_peak, present_classes


def own_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the mask of every class that is best for it alone, to RMA or exactly."""
    kept = present_classes(backend, maps, survey, settings)
    cuts = model_of(backend, maps, survey, settings, kept, shared=False).cuts(kept)
    masks: Tensor = backend.masks(maps, survey, cuts)
    return masks


def masks_at_once(backend: ModuleType, maps: Any, settings: Settings) -> tuple[Tensor, bool] | None:
    """Return what `own_masks` would, and whether some value is no probability, where it is sooner.

    All that the mask of a class needs is known after few looks at it, and where a backend takes
    class after class it is still in a nearby cache then. None where it is not to be had so.
    """
    objective = OBJECTIVES[settings.metric](settings.smooth)
    exact, correlated = settings.solver == "exact", settings.correlation > 0
    least = least_peak(settings)
    if least is None or not backend.takes_rows_at_once(maps, alike=not (exact or correlated)):
        return None
    found: tuple[Tensor, bool] | None = None
    if correlated and not exact:
        found = _completed(
            correlated_masks(backend, maps, objective, settings, least), backend, maps, settings
        )
    elif exact and not correlated:
        ratio, smooth = RATIOS[settings.metric], settings.smooth
        some = backend.exact_masks(maps, least, ratio, smooth, *objective.endless)
        found = _completed(some, backend, maps, settings)
    elif not exact and objective.fraction is not None:
        keep_peak = settings.smooth == 0
        found = backend.own_masks(maps, least, *objective.fraction, keep_peak)
    return found


def _completed(
    found: tuple[Tensor, bool, Tensor], backend: ModuleType, maps: Any, settings: Settings
) -> tuple[Tensor, bool]:
    """Return all masks, those not known as `own_masks` finds them."""
    masks, fault, known = found
    if fault or bool(known.all()):
        return masks, fault
    others = own_masks(backend, maps, backend.survey(maps), settings)
    return masks.where(known.view(*known.shape, *[1] * (masks.dim() - 2)), others), fault


def shared_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return labels that share the pixels out between these masks by the published rule."""
    kept = present_classes(backend, maps, survey, settings)
    return labels_of(model_of(backend, maps, survey, settings, kept), kept, settings)


def model_of(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    settings: Settings,
    kept: Tensor,
    shared: bool = True,
) -> Model:
    """Return the model of the labels that the settings ask for, for the classes ``kept``.

    ``shared`` tells whether a pixel has one label only.
    """
    objective = OBJECTIVES[settings.metric](settings.smooth)
    eligible = eligible_classes(kept) if shared else kept
    if settings.correlation > 0:
        return Correlated.build(backend, maps, survey, objective, settings, kept, eligible, shared)
    if settings.solver == "exact" and shared:
        return ExactLabels.build(backend, maps, survey, objective, settings, eligible)
    if settings.solver == "exact":
        return Exact(backend, maps, survey, objective, settings)
    return Independent(backend, maps, survey, objective)


def labels_of(model: Model, kept: Tensor, settings: Settings) -> Tensor:
    """Share the pixels out by the published rule, with the masks and the gains of the model.

    Classes ``kept`` have masks, and leftover pixels go to an eligible one, if to any.
    """
    leaves_void = settings.unassigned_policy == "void"
    takers = torch.zeros_like(kept) if leaves_void else eligible_classes(kept)
    share_out = partial(_share_out, takers=takers, void=settings.void_index)
    if not isinstance(model, Correlated):
        return share_out(model, model.cuts(kept))
    return _better_labels(model, kept, OBJECTIVES[settings.metric](settings.smooth), share_out)


def _better_labels(
    model: Correlated, kept: Tensor, objective: Objective, share_out: Callable[..., Tensor]
) -> Tensor:
    """Return the labels of the model, or where they score less by it those of independent labels.

    Both label most pixels alike, and share out the others only.
    """
    part = model.part
    assert model.published is not None
    cuts = model.published.where(kept, torch.inf)
    independent = Independent(
        model.backend, part.maps, part.survey, objective, settled=part.settled
    )
    ours = model.of_part()
    enough = ours.score(ours.tally(share_out(independent, cuts))).sum(1)
    own = share_out(ours, ours.cuts(kept))
    better = ours.score(ours.tally(own)).sum(1) >= enough
    own = part.joined(model.backend, own)
    if not torch.compiler.is_compiling() and bool(better.all()):
        return own
    independent = Independent(model.backend, model.maps, model.survey, objective)
    published = share_out(independent, cuts)
    return torch.where(better.view(-1, *[1] * (own.dim() - 1)), own, published)


def _share_out(model: Model, cuts: Tensor, takers: Tensor, void: int) -> Tensor:
    """Share the pixels out among the classes by the published rule.

    Each class keeps its mask. A pixel in exactly one mask gets that class; one in several goes,
    among those, to the class that gains most by it; one in none goes to the taker that gains most,
    or is left void where there is none.
    """
    labels, state = model.claim(cuts)
    gains = model.increment(state)
    resolved: Tensor = model.backend.resolve(
        model.maps, model.survey, labels, cuts, gains, takers, -torch.inf, void
    )
    return resolved
