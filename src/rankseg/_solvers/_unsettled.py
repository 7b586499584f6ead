"""The pixels whose labels a look at brackets of the cuts leaves open, as maps of their own."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._backends._records import Survey

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
    brackets: tuple[Tensor, Tensor, Tensor],
    kept: Tensor,
    void: int,
) -> Unsettled:
    """Label the pixels that are in one mask only, wherever in the brackets the cuts lie.

    ``brackets`` are image and class, ``(rows, 2)``, and both ends, ``(rows,)`` each; classes not
    ``kept`` have no masks. All values in a bracket are of pixels left. Where these are many, so
    that a copy is not worth it, they are all pixels.
    """
    rows, low, high = brackets
    row = rows.unbind(1)
    reach, cuts = (
        torch.full_like(survey.mass, torch.inf).index_put(row, end).where(kept, torch.inf)
        for end in (low, high)
    )
    labels, count, mass = backend.claim(maps, survey, cuts, reach)
    if bool((count.sum(1) < (1 - FEW) * maps.pixels).any()):
        return Unsettled.all_of(maps, survey)
    eligible = torch.zeros_like(kept).index_put(row, kept.new_ones(()))
    part, survey, place = backend.unsettled(maps, survey, labels, eligible, void)
    return Unsettled(part, survey, labels, place, (count, mass))
