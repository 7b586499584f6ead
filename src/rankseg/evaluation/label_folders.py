"""Folders of label maps: which files belong to a case, and how a prediction lies on the truth."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rankseg._common.warn import warn
from rankseg._files.folders import ending, files_of, stem
from rankseg._files.formats import (
    LABELS_READ,
    HoldsMapsError,
    LabelFile,
    align,
    read_label_file,
)
from rankseg._files.formats.common import LABEL_NAMES, MAP_NAMES

__all__ = ["label_files", "read_only", "read_prediction"]


NOT_READ: Final = (
    *(".bmp", ".dcm", ".gif", ".gz", ".h5", ".hdf5", ".hdr", ".img", ".jfif", ".jp2", ".jpeg"),
    *(".jpg", ".mat", ".mgh", ".mgz", ".mha", ".mhd", ".nrrd", ".pbm", ".pgm", ".pnm", ".ppm"),
    *(".pt", ".pth", ".safetensors", ".tga", ".webp"),
)
"""The endings of formats that may hold labels, and that are not read."""


def label_files(folder: Path | str) -> dict[str, list[Path]]:
    """Return the files of a folder that may hold labels, by their names without endings.

    A case that has only a file of a format that is not read gets that file. Reading it is an error
    that names it, so that the case is not left out without a word.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    cases: dict[str, list[Path]] = {}
    files = files_of(folder, LABELS_READ, NOT_READ)
    for path in files:
        if ending(path) in LABELS_READ:
            cases.setdefault(stem(path), []).append(path)
    if not cases:
        raise FileNotFoundError(f"{folder} holds no file with an ending of {list(LABELS_READ)}")
    for path in files:
        cases.setdefault(stem(path), [path])
    return cases


def read_only(paths: Sequence[Path]) -> LabelFile:
    """Read the only file of a case that holds labels: nnU-Net keeps scores beside them.

    Raises
    ------
    ValueError
        If several files of the case hold labels, or none does, or one cannot be read.
    """
    found: dict[Path, LabelFile] = {}
    scores: list[HoldsMapsError] = []
    for path in paths:
        try:
            found[path] = read_label_file(path)
        except HoldsMapsError as error:
            scores.append(error)
    if len(found) > 1:
        raise ValueError(
            f"several files hold its labels, {' and '.join(map(str, found))}: keep one of them"
        )
    if not found:
        raise scores[0]
    return next(iter(found.values()))


def _holds_maps(path: Path) -> bool:
    """Return whether an archive of arrays holds labels and probabilities."""
    with zipfile.ZipFile(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
    return not held.isdisjoint(MAP_NAMES) and not held.isdisjoint(LABEL_NAMES)


def read_prediction(paths: Sequence[Path], truth: LabelFile) -> LabelFile:
    """Read the predicted labels of a case, with the axes of the true ones: see `align`."""
    prediction = read_only(paths)
    if any(path.suffix.lower() == ".npz" and _holds_maps(path) for path in paths):
        warn(
            "labels beside probabilities in one .npz are the truth where rankseg compare reads "
            "them, and are taken for a prediction here"
        )
    try:
        return replace(prediction, labels=align(prediction, truth))
    except ValueError as error:
        raise ValueError(
            f"{' or '.join(map(str, paths))} does not fit the truth: {error}"
        ) from None
