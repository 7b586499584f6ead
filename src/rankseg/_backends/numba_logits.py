"""The numba kernel that learns, of logits, what softmax divides by."""

from __future__ import annotations

import numpy as np

from rankseg._backends.numba_compile import jit, kernel
from rankseg._backends.numba_exponential import add_exponentials, raise_tops, write_logs
from rankseg._backends.numba_kernels import BLOCK, GROUP, _blank, _load, _mark_not_finite


@jit
def _log_sums_range(source, classes, logs, rests, first, last, space):
    scratch, tops, totals = space
    blocks = (source.pixels + BLOCK - 1) // BLOCK
    groups = (blocks + GROUP - 1) // GROUP
    for unit in range(first, last):
        image, group = divmod(unit, groups)
        for block in range(group * GROUP, min(blocks, (group + 1) * GROUP)):
            pixel = block * BLOCK
            stop = min(source.pixels, pixel + BLOCK)
            row = scratch[: stop - pixel]
            tops[:] = -np.inf
            totals[:] = 0.0
            for step in range(2 * classes):
                label = step % classes
                start = image * source.batch_stride + label * source.class_stride
                _load(source, start, pixel, row)
                _mark_not_finite(source, row)
                _blank(source, image, pixel, row)
                if step < classes:
                    raise_tops(row, tops)
                else:
                    add_exponentials(row, tops, totals)
            write_logs(tops, totals, logs[image, pixel:stop], rests[image, pixel:stop])


@kernel
def log_sums(source, classes, logs, rests, first, last):
    """Write the logarithm of the sum of the exponentials of every pixel: see ``write_logs``.

    A unit is a group of blocks of one image.
    """
    scratch = np.empty(BLOCK, source.values.dtype)
    tops = np.empty(BLOCK, source.values.dtype)
    totals = np.empty(BLOCK)
    space = (scratch, tops, totals)
    _log_sums_range(source, classes, logs, rests, first, last, space)
