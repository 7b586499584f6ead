"""Folders of label maps: which files belong to a case, and how they lie on maps or the truth."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from rankseg._common.warn import warn
from rankseg._files.folders import RECORD, ending, files_of, stem
from rankseg._files.small import read_json_object
from rankseg._formats import (
    IN_SPACE,
    LABELS_READ,
    Grid,
    HoldsMapsError,
    LabelFile,
    align,
    read_label_file,
)
from rankseg._formats.common import LABEL_NAMES, MAP_NAMES

__all__ = [
    "LabelFolder",
    "fitted",
    "label_files",
    "of_masks",
    "pixels_with_data",
    "read_only",
    "read_prediction",
]


NOT_READ: Final = (
    *(".bmp", ".dcm", ".gif", ".gz", ".h5", ".hdf5", ".hdr", ".img", ".jfif", ".jp2", ".jpeg"),
    *(".jpg", ".mat", ".mgh", ".mgz", ".mha", ".mhd", ".nrrd", ".pbm", ".pgm", ".pnm", ".ppm"),
    *(".pt", ".pth", ".safetensors", ".tga", ".webp"),
)
"""The endings of formats that may hold labels, and that are not read."""

OF_PREDICTION: Final = ("the prediction", "the truth")
"""What messages call predicted labels, and what they are compared with."""


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


@dataclass(frozen=True)
class LabelFolder:
    """A folder of label maps, and the files of each case that may hold its labels."""

    path: Path
    files: Mapping[str, Sequence[Path]]

    @classmethod
    def open(cls, path: Path | str) -> LabelFolder:
        """List the files: see `label_files`."""
        return cls(Path(path), label_files(path))

    def read(self, case: str) -> LabelFile:
        """Read the labels of a case: see `read_only`."""
        if case not in self.files:
            raise ValueError(f"{self.path} holds no file of this name")
        return read_only(self.files[case])


def fitted(found: LabelFile, grid: Grid, names: tuple[str, str]) -> Tensor:
    """Return labels with the axes of a grid, of the truth or of maps: see `align`.

    Raises
    ------
    ValueError
        If the labels do not fit the grid. The message names the file.
    """
    try:
        return align(found.labels, found.grid, grid, names)
    except ValueError as error:
        raise ValueError(f"{names[0]} in {found.path} does not fit {names[1]}: {error}") from None


def pixels_with_data(found: LabelFile, labels: Tensor, num_classes: int) -> Tensor | None:
    """Return which labels of a file are not the value it declares for pixels without data.

    None if all are.
    """
    nodata = found.nodata
    if nodata is None or not (labels == nodata).any():
        return None
    if 0 <= nodata < num_classes:
        warn(
            f"the nodata value {nodata:g} of label maps is a class, and such pixels count; to "
            f"leave them out, set ignore_index (--ignore-index) to {nodata:g}"
        )
        return None
    return labels != nodata


def of_masks(folder: Path | str) -> bool:
    """Return whether the record of a folder says that its files hold a mask for each class."""
    try:
        options = read_json_object(Path(folder, RECORD)).get("options")
    except (OSError, ValueError):  # none, or of another program
        return False
    return isinstance(options, dict) and options.get("output_mode") == "multilabel"


def _refuse_several_masks(path: Path, labels: Tensor) -> None:
    """Refuse masks of several classes; that of one class is a label map of 0 and 1."""
    are_nifti = ending(path) in IN_SPACE
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
    labels = fitted(prediction, truth.grid, OF_PREDICTION)
    return replace(prediction, labels=labels, grid=truth.grid)
