"""A comparison as one HTML file that can be sent to somebody. Needs ``pip install 'rankseg[cli]'``.

The file loads nothing: pictures are in it, there is no script, and it can be printed.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from rankseg import __version__, plots
from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg.calibration import Reliability
from rankseg.evaluation import Case, Comparison, Method
from rankseg.evaluation.verdict import (
    COUNTED,
    METRIC_NAMES,
    Remedy,
    Verdict,
    interval,
    points,
    quantity,
    signed,
    standing,
    verdict,
)
from rankseg.metrics import METRICS, Counted, Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

TEMPLATE: Final = "report.html"
DOTS_PER_INCH: Final = 110
WIDE, NARROW = 8.4, 3.6
"""Inches: the text of the page on a screen, and the width of a phone."""


@dataclass(frozen=True)
class _Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class _Picture:
    """A figure as PNGs in base64: one for screens and paper, and a narrow one for phones."""

    alt: str
    wide: str
    narrow: str

    @classmethod
    def of(cls, draw: Callable[..., Figure], *args: Any, alt: str, **options: Any) -> _Picture:
        """Draw a figure of both widths by a function of `rankseg.plots`."""
        wide, narrow = (
            _encoded(draw(*args, width=width, **options), dots)
            for width, dots in ((WIDE, DOTS_PER_INCH), (NARROW, 2 * DOTS_PER_INCH))
        )
        return cls(alt, wide, narrow)


def _encoded(figure: Figure, dots_per_inch: int) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dots_per_inch)
    return base64.b64encode(content.getvalue()).decode()


@dataclass(frozen=True)
class _Section:
    title: str
    tables: Sequence[_Table] = ()
    pictures: Sequence[_Picture] = ()
    note: str = ""
    remedies: Sequence[Remedy] = ()


def write_report(
    path: str | PathLike[str],
    comparison: Comparison,
    *,
    methods: Sequence[Method] = (),
    read: Callable[[str], Case] | None = None,
    metric: Metric = "dice",
    answer: Verdict | None = None,
    reliability: Reliability | None = None,
    ignore_index: int | None = None,
    pruning_prob: float = 0.5,
    title: str = "argmax against RankSEG",
    made: str = "",
) -> None:
    """Write a comparison as a self-contained HTML file: answer, what to try next, pictures, tables.

    Parameters
    ----------
    path : path
        The file, replaced if there is one; it is there whole or not at all.
    comparison : Comparison
        Of two methods or more. The answer is about the first one, besides the baselines, whose name
        has ``metric`` in it, or else the first besides them.
    methods : sequence of Method
        Those compared, to draw the cases of most gain and loss; with ``read`` only.
    read : callable, optional
        Returns the case of a name. Without it no case is drawn.
    metric : {'dice', 'iou'}
        What the answer and the pictures are about; details have both.
    answer : Verdict, optional
        The answer, as ``rankseg compare`` prints it. Default: that of the comparison alone.
    reliability : Reliability, optional
        Of the same maps.
    ignore_index : int, optional
        The label of pixels that have no truth.
    pruning_prob : float
        In [0, 1], of the methods: a class that does not exceed it has no cut.
    title, made : str
        The heading, and a sentence on what was compared and how.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib is missing.
    ValueError
        If there is nothing to compare with.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from rankseg.report import write_report
    >>> write_report("report.html", comparison)  # doctest: +SKIP
    """
    jinja2 = require("jinja2", "cli", "a report")
    if len(comparison.methods) < 2:
        raise ValueError(f"comparison must be of two methods at least, got {comparison.methods}")
    answer = answer or verdict(comparison, metric)
    source = resources.files("rankseg").joinpath("templates", TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    content = environment.from_string(source).render(
        title=title,
        cases=len(comparison.cases),
        classes=len(comparison.classes),
        clusters=len(set(comparison.clusters)) if comparison.clusters else 0,
        answer=list(_answer(comparison, answer)),
        sections=[
            _methods(comparison, answer),
            *_cases(comparison, methods, read, answer.method, metric, ignore_index),
            *_pictures(comparison, answer.method, metric, reliability),
            *_curves(comparison, read, answer.method, metric, ignore_index, pruning_prob),
            *_details(comparison, answer.method),
        ],
        made=f"{made} {_versions()}".strip(),
        failures=comparison.failures,
    )
    write_whole(Path(path), content.encode(errors="backslashreplace"))


def _versions() -> str:
    return f"rankseg {__version__}, torch {torch.__version__}, NumPy {np.__version__}."


def _answer(comparison: Comparison, answer: Verdict) -> Iterator[str]:
    """Say in sentences what came out."""
    yield answer.sentence
    if comparison.predicted is not None:
        gain = comparison.predicted_gain(answer.method, answer.metric)
        yield (
            f"The probabilities themselves promise {signed(gain)} points. Where the two differ, "
            "the probabilities are not what they claim to be."
        )


def _methods(comparison: Comparison, answer: Verdict) -> _Section:
    """Show eight methods at most, and what to try next."""
    rows = []
    for row in standing(comparison, answer.metric, main=[answer.method]):
        cells = ["", "", "", ""]
        if row.change is not None:
            record = f"{row.change.wins} / {row.change.losses}"
            cells = [signed(row.change.mean), interval(row.change), record, signed(row.false_zero)]
        rows.append([row.method, points(row.mean), points(row.worst_tenth), *cells])
    name = METRIC_NAMES[answer.metric]
    head = ["method", name, "worst tenth", "change", "95 % interval", "won / lost", "false zero"]
    note = (
        f"{name}: by image, the mean over the classes that its label holds, then over images. "
        "worst tenth: the mean of the tenth of the cases with the lowest. 95 % interval: of the "
        "mean change, had other such cases been drawn. false zero: the change if a class predicted "
        "where it is absent scores 0."
    )
    return _Section(quantity(answer.metric), [_Table(head, rows)], (), note, answer.remedies)


def _details(comparison: Comparison, method: str) -> Iterator[_Section]:
    yield _Section(
        "Details by image",
        [_by_image(comparison, metric, counted) for counted in COUNTED for metric in METRICS],
        note="mean: over the classes of an image, then images. change: from the first method, "
        "paired by image. p: signed-rank and sign test, two-sided. C: over the images of a class, "
        "then classes. D: counts summed over the data set first.",
    )
    yield _Section(
        "Details by class", [_by_class(comparison, method, metric) for metric in METRICS]
    )


def _by_image(comparison: Comparison, metric: Metric, counted: Counted) -> _Table:
    rows = []
    for method in comparison.methods:
        means = comparison.aggregates(method, metric, counted)
        cells = [""] * 5
        if method != comparison.methods[0]:
            difference = comparison.difference(method, metric, counted)
            record = f"{difference.wins} / {difference.losses} / {difference.ties}"
            cells = [signed(difference.mean), interval(difference), record]
            cells += _chances(comparison, method, metric, counted)
        rows.append([method, points(means["I"]), *cells, *map(points, (means["C"], means["D"]))])
    head = ["method", "mean", "change", "95 % interval", "won / lost / tied"]
    head += ["p, ranks", "p, signs", "C", "D"]
    return _Table(head, rows, f"{METRIC_NAMES[metric]}, {COUNTED[counted]}")


def _chances(comparison: Comparison, method: str, metric: Metric, counted: Counted) -> list[str]:
    try:
        tests = comparison.tests(method, metric, counted)
    except ImportError:
        return ["-", "-"]
    return ["-" if math.isnan(p) else f"{p:.3g}" for p in (tests.wilcoxon, tests.sign)]


def _by_class(comparison: Comparison, method: str, metric: Metric) -> _Table:
    baseline = comparison.methods[0]
    theirs, ours = (comparison.by_class(name, metric) for name in (baseline, method))
    rows = [
        [name, str(images), points(before), points(after), signed(after - before)]
        for name, images, before, after in zip(
            comparison.classes, comparison.images_by_class, theirs, ours, strict=True
        )
    ]
    caption = f"{METRIC_NAMES[metric]}, mean over the images whose label holds the class"
    return _Table(["class", "images", baseline, method, "change"], rows, caption)


def _pictures(
    comparison: Comparison, method: str, metric: Metric, reliability: Reliability | None
) -> Iterator[_Section]:
    name = METRIC_NAMES[metric]
    drawn = (comparison, method, metric)
    pictures = [
        _Picture.of(plots.paired_differences, *drawn, alt=f"change of {name} of every case")
    ]
    yield _Section("Case by case", pictures=pictures)
    if comparison.images_by_class.any():
        pictures = [_Picture.of(plots.class_changes, *drawn, alt=f"change of {name} by class")]
        yield _Section("Class by class", pictures=pictures)
        both = [comparison.methods[0], method]
        alt = "predicted over true volume by class"
        yield _Section(
            "Volumes",
            pictures=[_Picture.of(plots.volume_changes, comparison, both, alt=alt)],
            note="Over the whole data set. Where a class covers more than it should under every "
            "method, its probabilities are too large.",
        )
    if reliability is not None:
        picture = _Picture.of(plots.reliability_diagram, reliability, alt="reliability diagram")
        yield _Section(
            "Can the probabilities be taken at their word?",
            pictures=[picture],
            note="A point below the line: less came true than was claimed. RankSEG takes "
            "probabilities at their word; the command rankseg calibrate mends them. Negative "
            f"log-likelihood {reliability.nll:.4f} nats by pixel.",
        )


def _cases(
    comparison: Comparison,
    methods: Sequence[Method],
    read: Callable[[str], Case] | None,
    method: str,
    metric: Metric,
    ignore_index: int | None,
) -> Iterator[_Section]:
    """Draw the cases of most gain and loss, and the curves of one of them."""
    if read is None or not methods:
        return
    known = {one.name: one for one in methods}
    drawn = [known[comparison.methods[0]], known[method]]
    examples = plots.gain_and_loss(comparison, drawn, read, metric=metric)
    classes = comparison.classes
    named = ("background", *classes) if len(classes) == 1 else classes
    alt = "truth, decisions, differences"
    picture = _Picture.of(plots.draw_examples, examples, named, ignore_index=ignore_index, alt=alt)
    yield _Section("Most gain and most loss", pictures=[picture])


def _curves(
    comparison: Comparison,
    read: Callable[[str], Case] | None,
    method: str,
    metric: Metric,
    ignore_index: int | None,
    pruning_prob: float,
) -> Iterator[_Section]:
    """Draw score against cut of the case that changes most, if it holds any class."""
    if read is None:
        return
    differences = np.nan_to_num(comparison.differences(method, metric))
    name = comparison.cases[int(np.abs(differences).argmax())]
    options: dict[str, Any] = {"ignore_index": ignore_index, "pruning_prob": pruning_prob}
    options |= {"classes": comparison.classes, "alt": "score of the mask above a cut, by class"}
    try:
        picture = _Picture.of(plots.score_by_cut, read(name), metric, **options)
    except ValueError:  # there is no class to draw
        return
    yield _Section(
        f"{METRIC_NAMES[metric]} against the cut: {name}",
        pictures=[picture],
        note="The case in which the decision matters most. Solid: the score of the mask p > cut. "
        "Dashed: as RMA without correlation expects it of the probabilities alone, with its best "
        "cut, unless the class is pruned; dotted is 1/2.",
    )
