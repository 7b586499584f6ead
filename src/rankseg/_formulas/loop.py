"""The loop of all iterative solvers: repeat a step while some row or image still improves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced

Best = tuple[Tensor, ...]
Step = Callable[[Best, Tensor], tuple[Best, Tensor]]

MOST_STEPS: Final = 1000
"""Steps after which any loop ends. Cuts need some 10 steps, labels some 20. Without a limit,
rounding errors that make a value rise again and again could keep a loop from ending."""


def while_rising(step: Step, best: Best, rising: Tensor, is_invalid: Tensor) -> Best:
    """Repeat ``best, rising = step(best, rising)`` until ``rising`` is all False; return ``best``.

    ``rising`` is boolean: which rows or images still improve. The loop also ends if ``is_invalid``
    is True: the input holds values that are no probabilities, and the caller will raise. Both flags
    are read at once, so that a step waits for the device once.
    """
    if is_traced():
        loop = cast("Any", torch.while_loop)
        count = torch.zeros((), dtype=torch.int64, device=rising.device)

        def traced(*at: Tensor) -> Best:
            best, rising = step(at[:-2], at[-2])
            return *best, rising, at[-1] + 1

        return cast("Best", loop(_goes_on, traced, (*best, rising, count))[:-2])
    for _ in range(MOST_STEPS):
        best, rising = step(best, rising)
        if not bool(rising.any() & ~is_invalid):
            break
    return best


def _goes_on(*at: Tensor) -> Tensor:
    *_, rising, count = at
    return rising.any() & (count < MOST_STEPS)
