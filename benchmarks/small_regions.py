"""Draw what each decision loses to the exact optimum as a region shrinks to a single pixel.

``python benchmarks/small_regions.py`` draws regions at random, shrinks them, decides them by
threshold, RMA, BA, TRNA and exactly, and takes the expected Dice of every mask. It adds what each
loses to ``benchmarks/results/small_regions.csv`` and draws ``docs/images/small_regions.png``.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from _speed_report import Row, append_history, number, print_table, row
from _speed_setup import REPOSITORY, describe_origin
from torch import Tensor

from rankseg import RankSEG, expected_score
from rankseg._files.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY = REPOSITORY / "benchmarks" / "results" / "small_regions.csv"
FIGURE = REPOSITORY / "docs" / "images" / "small_regions.png"

SIDE = 128  # pixels
VOLUMES = tuple(10 ** (3 - k / 4) for k in range(13))  # expected pixels, from 1000 to 1
SEED = 0

WAVES = (2, 3, 4, 5)
ROUGHNESS = 0.15
"""Of the contour: standard deviation of the first harmonic; that of others falls as 1/order."""

STRETCH = 0.4
"""Largest logarithm of the ratio of a half axis to the radius."""

SHARPEST, SOFTEST = 0.05, 0.5
"""Distance at the edge over which the logit changes by 1, as a share of the radius."""

NOISIEST = 1.5
"""Largest standard deviation of the noise of a pixel's logit."""

HALVINGS = 40
"""Enough to find the radius to eleven digits."""

POINTS = 100.0

LEAST, MOST = 1e-6, 100.0
"""Losses that the picture has room for, in points; smaller ones are taken for none."""

JITTER = 0.08
"""Largest shift of a dot, as a share of its volume, lest all of a size fall on one line."""


@dataclass(frozen=True)
class Method:
    """How to decide, and how to draw it."""

    decide: RankSEG
    colour: str
    marker: str


def masks_by(solver: str, metric: str = "dice") -> RankSEG:
    return RankSEG(metric, output_mode="multilabel", solver=solver, pruning_prob=0.0)


# Colours of Okabe and Ito, told apart with every common colour blindness.
METHODS = {
    "threshold 0.5": Method(masks_by("TR", "acc"), "#000000", "s"),
    "RMA": Method(masks_by("RMA"), "#D55E00", "o"),
    "BA": Method(masks_by("BA"), "#0072B2", "^"),
    "TRNA": Method(masks_by("TRNA"), "#009E73", "D"),
}

GREY = "#AAAAAA"
KEYS = {
    "one region, if it loses anything": {"color": "black", "marker": ".", "linewidth": 0},
    "mean over all regions": {"color": "black", "marker": "o"},
    "means of the other methods": {"color": GREY, "linewidth": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regions", type=int, default=200, help="drawn, and shrunk to every size")
    parser.add_argument("--history", type=Path, default=HISTORY, help="the CSV to add to")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="the PNG to draw")
    arguments = parser.parse_args()
    regions = Regions.draw(arguments.regions, torch.Generator().manual_seed(SEED))
    best, losses = measure(regions)
    rows = table(best, losses)
    append_history(arguments.history, describe_origin("cpu", torch.get_num_threads()), rows)
    show(rows)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(arguments.figure, losses)


@dataclass(frozen=True)
class Regions:
    """Blobs with a wavy contour, a soft edge and noise, which can be shrunk to any size.

    The logit of a pixel is its depth below the contour, in units of the softness, plus noise; depth
    and softness are shares of the radius, so that small regions look as large ones do but for the
    grid. All tensors are float64 ``(regions, SIDE, SIDE)``, or broadcast to that.
    """

    distance: Tensor  # from the centre, in pixels
    contour: Tensor  # distance at which the logit is 0, as a share of the radius
    softness: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, number: int, generator: torch.Generator) -> Regions:
        """Draw the shapes. Centres lie anywhere in the pixel in the middle of the image."""
        uniform = torch.rand(6, number, 1, 1, dtype=torch.float64, generator=generator)
        down, right, turn, stretch, softness, noise = uniform
        place = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
        y, x = place.view(-1, 1) + down, place.view(1, -1) + right
        turn, stretch = math.pi * turn, torch.exp(STRETCH * (2 * stretch - 1))
        along = (turn.cos() * x + turn.sin() * y) / stretch
        across = (turn.cos() * y - turn.sin() * x) * stretch
        angle = torch.atan2(across, along)
        contour = torch.ones_like(angle)
        for order in WAVES:
            amplitude = torch.randn(number, 1, 1, dtype=torch.float64, generator=generator)
            phase = torch.rand(number, 1, 1, dtype=torch.float64, generator=generator)
            wave = torch.cos(order * angle + 2 * math.pi * phase)
            contour += ROUGHNESS * WAVES[0] / order * amplitude * wave
        grain = torch.randn(number, SIDE, SIDE, dtype=torch.float64, generator=generator)
        softness = SHARPEST * (SOFTEST / SHARPEST) ** softness
        return cls(torch.hypot(along, across), contour, softness, NOISIEST * noise * grain)

    def probs(self, radius: Tensor) -> Tensor:
        """Return the probabilities, given the radii ``(regions, 1, 1)`` in pixels."""
        return torch.sigmoid((self.contour - self.distance / radius) / self.softness + self.noise)

    def expecting(self, volume: float) -> Tensor:
        """Return the probabilities ``(regions, 1, SIDE, SIDE)`` of regions of this many pixels."""
        low = torch.full_like(self.softness, -10.0)
        high = torch.full_like(self.softness, math.log(SIDE))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            large = self.probs(middle.exp()).sum((1, 2), keepdim=True) > volume
            low, high = torch.where(large, low, middle), torch.where(large, middle, high)
        return self.probs(high.exp()).unsqueeze(1)


