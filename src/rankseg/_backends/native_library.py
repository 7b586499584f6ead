"""The shared library of the CPU kernels: finding it, calling its functions, levels of instructions.

``native/`` holds the sources; their headers explain every function. A call releases the
interpreter's lock. If the user presses Ctrl-C, Python raises KeyboardInterrupt after the call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["GainTable", "Metric", "Source", "Steps", "Tables", "Volume", "call", "level"]

ORDER = ("v1", "v3", "v4")
"""Levels of x86-64; each has the instructions of the levels before it. Others have one level."""

VALUES_PER_TASK = 1 << 18
"""Least number of probabilities for which a thread is woken: at least 0.1 ms of work."""

OUT_OF_MEMORY = 1

POINTER, INTEGER, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Record(ctypes.Structure):
    """A structure of C. The arrays that its fields point to live as long as the structure."""

    def __init__(self, **fields: Any) -> None:
        self.held: list[Any] = []
        self.set(**fields)

    def set(self, **fields: Any) -> None:
        """Set fields to numbers, structures, None, or arrays, whose types are not checked."""
        for name, value in fields.items():
            self.held.append(value)
            setattr(self, name, _passed(value))


class Team(Record):
    """The function that starts threads, and how many threads: ``native/threads.hpp``."""

    _fields_ = (("start", POINTER), ("threads", INTEGER), ("values_per_task", INTEGER))


class Source(Record):
    """Where maps lie in memory: ``native/maps.hpp``."""

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


class Tables(Record):
    """Sum, smallest and largest value of every block: ``native/maps.hpp``."""

    _fields_ = (("mass", POINTER), ("low", POINTER), ("peak", POINTER))


class GainTable(Record):
    """What classes gain from one more pixel: ``native/labels.hpp``."""

    _fields_ = (("terms", POINTER), ("pieces", INTEGER), ("table_row", POINTER))


class Steps(Record):
    """How one more pixel changes the integrals: ``native/moments.hpp``."""

    _fields_ = (
        ("per_hit", DOUBLE),
        ("per_mass", DOUBLE),
        ("per_count", DOUBLE),
        ("outside", INTEGER),
    )


class Metric(Record):
    """The metric that exact masks maximise: ``native/exact.hpp``."""

    _fields_ = (
        ("dice", INTEGER),
        ("smooth", DOUBLE),
        ("bonus", DOUBLE),
        ("offset", DOUBLE),
        ("steps", Steps),
    )


class Volume(Record):
    """Moments of the volume of a class: ``native/refined.hpp``."""

    _fields_ = (
        ("mean", DOUBLE),
        ("variance", DOUBLE),
        ("third", DOUBLE),
        ("size", INTEGER),
        ("eps", DOUBLE),
    )


class Types(NamedTuple):
    """The types that an array may have: of tensors, and of NumPy arrays.

    They are not compared with each other: NumPy calls Python code for that and drops what it
    raises, a KeyboardInterrupt too.
    """

    torch: tuple[torch.dtype, ...]
    numpy: tuple[np.dtype[Any], ...]


VALUES = Types((torch.float32, torch.float64), (np.dtype(np.float32), np.dtype(np.float64)))
DOUBLES = Types((torch.float64,), (np.dtype(np.float64),))
INTEGERS = Types((torch.int64,), (np.dtype(np.int64),))
BYTES = Types((), (np.dtype(np.int8),))
FLAGS = Types((torch.bool,), (np.dtype(np.bool_),))
"""The types for each kind of array argument."""

MAPS = (Source, Tables)
"""The first arguments of most functions."""

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "log_sums": (Source, VALUES, BYTES),
    "survey": (*MAPS, DOUBLE, DOUBLES, FLAGS),
    "survey_active": (*MAPS, FLAGS),
    "above": (*MAPS, DOUBLES, FLAGS, DOUBLES, DOUBLES),
    "masks": (*MAPS, DOUBLES, FLAGS),
    "raise_cuts": (*MAPS, DOUBLES, DOUBLES, DOUBLES, DOUBLES, FLAGS, DOUBLES),
    "own_masks": (*MAPS, DOUBLE, DOUBLE, DOUBLE, INTEGER, DOUBLE, FLAGS, FLAGS),
    "between": (*MAPS, DOUBLES, DOUBLES, INTEGERS, INTEGER, INTEGER, DOUBLES),
    "claim": (*MAPS, DOUBLES, DOUBLES, INTEGERS, DOUBLES, DOUBLES),
    "count_unsettled": (Source, INTEGERS, INTEGERS),
    "gather_unsettled": (Source, INTEGERS, FLAGS, INTEGERS, INTEGER, INTEGER, INTEGERS, VALUES),
    "resolve": (*MAPS, INTEGERS, DOUBLES, GainTable, FLAGS, DOUBLE, INTEGER),
    "tally": (Source, INTEGERS, DOUBLES, DOUBLES),
    "winners": (*MAPS, DOUBLES, DOUBLES, FLAGS),
    "profile": (*MAPS, INTEGERS, INTEGER, DOUBLES, DOUBLES),
    "exchange": (*MAPS, INTEGERS, DOUBLES, INTEGERS, INTEGER, DOUBLES),
    "moments": (*MAPS, FLAGS, DOUBLES, DOUBLES, DOUBLES),
    "split": (*MAPS, DOUBLES, DOUBLES, INTEGERS, DOUBLES, DOUBLES, DOUBLES),
    "scan": (
        *(DOUBLES, INTEGERS, INTEGER, INTEGER),
        *(DOUBLES, DOUBLES, DOUBLES, INTEGERS, INTEGER, Steps, INTEGERS),
    ),
    "exact_masks": (*MAPS, DOUBLE, Metric, DOUBLE, FLAGS, FLAGS, FLAGS),
    "refined_gains": (DOUBLES, INTEGER, Volume, DOUBLE, INTEGER, DOUBLES),
}
"""The kinds of arguments of every function after the team: structures, numbers and arrays."""


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library on ``torch.get_num_threads()`` threads.

    Arrays are torch tensors or NumPy arrays. An array that the function writes to must be
    contiguous. Any other array is copied if it is not contiguous.

    Raises
    ------
    TypeError
        If an array is not of the type that the function takes.
    MemoryError
        If memory for the work of the kernel could not be allocated.
    """
    function, kinds = _function(name)
    held = [_checked(argument, kind) for argument, kind in zip(arguments, kinds, strict=True)]
    threads = torch.get_num_threads()
    team = Team(start=_start_team, threads=threads, values_per_task=VALUES_PER_TASK)
    if function(team, *map(_passed, held)) == OUT_OF_MEMORY:
        raise MemoryError("not enough memory for the work of the CPU kernels")


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


