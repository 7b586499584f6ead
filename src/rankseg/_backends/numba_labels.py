"""Numba kernels of the CPU backend that work across classes, and decide labels.

A unit of work is a group of blocks of one image; see ``numba_kernels`` for the rest.
"""

from __future__ import annotations

import numpy as np

from rankseg._backends.numba_compile import jit, kernel
from rankseg._backends.numba_cuts import _list_marked, _new_space
from rankseg._backends.numba_kernels import BLOCK, GROUP, _row
from rankseg._backends.numba_profile import write_bins
from rankseg._formulas.records import CONTESTED, UNASSIGNED


@jit
def _add_claims(row, cut, reach, label, classes, claims):
    """Mark which classes claim each pixel, by a cut that the pixel exceeds.

    The mark is 0 for no class, ``classes + label`` for one class, and ``2 * classes`` for several.
    A pixel above the ``reach`` but not above the cut of a class is marked as claimed by several.
    """
    claim = np.int32(classes + label)
    several = np.int32(2 * classes)
    for i in range(row.size):
        doubted = several if row[i] > reach else np.int32(0)
        noted = claims[i] + (claim if row[i] > cut else doubted)
        claims[i] = min(np.int32(noted), several)


@jit
def _settle(claims, classes, labels):
    """Label the pixels with one claim; mark those with none and with several."""
    for i in range(labels.size):
        claim = np.int64(claims[i])
        unsettled = UNASSIGNED if claim == 0 else CONTESTED
        labels[i] = claim - classes if (claim > 0) & (claim < 2 * classes) else unsettled


@jit
def _tally(row, chosen, marks):
    """Count and sum the values whose mark is the one chosen."""
    count = np.int32(0)
    mass = 0.0
    for i in range(row.size):
        counts = marks[i] == chosen
        count += np.int32(counts)
        mass += np.float64(row[i]) if counts else 0.0
    return count, mass


@jit
def _claim_range(source, tables, cuts, reach, labels, counts, masses, first, last, space):
    scratch, claims, rivals = space
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[1]
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            number = 0
            for label in range(classes):
                rivals[number] = label
                number += tables.peak[image, label, block] > reach[image, label]
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
                _add_claims(row, cuts[image, label], reach[image, label], label, classes, here)
            _settle(here, classes, labels[image, pixel:stop])
            for label in rivals[:number]:
                row = _row(source, image, label, pixel, stop, scratch)
                count, mass = _tally(row, np.int32(classes + label), here)
                counts[image, group, label] += count
                masses[image, group, label] += mass


@kernel
def claim(source, tables, cuts, reach, labels, counts, masses, first, last):
    """Label the pixels in exactly one mask and within no other reach, and tally them per class.

    A unit is a group of blocks of one image, as in every kernel that works across classes.
    """
    classes = tables.mass.shape[1]
    scratch = np.empty(BLOCK, source.values.dtype)
    claims = np.empty(BLOCK, np.int32)
    rivals = np.empty(classes, np.int32)
    space = (scratch, claims, rivals)
    _claim_range(source, tables, cuts, reach, labels, counts, masses, first, last, space)


@kernel
def count_unsettled(source, labels, counts, first, last):
    """Count the valid pixels without a label, per group of blocks."""
    groups = counts.shape[1]
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        start = group * GROUP * BLOCK
        here = labels[image, start : start + GROUP * BLOCK]
        number = 0
        for i in range(here.size):
            number += here[i] < 0
        if source.masked:
            for i in range(here.size):
                number -= (here[i] < 0) & (not source.valid[image, start + i])
        counts[image, group] = number


