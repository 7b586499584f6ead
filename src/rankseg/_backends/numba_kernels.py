"""Numba kernels of the CPU backend that work class by class: loops over blocks, nothing else.

Every kernel walks a range of *units* (a group of consecutive blocks of one image, of one class
where the work is per class) and writes into arrays its caller allocated. A unit is always done
by one thread and its blocks in order, so sums do not depend on the number of threads.

The survey keeps the sum, the smallest and the largest value of every block of every class. A
later pass reads a block only if its cut lies between the two: in real maps most blocks are all
inside or all outside a mask, and are never touched again.

What is called from Python allocates scratch, and leaves the range of units to a function of its
name that ends in ``_range``; ``numba_compile`` says why.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg._backends.numba_compile import _jit as _jit
from rankseg._backends.numba_compile import _jit_inline
from rankseg._backends.numba_compile import _kernel as _kernel
from rankseg._backends.numba_exponential import (
    PROBABILITIES,
    SOFTMAX,
    sigmoid_row,
    softmax_row,
)

BLOCK = 1024
"""Pixels per block: 4 KiB of float32, so that a block's scratch stays in the first-level cache."""

GROUP = 16
"""Blocks per unit of work: large against the cost of starting one, small against an image."""

KEPT = 16 * BLOCK
"""Most values of a class that are kept apart while its cut rises: they fit in a nearby cache."""

DIRECT, STRIDED, FLOAT16, BFLOAT16 = range(4)

LARGEST_FLOAT16 = np.float32(65504)


class Source(NamedTuple):
    """Where the probabilities lie in memory, so that no layout and no dtype needs a copy.

    ``values`` is the memory of a float32 or float64 tensor from its first element to its last
    (empty for half precision), ``halves`` that of a float16 or bfloat16 one; ``patterns`` views
    ``values`` as unsigned integers. ``sizes`` and ``strides`` hold the spatial axes, merged where
    memory allows. ``content`` says whether these are probabilities, or logits that are to be made
    such as they are read.
    """

    kind: int
    values: np.ndarray
    patterns: np.ndarray
    halves: np.ndarray
    batch_stride: int
    class_stride: int
    sizes: np.ndarray
    strides: np.ndarray
    pixels: int
    masked: bool
    valid: np.ndarray  # (batch, pixels), or (0, 0) without a mask
    content: int
    logs: np.ndarray  # (batch, pixels) for softmax, or (0, 0); see ``numba_logits``
    rests: np.ndarray


class Tables(NamedTuple):
    """What the survey learns of every block, each ``(batch, classes, blocks)``."""

    mass: np.ndarray
    low: np.ndarray
    peak: np.ndarray


class Sums(NamedTuple):
    """What it learns of every group of blocks, each ``(batch, classes, groups)``."""

    mass: np.ndarray
    likely_count: np.ndarray  # of the values above 1/2
    likely_mass: np.ndarray
    sound: np.ndarray  # whether all values are probabilities


@_jit
def _float16(halves, start, step, out):
    """Widen float16 bit patterns by moving exponent and mantissa; subnormals by scaling."""
    patterns = out.view(np.uint32)
    for i in range(out.size):
        half = np.uint32(halves[start + i * step])
        patterns[i] = ((half & 0x8000) << 16) | (((half & 0x7FFF) << 13) + (112 << 23))
    for i in range(out.size):
        half = np.int32(halves[start + i * step])
        if half & 0x7FFF < 0x0400:
            magnitude = np.float32(half & 0x7FFF) * np.float32(2.0**-24)
            out[i] = magnitude if half < 0x8000 else -magnitude


@_jit
def _bfloat16(halves, start, step, out):
    """Widen bfloat16 bit patterns: they are the upper half of a float32."""
    patterns = out.view(np.uint32)
    for i in range(out.size):
        patterns[i] = np.uint32(halves[start + i * step]) << 16


@_jit
def _copy(values, start, step, out):
    for i in range(out.size):
        out[i] = values[start + i * step]