def _checked(argument: Any, kind: Any) -> Any:
    """Check the type of an array and return it contiguous; return any other argument as it is."""
    if not isinstance(kind, Types):
        return argument
    allowed = kind.torch if isinstance(argument, Tensor) else kind.numpy
    if argument.dtype not in allowed:
        raise TypeError(f"a kernel takes arrays of {allowed}, got one of {argument.dtype}")
    if isinstance(argument, Tensor):
        return argument.contiguous()
    return argument if argument.flags.c_contiguous else np.ascontiguousarray(argument)


def _passed(argument: Any) -> Any:
    """Return what ctypes takes for an argument: for an array, the address of its memory."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, np.ndarray):
        return argument.__array_interface__["data"][0]
    return argument


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
def _function(name: str) -> tuple[Any, tuple[Any, ...]]:
    """Return a function of the level in use, and the kinds of its arguments."""
    function, kinds = getattr(_library(), f"rankseg_{name}_{level()}"), SIGNATURES[name]
    function.argtypes = tuple(map(_c_type, (Team, *kinds)))
    function.restype = ctypes.c_int
    return function, kinds


def _c_type(kind: Any) -> Any:
    if isinstance(kind, Types):
        return POINTER
    return ctypes.POINTER(kind) if issubclass(kind, ctypes.Structure) else kind


def _find_team() -> int | None:
    """Return the address of the function that starts a team of torch's OpenMP library, or None.

    ``GOMP_parallel(member, argument, threads, flags)`` is what compiled code calls for ``#pragma
    omp parallel``.
    """
    if sys.platform != "linux":
        return None
    try:
        start = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # or in a library that it depends on
    except (OSError, AttributeError):
        return None
    return ctypes.cast(start, ctypes.c_void_p).value


def _make_threads_anew() -> None:
    """Use no OpenMP in a forked child: OpenMP would wait for threads that fork did not copy."""
    global _start_team
    _start_team = None


_start_team = _find_team()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_threads_anew)
