"""Exact counts of what a prediction got right and wrong, image by image and class by class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.arguments import describe, integer
from rankseg._common.public import public
from rankseg._decision.inputs import as_tensor, check_dense
from rankseg._decision.sampled_sums import check_shape

__all__ = ["Counts", "check_counts", "count"]

Array: TypeAlias = Tensor | NDArray[Any]

# Labels become int64, eight bytes each, this many at a time: a volume of 10^9 voxels needs no more
# memory beyond itself than a photograph does.
_BLOCK_ELEMENTS: Final = 1 << 20


FEWEST: Final = 16
"""Labels of fewer pixels can look like one mask for each class by accident."""


@public("rankseg.metrics")
@dataclass(frozen=True, eq=False)
class Counts:
    """True positives, false positives and false negatives of every image and class.

    Parameters
    ----------
    tp, fp, fn : Tensor
        int64, (images, classes), in pixels. Zero images are allowed.

    Raises
    ------
    TypeError
        If one of them is not an int64 tensor.
    ValueError
        If they are not all of one shape (images, classes) with at least one class.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.metrics import Counts, count
    >>> first = count(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), num_classes=2)
    >>> second = count(np.array([[1, 1, 1]]), np.array([[1, 1, 0]]), num_classes=2)
    >>> both = Counts.cat([first, second])
    >>> both.tp
    tensor([[1, 1],
            [0, 2]])
    >>> both.total().tp
    tensor([[1, 3]])
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __post_init__(self) -> None:
        tables = {"tp": self.tp, "fp": self.fp, "fn": self.fn}
        for name, table in tables.items():
            if not isinstance(table, Tensor) or table.dtype != torch.int64:
                raise TypeError(f"{name} must be an int64 tensor, got {describe(table)}")
            check_dense(name, table)
        shapes = [tuple(table.shape) for table in tables.values()]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 1:
            raise ValueError(
                "tp, fp and fn must have one shape (images, classes) with at least one class, "
                f"got {', '.join(map(str, shapes))}"
            )

    @classmethod
    def cat(cls, parts: Iterable[Counts]) -> Counts:
        """Put the images of several counts, say of the batches of a data set, one after another.

        Parameters
        ----------
        parts : iterable of Counts
            At least one, all with the same number of classes.

        Returns
        -------
        Counts
            (sum of images, classes).

        Raises
        ------
        TypeError
            If an item of ``parts`` is not `Counts`.
        ValueError
            If ``parts`` is empty, or the numbers of classes differ.
        """
        parts = list(parts)
        for part in parts:
            check_counts("every part", part)
        classes = sorted({part.tp.shape[1] for part in parts})
        if len(classes) != 1:
            raise ValueError(
                f"parts must hold at least one Counts, all of as many classes, got {len(parts)} "
                f"with numbers of classes {classes}"
            )
        return cls(
            tp=torch.cat([part.tp for part in parts]),
            fp=torch.cat([part.fp for part in parts]),
            fn=torch.cat([part.fn for part in parts]),
        )

    def total(self) -> Counts:
        """Sum over the images, as data-set level scores need it.

        Returns
        -------
        Counts
            (1, classes); zeros if there are no images.
        """
        return Counts(
            tp=self.tp.sum(0, keepdim=True),
            fp=self.fp.sum(0, keepdim=True),
            fn=self.fn.sum(0, keepdim=True),
        )


