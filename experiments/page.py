"""RESULTS.md: tables and a picture of the figures that were gathered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks._pages import METRIC_NAMES, table
from experiments.rows import MeasuredRow, Row
from experiments.tables import READINGS
from rankseg._files.whole import write_whole
from rankseg.metrics import METRICS

__all__ = ["write_page"]

DRAWN = ("rankseg_rma dice peak", "correlated dice peak", "correlated dice argmax")
"""The methods in the picture."""

INTRODUCTION = """# What the decision changes, network by network

Small U-Nets trained here from scratch, without weights of other networks. Their sizes, learning
rate and number of steps were fixed before any test image was looked at, and the network is the one
after the last step. `python -m experiments.train`, `test` and `results` made every figure on this
page from the CSV files in `experiments/results`; `experiments/README.md` shows the commands.

- Figures are points (0.01), means over the seeds, on test images.
- *change*: the mean over images of the score minus that of argmax on the maps as they are, for
  calibrated maps too. In brackets the 95 % interval over images, each image's change averaged over
  the seeds first (camvid11: over blocks of 12 frames).
- *absent classes not counted*: a class counts in the images whose label holds it. *score 0*: it
  counts too where only the prediction holds it, and scores 0 there.
- *calibrated*: vector scaling fitted to the validation maps. *weights undone*: divided by the class
  weights of the loss.
- `rankseg_rma`: the published rule, RMA. `joint`: labels by `solver="joint"`. `correlated`: the
  same with a correlation of 0.5, or of 0.35 and 0.7. `dep`: `solver="DEP"`. `dataset_rule`: a rule
  for the score of the data set, fitted to the validation maps without labels.
- The last word of a method is its rule of presence. `peak`: classes whose largest probability
  exceeds 0.5. `argmax`: classes that argmax predicts. `fitted`: a model fitted to the classes that
  the validation labels hold, for false classes that score 0. With two classes `peak` and `argmax`
  agree, and only `peak` is shown.
- Most of these networks are undertrained, hippocampus above all: see the scores of argmax. Their
  maps are unsure, and gains are larger than those of networks trained to the end.
- The backgrounds of busi, hippocampus, kvasir-seg and nuclei are not scored.
"""

PICTURE_OF_CHANGES = (
    "![Change of Dice from argmax by network and method](results/changes.png)\n\n"
    "Change of Dice by image from argmax, maps as they are, absent classes not counted, with 95 % "
    "intervals.\n"
)


def write_page(
    path: Path,
    rows: Sequence[Row],
    measured: Sequence[MeasuredRow],
) -> None:
    """Write the page and its picture, ``results/changes.png`` beside it."""
    parts = [INTRODUCTION, PICTURE_OF_CHANGES, *_overview(rows), *_quantities(rows, measured)]
    write_whole(path, "\n".join([*parts, *_of_networks(rows)]).encode())
    draw_changes(path.parent / "results" / "changes.png", rows)


def places_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the networks as pairs of data set and network, in order."""
    return sorted({(row.set, row.network) for row in rows})


def _overview(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Change from argmax by image, means over the seeds\n"
    for metric in METRICS:
        for counted, absent in READINGS:
            for maps in _kinds(rows):
                chosen = [
                    row
                    for row in rows
                    if (row.metric, row.counted, row.maps) == (metric, counted, maps)
                ]
                if chosen:
                    yield f"### {METRIC_NAMES[metric]}, absent classes {absent}, maps {maps}\n"
                    yield _changes_by_set(chosen)


def _kinds(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.maps for row in sorted(rows, key=lambda row: row.maps != "raw")))


def _changes_by_set(rows: Sequence[Row]) -> str:
    places = places_of(rows)
    found = {(row.method, row.set, row.network): row for row in rows}
    header = ["", *(f"{data}, {_loss(network)}" for data, network in places), "mean", "lowest"]
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        if method == "argmax" and rows[0].maps == "raw":
            scores = [found[(method, *place)].I for place in places]
            lines.append(["argmax, score", *(f"{score:.2f}" for score in scores), "", ""])
            continue
        changes = [_of(found, method, place) for place in places]  # None: not run there
        shown = ["" if change is None else f"{change:+.2f}" for change in changes]
        known = [change for change in changes if change is not None]
        lines.append([method, *shown, f"{np.mean(known):+.2f}", f"{min(known):+.2f}"])
    return table(header, lines)


