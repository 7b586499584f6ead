"""Charts of a comparison, of reliability, and of the score against the cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankseg.calibration import Reliability
from rankseg.evaluation import Case, Comparison
from rankseg.evaluation.differences import Difference
from rankseg.evaluation.verdict import METRIC_NAMES
from rankseg.metrics import Counted, Metric
from rankseg.plots.figures import (
    heading,
    legend_below,
    name_ticks,
    new_figure,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["class_changes", "paired_differences", "reliability_diagram", "score_by_cut"]
__all__ += ["volume_changes"]

Floats = NDArray[np.float64]

WIDTH: Final = 6.4
"""Inches, like all widths and heights here."""

NARROW: Final = 5.0
"""A figure narrower than this has its axes below each other."""

ROW: Final = 0.26
"""The height of a bar with a name beside it."""

GAIN_COLOUR: Final = "#0072B2"
LOSS_COLOUR: Final = "#D55E00"
TIE_COLOUR: Final = "#999999"
LINE_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#882255", "#332288", "#777777")
MARKERS: Final = "osD^vPX"
POINTS: Final = 100
MOST_NAMED: Final = 20
"""Bars with a name each; of more cases, the first and last half as many have names."""

MOST_CURVES: Final = 12
MOST_POINTS: Final = 400  # of a curve: more are not seen


def paired_differences(
    comparison: Comparison,
    method: str,
    metric: Metric = "dice",
    counted: Counted = "label",
    *,
    width: float = WIDTH,
) -> Figure:
    """Draw by how much a method scores more than the first, case by case.

    Bars are cases in order of their difference, in points. Of more than twenty cases, the ten of
    most gain and the ten of most loss have names, and the bars between them are thinner. Below the
    bars is the mean with its 95 % bootstrap interval.

    Parameters
    ----------
    comparison : Comparison
        Of at least two methods.
    method : str
        Not the first.
    metric, counted
        As for `rankseg.evaluation.Comparison.differences`.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If a name is not one of those allowed.
    """
    values = comparison.differences(method, metric, counted)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known], kind="stable")]
    values, names = POINTS * values[order], [comparison.cases[index] for index in order]
    places, heights, named = _bar_places(len(values))
    rows = min(len(values), 1.4 * MOST_NAMED) + 2
    figure, (axes,) = new_figure(width, 1.6 + ROW * rows)
    band = POINTS * comparison.band
    kinds = {"won": values > band, "tied": np.abs(values) <= band, "lost": values < -band}
    bars = [
        axes.barh(places[some], values[some], 0.84 * heights[some], color=colour,
                  label=f"{some.sum()} {kind}")
        for (kind, some), colour in zip(
            kinds.items(), (GAIN_COLOUR, TIE_COLOUR, LOSS_COLOUR), strict=True
        )
    ]  # fmt: skip
    foot = rows - 0.9
    mean = _draw_interval(axes, foot, comparison.difference(method, metric, counted))
    name_ticks(
        axes,
        [*places[named], foot],
        [*(names[index] for index in named), "mean"],
        0.36 * width,
    )
    _finish_bars(axes, rows, f"change of {METRIC_NAMES[metric]}, points")
    heading(figure, f"{method} minus {comparison.methods[0]}, {len(values)} cases")
    legend_below(figure, [*(one for one in bars if len(one)), mean])
    return figure


def _bar_places(number: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Return the places and heights of bars in rows, and the indices of those with a name."""
    index = np.arange(number)
    if number <= MOST_NAMED:
        return index.astype(np.float64), np.ones(number), index
    half = MOST_NAMED // 2
    named = (index < half) | (index >= number - half)
    heights = np.where(named, 1.0, 0.4 * MOST_NAMED / (number - MOST_NAMED))
    return heights.cumsum() - heights / 2 - 0.5, heights, np.flatnonzero(named)


