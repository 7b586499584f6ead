"""nnU-Net v2: decide from the probabilities it saves, or inside its predictor.

:func:`decide_folders` reads what ``nnUNetv2_predict --save_probabilities`` wrote and needs nibabel,
not nnU-Net. :func:`enable` makes a predictor of nnU-Net itself decide by RankSEG.
"""

from __future__ import annotations

import copy
import gzip
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankseg._decision.module import RankSEG
from rankseg._files.batch import OTHER_FOLDER, Outcome, Record, Track, work_through
from rankseg._files.folders import file_of, files_of
from rankseg._files.whole import identify, reserve, write_whole
from rankseg.integration._nnunet_geometry import ENDING, PLANS, Geometry, load_nibabel
from rankseg.integration.common import require, with_settings
from rankseg.integration.nnunet_folders import DATASET, ClassMaps, Labels

__all__ = ["ClassMaps", "Outcome", "decide_folders", "enable"]


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
        Options of :class:`rankseg.RankSEG`, except ``output_mode`` and ``from_logits``;
        ``settings``, a file that ``rankseg tune`` wrote. Regions are decided each by itself and
        painted in the order of ``regions_class_order``.

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
    options = with_settings(rankseg_kwargs)
    sources = _check_folders(folders)
    output = Path(output)
    if os.path.realpath(output) in map(os.path.realpath, sources):
        raise ValueError(f"output must be another folder than those read, got {output}")
    labels = Labels.read(sources)
    decide = _decision(labels.regions, options)
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
    decide = _decision(predictor.label_manager.has_regions, with_settings(rankseg_kwargs))
    plans = RankSEGPlansManager(plans.plans, decide)
    predictor.label_manager = plans.get_label_manager(predictor.dataset_json)
    predictor.plans_manager = plans
    return predictor


def _decision(regions: bool, options: Mapping[str, Any]) -> RankSEG:
    """Return the decision for labels or regions of nnU-Net, where every voxel has a label."""
    fixed = sorted({"output_mode", "from_logits"} & set(options))
    if fixed:
        raise TypeError(f"{fixed} follow from the labels of nnU-Net and cannot be chosen")
    if options.get("unassigned_policy", "max_score") != "max_score":
        raise ValueError(
            "unassigned_policy must be 'max_score', as nnU-Net has no label for void voxels, got "
            f"{options['unassigned_policy']!r}"
        )
    mode = "multilabel" if regions else "multiclass"
    return RankSEG(output_mode=mode, **options)


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
    case: str, folders: Sequence[Path], output: Path, labels: Labels, decide: RankSEG
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


def _paint(maps: ClassMaps, labels: Labels, decide: RankSEG) -> NDArray[Any]:
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
