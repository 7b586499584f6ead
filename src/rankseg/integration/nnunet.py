"""nnU-Net v2: decide from the probabilities it saves, or inside its predictor.

:func:`decide_folders` reads what ``nnUNetv2_predict --save_probabilities`` wrote and needs nibabel,
not nnU-Net. :func:`enable` makes a predictor of nnU-Net itself decide by RankSEG.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankseg._common.arguments import integer
from rankseg._decision.module import RankSEG
from rankseg._files.batch import OTHER_FOLDER, Outcome, Record, Track, reason_of, work_through
from rankseg._files.folders import file_of, files_of
from rankseg._files.whole import identify, reserve, write_whole
from rankseg._formats.arrays import refuse_appended
from rankseg.integration._nnunet_geometry import (
    ENDING,
    PLANS,
    Geometry,
    load_nibabel,
    read_object,
)
from rankseg.integration.common import require

__all__ = ["ClassMaps", "Outcome", "decide_folders", "enable"]

KEY = "probabilities"
DATASET = "dataset.json"
LARGEST_LABEL = 65535

PIECE = 1 << 18
"""Probabilities decompressed at a time."""

MOST_PER_BYTE = 1032
"""The bytes that one byte of a compressed file can stand for: the most of Deflate."""


@dataclass(frozen=True)
class ClassMaps:
    """The maps of a case, one class at a time; of several files, their average.

    Iterating gives float32 arrays ``(z, y, x)``. A file is decompressed as it is read, so that one
    map is in memory, however many classes and files there are. The average is rounded as that of
    nnU-Net is: a sum in float32, divided by the number of files.

    Parameters
    ----------
    files : tuple of Path
        npz files with the array ``probabilities``, floating ``(classes, z, y, x)``.
    shape : tuple of int
        That of all of them.

    Examples
    --------
    >>> from rankseg.integration.nnunet import ClassMaps
    >>> maps = ClassMaps.open("fold_0/case.npz", "fold_1/case.npz")  # doctest: +SKIP
    >>> volumes = [float(probs.sum()) for probs in maps]  # doctest: +SKIP
    """

    files: tuple[Path, ...]
    shape: tuple[int, ...]

    @classmethod
    def open(cls, *files: str | PathLike[str]) -> ClassMaps:
        """Look at the shapes, and at nothing else yet.

        Raises
        ------
        ValueError
            If a file cannot be read, lacks the array, or the arrays are not alike.
        """
        shapes = {}
        for file in map(Path, files):
            with _member(file) as member:
                shapes[file] = member.shape
        if len(set(shapes.values())) != 1:
            listed = ", ".join(f"{shape} in {file.parent}" for file, shape in shapes.items())
            raise ValueError(f"the probabilities to average must be alike in shape, got {listed}")
        return cls(tuple(shapes), next(iter(shapes.values())))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        with contextlib.ExitStack() as stack:
            members = [stack.enter_context(_member(file)) for file in self.files]
            for _ in range(len(self)):
                total = np.zeros(self.shape[1:], np.float32)
                with np.errstate(
                    invalid="ignore", over="ignore"
                ):  # a spoilt file is reported later
                    for member in members:
                        member.add_next(total)
                if len(members) > 1:
                    total /= len(members)
                yield total


def decide_folders(
    folders: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    overwrite: bool = False,
    track: Track = iter,
    **rankseg_kwargs: Any,
) -> Outcome:
    """Write the label maps of all cases that nnU-Net saved the probabilities of.

    Parameters
    ----------
    folders : path or sequence of paths
        What ``nnUNetv2_predict --save_probabilities`` wrote: ``CASE.npz``, its own label map
        ``CASE.nii.gz`` or else ``CASE.pkl``, and ``dataset.json``. Probabilities of several folders
        are averaged, as ``nnUNetv2_ensemble`` does.
    output : path
        The folder to write ``CASE.nii.gz`` to, with the geometry and the dtype of nnU-Net's own,
        and ``rankseg.json``: the options, and path, size and date of the probabilities. It is made
        if need be.
    overwrite : bool
        Decide the cases anew whose label map is there.
    track : callable
        Called with the names of the cases to be decided; returns them one by one, as
        ``rich.progress.track`` and ``tqdm`` do.
    **rankseg_kwargs
        Options of :class:`rankseg.RankSEG`, except ``output_mode`` and ``from_logits``. Regions
        are decided each by itself and painted in the order of ``regions_class_order``.

    Returns
    -------
    Outcome
        A case that cannot be decided is named in it with the reason, and the others are decided
        all the same. A file is written whole or not at all.

    Raises
    ------
    ImportError
        If nibabel is not installed.
    FileNotFoundError
        If a folder, its npz files or its ``dataset.json`` are missing.
    OSError
        If ``output`` cannot be made or written to.
    KeyboardInterrupt
        On an interrupt; its text says how many cases are written, ``outcome`` says which.
    TypeError, ValueError
        If an option is not allowed, the folders are of different labels, ``output`` is one of
        them, or it holds label maps made with other options, of other probabilities or by no run
        that ``rankseg.json`` lists, or another ``dataset.json``.

    Notes
    -----
    Regions take one map in memory and the labels. Classes that exclude each other are decided
    together: their maps lie in a temporary file in ``output``, of 4 bytes per voxel and class,
    which is mapped into memory; the system may drop its pages whenever memory is short. A case for
    which the disk has no room is named in the outcome.

    Examples
    --------
    >>> from rankseg.integration.nnunet import decide_folders
    >>> decide_folders(["fold_0", "fold_1"], "decided", metric="dice")  # doctest: +SKIP
    """
    load_nibabel()  # before the work
    sources = _check_folders(folders)
    output = Path(output)
    if os.path.realpath(output) in map(os.path.realpath, sources):
        raise ValueError(f"output must be another folder than those read, got {output}")
    labels = _Labels.read(sources)
    decide = _decision(labels.regions, rankseg_kwargs)
    cases = sorted({file.stem for folder in sources for file in _maps_of(folder)})
    folders_read = [os.path.realpath(folder) for folder in sources]
    record = Record(
        output,
        {"folders": folders_read, "labels": asdict(labels), "options": asdict(decide.settings)},
        {case: [identify(file_of(folder, case, ".npz")) for folder in sources] for case in cases},
        lambda case: (output / f"{case}{ENDING}").is_file(),
    )
    beside = _files_beside(sources[0], output, overwrite)
    record.keep(overwrite)
    for path, content in beside.items():
        write_whole(path, content)
    outcome = work_through(
        cases,
        lambda case: _decide_case(case, sources, output, labels, decide),
        is_written=record.is_written,
        overwrite=overwrite,
        track=track,
    )
    record.finish(outcome)
    return outcome


def _files_beside(source: Path, output: Path, overwrite: bool) -> dict[Path, bytes]:
    """Return what nnU-Net puts beside its label maps, and is not beside them yet."""
    files = {}
    for name in (DATASET, PLANS):
        path = output / name
        content = (source / name).read_bytes() if (source / name).is_file() else None
        if content is None or (path.is_file() and path.read_bytes() == content):
            continue
        if os.path.lexists(path) and not overwrite:
            raise ValueError(f"{path} differs from {source / name}{OTHER_FOLDER}")
        files[path] = content
    return files


def enable(predictor: Any, **rankseg_kwargs: Any) -> Any:
    """Make an initialised ``nnUNetPredictor`` decide by RankSEG, in its worker processes too.

    Parameters
    ----------
    predictor : nnUNetPredictor
        After ``initialize_from_trained_model_folder`` or ``manual_initialization``. Its
        ``plans_manager`` and ``label_manager`` are replaced.
    **rankseg_kwargs
        Options of :class:`rankseg.RankSEG`, except ``output_mode`` and ``from_logits``.

    Returns
    -------
    nnUNetPredictor
        The same predictor.

    Raises
    ------
    ImportError
        If nnU-Net is not installed.
    TypeError, ValueError
        If an option is not allowed, or the predictor is none, not initialised, or has a label
        manager of its own.

    Notes
    -----
    nnU-Net decides in the box that is not empty. The voxels outside, which are background for
    certain, count in :func:`decide_folders` and not here: of Dice and IoU, the background may be
    decided otherwise at few voxels.

    Examples
    --------
    >>> from rankseg.integration.nnunet import enable
    >>> enable(predictor, metric="dice").predict_from_files("in", "out")  # doctest: +SKIP
    """
    require("nnunetv2", "nnunet", "deciding inside a predictor of nnU-Net")
    from rankseg.integration._nnunet_hook import RankSEGPlansManager

    plans = getattr(predictor, "plans_manager", None)
    if plans is None:
        raise ValueError(
            "predictor must be an nnUNetPredictor that is initialised, got "
            f"{type(predictor).__name__} without plans_manager"
        )
    decide = _decision(predictor.label_manager.has_regions, rankseg_kwargs)
    plans = RankSEGPlansManager(plans.plans, decide)
    predictor.label_manager = plans.get_label_manager(predictor.dataset_json)
    predictor.plans_manager = plans
    return predictor


def _decision(regions: bool, rankseg_kwargs: Mapping[str, Any]) -> RankSEG:
    """Return the decision for labels or regions of nnU-Net, where every voxel has a label."""
    fixed = sorted({"output_mode", "from_logits"} & set(rankseg_kwargs))
    if fixed:
        raise TypeError(f"{fixed} follow from the labels of nnU-Net and cannot be chosen")
    if rankseg_kwargs.get("unassigned_policy", "max_score") != "max_score":
        raise ValueError(
            "unassigned_policy must be 'max_score', as nnU-Net has no label for void voxels, got "
            f"{rankseg_kwargs['unassigned_policy']!r}"
        )
    mode = "multilabel" if regions else "multiclass"
    return RankSEG(output_mode=mode, **rankseg_kwargs)


@dataclass(frozen=True)
class _Labels:
    """What the channels stand for: labels in order, or regions by the label they are painted in."""

    by_channel: tuple[int, ...]
    regions: bool
    named: tuple[tuple[str, tuple[Any, ...]], ...]
    """The name of every label or region, with its labels: of regions in their order."""

    @classmethod
    def read(cls, folders: Sequence[Path]) -> _Labels:
        """Read ``dataset.json`` of every folder; all must say the same."""
        found = {folder: cls._parse(folder / DATASET) for folder in folders}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{dict(labels.named)} in {path}" for path, labels in found.items())
            raise ValueError(f"folders must be of the same labels, got {listed}")
        return found[folders[0]]

    @classmethod
    def _parse(cls, path: Path) -> _Labels:
        dataset = read_object(path)
        try:
            named = {
                name: tuple(value) if isinstance(value, list) else (value,)
                for name, value in dataset["labels"].items()
                if name != "ignore"
            }
            if not named:
                raise ValueError("it names no label")
            regions = any(len(value) > 1 for value in named.values())
            if regions:
                order = tuple(map(_label, dataset["regions_class_order"]))
            else:
                order = tuple(sorted({_label(value) for (value,) in named.values()}))
            number = sum(set(value) != {0} for value in named.values())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} does not describe labels: {error!r}") from error
        if regions and len(order) != number:
            raise ValueError(
                f"'regions_class_order' in {path} must have a label for each of the {number} "
                f"regions, got {list(order)}"
            )
        pairs = named.items()
        return cls(order, regions, tuple(pairs if regions else sorted(pairs, key=itemgetter(1))))

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The dtype in which nnU-Net writes them."""
        return np.uint8 if max(self.by_channel) < 255 else np.uint16


