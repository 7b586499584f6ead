"""CPU backend: numba kernels on blocks of pixels, spread over threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg._backends import (
    numba_cuts,
    numba_exact,
    numba_exponential,
    numba_labels,
    numba_logits,
    numba_moments,
    numba_profile,
    numba_threads,
    numba_winners,
)
from rankseg._backends import numba_kernels as kernels
from rankseg._backends.axes import merge_axes
from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.expectation import Ratio
from rankseg._formulas.records import POWERS, ULPS_ABOVE_ONE, GainCurves, Gains, Integrals, Survey

FAULT_IS_KNOWN = True
"""The fault flag of a survey is in host memory: to read it costs nothing."""

COMPILES = True
"""Numba is installed, so solvers may use compiled functions too."""

CONTENT = {
    None: numba_exponential.PROBABILITIES,
    "softmax": numba_exponential.SOFTMAX,
    "sigmoid": numba_exponential.SIGMOID,
}
"""What the kernels call values that are to be made probabilities by this."""

VALUES_PER_TASK = 1 << 18
"""Least number of probabilities in a task: at least 0.1 ms of work. To wake a thread for less costs
more than it saves (the binary case of ``benchmarks/speed.py``)."""

LARGE_ROW = 1 << 21
"""With more pixels than this in an image, several threads per class pay, though woken each pass."""

VALUES_PER_NODE = 4
"""Probabilities that are surveyed in the time that one node of an integral takes per pixel."""

# What a source does not have; making these anew takes as long as deciding a small map.
NO_VALUES = np.empty(0, np.float32)
NO_HALVES = np.empty(0, np.uint16)
NO_MASK = np.empty((0, 0), np.bool_)
NO_LOGS = {np.dtype(kind): np.empty((0, 0), kind) for kind in (np.float32, np.float64)}
NO_RESTS = np.empty((0, 0), np.int8)


class Maps(NamedTuple):
    """Probability maps as the kernels see them."""

    source: kernels.Source
    dtype: torch.dtype
    batch: int
    classes: int
    spatial: torch.Size

    @property
    def pixels(self) -> int:
        """Pixels per image."""
        return self.spatial.numel()


def open_maps(probs: Tensor, valid: Tensor | None, from_logits: str | None = None) -> Maps:
    """Describe the memory of ``probs`` to the kernels; nothing is copied.

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
    sizes, strides = merge_axes(probs.shape[2:], probs.stride()[2:])
    storage = torch.as_strided(probs, (_extent(probs),), (1,), probs.storage_offset())
    half = probs.dtype in (torch.float16, torch.bfloat16)
    values = NO_VALUES if half else storage.numpy()
    mask = NO_MASK
    if valid is not None:
        # Contiguous, or numba would compile every kernel anew for its strides.
        mask = valid.reshape(len(valid), probs.shape[2:].numel()).contiguous().numpy()
    as_it_is = len(sizes) == 1 and strides[0] == 1 and valid is None and from_logits is None
    source = kernels.Source(
        kind=_kind(probs.dtype, as_it_is),
        values=values,
        patterns=values.view(_unsigned(values.dtype)),
        halves=storage.view(torch.uint16).numpy() if half else NO_HALVES,
        batch_stride=probs.stride(0),
        class_stride=probs.stride(1),
        sizes=np.array(sizes, np.int64),
        strides=np.array(strides, np.int64),
        pixels=probs.shape[2:].numel(),
        masked=valid is not None,
        valid=mask,
        content=CONTENT[from_logits],
        logs=NO_LOGS[values.dtype],
        rests=NO_RESTS,
    )
    maps = Maps(source, probs.dtype, probs.shape[0], probs.shape[1], probs.shape[2:])
    return _with_log_sums(maps) if from_logits == "softmax" else maps


def survey(maps: Maps) -> Survey:
    """Scan every value once; return sums, peaks and the fault flag as a `Survey`."""
    patterns, tables, ends = _survey_tables(maps)
    shape = maps.batch, maps.classes, _groups(maps)
    sums = kernels.Sums(
        np.empty(shape), np.empty(shape, np.int64), np.empty(shape), np.empty(shape, np.bool_)
    )
    _run(kernels.survey, sums.mass.size, maps, *ends, patterns, sums)
    mass, likely_count, likely_mass = (_total(part) for part in sums[:3])
    return Survey(
        mass=mass,
        peak=torch.from_numpy(tables.peak.max(2).astype(np.float64)),
        likely_count=likely_count,
        likely_mass=likely_mass,
        is_invalid=torch.tensor(not sums.sound.all(), device="cpu"),
        scan_tables=tables,
    )


