"""Numba kernels of the CPU backend that find the cuts of classes, and the masks above them.

Dinkelbach's iteration raises a cut. The values that the cut may still pass are few: they are copied
to a buffer, with the indices of their pixels. See ``numba_kernels`` for units, blocks and ranges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg._backends.numba_compile import jit, jit_inline, kernel
from rankseg._backends.numba_kernels import (
    BLOCK,
    GROUP,
    _mark_above,
    _mask_group,
    _row,
    _sum_above,
    _survey_group,
)
from rankseg._formulas.loop import MOST_STEPS

KEPT = 16 * BLOCK
"""Size of the buffer for the values that a rising cut may still pass: it fits in the cache."""


class Space(NamedTuple):
    """Work arrays of a thread for one row: a block, marks of its pixels, the buffer ``kept``."""

    block: np.ndarray
    marks: np.ndarray
    sixteens: np.ndarray
    picked: np.ndarray
    kept: np.ndarray
    places: np.ndarray  # the pixels of the values kept


@jit_inline
def _new_space(dtype, kept):
    return Space(
        block=np.empty(BLOCK, dtype),
        marks=np.empty(BLOCK, np.uint8),
        sixteens=np.empty(BLOCK // 16 + 1, np.uint8),
        picked=np.empty(BLOCK + 1, np.int32),
        kept=np.empty(kept, dtype),
        places=np.empty(kept, np.int64),
    )


class Rule(NamedTuple):
    """What the best mask of a class maximises: ``(mass + bonus) / (count + volume + offset)``.

    ``keep_peak`` says that the likeliest pixel is in the mask even where the fraction rounds to its
    probability.
    """

    bonus: float
    offset: float
    keep_peak: bool


@jit
def _list_marked(marks, size, space):
    """List which of the first ``size`` marks are set, in ``space.picked``; return how many are.

    Set marks are few. So groups of sixteen marks are tested first, and only the groups with a set
    mark are searched. A branch for every mark would be mispredicted too often.
    """
    words = marks.view(np.uint64)
    sixteens = 0
    for k in range((size + 15) // 16):
        space.sixteens[sixteens] = k
        sixteens += np.int64((words[2 * k] | words[2 * k + 1]) != 0)
    number = 0
    for k in range(sixteens):
        start = 16 * np.int64(space.sixteens[k])
        for i in range(start, min(size, start + 16)):
            space.picked[number] = i
            number += np.int64(marks[i])
    return number


@jit
def _list_between(row, low, high, space):
    """List where in a row the values in (low, high] are; return how many there are."""
    for i in range(row.size):
        space.marks[i] = (row[i] > low) & (row[i] <= high)
    return _list_marked(space.marks, row.size, space)


@jit
def _mask_and_list_between(row, low, high, mask, space):
    """Do the same, and mark the pixels above ``low`` in ``mask``."""
    for i in range(row.size):
        above = row[i] > low
        mask[i] = above
        space.marks[i] = above & (row[i] <= high)
    return _list_marked(space.marks, row.size, space)


@jit
def _sum_between(row, low, high):
    nothing = row.dtype.type(0)
    count = np.int32(0)
    total = 0.0
    for i in range(row.size):
        value = row[i]
        inside = (value > low) & (value <= high)
        count += np.int32(inside)
        total += np.float64(value if inside else nothing)
    return count, total


@jit
def _collect(source, tables, image, label, low, high, mask, space):
    """Count and sum the values in (low, high] of a row, and keep them as long as there is room.

    Unless ``mask`` is empty, marks there the pixels above ``low``. Returns how many values were
    kept, and count and sum of those that found no room.
    """
    size, count, mass = 0, 0, 0.0
    for block in range(tables.mass.shape[2]):
        if tables.peak[image, label, block] <= low:
            continue
        pixel = block * BLOCK
        stop = min(source.pixels, pixel + BLOCK)
        if tables.low[image, label, block] > high:
            mask[pixel:stop] = True
            continue
        row = _row(source, image, label, pixel, stop, space.block)
        if count == 0 and size + row.size <= space.kept.size:
            if mask.size > 0:
                number = _mask_and_list_between(row, low, high, mask[pixel:stop], space)
            else:
                number = _list_between(row, low, high, space)
            for k in range(number):
                space.kept[size + k] = row[space.picked[k]]
                space.places[size + k] = pixel + space.picked[k]
            size += number
        else:
            if mask.size > 0:
                _mark_above(row, low, mask[pixel:stop])
            inside, total = _sum_between(row, low, high)
            count += inside
            mass += total
    return size, count, mass


@jit
def _round_down(value, dtype):
    """Round to a dtype: the same of its values exceed the result as exceed ``value``."""
    rounded = dtype.type(value)
    return rounded if rounded <= value else np.nextafter(rounded, dtype.type(-np.inf))


@jit
def _raised(
    source, tables, image, label, cut, likely_count, likely_mass, bonus, offset, mask, space
):
    """Return the cut of one row, raised; at which cut ``mask`` was marked; and how many are kept.

    Kept are all values between that cut and the one returned, or else the number is -1.
    """
    dtype = source.values.dtype
    high = dtype.type(0.5)
    marked = _round_down(cut, dtype)
    size, spilled, spilled_mass, passes, all_kept = 0, 0, 0.0, 0, False
    for _ in range(MOST_STEPS):
        if cut >= high:
            high, likely_count, likely_mass, all_kept = dtype.type(np.inf), 0.0, 0.0, False
        low = _round_down(cut, dtype)
        if not all_kept:
            size, spilled, spilled_mass = _collect(
                source, tables, image, label, low, high, mask, space
            )
            all_kept, passes, mask = spilled == 0, passes + 1, mask[:0]
        count, mass = _sum_above(space.kept[:size], low)
        mass += likely_mass + spilled_mass + bonus
        fraction = mass / (likely_count + spilled + count + offset)
        if not fraction > cut:
            return cut, marked, size if all_kept and passes == 1 else -1
        cut = fraction
    return cut, marked, -1


@jit
def _raise_cuts_range(
    source, tables, likely_count, likely_mass, bonus, offset, active, cuts, first, last, space,
    no_mask,
):  # fmt: skip
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        if active[image, label]:
            cuts[image, label], _, _ = _raised(
                source, tables, image, label, cuts[image, label],
                likely_count[image, label], likely_mass[image, label],
                bonus[image, label], offset[image, label], no_mask, space,
            )  # fmt: skip


@kernel
def raise_cuts(source, tables, likely_count, likely_mass, bonus, offset, active, cuts, first, last):
    """Raise the cut of every active class until its fraction does not exceed it. A unit is a row.

    The fraction hardly ever exceeds 1/2, and what lies above that is counted and summed already.
    One pass over the rest usually finds room for all the values between the first cut and 1/2, and
    the steps that follow look at nothing else.
    """
    space = _new_space(source.values.dtype, KEPT)
    no_mask = np.empty(0, np.bool_)
    _raise_cuts_range(
        source, tables, likely_count, likely_mass, bonus, offset, active, cuts, first, last, space,
        no_mask,
    )  # fmt: skip


class Row(NamedTuple):
    """What the survey tells of a class of an image; see ``Survey``."""

    volume: float
    peak: float
    likely_count: int
    likely_mass: float
    sound: bool


@jit
def _survey_row(source, half, limit, patterns, tables, sounds, image, label, scratch):
    """Survey one row; ``patterns`` is the memory of ``tables`` as the survey writes it."""
    peak, volume, likely_count, likely_mass, sound = 0.0, 0.0, 0, 0.0, True
    blocks = tables.peak.shape[2]
    for group in range((blocks + GROUP - 1) // GROUP):
        mass, count, mass_above, sound_here = _survey_group(
            source, half, limit, patterns, image, label, group, scratch
        )
        volume += mass
        likely_count += count
        likely_mass += mass_above
        sound &= sound_here
    for block in range(blocks):
        peak = max(peak, np.float64(tables.peak[image, label, block]))
    sounds[image, label] = sound
    return Row(volume, peak, likely_count, likely_mass, sound)


@jit
def _first_cut(row, bonus, offset):
    """Return the cut that Dinkelbach's iteration starts from: see ``Survey.first_cuts``."""
    cut = max(bonus / offset, (row.peak + bonus) / (1.0 + offset))
    return max(cut, (row.likely_mass + bonus) / (row.likely_count + offset))


