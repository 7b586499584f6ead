"""The rules by which the axes of a stored array are found, the same for every file format.

If a file names its axes, each has a letter: ``c`` class, ``b`` batch, ``t`` time, ``z``, ``y`` and
``x`` space, ``p`` a page or an axis of unknown meaning, ``d`` depth in a TIFF. Some programs also
write ``d`` for classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rankseg._formats.common import Stored

__all__ = ["arrange_image", "arrange_labels", "arrange_maps", "letters", "spatial_axes"]

WORDS = {"c": "class", "b": "batch", "t": "time", "p": "page", "d": "z"}

NAMES = {
    "c": "c ch chan channel channels class classes category categories band bands",
    "b": "b n batch sample samples",
    "t": "t time",
    "z": "z depth slice slices plane planes",
    "y": "y height h row rows lat latitude",
    "x": "x width w col cols column columns lon longitude",
}
"""The words that libraries use for each axis."""

LETTERS = {name: letter for letter, known in NAMES.items() for name in known.split()}
SPATIAL = 3
"""The largest number of spatial axes of an image."""

SAMPLES = 64
"""Pixels whose probabilities are added up, so that the check needs no pass over the map."""

FEWEST = 16
"""Least number of pixels for a check of a spatial axis: fewer can sum to 1 by accident."""

ROUNDING = 0.02
"""How far from 1 a sum may be: probabilities of few bits round."""


def letters(names: Sequence[object]) -> str | None:
    """Return the letter of each axis that is named by a word, or None if no word is known."""
    found = [LETTERS.get(str(name).lower().rstrip("_0123456789"), "p") for name in names]
    return None if set(found) <= {"p"} else "".join(found)


def arrange_maps(stored: Stored, one_class: bool = True) -> tuple[Tensor, str]:
    """Return maps with the axes ``(classes, *spatial)``, and the letters of the spatial axes.

    There are no letters if the file does not name its axes. ``one_class`` is True if the maps may
    have a single class.

    Raises
    ------
    ValueError
        If the maps are not floating or lack an axis, if an axis of time or of a batch is longer
        than 1, or if the axes can be read in two ways.
    """
    maps = stored.array
    if not maps.is_floating_point() or maps.ndim < 2 or 0 in maps.shape:
        raise ValueError(
            "maps must be floating (classes, *spatial), none of them empty, got "
            f"{maps.dtype} {tuple(maps.shape)}"
        )
    maps, axes = (
        (_without_batch(maps, one_class), "")
        if stored.axes is None
        else _class_first(*_squeezed(stored, "btpd"))
    )
    _check_sums(maps)
    if stored.axes is None and stored.array.ndim == SPATIAL + 1:
        _tell_of_one_class(maps)
    if stored.gaps:
        _check_gaps(maps, stored.gaps)
    if maps.ndim > SPATIAL + 1 and not _sums_to_one(maps, 0):
        raise ValueError(
            f"maps must be (classes, *spatial) with up to three spatial axes, got "
            f"{tuple(maps.shape)}: if axis 0 is a batch, write one file for each image"
        )
    return maps, _spatial(axes)


def arrange_labels(stored: Stored) -> Tensor:
    """Return labels with the spatial axes of the file.

    Raises
    ------
    ValueError
        If an axis of classes, time or batch is longer than 1.
    """
    if stored.axes is None:
        return stored.array
    labels, axes = _squeezed(stored, "cbtpd")
    if "c" in axes:
        raise ValueError(
            f"labels must have one value for each pixel, got {_described(labels, axes)}: colours "
            "and scores of classes are no labels"
        )
    _refuse_several(labels, axes)
    return labels


def spatial_axes(stored: Stored) -> str:
    """Return the letters of the axes of arranged labels, or ``""`` if they are not known.

    Pages are taken as slices, ``z``.
    """
    named = zip(stored.axes or "", stored.array.shape, strict=False)
    return _spatial("".join(axis for axis, length in named if length > 1 or axis in "xyz"))


def _spatial(axes: str) -> str:
    """Return the letters of spatial axes, or ``""`` if they are not known; pages are slices."""
    axes = axes.replace("p", "z").replace("d", "z")
    return axes if len(set(axes)) == len(axes) and set(axes) <= set("xyz") else ""


def arrange_image(stored: Stored) -> Tensor:
    """Return an image with the axes ``(channels, height, width)``."""
    image, axes = _squeezed(stored, "cbtpd")
    if axes == "yx":
        return image[None]
    if sorted(axes) != ["c", "x", "y"]:
        raise ValueError(
            f"an image must have height, width and colours, got {_described(image, axes)}: write "
            "one file for each image, with its colours as samples"
        )
    return image.movedim(axes.index("c"), 0)


def _squeezed(stored: Stored, droppable: str) -> tuple[Tensor, str]:
    """Leave out the axes of length 1 that are ``droppable``; return the array and its axes."""
    array, axes = stored.array, stored.axes or ""
    if len(axes) != array.ndim:
        raise ValueError(
            f"it names {len(axes)} axes, but the array has {array.ndim}: {tuple(array.shape)}"
        )
    kept = [at for at, name in enumerate(axes) if array.shape[at] > 1 or name not in droppable]
    return array.reshape([array.shape[at] for at in kept]), "".join(axes[at] for at in kept)


def _class_first(maps: Tensor, axes: str) -> tuple[Tensor, str]:
    """Move the class axis to the front: the axis so named, else the axis that sums to 1.

    Returns the maps and the letters of the other axes.
    """
    _refuse_several(maps, axes)
    named = [at for at, name in enumerate(axes) if name == "c"]
    unsure = [at for at, name in enumerate(axes) if name in "pd"]
    summing = [at for at in unsure if _sums_to_one(maps, at)]
    if not named and not unsure:
        return maps[None], axes
    if not named:
        named = summing or [at for at in unsure if len(unsure) == 1 and axes[at] == "p"]
    if len(named) != 1:
        raise ValueError(
            f"its axes are {_described(maps, axes)}, and more than one could be that of classes, "
            "the other that of depth: name them when the file is written, say by "
            "tifffile.imwrite(path, maps, metadata={'axes': 'CZYX'}) or as dimension names of zarr"
        )
    return maps.movedim(named[0], 0), axes[: named[0]] + axes[named[0] + 1 :]


def _without_batch(maps: Tensor, one_class: bool) -> Tensor:
    """Leave out a first axis of length 1 if it is a batch axis; keep it if it is the class axis.

    With up to three axes it is the class axis, and with more than four a batch axis. ``(1, n,
    height, width)`` is one class of a volume of ``n`` slices, or a batch of one image with ``n``
    classes. It is a batch if ``n`` is 1, if axis 1 sums to 1, or if ``one_class`` is False.
    """
    while maps.ndim > SPATIAL + 1 and maps.shape[0] == 1:
        maps = maps[0]
        if maps.ndim == SPATIAL + 1:
            return maps
    if maps.ndim <= SPATIAL or maps.shape[0] > 1:
        return maps
    if maps.shape[1] == 1 or not one_class or _sums_to_one(maps, 1):
        return maps[0]
    return maps


def _tell_of_one_class(maps: Tensor) -> None:
    """Warn if maps are read as one class of a volume, but its depth is unlikely."""
    if maps.ndim != SPATIAL + 1 or maps.shape[0] > 1:
        return
    if not min(maps.shape[2:]) <= maps.shape[1] <= 2 * max(maps.shape[2:]):
        warnings.warn(
            f"maps of the shape {tuple(maps.shape)} are read as one class of a volume "
            f"{tuple(maps.shape[1:])}, since axis 1 does not sum to 1. If axis 0 is a batch and "
            "axis 1 holds classes, store maps[0]; if not, store maps[None] to say so.",
            UserWarning,
            stacklevel=2,
        )


def _check_sums(maps: Tensor) -> None:
    """Raise if axis 0 does not sum to 1 but another axis does."""
    if _sums_to_one(maps, 0):
        return
    for axis in range(1, maps.ndim):
        if _sums_to_one(maps, axis):
            batch = "axis 0 is a batch: write one file for each image; or " if axis == 1 else ""
            raise ValueError(
                f"axes must be (classes, *spatial), but of {tuple(maps.shape)} axis {axis} sums "
                f"to 1 and axis 0 does not. Perhaps {batch}the classes are not first: store "
                f"np.moveaxis(maps, {axis}, 0)"
            )


def _check_gaps(maps: Tensor, gaps: str) -> None:
    """Warn that a Zarr file lacks chunks whose values were hardly all zero.

    Zarr does not store a chunk of zeros, so a missing chunk is fine if zeros are plausible. They
    are not for logits. For probabilities that sum to 1 over the classes they are plausible only as
    padding. ``gaps`` says how many chunks are missing.
    """
    some = (maps != 0).any(0)
    sums = maps.sum(0, dtype=torch.float64)[some]
    padded = len(maps) > 1 and len(sums) < some.numel() and ((sums - 1).abs() <= ROUNDING).all()
    if padded or maps.min() < 0 or maps.max() > 1:
        warnings.warn(
            f"{gaps} are not stored, and are read as their fill value. If they are no padding, the "
            "file is incomplete: copy or write it again",
            UserWarning,
            stacklevel=2,
        )


def _sums_to_one(maps: Tensor, axis: int) -> bool:
    """Return whether, at a sample of pixels, an axis holds probabilities that sum to 1."""
    rows = maps.movedim(axis, -1)
    pixels = rows.shape[:-1].numel()
    if rows.shape[-1] < 2 or (axis > 0 and pixels < FEWEST):
        return False
    sampled = np.linspace(0, pixels - 1, min(pixels, SAMPLES)).astype(np.int64)
    values = rows[np.unravel_index(sampled, rows.shape[:-1])].double()
    if not (values >= 0).all() or (values.amax(-1) - values.amin(-1)).max() < ROUNDING:
        return False  # all values equal: they might sum to 1 along any axis
    return bool(((values.sum(-1) - 1).abs() <= ROUNDING).all())


def _refuse_several(array: Tensor, axes: str) -> None:
    for name, one in (("t", "point in time"), ("b", "image")):
        if name in axes:
            raise ValueError(
                f"its axes are {_described(array, axes)}: write one file for each {one}"
            )


def _described(array: Tensor, axes: str) -> str:
    """Return the names and the lengths of the axes, for a message."""
    named = zip(axes, array.shape, strict=True)
    return f"({', '.join(f'{WORDS.get(name, name)} {length}' for name, length in named)})"
