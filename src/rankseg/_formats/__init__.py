"""Reading and writing maps and labels. The ending of a file's name gives its format.

========================  ======================================================================
ending                    axes of maps, and which array
========================  ======================================================================
``.npy``                  ``(classes, *spatial)``, also after a batch axis of length 1
``.npz``, ``.pt``,        the same; of several arrays the one named, else ``probs``,
``.safetensors``,         ``probabilities`` or ``logits``, else the only one; of OME-Zarr the
``.zarr``                 first level, with the axes that it declares
``.nii``, ``.nii.gz``,    ``(x, y, z, class)``, read as ``(classes, x, y, z)``
``.mha``, ``.nrrd``
``.tif``, ``.tiff``       channels, samples or else the first axis are classes; pages that were
                          written one by one are stacked
========================  ======================================================================

`rankseg._formats.axes` has the rules. Spatial axes are never reordered, from any format to
any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.warn import warn
from rankseg._files.folders import ending, files_of, stem
from rankseg._formats import arrays, dicom, itk, nifti, pictures, tiff, zarr
from rankseg._formats.axes import arrange_labels, arrange_maps, spatial_axes
from rankseg._formats.common import (
    LABEL_NAMES,
    LOGIT_NAMES,
    MAP_NAMES,
    HoldsMapsError,
    Names,
    Stored,
    reading,
)
from rankseg._formats.dicom import read_series
from rankseg._formats.grid import Grid, align

__all__ = [
    "IN_SPACE",
    "LABELS_READ",
    "LABELS_WRITTEN",
    "MAPS",
    "PICTURES",
    "Grid",
    "HoldsMapsError",
    "LabelFile",
    "MapFile",
    "align",
    "ending",
    "find_files",
    "read_image",
    "read_label_file",
    "read_labels",
    "read_maps",
    "read_series",
    "stem",
    "with_data",
    "write_labels",
]

_MAP_READERS: Final[dict[str, Callable[[Path, Names], Stored]]] = {
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".pt": arrays.read_pt,
    ".safetensors": arrays.read_safetensors,
    ".zarr": zarr.read_zarr,
    ".nii": nifti.read_nifti,
    ".nii.gz": nifti.read_nifti,
    ".mha": itk.read_itk,
    ".nrrd": itk.read_itk,
    ".tif": tiff.read_tiff,
    ".tiff": tiff.read_tiff,
}

_LABEL_READERS: Final[dict[str, Callable[[Path, Names], Stored]]] = {
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".png": pictures.read_png,
    ".zarr": zarr.read_zarr,
    ".nii": nifti.read_label_nifti,
    ".nii.gz": nifti.read_label_nifti,
    ".mha": itk.read_itk,
    ".nrrd": itk.read_itk,
    ".tif": tiff.read_label_tiff,
    ".tiff": tiff.read_label_tiff,
}

_WRITERS: Final[dict[str, Callable[[Path, NDArray[Any], Any, bool], None]]] = {
    ".png": pictures.write_png,
    ".npy": arrays.write_npy,
    ".nii": nifti.write_nifti,
    ".nii.gz": nifti.write_nifti,
    ".mha": itk.write_itk,
    ".nrrd": itk.write_itk,
    ".tif": tiff.write_tiff,
    ".tiff": tiff.write_tiff,
    ".zarr": zarr.write_zarr,
    ".dcm": dicom.write_dicom,
}

MAPS: Final = tuple(_MAP_READERS)
LABELS_READ: Final = tuple(_LABEL_READERS)
LABELS_WRITTEN: Final = tuple(_WRITERS)
IN_SPACE: Final = (".nii", ".nii.gz", ".mha", ".nrrd")
"""The formats with the axes x, y, z and an affine."""
TIFF: Final = (".tif", ".tiff")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

IMAGES_NEED_A_MODEL: Final = ": to decide images, name the network by model (--model)"


@dataclass(frozen=True, eq=False)
class MapFile:
    """What a file of maps holds.

    Parameters
    ----------
    maps : Tensor
        Floating ``(classes, *spatial)``, as stored: probabilities or logits.
    grid : Grid
        How the pixels lie.
    geometry : object, optional
        What `write_labels` needs to write labels at the same position in space: the header of a
        NIfTI file with its affine, or the resolution and georeference of a TIFF.
    nodata : float, optional
        The value of pixels without data, if the file declares one.
    """

    maps: Tensor
    grid: Grid
    geometry: Any = None
    nodata: float | None = None


@dataclass(frozen=True, eq=False)
class LabelFile:
    """What a file of labels holds.

    Parameters
    ----------
    path : Path
        The file.
    labels : Tensor
        Integer ``(*spatial)``.
    grid : Grid
        How the pixels lie.
    colours : mapping of int to tuple of int
        The colours of the labels, if a picture has a palette.
    nodata : float, optional
        The value of pixels without data, if the file declares one.
    """

    path: Path
    labels: Tensor
    grid: Grid
    colours: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    nodata: float | None = None


def read_maps(
    path: str | PathLike[str], key: str | None = None, from_logits: str | None = None
) -> MapFile:
    """Read probability or logit maps.

    Parameters
    ----------
    path : path
        A file, or for zarr a folder, with one of the endings `MAPS`.
    key : str, optional
        Which array of a file that holds several; by default ``probs``, ``probabilities`` or
        ``logits``, in this order, or else the only one. With ``from_logits``, ``logits`` is first.
    from_logits : {'softmax', 'sigmoid'}, optional
        The function that turns the maps into probabilities, if they are logits. With softmax, a
        first axis of length 1 is a batch axis, since there are several classes.

    Returns
    -------
    MapFile
        The maps in the dtype stored. They are read into memory: if another process truncated a
        memory-mapped file, this process would crash.

    Raises
    ------
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the ending is not known, the file cannot be read, it does not hold the array, the
        array is not floating with a class axis and at least one other, none of them empty, or it
        is not clear which axis is that of classes. The message names the file.
    """
    path = Path(path)
    read = _by_ending(path, _MAP_READERS, "maps")
    with reading(path, ending(path)):
        usual = MAP_NAMES if from_logits is None else LOGIT_NAMES
        stored = read(path, Names(key, usual))
        maps, axes = arrange_maps(stored, from_logits != "softmax")
        grid = _grid(path, stored, maps.shape[1:], axes)
        return MapFile(maps, grid, stored.geometry, stored.nodata)


def with_data(found: MapFile, from_logits: str | None) -> Tensor | None:
    """Return where maps have data: not NaN in all classes, nor all of the declared value.

    None if they have data everywhere. A warning tells of pixels that are NaN, and of a declared
    value that may be meant as a probability.
    """
    maps, nodata = found.maps, found.nodata
    without = maps.isnan().all(0)
    if nodata is None:
        if without.any():
            share = without.double().mean().item()
            warn(f"{share:.2%} of the pixels are NaN in all classes, and are left out")
    elif len(maps) == 1 and from_logits is None and 0 <= nodata <= 1:
        warn(
            f"its nodata value {nodata:g} is a probability, too, and such pixels count; to leave "
            "them out, store NaN, or name masks of the pixels that count by valid (--valid)"
        )
    else:
        without |= (maps == maps.new_tensor(nodata)).all(0)
    return ~without if without.any() else None


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
        array does not hold integers: a `HoldsMapsError` if it holds scores. Colours are refused.
        The message names the file.
    """
    return read_label_file(path, key).labels


