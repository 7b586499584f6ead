"""Reciprocal moments ``sum_l phi(l) / (n + l + c)`` of a volume, for every count ``n`` at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg._solvers._interpolation import chebyshev_nodes, interpolation

DIRECT = 24
"""Counts, from 1, that are too close to the poles at ``n + l = 0`` to be worth interpolating."""

RATIO = 16
"""Most that ``n + l`` grows from end to end of a block."""

PRECISION = 1e-17
"""Aimed at by the number of nodes, so that errors are those of rounding."""

LENGTH = 1 << 14
"""Most counts in a block, so that temporaries stay small."""


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
        moments = distributions @ (nodes + shifted.unsqueeze(1)).reciprocal()
        return moments if matrix is None else moments @ matrix

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor | None]:
        """Counts to take the moments at, and how to have all from these (None: they are all).

        The moments are interpolated in ``u = log(n + first + 1)``. Their poles there are numbers
        not above 0, and others pi off the real axis; the errors fall like ``exp(-rate)`` per node.
        """
        if self.stop - self.start <= DIRECT:
            return self.counts, None
        beyond = self.first + 1
        low, high = math.log(self.start + beyond), math.log(self.stop - 1 + beyond)
        middle, half = (high + low) / 2, (high - low) / 2
        rate = min(math.acosh(middle / half), math.asinh(math.pi / half))
        number = 1 + math.ceil(-math.log(PRECISION) / rate)
        nodes = torch.exp(middle + half * chebyshev_nodes(number, self.counts)) - beyond
        points = ((self.counts + beyond).log() - middle) / half
        return nodes, interpolation(number, points)


def count_blocks(most: int, first: int, device: torch.device) -> Iterator[Block]:
    """Yield the counts from 1 to ``most`` in blocks that interpolation does well on."""
    start = 1
    while start <= most:
        length = DIRECT if start + first < DIRECT else min(LENGTH, (RATIO - 1) * (start + first))
        yield Block(start, min(start + length, most + 1), first, device)
        start += length
