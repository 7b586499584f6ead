"""Numba kernels of the class profile: what falls into each bin of probability."""

from __future__ import annotations

import numpy as np

from rankseg._backends._bins import BINS, OCTAVE_BITS, OCTAVES
from rankseg._backends.numba_compile import _jit, _kernel
from rankseg._backends.numba_cuts import _list_marked, _new_space
from rankseg._backends.numba_kernels import BLOCK, _bounds, _row

CHUNK = 1 << 10
"""Blocks that share one table of bins: enough for the table to be small against their values."""

LOWEST = 2.0 ** -(OCTAVES + 1)
"""The upper edge of the first bin."""

COUNT, MASS = np.uint64(0), np.uint64(1)
"""Columns of a table of bins."""

LAST = np.int32(BINS - 1)

STEPS = np.uint32((1 << (23 - OCTAVE_BITS)) - 1)
"""Mask of the bits of a float32 that do not tell its bin: the steps from an end of the bin."""

ONE_BITS = np.uint64(40)
ONE = np.uint64(1 << 40)
"""One pixel, in the same number as its steps: those of all pixels of a chunk are less than this."""
assert CHUNK * BLOCK * (int(STEPS) + 1) <= ONE

PIECE = 256
"""Values whose bins are found at a time: they leave the first-level cache to the table."""

SPARES = 64
"""Places that each end bin is counted in by turns, after all bins. Most values are often next to 0
or 1, and adding to a place waits for what was added there just before."""


@_jit
def write_bins(values, distance, patterns, bins):
    """Write the bin of every value, as ``bin_of`` of ``_bins`` gives it.

    ``distance`` is scratch of the size and dtype of ``values``, ``patterns`` the same memory as
    unsigned integers.
    """
    mantissa, bias = (23, 127) if values.itemsize == 4 else (52, 1023)
    unsigned = patterns.dtype
    shift = unsigned.type(mantissa - OCTAVE_BITS)
    lowest = np.int32(((bias - 1 - OCTAVES) << OCTAVE_BITS) - 1)
    one = values.dtype.type(1)
    least = values.dtype.type(2.0**-25)  # in the first bin, and its pattern less 1 still is
    for i in range(values.size):
        value = values[i]
        distance[i] = max(one - value if value > 0.5 else value, least)
    for i in range(values.size):
        upper = values[i] > 0.5
        pattern = unsigned.type(patterns[i] - unsigned.type(not upper))
        short = np.int32(np.int32(pattern >> shift) - lowest)
        short = max(short, np.int32(0))
        bins[i] = np.int32(LAST - short) if upper else short


@_jit
def _deposit(row, bins, table):
    """Add a row to counts and sums of its bins, run by run of equal bins: neighbours are alike."""
    bin_, count, mass = np.uint64(bins[0]), 0.0, 0.0  # unsigned: no index counts from the end
    for i in range(row.size):
        following = np.uint64(bins[i])
        if following != bin_:
            table[bin_, COUNT] += count
            table[bin_, MASS] += mass
            bin_, count, mass = following, 0.0, 0.0
        count += 1.0
        mass += row[i]
    table[bin_, COUNT] += count
    table[bin_, MASS] += mass


@_jit
def _keep_steps(values, patterns):
    """Leave of the patterns of :func:`write_bins` the steps from an end of the bin.

    From the end nearer to 1 above 1/2, else to 0, and one less there: bins hold the other end.
    """
    unsigned = patterns.dtype
    for i in range(values.size):
        patterns[i] = (patterns[i] - unsigned.type(not values[i] > 0.5)) & STEPS


@_jit
def _spare_ends(bins):
    """Turn the two end bins into spares."""
    for i in range(bins.size):
        bin_ = bins[i]
        spare = np.int32(BINS + (i & (SPARES - 1)))
        spared = spare if bin_ == 0 else bin_
        bins[i] = np.int32(spare + SPARES) if bin_ == LAST else spared


@_jit
def _deposit_steps(steps, bins, packed):
    """Add pixels and steps, both in one number."""
    for i in range(steps.size):
        packed[np.uint64(bins[i])] += ONE + np.uint64(steps[i])


@_jit
def _sum_of_ends(values):
    """Return the sums of the values in the first bin and in the last, where steps tell nothing."""
    first, last = 0.0, 0.0
    for i in range(values.size):
        value = np.float64(values[i])
        first += value if value <= LOWEST else 0.0
        last += value if value > 1.0 - LOWEST else 0.0
    return first, last


