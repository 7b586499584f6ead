"""Which classes are taken to be in an image: only these are given pixels."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor

from rankseg._decision.presence_model import PresenceModel
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import optimal_cuts
from rankseg._formulas.objectives import OBJECTIVES
from rankseg._formulas.records import Survey


def present_classes(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the classes taken to be present, ``(batch, classes)`` boolean."""
    if isinstance(settings.presence, PresenceModel):
        return _by_model(settings.presence, backend, maps, survey, settings)
    one_label = settings.output_mode == "multiclass" and survey.mass.shape[1] > 1
    if settings.presence == "argmax" and one_label:
        winners: Tensor = backend.winners(maps, survey)
        return winners
    least = least_peak(settings)
    assert least is not None
    return survey.peak > least


def least_peak(settings: Settings) -> float | None:
    """Return the limit that the largest probability of a present class exceeds.

    For masks that may overlap: with ``presence='argmax'`` a class is present if it exceeds 1/2
    somewhere. Returns None if presence depends on more than the largest probability.
    """
    if isinstance(settings.presence, PresenceModel):
        return None
    return {"peak": settings.pruning_prob, "argmax": 0.5, "all": 0.0}[settings.presence]


def _by_model(
    model: PresenceModel, backend: ModuleType, maps: Any, survey: Survey, settings: Settings
) -> Tensor:
    """Return the classes that a fitted model takes to be present, ``(batch, classes)`` boolean.

    The rule depends on how absent classes are scored; see ``absent`` of `PresenceModel`.
    """
    some = survey.peak > 0
    if model.absent == "ignored":
        return some
    share = model.probability(survey.peak, survey.mass, backend.sizes(maps).unsqueeze(1))
    share = share.where(some, 0)
    objective = OBJECTIVES[settings.metric](settings.smooth)
    cuts = optimal_cuts(backend, maps, survey, objective, some)
    count, mass = backend.above(maps, survey, cuts, some)
    # Given that the class is present, its probabilities are divided by that of its presence.
    times = 1 / share.maximum(survey.peak)
    score = objective.score(count, mass * times, survey.mass * times).where(some, 0)
    expected, number = (share * score).sum(1, keepdim=True), share.sum(1, keepdim=True)
    mean_of_others = (expected - share * score) / (number - share)
    mean_of_others = mean_of_others.where(number > share, score)
    return share * score > (1 - share) * mean_of_others


def eligible_classes(present: Tensor) -> Tensor:
    """Return the classes that a pixel in no mask may get: those present, or all if none is."""
    return present | ~present.any(1, keepdim=True)