def draw_changes(path: Path, rows: Sequence[Row]) -> None:
    """Draw the changes of Dice with their intervals, a group of bars for every network."""
    from matplotlib.figure import Figure

    places = places_of(rows)
    chosen = {
        (row.method, row.set, row.network): row
        for row in rows
        if (row.maps, row.counted) == ("raw", "label")
    }
    figure = Figure(figsize=(8, 1 + 0.6 * len(places)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(DRAWN)
    for order, method in enumerate(DRAWN):
        found = [_row_of(chosen, method, place) for place in places]
        known = [(place, row) for place, row in enumerate(found) if row is not None]
        centres = [place + (order - (len(DRAWN) - 1) / 2) * height for place, _ in known]
        changes = np.array([row.change for _, row in known])
        ends = np.array([(row.change_low, row.change_high) for _, row in known]).reshape(-1, 2)
        errors = np.abs(ends.T - changes)
        axes.barh(centres, changes, height, xerr=errors, label=method, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(places)), [f"{data}, {_loss(network)}" for data, network in places])
    axes.invert_yaxis()
    axes.set_xlabel("change of Dice from argmax, points")
    axes.legend(loc="best", fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _of(
    found: dict[tuple[str, str, str], Row], method: str, place: tuple[str, str]
) -> float | None:
    """Return the change of a method, or None if it was not run."""
    row = _row_of(found, method, place)
    return None if row is None else row.change


def _row_of(
    found: dict[tuple[str, str, str], Row], method: str, place: tuple[str, str]
) -> Row | None:
    """Return the row of a method; of two classes that by peaks, which is the same by argmax."""
    name, _, presence = method.rpartition(" ")
    row = found.get((method, *place))
    return found.get((f"{name} peak", *place)) if row is None and presence == "argmax" else row


def _loss(network: str) -> str:
    return network.partition("-")[2]


def _of_networks(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Each network\n"
    for data, network in places_of(rows):
        of_network = [row for row in rows if (row.set, row.network) == (data, network)]
        seeds, images = of_network[0].seeds, of_network[0].images
        yield f"### {data}, {network}: {images} images, {seeds} seeds\n"
        yield table(
            [
                *("maps", "metric, absent classes", "method", "change", "won", "lost", "seeds ±"),
                *("from pruned argmax", "by class", "data set", "worst tenth"),
            ],
            (_line(row) for row in of_network if (row.method, row.maps) != ("argmax", "raw")),
            left=3,
        )


def _line(row: Row) -> list[str]:
    absent = dict(READINGS)[row.counted]  # type: ignore[index]
    spread = "" if np.isnan(row.spread) else f"{row.spread:.2f}"
    return [
        *(row.maps, f"{row.metric}, {absent}", row.method),
        f"{row.change:+.2f} [{row.change_low:+.2f}, {row.change_high:+.2f}]",
        *(str(row.wins), str(row.losses), spread),
        f"{row.pruned:+.2f} [{row.pruned_low:+.2f}, {row.pruned_high:+.2f}]",
        *(f"{value:+.2f}" for value in (row.C_change, row.D_change, row.worst_change)),
    ]


def _quantities(rows: Sequence[Row], measured: Sequence[MeasuredRow]) -> Iterator[str]:
    yield "## What the maps are like, and what the default gains\n"
    yield (
        "Means over the seeds, maps as they are. *entropy*: of a pixel, in nats. *unsure*: pixels "
        "whose likeliest class has less than 0.9. *size*: the fraction of an image that a class "
        "covers. *volume*: the sum of the probabilities over the true number of pixels. "
        "*invented*, *lost*: pairs of image and class in which argmax predicts a class that the "
        "label lacks, or the reverse. *correlation*: of labels, estimated from how volumes "
        "scatter. *gain*: change of Dice by `correlated` with either rule of presence, absent "
        "classes not counted / scoring 0.\n"
    )
    lines = []
    for data, network in places_of(rows):
        seeds = [one for one in measured if (one.set, one.network) == (data, network)]
        values = [
            np.mean([getattr(one, name) for one in seeds])
            for name in ("entropy", "unsure", "size", "volume", "invented", "lost", "correlation")
        ]
        shown = [f"{value:.3f}" for value in values]
        gains = [_gain(rows, (data, network), presence) for presence in ("peak", "argmax")]
        lines.append([f"{data}, {_loss(network)}", *shown, *gains])
    header = ["network", "entropy", "unsure", "size", "volume", "invented", "lost", "correlation"]
    yield table([*header, "gain, peak", "gain, argmax"], lines)


def _gain(rows: Sequence[Row], place: tuple[str, str], presence: str) -> str:
    """Return the change of Dice by `correlated` in both ways to count absent classes."""
    gains = []
    for counted, _ in READINGS:
        found = {
            (row.method, row.set, row.network): row
            for row in rows
            if (row.maps, row.counted) == ("raw", counted)
        }
        gains.append(_of(found, f"correlated dice {presence}", place))
    return " / ".join("" if gain is None else f"{gain:+.2f}" for gain in gains)
