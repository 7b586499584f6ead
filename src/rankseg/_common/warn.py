"""Warnings that point to the line of the user."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["about", "one_of_a_kind", "warn"]

CASE: ContextVar[str | None] = ContextVar("CASE", default=None)

INSIDE = ("rankseg", "torch", "contextlib", "numpy")
"""Packages whose lines lie between the user's and a warning."""

_warned: ContextVar[set[str] | None] = ContextVar("warned", default=None)
"""The modules of this package that have warned, in a call that passes on one warning of each."""


@contextlib.contextmanager
def one_of_a_kind() -> Iterator[None]:
    """Pass on the first warning of each module only: many maps of one call share a fault."""
    token = _warned.set(set())
    try:
        yield
    finally:
        _warned.reset(token)


@contextlib.contextmanager
def about(case: str) -> Iterator[None]:
    """Let warnings of decisions begin with the name of a case; each thread has its own."""
    before = CASE.set(case)
    try:
        yield
    finally:
        CASE.reset(before)


def warn(message: str) -> None:
    """Warn of a decision, at the innermost line that is neither ours nor torch's."""
    if CASE.get() is not None:
        message = f"{CASE.get()}: {message}"
    level, frame = 2, sys._getframe(1)
    warned, kind = _warned.get(), frame.f_globals.get("__name__", "")
    if warned is not None:
        if kind in warned:
            return
        warned.add(kind)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
