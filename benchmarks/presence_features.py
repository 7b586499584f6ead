"""Print how well features of a map tell which classes its image holds.

Run ``python benchmarks/presence_features.py SET ...`` for folders that ``rankseg compare`` reads.
For every set of features: the Brier score of a ridge-logistic regression with an offset per class,
of images left out, five folds. `rankseg.calibration.PresenceModel` has the first set.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from presence import FOLDS, open_set, set_name
from scipy import ndimage

from rankseg.evaluation import Case, CaseFolder
from rankseg.evaluation.folds import folds_of

Floats = NDArray[np.float64]

FEATURES = ("peak", "volume", "top 0.1 %", "top 1 %", "regions")
CHOICES: tuple[tuple[int, ...], ...] = ((0, 1), (0,), (0, 1, 2), (0, 1, 3), (0, 1, 4))
SMALLEST = 1e-6
RIDGE = 1.0
STEPS = 60


def main() -> None:
    torch.set_num_threads(1)
    print(*["set", *(" + ".join(FEATURES[one] for one in some) for some in CHOICES)], sep=" | ")
    for folder in map(Path, sys.argv[1:]):
        table, present = measure(open_set(folder))
        scores = [brier(table[..., list(some)], present) for some in CHOICES]
        print(set_name(folder), *(f"{score:.4f}" for score in scores), sep=" | ", flush=True)


def measure(cases: CaseFolder) -> tuple[Floats, Floats]:
    """Return the features of every image and class, and which are there."""
    table, present = [], []
    for case in cases:
        if not isinstance(case, Case):
            raise SystemExit(f"{case.name}: {case.reason}")
        table.append([of_class(probs) for probs in case.probs.double()])
        label = case.label[case.label != cases.ignore_index]
        own = range(len(case.probs)) if len(case.probs) > 1 else [1]
        present.append([bool((label == one).any()) for one in own])
    return np.array(table), np.array(present, dtype=np.float64)


def of_class(probs: torch.Tensor) -> list[float]:
    """Return the features: log-odds of probabilities, logarithms of the others."""
    flat = probs.flatten()
    peak, mean = flat.max().item(), flat.mean().item()
    tops = [flat.topk(max(1, len(flat) // part)).values.mean().item() for part in (1000, 100)]
    regions = ndimage.label((probs > max(0.1, peak / 2)).numpy())[1]
    logs = [float(torch.tensor(one).logit(SMALLEST)) for one in (peak, *tops)]
    return [logs[0], float(np.log(mean + SMALLEST)), *logs[1:], float(np.log1p(regions))]


def brier(features: Floats, present: Floats) -> float:
    """Return the Brier score of images left out."""
    total = 0.0
    for held_out in folds_of(len(features), FOLDS, None, 0):
        rest = np.setdiff1d(np.arange(len(features)), held_out)
        slopes, offsets = fit(features[rest], present[rest])
        told = 1 / (1 + np.exp(-(features[held_out] @ slopes + offsets)))
        total += float(((told - present[held_out]) ** 2).sum())
    return total / present.size


def fit(features: Floats, present: Floats) -> tuple[Floats, Floats]:
    """Return slopes and offsets of the regression, by Newton's method."""
    images, classes, number = features.shape
    design = np.zeros((images, classes, number + 1 + classes))
    design[..., :number], design[..., number] = features, 1
    design[:, np.arange(classes), number + 1 + np.arange(classes)] = 1
    rows, truth = design.reshape(images * classes, -1), present.reshape(-1)
    ridge = np.array([1e-3] * (number + 1) + [RIDGE] * classes)
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        told = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        curvature = (rows * (told * (1 - told))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curvature, rows.T @ (told - truth) + ridge * weights)
        weights -= step * min(1, 5 / np.abs(step).max())
    return weights[:number], weights[number] + weights[number + 1 :]


if __name__ == "__main__":
    main()
