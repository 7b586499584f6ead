"""Sums over the pixels of an image, weighted by a Gaussian of the distance, on a coarse grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NODES_PER_THETA = 8
"""Nodes of the coarse grid per standard deviation of the kernel, along every axis.

Cubic interpolation to and from these nodes is off by 2e-5 of the largest value of the kernel. If
``theta`` is at most this many pixels, every pixel is a node, and the sums are exact."""

CUBIC = 4
"""Nodes of one axis that a pixel is interpolated from."""

LONGEST_PART = 64
"""Rows of a part, in distances between nodes: a limit of the memory for the weights."""


@dataclass(frozen=True)
class Part:
    """Some rows of the image along its first axis, and the nodes that they are interpolated from.

    ``weights`` is ``(rows, nodes)``, or None if every row is a node.
    """

    rows: slice
    nodes: slice
    weights: Tensor | None


@dataclass(frozen=True)
class Kernel:
    r"""The kernel ``amplitude * exp(-d^2 / (2 theta^2))`` of the distance ``d`` of two pixels.

    The sums ``(k * v)_j = \sum_i k(d_ij) v_i`` are found in three steps: `collect` gives the nodes
    of a coarse grid their share of every ``v_i``, `spread` applies the kernel to the nodes, and
    `at` interpolates to pixels. The first and the last step take one part of the image at a time.

    Attributes
    ----------
    parts
        The parts of the image, in order.
    weights
        For every axis but the first ``(pixels, nodes)``: weights of cubic interpolation, or None
        if every pixel is a node.
    nodes
        The number of nodes along every axis.
    transform
        The Fourier transform of the kernel on the grid, which is padded to ``padded`` nodes.
    """

    parts: tuple[Part, ...]
    weights: tuple[Tensor | None, ...]
    nodes: tuple[int, ...]
    transform: Tensor
    padded: tuple[int, ...]

    @classmethod
    def build(
        cls,
        spatial: Sequence[int],
        theta: Sequence[float],
        amplitude: float,
        like: Tensor,
        values_per_part: int,
    ) -> Kernel:
        """Return the kernel for images of the shape ``spatial``.

        ``theta`` is in pixels, a number for every axis. ``like`` has the dtype and the device of
        the values to sum. A part has about ``values_per_part`` pixels.
        """
        axes = [_Axis(size, width) for size, width in zip(spatial, theta, strict=True)]
        first, *others = axes
        nodes = tuple(axis.nodes for axis in axes)
        padded = tuple(2 * number - 1 for number in nodes)
        transform = torch.full((), amplitude, dtype=torch.complex128, device=like.device)
        for index, axis in enumerate(axes):
            row = axis.kernel(like)
            is_last = index == len(axes) - 1
            spectrum = torch.fft.rfft(row) if is_last else torch.fft.fft(row)
            transform = transform.unsqueeze(-1) * spectrum
        rows = max(1, min(values_per_part // math.prod(spatial[1:]), first.longest_part))
        ends = [(start, min(start + rows, spatial[0])) for start in range(0, spatial[0], rows)]
        parts = tuple(
            Part(slice(*end), first.nodes_of(*end), first.weights(*end, like)) for end in ends
        )
        weights = tuple(axis.weights(0, axis.pixels, like) for axis in others)
        return cls(parts, weights, nodes, transform, padded)

    def collect(self, values: Tensor, part: Part) -> Tensor:
        """Return the shares of the nodes in the ``values`` of a part: float64 ``(k, *nodes)``.

        ``values`` is ``(k, *part of the image)``.
        """
        # In parts of fewer rows than nodes, collecting the first axis first would add work.
        is_thin = part.weights is not None and len(part.weights) < part.weights.shape[1]
        shares = values if is_thin else _collected(values, part)
        for weights in self.weights:
            shares = _contracted(shares, weights, 0)
        shares = _collected(shares, part) if is_thin else shares
        whole = shares.new_zeros(len(values), *self.nodes, dtype=torch.float64)
        whole[:, part.nodes] = shares.double()
        return whole

    def spread(self, shares: Tensor) -> Tensor:
        """Return the sums at the nodes of the first axis and the pixels of the others, for `at`."""
        axes = tuple(range(1, shares.dim()))
        spectrum = torch.fft.rfftn(shares, self.padded, axes) * self.transform
        sums: Tensor = torch.fft.irfftn(spectrum, self.padded, axes)
        sums = sums[(slice(None), *(slice(number) for number in self.nodes))]
        for weights in self.weights:
            sums = _contracted(sums, weights, 1)
        return sums

    def at(self, sums: Tensor, part: Part, dtype: torch.dtype) -> Tensor:
        """Return the sums at the pixels of a part, at least 0: ``(k, *part of the image)``."""
        here = sums[:, part.nodes].to(dtype)
        if part.weights is not None:
            pixels = part.weights @ here.reshape(len(sums), part.weights.shape[1], -1)
            here = pixels.reshape(len(sums), -1, *sums.shape[2:])
        return here.clamp(0)  # cubic interpolation may undershoot


def _collected(values: Tensor, part: Part) -> Tensor:
    """Return the shares of the nodes of the first axis; the other axes stay as they are."""
    if part.weights is None:
        return values
    shares = part.weights.T @ values.reshape(len(values), len(part.weights), -1)
    return shares.reshape(len(values), -1, *values.shape[2:])


def _contracted(values: Tensor, weights: Tensor | None, axis: int) -> Tensor:
    """Sum over the third axis of ``values`` and an axis of ``weights``; the result comes last."""
    if weights is None:
        return values.movedim(2, -1)
    sums: Tensor = torch.tensordot(values, weights.to(values.dtype), ([2], [axis]))
    return sums


@dataclass(frozen=True)
class _Axis:
    """One spatial axis. Its nodes are ``step`` pixels apart; the first is one before pixel 0."""

    pixels: int
    theta: float

    @property
    def step(self) -> float:
        return max(1.0, self.theta / NODES_PER_THETA)

    @property
    def nodes(self) -> int:
        return int(self.nodes_of(0, self.pixels).stop)

    @property
    def longest_part(self) -> int:
        return self.pixels if self.step in (1, math.inf) else int(LONGEST_PART * self.step)

    def nodes_of(self, start: int, stop: int) -> slice:
        """Return the nodes that the pixels from ``start`` to ``stop - 1`` are interpolated from."""
        if self.step == 1:
            return slice(start, stop)
        if math.isinf(self.step):
            return slice(0, 1)
        return slice(int(start / self.step), int((stop - 1) / self.step) + CUBIC)

    def weights(self, start: int, stop: int, like: Tensor) -> Tensor | None:
        """Return the weights of these nodes for the pixels; None if every pixel is a node."""
        if self.step == 1:
            return None
        if math.isinf(self.step):
            return like.new_ones(stop - start, 1)
        place = torch.arange(start, stop, dtype=torch.float64, device=like.device) / self.step
        first = place.floor()
        t = (place - first).unsqueeze(1)
        low, high = t * (t - 1), (t + 1) * (t - 2)
        cubic = (-low * (t - 2) / 6, (t - 1) * high / 2, -t * high / 2, low * (t + 1) / 6)
        nodes = self.nodes_of(start, stop)
        index = first.long().unsqueeze(1) + torch.arange(
            -nodes.start, CUBIC - nodes.start, device=like.device
        )
        weights = t.new_zeros(stop - start, nodes.stop - nodes.start)
        return weights.scatter_(1, index, torch.cat(cubic, 1)).to(like.dtype)

    def kernel(self, like: Tensor) -> Tensor:
        """Return the kernel at the distances from node 0, on a circle of nearly twice the nodes."""
        node = torch.arange(self.nodes, dtype=torch.float64, device=like.device)
        distance = node * self.step / self.theta if self.nodes > 1 else node
        row = torch.exp(-distance.square() / 2)
        return torch.cat((row, row[1:].flip(0)))
