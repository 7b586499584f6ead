"""Slow and plain answers in float64, written from the formulas, to hold the library against."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri


def score(metric, count, mass, volume, smooth):
    """Return the RMA objective of a mask; 0 where it is 0/0. Works on arrays."""
    count, mass = np.asarray(count, float), np.asarray(mass, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "dice":
            value = 2 * mass / (count + volume + 1 + smooth)
            if smooth:
                value = value + smooth / (count + volume + smooth)
        else:
            value = (mass + smooth) / (count + volume - mass + smooth)
    return np.where(np.isnan(value), 0.0, value)


def best_score(metric, values, smooth):
    """Return the largest objective over the masks of the n largest values, n = 0 to N."""
    ranked = np.sort(np.asarray(values, np.float64).ravel())[::-1]
    masses = np.concatenate([[0.0], np.cumsum(ranked)])
    return score(metric, np.arange(ranked.size + 1), masses, masses[-1], smooth).max()


def mask_score(metric, values, mask, smooth):
    """Return the objective of a given mask."""
    values = np.asarray(values, np.float64).ravel()
    chosen = values[np.asarray(mask).ravel()]
    return float(score(metric, chosen.size, chosen.sum(), values.sum(), smooth))


def increment(metric, probability, count, mass, volume, smooth):
    """Return what one more pixel of this probability adds to the objective, as a difference."""
    before = score(metric, count, mass, volume, smooth)
    return score(metric, count + 1, mass + probability, volume, smooth) - before


def labels(metric, probs, masks, kept, smooth, policy="max_score", void=255):
    """Return the published non-overlapping labels of one image, given the masks per class.

    ``probs`` and ``masks`` are ``(classes, pixels)``, ``kept`` the classes not pruned.
    """
    probs = np.asarray(probs, np.float64)
    classes, pixels = probs.shape
    volume = probs.sum(1)
    hits = masks.sum(0)
    alone = masks & (hits == 1)
    count, mass = alone.sum(1), (probs * alone).sum(1)
    eligible = [c for c in range(classes) if kept[c]] or list(range(classes))
    out = np.empty(pixels, np.int64)
    for i in range(pixels):
        if hits[i] == 1:
            out[i] = masks[:, i].argmax()
            continue
        if hits[i] == 0 and policy == "void":
            out[i] = void
            continue
        rivals = np.flatnonzero(masks[:, i]) if hits[i] else eligible
        gains = [
            increment(metric, probs[c, i], count[c], mass[c], volume[c], smooth) for c in rivals
        ]
        out[i] = rivals[int(np.argmax(gains))]
    return out


def labelling_score(metric, probs, labels, smooth):
    """Return the sum over classes of the objectives of a label map, for one image."""
    probs = np.asarray(probs, np.float64)
    flat = np.asarray(labels).ravel()
    return sum(mask_score(metric, probs[c], flat == c, smooth) for c in range(probs.shape[0]))


def joint_labels(metric, probs, labels, smooth, eligible):
    """Relabel by the class whose objective rises fastest, while the sum rises; one image.

    Written from the derivatives of the objectives with respect to a part ``t`` of a pixel that
    joins: count rises by ``t`` and mass by ``t p``.
    """
    probs = np.asarray(probs, np.float64)
    classes = np.arange(len(probs))[:, None]
    volume = probs.sum(1)
    best = labelling_score(metric, probs, labels, smooth)
    while True:
        chosen = labels == classes
        count, mass = chosen.sum(1), (probs * chosen).sum(1)
        gain = np.stack(
            [derivative(metric, probs[c], count[c], mass[c], volume[c], smooth) for c in eligible]
        )
        proposed = np.asarray(eligible)[gain.argmax(0)]
        value = labelling_score(metric, probs, proposed, smooth)
        if value <= best * (1 + 1e-12):
            return labels
        labels, best = proposed, value


def derivative(metric, probability, count, mass, volume, smooth):
    """Return the derivative of the objective as part of a pixel of this probability joins."""
    if metric == "dice":
        total = count + volume + smooth
        lost = smooth / total**2 if smooth else 0.0
        return 2 * probability / (total + 1) - 2 * mass / (total + 1) ** 2 - lost
    size = count + volume - mass + smooth
    return probability / size - (mass + smooth) * (1 - probability) / size**2


FACTOR, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def given_factor(probs, correlation):
    """Return the probabilities given each value of the common factor, on a new last axis."""
    score = ndtri(np.asarray(probs, np.float64))[..., None] + np.sqrt(correlation) * FACTOR
    return ndtr(score / np.sqrt(1 - correlation))


def correlated_scores(metric, values, smooth, correlation):
    """Return the objective averaged over the factor of the masks of the n largest values."""
    ranked = np.sort(np.asarray(values, np.float64).ravel())[::-1]
    sums = np.cumsum(given_factor(ranked, correlation), 0)
    masses = np.concatenate([np.zeros((1, FACTOR.size)), sums])
    counts = np.arange(ranked.size + 1)[:, None]
    return score(metric, counts, masses, masses[-1], smooth) @ WEIGHTS


def correlated_mask_score(metric, values, mask, smooth, correlation):
    """Return the objective averaged over the factor of a given mask."""
    given = given_factor(np.asarray(values, np.float64).ravel(), correlation)
    chosen = np.asarray(mask).ravel()
    value = score(metric, chosen.sum(), given[chosen].sum(0), given.sum(0), smooth)
    return float(value @ WEIGHTS)


def correlated_labelling_score(metric, probs, labels, smooth, correlation):
    """Return the sum over classes of the averaged objectives of a label map, for one image."""
    flat = np.asarray(labels).ravel()
    return sum(
        correlated_mask_score(metric, probs[c], flat == c, smooth, correlation)
        for c in range(len(probs))
    )


def dice_scores(values, solver, smooth, eps):
    """Return the scores of BA (13) or TRNA (12) for the n largest values, n = 0, 1, ...

    RankSEG, JMLR 24(224), 2023, up to the first n with C_n >= (n + smooth + N) p_(n+1).
    """
    ranked = np.sort(np.minimum(np.asarray(values, np.float64).ravel(), 1.0))[::-1]
    masses = np.concatenate([[0.0], np.cumsum(ranked)])
    counts = range(ranked.size)
    enough = [n for n in counts if masses[n] >= (n + smooth + ranked.size) * ranked[n]]
    most = min(enough, default=ranked.size)
    volumes = volume_range(*volume_moments(ranked), ranked.size, eps)
    phi = volume_pmf(volumes, *volume_moments(ranked))
    others = [
        phi if solver == "BA" else volume_pmf(volumes, *volume_moments(np.delete(ranked, j)))
        for j in range(most)
    ]
    scores = []
    for n in range(most + 1):
        hit = sum(ranked[j] * (others[j] / (n + volumes + smooth + 1)).sum() for j in range(n))
        none = sum(
            probability * smooth / (n + volume + smooth)
            for probability, volume in zip(phi, volumes, strict=True)
            if smooth
        )
        scores.append(2 * hit + none)
    return np.array(scores)


def volume_moments(values):
    """Return mean, variance and third central moment of a sum of independent labels."""
    return tuple(
        math.fsum(terms)
        for terms in (values, values * (1 - values), values * (1 - values) * (1 - 2 * values))
    )


def refined_normal(x, skew):
    """Return F(x) = Phi(x) + skew (1 - x^2) phi(x) / 6 (Volkova 1996)."""
    normal = math.erfc(-x / math.sqrt(2)) / 2
    if abs(x) > 40:  # phi(x) is 0, and x^2 might be infinite
        return normal
    return normal + skew * (1 - x * x) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) / 6


def volume_range(mean, variance, third, size, eps):
    """Return the integers of the central 1 - eps interval: floor - 1 to ceil, in [0, size]."""
    if variance == 0:
        return np.arange(max(0, round(mean) - 1), round(mean) + 1)
    sd = math.sqrt(variance)
    skew = third / variance / sd
    low = mean + sd * quantile(skew, eps / 2)
    high = mean - sd * quantile(-skew, eps / 2)  # the same from above, where nothing rounds to 1
    return np.arange(max(0, math.floor(low) - 1), min(size, math.ceil(high)) + 1)


def quantile(skew, probability):
    """Return where F first exceeds a probability below 1/2, by small steps and bisection."""
    above = next(x for x in np.arange(-45, 45, 1 / 16) if refined_normal(x, skew) > probability)
    below = above - 1 / 16
    for _ in range(60):
        middle = (below + above) / 2
        if refined_normal(middle, skew) > probability:
            above = middle
        else:
            below = middle
    return above


def volume_pmf(volumes, mean, variance, third):
    """Return F(k) - F(k - 1) on some integers k, renormalised; F(k) at (k + 1/2 - mean) / sd."""
    if variance == 0:
        return (volumes == round(mean)).astype(float)
    sd = math.sqrt(variance)
    skew = third / variance / sd
    at = {k: refined_normal((k + 0.5 - mean) / sd, skew) for k in (volumes[0] - 1, *volumes)}
    pmf = np.array([at[k] - at[k - 1] for k in volumes])
    return pmf / pmf.sum()


def gaussian_kernel(shape, theta, amplitude):
    """Return the kernel of DEP for all pairs of pixels of an image: ``(pixels, pixels)``."""
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))
    place = place / np.broadcast_to(theta, len(shape))
    return amplitude * np.exp(-((place[:, None] - place) ** 2).sum(-1) / 2)


def dependent_score(metric, probs, kernel, mask, smooth):
    """Return the objective of DEP of a mask; ``probs`` and ``mask`` are flat."""
    deviation = np.sqrt(probs * (1 - probs))
    count, volume = mask.sum(), probs.sum()
    if metric == "dice":
        given = count + smooth + given_volume(probs, kernel)
        rest = count + volume + smooth
        score = 2 * (probs / given)[mask].sum()
    else:
        rest = count + volume - probs[mask].sum() + smooth
        given = rest + deviation / probs * (kernel @ (deviation * ~mask))
        score = (probs / given)[mask].sum()
    return score + (smooth / rest if smooth else 0)


def given_volume(probs, kernel):
    """Return the volume that DEP expects once a pixel is in the class, for every pixel."""
    deviation = np.sqrt(probs * (1 - probs))
    return probs.sum() + deviation / probs * (kernel @ deviation)


def best_dependent_dice(probs, kernel, smooth):
    """Return the largest Dice objective of DEP: of all sizes n, the n pixels of largest term."""
    sizes = np.arange(1, len(probs) + 1)
    terms = 2 * probs / (sizes[:, None] + given_volume(probs, kernel) + smooth)
    sums = np.diagonal(-np.sort(-terms, axis=1).cumsum(1))
    if smooth == 0:
        return sums.max()
    volume = probs.sum() + smooth
    return max((sums + smooth / (sizes + volume)).max(), smooth / volume)


def best_dependent_cut(metric, probs, kernel, smooth):
    """Return the largest objective of DEP over the masks of the n likeliest pixels."""
    order = np.argsort(-probs)
    masks = [np.isin(np.arange(len(probs)), order[:n]) for n in range(len(probs) + 1)]
    masks = masks if smooth else masks[1:]
    return max(dependent_score(metric, probs, kernel, mask, smooth) for mask in masks)
