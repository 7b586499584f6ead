"""Dice and IoU of predicted masks against labels, from exact counts.

Three steps, each a plain value that can be kept, merged or printed:

1. `count` turns masks and labels into `Counts`: int64 true positives, false positives and false
   negatives of every image and class.
2. `dice` and `iou` turn counts into float64 scores of every image and class, NaN where the class
   does not count in the image.
3. `mean_by_image`, `mean_by_class` and `summary` turn scores into the field's aggregates.

**When a class counts.** An image often lacks a class, and what happens then changes a result by
points. Two options, the same everywhere in this module, say it:

``counted`` : {"label", "either", "always"}, default "label"
    ``"label"``: a class counts in an image when the label holds it; a class predicted where it is
    absent costs nothing. The rule of Wang et al. for several classes; MONAI's
    ``ignore_empty=True``.
    ``"either"``: when the label or the prediction holds it, so that a false class scores 0. Their
    rule for one class; torchmetrics' rule in ``dice_score``.
    ``"always"``: in every image; a class that neither holds is 0/0 and scores ``zero_division``.
``zero_division`` : {nan, 0, 1}, default nan
    The score of 0/0, which only ``"always"`` meets; another value than nan is refused with the
    other two rules. ``counted="always", zero_division=1`` is MONAI's ``ignore_empty=False``.

In the data-set level aggregate the rule is applied to the counts summed over the images.

References
----------
Wang et al., *Revisiting Evaluation Metrics for Semantic Segmentation: Optimization and Evaluation
of Fine-grained Intersection over Union*, NeurIPS 2023, arXiv:2310.19252.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Counts", "count", "dice", "iou", "mean_by_class", "mean_by_image", "summary"]

Array: TypeAlias = Tensor | NDArray[Any]
Counted: TypeAlias = Literal["label", "either", "always"]
Metric: TypeAlias = Literal["dice", "iou"]

_COUNTED: Final = "label"
_ZERO_DIVISION: Final = math.nan

# Labels become int64, eight bytes each, this many at a time: a volume of 10^9 voxels needs no more
# memory beyond itself than a photograph does.
_BLOCK_ELEMENTS: Final = 1 << 20


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
                raise TypeError(f"{name} must be an int64 tensor, got {_describe(table)}")
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
            If a part is not `Counts`.
        ValueError
            If there is no part, or the numbers of classes differ.
        """
        parts = list(parts)
        for part in parts:
            _check_counts("every part", part)
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
        ``ignore_index`` is given for bool labels, or a label has a value that is not allowed.

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
    prediction = _as_tensor("prediction", prediction)
    label = _as_tensor("label", label)
    ignore_index = None if ignore_index is None else _as_int("ignore_index", ignore_index)
    num_classes = None if num_classes is None else _as_int("num_classes", num_classes)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if prediction.dtype == torch.bool:
        classes = _check_masks(prediction, label, num_classes, ignore_index)
        pixels_shape = (prediction.shape[0], *prediction.shape[2:])
    else:
        classes = _check_label_maps(prediction, label, num_classes)
        pixels_shape = tuple(prediction.shape)
    if valid is not None:
        valid = _as_tensor("valid", valid)
        _check_valid(valid, pixels_shape)
    _check_one_device(prediction, label, valid)
    return _count(prediction, label, valid, classes, ignore_index)


def dice(
    counts: Counts, *, counted: Counted = _COUNTED, zero_division: float = _ZERO_DIVISION
) -> Tensor:
    """Dice score ``2 TP / (2 TP + FP + FN)`` of every image and class.

    Parameters
    ----------
    counts : Counts
        From `count`.
    counted, zero_division
        When a class counts in an image, and the score of 0/0: see `rankseg.metrics`.

    Returns
    -------
    Tensor
        float64 (images, classes) in [0, 1], NaN where the class does not count in the image.

    Raises
    ------
    TypeError
        If ``counts`` is not `Counts` or an option has the wrong type.
    ValueError
        If an option is not one of those allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.metrics import count, dice
    >>> counts = count(np.array([[0, 1, 1, 3]]), np.array([[0, 1, 0, 0]]), num_classes=4)
    >>> dice(counts)
    tensor([[0.5000, 0.6667,    nan,    nan]], dtype=torch.float64)
    >>> dice(counts, counted="either")
    tensor([[0.5000, 0.6667,    nan, 0.0000]], dtype=torch.float64)
    >>> dice(counts, counted="always", zero_division=1)
    tensor([[0.5000, 0.6667, 1.0000, 0.0000]], dtype=torch.float64)
    """
    _check_counts("counts", counts)
    rule = _check_rule(counted, zero_division)
    return _score(counts, 2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, rule, zero_division)


