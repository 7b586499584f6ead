"""The shared library of the CPU kernels: how it is found, which instructions it uses, how to call.

``native/`` holds its sources. Every function takes a `Team` of threads first and returns a status.
A call releases the interpreter's lock, and Ctrl-C is raised after it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Source", "Survey", "Tables", "address", "call", "level", "levels"]

ORDER = ("v1", "v3", "v4")
"""Levels of x86-64, each with the instructions of those before it; other processors have one."""

OUT_OF_MEMORY = 1

POINTER, INTEGER, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Team(ctypes.Structure):
    """Who starts threads, and how many: ``Team`` in ``native/threads.hpp``."""

    _fields_ = (("start", POINTER), ("threads", INTEGER))


class Source(ctypes.Structure):
    """Where maps lie in memory: ``Source`` in ``native/maps.hpp``."""

    _fields_ = (
        ("values", POINTER),
        ("type", INTEGER),
        ("direct", INTEGER),
        ("batch", INTEGER),
        ("classes", INTEGER),
        ("pixels", INTEGER),
        ("batch_stride", INTEGER),
        ("class_stride", INTEGER),
        ("axes", INTEGER),
        ("sizes", POINTER),
        ("strides", POINTER),
        ("valid", POINTER),
        ("content", INTEGER),
        ("logs", POINTER),
        ("rests", POINTER),
    )


class Tables(ctypes.Structure):
    """Sum, smallest and largest value of every block: ``Tables`` in ``native/maps.hpp``."""

    _fields_ = (("mass", POINTER), ("low", POINTER), ("peak", POINTER))


class Survey(ctypes.Structure):
    """Results of a survey by class: ``Survey`` in ``native/survey.hpp``."""

    _fields_ = tuple((name, POINTER) for name in ("mass", "peak", "likely_count", "likely_mass"))


MAPS = (ctypes.POINTER(Source), ctypes.POINTER(Tables))
"""What most functions take first, after the team."""

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "log_sums": (MAPS[0], POINTER, POINTER),
    "survey": (*MAPS, DOUBLE, ctypes.POINTER(Survey), ctypes.POINTER(ctypes.c_int32)),
    "survey_active": (*MAPS, POINTER),
    "above": (*MAPS, *[POINTER] * 4),
    "masks": (*MAPS, POINTER, POINTER),
    "raise_cuts": (*MAPS, *[POINTER] * 6),
    "own_masks": (*MAPS, DOUBLE, DOUBLE, DOUBLE, ctypes.c_int32, DOUBLE, POINTER, POINTER),
    "between": (*MAPS, POINTER, POINTER, POINTER, INTEGER, INTEGER, POINTER),
}
"""Arguments of every function of the library, after the team."""


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library on ``torch.get_num_threads()`` threads.

    Raises
    ------
    MemoryError
        If a thread could not get the memory that it works in.
    """
    team = Team(_start_team, torch.get_num_threads())
    if _function(name)(ctypes.byref(team), *arguments) == OUT_OF_MEMORY:
        raise MemoryError("not enough memory for the work of the CPU kernels")


def address(array: np.ndarray | None) -> int | None:
    """Return where a contiguous array begins, or None for None."""
    return None if array is None else array.__array_interface__["data"][0]


def levels() -> list[str]:
    """Return the levels of instructions that this processor has, the best one last."""
    best: str = _library().rankseg_level().decode()
    return list(ORDER[: ORDER.index(best) + 1]) if best in ORDER else [best]


def level() -> str:
    """Return the level of instructions in use: the best, or what ``RANKSEG_CPU`` names.

    Raises
    ------
    ValueError
        If ``RANKSEG_CPU`` names no level of this processor.
    """
    named = os.environ.get("RANKSEG_CPU", "").strip().lower()
    if named and named not in levels():
        raise ValueError(f"RANKSEG_CPU must be one of {levels()} on this processor, got {named!r}")
    return named or levels()[-1]


@functools.cache
def _library() -> ctypes.CDLL:
    name = "_native.dll" if sys.platform == "win32" else "_native.so"
    folders = sys.modules[__package__].__path__  # an editable installation has two
    found = [path for folder in folders if (path := Path(folder, name)).exists()]
    if not found:
        raise ImportError(
            f"{name} is missing beside rankseg/_backends: rankseg was not built. Install it with "
            "`pip install .` from its folder, or set RANKSEG_BACKEND=torch for the slow reference"
        )
    library = ctypes.CDLL(str(found[0]))
    library.rankseg_level.restype = ctypes.c_char_p
    return library


@functools.cache
def _function(name: str) -> Any:
    function = getattr(_library(), f"rankseg_{name}_{level()}")
    function.argtypes = (ctypes.POINTER(Team), *SIGNATURES[name])
    function.restype = ctypes.c_int
    return function


def _find_team() -> int | None:
    """Return the address of the function that starts a team of torch's OpenMP library, or None.

    ``GOMP_parallel(member, argument, threads, flags)`` is what compiled code calls for ``#pragma
    omp parallel``.
    """
    if sys.platform != "linux":
        return None
    try:
        start = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # its own dependencies' too
    except (OSError, AttributeError):
        return None
    return ctypes.cast(start, ctypes.c_void_p).value


def _make_threads_anew() -> None:
    """Use no OpenMP in a forked child: it would wait for threads that did not come along."""
    global _start_team
    _start_team = None


_start_team = _find_team()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_threads_anew)
