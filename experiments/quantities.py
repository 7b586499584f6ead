"""What can be measured of the maps of a network that may explain what a decision gains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.data import IGNORED
from rankseg.evaluation import Case, Failure, argmax

__all__ = ["Quantities", "measure"]


@dataclass(frozen=True)
class Quantities:
    """Means over images and classes, without the background where it is not scored.

    Attributes
    ----------
    entropy : float
        Of a pixel, in nats, without labels.
    unsure : float
        The fraction of pixels whose likeliest class has a probability below 0.9, without labels.
    size : float
        The fraction of an image that a class covers where its label holds it.
    volume : float
        The sum of all probabilities over the number of pixels that are of the class.
    invented, lost : float
        Fractions of the pairs of image and class: argmax predicts a class that the label lacks, or
        lacks one that the label holds.
    correlation : float
        The correlation of the one-factor copula by which volumes scatter as they do, to first
        order: the squared differences of true and expected volumes, less those of independent
        labels, over the squared sums of ``phi(Phi^-1(p))``.
    """

    entropy: float
    unsure: float
    size: float
    volume: float
    invented: float
    lost: float
    correlation: float


def measure(cases: Iterable[Case | Failure], background: bool) -> Quantities:
    """Measure the maps of a data set; ``background`` leaves class 0 out where classes count."""
    sums = [_sums(one, int(background)) for one in cases if isinstance(one, Case)]
    total = {name: sum(one[name] for one in sums) for name in sums[0]}
    pairs, pixels = total["pairs"], total["pixels"]
    return Quantities(
        entropy=total["entropy"] / pixels,
        unsure=total["unsure"] / pixels,
        size=total["size"] / max(total["held"], 1),
        volume=total["expected"] / max(total["true"], 1),
        invented=total["invented"] / pairs,
        lost=total["lost"] / pairs,
        correlation=total["scatter"] / total["factor"],
    )


def _sums(case: Case, first: int) -> dict[str, float]:
    """Return the sums over the labelled pixels of one case and the classes from ``first`` on."""
    counted = case.label != IGNORED
    probs = case.probs.double()[:, counted]  # (classes, pixels)
    label = case.label[counted].long()
    classes, pixels = probs.shape
    volume = torch.bincount(label, minlength=classes)[first:].double()
    predicted = torch.bincount(argmax(probs[None])[0], minlength=classes)[first:]
    known = probs[first:].clamp(1e-7, 1 - 1e-7)
    expected = known.sum(1)
    scatter = (volume - expected).square() - (known * (1 - known)).sum(1)
    return {
        "pixels": float(pixels),
        "pairs": float(len(volume)),
        "entropy": float(torch.special.entr(probs).sum()),
        "unsure": float((probs.amax(0) < 0.9).sum()),
        "held": float((volume > 0).sum()),
        "size": float(volume.sum() / pixels),
        "true": float(volume.sum()),
        "expected": float(expected.sum()),
        "invented": float(((predicted > 0) & (volume == 0)).sum()),
        "lost": float(((predicted == 0) & (volume > 0)).sum()),
        "scatter": float(scatter.sum()),
        "factor": float(_density_at(known).sum(1).square().sum()),
    }


def _density_at(probs: Tensor) -> Tensor:
    """Return the normal density at the quantile of each probability."""
    return torch.exp(-torch.special.ndtri(probs).square() / 2) / math.sqrt(2 * math.pi)
