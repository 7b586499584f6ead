"""How the kernels of the CPU backend are compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def _jit(function: Function) -> Function:
    """Compile with the options every kernel here shares.

    ``nogil`` lets plain threads run kernels side by side: numba's own ``parallel=True`` kills
    forked data-loader workers. The fast-math flags allow sums to be vectorised; the ones that
    would let the compiler assume away NaN are left out, since finding NaN is part of the job.
    """
    return _compile(function, {"reassoc", "nsz"})


def _jit_as_written(function: Function) -> Function:
    """Compile arithmetic whose order matters: what is subtracted first stays first."""
    return _compile(function, set())


def _compile(function: Function, fastmath: set[str]) -> Function:
    compile_kernel: Any = functools.partial(
        numba.njit, nogil=True, error_model="numpy", fastmath=fastmath
    )
    try:
        return cast("Function", compile_kernel(function, cache=True))
    except RuntimeError:  # no folder to keep compiled code in: compile anew in each process
        return cast("Function", compile_kernel(function))
