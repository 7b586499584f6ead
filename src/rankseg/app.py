"""A page to look at decisions in a browser. Needs ``pip install 'rankseg[app]'``.

`show` decides one case and returns what the page shows; `build` makes the page.
"""

from __future__ import annotations

import html
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.optional import require
from rankseg._decision.module import RankSEG
from rankseg._decision.solvers import solvers_taking
from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg._formats import MAPS, PICTURES, ending, read_image, read_maps, write_labels
from rankseg.integration.transformers import restore_semantic_probs
from rankseg.plots import paint_labels
from rankseg.prediction.networks import load_transformers, run_transformers, to_pixels

__all__ = ["Shown", "build", "show"]

METRICS: Final = ("dice", "iou")
SOLVERS: Final = solvers_taking("unassigned_policy")
HEAD: Final = ("class", "volume argmax", "volume", "cut", "expected argmax", "expected")
SAME, DIFFERENT = (237, 237, 237), (213, 94, 0)
SMALLEST_SIDE: Final = 420
"""Least side of a picture in pixels: small maps are enlarged."""
LARGEST_SIDE: Final = 1024
"""Largest side of a picture in pixels: larger ones take minutes to decide and to send."""

EMBEDDED: Final = (
    "*The probabilities are those of the small network behind the examples, which knows no other "
    "pictures than such drawn ones; name a model for yours.*"
)
DAY: Final = 24 * 60 * 60
"""Seconds after which uploads are removed. All are removed when the app ends."""
INTRODUCTION: Final = """# RankSEG beside argmax
The same probabilities, decided by argmax and so that the expected Dice or IoU is largest.
Expected scores are what the probabilities promise, without any label."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page shows of one case.

    Attributes
    ----------
    argmax, ours, difference : ndarray
        uint8 (height, width, 3): the labels in colours, and where they differ.
    rows : list of list of str
        By class: name, volumes in pixels, cut, expected scores.
    labels : ndarray
        int64 (*spatial): the decision.
    summary : str
        How many pixels differ, the expected gain, and whether the pictures leave pixels out.
    """

    argmax: NDArray[np.uint8]
    ours: NDArray[np.uint8]
    difference: NDArray[np.uint8]
    rows: list[list[str]]
    labels: NDArray[np.int64]
    summary: str


