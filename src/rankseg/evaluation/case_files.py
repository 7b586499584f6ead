"""The files of labelled cases, in any format that maps and labels are read from."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from rankseg._common.warn import about
from rankseg._decision.problem import Problem
from rankseg._decision.settings import Settings
from rankseg._files.folders import ending, files_of, shortened, stem
from rankseg._formats import (
    IN_SPACE,
    MAPS,
    Grid,
    HoldsMapsError,
    LabelFile,
    MapFile,
    read_label_file,
    read_maps,
    with_data,
)
from rankseg._formats.nifti import affine_of
from rankseg.evaluation.label_folders import LabelFolder, fitted, pixels_with_data
from rankseg.evaluation.labelled_cases import Case
from rankseg.integration.nnunet_folders import (
    holds_probabilities,
    read_case,
    read_probabilities,
)

__all__ = ["CaseFiles", "find_maps", "is_of_nnunet"]

WITH_LABELS: Final = (".npz", ".zarr")
"""The endings of files that may hold both maps and their label."""

BESIDE: Final = (".pkl", ".nii.gz")
"""The endings of the files by which nnU-Net tells where the voxels of its maps lie."""

COUNTED: Final = 3
"""Maps that are read to tell how many classes there are."""

OF_LABEL, OF_MASK = ("the label", "the maps"), ("the mask of valid pixels", "the maps")
"""What messages call the label and the mask of a case, and what they must fit."""


def find_maps(path: Path, labelled: bool) -> dict[str, list[Path]]:
    """Return the files that may hold maps, by their names without endings, sorted.

    ``labelled`` is True if labels are in files of their own.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or the folder holds no map.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} is not a folder")
    files = [path]
    endings = MAPS if labelled else WITH_LABELS
    if path.is_dir() and ending(path) != ".zarr":
        files = files_of(path, endings)
    if not files:
        hint = "" if labelled else "; name the folder of their labels by labels (--labels)"
        others = not labelled and any(ending(file) in MAPS for file in path.iterdir())
        raise FileNotFoundError(
            f"{path} holds no file with an ending of {list(endings)}{hint if others else ''}"
        )
    cases: dict[str, list[Path]] = {}
    for file in files:
        cases.setdefault(stem(file), []).append(file)
    return dict(sorted(cases.items()))


def is_of_nnunet(file: Path) -> bool:
    """Return whether ``nnUNetv2_predict --save_probabilities`` wrote a file."""
    beside = (file.parent / f"{stem(file)}{suffix}" for suffix in BESIDE)
    return ending(file) == ".npz" and any(map(Path.is_file, beside)) and holds_probabilities(file)


@dataclass(frozen=True, eq=False)
class CaseFiles:
    """Where maps and labels of all cases are, and how maps are read.

    Parameters
    ----------
    maps : mapping of str to sequence of Path
        The files of each case that may hold its maps.
    labels : LabelFolder, optional
        Without it the label is in the file of the maps.
    valid : LabelFolder, optional
        Masks, 0 where a pixel does not count.
    key, from_logits : str, optional
        As for `rankseg.prediction.predict_files`.
    """

    maps: Mapping[str, Sequence[Path]]
    labels: LabelFolder | None = None
    valid: LabelFolder | None = None
    key: str | None = None
    from_logits: str | None = None

    def read(self, name: str, labelled: bool = True, ignore_index: int | None = None) -> Case:
        """Read a case, without the pixels that have no data; unlabelled it is of label 0.

        Pixels whose label has the value that a file of labels declares for those without data
        become ``ignore_index``; without one, they are left out.

        Raises
        ------
        ImportError
            If the package that reads a format is not installed.
        ValueError
            If a file is missing or cannot be read, several hold the maps or labels of the case,
            they do not fit each other, or no pixel has data.
        """
        with about(name):
            path = self._file_of_maps(name)
            label = self._label(name, path) if labelled else None
            found = self._maps(path, label is not None and ending(label.path) in IN_SPACE)
            valid = with_data(found, self.from_logits)
            labels = torch.zeros(found.grid.shape, dtype=torch.long, device="cpu")
            if label is not None:
                labels = fitted(label, found.grid, OF_LABEL).long()
                has_label = pixels_with_data(label, labels, max(2, len(found.maps)))
                if has_label is not None and ignore_index is not None:
                    labels = labels.masked_fill(~has_label, ignore_index)
                else:
                    valid = _both(valid, has_label)
            if self.valid is not None:
                valid = _both(valid, fitted(self.valid.read(name), found.grid, OF_MASK) != 0)
            return self._case(name, found.maps, labels, valid)

    def count_classes(self) -> int:
        """Return how many classes most of the first maps have that can be read, or 0."""
        counts: Counter[int] = Counter()
        for name in self.maps:
            # The fault of a case that cannot be read is named where it is read.
            with about(name), contextlib.suppress(Exception):
                counts[len(self._maps(self._file_of_maps(name), in_nifti=False).maps)] += 1
            if counts.total() == COUNTED:
                break
        return max(counts, key=counts.__getitem__, default=0)

    def _file_of_maps(self, name: str) -> Path:
        """Return the only file of maps: nnU-Net keeps its own label map beside them."""
        paths = self.maps.get(name, ())
        if not paths:
            raise ValueError(f"there are no maps of {name!r}, only of {shortened(self.maps)}")
        if len(paths) > 1:
            paths = [path for path in paths if is_of_nnunet(path)] or paths
        if len(paths) > 1:
            raise ValueError(
                f"several files may hold its maps, {' and '.join(map(str, paths))}: keep one of "
                "them"
            )
        return paths[0]

    def _label(self, name: str, path: Path) -> LabelFile:
        """Read the label of a case, from a file of its own or from that of the maps."""
        if self.labels is not None:
            return self.labels.read(name)
        try:
            return read_label_file(path)
        except HoldsMapsError as error:
            raise ValueError(
                f"{error}: store the label beside the maps as 'label', or name the folder of "
                "labels by labels (--labels)"
            ) from error

    def _maps(self, path: Path, in_nifti: bool) -> MapFile:
        """Read maps; those of nnU-Net with the axes of the label, which may lie in a NIfTI."""
        if self.from_logits is not None or self.key is not None or not is_of_nnunet(path):
            return read_maps(path, self.key, self.from_logits)
        if not in_nifti:
            maps = torch.from_numpy(read_probabilities(path))
            return MapFile(maps, Grid(maps.shape[1:], axes="zyx"))
        array, header = read_case(path)
        maps = torch.from_numpy(array)
        axes = "xyz"[: maps.ndim - 1]
        return MapFile(maps, Grid(maps.shape[1:], affine_of(header), axes=axes))

    def _case(self, name: str, maps: Tensor, labels: Tensor, valid: Tensor | None) -> Case:
        if valid is not None and valid.all():
            valid = None
        if valid is not None:
            maps, labels = maps[:, valid], labels[valid]
            if not labels.numel():
                raise ValueError("no pixel has data: all are NaN, declared as nodata or not valid")
        if self.from_logits is not None:
            problem = Problem.parse(maps[None], None, Settings(from_logits=self.from_logits))
            problem.check_values(~maps.isfinite().all())
            maps = problem.of_probabilities().probs[0]
        return Case(name, maps, labels, valid)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one & other
