"""Probability maps and label maps in the files that people keep them in.

An *ending* names the format. Readers give arrays with the axes of the file, and what is needed to
write label maps that lie where the maps do.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._colours import palette
from rankseg._files import write_beside, write_whole
from rankseg._optional import require

__all__ = [
    "IMAGES",
    "LABELS",
    "MAPS",
    "WRITTEN",
    "MapFile",
    "ending_of",
    "read_labels",
    "read_maps",
    "stem_of",
    "write_labels",
]

NIFTI: Final = (".nii", ".nii.gz")
TIFF: Final = (".tif", ".tiff")
TORCH: Final = (".pt", ".pth")

MAPS: Final = (".npy", ".npz", *TORCH, ".safetensors", *NIFTI, *TIFF, ".zarr")
LABELS: Final = (".png", ".npy", ".npz", *NIFTI, *TIFF, ".zarr")
WRITTEN: Final = (".png", ".npy", ".nii.gz", ".tif", ".zarr")
IMAGES: Final = (".png", ".jpg", ".jpeg", *TIFF)

KEYS_OF_MAPS: Final = ("probs", "probabilities", "logits")
KEYS_OF_LABELS: Final = ("label", "labels")

PURPOSE: Final = "reading and writing such files"


@dataclass(frozen=True, eq=False)
class MapFile:
    """Maps as they are in a file, and where they lie.

    Attributes
    ----------
    maps
        Floating array or tensor ``(classes, *spatial)``.
    header
        Of NIfTI, the header with its affine; otherwise None.
    """

    maps: NDArray[Any] | Tensor
    header: Any = None


def ending_of(path: Path) -> str:
    """Return what follows the name, in lower case; ``.nii.gz`` is one ending."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stem_of(path: Path) -> str:
    """Return the name without its ending."""
    return path.name[: len(path.name) - len(ending_of(path))]


def read_maps(path: Path, key: str | None = None) -> MapFile:
    """Read probability or logit maps.

    Arrays, tensors, TIFF and Zarr hold ``(classes, *spatial)``; NIfTI ``(x, y, z, classes)``. A
    TIFF of two axes or a NIfTI of three is one channel. Of several arrays in a file the one called
    ``key`` is read, by default ``probs``, ``probabilities``, ``logits`` or the only one.

    Raises
    ------
    ImportError
        If a package is missing.
    ValueError
        If there is no such array, or it is not floating or lacks an axis.
    Exception
        If the library that reads the format cannot.
    """
    ending = _known(path, MAPS)
    header = None
    maps: NDArray[Any] | Tensor
    if ending in NIFTI:
        array, header = _read_nifti(path)
        maps = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
        if array.ndim not in (3, 4):
            raise ValueError(f"NIfTI maps must be (x, y, z, classes), got {array.shape}")
    elif ending in TORCH or ending == ".safetensors":
        maps = _read_tensor(path, ending, key)
    else:
        maps = _read_array(path, ending, key, KEYS_OF_MAPS)
        if ending in TIFF and maps.ndim == 2:
            maps = maps[None]
    floating = maps.is_floating_point() if isinstance(maps, Tensor) else maps.dtype.kind == "f"
    if not floating or maps.ndim < 3:
        raise ValueError(
            "maps must be floating (classes, *spatial), an image or a volume with a class axis in "
            f"front, got {maps.dtype} {tuple(maps.shape)}"
        )
    return MapFile(maps, header)


def read_labels(path: Path, key: str | None = None) -> NDArray[np.int64]:
    """Read a label map ``(*spatial)``: integers, or floats that are whole.

    Raises
    ------
    ImportError
        If a package is missing.
    ValueError
        If it holds anything else.
    Exception
        If the library that reads the format cannot.
    """
    ending = _known(path, LABELS)
    if ending == ".png":
        labels = _read_png(path)
    elif ending in NIFTI:
        labels, _ = _read_nifti(path)
    else:
        labels = _read_array(path, ending, key, KEYS_OF_LABELS)
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    whole = labels.astype(np.int64)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise ValueError("labels must be whole numbers, got others")
    return whole


