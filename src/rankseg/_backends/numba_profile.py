"""Numba kernels of the class profile: count and sum of the probabilities in each bin."""

from __future__ import annotations

import numpy as np

from rankseg._backends.numba_compile import jit, jit_inline, kernel
from rankseg._backends.numba_cuts import _list_marked, _new_space
from rankseg._backends.numba_kernels import BLOCK, _bounds, _row
from rankseg._backends.numba_prefetch import prefetch
from rankseg._formulas.bins import BINS, OCTAVE_BITS, OCTAVES

CHUNK = 1 << 10
"""Blocks that share one table of bins: so many that the table is small against their values."""

LOWEST = 2.0 ** -(OCTAVES + 1)
"""The upper edge of the first bin."""

COUNT, MASS = np.uint64(0), np.uint64(1)
"""Columns of a table of bins."""

LAST = np.int32(BINS - 1)

STEP_BITS = 23 - OCTAVE_BITS
"""Low bits of a float32 that do not select its bin: they count steps from an edge of the bin."""

ONE = np.uint64(1 << 40)
"""What one pixel adds to the integer of its bin, besides its code. The steps of all pixels of a
chunk sum to less than this, so that count and steps can be separated again."""
assert CHUNK * BLOCK << STEP_BITS < ONE

PIECE = 256
"""Values whose codes are computed at a time: few, so that the table stays in the level-1 cache."""

VALUES_PER_LINE = 16
"""Of float32, in a line of the cache."""

SPARES = 64
"""Spare places for each end bin, used in turn; they follow the bins in the table. Often most values
are near 0 or 1, and an addition to a place waits for the previous addition to the same place."""

FIRST_SPARES, LAST_SPARES = BINS, BINS + SPARES

LOWEST_PATTERN = ((126 - OCTAVES) << OCTAVE_BITS) - 1
"""What the leading bits of a float32 in the first bin do not exceed."""

LOWEST_PATTERN_64 = ((1022 - OCTAVES) << OCTAVE_BITS) - 1


@jit
def write_bins(values, bins):
    """Write the bin of every value, as ``bin_of`` of ``bins`` gives it."""
    for i in range(values.size):
        value = np.float64(values[i])
        upper = value > 0.5
        # Of what is in an end bin, also where it exceeds 1, the pattern less 1 is positive.
        distance = np.float64(max(1.0 - value if upper else value, 2.0**-25))
        pattern = distance.view(np.int64) - np.int64(not upper)
        short = np.int32(max((pattern >> (52 - OCTAVE_BITS)) - LOWEST_PATTERN_64, 0))
        bins[i] = LAST - short if upper else min(short, LAST)  # NaN, if the maps changed


@jit
def _write_codes(values, codes):
    """Write a code for every float32: its bin in the high bits, its steps within it in the low.

    A value with ``n`` steps lies ``n + 1`` steps above the lower edge of its bin. The bin is the
    leading bits of the value (of its distance to 1 if the value exceeds 1/2), but for a constant
    and the sign. Codes of the two end bins use the spare places of the table and have no steps.
    """
    one, half, zero = np.float32(1), np.float32(0.5), np.float32(0)
    lowest = np.int32(LOWEST_PATTERN << STEP_BITS)
    first, last = np.int32(1 << STEP_BITS), np.int32(int(LAST) << STEP_BITS)
    for i in range(values.size):
        value = np.float32(values[i])
        distance = np.float32(max(one - value, zero))
        pattern = max(value.view(np.int32), np.int32(0))  # -0.0 is 0
        lower = np.int32(pattern - lowest - np.int32(1))
        upper = np.int32(last + lowest + (first - np.int32(1)) - distance.view(np.int32))
        code = upper if value > half else lower
        spare = np.int32((FIRST_SPARES + (i & (SPARES - 1))) << STEP_BITS)
        spared = spare if code < first else code
        codes[i] = np.int32(spare + np.int32(SPARES << STEP_BITS)) if code >= last else spared


@jit
def _deposit(row, bins, table):
    """Add count and sum of the values of a row to the bins of ``table``.

    Neighbouring pixels often share a bin: a run of equal bins is added at once.
    """
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


@jit
def _fetch_ahead(piece):
    """Prefetch ``piece.size`` values that lie one block after ``piece``."""
    for k in range(BLOCK, BLOCK + piece.size, VALUES_PER_LINE):
        prefetch(piece, k)


@jit
def _deposit_codes(codes, packed):
    """Add ``ONE`` and the code of every value to the integer of its bin; see `_unpack`."""
    for i in range(codes.size):
        code = np.uint64(np.uint32(codes[i]))
        packed[code >> np.uint64(STEP_BITS)] += ONE + code


@jit
def _sum_of_first_bin(values):
    """Return the sum of the values in the first bin, [0, ``LOWEST``].

    Codes hold a value as its bin and a number of steps within it. Codes of the end bins have no
    steps, so the sum of the first bin must be taken from the values.
    """
    total, nothing = 0.0, np.float32(0)
    for i in range(values.size):
        total += np.float64(values[i] if values[i] <= np.float32(LOWEST) else nothing)
    return total


