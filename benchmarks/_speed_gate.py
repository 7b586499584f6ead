"""Check that the results of this build are right; without that its speed means nothing.

Run as ``python _speed_gate.py CASES DEVICE``: prints what is wrong and exits with 1, or is silent.
The answers to hold against are the slow ones of the tests, ``tests/support/oracles.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import _speed_cases
import numpy as np
import torch
from torch import Tensor

from rankseg import RankSEG

METRICS = ("dice", "iou")
ORACLES = Path(__file__).resolve().parents[1] / "tests" / "support" / "oracles.py"

# Every kind of map that is timed, small enough to be sorted, large enough to have many blocks.
MASK_SHAPES = {
    "voc": (2, 21, 256, 256),
    "ct": (1, 3, 32, 64, 64),
    "binary": (2, 1, 256, 256),
    "dense": (1, 150, 96, 96),
}
LABEL_SHAPES = {"voc": (2, 21, 256, 256), "ct": (1, 3, 32, 64, 64), "dense": (1, 150, 96, 96)}
RULE_SHAPES = {"voc": (1, 21, 64, 64), "dense": (1, 12, 32, 32)}  # the slow rule goes by pixels

ROUNDING = 1e-11
PRESENCE = 0.5  # the default pruning_prob


def main() -> None:
    path, device = Path(sys.argv[1]), sys.argv[2]
    backends = ("native", "torch") if device == "cpu" else ("", "torch")  # "" is what users get
    oracles = _speed_cases.load(ORACLES)
    faults = [
        f"metric={metric!r}, {backend or 'default'} backend: {fault}"
        for metric in METRICS
        for backend in backends
        for fault in find_faults(path, device, metric, backend, oracles)
    ]
    if faults:
        sys.exit("\n".join(faults))


def find_faults(
    path: Path, device: str, metric: str, backend: str, oracles: ModuleType
) -> Iterator[str]:
    with mock.patch.dict(os.environ, RANKSEG_BACKEND=backend):
        for case, shape in MASK_SHAPES.items():
            maps = _speed_cases.probs(path, case, shape)
            yield from find_mask_faults(case, maps, device, metric, oracles)
        for case, shape in LABEL_SHAPES.items():
            maps = exact(_speed_cases.probs(path, case, shape))
            if not torch.equal(labels(maps.to(device), metric), reference(maps, metric)):
                yield f"labels of {case} differ from those of the reference"
        for case, shape in RULE_SHAPES.items():
            maps = exact(_speed_cases.probs(path, case, shape, present=shape[1] // 2))
            if not np.array_equal(
                labels(maps.to(device), metric).numpy(), slow_labels(maps, metric, oracles)
            ):
                yield f"labels of {case} break the published rule"


def find_mask_faults(
    case: str, maps: Tensor, device: str, metric: str, oracles: ModuleType
) -> Iterator[str]:
    """Hold every mask against the largest objective that sort and scan find in float64."""
    masks = multilabel(maps.to(device), metric, 0.0)
    for image in range(maps.shape[0]):
        for label in range(maps.shape[1]):
            values = maps[image, label].double().numpy()
            best = oracles.best_score(metric, values, 0.0)
            reached = oracles.mask_score(metric, values, masks[image, label].numpy(), 0.0)
            if abs(reached - best) > ROUNDING * best:
                yield f"mask of class {label} of {case} scores {reached:.15g}, not {best:.15g}"
    kept = maps.flatten(2).amax(2) > PRESENCE
    kept = kept.view(*kept.shape, *[1] * (maps.ndim - 2))
    if not torch.equal(multilabel(maps.to(device), metric, PRESENCE), masks & kept):
        yield f"masks of {case} with the default pruning_prob are not those of the classes kept"


def slow_labels(maps: Tensor, metric: str, oracles: ModuleType) -> np.ndarray:
    masks = multilabel(maps, metric, PRESENCE)
    shape = maps.shape[0], *maps.shape[2:]
    images = [
        oracles.labels(
            metric,
            image.flatten(1).numpy(),
            chosen.flatten(1).numpy(),
            (image.flatten(1).amax(1) > PRESENCE).numpy(),
            0.0,
        )
        for image, chosen in zip(maps, masks, strict=True)
    ]
    return np.stack(images).reshape(shape)


def exact(maps: Tensor) -> Tensor:
    """Round to multiples of 1/1024: all sums are exact, so that labels must agree bit for bit."""
    return (maps * 1024).round() / 1024


def multilabel(maps: Tensor, metric: str, pruning_prob: float) -> Tensor:
    decide = RankSEG(metric, 0.0, "multilabel", "RMA", pruning_prob)
    masks: Tensor = decide(maps).cpu()
    return masks


def labels(maps: Tensor, metric: str) -> Tensor:
    decided: Tensor = RankSEG(metric=metric, solver="RMA")(maps).cpu()
    return decided


def reference(maps: Tensor, metric: str) -> Tensor:
    with mock.patch.dict(os.environ, RANKSEG_BACKEND="torch"):
        return labels(maps, metric)


if __name__ == "__main__":
    main()
