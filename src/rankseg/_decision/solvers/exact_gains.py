"""How much one more pixel adds to the expected metric itself, rather than to RMA's objective.

The expected metric is ``sum_k weight_k amount_k`` over quadrature nodes ``k``: see
``rankseg._formulas.expectation``. A pixel of probability ``p`` that joins a mask multiplies
``weight`` by ``t`` (Dice) or by ``t / (1 - p s)`` (IoU, since the pixel is no longer outside). It
also adds to ``amount`` as described in ``Integrals``. The pixel was in the sums over the image
before it joined, so the gain is a function of ``p`` alone. The gain is evaluated at the edges of
the bins of a class profile, and the sums over the mask are taken from the profile of the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg._formulas.expectation import Nodes, Ratio, Sums, count_nodes, integrand, place_nodes
from rankseg._formulas.quiet import log, log1p

__all__ = ["Expectation"]


@dataclass(frozen=True)
class Expectation:
    """The expected metric of several masks, one a row, and the gain of one more pixel in each.

    Attributes
    ----------
    ratio, smooth
        The metric, Dice or IoU, and its smoothing.
    nodes, weight, amount
        ``(rows, nodes)``: the expected metric is ``sum(weight * amount)`` over the nodes, plus 1 if
        ``smooth`` is not 0.
    """

    ratio: Ratio
    smooth: float
    nodes: Nodes
    weight: Tensor
    amount: Tensor

    @classmethod
    def of(cls, ratio: Ratio, smooth: float, inside: Tensor, whole: Tensor) -> Expectation:
        """Return the expected metric of masks, given as profiles ``(rows, BINS, 2)``.

        ``inside`` holds the pixels of the mask, ``whole`` all pixels of the image. Every pixel
        counts with the mean probability of its bin.
        """
        outside = (whole - inside).clamp(min=0)
        count, mass = inside.sum(1).unbind(1)
        volume = whole[..., 1].sum(1)
        rest = ratio.rest(mass, volume - mass)
        rate = count + volume + smooth + 1
        needed = count_nodes(rate, count + smooth, rest)
        nodes = place_nodes(rate, needed, int(needed.max()))
        sums = (_sums(_filled_bins(side), nodes.u) for side in (inside, outside))
        return cls(ratio, smooth, nodes, *integrand(ratio, smooth, nodes, count, mass, *sums))

    def gains(self, probs: Tensor) -> Tensor:
        """Return the gain of each mask from one more pixel of each probability, ``(rows, points)``.

        ``probs`` is ``(rows, points)``; each gain is for that one pixel alone.
        """
        dice, less_one = self.ratio.dice, float(self.smooth > 0)
        total = torch.zeros_like(probs)
        nodes = (self.nodes.u, self.weight, self.amount)
        for u, weight, amount in zip(*(term.T.unsqueeze(2) for term in nodes), strict=True):
            t = torch.exp(-u)
            left = 1 - probs + probs * t
            hits = probs * t / left
            rise = 2 * hits - less_one if dice else probs + less_one * (hits - 1)
            total += weight * ((amount + rise) * (t if dice else t / left) - amount)
        return total


def _filled_bins(profile: Tensor) -> Tensor:
    """Move the bins that hold pixels to the front of each row: ``(rows, most filled, 2)``.

    Rows with fewer filled bins end with zeros.
    """
    row, bin_ = (profile[..., 0] > 0).nonzero().unbind(1)
    number = torch.bincount(row, minlength=len(profile))
    place = torch.arange(len(row), device=row.device) - (number.cumsum(0) - number)[row]
    filled = profile.new_zeros(len(profile), max(1, int(number.max())), 2)
    return filled.index_put((row, place), profile[row, bin_])


def _sums(profile: Tensor, u: Tensor) -> Sums:
    """Return the sums of `series` over the pixels of profiles, at every node: ``(rows, nodes)``.

    Bins are added in order, so that a row does not depend on how many bins other rows have.
    """
    count, mass = profile.unbind(2)
    probs = (mass / count.clamp(min=1)).clamp(max=1)
    logs, hits = [], []
    for node in u.T.unsqueeze(2):
        t = torch.exp(-node)
        shrunk, left = probs * torch.expm1(-node), 1 - probs + probs * t
        # For p near 1, left is near t, which 1 + shrunk may round to 0.
        log_left = torch.where(left > 0.5, log1p(shrunk), log(left))
        logs.append((count * log_left).cumsum(1)[:, -1])
        hits.append((mass * t / left).cumsum(1)[:, -1])
    return Sums(torch.stack(logs, 1), torch.stack(hits, 1))
