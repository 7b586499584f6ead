"""TIFF: the pages that belong together, and what their axes are."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg._formats.common import (
    Names,
    Stored,
    as_tensor,
    check_room,
    colours_of,
    in_unit_range,
)

__all__ = ["Place", "read_image_tiff", "read_label_tiff", "read_tiff", "refuse_elsewhere"]
__all__ += ["world_of", "write_tiff"]

GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
"""TIFF tags that say where pixels are: scale, tie points, transformation and GeoKeys."""

SCALE, TIE_POINT, TRANSFORMATION, KEYS = 33550, 33922, 34264, 34735

NODATA = 42113
"""The TIFF tag, as GDAL writes it, of the value of pixels without data: a number as text."""

RASTER_TYPE, IS_POINT = 1025, 2
"""The GeoKey that says which point of a pixel the tie point is, and its value for the centre."""

SHIFT = 0.501
"""Pixels by which corners may differ: no pixel is then nearer to another one of the truth."""

LOSSY = ("OJPEG", "JPEG", "JPEG_LOSSY", "WEBP")
"""Compressions that change values: of labels, they make other classes."""

LETTERS = {"C": "c", "S": "c", "T": "t", "Z": "z", "Y": "y", "X": "x"}
"""The letter of `rankseg._formats.axes` for an axis of tifffile; of others ``p``."""


CONVERTED = ("PALETTE", "SEPARATED", "YCBCR")
"""The photometric interpretations that Pillow converts to RGB."""


@dataclass(frozen=True)
class Place:
    """What a TIFF says of the size and the place of its pixels."""

    resolution: tuple[Any, Any, Any] | None
    extratags: tuple[tuple[Any, ...], ...]


def read_tiff(path: Path, names: Names) -> Stored:
    """Return maps; an array that one call wrote without names of axes is as that of an npy."""
    pages = _refuse_white(_read_pages(path))
    axes = _letters(pages.axes)
    if "c" not in axes:
        axes = axes.replace("z", "d")
    unnamed = pages.written_at_once and "p" in axes and set(axes) <= set("pyx")
    array = as_tensor(pages.array)
    return Stored(array, None if unnamed else axes, pages.place, nodata=pages.nodata)


def read_label_tiff(path: Path, names: Names) -> Stored:
    """Return labels; only samples are colours, for tifffile calls the third axis of any array C."""
    _refuse_lossy(path)
    pages = _refuse_white(_read_pages(path))
    axes = _letters(pages.axes.replace("C", "Q"))
    colours = colours_of(pages.array, pages.palette)
    array = as_tensor(pages.array)
    return Stored(array, axes, pages.place, colours=colours, nodata=pages.nodata)


def read_image_tiff(path: Path, convert: Callable[[Path], Stored]) -> Stored:
    """Return an image with values in [0, 1], converted if it has other colours than RGB."""
    pages = _read_pages(path)
    if pages.photometric in CONVERTED:
        return replace(convert(path), geometry=pages.place)
    if pages.photometric not in ("MINISBLACK", "MINISWHITE", "RGB"):
        raise ValueError(
            f"an image must be grey, RGB or {', '.join(CONVERTED)}, got the photometric "
            f"interpretation {pages.photometric}: convert it to RGB"
        )
    pixels = in_unit_range(pages.array, pages.bits)
    white = pages.photometric == "MINISWHITE"
    return Stored(1 - pixels if white else pixels, _letters(pages.axes), pages.place)


def world_of(place: Any) -> NDArray[np.float64] | None:
    """Return the affine (2, 3) from corners of pixels (x, y) to the map; None if a file has none.

    GeoTIFF tells the place of one pixel and the size of all, or the affine itself.
    """
    if not isinstance(place, Place):
        return None
    tags = {code: value for code, _, _, value, _ in place.extratags}
    try:
        if TRANSFORMATION in tags:
            world = np.reshape(tags[TRANSFORMATION], (4, 4))[:2, [0, 1, 3]].astype(np.float64)
        else:
            column, row, _, x, y, _ = tags[TIE_POINT]  # several points are no affine
            width, height = tags[SCALE][:2]
            world = np.array([[width, 0, x - column * width], [0, -height, y + row * height]])
        keys = np.reshape(tags.get(KEYS, ()), (-1, 4)).tolist()
    except (KeyError, TypeError, ValueError):
        return None
    if [RASTER_TYPE, 0, 1, IS_POINT] in keys:
        world[:, 2] -= world[:, :2].sum(1) / 2
    return world if np.isfinite(world).all() and np.linalg.det(world[:, :2]) else None


def refuse_elsewhere(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], size: Sequence[int], whose: str
) -> None:
    """Raise a ValueError if the pixels of two images of one size lie at other places of the map.

    ``size`` is height and width. ``whose`` pixels the others are, a message says.
    """
    height, width = size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    shifts = np.linalg.solve(theirs[:, :2], (ours - theirs) @ corners)
    if not np.abs(shifts).max() <= SHIFT:
        raise ValueError(
            f"its pixels do not lie where those of {whose} do: by its georeference its corners "
            f"are up to {np.abs(shifts).max():.4g} pixels away. Resample it to the grid of "
            f"{whose}, or, if only the georeference is wrong, store it with that of {whose}"
        )


def _letters(axes: str) -> str:
    return "".join(LETTERS.get(name, "p") for name in axes)


@dataclass(frozen=True, eq=False)
class _Pages:
    """All pages of a file, the axes as tifffile calls them, and whether one call wrote them."""

    array: NDArray[Any]
    axes: str
    written_at_once: bool
    place: Place
    photometric: str
    bits: int
    software: str
    palette: NDArray[Any]
    nodata: float | None


def _refuse_lossy(path: Path) -> None:
    """Refuse a compression that changes labels, before its decoder is asked for."""
    tifffile = _tifffile("reading .tif")
    with _refuse_lost_pages(), tifffile.TiffFile(path) as file:
        compression = tifffile.COMPRESSION(file.pages[0].keyframe.compression).name
    if compression in LOSSY:
        raise ValueError(
            f"it is compressed by {compression}, which changes labels: write it anew with "
            "compression='zlib' from where the labels came"
        )


def _refuse_white(pages: _Pages) -> _Pages:
    """Refuse pages whose values programs read differently: with 0 as the largest or the smallest.

    tifffile marks boolean masks as MINISWHITE by default, and stores them as they are.
    """
    by_default = pages.array.dtype.kind == "b" and pages.software.startswith("tifffile")
    if pages.photometric == "MINISWHITE" and not by_default:
        raise ValueError(
            "its photometric interpretation is MINISWHITE: programs disagree whether a stored 0 "
            "means 0 or the largest value. Write it as MINISBLACK"
        )
    return pages


def _read_pages(path: Path) -> _Pages:
    """Read all pages, stacked along a first axis if they were written one by one.

    Reduced copies and masks are no pages of the image.
    """
    tifffile = _tifffile("reading .tif")
    with _refuse_lost_pages(), tifffile.TiffFile(path) as file:
        held = [series for series in file.series if not _is_extra(series.keyframe)]
        kinds = {(series.shape, series.axes, str(series.dtype)) for series in held}
        if len(kinds) != 1:
            found = ", ".join(f"{shape} of {dtype}" for shape, _, dtype in sorted(kinds))
            raise ValueError(
                f"its pages must be of one shape and type, got {found or 'none'}: write those that "
                "are meant to a file of their own"
            )
        first = held[0]
        _refuse_sets(file, held)
        if file.ome_metadata and len(held) > 1:  # pages written one by one are no OME-TIFF
            raise ValueError(
                f"it holds {len(held)} images of one shape {first.shape}: write one file for each "
                "image"
            )
        check_room((len(held), *first.shape), first.dtype.itemsize)
        arrays = [_decoded(series) for series in held]
        page = first.keyframe
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        palette = np.zeros((3, 0)) if page.colormap is None else page.colormap
        properties = (
            _place(file.pages[0].tags),
            kind,
            page.bitspersample,
            page.software,
            palette.T,
            _nodata(file.pages[0].tags),
        )
    if len(held) == 1:
        return _Pages(arrays[0], first.axes, True, *properties)
    return _Pages(np.stack(arrays), f"I{first.axes}", False, *properties)


def _decoded(series: Any) -> NDArray[Any]:
    """Return the values; most compressions of GDAL need imagecodecs."""
    try:
        return np.asarray(series.asarray())
    except (ImportError, ValueError) as error:
        if "imagecodecs" in str(error) or isinstance(error, ImportError):
            require("imagecodecs", "geotiff", f"a .tif with {error}")
        raise


def _refuse_sets(file: Any, held: Sequence[Any]) -> None:
    """Refuse pages of other files, which each file of a set lists, and pages that are missing.

    tifffile reads missing pages as zeros.
    """
    named = sorted(set(re.findall(r"FileName=[\"']([^\"']*)", file.ome_metadata or "")))
    missing = [name for name in named if not Path(file.filehandle.dirname, name).exists()]
    lacks = any(None in series.pages for series in held)
    if lacks and not missing:
        raise ValueError("it lacks pages that it declares: write it again")
    if lacks or any(series.is_multifile for series in held):
        raise ValueError(
            f"it must hold all its pages, but shares the set {named} with other files"
            + (f", of which {missing} are missing" if missing else "")
            + ": write the set to one file, say by tifffile.imwrite(path, tifffile.imread(set), "
            "metadata={'axes': 'CYX'})"
        )


def _is_extra(page: Any) -> bool:
    """Tell whether a page is a reduced copy or a mask of another one."""
    return bool(page.is_reduced or page.is_mask)


class _Errors(logging.Handler):
    """Collects what a library logs as an error in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread = threading.get_ident()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.found.append(record.getMessage())


