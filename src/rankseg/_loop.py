"""The one loop of solvers and reference backend: better and better, until nothing rises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def while_rising(step: Step, best: Tensor, rising: Tensor, fault: Tensor) -> Tensor:
    """Repeat ``best, rising = step(best, rising)`` until nothing is rising; return ``best``.

    Gives up when ``fault`` is set: the input holds no probabilities, and the caller is about to
    be told. One wait for the device per step tells both.
    """
    if torch.compiler.is_compiling():
        loop = cast("Any", torch.while_loop)
        return cast("Tensor", loop(_any_rising, step, (best, rising))[0])
    goes_on = True
    while goes_on:
        best, rising = step(best, rising)
        goes_on = bool(rising.any() & ~fault)
    return best


def _any_rising(best: Tensor, rising: Tensor) -> Tensor:
    return rising.any()
