"""Compare decisions on labelled probability maps, image by image: argmax, pruned argmax, RankSEG.

1. A `Case` is one image: its probability maps and its label. `CaseFolder` reads a folder of them,
   one at a time; what cannot be read is a `Failure` with a reason, and the others go on.
2. A `Method` is a name and a decision. `standard_methods` gives argmax, argmax over the classes
   that are present (which explains much of what is usually credited to the decision), and RankSEG.
3. `compare` decides every case by every method and keeps exact counts. `Comparison` answers from
   them: scores by class and by image, aggregates, and the paired difference to argmax with wins,
   losses and a bootstrap interval. Asked to, it also tells the *predicted* gain: by how much the
   probabilities alone expect a method to score more than the first.

Scores and differences are fractions here. Where a page or a table speaks of *points*, a point is
0.01: a Dice of 0.873 is 87.3 points. ``counted`` says when a class counts in an image, as in
`rankseg.metrics`: ``"label"``, where the label holds it; ``"either"``, also where only the
prediction does, so that a false class scores 0.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg import metrics
from rankseg._common.arguments import class_count, distinct_names, number
from rankseg._common.warn import about, warn
from rankseg._files.batch import reason_of
from rankseg._files.folders import shortened
from rankseg._files.spreadsheets import write_csv
from rankseg._files.whole import write_whole
from rankseg._formats import LabelFile
from rankseg.evaluation.case_folders import (
    Case,
    CaseFolder,
    Failure,
    IgnoreIndex,
    clusters_of,
    ignored_label,
    read_case,
    read_clusters,
    reasons,
)
from rankseg.evaluation.conventions import CONVENTIONS, Aggregate, Convention, aggregate
from rankseg.evaluation.differences import (
    TIE,
    Clusters,
    Difference,
    Floats,
    PairedTests,
    bootstrap_interval,
)
from rankseg.evaluation.label_folders import label_files, of_masks, read_only, read_prediction
from rankseg.evaluation.methods import (
    Method,
    Timing,
    argmax,
    pruned_argmax,
    standard_methods,
    time_methods,
)
from rankseg.evaluation.predictions import predicted_gains
from rankseg.evaluation.seen_labels import SeenLabels
from rankseg.metrics import METRICS, Counts, Metric

__all__ = [
    "Aggregate",
    "Case",
    "CaseFolder",
    "Comparison",
    "Difference",
    "Failure",
    "Method",
    "PairedTests",
    "Timing",
    "aggregate",
    "argmax",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "pruned_argmax",
    "read_case",
    "read_clusters",
    "standard_methods",
    "time_methods",
]

Counted: TypeAlias = Literal["label", "either"]


_READINGS: Final[tuple[tuple[Metric, Counted], ...]] = (
    ("dice", "label"),
    ("iou", "label"),
    ("dice", "either"),
    ("iou", "either"),
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several methods decided on the same cases, in exact counts.

    Parameters
    ----------
    classes : tuple of str
        The class names.
    cases : tuple of str
        The names of the cases compared, in order.
    counts : mapping of str to Counts
        By method, the first of which is the baseline: (cases, classes).
    seconds : mapping of str to ndarray
        By method: float64 (cases,), the time of one decision; empty where none was timed.
    failures : tuple of Failure
        The cases that could not be compared.
    predicted : mapping of str to mapping of Metric to ndarray, optional
        By method and metric: float64 (cases,), the predicted gains. None if they were not asked
        for.
    clusters : tuple of str, optional
        The patient or sequence of every case: those of one are not independent, and intervals and
        tests draw or average them together.
    band : float
        Differences of at most this are ties.
    """

    classes: tuple[str, ...]
    cases: tuple[str, ...]
    counts: Mapping[str, Counts]
    seconds: Mapping[str, Floats]
    failures: tuple[Failure, ...] = ()
    predicted: Mapping[str, Mapping[Metric, Floats]] | None = None
    clusters: tuple[str, ...] | None = None
    band: float = TIE

    def __add__(self, other: Comparison) -> Comparison:
        """Return the comparison of the cases of both, decided by the same methods."""
        if (self.classes, self.methods) != (other.classes, other.methods):
            raise ValueError("comparisons must be of the same classes and methods to be added")
        predicted = None
        if self.predicted is not None and other.predicted is not None:
            predicted = {
                name: {
                    metric: np.concatenate([gains, other.predicted[name][metric]])
                    for metric, gains in by_metric.items()
                }
                for name, by_metric in self.predicted.items()
            }
        return Comparison(
            classes=self.classes,
            cases=self.cases + other.cases,
            counts={k: Counts.cat([v, other.counts[k]]) for k, v in self.counts.items()},
            seconds={k: np.concatenate([v, other.seconds[k]]) for k, v in self.seconds.items()},
            failures=self.failures + other.failures,
            predicted=predicted,
            clusters=self.clusters and other.clusters and self.clusters + other.clusters,
            band=self.band,
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, the baseline first."""
        return tuple(self.counts)

    @property
    def images_by_class(self) -> NDArray[np.int64]:
        """The number of cases whose label holds each class, int64 (classes,)."""
        counts = self.counts[self.methods[0]]
        held: NDArray[np.int64] = (counts.tp + counts.fn > 0).sum(0).numpy()
        return held

    @property
    def predicts_absent_class(self) -> bool:
        """Whether a method predicts a class that is absent. If not, all ``counted`` rules agree."""
        return any(
            bool(((counts.tp + counts.fn == 0) & (counts.fp > 0)).any())
            for counts in self.counts.values()
        )

    def scores(self, method: str, metric: Metric = "dice", counted: Counted = "label") -> Tensor:
        """Return the score of every case and class, float64 (cases, classes).

        A score is NaN if the class does not count in the case.

        Raises
        ------
        ValueError
            If ``method`` was not compared, or ``metric`` or ``counted`` is not allowed.
        """
        self._check_names(method, metric)
        score = metrics.dice if metric == "dice" else metrics.iou
        return score(self.counts[method], counted=counted)

    def _check_names(self, method: str, metric: str) -> None:
        if method not in self.counts:
            raise ValueError(f"method must be one of {list(self.counts)}, got {method!r}")
        if metric not in METRICS:
            raise ValueError(f"metric must be 'dice' or 'iou', got {metric!r}")

    def by_class(self, method: str, metric: Metric = "dice", counted: Counted = "label") -> Floats:
        """Return the mean over the cases in which each class counts, float64 (classes,)."""
        means: Floats = self.scores(method, metric, counted).nanmean(0).numpy()
        return means

    def by_image(self, method: str, metric: Metric = "dice", counted: Counted = "label") -> Floats:
        """Return the mean over the classes that count in each case, float64 (cases,)."""
        means: Floats = self.scores(method, metric, counted).nanmean(1).numpy()
        return means

    def aggregates(
        self, method: str, metric: Metric = "dice", counted: Counted = "label"
    ) -> dict[str, float]:
        """Return the mean by image (I), by class (C) and of the data set (D): `metrics.summary`."""
        self.scores(method, metric, counted)  # the names are checked there
        return metrics.summary(self.counts[method], metric, counted=counted)

    def differences(
        self,
        method: str,
        metric: Metric = "dice",
        counted: Counted = "label",
        *,
        baseline: str | None = None,
    ) -> Floats:
        """Return the mean score of every case minus that of a baseline, by default the first.

        Returns
        -------
        ndarray
            float64 (cases,), NaN where no class counts for either method. Where one counts for
            only one of them (``"either"``, an empty label, one of the two predictions empty), the
            other is right to predict nothing and scores 1, or else the error of the first would
            go unseen.
        """
        ours = self.by_image(method, metric, counted)
        theirs = self.by_image(baseline or self.methods[0], metric, counted)
        nothing = np.isnan(ours) & np.isnan(theirs)
        difference = np.nan_to_num(ours, nan=1.0) - np.nan_to_num(theirs, nan=1.0)
        return np.where(nothing, math.nan, difference)

    def difference(
        self,
        method: str,
        metric: Metric = "dice",
        counted: Counted = "label",
        *,
        baseline: str | None = None,
        clusters: Clusters | None = None,
    ) -> Difference:
        """Sum up `differences`: mean, bootstrap interval, wins, losses and ties.

        ``clusters`` has one entry for every case, by default those of the comparison: see
        `bootstrap_interval`.
        """
        differences = self.differences(method, metric, counted, baseline=baseline)
        clusters = self.clusters if clusters is None else clusters
        return Difference.of(differences, clusters=clusters, band=self.band)

    def tests(
        self,
        method: str,
        metric: Metric = "dice",
        counted: Counted = "label",
        *,
        baseline: str | None = None,
    ) -> PairedTests:
        """Test `differences`: signed ranks and signs, of clusters if there are any. Needs SciPy."""
        differences = self.differences(method, metric, counted, baseline=baseline)
        return PairedTests.of(differences, clusters=self.clusters, band=self.band)

    def aggregate(
        self, method: str, metric: Metric = "dice", convention: Convention = "nnunet"
    ) -> Aggregate:
        """Average as a toolkit does by default: see `aggregate`."""
        self._check_names(method, metric)
        return aggregate(self.counts[method], metric, convention)

    def predicted_gains(self, method: str, metric: Metric = "dice") -> Floats:
        """Return by how much the probabilities expect a method to score more than the first.

        What stands beside `differences`, worked out without any label: see `compare`.

        Returns
        -------
        ndarray
            float64 (cases,), NaN where no class is present.

        Raises
        ------
        ValueError
            If `compare` was not asked for it, or a name is not one of those allowed.
        """
        self._check_names(method, metric)
        if self.predicted is None:
            raise ValueError("no gains were predicted: compare(..., predict_above=0.5) does so")
        return self.predicted[method][metric]

    def predicted_gain(self, method: str, metric: Metric = "dice") -> float:
        """Return the mean of `predicted_gains` over the cases that have one; NaN if none has."""
        return torch.from_numpy(self.predicted_gains(method, metric)).nanmean().item()

    def summary(self) -> dict[str, Any]:
        """Return everything but the single cases, ready for JSON: None stands for NaN.

        The predicted gains are in it if they were asked for.
        """
        held = dict(zip(self.classes, self.images_by_class.tolist(), strict=True))
        return {
            "unit": "scores and differences are fractions; a point is 0.01",
            "cases": len(self.cases),
            "cases_by_class": held,
            "baseline": self.methods[0],
            "clusters": None if self.clusters is None else len(set(self.clusters)),
            "band": self.band,
            "methods": {name: self._summary_of(name) for name in self.methods},
            "failures": [asdict(failure) for failure in self.failures],
        }

    def _summary_of(self, method: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if method in self.seconds:
            result["median_seconds"] = float(np.median(self.seconds[method]))
        for convention in CONVENTIONS:
            result[f"as {convention}"] = {
                metric: _or_none(self.aggregate(method, metric, convention).mean)
                for metric in METRICS
            }
        if self.predicted is not None:
            result["predicted_gain"] = {
                metric: _or_none(self.predicted_gain(method, metric)) for metric in METRICS
            }
        for metric, counted in _READINGS:
            scores = self.by_class(method, metric, counted).tolist()
            by_class = dict(zip(self.classes, map(_or_none, scores), strict=True))
            difference = asdict(self.difference(method, metric, counted))
            aggregates = self.aggregates(method, metric, counted)
            result[f"{metric}, counted={counted}"] = {
                **{name: _or_none(value) for name, value in aggregates.items()},
                "by_class": by_class,
                "difference": {name: _or_none(value) for name, value in difference.items()},
                "tests": self._tests_of(method, metric, counted),
            }
        return result

    def _tests_of(self, method: str, metric: Metric, counted: Counted) -> dict[str, Any] | None:
        """Return the tests, or None without SciPy."""
        try:
            tests = asdict(self.tests(method, metric, counted))
        except ImportError:
            return None
        return {name: _or_none(value) for name, value in tests.items()}

    def write(self, folder: Path | str) -> list[Path]:
        """Write ``cases.csv``, ``classes.csv`` and ``summary.json`` into a folder.

        ``cases.csv`` has a row for every case and method: the seconds of the decision, and Dice
        and IoU, each averaged over the classes that count by either rule, then the predicted gains
        in both, if they were asked for; empty where there is none. Before them, its cluster, if
        there are clusters.
        ``classes.csv`` has the counts of every case, method and class. An apostrophe comes before a
        name that a spreadsheet would take for a formula. The folder is made if it is missing; files
        of these names are replaced.

        Returns
        -------
        list of Path
            The three files.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "cases.csv": write_csv(self._case_rows()),
            "classes.csv": write_csv(self._class_rows()),
            "summary.json": (json.dumps(self.summary(), indent=1, allow_nan=False) + "\n").encode(),
        }
        for name, content in contents.items():
            write_whole(folder / name, content)
        return [folder / name for name in contents]

    def _case_rows(self) -> Iterator[Sequence[object]]:
        predicted_metrics = () if self.predicted is None else METRICS
        names = [f"{metric}_{rule}" for metric, rule in _READINGS]
        names += [f"{metric}_predicted_gain" for metric in predicted_metrics]
        yield "case", "method", "seconds", *names
        for method in self.methods:
            columns = [self.by_image(method, metric, counted) for metric, counted in _READINGS]
            columns += [self.predicted_gains(method, metric) for metric in predicted_metrics]
            seconds_taken = self.seconds.get(method, np.full(len(self.cases), math.nan))
            for case, seconds, *scores in zip(
                self.cases, seconds_taken.tolist(), *columns, strict=True
            ):
                shown = ["" if math.isnan(score) else float(score) for score in scores]
                yield case, method, "" if math.isnan(seconds) else seconds, *shown

    def _class_rows(self) -> Iterator[Sequence[object]]:
        yield "case", "method", "class", "tp", "fp", "fn"
        for method, counts in self.counts.items():
            table = torch.stack((counts.tp, counts.fp, counts.fn), -1).tolist()
            for case, rows in zip(self.cases, table, strict=True):
                for name, row in zip(self.classes, rows, strict=True):
                    yield case, method, name, *row


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def compare(
    cases: Iterable[Case | Failure],
    methods: Sequence[Method],
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    predict_above: float | None = None,
    clusters: Mapping[str, str] | None = None,
    band: float = TIE,
) -> Comparison:
    """Decide every case by every method, and count.

    Decisions are made on the maps in float32, one image at a time, and know nothing of the label:
    ignored pixels are decided too, and left out of the counts only. One class is scored as
    foreground against background; with several, all count, the background among them.

    Parameters
    ----------
    cases : iterable of Case or Failure
        Say a `CaseFolder`. Only one is held at a time.
    methods : sequence of Method
        At least one; the first is the baseline of the differences.
    classes : sequence of str, optional
        Names of the classes; by default those of the first case are numbered.
    ignore_index : int, optional
        Pixels whose label has this value do not count. Default: all do. With two classes or one,
        labels of 0 and 255 are then read as 0 and 1.
    predict_above : float, optional
        In [0, 1]: predict what the methods gain on the first, too, over the classes whose largest
        probability in the image exceeds this, which should be the methods' own ``pruning_prob``.
        See the notes. Default: predict nothing; with predictions it takes some five times as long,
        and some fifty times where methods assume a correlation.
    clusters : mapping of str to str, optional
        The patient or sequence of every case, by the case's name: see `Comparison`.
    band : float
        At least 0: differences of at most this are ties, by default those of rounding.

    Returns
    -------
    Comparison
        Of the cases that could be compared. The others are among its failures: those that came as
        such, have another number of classes, do not fit into memory, are refused by a method or
        the count (values that are no probabilities, labels that are no class), or are masks of 0
        and ``ignore_index`` among masks of 0 and 1 of which none holds ``ignore_index``.

    Raises
    ------
    TypeError
        If ``predict_above`` is no number.
    ValueError
        If there is no method, two methods or two cases have one name, ``predict_above`` is outside
        [0, 1], not one case could be compared, or no pixel that counts is of class 1 or above.

    Notes
    -----
    The predicted gain is the expected score of a method's decision under the probabilities
    themselves, minus that of the first method's, in the unit of the achieved one: the mean over
    classes of an image, then over images. It knows no label. So it is over the classes whose
    largest probability exceeds ``predict_above``, where the achieved gain is over those that count
    by the label; and over all pixels, those that the label ignores among them. Pruned argmax is
    predicted next to nothing: what it changes, it changes for classes that are left out.

    Both decisions are scored under the correlation that the method assumes, so that the predicted
    gain is what ``RankSEG.decide(probs).expected_gain`` tells the method's user. Hold it against
    what this method achieved, not against what one of another correlation promises. Where the two
    differ by more than chance, the probabilities or the assumption are wrong.

    Examples
    --------
    >>> import torch
    >>> from rankseg.evaluation import Case, compare, standard_methods
    >>> probs = torch.tensor([[0.1, 0.55, 0.9, 0.9], [0.9, 0.45, 0.1, 0.1]])
    >>> case = Case("strip", probs, torch.tensor([1, 1, 0, 0]))
    >>> comparison = compare([case], standard_methods(metrics=["dice"]))
    >>> comparison.by_class("argmax").round(4).tolist()
    [0.8, 0.6667]
    >>> comparison.difference("RankSEG dice RMA").wins
    1

    What one gains on the threshold 1/2, as the map alone predicts it and as it came out:

    >>> case = Case("one class", torch.tensor([[0.9, 0.45, 0.4, 0.1]]), torch.tensor([1, 1, 0, 0]))
    >>> comparison = compare([case], standard_methods(metrics=["dice"]), predict_above=0.5)
    >>> ours = "RankSEG dice RMA"
    >>> f"{comparison.predicted_gain(ours):.3f}, {comparison.difference(ours).mean:.3f}"
    '0.037, 0.133'
    """
    band = number("band", band, 0.0, 1.0)
    seen = SeenLabels(ignore_index)
    comparison = decide_and_count(
        seen.watch(cases),
        methods,
        classes=classes,
        ignore_index=ignore_index,
        predict_above=predict_above,
        seen=seen,
    )
    return replace(comparison, clusters=clusters_of(comparison.cases, clusters), band=band)


