"""NIfTI volumes, whose axes are x, y, z and then the class."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._files import write_whole
from rankseg._formats._common import Names, as_tensor
from rankseg.integration._common import require

__all__ = ["read_label_nifti", "read_nifti", "write_nifti"]

FOURTH = 4
"""The axes of an image that has one value per class in each voxel."""


def read_nifti(path: Path, names: Names) -> tuple[Any, Any]:
    """Return maps ``(classes, x, y, z)`` and the header; three axes are one class."""
    image = _nibabel("reading .nii").load(path)
    if image.ndim not in (3, FOURTH):
        raise ValueError(f"its axes must be (x, y, z, class) or (x, y, z), got shape {image.shape}")
    voxels = np.asarray(image.dataobj)
    maps = np.moveaxis(voxels, -1, 0) if image.ndim == FOURTH else voxels[None]
    return as_tensor(maps), image.header


def read_label_nifti(path: Path, names: Names) -> Any:
    """Return labels ``(x, y, z)``; integers that are stored as floating numbers are integers."""
    voxels = np.asarray(_nibabel("reading .nii").load(path).dataobj)
    if voxels.dtype.kind == "f" and np.array_equal(voxels, np.rint(voxels)):
        voxels = voxels.astype(np.int64)
    return as_tensor(voxels)


def write_nifti(path: Path, labels: NDArray[Any], header: Any, masks: bool) -> None:
    """Write with the affine and the header of the maps, or with the identity.

    Masks ``(classes, *spatial)`` get the class as their fourth axis.
    """
    nibabel = _nibabel("writing .nii")
    if masks:
        spatial = labels.shape[1:] + (1,) * (FOURTH - labels.ndim)
        labels = np.moveaxis(labels.reshape(len(labels), *spatial), 0, -1)
    kind = nibabel.Nifti1Image
    if header is None:
        image = kind(labels, np.eye(4), dtype=labels.dtype)
    else:
        if isinstance(header, nibabel.Nifti2Header):
            kind = nibabel.Nifti2Image
        header = header.copy()
        header.set_data_dtype(labels.dtype)
        header["cal_min"] = header["cal_max"] = 0
        image = kind(labels, None, header)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    write_whole(path, content)


def _nibabel(purpose: str) -> Any:
    return require("nibabel", "files", purpose)
