"""The class profile: a small summary of the maps, which is enough for cuts and adds up."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg import _backends
from rankseg._common.arguments import metric_name, names_unknown
from rankseg._common.public import public
from rankseg._decision.options import checked, smoothing
from rankseg._decision.problem import Problem
from rankseg._decision.settings import SMOOTH_PER_PIXEL, Settings
from rankseg._files.whole import write_whole
from rankseg._formulas.average import best_cuts, factor_of
from rankseg._formulas.bins import BINS, OCTAVE_BITS, OCTAVES, bin_edges
from rankseg._formulas.objectives import OBJECTIVES

__all__ = ["ClassProfile"]

LAYOUT = (OCTAVES, OCTAVE_BITS)
"""The layout of the bins, saved with a profile, so that no other layout is misread."""


@public("rankseg")
@dataclass(frozen=True, eq=False)
class ClassProfile:
    """How many pixels, and how much probability, fall in each bin of probability.

    Every image and class has 2946 bins, 64 to an octave, narrow towards 0 and towards 1. Up to the
    width of a bin, a cut depends on nothing else. Profiles add up: over the tiles of an image that
    does not fit in memory, over workers, over the images of a data set.

    Parameters
    ----------
    count : Tensor
        ``(batch, classes, 2946)`` float64: how many pixels fall in each bin.
    mass : Tensor
        The same shape: the sum of their probabilities.
    peak : Tensor
        ``(batch, classes)`` float64: the largest probability, which tells whether a class is
        present.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    The tiles of a large image add up to the image:

    >>> import torch
    >>> from rankseg import ClassProfile, RankSEG
    >>> probs = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(0)).softmax(1)
    >>> left, right = (ClassProfile.from_probs(tile) for tile in probs.chunk(2, dim=3))
    >>> cut = (left + right).cut("dice", pruning_prob=0.0)
    >>> masks = RankSEG("dice", 0.0, "multilabel", "RMA", 0.0)(probs)
    >>> bool(((probs > cut[..., None, None]) == masks).float().mean() > 0.99)
    True
    """

    count: Tensor
    mass: Tensor
    peak: Tensor

    def __post_init__(self) -> None:
        expected = (*self.peak.shape, BINS)
        if self.peak.dim() != 2 or self.count.shape != expected or self.mass.shape != expected:
            raise ValueError(
                f"count and mass must have the shape (batch, classes, {BINS}) and peak "
                f"(batch, classes), got {tuple(self.count.shape)}, {tuple(self.mass.shape)} and "
                f"{tuple(self.peak.shape)}"
            )

    @classmethod
    def from_probs(cls, probs: Any, valid: Any = None) -> ClassProfile:
        """Return the profile of every image and class, in one pass over the maps.

        Parameters
        ----------
        probs, valid
            As in a call of :class:`rankseg.RankSEG`; the errors are also the same. Pixels that are
            not valid are in no bin.
        """
        problem = Problem.parse(probs, valid, Settings(output_mode="multilabel"))
        backend, _ = _backends.choose(problem.probs.device)
        maps = backend.open_maps(problem.probs, problem.valid)
        survey = backend.survey(maps)
        problem.check_values(survey.is_invalid)
        every = torch.ones_like(survey.mass, dtype=torch.bool)
        profile = backend.profile(maps, survey, every.nonzero()).view(*every.shape, BINS, 2)
        count, mass = (term.contiguous() for term in profile.unbind(-1))
        if problem.valid is not None:
            count[..., 0] -= (~problem.valid).flatten(1).sum(1, keepdim=True)
        return cls(count, mass, survey.peak)

    @property
    def edges(self) -> Tensor:
        """The edges of the bins, ``(2947,)`` float64 from 0 to 1; a bin holds its upper edge."""
        return bin_edges(self.count.device)

    @property
    def pixels(self) -> Tensor:
        """The number of valid pixels, ``(batch, classes)`` float64."""
        return self.count.sum(-1)

    @property
    def volume(self) -> Tensor:
        """The expected volume of every class, ``(batch, classes)`` float64, in pixels."""
        return self.mass.sum(-1)

    def __add__(self, other: ClassProfile) -> ClassProfile:
        """Return the sum of two profiles, taken from different pixels of the same images.

        Raises
        ------
        ValueError
            If ``other`` has a different number of images or classes.
        """
        if not isinstance(other, ClassProfile):
            return NotImplemented
        if other.peak.shape != self.peak.shape:
            raise ValueError(
                "profiles add up when they have the same (batch, classes), got "
                f"{tuple(self.peak.shape)} and {tuple(other.peak.shape)}"
            )
        peak = torch.maximum(self.peak, other.peak)
        return ClassProfile(self.count + other.count, self.mass + other.mass, peak)

    def pooled(self) -> ClassProfile:
        """Return the profile of all images as one: a batch of 1, for data-set scores."""
        return ClassProfile(
            self.count.sum(0, keepdim=True),
            self.mass.sum(0, keepdim=True),
            self.peak.amax(0, keepdim=True),
        )

    @names_unknown
    def cut(
        self,
        metric: str = "dice",
        smooth: float = 0.0,
        correlation: float = 0.0,
        pruning_prob: float = 0.5,
    ) -> Tensor:
        """Return the cut of every class: its mask is ``probs > cut``.

        The options are those of :class:`rankseg.RankSEG` with ``solver='RMA'``. The masks are those
        of ``RankSEG``, except for pixels in the bin of the cut: the profile cannot tell them apart.
        A bin is about 1 % of the cut wide.

        Returns
        -------
        Tensor
            ``(batch, classes)`` float64, infinite for classes whose peak does not exceed
            ``pruning_prob``.
        """
        metric = metric_name(metric, OBJECTIVES)
        smooth = smoothing(smooth)
        if smooth > SMOOTH_PER_PIXEL:
            smooth = min(smooth, SMOOTH_PER_PIXEL * max([1.0, *self.pixels.flatten().tolist()]))
        objective = OBJECTIVES[metric](smooth)
        correlation = checked("correlation", correlation)
        present = self.peak > checked("pruning_prob", pruning_prob)
        factor = factor_of(correlation, self.count.device)
        profile = torch.stack((self.count, self.mass), -1).flatten(0, 1)
        _, cut, _, _ = best_cuts(profile, factor, objective)
        cut = cut.view_as(self.peak)
        return torch.where(present, cut, torch.inf)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the profile to an ``.npz`` file. The file is written whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        buffer = io.BytesIO()
        tables = {name: getattr(self, name).cpu().numpy() for name in ("count", "mass", "peak")}
        np.savez_compressed(buffer, layout=np.array(LAYOUT), **tables)
        write_whole(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ClassProfile:
        """Return a profile that :meth:`save` wrote.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file holds no profile, or a profile with a different layout of bins.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                tables = {name: file[name] for name in ("layout", "count", "mass", "peak")}
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no class profile: {error}") from error
        layout = tuple(tables.pop("layout").tolist())
        if layout != LAYOUT:
            raise ValueError(f"{path} holds a class profile with bins {layout}, not {LAYOUT}")
        return cls(**{name: torch.from_numpy(table) for name, table in tables.items()})

    def to(self, device: torch.device | str) -> ClassProfile:
        """Return the profile on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("count", "mass", "peak")}
        return replace(self, **moved)
