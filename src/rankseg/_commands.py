"""The commands of ``rankseg``: parse, one call of the library, print."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from rankseg import RankSEG, __version__, _tables
from rankseg._backends import choose
from rankseg._demo import load_sample
from rankseg._differences import RESAMPLES
from rankseg.evaluation import (
    Case,
    CaseFolder,
    Comparison,
    Failure,
    Method,
    compare,
    standard_methods,
    time_methods,
)
from rankseg.integration.nnunet import decide_folders
from rankseg.integration.onnx import export as export_decision
from rankseg.metrics import Metric
from rankseg.plots import comparison_figure, gain_and_loss

__all__ = ["app"]

PIPED_WIDTH = 100  # columns
PACKAGES = ("torch", "numpy", "numba", "matplotlib", "rich", "typer")
EXAMPLE_PICTURE = "example.png"

LEGEND = (
    "A point is 0.01. pruned argmax: argmax over the classes whose largest probability in the "
    "image exceeds {pruning_prob:g}, as RankSEG prunes them. r: the correlation of the labels that "
    "RankSEG assumes, 0 if none is named. change: from argmax, paired by image; "
    f"interval: percentile bootstrap over images, {RESAMPLES:,} resamples. mean: over the classes "
    "of an image, then images; C: over the images of a class, then classes; D: counts summed over "
    "the data set first."
)
PREDICTED_LEGEND = (
    " predicted: the change that the probabilities themselves expect, without labels. Both "
    "decisions are scored under the r of the row, so compare it with the change beside it, not "
    "with other rows. Mean over the classes of an image whose largest probability exceeds "
    "{pruning_prob:g}, ignored pixels and all, then images: what leaving out the other classes "
    "changes is not in it."
)


class MetricChoice(str, Enum):
    """What RankSEG maximises."""

    BOTH = "both"
    DICE = "dice"
    IOU = "iou"


class SolverChoice(str, Enum):
    """How RankSEG does it."""

    RMA = "RMA"
    JOINT = "joint"


app = typer.Typer(
    name="rankseg",
    help="Segmentation masks that maximise expected Dice or IoU, against argmax.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(help="The picture to write, a PNG.", dir_okay=False)
    ] = Path("rankseg-demo.png"),
) -> None:
    """Compare argmax with RankSEG on the held-out sample that comes with the package."""
    if not output.parent.is_dir():
        _fail(f"there is no folder {output.parent} to write {output.name} to")
    sample = load_sample()
    names = [f"image {i}" for i in range(len(sample.probs))]
    cases = [
        Case(name, probs, label)
        for name, probs, label in zip(names, sample.probs, sample.labels, strict=True)
    ]
    methods = standard_methods()
    timings = time_methods(methods, sample.probs)
    comparison = compare(cases, methods, classes=sample.classes)
    console = _console()
    console.print(
        f"{len(cases)} synthetic images of {_size(cases[0])} pixels, {len(sample.classes)} "
        "classes; maps of a small network trained by\ncross-entropy on other images of the kind.\n"
    )
    _print_comparison(console, comparison, pruning_prob=0.5)
    _tables.print_table(_tables.time_table(timings, len(cases)))
    console.print("The first call of RankSEG loads its kernels, or compiles them.\n", style="dim")
    drawn = [methods[0], methods[2]]
    examples = gain_and_loss(
        comparison,
        drawn,
        dict(zip(names, cases, strict=True)).__getitem__,
        images=dict(zip(names, sample.images, strict=True)),
    )
    try:
        comparison_figure(output, examples, sample.classes)
    except OSError as error:
        _fail(str(error))
    console.print(f"Picture: {escape(str(output))}")


@app.command("compare")
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
        _make_folder(output)  # before the work, should it fail
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
    console = _console()
    if prior_correction:
        console.print("Class weights undone: p / w, renormalised over the classes.\n")
    _print_comparison(console, comparison, pruning_prob)
    _tables.print_table(_tables.decision_table(comparison))
    if output is not None:
        _write_report(output, comparison, methods, maps, metrics[0])
        console.print(f"Written to {escape(str(output))}")
    if comparison.failures:
        _print_failures(comparison)
        raise typer.Exit(1)


@app.command()
def info(
    warm_up: Annotated[
        bool,
        typer.Option("--warm-up", help="Compile the kernels now, and say how long that took."),
    ] = False,
) -> None:
    """Show versions, and which backend decides for maps on the CPU and why."""
    try:
        backend, reason = choose(torch.device("cpu"))
    except (ValueError, RuntimeError) as error:
        _fail(str(error))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("rankseg", __version__)
    table.add_row("python", platform.python_version())
    for package in PACKAGES:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("threads", str(torch.get_num_threads()))
    table.add_row("CPU backend", f"{backend.__name__.rpartition('.')[2]}: {reason}")
    console = _console()
    console.print(table)
    if warm_up:
        console.print(f"Warm-up of float32 and float64 took {_warm_up():.1f} s.")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)],
    classes: Annotated[int, typer.Option(min=1, help="How many channels the maps have.")],
    metric: Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")] = "dice",
    output_mode: Annotated[
        str, typer.Option(help="multiclass: labels; multilabel: masks.")
    ] = "multiclass",
    from_logits: Annotated[
        str | None,
        typer.Option(help="softmax or sigmoid: the maps hold logits, and this is applied first."),
    ] = None,
    solver: Annotated[str, typer.Option(help="auto, RMA, joint, TR or argmax.")] = "auto",
    pruning_prob: Annotated[
        float,
        typer.Option(help="A class whose largest probability does not exceed this is absent."),
    ] = 0.5,
    smooth: Annotated[float, typer.Option(help="Added to numerator and denominator.")] = 0.0,
    spatial_axes: Annotated[int, typer.Option(min=2, max=3, help="2: images; 3: volumes.")] = 2,
    dtype: Annotated[str, typer.Option(help="Of the maps: float16, float32, float64.")] = "float32",
    opset: Annotated[
        int | None, typer.Option(help="Version of the ONNX operators; by default that of torch.")
    ] = None,
) -> None:
    """Write the decision alone as an ONNX graph, to run behind a model that gives maps."""
    try:
        decide = RankSEG(metric, smooth, output_mode, solver, pruning_prob, from_logits=from_logits)
        export_decision(path, decide, classes, spatial_axes=spatial_axes, dtype=dtype, opset=opset)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except (ImportError, OSError) as error:
        _fail(str(error))
    _console().print(f"Written to {escape(str(path))}")


@app.command()
def nnunet(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="What nnUNetv2_predict --save_probabilities wrote. The probabilities of several "
            "folders are averaged.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write label maps to.")
    ],
    metric: Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")] = "dice",
    solver: Annotated[
        str, typer.Option(help="How: auto, RMA, joint, exact; for regions also BA, TRNA, BA+TRNA.")
    ] = "auto",
    pruning_prob: Annotated[
        float,
        typer.Option(help="A class whose largest probability does not exceed this is absent."),
    ] = 0.5,
    smooth: Annotated[float, typer.Option(help="Added to numerator and denominator.")] = 0.0,
    correlation: Annotated[
        float,
        typer.Option(help="In [0, 1): how strongly the labels of an image vary together."),
    ] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Decide cases anew whose label map is there.")
    ] = False,
) -> None:
    """Write label maps of the probabilities that nnU-Net saved.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    options = {"correlation": correlation} if correlation else {}
    try:
        outcome = decide_folders(
            folders,
            output,
            overwrite=overwrite,
            track=_tracker("Deciding"),
            metric=metric,
            smooth=smooth,
            solver=solver,
            pruning_prob=pruning_prob,
            **options,
        )
    except (TypeError, ValueError, ImportError, OSError) as error:
        _fail(str(error))
    skipped = f", {len(outcome.skipped)} were there" if outcome.skipped else ""
    _console().print(f"{len(outcome.written)} written to {escape(str(output))}{skipped}")
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for case, reason in outcome.failures.items():
        errors.print(f"Not decided: {escape(case)}: {escape(reason)}")
    if outcome.failures:
        raise typer.Exit(1)


