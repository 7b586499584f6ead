"""The best cut of an objective that is no single fraction, found from the class profile.

What such an objective needs of a mask are a few sums over its pixels, its *state*: their count,
and sums of functions of their probabilities. The profile gives, without a look at the pixels, the
state of the mask above every edge between two bins. The values in the two bins around the best
edge are then gathered and sorted, and the best place among them is the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from rankseg._backends._bins import BINS, bin_edges
from rankseg._quiet import product

ROWS = 16
"""Images and classes treated at a time: temporaries stay small, and the threads of torch asleep,
which on a busy machine take far longer to wake than the work takes."""

FEW = 17
"""Functions with which so many rows are treated at a time."""

CELL = 16
"""Bins between two edges at which the objective is first looked at."""

PIECES = 4
"""Parts of a profile that are summed at a time, so that NumPy wakes no threads either."""

GRID = 32
"""Steps between the places among sorted values at which it is looked at at a time."""

CROWD = 1 << 16
"""Values in a bracket that is narrowed before they are gathered."""

SHARPEST = 1e-9
"""Relative width of a bracket that is not narrowed again: its values are as good as equal."""

PLACES = 7
"""Places at which a crowded bracket is looked into at a time; odd, for the edge between bins."""

Score = Callable[[Tensor], Tensor]
"""The objective of masks, from their states: ``(rows, masks, functions)`` to ``(rows, masks)``."""


def one_after_the_other(scores: Sequence[Score]) -> Score:
    """Return the score of rows that come once for every objective, in their order."""

    def score(states: Tensor) -> Tensor:
        parts = states.tensor_split(len(scores))
        return torch.cat([each(part) for each, part in zip(scores, parts, strict=True)])

    return score if len(scores) > 1 else scores[0]


@dataclass(frozen=True)
class Curves:
    """Functions of the probability that are straight between the edges of bins.

    ``lines`` is ``(BINS, 2, functions)`` float64: intercept and slope. The first two functions are
    1 and the probability itself, whose sums are count and mass. All sums over pixels follow exactly
    from count and mass of every bin.
    """

    lines: Tensor

    @classmethod
    def through(cls, knots: Tensor) -> Curves:
        """Return those two and the curves through ``(BINS + 1, functions)`` values at the edges."""
        edges = bin_edges(knots.device).unsqueeze(1)
        knots = torch.cat((torch.ones_like(edges), edges, knots), 1)
        slope = knots.diff(dim=0) / edges.diff(dim=0)
        return cls(torch.stack((knots[:-1] - slope * edges[:-1], slope), 1))

    @property
    def functions(self) -> int:
        """How many there are."""
        return self.lines.shape[2]

    def parts(self, rows: int) -> Iterator[slice]:
        """Slices of the rows to treat at a time, one at least: fewer, the more functions.

        In a traced graph all rows, because the graph would hold for one number of slices only.
        """
        if torch.compiler.is_compiling():
            yield slice(None)
            return
        step = max(1, ROWS * FEW // self.functions)
        for start in range(0, max(1, rows), step):
            yield slice(start, start + step)

    def sums(self, profile: Tensor) -> Tensor:
        """Return the states ``(rows, functions)`` of all pixels of profiles ``(rows, BINS, 2)``."""
        pieces = self.lines.view(PIECES, -1, self.functions)
        table = profile.reshape(len(profile), PIECES, 2 * BINS // PIECES)
        parts = [table] if torch.compiler.is_compiling() else table.split(ROWS)
        sums = [product(part.transpose(0, 1), pieces).sum(0) for part in parts]
        return torch.cat(sums)

    def sums_by_cell(self, profile: Tensor) -> Tensor:
        """Return the states of all pixels in each cell of bins: ``(rows, cells, functions)``."""
        number = BINS // CELL
        whole = number * CELL  # the last cell may lack bins, and is summed by itself
        cells = profile[:, :whole].reshape(-1, number, 2 * CELL).transpose(0, 1)
        last = profile[:, whole:].flatten(1).unsqueeze(0)
        sums = product(cells, self.lines[:whole].view(number, 2 * CELL, -1))
        sums_of_last = product(last, self.lines[whole:].flatten(0, 1).unsqueeze(0))
        return torch.cat((sums, sums_of_last)).transpose(0, 1)

    def in_bins(self, bins: Tensor, count: Tensor, mass: Tensor) -> Tensor:
        """Return the states of pixels that share a bin, from their count and mass."""
        lines = self.lines.index_select(0, bins.flatten())  # indexing would wake threads
        lines = lines.view(*bins.shape, *self.lines.shape[1:])
        intercept, slope = lines.unbind(-2)
        return intercept * count.unsqueeze(-1) + slope * mass.unsqueeze(-1)


@dataclass(frozen=True)
class Bracket:
    """The ends between which the best cut of every row lies, and the states of the masks there.

    Ends and bins are ``(rows,)``, states ``(rows, functions)``. The values between lie in two bins,
    ``lower`` and ``upper``, with none in the bins between these.
    """

    low: Tensor
    high: Tensor
    below: Tensor
    above: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def extra(self) -> Tensor:
        """Return how many values lie between."""
        return (self.below[:, 0] - self.above[:, 0]).long()

    @property
    def top(self) -> Tensor:
        """The largest value between: of the last bin also what exceeds 1 by rounding."""
        return self.high.where(self.high < 1, torch.inf)

    def where(self, chosen: Tensor, other: Bracket) -> Bracket:
        """Take the rows ``chosen`` from another bracket."""
        pairs = {
            name: (chosen if old.dim() == 1 else chosen.unsqueeze(1), getattr(other, name), old)
            for name, old in vars(self).items()
        }
        return Bracket(**{name: torch.where(*pair) for name, pair in pairs.items()})


def above_cells(profile: Tensor, curves: Curves) -> Tensor:
    """Return the states of the masks above the edges between cells of bins, and above 0 and 1.

    ``(rows, cells + 1, functions)`` from profiles ``(rows, BINS, 2)``.
    """
    cells = curves.sums_by_cell(profile)
    return from_above(cells, torch.zeros_like(cells[:, 0]))


@dataclass(frozen=True)
class _Fine:
    """The bins around the best edge between cells: those of the filled cells next to it.

    Rows come once for every objective.

    Attributes
    ----------
    bins
        ``(rows, k)``, rising. What the last cell lacks is the last bin again, with nothing in it.
    count, mass
        What they hold.
    states
        ``(rows, k + 1, functions)``: of the masks above their lower edges, and the last's upper.
    best
        ``(rows,)``: the place of the best of these.
    """

    bins: Tensor
    count: Tensor
    mass: Tensor
    states: Tensor
    best: Tensor

    @classmethod
    def around_best(
        cls, profile: Tensor, above: Tensor, curves: Curves, scores: Sequence[Score]
    ) -> _Fine:
        filled = (above[:, :-1, 0] > above[:, 1:, 0]).repeat(len(scores), 1)
        edge = torch.cat([score(above).argmax(1) for score in scores])
        edge = edge.clamp(1, filled.shape[1] - 1)  # with a cell on either side
        cells = torch.stack(_neighbours(filled, edge), 1)
        bins = (cells.unsqueeze(2) * CELL + torch.arange(CELL, device=cells.device)).flatten(1)
        there = bins < BINS
        bins = bins.clamp_max(BINS - 1)
        row = torch.arange(len(profile), device=bins.device).repeat(len(scores))
        count, mass = (profile[row.unsqueeze(1), bins] * there.unsqueeze(2)).unbind(2)
        inside = curves.in_bins(bins, count, mass)
        states = from_above(inside, above[row, cells[:, 1] + 1])
        best = one_after_the_other(scores)(states).argmax(1)
        return cls(bins, count, mass, states, best)


def best_edge(
    profile: Tensor, above: Tensor, curves: Curves, score: Score
) -> tuple[Tensor, Tensor]:
    """Return the edge at which the objective is largest, and the state of the mask above it.

    ``profile`` is ``(rows, BINS, 2)``, ``above`` what :func:`above_cells` makes of it. All edges
    between cells are looked at, then all in the two cells around the best of these.
    """
    fine = _Fine.around_best(profile, above, curves, [score])
    edges = torch.cat((fine.bins, fine.bins[:, -1:] + 1), 1)
    return take(edges, fine.best), take(fine.states, fine.best)


def best_bracket(
    profile: Tensor, above: Tensor, curves: Curves, scores: Sequence[Score]
) -> Bracket:
    """Return the bins with values next to the best edge, in which the best cut lies.

    For every row by the first objective, then for every row by the next.

    No cut within the first bin, which holds the zeros, is considered: what it could add is below
    ``2 ** -24``. The profile is expected to have nothing there.
    """
    fine = _Fine.around_best(profile, above, curves, scores)
    lower, upper = _neighbours(fine.count > 0, fine.best)
    low, high = take(fine.bins, lower).clamp_min(1), take(fine.bins, upper)
    edges = bin_edges(profile.device)
    below, above = take(fine.states, lower), take(fine.states, upper + 1)
    return Bracket(edges[low], edges[high + 1], below, above, low, high)


def _neighbours(filled: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last filled place below an edge and the first above; the outermost if none is."""
    places = torch.arange(filled.shape[1], device=filled.device)
    below = places < edge.unsqueeze(1)
    lower = places.where(filled & below, 0).amax(1)
    upper = places.where(filled & ~below, len(places) - 1).amin(1)
    return lower, upper


