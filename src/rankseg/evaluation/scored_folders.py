"""Folders of predicted label maps, counted against a folder of true ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rankseg import metrics
from rankseg._common.arguments import number
from rankseg._common.warn import warn
from rankseg._files.batch import reason_of
from rankseg._files.folders import shortened
from rankseg._formats import LabelFile
from rankseg.evaluation.clusters import clusters_of
from rankseg.evaluation.comparison import Comparison
from rankseg.evaluation.counted_cases import CountedCase, assemble, leave_out, refuse_nothing
from rankseg.evaluation.differences import TIE
from rankseg.evaluation.label_folders import (
    label_files,
    of_masks,
    pixels_with_data,
    read_only,
    read_prediction,
)
from rankseg.evaluation.labelled_cases import Failure, IgnoreIndex, ignored_label, named_classes
from rankseg.evaluation.seen_labels import SeenLabels
from rankseg.metrics import Counts

__all__ = ["evaluate"]


def evaluate(
    predictions: Mapping[str, Path | str],
    labels: Path | str,
    *,
    classes: int | Sequence[str],
    ignore_index: IgnoreIndex = "default",
    clusters: Mapping[str, str] | None = None,
    band: float = TIE,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Comparison:
    """Score folders of predicted label maps against a folder of true ones.

    Parameters
    ----------
    predictions : mapping of str to path
        A folder of label maps for every method, the first of which is the baseline. Files are
        matched by their names without endings: ``.png``, ``.npy``, ``.npz``, ``.nii``, ``.nii.gz``,
        ``.mha``, ``.nrrd``, ``.tif`` or ``.zarr``, of integers ``(*spatial)``. Files of scores
        beside them are left out. Predictions in NIfTI are turned to the orientation of a NIfTI
        truth. Square labels that one file has as x, y (NIfTI) and the other as y, x (PNG, TIFF) are
        a failure.
    labels : path
        The folder of true label maps; every one must have a prediction of every method.
    classes : int or sequence of str
        How many classes there are, from 0, or their names.
    ignore_index : int, optional
        Pixels whose true label has this value do not count, by default 255 if that is no class.
        None: all do. With two classes, masks of 0 and 255 are then read as masks of 0 and 1.
    clusters, band
        As for `compare`.
    track : callable
        Called with the names of the cases; returns them one by one, as ``rich.progress.track``.

    Returns
    -------
    Comparison
        Without times. Its failures are the cases that cannot be read, of which two files hold
        labels, that lack a prediction, or whose prediction has another shape or lies elsewhere;
        the others are scored. A predicted label that is no class (void) is a miss, and no false
        positive of any class. A map whose foreground may have the wrong value is a failure, too:
        with two classes a truth of 0 and ``ignore_index``, and a prediction of 0 and values that
        are no class, unless another map of the set holds such a value beside a class above 0.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or holds no label map.
    TypeError, ValueError
        If an option is not allowed, ``ignore_index`` is not given and 255 is a class, not one case
        could be scored, no true pixel that counts is of class 1 or above, or no prediction of a
        method holds a class but 0, only other values.

    Warns
    -----
    UserWarning
        If predictions hold values that are neither a class nor ``ignore_index``, a prediction has
        no truth, a folder holds files of formats that are not read, or palettes of a folder, or of
        predictions and truth, order the same colours differently; or if labels look like masks of
        overlapping classes, or count from 1 on one side and from 0 on the other, or only one of two
        NIfTI files says how its voxels lie.

    Examples
    --------
    >>> from rankseg.evaluation import evaluate
    >>> comparison = evaluate({"ours": "labels"}, "truth", classes=4)  # doctest: +SKIP
    >>> comparison.by_class("ours")  # doctest: +SKIP
    """
    names = named_classes(classes)
    if len(names) < 2:
        raise ValueError(f"classes must be at least two, background and another, got {names}")
    if not predictions:
        raise ValueError("predictions must name one folder at least, got none")
    band = number("band", band, 0.0, 1.0)
    ignored = ignored_label(ignore_index, len(names))
    truth = label_files(labels)
    predicted = {method: label_files(folder) for method, folder in predictions.items()}
    clusters_of(list(truth), clusters)  # before the work
    for method, files in predicted.items():
        if left := [case for case in files if case not in truth]:
            warn(f"not scored: {method} predicts {shortened(left)}, without a truth in {labels}")
    seen = SeenLabels(ignored, len(names))
    seen_in = {method: SeenLabels(ignored, len(names)) for method in predictions}
    masks = {method: of_masks(folder) for method, folder in predictions.items()}
    results: list[CountedCase] = []
    failures: list[Failure] = []
    for case in track(list(truth)):
        try:
            true = read_only(truth[case])
            true = replace(true, labels=seen.add(true.labels, case))
            seen.add_colours(true.colours, case)
            counts = [
                _count_file(files, case, true, seen_in[method], method, masks[method])
                for method, files in predicted.items()
            ]
            results.append(CountedCase(case, counts, [], {}))
        except Exception as error:  # libraries that read files raise what they like
            failures.append(Failure(case, reason_of(error)))
    refuse_nothing(results, failures, "scored")
    seen.refuse_truth_without_foreground()
    seen.warn_of_colours("the truth")
    unfit = seen.truths_without_class()
    for method, labels_of_method in seen_in.items():
        labels_of_method.warn_of_colours(method, seen)
        labels_of_method.refuse_predictions_without_class(method)
        labels_of_method.warn_of_missed(method)
        labels_of_method.warn_of_masks(method, seen)
        labels_of_method.warn_of_offset(method, seen)
        unfit = labels_of_method.predictions_without_class(method) | unfit
    results = leave_out(results, failures, unfit)
    refuse_nothing(results, failures, "scored")
    comparison = assemble(names, list(predicted), results, failures)
    clustered = clusters_of(comparison.cases, clusters)
    return replace(comparison, clusters=clustered, band=band)


def _count_file(
    files: Mapping[str, Sequence[Path]],
    case: str,
    truth: LabelFile,
    seen: SeenLabels,
    method: str,
    masks: bool,
) -> Counts:
    if case not in files:
        raise ValueError(f"{method} has no prediction of it")
    prediction = read_prediction(files[case], truth, masks)
    seen.add_colours(prediction.colours, case)
    predicted, true = seen.add(prediction.labels, case), truth.labels
    valid = pixels_with_data(truth, true, seen.num_classes)
    if valid is not None:
        predicted, true = predicted[valid], true[valid]
    seen.add_pair(predicted, true)
    return metrics.count(
        predicted[None],
        true[None],
        num_classes=seen.num_classes,
        ignore_index=seen.ignore_index,
    )
