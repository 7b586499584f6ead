"""Label maps of many files: of probability or logit maps, or of images by a model.

`predict_files` is what ``rankseg predict`` calls. Files are decided one by one, some at a time;
what is there already is not done again, and a file that cannot be decided stops no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._api import RankSEG
from rankseg._arguments import choice, integer
from rankseg._formats import (
    IMAGES,
    MAPS,
    NIFTI,
    TIFF,
    WRITTEN,
    MapFile,
    ending_of,
    read_maps,
    stem_of,
    write_labels,
)
from rankseg._optional import require
from rankseg._outcome import Outcome, Track, work_through
from rankseg.integration import transformers
from rankseg.integration._common import resize

__all__ = ["Outcome", "predict_files"]

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]

SCRIPTED: Final = (".pt", ".pth", ".ts")
EXPORTED: Final = ".pt2"


def predict_files(
    inputs: Paths,
    output: str | PathLike[str],
    *,
    ending: str | None = None,
    key: str | None = None,
    model: str | PathLike[str] | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    overwrite: bool = False,
    workers: int = 1,
    track: Track = iter,
    **rankseg_kwargs: Any,
) -> Outcome:
    """Write label maps of files of probability or logit maps, or of images by a model.

    Parameters
    ----------
    inputs : path or sequence of paths
        Files, or folders of files. Maps: ``.npy``, ``.npz``, ``.pt``, ``.safetensors``, ``.tif``
        and ``.zarr`` of floating ``(classes, *spatial)``; ``.nii`` and ``.nii.gz`` of ``(x, y, z,
        classes)``. A TIFF of two axes or a NIfTI of three is one channel. With a model: images,
        ``.png``, ``.jpg`` and ``.tif``.
    output : path
        A folder, made if need be. The label map of ``CASE.npz`` is ``CASE`` and its ending there.
    ending : {'.png', '.npy', '.nii.gz', '.tif', '.zarr'}, optional
        What to write: by default of NIfTI, TIFF and Zarr the same, of others PNG. A PNG has a
        palette, and holds 2-D labels only; NIfTI keeps affine and header. Masks of several
        classes (``output_mode="multilabel"``) are ``(classes, *spatial)``, in NIfTI ``(x, y, z,
        classes)``.
    key : str, optional
        Which array of a file with several; by default ``probs``, ``probabilities`` or ``logits``.
    model : str or path, optional
        A model of Transformers, by its name on the hub or its folder; a TorchScript file
        (``.pt``); or a program of ``torch.export`` (``.pt2``). The last two get float32
        ``(1, channels, height, width)`` and give maps, or a mapping with ``logits`` or ``out``,
        which are resized to the image.
    mean, std : sequence of float
        For these two: an image in [0, 1] is shifted and scaled so, by channel.
    overwrite : bool
        Decide what is there anew.
    workers : int
        Files decided at a time, at least 1.
    track : callable
        Called with the names of the files to be decided; returns them one by one, as
        ``rich.progress.track`` and ``tqdm`` do.
    **rankseg_kwargs
        Options of :class:`rankseg.RankSEG`: ``metric``, ``from_logits``, ``calibration`` and so
        on. What a model of Transformers gives needs no ``from_logits``.

    Returns
    -------
    Outcome
        By the names of the files, without folder. A file that cannot be decided is named in it
        with the reason, and the others are decided all the same.

    Raises
    ------
    FileNotFoundError
        If an input does not exist, or there is nothing to decide.
    ImportError
        If a package that the model needs is missing.
    TypeError, ValueError
        If an option is not allowed, two inputs would be written to one file, or one over itself.

    Examples
    --------
    >>> from rankseg.prediction import predict_files
    >>> predict_files("maps", "labels", metric="dice")  # doctest: +SKIP
    """
    if ending is not None:
        ending = choice("ending", ending, WRITTEN)
    if integer("workers", workers) < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    decide = RankSEG(**rankseg_kwargs)
    source = _Maps(decide, key) if model is None else _open_model(model, rankseg_kwargs, mean, std)
    output = Path(output)
    places = _places(_listed(inputs, source.endings), output, ending)
    output.mkdir(parents=True, exist_ok=True)

    def work(name: str) -> None:
        path, target = places[name]
        labels, like = source.labels(path)
        write_labels(target, labels, like)

    return work_through(
        list(places),
        lambda name: not overwrite and places[name][1].exists(),
        work,
        (Exception,),  # libraries that read files raise what they like
        workers=workers,
        track=track,
    )


def _listed(inputs: Paths, endings: Sequence[str]) -> list[Path]:
    """List the files to decide: those named, and those of a folder with one of these endings."""
    several = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
    files: list[Path] = []
    for path in map(Path, several):
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        if path.is_dir() and ending_of(path) not in endings:
            inside = sorted(one for one in path.iterdir() if not one.name.startswith("."))
            files += [one for one in inside if ending_of(one) in endings]
        else:
            files.append(path)
    if not files:
        raise FileNotFoundError(f"inputs hold no file that ends in one of {list(endings)}")
    return files


def _places(
    files: Sequence[Path], output: Path, ending: str | None
) -> dict[str, tuple[Path, Path]]:
    """Return every file and where its labels go, by name; no two to one place."""
    places: dict[str, tuple[Path, Path]] = {}
    taken: dict[Path, Path] = {}
    for path in files:
        target = output / f"{stem_of(path)}{ending or _usual_ending(path)}"
        if target in taken or path.name in places:
            other = taken.get(target) or places[path.name][0]
            raise ValueError(f"{other} and {path} would both be written to {target}")
        if target.resolve() == path.resolve():
            raise ValueError(f"output must be another folder than that of {path}")
        taken[target] = path
        places[path.name] = path, target
    return places


def _usual_ending(path: Path) -> str:
    ending = ending_of(path)
    usual = {".zarr": ".zarr"} | dict.fromkeys(NIFTI, ".nii.gz") | dict.fromkeys(TIFF, ".tif")
    return usual.get(ending, ".png")


class _Source(Protocol):
    """What makes labels of a file."""

    @property
    def endings(self) -> Sequence[str]:
        """Those of the files that it reads."""
        ...

    def labels(self, path: Path) -> tuple[NDArray[Any], MapFile | None]:
        """Return labels or masks of a file, and maps that lie where they do."""
        ...


@dataclass(frozen=True)
class _Maps:
    """Files of maps."""

    decide: RankSEG
    key: str | None
    endings = MAPS

    def labels(self, path: Path) -> tuple[NDArray[Any], MapFile]:
        found = read_maps(path, self.key)
        return np.asarray(self.decide(found.maps[None])[0]), found


@dataclass(frozen=True)
class HuggingFace:
    """Images, by a model of Transformers and its processor."""

    model: Any
    processor: Any
    options: dict[str, Any]
    endings = IMAGES

    @classmethod
    def open(cls, name: str, options: dict[str, Any]) -> HuggingFace:
        package = require("transformers", "transformers", "deciding images by a model of the hub")
        try:
            model = package.AutoModelForSemanticSegmentation.from_pretrained(name).eval()
        except ValueError:  # of another kind: Mask2Former and its like
            model = package.AutoModelForUniversalSegmentation.from_pretrained(name).eval()
        return cls(model, package.AutoImageProcessor.from_pretrained(name), options)

    @torch.no_grad()
    def labels(self, path: Path) -> tuple[NDArray[Any], None]:
        image = read_image(path)
        outputs = self.model(**self.processor(image, return_tensors="pt"))
        size = [image.shape[:2]]
        (decided,) = transformers.postprocess(
            outputs, model=self.model, target_sizes=size, rankseg_kwargs=self.options
        )
        return decided.numpy(), None


@dataclass(frozen=True)
class _Program:
    """Images, by a network from a file that gives maps."""

    network: Callable[[Tensor], Any]
    decide: RankSEG
    mean: Tensor
    std: Tensor
    endings = IMAGES

    @torch.no_grad()
    def labels(self, path: Path) -> tuple[NDArray[Any], None]:
        image = torch.from_numpy(read_image(path)).movedim(-1, 0)[None] / 255
        maps = self.network((image - self.mean) / self.std)
        for name in ("logits", "out"):
            if isinstance(maps, dict) and name in maps:
                maps = maps[name]
        if not isinstance(maps, Tensor) or maps.dim() != 4:
            raise ValueError(
                "the model must give maps (1, classes, height, width), or a mapping with logits or "
                f"out, got {type(maps).__name__}"
            )
        return self.decide(resize(maps, image.shape[2:]))[0].numpy(), None


def _open_model(
    model: str | PathLike[str],
    options: dict[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
) -> _Source:
    path = Path(model)
    if path.suffix not in (*SCRIPTED, EXPORTED):
        return HuggingFace.open(str(model), options)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        network = _load_network(path)
    except RuntimeError as error:
        raise ValueError(f"{path} holds no model of TorchScript or torch.export") from error
    shift, scale = (torch.tensor(list(some)).view(-1, 1, 1) for some in (mean, std))
    return _Program(network, RankSEG(**options), shift, scale)


def _load_network(path: Path) -> Callable[[Tensor], Any]:
    if path.suffix == EXPORTED:
        program: Callable[[Tensor], Any] = torch.export.load(path).module()
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # who has such a file knows
        network: Callable[[Tensor], Any] = torch.jit.load(path, map_location="cpu").eval()
    return network


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return an image as uint8 (height, width, 3)."""
    image = require("PIL.Image", "files", "reading images").open(path)
    return np.array(image.convert("RGB"))
