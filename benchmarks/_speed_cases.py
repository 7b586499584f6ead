"""Make the probability maps that are timed; any interpreter with torch can use this file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

CONTESTED = "contested"
"""Labels of two classes in turn, with nineteen others that are nearly as likely and never win."""


def load(path: str | Path) -> ModuleType:
    """Load a Python file that is not on the import path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def probs(
    path: str | Path, case: str, shape: Sequence[int] | None = None, present: int | None = None
) -> Tensor:
    """Return the maps of a case, or maps of its kind of another shape."""
    if case == CONTESTED:
        return contested()
    cases = load(path)
    if shape is not None:
        cases.SHAPES[case] = tuple(shape)
    if present is not None:
        cases.PRESENT[case] = present
    maps: Tensor = cases.probs(case)
    return maps


def contested(classes: int = 21, side: int = 512) -> Tensor:
    """Return the worst case for telling which classes argmax predicts: all blocks are in doubt."""
    rng = torch.Generator().manual_seed(0)
    maps = 0.9 + 0.02 * torch.rand(1, classes, side, side, generator=rng)
    first = torch.rand(1, side, side, generator=rng) > 0.5
    maps[:, 0] = torch.where(first, 1.2, 0.5)
    maps[:, 1] = torch.where(first, 0.5, 1.2)
    return maps / maps.sum(1, keepdim=True)


def small_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a small map of the same kind, enough to run every kernel once."""
    batch, classes, *spatial = shape
    return batch, classes, *[max(32, size // 4) for size in spatial]
