"""What one more pixel adds to the expected metric itself.

Let a mask hold ``n`` pixels. With the integrand of ``rankseg._formulas.expectation``, ``sum_k
part_k amount_k`` over the nodes, a pixel of probability ``p`` that joins it turns ``part`` into
``part t`` (Dice) or ``part t / (1 - p s)`` (IoU: it is no longer outside), and adds to ``amount``
as in ``Integrals``; its own label is one of those that the mask was judged by before. So what it
adds is a function of ``p`` alone, taken at the edges of the bins of a class profile, and the mask
is known by its profile.
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
    """The expected metric of some masks, and what it becomes as a pixel joins: a row for each.

    Attributes
    ----------
    ratio, smooth
        The metric.
    nodes, part, amount
        ``(rows, nodes)``: the score is ``sum part * amount``, plus 1 if ``smooth`` is not 0.
    """

    ratio: Ratio
    smooth: float
    nodes: Nodes
    part: Tensor
    amount: Tensor

    @classmethod
    def of(cls, ratio: Ratio, smooth: float, inside: Tensor, whole: Tensor) -> Expectation:
        """Take masks and classes as profiles, ``(rows, BINS, 2)``: bins count for their mean."""
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
        """Return what one more pixel of probabilities ``(rows, points)`` adds to each mask."""
        dice, less_one = self.ratio.dice, float(self.smooth > 0)
        total = torch.zeros_like(probs)
        nodes = (self.nodes.u, self.part, self.amount)
        for u, part, amount in zip(*(term.T.unsqueeze(2) for term in nodes), strict=True):
            t = torch.exp(-u)
            left = 1 - probs + probs * t
            hits = probs * t / left
            rise = 2 * hits - less_one if dice else probs + less_one * (hits - 1)
            total += part * ((amount + rise) * (t if dice else t / left) - amount)
        return total


def _filled_bins(profile: Tensor) -> Tensor:
    """Return the bins of profiles that hold pixels, next to each other and then zeros."""
    row, bin_ = (profile[..., 0] > 0).nonzero().unbind(1)
    number = torch.bincount(row, minlength=len(profile))
    place = torch.arange(len(row), device=row.device) - (number.cumsum(0) - number)[row]
    filled = profile.new_zeros(len(profile), max(1, int(number.max())), 2)
    return filled.index_put((row, place), profile[row, bin_])


def _sums(profile: Tensor, u: Tensor) -> Sums:
    """Return what the pixels of profiles contribute at every node, ``(rows, nodes)``.

    Added up one after the other: a row does not depend on how many bins other rows have.
    """
    count, mass = profile.unbind(2)
    probs = (mass / count.clamp(min=1)).clamp(max=1)
    logs, hits = [], []
    for node in u.T.unsqueeze(2):
        t = torch.exp(-node)
        shrunk, left = probs * torch.expm1(-node), 1 - probs + probs * t
        # Of a sure pixel t is left, which 1 + shrunk may round to 0.
        log_left = torch.where(left > 0.5, log1p(shrunk), log(left))
        logs.append((count * log_left).cumsum(1)[:, -1])
        hits.append((mass * t / left).cumsum(1)[:, -1])
    return Sums(torch.stack(logs, 1), torch.stack(hits, 1))
