"""The field's averages by the names of the toolkits that report them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.arguments import choice, metric_name
from rankseg._common.public import public
from rankseg.metrics import (
    Counted,
    Counts,
    Metric,
    dice,
    iou,
    mean_by_class,
    mean_by_image,
)

__all__ = ["CONVENTIONS", "Aggregate", "Convention", "aggregate"]

Convention: TypeAlias = Literal["nnunet", "monai", "torchmetrics", "mmseg"]
CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)


@public("rankseg.evaluation")
@dataclass(frozen=True, eq=False)
class Aggregate:
    """One number for a data set, and one for each class.

    Attributes
    ----------
    mean : float
        A fraction; NaN where nothing counts.
    by_class : ndarray
        float64 (classes,), NaN for a class that counts nowhere.
    """

    mean: float
    by_class: NDArray[np.float64]


def aggregate(
    counts: Counts, metric: Metric = "dice", convention: Convention = "nnunet"
) -> Aggregate:
    """Average Dice or IoU as a toolkit does by default.

    Parameters
    ----------
    counts : Counts
        Of the whole data set, (images, classes).
    metric : {'dice', 'iou'}
        What is averaged.
    convention : {'nnunet', 'monai', 'torchmetrics', 'mmseg'}
        Whose way, each as of the release that the tests compare with:

        ``'nnunet'``
            nnU-Net's ``foreground_mean``: a class counts in an image if label or prediction hold
            it; the mean over images of every class, then over the classes but the first. Of one
            class, that one.
        ``'monai'``
            ``DiceMetric`` and ``MeanIoU``: a class counts where the label holds it; the mean over
            the classes of every image, then over the images that hold any.
        ``'torchmetrics'``
            ``DiceScore`` and ``MeanIoU``: a class counts if label or prediction hold it; Dice is
            averaged over classes, then images; IoU over all pairs of image and class at once.
        ``'mmseg'``
            ``IoUMetric``: counts are summed over the images first, one score for each class, and
            their mean over the classes that label or prediction hold anywhere.

    Returns
    -------
    Aggregate

    Raises
    ------
    TypeError, ValueError
        If an option is not one of those allowed.

    Examples
    --------
    Two images, the second of which lacks the second class, which is predicted there:

    >>> import numpy as np
    >>> from rankseg.evaluation import aggregate
    >>> from rankseg.metrics import count
    >>> prediction = np.array([[0, 0, 1, 1], [0, 0, 0, 1]])
    >>> label = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    >>> counts = count(prediction, label, num_classes=2)
    >>> for name in ("nnunet", "monai", "torchmetrics", "mmseg"):
    ...     print(name, round(aggregate(counts, "dice", name).mean, 3))
    nnunet 0.5
    monai 0.929
    torchmetrics 0.714
    mmseg 0.855
    """
    convention = choice("convention", convention, CONVENTIONS)  # type: ignore[assignment]
    metric = metric_name(metric, get_args(Metric))  # type: ignore[assignment]
    return _AVERAGES[convention](counts, metric)


def _scores(counts: Counts, metric: Metric, counted: Counted) -> Tensor:
    return (dice if metric == "dice" else iou)(counts, counted=counted)


def _nnunet(counts: Counts, metric: Metric) -> Aggregate:
    by_class = _scores(counts, metric, "either").nanmean(0)
    foreground = by_class if len(by_class) == 1 else by_class[1:]
    return Aggregate(foreground.mean().item(), by_class.numpy())


def _monai(counts: Counts, metric: Metric) -> Aggregate:
    scores = _scores(counts, metric, "label")
    return Aggregate(mean_by_image(scores), scores.nanmean(0).numpy())


def _torchmetrics(counts: Counts, metric: Metric) -> Aggregate:
    scores = _scores(counts, metric, "either")
    by_class = scores.nanmean(0)
    mean = mean_by_image(scores) if metric == "dice" else scores.nanmean().item()
    return Aggregate(mean, by_class.numpy())


def _mmseg(counts: Counts, metric: Metric) -> Aggregate:
    scores = _scores(counts.total(), metric, "either")
    return Aggregate(mean_by_class(scores), scores[0].numpy())


_AVERAGES: Final[dict[str, Callable[[Counts, Metric], Aggregate]]] = {
    "nnunet": _nnunet,
    "monai": _monai,
    "torchmetrics": _torchmetrics,
    "mmseg": _mmseg,
}