@_jit
def _unpack(packed, edges, table):
    """Add to counts and sums what steps tell of them, and clear the steps.

    They are integers, so that nothing is rounded before.
    """
    for spare in range(BINS, BINS + 2 * SPARES):
        packed[0 if spare < BINS + SPARES else LAST] += packed[spare]
        packed[spare] = 0
    for bin_ in range(BINS):
        if packed[bin_] == 0:
            continue
        count = np.float64(packed[bin_] >> ONE_BITS)
        steps = np.float64(packed[bin_] & (ONE - np.uint64(1)))
        packed[bin_] = 0
        table[bin_, 0] += count
        low, high = edges[bin_], edges[bin_ + 1]
        step = (high - low) / (STEPS + 1.0)
        if 0 < bin_ < BINS // 2:
            table[bin_, 1] += count * low + (steps + count) * step
        elif BINS // 2 <= bin_ < BINS - 1:
            table[bin_, 1] += count * high - steps * step


@_jit
def _list_exchanged(row, cut, labels, label, values, space):
    """List the values whose pixel bears the label and is not in its mask, or the other way round.

    Returns how many there are; ``space.picked`` tells where.
    """
    for i in range(row.size):
        space.marks[i] = (row[i] > cut) != (labels[i] == label)
    number = _list_marked(space.marks, row.size, space)
    for k in range(number):
        values[k] = row[space.picked[k]]
    return number


@_jit
def _profile_range(source, tables, images, labels, edges, out, first, last, space):
    scratch, distance, patterns, bins, packed = space
    blocks = tables.mass.shape[2]
    chunks = out.shape[0]
    for unit in range(first, last):
        place, chunk = divmod(unit, chunks)
        image, label = images[place], labels[place]
        table = out[chunk, place]
        for block in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            if tables.peak[image, label, block] <= LOWEST:
                table[0, 0] += stop - pixel
                table[0, 1] += tables.mass[image, label, block]
                continue
            row = _row(source, image, label, pixel, stop, scratch)
            if row.itemsize == 4:
                for start in range(0, row.size, PIECE):
                    piece = row[start : start + PIECE]
                    here = patterns[: piece.size]
                    write_bins(piece, distance[: piece.size], here, bins)
                    _keep_steps(piece, here)
                    _spare_ends(bins[: piece.size])
                    _deposit_steps(here, bins, packed)
                low, high = tables.low[image, label, block], tables.peak[image, label, block]
                if low <= LOWEST or high > 1.0 - LOWEST:
                    ends = _sum_of_ends(row)
                    table[0, 1] += ends[0]
                    table[BINS - 1, 1] += ends[1]
            else:
                write_bins(row, distance[: row.size], patterns[: row.size], bins)
                _deposit(row, bins, table)
        _unpack(packed, edges, table)


@_kernel
def profile(source, tables, images, labels, edges, out, first, last):
    """Count and sum the values of every bin. A unit is a chunk of blocks of one row.

    ``images`` and ``labels`` tell the rows, ``out`` has their tables: ``(chunks, rows, BINS, 2)``.
    ``edges`` are the ends of the bins.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    distance = np.empty(BLOCK, source.values.dtype)
    patterns = distance.view(source.patterns.dtype)
    bins = np.empty(BLOCK, np.int32)
    space = (scratch, distance, patterns, bins, np.zeros(BINS + 2 * SPARES, np.uint64))
    _profile_range(source, tables, images, labels, edges, out, first, last, space)


@_jit
def _exchange_range(source, tables, labels, cuts, place, out, first, last, space, found):
    values, distance, patterns, bins = found
    classes, blocks = tables.mass.shape[1:]
    chunks = out.shape[0]
    for unit in range(first, last):
        image, chunk = divmod(unit, chunks)
        for block in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            here = labels[image, pixel:stop]
            least, most = _bounds(here)
            for label in range(classes):
                cut = cuts[image, label]
                outside = tables.peak[image, label, block] <= cut
                inside = tables.low[image, label, block] > cut
                if place[image, label] < 0 or (outside and not least <= label <= most):
                    continue
                if inside and least == label == most:
                    continue
                row = _row(source, image, label, pixel, stop, space.block)
                size = _list_exchanged(row, cut, here, label, values, space)
                write_bins(values[:size], distance[:size], patterns[:size], bins)
                table = out[chunk, place[image, label]]
                for k in range(size):
                    sign = 1.0 if here[space.picked[k]] == label else -1.0
                    table[bins[k], 0] += sign
                    table[bins[k], 1] += sign * values[k]


@_kernel
def exchange(source, tables, labels, cuts, place, out, first, last):
    """Do the same for what labels hold and the mask of the class does not, less the converse.

    A unit is a chunk of blocks of one image. ``place`` tells which table of ``out`` a class has;
    -1 is none.
    """
    dtype = source.values.dtype
    distance = np.empty(BLOCK, dtype)
    patterns = distance.view(source.patterns.dtype)
    found = np.empty(BLOCK, dtype), distance, patterns, np.empty(BLOCK, np.int32)
    space = _new_space(dtype, 0)
    _exchange_range(source, tables, labels, cuts, place, out, first, last, space, found)
