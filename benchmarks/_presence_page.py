"""Write the page of presence rules, and a table of it, from what ``presence.py`` measured."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from _pages import METRIC_NAMES, table

from rankseg import RankSEG
from rankseg._decision.presence_model import PresenceTable
from rankseg._files.whole import write_whole
from rankseg.calibration import PresenceModel
from rankseg.evaluation import CaseFolder, Method, argmax, compare
from rankseg.plots import Example, comparison_figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "presence.md"
README = DOCS.parent / "README.md"
PICTURE = DOCS / "images" / "presence_found.png"
RELIABILITY = DOCS / "images" / "presence_reliability.png"

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
RULES = {"label": "absent classes do not count", "either": "false classes score 0"}
SEED = re.compile(r"-\d+$")
OURS = "joint r=0.5, peak (default)"
PUBLISHED = "RMA, peak (published)"
CALIBRATED = "joint r=0.5, fitted, calibrated"
TITLES = {
    "busi": "breast ultrasound, U-Net, 3 classes",
    "camvid11": "streets, U-Net, 11 classes",
    "camvid-cgnet": "streets, CGNet, 11 classes (w)",
    "camvid-enet": "streets, ENet, 11 classes (w)",
    "camvid-espnet": "streets, ESPNet, 11 classes (w)",
    "drive-lwnet": "retina vessels, LWNet, 1 channel",
    "hippocampus-unet3d": "hippocampus, 3-D U-Net, 3 classes",
    "nuclei-unet2d": "nuclei, U-Net, 1 channel",
}
"""What the table of the README calls the sets; of (w) the weights of classes are undone."""
BINS = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])


def write_page(rows: Sequence[Any], folders: Sequence[CaseFolder]) -> None:
    """Replace the tables in the page and in README.md, and draw the two pictures of the page."""
    replace_tables(PAGE, tables(rows))
    replace_tables(README, summary(by_set(rows)))
    draw_found(folders[0])
    draw_reliability(folders)


def replace_tables(page: Path, text: str) -> None:
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    write_whole(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}".encode())


def summary(sets: Mapping[str, Sequence[Any]]) -> str:
    """Write Dice of argmax and the changes of three decisions, by both ways to score."""
    shown, totals = [], []
    for name, rows in sets.items():
        by_rule = [pick(rows, "dice", counted) for counted in RULES]
        base = [mean(row.by_image for row in of_method(some, "argmax")) for some in by_rule]
        found = [
            [mean(row.difference for row in of_method(some, method)) for some in by_rule]
            for method in (PUBLISHED, OURS, CALIBRATED)
        ]
        totals.append(found)
        images = str(by_rule[0][0].images)
        cells = [" / ".join(f"{one:+.2f}" for one in pair) for pair in found]
        shown.append([TITLES[name], images, " / ".join(f"{one:.1f}" for one in base), *cells])
    means = np.array(totals).mean(0)
    shown.append(["**mean**", "", "", *(" / ".join(f"{one:+.2f}" for one in row) for row in means)])
    header = ["maps", "images", "argmax", "0.0.8 (`RMA`)", "`RankSEG()`", "calibrated"]
    return table(header, shown)


def by_set(rows: Iterable[Any]) -> Mapping[str, list[Any]]:
    """Put the rows of all seeds of a set together."""
    sets: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        sets[SEED.sub("", row.set)].append(row)
    return dict(sorted(sets.items()))


def tables(rows: Sequence[Any]) -> str:
    sets = by_set(rows)
    parts = []
    for metric, name in METRIC_NAMES.items():
        for counted, rule in RULES.items():
            chosen = {key: pick(own, metric, counted) for key, own in sets.items()}
            parts.append(f"### {name} by image: {rule}\n\n{changes(chosen)}")
    for value, title in (("by_class", "by class"), ("of_data_set", "of the data set")):
        chosen = {key: pick(own, "iou", "label") for key, own in sets.items()}
        parts.append(f"### IoU {title}: absent classes do not count\n\n{others(chosen, value)}")
    parts.append(f"### Every loss of {OURS}\n\n{losses(sets)}")
    return "\n".join(parts)


def pick(rows: Iterable[Any], metric: str, counted: str) -> list[Any]:
    return [row for row in rows if (row.metric, row.counted) == (metric, counted)]


def of_method(rows: Iterable[Any], method: str) -> list[Any]:
    return [row for row in rows if row.method == method]


def changes(sets: Mapping[str, Sequence[Any]]) -> str:
    """Write argmax and the change of every other method, its interval's sign and its record."""
    methods = list(dict.fromkeys(row.method for rows in sets.values() for row in rows))
    shown = [["argmax", *[f"{mean(r.by_image for r in of_method(rows, 'argmax')):.2f}"
              for rows in sets.values()], "", ""]]  # fmt: skip
    for method in methods[1:]:
        own = [of_method(rows, method) for rows in sets.values()]
        means = [mean(row.difference for row in some) for some in own]
        cells = [change(some) for some in own]
        shown.append([method, *cells, f"{mean(means):+.2f}", f"{min(means):+.2f}"])
    return table(["", *sets, "mean", "worst set"], shown)


