"""How the pixels of an image lie in a file and in space, and labels brought to another grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.warn import warn
from rankseg._formats import nifti, tiff

__all__ = ["Grid", "align"]


@dataclass(frozen=True, eq=False)
class Grid:
    """How the pixels of an image lie in its file and in space.

    Parameters
    ----------
    shape : torch.Size
        The lengths of the spatial axes.
    affine : ndarray, optional
        The position of the voxels of a NIfTI file; None if the file has none.
    world : ndarray, optional
        The position of the pixels of a GeoTIFF on the map; None if the file has none.
    axes : str
        A letter for each axis: the axes that a TIFF or zarr declares, or those of all files of the
        format. Empty if the axes are not known.
    are_declared : bool
        Whether the file itself declares its axes.
    """

    shape: torch.Size
    affine: NDArray[np.float64] | None = None
    world: NDArray[np.float64] | None = None
    axes: str = ""
    are_declared: bool = False

    @property
    def lacks_affine(self) -> bool:
        """Whether this is a NIfTI without a position of its voxels."""
        return self.affine is None and not self.are_declared and self.axes.startswith("x")

    def sizes(self) -> dict[str, int]:
        """Return the length of every axis longer than 1, in order; empty if axes are not known."""
        if len(self.axes) != len(self.shape):
            return {}
        named = zip(self.axes, self.shape, strict=True)
        return {axis: length for axis, length in named if length > 1}

    def essential(self) -> list[int]:
        """Return the lengths of the axes longer than 1."""
        return [length for length in self.shape if length > 1]


def align(labels: Tensor, ours: Grid, theirs: Grid, names: tuple[str, str]) -> Tensor:
    """Return labels of one grid with the axes of another: of a prediction with those of the truth.

    Axes of length 1 may differ. If both files have the position of their voxels, axes of the labels
    are flipped and permuted as needed. GeoTIFFs must be at the same position.

    A NIfTI has the axes x, y, z and a PNG y, x, but many files are written from arrays with other
    axes. If the lengths agree only in the order stored, the axes are taken in that order.

    ``names`` are what messages call the labels and what is on the other grid.

    Raises
    ------
    ValueError
        If the shapes or the positions differ, or the files have the same axes in another order.
    """
    mine, other = ours.sizes(), theirs.sizes()
    are_declared = ours.are_declared and theirs.are_declared
    if list(mine) != list(other) and (
        mine == other or (are_declared and mine.keys() == other.keys())
    ):
        raise ValueError(
            f"its axes must be in the order of {names[1]}, {''.join(other)!r}, got "
            f"{''.join(mine)!r}: transpose one of them, or store both in one format"
        )
    _tell_of_affines(ours, theirs, names)
    shape, affine, wanted = theirs.shape, ours.affine, theirs.affine
    if affine is not None and wanted is not None and labels.numel() == shape.numel():
        labels = nifti.reorient(labels, affine, wanted, names[1])
    if Grid(labels.shape).essential() != theirs.essential():
        raise ValueError(
            f"it must be of the shape of {names[1]}, {tuple(shape)}, got {tuple(labels.shape)}"
        )
    if ours.world is not None and theirs.world is not None:
        tiff.refuse_elsewhere(ours.world, theirs.world, shape[-2:], names[1])
    return labels.reshape(shape)


def _tell_of_affines(ours: Grid, theirs: Grid, names: tuple[str, str]) -> None:
    """Warn if one NIfTI has no position of its voxels, but the other one has."""
    for one, another, name in ((ours, theirs, names[0]), (theirs, ours, names[1])):
        if one.lacks_affine and another.affine is not None:
            warn(
                f"the orientation of {name} is not known, for its NIfTI has neither qform nor "
                "sform: it is compared voxel by voxel; store it with the affine of the other NIfTI"
            )
