"""``solver="DEP"``: the labels of two pixels depend on each other, less so with their distance.

Wang and Dai, "On the Relaxation of Conditional Independence Assumption for Image Segmentation",
NeurIPS 2026. The derivation, also for IoU, is in ``docs/theory.md``, section 8. All sums over
pixels take a few rows of the image at a time. No step needs a table of all pairs of pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._common.tracing import is_on_host
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.kernel import Kernel
from rankseg._decision.solvers.presence import eligible_classes, present_classes
from rankseg._decision.solvers.rma import own_masks, shared_labels
from rankseg._formulas.loop import MOST_STEPS
from rankseg._formulas.records import Survey

NOTICEABLE = 1e-12
"""A relative rise of the objective below this is rounding, and ends the iteration."""

NEGLIGIBLE_CHANGE, SMALL_CHANGE = 1e-5, 1e-3
"""Changes of masks, relative to the volume that the objective divides by. A negligible change is
not made, and after a small one the iteration ends: the next would be about the square of it, and
what the objective rises by is about the square of the change."""

MOST_FAILURES = 3
"""Steps without a rise after which the iteration ends."""

VALUES_ON_HOST, VALUES_ON_DEVICE = 1 << 17, 1 << 26
"""Values computed at a time. On CPUs temporaries stay in the cache, and torch wakes no threads."""

FEW_PIXELS = 256
"""Most pixels of an image for which all thresholds are tried. The loss of a threshold that is one
pixel off falls with the square of the number of pixels."""

LARGEST_ODDS = 1e12
"""Larger ``(1 - p) / p`` are taken as this, so that ``p = 0`` needs no case of its own."""

SMALLEST = 1e-30
"""Added to denominators, which are 0 for a class without any probability."""

Parts = list[Tensor]
"""Maps or masks of ``k`` classes of an image, one tensor ``(k, *part)`` for each part of a kernel.

