"""Measure solver DEP, its options and bounds on its pair probabilities, on folders of real maps.

Run ``python benchmarks/dependent.py ROOT`` where every folder below ROOT is a set that
``rankseg compare`` reads. Class weights are undone where ``meta.json`` names them. All methods but
argmax take the classes that argmax predicts. Writes every figure to a CSV file and a page.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from _pages import FEWEST_FOR_CERTAINTY, METRIC_NAMES, table
from torch import Tensor

from rankseg import RankSEG
from rankseg._decision.solvers import dependent
from rankseg._files.whole import write_whole
from rankseg.evaluation import CaseFolder, Method, argmax, compare
from rankseg.metrics import Counted, Metric

HERE = Path(__file__).resolve().parent
TABLE = HERE / "results" / "dependent.csv"
PAGE = HERE.parent / "docs" / "dependent.md"

COUNTED: dict[Counted, str] = {"label": "not counted", "either": "score 0"}
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
INFINITE = float("inf")

INTRODUCTION = """\
# The solver DEP on real probability maps

`solver="DEP"` lets the labels of two pixels depend on each other (section 8 of
[theory.md](theory.md)). This page compares it with `joint`, independent and with a correlation of
0.5, and tries shorter kernels and bounds on the pair probabilities. It is written by

```
python benchmarks/dependent.py ../shared/data/maps
```

Figures are mean changes from argmax in points, by image. Class weights are undone where they are
known. All methods take the classes that argmax predicts (`presence="argmax"`), so that they differ
in outlines only. A class that an image lacks is not counted, or scores 0 where it is predicted.
Means are over the {number} sets of at least {fewest} images. The three CamVid sets show the same
frames.

- *plain*: the published model with this `theta`, `amplitude` 1 unless stated.
- *odds at most c*: `nu / p`, the square root of `(1 - p) / p`, is at most c, so that
  `P(y_i = 1 | y_j = 1)` is at most `p_i (1 + c^2)`.
- *Fréchet*: the covariance of two labels is `k(d) (min(p_i, p_j) - p_i p_j)`, the largest that two
  labels can have times the kernel. Then no pair probability exceeds `min(p_i, p_j)`. It was tried
  for Dice only.

No bound and no kernel is better than the published model on all sets, metrics and conventions, so
`solver="DEP"` is the published model. By the means over sets, `joint` with a correlation of 0.5 is
the safest: its lowest change of any set is 0 within 0.01 points.

- *Bounds of `nu / p`* have a lower mean than the plain model with the same `theta` in every column
  but one: for Dice with `theta` 30 a bound of 1 adds 0.02 and 0.07 points. For IoU it takes 0.06
  and 0.01 away.
- *Fréchet's bound* with `theta` 300 has a higher mean for Dice by up to 0.05 points. It needs one
  convolution for each of a dozen levels of probability, and has no formula for IoU here.
- *Shorter kernels* change the mean by at most 0.05 points, in either direction.
- *An amplitude of 0.5* has a higher mean than 1 by 0.05 or 0.06 points, for both metrics and
  conventions.
"""


@dataclass(frozen=True)
class Row:
    """The change from argmax of one method on one set, by one score, in points."""

    set: str
    images: int
    method: str
    metric: str
    counted: str
    change: float
    low: float
    high: float
    wins: int
    losses: int


@dataclass(frozen=True)
class Variant:
    """DEP with a bound on ``nu / p``, or with Fréchet's bound in place of the covariance."""

    metric: Metric
    theta: float
    amplitude: float = 1.0
    largest_odds: float = INFINITE
    frechet: bool = False

    def __call__(self, probs: Any) -> Any:
        """Decide as a RankSEG does."""
        usual = dependent.LARGEST_ODDS, dependent._Dice
        dependent.LARGEST_ODDS = min(dependent.LARGEST_ODDS, self.largest_odds**2)
        dependent._Dice = _Frechet if self.frechet else dependent._Dice  # type: ignore[misc]
        try:
            options = {"theta": self.theta, "amplitude": self.amplitude, "presence": "argmax"}
            return RankSEG(self.metric, solver="DEP", **options)(probs)  # type: ignore[arg-type]
        finally:
            dependent.LARGEST_ODDS, dependent._Dice = usual  # type: ignore[misc]


class _Frechet(dependent._Dice):
    """Dice with the covariance ``k(d) (min(p_i, p_j) - p_i p_j)``.

    The sums of ``min(p_i, t)`` are computed at some levels t, and interpolated in ``p_j``.
    """

    @classmethod
    def build(cls, kernel, smooth, probs, volume, odds, shares):  # type: ignore[no-untyped-def]
        pairs = list(zip(kernel.parts, probs, strict=True))
        sums = [
            kernel.spread(
                sum(kernel.collect(values.clamp(max=level), part) for part, values in pairs)
            )
            for level in LEVELS
        ]
        given = [_given(kernel, volume, sums, part, values) for part, values in pairs]
        return cls(kernel, smooth, probs, volume, given)