def write_labels(path: Path, labels: NDArray[Any], like: MapFile | None = None) -> None:
    """Write labels ``(*spatial)``, or masks ``(classes, *spatial)``; whole, or not at all.

    Labels get the smallest unsigned type that holds them (of NIfTI maps: the affine and header of
    ``like``). PNG takes images of labels from 0 to 65535, up to 255 with colours. Masks go where
    maps of their classes would lie.

    Raises
    ------
    ImportError
        If a package is missing.
    ValueError
        If the format cannot hold them.
    """
    ending = _known(path, WRITTEN)
    masks = labels.dtype == np.bool_
    labels = np.ascontiguousarray(labels, dtype=_smallest_type(labels))
    if ending == ".png":
        write_whole(path, _png(labels[0] if masks and len(labels) == 1 else labels))
    elif ending == ".npy":
        write_whole(path, _npy(labels))
    elif ending == ".nii.gz":
        array = np.moveaxis(labels, 0, -1) if masks else labels
        write_whole(path, _nifti(array, None if like is None else like.header))
    elif ending == ".tif":
        tifffile = require("tifffile", "files", PURPOSE)
        content = io.BytesIO()
        tifffile.imwrite(content, labels, compression="zlib", photometric="minisblack")
        write_whole(path, content.getvalue())
    else:
        zarr = require("zarr", "files", PURPOSE)
        write_beside(path, lambda folder: zarr.save_array(str(folder), labels))


def _known(path: Path, endings: Sequence[str]) -> str:
    ending = ending_of(path)
    if ending not in endings:
        raise ValueError(f"{path.name} must end in one of {list(endings)}")
    return ending


def _read_array(path: Path, ending: str, key: str | None, keys: Sequence[str]) -> NDArray[Any]:
    if ending == ".npy":
        array: NDArray[Any] = np.load(path, mmap_mode="r")
        return array
    if ending == ".npz":
        with np.load(path) as file:
            return np.asarray(file[_chosen(key, keys, file.files)])
    if ending in TIFF:
        return np.asarray(require("tifffile", "files", PURPOSE).imread(path))
    stored = require("zarr", "files", PURPOSE).open(str(path), mode="r")
    if hasattr(stored, "shape"):
        return np.asarray(stored[:])
    return np.asarray(stored[_chosen(key, keys, list(stored.array_keys()))][:])


def _read_tensor(path: Path, ending: str, key: str | None) -> Tensor:
    if ending == ".safetensors":
        safetensors = require("safetensors", "files", PURPOSE)
        with safetensors.safe_open(path, "pt") as file:
            chosen: Tensor = file.get_tensor(_chosen(key, KEYS_OF_MAPS, list(file.keys())))
            return chosen
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("the file cannot be read as one of tensors alone") from error
    if isinstance(content, Mapping):
        content = content[_chosen(key, KEYS_OF_MAPS, list(content))]
    if not isinstance(content, Tensor):
        raise ValueError(f"the file must hold a tensor, got {type(content).__name__}")
    return content.detach()


def _chosen(key: str | None, keys: Sequence[str], held: Sequence[str]) -> str:
    """Return the name of the array to read."""
    usual = [name for name in keys if name in held] or (list(held) if len(held) == 1 else [])
    if key is None and usual:
        return usual[0]
    if key in held:
        return str(key)
    wanted = repr(key) if key is not None else f"one of {list(keys)}"
    raise ValueError(f"the file must hold {wanted}, got {sorted(held)}")


def _read_nifti(path: Path) -> tuple[NDArray[Any], Any]:
    nibabel = require("nibabel", "files", PURPOSE)
    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError as error:
        raise ValueError(str(error)) from error
    array = np.asanyarray(image.dataobj)
    return (array.astype(np.float32) if array.dtype.kind == "V" else array), image.header


def _read_png(path: Path) -> NDArray[Any]:
    image = require("PIL.Image", "files", PURPOSE).open(path)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(
            "a PNG of labels must have one channel of integers or a palette, got the mode "
            f"{image.mode}"
        )
    return np.asarray(image)


def _smallest_type(labels: NDArray[Any]) -> np.dtype[Any]:
    if labels.dtype == np.bool_:
        return np.dtype(np.uint8)
    low, high = (int(end(initial=0)) for end in (labels.min, labels.max))
    return np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high))


def _png(labels: NDArray[Any]) -> bytes:
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            "a PNG holds an image of labels from 0 to 65535, not "
            f"{labels.dtype} {labels.shape}: take another format"
        )
    image = require("PIL.Image", "files", PURPOSE).fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(palette())
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def _npy(labels: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, labels)
    return content.getvalue()


def _nifti(labels: NDArray[Any], header: Any) -> bytes:
    nibabel = require("nibabel", "files", PURPOSE)
    affine = np.eye(4) if header is None else None
    if labels.dtype.kind == "u" and labels.dtype.itemsize > 4:
        raise ValueError(f"NIfTI holds labels of 32 bits, got {labels.dtype}")
    if header is not None:
        header = header.copy()
        header.set_data_dtype(labels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    image = nibabel.Nifti1Image(labels, affine, header)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
