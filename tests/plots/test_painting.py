"""Labels in colours: which ones can be told apart, and by whom."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rankseg._common.colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR
from rankseg.plots import paint_labels
from rankseg.plots.painting import HATCHES, rgb, swatch

# Machado, Oliveira and Fernandes, 2009, table 1, severity 1: what dichromats see, in linear RGB.
SEEN_BY = {
    "trichromats": np.eye(3),
    "protanopes": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopes": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour, seen):
    """Return an sRGB colour as somebody sees it, in CIELAB."""
    value = rgb(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    t = XYZ @ np.clip(seen @ linear, 0, 1) / WHITE
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def smallest_distance(colours, seen):
    seen_colours = [lab(colour, seen) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen_colours, 2))


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_all_colours_are_told_apart_by(eyes):
    colours = [BACKGROUND_COLOUR, *CLASS_COLOURS, IGNORED_COLOUR]
    assert len(CLASS_COLOURS) >= 20
    assert smallest_distance(colours, SEEN_BY[eyes]) > 15


def test_red_and_green_are_near_each_other_for_a_deuteranope():
    red_and_green = ["#D62728", "#6B7D2B"]
    assert smallest_distance(red_and_green, SEEN_BY["trichromats"]) > 60
    assert smallest_distance(red_and_green, SEEN_BY["deuteranopes"]) < 30


def test_labels_have_the_colour_of_their_class():
    painted = paint_labels(np.array([[0, 1, 2, 255]]), ["background", "a", "b"])
    assert painted.dtype == np.uint8
    expected = [BACKGROUND_COLOUR, *CLASS_COLOURS[:2], IGNORED_COLOUR]
    np.testing.assert_array_equal(painted[0], [rgb(colour) for colour in expected])


def test_further_classes_have_stripes_of_their_own():
    names = [f"class {number}" for number in range(len(CLASS_COLOURS) * (1 + len(HATCHES)))]
    assert len(names) > 150  # ADE20K
    swatches = {swatch(number, names).tobytes() for number in range(len(names))}
    assert len(swatches) == len(names)
    striped = swatch(len(CLASS_COLOURS), names)
    share = (striped == rgb(CLASS_COLOURS[0])).all(-1).mean()
    assert 0.5 < share < 0.9


def test_stripes_of_a_large_picture_are_wider():
    names = list(map(str, range(30)))
    wide = paint_labels(np.full((960, 960), 26), names)
    changes = (wide[:, 1:] != wide[:, :-1]).any(-1).mean()
    assert 0 < changes < 0.1  # of pixels along a row
