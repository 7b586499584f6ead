"""Comparisons as tables for a terminal. Needs rich: ``pip install 'rankseg[cli]'``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankseg.calibration import CrossValidation, PresenceValidation
from rankseg.evaluation import Comparison, Difference, Timing
from rankseg.evaluation.conventions import CONVENTIONS
from rankseg.metrics import METRICS, Counted, Metric
from rankseg.tuning import Tuning

__all__ = [
    "PlainConsole",
    "aggregate_table",
    "calibrated_decisions_table",
    "calibration_table",
    "class_table",
    "decision_table",
    "image_table",
    "presence_table",
    "print_table",
    "score_table",
    "tests_table",
    "time_table",
    "tuning_table",
]

METRIC_NAMES: dict[Metric, str] = {"dice": "Dice", "iou": "IoU"}
SHORT_NAMES = {"nnunet": "nnunet", "monai": "monai", "torchmetrics": "t.metrics", "mmseg": "mmseg"}
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
        shown = dict.fromkeys((*comparison.methods[:2], ours(comparison, metric)))
        for position, method in enumerate(shown):
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
    others = comparison.methods[2:] or comparison.methods[-1:]
    fitting = [name for name in others if metric in name.split()]
    return (fitting or others)[0]


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


def tests_table(comparison: Comparison) -> Table:
    """Show p-values of the change of every method from the first. Needs SciPy."""
    units = "images" if comparison.clusters is None else "clusters"
    table = _table(
        f"Tests of the change by {units}: p of signed ranks (Wilcoxon) and of signs, two-sided"
    )
    table.add_column("method", no_wrap=True)
    for metric in METRICS:
        for counted in COUNTED_NAMES:
            table.add_column(f"{METRIC_NAMES[metric]}\n{counted}", justify="right", no_wrap=True)
    for method in comparison.methods[1:]:
        cells = []
        for metric in METRICS:
            for counted in COUNTED_NAMES:
                tests = comparison.tests(method, metric, counted)
                cells.append(f"{_chance(tests.wilcoxon)}, {_chance(tests.sign)}")
        table.add_row(method, *cells)
    return table


def _chance(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def aggregate_table(comparison: Comparison) -> Table:
    """Show the averages of the toolkits."""
    table = _table("Averages by the ways of toolkits: points")
    table.add_column("method", no_wrap=True)
    for metric in METRICS:
        for position, name in enumerate(CONVENTIONS):
            group = METRIC_NAMES[metric] if position == 0 else ""
            table.add_column(f"{group}\n{SHORT_NAMES[name]}", justify="right", no_wrap=True)
    for method in comparison.methods:
        means = [
            comparison.aggregate(method, metric, name).mean
            for metric in METRICS
            for name in CONVENTIONS
        ]
        table.add_row(method, *map(points, means))
    return table


def score_table(comparison: Comparison) -> Table:
    """Show Dice and IoU of every class of a single method."""
    (method,) = comparison.methods
    table = _table(f"{method}: points, mean over the n images in which a class counts")
    table.add_column("class", no_wrap=True)
    for metric in METRICS:
        for counted in COUNTED_NAMES:
            table.add_column(f"{METRIC_NAMES[metric]}\n{counted}", justify="right", no_wrap=True)
            table.add_column("\nn", justify="right", no_wrap=True)
    for place, name in enumerate(comparison.classes):
        cells = []
        for metric in METRICS:
            for counted in COUNTED_NAMES:
                scores = comparison.scores(method, metric, counted)[:, place]
                cells += [points(scores.nanmean().item()), str(int((~scores.isnan()).sum()))]
        table.add_row(name, *cells)
    return table


def calibration_table(validation: CrossValidation) -> Table:
    """Show likelihood and calibration errors before and after."""
    table = _table("Probabilities of held-out maps")
    table.add_column("", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    both = (validation.before, validation.after)
    table.add_row("NLL", *(f"{one.nll:.4f}" for one in both))
    table.add_row("ECE", *(points(one.ece) for one in both))
    table.add_row("ECE by class, mean", *(points(one.mean_classwise_ece) for one in both))
    for place, name in enumerate(validation.before.classes):
        table.add_row(f"ECE of {name}", *(points(one.classwise_ece[place]) for one in both))
    for place, name in enumerate(validation.before.classes):
        table.add_row(f"volume of {name}", *(_ratio(one.volume_ratio[place]) for one in both))
    return table


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def presence_table(validation: PresenceValidation) -> Table:
    """Show how well peaks and the fitted model predict which classes are in an image."""
    table = _table("Classes told to be present")
    table.add_column("", no_wrap=True)
    for name in ("by their peak", "fitted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        "Brier score, held out", f"{validation.brier_of_peaks:.4f}", f"{validation.brier:.4f}"
    )
    return table


def calibrated_decisions_table(validation: CrossValidation) -> Table:
    """Show what calibration changes of the decisions."""
    table = _table("Decisions on held-out maps: points, change by calibration")
    table.add_column("method", no_wrap=True)
    for metric in METRICS:
        for name in (METRIC_NAMES[metric], "calibrated", "change", "95 % interval"):
            table.add_column(name, justify="right", no_wrap=True)
    decisions = validation.decisions
    for method in decisions.methods[::2]:
        other = f"{method}, calibrated"
        cells: list[Text | str] = []
        for metric in METRICS:
            means = [float(np.nanmean(decisions.by_image(one, metric))) for one in (method, other)]
            change = decisions.difference(other, metric, baseline=method)
            cells += [*map(points, means), signed(change.mean), interval(change)]
        table.add_row(method, *cells)
    return table


def tuning_table(tuned: Tuning, metric: Metric, counted: Counted) -> Table:
    """Show every candidate, the chosen one, and what is to be expected."""
    table = _table(f"{METRIC_NAMES[metric]} per image: points, {COUNTED_NAMES[counted]}")
    table.add_column("candidate", no_wrap=True)
    for name in ("points", "change", "95 % interval", "won", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate in tuned.candidates:
        name = candidate.name
        mean = float(np.nanmean(tuned.comparison.by_image(name, metric, counted)))
        change = tuned.comparison.difference(name, metric, counted)
        mark = " <- chosen" if candidate is tuned.chosen else ""
        table.add_row(name + mark, points(mean), *_change_cells(change))
    table.add_row("")
    table.add_row("held out", "", *_change_cells(tuned.held_out))
    table.add_row("optimism", "", signed(tuned.optimism))
    return table


def _change_cells(change: Difference) -> list[Text | str]:
    return [signed(change.mean), interval(change), str(change.wins), str(change.losses)]


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


class PlainConsole(Console):
    """Where a command prints: brackets and colons in a text mean nothing.

    What the stream cannot encode, or a terminal would obey, is shown as an escape of Python's: two
    names never look the same. If the reader of a pipe leaves, as ``head -1`` does, the rest of the
    output is dropped and the work goes on.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make the text printable before its width is measured."""
        printable = "".join(
            one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text
        )
        encoded = printable.encode(self.encoding, errors="backslashreplace")
        return super().render_str(encoded.decode(self.encoding), **options)

    def on_broken_pipe(self) -> None:
        """Let whatever is still written to the stream go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def print_table(table: Table) -> None:
    """Print a table and an empty line; no number is cut off where the terminal is narrower."""
    console = PlainConsole(width=UNLIMITED)
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
