"""What a visitor of the page uploaded, as a case to decide."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.optional import require
from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg._formats import MAPS, PICTURES, ending, read_image, stem
from rankseg._formats.common import LABEL_NAMES
from rankseg.app.shown import LARGEST_SIDE
from rankseg.evaluation import Case, cases
from rankseg.integration.transformers import restore_semantic_probs
from rankseg.prediction.networks import load_transformers, run_transformers, to_pixels

__all__ = ["Form", "Upload", "example_count", "read_upload"]

ZARR_ARCHIVE: Final = ".zarr.zip"
ARCHIVES: Final = (".npz", ".pt", ".zip")
PIECE: Final = 1 << 20  # bytes read at a time

EMBEDDED: Final = (
    "The probabilities are those of the small network behind the examples, which knows no other "
    "pictures than such drawn ones; name a model for yours."
)


class Form(NamedTuple):
    """What the visitor chose, in the order of the inputs of the page."""

    maps: str | None
    truth: str | None
    image: str | None
    example: int
    from_logits: str
    metric: str
    solver: str
    pruning_prob: float
    correlation: float
    smooth: float
    key: str
    classes: str
    ignore_index: float | None
    model: str


@dataclass(frozen=True, eq=False)
class Upload:
    """The case to decide.

    Attributes
    ----------
    case : Case or Tensor
        A case; or probabilities alone, (classes, *spatial).
    labelled : bool
        Whether the label of the case is its truth.
    classes : sequence of str, optional
        The names of the classes.
    image : ndarray, optional
        uint8 (height, width, 3).
    ignore_index : int, optional
        Pixels whose true label has this value do not count.
    note : str
        What the page says of the maps.
    """

    case: Case | Tensor
    labelled: bool = False
    classes: Sequence[str] | None = None
    image: NDArray[np.uint8] | None = None
    ignore_index: int | None = None
    note: str = ""


def example_count() -> int:
    """Return how many examples there are."""
    return len(_sample().probs)


_sample = cache(load_sample)  # read once, not at every change


def read_upload(form: Form, scratch: Path, largest: int | None = None) -> Upload:
    """Return the case that a form names.

    Parameters
    ----------
    form : Form
        An example if no maps are uploaded.
    scratch : Path
        A folder for files that are unpacked.
    largest : int, optional
        Files that unpack to more bytes are refused.

    Raises
    ------
    ImportError, OSError, TypeError, ValueError
        If a file cannot be read, or files do not fit each other.
    """
    for uploaded in (form.maps, form.truth, form.image):
        if uploaded is not None and largest is not None:
            _check_unpacked(Path(uploaded), largest)
    names = [name.strip() for name in form.classes.split(",")] if form.classes.strip() else None
    if form.maps is None:
        if form.truth is not None or form.image is not None:
            raise ValueError("upload the probability maps that the truth or image belongs to")
        return _example(form.example)
    path = Path(form.maps)
    suffix = ending(path)
    is_map = suffix in MAPS or path.name.lower().endswith(ZARR_ARCHIVE)
    if is_map and not (form.model and suffix in PICTURES):  # a TIFF may hold maps or an image
        return _labelled_maps(form, scratch, names, largest)
    return _image(form, scratch, names, largest)


def _example(number: int) -> Upload:
    sample = _sample()
    case = Case(f"example {number}", sample.probs[number], sample.labels[number])
    return Upload(case, True, sample.classes, sample.images[number])


def _labelled_maps(
    form: Form, scratch: Path, names: Sequence[str] | None, largest: int | None
) -> Upload:
    """Read maps, and their truth from a file of its own or from that of the maps."""
    path = _unpacked(Path(str(form.maps)), scratch, largest)
    labels = None if form.truth is None else _beside(path, Path(form.truth), scratch, largest)
    index = None if form.ignore_index is None else int(form.ignore_index)
    labelled = labels is not None or _holds_label(path)
    found = cases(
        path,
        labels,
        key=form.key.strip() or None,
        from_logits=form.from_logits or None,
        ignore_index=index if labelled else None,
    )
    case = found.read(stem(path), labelled=labelled)
    image = None if form.image is None else to_pixels(read_image(form.image).maps)
    note = _doubt(case, index) if labelled else ""
    return Upload(case, labelled, names, image, index, note)


def _doubt(case: Case, ignore_index: int | None) -> str:
    """Say so if a truth holds no pixel of a class but the first that counts."""
    counted = case.label if ignore_index is None else case.label[case.label != ignore_index]
    if (counted > 0).any() or ignore_index is None or not (case.label == ignore_index).any():
        return ""
    return (
        "No pixel of the truth that counts is of class 1 or above: if "
        f"{ignore_index} is foreground there, empty the field of the ignored label."
    )


def _beside(maps: Path, truth: Path, scratch: Path, largest: int | None) -> Path:
    """Return a folder with the truth under the name of the maps, as `cases` finds it."""
    truth = _unpacked(truth, scratch, largest)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    place = folder / f"{stem(maps)}{ending(truth)}"
    if truth.is_dir():
        truth.rename(place)
    else:
        shutil.copyfile(truth, place)
    return folder


def _holds_label(path: Path) -> bool:
    """Return whether a file of maps holds their label, too."""
    if path.is_dir():
        return any((path / name).is_dir() for name in LABEL_NAMES)
    if ending(path) != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return not {f"{name}.npy" for name in LABEL_NAMES}.isdisjoint(archive.namelist())


def _unpacked(path: Path, scratch: Path, largest: int | None) -> Path:
    """Return the folder in an archive ``NAME.zarr.zip``, or the file itself."""
    if not path.name.lower().endswith(ZARR_ARCHIVE):
        return path
    folder = Path(tempfile.mkdtemp(dir=scratch))
    place = folder / path.name[: -len(".zip")]
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path.name} must be a zip archive of a zarr folder")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(place)
    inside = sorted(place.iterdir())
    if len(inside) == 1 and inside[0].is_dir():  # the folder itself was packed
        os.replace(inside[0], folder / "inside")
        place.rmdir()
        os.replace(folder / "inside", place)
    if largest is not None:
        _check_unpacked(place, largest)
    return place


def _check_unpacked(path: Path, largest: int) -> None:
    """Refuse a file that unpacks to more than ``largest`` bytes, before it is read."""
    if _unpacked_size(path, largest) > largest:
        raise ValueError(
            f"{path.name} must unpack to at most {largest >> 20} MB here, got more: reduce it, or "
            "run `rankseg app` on your machine"
        )


def _unpacked_size(path: Path, largest: int) -> int:
    """Return how many bytes a file or zarr folder unpacks to, or a number above ``largest``."""
    suffix = ending(path)
    if suffix in ARCHIVES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(one.file_size for one in archive.infolist())
    if path.suffix.lower() == ".gz":
        size = 0
        with gzip.open(path) as packed:
            while size <= largest and (piece := packed.read(PIECE)):
                size += len(piece)
        return size
    if suffix == ".zarr":
        node = require("zarr", "files", "reading .zarr").open(path, mode="r")
        members = [node] if hasattr(node, "nbytes") else [one for _, one in node.members(None)]
        return sum(getattr(one, "nbytes", 0) for one in members)
    if suffix in (".tif", ".tiff"):
        with require("tifffile", "files", "reading .tif").TiffFile(path) as file:
            return sum(series.nbytes for series in file.series)
    return path.stat().st_size


def _image(form: Form, scratch: Path, names: Sequence[str] | None, largest: int | None) -> Upload:
    """Return the maps that a network gives for an image: of the model, or of the examples."""
    if form.image is not None:
        raise ValueError("the first file is an image already: remove the other image")
    image, note = _reduced(read_image(str(form.maps)).maps)
    classes: Sequence[str]
    if form.model:
        maps, classes = _maps_of_transformers(form.model, image)
    else:
        maps, classes, note = maps_of_image(image), _sample().classes, f"{note} {EMBEDDED}".strip()
    classes, pixels = names or classes, to_pixels(image)
    if form.truth is None:
        return Upload(maps, False, classes, pixels, note=note)
    path = Path(tempfile.mkdtemp(dir=scratch)) / "image.npy"
    np.save(path, maps.float().numpy())
    labelled = form._replace(maps=str(path), from_logits="", key="")
    found = _labelled_maps(labelled, scratch, names, largest)
    note = f"{note} {found.note}".strip()
    return Upload(found.case, True, classes, pixels, found.ignore_index, note)


def _reduced(image: Tensor) -> tuple[Tensor, str]:
    """Return an image ``(3, height, width)`` and a note.

    The image is reduced if a side exceeds `LARGEST_SIDE`; the note says so, and is empty if not.
    """
    given = image.shape[1:]
    scale = LARGEST_SIDE / max(given)
    if scale >= 1:
        return image, ""
    size = [max(1, round(scale * side)) for side in given]
    reduced = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return reduced, (
        f"The image of {given[0]} x {given[1]} pixels was reduced to {size[0]} x {size[1]} first; "
        "`rankseg predict --model` decides it as it is."
    )


def _maps_of_transformers(name: str, image: Tensor) -> tuple[Tensor, Sequence[str]]:
    """Return the probabilities that a model of Transformers gives for an image."""
    network, processor = load_transformers(name)
    (probs,) = restore_semantic_probs(
        run_transformers(network, processor, image),
        model=network,
        target_sizes=[tuple(image.shape[1:])],
    )
    labels = network.config.id2label
    return probs, [str(labels.get(number, number)) for number in range(len(probs))]
