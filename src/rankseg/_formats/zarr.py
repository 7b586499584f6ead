"""Zarr folders: arrays, groups of arrays, and OME-Zarr images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._common.optional import require
from rankseg._files.whole import write_folder_whole
from rankseg._formats.axes import letters
from rankseg._formats.common import LABEL_NAMES, Names, Stored, as_tensor, check_room

__all__ = ["read_zarr", "write_zarr"]

TYPES = {"channel": "c", "time": "t"}
"""For the type of an axis in OME-Zarr, its letter in `rankseg._formats.axes`."""

OLD_AXES = "tczyx"
"""The axes of OME-Zarr images before version 0.3, whose metadata does not name them."""


def read_zarr(path: Path, names: Names) -> Stored:
    """Read an array, one of the arrays of a group, or an OME-Zarr image."""
    zarr = require("zarr", "files", "reading .zarr")
    node, axes = zarr.open(path, mode="r"), None
    if isinstance(node, zarr.Group):
        node, axes = _pick(_label_image(node, names), names)
    check_room(node.shape, node.dtype.itemsize)
    if node.attrs.get("scale_factor", 1) != 1 or node.attrs.get("add_offset", 0) != 0:
        raise ValueError("its values must be stored as they are, got a scale_factor or add_offset")
    missing = node.nchunks - node.nchunks_initialized
    gaps = f"{missing} of {node.nchunks} chunks" if missing else ""
    return Stored(as_tensor(np.asarray(node[...])), axes or _declared(node), gaps=gaps)


def _declared(array: Any) -> str | None:
    """Return the axes that the metadata of an array names, by Zarr 3 or by xarray's attribute."""
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS") or []
    if not isinstance(names, list | tuple):
        raise ValueError(f"its names of axes must be a list, got _ARRAY_DIMENSIONS {names!r}")
    return letters(names)


def _label_image(group: Any, names: Names) -> Any:
    """Return the label image of an OME-Zarr image if labels are wanted, else the group itself."""
    if names.usual != LABEL_NAMES or not _multiscales(group)["levels"] or "labels" not in group:
        return group
    held = sorted(group["labels"].group_keys())
    if len(held) != 1:
        raise ValueError(f"it must hold one label image, got {held}")
    return group["labels"][held[0]]


def _pick(group: Any, names: Names) -> tuple[Any, str | None]:
    """Return one array of a group, and its axes if the array is a level of an OME-Zarr image.

    By default, the array is the level of the highest resolution.
    """
    held = sorted(group.array_keys())
    image = _multiscales(group)
    levels = image["levels"]
    name = levels[0] if levels and names.chosen is None else names.pick(sorted({*held, *levels}))
    if name not in levels:
        return group[name], None
    return group[name], image["letters"]


def _multiscales(group: Any) -> dict[str, Any]:
    """Return the metadata of an OME-Zarr image, with the paths of its levels and its axes.

    Version 0.5 stores the metadata under ``ome``, earlier versions do not. Other groups have no
    levels.

    Raises
    ------
    ValueError
        If the metadata does not have the form that OME-Zarr requires.
    """
    attributes = dict(group.attrs)
    try:
        images = attributes.get("ome", attributes).get("multiscales") or [{}]
        first: dict[str, Any] = dict(images[0])
        first["levels"] = [str(level["path"]) for level in first.get("datasets", [])]
        first["letters"] = "".join(map(_letter, first.get("axes", OLD_AXES)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            'its metadata of OME-Zarr must be {"multiscales": [{"axes": [...], "datasets": '
            f'[{{"path": ...}}]}}]}}, got {str(attributes.get("ome", attributes))[:200]}'
        ) from error
    return first


def _letter(axis: Any) -> str:
    """Return the letter of an axis, given as a dictionary, or in version 0.3 as a name."""
    named = axis if isinstance(axis, dict) else {"name": axis}
    letter = letters([named.get("name")])
    if named.get("type") == "space":
        return letter if letter in ("z", "y", "x") else "z"
    return TYPES.get(str(named.get("type")), letter or "p")


def write_zarr(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    zarr = require("zarr", "files", "writing .zarr")
    write_folder_whole(path, lambda place: zarr.save_array(place, labels))