@jit
def _mask_row(source, tables, image, label, cut, mask, scratch):
    for group in range((tables.peak.shape[2] + GROUP - 1) // GROUP):
        _mask_group(source, tables, image, label, group, cut, mask, scratch)


@jit
def _rank(values, ranked):
    """Sort ``values`` into ``ranked``, largest first, by Shell's sort: the values are few."""
    for i in range(values.size):
        ranked[i] = values[i]
    gap = 1
    while 3 * gap < values.size:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, values.size):
            value, k = ranked[i], i
            while k >= gap and ranked[k - gap] < value:
                ranked[k] = ranked[k - gap]
                k -= gap
            ranked[k] = value
        gap //= 3


@jit
def _rank_between(source, tables, image, label, low, high, no_mask, space, ranked):
    """Write the values of a row in (low, high] into ``ranked``, largest first; return how many.

    Returns -1 if the values do not fit into the buffer of ``space``.
    """
    dtype = source.values.dtype
    low, high = _round_down(low, dtype), _round_down(high, dtype)
    size, spilled, _ = _collect(source, tables, image, label, low, high, no_mask, space)
    if spilled > 0:
        return -1
    _rank(space.kept[:size], ranked)
    return size


@jit
def _mask_if_known(source, tables, image, label, cut, known, out, scratch):
    """Write the mask of a row (a class of an image) into ``out``: the pixels above ``cut``.

    A cut of NaN says that the search gave up. Then ``known`` of the row is False, and ``out`` of
    the row is meaningless.
    """
    known[image, label] = cut == cut
    low = _round_down(cut, source.values.dtype)
    _mask_row(source, tables, image, label, low, out[image, label], scratch)


