"""DICOM segmentations, written by highdicom at the place of a folder of DICOM slices."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg._formats.grid import Grid, align
from rankseg._formats.itk import TURN
from rankseg._version import __version__

__all__ = ["Series", "read_series", "write_dicom"]

SERIES_NUMBER = 300


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one DICOM series in the order of their place.

    Parameters
    ----------
    slices : sequence
        The data sets, without pixels.
    affine : ndarray
        Where the voxels (x, y, z) lie, as for a NIfTI.
    num_classes : int
        How many classes the maps have that are decided.
    """

    slices: list[Any]
    affine: NDArray[np.float64]
    num_classes: int

    def align(self, labels: Tensor, grid: Grid, masks: bool) -> Tensor:
        """Return labels with the axes z, y, x of the slices; of masks, each.

        Labels of a grid with an affine are turned to it, others must have these axes.
        """
        if masks:
            return torch.stack([self.align(one, grid, False) for one in labels])
        shape = (len(self.slices), self.slices[0].Rows, self.slices[0].Columns)
        names = ("the label map", "the DICOM slices")
        if grid.affine is None:
            return align(labels, grid, Grid(torch.Size(shape)), names)
        theirs = Grid(torch.Size(shape[::-1]), self.affine, axes="xyz")
        return align(labels, grid, theirs, names).permute(2, 1, 0)


def read_series(folder: Path, num_classes: int) -> Series:
    """Read the slices of a folder, without their pixels, for maps of so many classes.

    Raises
    ------
    ImportError
        If highdicom is not installed.
    ValueError
        If the folder does not hold the slices of one series, at equal distances.
    """
    pydicom = require("pydicom", "dicom", "reading DICOM slices")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    series = {one.SeriesInstanceUID for one in slices}
    if len(series) != 1:
        raise ValueError(f"{folder} must hold the slices of one DICOM series, got {len(series)}")
    across = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(np.float64)
    normal = np.cross(*across)
    slices.sort(key=lambda one: float(normal @ np.asarray(one.ImagePositionPatient, np.float64)))
    places = np.array([one.ImagePositionPatient for one in slices], np.float64)
    steps = np.diff(places, axis=0)
    if len(steps) and not np.allclose(steps, steps[0], atol=0.01):  # millimetres
        raise ValueError(f"the slices of {folder} must be at equal distances: one may be missing")
    height, width = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = across[0] * width, across[1] * height
    affine[:3, 2] = steps[0] if len(steps) else normal
    affine[:3, 3] = places[0]
    return Series(slices, TURN @ affine, num_classes)


def write_dicom(path: Path, labels: NDArray[Any], series: Any, masks: bool) -> None:
    """Write a binary segmentation with a segment for each class but the background, label 0.

    Masks ``(classes, z, y, x)`` give a segment for each class.
    """
    if not isinstance(series, Series):
        raise ValueError("a .dcm needs the slices of the image: name their folder by dicom")
    highdicom = require("highdicom", "dicom", "writing .dcm")
    codes = require("pydicom.sr.codedict", "dicom", "writing .dcm").codes
    held = range(series.num_classes) if masks else range(1, max(2, series.num_classes))
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"class {held_class}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name="rankseg", version=__version__, family=codes.DCM.ArtificialIntelligence
            ),
        )
        for number, held_class in enumerate(held, 1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=series.slices,
        pixel_array=np.moveaxis(labels, 0, -1) if masks else labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="rankseg",
        manufacturer_model_name="rankseg",
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=bool(labels.any()),
    )
    content = io.BytesIO()
    segmentation.save_as(content)
    write_whole(path, content.getvalue())
