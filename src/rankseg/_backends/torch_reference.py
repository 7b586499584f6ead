"""Reference backend: every operation in plain torch, for any device and for traced graphs.

The functions bear the names, and do the work, of those in ``native``, whose docstrings
describe them. Sums run in float64 over slabs of the first spatial axis, so that
temporaries stay small against the input; nothing waits for the device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg._backends.logits import to_probabilities
from rankseg._formulas.bins import BINS, bin_of
from rankseg._formulas.floats import round_down
from rankseg._formulas.loop import Best, while_rising
from rankseg._formulas.records import (
    CONTESTED,
    NEGLIGIBLE_PROB,
    POWERS,
    ULPS_ABOVE_ONE,
    UNASSIGNED,
    GainCurves,
    Gains,
    Integrals,
    Survey,
)

SLAB = 1 << 20
"""Values per slab and image: 4 MiB of float32."""


class Maps(NamedTuple):
    """Probability maps ``(batch, classes, *spatial)``, or logits of them; which pixels count."""

    probs: Tensor
    valid: Tensor | None
    from_logits: str | None

    @property
    def spatial(self) -> torch.Size:
        return self.probs.shape[2:]

    @property
    def pixels(self) -> int:
        return math.prod(self.spatial)  # numel() would be a constant of a traced graph


def open_maps(probs: Tensor, valid: Tensor | None, from_logits: str | None = None) -> Maps:
    if from_logits is not None and torch.compiler.is_compiling():  # once, for all slabs are one
        probs, from_logits = to_probabilities(probs, from_logits), None
    return Maps(probs, valid, from_logits)


def own_masks(maps: Maps, *rule: object) -> None:
    return None  # a survey of all rows first is fewer operations


def exact_masks(maps: Maps, *rule: object) -> None:
    return None  # as above


def survey(maps: Maps) -> Survey:
    terms = []
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        terms.append((_sum(probs), probs.amax(_spatial(probs)), probs.amin(_spatial(probs))))
    masses, peaks, lows = (torch.stack(term) for term in zip(*terms, strict=True))
    mass, highest, lowest = masses.sum(0), peaks.amax(0), lows.amin(0)
    limit = 1 + ULPS_ABOVE_ONE * torch.finfo(maps.probs.dtype).eps
    sound = (lowest >= 0) & (highest <= limit)  # False for NaN too
    likely_count, likely_mass = _above(maps, torch.full_like(mass, 0.5))
    return Survey(mass, highest.double(), likely_count, likely_mass, ~sound.all())


def above(maps: Maps, survey: Survey, cuts: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    return _above(maps, torch.where(active, cuts, torch.inf))


def winners(maps: Maps, survey: Survey) -> Tensor:
    images, classes = maps.probs.shape[:2]
    won = torch.zeros(images, classes + 1, device=maps.probs.device)  # the last: of no pixel
    for slab in _slabs(maps):
        winner = _probs(maps, slab).argmax(1)
        if maps.valid is not None:
            winner = winner.masked_fill(~maps.valid[:, slab], classes)
        won = won.scatter(1, winner.flatten(1), 1.0)
    return won[:, :-1] > 0


def sizes(maps: Maps) -> Tensor:
    if maps.valid is not None:
        return maps.valid.flatten(1).sum(1).double()
    return torch.full(
        maps.probs.shape[:1], maps.pixels, dtype=torch.float64, device=maps.probs.device
    )


def probabilities(maps: Maps, image: int, classes: Tensor, rows: slice) -> Tensor:
    probs = maps.probs[image : image + 1, :, rows]
    if maps.from_logits is not None:
        probs = to_probabilities(probs, maps.from_logits)
    probs = probs[0].index_select(0, classes)
    probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
    return probs if maps.valid is None else probs.where(maps.valid[image, rows], 0)


def moments(maps: Maps, survey: Survey, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, variance, third = (torch.zeros_like(survey.mass) for _ in range(3))
    for slab in _slabs(maps):
        probs = _probs(maps, slab).double().clamp(max=1)
        spread = probs * (1 - probs)
        mean = mean + _sum(probs)
        variance = variance + _sum(spread)
        third = third + _sum(spread * (1 - 2 * probs))
    return mean.where(active, 0), variance.where(active, 0), third.where(active, 0)


def between(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, rows: Tensor, width: int
) -> Tensor:
    row = rows.unbind(1)
    values = torch.cat([_probs(maps, slab)[row].flatten(1) for slab in _slabs(maps)], 1).double()
    inside = (values > low.unsqueeze(1)) & (values <= high.unsqueeze(1))
    return values.where(inside, 0).topk(width, dim=1).values


def raise_cuts(
    maps: Maps, survey: Survey, cuts: Tensor, active: Tensor, bonus: Tensor, offset: Tensor
) -> Tensor:
    def step(best: Best, rising: Tensor) -> tuple[Best, Tensor]:
        (cut,) = best
        count, mass = above(maps, survey, cut, rising)
        fraction = (mass + bonus) / (count + offset)
        rising = rising & (fraction > cut)
        return (torch.where(rising, fraction, cut),), rising

    return while_rising(step, (cuts,), active, survey.is_invalid)[0]


def best_cuts(
    maps: Maps, survey: Survey, active: Tensor, bonus: float, offset: float, keep_peak: bool
) -> Tensor:
    raised = functools.partial(raise_cuts, maps, survey)
    return survey.best_cuts(raised, active, bonus, offset, keep_peak)


def masks(maps: Maps, survey: Survey, cuts: Tensor) -> Tensor:
    return torch.cat([_exceeds(_probs(maps, slab), cuts) for slab in _slabs(maps)], 2)


def claim(
    maps: Maps, survey: Survey, cuts: Tensor, lower_cuts: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    claimed, count, mass = [], torch.zeros_like(survey.mass), torch.zeros_like(survey.mass)
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        inside = _exceeds(probs, cuts)
        reached = inside if lower_cuts is None else _exceeds(probs, lower_cuts)
        single = (reached.sum(1) == 1) & inside.any(1)
        label = torch.where(single, inside.byte().argmax(1), CONTESTED)
        claimed.append(label.masked_fill(~reached.any(1), UNASSIGNED))
        alone = inside & single.unsqueeze(1)
        count = count + alone.sum(_spatial(probs))
        mass = mass + _sum(probs.where(alone, 0))
    return torch.cat(claimed, 1), count, mass


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
    resolved = []
    for slab in _slabs(maps):
        probs, label = _probs(maps, slab), labels[:, slab]
        wide = probs.double()
        gain = _gain(gains, wide)
        contested = (label == CONTESTED).unsqueeze(1)
        free = _widen(eligible, probs) & (gain > floor)
        allowed = (contested & _exceeds(probs, cuts)) | (~contested & free)
        best, winner = gain.masked_fill(~allowed, -torch.inf).max(1)
        winner = winner.masked_fill(best == -torch.inf, void)
        label = torch.where(label < 0, winner, label)
        if maps.valid is not None:
            label = label.masked_fill(~maps.valid[:, slab], void)
        resolved.append(label)
    return torch.cat(resolved, 1)


def unsettled(
    maps: Maps, survey: Survey, labels: Tensor, active: Tensor, void: int
) -> tuple[Maps, Survey, Tensor]:
    flat = labels.view(len(labels), -1)
    chosen = flat < 0
    if maps.valid is not None:
        flat.masked_fill_(~maps.valid.flatten(1), void)
        chosen = chosen & maps.valid.flatten(1)
    sizes = chosen.sum(1, keepdim=True)
    order = chosen.byte().argsort(dim=1, descending=True, stable=True)
    pixels = order[:, : max(1, int(sizes.max()))]
    valid = torch.arange(pixels.shape[1], device=pixels.device) < sizes
    values = maps.probs.flatten(2)
    values = values.gather(2, pixels.unsqueeze(1).expand(-1, values.shape[1], -1))
    image = torch.arange(len(pixels), device=pixels.device).unsqueeze(1)
    part = open_maps(values, valid, maps.from_logits)
    return part, survey, (image * maps.pixels + pixels)[valid]


def join(labels: Tensor, part: Maps, pixels: Tensor, part_labels: Tensor) -> Tensor:
    labels.view(-1)[pixels] = part_labels[part.valid]
    return labels


def tally(maps: Maps, survey: Survey, labels: Tensor) -> tuple[Tensor, Tensor]:
    count, mass = torch.zeros_like(survey.mass), torch.zeros_like(survey.mass)
    classes = torch.arange(maps.probs.shape[1], device=labels.device)
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        chosen = labels[:, slab].unsqueeze(1) == _widen(classes.unsqueeze(0), probs)
        count = count + chosen.sum(_spatial(probs))
        mass = mass + _sum(probs.where(chosen, 0))
    return count, mass


def profile(maps: Maps, survey: Survey, rows: Tensor) -> Tensor:
    return _sum_by_bin(maps, torch.zeros_like(survey.mass), None)[rows.unbind(1)]


def exchange(maps: Maps, survey: Survey, labels: Tensor, cuts: Tensor, rows: Tensor) -> Tensor:
    return _sum_by_bin(maps, cuts, labels)[rows.unbind(1)]


def _sum_by_bin(maps: Maps, cuts: Tensor, labels: Tensor | None) -> Tensor:
    """Count and sum all values by bin, or those exchanged: ``(batch, classes, BINS, 2)``."""
    classes = torch.arange(maps.probs.shape[1], device=cuts.device).unsqueeze(0)
    count = torch.zeros(*cuts.shape, BINS, dtype=torch.float64, device=cuts.device)
    mass = torch.zeros_like(count)
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        sign = torch.ones_like(probs, dtype=torch.float64)
        if labels is not None:
            borne = labels[:, slab].unsqueeze(1) == _widen(classes, probs)
            sign = borne.double() - _exceeds(probs, cuts).double()
        bins = bin_of(probs).flatten(2)
        count = count.scatter_add(2, bins, sign.flatten(2))
        mass = mass.scatter_add(2, bins, (sign * probs).flatten(2))
    return torch.stack((count, mass), -1)


def split(
    maps: Maps, survey: Survey, low: Tensor, high: Tensor, degree: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    above, between = torch.zeros_like(low), torch.zeros_like(low)
    sums = torch.zeros(*low.shape, 2, POWERS, dtype=torch.float64, device=low.device)
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        over = _exceeds(probs, high)
        under = ~_exceeds(probs, low)
        above += over.sum(_spatial(probs))
        between += (~over & ~under).sum(_spatial(probs))
        for side, inside in enumerate((over, under)):
            values = probs.where(inside & (_widen(degree, probs) > 0), 0).double()
            sums[:, :, side, 0] += _sum(values)
            values = values.where(values > NEGLIGIBLE_PROB, 0)
            terms = values
            for power in range(1, POWERS):
                terms = terms * values
                sums[:, :, side, power] += _sum(terms)
    return above, between, sums


def scan(values: Tensor, extra: Tensor, integrals: Integrals) -> Tensor:
    taken = torch.arange(values.shape[1] + 1, device=values.device)
    ranked = torch.nn.functional.pad(values.clamp(max=1), (1, 0))
    steps = integrals.steps
    gained = steps.per_mass * ranked.cumsum(1) - steps.per_count * taken
    score = torch.zeros_like(ranked)
    for k in range(integrals.decay.shape[1]):
        label, part, amount = (term[:, k : k + 1] for term in integrals[:3])
        left = 1 - ranked + ranked * label
        hits = (ranked * label / left).cumsum(1)
        step = (label / left if steps.outside else label).expand_as(left).clone()
        step[:, :1] = part * left.cumprod(1)[:, -1:]
        amount = amount - steps.per_count * hits[:, -1:] + steps.per_hit * hits + gained
        score = score + step.cumprod(1) * amount
    ends = torch.nn.functional.pad(values[:, 1:] < values[:, :-1], (1, 1), value=True)
    ends = ends | (taken == extra.unsqueeze(1))
    return score.masked_fill(~ends | (taken > extra.unsqueeze(1)), -torch.inf).argmax(1)


def _above(maps: Maps, cuts: Tensor) -> tuple[Tensor, Tensor]:
    count, mass = torch.zeros_like(cuts), torch.zeros_like(cuts)
    for slab in _slabs(maps):
        probs = _probs(maps, slab)
        inside = _exceeds(probs, cuts)
        count = count + inside.sum(_spatial(probs))
        mass = mass + _sum(probs.where(inside, 0))
    return count, mass


def _slabs(maps: Maps) -> Iterator[slice]:
    """Slices of the first spatial axis, of about ``SLAB`` values each; one in a traced graph."""
    length = maps.probs.shape[2]
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(1, SLAB * length // (maps.probs.shape[1] * maps.pixels))  # whatever the batch
    for start in range(0, length, step):
        yield slice(start, start + step)


def _probs(maps: Maps, slab: slice) -> Tensor:
    """Return the probabilities of a slab, 0 where not valid; NaN where logits are not finite."""
    probs = maps.probs[:, :, slab]
    if maps.from_logits is not None:
        probs = to_probabilities(probs, maps.from_logits) + 0 * probs
    return probs if maps.valid is None else probs.where(maps.valid[:, slab].unsqueeze(1), 0)


def _spatial(probs: Tensor) -> list[int]:
    return list(range(2, probs.dim()))


def _sum(probs: Tensor) -> Tensor:
    return probs.sum(_spatial(probs), dtype=torch.float64)


def _gain(gains: Gains | GainCurves, probs: Tensor) -> Tensor:
    if isinstance(gains, Gains):
        slope, cost, size, shrink = (_widen(term, probs) for term in gains.terms())
        return (slope * probs - cost) / (size - shrink * probs)
    bins = bin_of(probs).flatten(2)
    none = probs.new_zeros(*probs.shape[:2], BINS)
    row = gains.rows.unbind(1)
    slope, cost = (none.index_put(row, term).gather(2, bins) for term in gains.lines.unbind(2))
    known = torch.zeros_like(none[..., 0], dtype=torch.bool).index_put(row, bins.new_ones(()) > 0)
    gain = (slope * probs.flatten(2) - cost).view(probs.shape)
    return gain.where(_widen(known, probs), -torch.inf)


def _widen(rows: Tensor, probs: Tensor) -> Tensor:
    """Give ``(batch, classes)`` as many trailing axes as ``probs`` has."""
    return rows[(...,) + (None,) * (probs.dim() - 2)]


def _exceeds(probs: Tensor, cuts: Tensor) -> Tensor:
    """Compare in the dtype of ``probs``, with cuts rounded down: exact, and no wide copy."""
    return probs > _widen(round_down(cuts, probs.dtype), probs)
