"""Comparisons as tables for a terminal. Needs rich: ``pip install 'rankseg[cli]'``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankseg.evaluation import Comparison, Counted, Difference, Timing
from rankseg.metrics import METRICS, Metric

__all__ = ["class_table", "decision_table", "image_table", "print_table", "time_table"]

METRIC_NAMES: dict[Metric, str] = {"dice": "Dice", "iou": "IoU"}
UNLIMITED = 10_000  # columns
COUNTED_NAMES: dict[Counted, str] = {
    "label": "a class counts where the label holds it",
    "either": "a class predicted where it is absent scores 0",
}


def class_table(comparison: Comparison) -> Table:
    """Show Dice and IoU of every class: baselines, RankSEG, and the change from the baseline."""
    table = _table("Per class: points, mean over the n images whose label holds the class")
    table.add_column("class", no_wrap=True)
    table.add_column("n", justify="right")
    columns: list[list[Text | str]] = [
        list(comparison.classes),
        [str(images) for images in comparison.images_by_class],
    ]
    for metric in METRICS:
        for position, method in enumerate((*comparison.methods[:2], ours(comparison, metric))):
            group = METRIC_NAMES[metric] if position == 0 else ""
            table.add_column(f"{group}\n{_two_lines(method)}", justify="right", no_wrap=True)
            columns.append([points(score) for score in comparison.by_class(method, metric)])
        change = comparison.by_class(method, metric) - comparison.by_class(
            comparison.methods[0], metric
        )
        table.add_column("\n\nchange", justify="right", no_wrap=True)
        columns.append([signed(value) for value in change])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def ours(comparison: Comparison, metric: Metric) -> str:
    """Return the first RankSEG method that maximises the metric, or else the first there is."""
    fitting = [name for name in comparison.methods[2:] if metric in name.split()]
    return (fitting or comparison.methods[2:])[0]


def image_table(comparison: Comparison, counted: Counted) -> Table:
    """Show the mean score per image of every method, with gains and losses on the baseline.

    The predicted gain, if it was asked for, stands beside the achieved one. It knows no labels, so
    it is the same whatever ``counted``.
    """
    table = _table(f"Per image: points, {COUNTED_NAMES[counted]}")
    table.add_column("method", no_wrap=True)
    paired = ["change", "95 % interval", "won", "lost", "tied"]
    if comparison.predicted is not None:
        paired.insert(0, "predicted")
    for name in ("mean", *paired, "C", "D"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in METRICS:
        table.add_row(Text(METRIC_NAMES[metric], style="bold"))
        for method in comparison.methods:
            means = comparison.aggregates(method, metric, counted)
            cells: list[Text | str] = [""] * len(paired)
            if method != comparison.methods[0]:
                cells = _paired(comparison, method, metric, counted)
            table.add_row(
                method, points(means["I"]), *cells, points(means["C"]), points(means["D"])
            )
    return table


def _paired(
    comparison: Comparison, method: str, metric: Metric, counted: Counted
) -> list[Text | str]:
    difference = comparison.difference(method, metric, counted)
    cells: list[Text | str] = [signed(difference.mean), interval(difference)]
    cells += map(str, (difference.wins, difference.losses, difference.ties))
    if comparison.predicted is not None:
        cells.insert(0, signed(comparison.predicted_gain(method, metric)))
    return cells


def time_table(timings: Mapping[str, Timing], images: int) -> Table:
    """Show the time of a decision: the first call, then the median of the others."""
    baseline = next(iter(timings.values()))
    table = _table(f"Time: milliseconds for all {images} images at once")
    table.add_column("method", no_wrap=True)
    for name in ("first call", "median after", "per image", "x argmax"):
        table.add_column(name, justify="right", no_wrap=True)
    for method, timing in timings.items():
        table.add_row(
            method,
            f"{1000 * timing.first:.1f}",
            f"{1000 * timing.median:.1f}",
            f"{1000 * timing.median / images:.3f}",
            f"{timing.median / baseline.median:.2f}",
        )
    return table


def decision_table(comparison: Comparison) -> Table:
    """Show the median time of a decision."""
    table = _table("Time: milliseconds of one decision, median over the images")
    for method in comparison.methods:
        table.add_column(_two_lines(method), justify="right", no_wrap=True)
    medians = (float(np.median(seconds)) for seconds in comparison.seconds.values())
    table.add_row(*(f"{1000 * median:.1f}" for median in medians))
    return table


def points(score: float) -> str:
    """Write a score as points; a dash where there is none."""
    return "-" if math.isnan(score) else f"{100 * score:.2f}"


def signed(difference: float) -> Text:
    """Write a difference as points, in colour; what rounds to nothing has no sign."""
    if math.isnan(difference):
        return Text("-")
    rounded = round(100 * difference, 2)
    if rounded == 0:
        return Text("0.00")
    return Text(f"{rounded:+.2f}", style="green" if rounded > 0 else "red")


def interval(difference: Difference) -> str:
    """Write the ends of the interval as points."""
    if math.isnan(difference.low):
        return "-"
    return f"{signed(difference.low).plain} to {signed(difference.high).plain}"


def print_table(table: Table) -> None:
    """Print a table and an empty line; no number is cut off where the terminal is narrower."""
    console = Console(highlight=False, width=UNLIMITED)
    console.print(table)
    console.print()


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )


def _two_lines(method: str) -> str:
    """Break the name of a method after its first word, so that columns stay narrow."""
    first, _, rest = method.partition(" ")
    return f"{first}\n{rest}" if rest else f"\n{first}"