Masks are 0 and 1 in the dtype of the probabilities: this is the fastest arithmetic on CPUs."""

State = tuple[Tensor, ...]
"""Sums over the pixels of masks, for `_Objective.gains`: objective, volume to divide by, others."""


def dependent_masks(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return the best mask found of each class, bool ``(batch, classes, *spatial)``.

    The iteration starts from the masks of RMA. Masks may overlap.
    """
    masks = own_masks(backend, maps, survey, settings)
    present = present_classes(backend, maps, survey, settings)
    at_once = max(1, _values_at_once(survey.mass) // maps.pixels)
    kernel = None
    for image in range(len(masks)):
        for classes in present[image].nonzero().squeeze(1).split(at_once):
            if not len(classes):  # no class is present
                continue
            place = image, classes
            kernel = kernel or _kernel(backend, maps, settings, place, at_once)
            objective = _objective(backend, maps, survey, settings, place, kernel)
            start = objective.split(masks[image, classes])
            found = _climb(objective, _best_start(objective, start), _Overlapping(objective))
            masks[image, classes] = torch.cat(found, 1) > 0
    return masks


def dependent_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return one label for each pixel, ``(batch, *spatial)``.

    The iteration starts from the labels of RMA's published rule. A pass gives every pixel to the
    class that gains most, as long as the sum of the class objectives rises.
    """
    labels = shared_labels(backend, maps, survey, settings)
    present = present_classes(backend, maps, survey, settings)
    leaves_void = settings.unassigned_policy == "void"
    eligible = present if leaves_void else eligible_classes(present)
    for image, label in enumerate(labels):
        classes = eligible[image].nonzero().squeeze(1)
        if not len(classes):
            continue
        place = image, classes
        kernel = _kernel(backend, maps, settings, place, len(classes))
        objective = _objective(backend, maps, survey, settings, place, kernel)
        parts = [label[part.rows] for part in objective.kernel.parts]
        names = _widen(classes, label.dim() + 1)
        start = [(part == names).to(objective.probs[0].dtype) for part in parts]
        labelled = None if leaves_void else [masks.amax(0) for masks in start]
        for part, masks in zip(
            parts, _climb(objective, start, _Exclusive(objective, labelled)), strict=True
        ):
            named = torch.tensordot(names.flatten().to(masks.dtype), masks, 1).long()
            part.copy_(named.where(masks.amax(0) > 0, settings.void_index))
    return labels


def _values_at_once(like: Tensor) -> int:
    return VALUES_ON_HOST if is_on_host(like) else VALUES_ON_DEVICE


def _widen(values: Tensor, axes: int) -> Tensor:
    """Give ``(k,)`` values as many axes as wanted, for arithmetic with ``(k, *spatial)``."""
    return values.view(-1, *[1] * (axes - 1))


def _total(values: Tensor) -> Tensor:
    """Return the sum of ``(k, *part)`` values for each class, float64.

    The last axis is summed by itself: one thread does each sum, and float32 is fast.
    """
    lines = values.sum(-1) if values.dim() > 2 else values
    return lines.flatten(1).sum(1, dtype=torch.float64)


# Iteration


@dataclass(frozen=True)
class _Overlapping:
    """Proposes for each class the pixels that it gains from."""

    objective: _Objective
    is_joint = False

    def masks(self, state: State) -> Parts:
        return [self.objective.gains(state, index).gt_(0) for index in self.objective.indices]


@dataclass(frozen=True)
class _Exclusive:
    """Proposes masks that do not overlap: a pixel goes to the class that gains most from it.

    Where ``labelled`` is 0, a pixel goes to no class. If it is None, a pixel goes to no class if
    none gains from it.
    """

    objective: _Objective
    labelled: Parts | None
    is_joint = True

    def masks(self, state: State) -> Parts:
        return [self._part(state, index) for index in self.objective.indices]

    def _part(self, state: State, index: int) -> Tensor:
        gains = self.objective.gains(state, index)
        best = gains.amax(0)
        taken = best > 0 if self.labelled is None else self.labelled[index]
        # Of classes that gain alike the first gets the pixel. (An index from max() takes longer.)
        order = torch.arange(len(gains), 0, -1, dtype=gains.dtype, device=gains.device)
        won = gains.eq_(best).mul_(_widen(order, gains.dim()))
        return won.eq_(won.amax(0)).mul_(taken)


def _climb(objective: _Objective, masks: Parts, proposal: _Overlapping | _Exclusive) -> Parts:
    """Replace masks by proposed ones where the objective of the class rises.

    If the proposal is joint, where the sum of the objectives rises. So no step lowers it. A step
    that fails may go too far: the next gains are those halfway, between both states.
    """
    state = start = objective.evaluate(masks)
    failed = 0
    for _ in range(MOST_STEPS):
        proposed = proposal.masks(start)
        pairs = zip(proposed, masks, strict=True)
        share = (
            torch.stack([_total((one - other).abs_()) for one, other in pairs]).sum(0) / state[1]
        )
        if not bool((share > NEGLIGIBLE_CHANGE).any()):
            break
        new = objective.evaluate(proposed)
        before, after = state[0], new[0]
        if proposal.is_joint:
            before, after = (scores.sum().expand_as(scores) for scores in (before, after))
        rising = after > before + NOTICEABLE * before.abs()
        masks = _chosen(rising, proposed, masks)
        halfway = [(one + other) / 2 for one, other in zip(new, state, strict=True)]
        state = tuple(_chosen(rising, new, state))
        start = tuple(_chosen(rising, new, halfway))
        failed = 0 if bool(rising.any()) else failed + 1
        if failed > MOST_FAILURES or not bool((share > SMALL_CHANGE).any()):
            break
    return masks


def _chosen(is_first: Tensor, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    """Return for each class the values of the first or the second."""
    pairs = zip(first, second, strict=True)
    return [one.where(_widen(is_first, one.dim()), other) for one, other in pairs]


def _best_start(objective: _Objective, masks: Parts) -> Parts:
    """Return for each class the best of the masks given, the empty mask, and some thresholds.

    Images of more than `FEW_PIXELS` pixels have no thresholds tried. The empty mask matters with
    ``smooth`` only.
    """
    if sum(part[0].numel() for part in masks) <= FEW_PIXELS:
        rows = range(len(masks[0]))
        return objective.split(torch.stack([_best_threshold(objective, row) for row in rows]))
    if objective.smooth == 0:
        return masks
    none = [torch.zeros_like(part) for part in masks]
    return _chosen(objective.evaluate(none)[0] > objective.evaluate(masks)[0], none, masks)


def _best_threshold(objective: _Objective, row: int) -> Tensor:
    """Return the best of the masks of the ``n`` pixels of highest rank, for all ``n``."""
    spatial = torch.cat(objective.probs, 1).shape[1:]
    sizes = torch.arange(spatial.numel() + 1, device=objective.volume.device)
    repeated = objective.repeated(row, len(sizes))
    order = repeated.ranks(sizes).argsort(dim=1, descending=True, stable=True)
    inside = sizes[:-1] < sizes.unsqueeze(1)
    masks = torch.zeros_like(inside).scatter(1, order, inside).view(-1, *spatial)
    return masks[repeated.evaluate(objective.split(masks))[0].argmax()]


# Objectives


def _kernel(
    backend: ModuleType, maps: Any, settings: Settings, place: tuple[int, Tensor], classes: int
) -> Kernel:
    """Return the kernel for the maps, in parts for so many ``classes`` at a time.

    ``place`` is an image and its present classes, for the dtype of the probabilities.
    """
    spatial, theta = maps.spatial, settings.theta
    thetas = theta if isinstance(theta, tuple) else (theta,) * len(spatial)
    like = backend.probabilities(maps, place[0], place[1][:1], slice(0, 1))
    at_once = _values_at_once(like) // classes
    return Kernel.build(spatial, thetas, settings.amplitude, like, at_once)


def _objective(
    backend: ModuleType,
    maps: Any,
    survey: Survey,
    settings: Settings,
    place: tuple[int, Tensor],
    kernel: Kernel,
) -> _Objective:
    """Return the objective of some classes of an image, which are the ``place``."""
    image, classes = place
    volume = survey.mass[image, classes]
    shares = volume.new_zeros(len(classes), *kernel.nodes)
    probs, odds = [], []
    for part in kernel.parts:
        values = backend.probabilities(maps, image, classes, part.rows)
        root = values.reciprocal().sub_(1).clamp_(0, LARGEST_ODDS).sqrt_()
        shares += kernel.collect(root * values, part)
        probs.append(values)
        odds.append(root)
    if settings.metric == "iou":
        return _IoU(kernel, settings.smooth, probs, volume, odds, shares)
    given = _given_volumes(kernel, volume, odds, shares)
    return _Dice(kernel, settings.smooth, probs, volume, given)


def _given_volumes(kernel: Kernel, volume: Tensor, odds: Parts, shares: Tensor) -> Parts:
    """Compute ``M`` of `_Dice` in place of ``odds``, the square roots of ``(1 - p) / p``.

    ``shares`` are those of ``odds * p``, the standard deviation of a label, at the nodes.
    """
    sums = kernel.spread(shares)
    for part, values in zip(kernel.parts, odds, strict=True):
        values.mul_(kernel.at(sums, part, values.dtype))
        values.add_(_widen(volume + SMALLEST, values.dim()).to(values.dtype))
    return odds


@dataclass(frozen=True)
class _Objective(ABC):
    """The objective of ``k`` classes of an image.

    Attributes
    ----------
    probs
        The probabilities, 0 at pixels that are not valid.
    volume
        ``(k,)`` float64: the sums of the probabilities.
    """

    kernel: Kernel
    smooth: float
    probs: Parts
    volume: Tensor

    @property
    def indices(self) -> range:
        """The indices of the parts."""
        return range(len(self.probs))

    def split(self, masks: Tensor) -> Parts:
        """Return masks, bool ``(k, *spatial)``, in parts."""
        return [masks[:, part.rows].to(self.probs[0].dtype) for part in self.kernel.parts]

    @abstractmethod
    def evaluate(self, masks: Parts) -> State:
        """Return the state of masks."""

    @abstractmethod
    def gains(self, state: State, index: int) -> Tensor:
        """Return what each pixel of a part would add to the objective, to first order."""

    @abstractmethod
    def ranks(self, sizes: Tensor) -> Tensor:
        """Return by what to choose the pixels of a mask of each size, ``(k, pixels)``."""

    @abstractmethod
    def repeated(self, row: int, times: int) -> _Objective:
        """Return the objective of one class, as often as wanted."""


@dataclass(frozen=True)
class _Dice(_Objective):
    """Dice: the sum over the mask of ``2 p_j / (n + M_j + g)``, and ``g / (n + mu + g)``.

    ``given`` is ``M``: the expected volume once a pixel is in the class. A state is the objective,
    ``n + mu + g``, ``n + g``, and what one more pixel costs the pixels in the mask.
    """

    given: Parts

    def evaluate(self, masks: Parts) -> State:
        count = torch.stack([_total(mask) for mask in masks]).sum(0) + self.smooth
        total = count + self.volume + SMALLEST
        score, cost = self.smooth / total, self.smooth / total.square()
        for index, mask in enumerate(masks):
            inverse = self._inverse(count, index)
            terms = (self.probs[index] * inverse).mul_(mask)
            score = score + 2 * _total(terms)
            cost = cost + 2 * _total(terms.mul_(inverse))
        return score, total, count, cost

    def gains(self, state: State, index: int) -> Tensor:
        _, _, count, cost = state
        ratio = self._inverse(count, index).mul_(self.probs[index]).mul_(2)
        return ratio.sub_(_widen(cost, ratio.dim()).to(ratio.dtype))

    def ranks(self, sizes: Tensor) -> Tensor:
        probs, given = (torch.cat(parts, 1).flatten(1) for parts in (self.probs, self.given))
        return probs / (given + sizes.unsqueeze(1) + self.smooth)

    def repeated(self, row: int, times: int) -> _Dice:
        probs, given = (_repeated(parts, row, times) for parts in (self.probs, self.given))
        return replace(self, probs=probs, volume=self.volume[[row]], given=given)

    def _inverse(self, count: Tensor, index: int) -> Tensor:
        given = self.given[index]
        return (given + _widen(count, given.dim()).to(given.dtype)).reciprocal_()


@dataclass(frozen=True)
class _IoU(_Objective):
    """IoU: the sum over the mask of ``p_j / D_j``, and ``g / (n + mu - S + g)``.

    ``D_j = n + mu - S + g + odds_j (k * (nu outside))_j`` is the expected denominator once pixel
    ``j`` is in the class. ``odds`` is ``nu / p``, and ``shares`` are those of ``nu`` at the nodes.
    A state is the objective, ``n + mu - S + g``, the sum of ``p / D^2`` over the mask and ``g``
    over the square of its denominator, and the sums ``k * (nu outside)`` and ``k * (nu / D^2
    inside)``, as `Kernel.spread` returns them.
    """

    odds: Parts
    shares: Tensor

    def evaluate(self, masks: Parts) -> State:
        total, outside = self.volume + self.smooth, self.shares
        for index, mask in enumerate(masks):
            inside = self.probs[index] * mask
            total = total + _total(mask) - _total(inside)
            inside.mul_(self.odds[index])
            outside = outside - self.kernel.collect(inside, self.kernel.parts[index])
        total = total.clamp(SMALLEST)
        sums = self.kernel.spread(outside)
        score, cost = self.smooth / total, self.smooth / total.square()
        shares = torch.zeros_like(outside)
        for index, mask in enumerate(masks):
            inverse = self._inverse(total, sums, index)
            terms = (self.probs[index] * inverse).mul_(mask)
            score = score + _total(terms)
            cost = cost + _total(terms.mul_(inverse))
            shares += self.kernel.collect(terms.mul_(self.odds[index]), self.kernel.parts[index])
        return score, total, cost, sums, self.kernel.spread(shares)

    def gains(self, state: State, index: int) -> Tensor:
        _, total, cost, outside, inside = state
        probs, part = self.probs[index], self.kernel.parts[index]
        saved = self.kernel.at(inside, part, probs.dtype).mul_(self.odds[index])
        cost = _widen(cost, probs.dim()).to(probs.dtype)
        return saved.add_(self._inverse(total, outside, index)).add_(cost).mul_(probs).sub_(cost)

    def ranks(self, sizes: Tensor) -> Tensor:
        return torch.cat(self.probs, 1).flatten(1)

    def repeated(self, row: int, times: int) -> _IoU:
        probs, odds = (_repeated(parts, row, times) for parts in (self.probs, self.odds))
        volume, shares = (
            self.volume[[row]],
            self.shares[[row]].expand(times, *self.shares.shape[1:]),
        )
        return replace(self, probs=probs, volume=volume, odds=odds, shares=shares)

    def _inverse(self, total: Tensor, outside: Tensor, index: int) -> Tensor:
        part = self.kernel.parts[index]
        more = self.kernel.at(outside, part, self.probs[index].dtype).mul_(self.odds[index])
        return more.add_(_widen(total, more.dim()).to(more.dtype)).reciprocal_()


def _repeated(parts: Parts, row: int, times: int) -> Parts:
    return [part[row].expand(times, *part.shape[1:]) for part in parts]
