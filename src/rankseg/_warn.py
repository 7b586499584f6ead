"""Warnings that point to the line of the user."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["about", "warn"]

CASE: ContextVar[str | None] = ContextVar("CASE", default=None)

INSIDE = ("rankseg", "torch")
"""Packages whose lines lie between the user's and a warning."""


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
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
