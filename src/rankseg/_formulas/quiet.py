"""Functions of few numbers that wake no threads.

Torch leaves ``exp``, ``log``, ``erfc`` and their like of a hundred float64 numbers, and every
product of matrices, to libraries that share them out among threads. Where other work keeps the
cores busy, waiting for these takes a thousand times as long as the numbers do. The functions here
are computed by the thread that calls them, of up to ``FEW`` numbers at a time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["FEW", "exp", "expm1", "log", "log1p", "product"]

FEW = 1 << 15
"""Numbers of which torch gives any other operation to several threads."""

FEW_OF_THESE = 1 << 11
"""Numbers of which torch gives ``expm1`` and ``log1p`` to several threads."""

SMALL_PRODUCT = 1 << 18
"""Multiplications that NumPy's library gives to one thread."""


def exp(x: Tensor) -> Tensor:
    """Return ``exp(x)``; the relative error is that of rounding ``x``, some ``2e-16 |x|``."""
    return torch.exp2(x * math.log2(math.e))


def expm1(x: Tensor) -> Tensor:
    """Return ``exp(x) - 1`` without cancellation."""
    if torch.compiler.is_compiling():
        return torch.expm1(x)
    return torch.cat([torch.expm1(part) for part in x.flatten().split(FEW_OF_THESE)]).view_as(x)


def log1p(x: Tensor) -> Tensor:
    """Return ``log(1 + x)`` without cancellation."""
    if torch.compiler.is_compiling():
        return torch.log1p(x)
    return torch.cat([torch.log1p(part) for part in x.flatten().split(FEW_OF_THESE)]).view_as(x)


def log(x: Tensor) -> Tensor:
    """Return the natural logarithm."""
    return torch.xlogy(1.0, x)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two matrices or of many pairs, a few columns of ``right`` at a time."""
    if left.device.type != "cpu" or torch.compiler.is_compiling():
        return left @ right
    columns = max(1, SMALL_PRODUCT // max(1, left.shape[-2:].numel()))
    first, second = left.numpy(), right.numpy()
    out = np.empty((*first.shape[:-1], second.shape[-1]))
    with np.errstate(all="ignore"):  # as torch: products of tiny numbers are 0
        for start in range(0, out.shape[-1], columns):
            part = slice(start, start + columns)
            np.matmul(first, second[..., part], out=out[..., part])
    return torch.from_numpy(out)
