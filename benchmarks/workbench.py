"""Calibrate and tune on every set of maps, and keep what it changes on cases left out.

``python benchmarks/workbench.py MAPS`` runs what ``rankseg calibrate`` and ``rankseg tune`` run on
every set in the folder MAPS that has enough cases, prints the tables of ``docs/workbench.md`` and
adds every figure to ``benchmarks/results/workbench.csv``.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

from _speed_report import Row, append_history, print_table, row
from _speed_setup import REPOSITORY, describe_origin, note
from correlation import clusters_of

from rankseg.calibration import CrossValidation, cross_validate
from rankseg.evaluation import CaseFolder, Difference
from rankseg.tuning import tune

HISTORY = REPOSITORY / "benchmarks" / "results" / "workbench.csv"
FEWEST = 8  # cases: fewer cannot be put in folds
FOLDS = 5
POINTS = 100
KINDS = ("temperature", "vector")
METRICS = ("dice", "iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path, help="the folder of the sets")
    parser.add_argument("--history", type=Path, default=HISTORY, help="the CSV to add to")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for path in sorted(path for path in arguments.maps.iterdir() if path.is_dir()):
        folder = CaseFolder.open(path)
        if len(folder) >= FEWEST:
            note(path.name)
            rows += calibrated(folder)
            rows += tuned(folder)
    append_history(arguments.history, describe_origin("cpu", 2), rows)
    show(rows)


def calibrated(folder: CaseFolder) -> Iterator[Row]:
    """Measure calibrations on cases left out of their fit."""
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes without labels: the sets are small
            told = cross_validate(folder, kind, folds=FOLDS, clusters=clusters_of(folder))
        name = folder.path.name
        for what, before, after, unit in reliabilities(told):
            yield row(name, "", f"{what}, as it is", [before], unit)
            yield row(name, "", f"{what}, {kind}", [after], unit)
        for metric in METRICS:
            ours = f"RankSEG {metric} RMA"
            yield change(name, metric, ours, told.decisions.difference(ours, metric))
            for method in ("argmax", ours):
                gain = told.decisions.difference(f"{method}, calibrated", metric)
                yield change(name, metric, f"{method}, {kind}", gain)


def reliabilities(told: CrossValidation) -> Iterator[tuple[str, float, float, str]]:
    before, after = told.before, told.after
    yield "NLL", before.nll, after.nll, "nats"
    yield "ECE", POINTS * before.ece, POINTS * after.ece, "points"


def tuned(folder: CaseFolder) -> Iterator[Row]:
    """Choose options, and measure the choice on cases left out of it."""
    names = clusters_of(folder)
    clusters = dict(zip(folder.names, names, strict=True))
    for metric in METRICS:
        told = tune(folder, metric, counted="either", folds=FOLDS, clusters=clusters)
        for failure in told.comparison.failures:
            note(f"left out: {failure.name}: {failure.reason}")
        name = folder.path.name
        names_of = f"chosen: {told.chosen.name}; best: {told.best.name}"
        yield row(name, metric, names_of, [POINTS * told.gain], "points")
        yield change(name, metric, "held out", told.held_out)
        yield row(name, metric, "optimism", [POINTS * told.optimism], "points")
        for warning in told.warnings:
            yield row(name, metric, f"note: {warning}", [math.nan], "")


def change(case: str, metric: str, what: str, told: Difference) -> Row:
    """Keep a mean change from argmax, with its interval in place of percentiles."""
    ends = POINTS * told.low, POINTS * told.high
    return Row(case, metric, f"{what}: change from argmax", POINTS * told.mean, "points", *ends)


def show(rows: list[Row]) -> None:
    """Print what was measured, set by set."""
    for case in dict.fromkeys(one.case for one in rows):
        lines = [[one.metric, one.what, shown(one)] for one in rows if one.case == case]
        unlike = [line for place, line in enumerate(lines) if line not in lines[:place]]
        print_table(case, ["metric", "what", "value"], unlike)


def shown(one: Row) -> str:
    if math.isnan(one.value):
        return ""
    ends = f" ({one.p20:+.2f} to {one.p80:+.2f})" if one.p20 != one.p80 else ""
    return f"{one.value:.4g} {one.unit}{ends}"


if __name__ == "__main__":
    main()
