"""The colours of classes, in pictures and in the palettes of label maps."""

from __future__ import annotations

from typing import Final

__all__ = ["BACKGROUND_COLOUR", "CLASS_COLOURS", "IGNORED_COLOUR"]

BACKGROUND_COLOUR: Final = "#2B2B2B"
IGNORED_COLOUR: Final = "#FFFFFF"

# Five colours of Okabe and Ito's, then others. Any two of these, background and void included,
# differ by at least 15 in CIELAB, with every common colour blindness: tests/test_colours.py.
CLASS_COLOURS: Final = (
    *("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#0000FF", "#693C00", "#A5F096"),
    *("#2D3C69", "#A5873C", "#FFA5B4", "#427EFF", "#1E6969", "#A5E1FF", "#F01E00", "#5AC378"),
    *("#2D2D96", "#D2F97E", "#815995", "#3C5A3C", "#B4C15B", "#35A1F9", "#4262BB", "#0F4BE1"),
)
