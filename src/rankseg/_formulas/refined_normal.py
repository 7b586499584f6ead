"""The refined normal approximation of a sum of independent Bernoulli labels.

Volkova ("A refinement of the central limit theorem for sums of independent random indicators",
Theory of Probability and its Applications 40, 1996) corrects the normal distribution by the
skewness of the sum. With ``Phi`` and ``phi`` the standard normal distribution and density::

    F(x) = Phi(x) + skew (1 - x^2) phi(x) / 6
    f(x) = F'(x) = phi(x) (1 + skew (x^3 - 3 x) / 6)

and ``P(Y <= k)`` is close to ``F((k + 1/2 - mean) / sd)``.

``F`` is not quite a distribution function: it slightly leaves [0, 1] in one tail, and if ``|skew| >
3`` it has a local maximum after which it falls. The ``refined_normal_`` functions are these
formulas as they stand, for sums that are renormalised anyway. The ``proper_`` functions belong to a
true distribution: the largest value of ``F`` up to ``x``, clamped to [0, 1]; its derivative; and
its inverse. All functions work elementwise on broadcast arguments and keep their dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankseg._formulas.quiet import exp

__all__ = [
    "proper_cdf",
    "proper_icdf",
    "proper_pdf",
    "refined_normal_cdf",
    "refined_normal_pdf",
]

FAR = 40.0
"""``phi`` is 0 in float64 beyond this; ``x`` is clamped to it, lest powers of ``x`` overflow."""

STEEP = 3.0
"""The absolute skewness above which ``f`` is negative between two of its zeros."""

HALVINGS = 64
"""Enough to narrow ``[-FAR, FAR]`` to the spacing of float64."""


def refined_normal_cdf(x: Tensor, skew: Tensor) -> Tensor:
    """Return ``F(x)``, not clamped."""
    near = x.clamp(-FAR, FAR)
    density = _normal_pdf(near)
    # Not by torch.special.ndtr, which is 0 below -8.3; erfcx wakes no threads.
    distance = torch.where(near > 0, near, -near)  # abs, but with a derivative at 0
    tail = torch.special.erfcx(distance / math.sqrt(2)) * density * math.sqrt(math.pi / 2)
    normal = torch.where(near > 0, 1 - tail, tail)
    return normal + skew * (1 - near * near) * density / 6


def refined_normal_pdf(x: Tensor, skew: Tensor) -> Tensor:
    """Return ``f(x)``, the derivative of ``F``, not clamped."""
    near = x.clamp(-FAR, FAR)
    return _normal_pdf(near) * (1 + skew * near * (near * near - 3) / 6)


def proper_cdf(x: Tensor, skew: Tensor) -> Tensor:
    """Return the largest value of ``F`` up to ``x``, within [0, 1]."""
    return torch.maximum(refined_normal_cdf(x, skew), _hill(x, skew)).clamp(max=1)


def proper_pdf(x: Tensor, skew: Tensor) -> Tensor:
    """Return the derivative of :func:`proper_cdf`: ``f``, or 0 where that function is constant."""
    above = refined_normal_cdf(-x, -skew)  # 1 - F(x), where that would round to 0
    rises = (refined_normal_cdf(x, skew) >= _hill(x, skew)) & (above > 0)
    return torch.where(rises, refined_normal_pdf(x, skew), 0.0).clamp(min=0)


def proper_icdf(p: Tensor, skew: Tensor) -> Tensor:
    """Return the smallest ``x`` where :func:`proper_cdf` reaches ``p``; ``p`` must be in (0, 1)."""
    p, skew = torch.broadcast_tensors(p, skew)
    low, high = torch.full_like(p, -FAR), torch.full_like(p, FAR)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached = proper_cdf(middle, skew) >= p
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


def _hill(x: Tensor, skew: Tensor) -> Tensor:
    """Return the local maximum of ``F`` to the left of ``x``, or 0 if there is none.

    ``f`` is 0 where ``x^3 - 3 x = -6 / skew``. The roots are ``2 cos`` of three angles; the maximum
    is at one of them.
    """
    steep = skew.abs() > STEEP
    some = torch.where(steep, skew, 2 * STEEP)
    turns = torch.where(some > 0, 2, 1)  # which of the three roots is the local maximum
    top = 2 * torch.cos((torch.acos(-3 / some) + 2 * math.pi * turns) / 3)
    return torch.where(steep & (x > top), refined_normal_cdf(top, some), 0.0)


def _normal_pdf(x: Tensor) -> Tensor:
    return exp(-x * x / 2) / math.sqrt(2 * math.pi)
