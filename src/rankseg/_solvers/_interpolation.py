"""Interpolation at Chebyshev nodes: a smooth function of many arguments from a few values."""

from __future__ import annotations

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


def chebyshev_nodes(number: int, like: Tensor) -> Tensor:
    """Return the nodes of the first kind in (-1, 1): ``(number,)``, on the device of ``like``."""
    return torch.cos(_angles(number, like))


def interpolation(number: int, points: Tensor) -> Tensor:
    """Return what every node contributes at every point of [-1, 1]: ``(number, points)``.

    The barycentric formula: columns sum to 1, and ``values @ interpolation(number, points)`` is
    the polynomial through the values at the nodes.
    """
    angles = _angles(number, points)
    signs = 1 - 2 * (torch.arange(number, device=points.device) % 2)
    distance = points - torch.cos(angles).unsqueeze(1)
    distance = distance.masked_fill(distance == 0, 1e-300)  # on a node, which then tells it all
    shares = (signs * torch.sin(angles)).unsqueeze(1) / distance
    return shares / shares.sum(0)


def _angles(number: int, like: Tensor) -> Tensor:
    index = torch.arange(number, dtype=torch.float64, device=like.device)
    return (2 * index + 1) * (math.pi / (2 * number))
