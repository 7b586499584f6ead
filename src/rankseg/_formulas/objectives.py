"""RMA's objectives for Dice and IoU, with all the formulas that solvers need.

RMA (RankSEG-RMA, NeurIPS 2025, arXiv 2510.15362) replaces the expectation of a ratio by a ratio
of expectations. For a mask of ``count`` pixels whose probabilities sum to ``mass``, in a class
whose probabilities sum to ``volume`` over the whole image, with ``smooth`` written ``g``::

    Dice   2 mass / (count + volume + 1 + g)  +  g / (count + volume + g)
    IoU    (mass + g) / (count + volume - mass + g)

The empty mask scores 0 where the ratio is 0/0. All arguments are float64 ``(batch, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rankseg._formulas.records import Gains


class Objective(Protocol):
    """What solvers call. Arguments and results are float64 ``(batch, classes)`` tensors.

    ``count`` and ``mass`` describe a mask: its number of pixels and the sum of their probabilities.
    ``volume`` is the sum of the probabilities over the whole image.
    """

    @property
    def smooth(self) -> float | Tensor:
        """The constant added to numerator and denominator; a scalar tensor inside traced loops."""
        ...

    def score(self, count: Tensor, mass: Tensor, volume: Tensor) -> Tensor:
        """Return the objective of a mask."""
        ...

    @property
    def fraction_at_infinity(self) -> tuple[float, float]:
        """The limit of ``bonus`` for infinitely many pixels, and ``offset - volume``."""
        ...

    @property
    def fraction(self) -> tuple[float, float] | None:
        """``bonus`` and ``offset - volume`` if they are the same for every mask, otherwise None.

        If they are, the objective is linear-fractional. By Dinkelbach's argument the best mask then
        maximises ``(mass + bonus) / (count + offset)``, and holds the pixels above that fraction.
        """
        ...

    def bonus(self, count: Tensor, volume: Tensor) -> Tensor:
        """Return the ``bonus`` of a mask.

        One more pixel raises the objective if its probability exceeds ``(mass + bonus) / (count +
        offset)``. ``bonus`` is constant, or falls with ``count`` to its limit ``bonus(inf)``.
        """
        ...

    def offset(self, volume: Tensor) -> Tensor:
        """Return the ``offset`` in the fraction of :meth:`bonus`; all masks share it."""
        ...

    def increment(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        """Return how much one more pixel adds to the objective, computed without cancellation."""
        ...

    def slope(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        """Return the derivative of the objective as a fraction of a pixel joins, at fraction 0."""
        ...


@dataclass(frozen=True)
class Dice:
    """The RMA objective for Dice; the docstring of the module has the equation."""

    smooth: float | Tensor = 0.0

    def score(self, count: Tensor, mass: Tensor, volume: Tensor) -> Tensor:
        # 2 mass / x as mass / (x / 2): with a hidden factor, mass is the largest of the tensors.
        score = mass / (count / 2 + (volume + 1 + self.smooth) / 2)
        if self._unsmoothed:
            return score
        return score + _ratio(self.smooth, count + (volume + self.smooth))

    @property
    def fraction_at_infinity(self) -> tuple[float, float]:
        return float(self.smooth / 2), float(1 + self.smooth)

    @property
    def fraction(self) -> tuple[float, float] | None:
        return self.fraction_at_infinity if self.smooth == 0 else None

    def bonus(self, count: Tensor, volume: Tensor) -> Tensor:
        return self.smooth / 2 + _ratio(self.smooth, count + volume + self.smooth)

    def offset(self, volume: Tensor) -> Tensor:
        return volume + 1 + self.smooth

    def increment(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        total = count + volume + self.smooth
        size = (total + 2) / 2
        cost = mass / (total + 1)
        if self._unsmoothed:
            return _line(cost, size)
        return _line(cost + _ratio(self.smooth, total * (total + 1)) * size, size)

    def slope(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        total = count + volume + self.smooth
        size = (total + 1) / 2
        cost = mass / (total + 1)
        if self._unsmoothed:
            return _line(cost, size)
        return _line(cost + _ratio(self.smooth, total**2) * size, size)

    @property
    def _unsmoothed(self) -> bool:
        """Whether ``smooth`` is 0: then the terms with ``smooth`` are skipped, to save time."""
        return isinstance(self.smooth, float) and self.smooth == 0


@dataclass(frozen=True)
class IoU:
    """The RMA objective for IoU; the docstring of the module has the equation."""

    smooth: float | Tensor = 0.0

    def score(self, count: Tensor, mass: Tensor, volume: Tensor) -> Tensor:
        return _ratio(mass + self.smooth, count + (volume + self.smooth) - mass)

    @property
    def fraction_at_infinity(self) -> tuple[float, float]:
        return float(self.smooth), float(2 * self.smooth)

    @property
    def fraction(self) -> tuple[float, float] | None:
        return self.fraction_at_infinity

    def bonus(self, count: Tensor, volume: Tensor) -> Tensor:
        # f = (mass + g) / (count + volume - mass + g) rises with
        # f / (1 + f) = (mass + g) / (count + volume + 2 g), which is the cut itself.
        return torch.zeros_like(volume) + self.smooth

    def offset(self, volume: Tensor) -> Tensor:
        return volume + 2 * self.smooth

    def increment(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        score = self.score(count, mass, volume)
        size = count + volume - mass + self.smooth + 1
        return Gains(slope=1 + score, cost=score, size=size, shrink=torch.ones_like(size))

    def slope(self, count: Tensor, mass: Tensor, volume: Tensor) -> Gains:
        score = self.score(count, mass, volume)
        size = count + volume - mass + self.smooth
        size = torch.where(size > 0, size, 1.0)  # an all-zero class: its gains are 0
        return Gains(slope=1 + score, cost=score, size=size, shrink=torch.zeros_like(size))


OBJECTIVES: dict[str, Callable[[float | Tensor], Objective]] = {"dice": Dice, "iou": IoU}


def _line(cost: Tensor, size: Tensor) -> Gains:
    return Gains(slope=torch.ones_like(size), cost=cost, size=size, shrink=torch.zeros_like(size))


def _ratio(numerator: Tensor | float, denominator: Tensor) -> Tensor:
    """Divide, with 0/0 as 0."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)
