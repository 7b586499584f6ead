"""Numba kernels of the class profile: what falls into each bin of probability."""

from __future__ import annotations

import numpy as np

from rankseg._backends._bins import BINS, OCTAVE_BITS, OCTAVES
from rankseg._backends.numba_kernels import BLOCK, DIRECT, _jit, _row

CHUNK = 1 << 10
"""Blocks that share one table of bins: enough for the table to be small against their values."""


@_jit
def write_bins(values, distance, patterns, bins):
    """Write the bin of every value, as ``bin_of`` of ``_bins`` gives it.

    ``distance`` is scratch of the size and dtype of ``values``, ``patterns`` the same memory as
    unsigned integers.
    """
    mantissa, bias = (23, 127) if values.itemsize == 4 else (52, 1023)
    shift = mantissa - OCTAVE_BITS
    lowest = np.int32(((bias - 1 - OCTAVES) << OCTAVE_BITS) - 1)
    one = values.dtype.type(1)
    least = values.dtype.type(2.0**-25)  # in the first bin, and its pattern less 1 still is
    for i in range(values.size):
        value = values[i]
        distance[i] = max(one - value if value > 0.5 else value, least)
    for i in range(values.size):
        upper = values[i] > 0.5
        short = np.int32((patterns[i] - np.uint8(not upper)) >> shift) - lowest
        short = max(short, np.int32(0))
        bins[i] = BINS - 1 - short if upper else short


@_jit
def _deposit(row, bins, table):
    """Add a row to counts and sums of its bins, run by run of equal bins: neighbours are alike."""
    bin_, count, mass = bins[0], 0.0, 0.0
    for i in range(row.size):
        if bins[i] != bin_:
            table[bin_, 0] += count
            table[bin_, 1] += mass
            bin_, count, mass = bins[i], 0.0, 0.0
        count += 1.0
        mass += row[i]
    table[bin_, 0] += count
    table[bin_, 1] += mass


@_jit
def _deposit_labelled(row, bins, labels, active, table):
    """Add a row to counts and sums of the labels of its pixels; as above, run by run."""
    classes = active.size
    label, bin_, count, mass = -1, bins[0], 0.0, 0.0
    for i in range(row.size):
        if labels[i] != label or bins[i] != bin_:
            if 0 <= label < classes and active[label]:
                table[label, bin_, 0] += count
                table[label, bin_, 1] += mass
            label, bin_, count, mass = labels[i], bins[i], 0.0, 0.0
        count += 1.0
        mass += row[i]
    if 0 <= label < classes and active[label]:
        table[label, bin_, 0] += count
        table[label, bin_, 1] += mass


@_jit
def _pick_own(source, image, pixel, labels, classes, present, scratch, own):
    """Write, for every pixel, the probability of the class it is labelled with; 0 without one."""
    if source.kind == DIRECT:
        start = image * source.batch_stride + pixel
        for i in range(labels.size):
            label = labels[i]
            known = (label >= 0) & (label < classes)
            position = start + i + (label if known else 0) * source.class_stride
            own[i] = source.values[position] if known else 0.0
        return
    own[:] = 0
    present[:] = False
    for i in range(labels.size):
        if 0 <= labels[i] < classes:
            present[labels[i]] = True
    for label in range(classes):
        if present[label]:
            row = _row(source, image, label, pixel, pixel + labels.size, scratch)
            for i in range(row.size):
                own[i] = row[i] if labels[i] == label else own[i]


@_jit
def profile(source, tables, active, out, first, last):
    """Count and sum the values of every bin. A unit is a chunk of blocks of one class."""
    classes, blocks = tables.mass.shape[1:]
    chunks = out.shape[0]
    scratch = np.empty(BLOCK, source.values.dtype)
    distance = np.empty(BLOCK, source.values.dtype)
    patterns = distance.view(source.patterns.dtype)
    bins = np.empty(BLOCK, np.int32)
    for unit in range(first, last):
        image, label = divmod(unit // chunks, classes)
        chunk = unit % chunks
        if not active[image, label]:
            continue
        for block in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            pixel = block * BLOCK
            row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
            write_bins(row, distance[: row.size], patterns[: row.size], bins)
            _deposit(row, bins, out[chunk, image, label])


@_jit
def labelled_profile(source, tables, active, labels, out, first, last):
    """Do the same for the pixels of every label. A unit is a chunk of blocks of one image."""
    classes, blocks = tables.mass.shape[1:]
    chunks = out.shape[0]
    scratch = np.empty(BLOCK, source.values.dtype)
    distance = np.empty(BLOCK, source.values.dtype)
    patterns = distance.view(source.patterns.dtype)
    bins = np.empty(BLOCK, np.int32)
    own = np.empty(BLOCK, source.values.dtype)
    present = np.empty(classes, np.bool_)
    for unit in range(first, last):
        image, chunk = divmod(unit, chunks)
        for block in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            here = labels[image, pixel:stop]
            picked = own[: here.size]
            _pick_own(source, image, pixel, here, classes, present, scratch, picked)
            write_bins(picked, distance[: here.size], patterns[: here.size], bins)
            _deposit_labelled(picked, bins, here, active[image], out[chunk, image])
