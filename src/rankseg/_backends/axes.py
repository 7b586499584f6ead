"""How spatial axes lie in memory."""

from __future__ import annotations


def merge_axes(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Merge neighbouring axes that lie in memory as one; drop those of length 1."""
    sizes, strides = [1], [1]
    for size, step in zip(shape, stride, strict=True):
        if size == 1:
            continue
        if sizes[-1] == 1:
            sizes[-1], strides[-1] = size, step
        elif strides[-1] == step * size:
            sizes[-1], strides[-1] = sizes[-1] * size, step
        else:
            sizes.append(size)
            strides.append(step)
    return sizes, strides
