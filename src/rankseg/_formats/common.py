"""What the formats share: stored arrays, arrays that have names, files that cannot be read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.arguments import viewable
from rankseg._common.warn import warn

__all__ = ["LABEL_NAMES", "LOGIT_NAMES", "MAP_NAMES", "HoldsMapsError", "Names", "Stored"]
__all__ += ["as_tensor", "check_room", "colours_of", "in_unit_range", "reading"]

MAP_NAMES = ("probs", "probabilities", "logits")
LOGIT_NAMES = ("logits", "probs", "probabilities")
LABEL_NAMES = ("label", "labels")

DIM = 4096
"""Cameras and scanners of 12 bits give values below this, which are stored in 16 bits."""

UNIT = 1e-3
"""How far from [0, 1] rounding may bring values of an image."""

KINDS = {"d": "a folder", "p": "a FIFO", "s": "a socket", "c": "a device", "b": "a device"}
"""What is no regular file, by the first letter that ``ls -l`` shows."""


class HoldsMapsError(ValueError):
    """A file holds maps of scores where labels are looked for."""


@dataclass(frozen=True, eq=False)
class Stored:
    """An array as it lies in a file.

    Parameters
    ----------
    array : Tensor
        In memory.
    axes : str, optional
        One letter for each axis, as `rankseg._formats.axes` lists them. None if the file does
        not name its axes.
    geometry : object, optional
        Where the pixels lie: the header of a NIfTI file, the place of a TIFF.
    gaps : str
        What the file does not store and is read as a fill value, or nothing.
    colours : dict of int to tuple of int
        The colours of the values that the array holds, by the palette of a picture.
    nodata : float, optional
        The value of pixels without data, if the file declares one.
    """

    array: Tensor
    axes: str | None = None
    geometry: Any = None
    gaps: str = ""
    colours: dict[int, tuple[int, ...]] = field(default_factory=dict)
    nodata: float | None = None


def colours_of(labels: NDArray[Any], palette: NDArray[Any]) -> dict[int, tuple[int, ...]]:
    """Return the colours of the labels that are there, by a palette ``(colours, channels)``."""
    held = np.unique(labels[(labels >= 0) & (labels < len(palette))]).tolist()
    return {index: tuple(palette[index].tolist()) for index in held}


@dataclass(frozen=True)
class Names:
    """Which array of a file that holds several: the one named, else the first of the usual names.

    Parameters
    ----------
    chosen : str or None
        The name that a user gave.
    usual : tuple of str
        What such arrays are called.
    """

    chosen: str | None
    usual: tuple[str, ...]

    def pick(self, held: Sequence[str]) -> str:
        """Return which of the array names ``held`` to read.

        A single array is read whatever its name, unless another name was asked for.
        """
        wanted = self.usual if self.chosen is None else (self.chosen,)
        for name in wanted:
            if name in held:
                return name
        if wanted == LABEL_NAMES and set(held) & set(MAP_NAMES):
            raise HoldsMapsError(f"it holds scores, not labels; the arrays are {list(held)}")
        if self.chosen is None and len(held) == 1:
            return held[0]
        named = " or ".join(map(repr, wanted))
        hint = "" if self.chosen is not None or not held else "; say by key which is meant"
        raise ValueError(f"there is no array {named}; the arrays are {list(held)}{hint}")


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Make a ValueError that names the file of everything that reading it raises.

    What is no regular file is refused before it is opened: a FIFO would wait for ever, and a device
    never end.
    """
    _check_regular(path, folder=kind == ".zarr")
    try:
        yield
    except ImportError:
        raise
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into memory: {error}") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        wrap = HoldsMapsError if isinstance(error, HoldsMapsError) else ValueError
        raise wrap(f"{path} cannot be read as {kind}: {reason}") from error


def _check_regular(path: Path, folder: bool) -> None:
    """Refuse what is neither a regular file nor, if allowed, a folder of them."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no file {path}") from None
    except OSError as error:  # a link to itself, say
        raise ValueError(f"{path} cannot be opened: {error.strerror}") from None
    if folder and stat.S_ISDIR(mode):
        for parent, _, names in os.walk(path):
            for name in names:
                _check_regular(Path(parent, name), folder=True)
    elif not stat.S_ISREG(mode):
        kind = KINDS.get(stat.filemode(mode)[0], "something else")
        raise ValueError(f"{path} must be a regular file, got {kind}")


def check_room(shape: Sequence[int], itemsize: int, stored: float = np.inf) -> None:
    """Refuse an array larger than this machine's memory, or than a file of that size can hold.

    A broken or hostile header may declare any shape, and the system may end a process that fills
    the memory which it was promised.
    """
    needed = itemsize
    for length in shape:
        needed *= int(length)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        memory = 2**63
    if needed > stored:
        raise ValueError(
            f"it declares an array {tuple(shape)}, which is {needed:,} bytes, and is too small to "
            "hold it: it was cut short, or its header is wrong"
        )
    if needed > memory:
        raise ValueError(
            f"it declares an array {tuple(shape)}, which is {needed:,} bytes, more than the memory "
            "of this machine"
        )


def as_tensor(array: NDArray[Any]) -> Tensor:
    """View an array as a tensor, without a copy where torch can; unsigned integers are widened."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"an array must hold numbers, got {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"integers must fit into int64, got {array.max()}")
        array = array.astype(np.int64)
    return torch.from_numpy(viewable(array))


def in_unit_range(pixels: NDArray[Any], bits: int | None = None) -> Tensor:
    """Return pixels of an image as float32; integers are divided by the largest that they can be.

    A warning tells of an image that would be almost black, for the range of its values.

    Raises
    ------
    ValueError
        If values are then not in [0, 1].
    """
    brightest = 1 if pixels.dtype.kind in "fb" else np.iinfo(pixels.dtype).max
    if pixels.dtype.kind == "u" and bits is not None:
        brightest = 2**bits - 1
    if brightest > 2 * DIM and pixels.size and 1 < (most := int(pixels.max())) < DIM:
        warn(
            f"an image of {pixels.dtype} has values of at most {most}, and is divided by "
            f"{brightest}: if its values have 12 bits or fewer, multiply them by {brightest} / "
            f"{2 ** max(8, most.bit_length()) - 1} before"
        )
    scaled = pixels.astype(np.float32) / np.float32(brightest)
    if scaled.size and not (scaled.min() >= -UNIT and scaled.max() <= 1 + UNIT):
        raise ValueError(
            f"an image of {pixels.dtype} must have its values in [0, {brightest}], got "
            f"[{pixels.min()}, {pixels.max()}]: store it as uint8 or uint16, or divided by its "
            "largest possible value"
        )
    return as_tensor(scaled)
