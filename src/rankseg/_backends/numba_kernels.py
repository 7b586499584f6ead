"""Numba kernels of the CPU backend: loops over blocks of pixels, nothing else.

Every kernel walks a range of *units* (a group of consecutive blocks of one image, of one class
where the work is per class) and writes into arrays its caller allocated. A unit is always done
by one thread and its blocks in order, so sums do not depend on the number of threads.

The survey keeps the sum, the smallest and the largest value of every block of every class. A
later pass reads a block only if its cut lies between the two: in real maps most blocks are all
inside or all outside a mask, and are never touched again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from rankseg._backends._records import CONTESTED, UNASSIGNED

BLOCK = 1024
"""Pixels per block: 4 KiB of float32, so that a block's scratch stays in the first-level cache."""

GROUP = 16
"""Blocks per unit of work: large against the cost of starting one, small against an image."""

DIRECT, STRIDED, FLOAT16, BFLOAT16 = range(4)

Function = TypeVar("Function", bound=Callable[..., Any])


class Source(NamedTuple):
    """Where the probabilities lie in memory, so that no layout and no dtype needs a copy.

    ``values`` is the memory of a float32 or float64 tensor from its first element to its last
    (empty for half precision), ``halves`` that of a float16 or bfloat16 one; ``patterns`` views
    ``values`` as unsigned integers. ``sizes`` and ``strides`` hold the spatial axes, merged where
    memory allows.
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


class Tables(NamedTuple):
    """What the survey learns of every block, each ``(batch, classes, blocks)``."""

    mass: np.ndarray
    low: np.ndarray
    peak: np.ndarray


def _jit(function: Function) -> Function:
    """Compile with the options every kernel here shares.

    ``nogil`` lets plain threads run kernels side by side: numba's own ``parallel=True`` kills
    forked data-loader workers. The fast-math flags allow sums to be vectorised; the ones that
    would let the compiler assume away NaN are left out, since finding NaN is part of the job.
    """
    compile_kernel: Any = functools.partial(
        numba.njit, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"}
    )
    try:
        return cast("Function", compile_kernel(function, cache=True))
    except RuntimeError:  # no folder to keep compiled code in: compile anew in each process
        return cast("Function", compile_kernel(function))


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
def _row(source, image, label, pixel, stop, scratch):
    """Return the values of one class in pixels ``pixel`` to ``stop``; 0 where not valid."""
    start = image * source.batch_stride + label * source.class_stride
    if source.kind == DIRECT:
        return source.values[start + pixel : start + stop]
    row = scratch[: stop - pixel]
    _load(source, start, pixel, row)
    if source.masked:
        for i in range(row.size):
            if not source.valid[image, pixel + i]:
                row[i] = 0.0
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
            for i in range(row.size):
                if low[unit] < row[i] <= high[unit]:
                    found[unit, size] = row[i]
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


@_jit
def _add_claims(row, cut, label, classes, claims):
    """Note who claims each pixel: 0 nobody, ``classes + label`` one, ``2 * classes`` several."""
    claim = np.int32(classes + label)
    several = np.int32(2 * classes)
    for i in range(row.size):
        noted = claims[i] + (claim if row[i] > cut else np.int32(0))
        claims[i] = min(np.int32(noted), several)


@_jit
def _settle(claims, classes, labels):
    """Label the pixels with one claim; mark those with none and with several."""
    for i in range(labels.size):
        claim = np.int64(claims[i])
        unsettled = UNASSIGNED if claim == 0 else CONTESTED
        labels[i] = claim - classes if (claim > 0) & (claim < 2 * classes) else unsettled


@_jit
def _tally(row, chosen, marks):
    """Count and sum the values whose mark is the one chosen."""
    count = np.int32(0)
    mass = 0.0
    for i in range(row.size):
        counts = marks[i] == chosen
        count += np.int32(counts)
        mass += np.float64(row[i]) if counts else 0.0
    return count, mass


@_jit
def claim(source, tables, cuts, labels, counts, masses, first, last):
    """Label the pixels in exactly one mask, and tally them per class.

    A unit is a group of blocks of one image, as in every kernel that works across classes.
    """
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[1]
    scratch = np.empty(BLOCK, source.values.dtype)
    claims = np.empty(BLOCK, np.int32)
    rivals = np.empty(classes, np.int32)
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            number = 0
            for label in range(classes):
                rivals[number] = label
                number += tables.peak[image, label, block] > cuts[image, label]
            if number == 0:
                labels[image, pixel:stop] = UNASSIGNED
                continue
            only = rivals[0]
            if number == 1 and tables.low[image, only, block] > cuts[image, only]:
                labels[image, pixel:stop] = only
                counts[image, group, only] += stop - pixel
                masses[image, group, only] += tables.mass[image, only, block]
                continue
            here = claims[: stop - pixel]
            here[:] = 0
            for label in rivals[:number]:
                row = _row(source, image, label, pixel, stop, scratch)
                _add_claims(row, cuts[image, label], label, classes, here)
            _settle(here, classes, labels[image, pixel:stop])
            for label in rivals[:number]:
                row = _row(source, image, label, pixel, stop, scratch)
                count, mass = _tally(row, np.int32(classes + label), here)
                counts[image, group, label] += count
                masses[image, group, label] += mass


@_jit
def _gain(value, slope, toll, size, shrink):
    """Return what one class gains from one more pixel: see ``Gains``."""
    return (slope * value - toll) / (size - shrink * value)


@_jit
def _terms(gains, image, label):
    return (
        gains[image, label, 0],
        gains[image, label, 1],
        gains[image, label, 2],
        gains[image, label, 3],
    )


@_jit
def _surest_gain(tables, gains, eligible, image, block):
    """Return a gain that some eligible class reaches in every pixel of the block.

    Gains rise with the probability, so a class whose largest value gains less can win nowhere
    in the block. The small allowance covers the rounding of the two gains.
    """
    surest = -np.inf
    for label in range(gains.shape[1]):
        if eligible[image, label]:
            slope, toll, size, shrink = _terms(gains, image, label)
            low = np.float64(tables.low[image, label, block])
            surest = max(surest, _gain(low, slope, toll, size, shrink))
    return surest - 1e-9 * abs(surest)


@_jit
def _pick(row, pixels, picked):
    for j in range(pixels.size):
        picked[j] = np.float64(row[pixels[j]])


@_jit
def _bid(values, free, slope, toll, size, shrink, reach_free, reach_contested, label, best, winner):
    """Let one class bid for the pixels in which it exceeds its reach; ties stay as they are."""
    for j in range(values.size):
        value, standing, holder = values[j], best[j], winner[j]
        gain = _gain(value, slope, toll, size, shrink)
        reach = reach_free if free[j] else reach_contested
        wins = (value > reach) & (gain > standing)
        best[j] = gain if wins else standing
        winner[j] = label if wins else holder


@_jit
def _list_unsettled(labels, pixels, free):
    """List the pixels still without a label, and which of them nobody claims."""
    size = 0
    for i in range(labels.size):
        pixels[size] = i
        free[size] = labels[i] == UNASSIGNED
        size += labels[i] < 0
    return size


@_jit
def _void_outside(source, image, pixel, void, labels):
    for i in range(labels.size):
        if not source.valid[image, pixel + i]:
            labels[i] = void


@_jit
def resolve(source, tables, labels, cuts, gains, eligible, floor, void, first, last):
    """Give each contested pixel to a class that claims it, each unassigned one to any eligible.

    The largest gain wins. An unassigned pixel in which no gain exceeds ``floor`` becomes void.
    """
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    scratch = np.empty(BLOCK, source.values.dtype)
    pixels = np.empty(BLOCK, np.int32)
    free = np.empty(BLOCK, np.bool_)
    picked = np.empty(BLOCK, np.float64)
    best = np.empty(BLOCK, np.float64)
    winner = np.empty(BLOCK, np.int64)
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            here = labels[image, pixel:stop]
            number = _list_unsettled(here, pixels, free)
            if number == 0:
                continue
            for j in range(number):
                best[j] = floor if free[j] else -np.inf
                winner[j] = void
            bar = _surest_gain(tables, gains, eligible, image, block)
            for label in range(classes):
                slope, toll, size, shrink = _terms(gains, image, label)
                peak = np.float64(tables.peak[image, label, block])
                hopeless = (
                    not eligible[image, label] or _gain(peak, slope, toll, size, shrink) < bar
                )
                reach_free = np.inf if hopeless else -1.0
                reach_contested = np.float64(cuts[image, label])
                if peak <= min(reach_free, reach_contested):
                    continue
                row = _row(source, image, label, pixel, stop, scratch)
                _pick(row, pixels[:number], picked)
                _bid(
                    picked[:number], free, slope, toll, size, shrink,
                    reach_free, reach_contested, label, best, winner,
                )  # fmt: skip
            for j in range(number):
                here[pixels[j]] = winner[j]
            if source.masked:
                _void_outside(source, image, pixel, void, here)


@_jit
def tally(source, tables, labels, counts, masses, first, last):
    """Count the pixels of every label and add up their probabilities."""
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[1]
    scratch = np.empty(BLOCK, source.values.dtype)
    present = np.empty(classes, np.bool_)
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            here = labels[image, pixel:stop]
            present[:] = False
            for i in range(here.size):
                if 0 <= here[i] < classes:
                    present[here[i]] = True
            for label in range(classes):
                if present[label]:
                    row = _row(source, image, label, pixel, stop, scratch)
                    count, mass = _tally(row, label, here)
                    counts[image, group, label] += count
                    masses[image, group, label] += mass
