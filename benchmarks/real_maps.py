"""Compare argmax, pruned argmax and RankSEG on folders of real maps; write the table as a page.

Run ``python benchmarks/real_maps.py ROOT`` where every folder below ROOT is a set that
``rankseg compare`` reads: ``ID.npz`` files and a ``meta.json``.
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from _pages import FEWEST_FOR_CERTAINTY, METRIC_NAMES, table

import rankseg
from rankseg.evaluation import (
    CaseFolder,
    Comparison,
    Difference,
    compare,
    standard_methods,
)
from rankseg.evaluation.differences import TIE
from rankseg.metrics import Counted, Metric

DEFAULT_PAGE = Path(__file__).resolve().parents[1] / "docs" / "real-maps.md"
PRUNING_PROB = 0.5
METHODS = standard_methods(PRUNING_PROB, solvers=("RMA", "joint"))
RULES: dict[Counted, str] = {
    "label": "a class counts where the label holds it",
    "either": "a class predicted where it is absent scores 0",
}

SHORT_RULES: dict[Counted, str] = {"label": "do not count", "either": "score 0"}

CAMVID = "CamVid test frames, 11 classes; trained with class-weighted cross-entropy"
ORIGINS = {
    "camvid-cgnet": f"Public CGNet checkpoint, every second pixel. {CAMVID}.",
    "camvid-cgnet-full": f"Public CGNet checkpoint, all pixels, other frames. {CAMVID}.",
    "camvid-enet": f"Public ENet checkpoint, every second pixel. {CAMVID} of very uneven weights.",
    "camvid-espnet": f"Public ESPNet checkpoint, every second pixel. {CAMVID}.",
    "camvid-espnet-full": f"Public ESPNet checkpoint, all pixels, other frames. {CAMVID}.",
    "drive-lwnet": "Public LWNet checkpoint on retina photographs (DRIVE test): vessels.",
    "hippocampus-unet3d": "Small 3-D U-Net trained for this purpose on other volumes of the "
    "Medical Segmentation Decathlon, by cross-entropy.",
    "nuclei-unet2d": "Small 2-D U-Net trained for this purpose on other images of the 2018 Data "
    "Science Bowl, by binary cross-entropy.",
}

INTRODUCTION = """\
# Argmax and RankSEG on real probability maps

Does the decision pay on the maps that real networks gave for real images? This page holds every
set we have, losses as well as gains. It is written by

```
python benchmarks/real_maps.py ../shared/data/maps
```

(rankseg {version}; the maps are not part of this repository), and `rankseg compare FOLDER` prints
the same numbers for one set, and those of every class; with `--predicted` also the gain that
the maps themselves promise.

**What is compared.** Three ways to decide the same maps, image by image, as they were stored:

- *argmax*; for a single class, the threshold 0.5;
- *pruned argmax*: argmax over the classes whose largest probability in the image exceeds 0.5.
  RankSEG decides about presence in the same way before it does anything else (`pruning_prob`), so
  this baseline shows what is left to credit to the rest of it;
- *RankSEG* for Dice and for IoU, by the published rule (RMA) and by `joint`.

Nothing is calibrated, and the class weights with which some networks were trained, which inflate
the probabilities of rare classes, are not undone: RankSEG takes the numbers for probabilities.

**How it is scored.** In points, 100 times Dice or IoU, averaged over the classes of an image (the
background among them where there are several), then over images. Void pixels do not count. A class
that an image lacks can be scored by two rules, which differ by more than the methods do: either a
class counts only where the label holds it, so that predicting it elsewhere costs it nothing, or a
class predicted where it is absent scores 0.

*Change* is the mean paired difference from argmax, with a 95 % percentile bootstrap interval over
images; it is **bold** if that excludes zero and there are at least five images. *Won / lost / tied*
counts the images on which a method scores above, below or as argmax does.

**What the intervals do not cover.** They take images for independent. All CamVid frames come from
one drive and neighbouring frames are alike, so their intervals are too narrow; of two frames the
interval is no more than the two differences. The three half-size CamVid sets are the same frames,
so they are not independent of each other either.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="holds one folder for every set")
    parser.add_argument("--output", type=Path, default=DEFAULT_PAGE, help="the page to write")
    arguments = parser.parse_args()
    comparisons = {}
    for folder in sorted({file.parent for file in arguments.root.glob("*/*.npz")}):
        print(f"{folder.name} ...", file=sys.stderr)
        comparisons[folder.name] = compare_set(folder)
    if not comparisons:
        sys.exit(f"no folder below {arguments.root} holds an npz file")
    arguments.output.write_text(page(comparisons), encoding="utf-8")
    if any(comparison.failures for comparison in comparisons.values()):
        sys.exit("some files could not be compared; the page names them")


def compare_set(folder: Path) -> Comparison:
    cases = CaseFolder.open(folder)
    return compare(cases, METHODS, classes=cases.classes, ignore_index=cases.ignore_index)


