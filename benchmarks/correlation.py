"""Measure what correlated labels, the presence threshold and prior correction do to real maps.

Run ``python benchmarks/correlation.py ROOT`` where every folder below ROOT is a set that
``rankseg compare`` reads. Every image is decided once by every method, and counted once; all
aggregates, by both rules for absent classes, come from the counts. Writes every figure to a CSV
file and the page that sums them up.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _correlation_page import page
from _correlation_rows import (
    AGGREGATES,
    COUNTED,
    METRICS,
    WORST,
    Figure,
    Origin,
    Record,
    Row,
    Way,
    as_csv,
)
from _resampling import Floats, aggregates, draws
from _speed_setup import commit, note, processor
from torch import Tensor

import rankseg
from rankseg import RankSEG, metrics
from rankseg._files.whole import write_whole
from rankseg.evaluation import CaseFolder, Comparison, argmax, pruned_argmax
from rankseg.evaluation.differences import TIE
from rankseg.metrics import Counted, Counts, Metric

HERE = Path(__file__).resolve().parent
DEFAULT_PAGE = HERE.parent / "docs" / "correlation.md"
DEFAULT_TABLE = HERE / "results" / "correlation.csv"

CORRELATIONS = (0.0, 0.2, 0.35, 0.5, 0.7, 0.9)
PRUNING_PROBS = (0.5, 0.7, 0.8, 0.9)
SOLVERS = ("RMA", "joint")
RESAMPLES = 4000

# Consecutive frames of one drive that are drawn together: 8 seconds of the sets at hand.
FRAMES_PER_BLOCK = 2


@dataclass(frozen=True)
class Rule:
    """A way of deciding, but for ``pruning_prob``; the metric is that which is maximised."""

    method: str
    metric: Metric | None = None
    correlation: float = 0.0

    def decide(self, probs: Tensor, pruning_prob: float) -> Tensor:
        """Return labels (1, *spatial), or masks (1, 1, *spatial) if there is one class."""
        if self.method == "argmax":
            return argmax(probs)
        if self.method == "pruned argmax":
            return pruned_argmax(probs, pruning_prob)
        single = probs.shape[1] == 1
        options = {"correlation": self.correlation} if self.correlation else {}
        decide = RankSEG(
            metric=str(self.metric),
            # One class shares its pixels with no other: joint is RMA.
            solver="RMA" if single else self.method,
            output_mode="multilabel" if single else "multiclass",
            pruning_prob=pruning_prob,
            **options,
        )
        decision: Tensor = decide(probs)
        return decision


Decided = Mapping[tuple[Rule, float], Counts]
"""By rule and pruning_prob: the counts, (images, classes)."""


@dataclass(frozen=True)
class Measured:
    """One set of maps, as stored or with its class weights undone."""

    name: str
    maps: str
    cases: tuple[str, ...]
    clusters: tuple[str, ...]
    counts: Decided


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="holds one folder for every set")
    parser.add_argument("--correlations", type=float, nargs="+", default=CORRELATIONS)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="images at a time")
    parser.add_argument("--only", nargs="+", help="names of some of the sets")
    parser.add_argument("--table", type=Path, default=DEFAULT_TABLE, help="the CSV to write")
    parser.add_argument("--output", type=Path, default=DEFAULT_PAGE, help="the page to write")
    arguments = parser.parse_args()
    folders = sorted({file.parent for file in arguments.root.glob("*/*.npz")})
    if arguments.only:
        folders = [folder for folder in folders if folder.name in arguments.only]
    if not folders:
        sys.exit(f"no folder below {arguments.root} holds an npz file")
    torch.set_num_threads(1)  # the images are spread over threads instead
    rules = list(all_rules(arguments.correlations))
    rows: list[Row] = []
    for folder in folders:
        rows += measure_folder(folder, rules, arguments.workers)
    origin = describe_origin()
    arguments.table.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.table, as_csv(origin, rows).encode())
    write_whole(arguments.output, page(origin, rows, RESAMPLES).encode())


def all_rules(correlations: Iterable[float]) -> Iterator[Rule]:
    yield Rule("argmax")
    yield Rule("pruned argmax")
    for correlation, metric, solver in product(correlations, METRICS, SOLVERS):
        yield Rule(solver, metric, correlation)


# Deciding and counting


def measure_folder(folder: Path, rules: Sequence[Rule], workers: int) -> list[Row]:
    """Measure a set as stored, and with the class weights undone where they are known."""
    stored = CaseFolder.open(folder)
    note(f"{folder.name}: {len(stored)} images")
    plain = count_folder(stored, rules, workers)
    rows = list(rows_of(plain, plain, "argmax"))
    if stored.class_weights is not None:
        corrected = count_folder(replace(stored, prior_correction=True), rules, workers)
        rows += rows_of(corrected, corrected, "argmax")
        rows += rows_of(corrected, plain, "argmax as stored")
    return rows


def count_folder(folder: CaseFolder, rules: Sequence[Rule], workers: int) -> Measured:
    work = functools.partial(count_case, folder, rules)
    with ThreadPoolExecutor(workers) as pool:
        counted = list(pool.map(work, folder.names))
    return Measured(
        name=folder.path.name,
        maps="corrected" if folder.prior_correction else "stored",
        cases=folder.names,
        clusters=clusters_of(folder),
        counts={key: Counts.cat(case[key] for case in counted) for key in counted[0]},
    )


def count_case(folder: CaseFolder, rules: Sequence[Rule], name: str) -> Decided:
    """Decide one image by every rule, once for all values of pruning_prob that keep the same."""
    case = folder.read(name)
    probs = case.probs.float()[None]
    peaks = probs.flatten(2).amax(2)[0]
    counted: dict[tuple[Rule, float], Counts] = {}
    for rule in rules:
        known: dict[tuple[bool, ...], Counts] = {}
        for pruning_prob in PRUNING_PROBS:
            kept = () if rule.method == "argmax" else tuple((peaks > pruning_prob).tolist())
            if kept not in known:
                decision = rule.decide(probs, pruning_prob)
                known[kept] = count(decision, case.label, len(peaks), folder.ignore_index)
            counted[rule, pruning_prob] = known[kept]
    return counted


def count(decision: Tensor, label: Tensor, classes: int, ignore_index: int | None) -> Counts:
    if classes == 1:
        return metrics.count(decision, label[None, None], ignore_index=ignore_index)
    return metrics.count(decision, label[None], num_classes=classes, ignore_index=ignore_index)


def clusters_of(folder: CaseFolder) -> tuple[str, ...]:
    """Name the cluster of every image: images are alike only where they are frames of one drive.

    The drives, if there are several; of a single one, blocks of consecutive frames.
    """
    if not folder.path.name.startswith("camvid"):
        return folder.names
    drives = tuple(name.rpartition("_")[0] for name in folder.names)
    if len(set(drives)) > 1:
        return drives
    return tuple(f"block {frame // FRAMES_PER_BLOCK}" for frame in range(len(drives)))


# Scoring


def rows_of(measured: Measured, reference: Measured, baseline: str) -> Iterator[Row]:
    """Hold every way to decide a set against argmax, of the same maps or of another reading."""
    weights = draws(measured.clusters, RESAMPLES)
    rules = list(dict.fromkeys(rule for rule, _ in measured.counts))
    argmax_counts = reference.counts[rules[0], PRUNING_PROBS[0]]
    for metric, counted in product(METRICS, COUNTED):
        score = functools.partial(
            aggregates, metric=metric, counted=counted, weights=weights, worst=WORST
        )
        theirs = score(argmax_counts)
        known: dict[bytes, dict[str, Figure]] = {}  # many ways decide alike
        for (rule, pruning_prob), counts in measured.counts.items():
            if rule.metric not in (None, metric):
                continue
            if rule.method == "argmax" and pruning_prob != PRUNING_PROBS[0]:
                continue
            signature = torch.stack((counts.tp, counts.fp, counts.fn)).numpy().tobytes()
            if signature not in known:
                known[signature] = figures(score(counts), theirs, measured.clusters)
            yield Row(
                Way(
                    set=measured.name,
                    maps=measured.maps,
                    method=rule.method,
                    correlation=None if rule.metric is None else rule.correlation,
                    pruning_prob=None if rule.method == "argmax" else pruning_prob,
                    metric=metric,
                    counted=counted,
                    baseline=baseline,
                ),
                record(measured, counts, argmax_counts, metric, counted),
                known[signature],
            )


def figures(
    ours: Mapping[str, Floats], theirs: Mapping[str, Floats], clusters: Sequence[str]
) -> dict[str, Figure]:
    """Sum up the aggregates (1 + draws,), of which the first is that of the images as they are."""
    found = {}
    for name in AGGREGATES:
        change = 100 * (ours[name] - theirs[name])
        low, high = np.quantile(change[1:], [0.025, 0.975])
        if len(set(clusters)) < 2:
            low = high = np.nan  # one says nothing about how they scatter
        found[name] = Figure(100 * ours[name][0], change[0], low, high)
    return found


def record(
    measured: Measured, counts: Counts, baseline: Counts, metric: Metric, counted: Counted
) -> Record:
    comparison = Comparison(
        classes=("",) * counts.tp.shape[1],
        cases=measured.cases,
        counts={"argmax": baseline, "other": counts},
        seconds={},
    )
    differences = comparison.differences("other", metric, counted)
    return Record(
        images=len(measured.cases),
        clusters=len(set(measured.clusters)),
        won=int((differences > TIE).sum()),
        lost=int((differences < -TIE).sum()),
        tied=int((np.abs(differences) <= TIE).sum()),
    )


def describe_origin() -> Origin:
    return Origin(
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        machine=f"{processor()}; {os.cpu_count()} cores",
        commit=commit(),
        version=rankseg.__version__,
    )


if __name__ == "__main__":
    main()