@_jit
def _load(source, start, pixel, row):
    """Fill ``row`` with the values from ``pixel`` on, run by run along the innermost axis."""
    inner = source.sizes[-1]
    step = source.strides[-1]
    done = 0
    while done < row.size:
        outer, first = divmod(pixel + done, inner)
        position = start + first * step
        for axis in range(source.sizes.size - 2, -1, -1):
            outer, index = divmod(outer, source.sizes[axis])
            position += index * source.strides[axis]
        stop = min(row.size, done + inner - first)
        if source.kind == FLOAT16:
            _float16(source.halves, position, step, row[done:stop])
        elif source.kind == BFLOAT16:
            _bfloat16(source.halves, position, step, row[done:stop])
        else:
            _copy(source.values, position, step, row[done:stop])
        done = stop


@_jit
def _mark_not_finite(source, row):
    """Write NaN for infinity and NaN of float16, which read as finite."""
    if source.kind == FLOAT16:
        for i in range(row.size):
            row[i] = row[i] if abs(row[i]) <= LARGEST_FLOAT16 else np.nan


@_jit
def _blank(source, image, pixel, row):
    """Write 0 where not valid."""
    if source.masked:
        for i in range(row.size):
            if not source.valid[image, pixel + i]:
                row[i] = 0.0


@_jit
def _make_probabilities(source, image, pixel, stop, row):
    """Make probabilities of logits, in place."""
    _mark_not_finite(source, row)
    if source.content == SOFTMAX:
        softmax_row(row, source.logs[image, pixel:stop], source.rests[image, pixel:stop])
    else:
        sigmoid_row(row)


@_jit
def _fill(source, image, start, pixel, row):
    """Write to ``row`` what is to be read as the probabilities from ``pixel`` on."""
    _load(source, start, pixel, row)
    if source.content != PROBABILITIES:
        _make_probabilities(source, image, pixel, pixel + row.size, row)
    _blank(source, image, pixel, row)


@_jit_inline
def _row(source, image, label, pixel, stop, scratch):
    """Return probabilities of one class in pixels ``pixel`` to ``stop``; 0 where not valid."""
    start = image * source.batch_stride + label * source.class_stride
    if source.kind == DIRECT:
        return source.values[start + pixel : start + stop]
    row = scratch[: stop - pixel]
    _fill(source, image, start, pixel, row)
    return row


@_jit
def _extremes(source, row):
    """Return the smallest and the largest bit pattern of a row.

    Non-negative floats order as their bit patterns do, and integer minima vectorise where
    float ones do not. Anything negative or not a number has a pattern above that of 1.
    """
    patterns = row.view(source.patterns.dtype)
    low, high = patterns[0], patterns[0]
    for i in range(patterns.size):
        low = min(low, patterns[i])
        high = max(high, patterns[i])
    return low, high


@_jit
def _range(values):
    """Return the smallest and the largest of any numbers."""
    low, high = values[0], values[0]
    for i in range(values.size):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@_jit
def _sum(row):
    total = 0.0
    for i in range(row.size):
        total += np.float64(row[i])
    return total


@_jit
def _sum_above(row, cut):
    count = np.int32(0)
    total = 0.0
    for i in range(row.size):
        inside = row[i] > cut
        count = np.int32(count + inside)  # or it would be 64 bits wide
        total += np.float64(row[i]) if inside else 0.0
    return count, total


@_jit
def _sum_all_and_above(row, cut):
    """Return the sum, and count and sum of the values above the cut."""
    count = np.int32(0)
    total, total_above = 0.0, 0.0
    for i in range(row.size):
        value, inside = np.float64(row[i]), row[i] > cut
        count = np.int32(count + inside)
        total += value
        total_above += value if inside else 0.0
    return total, count, total_above


@_jit
def _copy_without_negative_zeros(row, scratch):
    """Copy ``row``, and -0.0, whose bit pattern is the largest, as 0.0."""
    for i in range(row.size):
        scratch[i] = row[i] if row[i] != 0.0 else 0.0


