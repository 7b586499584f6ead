"""Probability maps to test with: random, adversarial, and exact in floating point."""

from __future__ import annotations

import numpy as np

DTYPES = ("float16", "float32", "float64")


def softmax(batch, classes, *spatial, scale=3.0, seed=0, dtype="float32"):
    """Return random maps that sum to 1 over classes."""
    logits = scale * np.random.default_rng(seed).normal(size=(batch, classes, *spatial))
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return (probs / probs.sum(1, keepdims=True)).astype(dtype)


def dyadic(batch, classes, *spatial, seed=0, dtype="float32"):
    """Return maps of multiples of 1/1024: their sums are exact, so every bit must agree."""
    return (np.round(softmax(batch, classes, *spatial, seed=seed) * 1024) / 1024).astype(dtype)


def smooth(batch, classes, side, seed=0, dtype="float32"):
    """Return maps with regions, as networks make them: most blocks lie inside or outside."""
    coarse = np.random.default_rng(seed).normal(size=(batch, classes, side // 16, side // 16))
    logits = 6 * np.kron(coarse, np.ones((16, 16)))
    logits += 0.3 * np.random.default_rng(seed + 1).normal(size=logits.shape)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return (probs / probs.sum(1, keepdims=True)).astype(dtype)


def labelled(seed, classes=4, shape=(20, 24)):
    """Return blurred maps (classes, *shape) in float16 and labels sampled from them."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 6, (classes, *shape))
    for axis in range(1, scores.ndim):
        scores = sum(np.roll(scores, step, axis) for step in (-1, 0, 1)) / 2
    scores = np.exp(scores - scores.max(0))
    probs = (scores / scores.sum(0)).astype(np.float16)
    label = (rng.random(shape) > probs.astype(float).cumsum(0)).sum(0)
    return probs, label.clip(max=classes - 1).astype(np.uint8)


def adversarial(rng, pixels):
    """Yield named maps of one class that a cut may go wrong on."""
    ones = np.ones(pixels)
    yield "uniform", rng.random(pixels)
    yield "faint", rng.random(pixels) ** 20
    yield "ties", np.round(rng.random(pixels) * 4) / 4
    yield "constant", ones * rng.random()
    yield "half", ones * 0.5
    yield "zeros", 0 * ones
    yield "ones", ones
    yield "one pixel", np.eye(1, pixels, pixels // 2)[0] * rng.random()
    yield "binary", rng.integers(0, 2, pixels).astype(float)
    yield "tiny range", 10.0 ** (-44 * rng.random(pixels))
    yield "denormal", ones * 1e-310
    yield "just below one", ones * (1 - 1e-7)
    yield "near one", 1 - 10.0 ** (-8 * rng.random(pixels))
    yield "two humps", rng.beta(0.1, 0.3, pixels)
    yield "crowd at the cut", 0.3 + 1e-7 * rng.random(pixels)
