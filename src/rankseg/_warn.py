"""Warnings that point to the line of the user."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

INSIDE = ("rankseg", "torch")
"""Packages whose lines lie between the user's and a warning."""


def warn(message: str) -> None:
    """Warn of a decision, at the innermost line that is neither ours nor torch's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