@_jit
def _survey_group(source, half, limit, tables, image, label, group, scratch):
    """Survey one group; return its sum, count and sum of what exceeds 1/2, and if all is sound."""
    blocks = tables.mass.shape[2]
    mass, count, mass_above, sound = 0.0, 0, 0.0, True
    for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
        pixel = block * BLOCK
        row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
        low, high = _extremes(source, row)
        if high > limit:
            _copy_without_negative_zeros(row, scratch)
            row = scratch[: row.size]
            low, high = _extremes(source, row)
            sound &= high <= limit
        if high >= half:
            total, inside, total_above = _sum_all_and_above(row, row.dtype.type(0.5))
            count += inside
            mass_above += total_above
        else:
            total = _sum(row)
        tables.low[image, label, block] = low
        tables.peak[image, label, block] = high
        tables.mass[image, label, block] = total
        mass += total
    return mass, count, mass_above, sound


@_jit
def _survey_range(source, half, limit, tables, sums, first, last, scratch):
    classes = tables.mass.shape[1]
    groups = sums.mass.shape[2]
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        mass, count, mass_above, sound = _survey_group(
            source, half, limit, tables, image, label, group, scratch
        )
        sums.mass[image, label, group] = mass
        sums.likely_count[image, label, group] = count
        sums.likely_mass[image, label, group] = mass_above
        sums.sound[image, label, group] = sound


@_kernel
def survey(source, half, limit, tables, sums, first, last):
    """Learn sum, smallest and largest value of every block, and what lies above 1/2.

    A unit is a group of blocks of one class of one image, as in every kernel that works class
    by class. ``half`` is the bit pattern of 1/2, ``limit`` that of the largest value accepted.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    _survey_range(source, half, limit, tables, sums, first, last, scratch)


@_jit
def _survey_active_range(source, active, tables, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        if not active[image, label]:
            continue
        for block in range(blocks):
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            low, high = _range(row)
            tables.low[image, label, block] = low
            tables.peak[image, label, block] = high
            tables.mass[image, label, block] = _sum(row)


@_kernel
def survey_active(source, active, tables, first, last):
    """Learn the same of blocks of active classes only. A unit is a class of an image."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _survey_active_range(source, active, tables, first, last, scratch)


