"""CPU backend: kernels in C++ on blocks of pixels, spread over threads (``native/``)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg._backends import native_library as library
from rankseg._backends import torch_reference
from rankseg._backends.axes import merge_axes
from rankseg._backends.native_library import call
from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.expectation import Ratio
from rankseg._formulas.records import POWERS, ULPS_ABOVE_ONE, GainCurves, Gains, Integrals, Survey

BLOCK, GROUP = 1024, 16
"""Pixels of a block and blocks of a group, as in ``native/base.hpp``."""

NEGLIGIBLE = 1e-12
"""Relative error of an integral that is allowed when the values of a block are taken as equal."""

LARGE_ROW = 1 << 21
"""In an image with more pixels, sharing out each class to several threads is faster.

The threads are then woken for every pass over the pixels.
"""

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CONTENTS = (None, "softmax", "sigmoid")
"""Types of the values, and links of logits; the index is the number in ``native/maps.hpp``."""


class Maps(NamedTuple):
    """Probability maps as the kernels see them."""

    source: library.Source
    probs: Tensor
    dtype: torch.dtype
    batch: int
    classes: int
    spatial: torch.Size
    valid: np.ndarray | None

    @property
    def pixels(self) -> int:
        """Pixels per image."""
        return self.spatial.numel()

    @property
    def value_type(self) -> type[np.floating[Any]]:
        """The type in which the kernels read the values."""
        return np.float64 if self.dtype == torch.float64 else np.float32


def open_maps(probs: Tensor, valid: Tensor | None, from_logits: str | None = None) -> Maps:
    """Describe the memory of ``probs`` to the kernels.

    Nothing is copied, unless values lie at addresses that are no multiples of their size.

    If ``probs`` holds logits, kernels compute every probability when they read it. For softmax the
    logarithm of the sum over classes is computed here and kept for every pixel.

    Parameters
    ----------
    probs
        ``(batch, classes, *spatial)`` CPU tensor of any strides.
    valid
        ``(batch, *spatial)`` boolean, or None if all pixels are valid.
    from_logits
        ``'softmax'`` or ``'sigmoid'`` if ``probs`` holds logits; None if it holds probabilities.
    """
    if probs.data_ptr() % probs.element_size():  # views of the bytes of a file, say
        probs = probs.clone()
    sizes, strides = merge_axes(probs.shape[2:], probs.stride()[2:])
    axes = np.array((sizes, strides), np.int64)
    spatial = probs.shape[2:]
    mask = None
    if valid is not None:
        mask = valid.reshape(len(valid), spatial.numel()).contiguous().numpy()
    wide = probs.dtype in (torch.float32, torch.float64)
    source = library.Source(
        values=probs,
        type=TYPES.index(probs.dtype),
        direct=wide and axes.tolist() == [sizes, [1]] and mask is None and from_logits is None,
        batch=probs.shape[0],
        classes=probs.shape[1],
        pixels=spatial.numel(),
        batch_stride=probs.stride(0),
        class_stride=probs.stride(1),
        axes=len(sizes),
        sizes=axes[0],
        strides=axes[1],
        valid=mask,
        content=CONTENTS.index(from_logits),
    )
    maps = Maps(source, probs, probs.dtype, probs.shape[0], probs.shape[1], spatial, mask)
    return _with_log_sums(maps) if from_logits == "softmax" else maps


def survey(maps: Maps) -> Survey:
    """Scan every value once; return sums, peaks and the fault flag as a `Survey`."""
    tables = _new_tables(maps)
    found, fault = np.empty((4, maps.batch, maps.classes)), np.empty(1, np.bool_)
    call("survey", maps.source, tables, _highest(maps.dtype), found, fault)
    mass, peak, likely_count, likely_mass = torch.from_numpy(found)
    return Survey(
        mass=mass,
        peak=peak,
        likely_count=likely_count,
        likely_mass=likely_mass,
        is_invalid=torch.tensor(bool(fault[0]), device="cpu"),
        scan_tables=tables,
    )


def own_masks(
    maps: Maps, pruning_prob: float, bonus: float, offset: float, keep_peak: bool
) -> tuple[Tensor, bool] | None:
    """Return the mask above the cut of :func:`best_cuts` for every class, and the fault flag.

    Returns None where a survey of all rows first is faster: see `_keeps_threads_busy`.

    The mask of a class whose peak does not exceed ``pruning_prob`` is empty. The flag is True if
    some value is no probability. The result is that of a survey, then cuts, then masks. Here each
    row passes all three before the next begins: its values are still in the cache, and threads are
    woken only once.
    """
    if not _keeps_threads_busy(maps):
        return None
    out, sound = _new_masks(maps), _new_flags(maps)
    call(
        "own_masks",
        maps.source,
        _new_tables(maps),
        _highest(maps.dtype),
        bonus,
        offset,
        keep_peak,
        pruning_prob,
        sound,
        out,
    )
    return _as_masks(out, maps), not sound.all()


def exact_masks(
    maps: Maps, pruning_prob: float, ratio: Ratio, smooth: float, bonus: float, offset: float
) -> tuple[Tensor, bool, Tensor] | None:
    """Return the masks that maximise the expected metric, the fault flag, and which are known.

    Returns None if an image has more than ``LARGE_ROW`` pixels. The masks of ``solver='exact'``
    that are found in passes over all rows may differ from these by rounding, so the choice between
    the two ways must not depend on the number of threads or on the batch.

    The third result is ``(batch, classes)`` boolean: False where the bracket of the cut holds more
    values than the buffer of a thread, so that the mask is not known. ``bonus`` and ``offset`` are
    ``Objective.fraction_at_infinity`` of the RMA objective.
    """
    if maps.pixels > LARGE_ROW:
        return None
    out, sound, known = _new_masks(maps), _new_flags(maps), _new_flags(maps)
    steps = _record(library.Steps, ratio.steps(smooth))
    metric = library.Metric(dice=ratio.dice, smooth=smooth, bonus=bonus, offset=offset, steps=steps)
    call(
        "exact_masks",
        maps.source,
        _new_tables(maps),
        _highest(maps.dtype),
        metric,
        pruning_prob,
        sound,
        known,
        out,
    )
    return _as_masks(out, maps), not sound.all(), torch.from_numpy(known)


def above(maps: Maps, survey: Survey, cuts: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return count and sum of the values above the cut of each class, ``(batch, classes)`` each.

    Both are 0 for classes that are not ``active``.
    """
    counts, masses = _new_sums(maps), _new_sums(maps)
    call("above", maps.source, survey.scan_tables, cuts, active, counts, masses)
    return counts, masses


