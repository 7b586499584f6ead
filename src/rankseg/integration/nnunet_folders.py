"""What ``nnUNetv2_predict --save_probabilities`` wrote: maps, labels, and where voxels lie."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankseg._common.arguments import integer
from rankseg._common.public import public
from rankseg._files.batch import reason_of
from rankseg._formats.arrays import refuse_appended
from rankseg.integration._nnunet_geometry import Geometry, read_object

__all__ = [
    "DATASET",
    "ClassMaps",
    "Labels",
    "holds_probabilities",
    "read_case",
    "read_probabilities",
]

KEY = "probabilities"
DATASET = "dataset.json"
LARGEST_LABEL = 65535

PIECE = 1 << 18
"""Probabilities decompressed at a time."""

MOST_PER_BYTE = 1032
"""The bytes that one byte of a compressed file can stand for: the most of Deflate."""


@public("rankseg.integration.nnunet")
@dataclass(frozen=True)
class ClassMaps:
    """The maps of a case, one class at a time; of several files, their average.

    Iterating gives float32 arrays ``(z, y, x)``. A file is decompressed as it is read, so that one
    map is in memory, however many classes and files there are. The average is rounded as that of
    nnU-Net is: a sum in float32, divided by the number of files.

    Parameters
    ----------
    files : tuple of Path
        npz files with the array ``probabilities``, floating ``(classes, z, y, x)``.
    shape : tuple of int
        That of all of them.

    Examples
    --------
    >>> from rankseg.integration.nnunet import ClassMaps
    >>> maps = ClassMaps.open("fold_0/case.npz", "fold_1/case.npz")  # doctest: +SKIP
    >>> volumes = [float(probs.sum()) for probs in maps]  # doctest: +SKIP
    """

    files: tuple[Path, ...]
    shape: tuple[int, ...]

    @classmethod
    def open(cls, *files: str | PathLike[str]) -> ClassMaps:
        """Look at the shapes, and at nothing else yet.

        Raises
        ------
        ValueError
            If a file cannot be read, lacks the array, or the arrays are not alike.
        """
        shapes = {}
        for file in map(Path, files):
            with _member(file) as member:
                shapes[file] = member.shape
        if len(set(shapes.values())) != 1:
            listed = ", ".join(f"{shape} in {file.parent}" for file, shape in shapes.items())
            raise ValueError(f"the probabilities to average must be alike in shape, got {listed}")
        return cls(tuple(shapes), next(iter(shapes.values())))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        with contextlib.ExitStack() as stack:
            members = [stack.enter_context(_member(file)) for file in self.files]
            for _ in range(len(self)):
                total = np.zeros(self.shape[1:], np.float32)
                with np.errstate(
                    invalid="ignore", over="ignore"
                ):  # a spoilt file is reported later
                    for member in members:
                        member.add_next(total)
                if len(members) > 1:
                    total /= len(members)
                yield total


def holds_probabilities(file: Path) -> bool:
    """Return whether an npz file is one of nnU-Net's, by the name of its array."""
    try:
        with zipfile.ZipFile(file) as archive:
            return f"{KEY}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):  # it is named where its maps are read
        return False


def read_case(file: Path) -> tuple[NDArray[np.float32], Any]:
    """Return the maps of a case ``(classes, x, y, z)``, and their NIfTI header with the affine.

    The axes are those of nnU-Net's own label map.

    Raises
    ------
    ValueError
        If the maps or the file that says where their voxels lie cannot be read, or do not fit.
    """
    maps = ClassMaps.open(file)
    geometry = Geometry.read(file.stem, [file.parent], maps.shape[1:])
    return _gathered(map(geometry.voxels, maps), (len(maps), *geometry.size)), geometry.header


def read_probabilities(file: Path) -> NDArray[np.float32]:
    """Return the maps of a case with the axes stored, ``(classes, z, y, x)``."""
    maps = ClassMaps.open(file)
    return _gathered(maps, maps.shape)