def iou(
    counts: Counts, *, counted: Counted = _COUNTED, zero_division: float = _ZERO_DIVISION
) -> Tensor:
    """Intersection over union ``TP / (TP + FP + FN)`` of every image and class.

    Parameters, result and errors are those of `dice`.

    Parameters
    ----------
    counts : Counts
        From `count`.
    counted, zero_division
        When a class counts in an image, and the score of 0/0: see `rankseg.metrics`.

    Returns
    -------
    Tensor
        float64 (images, classes) in [0, 1], NaN where the class does not count in the image.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.metrics import count, iou
    >>> counts = count(np.array([[0, 1, 1, 3]]), np.array([[0, 1, 0, 0]]), num_classes=4)
    >>> iou(counts, counted="either")
    tensor([[0.3333, 0.5000,    nan, 0.0000]], dtype=torch.float64)
    """
    _check_counts("counts", counts)
    rule = _check_rule(counted, zero_division)
    return _score(counts, counts.tp, counts.tp + counts.fp + counts.fn, rule, zero_division)


def mean_by_image(scores: Tensor, *, worst: float = 1.0) -> float:
    """Mean over the counted classes of each image, then over images: mIoU^I, mDice^I.

    With ``s[i]`` the mean of ``scores[i, c]`` over the classes that count in image ``i``, the
    result is the mean of ``s[i]`` over the images in which some class counts. ``worst=q`` keeps
    only the ``max(1, floor(q n))`` lowest of these ``n`` values, the worst-case metric mIoU^{I_q}
    of Wang et al.

    Parameters
    ----------
    scores : Tensor
        Floating (images, classes), NaN where a class does not count, from `dice` or `iou`.
    worst : float
        The fraction of images, in (0, 1], lowest scores first. Default: all.

    Returns
    -------
    float
        NaN if no class counts in any image, so also if there are no images.

    Raises
    ------
    TypeError
        If ``scores`` is not a floating tensor or ``worst`` not a number.
    ValueError
        If ``scores`` has not two axes or ``worst`` lies outside (0, 1].

    Examples
    --------
    >>> import torch
    >>> from rankseg.metrics import mean_by_image
    >>> scores = torch.tensor([[0.5, 0.9], [0.1, torch.nan], [torch.nan, torch.nan]])
    >>> round(mean_by_image(scores), 4)
    0.4
    >>> round(mean_by_image(scores, worst=0.5), 4)
    0.1
    """
    scores = _check_scores(scores)
    return _mean_of_lowest(scores.nanmean(1), _check_fraction("worst", worst))


def mean_by_class(scores: Tensor, *, worst: float = 1.0) -> float:
    """Mean over the images in which each class counts, then over classes: mIoU^C, mDice^C.

    With ``s[c]`` the mean of ``scores[i, c]`` over the images in which class ``c`` counts, the
    result is the mean of ``s[c]`` over the classes that count in some image. ``worst=q`` takes
    ``s[c]`` over only the ``max(1, floor(q n_c))`` lowest of the ``n_c`` scores of class ``c``,
    the worst-case metric mIoU^{C_q} of Wang et al.

    Of scores of `Counts.total` it is the data-set level aggregate mIoU^D, mDice^D.

    Parameters
    ----------
    scores : Tensor
        Floating (images, classes), NaN where a class does not count, from `dice` or `iou`.
    worst : float
        The fraction of each class's images, in (0, 1], lowest scores first. Default: all.

    Returns
    -------
    float
        NaN if no class counts in any image, so also if there are no images.

    Raises
    ------
    TypeError, ValueError
        As `mean_by_image`.

    Examples
    --------
    >>> import torch
    >>> from rankseg.metrics import mean_by_class
    >>> scores = torch.tensor([[0.5, 0.9], [0.1, torch.nan], [torch.nan, torch.nan]])
    >>> round(mean_by_class(scores), 4)
    0.6
    >>> round(mean_by_class(scores, worst=0.5), 4)
    0.5
    """
    scores = _check_scores(scores)
    worst = _check_fraction("worst", worst)
    by_class = [_mean_of_lowest(of_class, worst) for of_class in scores.unbind(1)]
    return _mean_of_lowest(torch.tensor(by_class, dtype=torch.float64), 1.0)


