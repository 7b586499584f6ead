"""Interpolation at Chebyshev nodes: a smooth function at many points from its values at a few."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankseg._common.tracing import kept

PRECISION = 1e-16
"""Relative error aimed at: that of rounding in float64."""


def nodes_needed(rate: float) -> int:
    """Return how many nodes reduce the error to ``PRECISION``, if each divides it by ``exp(rate)``.

    The rate follows from the singularity of the function that is nearest to [-1, 1]: it is
    ``acosh(x)`` for a singularity at ``x`` on the real axis, and ``asinh(y)`` for one at ``i y``.
    It is the rate of the largest ellipse with foci -1 and 1 without a singularity inside.
    """
    return 1 + math.ceil(-math.log(PRECISION) / rate)


def chebyshev_nodes(number: int, device: torch.device) -> Tensor:
    """Return the nodes of the first kind in (-1, 1): ``(number,)``."""
    return _nodes_and_weights(number, device)[0]


def interpolation(number: int, points: Tensor) -> Tensor:
    """Return the weight of every node at every point of [-1, 1]: ``(number, points)``.

    ``values @ interpolation(number, points)`` is the polynomial through the ``values`` at the
    nodes, evaluated at the points. Columns sum to 1 (barycentric formula).
    """
    nodes, weights = _nodes_and_weights(number, points.device)
    distance = points - nodes.unsqueeze(1)
    distance = distance.masked_fill_(distance == 0, 1e-300)  # a point on a node: its weight is 1
    shares = weights.unsqueeze(1) / distance
    return shares / shares.sum(0)


@kept(most=64)
def _nodes_and_weights(number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nodes, and the weights of the barycentric formula."""
    index = torch.arange(number, dtype=torch.float64, device=device)
    angles = (2 * index + 1) * (math.pi / (2 * number))
    return torch.cos(angles), torch.sin(angles) * (1 - 2 * (index % 2))
