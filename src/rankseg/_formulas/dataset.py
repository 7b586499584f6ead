"""The score of a data set: counts are summed over all images before they are divided.

A class that is predicted in ``count`` pixels, ``hits`` of them rightly, and has ``volume`` pixels
in truth, scores ``hits / size``. ``size`` is ``(count + volume) / 2`` for Dice and ``count + volume
- hits`` for IoU. Without labels, ``hits`` and ``volume`` are sums of probabilities. All tensors are
float64 ``(classes,)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lines", "score"]


def score(metric: str, count: Tensor, hits: Tensor, volume: Tensor) -> Tensor:
    """Return the score of every class, ``(classes,)``; 0 for a class without a pixel."""
    size = _size(metric, count, hits, volume)
    return torch.where(size > 0, hits / size, 0.0)


def lines(metric: str, count: Tensor, hits: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and offset of every class: what one more pixel of probability ``p`` adds.

    The derivative of the score is ``scale p - offset``, up to a factor that all classes share: the
    mean of the scales is 1. ``offset / scale`` is ``f / 2`` for Dice and ``f / (1 + f)`` for IoU,
    with the score ``f``. A class without volume has no score; its scale is 1 and its offset 1/2.
    """
    size, value = _size(metric, count, hits, volume), score(metric, count, hits, volume)
    known = volume > 0
    slope, cost = (torch.ones_like(value), value / 2) if metric == "dice" else (1 + value, value)
    scale, offset = slope / size, cost / size
    mean = scale[known].mean()
    return torch.where(known, scale / mean, 1.0), torch.where(known, offset / mean, 0.5)


def _size(metric: str, count: Tensor, hits: Tensor, volume: Tensor) -> Tensor:
    return (count + volume) / 2 if metric == "dice" else count + volume - hits