def _draw_interval(axes: Axes, place: float, difference: Difference) -> Any:
    """Draw a mean with its interval, in points, at a place of the vertical axis."""
    mean, low, high = (POINTS * x for x in (difference.mean, difference.low, difference.high))
    errors = None if math.isnan(low) else [[mean - low], [high - mean]]
    label = "mean" if errors is None else "mean, 95 % interval"
    return axes.errorbar(
        [mean], [place], xerr=errors, fmt="D", color="black", markersize=5, capsize=4, label=label
    )


def _finish_bars(axes: Axes, rows: float, label: str) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlabel(label)


def class_changes(
    comparison: Comparison, method: str, metric: Metric = "dice", *, width: float = WIDTH
) -> Figure:
    """Draw by how much a method scores more than the first, class by class.

    Bars are the mean differences over the cases whose label holds the class, in points, with their
    95 % bootstrap intervals; the number of cases stands behind the name.

    Parameters
    ----------
    comparison : Comparison
        Of at least two methods.
    method : str
        Not the first.
    metric : {'dice', 'iou'}
        The score.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If a name is not one of those allowed, or no label holds any class.
    """
    held = _held_classes(comparison)
    scores = comparison.scores(method, metric) - comparison.scores(comparison.methods[0], metric)
    differences = [
        Difference.of(scores[:, number].numpy(), clusters=comparison.clusters, band=comparison.band)
        for number in held
    ]
    figure, (axes,) = new_figure(width, 1.4 + ROW * (len(held) + 1))
    for place, one in enumerate(differences):
        colour = GAIN_COLOUR if one.mean > 0 else LOSS_COLOUR
        axes.barh(place, POINTS * one.mean, 0.7, color=colour, alpha=0.75)
        interval = _draw_interval(axes, place, one)
    images = comparison.images_by_class
    names = [f"{comparison.classes[number]} ({images[number]})" for number in held]
    name_ticks(axes, range(len(held)), names, 0.36 * width)
    _finish_bars(axes, len(held), f"change of {METRIC_NAMES[metric]}, points")
    heading(figure, f"{method} minus {comparison.methods[0]}, by class")
    legend_below(figure, [interval])
    return figure


def _held_classes(comparison: Comparison) -> list[int]:
    """Return the numbers of the classes that a label holds."""
    held = np.flatnonzero(comparison.images_by_class).tolist()
    if not held:
        raise ValueError("comparison must have a class that a label holds, got none")
    return [int(number) for number in held]


def volume_changes(
    comparison: Comparison, methods: Sequence[str] | None = None, *, width: float = WIDTH
) -> Figure:
    """Draw the predicted over the true volume of every class, over the whole data set.

    Parameters
    ----------
    comparison : Comparison
        Whose classes are drawn that a label holds.
    methods : sequence of str, optional
        By default all.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If no label holds any class.
    """
    names = list(methods or comparison.methods)
    held = _held_classes(comparison)
    figure, (axes,) = new_figure(width, 1.5 + 1.15 * ROW * len(held) + 0.15 * len(names))
    places = np.arange(len(held))
    lines = []
    for number, name in enumerate(names):
        counts = comparison.counts[name].total()
        predicted, true = (counts.tp + counts.fp)[0].numpy(), (counts.tp + counts.fn)[0].numpy()
        ratio = predicted[held] / true[held]
        shift = 0.6 * ((number + 0.5) / len(names) - 0.5)
        marker, colour = _line_style(number)
        lines += axes.plot(ratio, places + shift, marker, color=colour, label=name, markersize=6)
    axes.axvline(1, color="black", linewidth=0.8)
    for place in places[1:]:
        axes.axhline(place - 0.5, color="#DDDDDD", linewidth=0.6)
    name_ticks(axes, places.tolist(), [comparison.classes[number] for number in held], 0.36 * width)
    axes.set_ylim(len(held) - 0.5, -0.5)
    axes.set_xlabel("predicted volume / true volume")
    heading(figure, f"Volumes over {len(comparison.cases)} cases")
    legend_below(figure, lines)
    return figure


