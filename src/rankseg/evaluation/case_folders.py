"""Folders of labelled probability maps."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankseg._common.arguments import distinct_names
from rankseg._common.public import public
from rankseg._decision.prior_correction import prior_correction
from rankseg._files.folders import file_of, files_of, stem
from rankseg._formats.arrays import refuse_appended
from rankseg._formats.common import as_tensor
from rankseg.evaluation.labelled_cases import (
    IGNORE_INDEX,
    Case,
    Failure,
    IgnoreIndex,
    ignored_label,
    mask_as_classes,
)
from rankseg.evaluation.meta import META, read_meta

__all__ = ["CaseFolder", "read_case"]


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
        classes, index, weights = read_meta(path / META)
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
