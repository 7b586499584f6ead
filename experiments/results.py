"""Gather what was decided in all runs, and write RESULTS.md and docs/members.md.

Run ``python -m experiments.results collect RUNS`` for the folder of the runs, which writes the
figures to ``experiments/results/*.csv``, then ``python -m experiments.results page``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._table import read_rows, write_rows
from experiments.members_page import write_members
from experiments.page import write_page
from experiments.records import read_comparison
from experiments.rows import MeasuredRow, MembersRow, Row
from experiments.tables import QUANTITIES, READINGS, WORST, metric_of
from rankseg import metrics
from rankseg.evaluation import Comparison, Difference
from rankseg.evaluation.differences import TIE
from rankseg.metrics import METRICS, Counted, Metric

HERE = Path(__file__).resolve().parent
DECISIONS, MEASURED, MEMBERS = (
    HERE / "results" / f"{name}.csv" for name in ("decisions", "quantities", "members")
)
BASELINE = "argmax of the maps as they are"


@dataclass(frozen=True)
class Network:
    """The runs of one network on one data set, one for every seed."""

    data: str
    name: str
    folders: tuple[Path, ...]


def networks(runs: Path) -> Iterator[Network]:
    """Find the networks that have been compared."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(runs.glob("*/*/seed*/decisions-raw.npz")):
        found.setdefault(path.parent.parent, []).append(path.parent)
    for parent, folders in found.items():
        yield Network(parent.parent.name, parent.name, tuple(folders))


def decision_rows(network: Network) -> Iterator[Row]:
    """Yield a row for every method and score of a network."""
    for path in sorted(network.folders[0].glob("decisions-*.npz")):
        maps = path.stem.removeprefix("decisions-")
        folders = [folder for folder in network.folders if (folder / path.name).exists()]
        yield from _rows(network, maps, [_of_seed(folder, maps) for folder in folders])


def _of_seed(folder: Path, maps: str) -> Comparison:
    """Return the decisions on one kind of maps, after argmax of the maps as they are."""
    comparison = read_comparison(folder / f"decisions-{maps}.npz")
    if maps == "raw":
        return comparison
    plain = read_comparison(folder / "decisions-raw.npz").counts["argmax"]
    return replace(comparison, counts={BASELINE: plain, **comparison.counts})


def _rows(network: Network, maps: str, seeds: Sequence[Comparison]) -> Iterator[Row]:
    for method in seeds[0].seconds:
        for metric in METRICS:
            if metric_of(method) in (None, metric):
                for counted, _ in READINGS:
                    yield Row(
                        set=network.data,
                        network=network.name,
                        seeds=len(seeds),
                        maps=maps,
                        method=method,
                        metric=metric,
                        counted=counted,
                        images=len(seeds[0].cases),
                        **_figures(seeds, method, metric, counted),
                    )


def _figures(
    seeds: Sequence[Comparison], method: str, metric: Metric, counted: Counted
) -> dict[str, Any]:
    """Return the means over seeds in points, and the interval of their mean change."""
    scores = [
        [
            metrics.summary(seed.counts[name], metric, counted=counted, worst=[WORST])
            for seed in seeds
        ]
        for name in (seeds[0].methods[0], method)
    ]
    result: dict[str, Any] = {}
    for key in ("I", "C", "D", f"I@{WORST}"):
        theirs, ours = (np.mean([one[key] for one in of_seeds]) for of_seeds in scores)
        name = "worst" if "@" in key else key
        result[name] = round(100 * float(ours), 3)
        result[f"{name}_change"] = round(100 * float(ours - theirs), 3)
    for baseline in (seeds[0].methods[0], "pruned_argmax"):
        by_seed = [seed.differences(method, metric, counted, baseline=baseline) for seed in seeds]
        change = Difference.of(np.mean(by_seed, 0), clusters=seeds[0].clusters)
        name_of_change = "pruned" if baseline == "pruned_argmax" else "change"
        for end, value in {"": change.mean, "_low": change.low, "_high": change.high}.items():
            result[name_of_change + end] = round(100 * value, 3)
        if name_of_change == "change":
            result |= {"wins": change.wins, "losses": change.losses}
            spread = np.nanmean(by_seed, 1).std(ddof=1) if len(seeds) > 1 else np.nan
            result["spread"] = round(100 * float(spread), 3)
    result["seconds"] = round(float(np.median([seed.seconds[method] for seed in seeds])), 5)
    return result


def quantity_rows(network: Network) -> Iterator[MeasuredRow]:
    """Yield what is measured of the maps of every seed."""
    for folder in network.folders:
        found = json.loads((folder / QUANTITIES).read_text())
        rounded = {name: round(value, 5) for name, value in found.items()}
        yield MeasuredRow(network.data, network.name, folder.name, **rounded)


def members_rows(runs: Path) -> Iterator[MembersRow]:
    """Yield the rows of every set whose networks were decided on together."""
    for path in sorted(runs.glob("*/*/members-*.npz")):
        comparison = read_comparison(path)
        members = int(path.stem.rpartition("-")[2])
        for metric, (counted, _) in product(METRICS, READINGS):
            for method in comparison.methods:
                if metric_of(method) in (None, metric):
                    figures = _members_figures(comparison, method, metric, counted)
                    images = len(comparison.cases)
                    place = (path.parent.parent.name, members, images)
                    row = MembersRow(*place, metric, counted, method, *figures)  # type: ignore[arg-type]
                    yield row


def _members_figures(
    comparison: Comparison, method: str, metric: Metric, counted: Counted
) -> tuple[float, float, float, float, int, int]:
    score = np.nanmean(comparison.by_image(method, metric, counted))
    change = np.nanmean(comparison.differences(method, metric, counted))
    ahead = comparison.differences(f"members {metric}", metric, counted, baseline=method)
    known = ahead[~np.isnan(ahead)]
    error = known.std(ddof=1) / np.sqrt(len(known))
    points = [round(100 * float(value), 3) for value in (score, change, known.mean(), error)]
    return (*points, int((known > TIE).sum()), int((known < -TIE).sum()))  # type: ignore[return-value]


def collect(runs: Path) -> None:
    """Write the figures of all runs."""
    found = [*networks(runs)]
    write_rows(DECISIONS, [row for network in found for row in decision_rows(network)], Row)
    write_rows(MEMBERS, [*members_rows(runs)], MembersRow)
    rows = [row for network in found for row in quantity_rows(network)]
    write_rows(MEASURED, rows, MeasuredRow)
    print(f"gathered {len(found)} networks of {sum(len(one.folders) for one in found)} runs")


def gathered() -> tuple[list[Row], list[MeasuredRow], list[MembersRow]]:
    """Read the figures that `collect` wrote."""
    return (
        read_rows(DECISIONS, Row),
        read_rows(MEASURED, MeasuredRow),
        read_rows(MEMBERS, MembersRow),
    )


def main() -> None:
    """Gather, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task", choices=["collect", "page"])
    parser.add_argument("runs", type=Path, nargs="?", help="the folder of the runs, to collect")
    options = parser.parse_args()
    if options.task == "collect":
        if options.runs is None:
            parser.error("collect needs the folder of the runs")
        collect(options.runs)
    else:
        decisions, measured, members = gathered()
        write_page(HERE / "RESULTS.md", decisions, measured)
        write_members(HERE.parent / "docs" / "members.md", members)


if __name__ == "__main__":
    main()