def show(
    maps: Tensor | NDArray[Any],
    classes: Sequence[str] | None = None,
    *,
    depth: float = 0.5,
    **rankseg_kwargs: Any,
) -> Shown:
    """Decide one case by argmax and RankSEG.

    Parameters
    ----------
    maps : torch.Tensor or numpy.ndarray
        Probabilities, floating (classes, height, width) or (classes, depth, height, width).
    classes : sequence of str, optional
        Names; by default they are numbered.
    depth : float
        In [0, 1]: which slice of a volume is drawn.
    **rankseg_kwargs
        Options of `rankseg.RankSEG`; the metric must be Dice or IoU.

    Returns
    -------
    Shown

    Raises
    ------
    TypeError, ValueError
        As `rankseg.RankSEG` and its call.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.app import show
    >>> shown = show(np.array([[[0.9, 0.45, 0.4, 0.1]]]), ["spot"])
    >>> shown.rows
    [['spot', '1', '3', '0.100', '0.654', '0.670']]
    """
    probs = (maps if isinstance(maps, torch.Tensor) else torch.from_numpy(maps))[None]
    decision = RankSEG(**rankseg_kwargs).decide(probs)
    count = probs.shape[1]
    binary = count == 1
    plain = (probs[0, 0] > 0.5).long() if binary else probs[0].argmax(0)
    labels = decision.prediction[0]
    first = 1 if binary else 0
    names = classes or [f"class {number}" for number in range(count)]
    rows = [
        [
            name,
            str(int((plain == number + first).sum())),
            str(int(decision.volume[0, number])),
            f"{decision.cut[0, number].item():.3f}",
            f"{decision.expected_argmax[0, number].item():.3f}",
            f"{decision.expected[0, number].item():.3f}",
        ]
        for number, name in enumerate(names)
        if bool(decision.present[0, number])
    ]
    shown = ["background", *names] if binary else list(names)
    before, after = (_plane(one.numpy(), depth) for one in (plain, labels))
    step = -(-max(before.shape) // LARGEST_SIDE)
    changed = np.where(_any_of(before != after, step)[..., None], DIFFERENT, SAME)
    sentences = [
        f"{int((plain != labels).sum())} of {labels.numel()} pixels differ.",
        _expectation(decision.expected_gain.item(), metric_title(rankseg_kwargs)),
        f"The pictures show one pixel of {step} x {step}." if step > 1 else "",
    ]
    return Shown(
        argmax=_enlarged(paint_labels(before[::step, ::step], shown)),
        ours=_enlarged(paint_labels(after[::step, ::step], shown)),
        difference=_enlarged(changed.astype(np.uint8)),
        rows=rows,
        labels=labels.numpy(),
        summary=" ".join(filter(None, sentences)),
    )


def _expectation(gain: float, metric: str) -> str:
    if math.isnan(gain):
        return "No class is present: none has a probability above pruning_prob."
    return (
        f"Expected change of the mean {metric} over the classes present: {100 * gain:+.2f} points."
    )


def metric_title(options: Mapping[str, Any]) -> str:
    """Return the name of the metric in the options, as texts write it."""
    return "IoU" if str(options.get("metric", "dice")).strip().lower() == "iou" else "Dice"


def _plane(labels: NDArray[Any], depth: float) -> NDArray[Any]:
    if labels.ndim == 1:
        return labels[None]
    while labels.ndim > 2:
        labels = labels[round(depth * (len(labels) - 1))]
    return labels


def _any_of(values: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return for every block of ``step x step`` whether any value in it is true."""
    rows = np.logical_or.reduceat(values, range(0, len(values), step), axis=0)
    return np.logical_or.reduceat(rows, range(0, rows.shape[1], step), axis=1)


def _enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    times = max(1, SMALLEST_SIDE // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1)


def build() -> Any:
    """Make the page.

    Returns
    -------
    gradio.Blocks
        Its ``launch()`` serves it.

    Raises
    ------
    ImportError
        If gradio is missing.

    Examples
    --------
    >>> from rankseg.app import build
    >>> build().launch()  # doctest: +SKIP
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    gradio = require("gradio", "app", "the app")
    scratch = tempfile.TemporaryDirectory(prefix="rankseg-", ignore_cleanup_errors=True)
    examples = [(f"example {number}", number) for number in range(len(_sample().probs))]
    with gradio.Blocks(
        title="RankSEG beside argmax", analytics_enabled=False, delete_cache=(DAY, DAY)
    ) as page:
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(
                    label="Probability maps, or an image",
                    file_types=sorted({*MAPS, *PICTURES}),
                )
                example = gradio.Dropdown(examples, value=0, label="Or an example")
                model = gradio.Textbox(
                    label="Model for an image",
                    placeholder="Hugging Face id or folder; empty: the examples' network",
                )
                metric = gradio.Radio(METRICS, value="dice", label="Metric")
                solver = gradio.Radio(SOLVERS, value="RMA", label="Solver")
                pruning = gradio.Slider(0, 1, 0.5, step=0.05, label="pruning_prob")
                correlation = gradio.Slider(0, 0.95, 0, step=0.05, label="correlation")
                smooth = gradio.Number(0, minimum=0, label="smooth")
                depth = gradio.Slider(0, 1, 0.5, step=0.01, label="Slice of a volume")
                button = gradio.Button("Decide", variant="primary", elem_id="decide")
            with gradio.Column(scale=3):
                summary = gradio.Markdown(elem_id="summary")
                pictures = []
                for names in (("image", "where they differ"), ("argmax", "RankSEG")):
                    with gradio.Row():
                        pictures += [_picture(gradio, name) for name in names]
                table = gradio.Dataframe(headers=list(HEAD), interactive=False, elem_id="scores")
                files = gradio.File(label="The decision, as PNG and NPY", file_count="multiple")

        def decide(*values: Any) -> list[Any]:
            try:
                return _page_of(scratch.name, _Form(*values))
            except (TypeError, ValueError, ImportError, OSError, KeyError, MemoryError) as error:
                # The page takes messages for HTML, and names of files and classes are in them.
                raise gradio.Error(html.escape(str(error)), print_exception=False) from error

        button.click(
            decide,
            [upload, example, model, metric, solver, pruning, correlation, smooth, depth],
            [summary, *pictures, table, files],
        )
    return page


def _picture(gradio: Any, name: str) -> Any:
    return gradio.Image(label=name, interactive=False, format="png", buttons=["fullscreen"])


@dataclass(frozen=True, eq=False)
class _Case:
    """The maps to decide, the names of the classes, and the image.

    ``image`` is uint8 (height, width, 3), or None if there are only maps. The page shows ``note``
    beside the decision.
    """

    maps: Any
    classes: Sequence[str] | None = None
    image: NDArray[np.uint8] | None = None
    note: str = ""


class _Form(NamedTuple):
    """What the visitor chose, in the order of the inputs of the page."""

    upload: str | None
    example: int
    model: str
    metric: str
    solver: str
    pruning_prob: float
    correlation: float
    smooth: float
    depth: float


def _page_of(scratch: str, form: _Form) -> list[Any]:
    """Decide the case that a form names; return the values of the outputs of the page."""
    upload = form.upload
    case = _example(form.example) if upload is None else _uploaded(Path(upload), form.model)
    takes_correlation = form.solver in solvers_taking("correlation")
    options = {"correlation": form.correlation} if takes_correlation else {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        shown = show(
            case.maps,
            case.classes,
            depth=form.depth,
            metric=form.metric,
            solver=form.solver if len(case.maps) > 1 or form.solver != "joint" else "RMA",
            pruning_prob=form.pruning_prob,
            smooth=form.smooth,
            **options,
        )
    folder = Path(tempfile.mkdtemp(dir=scratch))
    endings = [".npy", ".png"] if shown.labels.ndim == 2 else [".npy"]
    files = [folder / f"decision{suffix}" for suffix in endings]
    for path in files:
        write_labels(path, shown.labels)
    image = None if case.image is None else _enlarged(case.image)
    pictures = (image, shown.difference, shown.argmax, shown.ours)
    notes = [f"Warning: {one.message}." for one in warned if one.category is UserWarning]
    summary = " ".join(filter(None, [*notes, shown.summary, case.note]))
    return [summary, *pictures, shown.rows, [str(path) for path in files]]


_sample = cache(load_sample)  # read once, not at every click


def _example(number: int) -> _Case:
    sample = _sample()
    return _Case(sample.probs[number], sample.classes, sample.images[number])


def _uploaded(path: Path, model: str) -> _Case:
    """Return the case of an uploaded file: its maps, or those that a network gives for its image.

    ``model`` names the network; if it is empty, the network of the examples is used.
    """
    suffix = ending(path)
    if suffix in MAPS and not (model and suffix in PICTURES):  # a TIFF may hold maps or an image
        return _Case(read_maps(path).maps)
    image, note = _reduced(read_image(path).maps)
    if model:
        maps, classes = _maps_of_transformers(model, image)
    else:
        maps, classes, note = maps_of_image(image), _sample().classes, f"{note} {EMBEDDED}".strip()
    return _Case(maps, classes, to_pixels(image), note)


def _reduced(image: Tensor) -> tuple[Tensor, str]:
    """Return an image ``(3, height, width)`` and a note.

    The image is reduced if a side exceeds `LARGEST_SIDE`; the note says so, and is empty if not.
    """
    given = image.shape[1:]
    scale = LARGEST_SIDE / max(given)
    if scale >= 1:
        return image, ""
    size = [max(1, round(scale * side)) for side in given]
    reduced = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return reduced, (
        f"The image of {given[0]} x {given[1]} pixels was reduced to {size[0]} x {size[1]} first; "
        "`rankseg predict --model` decides it as it is."
    )


def _maps_of_transformers(name: str, image: Tensor) -> tuple[Tensor, Sequence[str]]:
    """Return the probabilities that a model of Transformers gives for an image."""
    network, processor = load_transformers(name)
    (probs,) = restore_semantic_probs(
        run_transformers(network, processor, image),
        model=network,
        target_sizes=[tuple(image.shape[1:])],
    )
    labels = network.config.id2label
    return probs, [str(labels.get(number, number)) for number in range(len(probs))]
