"""Kernels for GPUs: each goes once over the probabilities that it needs.

A *row* is one class of one image; a program works on a part of a row, or on some pixels of an
image in all its classes. Probabilities are compared in their own precision, or in float32 where
that is higher, with cuts rounded down to it; sums are in float64. Sums over a part are written
beside those of the other parts and added later, always in the same order.

The first eleven parameters of every kernel say where probabilities lie: see ``Maps.layout`` in
:mod:`rankseg._backends.triton_gpu`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rankseg._formulas import records

CONTESTED = tl.constexpr(records.CONTESTED)
UNASSIGNED = tl.constexpr(records.UNASSIGNED)


@triton.jit
def _place(pixel, size0, size1, step0, step1, step2, FLAT: tl.constexpr):
    """Return where pixels lie, from the first of their row."""
    pixel = pixel.to(tl.int64)
    if FLAT:
        place = pixel * step2
    else:
        line = pixel // size1
        place = (line // size0) * step0 + (line % size0) * step1 + (pixel % size1) * step2
    return place


@triton.jit
def _counted(valid, image, pixel, pixels, MASKED: tl.constexpr):
    """Tell which pixels are in the image, and valid."""
    inside = pixel < pixels
    if MASKED:
        inside = inside & (tl.load(valid + image * pixels + pixel, mask=inside, other=0) != 0)
    return inside


@triton.jit
def _load(row, place, wanted, WIDE: tl.constexpr):
    """Load probabilities, 0 where not wanted, and widen half precision."""
    values = tl.load(row + place, mask=wanted, other=0.0)
    if not WIDE:
        values = values.to(tl.float32)
    return values


@triton.jit
def _round_down(cut, WIDE: tl.constexpr):
    """Return the largest number of the precision compared in that does not exceed a cut."""
    if not WIDE:
        near = cut.to(tl.float32)
        below = (near.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True)
        cut = tl.where(near.to(tl.float64) > cut, below, near)
    return cut


@triton.jit
def _sum_above(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    row, part, parts, cut,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Count and sum the probabilities of one part of a row that exceed a cut."""
    image = (row // classes).to(tl.int64)
    start = probs + image * batch_step + (row % classes).to(tl.int64) * class_step
    limit = _round_down(cut, WIDE)
    count = tl.zeros((TILE,), tl.int32)
    mass = tl.zeros((TILE,), tl.float64)
    for tile in range(part, tl.cdiv(pixels, TILE), parts):
        pixel = tile * TILE + tl.arange(0, TILE)
        wanted = _counted(valid, image, pixel, pixels, MASKED)
        place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
        values = _load(start, place, wanted, WIDE)
        over = wanted & (values > limit)
        count += over.to(tl.int32)
        mass += tl.where(over, values.to(tl.float64), 0.0)
    return tl.sum(count).to(tl.float64), tl.sum(mass)


@triton.jit
def survey(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    parts, found,
    LIMIT: tl.constexpr,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Write mass, peak, count and mass above 1/2, and the number of faults of a part of a row."""
    part, row = tl.program_id(0), tl.program_id(1)
    image = (row // classes).to(tl.int64)
    start = probs + image * batch_step + (row % classes).to(tl.int64) * class_step
    mass = tl.zeros((TILE,), tl.float64)
    likely_mass = tl.zeros((TILE,), tl.float64)
    peak = tl.zeros((TILE,), tl.float64 if WIDE else tl.float32)
    likely = tl.zeros((TILE,), tl.int32)
    faults = tl.zeros((TILE,), tl.int32)
    for tile in range(part, tl.cdiv(pixels, TILE), parts):
        pixel = tile * TILE + tl.arange(0, TILE)
        wanted = _counted(valid, image, pixel, pixels, MASKED)
        place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
        values = _load(start, place, wanted, WIDE)
        sound = (values >= 0) & (values <= LIMIT)  # False for NaN too
        faults += tl.where(sound, 0, 1)
        wide = values.to(tl.float64)
        over = values > 0.5
        mass += wide
        likely += over.to(tl.int32)
        likely_mass += tl.where(over, wide, 0.0)
        peak = tl.maximum(peak, values)
    here = found + row * parts + part
    kinds = tl.num_programs(1).to(tl.int64) * parts
    tl.store(here, tl.sum(mass))
    tl.store(here + kinds, tl.max(peak).to(tl.float64))
    tl.store(here + 2 * kinds, tl.sum(likely).to(tl.float64))
    tl.store(here + 3 * kinds, tl.sum(likely_mass))
    tl.store(here + 4 * kinds, tl.sum(faults).to(tl.float64))


@triton.jit
def above(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    parts, cuts, active, counts, masses,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Write count and mass above the cut of a part of a row; 0 where the row is not active."""
    part, row = tl.program_id(0), tl.program_id(1)
    count, mass = tl.zeros((), tl.float64), tl.zeros((), tl.float64)
    if tl.load(active + row) != 0:
        count, mass = _sum_above(
            probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels,
            classes, row, part, parts, tl.load(cuts + row), FLAT, MASKED, WIDE, TILE,
        )  # fmt: skip
    tl.store(counts + row * parts + part, count)
    tl.store(masses + row * parts + part, mass)


@triton.jit
def first_cuts(
    mass, peak, likely_count, likely_mass, active, terms, here, BONUS: tl.constexpr,
    OFFSET: tl.constexpr,
):  # fmt: skip
    """Write the terms of a row's fraction, and the best of three masks' fractions as its cut."""
    row = tl.program_id(0)
    rows = tl.num_programs(0)
    bonus = tl.zeros((), tl.float64) + BONUS
    offset = tl.load(mass + row) + OFFSET
    cut = tl.maximum(bonus / offset, (tl.load(peak + row) + bonus) / (1.0 + offset))
    likely = (tl.load(likely_mass + row) + bonus) / (tl.load(likely_count + row) + offset)
    tl.store(terms + row, bonus)
    tl.store(terms + rows + row, offset)
    tl.store(here + row, tl.maximum(cut, likely))
    tl.store(here + rows + row, tl.load(active + row).to(tl.float64))


@triton.jit
def raise_cuts(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    parts, terms, here, there,
    FIRST: tl.constexpr, PARTS: tl.constexpr,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Raise the cut of a row to the fraction found last, and count and sum what is above it.

    Every program of a row works out the new cut from the sums of all parts. A row whose cut does
    not rise is left alone from there on. ``terms`` are bonus and offset of all rows; ``here`` and
    ``there``, old and new: cuts, whether they rise, and counts and masses of all parts.
    """
    part, row = tl.program_id(0), tl.program_id(1)
    rows = tl.num_programs(1)
    cut = tl.load(here + row)
    rises = tl.load(here + rows + row) != 0
    counts = (2 + tl.zeros((), tl.int64)) * rows + row * parts
    masses = counts + tl.zeros((), tl.int64) + rows * parts
    if not FIRST:
        each = tl.arange(0, PARTS)
        count = tl.sum(tl.load(here + counts + each, mask=each < parts, other=0.0))
        mass = tl.sum(tl.load(here + masses + each, mask=each < parts, other=0.0))
        fraction = (mass + tl.load(terms + row)) / (count + tl.load(terms + rows + row))
        rises = rises & (fraction > cut)
        cut = tl.where(rises, fraction, cut)
    if part == 0:
        tl.store(there + row, cut)
        tl.store(there + rows + row, rises.to(tl.float64))
    if rises:
        count, mass = _sum_above(
            probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels,
            classes, row, part, parts, cut, FLAT, MASKED, WIDE, TILE,
        )  # fmt: skip
        tl.store(there + counts + part, count)
        tl.store(there + masses + part, mass)


@triton.jit
def last_cuts(here, peak, active, cuts, KEEP_PEAK: tl.constexpr):
    """Write the cut of a row, below its largest value if that is kept; infinity if not active."""
    row = tl.program_id(0)
    cut = tl.load(here + row)
    if KEEP_PEAK:
        largest = tl.load(peak + row)
        below = (largest.to(tl.int64, bitcast=True) - 1).to(tl.float64, bitcast=True)
        cut = tl.minimum(cut, tl.where(largest > 0, below, 0.0))
    tl.store(cuts + row, tl.where(tl.load(active + row) != 0, cut, float("inf")))


@triton.jit
def masks(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    cuts, inside,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Write which probabilities of a row exceed its cut."""
    row = tl.program_id(1)
    image = (row // classes).to(tl.int64)
    pixel = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    cut = tl.load(cuts + row)
    over = tl.zeros((TILE,), tl.int1)
    if cut < float("inf"):
        wanted = _counted(valid, image, pixel, pixels, MASKED)
        place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
        start = probs + image * batch_step + (row % classes).to(tl.int64) * class_step
        over = wanted & (_load(start, place, wanted, WIDE) > _round_down(cut, WIDE))
    tl.store(inside + row.to(tl.int64) * pixels + pixel, over.to(tl.int8), mask=pixel < pixels)


@triton.jit
def _tally(
    start, wide_step, place, classes, label, active, sums, step, part, parts, WIDE: tl.constexpr
):  # fmt: skip
    """Write count and mass of every active class among some pixels; the others' are left alone."""
    for c in range(classes):
        if tl.load(active + c) != 0:
            chosen = label == c
            count = tl.sum(chosen.to(tl.int32))
            mass = tl.zeros((), tl.float64)
            if count > 0:
                values = _load(start + c * wide_step, place, chosen, WIDE)
                mass = tl.sum(values.to(tl.float64))
            tl.store(sums + c * parts + part, count.to(tl.float64))
            tl.store(sums + step + c * parts + part, mass)


@triton.jit
def claim(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    parts, cuts, lower_cuts, active, labels, sums,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Label the pixels above the cut of one class and no other lower cut; count and sum them."""
    part, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pixel = part.to(tl.int64) * TILE + tl.arange(0, TILE)
    wanted = _counted(valid, image, pixel, pixels, MASKED)
    place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
    start = probs + image * batch_step
    row = image * classes
    wide_step = tl.zeros((), tl.int64) + class_step
    reached = tl.zeros((TILE,), tl.int32)
    first = tl.full((TILE,), UNASSIGNED, tl.int32)
    for c in range(classes):
        if tl.load(active + row + c) != 0:
            values = _load(start + c * wide_step, place, wanted, WIDE)
            near = wanted & (values > _round_down(tl.load(lower_cuts + row + c), WIDE))
            over = wanted & (values > _round_down(tl.load(cuts + row + c), WIDE))
            reached += near.to(tl.int32)
            first = tl.where(over & (first < 0), c, first)
    single = (reached == 1) & (first >= 0)
    label = tl.where(single, first, tl.where(reached > 0, CONTESTED, UNASSIGNED))
    tl.store(labels + image * pixels + pixel, label.to(tl.int64), mask=pixel < pixels)
    step = tl.num_programs(1).to(tl.int64) * classes * parts
    _tally(
        start, wide_step, place, classes, label, active + row, sums + row * parts, step, part,
        parts, WIDE,
    )  # fmt: skip


@triton.jit
def tally(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    parts, active, labels, sums,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Count and sum the pixels of every label."""
    part, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pixel = part.to(tl.int64) * TILE + tl.arange(0, TILE)
    wanted = _counted(valid, image, pixel, pixels, False)
    place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
    row = image * classes
    wide_step = tl.zeros((), tl.int64) + class_step
    label = tl.load(labels + image * pixels + pixel, mask=wanted, other=UNASSIGNED)
    step = tl.num_programs(1).to(tl.int64) * classes * parts
    _tally(
        probs + image * batch_step, wide_step, place, classes, label, active + row,
        sums + row * parts, step, part, parts, WIDE,
    )  # fmt: skip


@triton.jit
def resolve(
    probs, valid, batch_step, class_step, size0, size1, step0, step1, step2, pixels, classes,
    labels, cuts, eligible, slope, toll, size, shrink, void,
    FLOOR: tl.constexpr,
    FLAT: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Give every pixel without a label to the class allowed there that gains most by it."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = pixel < pixels
    wanted = _counted(valid, image, pixel, pixels, MASKED)
    here = labels + image * pixels + pixel
    label = tl.load(here, mask=inside, other=0)
    if MASKED:
        label = tl.where(wanted, label, void)
    open_ = wanted & (label < 0)
    if tl.sum(open_.to(tl.int32)) > 0:
        contested = label == CONTESTED
        place = _place(pixel, size0, size1, step0, step1, step2, FLAT)
        start = probs + image * batch_step
        row = image * classes
        wide_step = tl.zeros((), tl.int64) + class_step
        best = tl.full((TILE,), float("-inf"), tl.float64)
        winner = tl.zeros((TILE,), tl.int64) + void
        for c in range(classes):
            cut = tl.load(cuts + row + c)
            may_have = tl.load(eligible + row + c) != 0
            if may_have | (cut < float("inf")):
                values = _load(start + c * wide_step, place, open_, WIDE)
                wide = values.to(tl.float64)
                gain = tl.load(slope + row + c) * wide - tl.load(toll + row + c)
                gain = gain / (tl.load(size + row + c) - tl.load(shrink + row + c) * wide)
                free = gain > tl.where(may_have, FLOOR, float("inf"))
                allowed = tl.where(contested, values > _round_down(cut, WIDE), free)
                wins = allowed & (gain > best)
                best = tl.where(wins, gain, best)
                winner = tl.where(wins, c, winner)
        label = tl.where(open_, winner, label)
        tl.store(here, label, mask=inside)
    elif MASKED:
        tl.store(here, label, mask=inside)
