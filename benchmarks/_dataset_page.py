"""Write the tables of docs/dataset.md from what ``dataset.py`` measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from _pages import FEWEST_FOR_CERTAINTY, METRIC_NAMES, table
from _presence_page import replace_tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dataset.md"
AGGREGATES = {"D": "summed over the data set", "I": "mean over the images"}
INPUTS = ("as stored", "weights undone", "calibrated")
RULES = ("rule", "rule, labels")
OTHERS = ("argmax", "joint", "joint r=0.5")


def write_page(rows: Sequence[Any]) -> None:
    """Replace the tables of the page."""
    replace_tables(PAGE, tables(rows))


def tables(rows: Sequence[Any]) -> str:
    parts = [f"### IoU summed over the data set, in points\n\n{scores(rows)}"]
    for metric, name in reversed(METRIC_NAMES.items()):
        for aggregate, title in AGGREGATES.items():
            chosen = pick(rows, metric=metric, aggregate=aggregate, counted="label")
            parts.append(f"### Change of {name} {title}\n\n{changes(chosen)}")
    chosen = pick(rows, metric="iou", aggregate="I", counted="either")
    title = "Change of IoU mean over the images, false classes score 0"
    parts.append(f"### {title}\n\n{changes(chosen)}")
    parts.append(f"### Every loss in the score that a rule maximises\n\n{losses(rows)}")
    return "\n".join(parts)


def scores(rows: Sequence[Any]) -> str:
    """Write IoU of the data set by argmax and the rule without labels, on all maps."""
    chosen = pick(rows, metric="iou", aggregate="D", counted="label")
    shown = []
    for name in dict.fromkeys(row.set for row in chosen):
        cells = []
        for maps, method in product(INPUTS, ("argmax", "rule, presence all")):
            found = pick(chosen, set=name, maps=maps, method=method)
            cells.append(f"{found[0].score:.2f}" if found else "")
        shown.append([name, *cells])
    header = [f"{maps}: {method}" for maps in INPUTS for method in ("argmax", "rule")]
    return table(["set", *header], shown)


def pick(rows: Iterable[Any], **wanted: str) -> list[Any]:
    """Return the rows with these values."""
    return [row for row in rows if all(getattr(row, k) == v for k, v in wanted.items())]


def changes(rows: Sequence[Any]) -> str:
    """Write argmax, and what every other method changes: a row for each set and its maps."""
    methods = list(dict.fromkeys(row.method for row in rows))[1:]
    shown = []
    for maps in INPUTS:
        found = pick(rows, maps=maps)
        for name in dict.fromkeys(row.set for row in found):
            own = {row.method: row for row in pick(found, set=name)}
            cells = [change(own[method]) for method in methods]
            shown.append([maps, name, f"{own['argmax'].score:.2f}", *cells])
        means = [mean(row.difference for row in pick(found, method=method)) for method in methods]
        shown.append([maps, "**mean**", "", *(f"{one:+.2f}" for one in means)])
    return table(["maps", "set", "argmax", *methods], shown, left=2)


def change(row: Any) -> str:
    """Write the change with its interval, bold if the interval excludes 0."""
    sure = row.clusters >= FEWEST_FOR_CERTAINTY and (row.low > 0 or row.high < 0)
    text = f"{row.difference:+.2f}"
    return f"{f'**{text}**' if sure else text} ({row.low:+.2f}, {row.high:+.2f})"


def losses(rows: Sequence[Any]) -> str:
    """List where a rule is below argmax, joint or joint r=0.5 by more than 0.005."""
    shown = []
    chosen = pick(rows, aggregate="D", counted="label")
    for maps, name, metric in dict.fromkeys((row.maps, row.set, row.metric) for row in chosen):
        found = pick(chosen, maps=maps, set=name, metric=metric)
        own = {row.method: row.difference for row in found}
        if min(own[rule] for rule in RULES) < max(own[other] for other in OTHERS) - 0.005:
            cells = [f"{own[method]:+.2f}" for method in (*RULES, *OTHERS[1:])]
            shown.append([maps, name, METRIC_NAMES[metric], *cells])
    return table(["maps", "set", "score", *RULES, *OTHERS[1:]], shown, left=3)