def _gathered(maps: Iterable[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return maps as one array; a list of them would take the memory twice."""
    array = np.empty(shape, np.float32)
    for channel, probs in enumerate(maps):
        array[channel] = probs
    return array


@dataclass(frozen=True)
class Labels:
    """What the channels stand for: labels in order, or regions by the label they are painted in."""

    by_channel: tuple[int, ...]
    regions: bool
    named: tuple[tuple[str, tuple[Any, ...]], ...]
    """The name of every label or region, with its labels: of regions in their order."""

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Labels:
        """Read ``dataset.json`` of every folder; all must say the same."""
        found = {folder: cls.parse(folder / DATASET) for folder in folders}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{dict(labels.named)} in {path}" for path, labels in found.items())
            raise ValueError(f"folders must be of the same labels, got {listed}")
        return found[folders[0]]

    @classmethod
    def parse(cls, path: Path) -> Labels:
        """Read one ``dataset.json``."""
        dataset = read_object(path)
        try:
            named = {
                name: tuple(value) if isinstance(value, list) else (value,)
                for name, value in dataset["labels"].items()
                if name != "ignore"
            }
            if not named:
                raise ValueError("it names no label")
            regions = any(len(value) > 1 for value in named.values())
            if regions:
                order = tuple(map(_label, dataset["regions_class_order"]))
            else:
                order = tuple(sorted({_label(value) for (value,) in named.values()}))
            number = sum(set(value) != {0} for value in named.values())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} does not describe labels: {error!r}") from error
        if regions and len(order) != number:
            raise ValueError(
                f"'regions_class_order' in {path} must have a label for each of the {number} "
                f"regions, got {list(order)}"
            )
        pairs = named.items()
        return cls(order, regions, tuple(pairs if regions else sorted(pairs, key=itemgetter(1))))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The dtype in which nnU-Net writes them."""
        return np.uint8 if max(self.by_channel) < 255 else np.uint16


def _label(value: object) -> int:
    """Return a label that nnU-Net can write."""
    label = integer("every label", value)
    if not 0 <= label <= LARGEST_LABEL:
        raise ValueError(f"every label must lie in [0, {LARGEST_LABEL}], got {label}")
    return label


@dataclass(frozen=True)
class _Member:
    """The array inside an npz file, while it is open."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]

    def add_next(self, total: NDArray[np.float32]) -> None:
        """Add the map of the next class to others, piece by piece."""
        own = total if self.order == "C" else np.zeros_like(total, order="F")
        flat = own.reshape(-1, order=self.order)
        for start in range(0, flat.size, PIECE):
            part = flat[start : start + PIECE]
            content = self.stream.read(part.size * self.dtype.itemsize)
            if len(content) < part.size * self.dtype.itemsize:
                raise ValueError("the file of probabilities ends too early")
            part += np.frombuffer(content, self.dtype).astype(np.float32, copy=False)
        if own is not total:
            total += own


@contextlib.contextmanager
def _member(file: Path) -> Iterator[_Member]:
    """Open the array of an npz file; every way in which that fails is a ValueError."""
    with contextlib.ExitStack() as stack:
        try:
            if not file.is_file():
                raise ValueError("it is no regular file")
            refuse_appended(file)
            archive = stack.enter_context(zipfile.ZipFile(file))
            if f"{KEY}.npy" not in archive.namelist():
                raise ValueError(f"it lacks the array {KEY!r}, and holds {archive.namelist()}")
            stream = stack.enter_context(archive.open(f"{KEY}.npy"))
            shape, transposed, dtype = _read_header(stream)
        except Exception as error:  # a broken file may raise anything
            reason = reason_of(error)
            raise ValueError(f"{file} cannot be read as probabilities: {reason}") from error
        if dtype.kind != "f" or len(shape) != 4 or min(shape) < 1:
            raise ValueError(
                f"{KEY!r} in {file} must be floating (classes, z, y, x), none of them empty, got "
                f"{dtype} {shape}"
            )
        if transposed and shape[0] > 1:
            raise ValueError(f"{KEY!r} in {file} must be in C order, one class after the other")
        size = math.prod(shape) * dtype.itemsize
        if size > min(
            archive.getinfo(f"{KEY}.npy").file_size, MOST_PER_BYTE * os.path.getsize(file)
        ):
            raise ValueError(f"{file} is too small for {KEY!r} of {dtype} {shape}: it is damaged")
        yield _Member(stream, shape, "F" if transposed else "C", dtype)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"its npy format {version} is not known")
    return read[version](stream)
