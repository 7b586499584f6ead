"""BA and TRNA (RankSEG, JMLR 24(224), 2023): expected Dice by a refined normal volume."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._backends.rows import VolumeMoments, refined_gains
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.cuts import stopping_cuts
from rankseg._formulas.records import Survey

BA_BELOW = 0.2
"""``'BA+TRNA'`` takes BA if 1 / (standard deviation of the volume) is below this, as published."""


def ba_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the mask of every class that maximises its expected Dice by BA, TRNA or either.

    A mask holds all pixels of equal probability or none of them. In a run of equal values the slope
    of the score changes its sign at most once, from minus to plus, so the best cut is at an end.
    """
    cuts = torch.full_like(survey.peak, torch.inf)
    for row, values, low, volume in _classes(backend, maps, survey, settings):
        takes_ba = _takes_ba(settings.solver, volume)
        gains = refined_gains(values, volume, settings.eps, settings.smooth, takes_ba)
        cuts[row] = _best_cut(values, low, gains)
    masks: Tensor = backend.masks(maps, survey, cuts)
    return masks


def _classes(
    backend: ModuleType, maps: Any, survey: Survey, settings: Settings
) -> Iterator[tuple[tuple[Tensor, Tensor], np.ndarray, float, VolumeMoments]]:
    """Yield the inputs of the search for every class whose peak exceeds ``pruning_prob``.

    Each item has four fields: the indices of image and class; the probabilities of the pixels that
    may be in the mask (up to where the paper stops), largest first; the cut that all of these
    exceed; and the moments of the volume.
    """
    present = survey.peak > settings.pruning_prob
    pixels = backend.sizes(maps).unsqueeze(1)
    lows, count = stopping_cuts(backend, maps, survey, pixels + settings.smooth, present)
    moments = backend.moments(maps, survey, present)
    facts = torch.stack((*moments, pixels.expand_as(lows), count, lows), -1)[present]
    mean, _, _, size, width, _ = facts.unbind(1)
    sound = facts.isfinite().all(1) & (mean >= 0) & (mean <= size) & (width > 0)
    if not sound.all():  # the tables for such a volume might have any size
        raise ValueError("probs must not change during a call: they did, to no probabilities")
    rows = present.nonzero().unsqueeze(1)
    highest = torch.full((1,), torch.inf, dtype=lows.dtype, device=lows.device)
    for row, fact in zip(rows, facts.tolist(), strict=True):
        mean, variance, third, size, width, low = fact
        at = row[:, 0], row[:, 1]
        values = backend.between(maps, survey, lows[at], highest, row, int(width))
        volume = VolumeMoments(mean, variance, third, int(size))
        yield at, values[0].cpu().numpy(), low, volume


def _takes_ba(solver: str, volume: VolumeMoments) -> bool:
    """Return whether to take BA rather than TRNA."""
    return solver == "BA" or (solver == "BA+TRNA" and volume.variance > BA_BELOW**-2)


def _best_cut(values: np.ndarray, low: float, gains: np.ndarray) -> float:
    """Return the cut of the smallest mask of largest score; equal pixels are not separated.

    ``gains`` are the scores of the masks of 1 pixel, 2 pixels, ..., minus that of the empty mask.
    """
    following = np.append(values[1:], low)
    gains = np.where(following < values, gains, -np.inf)
    best = int(gains.argmax())
    return float(following[best]) if gains[best] > 0 else float(values[0])