@jit
def _own_mask(source, tables, image, label, rule, row, mask, space):
    """Mark the best mask of a row, by the steps of ``best_cuts`` of a survey."""
    bonus, offset = rule.bonus, row.volume + rule.offset
    cut, marked, kept = _raised(
        source, tables, image, label, _first_cut(row, bonus, offset),
        row.likely_count, row.likely_mass, bonus, offset, mask, space,
    )  # fmt: skip
    if rule.keep_peak:
        cut = min(cut, np.nextafter(row.peak, -np.inf))
    low = _round_down(cut, source.values.dtype)
    if kept >= 0 and marked <= low:
        for k in range(kept):
            if space.kept[k] <= low:
                mask[space.places[k]] = False
    else:
        mask[:] = False
        _mask_row(source, tables, image, label, low, mask, space.block)


@jit
def _own_masks_range(
    source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last, space
):
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        row = _survey_row(source, half, limit, patterns, tables, sound, image, label, space.block)
        if row.sound and row.peak > pruning_prob:
            _own_mask(source, tables, image, label, rule, row, out[image, label], space)


@kernel
def own_masks(
    source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last
):  # fmt: skip
    """Survey each row, find its cut and write its mask, while its values are in the cache.

    A unit is a class of an image; one whose peak does not exceed ``pruning_prob`` has no mask.
    ``patterns`` is the memory of ``tables`` as the survey writes it; ``out`` arrives all False.
    """
    space = _new_space(source.values.dtype, KEPT)
    _own_masks_range(
        source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last, space
    )


@jit
def _between_range(source, tables, low, high, images, labels, found, first, last, space):
    blocks = tables.mass.shape[2]
    for unit in range(first, last):
        image, label = images[unit], labels[unit]
        size = 0
        for block in range(blocks):
            if tables.peak[image, label, block] <= low[unit]:
                continue
            if tables.low[image, label, block] > high[unit]:
                continue
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            row = _row(source, image, label, pixel, stop, space.block)
            number = _list_between(row, low[unit], high[unit], space)
            number = min(number, found.shape[1] - size)  # the maps may have changed since
            for k in range(number):
                found[unit, size + k] = row[space.picked[k]]
            size += number


@kernel
def between(source, tables, low, high, images, labels, found, first, last):
    """Gather, for each row asked for, the values in (low, high]. A unit is a row.

    ``found`` arrives all 0.
    """
    space = _new_space(source.values.dtype, 0)
    _between_range(source, tables, low, high, images, labels, found, first, last, space)
