"""Folders of label maps: which files belong to a case, and how a prediction lies on the truth."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from torch import Tensor

from rankseg._common.warn import warn
from rankseg._files.folders import RECORD, ending, files_of, stem
from rankseg._files.small import read_json_object
from rankseg._formats import (
    LABELS_READ,
    NIFTI,
    HoldsMapsError,
    LabelFile,
    align,
    read_label_file,
)
from rankseg._formats.common import LABEL_NAMES, MAP_NAMES

__all__ = ["label_files", "of_masks", "read_only", "read_prediction"]


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


def of_masks(folder: Path | str) -> bool:
    """Return whether the record of a folder says that its files hold a mask for each class."""
    try:
        options = read_json_object(Path(folder, RECORD)).get("options")
    except (OSError, ValueError):  # none, or of another program
        return False
    return isinstance(options, dict) and options.get("output_mode") == "multilabel"


def _refuse_several_masks(path: Path, labels: Tensor) -> None:
    """Refuse masks of several classes; that of one class is a label map of 0 and 1."""
    are_nifti = ending(path) in NIFTI
    if labels.ndim <= (3 if are_nifti else 2) or (not are_nifti and len(labels) == 1):
        return
    message = (
        f"{path} holds a mask for each of {labels.shape[-1 if are_nifti else 0]} classes, as "
        f"{RECORD} beside it says (output_mode='multilabel'), not a class for each pixel: "
        "store every class in a folder of its own and score it with two classes, or count by "
        "rankseg.metrics.count(masks[None], truth[None]), both of bool (classes, *spatial)"
    )
    if ending(path) in (".tif", ".tiff") and labels.ndim == 3:
        warn(f"unless its pages are slices of one class, {message}")
    else:
        raise ValueError(message)


def _holds_maps(path: Path) -> bool:
    """Return whether an archive of arrays holds labels and probabilities."""
    with zipfile.ZipFile(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
    return not held.isdisjoint(MAP_NAMES) and not held.isdisjoint(LABEL_NAMES)


def read_prediction(paths: Sequence[Path], truth: LabelFile, masks: bool) -> LabelFile:
    """Read the predicted labels of a case, with the axes of the true ones: see `align`.

    Those of a folder of ``masks`` may be of one class only.
    """
    prediction = read_only(paths)
    if masks:
        _refuse_several_masks(paths[0], prediction.labels)
    if any(path.suffix.lower() == ".npz" and _holds_maps(path) for path in paths):
        warn(
            "labels beside probabilities in one .npz are the truth where rankseg compare reads "
            "them, and are taken for a prediction here"
        )
    try:
        names = ("the prediction", "the truth")
        labels = align(prediction.labels, prediction.grid, truth.grid, names)
        return replace(prediction, labels=labels, grid=truth.grid)
    except ValueError as error:
        raise ValueError(
            f"{' or '.join(map(str, paths))} does not fit the truth: {error}"
        ) from None
