"""Comparisons as tables for a terminal. Needs rich: ``pip install 'rankseg[cli]'``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankseg.calibration import CrossValidation, PresenceValidation
from rankseg.evaluation import Comparison
from rankseg.evaluation import verdict as words
from rankseg.evaluation.conventions import CONVENTIONS
from rankseg.evaluation.verdict import (
    COUNTED,
    METRIC_NAMES,
    MOST_ROWS,
    Standing,
    interval,
    main_method,
    points,
)
from rankseg.metrics import METRICS, Counted, Metric

__all__ = [
    "PlainConsole",
    "aggregate_table",
    "answer_table",
    "calibrated_decisions_table",
    "calibration_table",
    "class_table",
    "decision_table",
    "image_table",
    "presence_table",
    "print_table",
    "score_table",
    "tests_table",
]

SHORT_NAMES = {"nnunet": "nnunet", "monai": "monai", "torchmetrics": "t.metrics", "mmseg": "mmseg"}
UNLIMITED = 10_000  # columns


def answer_table(rows: Sequence[Standing], metric: Metric, false_zero: bool) -> Table:
    """Show the methods that the answer is about, eight at most."""
    table = _table("")
    table.title = None
    table.add_column("method", no_wrap=True)
    heads = [METRIC_NAMES[metric], "change", "95 % interval", "worst\ntenth", "won", "lost"]
    for name in [*heads, *(["false\nzero"] if false_zero else [])]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells: list[Text | str] = ["", "", points(row.worst_tenth)]
        if row.change is not None:
            cells = [signed(row.change.mean), interval(row.change), points(row.worst_tenth)]
            cells += [str(row.change.wins), str(row.change.losses)]
            cells += [signed(row.false_zero)] if false_zero else []
        table.add_row(row.method, points(row.mean), *cells)
    return table


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
        shown = dict.fromkeys((*comparison.methods[:2], main_method(comparison, metric)))
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


def image_table(comparison: Comparison, counted: Counted) -> Table:
    """Show the mean score per image of every method, with gains and losses on the baseline.

    The predicted gain, if it was asked for, stands beside the achieved one. It knows no labels, so
    it is the same whatever ``counted``.
    """
    table = _table(f"Per image: points, {COUNTED[counted]}")
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
        for counted in COUNTED:
            table.add_column(f"{METRIC_NAMES[metric]}\n{counted}", justify="right", no_wrap=True)
    for method in comparison.methods[1:]:
        cells = []
        for metric in METRICS:
            for counted in COUNTED:
                tests = comparison.tests(method, metric, counted)
                cells.append(f"{_chance(tests.wilcoxon)}, {_chance(tests.sign)}")
        table.add_row(method, *cells)
    return table


def _chance(p: float) -> str:
    if np.isnan(p):
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


def score_table(comparison: Comparison, most: int = MOST_ROWS) -> Table:
    """Show Dice and IoU of every class of a single method, or of those with the lowest Dice."""
    (method,) = comparison.methods
    lowest = np.argsort(comparison.by_class(method))[:most]
    shown = f", the {most} lowest of {len(comparison.classes)} classes"
    shown = shown if most < len(comparison.classes) else ""
    table = _table(f"{method}: points, mean over the n images in which a class counts{shown}")
    table.add_column("class", no_wrap=True)
    for metric in METRICS:
        for counted in COUNTED:
            table.add_column(f"{METRIC_NAMES[metric]}\n{counted}", justify="right", no_wrap=True)
            table.add_column("\nn", justify="right", no_wrap=True)
    for place in sorted(lowest.tolist()):
        cells = []
        for metric in METRICS:
            for counted in COUNTED:
                scores = comparison.scores(method, metric, counted)[:, place]
                cells += [points(scores.nanmean().item()), str(int((~scores.isnan()).sum()))]
        table.add_row(comparison.classes[place], *cells)
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
    return "-" if np.isnan(value) else f"{value:.3f}"


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


def decision_table(comparison: Comparison) -> Table:
    """Show the median time of a decision."""
    table = _table("Time: milliseconds of one decision, median over the images")
    for method in comparison.methods:
        table.add_column(_two_lines(method), justify="right", no_wrap=True)
    medians = (float(np.median(seconds)) for seconds in comparison.seconds.values())
    table.add_row(*(f"{1000 * median:.1f}" for median in medians))
    return table


def signed(difference: float) -> Text:
    """Write a difference as points, in colour; what rounds to nothing has no sign."""
    text = words.signed(difference)
    return Text(text, style={"+": "green", "-": "red"}.get(text[:1], "") if len(text) > 1 else "")


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
