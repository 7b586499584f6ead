"""Checks and conversions of arguments, for every door of the library: one wording each."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor

__all__ = [
    "choice",
    "class_count",
    "describe",
    "distinct_names",
    "integer",
    "is_blank",
    "metric_name",
    "names_unknown",
    "nearest",
    "number",
    "number_tuple",
    "refuse_blanks",
    "shown",
    "viewable",
]

Function = TypeVar("Function", bound=Callable[..., Any])

METRIC_NAMES = {"accuracy": "acc", "f1": "dice", "dsc": "dice", "jaccard": "iou", "miou": "iou"}
"""Names of metrics that can mean nothing else, each with the name used here."""

MOST_CLASSES = 1 << 16
"""As many as the labels of 16 bits tell apart."""

BLANKS = ("", "nan", "na", "n/a", "<na>", "nat", "none", "null")
"""What tables hold in place of a value that is missing, in small letters: pandas writes most."""

SHOWN = 60
"""Characters that a message shows of a wrong value."""


def choice(
    name: str, value: object, allowed: Collection[str], synonyms: Mapping[str, str] | None = None
) -> str:
    """Return the allowed string that ``value`` is but for case and surrounding blanks.

    ``synonyms`` are other names, in lower case, of strings that may be allowed.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, one of {list(allowed)}, got {shown(value)}")
    key = value.strip().lower()
    for option in allowed:
        if key == option.lower():
            return option
    known = {other: option for other, option in (synonyms or {}).items() if option in allowed}
    if key in known:
        return known[key]
    known |= {option.lower(): option for option in allowed}
    meant = {*(synonyms or {}), *(synonyms or {}).values()}  # what is not misspelt, though refused
    near = None if key in meant else nearest(key, known)
    hint = "" if near is None else f"; did you mean {known[near]!r}?"
    raise ValueError(f"{name} must be one of {list(allowed)}, got {shown(value)}{hint}")


def metric_name(value: object, allowed: Collection[str]) -> str:
    """Return the allowed metric that ``value`` names."""
    return choice("metric", value, allowed, METRIC_NAMES)


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the known word that is a part of this one, or is spelt most like it."""
    part = max((part for part in known if part in word), key=len, default="")
    alike = [part] if len(part) > 2 else difflib.get_close_matches(word, known, 1)
    return alike[0] if alike else part or None


def names_unknown(function: Function) -> Function:
    """Let a function refuse unknown arguments by name, each with the likely cure."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: object, **options: object) -> object:
        unknown = sorted(set(options) - set(known))
        if unknown:
            near = [nearest(name.lower(), known) for name in unknown]
            cures = [
                f"; for {name}, did you mean {meant}?" if meant else f"; RankSEG may take {name}"
                for name, meant in zip(unknown, near, strict=True)
            ]
            takes = f"{function.__name__} takes the arguments {list(known)}, got {unknown}"
            raise TypeError(takes + "".join(cures))
        return function(*args, **options)

    return cast("Function", call)


def number(
    name: str, value: object, least: float, most: float, excluded: tuple[float, ...] = ()
) -> float:
    """Return a real number in ``[least, most]``, less the ``excluded`` ends, as a float.

    Infinity is never in it.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        hint = f"; pass float({name})" if getattr(value, "ndim", None) == 0 else ""
        raise TypeError(f"{name} must be a real number, got {shown(value)}{hint}")
    try:
        real = float(value)
    except OverflowError:  # an integer or a fraction that no float can hold
        real = math.inf
    if real == math.inf or not least <= real <= most or real in excluded:
        unbounded = f"finite and at least {least:g}"
        first, last = "(" if least in excluded else "[", ")" if most in excluded else "]"
        allowed = unbounded if most == math.inf else f"in {first}{least:g}, {most:g}{last}"
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return real


def number_tuple(
    name: str, values: object, least: float, most: float, excluded: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """Return a sequence of one number or more as a tuple of floats; each is checked by `number`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise TypeError(f"{name} must be a sequence of numbers, got {describe(values)}")
    return tuple(number(f"every {name}", value, least, most, excluded) for value in values)


def integer(name: str, value: object) -> int:
    """Return an integer that fits into int64 as an int; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} must fit into int64, got {shown(value)}")
    return int(value)


def class_count(name: str, value: object) -> int:
    """Return a number of classes as an int."""
    count = integer(name, value)
    if not 1 <= count <= MOST_CLASSES:
        raise ValueError(f"{name} must be from 1 to {MOST_CLASSES}, got {shown(value)}")
    return count


def distinct_names(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return names under which results are kept: none is blank, and none is there twice."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of names, got {shown(values)}")
    names = tuple(values)
    twice = [one for one, count in Counter(names).items() if count > 1]
    if twice or not all(map(str.strip, names)):
        wrong = f"{shown(twice[0])} twice" if twice else "a blank name"
        raise ValueError(f"{name} must be different names, none of them blank, got {wrong}")
    return names


def is_blank(value: object) -> bool:
    """Tell whether a table writes this value where one is missing."""
    return str(value).strip().lower() in BLANKS


def refuse_blanks(name: str, values: Iterable[object]) -> None:
    """Raise a ValueError if a value is missing: all that are would be taken for one."""
    blank = [value for value in values if is_blank(value)]
    if blank:
        raise ValueError(f"{name} must not be blank, got {shown(blank[0])} {len(blank)} times")


def shown(value: object) -> str:
    """Return a wrong value as a message shows it: arrays by their type, long ones cut short."""
    if isinstance(value, np.ndarray | Tensor) and value.ndim:
        return describe(value)
    try:
        text = repr(value)
    except Exception:  # Python refuses to print integers of 4300 digits, say
        return f"a value of type {describe(value)}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 10]}...{text[-7:]}"


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