@jit
def _gather_unsettled_range(
    source, labels, active, starts, void, place, values, first, last, space
):
    classes, groups = active.shape[1], starts.shape[1]
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        done = starts[image, group]
        begin = group * GROUP * BLOCK
        for pixel in range(begin, min(source.pixels, begin + GROUP * BLOCK), BLOCK):
            stop = min(source.pixels, pixel + BLOCK)
            here = labels[image, pixel:stop]
            if source.masked:
                _void_outside(source, image, pixel, void, here)
            for i in range(here.size):
                space.marks[i] = here[i] < 0
            if source.masked:
                for i in range(here.size):
                    space.marks[i] &= source.valid[image, pixel + i]
            size = _list_marked(space.marks, here.size, space)
            size = min(
                size, place.shape[1] - done
            )  # the mask may have changed since it was counted
            if size == 0:
                continue
            for j in range(size):
                place[image, done + j] = pixel + space.picked[j]
            for label in range(classes):
                if active[image, label]:
                    row = _row(source, image, label, pixel, stop, space.block)
                    for j in range(size):
                        values[image, label, done + j] = row[space.picked[j]]
            done += size


@kernel
def gather_unsettled(source, labels, active, starts, void, place, values, first, last):
    """Gather the values of these pixels, group after group, and tell where they are.

    A group writes from its place in ``starts`` on. Pixels not valid become ``void``.
    """
    space = _new_space(source.values.dtype, 0)
    _gather_unsettled_range(source, labels, active, starts, void, place, values, first, last, space)


@jit
def _gain(value, terms):
    """Return what a class gains from one more pixel: see ``Gains``.

    ``GainCurves`` have two terms only, ``slope`` and ``toll``.
    """
    line = terms[0] * value - terms[1]
    return line if terms.size == 2 else line / (terms[2] - terms[3] * value)


@jit
def _locate(values, pieces, bins):
    """Write the piece of the gains that each value falls in: its bin, if there are several."""
    if pieces == 1:
        bins[: values.size] = 0
    else:
        write_bins(values, bins)


@jit
def _gains_by_class(values, gains, place, bins, out):
    """Write the gain of every class at ``values[class]``; -inf for classes without gains."""
    _locate(values, gains.shape[1], bins)
    for label in range(values.size):
        row = place[label]
        out[label] = _gain(values[label], gains[row, bins[label]]) if row >= 0 else -np.inf


@jit
def _surest_gain(least, eligible):
    """Return a gain that some eligible class reaches in every pixel of a block.

    Gains rise with the probability, so a class whose largest value gains less than ``least``, the
    gain at another's smallest, can win nowhere in the block. The small allowance covers the
    rounding of the two gains.
    """
    surest = -np.inf
    for label in range(least.size):
        if eligible[label]:
            surest = max(surest, least[label])
    return surest - 1e-9 * abs(surest)


@jit
def _pick(row, pixels, picked):
    for j in range(pixels.size):
        picked[j] = np.float64(row[pixels[j]])


@jit
def _bid(values, free, slope, toll, size, shrink, reach_free, reach_contested, label, best, winner):
    """Let one class bid for the pixels in which it exceeds its reach; ties stay as they are."""
    for j in range(values.size):
        value, standing, holder = values[j], best[j], winner[j]
        gain = (slope * value - toll) / (size - shrink * value)
        reach = reach_free if free[j] else reach_contested
        wins = (value > reach) & (gain > standing)
        best[j] = gain if wins else standing
        winner[j] = label if wins else holder


@jit
def _bid_by_pieces(values, free, gains, bins, reach_free, reach_contested, label, best, winner):
    """Do the same with gains that have a piece for every bin."""
    for j in range(values.size):
        reach = reach_free if free[j] else reach_contested
        if values[j] > reach:
            gain = _gain(values[j], gains[bins[j]])
            if gain > best[j]:
                best[j] = gain
                winner[j] = label


@jit
def _list_unsettled(labels, pixels, free):
    """List the pixels still without a label, and which of them nobody claims."""
    size = 0
    for i in range(labels.size):
        pixels[size] = i
        free[size] = labels[i] == UNASSIGNED
        size += labels[i] < 0
    return size


