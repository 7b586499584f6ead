"""PNG labels, and images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR
from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg._formats.axes import arrange_image
from rankseg._formats.common import Names, Stored, as_tensor, colours_of, in_unit_range
from rankseg._formats.tiff import read_image_tiff

__all__ = ["read_picture", "read_png", "write_png"]

VOID = 255

GREY = 0
"""The colour type of a PNG of one channel without a palette."""


def read_png(path: Path, names: Names) -> Stored:
    """Return the labels of a PNG of one channel: the indices of a palette, or grey values."""
    image_module = require("PIL.Image", "files", "reading .png")
    with image_module.open(path) as image:
        if image.format != "PNG":
            raise ValueError(
                f"labels in a .png must be stored as PNG, got {image.format}, which may change "
                "them: write them as PNG from where they came"
            )
        _refuse_frames(image)
        if image.mode not in ("1", "P", "L", "I;16", "I;16B", "I"):
            raise ValueError(
                "labels must be one channel (a palette, or grey values of 8 or 16 bits), got "
                f"mode {image.mode}: colours are no labels"
            )
        labels = np.asarray(image)
        if image.mode == "L":
            labels = labels // _stretch(path)
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return Stored(as_tensor(labels), "yx", colours=colours_of(labels, palette))


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


def read_picture(path: Path) -> tuple[Tensor, Any]:
    """Return an image ``(3, height, width)`` with values in [0, 1]; grey becomes three channels."""
    tiff = path.suffix.lower() in (".tif", ".tiff")
    stored = read_image_tiff(path, _read_photo) if tiff else _read_photo(path)
    pixels = arrange_image(stored)
    if len(pixels) not in (1, 3, 4):
        raise ValueError(
            f"an image must have one, three or four channels, got {tuple(pixels.shape)}"
        )
    return pixels[:3].expand(3, *pixels.shape[1:]).contiguous(), stored.geometry


def _read_photo(path: Path) -> Stored:
    with require("PIL.Image", "files", "reading images").open(path) as image:
        _refuse_frames(image)
        if image.mode.startswith("I") and image.format == "PNG":
            return Stored(in_unit_range(np.asarray(image).astype(np.uint16)), "yx")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"it holds {image.format} of mode {image.mode}: name it by its format")
        upright = require("PIL.ImageOps", "files", "reading images").exif_transpose(image)
        return Stored(in_unit_range(np.asarray(upright.convert("RGB"))), "yxc")


def _refuse_frames(image: Any) -> None:
    """Refuse an animation; the further frames of an MPO, as cameras write, are previews."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ValueError(f"it must hold one image, got {frames} frames: write one file for each")
