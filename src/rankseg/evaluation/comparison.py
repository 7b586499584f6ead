"""What several methods decided on the same cases: scores, averages and paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg import metrics
from rankseg._common.public import public
from rankseg._files.spreadsheets import write_csv
from rankseg._files.whole import write_whole
from rankseg.evaluation.conventions import CONVENTIONS, Aggregate, Convention, aggregate
from rankseg.evaluation.differences import TIE, Clusters, Difference, Floats, PairedTests
from rankseg.evaluation.labelled_cases import Failure
from rankseg.metrics import METRICS, Counted, Counts, Metric

__all__ = ["Comparison", "Score"]

Score: TypeAlias = Literal["image", "dataset"]

_READINGS: Final[tuple[tuple[Metric, Counted], ...]] = (
    ("dice", "label"),
    ("iou", "label"),
    ("dice", "either"),
    ("iou", "either"),
)


@public("rankseg.evaluation")
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
    expected_volumes : ndarray, optional
        float64 (cases, classes): the sum of the probabilities over the pixels that count. None if
        no maps were decided.
    """

    classes: tuple[str, ...]
    cases: tuple[str, ...]
    counts: Mapping[str, Counts]
    seconds: Mapping[str, Floats]
    failures: tuple[Failure, ...] = ()
    predicted: Mapping[str, Mapping[Metric, Floats]] | None = None
    clusters: tuple[str, ...] | None = None
    band: float = TIE
    expected_volumes: Floats | None = None

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
        volumes = None
        if self.expected_volumes is not None and other.expected_volumes is not None:
            volumes = np.concatenate([self.expected_volumes, other.expected_volumes])
        return Comparison(
            classes=self.classes,
            cases=self.cases + other.cases,
            counts={k: Counts.cat([v, other.counts[k]]) for k, v in self.counts.items()},
            seconds={k: np.concatenate([v, other.seconds[k]]) for k, v in self.seconds.items()},
            failures=self.failures + other.failures,
            predicted=predicted,
            clusters=self.clusters and other.clusters and self.clusters + other.clusters,
            band=self.band,
            expected_volumes=volumes,
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, the baseline first."""
        return tuple(self.counts)

    @property
    def units(self) -> int:
        """The number of clusters, or of cases where there are none: what is independent."""
        return len(set(self.clusters or self.cases))

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
        score: Score = "image",
    ) -> Floats:
        """Return the mean score of every case minus that of a baseline, by default the first.

        Parameters
        ----------
        method, metric, counted
            As for `scores`.
        baseline : str, optional
            A method.
        score : {'image', 'dataset'}
            Whether every case is scored, or the data set whose counts are summed first. The
            difference of a case is then its share in that of the data set, to first order: the
            shares have the difference of the data set as their mean.

        Returns
        -------
        ndarray
            float64 (cases,), NaN where no class counts for either method. Where one counts for
            only one of them (``"either"``, an empty label, one of the two predictions empty), the
            other is right to predict nothing and scores 1, or else the error of the first would
            go unseen.
        """
        self._check_names(method, metric)
        if score == "dataset":
            of_both = [self.counts[name] for name in (method, baseline or self.methods[0])]
            first, second = (_shares(counts, metric, counted) for counts in of_both)
            return first - second
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
        score: Score = "image",
    ) -> Difference:
        """Sum up `differences`: mean, bootstrap interval, wins, losses and ties.

        ``clusters`` has one entry for every case, by default those of the comparison: see
        `bootstrap_interval`. With ``score="dataset"`` wins are the cases that raise the score of
        the data set.
        """
        differences = self.differences(method, metric, counted, baseline=baseline, score=score)
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


def _shares(counts: Counts, metric: Metric, counted: Counted) -> Floats:
    """Return float64 (cases,): by its mean the score of the data set, linear in the counts.

    For a class of score ``s = a / b``, of sums over ``n`` cases, that of a case is
    ``s + n (a_case - s b_case) / b``.
    """
    score = metrics.dice if metric == "dice" else metrics.iou
    of_set = score(counts.total(), counted=counted)[0]
    tp, errors = counts.tp.double(), (counts.fp + counts.fn).double()
    part, whole = (2 * tp, 2 * tp + errors) if metric == "dice" else (tp, tp + errors)
    shares = of_set + len(tp) * (part - of_set * whole) / whole.sum(0)
    means: Floats = shares.nanmean(1).numpy()
    return means


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