def read_label_file(path: str | PathLike[str], key: str | None = None) -> LabelFile:
    """Read labels and their position in space: see `read_labels`."""
    path = Path(path)
    read = _by_ending(path, _LABEL_READERS, "labels")
    with reading(path, ending(path)):
        stored = read(path, Names(key, LABEL_NAMES))
        labels = arrange_labels(stored)
        if labels.is_floating_point():
            raise _floating(labels)
        labels = labels.to(torch.uint8) if labels.dtype == torch.bool else labels
        grid = _grid(path, stored, labels.shape, spatial_axes(stored))
        return LabelFile(path, labels, grid, stored.colours, stored.nodata)


def _floating(labels: Tensor) -> ValueError:
    """Return the error for floating values: scores, or labels stored in the wrong dtype."""
    message, values = f"labels must be integers, got {labels.dtype}", labels.double().nan_to_num()
    if values.numel() and not (values == values.round()).all():
        return HoldsMapsError(message)
    return ValueError(f"{message} of whole numbers: store labels.astype('uint8')")


def _grid(path: Path, stored: Stored, shape: torch.Size, axes: str) -> Grid:
    """Return how the pixels of a file lie, of which the spatial axes are known."""
    in_space = ending(path) in IN_SPACE
    affine = nifti.affine_of(stored.geometry) if in_space else None
    are_declared = stored.axes is not None and not in_space and ending(path) != ".png"
    return Grid(shape, affine, tiff.world_of(stored.geometry), axes, are_declared)