def from_above(states: Tensor, above: Tensor) -> Tensor:
    """Turn states of bins into states of the masks above their lower edges, and the last's upper.

    ``above`` is the state of all pixels that lie above the bins.
    """
    return torch.cat((states, above.unsqueeze(1)), 1).flip(1).cumsum(1).flip(1)


def take(states: Tensor, place: Tensor) -> Tensor:
    """Take one state of every row."""
    return states[torch.arange(len(states), device=states.device), place]


def is_crowded(bracket: Bracket) -> Tensor:
    """Tell which rows hold too many values to gather, and not all equal."""
    wide = bracket.high - bracket.low > SHARPEST * bracket.high
    return (bracket.extra > CROWD) & wide


def places_between(bracket: Bracket) -> Tensor:
    """Return ``(rows, PLACES)`` at which to look into a bracket next, from high to low.

    The one in the middle is the edge of a bin if the bracket holds one.
    """
    edge = bin_edges(bracket.low.device)[bracket.upper]
    between = (bracket.low < edge) & (edge < bracket.high)
    middle = torch.where(between, edge, (bracket.low + bracket.high) / 2)
    part = torch.linspace(1, 0, PLACES // 2 + 2, dtype=torch.float64, device=edge.device)[1:-1]
    low, middle, high = (end.unsqueeze(1) for end in (bracket.low, middle, bracket.high))
    return torch.cat((middle.lerp(high, part), middle, low.lerp(middle, part)), 1)


def narrow(
    bracket: Bracket, places: Tensor, count: Tensor, mass: Tensor, curves: Curves, score: Score
) -> Bracket:
    """Narrow a bracket to the neighbours of the best of its places.

    ``count`` and ``mass`` describe the masks above the places. The objective may well have two
    peaks within a crowd, so that the way it leans at a place does not tell the side.
    """
    half = PLACES // 2
    edge = bin_edges(places.device)[bracket.upper]
    upper = torch.where(bracket.high > edge, bracket.upper, bracket.lower).unsqueeze(1)
    lower = torch.where(bracket.low < edge, bracket.lower, bracket.upper).unsqueeze(1)
    top = bracket.above.unsqueeze(1)
    seen = torch.stack((count, mass), -1)
    more = seen[:, : half + 1] - top[..., :2]
    first = top + curves.in_bins(upper, *more.unbind(-1))
    more = seen[:, half + 1 :] - first[:, half:, :2]
    second = first[:, half:] + curves.in_bins(lower, *more.unbind(-1))
    states = torch.cat((top, first, second, bracket.below.unsqueeze(1)), 1)
    ends = torch.cat((bracket.high.unsqueeze(1), places, bracket.low.unsqueeze(1)), 1)
    best = score(states).argmax(1)
    before, after = (best - 1).clamp_min(0), (best + 1).clamp_max(PLACES + 1)
    return replace(
        bracket,
        low=take(ends, after),
        high=take(ends, before),
        below=take(states, after),
        above=take(states, before),
    )


def best_end(bracket: Bracket, score: Score) -> tuple[Tensor, Tensor]:
    """Return the better end of every bracket as the cut, and the state of the mask above it."""
    states = torch.stack((bracket.above, bracket.below), 1)
    best = score(states).argmax(1)
    return torch.where(best == 1, bracket.low, bracket.high), take(states, best)


def best_among(
    bracket: Bracket, values: Tensor, curves: Curves, score: Score
) -> tuple[Tensor, Tensor]:
    """Return the best cut of every row among its values, ``(rows, width)``, largest first.

    And the state of the mask above it.

    Rows with more values than that were not gathered, and their result means nothing.
    Only places where the values fall are cuts, so every place looked at is moved to both ends of
    the run of equal values it is in.
    """
    extra = bracket.extra.clamp_max(values.shape[1]).unsqueeze(1)
    prefix = _Prefix(bracket, values, curves)
    best, reach = extra // 2, values.shape[1] // 2 + 1
    while reach > GRID // 4:  # at every so many places, then more closely around the best of these
        steps = torch.linspace(-reach, reach, GRID + 1, device=values.device).long()
        places = (best + steps).clamp_min(0).minimum(extra)
        best = places.gather(1, score(prefix.states(places)).argmax(1, keepdim=True))
        reach = 2 * reach // GRID + 1
    around = best + torch.arange(-reach, reach + 1, device=values.device)
    places = prefix.ends_of_runs(around.clamp_min(0).minimum(extra))
    states = prefix.states(places)
    best = score(states).argmax(1)
    place = places.gather(1, best.unsqueeze(1))
    following = torch.cat((values, bracket.low.unsqueeze(1)), 1)
    cut = torch.where(place < extra, following.gather(1, place), bracket.low.unsqueeze(1))
    return cut.squeeze(1), take(states, best)


class _Prefix:
    """States of the masks that hold the largest of the values of a bracket."""

    def __init__(self, bracket: Bracket, values: Tensor, curves: Curves) -> None:
        self.bracket, self.values, self.curves = bracket, values, curves
        self.mass = pad(values.cumsum(1), (1, 0))
        edge = bin_edges(values.device)[bracket.upper]
        self.upper = (values > edge.unsqueeze(1)).sum(1, keepdim=True)

    def states(self, places: Tensor) -> Tensor:
        """Return the states of the masks of the ``places`` largest values, ``(rows, masks)``."""
        upper = places.minimum(self.upper)
        mass, upper_mass = self.mass.gather(1, places), self.mass.gather(1, upper)
        bins = self.bracket.upper.unsqueeze(1), self.bracket.lower.unsqueeze(1)
        return (
            self.bracket.above.unsqueeze(1)
            + self.curves.in_bins(bins[0], upper, upper_mass)
            + self.curves.in_bins(bins[1], places - upper, mass - upper_mass)
        )

    def ends_of_runs(self, places: Tensor) -> Tensor:
        """Return the ends of the runs of equal values that the places are in, both of each."""
        width = self.values.shape[1]
        last = self.values.gather(1, (places - 1).clamp_min(0))
        rising = self.values.flip(1)
        first = width - torch.searchsorted(rising, last, right=True)
        after = width - torch.searchsorted(rising, last)
        empty = places == 0
        return torch.cat((first.masked_fill(empty, 0), after.masked_fill(empty, 0)), 1)
