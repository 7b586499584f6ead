"""Maps and labels in files, by the ending of their name.

========================  ======================================================================
ending                    axes of maps, and which array
========================  ======================================================================
``.npy``                  ``(classes, *spatial)``
``.npz``, ``.pt``,        the same; of several arrays the one named, else ``probs``,
``.safetensors``,         ``probabilities`` or ``logits``, else the only one
``.zarr``
``.nii``, ``.nii.gz``     ``(x, y, z, class)``, read as ``(classes, x, y, z)``
``.tif``, ``.tiff``       channels, samples or else the first axis are classes
========================  ======================================================================

Spatial axes are never reordered, from any format to any other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._formats import _arrays, _nifti, _pictures
from rankseg._formats._common import Names, reading

__all__ = [
    "LABELS_READ",
    "LABELS_WRITTEN",
    "MAPS",
    "PICTURES",
    "MapFile",
    "ending",
    "find_files",
    "read_image",
    "read_labels",
    "read_maps",
    "stem",
    "write_labels",
]

MAP_NAMES: Final = ("probs", "probabilities", "logits")
LABEL_NAMES: Final = ("label", "labels")

_MAP_READERS: Final[dict[str, Callable[[Path, Names], Any]]] = {
    ".npy": _arrays.read_npy,
    ".npz": _arrays.read_npz,
    ".pt": _arrays.read_pt,
    ".safetensors": _arrays.read_safetensors,
    ".zarr": _arrays.read_zarr,
    ".nii": _nifti.read_nifti,
    ".nii.gz": _nifti.read_nifti,
    ".tif": _pictures.read_tiff,
    ".tiff": _pictures.read_tiff,
}

_LABEL_READERS: Final[dict[str, Callable[[Path, Names], Tensor]]] = {
    ".npy": _arrays.read_npy,
    ".npz": _arrays.read_npz,
    ".png": _pictures.read_png,
    ".zarr": _arrays.read_zarr,
    ".nii": _nifti.read_label_nifti,
    ".nii.gz": _nifti.read_label_nifti,
    ".tif": _pictures.read_label_tiff,
    ".tiff": _pictures.read_label_tiff,
}

_WRITERS: Final[dict[str, Callable[[Path, NDArray[Any], Any, bool], None]]] = {
    ".png": _pictures.write_png,
    ".npy": _arrays.write_npy,
    ".nii": _nifti.write_nifti,
    ".nii.gz": _nifti.write_nifti,
    ".tif": _pictures.write_tiff,
    ".tiff": _pictures.write_tiff,
    ".zarr": _arrays.write_zarr,
}

MAPS: Final = tuple(_MAP_READERS)
LABELS_READ: Final = tuple(_LABEL_READERS)
LABELS_WRITTEN: Final = tuple(_WRITERS)
PICTURES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True, eq=False)
class MapFile:
    """What a file of maps holds.

    Parameters
    ----------
    maps : Tensor
        Floating ``(classes, *spatial)``, as stored: probabilities or logits.
    geometry : object, optional
        What `write_labels` needs to write labels in the same place: the header of a NIfTI file,
        with its affine, or the resolution and georeference of a TIFF.
    """

    maps: Tensor
    geometry: Any = None


def read_maps(path: str | PathLike[str], key: str | None = None) -> MapFile:
    """Read probability or logit maps.

    Parameters
    ----------
    path : path
        A file, or for zarr a folder, with one of the endings `MAPS`.
    key : str, optional
        Which array of a file that holds several; by default ``probs``, ``probabilities`` or
        ``logits``, in this order, or else the only one.

    Returns
    -------
    MapFile
        The maps in the dtype stored; those of npy and pt files are mapped into memory.

    Raises
    ------
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the ending is not known, the file cannot be read, it does not hold the array, or the
        array is not floating with a class axis and at least one other, none of them empty.
    """
    path = Path(path)
    found = _read(path, _MAP_READERS, Names(key, MAP_NAMES), "maps")
    maps, geometry = found if isinstance(found, tuple) else (found, None)
    if not maps.is_floating_point() or maps.ndim < 2 or 0 in maps.shape:
        raise ValueError(
            "maps must be floating (classes, *spatial), none of them empty, got "
            f"{maps.dtype} {tuple(maps.shape)}"
        )
    return MapFile(maps, geometry)


def read_labels(path: str | PathLike[str], key: str | None = None) -> Tensor:
    """Read labels.

    Parameters
    ----------
    path : path
        A file, or for zarr a folder, with one of the endings `LABELS_READ`. Of a PNG the indices
        of its palette count, or its grey values.
    key : str, optional
        Which array of a file that holds several; by default ``label`` or ``labels``, or else the
        only one.

    Returns
    -------
    Tensor
        Integer ``(*spatial)``, in the axes of the file; booleans become 0 and 1.

    Raises
    ------
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the ending is not known, the file cannot be read, it does not hold the array, or the
        array does not hold integers. A PNG in colours is refused.
    """
    labels: Tensor = _read(Path(path), _LABEL_READERS, Names(key, LABEL_NAMES), "labels")
    if labels.dtype == torch.bool:
        labels = labels.to(torch.uint8)
    if labels.is_floating_point():
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    return labels


def write_labels(
    path: str | PathLike[str],
    labels: Tensor | NDArray[Any],
    like: MapFile | None = None,
    *,
    masks: bool = False,
) -> None:
    """Write labels, or masks, as the smallest unsigned integers that hold them.

    The file, or for zarr the folder, is there whole or not at all, and the same labels give the
    same bytes.

    Parameters
    ----------
    path : path
        With one of the endings `LABELS_WRITTEN`; replaced if it is there.
    labels : Tensor or ndarray
        Integer ``(*spatial)``, at least 0; or bool ``(classes, *spatial)``, if ``masks`` says so.
    like : MapFile, optional
        The maps that were decided: a NIfTI gets their header and affine, a TIFF their resolution
        and georeference, if they come from the same format.
    masks : bool
        Whether the first axis is that of classes; it is the last one in a NIfTI.

    Raises
    ------
    ImportError
        If the package that writes the format is not installed.
    OSError
        If it cannot be written.
    ValueError
        If the ending is not known, or the format cannot hold such labels: a PNG holds those of two
        axes, up to 65535, or a single mask.
    """
    path = Path(path)
    write = _by_ending(path, _WRITERS, "labels")
    array = labels.numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    geometry = None if like is None else like.geometry
    if not _fits(geometry, path):
        geometry = None
    write(path, _smallest(array), geometry, masks)


def read_image(path: str | PathLike[str]) -> MapFile:
    """Read a PNG, JPEG or TIFF image, as float32 ``(3, height, width)`` in [0, 1].

    Grey becomes three equal channels; a fourth is left out.

    Raises
    ------
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If it cannot be read, or does not have one, three or four channels.
    """
    path = Path(path)
    with reading(path, "an image"):
        return MapFile(*_pictures.read_picture(path))


def ending(path: str | PathLike[str]) -> str:
    """Return the ending in small letters, ``.nii.gz`` as one.

    >>> ending("scans/CASE.nii.gz"), ending("a.b.PNG")
    ('.nii.gz', '.png')
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem(path: str | PathLike[str]) -> str:
    """Return the name without its ending.

    >>> stem("scans/case.nii.gz"), stem("a.b.png")
    ('case', 'a.b')
    """
    return Path(path).name.removesuffix("/")[: -len(ending(path)) or None]


