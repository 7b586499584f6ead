"""Pictures of decisions, differences and probabilities. Needs ``pip install 'rankseg[cli]'``.

All but `comparison_figure` return a matplotlib ``Figure``, which needs no display.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rankseg._common.colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR
from rankseg._common.warn import about
from rankseg._files.whole import write_whole
from rankseg.calibration import Reliability
from rankseg.evaluation import Case, Comparison, Method
from rankseg.evaluation.differences import TIE
from rankseg.metrics import Counted, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "Example",
    "comparison_figure",
    "draw_examples",
    "gain_and_loss",
    "paint_labels",
    "paired_differences",
    "reliability_diagram",
    "score_by_cut",
    "volume_changes",
    "write_figure",
]

Labels: TypeAlias = NDArray[np.integer[Any]]

# What became of a pixel under the first method and the last.
BOTH_RIGHT, SAME_ERROR, LAST_RIGHT, FIRST_RIGHT, BOTH_WRONG, IGNORED = range(6)
VERDICT_COLOURS: Final = ("#EDEDED", "#BDBDBD", "#0072B2", "#D55E00", "#000000", IGNORED_COLOUR)

NO_DATA: Final = -1
"""The label that pixels without data have in pictures."""

GAIN_COLOUR: Final = "#0072B2"
LOSS_COLOUR: Final = "#D55E00"
DIFFERENCE_COLOURS: Final = (GAIN_COLOUR, "#999999", LOSS_COLOUR)
LINE_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#882255", "#332288", "#777777")
MARKERS: Final = "osD^vPX"
METRIC_NAMES: Final[dict[Metric, str]] = {"dice": "Dice", "iou": "IoU"}
POINTS: Final = 100
MOST_CURVES: Final = 12
MOST_POINTS: Final = 400  # of a curve: more are not seen

DOTS_PER_INCH: Final = 150
PANEL_WIDTH: Final = 2.8  # inches, like everything below
MAX_PANEL_HEIGHT: Final = 3.6
GAP: Final = 0.12
MARGIN: Final = 0.15
ROW_TITLE: Final = 0.32
PANEL_TITLE: Final = 0.24
LEGEND_TITLE_WIDTH: Final = 1.25
LEGEND_ENTRY_WIDTH: Final = 1.55
LEGEND_LINE: Final = 0.21
SWATCH: Final = 0.13


@dataclass(frozen=True, eq=False)
class Example:
    """One row of the picture.

    Parameters
    ----------
    title : str
        Written above the row.
    truth : ndarray
        Integer (*spatial): the label of every pixel.
    predictions : mapping of str to ndarray
        By the name of the method, integer (*spatial); the first is compared with the last.
    image : ndarray, optional
        uint8 or floating in [0, 1], (H, W) or (H, W, 3); of images in two dimensions only.

    Raises
    ------
    ValueError
        If there are fewer than two predictions, or shapes differ.
    """

    title: str
    truth: Labels
    predictions: Mapping[str, Labels]
    image: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        shapes = {name: labels.shape for name, labels in self.predictions.items()}
        if len(shapes) < 2 or set(shapes.values()) != {self.truth.shape}:
            raise ValueError(
                f"predictions must be at least two of the shape of truth, {self.truth.shape}, "
                f"got {shapes}"
            )
        if self.image is not None and self.image.shape[:2] != self.truth.shape:
            raise ValueError(
                f"image must have the height and width of truth, {self.truth.shape}, "
                f"got {self.image.shape}"
            )


def comparison_figure(
    path: Path | str,
    examples: Sequence[Example],
    classes: Sequence[str],
    *,
    ignore_index: int | None = None,
) -> None:
    """Draw truth, predictions and where the first and the last differ; write it as a PNG.

    One row for each example: its image if any example has one, the truth, every prediction, and a
    map of the pixels that the two methods decide differently, coloured by which of them is right.
    Of a volume, the slice along the first axis with most such pixels is drawn. The file is there
    whole or not at all.

    Parameters
    ----------
    path : path
        The file, replaced if there is one.
    examples : sequence of Example
        At least one; all with predictions of the same methods.
    classes : sequence of str
        The names of the labels from 0. Up to twelve, besides a first class called
        ``background``, are distinct whatever one's colour vision.
    ignore_index : int, optional
        The label of pixels that have no truth.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If there is no example, or they differ in methods.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.plots import Example, comparison_figure
    >>> truth = np.eye(8, dtype=int)
    >>> example = Example("eye", truth, {"argmax": 0 * truth, "RankSEG dice": truth})
    >>> comparison_figure("eye.png", [example], ["background", "line"])  # doctest: +SKIP
    """
    figure = draw_examples(examples, classes, ignore_index=ignore_index)
    write_figure(path, figure)


def write_figure(path: Path | str, figure: Figure) -> None:
    """Write a figure as a PNG, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "rankseg"})
    write_whole(Path(path), picture.getvalue())


