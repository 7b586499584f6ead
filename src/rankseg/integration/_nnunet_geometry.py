"""Where the voxels of a case of nnU-Net are: from its label map, or else from its pkl file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._files.batch import reason_of
from rankseg._files.small import read_json_object
from rankseg.integration._plain_pickle import LARGEST, read_plain_pickle
from rankseg.integration.common import require

__all__ = ["ENDING", "PLANS", "Geometry", "load_nibabel", "read_object"]

ENDING = ".nii.gz"
PLANS = "plans.json"

REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""The readers of nnU-Net whose maps have the axes of RAS, whatever those of the image."""


STUFF = {"nibabel_stuff", "sitk_stuff"}
"""Under these names a reader of nnU-Net stores where the voxels of an image are."""

STRETCH, SHIFT = 0.001, 0.1
"""How far affines of one image may differ by rounding: steps and origin, in voxels."""

MOST_SHOWN = 16
"""Numbers that a message shows: an affine."""


def load_nibabel() -> ModuleType:
    return require("nibabel", "nnunet", "deciding from folders of nnU-Net")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that nnU-Net writes, and that holds an object."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, which nnUNetv2_predict writes")
    return read_json_object(path)


@dataclass(frozen=True)
class Geometry:
    """The header to write, and whether axes must be turned back to it.

    Parameters
    ----------
    header : nibabel.Nifti1Header
        With the affine.
    size : tuple of int
        The number of voxels along x, y and z, as far as the image has these axes.
    reorient : bool
        Whether the maps have the axes of RAS and not those of the header.
    """

    header: Any
    size: tuple[int, ...]
    reorient: bool

    @classmethod
    def read(cls, case: str, folders: Sequence[Path], shape: tuple[int, ...]) -> Geometry:
        """Take the geometry of nnU-Net's own label map, or that of its pkl file.

        Raises
        ------
        ValueError
            If there is neither, what there is cannot be used, or the maps of the folders do not lie
            alike.
        """
        nibabel = load_nibabel()
        stored = {folder: _properties(folder / f"{case}.pkl") for folder in folders}
        reorient = _all_turned(stored)
        own: list[Geometry] = []
        places: dict[Path, NDArray[np.float64]] = {}
        for folder, properties in stored.items():
            path = folder / f"{case}{ENDING}"
            if path.is_file():
                own.append(cls._of_image(path, shape, reorient))
                places[folder] = own[-1].header.get_best_affine()
            elif isinstance(properties, dict):
                with contextlib.suppress(ValueError):
                    places[folder] = _affine(properties)
        _check_places(places)
        if own:
            return own[0]
        affine = _first_affine(stored, case)
        size = _turned(shape[::-1], affine) if reorient else shape[::-1]
        header = nibabel.Nifti1Image(np.broadcast_to(np.uint8(0), size), affine).header
        header.set_xyzt_units("mm")
        return cls(header, size, reorient)

    @classmethod
    def _of_image(cls, path: Path, shape: tuple[int, ...], reorient: bool) -> Geometry:
        try:
            own = load_nibabel().load(path)
        except Exception as error:  # a broken file may raise anything
            raise ValueError(f"{path} cannot be read: {reason_of(error)}") from error
        geometry = cls(own.header, own.shape, reorient)
        geometry._check(shape, path)
        return geometry

    def _check(self, shape: tuple[int, ...], path: Path) -> None:
        def essential(sizes: Sequence[int]) -> list[int]:
            kept = [size for size in sizes if size > 1]
            return sorted(kept) if self.reorient else kept

        if essential(self.size) != essential(shape[::-1]):
            raise ValueError(
                f"{path} must have the size of the probabilities, {shape[::-1]}, got {self.size}"
            )

    def voxels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array ``(z, y, x)`` with the axes and the size of the header."""
        turned = array.T
        if self.reorient:
            turned = _turn(turned, self.header.get_best_affine())
        return turned.reshape(self.size, order="F")

    def image(self, labels: NDArray[Any]) -> Any:
        """Return labels ``(z, y, x)`` as an image."""
        header = self.header.copy()
        header.set_data_dtype(labels.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        return load_nibabel().Nifti1Image(self.voxels(labels), None, header)


def _turn(array: NDArray[Any], affine: NDArray[Any]) -> NDArray[Any]:
    """Turn an array with the axes of RAS to the axes of an affine."""
    orientations = load_nibabel().orientations
    wanted = orientations.io_orientation(affine)
    steps = orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], wanted)
    turned: NDArray[Any] = orientations.apply_orientation(array, steps)
    return turned


def _turned(size: tuple[int, ...], affine: NDArray[Any]) -> tuple[int, ...]:
    return _turn(np.broadcast_to(np.uint8(0), size), affine).shape


def _all_turned(stored: Mapping[Path, dict[str, Any] | str | None]) -> bool:
    """Tell whether the maps of all folders have the axes of RAS, or those of the image.

    Raises
    ------
    ValueError
        If those of some folders do, and those of others do not.
    """
    folders: dict[bool, Path] = {}
    for folder, properties in stored.items():
        plans = folder / PLANS
        reader = read_object(plans).get("image_reader_writer") if plans.is_file() else None
        known = properties if isinstance(properties, dict) else {}
        turned = reader in REORIENTING or _was_turned(known)
        if turned or reader or not STUFF.isdisjoint(known):  # else the folder does not tell
            folders[turned] = folder
    if len(folders) > 1:
        raise ValueError(
            f"the probabilities in {folders[True]} have the axes of RAS and those in "
            f"{folders[False]} the axes of the image, since other readers of nnU-Net read it: "
            "they cannot be averaged; predict with one reader"
        )
    return True in folders


def _check_places(places: Mapping[Path, NDArray[np.float64]]) -> None:
    """Raise a ValueError if the voxels of two folders lie in different places."""
    for folder, affine in places.items():
        first, wanted = next(iter(places.items()))
        sizes = np.linalg.norm(wanted[:3, :3], axis=0)
        off = np.abs(affine - wanted)[:3] / [*sizes, sizes.min()]
        if not (off <= [STRETCH] * 3 + [SHIFT]).all():
            raise ValueError(
                f"the voxels of {folder} do not lie where those of {first} do, so that their "
                f"probabilities cannot be averaged: the affines are {affine[:3].tolist()} and "
                f"{wanted[:3].tolist()}"
            )


def _was_turned(properties: Mapping[str, Any]) -> bool:
    """Tell whether what nnU-Net stored of the image is of one turned to RAS."""
    return "reoriented_affine" in properties.get(
        "nibabel_stuff", {}
    ) or "original_orientation" in properties.get("sitk_stuff", {})


def _properties(path: Path) -> dict[str, Any] | str | None:
    """Return what nnU-Net stored of the image, or why that cannot be read; None without a file."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            properties = read_plain_pickle(file.read(LARGEST + 1))
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    if not isinstance(properties, dict):
        return f"{path} must hold a dictionary, got {type(properties).__name__}"
    return {name: stuff for name, stuff in properties.items() if isinstance(stuff, dict)}