def decide_and_count(
    cases: Iterable[Case | Failure],
    methods: Sequence[Method],
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    predict_above: float | None = None,
    seen: SeenLabels | None = None,
) -> Comparison:
    """Compare as `compare` does, also cases of which none holds foreground: one fold, say.

    ``seen`` has watched the labels of a whole set, and judges them at the end.
    """
    if predict_above is not None:
        predict_above = number("predict_above", predict_above, 0.0, 1.0)
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods must be at least one, of different names, got {names}")
    class_names = None if classes is None else distinct_names("classes", classes)
    results: list[_Result] = []
    failures: list[Failure] = []
    seen_names: set[str] = set()
    for case in cases:
        if case.name in seen_names:
            raise ValueError(f"cases must differ in name, got {case.name!r} twice")
        seen_names.add(case.name)
        if not isinstance(case, Failure):
            # The first call is not timed: memory is touched for the first time.
            with about(case.name):
                result = _evaluate(
                    case, methods, class_names, ignore_index, predict_above, warm_up=not results
                )
        else:
            result = case
        if isinstance(result, Failure):
            failures.append(result)
            continue
        results.append(result)
        class_names = class_names or tuple(f"class {i}" for i in range(result.classes))
    _refuse_nothing(results, failures, "compared")
    if seen is not None:
        seen.refuse_truth_without_foreground()
        results = _leave_out(results, failures, seen.truths_without_class())
        _refuse_nothing(results, failures, "compared")
    return _assemble(class_names or (), names, results, failures)


