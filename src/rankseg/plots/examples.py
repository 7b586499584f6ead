"""Examples: image, truth, decisions, and where the decisions differ."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from rankseg._common.colours import IGNORED_COLOUR
from rankseg._common.public import public
from rankseg._common.warn import about
from rankseg.evaluation import Case, Comparison, Method
from rankseg.evaluation.differences import TIE
from rankseg.evaluation.verdict import METRIC_NAMES
from rankseg.metrics import Counted, Metric
from rankseg.plots.figures import (
    FONT_SIZE,
    drawable,
    require_matplotlib,
    shortened,
    text_width,
    write_figure,
)
from rankseg.plots.painting import Labels, paint_labels, rgb, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "VERDICT_COLOURS",
    "Example",
    "comparison_figure",
    "draw_examples",
    "gain_and_loss",
    "verdict_names",
    "verdicts",
]

# What became of a pixel under the first method and the last.
BOTH_RIGHT, SAME_ERROR, LAST_RIGHT, FIRST_RIGHT, BOTH_WRONG, IGNORED = range(6)
VERDICT_COLOURS: Final = ("#EDEDED", "#BDBDBD", "#0072B2", "#D55E00", "#000000", IGNORED_COLOUR)

NO_DATA: Final = -1
"""The label that pixels without data have in pictures."""

PANEL_WIDTH: Final = 2.8  # inches, like everything below
LEAST_PANEL_WIDTH: Final = 1.5
GAP: Final = 0.12
MARGIN: Final = 0.15
ROW_TITLE: Final = 0.32
TITLE_LINE: Final = 0.21
PANEL_TITLE: Final = 0.26
LEGEND_LINE: Final = 0.25
SWATCH: Final = 0.16
ENTRY_GAP: Final = 0.2


@public("rankseg.plots")
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
    width: float | None = None,
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
        The names of the labels from 0. Up to twenty-four, besides a first class called
        ``background``, have colours that are distinct whatever one's colour vision; further ones
        have stripes.
    ignore_index : int, optional
        The label of pixels that have no truth.
    width : float, optional
        Of the picture in inches. The panels of an example then stand in several lines if need be;
        by default they stand in one.

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
    figure = draw_examples(examples, classes, ignore_index=ignore_index, width=width)
    write_figure(path, figure)


def draw_examples(
    examples: Sequence[Example],
    classes: Sequence[str],
    *,
    ignore_index: int | None = None,
    width: float | None = None,
) -> Figure:
    """Draw what `comparison_figure` writes; arguments and errors are the same."""
    require_matplotlib()
    methods = {tuple(example.predictions) for example in examples}
    if len(methods) != 1:
        raise ValueError(f"examples must be at least one, all of the same methods, got {methods}")
    flat = [_most_different_slice(example, ignore_index) for example in examples]
    return _draw(flat, classes, ignore_index, width)


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
    verdict = verdicts(truth, predictions, ignore_index)
    differs = np.isin(verdict, (LAST_RIGHT, FIRST_RIGHT, BOTH_WRONG))
    if not differs.any():  # show the slice that holds most instead
        differs = (truth != 0) & (verdict != IGNORED)
    chosen = int(differs.sum((1, 2)).argmax())
    title = example.title + (f", slice {chosen} of {len(truth)}" if len(shape) > 2 else "")
    return Example(title, truth[chosen], {name: p[chosen] for name, p in predictions.items()})


def verdicts(
    truth: Labels, predictions: Mapping[str, Labels], ignore_index: int | None
) -> NDArray[np.int64]:
    """Return for every pixel which of the first and last method is right: `VERDICT_COLOURS`."""
    first, *_, last = predictions.values()
    first_right, last_right, same = first == truth, last == truth, first == last
    verdict = np.select(
        [same & last_right, same, last_right, first_right],
        [BOTH_RIGHT, SAME_ERROR, LAST_RIGHT, FIRST_RIGHT],
        BOTH_WRONG,
    )
    ignored = truth == NO_DATA if ignore_index is None else np.isin(truth, (NO_DATA, ignore_index))
    return np.where(ignored, IGNORED, verdict)


def verdict_names(first: str, last: str) -> dict[int, str]:
    """Return what each verdict means, those of differences first."""
    return {
        LAST_RIGHT: f"only {last} right",
        FIRST_RIGHT: f"only {first} right",
        BOTH_WRONG: "differ, both wrong",
        BOTH_RIGHT: "same, right",
        SAME_ERROR: "same, wrong",
        IGNORED: "ignored",
    }


# Drawing

Pixels = NDArray[Any]


@dataclass(frozen=True)
class _Layout:
    """How the panels of an example lie: their width in inches and how many stand in a line."""

    width: float
    panel: float
    per_line: int

    @classmethod
    def of(cls, panels: int, width: float | None) -> _Layout:
        if width is None:
            return cls(2 * MARGIN + panels * (PANEL_WIDTH + GAP) - GAP, PANEL_WIDTH, panels)
        room = width - 2 * MARGIN + GAP
        least = min(LEAST_PANEL_WIDTH if width < 5 else 2.2, room - GAP)
        lines = math.ceil(panels / int(room / (least + GAP)))
        per_line = math.ceil(panels / lines)
        return cls(width, room / per_line - GAP, per_line)

    def size_of(self, example: Example) -> tuple[float, float]:
        """Return width and height of a panel, in the proportions of the image within bounds."""
        rows, columns = example.truth.shape
        scale = min(self.panel / columns, 1.3 * self.panel / rows)
        # A strip of one pixel is stretched, or it would not be seen.
        return max(columns * scale, LEGEND_LINE), max(rows * scale, LEGEND_LINE)

    def title_of(self, example: Example) -> list[str]:
        """Return the lines of the title of an example."""
        text = drawable(example.title)
        room = self.width - 2 * MARGIN
        characters = max(8, int(len(text) * room / max(room, text_width(text, weight="bold"))))
        return textwrap.wrap(text, characters) or [""]

    def height_of(self, example: Example, panels: int) -> float:
        """Return the height that an example takes with its title."""
        lines = math.ceil(panels / self.per_line)
        titles = ROW_TITLE + TITLE_LINE * (len(self.title_of(example)) - 1)
        return titles + lines * (PANEL_TITLE + self.size_of(example)[1] + GAP)


def _draw(
    examples: Sequence[Example],
    classes: Sequence[str],
    ignore_index: int | None,
    width: float | None,
) -> Figure:
    """Lay out the examples, top down, and the legend below them."""
    from matplotlib.figure import Figure  # needs no display and leaves no global state

    has_images = any(example.image is not None for example in examples)
    rows = [_panels(example, classes, has_images, ignore_index) for example in examples]
    layout = _Layout.of(len(rows[0]), width)
    entries = _entries(examples, classes, ignore_index)
    legend = [line for group in entries for line in _flow(group, layout.width - 2 * MARGIN)]
    heights = [layout.height_of(example, len(rows[0])) for example in examples]
    height = sum(heights) + LEGEND_LINE * len(legend) + 2 * MARGIN
    figure = Figure(figsize=(layout.width, height), facecolor="white")
    top = height - MARGIN / 2
    for example, panels, row_height in zip(examples, rows, heights, strict=True):
        _draw_example(figure, top, example, panels, layout)
        top -= row_height
    for line in legend:
        for left, name, colours in line:
            _draw_entry(figure, MARGIN + left, top - LEGEND_LINE / 2, name, colours)
        top -= LEGEND_LINE
    return figure


def _panels(
    example: Example, classes: Sequence[str], has_images: bool, ignore_index: int | None
) -> dict[str, Pixels | None]:
    """Return the pictures of an example by their titles; None leaves the place empty."""
    panels: dict[str, Pixels | None] = {"image": example.image} if has_images else {}
    panels["truth"] = paint_labels(example.truth, classes)
    for name, labels in example.predictions.items():
        panels[name] = paint_labels(labels, classes)
    verdict = verdicts(example.truth, example.predictions, ignore_index)
    panels["where they differ"] = np.stack([rgb(colour) for colour in VERDICT_COLOURS])[verdict]
    return panels


def _draw_example(
    figure: Figure,
    top: float,
    example: Example,
    panels: Mapping[str, Pixels | None],
    layout: _Layout,
) -> None:
    """Draw one example below ``top`` (inches from the foot of the figure)."""
    width, height = figure.get_size_inches()
    for text in layout.title_of(example):
        _write(figure, MARGIN, top - ROW_TITLE / 2, text, weight="bold")
        top -= TITLE_LINE
    top -= ROW_TITLE - TITLE_LINE
    panel_width, panel_height = layout.size_of(example)
    for place, (title, pixels) in enumerate(panels.items()):
        line, column = divmod(place, layout.per_line)
        foot = top - (line + 1) * (PANEL_TITLE + panel_height + GAP) + GAP
        left = MARGIN + column * (layout.panel + GAP) + (layout.panel - panel_width) / 2
        if pixels is not None:
            box = (left / width, foot / height, panel_width / width, panel_height / height)
            _draw_panel(figure.add_axes(box), shortened(title, layout.panel), pixels)


def _draw_panel(axes: Axes, title: str, pixels: Pixels) -> None:
    # The colour map and its limits only serve grey images.
    limit = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=limit, interpolation="nearest", aspect="auto")
    axes.set_title(title, fontsize=FONT_SIZE, pad=3.5, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#808080", linewidth=0.5)


# The legend


def _entries(
    examples: Sequence[Example], classes: Sequence[str], ignore_index: int | None
) -> tuple[list[tuple[str, Pixels]], list[tuple[str, Pixels]]]:
    """Return name and colour of each class that is drawn, and of each verdict."""
    labels: set[int] = set()
    found: set[int] = set()
    for example in examples:
        for one in (example.truth, *example.predictions.values()):
            labels.update(np.unique(one).tolist())
        verdict = verdicts(example.truth, example.predictions, ignore_index)
        found.update(np.unique(verdict).tolist())
    first, *_, last = examples[0].predictions
    names = verdict_names(first, last).items()
    return (
        [(name, swatch(i, classes)) for i, name in enumerate(classes) if i in labels],
        [(name, rgb(VERDICT_COLOURS[i])[None, None]) for i, name in names if i in found],
    )


def _flow(
    entries: Sequence[tuple[str, Pixels]], room: float
) -> list[list[tuple[float, str, Pixels]]]:
    """Lay out entries in lines of ``room`` inches, each with the left end of its swatch."""
    lines: list[list[tuple[float, str, Pixels]]] = [[]]
    left = 0.0
    for name, colours in entries:
        text = shortened(name, room - SWATCH - ENTRY_GAP)
        width = SWATCH + 0.07 + text_width(text) + ENTRY_GAP
        if lines[-1] and left + width - ENTRY_GAP > room:
            lines.append([])
            left = 0.0
        lines[-1].append((left, text, colours))
        left += width
    return lines


def _draw_entry(figure: Figure, left: float, middle: float, name: str, colours: Pixels) -> None:
    """Draw a swatch and its name, the left end and the middle in inches."""
    width, height = figure.get_size_inches()
    foot = middle - SWATCH / 2
    axes = figure.add_axes((left / width, foot / height, SWATCH / width, SWATCH / height))
    _draw_panel(axes, "", colours)
    _write(figure, left + SWATCH + 0.07, middle, name)


def _write(figure: Figure, left: float, middle: float, text: str, weight: str = "normal") -> None:
    """Write text, its left end and middle in inches; ``$`` is a plain character."""
    width, height = figure.get_size_inches()
    figure.text(
        left / width,
        middle / height,
        text,
        fontsize=FONT_SIZE,
        fontweight=weight,
        verticalalignment="center_baseline",
        parse_math=False,
    )
