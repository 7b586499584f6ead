"""One case, decided by argmax and RankSEG: numbers, pictures and legend of the page."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg import metrics
from rankseg._common.optional import require
from rankseg._common.public import public
from rankseg._decision.decision import Decision
from rankseg._decision.module import RankSEG
from rankseg.evaluation import Case
from rankseg.evaluation.verdict import METRIC_NAMES
from rankseg.metrics import Metric
from rankseg.plots import paint_labels, score_by_cut
from rankseg.plots.examples import (
    BOTH_RIGHT,
    BOTH_WRONG,
    FIRST_RIGHT,
    IGNORED,
    LAST_RIGHT,
    NO_DATA,
    SAME_ERROR,
    VERDICT_COLOURS,
    verdict_names,
    verdicts,
)
from rankseg.plots.painting import rgb, swatch

__all__ = ["PICTURES", "Shown", "show"]

PICTURES: Final = ("argmax", "RankSEG", "where they differ", "truth")
METHODS: Final = PICTURES[:2]

SMALLEST_SIDE: Final = 420
"""Least side of a picture in pixels: small maps are enlarged."""
LARGEST_SIDE: Final = 1024
"""Largest side of a picture in pixels: larger ones take minutes to send."""
MOST_PIXELS: Final = 1 << 21
"""Pixels that curves are drawn of: of larger maps, every second, third and so on is taken."""
CURVE_WIDTHS: Final = {"narrow": 3.6, "wide": 8.4}
"""Inches: on a phone, and on a screen."""

SEEN_FIRST: Final = (IGNORED, BOTH_RIGHT, SAME_ERROR, BOTH_WRONG, FIRST_RIGHT, LAST_RIGHT)
"""Of several pixels that one pixel of a smaller picture stands for, the last of these is shown."""


@public("rankseg.app")
@dataclass(frozen=True, eq=False)
class Shown:
    """What the page shows of one case.

    Attributes
    ----------
    classes : tuple of str
        The names of the labels from 0.
    labels : mapping of str to ndarray
        int64 (*spatial) of ``'argmax'`` and ``'RankSEG'``, and of ``'truth'`` if it is known.
        Pixels without data are -1.
    head : tuple of str
        What the columns of ``rows`` are.
    rows : list of list of str
        By class: name, volumes in pixels, cut, expected scores, and with a truth achieved ones.
    summary : str
        How many pixels differ, the expected gain, and with a truth the achieved one.
    case : Case
        The probabilities, and the truth or zeros.
    cuts : list of float
        The cut of each class, NaN if the class is not present.
    underlay : ndarray
        uint8 (*spatial), or (height, width, 3) of an image: what labels are laid over. Without an
        image, the largest probability of each pixel.
    metric : {'dice', 'iou'}
        The score.
    ignore_index : int, optional
        Pixels whose true label has this value do not count.
    """

    classes: tuple[str, ...]
    labels: Mapping[str, NDArray[np.int64]]
    head: tuple[str, ...]
    rows: list[list[str]]
    summary: str
    case: Case
    cuts: list[float]
    underlay: NDArray[np.uint8]
    metric: Metric
    ignore_index: int | None

    def slices(self, axis: int = 0) -> int:
        """Return how many slices a volume has along an axis; 1 of an image."""
        return len(_slices(self.labels["RankSEG"], axis))

    def most_different_slice(self, axis: int = 0) -> int:
        """Return the number of the slice in which most pixels differ."""
        first, last = (_slices(self.labels[name], axis) for name in METHODS)
        return int((first != last).sum((1, 2)).argmax())

    def pictures(
        self, number: int = 0, axis: int = 0, opacity: float = 1.0
    ) -> dict[str, NDArray[np.uint8]]:
        """Return pictures of a slice by their names, uint8 (height, width, 3).

        ``opacity`` is that of the labels over the image, from 0 to 1. A side of more than 1024
        pixels is reduced: then a pixel of the picture stands for several.
        """
        planes = {name: _slices(labels, axis)[number] for name, labels in self.labels.items()}
        step = -(-max(planes["RankSEG"].shape) // LARGEST_SIDE)
        colour = self.underlay.ndim > self.labels["RankSEG"].ndim
        below = self.underlay if colour else _slices(self.underlay, axis)[number]
        below = (below if below.ndim == 3 else below[..., None])[::step, ::step]
        drawn = {
            name: _blend(paint_labels(plane[::step, ::step], self.classes), below, opacity)
            for name, plane in planes.items()
        }
        verdict = _reduced(self._verdicts(planes), step)
        drawn["where they differ"] = _colours()[verdict]
        return {name: _enlarged(drawn[name]) for name in PICTURES if name in drawn}

    def _verdicts(self, labels: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return which of the two methods is right; without a truth, where they differ."""
        decided = {name: labels[name] for name in METHODS}
        if "truth" in labels:
            return verdicts(labels["truth"], decided, self.ignore_index)
        first, last = decided.values()
        return np.where(first != last, FIRST_RIGHT, BOTH_RIGHT)

    def legend(self) -> str:
        """Return HTML that names the colours of classes and of differences."""
        held = set().union(*(np.unique(labels).tolist() for labels in self.labels.values()))
        entries = [
            (name, swatch(number, self.classes))
            for number, name in enumerate(self.classes)
            if number in held
        ]
        names = {FIRST_RIGHT: "they differ", BOTH_RIGHT: "same"}
        if "truth" in self.labels:
            names = verdict_names(*METHODS)
        found = np.unique(self._verdicts(self.labels))
        differences = [
            (name, rgb(VERDICT_COLOURS[i])[None, None]) for i, name in names.items() if i in found
        ]
        return "".join(
            f'<ul class="legend">{"".join(_entry(*entry) for entry in group)}</ul>'
            for group in (entries, differences)
        )

    def table(self) -> str:
        """Return the rows as an HTML table."""
        head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.head)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    @cached_property
    def curves(self) -> str:
        """HTML with the score against the cut, or nothing if no class is present."""
        if all(map(math.isnan, self.cuts)):
            return ""
        step = -(-self.case.label.numel() // MOST_PIXELS)
        probs, label = self.case.probs.flatten(1), self.case.label.flatten()
        case: Case | Tensor = probs[:, ::step]
        if "truth" in self.labels:
            case = Case(self.case.name, probs[:, ::step], label[::step])
        names = self.classes[len(self.classes) - len(probs) :]
        pictures = {}
        for kind, width in CURVE_WIDTHS.items():
            figure = score_by_cut(
                case, self.metric, classes=names, ignore_index=self.ignore_index,
                cuts=self.cuts, width=width,
            )  # fmt: skip
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=120)
            pictures[kind] = _data_url(content.getvalue())
        return (
            f'<picture><source media="(max-width: 600px)" srcset="{pictures["narrow"]}">'
            f'<img src="{pictures["wide"]}" alt="{METRIC_NAMES[self.metric]} of the mask above a '
            'cut, against the cut, for each class; the chosen cut is marked"></picture>'
        )


