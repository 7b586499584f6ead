"""The one loop of solvers and reference backend: better and better, until nothing rises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor

Best = tuple[Tensor, ...]
Step = Callable[[Best, Tensor], tuple[Best, Tensor]]

MOST_STEPS: Final = 1000
"""Steps after which any loop ends. Cuts are raised some 10 times, labels relabelled some 20 times;
values that rounding makes rise for ever would keep a loop from ending by itself."""


def while_rising(step: Step, best: Best, rising: Tensor, fault: Tensor) -> Best:
    """Repeat ``best, rising = step(best, rising)`` until nothing is rising; return ``best``.

    Gives up when ``fault`` is set: the input holds no probabilities, and the caller is about to
    be told. One wait for the device per step tells both.
    """
    if torch.compiler.is_compiling():
        loop = cast("Any", torch.while_loop)
        count = torch.zeros((), dtype=torch.int64, device=rising.device)

        def traced(*at: Tensor) -> Best:
            best, rising = step(at[:-2], at[-2])
            return *best, rising, at[-1] + 1

        return cast("Best", loop(_goes_on, traced, (*best, rising, count))[:-2])
    for _ in range(MOST_STEPS):
        best, rising = step(best, rising)
        if not bool(rising.any() & ~fault):
            break
    return best


def _goes_on(*at: Tensor) -> Tensor:
    *_, rising, count = at
    return rising.any() & (count < MOST_STEPS)
