"""Aggregates of a data set and their scatter: what `rankseg.metrics.summary` says, resampled.

The images (or clusters of images) of a data set are drawn again and again with replacement. A
draw is a row of weights, how often each image is in it, so every aggregate of every draw comes
from the same few sums. Draws are the same for all methods: differences of methods are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankseg import metrics
from rankseg.metrics import Counted, Counts, Metric

Floats = NDArray[np.float64]


def draws(clusters: Sequence[str], resamples: int, seed: int = 0) -> Floats:
    """Return weights (1 + resamples, images): every image once, then the draws of clusters.

    Examples
    --------
    >>> draws(["a", "a", "b"], resamples=2, seed=1)
    array([[1., 1., 1.],
           [1., 1., 1.],
           [0., 0., 2.]])
    """
    _, member = np.unique(np.array(clusters), return_inverse=True)
    count = member.max() + 1
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    times = np.stack([(drawn == cluster).sum(1) for cluster in range(count)], 1)
    return np.concatenate([np.ones((1, len(member))), times[:, member]])


def aggregates(
    counts: Counts, metric: Metric, counted: Counted, weights: Floats, worst: Sequence[float]
) -> dict[str, Floats]:
    """Return the aggregates of `rankseg.metrics.summary` for every row of weights."""
    score = metrics.dice if metric == "dice" else metrics.iou
    scores = score(counts, counted=counted).numpy()  # (images, classes)
    by_image = _mean_of_known(scores)[:, None]
    result = {
        "D": _of_summed_counts(counts, metric, counted, weights),
        "I": _lowest(by_image, weights, 1.0)[:, 0],
        "C": _mean_of_known(_lowest(scores, weights, 1.0)),
    }
    for fraction in worst:
        result[f"I@{fraction}"] = _lowest(by_image, weights, fraction)[:, 0]
        result[f"C@{fraction}"] = _mean_of_known(_lowest(scores, weights, fraction))
    return result


def _of_summed_counts(counts: Counts, metric: Metric, counted: Counted, weights: Floats) -> Floats:
    tp, fp, fn = (weights @ part.numpy() for part in (counts.tp, counts.fp, counts.fn))
    twice = 2 if metric == "dice" else 1
    held = tp + fn if counted == "label" else tp + fn + fp
    with np.errstate(invalid="ignore"):
        scores = np.where(held > 0, twice * tp / (twice * tp + fp + fn), math.nan)
    return _mean_of_known(scores)


def _lowest(scores: Floats, weights: Floats, fraction: float) -> Floats:
    """Return the mean of the lowest fraction of every column, (draws, columns); NaN if it is empty.

    As in `rankseg.metrics`, the fraction of a draw is rounded down, but at least one image.
    """
    means = np.empty((len(weights), scores.shape[1]))
    for column, values in enumerate(scores.T):
        order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
        times = weights[:, order]
        kept = total = times.sum(1)
        if fraction < 1:
            kept = np.minimum(np.maximum(1, np.floor(fraction * total + 1e-9)), total)
            before = times.cumsum(1) - times
            times = np.clip(kept[:, None] - before, 0, times)
        with np.errstate(invalid="ignore"):
            means[:, column] = times @ values[order] / kept
    return means


def _mean_of_known(values: Floats) -> Floats:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0).sum(-1) / known.sum(-1)
    return mean
