"""Unsettled pixels: those whose label depends on where in its bracket each cut lies.

They are copied into smaller maps, so that an iterative solver need not scan the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from rankseg._formulas.records import Survey

MOST_COPIED = 0.125
"""Unsettled pixels are copied if they are at most this share of every image; a larger copy would
not pay."""


@dataclass(frozen=True)
class Unsettled:
    """The pixels that are still to be labelled.

    Attributes
    ----------
    maps, survey
        Maps of the unsettled pixels and their survey; its mass and peak are those of all pixels.
    labels
        ``(batch, *spatial)``: the labels of all pixels, negative where unsettled. None if all
        pixels are unsettled: then ``maps`` are the whole maps.
    pixels
        ``(pixels,)``: the index of each unsettled pixel in the flat ``labels``; None as above.
    settled
        Count and mass of the settled pixels by label, ``(batch, classes)`` each.
    """

    maps: Any
    survey: Survey
    labels: Tensor | None
    pixels: Tensor | None
    settled: tuple[Tensor | float, Tensor | float]

    @classmethod
    def all_of(cls, maps: Any, survey: Survey) -> Unsettled:
        """Treat all pixels as unsettled, without a copy."""
        return cls(maps, survey, None, None, (0.0, 0.0))

    def joined(self, backend: ModuleType, relabelled: Tensor) -> Tensor:
        """Return the labels of all pixels, given the labels of those that were copied."""
        joined: Tensor = backend.join(self.labels, self.maps, self.pixels, relabelled)
        return joined


def split_off(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    bracket: tuple[Tensor, Tensor],
    eligible: Tensor,
    void: int,
) -> Unsettled:
    """Label every pixel that is in exactly one mask wherever the cuts lie in their brackets.

    ``bracket`` is the lower and the upper end for every cut, ``(batch, classes)`` each, infinite
    for classes without a mask. If more than ``MOST_COPIED`` of the pixels of some image remain, no
    pixel is labelled and all are unsettled.
    """
    low, high = bracket
    labels, count, mass = backend.claim(maps, survey, high, low)
    if bool((count.sum(1) < (1 - MOST_COPIED) * backend.sizes(maps)).any()):
        return Unsettled.all_of(maps, survey)
    copied, survey, pixels = backend.unsettled(maps, survey, labels, eligible, void)
    return Unsettled(copied, survey, labels, pixels, (count, mass))
