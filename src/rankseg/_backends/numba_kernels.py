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

from rankseg._backends.numba_compile import jit as jit
from rankseg._backends.numba_compile import jit_inline
from rankseg._backends.numba_compile import kernel as kernel
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
    """Results of the survey for every block, ``(batch, classes, blocks)`` each."""

    mass: np.ndarray
    low: np.ndarray
    peak: np.ndarray


class Sums(NamedTuple):
    """Results of the survey for every group of blocks, ``(batch, classes, groups)`` each."""

    mass: np.ndarray
    likely_count: np.ndarray  # of the values above 1/2
    likely_mass: np.ndarray
    sound: np.ndarray  # whether all values are probabilities


@jit
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


@jit
def _bfloat16(halves, start, step, out):
    """Widen bfloat16 bit patterns: they are the upper half of a float32."""
    patterns = out.view(np.uint32)
    for i in range(out.size):
        patterns[i] = np.uint32(halves[start + i * step]) << 16


@jit
def _copy(values, start, step, out):
    for i in range(out.size):
        out[i] = values[start + i * step]


@jit
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


@jit
def _mark_not_finite(source, row):
    """Write NaN for infinity and NaN of float16, which read as finite."""
    if source.kind == FLOAT16:
        for i in range(row.size):
            row[i] = row[i] if abs(row[i]) <= LARGEST_FLOAT16 else np.nan


@jit
def _blank(source, image, pixel, row):
    """Write 0 where not valid."""
    if source.masked:
        for i in range(row.size):
            if not source.valid[image, pixel + i]:
                row[i] = 0.0


@jit
def _make_probabilities(source, image, pixel, stop, row):
    """Make probabilities of logits, in place."""
    _mark_not_finite(source, row)
    if source.content == SOFTMAX:
        softmax_row(row, source.logs[image, pixel:stop], source.rests[image, pixel:stop])
    else:
        sigmoid_row(row)


@jit
def _fill(source, image, start, pixel, row):
    """Write to ``row`` what is to be read as the probabilities from ``pixel`` on."""
    _load(source, start, pixel, row)
    if source.content != PROBABILITIES:
        _make_probabilities(source, image, pixel, pixel + row.size, row)
    _blank(source, image, pixel, row)


@jit_inline
def _row(source, image, label, pixel, stop, scratch):
    """Return probabilities of one class in pixels ``pixel`` to ``stop``; 0 where not valid."""
    start = image * source.batch_stride + label * source.class_stride
    if source.kind == DIRECT:
        return source.values[start + pixel : start + stop]
    row = scratch[: stop - pixel]
    _fill(source, image, start, pixel, row)
    return row


@jit
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


@jit
def _bounds(values):
    """Return the smallest and the largest value of an array, which may hold negative values.

    `_extremes` is faster, but orders only values that are not negative.
    """
    low, high = values[0], values[0]
    for i in range(values.size):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@jit
def _sum(row):
    total = 0.0
    for i in range(row.size):
        total += np.float64(row[i])
    return total


@jit
def _sum_above(row, cut):
    count = np.int32(0)
    total = 0.0
    for i in range(row.size):
        inside = row[i] > cut
        count = np.int32(count + inside)  # or it would be 64 bits wide
        total += np.float64(row[i]) if inside else 0.0
    return count, total


@jit
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


@jit
def _copy_without_negative_zeros(row, scratch):
    """Copy ``row``, and -0.0, whose bit pattern is the largest, as 0.0."""
    for i in range(row.size):
        scratch[i] = row[i] if row[i] != 0.0 else 0.0


@jit
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


@jit
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


@kernel
def survey(source, half, limit, tables, sums, first, last):
    """Write sum, smallest and largest value of every block, and count and sum above 1/2 by group.

    A unit is a group of blocks of one class of one image, as in every kernel that works class
    by class. ``half`` is the bit pattern of 1/2, ``limit`` that of the largest value accepted.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    _survey_range(source, half, limit, tables, sums, first, last, scratch)


@jit
def _survey_active_range(source, active, tables, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        if not active[image, label]:
            continue
        for block in range(blocks):
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            low, high = _bounds(row)
            tables.low[image, label, block] = low
            tables.peak[image, label, block] = high
            tables.mass[image, label, block] = _sum(row)


@kernel
def survey_active(source, active, tables, first, last):
    """Write sum, smallest and largest value of the blocks of active classes only.

    A unit is a class of an image.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    _survey_active_range(source, active, tables, first, last, scratch)


@jit
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


@kernel
def above(source, tables, cuts, active, counts, masses, first, last):
    """Count and sum of the values above the cut of their class, per group of blocks."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _above_range(source, tables, cuts, active, counts, masses, first, last, scratch)


@jit
def _moments(row):
    mean, variance, third = 0.0, 0.0, 0.0
    for i in range(row.size):
        value = min(np.float64(row[i]), 1.0)
        spread = value * (1.0 - value)
        mean += value
        variance += spread
        third += spread * (1.0 - 2.0 * value)
    return mean, variance, third


@jit
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


@kernel
def moments(source, tables, active, means, variances, thirds, first, last):
    """Sum p, p (1 - p) and p (1 - p) (1 - 2 p) of every class, per group of blocks."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _moments_range(source, tables, active, means, variances, thirds, first, last, scratch)


@jit
def _mark_above(row, cut, mask):
    for i in range(row.size):
        mask[i] = row[i] > cut


@jit
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


@jit
def _masks_range(source, tables, cuts, out, first, last, scratch):
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        cut, mask = cuts[image, label], out[image, label]
        _mask_group(source, tables, image, label, unit % groups, cut, mask, scratch)


@kernel
def masks(source, tables, cuts, out, first, last):
    """Mark the pixels above the cut of their class; ``out`` arrives all False."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _masks_range(source, tables, cuts, out, first, last, scratch)