def count(
    prediction: Array,
    label: Array,
    *,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    valid: Array | None = None,
) -> Counts:
    """Count true positives, false positives and false negatives per image and class.

    Parameters
    ----------
    prediction : Tensor or ndarray
        Integer (batch, *spatial): the class of every pixel. A value outside ``[0, num_classes)``,
        such as a void index, predicts nothing: the pixel is a false negative of its label's class
        and no false positive.
        Or bool (batch, classes, *spatial): one mask per class, which may overlap.
    label : Tensor or ndarray
        For an integer prediction, integer (batch, *spatial): values in ``[0, num_classes)`` or
        ``ignore_index``.
        For a bool prediction, bool (batch, classes, *spatial); or the same shape in integers 0,
        1 and ``ignore_index``, ignored mask by mask; or integer (batch, *spatial), a label map
        against which each class's mask is counted.
    num_classes : int, optional
        Required for an integer prediction. For a bool prediction it is the length of axis 1, and
        if given must equal it.
    ignore_index : int, optional
        Pixels whose label has this value are left out. It may be one of the classes. Default:
        none are.
    valid : Tensor or ndarray, optional
        bool (batch, *spatial). Pixels where it is False are left out, whatever their label.
        Default: all are valid.

    Returns
    -------
    Counts
        int64 (batch, classes), on the CPU. Zero images, or images of zero pixels, are allowed.

    Raises
    ------
    TypeError
        If an argument has the wrong type or dtype.
    ValueError
        If shapes or devices do not fit together, ``num_classes`` is missing or below 1,
        ``ignore_index`` is given for bool labels, a label has a value that is not allowed, or
        integers are a mask of 0 and 1 for each class (one-hot), which bool masks must not be along
        the last axis.

    Warns
    -----
    UserWarning
        If bool masks without ``num_classes`` are hardly of the shape (batch, classes, *spatial),
        such as (batch, height, width).

    Notes
    -----
    Everything is counted in integers: no count is rounded, however many pixels there are. Beyond
    the masks themselves, memory does not grow with pixels times classes.

    Examples
    --------
    >>> import torch
    >>> from rankseg.metrics import count
    >>> prediction = torch.tensor([[0, 1, 1, 2]])
    >>> label = torch.tensor([[0, 1, 0, 255]])
    >>> counts = count(prediction, label, num_classes=3, ignore_index=255)
    >>> counts.tp, counts.fp, counts.fn
    (tensor([[1, 1, 0]]), tensor([[0, 1, 0]]), tensor([[1, 0, 0]]))
    """
    prediction = _integers("prediction", prediction)
    label = _integers("label", label)
    ignore_index = None if ignore_index is None else integer("ignore_index", ignore_index)
    num_classes = None if num_classes is None else integer("num_classes", num_classes)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if prediction.dtype == torch.bool:
        classes = _check_masks(prediction, label, num_classes, ignore_index)
        pixels_shape = (prediction.shape[0], *prediction.shape[2:])
    else:
        classes = _check_label_maps(prediction, label, num_classes)
        pixels_shape = tuple(prediction.shape)
    if valid is not None:
        valid = _integers("valid", valid)
        _check_valid(valid, pixels_shape)
    _check_one_device(prediction, label, valid)
    return _count(prediction, label, valid, classes, ignore_index)


def _count(
    prediction: Tensor,
    label: Tensor,
    valid: Tensor | None,
    classes: int,
    ignore_index: int | None,
) -> Counts:
    """Count image by image; all arguments are checked, except for the values of the labels."""
    images = [
        _count_image(
            prediction[i], label[i], None if valid is None else valid[i], classes, ignore_index
        )
        for i in range(len(prediction))
    ]
    # (images, 3, classes); the explicit empty tensor keeps the classes when there are no images.
    empty = torch.empty((0, 3, classes), dtype=torch.int64, device="cpu")
    tp, fp, fn = torch.cat([empty, *(image[None].cpu() for image in images)]).unbind(1)
    return Counts(tp, fp, fn)


