"""The search of ``_profile_cuts`` compiled by numba, for an objective averaged over a factor.

Class after class: in torch its steps take far longer than the numbers do.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg._backends._bins import BINS, bin_edges
from rankseg._backends.numba_compile import _jit, _kernel
from rankseg._backends.numba_cuts import (
    KEPT,
    _mask_if_known,
    _new_space,
    _rank_between,
    _survey_row,
)
from rankseg._backends.numba_profile import CHUNK, _new_profile_space, _profile_chunk
from rankseg._backends.numba_threads import spread
from rankseg._objectives import Dice
from rankseg._solvers._average import Average
from rankseg._solvers._profile_cuts import CELL, GRID, Bracket

CELLS = -(-BINS // CELL)

ROWS_PER_TASK = 4
"""Fewest rows to a thread: to search one takes some 30 microseconds."""


class Curves(NamedTuple):
    """What there is to know of the factor and the objective: see ``Average``."""

    lines: np.ndarray  # (BINS, 2, functions)
    edges: np.ndarray
    weights: np.ndarray
    dice: bool
    smooth: float


class Brackets(NamedTuple):
    """See ``Bracket``; each with the objectives and the rows first."""

    low: np.ndarray
    high: np.ndarray
    below: np.ndarray
    above: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@_jit
def _ratio(count, mass, volume, curves):
    """Return the objective of a mask; see ``Dice`` and ``IoU``."""
    smooth = curves.smooth
    if curves.dice:
        total = count + volume + smooth
        score = 2.0 * mass / (total + 1.0)
        return score + smooth / total if smooth > 0.0 and total > 0.0 else score
    rest = count + volume + smooth - mass
    return (mass + smooth) / rest if rest > 0.0 else 0.0


@_jit
def _score(state, whole, curves, independent):
    """Return the objective averaged, or what it were if labels were independent."""
    if independent:
        return _ratio(state[0], state[1], whole[1], curves)
    total = 0.0
    for k in range(curves.weights.size):
        total += curves.weights[k] * _ratio(state[0], state[2 + k], whole[2 + k], curves)
    return total


@_jit
def _add_pixels(bin_, count, mass, curves, state):
    """Add pixels that share a bin to a state."""
    for i in range(state.size):
        state[i] += curves.lines[bin_, 0, i] * count + curves.lines[bin_, 1, i] * mass


@_jit
def _sum_cells(table, ends, curves, above, whole):
    """Write the states of the masks above the edges between cells of bins, and above 0 and 1.

    And of all pixels: those in the ``table``, and what its first bin held, the ``ends``.
    """
    above[CELLS] = 0.0
    for cell in range(CELLS - 1, -1, -1):
        for i in range(above.shape[1]):
            above[cell, i] = above[cell + 1, i]
        for bin_ in range(cell * CELL, min(BINS, (cell + 1) * CELL)):
            if table[bin_, 0] > 0.0:
                _add_pixels(bin_, table[bin_, 0], table[bin_, 1], curves, above[cell])
    for i in range(whole.size):
        whole[i] = above[0, i]
    _add_pixels(0, ends[0], ends[1], curves, whole)


@_jit
def _best(states, number, whole, curves, independent):
    """Return the first of the largest scores."""
    best, place = -np.inf, 0
    for k in range(number):
        score = _score(states[k], whole, curves, independent)
        if score > best:
            best, place = score, k
    return place


@_jit
def _find_bracket(table, curves, whole, above, fine, independent, objective, row, found):
    """Write the bracket of the best cut of a row."""
    edge = _best(above, CELLS + 1, whole, curves, independent)
    edge = min(max(edge, 1), CELLS - 1)  # with a cell on either side
    first, last = edge - 1, edge
    while first > 0 and not above[first, 0] > above[first + 1, 0]:
        first -= 1
    while last < CELLS - 1 and not above[last, 0] > above[last + 1, 0]:
        last += 1
    for i in range(fine.shape[1]):
        fine[2 * CELL, i] = above[last + 1, i]
    for place in range(2 * CELL - 1, -1, -1):
        for i in range(fine.shape[1]):
            fine[place, i] = fine[place + 1, i]
        bin_ = first * CELL + place if place < CELL else last * CELL + place - CELL
        if bin_ < BINS and table[bin_, 0] > 0.0:
            _add_pixels(bin_, table[bin_, 0], table[bin_, 1], curves, fine[place])
    best = _best(fine, 2 * CELL + 1, whole, curves, independent)
    lower, upper = max(best - 1, 0), min(best, 2 * CELL - 1)
    while lower > 0 and not fine[lower, 0] > fine[lower + 1, 0]:
        lower -= 1
    while upper < 2 * CELL - 1 and not fine[upper, 0] > fine[upper + 1, 0]:
        upper += 1
    low = first * CELL + lower if lower < CELL else last * CELL + lower - CELL
    high = first * CELL + upper if upper < CELL else last * CELL + upper - CELL
    low, high = max(low, 1), min(high, BINS - 1)
    found.low[objective, row], found.high[objective, row] = (
        curves.edges[low],
        curves.edges[high + 1],
    )
    found.lower[objective, row], found.upper[objective, row] = low, high
    for i in range(fine.shape[1]):
        found.below[objective, row, i] = fine[lower, i]
        found.above[objective, row, i] = fine[upper + 1, i]


@_jit
def _find_brackets_range(profile, ends, curves, whole, found, first, last, above, fine):
    for row in range(first, last):
        _sum_cells(profile[row], ends[row], curves, above, whole[row])
        for objective in range(found.low.shape[0]):
            _find_bracket(
                profile[row], curves, whole[row], above, fine, objective > 0, objective, row, found
            )


@_kernel
def find_brackets(profile, ends, curves, whole, found, first, last):
    """Find the brackets of the best cuts: by the average, then if labels were independent.

    ``profile`` has nothing in the first bins, which held ``ends``; ``whole`` are the states of all
    pixels. A unit is a row.
    """
    functions = whole.shape[1]
    above, fine = np.empty((CELLS + 1, functions)), np.empty((2 * CELL + 1, functions))
    _find_brackets_range(profile, ends, curves, whole, found, first, last, above, fine)


@_jit
def _write_state(place, prefix, number_above, bracket, row, curves, state):
    """Write the state of the mask of the ``place`` largest values of a bracket."""
    for i in range(state.size):
        state[i] = bracket.above[row, i]
    upper = min(place, number_above)
    _add_pixels(bracket.upper[row], upper, prefix[upper], curves, state)
    if place > upper:
        more = prefix[place] - prefix[upper]
        _add_pixels(bracket.lower[row], place - upper, more, curves, state)


@_jit
def _choose_row(values, bracket, row, whole, curves, independent, prefix, state):
    """Return the best place among the values of a bracket; leave its state.

    As ``best_among``: at every so many places, then more closely, and at last at ends of runs.
    """
    prefix[0], number_above = 0.0, 0
    for i in range(values.size):
        prefix[i + 1] = prefix[i] + values[i]
        number_above += values[i] > curves.edges[bracket.upper[row]]
    best, reach = values.size // 2, values.size // 2 + 1
    while reach > GRID // 4:
        top, middle = -np.inf, best
        for k in range(GRID + 1):
            place = min(max(middle - reach + 2 * reach * k // GRID, 0), values.size)
            _write_state(place, prefix, number_above, bracket, row, curves, state)
            score = _score(state, whole, curves, independent)
            if score > top:
                top, best = score, place
        reach = 2 * reach // GRID + 1
    first, last = max(best - reach, 0), min(best + reach, values.size)
    while first > 0 and not values[first] < values[first - 1]:
        first -= 1
    while last < values.size and not values[last] < values[last - 1]:
        last += 1
    top, chosen = -np.inf, first
    for place in range(first, last + 1):
        if place == 0 or place == values.size or values[place] < values[place - 1]:
            _write_state(place, prefix, number_above, bracket, row, curves, state)
            score = _score(state, whole, curves, independent)
            if score > top:
                top, chosen = score, place
    _write_state(chosen, prefix, number_above, bracket, row, curves, state)
    return chosen


@_jit
def _choose_range(values, extra, bracket, whole, curves, cuts, states, first, last, prefix):
    rows = whole.shape[0]
    for row in range(first, last):
        own = values[row, : extra[row]]
        place = _choose_row(
            own, bracket, row, whole[row % rows], curves, row >= rows, prefix, states[row]
        )
        cuts[row] = own[place] if place < own.size else bracket.low[row]


@_kernel
def choose(values, extra, bracket, whole, curves, cuts, states, first, last):
    """Find the best cut of every bracket among its values, largest first. A unit is a bracket."""
    prefix = np.empty(values.shape[1] + 1)
    _choose_range(values, extra, bracket, whole, curves, cuts, states, first, last, prefix)


@_jit
def _own_cut(source, tables, image, label, curves, found, flat, no_mask, space, counting, work):
    """Return the best cut of a row; NaN if more values are in its bracket than are kept."""
    table, above, fine, whole, ranked, prefix, state = work
    table[:] = 0.0
    for chunk in range(-(-tables.mass.shape[2] // CHUNK)):
        _profile_chunk(source, tables, image, label, chunk, curves.edges, table, counting)
    ends = table[0, 0], table[0, 1]
    table[0] = 0.0  # no mask is to hold them
    _sum_cells(table, ends, curves, above, whole)
    _find_bracket(table, curves, whole, above, fine, False, 0, 0, found)
    low = flat.low[0]
    high = flat.high[0] if flat.high[0] < 1.0 else np.inf  # as ``Bracket.top``
    size = _rank_between(source, tables, image, label, low, high, no_mask, space, ranked)
    if size < 0:
        return np.nan
    own = ranked[:size]
    place = _choose_row(own, flat, 0, whole, curves, False, prefix, state)
    return own[place] if place < size else low


@_jit
def _own_masks_range(
    source, half, limit, curves, pruning_prob, patterns, tables, sound, known, out, first, last,
    found, flat, no_mask, space, counting, work,
):  # fmt: skip
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        row = _survey_row(source, half, limit, patterns, tables, sound, image, label, space.block)
        if not (row.sound and row.peak > pruning_prob):
            continue
        cut = _own_cut(
            source, tables, image, label, curves, found, flat, no_mask, space, counting, work
        )
        _mask_if_known(source, tables, image, label, cut, known, out, space.block)


@_kernel
def find_masks(
    source, half, limit, curves, pruning_prob, patterns, tables, sound, known, out, first, last
):
    """Survey, cut and mask class by class; see ``exact_masks`` of ``numba_exact``."""
    functions = curves.lines.shape[2]
    low, high = np.empty((1, 1)), np.empty((1, 1))
    below, above = np.empty((1, 1, functions)), np.empty((1, 1, functions))
    lower, upper = np.empty((1, 1), np.int64), np.empty((1, 1), np.int64)
    found = Brackets(low, high, below, above, lower, upper)
    flat = Brackets(low[0], high[0], below[0], above[0], lower[0], upper[0])
    work = (
        np.empty((BINS, 2)),
        np.empty((CELLS + 1, functions)),
        np.empty((2 * CELL + 1, functions)),
        np.empty(functions),
        np.empty(KEPT),
        np.empty(KEPT + 1),
        np.empty(functions),
    )
    space, counting = _new_space(source.values.dtype, KEPT), _new_profile_space(source.values.dtype)
    _own_masks_range(
        source, half, limit, curves, pruning_prob, patterns, tables, sound, known, out, first, last,
        found, flat, np.empty(0, np.bool_), space, counting, work,
    )  # fmt: skip


def own_masks(
    backend: Any, maps: Any, average: Average, pruning_prob: float
) -> tuple[Tensor, bool, Tensor]:
    """Return the best mask of every class as ``exact_masks`` of a backend does."""
    found: tuple[Tensor, bool, Tensor]
    found = backend.masks_by_row(find_masks, maps, _curves(average), pruning_prob)
    return found


def best_brackets(
    average: Average, profile: Tensor, first: Tensor, objectives: int
) -> tuple[Average, Bracket]:
    """Return the average over the rows, and what ``best_bracket`` does.

    Of ``profile`` nothing is in the first bins; ``first`` was there, ``(rows, 2)``. One objective
    is the average, the second what it were if labels were independent.
    """
    rows, functions = len(profile), average.factor.curves.functions
    whole = np.empty((rows, functions))
    shape = objectives, rows
    found = Brackets(
        low=np.empty(shape),
        high=np.empty(shape),
        below=np.empty((*shape, functions)),
        above=np.empty((*shape, functions)),
        lower=np.empty(shape, np.int64),
        upper=np.empty(shape, np.int64),
    )
    terms = profile.numpy(), first.numpy(), _curves(average), whole, found
    spread(functools.partial(find_brackets, *terms), rows, max(1, rows // ROWS_PER_TASK))
    bracket = Bracket(*(torch.from_numpy(term).flatten(0, 1) for term in found))
    return average.over(torch.from_numpy(whole)), bracket


def best_among(average: Average, bracket: Bracket, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``best_among`` of ``_profile_cuts`` does."""
    number, functions = len(values), average.factor.curves.functions
    cuts, states = np.empty(number), np.empty((number, functions))
    ends = Brackets(*(term.numpy() for term in vars(bracket).values()))
    terms = values.numpy(), bracket.extra.numpy(), ends, average.whole.numpy(), _curves(average)
    job = functools.partial(choose, *terms, cuts, states)
    spread(job, number, max(1, number // ROWS_PER_TASK))
    return torch.from_numpy(cuts), torch.from_numpy(states)


def _curves(average: Average) -> Curves:
    objective, factor = average.objective, average.factor
    lines, weights = factor.curves.lines.numpy(), factor.weights.numpy()
    edges = bin_edges(factor.weights.device).numpy()
    return Curves(lines, edges, weights, isinstance(objective, Dice), float(objective.smooth))
