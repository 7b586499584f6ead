"""Which files of a folder are read: by the ending of their name, in capitals or not."""

from __future__ import annotations

import os
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Final

from rankseg._common.warn import warn

__all__ = ["RECORD", "ending", "file_of", "files_of", "shortened", "stem"]

COMPANIONS: Final = (".csv", ".html", ".json", ".log", ".md", ".txt", ".yaml", ".yml")
"""Endings of what lies beside maps and labels: records, tables and notes."""

NOTES: Final = ("readme", "license", "licence")
"""Names of notes, whatever their ending."""

RECORD: Final = "rankseg.json"
"""The file beside label maps that says how they were made."""

SHOWN: Final = 8
"""Most names that a message shows."""


def ending(path: str | PathLike[str]) -> str:
    """Return the ending in small letters, ``.nii.gz`` as one.

    >>> ending("scans/CASE.nii.gz"), ending("a.b.PNG")
    ('.nii.gz', '.png')
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem(path: str | PathLike[str]) -> str:
    """Return the name without its ending.

    >>> stem("scans/case.nii.gz"), stem("a.b.png")
    ('case', 'a.b')
    """
    return Path(path).name.removesuffix("/")[: -len(ending(path)) or None]


def files_of(
    folder: Path,
    endings: Collection[str],
    refused: Collection[str] = (),
    others: Collection[Path] = (),
) -> list[Path]:
    """Return the files of a folder with one of the endings, sorted, and warn of others.

    Hidden files are left out. Records and notes are left out without a warning, and so is what is
    called as a file that is read: its picture, say, or what nnU-Net keeps beside it; and folders,
    unless they hold a file with one of the endings, are no output of this package and not among the
    others that the caller reads. Files with an ending that the caller refuses are returned, too.
    """
    held = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    read = [path for path in held if ending(path) in (*endings, *refused)]
    known = {stem(path) for path in read}
    left = [
        f"{path.name}/" if path.is_dir() and ending(path) != ".zarr" else path.name
        for path in held
        if ending(path) not in (*endings, *refused, *COMPANIONS)
        and stem(path) not in known
        and stem(path).lower() not in NOTES
        and path not in others
        and (ending(path) == ".zarr" or not path.is_dir() or _holds(path, endings))
    ]
    if read and left:  # of a folder with nothing to read the caller says so
        hint = (
            "; folders in it are not searched" if any(name.endswith("/") for name in left) else ""
        )
        formats = ", ".join(endings)
        warn(f"not read in {folder}: {shortened(left)}; the formats are {formats}{hint}")
    return read


def _holds(folder: Path, endings: Collection[str]) -> bool:
    """Return whether a folder that this package did not write holds a file of the endings."""
    return any(
        RECORD not in names and any(ending(name) in endings for name in names)
        for _, _, names in os.walk(folder)  # leaves out what is not ours to read
    )


def file_of(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of a file that is there, its ending in capitals or not; else in small."""
    capital = folder / f"{name}{suffix.upper()}"
    path = folder / f"{name}{suffix}"
    return capital if os.path.lexists(capital) and not os.path.lexists(path) else path


def shortened(names: Collection[str]) -> str:
    """Return the names as a message shows them: of many the first ones."""
    first, more = list(names)[:SHOWN], len(names) - SHOWN
    return ", ".join(first) + (f" and {more} others" if more > 0 else "")
