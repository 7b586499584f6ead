"""What JSON files say of classes: ``meta.json`` beside maps, and nnU-Net's ``dataset.json``."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rankseg._common.arguments import distinct_names, integer, nearest, number, shown
from rankseg._files.small import read_json_object
from rankseg.evaluation.labelled_cases import IgnoreIndex
from rankseg.integration.nnunet_folders import DATASET, Labels

__all__ = ["META", "read_dataset", "read_meta"]

META: Final = "meta.json"

META_KEYS: Final = ("classes", "ignore_index", "class_weights")
COUNTS_OF_CLASSES: Final = ("num_classes", "n_classes")
"""Keys of other programs, which look like ours and are not."""


def read_meta(path: Path) -> tuple[tuple[str, ...] | None, IgnoreIndex, tuple[float, ...] | None]:
    """Return the class names, if any, the index to be ignored, and the class weights, if any."""
    if not os.path.lexists(path):
        if path.parent.is_dir():  # the maps may be one file
            _refuse_other_cases(path)
        return None, "default", None
    meta = read_json_object(path)
    for key in set(meta) - {*META_KEYS, *COUNTS_OF_CLASSES}:
        near = nearest(key.lower(), META_KEYS)
        if near is not None and near not in meta:  # beside the right key it is another note
            raise ValueError(
                f"{path} must have the keys {list(META_KEYS)}, got {shown(key)}; did you mean "
                f"{near!r}?"
            )
    classes, ignore_index = meta.get("classes"), meta.get("ignore_index", "default")
    names_fit = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (names_fit and classes):
        raise ValueError(
            f"'classes' in {path} must be a list of names, got {reprlib.repr(classes)}"
        )
    distinct_names(f"'classes' in {path}", classes or ())
    if "ignore_index" in meta and ignore_index is not None:
        try:
            ignore_index = integer(f"'ignore_index' in {path}", ignore_index)
        except TypeError as error:
            raise ValueError(
                f"'ignore_index' in {path} must be an integer or null, got "
                f"{reprlib.repr(ignore_index)}"
            ) from error
    weights = meta.get("class_weights")
    return (
        None if classes is None else tuple(classes),
        ignore_index,
        None if weights is None else _check_weights(weights, classes, path),
    )


def _refuse_other_cases(path: Path) -> None:
    """Refuse a file whose name differs from the expected one by upper and lower case only."""
    folder = path.parent
    near = [name for name in os.listdir(folder) if name.lower() == path.name]
    if near:
        raise ValueError(f"{folder / near[0]} must be called {path.name} to be read: rename it")


def _check_weights(weights: object, classes: Sequence[str] | None, path: Path) -> tuple[float, ...]:
    if not isinstance(weights, list) or len(weights) != len(classes or weights):
        raise ValueError(f"'class_weights' in {path} must be a list with one weight for each class")
    name = f"every entry of 'class_weights' in {path}"
    try:
        return tuple(number(name, weight, 0.0, math.inf) for weight in weights)
    except TypeError as error:
        raise ValueError(str(error)) from error


def read_dataset(folders: Sequence[Path]) -> tuple[tuple[str, ...] | None, IgnoreIndex]:
    """Return the class names and the label to be ignored, by the first ``dataset.json`` there is.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file does not describe labels, if they are regions, or not numbered from 0.
    """
    path = next((folder / DATASET for folder in folders if (folder / DATASET).is_file()), None)
    if path is None:
        return None, "default"
    labels = Labels.parse(path)
    if labels.regions:
        raise ValueError(
            f"{path} describes regions, which may overlap, where maps of classes are needed: "
            "decide them by rankseg nnunet, and score the label maps by rankseg evaluate"
        )
    names = tuple(name for name, _ in labels.named)
    if labels.by_channel != tuple(range(len(names))):
        raise ValueError(
            f"the labels in {path} must be numbered from 0 without gaps, got {dict(labels.named)}"
        )
    ignored = read_json_object(path)["labels"].get("ignore")
    return names, "default" if ignored is None else integer(f"'ignore' in {path}", ignored)
