"""Data sets as lists of files by split, and how an image and its label are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IGNORED = 255
"""The label of pixels that do not count, in every data set after reading."""

IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class Files:
    """Where the image and the label of a case lie."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class DataSet:
    """A data set that was found on disk.

    Attributes
    ----------
    name : str
        Names the folder of its runs.
    classes : tuple of str
        Class 0 first.
    splits : mapping of str to sequence of Files
        ``train``, ``val`` (what calibration is fitted on) and ``test``.
    to_class : callable, optional
        Turns labels as stored, an integer array, into classes and ``IGNORED``.
    frames_per_cluster : int, optional
        Of videos: how many frames in a row count as one observation.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Files]] = field(repr=False)
    to_class: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    frames_per_cluster: int | None = None

    def clusters(self, names: Sequence[str]) -> dict[str, str] | None:
        """Return the cluster of every frame of videos ``VIDEO_FRAME``: frames in a row are alike.

        None if images are independent of each other.
        """
        if self.frames_per_cluster is None:
            return None
        videos: dict[str, list[str]] = {}
        for name in sorted(names):
            videos.setdefault(name.rpartition("_")[0], []).append(name)
        return {
            name: f"{video} {place // self.frames_per_cluster}"
            for video, frames in videos.items()
            for place, name in enumerate(frames)
        }

    def frequencies(self) -> list[float]:
        """Return the fraction of the labelled pixels of the training images in every class."""
        pixels = torch.zeros(256, dtype=torch.int64)
        for files in self.splits["train"]:
            pixels += torch.bincount(self.read_label(files).flatten(), minlength=256)
        counted = pixels[: len(self.classes)].double()
        return (counted / counted.sum()).tolist()

    def read(self, files: Files) -> tuple[Tensor, Tensor]:
        """Return an image, float32 (channels, *spatial), and its label, uint8 (*spatial)."""
        return read_image(files.image), self.read_label(files)

    def read_label(self, files: Files) -> Tensor:
        """Return the label alone; raise ValueError if it holds what is no class."""
        label = read_label(files.label)
        label = label if self.to_class is None else self.to_class(label)
        wrong = np.setdiff1d(label, [*range(len(self.classes)), IGNORED])
        if wrong.size:
            raise ValueError(
                f"{files.label} holds the labels {wrong.tolist()} beside those of the "
                f"{len(self.classes)} classes of {self.name} and {IGNORED} for ignored pixels"
            )
        return torch.from_numpy(label.astype(np.uint8))


def read_image(path: Path) -> Tensor:
    """Return a picture as RGB in [0, 1], or a volume with mean 0 and standard deviation 1."""
    if path.name.endswith((".nii", ".nii.gz")):
        volume = _read_volume(path).astype(np.float32)
        channels = np.moveaxis(volume, -1, 0) if volume.ndim == 4 else volume[None]
        axes = tuple(range(1, channels.ndim))
        centred = channels - channels.mean(axes, keepdims=True)
        return torch.from_numpy(centred / np.maximum(centred.std(axes, keepdims=True), 1e-6))
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def read_label(path: Path) -> NDArray[Any]:
    """Return the label of a picture or a volume as stored."""
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(np.rint(_read_volume(path)), dtype=np.int64)
    with Image.open(path) as image:
        return np.asarray(image)


def _read_volume(path: Path) -> NDArray[Any]:
    import nibabel

    volume: NDArray[Any] = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    return volume


def folder_of_splits(root: str, frames_per_cluster: int | None = None) -> DataSet:
    """Read ``images/``, ``masks/`` (classes, 255 ignored), ``train.txt`` ... and ``meta.json``."""
    folder = _folder(root, "images", "masks", "meta.json", "train.txt", "val.txt", "test.txt")
    meta = json.loads((folder / "meta.json").read_text())
    images = {path.stem: path for path in (folder / "images").iterdir()}
    splits = {}
    for split in ("train", "val", "test"):
        names = (folder / f"{split}.txt").read_text().split()
        splits[split] = _existing(
            Files(
                name, images.get(name, folder / "images" / name), folder / "masks" / f"{name}.png"
            )
            for name in names
        )
    classes = tuple(meta["classes"])
    return DataSet(folder.name, classes, splits, frames_per_cluster=frames_per_cluster)


def nuclei(root: str) -> DataSet:
    """Read nuclei: the images of ``validation.txt`` are the test split, one in six others val."""
    folder = _folder(root, "images", "masks", "validation.txt")
    held_out = set((folder / "validation.txt").read_text().split())
    names = sorted(path.stem for path in (folder / "images").iterdir())
    files = [
        Files(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png")
        for name in names
    ]
    splits = _held_out(files, held_out)
    return DataSet(folder.name, ("background", "nucleus"), splits, lambda label: label > 0)


def decathlon(root: str, test_ids: Sequence[str] = ()) -> DataSet:
    """Read a task of the Medical Segmentation Decathlon by its ``dataset.json``.

    The labels of its test images are not public. ``test_ids`` names cases with labels to be the
    test split instead; without, it is every fifth case. One in six of the others is val.
    """
    folder = _folder(root, "dataset.json", "imagesTr", "labelsTr")
    meta = json.loads((folder / "dataset.json").read_text())
    files = [
        Files(
            Path(pair["image"]).name.split(".")[0], folder / pair["image"], folder / pair["label"]
        )
        for pair in meta["training"]
    ]
    held_out = set(test_ids) or {one.name for one in files[::5]}
    classes = tuple(meta["labels"][str(i)] for i in range(len(meta["labels"])))
    return DataSet(folder.name, classes, _held_out(files, held_out))


def _held_out(files: Sequence[Files], test: set[str]) -> dict[str, Sequence[Files]]:
    """Split files by the names of the test split; one in six of the others is val."""
    others = [one for one in files if one.name not in test]
    val = set(others[::6])
    return {
        "train": _existing(one for one in others if one not in val),
        "val": _existing(one for one in others if one in val),
        "test": _existing(one for one in files if one.name in test),
    }


def _folder(root: str, *needed: str) -> Path:
    """Return a folder; raise FileNotFoundError if it lacks what the data set consists of."""
    folder = Path(root)
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} must hold {', '.join(needed)}; missing: {', '.join(missing)}. "
            "See experiments/DATA.md for how to get the data set"
        )
    return folder


def _existing(files: Any) -> tuple[Files, ...]:
    """Return the files of a split; raise FileNotFoundError if it is empty or some are missing."""
    found = tuple(files)
    missing = [str(path) for one in found for path in (one.image, one.label) if not path.exists()]
    if missing or not found:
        raise FileNotFoundError(
            f"{len(missing)} files of the {2 * len(found)} of a split are missing, first "
            f"{missing[:3]}. Was the archive unpacked completely?"
        )
    return found
