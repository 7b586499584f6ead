"""The bins of a class profile: fine where probabilities are near 0 and near 1.

Below 1/2 a bin is told by the leading bits of the float itself, above by those of its distance to
1: every octave holds the same number of bins, on both sides. A bin holds its upper edge.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Compiled kernels hold these two numbers, and are compiled anew only when their own file changes.
OCTAVES = 23
"""Octaves between the first bin, which is all below ``2 ** -24``, and 1/2."""

OCTAVE_BITS = 6
"""Leading bits of the mantissa that tell a bin: 64 bins to an octave."""

HALF = 1 + (OCTAVES << OCTAVE_BITS)
"""Bins up to 1/2."""

BINS = 2 * HALF
"""Bins from 0 to 1."""


def bin_edges(device: torch.device) -> Tensor:
    """Return the ``BINS + 1`` edges, float64, from 0 to 1."""
    return _make_edges(device) if torch.compiler.is_compiling() else _kept_edges(device)


@functools.cache
def _kept_edges(device: torch.device) -> Tensor:
    return _make_edges(device)


def _make_edges(device: torch.device) -> Tensor:
    steps = torch.arange(HALF, dtype=torch.float64, device=device)
    octave = (steps / (1 << OCTAVE_BITS)).floor()
    within = steps / (1 << OCTAVE_BITS) - octave
    low = torch.cat((steps[:1] * 0, torch.exp2(octave - OCTAVES - 1) * (1 + within)))
    return torch.cat((low, 1 - low[:-1].flip(0)))


def bin_of(values: Tensor) -> Tensor:
    """Return the bin of every value, int64; NaN, which a map may become, is in some bin, too."""
    wide = values.double()
    upper = wide > 0.5
    distance = torch.where(upper, 1 - wide, wide).clamp_min(2.0**-25)  # for all in the end bins
    octave = distance.log2().floor()  # one too many, by rounding, is made good by a part below 0
    within = (distance / torch.exp2(octave) - 1) * (1 << OCTAVE_BITS)
    whole = (octave + (OCTAVES + 1)) * (1 << OCTAVE_BITS)
    short = whole + torch.where(upper, within.floor() + 1, within.ceil())
    short = short.long().clamp(0, HALF - 1)
    return torch.where(upper, BINS - 1 - short, short)
