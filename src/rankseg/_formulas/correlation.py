"""Correlated labels by one hidden factor: the one-factor Gaussian copula.

Given a standard normal ``z`` that all pixels of an image share, labels are independent with

    p(z) = Phi((Phi^-1(p) + sqrt(r) z) / sqrt(1 - r))

where ``r`` is the correlation. The average of ``p(z)`` over ``z`` is ``p``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FACTOR_NODES = 15
"""Number of quadrature nodes for the factor ``z`` in a decision."""


def _gauss_hermite(count: int) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes.tolist(), (weights / weights.sum()).tolist()


_FACTOR = _gauss_hermite(FACTOR_NODES)
"""Nodes and weights, computed at import: a tracer cannot follow NumPy, and to exempt the function
from tracing would import all of torch's compiler with this package."""


def factor_nodes(
    count: int = FACTOR_NODES, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return Gauss-Hermite nodes of the factor and their weights, ``(count,)`` float64 each.

    The weights sum to 1.
    """
    nodes, weights = _FACTOR if count == FACTOR_NODES else _gauss_hermite(count)
    values, shares = (
        torch.tensor(row, dtype=torch.float64, device=device) for row in (nodes, weights)
    )
    return values, shares


def given_factor(probs: Tensor, factor: Tensor, correlation: float) -> Tensor:
    """Return ``p(z)`` in float64, from ``probs`` and values ``factor`` of ``z`` that broadcast.

    The probabilities 0 and 1 do not change.
    """
    if correlation == 0:
        return probs.double() + torch.zeros_like(factor)
    score = torch.special.ndtri(probs.double()) + math.sqrt(correlation) * factor
    given: Tensor = torch.special.ndtr(score / math.sqrt(1 - correlation))
    return given