def _label(value: object) -> int:
    """Return a label that nnU-Net can write."""
    label = integer("every label", value)
    if not 0 <= label <= LARGEST_LABEL:
        raise ValueError(f"every label must lie in [0, {LARGEST_LABEL}], got {label}")
    return label


def _check_folders(
    folders: str | PathLike[str] | Sequence[str | PathLike[str]],
) -> list[Path]:
    several = [folders] if isinstance(folders, str | PathLike) else list(folders)
    if not several:
        raise ValueError("folders must name one folder at least, got none")
    paths = [Path(folder) for folder in several]
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        if not _maps_of(path):
            raise FileNotFoundError(
                f"{path} holds no npz file; nnUNetv2_predict writes them with --save_probabilities"
            )
    return paths


def _maps_of(folder: Path) -> list[Path]:
    return files_of(folder, [".npz"])


def _decide_case(
    case: str, folders: Sequence[Path], output: Path, labels: _Labels, decide: RankSEG
) -> None:
    files = [file_of(folder, case, ".npz") for folder in folders]
    missing = [str(file.parent) for file in files if not os.path.lexists(file)]
    if missing:
        raise ValueError(f"there is no {case}.npz in {' and '.join(missing)}")
    maps = ClassMaps.open(*files)
    if len(maps) != len(labels.by_channel):
        raise ValueError(
            f"the probabilities must have {len(labels.by_channel)} channels, as {DATASET} says, "
            f"got {len(maps)}"
        )
    geometry = Geometry.read(case, folders, maps.shape[1:])  # before the work
    decided = _paint(maps, labels, decide) if labels.regions else _share(maps, output, decide)
    image = geometry.image(decided.astype(labels.dtype, copy=False))
    content = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
    write_whole(output / f"{case}{ENDING}", content)