def find_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]], endings: Collection[str]
) -> list[Path]:
    """Return the files named, and of folders those in them with one of the endings, sorted.

    A zarr folder is a file here; hidden files are left out.

    Raises
    ------
    FileNotFoundError
        If something named is not there, or a folder holds nothing with such an ending.
    ValueError
        If nothing is named.
    """
    named = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    if not named:
        raise ValueError("inputs must name one file or folder at least, got none")
    files = []
    for path in map(Path, named):
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        if not path.is_dir() or ending(path) == ".zarr":
            files.append(path)
            continue
        held = sorted(
            file
            for file in path.iterdir()
            if ending(file) in endings and not file.name.startswith(".")
        )
        if not held:
            raise FileNotFoundError(f"{path} holds no file with an ending of {list(endings)}")
        files += held
    return files


def _read(path: Path, readers: dict[str, Any], names: Names, what: str) -> Any:
    read = _by_ending(path, readers, what)
    with reading(path, ending(path)):
        return read(path, names)


def _by_ending(path: Path, known: dict[str, Any], what: str) -> Any:
    if ending(path) not in known:
        raise ValueError(f"{what} must be in a file with an ending of {list(known)}, got {path}")
    return known[ending(path)]


def _fits(geometry: Any, path: Path) -> bool:
    """Tell whether a format has a place for a geometry: NIfTI for a header, TIFF for the other."""
    tiff = ending(path) in (".tif", ".tiff")
    return tiff == isinstance(geometry, _pictures.Place)


def _smallest(labels: NDArray[Any]) -> NDArray[Any]:
    """Return integers from 0 in the smallest unsigned dtype that holds them."""
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must be at least 0, got {labels.min()}")
    largest = int(labels.max()) if labels.size else 0
    return np.ascontiguousarray(labels, np.min_scalar_type(largest))
