"""Measure the rules for which classes are in an image; write figures, pictures, page and table.

Run ``python benchmarks/presence.py measure SET ...`` for folders that ``rankseg compare`` reads
(class weights are undone where ``meta.json`` names them), then ``python benchmarks/presence.py
page SET SET``: the page and the table of README.md are written from the figures, the picture and
the reliability of peaks from the sets given. ``experiments.train`` trains networks with plain
cross-entropy, and ``experiments.maps`` makes sets of them: with ``run=NAME-SEED``, in
``runs/NAME-SEED/maps/test``. The seeds of one name are averaged in the page.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from _presence_page import write_page
from _table import read_rows, write_rows

from rankseg import RankSEG
from rankseg.calibration import PresenceModel, fit
from rankseg.evaluation import (
    CaseFolder,
    Comparison,
    Method,
    argmax,
    compare,
)
from rankseg.evaluation.decided_cases import decide_and_count
from rankseg.evaluation.folds import folds_of
from rankseg.metrics import Counted, Counts, Metric

HERE = Path(__file__).resolve().parent
TABLE = HERE / "results" / "presence.csv"
FOLDS = 5
PIXELS = 2000
"""Drawn of each image to fit a calibration to."""

METRICS: tuple[Metric, ...] = ("dice", "iou")
COUNTED: tuple[Counted, ...] = ("label", "either")

RULES = {
    "RMA, peak (published)": {"solver": "RMA"},
    "RMA, argmax": {"solver": "RMA", "presence": "argmax"},
    "joint, peak": {"solver": "joint"},
    "joint, argmax": {"solver": "joint", "presence": "argmax"},
    "joint, all": {"solver": "joint", "presence": "all"},
    "joint r=0.35, argmax": {"solver": "joint", "correlation": 0.35, "presence": "argmax"},
    "joint r=0.5, peak (default)": {},
    "joint r=0.5, argmax": {"solver": "joint", "correlation": 0.5, "presence": "argmax"},
    "joint r=0.5, all": {"solver": "joint", "correlation": 0.5, "presence": "all"},
}
FITTED = "joint r=0.5, fitted"
CALIBRATED = "joint r=0.5, fitted, calibrated"


@dataclass(frozen=True)
class Row:
    """One way to decide on one set, by one score; differences are from argmax, all in points."""

    set: str
    images: int
    method: str
    metric: str
    counted: str
    by_image: float
    by_class: float
    of_data_set: float
    difference: float
    low: float
    high: float
    wins: int
    losses: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", choices=["measure", "page"])
    parser.add_argument("sets", type=Path, nargs="+", help="folders of maps with labels")
    parser.add_argument("--table", type=Path, default=TABLE, help="the CSV of all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task == "page":
        write_page(read_rows(options.table, Row), [open_set(folder) for folder in options.sets])
        return
    for folder in options.sets:
        print(set_name(folder), file=sys.stderr, flush=True)
        rows = list(measure(folder))
        others = [row for row in read_rows(options.table, Row) if row.set != set_name(folder)]
        write_rows(options.table, others + rows, Row)


def set_name(folder: Path) -> str:
    return [part for part in folder.parts if part not in ("maps", "val", "test")][-1]


def open_set(folder: Path) -> CaseFolder:
    """Open a set, its class weights undone where they are known."""
    stored = CaseFolder.open(folder)
    return replace(stored, prior_correction=stored.class_weights is not None)


def measure(folder: Path) -> Iterator[Row]:
    """Yield all figures of a set."""
    cases = open_set(folder)
    for metric in METRICS:
        fixed = [Method("argmax", argmax)]
        fixed += [Method(name, RankSEG(metric, **rule)) for name, rule in RULES.items()]  # type: ignore[arg-type]
        told = count(cases, fixed)
        learnt = cross_validated(cases, metric)
        order = {name: place for place, name in enumerate(learnt.cases)}
        places = torch.tensor([order[name] for name in told.cases])
        found = {name: rows_at(learnt.counts[name], places) for name in (FITTED, CALIBRATED)}
        told = replace(told, counts={**told.counts, **found})
        for method in told.methods:
            for counted in COUNTED:
                yield row_of(set_name(folder), told, method, metric, counted)


def rows_at(counts: Counts, places: torch.Tensor) -> Counts:
    return Counts(*(getattr(counts, field.name)[places] for field in fields(Counts)))


def count(cases: CaseFolder, methods: Sequence[Method]) -> Comparison:
    return compare(cases, methods, classes=cases.classes, ignore_index=cases.ignore_index)


def cross_validated(cases: CaseFolder, metric: Metric) -> Comparison:
    """Decide every case by a model, and by a calibration with one, fitted without its fold."""
    parts = []
    for held_out in folds_of(len(cases), FOLDS, None, 0):
        rest = np.setdiff1d(np.arange(len(cases)), held_out)
        model, calibration = fitted(some(cases, rest))
        decide = functools.partial(RankSEG, metric, solver="joint", correlation=0.5)
        methods = [
            Method(FITTED, decide(presence=model)),
            Method(CALIBRATED, decide(calibration=calibration)),
        ]
        chosen = some(cases, held_out)
        parts.append(
            decide_and_count(
                chosen, methods, classes=cases.classes, ignore_index=cases.ignore_index
            )
        )
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def some(cases: CaseFolder, places: np.ndarray) -> CaseFolder:
    return replace(cases, names=tuple(cases.names[place] for place in places))


@functools.cache  # for both metrics
def fitted(cases: CaseFolder) -> tuple[PresenceModel, object]:
    """Fit a model to maps as they are, and a calibration with a model of calibrated maps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few cases, and classes that no label of a fold holds
        options = {"ignore_index": cases.ignore_index}
        model = PresenceModel.fit(cases, **options)
        calibration = fit(cases, "vector", pixels=PIXELS, **options)
        after = PresenceModel.fit(cases, calibration=calibration, **options)
    return model, replace(calibration, presence=after)


def row_of(name: str, told: Comparison, method: str, metric: Metric, counted: Counted) -> Row:
    means = told.aggregates(method, metric, counted)
    change = told.difference(method, metric, counted)
    points = [100 * value for value in (*(means[key] for key in "ICD"), change.mean)]
    ends = [100 * change.low, 100 * change.high]
    return Row(
        name, len(told.cases), method, metric, counted,
        *(round(value, 4) for value in (*points, *ends)), change.wins, change.losses,
    )  # fmt: skip


if __name__ == "__main__":
    main()