def _first_affine(
    stored: Mapping[Path, dict[str, Any] | str | None], case: str
) -> NDArray[np.float64]:
    """Return the first affine that a pkl file tells, or say why there is none."""
    reasons = []
    for folder, properties in stored.items():
        if isinstance(properties, str):
            reasons.append(properties)
        elif properties is not None:
            try:
                return _affine(properties)
            except ValueError as error:
                reasons.append(f"{folder / case}.pkl tells no geometry: {error}")
    if reasons:
        raise ValueError(f"there is no {case}{ENDING}, and {'; '.join(reasons)}")
    raise ValueError(f"there is neither {case}{ENDING} nor a {case}.pkl that tells spacing")


def _affine(properties: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the affine, in RAS and millimetres, of what nnU-Net stored of the image."""
    if "nibabel_stuff" in properties:
        affine = _numbers(properties["nibabel_stuff"], "original_affine", (4, 4))
    elif _was_turned(properties):
        raise ValueError("it has the affine of the image turned to RAS, not of the image itself")
    else:
        stuff = properties.get("sitk_stuff", {})
        spacing = _numbers(stuff, "spacing", (3,))
        if not (spacing > 0).all():
            raise ValueError(f"spacing must be positive, got {spacing.tolist()}")
        to_ras = np.diag([-1.0, -1.0, 1.0])  # ITK counts from right to left and front to back
        affine = np.eye(4)
        affine[:3, :3] = to_ras @ _numbers(stuff, "direction", (3, 3)) * spacing
        affine[:3, 3] = to_ras @ _numbers(stuff, "origin", (3,))
    if np.abs(affine).max() > np.finfo(np.float32).max:  # NIfTI stores float32
        raise ValueError(f"the affine must fit into float32, got {affine.tolist()}")
    if np.linalg.matrix_rank(affine[:3, :3]) < len(affine) - 1:
        raise ValueError(f"the axes must not lie in a plane, got the affine {affine.tolist()}")
    return affine


def _numbers(stuff: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return finite numbers that a pkl file has under a name."""
    if name not in stuff:
        raise ValueError(f"it lacks {name!r}")
    try:
        numbers = np.asarray(stuff[name], float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers: {reason_of(error)}") from error
    if numbers.size != np.prod(shape) or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be {' x '.join(map(str, shape))} finite numbers, got "
            f"{numbers.ravel()[:MOST_SHOWN].tolist()}"
        )
    return numbers.reshape(shape)
