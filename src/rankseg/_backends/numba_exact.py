"""Numba kernels of the CPU backend that find exact masks row by row: a row is a class of an image.

``solvers.exact`` does one step of the search for all rows, then the next step. Here every row does
all steps before the next row begins, by the same formulas (``expectation``). Its values stay in the
cache, and small maps save the cost of launching each step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankseg._backends.numba_compile import jit, jit_as_written, kernel
from rankseg._backends.numba_cuts import (
    KEPT,
    _first_cut,
    _mask_if_known,
    _new_space,
    _raised,
    _rank_between,
    _round_down,
    _survey_row,
)
from rankseg._backends.numba_kernels import BLOCK, GROUP
from rankseg._backends.numba_moments import NEGLIGIBLE, _scan_row, _split_group
from rankseg._formulas.expectation import (
    DOUBLINGS,
    END,
    FIRST,
    MARGIN,
    NEAR,
    ROUNDING,
    SERIES_PROB,
    SERIES_VOLUME,
    STEP,
    SUFFICIENT,
    UNKNOWN,
)
from rankseg._formulas.records import NEGLIGIBLE_PROB, POWERS, Steps

NODES = 256
"""No integral needs more quadrature nodes than this, whatever the number of pixels."""


class Metric(NamedTuple):
    """The metric to maximise: Dice or IoU, with its ``smooth``.

    ``bonus`` and ``offset`` are ``Objective.fraction_at_infinity`` of its RMA objective: the limit
    of the bonus for infinitely many pixels, and the offset minus the volume. ``steps`` says how one
    more pixel changes the integrals of the metric.
    """

    dice: bool
    smooth: float
    bonus: float
    offset: float
    steps: Steps


class Room(NamedTuple):
    """What a thread needs for a row besides ``Space``."""

    counts: np.ndarray  # (2,): of the values above, and of those between
    sums: np.ndarray  # (2, POWERS): of those above, and of those below
    values: np.ndarray
    terms: np.ndarray
    ranked: np.ndarray
    label: np.ndarray
    part: np.ndarray
    amount: np.ndarray


@jit
def _half_width(cut, likely_count, likely_mass, volume, metric):
    """Guess how far from RMA's cut the bracket ends; see ``_Search`` of ``solvers.exact``."""
    distance = 0.5 - cut
    if not distance > NEAR:
        return UNKNOWN
    lost = cut * (likely_count + volume + metric.offset) - likely_mass - metric.bonus
    density = max(2.0 * lost / distance**2, 1.0)
    return MARGIN * math.sqrt(4.0 * cut / density)


@jit
def _may_be_best(count, mass, volume, deficit, metric):
    """Return whether the upper bound of a mask reaches ``1 - deficit``, up to rounding."""
    gain = 2.0 * mass if metric.dice else mass
    rest = volume if metric.dice else volume - mass
    size = count + max(rest - 1.0, 0.0)
    whole = size + metric.smooth
    return gain - size + deficit * whole >= -ROUNDING * whole


