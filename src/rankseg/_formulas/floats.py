"""Neighbouring floating-point numbers, computed by arithmetic alone.

Exported graphs (ONNX) have neither ``nextafter`` nor a view of the bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def round_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return, for every float64 value, the largest number of ``dtype`` that does not exceed it.

    Values must not be negative.
    """
    nearest = values.to(dtype)
    wide = nearest.double()
    info = torch.finfo(dtype)
    # The step is 0.6 to 1.2 times the distance to the next number down: the cast rounds to that.
    step = 0.6 * info.eps * wide.clamp_min(info.smallest_normal)
    return torch.where(wide > values, (wide - step).to(dtype), nearest)


def next_below(values: Tensor) -> Tensor:
    """Return the next float64 number below every value; 0 for the value 0."""
    among_normal = values * (1 - 2.0**-53)
    return torch.minimum(among_normal, values - 5e-324).clamp_min(0.0)
