"""GPU backend: Triton kernels for what labels and masks need, plain torch for the rest.

The functions bear the names, and do the work, of those in ``native``, whose docstrings
describe them; what is not here is the reference's. Nothing waits for the device but the raising of
cuts, once for every few steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg._backends import torch_reference as reference
from rankseg._backends import triton_kernels as kernels
from rankseg._backends.axes import merge_axes
from rankseg._backends.torch_reference import (
    between,
    exact_masks,
    exchange,
    join,
    moments,
    own_masks,
    probabilities,
    profile,
    scan,
    sizes,
    split,
    winners,
)
from rankseg._formulas.loop import MOST_STEPS
from rankseg._formulas.records import ULPS_ABOVE_ONE, GainCurves, Gains, Survey

__all__ = [
    "above",
    "best_cuts",
    "between",
    "claim",
    "exact_masks",
    "exchange",
    "join",
    "masks",
    "moments",
    "open_maps",
    "own_masks",
    "probabilities",
    "profile",
    "raise_cuts",
    "resolve",
    "scan",
    "sizes",
    "split",
    "survey",
    "tally",
    "unsettled",
    "winners",
]

TILE = 2048
"""Pixels that a program holds at a time where it looks at one class."""

LABEL_TILE = 1024
"""The same where it looks at all classes, and keeps a label besides."""

MOST_PARTS = 1024
"""Most parts of a row that are summed beside each other."""

STEPS_PER_WAIT = 6
"""Steps that raise cuts before the host asks whether any still rises; a superfluous one costs the
launch of a kernel that does nothing, which is about what the answer takes."""


class Maps(NamedTuple):
    """Probability maps ``(batch, classes, *spatial)``; which pixels count; where both lie."""

    probs: Tensor
    valid: Tensor | None
    from_logits: None
    spatial: torch.Size
    pixels: int
    layout: tuple[Any, ...]
    kind: dict[str, bool]

    @property
    def shape(self) -> tuple[int, int]:
        return self.probs.shape[0], self.probs.shape[1]

    @property
    def rows(self) -> int:
        """Classes of all images."""
        return self.shape[0] * self.shape[1]

    @property
    def parts(self) -> int:
        """Parts that a row is counted and summed in."""
        return max(1, min(MOST_PARTS, _ceil(self.pixels, TILE)))


def open_maps(probs: Tensor, valid: Tensor | None, from_logits: str | None = None) -> Maps:
    """Describe the memory of ``probs``; copied only with four spatial axes of separate strides."""
    if from_logits is not None:
        raise ValueError("these kernels read probabilities, not logits")
    lengths, steps = merge_axes(probs.shape[2:], probs.stride()[2:])
    if len(lengths) > 3:
        probs = probs.contiguous()
        lengths, steps = merge_axes(probs.shape[2:], probs.stride()[2:])
    lengths, steps = [1] * (3 - len(lengths)) + lengths, [0] * (3 - len(steps)) + steps
    mask = probs if valid is None else valid.contiguous().view(torch.uint8)
    pixels = probs.shape[2:].numel()
    layout = (probs, mask, probs.stride(0), probs.stride(1), *lengths[1:], *steps, pixels)
    kind = {
        "FLAT": lengths[:2] == [1, 1],
        "MASKED": valid is not None,
        "WIDE": probs.dtype == torch.float64,
    }
    layout = (*layout, probs.shape[1])
    return Maps(probs, valid, None, probs.shape[2:], pixels, layout, kind)


def survey(maps: Maps) -> Survey:
    found = maps.probs.new_empty((5, *maps.shape, maps.parts), dtype=torch.float64)
    limit = 1 + ULPS_ABOVE_ONE * torch.finfo(maps.probs.dtype).eps
    _by_row(kernels.survey, maps, maps.parts, found, LIMIT=limit)
    mass, _, likely_count, likely_mass, faults = found.sum(3).unbind()
    return Survey(mass, found[1].amax(2), likely_count, likely_mass, faults.any())


def above(maps: Maps, survey: Survey, cuts: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    sums = maps.probs.new_empty((2, *maps.shape, maps.parts), dtype=torch.float64)
    _by_row(kernels.above, maps, maps.parts, cuts.contiguous(), _flags(active), *sums)
    count, mass = sums.sum(3)
    return count, mass


def raise_cuts(
    maps: Maps, survey: Survey, cuts: Tensor, active: Tensor, bonus: Tensor, offset: Tensor
) -> Tensor:
    here = _room(maps)
    torch.stack((cuts, active.double()), out=_ends(here, maps))
    return _ends(_raised(maps, torch.stack((bonus, offset)), here), maps)[0]


def best_cuts(
    maps: Maps, survey: Survey, active: Tensor, bonus: float, offset: float, keep_peak: bool
) -> Tensor:
    here, terms = _room(maps), maps.probs.new_empty((2, *maps.shape), dtype=torch.float64)
    known = survey.mass, survey.peak, survey.likely_count, survey.likely_mass
    flags, cuts = _flags(active), torch.empty_like(survey.mass)
    first = *known, flags, terms, here
    _launch_by_row(kernels.first_cuts, maps, *first, BONUS=bonus, OFFSET=offset)
    here = _raised(maps, terms, here)
    last = here, survey.peak, flags, cuts
    _launch_by_row(kernels.last_cuts, maps, *last, KEEP_PEAK=keep_peak)
    return cuts


def masks(maps: Maps, survey: Survey, cuts: Tensor) -> Tensor:
    inside = torch.empty(maps.probs.shape, dtype=torch.bool, device=maps.probs.device)
    written = cuts.contiguous(), inside.view(torch.uint8)
    _launch(kernels.masks, maps, _ceil(maps.pixels, TILE), maps.rows, *written)
    return inside


def claim(
    maps: Maps, survey: Survey, cuts: Tensor, lower_cuts: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    cuts = cuts.contiguous()
    lower_cuts = cuts if lower_cuts is None else lower_cuts.contiguous()
    least = torch.minimum(cuts, lower_cuts)
    active = _flags(least < torch.inf)
    labels = torch.empty(
        (maps.shape[0], *maps.spatial), dtype=torch.int64, device=maps.probs.device
    )
    count, mass = _by_label(kernels.claim, maps, cuts, lower_cuts, active, labels)
    return labels, count, mass


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
    if isinstance(gains, GainCurves):
        plain = reference.open_maps(maps.probs, maps.valid)
        return reference.resolve(plain, survey, labels, cuts, gains, eligible, floor, void)
    labels = labels.contiguous()
    terms = [term.expand(maps.shape).contiguous() for term in (cuts, *gains.terms())]
    blocks = _ceil(maps.pixels, LABEL_TILE)
    _launch(
        kernels.resolve, maps, blocks, maps.shape[0], labels, terms[0], _flags(eligible),
        *terms[1:], void, FLOOR=floor, TILE=LABEL_TILE,
    )  # fmt: skip
    return labels


def unsettled(
    maps: Maps, survey: Survey, labels: Tensor, active: Tensor, void: int
) -> tuple[Maps, Survey, Tensor]:
    plain = reference.open_maps(maps.probs, maps.valid)
    part, survey, pixels = reference.unsettled(plain, survey, labels, active, void)
    return open_maps(part.probs, part.valid), survey, pixels


def tally(maps: Maps, survey: Survey, labels: Tensor) -> tuple[Tensor, Tensor]:
    everything = torch.ones(maps.shape, dtype=torch.uint8, device=labels.device)
    return _by_label(kernels.tally, maps, everything, labels.contiguous())


def _by_row(kernel: Any, maps: Maps, parts: int, *arguments: Any, **constants: Any) -> None:
    """Launch a program for every part of every row."""
    _launch(kernel, maps, parts, maps.rows, parts, *arguments, **constants)


def _by_label(kernel: Any, maps: Maps, *arguments: Tensor) -> tuple[Tensor, Tensor]:
    """Launch a program for some pixels at a time; return the counts and masses that it writes."""
    parts = _ceil(maps.pixels, LABEL_TILE)
    sums = maps.probs.new_zeros((2, *maps.shape, parts), dtype=torch.float64)
    _launch(kernel, maps, parts, maps.shape[0], parts, *arguments, sums, TILE=LABEL_TILE)
    count, mass = sums.sum(3)
    return count, mass


def _launch(kernel: Any, maps: Maps, across: int, down: int, *rest: Any, **constants: Any) -> None:
    """Launch ``across`` by ``down`` programs on the device of the maps.

    No products are fused with sums: the reference would round otherwise.
    """
    if down == 0:
        return
    constants = {"TILE": TILE} | maps.kind | constants
    with torch.cuda.device_of(maps.probs):
        kernel[across, down](*maps.layout, *rest, **constants, enable_fp_fusion=False)


def _launch_by_row(kernel: Any, maps: Maps, *arguments: Any, **constants: Any) -> None:
    """Launch one program for every row, that looks at no probability."""
    if maps.rows:
        with torch.cuda.device_of(maps.probs):
            kernel[(maps.rows,)](*arguments, **constants, enable_fp_fusion=False)


def _room(maps: Maps) -> Tensor:
    """Return room for cuts, whether they rise, and counts and masses of every part of every row."""
    return maps.probs.new_empty(2 * maps.rows * (1 + maps.parts), dtype=torch.float64)


def _ends(room: Tensor, maps: Maps) -> Tensor:
    """View the cuts in such room, and whether they rise."""
    return room[: 2 * maps.rows].view(2, *maps.shape)


def _raised(maps: Maps, terms: Tensor, here: Tensor) -> Tensor:
    """Raise the cuts in such room until none rises; return the room that they are in then."""
    rooms = [_room(maps) for _ in range(2)]
    width = 1 << (maps.parts - 1).bit_length()
    first = True
    for _ in range(MOST_STEPS // STEPS_PER_WAIT):
        for there in rooms * (STEPS_PER_WAIT // 2):
            constants = {"FIRST": first, "PARTS": width}
            _by_row(kernels.raise_cuts, maps, maps.parts, terms, here, there, **constants)
            here, first = there, False
        if not _ends(here, maps)[1].any():
            break
    return here


def _flags(chosen: Tensor) -> Tensor:
    return chosen.contiguous().view(torch.uint8)


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit)
