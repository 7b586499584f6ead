"""The solvers: `solve` turns a problem into masks or labels by one function of the tables below."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from rankseg import _backends
from rankseg._decision.problem import Problem
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.ba import ba_masks
from rankseg._decision.solvers.baselines import argmax_labels, argmax_masks, threshold_masks
from rankseg._decision.solvers.joint import joint_labels
from rankseg._decision.solvers.presence import present_classes
from rankseg._decision.solvers.rma import masks_at_once, own_masks, shared_labels
from rankseg._formulas.records import Survey

Solve = Callable[[ModuleType, Any, Survey, Settings], Tensor]

SOLVERS: dict[tuple[str, str], Solve] = {
    ("RMA", "multiclass"): shared_labels,
    ("RMA", "multilabel"): own_masks,
    ("joint", "multiclass"): joint_labels,
    ("exact", "multiclass"): shared_labels,
    ("exact", "multilabel"): own_masks,
    ("BA", "multilabel"): ba_masks,
    ("TRNA", "multilabel"): ba_masks,
    ("BA+TRNA", "multilabel"): ba_masks,
    ("TR", "multilabel"): threshold_masks,
    ("argmax", "multiclass"): argmax_labels,
    ("argmax", "multilabel"): argmax_masks,
}

BINARY: dict[str, Solve] = {
    "RMA": own_masks,
    "joint": own_masks,  # one class shares its pixels with no other
    "exact": own_masks,
    "BA": ba_masks,
    "TRNA": ba_masks,
    "BA+TRNA": ba_masks,
    "TR": threshold_masks,
    "argmax": threshold_masks,
}


def solve(problem: Problem) -> Any:
    """Return the decision of a problem, masks or labels, in the array type of the caller.

    Calibrates the maps if the settings say so, chooses the backend, scans the maps, and runs the
    solver of the settings.
    """
    problem = problem.calibrated()
    settings = problem.settings
    backend, _ = _backends.choose(problem.probs.device, settings.from_logits)
    maps = backend.open_maps(problem.probs, problem.valid, settings.from_logits)
    solver, mode = settings.solver, settings.output_mode
    decide = BINARY[solver] if problem.binary else SOLVERS[solver, mode]
    at_once = masks_at_once(backend, maps, settings) if decide is own_masks else None
    if at_once is not None:
        masks, fault = at_once
        problem.check_values(fault)
        return problem.restore(masks)
    survey = backend.survey(maps)
    check_first = backend.FAULT_IS_KNOWN or _looks_at_numbers(settings)
    if check_first:
        problem.check_values(survey.fault)
    decision = decide(backend, maps, survey, settings)
    if not check_first:
        problem.check_values(survey.fault)
    return problem.restore(decision)


def present_in(problem: Problem) -> Tensor:
    """Return which classes the ``presence`` rule of the settings takes to be in each image.

    ``(batch, classes)`` boolean.
    """
    backend, _ = _backends.choose(problem.probs.device, problem.settings.from_logits)
    maps = backend.open_maps(problem.probs, problem.valid, problem.settings.from_logits)
    return present_classes(backend, maps, backend.survey(maps), problem.settings)


def _looks_at_numbers(settings: Settings) -> bool:
    """Return whether the solver reads results on the host before it ends, and so must not meet NaN.

    If so, values are checked right after the scan: the solver waits for the device anyway. If not,
    they are checked after the solver, so that the call waits for the device only once.
    """
    return settings.correlation > 0 or settings.solver not in ("RMA", "TR", "argmax")