def takes_rows_at_once(maps: Maps, alike: bool = True) -> bool:
    """Return whether to compute masks row by row (:func:`own_masks`) rather than pass by pass.

    True if there are enough rows to keep all threads busy, or if a row is so small that several
    threads would not help. ``alike`` says that both ways give the same masks to the last bit. If
    they do not, the choice depends on the pixels of an image alone: the result must not depend on
    the number of threads or on the other images of the batch.
    """
    if not alike:
        return maps.pixels <= LARGE_ROW
    threads = torch.get_num_threads()
    enough = threads == 1 or maps.batch * maps.classes >= 2 * threads
    return enough or maps.pixels <= VALUES_PER_TASK


def own_masks(
    maps: Maps, pruning_prob: float, bonus: float, offset: float, keep_peak: bool
) -> tuple[Tensor, bool]:
    """Return the mask above the cut of :func:`best_cuts` for every class, and the fault flag.

    The mask of a class whose peak does not exceed ``pruning_prob`` is empty. The flag is True if
    some value is no probability. The result is that of a survey, then cuts, then masks. Here each
    row passes all three before the next begins: its values are still in the cache, and threads are
    woken only once.
    """
    rule = numba_cuts.Rule(bonus, offset, keep_peak)
    return _masks_by_row(numba_cuts.own_masks, maps, rule, pruning_prob)


def exact_masks(
    maps: Maps, pruning_prob: float, ratio: Ratio, smooth: float, bonus: float, offset: float
) -> tuple[Tensor, bool, Tensor]:
    """Return the masks that maximise the expected metric, the fault flag, and which are known.

    The last is ``(batch, classes)`` boolean. A mask is not known if the bracket of its cut holds
    more values than the buffer of a thread. ``bonus`` and ``offset`` are
    ``Objective.fraction_at_infinity`` of the RMA objective.
    """
    metric = numba_exact.Metric(ratio.dice, smooth, bonus, offset, ratio.steps(smooth))
    known = np.ones((maps.batch, maps.classes), np.bool_)
    masks, fault = _masks_by_row(numba_exact.exact_masks, maps, metric, pruning_prob, known)
    return masks, fault, torch.from_numpy(known)


def _masks_by_row(
    kernel: Callable[..., None], maps: Maps, rule: Any, pruning_prob: float, *more: np.ndarray
) -> tuple[Tensor, bool]:
    """Return the masks that ``kernel`` computes row by row, and whether some value is at fault.

    The kernel also writes into the arrays ``more``.
    """
    patterns, tables, ends = _survey_tables(maps)
    out = np.zeros((maps.batch, maps.classes, maps.pixels), np.bool_)
    sound = np.empty((maps.batch, maps.classes), np.bool_)
    arguments = *ends, rule, pruning_prob, patterns, tables, sound, *more, out
    _run(kernel, sound.size, maps, *arguments)
    masks = torch.from_numpy(out).view(maps.batch, maps.classes, *maps.spatial)
    return masks, not sound.all()


