"""Losses of logits (N, C, *spatial) and labels (N, *spatial)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.data import IGNORED


class CrossEntropy(nn.Module):
    """Cross-entropy, plain or with a weight for each class."""

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor([*weights]))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the pixels that are not ignored."""
        return F.cross_entropy(logits, labels, self.weights, ignore_index=IGNORED)


def weighted_cross_entropy(frequencies: Sequence[float]) -> CrossEntropy:
    """Return cross-entropy with the weights ``1 / log(1.02 + frequency)`` of ENet (2016).

    ``frequencies`` are the fractions of the labelled pixels of the training images.
    """
    return CrossEntropy([1 / math.log(1.02 + frequency) for frequency in frequencies])


class Mixed(nn.Module):
    """Cross-entropy and a soft Dice or Jaccard loss.

    Parameters
    ----------
    kind : {'dice', 'jaccard'}
        The second loss: 1 minus the score of the probabilities.
    over : {'batch', 'image'}
        Whether pixels of a class are summed over the batch, which stands for the data set, or over
        each image. Classes without a labelled pixel do not count.
    share : float
        The weight of the second loss; cross-entropy has the rest.
    """

    def __init__(
        self, kind: Literal["dice", "jaccard"], over: Literal["batch", "image"], share: float
    ) -> None:
        super().__init__()
        self.kind, self.over, self.share = kind, over, share

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted sum of the two losses."""
        cross_entropy = F.cross_entropy(logits, labels, ignore_index=IGNORED)
        return (1 - self.share) * cross_entropy + self.share * self._overlap(logits, labels)

    def _overlap(self, logits: Tensor, labels: Tensor) -> Tensor:
        counted = (labels != IGNORED)[:, None]
        probs = logits.softmax(1) * counted
        held = F.one_hot(labels.masked_fill(labels == IGNORED, 0), logits.shape[1])
        truth = held.movedim(-1, 1) * counted
        axes = [
            axis for axis in range(logits.dim()) if axis != 1 and (axis or self.over != "image")
        ]
        both, volume = (probs * truth).sum(axes), truth.sum(axes)
        total = probs.sum(axes) + volume
        score = 2 * both / total if self.kind == "dice" else both / (total - both)
        return 1 - score[volume > 0].mean()