@jit
def _void_outside(source, image, pixel, void, labels):
    for i in range(labels.size):
        if not source.valid[image, pixel + i]:
            labels[i] = void


@jit
def _resolve_range(
    source, tables, labels, cuts, gains, place, eligible, floor, void, first, last, space
):
    scratch, lows, peaks, least, most, bins, pixels, free, picked, best, winner = space
    classes, blocks = tables.mass.shape[1:]
    groups = (blocks + GROUP - 1) // GROUP
    pieces = gains.shape[1]
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
            for label in range(classes):
                lows[label] = tables.low[image, label, block]
                peaks[label] = tables.peak[image, label, block]
            _gains_by_class(lows, gains, place[image], bins, least)
            _gains_by_class(peaks, gains, place[image], bins, most)
            bar = _surest_gain(least, eligible[image])
            for label in range(classes):
                peak = peaks[label]
                hopeless = not eligible[image, label] or most[label] < bar
                reach_free = np.inf if hopeless else -1.0
                reach_contested = np.float64(cuts[image, label])
                row_of_gains = place[image, label]
                if peak <= min(reach_free, reach_contested) or row_of_gains < 0:
                    continue
                row = _row(source, image, label, pixel, stop, scratch)
                _pick(row, pixels[:number], picked)
                values = picked[:number]
                if pieces == 1:
                    terms = gains[row_of_gains, 0]
                    _bid(
                        values, free, terms[0], terms[1], terms[2], terms[3],
                        reach_free, reach_contested, label, best, winner,
                    )  # fmt: skip
                else:
                    _locate(values, pieces, bins)
                    _bid_by_pieces(
                        values, free, gains[row_of_gains], bins,
                        reach_free, reach_contested, label, best, winner,
                    )  # fmt: skip
            for j in range(number):
                here[pixels[j]] = winner[j]
            if source.masked:
                _void_outside(source, image, pixel, void, here)


@kernel
def resolve(source, tables, labels, cuts, gains, place, eligible, floor, void, first, last):
    """Give each contested pixel to a class that claims it, each unassigned one to any eligible.

    The largest gain wins. An unassigned pixel in which no gain exceeds ``floor`` becomes void.
    ``gains`` is ``(rows, pieces, terms)``: the four terms of ``Gains``, or for each bin the two of
    ``GainCurves``; ``place`` tells which row is that of a class, or -1.
    """
    classes = tables.mass.shape[1]
    scratch = np.empty(BLOCK, source.values.dtype)
    lows, peaks = np.empty(classes), np.empty(classes)
    least, most = np.empty(classes), np.empty(classes)
    bins = np.empty(max(BLOCK, classes), np.int32)
    pixels = np.empty(BLOCK, np.int32)
    free = np.empty(BLOCK, np.bool_)
    picked = np.empty(BLOCK, np.float64)
    best = np.empty(BLOCK, np.float64)
    winner = np.empty(BLOCK, np.int64)
    space = (scratch, lows, peaks, least, most, bins, pixels, free, picked, best, winner)
    _resolve_range(
        source, tables, labels, cuts, gains, place, eligible, floor, void, first, last, space
    )


@jit
def _tally_range(source, tables, labels, counts, masses, first, last, space):
    scratch, present = space
    classes, blocks = tables.mass.shape[1:]
    groups = counts.shape[1]
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


@kernel
def tally(source, tables, labels, counts, masses, first, last):
    """Add count and mass of every label to ``counts`` and ``masses``, ``(batch, groups, classes)``.

    The mass of a label is the sum, over the pixels with this label, of their probability of that
    class. Does the units from ``first`` to ``last - 1``; a unit is a group of blocks of an image.
    """
    classes = tables.mass.shape[1]
    scratch = np.empty(BLOCK, source.values.dtype)
    present = np.empty(classes, np.bool_)
    space = (scratch, present)
    _tally_range(source, tables, labels, counts, masses, first, last, space)
