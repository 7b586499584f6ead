"""The best cut of an objective that is not linear-fractional, found from the class profile.

Such an objective depends on a mask by a few sums over its pixels: their count, and sums of
functions of their probabilities. These sums are the *state* of the mask. The profile gives the
state of the mask above every edge between two bins, without another pass over the pixels. The best
cut is where the gain of one more pixel turns positive, within a bin of the best edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced
from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.quiet import product

PROFILES_AT_ONCE = 16
"""Rows (a row is one class of one image) treated at a time. Temporaries stay small, so that torch
wakes no threads: on a busy machine that takes far longer than the work."""

CELL = 32
"""Bins of a cell. The objective is evaluated at the edges of the cells first."""

PIECES = 4
"""Pieces a profile is cut into for summation: small matrices, so that NumPy wakes no threads."""

Score = Callable[[Tensor], Tensor]
"""The objective of masks, from their states: ``(rows, masks, functions)`` to ``(rows, masks)``."""


@dataclass(frozen=True)
class Curves:
    """Functions of the probability that are linear within every bin.

    ``lines`` is ``(BINS, 2, functions)`` float64: intercept and slope of each function in each bin.
    The first two functions are 1 and the probability itself, whose sums over a mask are its count
    and mass. Because of linearity, the sums over pixels follow exactly from count and mass of every
    bin.
    """

    lines: Tensor

    @classmethod
    def through(cls, knots: Tensor) -> Curves:
        """Return 1, the probability, and the functions through values at the edges of the bins.

        ``knots`` holds the values, ``(BINS + 1, functions)``.
        """
        edges = bin_edges(knots.device).unsqueeze(1)
        knots = torch.cat((torch.ones_like(edges), edges, knots), 1)
        slope = knots.diff(dim=0) / edges.diff(dim=0)
        return cls(torch.stack((knots[:-1] - slope * edges[:-1], slope), 1))

    @property
    def functions(self) -> int:
        """The number of functions, with the first two."""
        return self.lines.shape[2]

    def sums(self, profile: Tensor) -> Tensor:
        """Return the states ``(rows, functions)`` of all pixels of profiles ``(rows, BINS, 2)``."""
        pieces = self.lines.view(PIECES, -1, self.functions)
        table = profile.reshape(profile.shape[0], PIECES, 2 * BINS // PIECES)
        parts = [table] if is_traced() else table.split(PROFILES_AT_ONCE)
        sums = [product(part.transpose(0, 1), pieces).sum(0) for part in parts]
        return torch.cat(sums)

    def sums_by_cell(self, profile: Tensor) -> Tensor:
        """Return the state of the pixels in each cell of bins, ``(rows, cells, functions)``."""
        number = BINS // CELL
        whole = number * CELL  # the last cell may lack bins, and is summed by itself
        cells = profile[:, :whole].reshape(-1, number, 2 * CELL).transpose(0, 1)
        last = profile[:, whole:].flatten(1).unsqueeze(0)
        sums = product(cells, self.lines[:whole].view(number, 2 * CELL, -1))
        sums_of_last = product(last, self.lines[whole:].flatten(0, 1).unsqueeze(0))
        return torch.cat((sums, sums_of_last)).transpose(0, 1)

    def in_bins(self, bins: Tensor, count: Tensor, mass: Tensor) -> Tensor:
        """Return the states of the pixels in given bins, ``(*bins.shape, functions)``.

        ``count`` and ``mass`` have the shape of ``bins``: pixels in that bin, and the sum of their
        probabilities.
        """
        lines = self.lines.index_select(0, bins.flatten())  # indexing would wake threads
        lines = lines.view(*bins.shape, *self.lines.shape[1:])
        intercept, slope = lines.unbind(-2)
        return intercept * count.unsqueeze(-1) + slope * mass.unsqueeze(-1)


def row_slices(rows: int) -> Iterator[slice]:
    """Yield slices of ``PROFILES_AT_ONCE`` rows, at least one slice.

    A traced graph takes all rows in one slice: it would be fixed to one number of slices.
    """
    if is_traced():
        yield slice(None)
        return
    for start in range(0, max(1, rows), PROFILES_AT_ONCE):
        yield slice(start, start + PROFILES_AT_ONCE)


def above_cells(profile: Tensor, curves: Curves) -> Tensor:
    """Return the states of the masks above the edges of all cells, the edges 0 and 1 included.

    Returns ``(rows, cells + 1, functions)``, from profiles ``(rows, BINS, 2)``.
    """
    cells = curves.sums_by_cell(profile)
    return _from_above(cells, torch.zeros_like(cells[:, 0]))


def best_edge(
    profile: Tensor, above: Tensor, curves: Curves, score: Score
) -> tuple[Tensor, Tensor]:
    """Return the edge at which the objective is largest, and the state of the mask above the edge.

    The edge, ``(rows,)`` int64, is the index of the bin above it; the state is ``(rows,
    functions)``. ``profile`` is ``(rows, BINS, 2)``, and ``above`` is `above_cells` of it. The
    search evaluates all edges of cells, then all edges of bins in the two nearest cells that hold
    pixels, below and above the best edge of a cell.
    """
    filled = above[:, :-1, 0] > above[:, 1:, 0]
    coarse = score(above).argmax(1).clamp(1, filled.shape[1] - 1)  # with a cell on either side
    cells = torch.stack(_neighbours(filled, coarse), 1)
    bins = (cells.unsqueeze(2) * CELL + torch.arange(CELL, device=cells.device)).flatten(1)
    there = bins < BINS  # the last cell may lack bins
    bins = bins.clamp_max(BINS - 1)
    row = torch.arange(profile.shape[0], device=bins.device)
    count, mass = (profile[row.unsqueeze(1), bins] * there.unsqueeze(2)).unbind(2)
    states = _from_above(curves.in_bins(bins, count, mass), above[row, cells[:, 1] + 1])
    edges = torch.cat((bins, bins[:, -1:] + 1), 1)
    best = score(states).argmax(1)
    return edges[row, best], states[row, best]


def bins_around(profile: Tensor, edge: Tensor) -> Tensor:
    """Return the edges of the nearest bins with pixels below and above ``edge``: ``(rows, 4)``.

    Edges are indices of the bin above. Order: both edges of the lower bin, then of the upper bin.
    """
    lower, upper = _neighbours(profile[..., 0] > 0, edge)
    return torch.stack((lower, lower + 1, upper, upper + 1), 1)


def root_between(places: Tensor, gains: Tensor) -> Tensor:
    """Return where gains turn positive, ``(rows,)``, by linear interpolation.

    ``places`` are ascending probabilities, ``gains`` the gains there, ``(rows, n)`` each.
    """
    row = torch.arange(gains.shape[0], device=gains.device)
    after = (gains <= 0).sum(1).clamp(1, gains.shape[1] - 1)
    low, high = gains[row, after - 1], gains[row, after]
    share = torch.where(high > low, -low / (high - low), 0.0).clamp(0, 1)
    return places[row, after - 1].lerp(places[row, after], share)


def _neighbours(filled: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last filled place below an edge and the first at or above it, ``(rows,)`` each.

    ``filled`` is ``(rows, places)`` boolean. If no such place is filled, returns the first or the
    last place.
    """
    places = torch.arange(filled.shape[1], device=filled.device)
    below = places < edge.unsqueeze(1)
    lower = places.where(filled & below, 0).amax(1)
    upper = places.where(filled & ~below, places.shape[0] - 1).amin(1)
    return lower, upper


def _from_above(states: Tensor, above: Tensor) -> Tensor:
    """Return the states of the masks above every edge of some bins.

    ``states`` is the state of the pixels in each bin, ``(rows, bins, functions)``. ``above`` is the
    state of all pixels above the last bin, ``(rows, functions)``. Returns ``(rows, bins + 1,
    functions)``.
    """
    return torch.cat((states, above.unsqueeze(1)), 1).flip(1).cumsum(1).flip(1)
