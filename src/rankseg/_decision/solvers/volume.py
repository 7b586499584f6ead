"""The volume of a class as BA and TRNA see it: a refined normal variable on a few integers.

Dai and Li (RankSEG, JMLR 24(224), 2023) replace the Poisson-binomial volume of a class by the
refined normal with its mean, variance and skewness, on the integers of its central ``1 - eps``
interval, where it is renormalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg._formulas.refined_normal import refined_normal_cdf

HEAVY = 16
"""A pixel with more than 1/16 of the variance is taken by itself; there are fewer than 16."""

CERTAIN = 1e-12
"""Variance below which a volume is its mean, an integer: the normal is a step to float64."""

LEAST = 1e-9
"""No pixel that there is leaves less than this within the integers that count."""


@dataclass(frozen=True)
class Volume:
    """Mean, variance and third central moment of the volume; ``size`` is the largest possible.

    ``eps`` is the probability left out, half of it at either end.
    """

    mean: float
    variance: float
    third: float
    size: int
    eps: float
    device: torch.device

    @property
    def sd(self) -> float:
        """Standard deviation, at least that of a volume that is certain."""
        return math.sqrt(max(self.variance, CERTAIN))

    @cached_property
    def range(self) -> tuple[int, int]:
        """The integers that count, first and last.

        The first is one below the integer under the quantile of ``eps / 2``, at least 0; the last
        is the integer over that of ``1 - eps / 2``, at most ``size``. Here the distribution is
        taken as continuous, ``F((y - mean) / sd)``; the upper tail is the lower one mirrored.
        """
        reach = math.sqrt(2 * (math.log(2) - math.log(self.eps))) + 4
        lowest = math.floor(self.mean - reach * self.sd) - 2
        highest = math.ceil(self.mean + reach * self.sd) + 2
        whole = torch.arange(lowest, highest + 1, dtype=torch.float64, device="cpu")
        x = (whole - self.mean) / self.sd
        skew = self.third / self.sd**2 / self.sd
        before, after = _numbers_before(
            torch.stack((x, -x.flip(0))), x.new_tensor([[skew], [-skew]]), self.eps / 2
        )
        return max(0, lowest + before - 2), min(self.size, highest - after + 1)

    @cached_property
    def integers(self) -> Tensor:
        """The integers that count: ``(width,)`` float64."""
        first, last = self.range
        return torch.arange(first, last + 1, dtype=torch.float64, device=self.device)

    @cached_property
    def probabilities(self) -> Tensor:
        """The probability of each integer: ``(1, width)``."""
        return self.without(torch.zeros(1, dtype=torch.float64, device=self.device))

    def without(self, pixels: Tensor) -> Tensor:
        """Return the same with one pixel left out, for each of some: ``(pixels, width)``.

        ``pixels`` holds the probabilities of those left out. The integers stay the same. Where
        the refined normal is negative in a tail it is kept so: its sums against smooth functions
        are what is wanted, and cutting it off would shift them.
        """
        p = pixels.unsqueeze(1)
        spread = p * (1 - p)
        variance = (self.variance - spread).clamp(min=CERTAIN)
        sd = variance.sqrt()
        skew = (self.third - spread * (1 - 2 * p)) / variance / sd
        edges = torch.cat((self.integers[:1] - 1, self.integers)) + 0.5
        cumulative = refined_normal_cdf((edges - (self.mean - p)) / sd, skew)
        probabilities = cumulative.diff(dim=1)
        total = cumulative[:, -1:] - cumulative[:, :1]
        return probabilities / total.clamp(min=LEAST)


def _numbers_before(x: Tensor, skew: Tensor, probability: float) -> list[int]:
    """Count, in rows of ascending ``x``, those before ``F`` first exceeds a probability below 1/2.

    With a skewness beyond 3 ``F`` may fall again later. What is counted ends where it is known to
    have exceeded the probability: at 0, or if skewed to the left at one of its turns, +-sqrt 3.
    """
    turn = x.new_full((len(x), 1), -math.sqrt(3))
    below = refined_normal_cdf(torch.cat((turn, x), 1), skew) <= probability
    end = torch.where(skew >= 0, 0.0, torch.where(below[:, :1], -turn, turn))
    before: list[int] = (below[:, 1:] & (x < end)).int().argmin(1).tolist()
    return before
