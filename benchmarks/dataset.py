"""Measure rules for the score of a data set; write figures and the tables of docs/dataset.md.

Run ``python benchmarks/dataset.py measure MAPS`` for a folder of sets that ``rankseg compare``
reads, then ``python benchmarks/dataset.py page``. Sets of fewer than 8 images are left out, because
they cannot be split into folds.

Every set is decided on its maps as stored, with class weights undone where ``meta.json`` names
them, and calibrated by vector scaling. What needs labels (calibration, rules fitted to true counts)
is fitted to the other folds. Rules without labels are fitted to the maps that they decide; of
calibrated maps, to those of the other folds. Intervals are percentiles of bootstrap draws of images
(CamVid: of blocks of frames), the same draws for all methods.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _dataset_page import write_page
from _resampling import Floats, aggregates, draws
from _table import read_rows, write_rows
from correlation import clusters_of
from presence import rows_at, set_name, some

from rankseg import RankSEG
from rankseg.calibration import Calibration, fit
from rankseg.dataset import DatasetRule
from rankseg.evaluation import CaseFolder, Method
from rankseg.evaluation.decided_cases import decide_and_count
from rankseg.evaluation.folds import folds_of
from rankseg.metrics import Counted, Counts, Metric

TABLE = Path(__file__).resolve().parent / "results" / "dataset.csv"
FOLDS, FEWEST = 5, 8
RESAMPLES = 2000
CALIBRATION_PIXELS = 2000
"""Drawn of each image to fit a calibration to."""

RULE_PIXELS = 300_000
"""Drawn of a set to fit a rule to."""

METRICS: tuple[Metric, ...] = ("dice", "iou")
COUNTED: tuple[Counted, ...] = ("label", "either")
AGGREGATES = ("D", "I")


@dataclass(frozen=True)
class Row:
    """One method on one input of a set, by one score; differences are from argmax, in points."""

    set: str
    images: int
    clusters: int
    maps: str
    method: str
    metric: str
    counted: str
    aggregate: str
    score: float
    difference: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", choices=["measure", "page"])
    parser.add_argument("maps", type=Path, nargs="?", help="the folder of the sets")
    parser.add_argument("--only", help="names of some sets, with commas between them")
    parser.add_argument("--table", type=Path, default=TABLE, help="the CSV of all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task == "page":
        write_page(read_rows(options.table, Row))
        return
    for path in sorted(path for path in options.maps.iterdir() if path.is_dir()):
        cases = CaseFolder.open(path)
        if len(cases) < FEWEST or (options.only and path.name not in options.only.split(",")):
            continue
        start = time.process_time()
        rows = list(measure(cases))
        others = [row for row in read_rows(options.table, Row) if row.set != set_name(path)]
        write_rows(options.table, others + rows, Row)
        print(f"{path.name}: {time.process_time() - start:.0f} s", file=sys.stderr, flush=True)


def measure(stored: CaseFolder) -> Iterator[Row]:
    """Yield all figures of a set."""
    inputs = {"as stored": stored}
    if stored.class_weights is not None:
        inputs["weights undone"] = replace(stored, prior_correction=True)
    for metric in METRICS:
        for name, cases in inputs.items():
            own = fit_rule(cases, metric)
            yield from rows_of(stored, metric, name, decided(cases, metric, own))
        yield from rows_of(stored, metric, "calibrated", decided(stored, metric, None))


def decided(cases: CaseFolder, metric: Metric, own: DatasetRule | None) -> dict[str, Counts]:
    """Decide every case by every method, by what was fitted without its fold.

    ``own`` is a rule fitted to the cases without labels. Without one, maps are calibrated, and
    the rule is fitted to those of the other folds.
    """
    clusters = clusters_of(cases)
    total = None
    for held_out in folds_of(len(cases), min(FOLDS, len(set(clusters))), clusters, 0):
        rest = some(cases, np.setdiff1d(np.arange(len(cases)), held_out))
        calibration = None
        if own is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # classes that no label of a fold holds
                options: dict[str, Any] = {"ignore_index": cases.ignore_index}
                calibration = fit(rest, "vector", pixels=CALIBRATION_PIXELS, **options)
        unlabelled = own or fit_rule(rest, metric, calibration)
        labelled = fit_rule(rest, metric, calibration, use_labels=True)
        found = decide_and_count(
            some(cases, held_out),
            list(methods(metric, calibration, unlabelled, labelled)),
            classes=cases.classes,
            ignore_index=cases.ignore_index,
        )
        total = found if total is None else total + found
    assert total is not None
    order = {name: place for place, name in enumerate(total.cases)}
    places = torch.tensor([order[name] for name in cases.names])
    return {method: rows_at(counts, places) for method, counts in total.counts.items()}


def fit_rule(
    cases: CaseFolder,
    metric: Metric,
    calibration: Calibration | None = None,
    use_labels: bool = False,
) -> DatasetRule:
    return DatasetRule.fit(
        cases,
        metric,
        use_labels=use_labels,
        ignore_index=cases.ignore_index,
        calibration=calibration,
        pixels=RULE_PIXELS,
    )


def methods(
    metric: Metric,
    calibration: Calibration | None,
    unlabelled: DatasetRule,
    labelled: DatasetRule,
) -> Iterator[Method]:
    """Yield the methods that are compared; all but one share the rule of presence."""
    yield Method("argmax", RankSEG("acc", calibration=calibration))
    options: dict[str, dict[str, Any]] = {
        "joint": {"solver": "joint", "presence": "argmax"},
        "joint r=0.5": {"solver": "joint", "correlation": 0.5, "presence": "argmax"},
        "rule": {"rule": unlabelled, "presence": "argmax"},
        "rule, labels": {"rule": labelled, "presence": "argmax"},
        "rule, presence all": {"rule": unlabelled},
        "rule, labels, presence all": {"rule": labelled},
    }
    for name, option in options.items():
        yield Method(name, RankSEG(metric, calibration=calibration, **option))


def rows_of(
    cases: CaseFolder, metric: Metric, maps: str, found: dict[str, Counts]
) -> Iterator[Row]:
    clusters = clusters_of(cases)
    weights = draws(clusters, RESAMPLES)
    for counted in COUNTED:
        scores = {
            method: aggregates(counts, metric, counted, weights, ())
            for method, counts in found.items()
        }
        for method, aggregate in [(one, key) for one in scores for key in AGGREGATES]:
            ours, argmax = (100 * scores[one][aggregate] for one in (method, "argmax"))
            yield Row(
                set_name(cases.path), len(cases), len(set(clusters)), maps, method, metric,
                counted, aggregate, round(float(ours[0]), 4), *interval(ours - argmax),
            )  # fmt: skip


def interval(differences: Floats) -> tuple[float, float, float]:
    """Return the difference of all images, and the ends of its interval."""
    low, high = np.nanpercentile(differences[1:], [2.5, 97.5])
    mean, low, high = (round(float(one), 4) for one in (differences[0], low, high))
    return mean, low, high


if __name__ == "__main__":
    main()
