"""Labelled probability maps, one image at a time, and folders of them."""

from __future__ import annotations

import math
import os
import reprlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.arguments import (
    describe,
    distinct_names,
    integer,
    is_blank,
    nearest,
    number,
    shown,
)
from rankseg._common.public import public
from rankseg._decision.prior_correction import prior_correction
from rankseg._files.folders import file_of, files_of, stem
from rankseg._files.small import read_json_object, read_rows
from rankseg._formats.arrays import refuse_appended
from rankseg._formats.common import as_tensor

__all__ = [
    "Case",
    "CaseFolder",
    "Failure",
    "checked_cases",
    "clusters_of",
    "ignored_label",
    "mask_as_classes",
    "read_case",
    "read_clusters",
    "read_image_labels",
    "reasons",
]

META: Final = "meta.json"

META_KEYS: Final = ("classes", "ignore_index", "class_weights")
COUNTS_OF_CLASSES: Final = ("num_classes", "n_classes")
"""Keys of other programs, which look like ours and are not."""

IGNORE_INDEX: Final = 255
"""The label of pixels to be ignored, where ``meta.json`` does not say another."""

IgnoreIndex: TypeAlias = int | Literal["default"] | None

MASK_VALUE: Final = 255
"""The foreground of masks as image editors and many data sets store them."""


@public("rankseg.evaluation")
@dataclass(frozen=True, eq=False)
class Case:
    """One image: the maps a network gave for it, and the truth.

    Parameters
    ----------
    name : str
        What results are reported under.
    probs : Tensor
        Floating (classes, *spatial), at least one spatial axis. One class is foreground against
        background.
    label : Tensor
        Integer (*spatial): the class of every pixel, or the index to be ignored. With one class,
        1 is foreground and 0 background.

    Raises
    ------
    TypeError
        If ``probs`` is not floating or ``label`` not an integer tensor.
    ValueError
        If an axis is missing or empty, or the spatial shapes differ.
    """

    name: str
    probs: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        if not self.probs.is_floating_point():
            raise TypeError(f"probs must be floating, got {self.probs.dtype}")
        if self.label.is_floating_point() or self.label.dtype == torch.bool:
            raise TypeError(f"label must hold integers, got {self.label.dtype}")
        shape = tuple(self.probs.shape)
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"probs must have the axes (classes, *spatial), none of them empty, got {shape}"
            )
        if tuple(self.label.shape) != shape[1:]:
            raise ValueError(
                f"label must have the spatial shape of probs, {shape[1:]}, "
                f"got {tuple(self.label.shape)}"
            )


@public("rankseg.evaluation")
@dataclass(frozen=True)
class Failure:
    """A case that could not be compared, and why."""

    name: str
    reason: str


def reasons(failures: Sequence[Failure]) -> str:
    """Return a line for every failure, each after a line break, to stand behind an error."""
    return "".join(f"\n  {failure.name}: {failure.reason}" for failure in failures)


def ignored_label(ignore_index: object, num_classes: int) -> int | None:
    """Return the label of pixels that do not count, of ``'default'`` 255 unless that is a class."""
    if ignore_index != "default":
        return None if ignore_index is None else integer("ignore_index", ignore_index)
    if num_classes > IGNORE_INDEX:
        raise ValueError(
            f"ignore_index must be given for {num_classes} classes: by default pixels of label "
            f"{IGNORE_INDEX} do not count, which is a class here. Set ignore_index "
            "(--ignore-index) to the label of void pixels, or to None (none)"
        )
    return IGNORE_INDEX