def above(maps: Maps, survey: Survey, cuts: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return count and sum of the values above the cut of each class, ``(batch, classes)`` each.

    Both are 0 for classes that are not ``active``.
    """
    counts, masses = _class_tables(maps)
    _run(
        kernels.above,
        counts.size,
        maps,
        survey.scan_tables,
        _round_down(cuts, maps),
        active.numpy(),
        counts,
        masses,
    )
    return _reduce(counts, masses)


def raise_cuts(
    maps: Maps, survey: Survey, cuts: Tensor, active: Tensor, bonus: Tensor, offset: Tensor
) -> Tensor:
    """Return the largest ``(mass + bonus) / (count + offset)`` of any mask, for ``active`` classes.

    Dinkelbach's iteration: the next cut is the fraction of the mask above the current cut, as long
    as cuts rise. The ``cuts`` to start from must not exceed the largest fraction. Arguments and
    result are ``(batch, classes)``; cuts of other classes are returned unchanged.
    """
    raised = cuts.numpy().copy()
    _run(
        numba_cuts.raise_cuts,
        raised.size,
        maps,
        survey.scan_tables,
        survey.likely_count.numpy(),
        survey.likely_mass.numpy(),
        bonus.numpy(),
        offset.numpy(),
        active.numpy(),
        raised,
    )
    return torch.from_numpy(raised)


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
    won = np.zeros((maps.batch, maps.classes), np.bool_)
    arguments = survey.mass.numpy(), survey.peak.numpy(), won
    _run(numba_winners.witness, won.size, maps, survey.scan_tables, *arguments)
    if not won.all():
        units = maps.batch * _groups(maps)
        _run(numba_winners.contest, units, maps, survey.scan_tables, won)
    return torch.from_numpy(won)


def sizes(maps: Maps) -> Tensor:
    """Return the number of valid pixels of every image: ``(batch,)`` float64."""
    if maps.source.masked:
        return torch.from_numpy(maps.source.valid.sum(1).astype(np.float64))
    return torch.full((maps.batch,), maps.pixels, dtype=torch.float64, device="cpu")


def moments(maps: Maps, survey: Survey, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and third central moment of the volume, ``(batch, classes)`` each.

    Labels are taken as independent: the moments are the sums of ``p``, ``p (1 - p)`` and ``p (1 -
    p) (1 - 2 p)``. Values that exceed 1 by rounding count as 1. The sums are 0 for classes that are
    not ``active``.
    """
    tables = [_class_tables(maps)[1] for _ in range(3)]
    _run(kernels.moments, tables[0].size, maps, survey.scan_tables, active.numpy(), *tables)
    mean, variance, third = (torch.from_numpy(table.sum(2)) for table in tables)
    return mean, variance, third


def between(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, rows: Tensor, width: int
) -> Tensor:
    """Return the values in ``(low, high]`` of ``rows``, largest first: ``(k, width)`` float64.

    ``rows`` is ``(k, 2)``: image and class. ``low`` and ``high`` are ``(k,)``. No row may hold more
    than ``width`` such values; rows with fewer end with zeros.
    """
    found = np.zeros((len(rows), width), maps.source.values.dtype)
    _run(
        numba_cuts.between,
        len(rows),
        maps,
        survey.scan_tables,
        _round_down(low, maps),
        _round_down(high, maps),
        *_columns(rows),
        found,
    )
    found.sort(axis=1)
    return torch.from_numpy(found[:, ::-1].astype(np.float64))


def masks(maps: Maps, survey: Survey, cuts: Tensor) -> Tensor:
    """Return the mask of the pixels above each cut: bool ``(batch, classes, *spatial)``."""
    # NumPy's zeros are not touched until written to: classes without a mask cost nothing.
    out = np.zeros((maps.batch, maps.classes, maps.pixels), np.bool_)
    units = maps.batch * maps.classes * _groups(maps)
    _run(kernels.masks, units, maps, survey.scan_tables, _round_down(cuts, maps), out)
    return torch.from_numpy(out).view(maps.batch, maps.classes, *maps.spatial)


def claim(
    maps: Maps, survey: Survey, cuts: Tensor, reach: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Label the pixels that exceed the cut of exactly one class.

    ``reach`` holds smaller cuts; the default is ``cuts``. A pixel gets a label if it exceeds the
    cut of one class and the ``reach`` of no other. It is ``UNASSIGNED`` if it exceeds no ``reach``,
    otherwise ``CONTESTED``. Returns the labels, int64 ``(batch, *spatial)``, and count and sum of
    the labelled pixels by class, ``(batch, classes)`` each.
    """
    # Of NumPy's making because it asks for huge pages: the first touch of fresh memory is dear.
    labels = torch.from_numpy(np.empty((maps.batch, *maps.spatial), np.int64))
    counts, masses = _image_tables(maps)
    _run(
        numba_labels.claim,
        maps.batch * _groups(maps),
        maps,
        survey.scan_tables,
        _round_down(cuts, maps),
        _round_down(cuts if reach is None else reach, maps),
        labels.view(maps.batch, maps.pixels).numpy(),
        counts,
        masses,
    )
    return labels, *_reduce(counts.swapaxes(1, 2), masses.swapaxes(1, 2))


def unsettled(
    maps: Maps, survey: Survey, labels: Tensor, active: Tensor, void: int
) -> tuple[Maps, Survey, Tensor]:
    """Copy the valid pixels that have no label yet (``labels < 0``) into new, smaller maps.

    Pixels that are not valid are set to ``void`` in ``labels``, in place. Only ``active`` classes
    are copied. Returns the new maps, with one spatial axis; a survey of them, whose mass and peak
    are still those of all pixels; and, for each valid pixel of the new maps in order, its index in
    the flat ``labels``.
    """
    flat = labels.view(maps.batch, maps.pixels).numpy()
    counts = np.zeros((maps.batch, _groups(maps)), np.int64)
    _run(numba_labels.count_unsettled, counts.size, maps, flat, counts)
    sizes = counts.sum(1)
    # Whole blocks, so that sums do not depend on the other images.
    width = max(1, -(-int(sizes.max(initial=0)) // kernels.BLOCK)) * kernels.BLOCK
    values = np.zeros((maps.batch, maps.classes, width), maps.source.values.dtype)
    place = np.zeros((maps.batch, width), np.int64)  # in range, also if labels change meanwhile
    starts = counts.cumsum(1) - counts
    _run(
        numba_labels.gather_unsettled,
        counts.size,
        maps,
        flat,
        active.numpy(),
        starts,
        void,
        place,
        values,
    )
    valid = np.arange(width) < sizes[:, None]
    place += np.arange(maps.batch)[:, None] * maps.pixels
    part = open_maps(torch.from_numpy(values), torch.from_numpy(valid))
    # What is not valid is 0 already.
    part = part._replace(source=part.source._replace(kind=kernels.DIRECT))
    shape = maps.batch, maps.classes, _blocks(part)
    tables = kernels.Tables(
        np.zeros(shape), np.zeros(shape, values.dtype), np.zeros(shape, values.dtype)
    )
    _run(kernels.survey_active, tables.mass[..., 0].size, part, active.numpy(), tables)
    return part, replace(survey, scan_tables=tables), torch.from_numpy(place[valid])


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
    _run(
        numba_labels.resolve,
        maps.batch * _groups(maps),
        maps,
        survey.scan_tables,
        labels.view(maps.batch, maps.pixels).numpy(),
        _round_down(cuts, maps),
        *_lay_out(gains, eligible.shape),
        eligible.numpy(),
        floor,
        void,
    )
    return labels


def join(labels: Tensor, part: Maps, place: Tensor, own: Tensor) -> Tensor:
    """Write the labels of the unsettled pixels into the labels of all pixels, in place.

    The maps and places of the unsettled pixels are those that :func:`unsettled` returned.
    """
    labels.view(-1).numpy()[place.numpy()] = own.numpy()[part.source.valid]
    return labels


def tally(maps: Maps, survey: Survey, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return count and mass of every label, ``(batch, classes)`` float64 each.

    The mass is the sum, over the pixels with this label, of their probability of that class.
    """
    counts, masses = _image_tables(maps)
    _run(
        numba_labels.tally,
        maps.batch * _groups(maps),
        maps,
        survey.scan_tables,
        labels.view(maps.batch, maps.pixels).numpy(),
        counts,
        masses,
    )
    return _reduce(counts.swapaxes(1, 2), masses.swapaxes(1, 2))


def profile(maps: Maps, survey: Survey, rows: Tensor) -> Tensor:
    """Return the class profiles of ``rows``: count and sum of the values in every bin of ``bins``.

    ``rows`` is ``(k, 2)``: image and class. Returns ``(k, BINS, 2)`` float64; the last axis is the
    number of pixels in the bin and the sum of their probabilities.
    """
    out = _bin_tables(maps, rows)
    units = len(rows) * len(out)
    edges = bin_edges(rows.device).numpy()
    _run(numba_profile.profile, units, maps, survey.scan_tables, *_columns(rows), edges, out)
    return _add_chunks(out)


def exchange(maps: Maps, survey: Survey, labels: Tensor, cuts: Tensor, rows: Tensor) -> Tensor:
    """Return the profile of the pixels labelled as a class minus that of its mask: (k, BINS, 2).

    The mask holds the values above the cut of the class. Only pixels where label and mask differ
    contribute: with a plus if they have the label, with a minus if they are in the mask. For
    profiles and ``rows`` see :func:`profile`.
    """
    out = _bin_tables(maps, rows)
    _run(
        numba_profile.exchange,
        maps.batch * len(out),
        maps,
        survey.scan_tables,
        labels.view(maps.batch, maps.pixels).numpy(),
        _round_down(cuts, maps),
        _places(rows, (maps.batch, maps.classes)),
        out,
    )
    return _add_chunks(out)


def split(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, degree: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count the values above ``high`` and in ``(low, high]``; return power sums of all others.

    Arguments are ``(batch, classes)``. Power sums ``sum p^j`` are computed for ``j`` from 1 to
    ``degree``, at most ``POWERS``; a degree of 0 leaves the class out. In the series that use the
    sums, the power ``j`` is divided by ``rate^j``, which allows an error: a block of nearly equal
    values is not read, but taken as equal.

    Returns the two counts, ``(batch, classes)`` each, and power sums ``(batch, classes, 2,
    POWERS)``: of the values above ``high``, then of those up to ``low``. All are float64. Sums
    beyond the degree are meaningless.
    """
    groups = _groups(maps)
    counts = np.zeros((maps.batch, maps.classes, 2, groups), np.int64)
    sums = np.zeros((maps.batch, maps.classes, 2, groups, POWERS))
    with np.errstate(all="ignore"):  # of tiny rates the square is 0
        negligible = numba_moments.NEGLIGIBLE * rate.numpy() ** 2 / maps.pixels
    _run(
        numba_moments.split,
        maps.batch * maps.classes * groups,
        maps,
        survey.scan_tables,
        _round_down(low, maps),
        _round_down(high, maps),
        degree.numpy(),
        negligible,
        counts,
        sums,
    )
    above, between = torch.from_numpy(counts.sum(3).astype(np.float64)).unbind(2)
    return above, between, torch.from_numpy(np.ascontiguousarray(sums.swapaxes(3, 4)).sum(-1))


def scan(values: Tensor, extra: Tensor, integrals: Integrals) -> Tensor:
    """Return how many of its largest values the best mask of each row takes: int64 ``(rows,)``.

    ``values`` is ``(rows, width)``, largest first; the first ``extra`` of a row are used.
    ``integrals`` give the expected metric. Equal values are taken together or not at all. Of
    several best masks the smallest wins.
    """
    taken = np.zeros(len(values), np.int64)
    arrays = integrals._replace(
        decay=integrals.decay.numpy(),
        weight=integrals.weight.numpy(),
        amount=integrals.amount.numpy(),
        nodes=integrals.nodes.numpy(),
    )
    job = functools.partial(numba_moments.scan, values.numpy(), extra.numpy(), arrays, taken)
    _spread(job, len(values), VALUES_PER_NODE * values.numel() * integrals.decay.shape[1])
    return torch.from_numpy(taken)


def _survey_tables(maps: Maps) -> tuple[kernels.Tables, kernels.Tables, np.ndarray]:
    """Make tables for the survey as it writes them and as others read them.

    And the bit patterns of 1/2 and of the largest value accepted.
    """
    shape = maps.batch, maps.classes, _blocks(maps)
    values = maps.source.values.dtype
    unsigned = _unsigned(values)
    patterns = kernels.Tables(np.empty(shape), np.empty(shape, unsigned), np.empty(shape, unsigned))
    tables = kernels.Tables(patterns.mass, patterns.low.view(values), patterns.peak.view(values))
    return patterns, tables, _ends(maps.dtype, values)


@functools.cache
def _ends(dtype: torch.dtype, values: np.dtype[Any]) -> np.ndarray:
    """Return the bit patterns of 1/2 and of the largest value accepted."""
    highest = 1 + ULPS_ABOVE_ONE * torch.finfo(dtype).eps
    return np.array([0.5, highest], values).view(_unsigned(values))


def _with_log_sums(maps: Maps) -> Maps:
    """Return the same maps with what softmax divides by."""
    shape = maps.batch, maps.pixels
    logs, rests = np.empty(shape, maps.source.values.dtype), np.empty(shape, np.int8)
    _run(numba_logits.log_sums, maps.batch * _groups(maps), maps, maps.classes, logs, rests)
    return maps._replace(source=maps.source._replace(logs=logs, rests=rests))


def _run(kernel: Callable[..., None], units: int, maps: Maps, *arguments: Any) -> None:
    """Run a kernel over all units of some maps."""
    values = maps.batch * maps.classes * maps.pixels
    _spread(functools.partial(kernel, maps.source, *arguments), units, values)


def _spread(job: numba_threads.Job, units: int, values: int) -> None:
    """Run a job over all units, in tasks that are worth a thread."""
    most = 4 * torch.get_num_threads()
    numba_threads.spread(job, units, max(1, min(most, units, values // VALUES_PER_TASK)))


def _extent(tensor: Tensor) -> int:
    """Elements from the first of a tensor to its last, in memory."""
    if not tensor.numel():
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * step for size, step in steps)


def _kind(dtype: torch.dtype, direct: bool) -> int:
    if dtype == torch.float16:
        return kernels.FLOAT16
    if dtype == torch.bfloat16:
        return kernels.BFLOAT16
    return kernels.DIRECT if direct else kernels.STRIDED


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint64 if dtype.itemsize == 8 else np.uint32)


def _blocks(maps: Maps) -> int:
    return -(-maps.source.pixels // kernels.BLOCK)


def _groups(maps: Maps) -> int:
    return -(-_blocks(maps) // kernels.GROUP)


def _class_tables(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Make counts and sums for a kernel that works class by class: groups on the last axis."""
    shape = maps.batch, maps.classes, _groups(maps)
    return np.zeros(shape, np.int64), np.zeros(shape)


def _image_tables(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Make counts and sums for a kernel that works across classes: groups on the middle axis."""
    shape = maps.batch, _groups(maps), maps.classes
    return np.zeros(shape, np.int64), np.zeros(shape)


def _bin_tables(maps: Maps, rows: Tensor) -> np.ndarray:
    """Make tables of bins: ``(chunks, rows, BINS, 2)``."""
    chunks = -(-_blocks(maps) // numba_profile.CHUNK)
    return np.zeros((chunks, len(rows), BINS, 2))


def _add_chunks(tables: np.ndarray) -> Tensor:
    """Add up tables of bins over the chunks of an image."""
    return torch.from_numpy(tables.sum(0) if len(tables) > 1 else tables[0])


def _columns(rows: Tensor) -> np.ndarray:
    """Return images and classes of rows, each contiguous: kernels know no other layout."""
    return np.ascontiguousarray(rows.numpy().T)


def _places(rows: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Return, for every image and class, its place among the rows, or -1."""
    place = np.full(shape, -1)
    place[tuple(rows.numpy().T)] = np.arange(len(rows))
    return place


def _reduce(counts: np.ndarray, masses: np.ndarray) -> tuple[Tensor, Tensor]:
    """Add up the last axis, in one memory order for every shape: a batch sums as its images do."""
    count, mass = (np.ascontiguousarray(table).sum(-1) for table in (counts, masses))
    return torch.from_numpy(count.astype(np.float64)), torch.from_numpy(mass)


def _total(table: np.ndarray) -> Tensor:
    """Add up the last axis one after the other, as ``own_masks`` does: to float64."""
    return torch.from_numpy(np.add.accumulate(table, -1, np.float64)[..., -1].copy())


def _lay_out(gains: Gains | GainCurves, shape: torch.Size) -> tuple[np.ndarray, np.ndarray]:
    """Lay gains out as the kernel reads them: by row and piece, and the row of every class."""
    if isinstance(gains, GainCurves):
        return gains.lines.numpy(), _places(gains.rows, shape)
    table = torch.stack(gains.terms(), -1).view(-1, 1, 4)
    return table.numpy(), np.arange(len(table)).reshape(shape)


def _round_down(cuts: Tensor, maps: Maps) -> np.ndarray:
    """Round cuts down to the dtype of the values: the same values exceed them as before."""
    exact = cuts.numpy()
    with np.errstate(all="ignore"):  # tiny cuts round to 0, whatever the caller makes of that
        rounded = exact.astype(maps.source.values.dtype)
        below = np.nextafter(rounded, -np.inf, dtype=rounded.dtype)
    return np.where(rounded > exact, below, rounded)