def _tracker(description: str) -> Callable[[Sequence[str]], Iterable[str]]:
    """Return what shows a progress bar where somebody looks."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        return iter
    return partial(track, description=description, console=errors, transient=True)


def _warm_up() -> float:
    """Make every kind of decision once in both dtypes; return the seconds it took."""
    start = time.perf_counter()
    decisions = (
        RankSEG("dice"),
        RankSEG("dice", smooth=1.0),
        RankSEG("dice", output_mode="multilabel"),
        RankSEG("iou", solver="joint"),
        RankSEG("acc"),
    )
    for dtype in (torch.float32, torch.float64):
        probs = torch.linspace(0, 1, 3 * 64 * 64, dtype=dtype).view(1, 3, 64, 64)
        for decide in decisions:
            decide(probs)
    return time.perf_counter() - start


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
        _fail(str(error))
    return comparison, maps


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(str(error))


def _print_comparison(console: Console, comparison: Comparison, pruning_prob: float) -> None:
    _tables.print_table(_tables.class_table(comparison))
    _tables.print_table(_tables.image_table(comparison, "label"))
    if comparison.predicts_absent_class:
        _tables.print_table(_tables.image_table(comparison, "either"))
    else:
        console.print("No method predicts a class where it is absent.\n")
    if not comparison.images_by_class.any():
        console.print("No label holds any class: where classes count by the label, none does.\n")
    legend = LEGEND if comparison.predicted is None else LEGEND + PREDICTED_LEGEND
    console.print(legend.format(pruning_prob=pruning_prob) + "\n", style="dim")


def _print_failures(comparison: Comparison) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for failure in comparison.failures:
        errors.print(f"Not compared: {escape(failure.name)}: {escape(failure.reason)}")


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
        _fail(str(error))


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def _fail(reason: str) -> NoReturn:
    """Say on the error stream what is wrong, and exit with 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"Error: {escape(reason)}")
    raise typer.Exit(1)


def _size(case: Case) -> str:
    return " x ".join(map(str, case.label.shape))
