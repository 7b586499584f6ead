"""The distribution of the volume of a class (its number of pixels) that BA and TRNA assume.

The volume is a sum of independent labels, so it is Poisson-binomial. Dai and Li (RankSEG, JMLR
24(224), 2023) replace that distribution by the refined normal of the same mean, variance and
skewness. They keep the integers of its central ``1 - eps`` interval and renormalise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg._formulas.refined_normal import refined_normal_cdf

HEAVY = 16
"""A pixel with more than 1/16 of the variance gets a distribution computed for it alone (TRNA).
Fewer than 16 pixels can have so much."""

CERTAIN = 1e-12
"""Least variance. With less, the volume is certain to be its mean, an integer: in float64 the
normal distribution is then a step."""

LEAST = 1e-9
"""Least total probability to renormalise by. Leaving out a pixel of the class always keeps more in
``Volume.bounds``; leaving out the made-up pixel of an interpolation node may keep less."""


@dataclass(frozen=True)
class Volume:
    """Mean, variance and third central moment of the volume of a class, in pixels.

    ``size`` is the largest possible volume, the number of pixels of the image. ``eps`` is the
    probability that is cut off, half of it in each tail.
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
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest volume that sums run over, both included.

        The quantiles are those of the continuous distribution ``F((y - mean) / sd)``. The first
        volume is ``floor(quantile(eps / 2)) - 1``, at least 0. The last is ``ceil(quantile(1 - eps
        / 2))``, at most ``size``; it is found in the distribution of ``-y``.
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
        """The volumes that sums run over, those of ``bounds`` included: ``(width,)`` float64."""
        first, last = self.bounds
        return torch.arange(first, last + 1, dtype=torch.float64, device=self.device)

    @cached_property
    def probabilities(self) -> Tensor:
        """The probability of each volume in ``integers``: ``(1, width)``."""
        return self.without(torch.zeros(1, dtype=torch.float64, device=self.device))

    def without(self, pixels: Tensor) -> Tensor:
        """Return the distribution of the volume of all pixels but one: ``(pixels, width)``.

        ``pixels``, ``(pixels,)``, holds the probability of the pixel that each row leaves out. The
        columns are ``integers`` in every row. The refined normal may be negative in a tail and is
        not clipped: the rows are summed against smooth functions, and clipping would bias the sums.
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
    """Count, in rows of ascending ``x``, the values before ``F(x)`` first exceeds a probability.

    The probability is below 1/2. With ``|skew| > 3``, ``F`` may fall below it again further right.
    So the count ends at an ``x`` where ``F`` has surely exceeded it: at 0, or for negative skewness
    at ``-sqrt 3`` or ``sqrt 3``, where the skewness term of ``F`` has its extrema.
    """
    turn = x.new_full((len(x), 1), -math.sqrt(3))
    below = refined_normal_cdf(torch.cat((turn, x), 1), skew) <= probability
    end = torch.where(skew >= 0, 0.0, torch.where(below[:, :1], -turn, turn))
    before: list[int] = (below[:, 1:] & (x < end)).int().argmin(1).tolist()
    return before
