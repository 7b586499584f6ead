"""Better probabilities before the decision: RankSEG can only be as good as the numbers it is given.

`prior_correction` undoes the class weights of a network that was trained with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._decision.calibration import check_weights
from rankseg._decision.problem import Maps, Problem
from rankseg._decision.settings import Settings

__all__ = ["prior_correction"]

# Scales beyond exp(700) would overflow; only subnormal weights beside huge ones ask for them.
LARGEST_LOG = 700.0


@torch.no_grad()
def prior_correction(
    probs: Maps, class_weights: Sequence[float] | np.ndarray[Any, Any] | Tensor
) -> Maps:
    r"""Undo the class weights of a cross-entropy: ``p_c / w_c``, renormalised over the classes.

    A network trained with class weights overstates the classes of large weight: what it gives is
    not the probability of a class, and every decision that takes it for one (RankSEG's more than
    argmax) predicts rare classes too often. The weights are known, so this is exactly undone.

    Parameters
    ----------
    probs : torch.Tensor or numpy.ndarray
        ``(batch, classes, *spatial)`` probabilities that sum to 1 over the classes (softmax);
        float16, bfloat16, float32 or float64; any device and strides. The batch may be empty. One
        channel is foreground against background (sigmoid).
    class_weights : sequence of float, ndarray or Tensor
        The weights of the loss, one for each class, positive and finite; only their ratios
        matter. For one channel a single one, the weight of the foreground where that of the
        background is 1: the ``pos_weight`` of a binary cross-entropy.

    Returns
    -------
    torch.Tensor or numpy.ndarray
        Of the kind, shape, dtype and device that came in. Pixels sum to 1 over the classes, but
        for rounding to the dtype; one at which all probabilities are 0 stays 0.

    Raises
    ------
    TypeError
        If ``probs`` is not a dense floating tensor or array, or ``class_weights`` does not hold
        real numbers.
    ValueError
        If a shape does not fit, a weight is not positive and finite, their number is not that of
        the classes, or a probability is NaN, infinite or outside [0, 1].

    Notes
    -----
    In the limit of much data and a flexible network, the weighted cross-entropy
    :math:`\mathbb{E}[-w_Y \log q_Y(X)]` is least for :math:`q_c(x) \propto w_c P(Y = c \mid x)`,
    so

    .. math:: P(Y = c \mid x) = \frac{q_c(x) / w_c}{\sum_k q_k(x) / w_k},

    the adjustment of [1]_ to other class frequencies, with the weights as ratio of the
    frequencies trained for to those that are true. It undoes the weights and nothing else: not
    a focal or Dice loss, not over-confidence.

    Computed in float64, some pixels at a time.

    References
    ----------
    .. [1] Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a
       priori probabilities: a simple procedure", Neural Computation 14(1), 2002.

    Examples
    --------
    A pole of weight 9 looks likelier than the road of weight 1 behind it, and is not:

    >>> import numpy as np
    >>> from rankseg.calibration import prior_correction
    >>> prior_correction(np.array([[[0.25], [0.75]]]), [1.0, 9.0])
    array([[[0.75],
            [0.25]]])

    One channel, trained with ``BCEWithLogitsLoss(pos_weight=torch.tensor(9.0))``:

    >>> prior_correction(np.array([[[0.75]]]), [9.0])
    array([[[0.25]]])
    """
    problem = Problem.parse(probs, None, Settings(output_mode="multilabel"))
    problem = replace(problem, are_exclusive=True)
    scales = _scales(_weights_of(class_weights, problem.probs.shape[1]))
    factors = torch.tensor(scales, dtype=torch.float64, device=problem.probs.device)
    factors = factors.view(-1, *[1] * (problem.probs.dim() - 2))

    def correct(wide: Tensor) -> Tensor:
        if problem.binary:
            wide = torch.cat(((1 - wide).clamp(min=0), wide), 1)
        shares = wide * factors
        total = shares.sum(1, keepdim=True)
        return torch.where(total > 0, shares / total, 0.0)[:, -problem.probs.shape[1] :]

    result: Maps = problem.restore(problem.transformed(correct).to(problem.probs.dtype))
    return result


def _weights_of(class_weights: object, classes: int) -> list[float]:
    weights = check_weights(class_weights)
    if len(weights) != classes:
        one = " (one channel: the weight of the foreground, that of the background being 1)"
        raise ValueError(
            f"class_weights must have one entry for each of the {classes} classes"
            f"{one if classes == 1 else ''}, got {len(weights)}"
        )
    return weights if classes > 1 else [1.0, *weights]


def _scales(weights: Sequence[float]) -> list[float]:
    """Return what to multiply each class with: ``1 / w`` up to a factor that keeps it moderate."""
    logs = [math.log(weight) for weight in weights]
    middle = (min(logs) + max(logs)) / 2
    return [math.exp(min(max(middle - log, -LARGEST_LOG), LARGEST_LOG)) for log in logs]
