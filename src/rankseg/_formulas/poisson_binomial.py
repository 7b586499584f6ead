"""The Poisson-binomial distribution: the probability of every value of a sum of Bernoulli labels.

The probabilities are the coefficients of the polynomial ``prod_i (1 - p_i + p_i t)``. Within a
block, factors are multiplied one by one. This only adds and multiplies non-negative numbers, so
that even the smallest coefficient keeps its relative accuracy. The products of blocks are then
multiplied in pairs by FFT, whose rounding error is relative to the largest coefficient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["pmf_table"]

BLOCK = 256
"""Factors of a block. For more factors FFT is faster, but less accurate."""


def pmf_table(probs: Tensor) -> Tensor:
    """Return ``P(Y = k)`` for ``k = 0..N``, ``(*batch, N + 1)``, from float64 ``(*batch, N)``.

    ``P(Y = k)`` is exactly 0 if ``k`` is below the number of probabilities 1, or above the number
    of probabilities that are not 0.
    """
    *batch, pixels = probs.shape
    levels = max(0, math.ceil(math.log2(max(1, pixels) / BLOCK)))
    size = math.ceil(pixels / 2**levels)
    padded = F.pad(probs, (0, size * 2**levels - pixels))
    products = _multiply_out(padded.reshape(*batch, 2**levels, size))
    for _ in range(levels):
        products = _multiply_pairs(products)
    k = torch.arange(pixels + 1, device=probs.device)
    fewest, most = (probs == 1).sum(-1, keepdim=True), (probs > 0).sum(-1, keepdim=True)
    table = products.squeeze(-2)[..., : pixels + 1].masked_fill((k < fewest) | (k > most), 0)
    # Rounding of 1 - p scales the whole table by a factor, which the division removes.
    return table / table.sum(-1, keepdim=True)


def _multiply_out(probs: Tensor) -> Tensor:
    """Return the coefficients of the product of the factors on the last axis."""
    product = torch.ones(*probs.shape[:-1], 1, dtype=probs.dtype, device=probs.device)
    for p in probs.unsqueeze(-1).unbind(-2):
        product = F.pad(product * (1 - p), (0, 1)) + F.pad(product * p, (1, 0))
    return product


def _multiply_pairs(products: Tensor) -> Tensor:
    """Return the products of neighbouring polynomials on axis -2; coefficients are on axis -1.

    Coefficients below the rounding error of the FFT are set to 0, lest they add up over a long
    tail.
    """
    length = 2 * products.shape[-1] - 1
    if products.numel() == 0:  # an empty batch, which the FFT of some machines refuses
        return products[..., ::2, :1].repeat_interleave(length, -1)
    padded = 1 << (length - 1).bit_length()
    spectrum = torch.fft.rfft(products, padded)
    pairs: Tensor = torch.fft.irfft(spectrum[..., 0::2, :] * spectrum[..., 1::2, :], padded)
    pairs = pairs[..., :length]
    rounding = torch.finfo(pairs.dtype).eps * pairs.amax(-1, keepdim=True)
    return pairs.masked_fill(pairs < rounding, 0)
