"""What decisions are expected to gain on one another, by the probabilities alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rankseg._decision.score import expected_score
from rankseg.metrics import Metric

__all__ = ["predicted_gains"]


def predicted_gains(
    probs: Tensor,
    decisions: Sequence[Tensor],
    correlations: Sequence[float],
    metric: Metric,
    pruning_prob: float,
) -> list[float]:
    """Return by how much every decision on one image is expected to score more than the first.

    Parameters
    ----------
    probs : Tensor
        Floating (1, classes, *spatial).
    decisions : sequence of Tensor
        Labels, integer (1, *spatial), with 1 for the foreground of a single class; or masks, bool
        (1, classes, *spatial).
    correlations : sequence of float
        In [0, 1), one for every decision: both it and the first are scored under this.
    metric : {'dice', 'iou'}
        What is expected.
    pruning_prob : float
        In [0, 1]. The mean is over the classes whose largest probability exceeds it.

    Returns
    -------
    list of float
        One for every decision, NaN if no class is present; 0 for the first and its equals.
    """
    present = (probs[0].flatten(1).amax(1).double() > pruning_prob).nonzero().squeeze(1)
    if not len(present):
        return [math.nan] * len(decisions)
    shown = probs[:, present]
    masks = [_masks(decision, present, probs.shape[1]) for decision in decisions]
    # A score takes far longer than finding out that it is known.
    equal = [next(i for i, other in enumerate(masks) if other.equal(mask)) for mask in masks]
    pairs = list(zip(equal, correlations, strict=True))
    needed = {(i, correlation) for first, correlation in pairs if first for i in (0, first)}
    scores = {
        (i, correlation): expected_score(shown, masks[i], metric, correlation=correlation).mean()
        for i, correlation in needed
    }
    return [
        float(scores[first, correlation] - scores[0, correlation]) if first else 0.0
        for first, correlation in pairs
    ]


def _masks(decision: Tensor, present: Tensor, classes: int) -> Tensor:
    """Return the masks of the classes that are present."""
    if decision.dtype == torch.bool:
        return decision[:, present]
    labels = present if classes > 1 else torch.ones_like(present)
    return decision.unsqueeze(1) == labels.view(-1, *[1] * (decision.dim() - 1))
