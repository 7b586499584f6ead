"""Find the classes that are the likeliest in some pixel: those that argmax predicts.

Each class is tested first in the pixel where its own probability is largest. If another class wins
that pixel, the class is in doubt, and all blocks in which the class could still win are read. In
real maps these blocks are few.
"""

from __future__ import annotations

import numpy as np

from rankseg._backends.numba_compile import jit, kernel
from rankseg._backends.numba_kernels import BLOCK, GROUP, _copy, _row

LEAST_SUM = 0.5
"""What the probabilities of every pixel of a block add up to at least, if their mean is 1.

The mean of the sums over a block's ``BLOCK`` pixels may then differ from 1 by ``NEAR_ONE`` only.
"""

NEAR_ONE = LEAST_SUM / BLOCK


@jit
def _largest(values):
    """Return the place of the first of the largest numbers."""
    place = 0
    for other in range(1, values.size):
        if values[other] > values[place]:
            place = other
    return place


@jit
def _likeliest_pixel(source, tables, image, label, scratch):
    """Return the first pixel of the block with the largest peak that has this value, or -1."""
    peaks = tables.peak[image, label]
    block = _largest(peaks)
    pixel = block * BLOCK
    row = _row(source, image, label, pixel, min(source.pixels, pixel + BLOCK), scratch)
    for i in range(row.size):
        if row[i] == peaks[block]:
            return pixel + i
    return -1  # the map has changed since


@jit
def _wins(source, image, label, pixel, classes, first_rival, scratch):
    """Return whether no other class is likelier in a pixel; of equal ones the first wins."""
    value = _row(source, image, label, pixel, pixel + 1, scratch)[0]
    for step in range(classes):
        other = (first_rival + step) % classes
        if other == label:
            continue
        rival = _row(source, image, other, pixel, pixel + 1, scratch)[0]
        if rival > value or (rival == value and other < label):
            return False
    return True


@jit
def _witness_range(source, tables, mass, peak, won, first, last, scratch):
    classes = tables.mass.shape[1]
    for unit in range(first, last):
        image, label = divmod(unit, classes)
        if peak[image, label] <= 0.0:
            continue
        pixel = _likeliest_pixel(source, tables, image, label, scratch)
        if pixel >= 0:
            main = _largest(mass[image])
            won[image, label] = _wins(source, image, label, pixel, classes, main, scratch)


@kernel
def witness(source, tables, mass, peak, won, first, last):
    """Mark the classes that win the pixel in which they are likeliest. A unit is a class."""
    scratch = np.empty(BLOCK, source.values.dtype)
    _witness_range(source, tables, mass, peak, won, first, last, scratch)


@jit
def _least_winner(tables, image, block, pixels):
    """Return a value that every winner in a block reaches."""
    classes = tables.mass.shape[1]
    total, surest = 0.0, 0.0
    for label in range(classes):
        total += tables.mass[image, label, block]
        surest = max(surest, np.float64(tables.low[image, label, block]))
    if abs(total - pixels) <= NEAR_ONE * pixels:
        surest = max(surest, LEAST_SUM / classes)
    return surest


@jit
def _reaches(row, main):
    reached = False
    for i in range(row.size):
        reached |= row[i] >= main[i]
    return reached


@jit
def _in_doubt(source, tables, won, image, block, least, space):
    """Return whether a class that is in doubt reaches the main class somewhere in a block."""
    scratch, best, _ = space
    pixel = block * BLOCK
    stop = min(source.pixels, pixel + BLOCK)
    main, copied = _largest(tables.mass[image, :, block]), False
    for label in range(tables.mass.shape[1]):
        if won[image, label] or tables.peak[image, label, block] < least:
            continue
        if label == main:
            return True
        if not copied:
            row = _row(source, image, main, pixel, stop, scratch)
            _copy(row, 0, 1, best[: stop - pixel])
            copied = True
        if _reaches(_row(source, image, label, pixel, stop, scratch), best[: stop - pixel]):
            return True
    return False


@jit
def _raise_best(row, label, best, winner):
    for i in range(row.size):
        above = row[i] > best[i]
        best[i] = row[i] if above else best[i]
        winner[i] = label if above else winner[i]


@jit
def _contest_range(source, tables, won, first, last, space):
    scratch, best, winner = space
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            least = _least_winner(tables, image, block, stop - pixel)
            if not _in_doubt(source, tables, won, image, block, least, space):
                continue
            best[:] = -1.0
            winner[:] = 0
            for label in range(classes):
                if tables.peak[image, label, block] >= least:
                    row = _row(source, image, label, pixel, stop, scratch)
                    _raise_best(row, label, best[: stop - pixel], winner)
            for i in range(stop - pixel):
                if not source.masked or source.valid[image, pixel + i]:
                    won[image, winner[i]] = True


@kernel
def contest(source, tables, won, first, last):
    """Mark the classes that win a pixel of a block in which a class not marked yet could."""
    scratch, best = np.empty(BLOCK, source.values.dtype), np.empty(BLOCK, source.values.dtype)
    winner = np.empty(BLOCK, np.int32)
    _contest_range(source, tables, won, first, last, (scratch, best, winner))
