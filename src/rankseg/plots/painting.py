"""Labels in colours. Classes beyond the colours repeat them with stripes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rankseg._common.colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR

__all__ = ["HATCHES", "Labels", "paint_labels", "rgb", "swatch"]

Labels: TypeAlias = NDArray[np.integer[Any]]

PERIODS: Final = 40
"""Stripes that the shorter side of a large picture holds."""

PERIOD: Final = 4
"""Stripes are one unit wide and repeat after four; a unit is a pixel of a small picture."""

BRIGHT: Final = 128
"""Colours of at least this luma, of 255, have black stripes; darker ones have white stripes."""

HATCHES: Final[tuple[Callable[[Any, Any], Any], ...]] = (
    lambda y, x: (x + y) % PERIOD == 0,
    lambda y, x: (x - y) % PERIOD == 0,
    lambda y, x: y % PERIOD == 0,
    lambda y, x: x % PERIOD == 0,
    lambda y, x: ((x + y) % PERIOD == 0) | ((x - y) % PERIOD == 0),
    lambda y, x: (x // 2 + y // 2) % 2 == 0,
)
"""Where each hatch has a stripe, by row and column in units."""


def rgb(colour: str) -> NDArray[np.uint8]:
    """Return a colour ``#RRGGBB`` as uint8 (3,)."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)


def paint_labels(labels: Labels, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Return labels in the colours of the other pictures.

    Twenty-four classes, besides a first one called ``background``, have a colour each, distinct
    whatever one's colour vision. Further classes have these colours with stripes: 168 differ.

    Parameters
    ----------
    labels : ndarray
        Integer (height, width); what is no class, such as void, is white.
    classes : sequence of str
        The names of the labels from 0; a first one called ``background`` is dark.

    Returns
    -------
    ndarray
        uint8 (height, width, 3).

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.plots import paint_labels
    >>> paint_labels(np.array([[0, 1, 255]]), ["background", "liver"]).tolist()
    [[[43, 43, 43], [86, 180, 233], [255, 255, 255]]]
    """
    unit = max(1, min(labels.shape) // (PERIOD * PERIODS))
    first = 1 if classes[0].lower() == "background" else 0
    number = labels.astype(np.int64) - first
    colours = np.stack([rgb(colour) for colour in CLASS_COLOURS])
    painted = colours[number % len(colours)]
    round_of_colours = np.where(number < 0, 0, number // len(colours) % (len(HATCHES) + 1))
    for hatch in np.unique(round_of_colours[round_of_colours > 0]).tolist():
        rows, columns = np.nonzero(round_of_colours == hatch)
        stripe = HATCHES[hatch - 1](rows // unit, columns // unit)
        rows, columns = rows[stripe], columns[stripe]
        painted[rows, columns] = _stripe_colour(painted[rows, columns])
    painted[number < 0] = rgb(BACKGROUND_COLOUR)
    painted[(labels < 0) | (labels >= len(classes))] = rgb(IGNORED_COLOUR)
    return painted


def _stripe_colour(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return black on bright colours and white on dark ones, uint8 (n, 1)."""
    bright = colours @ np.array([0.299, 0.587, 0.114]) >= BRIGHT
    return np.where(bright, 0, 255).astype(np.uint8)[:, None]


def swatch(number: int, classes: Sequence[str], side: int = 12) -> NDArray[np.uint8]:
    """Return a square in the colour of a class for a legend, uint8 (side, side, 3)."""
    return paint_labels(np.full((side, side), number), classes)
