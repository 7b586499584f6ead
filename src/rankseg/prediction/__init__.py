"""From files of maps, or from images and a network, to files of labels.

Reading and writing needs the packages of ``pip install 'rankseg[files]'``, each for its format.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from rankseg._common.arguments import choice, integer
from rankseg._common.warn import warn
from rankseg._decision.module import RankSEG
from rankseg._files.batch import Outcome, Record, Track, work_through
from rankseg._files.whole import identify
from rankseg._formats import (
    IN_SPACE,
    LABELS_WRITTEN,
    MAPS,
    PICTURES,
    ending,
    find_files,
    read_image,
    read_maps,
    read_series,
    stem,
    with_data,
    write_labels,
)
from rankseg.integration.common import with_settings
from rankseg.prediction.networks import Decider, load_network

__all__ = ["Outcome", "predict_files"]

MOST_WORKERS: Final = 1024


def predict_files(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    suffix: str = ".png",
    key: str | None = None,
    model: str | PathLike[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dicom: str | PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    track: Track = iter,
    **rankseg_kwargs: Any,
) -> Outcome:
    """Write the labels of every file of maps, or of every image.

    Parameters
    ----------
    inputs : path or sequence of paths
        Files, or folders of which every file with a fitting ending is taken, one case each:
        ``.npy``, ``.npz``, ``.pt``, ``.safetensors`` and ``.zarr`` with floating
        ``(classes, *spatial)``, ``.nii`` and ``.nii.gz`` with ``(x, y, z, class)``, or one class
        without an axis of its own; ``.tif`` and ``.tiff`` with a page or channel for each class.
        With a ``model``, images: ``.png``, ``.jpg``, ``.jpeg``, ``.tif``, ``.tiff``.
    output : path
        The folder to write to, made if need be. A case is called after its input, without the
        ending. Beside them is ``rankseg.json``: the options, and path, size and date of the inputs.
    suffix : str
        The format: ``.png`` with a palette, ``.npy``, ``.nii``, ``.nii.gz``, ``.tif``, ``.tiff``,
        ``.zarr``, ``.mha``, ``.nrrd`` or ``.dcm``. Spatial axes stay in their order. The affine and
        the header of a NIfTI input, and the resolution and georeference of a TIFF, go into an
        output of the same format. Integers are the smallest unsigned ones that hold the labels.
        With ``output_mode="multilabel"`` they are 0 and 1 ``(classes, *spatial)``; the class is the
        last axis of a NIfTI, and a PNG holds one class.
    key : str, optional
        Which array of a file that holds several; by default ``probs``, ``probabilities`` or
        ``logits``, in this order, with ``from_logits`` ``logits`` first, or else the only one.
    model : str or path, optional
        What makes maps of images: a folder or the id of a semantic or universal segmentation
        model on the Hugging Face Hub, which says itself how images are prepared and what its
        logits mean; or a file of ``torch.jit.save`` (``.pt``, ``.torchscript``) or
        ``torch.export.save`` (``.pt2``). Such a network gets float32 ``(1, 3, height, width)`` in
        [0, 1], and returns scores ``(1, classes, height, width)``, alone or in a dictionary as
        ``out`` or ``logits``; they are resized to the image bilinearly. Such a file can run any
        code: load only what you trust.
    mean, std : sequence of float, optional
        For a network in a file: one number or one for each colour, which is taken from the image,
        and by which it is divided; 0 and 1 by default.
    dicom : path, optional
        For ``.dcm``, a DICOM segmentation: the folder of the slices of the image; of several cases
        a folder that holds one for each, of the name of the case. Maps of a format with an affine
        are turned to the slices; others have their axes, ``(classes, z, y, x)``, and their order.
    overwrite : bool
        Decide the cases anew whose output is there; by default those that ``rankseg.json`` lists
        are skipped, so that a run that was interrupted goes on.
    workers : int
        How many files are read, decided and written at a time, by threads.
    track : callable
        Called with the names of the cases to be decided; returns them one by one, as
        ``rich.progress.track`` and ``tqdm`` do.
    **rankseg_kwargs
        Options of :class:`rankseg.RankSEG`; ``settings``, a file that ``rankseg tune`` wrote, whose
        options those given here replace. ``from_logits`` says what makes probabilities of maps
        that are none.

    Returns
    -------
    Outcome
        A case that cannot be decided is named in it with the reason, and the others are decided
        all the same. A file is written whole or not at all.

    Raises
    ------
    FileNotFoundError
        If an input or the file of the model is missing, or a folder holds nothing to decide.
    OSError
        If ``output`` cannot be made or written to.
    ImportError
        If a package that the model needs is missing; the message says how to install it.
    KeyboardInterrupt
        On an interrupt; its text says how many cases are written, ``outcome`` says which.
    TypeError, ValueError
        If an option is not allowed, two inputs would be written to the same file, an input would
        be overwritten, or ``output`` holds label maps made with other options, in another format,
        of other inputs, or by no run that ``rankseg.json`` lists.

    Warns
    -----
    UserWarning
        If label maps of other formats become NIfTI, which takes their axes for x, y, z.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from rankseg.prediction import predict_files
    >>> folder = tempfile.mkdtemp()
    >>> np.save(f"{folder}/case.npy", np.array([[[0.9, 0.3]], [[0.1, 0.7]]]))
    >>> predict_files(f"{folder}/case.npy", f"{folder}/labels", suffix=".npy").written
    ('case',)
    >>> np.load(f"{folder}/labels/case.npy")
    array([[0, 1]], dtype=uint8)
    """
    suffix = choice("suffix", suffix, LABELS_WRITTEN)
    if not 1 <= integer("workers", workers) <= MOST_WORKERS:
        raise ValueError(f"workers must be from 1 to {MOST_WORKERS}, got {workers}")
    if (suffix == ".dcm") != (dicom is not None):
        raise ValueError("dicom (--dicom) names the slices for suffix='.dcm', and for no other")
    output = Path(output)
    sources = find_files(inputs, MAPS if model is None else PICTURES)
    targets = _targets(sources, output, suffix)
    _tell_of_axes(sources, suffix)
    # A model of Transformers says itself what its logits are, and takes no from_logits.
    options = with_settings(rankseg_kwargs, keep_link=True)
    options = {name: value for name, value in options.items() if value is not None}
    decide = _decider(model, mean, std, key, options)
    settings = RankSEG(**options).settings
    masks = settings.output_mode == "multilabel"
    network = {"model": model and _identify_model(model), "mean": mean, "std": std}
    record = Record(
        output,
        {**network, "format": suffix, "key": key, "options": asdict(settings)},
        {case: [identify(source)] for case, (source, _) in targets.items()},
        lambda case: _is_written(targets[case][1]),
    )
    record.keep(overwrite)

    def predict(case: str) -> None:
        path = targets[case][0]
        link = settings.from_logits
        if model is not None:
            given = read_image(path)
            write_labels(targets[case][1], decide(given.maps), given, masks=masks)
            return
        given = read_maps(path, key, link)
        valid = with_data(given, link)
        decided = decide(given.maps, valid)
        if dicom is not None:
            series = read_series(_slices(Path(dicom), case, len(targets)), len(given.maps))
            decided = decided if valid is None else decided.masked_fill(~valid, 0)
            decided = series.align(decided, given.grid, masks)
            given = replace(given, geometry=series)
        declared = valid is not None or given.nodata is not None
        void = settings.void_index if declared and not masks else None
        write_labels(targets[case][1], decided, given, masks=masks, void=void)

    outcome = work_through(
        list(targets),
        predict,
        is_written=record.is_written,
        overwrite=overwrite,
        track=track,
        workers=workers,
    )
    record.finish(outcome)
    return outcome


def _tell_of_axes(sources: Sequence[Path], suffix: str) -> None:
    """Warn of label maps whose axes will be x, y, z, of inputs that do not say so."""
    if suffix not in IN_SPACE:
        return
    others = [source for source in sources if ending(source) not in IN_SPACE]
    if others:
        warn(
            f"{others[0]} is no NIfTI, mha or nrrd: its label map gets the identity as affine, and "
            f"axes in the order stored, which {suffix} takes for x, y, z; store maps as (classes, "
            "x, y, z), and decide those of nnU-Net, (classes, z, y, x), by rankseg nnunet"
        )


def _slices(folder: Path, case: str, cases: int) -> Path:
    """Return the folder of the slices of a case: of a single one they may lie in the folder."""
    return folder if cases == 1 and not (folder / case).is_dir() else folder / case


def _identify_model(model: str | PathLike[str]) -> object:
    """Return what tells a model from others: of one on the hub its id."""
    return identify(model) if os.path.exists(model) else str(model)


def _is_written(target: Path) -> bool:
    return target.is_dir() if ending(target) == ".zarr" else target.is_file()


def _targets(sources: Sequence[Path], output: Path, suffix: str) -> dict[str, tuple[Path, Path]]:
    """Return the input and the output of every case, by its name."""
    read = {os.path.realpath(source) for source in sources}
    targets: dict[str, tuple[Path, Path]] = {}
    for source in sources:
        case, target = stem(source), output / f"{stem(source)}{suffix}"
        if case in targets:
            raise ValueError(
                f"inputs must differ in name, since {targets[case][0]} and {source} would both "
                f"become {target}"
            )
        if os.path.realpath(target) in read:
            raise ValueError(f"output must not overwrite the input {target}: take another folder")
        targets[case] = (source, target)
    return targets


def _decider(
    model: str | PathLike[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    key: str | None,
    options: dict[str, Any],
) -> Decider:
    """Return what decides one image, or the maps of one."""
    if model is not None:
        if key is not None:
            raise ValueError("key names an array of a file of maps: leave it out with a model")
        return load_network(str(model), mean, std, options)
    if mean is not None or std is not None:
        raise ValueError("mean and std prepare images for a model, which must be given")
    decide = RankSEG(**options)

    def decide_maps(maps: Tensor, valid: Tensor | None) -> Tensor:
        decided: Tensor = decide(maps[None], None if valid is None else valid[None])[0]
        return decided

    return decide_maps
