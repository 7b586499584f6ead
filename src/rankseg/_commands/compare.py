"""``rankseg compare``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from rankseg import _tables
from rankseg._commands._comparison import print_comparison, print_failures
from rankseg._commands._terminal import fail, make_folder, open_console
from rankseg.evaluation import (
    Case,
    CaseFolder,
    Comparison,
    Failure,
    Method,
    compare,
    standard_methods,
)
from rankseg.metrics import Metric
from rankseg.plots import comparison_figure, gain_and_loss

__all__ = ["compare_folder"]

EXAMPLE_PICTURE = "example.png"


class MetricChoice(str, Enum):
    """What RankSEG maximises."""

    BOTH = "both"
    DICE = "dice"
    IOU = "iou"


class SolverChoice(str, Enum):
    """How RankSEG does it."""

    RMA = "RMA"
    JOINT = "joint"


def compare_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Holds ID.npz files with the arrays probs (classes, *spatial) and label "
            "(*spatial), and perhaps meta.json with classes, ignore_index (255 by default) and "
            "class_weights."
        ),
    ],
    pruning_prob: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="A class whose largest probability in an image does not exceed this is taken to "
            "be absent from it.",
        ),
    ] = 0.5,
    metric: Annotated[
        MetricChoice, typer.Option(case_sensitive=False, help="What RankSEG maximises.")
    ] = MetricChoice.BOTH,
    solver: Annotated[
        SolverChoice, typer.Option(case_sensitive=False, help="How RankSEG does it.")
    ] = SolverChoice.RMA,
    correlation: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="In [0, 1): RankSEG is shown for labels that vary together so strongly, beside "
            "the published rule, which takes them for independent. 0 leaves it alone.",
        ),
    ] = 0.5,
    predicted: Annotated[
        bool,
        typer.Option(
            "--predicted/--no-predicted",
            help="Show beside every change from argmax the one that the probabilities themselves "
            "expect, without labels: over the classes whose largest probability exceeds "
            "--pruning-prob, under the correlation that the method assumes. The comparison takes "
            "some fifty times as long, with --correlation 0 some five times.",
        ),
    ] = False,
    prior_correction: Annotated[
        bool,
        typer.Option(
            "--prior-correction",
            help="Undo the class_weights of meta.json first, for argmax and RankSEG alike.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A folder to write cases.csv, classes.csv, summary.json and example.png to.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Compare argmax with RankSEG on a folder of probability maps with labels.

    Exits with 1 if a file could not be compared; the others are compared all the same.
    """
    if output is not None:
        make_folder(output)  # before the work, should it fail
    metrics: tuple[Metric, ...] = (
        ("dice", "iou") if metric is MetricChoice.BOTH else (metric.value,)
    )
    try:
        methods = standard_methods(
            pruning_prob, metrics, [solver.value], sorted({0.0, correlation})
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    predict_above = pruning_prob if predicted else None
    comparison, maps = _compare_folder(folder, methods, prior_correction, predict_above)
    console = open_console()
    if prior_correction:
        console.print("Class weights undone: p / w, renormalised over the classes.\n")
    print_comparison(console, comparison, pruning_prob)
    _tables.print_table(_tables.decision_table(comparison))
    if output is not None:
        _write_report(output, comparison, methods, maps, metrics[0])
        console.print(f"Written to {escape(str(output))}")
    if comparison.failures:
        print_failures(comparison)
        raise typer.Exit(1)


def _compare_folder(
    folder: Path, methods: Sequence[Method], prior_correction: bool, predict_above: float | None
) -> tuple[Comparison, CaseFolder]:
    """Compare with a progress bar, or exit with the reason why nothing can be compared."""
    errors = Console(stderr=True)
    try:
        maps = CaseFolder.open(folder, prior_correction=prior_correction)
        cases: Iterable[Case | Failure] = maps
        if errors.is_terminal:
            cases = track(maps, description="Comparing", console=errors, transient=True)
        comparison = compare(
            cases,
            methods,
            classes=maps.classes,
            ignore_index=maps.ignore_index,
            predict_above=predict_above,
        )
    except (FileNotFoundError, ValueError) as error:
        fail(str(error))
    return comparison, maps


def _write_report(
    folder: Path,
    comparison: Comparison,
    methods: Sequence[Method],
    maps: CaseFolder,
    metric: Metric,
) -> None:
    """Write tables and a picture of argmax and the RankSEG that maximises the metric."""
    examples = gain_and_loss(comparison, [methods[0], methods[2]], maps.read, metric=metric)
    classes = comparison.classes
    if len(classes) == 1:
        classes = ("background", *classes)
    try:
        comparison.write(folder)
        comparison_figure(
            folder / EXAMPLE_PICTURE, examples, classes, ignore_index=maps.ignore_index
        )
    except OSError as error:
        fail(str(error))