def measure(regions: Regions) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the best expected Dice and what methods lose, ``(volumes, regions)``, in points."""
    best: list[Tensor] = []
    losses: dict[str, list[Tensor]] = {name: [] for name in METHODS}
    for volume in VOLUMES:
        probs = regions.expecting(volume)
        best.append(points(probs, masks_by("exact")))
        for name, method in METHODS.items():
            losses[name].append(best[-1] - points(probs, method.decide))
    return torch.stack(best), {name: torch.stack(some) for name, some in losses.items()}


def points(probs: Tensor, decide: RankSEG) -> Tensor:
    """Return the expected Dice of the masks decided on, ``(regions,)``."""
    return POINTS * expected_score(probs, decide(probs)).squeeze(1)


def table(best: Tensor, losses: Mapping[str, Tensor]) -> list[Row]:
    """Return means over regions, with the middle three fifths."""
    figures = {"exact: expected Dice": best}
    figures |= {f"{name}: loss": loss for name, loss in losses.items()}
    return [
        replace(
            row(f"{volume:.4g} pixels", "dice", f"mean, {what}", values.tolist(), "points"),
            value=values.mean().item(),
        )
        for what, by_volume in figures.items()
        for volume, values in zip(VOLUMES, by_volume, strict=True)
    ]


def show(rows: Sequence[Row]) -> None:
    kinds = list(dict.fromkeys(one.what for one in rows))
    lines = [
        [case, *(number(one.value) for one in rows if one.case == case)]
        for case in dict.fromkeys(one.case for one in rows)
    ]
    print_table("Expected Dice, in points", ["region", *kinds], lines)


def draw(path: Path, losses: Mapping[str, Tensor]) -> None:
    """Draw a panel for every method: a dot for every region, and the mean."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(8.5, 6.8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for panel, name in zip(panels.flat, METHODS, strict=True):
        draw_panel(panel, name, losses)
    figure.supxlabel("expected volume of the region, pixels", size=11)
    figure.supylabel("expected Dice lost against the exact optimum, points", size=11)
    keys = [Line2D([], [], **style) for style in KEYS.values()]
    figure.legend(keys, KEYS, loc="outside upper center", ncols=len(KEYS), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_whole(path, picture.getvalue())


def draw_panel(panel: Axes, name: str, losses: Mapping[str, Tensor]) -> None:
    volumes = torch.tensor(VOLUMES).unsqueeze(1)
    jitter = torch.linspace(1 - JITTER, 1 + JITTER, losses[name].shape[1])
    dots = (volumes * jitter).flatten(), losses[name].flatten()
    panel.scatter(*dots, s=6, color=METHODS[name].colour, alpha=0.3, linewidths=0)
    for other, method in METHODS.items():
        mean = losses[other].mean(1)
        shown = mean.where(mean >= LEAST, torch.nan)
        if other == name:
            marked = {"color": method.colour, "marker": method.marker, "zorder": 3}
            panel.plot(VOLUMES, shown, **marked, markersize=6, markeredgecolor="white")
        else:
            panel.plot(VOLUMES, shown, color=GREY, linewidth=1, zorder=1)
    none = POINTS * (losses[name] < LEAST).double().mean()
    panel.set_title(name, color=METHODS[name].colour, weight="bold", loc="left")
    panel.set_title(f"nothing lost: {none:.1f} %", size=9, loc="right")
    panel.set(xscale="log", yscale="log", xlim=(1300, 0.75), ylim=(LEAST, MOST))
    panel.set_xticks([1000, 100, 10, 1], ["1000", "100", "10", "1"])
    panel.grid(color="#EEEEEE")
    panel.set_axisbelow(True)


if __name__ == "__main__":
    main()