def summary(
    counts: Counts,
    metric: Metric = "dice",
    *,
    counted: Counted = _COUNTED,
    zero_division: float = _ZERO_DIVISION,
    worst: Iterable[float] = (),
) -> dict[str, float]:
    """All aggregates of one metric over the same counts.

    Parameters
    ----------
    counts : Counts
        Of the whole data set: `Counts.cat` of those of its batches.
    metric : {"dice", "iou"}
        Case and surrounding blanks are ignored.
    counted, zero_division
        When a class counts in an image, and the score of 0/0: see `rankseg.metrics`.
    worst : iterable of float
        Fractions in (0, 1] for the worst-case aggregates. Default: none.

    Returns
    -------
    dict of str to float
        ``"D"``: counts summed over the images, one score per class, mean over classes.
        ``"I"``: `mean_by_image`; ``"C"``: `mean_by_class`.
        For each fraction, say 0.1, ``"I@0.1"`` and ``"C@0.1"``: the same of the worst 10 %.
        Every value is NaN if there are no images.

    Raises
    ------
    TypeError
        If ``counts`` is not `Counts` or an option has the wrong type.
    ValueError
        If an option is not one of those allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.metrics import count, summary
    >>> prediction = np.array([[0, 0, 0, 1], [0, 0, 0, 0]])
    >>> label = np.array([[0, 0, 0, 1], [0, 0, 1, 1]])
    >>> summary(count(prediction, label, num_classes=2), "iou", worst=[0.5])
    {'D': 0.5238095238095238, 'I': 0.625, 'C': 0.625, 'I@0.5': 0.25, 'C@0.5': 0.25}
    """
    _check_counts("counts", counts)
    score = {"dice": dice, "iou": iou}[_check_choice("metric", metric, get_args(Metric))]
    if not isinstance(worst, Iterable):
        raise TypeError(f"worst must be an iterable of fractions such as (0.1,), got {worst!r}")
    fractions = [_check_fraction("every fraction in worst", fraction) for fraction in worst]
    scores = score(counts, counted=counted, zero_division=zero_division)
    summed = score(counts.total(), counted=counted, zero_division=zero_division)
    # Without images the summed counts are 0/0 too, and zero_division=1 would call nothing perfect.
    result = {
        "D": mean_by_class(summed) if len(scores) else math.nan,
        "I": mean_by_image(scores),
        "C": mean_by_class(scores),
    }
    for fraction in fractions:
        result[f"I@{fraction}"] = mean_by_image(scores, worst=fraction)
        result[f"C@{fraction}"] = mean_by_class(scores, worst=fraction)
    return result


# Counting


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
    empty = torch.empty((0, 3, classes), dtype=torch.int64)
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


# Scores and means


def _score(
    counts: Counts, numerator: Tensor, denominator: Tensor, rule: Counted, zero_division: float
) -> Tensor:
    """Numerator over denominator in float64, NaN where the class does not count."""
    score = numerator.double() / denominator.double()
    if rule == "always":
        return score.masked_fill(denominator == 0, zero_division)
    # Under "either" the classes that do not count are exactly those at 0/0, NaN already.
    return score.masked_fill(counts.tp + counts.fn == 0, math.nan) if rule == "label" else score


def _mean_of_lowest(values: Tensor, fraction: float) -> float:
    """Mean of the lowest fraction, rounded down but at least one, of the values not NaN."""
    values = values[~values.isnan()]
    if len(values) == 0:
        return math.nan
    # 0.29 * 100 is 28.999999999999996 in floating point and means 29.
    kept = max(1, math.floor(fraction * len(values) + 1e-9))
    if kept < len(values):
        values = values.sort().values[:kept]
    return values.mean().item()


# Checks


def _describe(value: object) -> str:
    """Say what a wrong value is: its dtype if it has one, else its type."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of {value.dtype}"
    return type(value).__name__


def _as_tensor(name: str, value: object) -> Tensor:
    """Return the bool or integer tensor, made of a copy if the value is a NumPy array."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        # A copy, because torch refuses negative strides and foreign byte orders and warns about
        # read-only memory, and images read from files come with all three.
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
        return value
    raise TypeError(
        f"{name} must be a bool or integer tensor or NumPy array, got {_describe(value)}"
    )


def _as_int(name: str, value: object) -> int:
    """Return the value as an int; a bool is none."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


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
    return num_classes


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


def _check_counts(name: str, value: object) -> None:
    if not isinstance(value, Counts):
        raise TypeError(f"{name} must be Counts, as count returns them, got {_describe(value)}")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return the option in its own spelling; case and surrounding blanks are ignored."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {list(allowed)}, got {value!r}")
    choice = value.strip().lower()
    if choice not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")
    return choice


def _check_rule(counted: object, zero_division: object) -> Counted:
    """Check the treatment of absent classes; return ``counted`` in its own spelling."""
    rule = cast(Counted, _check_choice("counted", counted, get_args(Counted)))
    if isinstance(zero_division, bool) or not isinstance(zero_division, numbers.Real):
        raise TypeError(f"zero_division must be nan, 0 or 1, got {zero_division!r}")
    if math.isnan(zero_division):
        return rule
    if zero_division not in (0, 1):
        raise ValueError(f"zero_division must be nan, 0 or 1, got {zero_division!r}")
    if rule != "always":
        raise ValueError(
            f"zero_division must be nan unless counted is 'always', got {zero_division!r} with "
            f"counted={rule!r}, under which no class that counts is 0/0"
        )
    return rule


def _check_scores(scores: object) -> Tensor:
    """Return the scores in float64."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"scores must be a floating tensor, got {_describe(scores)}")
    if scores.ndim != 2:
        raise ValueError(
            f"scores must have shape (images, classes), got shape {tuple(scores.shape)}"
        )
    return scores.double()


def _check_fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number in (0, 1], got {value!r}")
    if not 0 < float(value) <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value!r}")
    return float(value)
