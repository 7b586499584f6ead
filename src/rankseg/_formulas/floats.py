"""Neighbours among floating numbers, by arithmetic alone.

Graphs for other runtimes can hold neither bit patterns nor ``nextafter``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def round_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest numbers of a dtype that do not exceed float64 ``values``, at least 0."""
    nearest = values.to(dtype)
    wide = nearest.double()
    info = torch.finfo(dtype)
    # 0.6 to 1.2 of the distance to the next number down, which is then the nearest.
    step = 0.6 * info.eps * wide.clamp_min(info.smallest_normal)
    return torch.where(wide > values, (wide - step).to(dtype), nearest)


def next_below(values: Tensor) -> Tensor:
    """Return the next number below every float64 value, at least 0."""
    among_normal = values * (1 - 2.0**-53)
    return torch.minimum(among_normal, values - 5e-324).clamp_min(0.0)
