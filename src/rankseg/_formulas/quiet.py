"""Elementary functions and matrix products of small tensors that wake no other threads.

For ``exp``, ``log``, ``erfc`` and similar functions of a hundred float64 numbers, and for every
matrix product, torch calls libraries that use several threads. If other work keeps the cores busy,
waiting for these threads takes a thousand times as long as the computation. The functions here
compute in the calling thread, for tensors of up to ``VALUES_IN_ONE_THREAD`` numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rankseg._common.tracing import is_on_host, is_traced

__all__ = ["VALUES_IN_ONE_THREAD", "exp", "expm1", "log", "log1p", "product"]

VALUES_IN_ONE_THREAD = 1 << 15
"""Size of a tensor up to which torch runs most operations in one thread."""

LOG1P_IN_ONE_THREAD = 1 << 11
"""Size of a tensor up to which torch runs ``expm1`` and ``log1p`` in one thread."""

PRODUCTS_IN_ONE_THREAD = 1 << 18
"""Multiplications of a matrix product up to which NumPy's library runs it in one thread."""


def exp(x: Tensor) -> Tensor:
    """Return ``exp(x)``, with a relative error of some ``2e-16 |x|``."""
    return torch.exp2(x * math.log2(math.e))


def expm1(x: Tensor) -> Tensor:
    """Return ``exp(x) - 1`` without cancellation."""
    if is_traced():
        return torch.expm1(x)
    return torch.cat(
        [torch.expm1(part) for part in x.flatten().split(LOG1P_IN_ONE_THREAD)]
    ).view_as(x)


def log1p(x: Tensor) -> Tensor:
    """Return ``log(1 + x)`` without cancellation."""
    if is_traced():
        return torch.log1p(x)
    return torch.cat(
        [torch.log1p(part) for part in x.flatten().split(LOG1P_IN_ONE_THREAD)]
    ).view_as(x)


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm."""
    return torch.xlogy(1.0, x)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product ``left @ right``, a few columns of ``right`` at a time.

    Leading axes are batch axes, as in ``@``.
    """
    if not is_on_host(left):
        return left @ right
    columns = max(1, PRODUCTS_IN_ONE_THREAD // max(1, left.shape[-2:].numel()))
    first, second = left.numpy(), right.numpy()
    out = np.empty((*first.shape[:-1], second.shape[-1]))
    with np.errstate(all="ignore"):  # as torch, which does not warn of underflow
        for start in range(0, out.shape[-1], columns):
            part = slice(start, start + columns)
            np.matmul(first, second[..., part], out=out[..., part])
    return torch.from_numpy(out)