def _given(kernel: Any, volume: Tensor, sums: Sequence[Tensor], part: Any, probs: Tensor) -> Tensor:
    """Return the expected volume once a pixel is in the class, for the pixels of a part."""
    joint = torch.stack([kernel.at(one, part, probs.dtype) for one in sums])
    levels = torch.tensor(LEVELS, dtype=probs.dtype)
    above = torch.searchsorted(levels, probs.clamp(max=1.0)).clamp(1, len(LEVELS) - 1)
    low, high = levels[above - 1], levels[above]
    share = ((probs - low) / (high - low)).clamp(0, 1)
    at_low, at_high = (joint.gather(0, index.unsqueeze(0))[0] for index in (above - 1, above))
    both = (at_low + share * (at_high - at_low)) / probs.clamp(LEVELS[0])
    volume = volume.view(-1, *[1] * (probs.dim() - 1)).to(probs.dtype)
    return volume + (both - joint[-1]).clamp(0)


def methods(metric: Metric) -> dict[str, Any]:
    """Return all ways to decide, by name."""
    joint = {"solver": "joint", "presence": "argmax"}
    found: dict[str, Any] = {
        "joint": RankSEG(metric, **joint),  # type: ignore[arg-type]
        "joint, correlation 0.5": RankSEG(metric, correlation=0.5, **joint),  # type: ignore[arg-type]
    }
    for theta in (INFINITE, 300.0, 100.0, 30.0, 10.0):
        found[f"DEP plain, theta {theta:g}"] = Variant(metric, theta)
    found["DEP plain, theta 300, amplitude 0.5"] = Variant(metric, 300.0, amplitude=0.5)
    for most, theta in ((2.0, 300.0), (1.0, 300.0), (1.0, 30.0), (0.5, 300.0)):
        name = f"DEP odds at most {most:g}, theta {theta:g}"
        found[name] = Variant(metric, theta, largest_odds=most)
    if metric == "dice":
        for theta in (300.0, 100.0, 30.0):
            found[f"DEP Fréchet, theta {theta:g}"] = Variant(metric, theta, frechet=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("root", type=Path, help="holds one folder for every set")
    add("--table", type=Path, default=TABLE, help="the CSV to write")
    add("--output", type=Path, default=PAGE, help="the page to write")
    add("--page-only", action="store_true", help="write the page from the CSV that is there")
    arguments = parser.parse_args()
    if arguments.page_only:
        write_whole(arguments.output, page(read_rows(arguments.table)).encode())
        return
    torch.set_num_threads(1)
    rows: list[Row] = []
    for folder in sorted({file.parent for file in arguments.root.glob("*/*.npz")}):
        print(folder.name, file=sys.stderr, flush=True)
        rows += measure(folder)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows(astuple(row) for row in rows)
    write_whole(arguments.table, text.getvalue().encode())
    write_whole(arguments.output, page(rows).encode())


def read_rows(path: Path) -> list[Row]:
    kinds = {"int": int, "float": float, "str": str}
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        Row(*(kinds[str(field.type)](line[field.name]) for field in fields(Row))) for line in lines
    ]


def measure(folder: Path) -> Iterator[Row]:
    """Yield the figures of one set."""
    stored = CaseFolder.open(folder)
    cases = replace(stored, prior_correction=stored.class_weights is not None)
    for metric in METRIC_NAMES:
        found = {"argmax": argmax, **methods(metric)}
        told = compare(
            cases,
            [Method(name, decide) for name, decide in found.items()],
            classes=cases.classes,
            ignore_index=cases.ignore_index,
        )
        for method in list(found)[1:]:
            for counted in COUNTED:
                one = told.difference(method, metric, counted)
                points = (round(100 * value, 4) for value in (one.mean, one.low, one.high))
                name, images = folder.name, len(told.cases)
                yield Row(name, images, method, metric, counted, *points, one.wins, one.losses)


def page(rows: Sequence[Row]) -> str:
    """Write the page: means over the sets, then the change of every set."""
    large = [row for row in rows if row.images >= FEWEST_FOR_CERTAINTY]
    sets = list(dict.fromkeys(row.set for row in large))
    parts = [INTRODUCTION.format(number=len(sets), fewest=FEWEST_FOR_CERTAINTY)]
    for metric, title in METRIC_NAMES.items():
        parts.append(f"## {title}\n")
        header = [f"mean of {len(sets)} sets / lowest of any set", *COUNTED.values()]
        parts.append(table(header, (means(large, metric, name) for name in names(large, metric))))
        for counted, says in COUNTED.items():
            chosen = [row for row in rows if (row.metric, row.counted) == (metric, counted)]
            parts.append(f"By set, absent classes {says}; images won / lost:\n\n{by_set(chosen)}")
    return "\n".join(parts)


def names(rows: Sequence[Row], metric: str) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows if row.metric == metric))


def means(rows: Sequence[Row], metric: str, method: str) -> list[str]:
    line = [method]
    for counted in COUNTED:
        key = metric, method, counted
        found = [row.change for row in rows if (row.metric, row.method, row.counted) == key]
        line.append(f"{statistics.mean(found):+.2f} / {min(found):+.2f}")
    return line


def by_set(rows: Sequence[Row]) -> str:
    sets = list(dict.fromkeys(row.set for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        cells = lines.setdefault(row.method, [row.method])
        cells.append(f"{row.change:+.2f} ({row.wins} / {row.losses})")
    return table(["", *sets], lines.values())


if __name__ == "__main__":
    main()