def change(rows: Sequence[Any]) -> str:
    """Write the mean change over the seeds of a set, bold if every interval excludes 0."""
    text = f"{mean(row.difference for row in rows):+.2f}"
    sure = all(row.low > 0 for row in rows) or all(row.high < 0 for row in rows)
    wins, lost = (sum(getattr(row, name) for row in rows) for name in ("wins", "losses"))
    return f"{f'**{text}**' if sure else text} ({wins}/{lost})"


def others(sets: Mapping[str, Sequence[Any]], value: str) -> str:
    """Write argmax and the change of every other method by another mean."""
    methods = list(dict.fromkeys(row.method for rows in sets.values() for row in rows))
    found: dict[str, list[float]] = {method: [] for method in methods}
    for method, rows in product(methods, sets.values()):
        found[method].append(mean(getattr(row, value) for row in of_method(rows, method)))
    base = found["argmax"]
    shown = [["argmax", *(f"{one:.2f}" for one in base), "", ""]]
    for method in methods[1:]:
        rises = [one - other for one, other in zip(found[method], base, strict=True)]
        cells = [f"{rise:+.2f}" for rise in rises]
        shown.append([method, *cells, f"{mean(rises):+.2f}", f"{min(rises):+.2f}"])
    return table(["", *sets, "mean", "worst set"], shown)


def losses(sets: Mapping[str, Sequence[Any]]) -> str:
    """List every score of ours that is below argmax, and below the published rule."""
    shown = []
    for name, rows in sets.items():
        for metric, title in METRIC_NAMES.items():
            for counted, rule in RULES.items():
                some = pick(rows, metric, counted)
                ours, published = (
                    mean(row.difference for row in of_method(some, method))
                    for method in (OURS, PUBLISHED)
                )
                if ours < -0.005 or ours < published - 0.005:
                    cells = [f"{ours:+.2f}", f"{published:+.2f}"]
                    shown.append([name, f"{title}, {rule}", *cells])
    return table(["set", "by image", "against argmax", "RMA, peak against argmax"], shown, left=2)


def draw_found(cases: CaseFolder) -> None:
    """Draw the image that gains most by a class that the published rule leaves out."""
    ours: dict[str, Any] = {"solver": "joint", "correlation": 0.5, "presence": "argmax"}
    rules: dict[str, dict[str, Any]] = {"published": {"solver": "RMA"}, "ours": ours}
    methods = [Method(name, RankSEG("dice", **rule)) for name, rule in rules.items()]
    told = compare(cases, methods, classes=cases.classes, ignore_index=cases.ignore_index)
    lost, found = (told.counts[name] for name in rules)
    lost_class = (lost.tp + lost.fp == 0) & (found.tp > 0)
    gain = told.differences("ours", "dice", "either")
    best = int(np.argmax(np.where(lost_class.any(1).numpy(), gain, -np.inf)))
    case = cases.read(told.cases[best])
    decided = {"argmax": argmax} | {method.name: method.decide for method in methods}
    labels = {name: decide(case.probs[None].float())[0] for name, decide in decided.items()}
    example = Example(case.name, case.label.numpy(), {k: v.numpy() for k, v in labels.items()})
    comparison_figure(PICTURE, [example], cases.name_classes(), ignore_index=cases.ignore_index)


def draw_reliability(sets: Sequence[CaseFolder]) -> None:
    """Draw how often a class is there by its peak, before and after the fit, side by side."""
    figure, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 4), squeeze=False)
    for place, cases in zip(axes[0], sets, strict=True):
        rows = PresenceTable.of(cases, None, cases.ignore_index)
        place.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        model: PresenceModel = rows.fit()
        fitted = model.probability(rows.peak, rows.share, 1.0)
        for told, label in ((rows.peak, "its peak"), (fitted, "fitted, on the same images")):
            place.plot(*frequencies(told, rows.present), marker="o", label=label)
        place.set(title=f"{cases.path.parent.name}", xlabel="told", ylabel="images with the class")
        place.legend()
    content = io.BytesIO()
    figure.tight_layout()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    write_whole(RELIABILITY, content.getvalue())


def frequencies(told: torch.Tensor, present: torch.Tensor) -> tuple[list[float], list[float]]:
    """Return mean and frequency of every bin with ten class decisions at least."""
    bins = np.digitize(told.flatten().numpy(), BINS[1:-1])
    values, there = told.flatten().numpy(), present.flatten().numpy()
    kept = [index for index in range(len(BINS) - 1) if (bins == index).sum() >= 10]
    return (
        [float(values[bins == index].mean()) for index in kept],
        [float(there[bins == index].mean()) for index in kept],
    )
