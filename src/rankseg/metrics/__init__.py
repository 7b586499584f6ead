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
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor

from rankseg._common.arguments import choice, describe, metric_name, number, shown
from rankseg._decision.inputs import as_tensor
from rankseg.metrics.counts import Counts, check_counts, count

__all__ = ["Counts", "count", "dice", "iou", "mean_by_class", "mean_by_image", "summary"]

Counted: TypeAlias = Literal["label", "either", "always"]
Metric: TypeAlias = Literal["dice", "iou"]
METRICS: Final[tuple[Metric, ...]] = ("dice", "iou")

_COUNTED: Final = "label"
_ZERO_DIVISION: Final = math.nan


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
    check_counts("counts", counts)
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
    check_counts("counts", counts)
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
    return _mean_of_lowest(scores.new_tensor(by_class, dtype=torch.float64), 1.0)


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
    check_counts("counts", counts)
    score = {"dice": dice, "iou": iou}[metric_name(metric, get_args(Metric))]
    if not isinstance(worst, Iterable):
        raise TypeError(
            f"worst must be an iterable of fractions such as (0.1,), got {shown(worst)}"
        )
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


def _check_rule(counted: object, zero_division: object) -> Counted:
    """Check the treatment of absent classes; return ``counted`` in its own spelling."""
    rule = cast(Counted, choice("counted", counted, get_args(Counted)))
    if isinstance(zero_division, bool) or not isinstance(zero_division, numbers.Real):
        raise TypeError(f"zero_division must be nan, 0 or 1, got {shown(zero_division)}")
    if zero_division not in (0, 1):
        if zero_division != zero_division:  # nan, as no integer beyond float is
            return rule
        raise ValueError(f"zero_division must be nan, 0 or 1, got {shown(zero_division)}")
    if rule != "always":
        raise ValueError(
            f"zero_division must be nan unless counted is 'always', got {zero_division!r} with "
            f"counted={rule!r}, under which no class that counts is 0/0"
        )
    return rule


def _check_scores(scores: object) -> Tensor:
    """Return the scores in float64."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"scores must be a floating tensor, got {describe(scores)}")
    plain = as_tensor("scores", scores)
    if plain.ndim != 2:
        raise ValueError(
            f"scores must have shape (images, classes), got shape {tuple(plain.shape)}"
        )
    return plain.double()


def _check_fraction(name: str, value: object) -> float:
    return number(name, value, 0.0, 1.0, excluded=(0.0,))
