"""What the adapters share: kinds of scores, and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rankseg._arguments import choice
from rankseg._optional import require

__all__ = ["KINDS", "require", "resize", "to_probabilities"]

KINDS = ("softmax", "sigmoid", "probabilities", "query_sums")
"""What scores can be, by what makes probabilities of them; see :func:`to_probabilities`."""

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How scores are resized, by the number of spatial axes."""


def to_probabilities(scores: Tensor, kind: str) -> Tensor:
    """Make probabilities ``(batch, classes, *spatial)`` of scores of the same shape.

    ``'softmax'`` and ``'sigmoid'`` take logits, of classes that exclude each other and of classes
    that do not. ``'query_sums'`` takes the sums over queries of class probability times mask
    probability, which are no logits: they are not negative, and are divided by their sum over the
    classes, since a pixel has one of them. Where that is 0 they stay 0. Half precision is widened,
    as rounded probabilities lose what lies near 0 and 1.
    """
    kind = choice("kind", kind, KINDS)
    if kind == "probabilities":
        return scores
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if kind == "softmax":
        return wide.softmax(1)
    if kind == "sigmoid":
        return wide.sigmoid()
    total = wide.sum(1, keepdim=True)
    return wide / total.where(total > 0, 1.0)


def resize(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resample scores ``(batch, channels, *spatial)`` to a size, linearly between pixel areas."""
    if tuple(scores.shape[2:]) == tuple(size):
        return scores
    return F.interpolate(scores, tuple(size), mode=MODES[len(size)], align_corners=False)
