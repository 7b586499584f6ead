"""Reciprocal moments ``sum_l phi(l) / (n + l + c)`` of a volume, for every count ``n`` at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg._decision.solvers.interpolation import chebyshev_nodes, interpolation, nodes_needed
from rankseg._formulas.quiet import VALUES_IN_ONE_THREAD, product

DIRECT = 24
"""Up to this many counts in a block, moments are computed at every count, not interpolated."""

RATIO = 4
"""``n + l`` at the end of a block is at most this many times that at its start."""


@dataclass(frozen=True)
class Block:
    """The counts ``n`` from ``start`` to ``stop - 1``; ``first`` is the smallest volume ``l``."""

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

        ``distributions`` is ``(rows, width)``: ``phi`` at the volumes ``l``. ``shifted`` is
        ``(width,)``: ``l + c`` with a constant ``c >= 0``. Returns ``(rows, stop - start)``.
        """
        nodes, matrix = self._nodes
        moments = torch.zeros_like(distributions[:, :1])
        step = max(1, VALUES_IN_ONE_THREAD // len(nodes))
        for part, some in zip(distributions.split(step, 1), shifted.split(step), strict=True):
            moments = moments + product(part, 1 / (some.unsqueeze(1) + nodes))
        return moments if matrix is None else product(moments, matrix)

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor | None]:
        """The counts at which moments are computed, and the matrix that interpolates the others.

        The matrix is None if the block is so short that moments are computed at all its counts. As
        functions of ``y = n + first`` the moments have their poles at ``y <= 0``. As functions of
        ``x = (y - middle) / (y + middle)`` they have them at ``abs(x) >= 1``. With the geometric
        mean of the block's ends as ``middle``, the block is symmetric about ``x = 0``.
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
    """Yield the counts from 1 to ``most`` in blocks, shorter the more ``rows`` (distributions)."""
    longest = VALUES_IN_ONE_THREAD // max(rows, 8)
    start = 1
    while start <= most:
        length = max(DIRECT, min(longest, (RATIO - 1) * (start + first)))
        yield Block(start, min(start + length, most + 1), first, device)
        start += length
