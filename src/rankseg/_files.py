"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_beside", "write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there: nobody ever reads half of it.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to; what was at ``path`` stays.
    """
    write_beside(path, lambda unfinished: unfinished.write_bytes(content))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file or a folder beside its place, then move it there.

    What was at ``path`` is replaced, and stays if anything goes wrong.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(unfinished)
        if path.is_dir() and unfinished.is_dir():
            shutil.rmtree(path)  # a folder is not replaced in one step
        os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