@contextlib.contextmanager
def _refuse_lost_pages() -> Iterator[None]:
    """Raise what tifffile only logs: of a file cut short it returns the pages that are left."""
    errors, logger = _Errors(), logging.getLogger("tifffile")
    logger.addHandler(errors)
    try:
        yield
    finally:
        logger.removeHandler(errors)
    if errors.found:
        raise ValueError(f"it is damaged or was cut short: {errors.found[0]}")


def _place(tags: Any) -> Place:
    known = [tags.get(code) for code in GEOREFERENCE]
    extra = tuple((t.code, int(t.dtype), t.count, t.value, True) for t in known if t)
    found = [tags.get(name) for name in ("XResolution", "YResolution", "ResolutionUnit")]
    return Place(tuple(t.value for t in found) if all(found) else None, extra)


def _nodata(tags: Any) -> float | None:
    """Return the value of pixels without data, or None if the file declares none."""
    try:
        return float(tags[NODATA].value)
    except (KeyError, TypeError, ValueError):
        return None


def with_nodata(place: Place | None, value: int) -> Place:
    """Return a place whose file declares the value of pixels without data."""
    place = place or Place(None, ())
    return replace(place, extratags=(*place.extratags, (NODATA, "s", 0, str(value), True)))


def write_tiff(path: Path, labels: NDArray[Any], place: Any, masks: bool) -> None:
    if labels.ndim < 2:
        raise ValueError(
            f"a .tif holds labels of two axes or more, got labels of shape {labels.shape}: write "
            "another format"
        )
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


def _tifffile(purpose: str) -> Any:
    return require("tifffile", "files", purpose)
