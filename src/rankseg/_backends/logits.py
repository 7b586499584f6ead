"""Logits to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def to_probabilities(logits: Tensor, by: str) -> Tensor:
    """Return ``'softmax'`` or ``'sigmoid'`` of logits ``(batch, classes, ...)``.

    Half precision is widened: rounded to it, probabilities lose what lies near 0 and 1.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.softmax(1) if by == "softmax" else wide.sigmoid()