def mask_as_classes(labels: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return the labels of a binary mask stored as 0 and 255, with 1 in place of 255.

    Labels are such a mask if all values are 0 or 255, there is one class or two, and
    ``ignore_index`` is None. Then 255 cannot mean void. Any other labels are returned unchanged.
    """
    if num_classes > 2 or ignore_index is not None:
        return labels
    foreground = labels == MASK_VALUE
    if not foreground.any() or not (foreground | (labels == 0)).all():
        return labels
    return labels.masked_fill(foreground, 1)


def read_case(path: Path | str, *, labelled: bool = True) -> Case:
    """Read one ``ID.npz`` with the arrays ``probs`` and ``label``; other arrays are left alone.

    Parameters
    ----------
    path : path
        ``probs`` is floating (classes, *spatial), ``label`` integer or bool (*spatial).
    labelled : bool
        Whether to read the label; else it is 0 everywhere.

    Returns
    -------
    Case
        Named after the file; the maps in the dtype stored.

    Raises
    ------
    ValueError
        If the file cannot be read, an array is missing, or dtypes or shapes do not fit.
    """
    path = Path(path)
    try:
        keys = ("probs", "label") if labelled else ("probs",)
        probs, *rest = _read_arrays(path, keys)
        label = rest[0] if labelled else np.zeros(probs.shape[1:], np.uint8)
        if label.dtype == np.bool_:
            label = label.astype(np.uint8)
        if probs.dtype.kind != "f" or label.dtype.kind not in "iu":
            raise ValueError(
                f"probs must be floating and label integer, got {probs.dtype} and {label.dtype}"
            )
        probs = np.ascontiguousarray(probs, dtype=probs.dtype.newbyteorder("="))
        return Case(path.stem, torch.from_numpy(probs), as_tensor(label).long())
    except TypeError as error:  # a long double, say
        raise ValueError(str(error)) from error


def _read_arrays(path: Path, keys: Sequence[str]) -> list[NDArray[Any]]:
    """Read the arrays of an npz file; every way in which that fails is a ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("must be a regular file, and is not")  # a pipe would never end
    try:
        refuse_appended(path)
        with zipfile.ZipFile(path) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
        missing = [key for key in keys if key not in held]
        arrays = []
        if not missing:
            with np.load(path) as file:
                arrays = [file[key] for key in keys]
    except Exception as error:  # a broken file raises anything, a MemoryError among others
        reason = str(error) or type(error).__name__
        raise ValueError(f"cannot be read as an npz file: {reason}") from error
    if missing:
        raise ValueError(f"lacks {' and '.join(missing)}; the arrays it holds are {held}")
    return arrays


def _read_class_count(path: Path) -> int:
    """Return how many classes the map in an npz file has; 0 if its header cannot be read."""
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as archive, archive.open("probs.npy") as file:
                if np.lib.format.read_magic(file) == (1, 0):
                    shape, _, _ = np.lib.format.read_array_header_1_0(file)
                    return shape[0] if len(shape) > 1 else 0
    except Exception:  # a broken file raises anything; it is named where the map is read
        pass
    return 0


def checked_cases(cases: Iterable[Case | Failure]) -> Iterator[Case | Failure]:
    """Yield the cases one by one; raise TypeError for an item that is no case or failure."""
    kind = "rankseg.evaluation.Case(name, probs, label)"
    if not isinstance(cases, Iterable):
        raise TypeError(f"cases must be an iterable of {kind}, got {describe(cases)}")
    for case in cases:
        if not isinstance(case, Case | Failure):
            raise TypeError(f"every case must be {kind}, got {describe(case)}")
        yield case


@public("rankseg.evaluation")
@dataclass(frozen=True)
class CaseFolder:
    """A folder of ``ID.npz`` files, read one at a time while it is iterated over.

    Parameters
    ----------
    path : Path
        The folder.
    names : tuple of str
        The IDs, sorted.
    classes : tuple of str or None
        From ``meta.json``; None if it does not name them.
    ignore_index : int or None
        From ``meta.json``, where null means that every pixel counts; 255 if there is no entry.
    class_weights : tuple of float or None
        From ``meta.json``: the weights of the loss that the network was trained with.
    prior_correction : bool
        Whether the effect of these weights is removed from the maps that are read, by
        `rankseg.calibration.prior_correction`.

    Raises
    ------
    ValueError
        If ``prior_correction`` is True and there are no class weights.
    """

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    ignore_index: int | None = IGNORE_INDEX
    class_weights: tuple[float, ...] | None = None
    prior_correction: bool = False

    def __post_init__(self) -> None:
        if self.prior_correction and self.class_weights is None:
            raise ValueError(
                f"prior_correction needs class_weights, of which {self.path / META} says nothing"
            )

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        prior_correction: bool = False,
        ignore_index: IgnoreIndex = "default",
    ) -> CaseFolder:
        """Open a folder: list its files and read ``meta.json``, if there is one, but no map.

        The default of ``ignore_index`` is the entry in ``meta.json``, or 255 without an entry.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or no npz file in it.
        ValueError
            If ``meta.json`` is not valid or lacks an entry that is needed, or if 255 is a class and
            no ignored label is given.
        OSError
            If ``meta.json`` cannot be read.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        names = sorted(map(stem, files_of(path, [".npz"])))
        if not names:
            raise FileNotFoundError(f"{path} holds no npz file")
        distinct_names(f"npz files in {path}", names)
        classes, index, weights = _read_meta(path / META)
        heads = (_read_class_count(file_of(path, name, ".npz")) for name in names)
        num_classes = len(classes or ()) or next(filter(None, heads), 0)
        index = ignored_label(index if ignore_index == "default" else ignore_index, num_classes)
        return cls(path, tuple(names), classes, index, weights, prior_correction=prior_correction)

    def name_classes(self) -> tuple[str, ...]:
        """Return the class names: by default ``class 0`` and so on, as many as most maps have.

        Only the headers of the files are read. Without a map there is no name.
        """
        if self.classes is not None:
            return self.classes
        counts = Counter(_read_class_count(file_of(self.path, name, ".npz")) for name in self.names)
        del counts[0]
        most = max(counts, key=counts.__getitem__, default=0)
        return tuple(f"class {i}" for i in range(most))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Case | Failure]:
        for name in self.names:
            try:
                yield self.read(name)
            except ValueError as error:
                yield Failure(name, str(error))

    def without_labels(self) -> Iterator[Case | Failure]:
        """Yield the cases of files that need not hold a label; the label is 0 everywhere."""
        for name in self.names:
            try:
                yield self.read(name, labelled=False)
            except ValueError as error:
                yield Failure(name, str(error))

    def read(self, name: str, *, labelled: bool = True) -> Case:
        """Read the case of one ID.

        With two classes or one channel, a mask of 0 and 255 is read as one of 0 and 1 if
        ``ignore_index`` is None. Errors are those of `read_case` and of
        `rankseg.calibration.prior_correction`; maps that are corrected are float32 or wider.
        """
        case = read_case(file_of(self.path, name, ".npz"), labelled=labelled)
        label = mask_as_classes(case.label, len(case.probs), self.ignore_index)
        case = replace(case, label=label)
        if self.class_weights is None or not self.prior_correction:
            return case
        # Half precision would lose what division by a large weight makes small.
        probs = case.probs.to(torch.promote_types(case.probs.dtype, torch.float32))
        return replace(case, probs=prior_correction(probs[None], self.class_weights)[0])


def _read_meta(path: Path) -> tuple[tuple[str, ...] | None, IgnoreIndex, tuple[float, ...] | None]:
    """Return the class names, if any, the index to be ignored, and the class weights, if any."""
    if not os.path.lexists(path):
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


def _check_weights(weights: object, classes: Sequence[str] | None, path: Path) -> tuple[float, ...]:
    if not isinstance(weights, list) or len(weights) != len(classes or weights):
        raise ValueError(f"'class_weights' in {path} must be a list with one weight for each class")
    name = f"every entry of 'class_weights' in {path}"
    try:
        return tuple(number(name, weight, 0.0, math.inf) for weight in weights)
    except TypeError as error:
        raise ValueError(str(error)) from error


def read_clusters(path: Path | str) -> dict[str, str]:
    """Read which patient or sequence every case belongs to: a CSV of case and cluster.

    Two columns; a first row of ``case`` and something else is a heading.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no CSV in UTF-8, a row has another number of columns or a blank cell
        (``nan``, ``NA`` and ``None`` are blank, too), or a case is named twice.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"there is no file {path} of cases and their clusters")
    rows = read_rows(Path(path))
    if rows and rows[0][0].lower() == "case":
        del rows[0]
    clusters: dict[str, str] = {}
    for row in rows:
        if len(row) != 2:
            raise ValueError(
                f"every row of {path} must be a case and its cluster, got {reprlib.repr(row)}"
            )
        if not row[0] or is_blank(row[1]):
            raise ValueError(
                f"every row of {path} must be a case and its cluster, got a blank cell in "
                f"{reprlib.repr(row)}: "
                "give a case that shares its patient with no other a cluster of its own"
            )
        case, cluster = row
        if case in clusters:
            raise ValueError(f"{path} names the case {reprlib.repr(case)} twice")
        clusters[case] = cluster
    return clusters


