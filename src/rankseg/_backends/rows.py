"""Operations on one sorted row of values. They run on the host, for maps of every device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg._backends import native_library as library

__all__ = ["VolumeMoments", "refined_gains"]


class VolumeMoments(NamedTuple):
    """What BA and TRNA know of the volume of a class, in pixels.

    ``third`` is the third central moment. ``size`` is the largest possible volume: the number of
    pixels of the image.
    """

    mean: float
    variance: float
    third: float
    size: int


def refined_gains(
    values: np.ndarray, volume: VolumeMoments, eps: float, smooth: float, ba: bool
) -> np.ndarray:
    """Return the expected Dice of the masks of 1 to ``n`` pixels minus that of the empty mask.

    ``values``, ``(n,)`` float64, are the largest probabilities of a class, largest first; the mask
    of ``k`` pixels holds the first ``k``. The distribution of the volume is taken as refined
    normal. If ``ba`` is True (BA), all pixels share it. Otherwise (TRNA), the distribution for each
    pixel leaves this pixel out. ``eps`` is the probability of the volumes that are left out, half
    of it in each tail. ``native/refined.hpp`` has the equations.
    """
    gains = np.empty(len(values))
    moments = library.Volume(**volume._asdict(), eps=eps)
    library.call("refined_gains", values, len(values), moments, smooth, not ba, gains)
    return gains
