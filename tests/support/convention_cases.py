"""Label maps on which the ways to average differ: predictions, labels (images, 1-D), classes."""

from __future__ import annotations

import numpy as np


def _drawn(seed, images, pixels, classes, error):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (images, pixels))
    wrong = rng.random(label.shape) < error
    return np.where(wrong, rng.integers(0, classes, label.shape), label), label


def _absent():
    prediction, label = _drawn(1, 6, 60, 4, 0.3)
    label[0] = np.where(label[0] == 2, 0, label[0])  # a false class
    label[1] = np.where(label[1] == 3, 0, label[1])
    prediction[1] = np.where(prediction[1] == 3, 1, prediction[1])  # absent from both
    prediction[2] = np.where(prediction[2] == 1, 0, prediction[2])  # missed
    label[3], prediction[3] = 0, 0
    return prediction, label


CASES = {
    "all present": (*_drawn(0, 5, 80, 3, 0.4), 3),
    "absent classes": (*_absent(), 4),
    "a class that is nowhere but predicted": (*(_drawn(2, 3, 30, 3, 0.5)[i] for i in (0, 1)), 4),
    "perfect": (_drawn(3, 3, 30, 3, 0.0)[1], _drawn(3, 3, 30, 3, 0.0)[1], 3),
    "all wrong": ((_drawn(4, 3, 30, 3, 0.0)[1] + 1) % 3, _drawn(4, 3, 30, 3, 0.0)[1], 3),
}