@jit
def _split_row(source, tables, image, label, low, high, degree, spread, room, scratch):
    room.counts[:] = 0
    room.sums[:] = 0.0
    for group in range((tables.mass.shape[2] + GROUP - 1) // GROUP):
        _split_group(
            source, tables, image, label, group, low, high, degree, spread,
            room.counts, room.sums, scratch, room.values, room.terms,
        )  # fmt: skip


@jit
def _value(cut, metric):
    """Return the value of RMA's objective whose optimal cut is ``cut``; see ``Ratio.value``."""
    return 2.0 * cut if metric.dice else cut / (1.0 - cut)


@jit
def _first_bracket(cut, row, metric):
    """Guess between which two cuts the best mask lies."""
    width = _half_width(cut, row.likely_count, row.likely_mass, row.volume, metric)
    width = max(min(width, cut / 2.0), NEGLIGIBLE_PROB)
    low, high = max(cut - width, 0.0), cut + width
    if row.volume + metric.smooth < SERIES_VOLUME:  # all but the faint are sorted
        return min(low, SERIES_PROB), np.inf
    empty = math.exp(-row.volume) + 2.0 * metric.smooth / row.volume
    if 0.0 < metric.smooth < 1.0 and empty >= _value(cut, metric):
        return low, np.inf
    return low, high


@jit
def _powers_needed(rate):
    if rate < SERIES_VOLUME:
        return POWERS
    degree = 1
    for limit in SUFFICIENT:
        degree += rate < limit
    return degree


@jit
def _bracket(source, tables, image, label, cut, row, metric, room, scratch):
    """Enclose the best mask between two cuts; leave in ``room`` what they hold."""
    deficit = 1.0 - _value(cut, metric)
    rate = row.volume + metric.smooth
    degree, spread = _powers_needed(rate), NEGLIGIBLE * rate**2 / source.pixels
    dtype = source.values.dtype
    low, high = _first_bracket(cut, row, metric)
    for doubled in range(DOUBLINGS + 2):
        if high >= row.peak:
            high = np.inf
        lowest, highest = _round_down(low, dtype), _round_down(high, dtype)
        _split_row(source, tables, image, label, lowest, highest, degree, spread, room, scratch)
        count, between = room.counts
        below, above = row.volume - room.sums[1, 0], room.sums[0, 0]
        down = low > 0.0 and _may_be_best(count + between, below, row.volume, deficit, metric)
        up = high < np.inf and _may_be_best(count, above, row.volume, deficit, metric)
        if not (down or up):
            break
        if down:
            low = max(2.0 * low - cut, 0.0) if doubled < DOUBLINGS else 0.0
        if up:
            high = 2.0 * high - cut if doubled < DOUBLINGS else np.inf
    return low, high, degree


@jit
def _count_nodes(rate, count, rest):
    end = END / max(count, 1.0)
    if rest > 2.0 * END:
        end = min(end, -math.log1p(-END / rest))
    return math.ceil((math.log(end * rate) - FIRST) / STEP) + 1


@jit_as_written
def _place_integrals(volume, degree, metric, room):
    """Write the integrals of the smallest mask of the bracket; return how many nodes they have."""
    count, between = float(room.counts[0]), float(room.counts[1])
    above, below = room.sums[0], room.sums[1]
    smooth = metric.smooth
    mass = above[0]
    rate = count + between + volume + smooth + 1.0
    nodes = _count_nodes(rate, count + smooth, volume if metric.dice else volume - mass)
    for k in range(nodes):
        x = FIRST + STEP * k
        falling = math.exp(-x)
        u = math.exp(x - falling) / rate
        s, rising = -math.expm1(-u), 1.0
        log_inside, log_outside, hits_inside, hits_outside = 0.0, 0.0, 0.0, 0.0
        for j in range(degree):
            hits_inside += above[j] * rising
            hits_outside += below[j] * rising
            rising *= s
            log_inside -= above[j] * rising / (j + 1)
            log_outside -= below[j] * rising / (j + 1)
        label = math.exp(-u)
        hits_inside *= label
        hits_outside *= label
        log = log_inside + log_outside if metric.dice else log_outside
        amount = 2.0 * hits_inside if metric.dice else mass
        if smooth > 0.0:
            rest = hits_inside + hits_outside if metric.dice else hits_outside
            amount -= rest + count
        room.label[k] = label
        room.part[k] = STEP * u * (1.0 + falling) * math.exp(log - (count + smooth) * u)
        room.amount[k] = amount
    return nodes


@jit
def _exact_cut(source, tables, image, label, cut, row, metric, no_mask, space, room):
    """Return the cut of the best mask, given RMA's.

    Returns NaN if the bracket holds more values than the buffer of ``space``.
    """
    low, high, degree = _bracket(source, tables, image, label, cut, row, metric, room, space.block)
    size = _rank_between(source, tables, image, label, low, high, no_mask, space, room.ranked)
    if size < 0:
        return np.nan
    nodes = _place_integrals(row.volume, degree, metric, room)
    taken = _scan_row(
        room.ranked[:size], room.label[:nodes], room.part[:nodes], room.amount[:nodes],
        metric.steps,
    )  # fmt: skip
    return room.ranked[taken] if taken < size else low


@jit
def _exact_masks_range(
    source, half, limit, metric, pruning_prob, patterns, tables, sound, known, out, first, last,
    no_mask, space, room,
):  # fmt: skip
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        row = _survey_row(source, half, limit, patterns, tables, sound, image, label, space.block)
        if not (row.sound and row.peak > pruning_prob):
            continue
        bonus, offset = metric.bonus, row.volume + metric.offset
        cut, _, _ = _raised(
            source, tables, image, label, _first_cut(row, bonus, offset),
            row.likely_count, row.likely_mass, bonus, offset, no_mask, space,
        )  # fmt: skip
        cut = _exact_cut(source, tables, image, label, cut, row, metric, no_mask, space, room)
        _mask_if_known(source, tables, image, label, cut, known, out, space.block)


@kernel
def exact_masks(
    source, half, limit, metric, pruning_prob, patterns, tables, sound, known, out, first, last
):
    """Survey, cut and mask class by class, exactly.

    As ``own_masks``; ``known`` arrives all True, and is False where too many masks are in question.
    """
    space = _new_space(source.values.dtype, KEPT)
    room = Room(
        counts=np.empty(2, np.int64),
        sums=np.empty((2, POWERS)),
        values=np.empty(BLOCK),
        terms=np.empty(BLOCK),
        ranked=np.empty(KEPT),
        label=np.empty(NODES),
        part=np.empty(NODES),
        amount=np.empty(NODES),
    )
    _exact_masks_range(
        source, half, limit, metric, pruning_prob, patterns, tables, sound, known, out,
        first, last, np.empty(0, np.bool_), space, room,
    )  # fmt: skip
