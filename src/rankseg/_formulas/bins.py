"""The bins of a class profile: narrow where probabilities are near 0 and near 1.

Every octave of the probability has the same number of bins up to 1/2. Above 1/2 the bins mirror
these: every octave of ``1 - p`` has the same number. So the leading bits of the float ``p``, or of
``1 - p``, give the bin. A bin includes its upper edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg._common.tracing import kept

# Cached kernels contain these two numbers and are recompiled only if the kernel's file changes:
# touch the kernel files after a change here.
OCTAVES = 23
"""Octaves between the first bin, [0, ``2 ** -24``], and 1/2."""

OCTAVE_BITS = 6
"""Leading bits of the mantissa that select a bin: an octave has 64 bins."""

HALF = 1 + (OCTAVES << OCTAVE_BITS)
"""Number of bins up to 1/2."""

BINS = 2 * HALF
"""Number of bins from 0 to 1."""


@kept(most=8)
def bin_edges(device: torch.device) -> Tensor:
    """Return the ``BINS + 1`` edges, float64, from 0 to 1."""
    steps = torch.arange(HALF, dtype=torch.float64, device=device)
    octave = (steps / (1 << OCTAVE_BITS)).floor()
    within = steps / (1 << OCTAVE_BITS) - octave
    low = torch.cat((steps[:1] * 0, torch.exp2(octave - OCTAVES - 1) * (1 + within)))
    return torch.cat((low, 1 - low[:-1].flip(0)))


def bin_of(values: Tensor) -> Tensor:
    """Return the bin of every value, int64, from 0 to ``BINS - 1``.

    NaN is put in some bin: maps may be changed by another thread during a call.
    """
    wide = values.double()
    upper = wide > 0.5
    distance = torch.where(upper, 1 - wide, wide).clamp_min(2.0**-25)  # still in the end bins
    octave = distance.log2().floor()  # if rounding makes it 1 too large, within is negative
    within = (distance / torch.exp2(octave) - 1) * (1 << OCTAVE_BITS)
    whole = (octave + (OCTAVES + 1)) * (1 << OCTAVE_BITS)
    short = whole + torch.where(upper, within.floor() + 1, within.ceil())
    short = short.long().clamp(0, HALF - 1)
    return torch.where(upper, BINS - 1 - short, short)
