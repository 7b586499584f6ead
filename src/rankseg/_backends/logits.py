"""Logits to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def to_probabilities(logits: Tensor, by: str) -> Tensor:
    """Return ``'softmax'`` over classes or ``'sigmoid'`` of logits ``(batch, classes, ...)``.

    The result is float32, or float64 for float64 logits. Half precision could not resolve
    probabilities near 1.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.softmax(1) if by == "softmax" else wide.sigmoid()
