"""Numba kernels of the CPU backend that work class by class: loops over blocks, nothing else.

Every kernel walks a range of *units* (a group of consecutive blocks of one image, of one class
where the work is per class) and writes into arrays its caller allocated. A unit is always done
by one thread and its blocks in order, so sums do not depend on the number of threads.

The survey keeps the sum, the smallest and the largest value of every block of every class. A
later pass reads a block only if its cut lies between the two: in real maps most blocks are all
inside or all outside a mask, and are never touched again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg._backends.numba_compile import _jit as _jit
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

PIECE = 64
"""Pixels that are looked at together where few are wanted."""

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
def _row(source, image, label, pixel, stop, scratch):
    """Return probabilities of one class in pixels ``pixel`` to ``stop``; 0 where not valid."""
    start = image * source.batch_stride + label * source.class_stride
    if source.kind == DIRECT:
        return source.values[start + pixel : start + stop]
    row = scratch[: stop - pixel]
    _load(source, start, pixel, row)
    if source.content != PROBABILITIES:
        _make_probabilities(source, image, pixel, stop, row)
    _blank(source, image, pixel, row)
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
        value = row[i]
        inside = value > cut
        count += np.int32(inside)
        total += np.float64(value) if inside else 0.0
    return count, total


@_jit
def _clear_negative_zeros(row, scratch):
    """Return a copy of ``row`` in which -0.0, whose bit pattern is the largest, reads 0.0."""
    copy = scratch[: row.size]
    for i in range(row.size):
        copy[i] = row[i] if row[i] != 0.0 else 0.0
    return copy


@_jit
def survey(source, half, limit, tables, counts, masses, faults, first, last):
    """Learn sum, smallest and largest value of every block, and what lies above 1/2.

    A unit is a group of blocks of one class of one image, as in every kernel that works class
    by class. ``half`` is the bit pattern of 1/2, ``limit`` that of the largest value accepted;
    ``faults`` marks the units that hold another. Count and sum of the values above 1/2 go to
    ``counts`` and ``masses``.
    """
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[2]
    scratch = np.empty(BLOCK, source.values.dtype)
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        count, mass = 0, 0.0
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            low, high = _extremes(source, row)
            if high > limit:
                row = _clear_negative_zeros(row, scratch)
                low, high = _extremes(source, row)
                faults[image, label, group] |= high > limit
            tables.low[image, label, block] = low
            tables.peak[image, label, block] = high
            tables.mass[image, label, block] = _sum(row)
            if high >= half:
                inside, total = _sum_above(row, row.dtype.type(0.5))
                count += inside
                mass += total
        counts[image, label, group] = count
        masses[image, label, group] = mass


@_jit
def above(source, tables, cuts, active, counts, masses, first, last):
    """Count and sum of the values above the cut of their class, per group of blocks."""
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[2]
    scratch = np.empty(BLOCK, source.values.dtype)
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
def moments(source, tables, active, means, variances, thirds, first, last):
    """Sum p, p (1 - p) and p (1 - p) (1 - 2 p) of every class, per group of blocks."""
    classes, blocks = tables.mass.shape[1:]
    groups = means.shape[2]
    scratch = np.empty(BLOCK, source.values.dtype)
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


@_jit
def _any_between(row, low, high):
    number = np.int32(0)
    for i in range(row.size):
        number += np.int32((row[i] > low) & (row[i] <= high))
    return number > 0


@_jit
def between(source, tables, low, high, images, labels, found, first, last):
    """Gather, for each row asked for, the values in (low, high]. A unit is a row."""
    blocks = tables.mass.shape[2]
    scratch = np.empty(BLOCK, source.values.dtype)
    for unit in range(first, last):
        image, label = images[unit], labels[unit]
        size = 0
        for block in range(blocks):
            if tables.peak[image, label, block] <= low[unit]:
                continue
            if tables.low[image, label, block] > high[unit]:
                continue
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            for piece in range(0, row.size, PIECE):
                here = row[piece : piece + PIECE]
                if not _any_between(here, low[unit], high[unit]):
                    continue
                for i in range(here.size):
                    if low[unit] < here[i] <= high[unit]:
                        found[unit, size] = here[i]
                        size += 1


@_jit
def masks(source, tables, cuts, out, first, last):
    """Mark the pixels above the cut of their class; ``out`` arrives all False."""
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    scratch = np.empty(BLOCK, source.values.dtype)
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        cut = cuts[image, label]
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            if tables.peak[image, label, block] <= cut:
                continue
            mask = out[image, label, pixel:stop]
            if tables.low[image, label, block] > cut:
                mask[:] = True
                continue
            row = _row(source, image, label, pixel, stop, scratch)
            for i in range(row.size):
                mask[i] = row[i] > cut
