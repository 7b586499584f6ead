"""Interpolation at Chebyshev nodes: a smooth function of many arguments from a few values."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

PRECISION = 1e-16
"""Relative error aimed at: that of rounding."""


def nodes_needed(rate: float) -> int:
    """Return how many nodes leave an error of rounding, if each divides it by ``exp(rate)``.

    The rate is that of the largest ellipse with foci -1 and 1 inside which the function has no
    singularity: ``acosh(x)`` for one at ``x`` on the real axis, ``asinh(y)`` for one at ``i y``.
    """
    return 1 + math.ceil(-math.log(PRECISION) / rate)


def chebyshev_nodes(number: int, device: torch.device) -> Tensor:
    """Return the nodes of the first kind in (-1, 1): ``(number,)``."""
    return _nodes_and_weights(number, device)[0]


def interpolation(number: int, points: Tensor) -> Tensor:
    """Return what every node contributes at every point of [-1, 1]: ``(number, points)``.

    The barycentric formula: columns sum to 1, and ``values @ interpolation(number, points)`` is
    the polynomial through the values at the nodes.
    """
    nodes, weights = _nodes_and_weights(number, points.device)
    distance = points - nodes.unsqueeze(1)
    distance = distance.masked_fill_(distance == 0, 1e-300)  # on a node, which then tells it all
    shares = weights.unsqueeze(1) / distance
    return shares / shares.sum(0)


def _nodes_and_weights(number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nodes, and the weights of the barycentric formula."""
    make = _make_nodes if torch.compiler.is_compiling() else _kept_nodes
    return make(number, device)


def _make_nodes(number: int, device: torch.device) -> tuple[Tensor, Tensor]:
    index = torch.arange(number, dtype=torch.float64, device=device)
    angles = (2 * index + 1) * (math.pi / (2 * number))
    return torch.cos(angles), torch.sin(angles) * (1 - 2 * (index % 2))


_kept_nodes = functools.cache(_make_nodes)  # for the few numbers that are ever asked for
