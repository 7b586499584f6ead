"""Numba kernels of the CPU backend for expected metrics: power sums, and a scan over cuts."""

from __future__ import annotations

import numpy as np

from rankseg._backends.numba_compile import jit, kernel
from rankseg._backends.numba_kernels import BLOCK, GROUP, _row
from rankseg._formulas.records import NEGLIGIBLE_PROB

NEGLIGIBLE = 1e-12
"""Relative error of an integral allowed for taking the values of a block as equal."""


@jit
def _add_powers(row, degree, values, terms, sums):
    """Add the sums of the powers of a row to ``sums``, the first power first."""
    total = 0.0
    for i in range(row.size):
        value = np.float64(row[i])
        total += value
        value = value if value > NEGLIGIBLE_PROB else 0.0
        values[i] = value
        terms[i] = value
    sums[0] += total
    for power in range(1, degree):
        total = 0.0
        for i in range(row.size):
            term = terms[i] * values[i]
            terms[i] = term
            total += term
        sums[power] += total


@jit
def _add_powers_apart(row, low, high, degree, values, terms, above, below):
    """Do so for the values above ``high`` and those not above ``low``; count those between."""
    above_count, below_count = np.int32(0), np.int32(0)
    above_total, below_total = 0.0, 0.0
    for i in range(row.size):
        value = np.float64(row[i])
        is_above, is_below = row[i] > high, row[i] <= low
        above_count += np.int32(is_above)
        below_count += np.int32(is_below)
        above_total += value if is_above else 0.0
        below_total += value if is_below else 0.0
        value = value if (is_above | is_below) & (value > NEGLIGIBLE_PROB) else 0.0
        values[i] = value
        terms[i] = value
    above[0] += above_total
    below[0] += below_total
    for power in range(1, degree):
        above_total, total = 0.0, 0.0
        for i in range(row.size):
            term = terms[i] * values[i]
            terms[i] = term
            total += term
            above_total += term if row[i] > high else 0.0
        above[power] += above_total
        below[power] += total - above_total
    return above_count, row.size - above_count - below_count


@jit
def _add_equal(count, mean, degree, sums):
    """Add the sums of the powers of equal values."""
    term = np.float64(count)
    for power in range(degree):
        term *= mean
        sums[power] += term


@jit
def _split_group(
    source, tables, image, label, group, low, high, degree, spread, counts, sums,
    scratch, values, terms,
):  # fmt: skip
    """Add to ``counts`` and ``sums`` what one group holds; see :func:`split`."""
    blocks = tables.mass.shape[2]
    for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
        pixel = block * BLOCK
        stop = min(source.pixels, pixel + BLOCK)
        smallest = tables.low[image, label, block]
        largest = tables.peak[image, label, block]
        is_above = smallest > high
        if is_above | (largest <= low):
            side = 0 if is_above else 1
            counts[0] += stop - pixel if is_above else 0
            mean = tables.mass[image, label, block] / (stop - pixel)
            # No values in [smallest, largest] of this mean have a larger variance.
            if (largest - mean) * (mean - smallest) <= spread:
                _add_equal(stop - pixel, mean, degree, sums[side])
                continue
            row = _row(source, image, label, pixel, stop, scratch)
            _add_powers(row, degree, values, terms, sums[side])
        else:
            row = _row(source, image, label, pixel, stop, scratch)
            above, between = _add_powers_apart(
                row, low, high, degree, values, terms, sums[0], sums[1]
            )
            counts[0] += above
            counts[1] += between


@jit
def _split_range(source, tables, low, high, degrees, spreads, counts, sums, first, last, space):
    scratch, values, terms = space
    classes = tables.mass.shape[1]
    groups = counts.shape[3]
    for unit in range(first, last):
        image, label = divmod(unit // groups, classes)
        group = unit % groups
        if degrees[image, label] > 0:
            _split_group(
                source, tables, image, label, group, low[image, label], high[image, label],
                degrees[image, label], spreads[image, label],
                counts[image, label, :, group], sums[image, label, :, group],
                scratch, values, terms,
            )  # fmt: skip


@kernel
def split(source, tables, low, high, degrees, spreads, counts, sums, first, last):
    """Count the values above ``high`` and in (low, high]; sum the powers of the others.

    Per group of blocks; sums of those above ``high`` first, of those not above ``low`` second.
    ``counts`` is ``(batch, classes, 2, groups)``, ``sums`` ``(batch, classes, 2, groups,
    powers)``. A block on one side whose values have a variance of at most ``spreads`` is taken
    for one of equal values, which the survey knows.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    values, terms = np.empty(BLOCK), np.empty(BLOCK)
    space = (scratch, values, terms)
    _split_range(source, tables, low, high, degrees, spreads, counts, sums, first, last, space)


@jit
def _leave_out(value, label, part, amount, per_count):
    """Add one pixel outside of the mask to the integrals."""
    missing = 1 - value
    if per_count == 0:
        for k in range(label.size):
            part[k] *= missing + value * label[k]
        return
    for k in range(label.size):
        left = missing + value * label[k]
        part[k] *= left
        amount[k] -= per_count * value * label[k] / left


@jit
def _take_in(value, label, part, amount, steps):
    """Move one pixel from outside into the mask; return the score of the new mask."""
    missing = 1 - value
    gained = steps.per_mass * value - steps.per_count
    total = 0.0
    for k in range(label.size):
        hit = label[k] / (missing + value * label[k])
        part[k] *= hit if steps.outside else label[k]
        amount[k] += steps.per_hit * value * hit + gained
        total += part[k] * amount[k]
    return total


@jit
def _scan_row(values, label, part, amount, steps):
    """Return how many of its largest values the best mask of a row takes, by a scan of them all."""
    for i in range(values.size):
        _leave_out(min(values[i], 1.0), label, part, amount, steps.per_count)
    best, taken = 0.0, 0
    for k in range(label.size):
        best += part[k] * amount[k]
    for i in range(values.size):
        score = _take_in(min(values[i], 1.0), label, part, amount, steps)
        # Within a run of equal values there is no cut.
        is_cut = i + 1 == values.size or values[i + 1] < values[i]
        if score > best and is_cut:
            best, taken = score, i + 1
    return taken


@kernel
def scan(values, extra, integrals, taken, first, last):
    """Find how many of its largest values the best mask of a row takes; see ``Integrals``."""
    for row in range(first, last):
        used = integrals.nodes[row]
        part = integrals.weight[row, :used].copy()
        amount = integrals.amount[row, :used].copy()
        label = integrals.decay[row, :used]
        taken[row] = _scan_row(values[row, : extra[row]], label, part, amount, integrals.steps)
