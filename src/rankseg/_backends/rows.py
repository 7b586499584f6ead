"""What works on one sorted row, on the host: the same for every device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg._backends import native_library as library

__all__ = ["VolumeMoments", "refined_cut"]


class VolumeMoments(NamedTuple):
    """What BA and TRNA know of the volume of a class, in pixels.

    ``mean``, ``variance`` and ``third`` central moment; ``size`` is the largest possible volume,
    the number of pixels of the image.
    """

    mean: float
    variance: float
    third: float
    size: int


def refined_cut(
    values: np.ndarray, low: float, volume: VolumeMoments, eps: float, smooth: float, blind: bool
) -> float:
    """Return the cut of the mask of largest expected Dice by TRNA, or if ``blind`` by BA.

    ``values``, ``(pixels,)`` float64, are the probabilities of the pixels that may be in the mask,
    largest first; all exceed ``low``. ``eps`` is the probability of volumes that is cut off, half
    of it in each tail. Equal pixels are taken together or not at all; of several best masks the
    smallest wins. ``native/refined.hpp`` has the equations.
    """
    cut = np.empty(1)
    moments = library.Volume(*volume, eps)
    library.call("refined_cut", values, len(values), low, moments, smooth, not blind, cut)
    return float(cut[0])
