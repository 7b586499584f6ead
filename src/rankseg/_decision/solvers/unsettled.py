"""The pixels whose labels a look at brackets of the cuts leaves open, as maps of their own."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from rankseg._formulas.records import Survey

FEW = 0.125
"""Largest share of the pixels that is copied: more would take time and memory."""


@dataclass(frozen=True)
class Unsettled:
    """Pixels left to share out.

    Attributes
    ----------
    maps, survey
        Of these pixels; mass and peak are those of all.
    labels
        Of all pixels, as far as they are known; None if all are left.
    place
        ``(pixels,)``: where the pixels left are in the flat labels.
    settled
        Count and mass of the others, ``(batch, classes)``.
    """

    maps: Any
    survey: Survey
    labels: Tensor | None
    place: Tensor | None
    settled: tuple[Tensor | float, Tensor | float]

    @classmethod
    def all_of(cls, maps: Any, survey: Survey) -> Unsettled:
        """Leave all pixels open."""
        return cls(maps, survey, None, None, (0.0, 0.0))

    def joined(self, backend: ModuleType, own: Tensor) -> Tensor:
        """Return the labels of all pixels, from those of the pixels left."""
        if self.labels is None:
            return own
        joined: Tensor = backend.join(self.labels, self.maps, self.place, own)
        return joined


def split_off(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    bracket: tuple[Tensor, Tensor],
    eligible: Tensor,
    void: int,
) -> Unsettled:
    """Label the pixels that are in one mask only, wherever in the brackets the cuts lie.

    ``bracket`` is both ends of each, ``(batch, classes)``, infinite for classes without a mask.
    Where the other pixels are many, so that a copy is not worth it, all are left.
    """
    low, high = bracket
    labels, count, mass = backend.claim(maps, survey, high, low)
    if bool((count.sum(1) < (1 - FEW) * backend.sizes(maps)).any()):
        return Unsettled.all_of(maps, survey)
    part, survey, place = backend.unsettled(maps, survey, labels, eligible, void)
    return Unsettled(part, survey, labels, place, (count, mass))
