"""MetaImage and NRRD volumes by SimpleITK, read with the axes of a NIfTI: x, y, z and the class."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._common.optional import require
from rankseg._files.folders import ending
from rankseg._files.whole import write_whole
from rankseg._formats.common import Names, Stored, as_tensor, check_room
from rankseg._formats.nifti import affine_of

__all__ = ["TURN", "read_itk", "write_itk"]

READERS = {".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}

TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From positions of ITK and DICOM (left, posterior, superior) to those of NIfTI."""


def read_itk(path: Path, names: Names) -> Stored:
    """Return ``(x, y, z, class)``, or ``(x, y, z)`` of one value a voxel, with the affine.

    The classes are the components of a voxel, or the fourth axis.
    """
    itk = _itk("reading")
    reader = itk.ImageFileReader()
    reader.SetImageIO(READERS[ending(path)])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    one = itk.Image([1] * reader.GetDimension(), reader.GetPixelID())
    shape = (*reader.GetSize(), reader.GetNumberOfComponents())
    check_room(shape, one.GetSizeOfPixelComponent())
    image = reader.Execute()
    has_components = image.GetNumberOfComponentsPerPixel() > 1
    array = itk.GetArrayFromImage(image)  # z, y, x, and then the components
    array = np.moveaxis(array, -1, 0) if has_components else array
    axes = "xyzc"[: image.GetDimension()] + "c" * has_components
    if len(axes) > len(set(axes)):
        raise ValueError(f"its axes must be (x, y, z, class) or (x, y, z), got shape {shape}")
    return Stored(as_tensor(np.ascontiguousarray(array.T)), axes, _affine(image))


def _affine(image: Any) -> NDArray[np.float64]:
    axes = image.GetDimension()
    affine, space = np.eye(4), min(axes, 3)
    direction = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[:space, :space] = direction[:space, :space]
    affine[:space, 3] = image.GetOrigin()[:space]
    return TURN @ affine


def write_itk(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    """Write at the position of the maps, which an affine or the header of a NIfTI tells."""
    itk = _itk("writing")
    labels = np.moveaxis(labels, 0, -1) if masks else labels
    axes = tuple(reversed(range(labels.ndim - masks)))
    image = itk.GetImageFromArray(labels.transpose(*axes, *[-1] * masks), isVector=masks)
    space, affine = len(axes), affine_of(geometry)
    if affine is not None and space in (2, 3):
        affine = TURN @ affine
        spacing = np.linalg.norm(affine[:space, :space], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:space, 3].tolist())
        image.SetDirection((affine[:space, :space] / spacing).ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:  # SimpleITK writes to files alone
        written = Path(folder, f"labels{ending(path)}")
        itk.WriteImage(image, str(written), useCompression=True)
        write_whole(path, written.read_bytes())


def _itk(doing: str) -> Any:
    return require("SimpleITK", "itk", f"{doing} .mha and .nrrd")
