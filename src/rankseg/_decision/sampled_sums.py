"""Detect wrong axes and wrong activations from the values of a few pixels.

Probabilities of classes that exclude each other sum to 1 over the classes. If they do not, and
sum to 1 over another axis, the classes are that axis. No pass over the maps is spent on this:
some 64 pixels decide.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from rankseg._common.tracing import is_on_host, is_traced
from rankseg._common.warn import warn
from rankseg._decision.settings import Settings

__all__ = ["check_activation", "check_exclusive", "check_shape", "check_sums", "is_batch"]

IMAGES, PIXELS, CLASSES = 4, 64, 8
"""How many images, pixels in all of them, and classes are looked at."""

ROUNDING, ROUNDING_PER_CLASS = 0.02, 0.0005
"""How far from 1 a sum may be: half precision rounds by less, as do maps stored in 8 bits."""

FAR_FROM_ONE = 0.1
"""A mean distance from 1 that tells of wrong sums, though those of most pixels be right.

Sigmoids that were trained on labels sum to nearly 1 wherever the network is sure.
"""

FEWEST_PIXELS = 32
"""Fewer pixels than this do not tell that an activation was applied twice."""

MANY_CLASSES, LONGEST = 16, 4
"""From so many classes on, a spatial axis of at most so many times their number is suspected to be
one of an image without a batch axis, or of an image whose last axis is that of its only class."""

RECTIFIED = 0.25
"""The share of values that are 0, among others none of which is negative, that tells of a ReLU."""

EDGE = 0.9
"""How far along the range that a second softmax leaves most pixels of such maps lie."""


def check_activation(name: str, logits: Tensor, link: str) -> None:
    """Warn if logits ``(batch, classes, *spatial)`` look like probabilities."""
    if logits.numel() and not is_traced():
        values = _of_logits(logits.detach(), None)
        _check_logits(name, values, link, f"this call takes the {link} once more; pass logits")


def is_batch(maps: Tensor) -> bool:
    """Return whether maps that should be ``(classes, *spatial)`` have a batch axis before them."""
    if maps.dim() < 4 or not maps.numel():
        return False
    first, second = (_all_one(maps.unsqueeze(0), axis) for axis in (1, 2))
    return second and not first


def check_exclusive(probs: Tensor) -> None:
    """Warn if probabilities ``(batch, classes, *spatial)`` are not of classes that exclude others.

    One channel is foreground against background.
    """
    check_sums(probs, None, Settings(output_mode="multilabel"), are_exclusive=True)


@np.errstate(all="ignore")  # whatever the user wants of NumPy: faint values underflow
def check_sums(
    probs: Tensor, valid: Tensor | None, settings: Settings, are_exclusive: bool = False
) -> None:
    """Warn if values or their sums are not those of what the settings say the maps hold.

    With ``are_exclusive``, sums must be 1 also for multilabel output.

    Raises
    ------
    ValueError
        If the maps sum to 1 over another axis than the classes, and pixels are to get one label.
    """
    link = settings.from_logits
    if not probs.numel():
        return
    if link is not None:
        values = _of_logits(probs, valid)
        cure = f"from_logits={link!r} takes the {link} once more; leave out from_logits"
        if not _check_logits("probs", values, link, cure) and link == "sigmoid":
            _check_sigmoids(probs, values, settings)
        check_shape("probs", probs)
        return
    values, mode = _of_pixels(probs, valid), settings.output_mode
    if are_exclusive and mode == "multilabel":
        mode = "exclusive"
    sums, classes = values.sum(1, dtype=float), probs.shape[1]
    if classes > 1 and mode != "multilabel" and settings.unassigned_policy != "void":
        _warn_of_blank_images(probs, valid, sums)
    if classes > 1 and (
        _every_one(sums)
        or not (_varies(values) or (values == 1).all())  # softmax over a batch of one is all 1
        or _are_one(
            sums,
            ROUNDING + ROUNDING_PER_CLASS * classes,
            at_most=settings.unassigned_policy == "void",
        )
    ):
        if _is_softmax_twice(values, torch.finfo(probs.dtype).eps):
            _report_twice(probs, values, "softmax", "classes differ by a factor of at most e")
    elif (classes == 1 or mode == "multilabel") and _is_sigmoid_twice(values):
        _report_twice(probs, values, "sigmoid", "values lie in [0.5, 0.731]")
    elif classes > 1:
        _report(probs, sums, mode, with_axes=valid is None)
    elif valid is None:
        _warn_of_classes_elsewhere(probs)


def _check_sigmoids(logits: Tensor, values: np.ndarray, settings: Settings) -> None:
    """Warn of a log_softmax, and of sigmoids that do not sum to 1 where pixels get one label."""
    if logits.shape[1] == 1 or not _varies(values):
        return
    if values.max() <= 0 and _every_one(np.exp(values.astype(np.float64)).sum(1)):
        warn(
            f"probs of shape {tuple(logits.shape)} look like a log_softmax: at all {len(values)} "
            "sampled pixels their exponentials sum to 1 over axis 1, of which this call takes the "
            "sigmoid; pass from_logits='softmax'"
        )
        return
    if settings.output_mode != "multiclass":
        return
    sums = (1 / (1 + np.exp(-values.astype(np.float64)))).sum(1)
    if not _are_one(sums, FAR_FROM_ONE, at_most=settings.unassigned_policy == "void"):
        warn(
            f"the sigmoids of probs of shape {tuple(logits.shape)} sum to {_range(sums)} over axis "
            f"1 at {len(sums)} sampled pixels, but the probabilities of classes that exclude each "
            "other sum to 1; pass from_logits='softmax', or output_mode='multilabel' for classes "
            "that overlap"
        )


def check_shape(name: str, maps: Tensor) -> None:
    """Warn of a shape that is hardly one of (batch, classes, *spatial), where no sum tells."""
    _, classes, *spatial = maps.shape
    sides = maps.shape[1:-1]
    if classes < MANY_CLASSES:
        return
    if len(spatial) == 1 and spatial[0] <= LONGEST * classes:
        cure = f"pass {name}[None] if there is no batch axis, {name}[:, None] if no class axis"
    elif len(spatial) > 1 and spatial[-1] == 1 and max(sides) <= LONGEST * min(sides):
        cure = f"pass {name}.movedim(-1, 1) if the last axis holds the class"
    elif len(spatial) > 1 and spatial[-1] > 1 and 3 * spatial[-1] <= 2 * min(sides):
        cure = f"pass {name}.movedim(-1, 1) if the last axis holds the classes"
    else:
        return
    warn(
        f"{name} of shape {tuple(maps.shape)} are read as {classes} classes of "
        f"{' x '.join(map(str, spatial))} pixels; {cure}"
    )


def _of_pixels(maps: Tensor, valid: Tensor | None) -> np.ndarray:
    """Return the values ``(pixels, classes)`` of some pixels, of those that are valid."""
    values = np.moveaxis(_sample(maps, 1), 1, -1).reshape(-1, maps.shape[1])
    return values if valid is None else values[_sample(valid.unsqueeze(1), 1).reshape(-1) > 0]


def _of_logits(logits: Tensor, valid: Tensor | None) -> np.ndarray:
    """Return the values of some pixels, or of all if some are 0 and all lie in [0, 1].

    Few pixels tell nothing of a mask of which little is foreground.
    """
    values = _of_pixels(logits, valid)
    if values.any() or valid is not None:
        return values
    low, high = logits.aminmax()
    is_mask = low >= 0 and 0 < high <= 1
    return logits.double().movedim(1, -1).flatten(0, -2).cpu().numpy() if is_mask else values


def _warn_of_blank_images(probs: Tensor, valid: Tensor | None, sums: np.ndarray) -> None:
    """Warn of images that are 0 in all classes at every valid pixel; single such pixels pad."""
    if sums.all():
        return
    positive = _sample(probs, 1) != 0
    if valid is not None:
        positive = positive & (_sample(valid.unsqueeze(1), 1) > 0)
    images = range(len(probs))[_lattice(probs.shape, 1)[0]]
    suspects = np.array(images)[~positive.reshape(len(images), -1).any(1)].tolist()
    blank = [at for at in suspects if _is_blank(probs[at], None if valid is None else valid[at])]
    if blank:
        warn(
            f"probs of shape {tuple(probs.shape)} are 0 in all classes at every pixel of images "
            f"{blank}, but the probabilities of classes that exclude each other sum to 1; check "
            "that the network ran and that the file was read"
        )


def _is_blank(maps: Tensor, valid: Tensor | None) -> bool:
    positive = (maps != 0).any(0)
    if valid is not None:
        positive = positive[valid > 0]
    return bool(positive.numel() and not positive.any())


def _varies(values: np.ndarray) -> bool:
    """Return whether values differ: what is constant tells nothing."""
    return bool(len(values) and values.min() != values.max())


def _is_softmax_twice(values: np.ndarray, eps: float) -> bool:
    """Return whether probabilities are almost certainly the softmax of probabilities.

    They are the softmax of numbers that sum to 1 over the classes. The smallest of these is
    ``(1 - spread) / classes``, and so negative for most maps. For probabilities it is near 0 at
    most pixels, whichever class is likely there.
    """
    classes = values.shape[1]
    slack = 0.02 + classes * eps / 2
    if len(values) < FEWEST_PIXELS or slack > 1 - EDGE:
        return False
    if (values.max(1) >= math.exp(1 + slack) * values.min(1)).any():  # most often; 0 is in none
        return False
    logs = np.log(values.astype(np.float64))
    spread = classes * (logs.mean(1) - logs.min(1))
    near = spread > EDGE
    likely = values.argmax(1)[near]
    return bool((spread <= 1 + slack).all() and near.mean() >= 0.5 and len(np.unique(likely)) > 1)


def _is_sigmoid_twice(values: np.ndarray) -> bool:
    """Return whether values are almost certainly the sigmoid of probabilities.

    None is below 1/2, many are at 1/2, where probabilities were 0, and none exceeds ``sigmoid(1)``.
    """
    if len(values) < FEWEST_PIXELS or values.min() < 0.5 or not 0.6 <= values.max() <= 0.735:
        return False
    return bool((values <= 0.505).mean() >= 0.25)


def _report_twice(probs: Tensor, values: np.ndarray, link: str, reason: str) -> None:
    warn(
        f"probs of shape {tuple(probs.shape)} look like the {link} of probabilities: at all "
        f"{len(values)} sampled pixels {reason}; apply {link} once, to the logits"
    )


def _sample(maps: Tensor, whole: int) -> np.ndarray:
    """Return some images, classes and pixels, evenly spread; one axis is whole."""
    lattice = _lattice(maps.shape, whole)
    if is_on_host(maps) and maps.dtype != torch.bfloat16:  # unknown to NumPy
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
    return bool(np.median(off) <= rounding and off.mean() <= max(rounding, FAR_FROM_ONE))


def _report(probs: Tensor, sums: np.ndarray, output_mode: str, with_axes: bool) -> None:
    """Tell of sums over the classes that are not 1."""
    shape = tuple(probs.shape)
    axes = [axis for axis in range(probs.dim()) if axis != 1 and _all_one(probs, axis)]
    if with_axes and len(axes) == 1:
        message = (
            f"probs of shape {shape} sum to 1 over axis {axes[0]} and to {_range(sums)} over axis "
            f"1, which must hold the classes; {_moved(axes[0], probs.dim())}"
        )
        if output_mode == "multiclass":
            raise ValueError(message)
        warn(message)
    elif output_mode == "multilabel":
        check_shape("probs", probs)
    else:
        warn(
            f"probs of shape {shape} sum to {_range(sums)} over axis 1 at {len(sums)} sampled "
            "pixels, but the probabilities of classes that exclude each other sum to 1; "
            f"{_likely_cures(shape, sums.max(), output_mode)}"
        )


def _warn_of_classes_elsewhere(probs: Tensor) -> None:
    """Warn of one channel whose probabilities sum to 1 over another axis.

    Of hard masks it may be a line of one pixel, and is not looked at.
    """
    for axis in (0, *range(2, probs.dim())):
        values = _sample(probs, axis)
        is_soft = bool(((values > 0) & (values < 1)).any())
        sums = values.sum(axis, dtype=float)
        if probs.shape[axis] > 1 and is_soft and sums.size > IMAGES and _every_one(sums):
            warn(
                f"probs of shape {tuple(probs.shape)} are read as one channel, and sum to 1 over "
                f"axis {axis}; if that axis holds the classes, pass probs.movedim({axis}, 1)"
            )
            return


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


def _likely_cures(shape: tuple[int, ...], most: float, output_mode: str) -> str:
    """Say what to do about sums that are not 1, of which this is the largest."""
    cures = ["add the class that is missing (background)"] if most < 1 + ROUNDING else []
    cures.append("apply softmax(1) in place of sigmoid")
    if output_mode == "multiclass":
        cures.append("pass output_mode='multilabel' for classes that overlap")
    if len(shape) == 3:
        cures.append("add the axis that is missing, probs[None] (batch) or probs[:, None] (class)")
    if shape[-1] == 1:
        cures.append("pass probs.movedim(-1, 1) if the last axis holds the class")
    return ", or ".join(cures)


def _check_logits(name: str, values: np.ndarray, link: str, cure: str) -> bool:
    """Warn if logits look like probabilities or like labels, and return whether they do."""
    if not _varies(values) or values.min() < 0:
        return False
    low, high = values.min(), values.max()
    if high > 1:
        are_labels = values.size >= FEWEST_PIXELS and bool((values == values.round()).all())
        if are_labels:
            warn(
                f"{name} are whole numbers from {low:.0f} to {high:.0f} at {len(values)} pixels: "
                f"they look like labels, of which this call takes the {link}; pass the logits"
            )
            return True
        zeros = float((values == 0).mean())
        are_rectified = link == "sigmoid" and values.size >= FEWEST_PIXELS and zeros >= RECTIFIED
        if are_rectified:
            warn(
                f"{name} are 0 in {zeros:.0%} of {values.size} sampled values, negative in none: "
                "they look like the output of a ReLU, of which no sigmoid is below 1/2; pass the "
                "logits before it"
            )
        return are_rectified
    sum_to_one = link == "softmax" and _every_one(values.sum(1, dtype=float))
    and_sums = " and sum to 1 over the classes" if sum_to_one else ""
    are = "masks of 0 and 1" if ((values == 0) | (values == 1)).all() else "probabilities"
    warn(
        f"{name} lie in [{low:.3g}, {high:.3g}]{and_sums} at {len(values)} pixels: "
        f"they look like {are}, of which {cure}"
    )
    return True
