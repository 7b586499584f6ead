"""PNG and TIFF."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankseg._colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR
from rankseg._files import write_whole
from rankseg._formats._common import Names, as_tensor
from rankseg.integration._common import require

__all__ = [
    "Place",
    "read_label_tiff",
    "read_picture",
    "read_png",
    "read_tiff",
    "write_png",
    "write_tiff",
]

VOID = 255

GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
"""TIFF tags that say where pixels are: scale, tie points, transformation and GeoKeys."""

GREY = 0
"""The colour type of a PNG of one channel without a palette."""


def read_png(path: Path, names: Names) -> Tensor:
    """Return the labels of a PNG of one channel: the indices of a palette, or grey values."""
    image_module = require("PIL.Image", "files", "reading .png")
    with image_module.open(path) as image:
        if image.mode not in ("1", "P", "L", "I;16", "I;16B", "I"):
            raise ValueError(
                "labels must be one channel (a palette, or grey values of 8 or 16 bits), got "
                f"mode {image.mode}: colours are no labels"
            )
        labels = np.asarray(image)
        if image.mode == "L" and image.format == "PNG":
            labels = labels // _stretch(path)
    return as_tensor(labels)


def _stretch(path: Path) -> int:
    """Return by what Pillow multiplies grey values of fewer than 8 bits."""
    depth, colour_type = path.read_bytes()[24:26]  # in the header, which always comes first
    return 255 // (2**depth - 1) if depth < 8 and colour_type == GREY else 1


def write_png(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    """Write a palette of the colours of the classes, or 16 bits where there are too many."""
    image_module = require("PIL.Image", "files", "writing .png")
    flat = labels[0] if masks and len(labels) == 1 else labels
    if flat.ndim != 2:
        what = f"{len(labels)} masks" if masks else f"labels of shape {labels.shape}"
        raise ValueError(
            f"a .png holds the labels (height, width) of one image, got {what}: write another "
            "format"
        )
    if flat.dtype.itemsize > 2:
        raise ValueError(f"a .png holds labels up to 65535, got {flat.max()}")
    image = image_module.fromarray(flat)
    if flat.dtype == np.uint8:
        image.putpalette(_palette())
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_whole(path, content.getvalue())


def _palette() -> bytes:
    """Return 256 colours: dark for 0, those of the classes in turn, white for void."""
    turns = [CLASS_COLOURS[index % len(CLASS_COLOURS)] for index in range(VOID - 1)]
    return bytes.fromhex("".join([BACKGROUND_COLOUR, *turns, IGNORED_COLOUR]).replace("#", ""))


@dataclass(frozen=True)
class Place:
    """What a TIFF says of the size and the place of its pixels."""

    resolution: tuple[Any, Any, Any] | None
    extratags: tuple[tuple[Any, ...], ...]


def read_tiff(path: Path, names: Names) -> tuple[Tensor, Place]:
    """Return maps and their place; see `_read_stack` for which axis is that of classes."""
    maps, place = _read_stack(path)
    return as_tensor(maps), place


def _read_stack(path: Path) -> tuple[NDArray[Any], Place]:
    """Return an array whose first axis is that of channels or samples, and its place.

    Without such an axis it is the first one, and of two axes there is one channel.
    """
    with _tifffile("reading .tif").TiffFile(path) as file:
        series = file.series[0]
        stack, axes = series.asarray(), series.axes
        tags = file.pages[0].tags
        known = [tags.get(code) for code in GEOREFERENCE]
        extra = tuple((t.code, int(t.dtype), t.count, t.value, True) for t in known if t)
        found = [tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
        place = Place(tuple(t.value for t in found) if all(found) else None, extra)
    if stack.ndim == 2:
        return stack[None], place
    channels = [axis for axis, name in enumerate(axes) if name in "CS"]
    return np.moveaxis(stack, channels[0] if channels else 0, 0), place


def read_label_tiff(path: Path, names: Names) -> Tensor:
    labels = _tifffile("reading .tif").imread(path)
    return as_tensor(labels)


def write_tiff(path: Path, labels: NDArray[Any], place: Any, masks: bool) -> None:
    options: dict[str, Any] = {}
    if isinstance(place, Place):
        options["extratags"] = place.extratags
        if place.resolution is not None:
            x, y, unit = place.resolution
            options |= {"resolution": (x, y), "resolutionunit": unit}
    content = io.BytesIO()
    _tifffile("writing .tif").imwrite(
        content, labels, photometric="minisblack", compression="zlib", **options
    )
    write_whole(path, content.getvalue())


def read_picture(path: Path) -> tuple[Tensor, Place | None]:
    """Return an image ``(3, height, width)`` with values in [0, 1]; grey becomes three channels."""
    place = None
    if path.suffix.lower() in (".tif", ".tiff"):
        pixels, place = _read_stack(path)
        scale = _brightest(pixels.dtype)
    else:
        with require("PIL.Image", "files", "reading images").open(path) as image:
            deep = image.mode.startswith("I")
            grey = np.asarray(image if deep else image.convert("RGB"))
        pixels = grey[None] if deep else grey.transpose(2, 0, 1)
        scale = _brightest(np.dtype(np.uint16) if deep else pixels.dtype)
    if pixels.ndim != 3 or len(pixels) not in (1, 3, 4):
        raise ValueError(f"an image must have one, three or four channels, got {pixels.shape}")
    colours = np.broadcast_to(pixels[:3], (3, *pixels.shape[1:]))
    return as_tensor(colours.astype(np.float32, order="C") / np.float32(scale)), place


def _brightest(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _tifffile(purpose: str) -> Any:
    return require("tifffile", "files", purpose)