def _refuse_nothing(results: Sequence[_Result], failures: Sequence[Failure], done: str) -> None:
    """Raise a ValueError if there is no result."""
    if not results:
        raise ValueError(f"no case could be {done}, of {len(failures)} given{reasons(failures)}")


def _leave_out(
    results: Sequence[_Result], failures: list[Failure], unfit: Mapping[str, str]
) -> list[_Result]:
    """Return the results of cases that are not unfit; add these to the failures."""
    failures += [Failure(one.name, unfit[one.name]) for one in results if one.name in unfit]
    return [one for one in results if one.name not in unfit]


@dataclass(frozen=True, eq=False)
class _Result:
    """One case: by method, the counts (1, classes), the seconds and, if any, predicted gains."""

    name: str
    counts: list[Counts]
    seconds: list[float]
    predicted: dict[Metric, list[float]]

    @property
    def classes(self) -> int:
        return self.counts[0].tp.shape[1]


def _evaluate(
    case: Case,
    methods: Sequence[Method],
    classes: Sequence[str] | None,
    ignore_index: int | None,
    predict_above: float | None,
    warm_up: bool,
) -> _Result | Failure:
    """Decide and count one case by every method."""
    found = len(case.probs)
    if classes is not None and len(classes) != found:
        return Failure(case.name, f"has maps of {found} classes where {len(classes)} are expected")
    result = _Result(case.name, [], [], {})
    decisions: list[Tensor] = []
    try:
        probs, label = case.probs.float()[None], case.label[None]
        for method in methods:
            if warm_up:
                method.decide(probs)
            start = time.perf_counter()
            decision = method.decide(probs)
            result.seconds.append(time.perf_counter() - start)
            result.counts.append(_count(decision, label, found, ignore_index))
            if predict_above is not None:
                decisions.append(decision)
        if predict_above is not None:
            assumed = [method.correlation for method in methods]
            for metric in METRICS:
                gains = predicted_gains(probs, decisions, assumed, metric, predict_above)
                result.predicted[metric] = gains
    except (ValueError, MemoryError, RuntimeError) as error:  # torch lacks memory by the last
        return Failure(case.name, reason_of(error))
    return result


