"""Rows of logits to rows of probabilities, in place, as the numba kernels read them.

Nothing here raises: a probability is NaN where its logit, or for softmax any of its pixel, is NaN
or infinite, and the survey finds that.
"""

from __future__ import annotations

import math

import numpy as np

from rankseg._backends.numba_compile import jit_as_written

PROBABILITIES, SOFTMAX, SIGMOID = range(3)
"""What the values in memory are: probabilities, logits for softmax, or logits for sigmoid."""

STEPS = 127.0
"""Steps of the byte that stores the rounding error of a logarithm in the table."""

LOG2_E = np.float32(1 / math.log(2))
LOG_2_HIGH = np.float32(355 / 512)  # of so few bits that its multiples are exact
LOG_2_LOW = np.float32(math.log(2) - 355 / 512)
LEAST = np.float32(-87.0)
"""Below this an exponential is taken for 0: it is less than 2e-38."""

BIAS, IMPLICIT_ONE = np.float32(127), np.float32(1 << 23)
"""The bias of the exponent of a float32, and the lowest bit of that exponent."""

C2, C3, C4, C5, C6, C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))


@jit_as_written
def _exp32(x):
    """Return ``e ** x`` of a float32 ``x <= 0``, to a unit in the last place; vectorised."""
    bounded = x if x > LEAST else LEAST  # for NaN too, which has no integer
    whole = np.float32(np.int32(bounded * LOG2_E - np.float32(0.5)))  # the nearest, as x <= 0
    r = (x - whole * LOG_2_HIGH) - whole * LOG_2_LOW
    tail = C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))
    power = np.int32((whole + BIAS) * IMPLICIT_ONE).view(np.float32)  # two to this
    result = (np.float32(1) + (r + r * r * tail)) * power
    return np.float32(0) if x < LEAST else result


@jit_as_written
def softmax_row(row, logs, rests):
    """Turn logits into ``exp(logit - log)``: the logarithms of sums over classes of ``logs``."""
    scale = row.dtype.type(np.finfo(row.dtype).eps / (2 * STEPS))
    zero = row.dtype.type(0)
    if row.itemsize == 4:
        for i in range(row.size):
            rest = row.dtype.type(rests[i]) * (abs(logs[i]) * scale)
            row[i] = _exp32(np.float32(min((row[i] - logs[i]) - rest, zero)))
    else:
        for i in range(row.size):
            row[i] = math.exp(min(row[i] - logs[i], zero))


@jit_as_written
def sigmoid_row(row):
    """Turn logits into ``1 / (1 + exp(-logit))``."""
    zero, one = row.dtype.type(0), row.dtype.type(1)
    if row.itemsize == 4:
        for i in range(row.size):
            rare = _exp32(np.float32(-abs(row[i])))
            row[i] = (one if row[i] > zero else rare) / (one + rare) + zero * row[i]
    else:
        for i in range(row.size):
            rare = math.exp(-abs(row[i]))
            row[i] = (one if row[i] > zero else rare) / (one + rare) + zero * row[i]


@jit_as_written
def raise_tops(row, tops):
    """Update the running maximum of the logits of every pixel with one more class."""
    for i in range(row.size):
        tops[i] = max(tops[i], row[i])


@jit_as_written
def add_exponentials(row, tops, totals):
    """Add the exponentials of one class to the float64 ``totals``; NaN if it is not finite."""
    if row.itemsize == 4:
        for i in range(row.size):
            power = _exp32(np.float32(row[i] - tops[i]))
            totals[i] += np.float64(power + np.float32(0) * np.float32(row[i]))
    else:
        for i in range(row.size):
            totals[i] += math.exp(row[i] - tops[i]) + 0.0 * row[i]


@jit_as_written
def write_logs(tops, totals, logs, rests):
    """Write logarithms of the sums, and in a byte what they lose by rounding."""
    scale = np.finfo(logs.dtype).eps / (2 * STEPS)
    for i in range(logs.size):
        exact = np.float64(tops[i]) + math.log(totals[i])
        logs[i] = exact
        step = abs(np.float64(logs[i])) * scale
        rest = (exact - np.float64(logs[i])) / step if step > 0 else 0.0
        rests[i] = np.int8(round(min(max(rest, -STEPS), STEPS)))
