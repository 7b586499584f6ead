"""Colours of classes, for pictures and for label maps with a palette."""

from __future__ import annotations

import colorsys
from typing import Final

__all__ = ["BACKGROUND_COLOUR", "CLASS_COLOURS", "IGNORED_COLOUR", "palette"]

BACKGROUND_COLOUR: Final = "#2B2B2B"
IGNORED_COLOUR: Final = "#FFFFFF"

# Okabe and Ito's colours, told apart with every common colour blindness, then others that differ
# from them and from each other in lightness.
CLASS_COLOURS: Final = (
    "#56B4E9",
    "#E69F00",
    "#009E73",
    "#F0E442",
    "#CC79A7",
    "#882255",
    "#BBBBBB",
    "#332288",
    "#DDCC77",
    "#777777",
    "#D55E00",
    "#0072B2",
)

GOLDEN: Final = 0.618034
"""Steps of this share of the colour circle do not come near one another for long."""


def palette() -> list[int]:
    """Return red, green and blue of 256 labels: 0 is background, 255 void."""
    hues = [colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.6, 0.9) for i in range(254 - len(CLASS_COLOURS))]
    colours = [BACKGROUND_COLOUR, *CLASS_COLOURS]
    triples = [tuple(bytes.fromhex(colour[1:])) for colour in colours]
    triples += [tuple(round(255 * part) for part in hue) for hue in hues]
    triples.append(tuple(bytes.fromhex(IGNORED_COLOUR[1:])))
    return [part for triple in triples for part in triple]