def read_image_labels(path: Path | str, classes: Sequence[str]) -> dict[str, list[int]]:
    """Read which classes images hold: a CSV of a case and its classes, by name or number.

    As many columns as there are classes to name; a first row of ``case`` and something else is a
    heading. If the heading names a class, or all cells below several names are 0 or 1, there is a
    column for each class: 1 where the image holds the class of the column, and 0 where not. With
    one class, an image holds it if the row names it, or 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no CSV in UTF-8, names an unknown class, names a case twice, or has columns
        of 0 and 1 that are not those of all classes.
    """
    rows = read_rows(Path(path))
    heading = rows.pop(0)[1:] if rows and rows[0][0].lower() == "case" else []
    first = 1 if len(classes) == 1 else 0
    known = {str(index): index for index in range(max(2, len(classes)))}
    known |= {name: index for index, name in enumerate(classes, first)}
    held: dict[str, list[int]] = {}
    marks = _are_marks(heading, rows, classes)
    if marks:
        _check_marks(path, heading, rows, {known[name]: name for name in classes}, known)
    for case, *named in rows:
        if case in held:
            raise ValueError(f"{path} names the case {reprlib.repr(case)} twice")
        if marks:
            named = [name for name, cell in zip(heading, named, strict=True) if cell == "1"]
        unknown = [name for name in named if name and name not in known]
        if unknown:
            raise ValueError(
                f"{path} must name classes in {list(classes)} or their numbers, got "
                f"{unknown[:3]} for {reprlib.repr(case)}"
            )
        held[case] = [known[name] for name in named if name]
    return held