def show(
    maps: Case | Tensor | NDArray[Any],
    classes: Sequence[str] | None = None,
    *,
    labelled: bool = True,
    image: NDArray[np.uint8] | None = None,
    ignore_index: int | None = None,
    **rankseg_kwargs: Any,
) -> Shown:
    """Decide one case by argmax and RankSEG.

    Parameters
    ----------
    maps : Case, Tensor or ndarray
        A case with its truth; or probabilities alone, floating (classes, *spatial).
    classes : sequence of str, optional
        Names; by default they are numbered.
    labelled : bool
        Whether the label of a case is its truth.
    image : ndarray, optional
        uint8 (height, width, 3), to be shown below the labels.
    ignore_index : int, optional
        Pixels whose true label has this value do not count.
    **rankseg_kwargs
        Options of `rankseg.RankSEG`; the metric must be Dice or IoU.

    Returns
    -------
    Shown

    Raises
    ------
    TypeError, ValueError
        As `rankseg.RankSEG` and its call, or if ``classes`` or ``image`` do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.app import show
    >>> shown = show(np.array([[[0.9, 0.45, 0.4, 0.1]]]), ["spot"], solver="RMA")
    >>> shown.rows
    [['spot', '1', '3', '0.100', '0.653', '0.690']]
    """
    labelled = labelled and isinstance(maps, Case)
    case = maps if isinstance(maps, Case) else _unlabelled(maps)
    decide = RankSEG(**rankseg_kwargs)
    count = len(case.probs)
    names = [f"class {number}" for number in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise ValueError(f"classes must name the {count} classes of the maps, got {len(names)}")
    decision = decide.decide(case.probs[None])
    argmax = (case.probs[0] > 0.5).long() if count == 1 else case.probs.argmax(0)
    decided = dict(zip(METHODS, (argmax, decision.prediction[0]), strict=True))
    if labelled:
        decided["truth"] = case.label.long()
    metric: Metric = decide.settings.metric  # type: ignore[assignment]
    achieved = _achieved(case, decided, metric, ignore_index) if labelled else {}
    present = [bool(decision.present[0, number]) for number in range(count)]
    cuts = [
        decision.cut[0, number].item() if present[number] else math.nan for number in range(count)
    ]
    return Shown(
        ("background", *names) if count == 1 else tuple(names),
        {name: case.image(one, NO_DATA).numpy() for name, one in decided.items()},
        _head(metric, labelled),
        list(_rows(names, decided, decision, achieved)),
        _summary(decided, decision, achieved, metric),
        case,
        cuts,
        _underlay(case, image),
        metric,
        ignore_index,
    )


def _unlabelled(maps: Tensor | NDArray[Any]) -> Case:
    probs = maps if isinstance(maps, Tensor) else torch.from_numpy(maps)
    return Case("case", probs, torch.zeros(probs.shape[1:], dtype=torch.long, device=probs.device))


def _achieved(
    case: Case, decided: Mapping[str, Tensor], metric: Metric, ignore_index: int | None
) -> dict[str, Tensor]:
    """Return the score of each class by the truth, float64 (classes,), NaN if it is absent."""
    count = len(case.probs)
    score = metrics.dice if metric == "dice" else metrics.iou
    return {
        name: score(
            metrics.count(
                decided[name][None],
                decided["truth"][None],
                num_classes=max(2, count),
                ignore_index=ignore_index,
            )
        )[0, -count:]
        for name in METHODS
    }


def _head(metric: Metric, labelled: bool) -> tuple[str, ...]:
    decided = ("class", "volume argmax", "volume RankSEG", "cut")
    achieved = ("volume truth", *(f"{METRIC_NAMES[metric]} {name}" for name in METHODS))
    expected = ("expected argmax", "expected RankSEG")
    return (*decided, *expected, *achieved) if labelled else (*decided, *expected)


def _rows(
    names: Sequence[str],
    decided: Mapping[str, Tensor],
    decision: Decision,
    achieved: Mapping[str, Tensor],
) -> Iterable[list[str]]:
    """Yield a row for each class that is present, or that the truth holds."""
    first = 1 if len(names) == 1 else 0
    for number, name in enumerate(names):
        volumes = {kind: int((one == number + first).sum()) for kind, one in decided.items()}
        if not decision.present[0, number] and not volumes.get("truth"):
            continue
        expected = (decision.expected_argmax[0, number], decision.expected[0, number])
        row = [name, str(volumes["argmax"]), str(volumes["RankSEG"])]
        row += [_number(value.item()) for value in (decision.cut[0, number], *expected)]
        if achieved:
            row.append(str(volumes["truth"]))
            row += [_number(achieved[method][number].item()) for method in METHODS]
        yield row


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _summary(
    decided: Mapping[str, Tensor],
    decision: Decision,
    achieved: Mapping[str, Tensor],
    metric: Metric,
) -> str:
    """Say how many pixels differ, and what that is expected to gain and gains."""
    first, last = (decided[name] for name in METHODS)
    name, gain = METRIC_NAMES[metric], decision.expected_gain.item()
    sentences = [f"{int((first != last).sum())} of {first.numel()} pixels differ."]
    if math.isnan(gain):
        sentences.append("No class is present: none has a probability above pruning_prob.")
    else:
        sentences.append(
            f"Expected change of the mean {name} over the classes present: "
            f"{100 * gain:+.2f} points."
        )
    if achieved:
        before, after = (100 * achieved[method].nanmean().item() for method in METHODS)
        sentences.append(
            f"By the truth, the mean {name} over its classes is {after:.2f} by RankSEG and "
            f"{before:.2f} by argmax: {after - before:+.2f} points."
        )
    return " ".join(sentences)


def _underlay(case: Case, image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if image is None:
        sure = (255 * case.probs.amax(0).float().clamp(0, 1)).round().to(torch.uint8)
        return np.asarray(case.image(sure, 0).numpy())
    shape = tuple(case.image(case.label, 0).shape)
    if image.shape[:2] != shape:
        raise ValueError(
            f"the image must have the height and width of the maps, {shape}, got {image.shape[:2]}"
        )
    return image


# Pictures


def _slices(pixels: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return pixels (*spatial) as slices (number, height, width); an image is one slice."""
    if pixels.ndim < 3:
        return pixels.reshape(1, -1, pixels.shape[-1])
    moved = np.moveaxis(pixels, axis % pixels.ndim, 0)
    return moved.reshape(-1, *moved.shape[-2:])


def _blend(
    painted: NDArray[np.uint8], below: NDArray[np.uint8], opacity: float
) -> NDArray[np.uint8]:
    mixed = opacity * painted.astype(np.float32) + (1 - opacity) * below
    return np.rint(mixed).astype(np.uint8)


def _reduced(verdict: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Return one verdict for every block of ``step x step``: see `SEEN_FIRST`."""
    rank = np.argsort(SEEN_FIRST)[verdict]
    rows = np.maximum.reduceat(rank, range(0, len(rank), step), axis=0)
    return np.array(SEEN_FIRST)[np.maximum.reduceat(rows, range(0, rows.shape[1], step), axis=1)]


def _colours() -> NDArray[np.uint8]:
    return np.stack([rgb(colour) for colour in VERDICT_COLOURS])


def _enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    times = max(1, SMALLEST_SIDE // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1)


def _entry(name: str, colours: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    require("PIL.Image", "app", "the app").fromarray(colours).save(content, format="PNG")
    return f'<li><img src="{_data_url(content.getvalue())}" alt="">{html.escape(name)}</li>'


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