def page(comparisons: Mapping[str, Comparison]) -> str:
    parts = [INTRODUCTION.format(version=rankseg.__version__)]
    parts.append("## All sets\n")
    parts.append(
        f"On how many of the {len(comparisons)} sets the mean is higher or lower, and on how many "
        "of those\nthe interval excludes zero (sets of at least five images):\n"
    )
    parts.append(tally(comparisons))
    for counted, rule in RULES.items():
        parts.append(f"Change from argmax; {rule}:\n\n{overview(comparisons, counted)}")
    parts += [section(name, comparison) for name, comparison in comparisons.items()]
    return "\n".join(parts)


def tally(comparisons: Mapping[str, Comparison]) -> str:
    """Count the sets on which RankSEG gains and loses, on both baselines and by both rules."""
    header = ["metric, absent classes", "method", "baseline"]
    header += ["higher", "of these certain", "lower", "of these certain"]
    rows = []
    for metric, name in METRIC_NAMES.items():
        for counted, short in SHORT_RULES.items():
            for method, baseline in pairs(metric):
                changes = [
                    comparison.difference(method, metric, counted, baseline=baseline)
                    for comparison in comparisons.values()
                ]
                counts = [
                    sum(change.mean > TIE for change in changes),
                    sum(is_certain(change) and change.mean > 0 for change in changes),
                    sum(change.mean < -TIE for change in changes),
                    sum(is_certain(change) and change.mean < 0 for change in changes),
                ]
                rows.append([f"{name}, {short}", method, baseline, *map(str, counts)])
    return table(header, rows, left=3)


def pairs(metric: Metric) -> list[tuple[str, str]]:
    """Name the methods that are held against each other, and their baselines."""
    pruned, *ours = rivals(metric)
    return [
        (pruned, "argmax"),
        *((method, baseline) for method in ours for baseline in ("argmax", pruned)),
    ]


def rivals(metric: Metric) -> list[str]:
    """Name pruned argmax and the RankSEG methods that maximise the metric."""
    return ["pruned argmax", f"RankSEG {metric} RMA", f"RankSEG {metric} joint"]


def overview(comparisons: Mapping[str, Comparison], counted: Counted) -> str:
    header = ["set", "images"]
    for metric, name in METRIC_NAMES.items():
        header += [f"{name}: argmax", *rivals(metric)]
    rows = []
    for name, comparison in comparisons.items():
        row = [f"[{name}](#{name})", str(len(comparison.cases))]
        for metric in METRIC_NAMES:
            row.append(points(comparison.aggregates("argmax", metric, counted)["I"]))
            for method in rivals(metric):
                row.append(change(comparison.difference(method, metric, counted)))
        rows.append(row)
    return table(header, rows)


def section(name: str, comparison: Comparison) -> str:
    """Write everything about one set."""
    parts = [f"## {name}\n"]
    if name in ORIGINS:
        parts.append("\n".join(textwrap.wrap(ORIGINS[name], 100, break_on_hyphens=False)) + "\n")
    if comparison.predicts_absent_class:
        for counted, rule in RULES.items():
            parts.append(f"{len(comparison.cases)} images; {rule}:\n")
            parts.append(details(comparison, counted))
    else:
        parts.append(
            f"{len(comparison.cases)} images; no method predicts a class where it is absent, so "
            "the two rules agree:\n"
        )
        parts.append(details(comparison, "label"))
    for failure in comparison.failures:
        parts.append(f"Not compared: {failure.name}: {failure.reason}\n")
    return "\n".join(parts)


def details(comparison: Comparison, counted: Counted) -> str:
    header = ["method"]
    for name in METRIC_NAMES.values():
        header += [name, "change", "95 % interval", "won / lost / tied"]
    rows = []
    for method in comparison.methods:
        row = [method]
        for metric in METRIC_NAMES:
            row.append(points(comparison.aggregates(method, metric, counted)["I"]))
            if method == comparison.methods[0]:
                row += [""] * 3
                continue
            difference = comparison.difference(method, metric, counted)
            row += [change(difference), interval(difference), record(difference)]
        rows.append(row)
    return table(header, rows)


def points(score: float) -> str:
    return "-" if math.isnan(score) else f"{100 * score:.2f}"


def signed(value: float) -> str:
    rounded = round(100 * value, 2)
    return f"{rounded:+.2f}" if rounded else "0.00"


def change(difference: Difference) -> str:
    if math.isnan(difference.mean):
        return "-"
    shown = signed(difference.mean)
    return f"**{shown}**" if is_certain(difference) else shown


def is_certain(difference: Difference) -> bool:
    images = difference.wins + difference.losses + difference.ties
    return images >= FEWEST_FOR_CERTAINTY and (difference.low > 0 or difference.high < 0)


def interval(difference: Difference) -> str:
    if math.isnan(difference.low):
        return "-"
    return f"{signed(difference.low)} to {signed(difference.high)}"


def record(difference: Difference) -> str:
    return f"{difference.wins} / {difference.losses} / {difference.ties}"


if __name__ == "__main__":
    main()