def write_labels(
    path: str | PathLike[str],
    labels: Tensor | NDArray[Any],
    like: MapFile | None = None,
    *,
    masks: bool = False,
    void: int | None = None,
) -> None:
    """Write labels, or masks, as the smallest unsigned integers that hold them.

    The file (for zarr the folder) is written whole or not at all. The same labels give the same
    bytes.

    Parameters
    ----------
    path : path
        With one of the endings `LABELS_WRITTEN`. An existing file is replaced.
    labels : Tensor or ndarray
        Integer ``(*spatial)``, at least 0; or bool ``(classes, *spatial)`` if ``masks`` is True.
    like : MapFile, optional
        The maps that were decided: a NIfTI gets their header and affine, a TIFF their resolution
        and georeference, if they come from the same format.
    masks : bool
        Whether the first axis holds classes. In a NIfTI it is written as the last axis.
    void : int, optional
        The label of pixels without data, which a TIFF declares as its nodata value.

    Raises
    ------
    ImportError
        If the package that writes the format is not installed.
    OSError
        If the file cannot be written.
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
    if void is not None and ending(path) in TIFF:
        geometry = tiff.with_nodata(geometry, void)
    write(path, _smallest(array, void or 0), geometry, masks)


def read_image(path: str | PathLike[str]) -> MapFile:
    """Read a PNG, JPEG or TIFF image, as float32 ``(3, height, width)`` in [0, 1].

    Grey becomes three equal channels; palettes, CMYK and YCbCr are converted to RGB, and a fourth
    channel is left out.

    Raises
    ------
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the file cannot be read, holds several images, values outside [0, 1] or colours that are
        not converted, or does not have one, three or four channels.
    """
    path = Path(path)
    _by_ending(path, dict.fromkeys(PICTURES), "an image")
    with reading(path, "an image"):
        image, place = pictures.read_picture(path)
        return MapFile(image, Grid(image.shape[1:]), place)


def find_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]], endings: Collection[str]
) -> list[Path]:
    """Return the files that are named, and the files in each folder that is named.

    Of a folder, the files with one of the endings are returned, sorted; hidden files are left out.
    A warning names the files of other formats in the folder. A zarr folder counts as a file.

    Raises
    ------
    FileNotFoundError
        If a named file or folder does not exist, or a folder holds no file with such an ending.
    ValueError
        If no file or folder is named.
    """
    named = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    if not named:
        raise ValueError("inputs must name one file or folder at least, got none")
    files = []
    for path in map(Path, named):
        if not os.path.lexists(path):  # a link to nothing is an input that cannot be read
            raise FileNotFoundError(f"there is no file or folder {path}")
        if not path.is_dir() or ending(path) == ".zarr":
            files.append(path)
            continue
        held = files_of(path, endings, others=[Path(one) for one in named])
        if not held:
            images = any(ending(file) in PICTURES for file in path.iterdir())
            hint = IMAGES_NEED_A_MODEL if images and endings == MAPS else ""
            raise FileNotFoundError(f"{path} holds no file with an ending of {list(endings)}{hint}")
        files += held
    return files


def _by_ending(path: Path, known: dict[str, Any], what: str) -> Any:
    if ending(path) not in known:
        hint = IMAGES_NEED_A_MODEL if what == "maps" and ending(path) in PICTURES else ""
        raise ValueError(
            f"{what} must be in a file with an ending of {list(known)}, got {path}{hint}"
        )
    return known[ending(path)]


def _fits(geometry: Any, path: Path) -> bool:
    """Return whether the format of a path can store a geometry: one of TIFF, or of another."""
    is_tiff = ending(path) in TIFF
    return is_tiff == isinstance(geometry, tiff.Place)


def _smallest(labels: NDArray[Any], least: int) -> NDArray[Any]:
    """Return integers from 0 in the smallest unsigned dtype that holds them and ``least``."""
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must be at least 0, got {labels.min()}")
    largest = int(labels.max()) if labels.size else 0
    return np.ascontiguousarray(labels, np.min_scalar_type(max(largest, least)))
