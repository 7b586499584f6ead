"""NIfTI volumes, whose axes are x, y, z, time and then the class."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg._formats.common import Names, Stored, as_tensor, check_room

__all__ = ["affine_of", "read_label_nifti", "read_nifti", "reorient", "write_nifti"]

FOURTH = 4
"""The axes of an image that has one value per class in each voxel."""

DEFLATE = 1100
"""More than the most that gzip shrinks any file by."""

FLOATING = 1e-4
"""The largest error of integers that were stored as floating numbers."""

SCALED = 0.1
"""The largest error of integers that were stored with a scale factor, however coarse it is."""

STRETCH = 1e-3
"""The largest difference of voxel axes, relative to their length, that is rounding."""

SHIFT = 0.05
"""The largest distance of first voxels, relative to their size, that is rounding."""


def read_nifti(path: Path, names: Names) -> Stored:
    """Return maps ``(x, y, z, class)``; with five axes the fourth is time, with three one class."""
    image, voxels = _load(path)
    axes = {3: "xyz", FOURTH: "xyzc", 5: "xyztc"}.get(image.ndim)
    if axes is None:
        raise ValueError(f"its axes must be (x, y, z, class) or (x, y, z), got shape {image.shape}")
    if (image.dataobj.slope, image.dataobj.inter) != (1, 0):
        voxels = _clipped(voxels.astype(np.float32), abs(float(image.dataobj.slope)) / 2)
    return Stored(as_tensor(voxels), axes, image.header)


def _clipped(voxels: NDArray[np.float32], error: float) -> NDArray[np.float32]:
    """Bring values of a scaled map to 0 or 1 that exceed them by less than its rounding."""
    clipped = voxels.clip(0, 1)
    return np.where(np.abs(voxels - clipped) <= min(error, FLOATING), clipped, voxels)


def read_label_nifti(path: Path, names: Names) -> Stored:
    """Return labels ``(x, y, z)``; those stored as floating numbers are rounded."""
    image, voxels = _load(path)
    if voxels.dtype.kind == "f":
        voxels = _rounded(voxels, float(image.dataobj.slope))
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return Stored(
        as_tensor(voxels), "xyz"[: voxels.ndim] if voxels.ndim < FOURTH else None, image.header
    )


def _load(path: Path) -> tuple[Any, NDArray[Any]]:
    """Read an image and its voxels, and refuse one that the file is too small to hold.

    nibabel does not read a compressed file to its end, where gzip keeps the sum to check it by.
    """
    image = _nibabel("reading .nii").load(path, mmap=False)
    compressed = path.name.lower().endswith(".gz")
    stored = path.stat().st_size * (DEFLATE if compressed else 1)
    check_room(image.shape, image.get_data_dtype().itemsize, stored)
    if not compressed:
        return image, np.asarray(image.dataobj)
    with gzip.open(path) as stream:
        voxels = np.asarray(type(image).from_stream(stream).dataobj)
        while stream.read(2**20):
            pass
    return image, voxels


def _rounded(voxels: NDArray[Any], slope: float) -> NDArray[Any]:
    """Return integers where every voxel is within rounding of one, or else the voxels."""
    whole = np.rint(voxels)
    step = 0.0 if slope == 1 else abs(slope) / 2
    close = np.abs(voxels - whole) <= min(step + FLOATING, SCALED)
    return whole.astype(np.int64) if close.all() else voxels


def affine_of(header: Any) -> NDArray[np.float64] | None:
    """Return where the voxels of a NIfTI lie, or None if its header does not tell.

    What an ITK file tells is the affine itself.
    """
    if header is None or isinstance(header, np.ndarray):
        return header
    if not any(int(header[code]) for code in ("qform_code", "sform_code") if code in header):
        return None
    return np.asarray(header.get_best_affine(), np.float64)


def reorient(
    labels: Tensor, affine: NDArray[np.float64], wanted: NDArray[np.float64], whose: str
) -> Tensor:
    """Flip and permute the axes of labels so that they lie as the voxels of another affine.

    ``whose`` affine that is, a message says.

    Raises
    ------
    ValueError
        If flips and permutations do not bring the voxels to the same places.
    """
    orientations = _nibabel("comparing .nii").orientations
    voxels = labels.reshape(*labels.shape, *[1] * (3 - labels.ndim)).numpy()
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.io_orientation(wanted)
    )
    turned = orientations.apply_orientation(voxels, turn)
    found = affine @ orientations.inv_ornt_aff(turn, voxels.shape[:3])
    sizes = np.linalg.norm(wanted[:3, :3], axis=0)
    stretch = np.linalg.norm((found - wanted)[:3, :3], axis=0) / sizes
    shift = np.linalg.norm((found - wanted)[:3, 3]) / sizes.min()
    if not (stretch.max() <= STRETCH and shift <= SHIFT):
        raise ValueError(
            f"its voxels do not lie where those of {whose} do: the affine is {_told(affine)}, "
            f"that of {whose} {_told(wanted)}, and no flip or permutation of axes makes them "
            f"equal. Resample it, or store it with the affine of {whose}"
        )
    return as_tensor(np.ascontiguousarray(turned))


def _told(affine: NDArray[np.float64]) -> list[list[float]]:
    return [[float(f"{value:.5g}") for value in row] for row in affine[:3]]


def write_nifti(path: Path, labels: NDArray[Any], header: Any, masks: bool) -> None:
    """Write with the affine and the header of the maps, or with the identity.

    Masks ``(classes, *spatial)`` get the class as their fourth axis.
    """
    nibabel = _nibabel("writing .nii")
    if masks:
        spatial = labels.shape[1:] + (1,) * (FOURTH - labels.ndim)
        labels = np.moveaxis(labels.reshape(len(labels), *spatial), 0, -1)
    kind = nibabel.Nifti1Image
    if header is None or isinstance(header, np.ndarray):
        image = kind(labels, np.eye(4) if header is None else header, dtype=labels.dtype)
    else:
        if isinstance(header, nibabel.Nifti2Header):
            kind = nibabel.Nifti2Image
        header = header.copy()
        header.set_data_dtype(labels.dtype)
        header.set_intent("none")  # maps may be stored as vectors
        header["cal_min"] = header["cal_max"] = 0
        image = kind(labels, None, header)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_whole(path, content)


def _nibabel(purpose: str) -> Any:
    return require("nibabel", "files", purpose)