@jit
def _sum_above_one(values):
    """Return the sum of ``value - 1`` over the values that exceed 1, which rounding may cause."""
    total, one, nothing = 0.0, np.float32(1), np.float32(0)
    for i in range(values.size):
        total += np.float64(values[i] - one if values[i] > one else nothing)
    return total


@jit
def _unpack(packed, edges, table):
    """Add the counts and sums packed in ``packed`` to ``table``, and set ``packed`` to 0.

    Steps are integers, so the sums are exact up to this point.
    """
    for bin_ in range(packed.size):
        each = ONE + np.uint64(bin_ << STEP_BITS)
        # Steps are less than an eighth of a pixel: division rounds to the count.
        count = np.floor(np.float64(packed[bin_]) / np.float64(each) + 0.5)
        steps = np.float64(packed[bin_] - np.uint64(count) * each)
        packed[bin_] = 0
        if bin_ < BINS:
            low, high = edges[bin_], edges[bin_ + 1]
            table[bin_, COUNT] += count
            table[bin_, MASS] += count * low + (steps + count) * (high - low) / (1 << STEP_BITS)
        elif bin_ < LAST_SPARES:
            table[0, COUNT] += count
        else:  # nothing of float32 is between the last two edges
            table[LAST, COUNT] += count
            table[LAST, MASS] += count


@jit
def _list_exchanged(row, cut, labels, label, values, space):
    """List the pixels where label and mask of a class differ, in ``space.picked``.

    Returns how many there are. They have the label and are not in the mask, or the reverse.
    """
    for i in range(row.size):
        space.marks[i] = (row[i] > cut) != (labels[i] == label)
    number = _list_marked(space.marks, row.size, space)
    for k in range(number):
        values[k] = row[space.picked[k]]
    return number


@jit
def _profile_chunk(source, tables, image, label, chunk, edges, table, space):
    """Add count and sum of the values of one chunk of a row to the bins of a table."""
    scratch, codes, packed = space
    for block in range(chunk * CHUNK, min(tables.mass.shape[2], (chunk + 1) * CHUNK)):
        pixel = block * BLOCK
        stop = min(source.pixels, pixel + BLOCK)
        low, peak = tables.low[image, label, block], tables.peak[image, label, block]
        if peak <= LOWEST:
            table[0, COUNT] += stop - pixel
            table[0, MASS] += tables.mass[image, label, block]
            continue
        row = _row(source, image, label, pixel, stop, scratch)
        if row.itemsize == 4:
            if low <= LOWEST:
                table[0, MASS] += _sum_of_first_bin(row)
            if peak > 1.0:
                table[LAST, MASS] += _sum_above_one(row)
            for start in range(0, row.size, PIECE):
                piece = row[start : start + PIECE]
                _fetch_ahead(piece)
                _write_codes(piece, codes)
                _deposit_codes(codes[: piece.size], packed)
        else:
            write_bins(row, codes)
            _deposit(row, codes, table)
    _unpack(packed, edges, table)


@jit
def _profile_range(source, tables, images, labels, edges, out, first, last, space):
    chunks = out.shape[0]
    for unit in range(first, last):
        place, chunk = divmod(unit, chunks)
        image, label = images[place], labels[place]
        _profile_chunk(source, tables, image, label, chunk, edges, out[chunk, place], space)


@jit_inline
def _new_profile_space(dtype):
    # Codes right after the spares: what is 4096 bytes from what was just written is read slowly.
    memory = np.zeros(BINS + 2 * SPARES + BLOCK // 2, np.uint64)
    packed, codes = memory[: BINS + 2 * SPARES], memory[BINS + 2 * SPARES :].view(np.int32)
    return np.empty(BLOCK, dtype), codes, packed


@kernel
def profile(source, tables, images, labels, edges, out, first, last):
    """Write count and sum of the values in every bin to ``out``: ``(chunks, rows, BINS, 2)``.

    A row is image ``images[row]`` and class ``labels[row]``. A unit is a chunk of blocks of one
    row. ``edges`` are the edges of the bins.
    """
    space = _new_profile_space(source.values.dtype)
    _profile_range(source, tables, images, labels, edges, out, first, last, space)


@jit
def _exchange_range(source, tables, labels, cuts, place, out, first, last, space, found):
    values, bins = found
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
                write_bins(values[:size], bins)
                table = out[chunk, place[image, label]]
                for k in range(size):
                    sign = 1.0 if here[space.picked[k]] == label else -1.0
                    table[bins[k], 0] += sign
                    table[bins[k], 1] += sign * values[k]


@kernel
def exchange(source, tables, labels, cuts, place, out, first, last):
    """Write the profile of the pixels labelled as a class minus that of its mask to ``out``.

    A unit is a chunk of blocks of one image. ``place`` is the row of ``out`` of every image and
    class, or -1.
    """
    dtype = source.values.dtype
    found = np.empty(BLOCK, dtype), np.empty(BLOCK, np.int32)
    space = _new_space(dtype, 0)
    _exchange_range(source, tables, labels, cuts, place, out, first, last, space, found)