def raise_cuts(
    maps: Maps, survey: Survey, cuts: Tensor, active: Tensor, bonus: Tensor, offset: Tensor
) -> Tensor:
    """Return the largest ``(mass + bonus) / (count + offset)`` of any mask, for ``active`` classes.

    Dinkelbach's iteration: the next cut is the fraction of the mask above the current cut, as long
    as cuts rise. The ``cuts`` to start from must not exceed the largest fraction. Arguments and
    result are ``(batch, classes)``; cuts of other classes are returned unchanged.
    """
    raised = cuts.clone(memory_format=torch.contiguous_format)
    known = survey.likely_count, survey.likely_mass
    call("raise_cuts", maps.source, survey.scan_tables, *known, bonus, offset, active, raised)
    return raised


def best_cuts(
    maps: Maps, survey: Survey, active: Tensor, bonus: float, offset: float, keep_peak: bool
) -> Tensor:
    """Return the cut of the mask of largest fraction, for every active class; infinite for others.

    The fraction is ``(mass + bonus) / (count + volume + offset)``. ``keep_peak`` keeps the
    likeliest pixel in the mask even if the fraction rounds to its probability.
    """
    raised = functools.partial(raise_cuts, maps, survey)
    return survey.best_cuts(raised, active, bonus, offset, keep_peak)


def winners(maps: Maps, survey: Survey) -> Tensor:
    """Return which classes are the likeliest in some valid pixel, ``(batch, classes)`` boolean.

    Ties go to the first class.
    """
    won = torch.zeros(maps.batch, maps.classes, dtype=torch.bool, device="cpu")
    call("winners", maps.source, survey.scan_tables, survey.mass, survey.peak, won)
    return won


