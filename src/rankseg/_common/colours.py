"""The colours of classes, in pictures and in the palettes of label maps."""

from __future__ import annotations

from typing import Final

__all__ = ["BACKGROUND_COLOUR", "CLASS_COLOURS", "IGNORED_COLOUR"]

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
