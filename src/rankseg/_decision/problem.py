"""The checked input of a call: all checks of the arguments are here and run before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from rankseg._backends.logits import to_probabilities
from rankseg._common.tracing import is_on_host, is_traced
from rankseg._decision.inputs import as_tensor, dtype_cure
from rankseg._decision.presence_model import PresenceModel
from rankseg._decision.sampled_sums import check_sums
from rankseg._decision.settings import SMOOTH_PER_PIXEL, VOID_INDEX, Settings
from rankseg._decision.solvers import SOLVERS, solvers_for
from rankseg._formulas.records import ULPS_ABOVE_ONE

__all__ = ["Maps", "Problem", "as_tensor"]

Maps = TypeVar("Maps", Tensor, np.ndarray)
"""A caller who passes tensors gets tensors; a caller who passes NumPy arrays gets arrays."""

CHUNK = 1 << 18
"""Values transformed at a time: 2 MiB of float64."""

OVERSHOOT = 0.01
"""If all values are within this distance of [0, 1], the error suggests to clip probabilities."""

NODATA = -99
"""Logits are not so low where all are at most 1: rasters mark pixels without data so."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Problem:
    """The checked input of one call: maps, settings, and the array type to return.

    Attributes
    ----------
    probs
        ``(batch, classes, *spatial)`` floating tensor, of any strides, never written to; logits
        if the settings say so.
    valid
        ``(batch, *spatial)`` boolean tensor on the same device, or None.
    settings
        The options of the call, such as metric and solver.
    numpy
        True if the caller passed NumPy arrays, so that the result must be one.
    sums_are_checked
        True if ``probs`` was computed from the caller's maps, by calibration or from logits. The
        sums over classes of the caller's maps have then been checked, and are not checked again.
    are_exclusive
        True if the probabilities of a pixel must sum to 1 over the classes even where
        ``output_mode`` does not imply it.
    """

    probs: Tensor
    valid: Tensor | None
    settings: Settings
    numpy: bool
    sums_are_checked: bool = False
    are_exclusive: bool = False

    @classmethod
    def parse(cls, probs: object, valid: object, settings: Settings) -> Problem:
        """Check types, shapes, dtypes and options. Values are checked later, when they are scanned.

        Raises
        ------
        TypeError
            If ``probs`` is not a dense floating tensor or array, or ``valid`` not a boolean one.
        ValueError
            If a shape, a device or ``void_index`` does not fit, if the solver does not support
            this number of classes, or if softmax is asked for with one channel.
        """
        tensor = as_tensor("probs", probs)
        if tensor.dtype not in DTYPES:
            names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
            raise TypeError(
                f"probs must be of a dtype in {names}, got {tensor.dtype}; "
                f"{dtype_cure('probs', tensor.dtype)}"
            )
        _check_shape(tensor)
        _check_classes(settings, tensor.shape[1])
        _check_theta(settings.theta, tensor.dim() - 2)
        mask = None if valid is None else _mask(valid, tensor)
        _check_void_index(settings, tensor.shape[1], mask is not None)
        if settings.correlation > 0 and settings.smooth > SMOOTH_PER_PIXEL:
            largest = SMOOTH_PER_PIXEL * tensor.shape[2:].numel()
            settings = replace(settings, smooth=min(settings.smooth, largest))
        return cls(tensor, mask, settings, isinstance(probs, np.ndarray))

    @property
    def binary(self) -> bool:
        """Whether there is one channel: foreground against background."""
        return self.probs.shape[1] == 1

    def check_values(self, is_invalid: Tensor | bool) -> None:
        """Raise if the scan found a value that is no probability; check sums over classes.

        ``is_invalid`` is the flag of the scan. The sums are those of a few pixels. In a traced
        graph, which cannot raise on values, this does nothing.
        """
        if is_traced():
            return
        if bool(is_invalid):
            self._raise_for_values()
        if not self.sums_are_checked:
            check_sums(self.probs, self.valid, self.settings, self.are_exclusive)

    def _raise_for_values(self) -> None:
        """Raise a ValueError that names the values that are no probabilities and a likely fix."""
        probs = self.probs
        if self.valid is not None:  # a copy, because torch counts a mask before it gathers by it
            probs = probs.movedim(1, -1)[self.valid.clone()]
            if not probs.numel():
                raise ValueError("valid must not change during a call: it did, to no valid pixel")
        broken = int((~torch.isfinite(probs)).sum())
        name = "probs" if self.settings.from_logits is None else "logits"
        if broken:
            raise ValueError(f"{name} must be finite, got {broken} values that are NaN or infinite")
        low, high = probs.min().item(), probs.max().item()
        hint = "these look like logits: apply softmax or sigmoid first, or name it in from_logits"
        if low <= NODATA and 0 < high <= 1:
            hint = f"if {low:g} marks pixels without data, leave them out by valid=probs[:, 0] >= 0"
        if low >= 0:
            hint = "divide by the largest value they can take, or apply softmax or sigmoid first"
        if low > -OVERSHOOT and high < 1 + OVERSHOOT:
            hint = "resampling and averaging overshoot a little: clip with probs.clamp(0, 1)"
        raise ValueError(f"probs must lie in [0, 1], got [{low!r}, {high!r}]; {hint}")

    def of_probabilities(self) -> Problem:
        """Return the same problem with probabilities in place of logits, all in memory."""
        if self.settings.from_logits is None:
            return self
        probs = to_probabilities(self.probs, self.settings.from_logits)
        if self.valid is not None:
            probs = probs.masked_fill(~self.valid.unsqueeze(1), 0)
        return replace(
            self,
            probs=probs,
            settings=replace(self.settings, from_logits=None),
            sums_are_checked=True,
        )

    def calibrated(self) -> Problem:
        """Return the same problem with calibrated probabilities, all in memory.

        Raises
        ------
        ValueError
            If a value is no probability, or no logit where the maps hold those.
        """
        calibration, link = self.settings.calibration, self.settings.from_logits
        if calibration is None:
            return self
        settings = replace(self.settings, calibration=None, from_logits=None)
        given = replace(self, are_exclusive=calibration.link == "softmax")
        made = given.transformed(lambda maps: calibration.of(maps, link))
        return replace(self, probs=made, settings=settings, sums_are_checked=True)

    def transformed(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``function`` of the maps, in float64, computed for some pixels at a time.

        ``function`` takes and returns ``(1, classes, ...)``. The result has the shape of ``probs``
        and its dtype, but float32 for half precision. Pixels that are not valid become 0.

        Raises
        ------
        ValueError
            If a value is no probability, or no logit where the maps hold those.
        """
        source = self.probs
        wide = torch.promote_types(source.dtype, torch.float32)
        made = torch.empty(source.shape, dtype=wide, device=source.device)
        least, most = 0.0, 1 + ULPS_ABOVE_ONE * torch.finfo(source.dtype).eps
        if self.settings.from_logits is not None:
            most = torch.finfo(source.dtype).max
            least = -most
        sound = torch.ones((), dtype=torch.bool, device=source.device)
        for part in _chunks(source):
            before = source[part].double()
            if self.valid is not None:
                outside = ~self.valid[(part[0], *part[2:])].unsqueeze(1)
                before = before.masked_fill(outside, 0)
            sound &= ((before >= least) & (before <= most)).all()  # False for NaN too
            after = function(before)
            if self.valid is not None:
                after = after.masked_fill(outside, 0)
            made[part] = after.to(wide)
        self.check_values(~sound)
        return made

    def restore(self, decision: Tensor) -> Any:
        """Convert a decision to the caller's type; turn a single mask into labels 0 and 1.

        The conversion to labels is for one channel with ``output_mode='multiclass'``.
        """
        if self.binary and self.settings.output_mode == "multiclass":
            decision = _labels_of(decision.squeeze(1))
            if self.valid is not None:
                decision = decision.masked_fill(~self.valid, self.settings.void_index)
        return decision.numpy() if self.numpy else decision


def _labels_of(mask: Tensor) -> Tensor:
    """Return the labels 0 and 1 of a mask."""
    if not is_on_host(mask):
        return mask.long()
    # NumPy allocates with huge pages, which makes the first write to fresh memory much cheaper.
    return torch.from_numpy(np.empty(mask.shape, np.int64)).copy_(mask)


def _chunks(maps: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield indices of one image each, cut along its longest axis to about ``CHUNK`` values."""
    if is_traced():  # a graph is of any size
        yield (slice(None),) * maps.dim()
        return
    axis = max(range(2, maps.dim()), key=maps.shape.__getitem__)
    length = maps.shape[axis]
    step = max(1, CHUNK * length // maps.shape[1:].numel())
    for image in range(len(maps)):
        for start in range(0, length, step):
            part = [slice(None)] * maps.dim()
            part[0], part[axis] = slice(image, image + 1), slice(start, start + step)
            yield tuple(part)


def _check_shape(probs: Tensor) -> None:
    if probs.dim() < 3:
        raise ValueError(
            "probs must have the axes (batch, classes, *spatial), with at least one spatial axis, "
            f"got shape {tuple(probs.shape)}; add a batch axis with probs[None], and a class axis "
            "too if there is none, with probs[None, None]"
        )
    if 0 in probs.shape[1:]:
        raise ValueError(
            "probs may have an empty batch, but its classes and spatial axes must not be empty, "
            f"got shape {tuple(probs.shape)}"
        )


def _check_classes(settings: Settings, classes: int) -> None:
    """Refuse numbers of classes that softmax, a fitted model or the solver does not support."""
    if classes == 1 and settings.from_logits == "softmax":
        raise ValueError(
            "from_logits='softmax' needs two classes or more, got one channel, whose probabilities "
            "would all be 1; take from_logits='sigmoid'"
        )
    presence = settings.presence if isinstance(settings.presence, PresenceModel) else None
    fitted = {"calibration": settings.calibration, "presence": presence, "rule": settings.rule}
    for name, model in fitted.items():
        if model is not None and model.classes != classes:
            raise ValueError(
                f"{name} must be for the {classes} classes of probs, got one for {model.classes}"
            )
    mode = settings.output_mode
    if classes == 1 or mode in SOLVERS[settings.solver].several_classes:
        return
    fitting = solvers_for(settings.metric, mode)
    others = [name for name in fitting if mode in SOLVERS[name].several_classes]
    raise ValueError(
        f"solver={settings.solver!r} with output_mode={mode!r} decides one channel, got probs of "
        f"{classes} classes; take output_mode='multilabel' or a solver in {['auto', *others]}"
    )


def _check_theta(theta: float | tuple[float, ...], axes: int) -> None:
    if isinstance(theta, tuple) and len(theta) != axes:
        raise ValueError(
            f"theta must be one number or one for each of the {axes} spatial axes of probs, got "
            f"{len(theta)} numbers"
        )


def _mask(valid: object, probs: Tensor) -> Tensor:
    mask = as_tensor("valid", valid)
    expected = (probs.shape[0], *probs.shape[2:])
    if mask.dtype != torch.bool:
        raise TypeError(f"valid must be boolean, got {mask.dtype}; pass valid != 0")
    if mask.shape != expected:
        raise ValueError(
            f"valid must have the shape (batch, *spatial) = {expected}, got {tuple(mask.shape)}"
            f"{_shape_cure(mask.shape, probs.shape)}"
        )
    if mask.device != probs.device:
        raise ValueError(f"valid must be on {probs.device}, as probs is, got {mask.device}")
    return mask


def _shape_cure(valid: torch.Size, probs: torch.Size) -> str:
    """Return a hint how to mend the shape of ``valid``, or an empty string."""
    if valid == probs[:-1]:
        return "; if the classes are the last axis of probs, pass probs.movedim(-1, 1)"
    if valid[:2] == (probs[0], 1) and valid[2:] == probs[2:]:
        return "; pass valid.squeeze(1)"
    return "; pass valid[None]" if valid == probs[2:] and probs[0] == 1 else ""


def _check_void_index(settings: Settings, classes: int, masked: bool) -> None:
    """Refuse a void index that is a class, unless it is the default and will not be written."""
    if settings.output_mode == "multilabel":
        return
    written = masked or settings.unassigned_policy == "void" or settings.void_index != VOID_INDEX
    labels = max(classes, 2)  # one channel gives the labels 0 and 1
    if written and 0 <= settings.void_index < labels:
        raise ValueError(
            f"void_index must not be one of the labels 0 to {labels - 1}, got {settings.void_index}"
        )
