"""Reciprocal moments ``sum_l phi(l) / (n + l + c)`` of a volume, for every count ``n`` at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg._decision.solvers.interpolation import chebyshev_nodes, interpolation, nodes_needed
from rankseg._formulas.quiet import FEW, product

DIRECT = 24
"""Counts that are too few to be worth interpolating."""

RATIO = 4
"""Most that ``n + l`` grows from end to end of a block."""


@dataclass(frozen=True)
class Block:
    """The counts from ``start`` to before ``stop``; ``first`` is the smallest volume."""

    start: int
    stop: int
    first: int
    device: torch.device

    @cached_property
    def counts(self) -> Tensor:
        """The counts: ``(stop - start,)`` float64."""
        return torch.arange(self.start, self.stop, dtype=torch.float64, device=self.device)

    def moments(self, distributions: Tensor, shifted: Tensor) -> Tensor:
        """Return ``sum_l phi(l) / (n + shifted_l)`` for each distribution and count.

        ``distributions`` is ``(rows, width)``, ``shifted`` the integers ``l`` plus a number
        not below 0, ``(width,)``; the result ``(rows, stop - start)``.
        """
        nodes, matrix = self._nodes
        moments = torch.zeros_like(distributions[:, :1])
        step = max(1, FEW // len(nodes))
        for part, some in zip(distributions.split(step, 1), shifted.split(step), strict=True):
            moments = moments + product(part, 1 / (some.unsqueeze(1) + nodes))
        return moments if matrix is None else product(moments, matrix)

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor | None]:
        """Counts to take the moments at, and how to have all from these (None: they are all).

        As functions of ``y = n + first`` the moments have all their poles at numbers not above 0,
        so as functions of ``(y - middle) / (y + middle)`` at those of modulus 1 or more. With the
        geometric mean of the block's ends as ``middle`` it is symmetric about 0.
        """
        if self.stop - self.start <= DIRECT:
            return self.counts, None
        low, high = self.start + self.first, self.stop - 1 + self.first
        middle = math.sqrt(low * high)
        reach = (high - middle) / (high + middle)
        number = nodes_needed(math.acosh(1 / reach))
        at_nodes = reach * chebyshev_nodes(number, self.device)
        nodes = middle * (1 + at_nodes) / (1 - at_nodes) - self.first
        total = self.counts + self.first
        return nodes, interpolation(number, (total - middle) / (total + middle) / reach)


def count_blocks(most: int, rows: int, first: int, device: torch.device) -> Iterator[Block]:
    """Yield the counts from 1 to ``most`` in blocks small enough for that many distributions."""
    longest = FEW // max(rows, 8)
    start = 1
    while start <= most:
        length = max(DIRECT, min(longest, (RATIO - 1) * (start + first)))
        yield Block(start, min(start + length, most + 1), first, device)
        start += length