def _count_image(
    prediction: Tensor,
    label: Tensor,
    valid: Tensor | None,
    classes: int,
    ignore_index: int | None,
) -> Tensor:
    """TP, FP and FN (3, classes) of one image, block by block of pixels."""
    has_masks = prediction.dtype == torch.bool
    label_has_masks = label.ndim == prediction.ndim and has_masks
    prediction = prediction.flatten(1 if has_masks else 0)  # (classes, pixels) or (pixels,)
    label = label.flatten(1 if label_has_masks else 0)
    valid = None if valid is None else valid.flatten()
    count_block = _count_masks if has_masks else _count_label_map
    counts = torch.zeros((3, classes), dtype=torch.int64, device=prediction.device)
    pixels = prediction.shape[-1]
    step = max(1, _BLOCK_ELEMENTS // classes) if has_masks else _BLOCK_ELEMENTS
    for start in range(0, pixels, step):
        block = slice(start, start + step)
        counts += count_block(
            prediction[..., block],
            label[..., block],
            None if valid is None else valid[block],
            classes,
            ignore_index,
        )
    return counts


def _count_label_map(
    prediction: Tensor,
    label: Tensor,
    valid: Tensor | None,
    classes: int,
    ignore_index: int | None,
) -> Tensor:
    """TP, FP and FN (3, classes) of class indices (pixels,)."""
    prediction, label = prediction.to(torch.int64), label.to(torch.int64)
    kept = _kept(label, valid, ignore_index)
    _check_label_values(label, kept, classes, ignore_index)
    nothing = (prediction < 0) | (prediction >= classes)
    if kept is not None:
        nothing |= ~kept
        label = label.masked_fill(~kept, classes)
    prediction = prediction.masked_fill(nothing, classes)
    # One bin more than classes takes the pixels left out and those predicted as nothing, and is
    # dropped. Marking pixels is several times faster than gathering those to count.
    bins = classes + 1
    tp, fn = torch.bincount(label + bins * (label != prediction), minlength=2 * bins).view(2, bins)
    fp = torch.bincount(prediction, minlength=bins) - tp
    return torch.stack([tp, fp, fn])[:, :classes]


def _count_masks(
    prediction: Tensor,
    label: Tensor,
    valid: Tensor | None,
    classes: int,
    ignore_index: int | None,
) -> Tensor:
    """TP, FP and FN (3, classes) of masks (classes, pixels), the label masks too or a map."""
    kept = valid
    if label.dtype != torch.bool:
        label = label.to(torch.int64)
        kept = _kept(label, valid, ignore_index)
        is_map = label.ndim == 1
        _check_label_values(label, kept, classes if is_map else 2, ignore_index)
        label = label == (torch.arange(classes, device=label.device)[:, None] if is_map else 1)
    if kept is not None:
        prediction, label = prediction & kept, label & kept
    tp = (prediction & label).sum(1)
    return torch.stack([tp, prediction.sum(1) - tp, label.sum(1) - tp])


def _kept(label: Tensor, valid: Tensor | None, ignore_index: int | None) -> Tensor | None:
    """Mask of the pixels that count; None if all do."""
    if ignore_index is None:
        return valid
    kept = label != ignore_index
    return kept if valid is None else kept & valid


def _integers(name: str, value: object) -> Tensor:
    """Return a bool or integer tensor, or the one that views the NumPy array."""
    tensor = as_tensor(name, value)
    if tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(
            f"{name} must be a bool or integer tensor or NumPy array, got {describe(value)}"
        )
    return tensor


def _check_label_maps(prediction: Tensor, label: Tensor, num_classes: int | None) -> int:
    """Check an integer prediction and its label; return the number of classes."""
    if label.dtype == torch.bool:
        raise TypeError(
            f"label must be an integer tensor as prediction is ({prediction.dtype}), got bool; "
            "for one mask per class make both bool"
        )
    if prediction.ndim < 2 or prediction.shape != label.shape:
        raise ValueError(
            "prediction and label of integers must have one shape (batch, *spatial), got "
            f"{tuple(prediction.shape)} and {tuple(label.shape)}"
        )
    if num_classes is None:
        raise ValueError("num_classes must be given when prediction holds integers, got None")
    _refuse_one_hot("prediction", prediction, num_classes)
    _refuse_one_hot("label", label, num_classes)
    return num_classes


def _refuse_one_hot(name: str, labels: Tensor, num_classes: int) -> None:
    """Refuse one mask for each class where the class of each pixel is meant.

    Each mask would be counted as a slice of a volume with the classes 0 and 1. The axis of masks is
    as long as there are classes, or it is the first spatial axis and the shortest one.
    """
    for axis in range(1, labels.ndim) if labels.ndim > 2 else ():
        length = labels.shape[axis]
        is_first = axis == 1 and labels.ndim > 3 and 1 < length < min(labels.shape[2:])
        if not (length == num_classes > 2 or is_first) or labels.numel() < FEWEST * length:
            continue
        masks = labels.movedim(axis, 0).flatten(1)
        if _are_one_hot(masks[:, :FEWEST]) and _are_one_hot(masks):  # few pixels tell most often
            last = axis - labels.ndim
            raise ValueError(
                f"{name} must hold the class of each pixel, but axis {last} of "
                f"{tuple(labels.shape)} holds a mask of 0 and 1 for each of {length} classes: "
                f"pass {name}.argmax({last})"
            )


def _are_one_hot(masks: Tensor) -> bool:
    """Return whether every pixel is 1 in one of the masks (masks, pixels), and 0 in the others."""
    masks = masks.long()
    return bool(((masks == 0) | (masks == 1)).all() and (masks.sum(0) == 1).all())


def _refuse_last_axis(name: str, masks: Tensor) -> None:
    """Refuse bool masks that exclude each other along the last axis, if it is the shortest one."""
    few = masks.numel() < FEWEST * masks.shape[-1]
    if masks.ndim < 4 or few or not 1 < masks.shape[-1] < min(masks.shape[1:-1]):
        return
    last = masks.movedim(-1, 0).flatten(1)
    if _are_one_hot(last[:, :FEWEST]) and _are_one_hot(last):
        raise ValueError(
            f"{name} of bool must have shape (batch, classes, *spatial), but the last axis of "
            f"{tuple(masks.shape)} holds a mask for each of {masks.shape[-1]} classes: pass "
            f"{name}.movedim(-1, 1)"
        )


def _check_masks(
    prediction: Tensor, label: Tensor, num_classes: int | None, ignore_index: int | None
) -> int:
    """Check a bool prediction and its label; return the number of classes."""
    shape = tuple(prediction.shape)
    if prediction.ndim < 3 or shape[1] < 1:
        raise ValueError(
            "prediction of bool must have shape (batch, classes, *spatial) with at least one "
            f"class, got {shape}"
        )
    if num_classes not in (None, shape[1]):
        raise ValueError(
            f"num_classes must be the length of axis 1 of a bool prediction, {shape[1]}, "
            f"got {num_classes}"
        )
    for name, masks in (("prediction", prediction), ("label", label)):
        if masks.dtype == torch.bool and masks.shape == prediction.shape:
            _refuse_last_axis(name, masks)
    is_map = label.dtype != torch.bool and tuple(label.shape) == (shape[0], *shape[2:])
    if not is_map and tuple(label.shape) != shape:
        raise ValueError(
            f"label must have the shape of a bool prediction, {shape}, or be integers of shape "
            f"{(shape[0], *shape[2:])}, got {label.dtype} of shape {tuple(label.shape)}"
        )
    if label.dtype == torch.bool and ignore_index is not None:
        raise ValueError(
            f"ignore_index must be None when label is bool, got {ignore_index}; leave pixels out "
            "with valid"
        )
    if num_classes is None:
        check_shape("prediction", prediction)
    return shape[1]


def _check_valid(valid: Tensor, shape: tuple[int, ...]) -> None:
    if valid.dtype != torch.bool:
        raise TypeError(f"valid must be bool, got {valid.dtype}")
    if tuple(valid.shape) != shape:
        raise ValueError(
            f"valid must have the shape (batch, *spatial) of prediction, {shape}, "
            f"got {tuple(valid.shape)}"
        )


def _check_one_device(prediction: Tensor, label: Tensor, valid: Tensor | None) -> None:
    for name, tensor in (("label", label), ("valid", valid)):
        if tensor is not None and tensor.device != prediction.device:
            raise ValueError(
                f"{name} must be on the device of prediction, {prediction.device}, "
                f"got {tensor.device}"
            )


def _check_label_values(
    label: Tensor, kept: Tensor | None, classes: int, ignore_index: int | None
) -> None:
    """Refuse a label outside [0, classes) in a pixel that is not left out."""
    lowest, highest = torch.aminmax(label if kept is None else label.masked_fill(~kept, 0))
    wrong = lowest if lowest < 0 else highest
    if wrong < 0 or wrong >= classes:
        exception = "" if ignore_index is None else f" or be ignore_index ({ignore_index})"
        raise ValueError(f"label must lie in [0, {classes}){exception}, got {wrong.item()}")


def check_counts(name: str, value: object) -> None:
    """Refuse what is not `Counts`, by the name of the argument."""
    if not isinstance(value, Counts):
        raise TypeError(f"{name} must be Counts, as count returns them, got {describe(value)}")
