"""How the kernels of the CPU backend are compiled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pickle
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.serialize import dumps

Function = TypeVar("Function", bound=Callable[..., Any])

INSIDE: Final = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of what is only called by compiled functions: half of compiling goes into what numba
wraps around a function for others."""


class _CheckedCode(CompileResultCacheImpl):
    """Compiled code with a checksum: LLVM ends the process when it is given damaged code."""

    def reduce(self, compiled: Any) -> tuple[bytes, bytes]:
        content = dumps(super().reduce(compiled))
        return hashlib.sha256(content).digest(), content

    def rebuild(self, target_context: Any, data: tuple[bytes, bytes]) -> Any:
        checksum, content = data
        if hashlib.sha256(content).digest() != checksum:
            raise ValueError("the compiled code is damaged")
        return super().rebuild(target_context, pickle.loads(content))


class _Cache(FunctionCache):
    """Compiled code on disk, of which what cannot be read or written is compiled anew."""

    _impl_class = _CheckedCode

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # a damaged file can make pickle raise anything
            with contextlib.suppress(OSError):
                self.flush()  # or the damaged index would be read again when code is saved
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        with contextlib.suppress(Exception):  # such as a full disk
            super().save_overload(signature, compiled)


def jit(function: Function) -> Function:
    """Compile a function that allocates no arrays, with the options that all kernels share.

    ``nogil`` lets Python threads run kernels in parallel: ``parallel=True`` of numba kills forked
    data-loader workers. The fast-math flags allow sums to be vectorised. Flags that assume the
    absence of NaN are left out, since kernels must find NaN. References to arrays are not counted:
    for small blocks that takes as long as the work, and threads that count the same array wait for
    each other. Without the counts, the function must not allocate.
    """
    return _compile(function, fastmath={"reassoc", "nsz"}, **INSIDE)


def jit_as_written(function: Function) -> Function:
    """Compile arithmetic whose order matters: what is subtracted first stays first."""
    return _compile(function, fastmath=set(), **INSIDE)


def jit_inline(function: Function) -> Function:
    """Compile a function into its callers: for functions that return arrays, which `jit` cannot."""
    return _compile(function, inline="always")


def kernel(function: Function) -> Function:
    """Compile a function that Python calls. It allocates work arrays and calls `jit` functions."""
    return _compile(function)


def _compile(function: Function, **options: Any) -> Function:
    compile_kernel: Any = functools.partial(numba.njit, nogil=True, error_model="numpy", **options)
    compiled = compile_kernel(function)
    with contextlib.suppress(Exception):  # no folder to keep it in: compile in each process
        compiled._cache = _Cache(function)
    return cast("Function", compiled)