def sizes(maps: Maps) -> Tensor:
    """Return the number of valid pixels of every image: ``(batch,)`` float64."""
    if maps.valid is not None:
        return torch.from_numpy(maps.valid.sum(1).astype(np.float64))
    return torch.full((maps.batch,), maps.pixels, dtype=torch.float64, device="cpu")


def probabilities(maps: Maps, image: int, classes: Tensor, rows: slice) -> Tensor:
    """Return probabilities of an image, for solvers that compute in operations of torch.

    ``classes`` holds the indices of ``k`` classes, and ``rows`` is a slice of the first spatial
    axis. Returns ``(k, rows, *other axes)``, float32 or wider, and 0 at pixels that are not valid.
    """
    valid = None if maps.valid is None else torch.from_numpy(maps.valid)
    shaped = None if valid is None else valid.view(maps.batch, *maps.spatial)
    plain = torch_reference.Maps(maps.probs, shaped, CONTENTS[maps.source.content])
    return torch_reference.probabilities(plain, image, classes, rows)


def moments(maps: Maps, survey: Survey, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and third central moment of the volume, ``(batch, classes)`` each.

    Labels are taken as independent: the moments are the sums of ``p``, ``p (1 - p)`` and ``p (1 -
    p) (1 - 2 p)``. Values that exceed 1 by rounding count as 1. The sums are 0 for classes that are
    not ``active``.
    """
    found = [_new_sums(maps) for _ in range(3)]
    call("moments", maps.source, survey.scan_tables, active, *found)
    mean, variance, third = found
    return mean, variance, third


def between(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, rows: Tensor, width: int
) -> Tensor:
    """Return the values in ``(low, high]`` of ``rows``, largest first: ``(k, width)`` float64.

    ``rows`` is ``(k, 2)``: image and class. ``low`` and ``high`` are ``(k,)``. No row may hold more
    than ``width`` such values; rows with fewer end with zeros.
    """
    found = np.zeros((len(rows), width))
    call("between", maps.source, survey.scan_tables, low, high, rows, len(rows), width, found)
    found.sort(axis=1)
    return torch.from_numpy(found[:, ::-1].copy())


def masks(maps: Maps, survey: Survey, cuts: Tensor) -> Tensor:
    """Return the mask of the pixels above each cut: bool ``(batch, classes, *spatial)``."""
    out = _new_masks(maps)
    call("masks", maps.source, survey.scan_tables, cuts, out)
    return _as_masks(out, maps)


def claim(
    maps: Maps, survey: Survey, cuts: Tensor, lower_cuts: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Label the pixels that exceed the cut of exactly one class.

    ``lower_cuts`` holds smaller cuts; the default is ``cuts``. A pixel gets a label if it exceeds
    the cut of one class and the lower cut of no other. It is ``UNASSIGNED`` if it exceeds no lower
    cut, otherwise ``CONTESTED``. Returns the labels, int64 ``(batch, *spatial)``, and count and sum
    of the labelled pixels by class, ``(batch, classes)`` each.
    """
    # NumPy allocates with huge pages, which makes the first write to fresh memory much cheaper.
    labels = torch.from_numpy(np.empty((maps.batch, *maps.spatial), np.int64))
    counts, masses = _new_sums(maps), _new_sums(maps)
    both = cuts, cuts if lower_cuts is None else lower_cuts
    call("claim", maps.source, survey.scan_tables, *both, labels, counts, masses)
    return labels, counts, masses


def unsettled(
    maps: Maps, survey: Survey, labels: Tensor, active: Tensor, void: int
) -> tuple[Maps, Survey, Tensor]:
    """Copy the valid pixels that have no label yet (``labels < 0``) into new, smaller maps.

    Pixels that are not valid are set to ``void`` in ``labels``, in place. Only ``active`` classes
    are copied. Returns the new maps, with one spatial axis; a survey of them, whose mass and peak
    are still those of all pixels; and, for each valid pixel of the new maps in order, its index in
    the flat ``labels``.
    """
    counts = np.zeros((maps.batch, -(-maps.pixels // (BLOCK * GROUP))), np.int64)
    call("count_unsettled", maps.source, labels, counts)
    sizes = counts.sum(1)
    # The width is a multiple of BLOCK, so that sums do not depend on the other images.
    width = max(1, -(-int(sizes.max(initial=0)) // BLOCK)) * BLOCK
    values = np.zeros((maps.batch, maps.classes, width), maps.value_type)
    pixels = np.zeros((maps.batch, width), np.int64)  # 0 is in range if labels change
    starts = np.pad(counts.cumsum(1), ((0, 0), (1, 0)))
    call("gather_unsettled", maps.source, labels, active, starts, void, width, pixels, values)
    valid = np.arange(width) < sizes[:, None]
    pixels += np.arange(maps.batch)[:, None] * maps.pixels
    part = open_maps(torch.from_numpy(values), torch.from_numpy(valid))
    part.source.direct = True  # pixels that are not valid are 0 already
    tables = _new_tables(part, np.zeros)
    call("survey_active", part.source, tables, active)
    return part, replace(survey, scan_tables=tables), torch.from_numpy(pixels[valid])


def resolve(
    maps: Maps,
    survey: Survey,
    labels: Tensor,
    cuts: Tensor,
    gains: Gains | GainCurves,
    eligible: Tensor,
    floor: float,
    void: int,
) -> Tensor:
    """Give every ``CONTESTED`` and ``UNASSIGNED`` pixel to the class that gains most.

    A contested pixel goes to one of the classes whose cut it exceeds. An unassigned pixel goes to
    one of the ``eligible`` classes that gain more than ``floor``, or becomes ``void`` if there is
    none. Pixels that are not valid become ``void``. Ties go to the first class. ``labels`` is
    written in place and returned.
    """
    arguments = labels, cuts, _gain_table(gains, eligible.shape), eligible, floor, void
    call("resolve", maps.source, survey.scan_tables, *arguments)
    return labels


def join(labels: Tensor, part: Maps, pixels: Tensor, part_labels: Tensor) -> Tensor:
    """Write the labels of the unsettled pixels into the labels of all pixels, in place.

    The maps and indices of the unsettled pixels are those that :func:`unsettled` returned.
    """
    assert part.valid is not None
    labels.view(-1).numpy()[pixels.numpy()] = part_labels.numpy()[part.valid]
    return labels


def tally(maps: Maps, survey: Survey, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return count and mass of every label, ``(batch, classes)`` float64 each.

    The mass is the sum, over the pixels with this label, of their probability of that class.
    """
    counts, masses = _new_sums(maps), _new_sums(maps)
    call("tally", maps.source, labels, counts, masses)
    return counts, masses


def profile(maps: Maps, survey: Survey, rows: Tensor) -> Tensor:
    """Return the class profiles of ``rows``: count and sum of the values in every bin of ``bins``.

    ``rows`` is ``(k, 2)``: image and class. Returns ``(k, BINS, 2)`` float64; the last axis is the
    number of pixels in the bin and the sum of their probabilities.
    """
    out = np.zeros((len(rows), BINS, 2))
    edges = bin_edges(rows.device)
    call("profile", maps.source, survey.scan_tables, rows, len(rows), edges, out)
    return torch.from_numpy(out)


def exchange(maps: Maps, survey: Survey, labels: Tensor, cuts: Tensor, rows: Tensor) -> Tensor:
    """Return the profile of the pixels labelled as a class minus that of its mask: (k, BINS, 2).

    The mask holds the values above the cut of the class. Only pixels where label and mask differ
    contribute: with a plus if they have the label, with a minus if they are in the mask. For
    profiles and ``rows`` see :func:`profile`.
    """
    out = np.zeros((len(rows), BINS, 2))
    table_rows = _table_rows(rows, (maps.batch, maps.classes))
    call("exchange", maps.source, survey.scan_tables, labels, cuts, table_rows, len(rows), out)
    return torch.from_numpy(out)


def split(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, degree: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count the values above ``high`` and in ``(low, high]``; return power sums of all others.

    Arguments are ``(batch, classes)``. Power sums ``sum p^j`` are computed for ``j`` from 1 to
    ``degree``, at most ``POWERS``; a degree of 0 leaves the class out. The series that use the sums
    divide power ``j`` by ``rate^j``, so a small error is allowed: if the values of a block are
    nearly equal, the block is not read, and its values are taken as equal.

    Returns the two counts, ``(batch, classes)`` each, and power sums ``(batch, classes, 2,
    POWERS)``: of the values above ``high``, then of those up to ``low``. All are float64. Sums
    beyond the degree are meaningless.
    """
    shape = maps.batch, maps.classes, 2
    counts, sums = np.zeros(shape), np.zeros((*shape, POWERS))
    with np.errstate(all="ignore"):  # the square of a tiny rate is 0
        spread = NEGLIGIBLE * rate.numpy() ** 2 / maps.pixels
    call("split", maps.source, survey.scan_tables, low, high, degree, spread, counts, sums)
    above, between = torch.from_numpy(counts).unbind(2)
    return above, between, torch.from_numpy(sums)


def scan(values: Tensor, extra: Tensor, integrals: Integrals) -> Tensor:
    """Return how many of its largest values the best mask of each row holds: int64 ``(rows,)``.

    ``values`` is ``(rows, width)``, largest first; the first ``extra`` of a row are used.
    ``integrals`` give the expected metric. Equal values are taken together or not at all. Of
    several best masks the smallest wins.
    """
    taken = np.zeros(len(values), np.int64)
    decay, weight, amount, nodes, steps = integrals
    call(
        "scan",
        values,
        extra,
        *values.shape,
        decay,
        weight,
        amount,
        nodes,
        decay.shape[1],
        _record(library.Steps, steps),
        taken,
    )
    return torch.from_numpy(taken)


def _record(kind: type[library.Record], fields: NamedTuple) -> library.Record:
    """Return a structure of C with the fields of a named tuple."""
    return kind(**fields._asdict())


def _keeps_threads_busy(maps: Maps) -> bool:
    """Return whether to compute masks row by row: a row is a class of an image.

    True if there are enough rows to keep all threads busy, or if a row is so small that several
    threads would not help. Masks are the same in both ways.
    """
    threads = torch.get_num_threads()
    enough = threads == 1 or maps.batch * maps.classes >= 2 * threads
    return enough or maps.pixels <= library.VALUES_PER_TASK


def _new_tables(maps: Maps, new: Any = np.empty) -> library.Tables:
    """Make tables for a survey: sum, smallest and largest value of every block of a class."""
    shape = maps.batch, maps.classes, -(-maps.pixels // BLOCK)
    low, peak = new(shape, maps.value_type), new(shape, maps.value_type)
    return library.Tables(mass=new(shape), low=low, peak=peak)


def _new_sums(maps: Maps) -> Tensor:
    return torch.empty(maps.batch, maps.classes, dtype=torch.float64, device="cpu")


def _new_flags(maps: Maps) -> np.ndarray:
    return np.zeros((maps.batch, maps.classes), np.bool_)


def _new_masks(maps: Maps) -> np.ndarray:
    """Return empty masks. The system provides the memory of NumPy's zeros at the first write."""
    return np.zeros((maps.batch, maps.classes, maps.pixels), np.bool_)


def _as_masks(out: np.ndarray, maps: Maps) -> Tensor:
    return torch.from_numpy(out).view(maps.batch, maps.classes, *maps.spatial)


def _with_log_sums(maps: Maps) -> Maps:
    """Store the logarithms of the denominators of softmax in the maps; return the maps."""
    shape = maps.batch, maps.pixels
    logs, rests = np.empty(shape, maps.value_type), np.empty(shape, np.int8)
    call("log_sums", maps.source, logs, rests)
    maps.source.set(logs=logs, rests=rests)
    return maps


@functools.cache
def _highest(dtype: torch.dtype) -> float:
    """Return the largest value accepted as a probability."""
    return 1 + ULPS_ABOVE_ONE * torch.finfo(dtype).eps


def _table_rows(rows: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Return, for every image and class, its index among the rows, or -1."""
    table_rows = np.full(shape, -1)
    table_rows[tuple(rows.numpy().T)] = np.arange(len(rows))
    return table_rows


def _gain_table(gains: Gains | GainCurves, shape: torch.Size) -> library.GainTable:
    """Return gains in the layout that the kernel ``resolve`` reads."""
    if isinstance(gains, GainCurves):
        terms, table_row = gains.lines.contiguous(), _table_rows(gains.rows, shape)
    else:
        terms = torch.stack(gains.terms(), -1).view(-1, 1, 4)
        table_row = np.arange(len(terms))
    return library.GainTable(terms=terms, pieces=terms.shape[1], table_row=table_row)
