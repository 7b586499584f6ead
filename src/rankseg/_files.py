"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_folder_whole", "write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there: nobody ever reads half of it.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to; what was at ``path`` stays.
    """
    unfinished = _beside(path, "part")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_folder_whole(path: Path, fill: Callable[[Path], object]) -> None:
    """Let a folder be filled beside its place, then move it there.

    A folder cannot be replaced in one step: what was at ``path`` is moved away first, and back if
    the new one cannot take its place.

    Raises
    ------
    OSError
        As `write_whole`, and whatever ``fill`` raises; what was at ``path`` stays.
    """
    unfinished, old = _beside(path, "part"), _beside(path, "old")
    try:
        fill(unfinished)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(unfinished, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    """Return a hidden name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")
