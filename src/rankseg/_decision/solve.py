"""From a checked problem to a decision: `solve` runs one solver of the table on one backend."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeAlias

from torch import Tensor

from rankseg import _backends
from rankseg._common.tracing import is_on_host, not_in_graphs
from rankseg._decision.problem import Problem
from rankseg._decision.settings import Settings
from rankseg._decision.solvers import SOLVERS
from rankseg._decision.solvers.presence import present_classes
from rankseg._decision.solvers.rma import masks_at_once, own_masks
from rankseg._formulas.records import Survey

__all__ = ["present_in", "solve"]

Decide: TypeAlias = Callable[[ModuleType, Any, Survey, Settings], Tensor]
"""Takes backend, opened maps, survey and settings; returns masks or labels."""


def _function(name: str) -> Decide:
    module, _, function = name.partition(".")
    found: Decide = getattr(
        importlib.import_module(f"rankseg._decision.solvers.{module}"), function
    )
    return found


FUNCTIONS: Final = {
    name: _function(name)
    for solver in SOLVERS.values()
    for name in (solver.one_channel, *solver.several_classes.values())
}
"""The functions that the table of solvers names; no graph can hold an import."""


def solve(problem: Problem) -> Any:
    """Return the decision of a problem, masks or labels, in the array type of the caller.

    Calibrates the maps if the settings say so, chooses the backend, scans the maps, and runs the
    solver of the settings.

    Raises
    ------
    RuntimeError
        If a full graph is to hold a solver that is ``untraceable``.
    """
    name = problem.settings.solver
    why = SOLVERS[name].untraceable
    if not why:
        return _solve(problem)
    reason = (
        f"solver={name!r} {why}, which no graph of torch.compile or torch.export can hold; call it "
        "outside of a graph, or take solver='RMA'"
    )
    return not_in_graphs(_solve, reason)(problem)


def _solve(problem: Problem) -> Any:
    problem = problem.calibrated()
    settings = problem.settings
    backend, _ = _backends.choose(problem.probs.device, settings.from_logits)
    maps = backend.open_maps(problem.probs, problem.valid, settings.from_logits)
    solver = SOLVERS[settings.solver]
    several = solver.several_classes
    decide = FUNCTIONS[solver.one_channel if problem.binary else several[settings.output_mode]]
    at_once = masks_at_once(backend, maps, settings) if decide is own_masks else None
    if at_once is not None:
        masks, is_invalid = at_once
        problem.check_values(is_invalid)
        return problem.restore(masks)
    survey = backend.survey(maps)
    # A solver that reads values waits for the device anyway, and must not meet NaN. With any other
    # solver the flag is read at the end, so that the call waits for the device only once.
    reads_values = solver.reads_values or settings.correlation > 0
    check_first = is_on_host(survey.is_invalid) or reads_values
    if check_first:
        problem.check_values(survey.is_invalid)
    decision = decide(backend, maps, survey, settings)
    if not check_first:
        problem.check_values(survey.is_invalid)
    return problem.restore(decision)


def present_in(problem: Problem) -> Tensor:
    """Return which classes the ``presence`` rule of the settings takes to be in each image.

    ``(batch, classes)`` boolean.
    """
    backend, _ = _backends.choose(problem.probs.device, problem.settings.from_logits)
    maps = backend.open_maps(problem.probs, problem.valid, problem.settings.from_logits)
    return present_classes(backend, maps, backend.survey(maps), problem.settings)
