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

Window = tuple[float, float]
"""The least and largest value that the voxels of a volume are clipped to."""

FOLDS = 5
OFFICIAL = ("train", "val")

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
CITYSCAPES_IDS = {
    **{"road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17},
    **{"traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23},
    **{"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31},
    **{"motorcycle": 32, "bicycle": 33},
}
"""The ids of the 19 classes that Cityscapes evaluates."""

LAND_COLOURS = {
    **{"urban": 0b011, "agriculture": 0b110, "rangeland": 0b101, "forest": 0b010},
    **{"water": 0b001, "barren": 0b111},
}
"""The classes of DeepGlobe land cover and the channels, red to blue, that are 255 in its masks."""


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
    window : tuple of float, optional
        Of volumes: the least and largest value, to which voxels are clipped.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Files]] = field(repr=False)
    to_class: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    frames_per_cluster: int | None = None
    window: Window | None = None

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
        return read_image(files.image, self.window), self.read_label(files)

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


def read_image(path: Path, window: Window | None = None) -> Tensor:
    """Return a picture as RGB in [0, 1], or a volume with mean 0 and standard deviation 1."""
    if path.name.endswith((".nii", ".nii.gz")):
        volume = _read_volume(path).astype(np.float32)
        volume = volume if window is None else volume.clip(*window)
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


def pascal_voc(root: str, voc: str = "VOC2012") -> DataSet:
    """Read PASCAL VOC below ``VOCdevkit``: the official val is test, one in ten of train is val."""
    folder = _folder(
        str(Path(root, "VOCdevkit", voc)),
        *("JPEGImages", "SegmentationClass"),
        *(f"ImageSets/Segmentation/{split}.txt" for split in ("train", "val")),
    )
    lists = {
        split: [
            Files(name, folder / f"JPEGImages/{name}.jpg", folder / f"SegmentationClass/{name}.png")
            for name in (folder / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        ]
        for split in ("train", "val")
    }
    return DataSet("pascal_voc", VOC_CLASSES, _official(lists["train"], lists["val"]))


def cityscapes(root: str) -> DataSet:
    """Read Cityscapes (fine): the official val is test, one in ten of train is val.

    ``gtFine/*_labelIds.png`` hold 34 ids, of which 19 are classes; all others are ignored.
    """
    folder = _folder(root, *(f"{kind}/{s}" for kind in ("leftImg8bit", "gtFine") for s in OFFICIAL))
    lists = []
    for split in OFFICIAL:
        images = sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        names = [path.name.removesuffix("_leftImg8bit.png") for path in images]
        lists.append(
            [
                Files(name, image, labels / f"{name}_gtFine_labelIds.png")
                for name, image in zip(names, images, strict=True)
                for labels in [folder / "gtFine" / split / image.parent.name]
            ]
        )
    table = np.full(256, IGNORED, np.uint8)
    table[list(CITYSCAPES_IDS.values())] = np.arange(len(CITYSCAPES_IDS))
    classes = tuple(CITYSCAPES_IDS)
    return DataSet("cityscapes", classes, _official(*lists), lambda label: table[label])


def ade20k(root: str) -> DataSet:
    """Read ``ADEChallengeData2016``: validation is test, one in ten of training is val.

    Labels are 1 to 150, and 0 is ignored. ``objectInfo150.txt`` names the classes.
    """
    kinds = [
        f"{kind}/{s}" for kind in ("images", "annotations") for s in ("training", "validation")
    ]
    folder = _folder(root, "objectInfo150.txt", *kinds)
    lists = [
        [
            Files(path.stem, path, folder / "annotations" / split / f"{path.stem}.png")
            for path in sorted((folder / "images" / split).glob("*.jpg"))
        ]
        for split in ("training", "validation")
    ]
    lines = (folder / "objectInfo150.txt").read_text().splitlines()[1:]
    classes = tuple(line.split("\t")[-1].strip() for line in lines)
    table = np.array([IGNORED, *range(len(classes))] + [IGNORED] * (255 - len(classes)), np.uint8)
    return DataSet("ade20k", classes, _official(*lists), lambda label: table[label])


def deepglobe_land(root: str) -> DataSet:
    """Read DeepGlobe land cover, ``N_sat.jpg`` beside ``N_mask.png``; every fifth image is test.

    Masks hold a colour for each class, channels of 0 or 255; black is unknown and ignored.
    """
    table = np.full(8, IGNORED, np.uint8)
    table[list(LAND_COLOURS.values())] = np.arange(len(LAND_COLOURS))
    return DataSet(
        "deepglobe_land",
        tuple(LAND_COLOURS),
        _deepglobe(root),
        lambda colours: table[(colours[..., :3] > 127) @ np.array([4, 2, 1])],
    )


def deepglobe_road(root: str) -> DataSet:
    """Read DeepGlobe roads, ``N_sat.jpg`` beside ``N_mask.png``; every fifth image is test."""
    classes = ("background", "road")
    return DataSet("deepglobe_road", classes, _deepglobe(root), lambda mask: mask[..., 0] > 127)


def _deepglobe(root: str) -> dict[str, Sequence[Files]]:
    """Split the labelled images of DeepGlobe, those of its train folder."""
    images = sorted(_folder(root, "train").glob("train/*_sat.jpg"))
    names = [path.name.removesuffix("_sat.jpg") for path in images]
    files = [
        Files(name, path, path.with_name(f"{name}_mask.png"))
        for name, path in zip(names, images, strict=True)
    ]
    return _held_out(files, set(names[::5]))


def lits(root: str, fold: int) -> DataSet:
    """Read LiTS, ``volume-N.nii`` beside ``segmentation-N.nii``; every fifth case is test."""
    folder = _folder(root)
    volumes = sorted(folder.rglob("volume-*.nii*"), key=lambda path: _number(path.name))
    files = [
        Files(
            path.name.split(".")[0],
            path,
            path.with_name(path.name.replace("volume", "segmentation")),
        )
        for path in volumes
    ]
    return _fold("lits", ("background", "liver", "tumour"), files, fold, (-200.0, 250.0))


def kits(root: str, fold: int) -> DataSet:
    """Read KiTS19, ``case_N/imaging.nii.gz`` and ``segmentation.nii.gz``; every fifth is test."""
    files = [
        Files(path.parent.name, path, path.with_name("segmentation.nii.gz"))
        for path in sorted(_folder(root).glob("case_*/imaging.nii.gz"))
    ]
    return _fold("kits", ("background", "kidney", "tumour"), files, fold, (-80.0, 300.0))


def _number(name: str) -> int:
    return int(name.split("-")[1].split(".")[0])


def _fold(
    name: str, classes: tuple[str, ...], files: Sequence[Files], fold: int, window: Window
) -> DataSet:
    """Return a data set whose test split is every fifth case from ``fold`` on."""
    if fold not in range(FOLDS):
        raise ValueError(f"fold must be 0 to {FOLDS - 1}, got {fold}")
    splits = _held_out(files, {one.name for one in files[fold::FOLDS]})
    return DataSet(f"{name}-fold{fold}", classes, splits, window=window)


def _official(train: Sequence[Files], val: Sequence[Files]) -> dict[str, Sequence[Files]]:
    """Return splits whose test is the official val; labels of the official test are not public."""
    validation = train[::10]
    kept = [one for place, one in enumerate(train) if place % 10]
    lists = {"train": kept, "val": validation, "test": val}
    return {split: _existing(files) for split, files in lists.items()}


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
