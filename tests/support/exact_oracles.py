"""Slow and plain expected Dice and IoU, to hold the library against: three ways, none alike.

By enumeration of all labels (up to some 14 pixels), by the distribution of the number of true
labels (a dynamic programme, up to thousands), and by quadrature with a logarithm for every pixel
and node (millions). Labels are independent; the empty mask scores 0 where the ratio is 0/0.
"""

from __future__ import annotations

import itertools

import numpy as np


def ratio(metric, hits, others, count, smooth, less_one=False):
    """Return the metric of masks of ``count`` pixels, ``hits`` of them true, ``others`` outside."""
    hits, others, count = (np.asarray(value, float) for value in (hits, others, count))
    rest = count + others + (hits if metric == "dice" else 0)
    gain = (2 if metric == "dice" else 1) * hits
    above, below = gain - rest if less_one else gain + smooth, rest + smooth
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def by_enumeration(metric, probs, masks, smooth, less_one=False):
    """Return the expectations of some masks, ``(masks, pixels)``, over all label vectors."""
    probs, masks = np.asarray(probs, float), np.asarray(masks, int)
    labels = np.array(list(itertools.product((0, 1), repeat=probs.size)))
    chance = np.where(labels, probs, 1 - probs).prod(1)
    hits = labels @ masks.T
    others = labels.sum(1, keepdims=True) - hits
    return chance @ ratio(metric, hits, others, masks.sum(1), smooth, less_one)


def cuts_by_enumeration(metric, probs, smooth, less_one=False):
    """Return them for the masks of the n largest probabilities, n = 0 to N."""
    ranked = np.sort(np.asarray(probs, float))[::-1]
    masks = np.arange(ranked.size) < np.arange(ranked.size + 1)[:, None]
    return by_enumeration(metric, ranked, masks, smooth, less_one)


def distribution(probs):
    """Return how likely each number of true labels is."""
    chance = np.ones(1)
    for p in probs:
        chance = np.convolve(chance, [1 - p, p])
    return chance


def by_distribution(metric, probs, mask, smooth):
    """Return the expectation over the numbers of true labels inside and outside."""
    probs, mask = np.asarray(probs, float), np.asarray(mask, bool)
    inside, outside = distribution(probs[mask]), distribution(probs[~mask])
    hits, others = np.arange(inside.size)[:, None], np.arange(outside.size)
    return inside @ ratio(metric, hits, others, mask.sum(), smooth) @ outside


def cuts_by_distribution(metric, probs, smooth):
    """Return the expectation for the masks of the n largest probabilities, n = 0 to N."""
    ranked = np.sort(np.asarray(probs, float))[::-1]
    pixels = np.arange(ranked.size + 1)
    if metric == "iou":
        scores, chance = np.empty(pixels.size), np.ones(1)
        mass = np.concatenate([[0.0], ranked.cumsum()])
        for count in pixels[::-1]:
            if count < ranked.size:
                chance = np.convolve(chance, [1 - ranked[count], ranked[count]])
            below = count + smooth + pixels[: chance.size]
            share = np.divide(chance, below, out=np.zeros(chance.size), where=below > 0)
            scores[count] = (mass[count] + smooth) * share.sum()
        return scores
    whole = distribution(ranked)
    hits = ranked * without_each(whole, ranked)  # (others true, pixel): this one is true too
    taken = np.concatenate([np.zeros((ranked.size, 1)), hits.cumsum(1)], 1)
    below = pixels + smooth + pixels[:, None]  # (true, taken)
    scores = 2 * (taken / below[1:]).sum(0)
    if smooth > 0:
        scores += (whole[:, None] * smooth / below).sum(0)
    return scores


def without_each(whole, probs):
    """Return, ``(others true, pixel)``, the distribution without each pixel in turn.

    One step of the convolution undone, from the end from which errors shrink.
    """
    forward, backward = np.zeros((2, probs.size, probs.size))
    small = np.minimum(probs, 0.5)
    large = np.maximum(probs, 0.5)
    previous = np.zeros(probs.size)
    for k in range(probs.size):
        previous = forward[k] = (whole[k] - small * previous) / (1 - small)
    previous = np.zeros(probs.size)
    for k in range(probs.size - 1, -1, -1):
        previous = backward[k] = (whole[k + 1] - (1 - large) * previous) / large
    return np.where(probs <= 0.5, forward, backward)


def cuts_by_quadrature(metric, probs, smooth, step=0.25):
    """Return the same but for n = 0, by ``1/x = int exp(-x u) du``, node by node."""
    ranked = np.sort(np.asarray(probs, float))[::-1]
    count = np.arange(ranked.size + 1)
    mass = np.concatenate([[0.0], ranked.cumsum()])
    scores = np.zeros(count.size)
    start = np.log(1e-15 / (count[-1] + mass[-1] + smooth + 1))
    for u in np.exp(np.arange(start, np.log(36 / max(1, smooth)), step)):
        t, s = np.exp(-u), -np.expm1(-u)
        logs = np.log1p(-ranked * s)
        after = np.concatenate([logs[::-1].cumsum()[::-1], [0.0]])
        log = (after[0] if metric == "dice" else after) - (count + smooth) * u
        if log.max() < -80:
            break
        gain = mass
        if metric == "dice":
            gain = 2 * np.concatenate([[0.0], (ranked * t / (1 - ranked * s)).cumsum()])
        scores += step * u * np.exp(log) * (gain + smooth)
    return scores[1:]