def _count(decision: Tensor, label: Tensor, classes: int, ignore_index: int | None) -> Counts:
    """Count labels (1, *spatial) or masks (1, classes, *spatial) against (1, *spatial)."""
    if classes > 1:
        return metrics.count(decision, label, num_classes=classes, ignore_index=ignore_index)
    mask = decision if decision.dtype == torch.bool else (decision == 1)[:, None]
    return metrics.count(mask, label[:, None], ignore_index=ignore_index)


def _assemble(
    classes: tuple[str, ...],
    methods: Sequence[str],
    results: Sequence[_Result],
    failures: Sequence[Failure],
) -> Comparison:
    return Comparison(
        classes=classes,
        cases=tuple(result.name for result in results),
        counts={
            name: Counts.cat(result.counts[i] for result in results)
            for i, name in enumerate(methods)
        },
        seconds={
            name: np.array([result.seconds[i] for result in results])
            for i, name in enumerate(methods)
            if results[0].seconds
        },
        failures=tuple(failures),
        predicted=_gather(methods, [result.predicted for result in results]),
    )


def _gather(
    methods: Sequence[str], predicted: Sequence[Mapping[Metric, Sequence[float]]]
) -> dict[str, dict[Metric, Floats]] | None:
    """Collect the predicted gains of all cases by method and metric; None if a case has none."""
    if not all(predicted):
        return None
    return {
        name: {metric: np.array([gains[metric][i] for gains in predicted]) for metric in METRICS}
        for i, name in enumerate(methods)
    }


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
        ``.tif`` or ``.zarr``, of integers ``(*spatial)``. Files of scores beside them are left
        out. Predictions in NIfTI are turned to the orientation of a NIfTI truth. Square labels that
        one file has as x, y (NIfTI) and the other as y, x (PNG, TIFF) are a failure.
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
    if isinstance(classes, int):
        classes = [f"class {i}" for i in range(class_count("classes", classes))]
    names = distinct_names("classes", classes)
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
    results: list[_Result] = []
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
            results.append(_Result(case, counts, [], {}))
        except Exception as error:  # libraries that read files raise what they like
            failures.append(Failure(case, reason_of(error)))
    _refuse_nothing(results, failures, "scored")
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
    results = _leave_out(results, failures, unfit)
    _refuse_nothing(results, failures, "scored")
    comparison = _assemble(names, list(predicted), results, failures)
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
    predicted = seen.add(prediction.labels, case)
    seen.add_pair(predicted, truth.labels)
    return metrics.count(
        predicted[None],
        truth.labels[None],
        num_classes=seen.num_classes,
        ignore_index=seen.ignore_index,
    )
