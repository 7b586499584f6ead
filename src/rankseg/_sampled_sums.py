"""Wrong axes and wrong activations, told from a few pixels.

Probabilities of classes that exclude each other sum to 1 over the classes. If they do not, and
sum to 1 over another axis, the classes are that axis. No pass over the maps is spent on this:
some 64 pixels decide.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from rankseg._settings import Settings
from rankseg._warn import warn

__all__ = ["check_sums"]

IMAGES, PIXELS, CLASSES = 4, 64, 8
"""How many images, pixels in all of them, and classes are looked at."""

ROUNDING, ROUNDING_PER_CLASS = 0.02, 0.0005
"""How far from 1 a sum may be: half precision rounds by less, as do maps stored in 8 bits."""

FAR = 0.1
"""A mean distance from 1 that tells of wrong sums, though those of most pixels be right.

Sigmoids that were trained on labels sum to nearly 1 wherever the network is sure.
"""


def check_sums(probs: Tensor, valid: Tensor | None, settings: Settings) -> None:
    """Warn if values or their sums are not those of what the settings say the maps hold.

    Raises
    ------
    ValueError
        If the maps sum to 1 over another axis than the classes, and pixels are to get one label.
    """
    link = settings.from_logits
    if not probs.numel() or (probs.shape[1] == 1 and link is None):
        return
    values = _sample(probs, 1)
    if link is None and _every_one(values.sum(1, dtype=float)):
        return  # most often, and soon
    values = np.moveaxis(values, 1, -1).reshape(-1, probs.shape[1])
    if valid is not None:
        values = values[_sample(valid.unsqueeze(1), 1).reshape(-1) > 0]
    if not len(values) or values.min() == values.max():  # what is constant tells nothing
        return
    if link is not None:
        _check_logits(values, link)
    else:
        sums, rounding = values.sum(1, dtype=float), ROUNDING + ROUNDING_PER_CLASS * probs.shape[1]
        if not _are_one(sums, rounding, at_most=settings.unassigned_policy == "void"):
            _report(probs, sums, settings, with_axes=valid is None)


def _sample(maps: Tensor, whole: int) -> np.ndarray:
    """Return some images, classes and pixels, evenly spread; one axis is whole."""
    lattice = _lattice(maps.shape, whole)
    if maps.device.type == "cpu" and maps.dtype != torch.bfloat16:  # unknown to NumPy
        return maps.numpy()[lattice]  # sooner than torch
    return maps[lattice].double().cpu().numpy()


@functools.lru_cache(256)  # to make it takes longer than to use it
def _lattice(shape: torch.Size, whole: int) -> tuple[slice, ...]:
    images = min(shape[0], IMAGES)
    side = int((PIXELS / images) ** (1 / (len(shape) - 2)) + 1e-9)
    most = [images, CLASSES, *[max(side, 2)] * (len(shape) - 2)]
    most[whole] = shape[whole]
    steps = [-(-size // count) for size, count in zip(shape, most, strict=True)]
    return tuple(slice(step // 2, None, step) for step in steps)


def _every_one(sums: np.ndarray) -> bool:
    return bool((np.abs(sums - 1) <= ROUNDING).all())


def _are_one(sums: np.ndarray, rounding: float, at_most: bool) -> bool:
    """Return whether sums are 1 up to rounding, or with ``at_most`` not more than that.

    Pixels of zeros are padding. A few other pixels may be off: where maps were pasted together.
    """
    sums = sums[sums > 0]
    if not len(sums):
        return True
    off = (sums - 1).clip(0) if at_most else np.abs(sums - 1)
    return bool(np.median(off) <= rounding and off.mean() <= max(rounding, FAR))


def _report(probs: Tensor, sums: np.ndarray, settings: Settings, with_axes: bool) -> None:
    """Tell of sums over the classes that are not 1."""
    shape, multiclass = tuple(probs.shape), settings.output_mode == "multiclass"
    axes = [axis for axis in range(probs.dim()) if axis != 1 and _all_one(probs, axis)]
    if with_axes and len(axes) == 1:
        message = (
            f"probs of shape {shape} sum to 1 over axis {axes[0]} and to {_range(sums)} over axis "
            f"1, which must hold the classes; {_moved(axes[0], probs.dim())}"
        )
        if multiclass:
            raise ValueError(message)
        warn(message)
    elif multiclass:
        warn(
            f"probs of shape {shape} sum to {_range(sums)} over axis 1 at {len(sums)} sampled "
            "pixels, but the probabilities of classes that exclude each other sum to 1; "
            f"{_likely_cures(shape, sums.max())}"
        )


def _range(sums: np.ndarray) -> str:
    low, high = f"{sums.min():.3g}", f"{sums.max():.3g}"
    return low if low == high else f"between {low} and {high}"


def _all_one(probs: Tensor, axis: int) -> bool:
    """Return whether sums over an axis are 1, wherever sampled."""
    if probs.shape[axis] == 1:
        return False
    sums = _sample(probs, axis).sum(axis, dtype=float)
    sums = sums[sums > 0]
    return len(sums) > 1 and _every_one(sums)


def _moved(axis: int, axes: int) -> str:
    """Say how to bring the classes to axis 1."""
    if axis == 0:
        return "pass probs[None] if there is no batch axis, else probs.movedim(0, 1)"
    axis = -1 if axis == axes - 1 else axis
    return (
        f"pass probs.movedim({axis}, 1), or probs.movedim({axis}, 0)[None] if there is no batch "
        f"axis (for NumPy arrays numpy.moveaxis); if softmax was over this axis, take softmax(1)"
    )


def _likely_cures(shape: tuple[int, ...], most: float) -> str:
    """Say what to do about sums that are not 1, of which this is the largest."""
    cures = ["add the class that is missing (background)"] if most < 1 + ROUNDING else []
    cures += [
        "apply softmax(1) in place of sigmoid",
        "pass output_mode='multilabel' for classes that overlap",
    ]
    if len(shape) == 3:
        cures.append("add the axis that is missing, probs[None] (batch) or probs[:, None] (class)")
    if shape[-1] == 1:
        cures.append("pass probs.movedim(-1, 1) if the last axis holds the class")
    return ", or ".join(cures)


def _check_logits(values: np.ndarray, link: str) -> None:
    """Warn if logits look like probabilities."""
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        return
    sum_to_one = link == "softmax" and _every_one(values.sum(1, dtype=float))
    if sum_to_one or ((values > 0) & (values < 1)).any():
        and_sums = " and sum to 1 over axis 1" if sum_to_one else ""
        warn(
            f"probs lie in [{low:.3g}, {high:.3g}]{and_sums} at {len(values)} sampled pixels: they "
            f"look like probabilities, of which from_logits={link!r} takes the {link} once more; "
            "leave out from_logits"
        )