def _paint(maps: ClassMaps, labels: _Labels, decide: RankSEG) -> NDArray[Any]:
    """Decide every region by itself, and paint them one over the other."""
    painted = np.zeros(maps.shape[1:], labels.dtype)
    fitted = {"calibration": decide.calibration, "rule": decide.rule}
    fitted = {name: of_all for name, of_all in fitted.items() if of_all is not None}
    for name, of_all in fitted.items():
        if of_all.classes != len(maps):
            raise ValueError(f"{name} must be for {len(maps)} regions, got {of_all.classes}")
    own = copy.copy(decide)
    for channel, (label, probs) in enumerate(zip(labels.by_channel, maps, strict=True)):
        for name, of_all in fitted.items():
            setattr(own, name, of_all.of_class(channel))
        painted[own(probs[None, None])[0, 0]] = label
    return painted


def _share(maps: ClassMaps, output: Path, decide: RankSEG) -> NDArray[Any]:
    """Decide the classes together, from a file of their maps that is mapped into memory."""
    with tempfile.TemporaryFile(dir=output, prefix=".") as file:  # where there is room on disk
        reserve(file, math.prod(maps.shape) * np.dtype(np.float32).itemsize)
        probs = np.memmap(file, np.float32, "r+", shape=maps.shape)
        for channel, one in enumerate(maps):
            probs[channel] = one
        labels: NDArray[Any] = decide(np.asarray(probs)[None])[0]
        return labels