def reliability_diagram(
    *reliabilities: Reliability, titles: Sequence[str] = (), width: float = 8.4
) -> Figure:
    """Draw how often what was given a probability came true, for the likeliest class and each.

    Parameters
    ----------
    *reliabilities : rankseg.calibration.Reliability
        At least one; a row for each, say before and after a calibration. Bins without pixels are
        left out. Of more than twelve classes, those of the largest calibration error are drawn.
    titles : sequence of str, optional
        What each is called.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    columns = 1 if width < NARROW else 2
    rows = 2 * len(reliabilities) // columns
    figure, grid = new_figure(width, 3.6 * rows + 0.8, columns=columns, rows=rows)
    shown = _least_reliable(reliabilities)
    handles: list[Any] = []
    for row, one in enumerate(reliabilities):
        name = f"{titles[row]}: " if titles else ""
        handles = _draw_likeliest(grid[2 * row], one, name)
        handles += _draw_classes(grid[2 * row + 1], one, name, shown)
    legend_below(figure, handles)
    return figure


def _least_reliable(reliabilities: Sequence[Reliability]) -> list[int]:
    """Return the classes to draw, in order: at most twelve of the largest calibration error."""
    errors = np.nan_to_num(np.max([one.classwise_ece for one in reliabilities], axis=0))
    return sorted(np.argsort(-errors, kind="stable")[:MOST_CURVES].tolist())


def _draw_likeliest(axes: Axes, reliability: Reliability, name: str) -> list[Any]:
    _draw_diagonal(axes)
    axes.set_ylabel("share that came true")
    shares = reliability.top_count / max(1, reliability.pixels)
    middle = (reliability.edges[1:] + reliability.edges[:-1]) / 2
    width = np.diff(reliability.edges)
    bars = axes.bar(middle, shares, width=width, color="#BBBBBB", label="share of pixels")
    given, came = reliability.top_confidence, reliability.top_frequency
    (line,) = axes.plot(given, came, "o-", color="black", label="likeliest class")
    title(axes, f"{name}likeliest class, ECE {POINTS * reliability.ece:.2f} points")
    return [bars, line]


def _draw_classes(
    axes: Axes, reliability: Reliability, name: str, shown: Sequence[int]
) -> list[Line2D]:
    _draw_diagonal(axes)
    lines = []
    for number in shown:
        marker, colour = _line_style(number)
        lines += axes.plot(
            reliability.confidence[number],
            reliability.frequency[number],
            marker + "-",
            color=colour,
            label=reliability.classes[number],
            markersize=4,
            linewidth=1.2,
        )
    title(axes, f"{name}by class, mean ECE {POINTS * reliability.mean_classwise_ece:.2f} points")
    return lines


def _draw_diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set_xlabel("probability given, mean of the bin")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _line_style(number: int) -> tuple[str, str]:
    """Return marker and colour of a line; those of 49 lines differ."""
    colours = len(LINE_COLOURS)
    marker = MARKERS[(number + number // colours) % len(MARKERS)]
    return marker, LINE_COLOURS[number % colours]


def score_by_cut(
    case: Case | Tensor,
    metric: Metric = "dice",
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    pruning_prob: float = 0.5,
    cuts: Sequence[float] | None = None,
    width: float = 9.3,
) -> Figure:
    """Draw the score of the mask ``p > cut`` against the cut, for each class of a case.

    Solid: with the label. Dashed: as RMA expects it of the probabilities alone, without correlation
    or smoothing; its best cut is marked, unless the class is pruned. Dotted is 1/2. Where the two
    curves differ, the probabilities do.

    Parameters
    ----------
    case : Case or Tensor
        At most twelve classes are drawn, those that the label holds or the map exceeds
        ``pruning_prob`` in. Of probabilities alone, floating (classes, *spatial), only what is
        expected is drawn.
    metric : {'dice', 'iou'}
        The score.
    classes : sequence of str, optional
        Names; by default numbers.
    ignore_index : int, optional
        Pixels whose label has this value are left out of both.
    pruning_prob : float
        In [0, 1].
    cuts : sequence of float, optional
        The cut to mark in each class, NaN for none, in place of the best by the dashed curve.
    width : float
        Of the figure, in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If no class is to be drawn.
    """
    probs, label = _pixels(case, ignore_index)
    first = 1 if len(probs) == 1 else 0
    names = classes or [f"class {number}" for number in range(len(probs))]
    hits = [None if label is None else label == first + number for number in range(len(probs))]
    peaks = probs.max(1, initial=0.0)
    shown = [
        number
        for number, hit in enumerate(hits)
        if peaks[number] > pruning_prob or (hit is not None and hit.any())
    ][:MOST_CURVES]
    if not shown:
        name = case.name if isinstance(case, Case) else "the case"
        raise ValueError(f"case must have a class to draw, {name} has none")
    columns = max(1, min(3, len(shown), int(width / 1.75)))
    rows = math.ceil(len(shown) / columns)
    figure, grid = new_figure(width, 2.1 * rows + 0.8, columns=columns, rows=rows)
    handles: dict[str, Any] = {}
    for axes, number in zip(grid, shown, strict=False):
        cut = None if peaks[number] > pruning_prob else math.nan
        cut = cut if cuts is None else cuts[number]
        handles |= _draw_curves(axes, probs[number], hits[number], metric, cut)
        title(axes, names[number])
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("cut")
    grid[0].set_ylabel(METRIC_NAMES[metric])
    legend_below(figure, list(handles.values()))
    return figure


def _pixels(
    case: Case | Tensor, ignore_index: int | None
) -> tuple[Floats, NDArray[np.int64] | None]:
    """Return the probabilities (classes, pixels), and the labels of the pixels if known."""
    if isinstance(case, Tensor):
        return case.flatten(1).double().numpy(), None
    probs, label = case.probs.flatten(1).double().numpy(), case.label.flatten().numpy()
    if ignore_index is not None:
        probs, label = probs[:, label != ignore_index], label[label != ignore_index]
    return probs, label


def _draw_curves(
    axes: Axes,
    probs: Floats,
    hit: NDArray[np.bool_] | None,
    metric: Metric,
    cut: float | None,
) -> dict[str, Any]:
    """Draw the curves of a class, and mark a cut, by default the best; return the handles."""
    order = np.argsort(-probs, kind="stable")
    values = probs[order]
    ends = np.append(values[1:] < values[:-1], True)  # a mask holds all or none of equal values
    below = np.append(values[1:], 0.0)
    expected = _scores(values.cumsum(), values.sum(), metric, extra=1)
    drawn = [(expected, "expected", "--", LOSS_COLOUR)]
    if hit is not None:
        achieved = _scores(hit[order].cumsum(), hit.sum(), metric, extra=0)
        drawn.insert(0, (achieved, "achieved", "-", GAIN_COLOUR))
    kept = np.flatnonzero(ends)
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), MOST_POINTS)).astype(int)]
    lines: list[Line2D] = []
    for scores, label, dashes, colour in drawn:
        lines += axes.plot(below[kept], scores[kept], dashes, color=colour, label=label)
    lines.append(axes.axvline(0.5, color="black", linewidth=0.9, linestyle=":", label="1/2"))
    if cut is None:
        cut = float(below[np.where(ends, expected, -1.0).argmax()])
    if not math.isnan(cut):
        axes.axvline(cut, color="black", linewidth=0.9)
        taken = int((values > cut).sum())
        score = drawn[0][0][taken - 1] if taken else 0.0
        lines += axes.plot(cut, score, "o", color="black", markersize=5, label="chosen")
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    return {str(line.get_label()): line for line in lines}


def _scores(sums: Floats, total: float, metric: Metric, extra: int) -> Floats:
    """Return the score of the masks of the first pixel, the first two and so on.

    ``sums`` holds the pixels of the class within each mask, or what is expected of them; ``extra``
    is the 1 that RMA adds to the denominator of Dice.
    """
    taken = np.arange(1, len(sums) + 1)
    scores: Floats = (
        2 * sums / (taken + total + extra) if metric == "dice" else sums / (taken + total - sums)
    )
    return scores