def draw_examples(
    examples: Sequence[Example], classes: Sequence[str], *, ignore_index: int | None = None
) -> Figure:
    """Draw what `comparison_figure` writes; arguments and errors are the same."""
    _require_matplotlib()
    methods = {tuple(example.predictions) for example in examples}
    if len(methods) != 1:
        raise ValueError(f"examples must be at least one, all of the same methods, got {methods}")
    flat = [_most_different_slice(example, ignore_index) for example in examples]
    return _draw(flat, classes, ignore_index)


def paint_labels(labels: Labels, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return labels in the colours of the other pictures.

    Parameters
    ----------
    labels : ndarray
        Integer (height, width); what is no class, such as void, is white.
    classes : sequence of str
        The names of the labels from 0; a first one called ``background`` is dark.

    Returns
    -------
    ndarray
        uint8 (height, width, 3).

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    _require_matplotlib()
    return np.rint(255 * _paint(labels, _class_colours(classes))).astype(np.uint8)


def paired_differences(
    comparison: Comparison,
    method: str,
    metric: Metric = "dice",
    counted: Counted = "label",
) -> Figure:
    """Draw by how much a method scores more than the first, case by case.

    Bars are cases in order of their difference, in points; the band is the 95 % bootstrap interval
    of the mean.

    Parameters
    ----------
    comparison : Comparison
        Of at least two methods.
    method : str
        Not the first.
    metric, counted
        As for `rankseg.evaluation.Comparison.differences`.

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
    figure, (axes,) = _figure(6.4, 3.2)
    values = comparison.differences(method, metric, counted)
    values = POINTS * np.sort(values[~np.isnan(values)])
    difference = comparison.difference(method, metric, counted)
    band = POINTS * comparison.band
    kinds = {"won": values > band, "tied": np.abs(values) <= band, "lost": values < -band}
    for (name, some), colour in zip(kinds.items(), DIFFERENCE_COLOURS, strict=True):
        places = np.flatnonzero(some)
        axes.bar(places, values[places], width=1.0, color=colour, label=f"{len(places)} {name}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(
        POINTS * difference.mean, color="black", linestyle="--", linewidth=1.2, label="mean"
    )
    if not math.isnan(difference.low):
        label = "95 % interval of the mean"
        axes.axhspan(
            POINTS * difference.low,
            POINTS * difference.high,
            color="black",
            alpha=0.12,
            label=label,
        )
    axes.set_xlabel(f"{len(values)} cases, in order of the difference")
    axes.set_xticks([])
    axes.set_ylabel(f"{METRIC_NAMES[metric]}, points")
    _title(axes, f"{method} minus {comparison.methods[0]}")
    axes.legend(fontsize=8, frameon=False)
    return figure


def volume_changes(comparison: Comparison, methods: Sequence[str] | None = None) -> Figure:
    """Draw the predicted over the true volume of every class, over the whole data set.

    Parameters
    ----------
    comparison : Comparison
        Whose classes are drawn that a label holds.
    methods : sequence of str, optional
        By default all.

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
    held = comparison.images_by_class > 0
    if not held.any():
        raise ValueError("comparison must have a class that a label holds, got none")
    classes = [name for name, there in zip(comparison.classes, held, strict=True) if there]
    figure, (axes,) = _figure(6.4, 1.4 + 0.28 * len(classes))
    places = np.arange(len(classes))
    lines = []
    for number, name in enumerate(names):
        counts = comparison.counts[name].total()
        predicted, true = (counts.tp + counts.fp)[0].numpy(), (counts.tp + counts.fn)[0].numpy()
        ratio = predicted[held] / true[held]
        shift = 0.6 * ((number + 0.5) / len(names) - 0.5)
        marker = MARKERS[number % len(MARKERS)]
        colour = _line_colour(number)
        lines += axes.plot(ratio, places + shift, marker, color=colour, label=name, markersize=5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [_drawable(name) for name in classes])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlabel("predicted volume / true volume")
    _title(axes, f"Volumes over {len(comparison.cases)} cases")
    _name_lines(axes, lines, 8)
    return figure


def reliability_diagram(*reliabilities: Reliability, titles: Sequence[str] = ()) -> Figure:
    """Draw how often what was given a probability came true, for the likeliest class and each.

    Parameters
    ----------
    *reliabilities : rankseg.calibration.Reliability
        At least one; a row for each, say before and after a calibration. Bins without pixels are
        left out.
    titles : sequence of str, optional
        What each is called.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    figure, grid = _figure(8.4, 3.8 * len(reliabilities), columns=2, rows=len(reliabilities))
    for row, one in enumerate(reliabilities):
        name = f"{titles[row]}: " if titles else ""
        _draw_likeliest(grid[2 * row], one, name)
        _draw_classes(grid[2 * row + 1], one, name)
    return figure


def _draw_likeliest(axes: Axes, reliability: Reliability, name: str) -> None:
    _draw_diagonal(axes)
    axes.set_ylabel("share that came true")
    shares = reliability.top_count / max(1, reliability.pixels)
    middle = (reliability.edges[1:] + reliability.edges[:-1]) / 2
    width = np.diff(reliability.edges)
    axes.bar(middle, shares, width=width, color="#BBBBBB", label="share of the pixels")
    axes.plot(
        reliability.top_confidence,
        reliability.top_frequency,
        "o-",
        color=GAIN_COLOUR,
        label="likeliest",
    )
    _title(axes, f"{name}likeliest class, ECE {POINTS * reliability.ece:.2f} points")
    axes.legend(fontsize=8, frameon=False)


def _draw_classes(axes: Axes, reliability: Reliability, name: str) -> None:
    _draw_diagonal(axes)
    lines = []
    for number, label in enumerate(reliability.classes):
        lines += axes.plot(
            reliability.confidence[number],
            reliability.frequency[number],
            MARKERS[number % len(MARKERS)] + "-",
            color=_line_colour(number),
            label=label,
            markersize=3.5,
            linewidth=1,
        )
    _title(axes, f"{name}by class, mean ECE {POINTS * reliability.mean_classwise_ece:.2f} points")
    _name_lines(axes, lines, 7)


def _draw_diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set_xlabel("probability given, mean of the bin")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def score_by_cut(
    case: Case,
    metric: Metric = "dice",
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    pruning_prob: float = 0.5,
) -> Figure:
    """Draw the score of the mask ``p > cut`` against the cut, for each class of a case.

    Solid: with the label. Dashed: as RMA expects it of the probabilities alone, without correlation
    or smoothing; its best cut is marked, unless the class is pruned. Dotted is 1/2. Where the two
    curves differ, the probabilities do.

    Parameters
    ----------
    case : Case
        At most twelve classes are drawn, those that the label holds or the map exceeds
        ``pruning_prob`` in.
    metric : {'dice', 'iou'}
        The score.
    classes : sequence of str, optional
        Names; by default numbers.
    ignore_index : int, optional
        Pixels whose label has this value are left out of both.
    pruning_prob : float
        In [0, 1].

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
    probs, label = case.probs.flatten(1).double().numpy(), case.label.flatten().numpy()
    if ignore_index is not None:
        probs, label = probs[:, label != ignore_index], label[label != ignore_index]
    first = 1 if len(probs) == 1 else 0
    names = classes or [f"class {number}" for number in range(len(probs))]
    shown = [
        number
        for number in range(len(probs))
        if probs.shape[1]
        and ((label == number + first).any() or probs[number].max() > pruning_prob)
    ][:MOST_CURVES]
    if not shown:
        raise ValueError(f"case must have a class to draw, {case.name} has none")
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, grid = _figure(3.1 * columns, 2.3 * rows, columns=columns, rows=rows)
    for axes, number in zip(grid, shown, strict=False):
        pruned = probs[number].max() <= pruning_prob
        _draw_curves(axes, probs[number], label == number + first, metric, pruned)
        _title(axes, names[number])
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("cut")
    grid[0].set_ylabel(METRIC_NAMES[metric])
    grid[0].legend(fontsize=7, frameon=False)
    return figure


def _draw_curves(
    axes: Axes, probs: NDArray[Any], hit: NDArray[np.bool_], metric: Metric, pruned: bool
) -> None:
    order = np.argsort(-probs, kind="stable")
    values = probs[order]
    taken = np.arange(1, len(values) + 1)
    ends = np.append(values[1:] < values[:-1], True)  # a mask holds all or none of equal values
    mass, hits = values.cumsum(), hit[order].cumsum()
    if metric == "dice":
        achieved = 2 * hits / (taken + hit.sum())
        expected = 2 * mass / (taken + values.sum() + 1)
    else:
        achieved = hits / (taken + hit.sum() - hits)
        expected = mass / (taken + values.sum() - mass)
    cuts = np.append(values[1:], 0.0)
    best = int(np.where(ends, expected, -1.0).argmax())
    kept = np.flatnonzero(ends)
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), MOST_POINTS)).astype(int)]
    axes.plot(cuts[kept], achieved[kept], color=GAIN_COLOUR, label="achieved")
    axes.plot(cuts[kept], expected[kept], "--", color=LOSS_COLOUR, label="expected")
    axes.axvline(0.5, color="black", linewidth=0.9, linestyle=":")
    if not pruned:
        axes.axvline(cuts[best], color="black", linewidth=0.9)
        axes.plot(cuts[best], achieved[best], "o", color="black", markersize=4, label="chosen")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _figure(
    width: float, height: float, *, columns: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row."""
    _require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
    return figure, axes


def _title(axes: Axes, text: str) -> None:
    axes.set_title(_drawable(text), fontsize=9.5, parse_math=False)


def _name_lines(axes: Axes, lines: Sequence[Line2D], size: float) -> None:
    """Write a legend beside an axes. Matplotlib's own leaves out names that begin with ``_``."""
    numbers = [str(number) for number in range(len(lines))]
    legend = axes.legend(
        lines, numbers, fontsize=size, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set_parse_math(False)
        text.set_text(_drawable(str(line.get_label())))


def _drawable(text: str) -> str:
    """Write what the font lacks as escapes of Python's: boxes would all look the same."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in rcParams["font.family"]]
    return "".join(
        character
        if any(font.get_char_index(ord(character)) for font in fonts)
        else ascii(character)[1:-1]
        for character in text
    )


def _line_colour(number: int) -> str:
    return LINE_COLOURS[number % len(LINE_COLOURS)]


def gain_and_loss(
    comparison: Comparison,
    methods: Sequence[Method],
    read: Callable[[str], Case],
    *,
    metric: Metric = "dice",
    counted: Counted = "label",
    images: Mapping[str, NDArray[Any]] | None = None,
) -> list[Example]:
    """Return the case in which the last method gains most on the first, and that of most loss.

    Gains and losses are those of the mean score over the classes that count. By ``"either"`` the
    largest are often those of a single pixel in a class that is absent, which a picture hardly
    shows.

    Parameters
    ----------
    comparison : Comparison
        Of these methods, the first its baseline, and of these cases.
    methods : sequence of Method
        At least two; each decides the cases chosen once more.
    read : callable
        Returns the case of a name.
    metric : {'dice', 'iou'}
        What is gained or lost.
    counted : {'label', 'either'}
        When a class counts: see `rankseg.metrics`.
    images : mapping of str to ndarray, optional
        By the name of the case, what `Example` shows beside the labels.

    Returns
    -------
    list of Example
        The gain, then the loss; one alone if there is no other, and the first case if every case
        is a tie.
    """
    first, last = methods[0].name, methods[-1].name
    differences = np.nan_to_num(comparison.differences(last, metric, counted))
    gain, loss = int(differences.argmax()), int(differences.argmin())
    kinds = {"largest gain": gain} if differences[gain] > TIE else {}
    if differences[loss] < -TIE:
        kinds["largest loss"] = loss
    examples = []
    for kind, index in (kinds or {"no case differs": 0}).items():
        name = comparison.cases[index]
        scores = ", ".join(
            f"{method} {_points(comparison.by_image(method, metric, counted)[index])}"
            for method in (first, last)
        )
        measure = METRIC_NAMES[metric]
        title = f"{kind.capitalize()}: {_shortened(name)}, mean {measure} {scores}"
        image = (images or {}).get(name)
        examples.append(_decided(title, read(name), methods, image))
    return examples


def _decided(
    title: str, case: Case, methods: Sequence[Method], image: NDArray[Any] | None
) -> Example:
    """Decide a case by every method; pixels without data are shown as pixels to be ignored."""
    probs = case.probs.float()[None]
    with about(case.name):
        decided = {method.name: _labels(method.decide(probs)) for method in methods}
    predictions = {name: case.image(labels, NO_DATA).numpy() for name, labels in decided.items()}
    return Example(title, case.image(case.label.long(), NO_DATA).numpy(), predictions, image)


def _labels(decision: torch.Tensor) -> torch.Tensor:
    """Return the labels of one image from labels or a single mask, int64."""
    return (decision[0, 0] if decision.dtype == torch.bool else decision[0]).long()


def _points(score: float) -> str:
    return "-" if math.isnan(score) else f"{100 * score:.1f}"


def _shortened(name: str) -> str:
    """Keep a title readable where cases are named by a hash."""
    return name if len(name) <= 28 else f"{name[:24]}..."


def _require_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'rankseg[cli]'", name="matplotlib"
        ) from error


# What is drawn


def _most_different_slice(example: Example, ignore_index: int | None) -> Example:
    """Reduce an example to two axes: the slice where the two methods differ most."""
    shape = example.truth.shape
    if len(shape) == 2:
        return example
    plane = shape[-2:] if len(shape) > 2 else (1, *shape)
    truth = example.truth.reshape(-1, *plane)
    predictions = {
        name: labels.reshape(truth.shape) for name, labels in example.predictions.items()
    }
    verdict = _verdict(truth, predictions, ignore_index)
    differs = np.isin(verdict, (LAST_RIGHT, FIRST_RIGHT, BOTH_WRONG))
    if not differs.any():  # show the slice that holds most instead
        differs = (truth != 0) & (verdict != IGNORED)
    chosen = int(differs.sum((1, 2)).argmax())
    title = example.title + (f", slice {chosen} of {len(truth)}" if len(shape) > 2 else "")
    return Example(title, truth[chosen], {name: p[chosen] for name, p in predictions.items()})


def _verdict(
    truth: Labels, predictions: Mapping[str, Labels], ignore_index: int | None
) -> NDArray[np.int64]:
    """Say of every pixel which of the first and last method is right."""
    first, *_, last = predictions.values()
    first_right, last_right, same = first == truth, last == truth, first == last
    verdict = np.select(
        [same & last_right, same, last_right, first_right],
        [BOTH_RIGHT, SAME_ERROR, LAST_RIGHT, FIRST_RIGHT],
        BOTH_WRONG,
    )
    ignored = truth == NO_DATA if ignore_index is None else np.isin(truth, (NO_DATA, ignore_index))
    return np.where(ignored, IGNORED, verdict)


def _class_colours(classes: Sequence[str]) -> NDArray[np.float64]:
    """Return one RGB colour for every class, (classes, 3)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    dark = [BACKGROUND_COLOUR] if classes[0].lower() == "background" else []
    count = len(classes) - len(dark)
    colours = to_rgba_array(dark + list(CLASS_COLOURS[:count]))[:, :3]
    if count > len(CLASS_COLOURS):
        colours = np.concatenate(
            [colours[: len(dark)], colormaps["turbo"](np.linspace(0, 1, count))[:, :3]]
        )
    return np.asarray(colours, np.float64)


def _paint(labels: Labels, colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn labels (H, W) into RGB (H, W, 3); what is no class, such as void, is left white."""
    inside = (labels >= 0) & (labels < len(colours))
    painted = colours[np.where(inside, labels, 0)]
    return np.where(inside[..., None], painted, 1.0)


# Drawing


def _draw(examples: Sequence[Example], classes: Sequence[str], ignore_index: int | None) -> Figure:
    """Lay out the rows, top down, and the legends below them."""
    from matplotlib.colors import to_rgba_array
    from matplotlib.figure import Figure  # needs no display and leaves no global state

    class_colours = _class_colours(classes)
    verdict_colours = to_rgba_array(VERDICT_COLOURS)[:, :3]
    has_images = any(example.image is not None for example in examples)
    columns = has_images + len(examples[0].predictions) + 2
    width = 2 * MARGIN + columns * PANEL_WIDTH + (columns - 1) * GAP
    verdicts = [_verdict(example.truth, example.predictions, ignore_index) for example in examples]
    legends = {
        "Labels": _class_entries(examples, classes, class_colours),
        "Where they differ": _verdict_entries(examples[0], verdicts, verdict_colours),
    }
    per_line = int((width - 2 * MARGIN - LEGEND_TITLE_WIDTH) / LEGEND_ENTRY_WIDTH)
    lines = [math.ceil(len(entries) / per_line) for entries in legends.values()]
    row_heights = [ROW_TITLE + PANEL_TITLE + _panel_size(example)[1] + GAP for example in examples]
    height = sum(row_heights) + LEGEND_LINE * sum(lines) + 3 * MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")
    top = height - MARGIN / 2
    for example, verdict, row_height in zip(examples, verdicts, row_heights, strict=True):
        panels = _panels(example, class_colours, has_images)
        panels["where they differ"] = verdict_colours[verdict]
        _draw_row(figure, top, example, panels)
        top -= row_height
    for (title, entries), count in zip(legends.items(), lines, strict=True):
        _draw_legend(figure, top, title, entries, per_line)
        top -= LEGEND_LINE * count + MARGIN / 2
    return figure


def _panels(
    example: Example, colours: NDArray[np.float64], has_images: bool
) -> dict[str, NDArray[Any] | None]:
    """Return the pictures of a row by their titles; None leaves the place empty."""
    panels: dict[str, NDArray[Any] | None] = {"image": example.image} if has_images else {}
    panels["truth"] = _paint(example.truth, colours)
    for name, labels in example.predictions.items():
        panels[name] = _paint(labels, colours)
    return panels


def _panel_size(example: Example) -> tuple[float, float]:
    """Return width and height in inches, in the proportions of the image within bounds."""
    rows, columns = example.truth.shape
    scale = min(PANEL_WIDTH / columns, MAX_PANEL_HEIGHT / rows)
    # A strip of one pixel is stretched, or it would not be seen.
    return max(columns * scale, LEGEND_LINE), max(rows * scale, LEGEND_LINE)


def _draw_row(
    figure: Figure, top: float, example: Example, panels: Mapping[str, NDArray[Any] | None]
) -> None:
    """Draw one example below ``top`` (inches from the foot of the figure)."""
    width, height = figure.get_size_inches()
    _write(figure, MARGIN, top - ROW_TITLE / 2, example.title, 10.5, "bold")
    panel_width, panel_height = _panel_size(example)
    foot = top - ROW_TITLE - PANEL_TITLE - panel_height
    for column, (title, pixels) in enumerate(panels.items()):
        left = MARGIN + column * (PANEL_WIDTH + GAP) + (PANEL_WIDTH - panel_width) / 2
        if pixels is not None:
            box = (left / width, foot / height, panel_width / width, panel_height / height)
            _draw_panel(figure.add_axes(box), title, pixels)


def _draw_panel(axes: Axes, title: str, pixels: NDArray[Any]) -> None:
    # The colour map and its limits only serve grey images.
    limit = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=limit, interpolation="nearest", aspect="auto")
    axes.set_title(_drawable(title), fontsize=9.5, pad=3.5, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#808080", linewidth=0.5)


# Legends


def _class_entries(
    examples: Sequence[Example], classes: Sequence[str], colours: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return the colours of the classes that are drawn, by their names."""
    drawn: set[int] = set()
    for example in examples:
        for labels in (example.truth, *example.predictions.values()):
            drawn.update(np.unique(labels).tolist())
    return {name: colours[i] for i, name in enumerate(classes) if i in drawn}


def _verdict_entries(
    example: Example, verdicts: Sequence[NDArray[np.int64]], colours: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return the colours of the verdicts that are drawn, by what they mean."""
    first, *_, last = example.predictions
    names = {
        LAST_RIGHT: f"{last} right",
        FIRST_RIGHT: f"{first} right",
        BOTH_WRONG: "differ, both wrong",
        BOTH_RIGHT: "same, right",
        SAME_ERROR: "same, wrong",
        IGNORED: "ignored",
    }
    drawn = {value for verdict in verdicts for value in np.unique(verdict).tolist()}
    return {name: colours[value] for value, name in names.items() if value in drawn}


def _draw_legend(
    figure: Figure,
    top: float,
    title: str,
    entries: Mapping[str, NDArray[np.float64]],
    per_line: int,
) -> None:
    """Write the entries from left to right in lines below ``top`` (inches)."""
    _write(figure, MARGIN, top - LEGEND_LINE / 2, title, 9)
    for position, (name, colour) in enumerate(entries.items()):
        line, column = divmod(position, per_line)
        left = MARGIN + LEGEND_TITLE_WIDTH + column * LEGEND_ENTRY_WIDTH
        middle = top - (line + 0.5) * LEGEND_LINE
        _draw_swatch(figure, left, middle, colour)
        _write(figure, left + SWATCH + 0.07, middle, name, 9)


def _draw_swatch(figure: Figure, left: float, middle: float, colour: NDArray[np.float64]) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    swatch = Rectangle(
        (left / width, (middle - SWATCH / 2) / height),
        SWATCH / width,
        SWATCH / height,
        facecolor=tuple(colour),
        edgecolor="#606060",
        linewidth=0.5,
    )
    figure.add_artist(swatch)


def _write(
    figure: Figure, left: float, middle: float, text: str, size: float, weight: str = "normal"
) -> None:
    """Write text, its left end and middle in inches; ``$`` is a plain character."""
    width, height = figure.get_size_inches()
    figure.text(
        left / width,
        middle / height,
        _drawable(text),
        fontsize=size,
        fontweight=weight,
        verticalalignment="center_baseline",
        parse_math=False,
    )
