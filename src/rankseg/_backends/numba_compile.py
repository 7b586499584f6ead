"""How the kernels of the CPU backend are compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

INSIDE: Final = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of what is only called by compiled functions: half of compiling goes into what numba
wraps around a function for others."""


def _jit(function: Function) -> Function:
    """Compile what works on arrays that its caller holds, with the options that all share here.

    ``nogil`` lets plain threads run kernels side by side: numba's own ``parallel=True`` kills
    forked data-loader workers. The fast-math flags allow sums to be vectorised; the ones that
    would let the compiler assume away NaN are left out, since finding NaN is part of the job.
    References to arrays are not counted, which for small blocks takes as long as the work on them
    (and threads that count the same array wait for each other). Nothing can be allocated therefore.
    """
    return _compile(function, fastmath={"reassoc", "nsz"}, **INSIDE)


def _jit_as_written(function: Function) -> Function:
    """Compile arithmetic whose order matters: what is subtracted first stays first."""
    return _compile(function, fastmath=set(), **INSIDE)


def _jit_inline(function: Function) -> Function:
    """Compile into its callers what returns one of several arrays, which `_jit` cannot."""
    return _compile(function, inline="always")


def _kernel(function: Function) -> Function:
    """Compile what is called from Python: it allocates scratch, and leaves the work to others."""
    return _compile(function)


def _compile(function: Function, **options: Any) -> Function:
    compile_kernel: Any = functools.partial(numba.njit, nogil=True, error_model="numpy", **options)
    try:
        return cast("Function", compile_kernel(function, cache=True))
    except RuntimeError:  # no folder to keep compiled code in: compile anew in each process
        return cast("Function", compile_kernel(function))