def _are_marks(
    heading: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str]
) -> bool:
    """Tell whether columns are those of classes, so that cells of 0 and 1 are no class numbers."""
    names = {name.casefold() for name in classes}
    if any(column.casefold() in names for column in heading):
        return True
    return len(heading) > 1 and {cell for row in rows for cell in row[1:]} <= {"0", "1"}


def _check_marks(
    path: Path | str,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Mapping[int, str],
    known: Mapping[str, int],
) -> None:
    """Refuse columns of 0 and 1 that are not those of all classes, once each."""
    columns = [known.get(name) for name in heading]
    missing = [name for index, name in names.items() if index not in columns]
    if missing or len(columns) > len(names):
        add = f"; add one for each of {missing}" if missing else ""
        ones = "" if 0 in columns or 0 not in names else ", of 1 wherever a pixel is background"
        raise ValueError(
            f"{path} must have a column of 0 and 1 for each class in {list(names.values())}, got "
            f"{list(heading)}{add}{ones}"
        )
    if not all(set(row[1:]) <= {"0", "1"} and len(row) == len(heading) + 1 for row in rows):
        raise ValueError(f"{path} has a column for each class: every cell must be 0 or 1")


def clusters_of(cases: Sequence[str], clusters: Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Return the cluster of every case; None if there are no clusters.

    Raises
    ------
    ValueError
        If a case has none.
    """
    if clusters is None:
        return None
    missing = {case: clusters.get(case) for case in cases if is_blank(clusters.get(case))}
    if missing:
        held = f", of which {missing} are blank" if set(missing) & set(clusters) else ""
        raise ValueError(
            f"clusters must have an entry for every case, got none for {list(missing)}{held}"
        )
    return tuple(clusters[case] for case in cases)