@_jit
def _above_range(source, tables, cuts, active, counts, masses, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[2]
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        if not active[image, label]:
            continue
        cut = cuts[image, label]
        count, mass = 0, 0.0
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            if tables.peak[image, label, block] <= cut:
                continue
            if tables.low[image, label, block] > cut:
                count += stop - pixel
                mass += tables.mass[image, label, block]
                continue
            row = _row(source, image, label, pixel, stop, scratch)
            inside, total = _sum_above(row, cut)
            count += inside
            mass += total
        counts[image, label, group] = count
        masses[image, label, group] = mass


@_kernel
def above(source, tables, cuts, active, counts, masses, first, last):
    """Count and sum of the values above the cut of their class, per group of blocks."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _above_range(source, tables, cuts, active, counts, masses, first, last, scratch)


@_jit
def _moments(row):
    mean, variance, third = 0.0, 0.0, 0.0
    for i in range(row.size):
        value = min(np.float64(row[i]), 1.0)
        spread = value * (1.0 - value)
        mean += value
        variance += spread
        third += spread * (1.0 - 2.0 * value)
    return mean, variance, third


@_jit
def _moments_range(source, tables, active, means, variances, thirds, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    groups = means.shape[2]
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        if not active[image, label]:
            continue
        mean, variance, third = 0.0, 0.0, 0.0
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            if tables.peak[image, label, block] == 0.0:
                continue
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            sums = _moments(row)
            mean += sums[0]
            variance += sums[1]
            third += sums[2]
        means[image, label, group] = mean
        variances[image, label, group] = variance
        thirds[image, label, group] = third


@_kernel
def moments(source, tables, active, means, variances, thirds, first, last):
    """Sum p, p (1 - p) and p (1 - p) (1 - 2 p) of every class, per group of blocks."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _moments_range(source, tables, active, means, variances, thirds, first, last, scratch)


@_jit
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


@_jit
def _list_marked(marks, size, space):
    """List which of the first ``size`` marks are set, in ``space.picked``; return how many are.

    They are few: sixteen at a time are looked at, and those sixteens listed first that hold some.
    A branch for each would be guessed wrongly, which takes longer than all the rest.
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


@_jit
def _list_between(row, low, high, space):
    """List where in a row the values in (low, high] are; return how many there are."""
    for i in range(row.size):
        space.marks[i] = (row[i] > low) & (row[i] <= high)
    return _list_marked(space.marks, row.size, space)


@_jit
def _mask_and_list_between(row, low, high, mask, space):
    """Do the same, and mark the pixels above ``low`` in ``mask``."""
    for i in range(row.size):
        above = row[i] > low
        mask[i] = above
        space.marks[i] = above & (row[i] <= high)
    return _list_marked(space.marks, row.size, space)


@_jit
def _mark_above(row, cut, mask):
    for i in range(row.size):
        mask[i] = row[i] > cut


class Space(NamedTuple):
    """What a thread needs for a row: a block, what is found in it, and the values kept apart."""

    block: np.ndarray
    marks: np.ndarray
    sixteens: np.ndarray
    picked: np.ndarray
    kept: np.ndarray
    places: np.ndarray  # the pixels of the values kept


@_jit_inline
def _new_space(dtype, kept):
    return Space(
        block=np.empty(BLOCK, dtype),
        marks=np.empty(BLOCK, np.uint8),
        sixteens=np.empty(BLOCK // 16 + 1, np.uint8),
        picked=np.empty(BLOCK + 1, np.int32),
        kept=np.empty(kept, dtype),
        places=np.empty(kept, np.int64),
    )


@_jit
def _collect(source, tables, image, label, low, high, mask, space):
    """Count and sum the values in (low, high] of a row, and keep them as long as there is room.

    Unless ``mask`` is empty, marks there the pixels above ``low``, up to where room ends. Returns
    how many values were kept, and count and sum of those that found no room.
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
            inside, total = _sum_between(row, low, high)
            count += inside
            mass += total
    return size, count, mass


@_jit
def _round_down(value, dtype):
    """Round to a dtype: the same of its values exceed the result as exceed ``value``."""
    rounded = dtype.type(value)
    return rounded if rounded <= value else np.nextafter(rounded, dtype.type(-np.inf))


@_jit
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
    while True:
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


@_jit
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


@_kernel
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


@_jit
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
            for k in range(number):
                found[unit, size + k] = row[space.picked[k]]
            size += number


@_kernel
def between(source, tables, low, high, images, labels, found, first, last):
    """Gather, for each row asked for, the values in (low, high]. A unit is a row.

    ``found`` arrives all 0.
    """
    space = _new_space(source.values.dtype, 0)
    _between_range(source, tables, low, high, images, labels, found, first, last, space)


@_jit
def _mask_group(source, tables, image, label, group, cut, mask, scratch):
    """Mark the pixels of one group above the cut, in a ``mask`` of all pixels."""
    blocks = tables.mass.shape[2]
    for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
        pixel = block * BLOCK
        stop = min(source.pixels, pixel + BLOCK)
        if tables.peak[image, label, block] <= cut:
            continue
        if tables.low[image, label, block] > cut:
            mask[pixel:stop] = True
            continue
        row = _row(source, image, label, pixel, stop, scratch)
        _mark_above(row, cut, mask[pixel:stop])


@_jit
def _masks_range(source, tables, cuts, out, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        cut, mask = cuts[image, label], out[image, label]
        _mask_group(source, tables, image, label, unit % groups, cut, mask, scratch)


@_kernel
def masks(source, tables, cuts, out, first, last):
    """Mark the pixels above the cut of their class; ``out`` arrives all False."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _masks_range(source, tables, cuts, out, first, last, scratch)


class Rule(NamedTuple):
    """What the best mask of a class maximises: ``(mass + bonus) / (count + volume + offset)``.

    ``keep_peak`` says that the likeliest pixel is in the mask even where the fraction rounds to its
    probability.
    """

    bonus: float
    offset: float
    keep_peak: bool


@_jit
def _best_cut(source, tables, image, label, rule, volume, likely_count, likely_mass, mask, space):
    """Return the cut of the best mask of a row, and what :func:`_raised` returns of ``mask``.

    The best of three masks known already, none, the likeliest pixel and all above 1/2, is a start
    that is not above the optimum.
    """
    peak = np.float64(_peak(tables, image, label))
    bonus, offset = rule.bonus, volume + rule.offset
    cut = max(bonus / offset, (peak + bonus) / (1.0 + offset))
    cut = max(cut, (likely_mass + bonus) / (likely_count + offset))
    cut, marked, kept = _raised(
        source, tables, image, label, cut, likely_count, likely_mass, bonus, offset, mask, space
    )
    if rule.keep_peak:
        cut = min(cut, np.nextafter(peak, -np.inf))
    return cut, marked, kept


@_jit
def _peak(tables, image, label):
    peak = tables.peak[image, label, 0]
    for block in range(tables.peak.shape[2]):
        peak = max(peak, tables.peak[image, label, block])
    return peak


@_jit
def _best_cuts_range(
    source, tables, rule, volume, likely_count, likely_mass, active, cuts, first, last, space,
    no_mask,
):  # fmt: skip
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        if active[image, label]:
            cuts[image, label], _, _ = _best_cut(
                source, tables, image, label, rule, volume[image, label],
                likely_count[image, label], likely_mass[image, label], no_mask, space,
            )  # fmt: skip


@_kernel
def best_cuts(
    source, tables, rule, volume, likely_count, likely_mass, active, cuts, first, last
):  # fmt: skip
    """Find the cut of the best mask of every active class. A unit is a row."""
    space = _new_space(source.values.dtype, KEPT)
    no_mask = np.empty(0, np.bool_)
    _best_cuts_range(
        source, tables, rule, volume, likely_count, likely_mass, active, cuts, first, last, space,
        no_mask,
    )  # fmt: skip


@_jit
def _own_mask(source, tables, image, label, rule, volume, likely_count, likely_mass, mask, space):
    """Mark the best mask of a row."""
    cut, marked, kept = _best_cut(
        source, tables, image, label, rule, volume, likely_count, likely_mass, mask, space
    )
    low = _round_down(cut, source.values.dtype)
    if kept >= 0 and marked <= low:
        for k in range(kept):
            if space.kept[k] <= low:
                mask[space.places[k]] = False
    else:
        mask[:] = False
        for group in range((tables.peak.shape[2] + GROUP - 1) // GROUP):
            _mask_group(source, tables, image, label, group, low, mask, space.block)


@_jit
def _own_masks_range(
    source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last, space
):
    classes, blocks = tables.mass.shape[1:]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        volume, likely_count, likely_mass = 0.0, 0.0, 0.0
        for group in range((blocks + GROUP - 1) // GROUP):
            mass, count, mass_above, sound_here = _survey_group(
                source, half, limit, patterns, image, label, group, space.block
            )
            volume += mass
            likely_count += count
            likely_mass += mass_above
            sound[image, label] &= sound_here
        if sound[image, label] and _peak(tables, image, label) > pruning_prob:
            _own_mask(
                source, tables, image, label, rule, volume, likely_count, likely_mass,
                out[image, label], space,
            )  # fmt: skip


@_kernel
def own_masks(
    source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last
):  # fmt: skip
    """Survey, cut and mask class by class, while its values are in a nearby cache.

    A unit is a class of an image; one whose peak does not exceed ``pruning_prob`` has no mask.
    ``patterns`` is the memory of ``tables`` as the survey writes it; ``out`` arrives all False,
    ``sound`` all True.
    """
    space = _new_space(source.values.dtype, KEPT)
    _own_masks_range(
        source, half, limit, rule, pruning_prob, patterns, tables, sound, out, first, last, space
    )