@dataclass(frozen=True)
class _Member:
    """The array inside an npz file, while it is open."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]

    def add_next(self, total: NDArray[np.float32]) -> None:
        """Add the map of the next class to others, piece by piece."""
        own = total if self.order == "C" else np.zeros_like(total, order="F")
        flat = own.reshape(-1, order=self.order)
        for start in range(0, flat.size, PIECE):
            part = flat[start : start + PIECE]
            content = self.stream.read(part.size * self.dtype.itemsize)
            if len(content) < part.size * self.dtype.itemsize:
                raise ValueError("the file of probabilities ends too early")
            part += np.frombuffer(content, self.dtype).astype(np.float32, copy=False)
        if own is not total:
            total += own


@contextlib.contextmanager
def _member(file: Path) -> Iterator[_Member]:
    """Open the array of an npz file; every way in which that fails is a ValueError."""
    with contextlib.ExitStack() as stack:
        try:
            if not file.is_file():
                raise ValueError("it is no regular file")
            refuse_appended(file)
            archive = stack.enter_context(zipfile.ZipFile(file))
            if f"{KEY}.npy" not in archive.namelist():
                raise ValueError(f"it lacks the array {KEY!r}, and holds {archive.namelist()}")
            stream = stack.enter_context(archive.open(f"{KEY}.npy"))
            shape, transposed, dtype = _read_header(stream)
        except Exception as error:  # a broken file may raise anything
            reason = reason_of(error)
            raise ValueError(f"{file} cannot be read as probabilities: {reason}") from error
        if dtype.kind != "f" or len(shape) != 4 or min(shape) < 1:
            raise ValueError(
                f"{KEY!r} in {file} must be floating (classes, z, y, x), none of them empty, got "
                f"{dtype} {shape}"
            )
        if transposed and shape[0] > 1:
            raise ValueError(f"{KEY!r} in {file} must be in C order, one class after the other")
        size = math.prod(shape) * dtype.itemsize
        if size > min(
            archive.getinfo(f"{KEY}.npy").file_size, MOST_PER_BYTE * os.path.getsize(file)
        ):
            raise ValueError(f"{file} is too small for {KEY!r} of {dtype} {shape}: it is damaged")
        yield _Member(stream, shape, "F" if transposed else "C", dtype)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"its npy format {version} is not known")
    return read[version](stream)
