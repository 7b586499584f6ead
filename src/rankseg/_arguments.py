"""Checks and conversions of arguments, for every door of the library: one wording each."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["choice", "describe", "integer", "number", "viewable"]


def choice(name: str, value: object, allowed: Collection[str]) -> str:
    """Return the allowed string that ``value`` is but for case and surrounding blanks."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, one of {list(allowed)}, got {value!r}")
    for option in allowed:
        if value.strip().lower() == option.lower():
            return option
    raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")


def number(
    name: str, value: object, least: float, most: float, excluded: tuple[float, ...] = ()
) -> float:
    """Return a real number in ``[least, most]``, less the ``excluded`` ends, as a float.

    Infinity is never in it.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        real = float(value)
    except OverflowError:  # an integer or fraction beyond float64
        real = math.inf
    if not math.isfinite(real) or not least <= real <= most or real in excluded:
        unbounded = f"finite and at least {least:g}"
        first, last = "(" if least in excluded else "[", ")" if most in excluded else "]"
        allowed = unbounded if most == math.inf else f"in {first}{least:g}, {most:g}{last}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return real


def integer(name: str, value: object) -> int:
    """Return an integer that fits into int64 as an int; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} must fit into int64, got {value!r}")
    return int(value)


def describe(value: object) -> str:
    """Say what a wrong value is: its type, and its dtype if it has one."""
    kind = type(value).__name__
    return f"{kind} of {value.dtype}" if isinstance(value, np.ndarray | Tensor) else kind


class _Writable:
    """Claims that a read-only array may be written to, as torch wants of what it views.

    Nothing here writes to its input, and a memory-mapped file is ordinary input.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        interface = dict(self.array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        return interface


def viewable(array: np.ndarray) -> np.ndarray:
    """Return an array whose memory torch can view; a copy only where its strides forbid that."""
    foreign = not array.dtype.isnative
    if foreign or any(step < 0 or step % array.itemsize for step in array.strides):
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    return array if array.flags.writeable else np.asarray(_Writable(array))
