"""BA and TRNA compiled by numba: the best cut of one class, given its probabilities.

The formulas are those of ``ba``, ``volume`` and ``reciprocals``, and are explained there. In torch,
small maps spend most of the time on launching operations, which compiled code avoids.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankseg._backends.numba_compile import jit, kernel
from rankseg._decision.solvers.interpolation import PRECISION
from rankseg._decision.solvers.reciprocals import DIRECT, RATIO
from rankseg._decision.solvers.volume import CERTAIN, HEAVY, LEAST
from rankseg._formulas.refined_normal import FAR

MOST_NODES = 64
"""No interpolation needs more nodes than this."""


class Moments(NamedTuple):
    """Mean, variance and third central moment of the volume of a class, and the largest volume."""

    mean: float
    variance: float
    third: float
    size: int


@jit
def _cdf(x, skew):
    """Return ``F(x)`` of the refined normal, not clamped."""
    near = min(max(x, -FAR), FAR)
    density = math.exp(-near * near / 2.0) / math.sqrt(2.0 * math.pi)
    tail = math.erfc(abs(near) / math.sqrt(2.0)) / 2.0
    normal = 1.0 - tail if near > 0.0 else tail
    return normal + skew * (1.0 - near * near) * density / 6.0


@jit
def _sd(moments):
    return math.sqrt(max(moments.variance, CERTAIN))


@jit
def _number_before(start, step, skew, probability):
    """Count the steps from ``start`` on before ``F`` first exceeds a probability below 1/2."""
    turn = -math.sqrt(3.0)
    end = 0.0
    if skew < 0.0:
        end = -turn if _cdf(turn, skew) <= probability else turn
    number = 0
    while start + number * step < end and _cdf(start + number * step, skew) <= probability:
        number += 1
    return number


@jit
def _range(moments, eps):
    """Return the smallest and the largest volume that sums run over; see ``Volume.bounds``."""
    sd = _sd(moments)
    reach = math.sqrt(2.0 * (math.log(2.0) - math.log(eps))) + 4.0
    lowest = math.floor(moments.mean - reach * sd) - 2
    highest = math.ceil(moments.mean + reach * sd) + 2
    skew = moments.third / sd**2 / sd
    before = _number_before((lowest - moments.mean) / sd, 1.0 / sd, skew, eps / 2.0)
    after = _number_before((moments.mean - highest) / sd, 1.0 / sd, -skew, eps / 2.0)
    return max(0, lowest + before - 2), min(moments.size, highest - after + 1)


@jit
def _write_without(moments, p, first, out):
    """Write the distribution of the volume without a pixel of probability ``p``.

    ``out[i]`` is the probability of the volume ``first + i``; see ``Volume.without``.
    """
    spread = p * (1.0 - p)
    variance = max(moments.variance - spread, CERTAIN)
    sd = math.sqrt(variance)
    skew = (moments.third - spread * (1.0 - 2.0 * p)) / variance / sd
    mean = moments.mean - p
    lowest = before = _cdf((first - 0.5 - mean) / sd, skew)
    for i in range(out.size):
        here = _cdf((first + i + 0.5 - mean) / sd, skew)
        out[i] = here - before
        before = here
    total = max(before - lowest, LEAST)
    for i in range(out.size):
        out[i] /= total


@jit
def _nodes_needed(rate):
    return 1 + math.ceil(-math.log(PRECISION) / rate)


@jit
def _write_nodes(nodes, weights):
    """Write Chebyshev nodes of the first kind, and the weights of the barycentric formula."""
    for k in range(nodes.size):
        angle = (2 * k + 1) * (math.pi / (2 * nodes.size))
        nodes[k] = math.cos(angle)
        weights[k] = math.sin(angle) * (1 - 2 * (k % 2))


@jit
def _interpolate(nodes, weights, point, shares):
    """Write the weight of every node at a point of [-1, 1] into ``shares``."""
    total = 0.0
    for k in range(nodes.size):
        distance = point - nodes[k]
        share = weights[k] / (distance if distance != 0.0 else 1e-300)
        shares[k] = share
        total += share
    for k in range(nodes.size):
        shares[k] /= total


@jit
def _write_moments(distribution, first, shift, at, out):
    """Write ``sum_l phi(l) / (n + l + shift)`` for every ``n`` of ``at``."""
    for k in range(at.size):
        out[k] = 0.0
    for i in range(distribution.size):
        shifted = first + i + shift
        for k in range(at.size):
            out[k] += distribution[i] / (shifted + at[k])


class Light(NamedTuple):
    """Which pixels are interpolated and which have a row; see ``TRNATerms``. BA has no nodes."""

    limit: float
    heavy: int  # the first rank of a heavy pixel
    number: int  # of the heavy
    nodes: np.ndarray
    weights: np.ndarray
    shares: np.ndarray


@jit
def _take(p, rank, light, taken):
    """Add the pixel of probability ``p`` and rank ``rank`` to the sums over the mask, ``taken``."""
    nodes = light.nodes.size
    if nodes == 0:
        taken[0] += p
        return
    sure, faint = p >= 1.0 - light.limit, p <= light.limit
    if not (sure or faint):
        alone = rank - light.heavy
        if 0 <= alone < light.number:
            taken[nodes + alone] += p
        return
    doubt = min(min(p, 1.0 - p), light.limit)
    _interpolate(light.nodes, light.weights, 2.0 * doubt / light.limit - 1.0, light.shares)
    start = 0 if sure else nodes + light.number
    for k in range(nodes):
        taken[start + k] += p * light.shares[k]


class Scratch(NamedTuple):
    """Work arrays for one class: by row (``taken``), by node of a block, and both (``moments``)."""

    taken: np.ndarray
    at: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    shares: np.ndarray
    lost: np.ndarray
    moments: np.ndarray


@jit
def _score(taken, moments, shares, knots):
    """Return the sum over rows of ``taken`` times the moment of the row, for one mask."""
    total = 0.0
    for row in range(taken.size):
        if taken[row] != 0.0:
            moment = 0.0
            for k in range(knots):
                moment += moments[row, k] * shares[k]
            total += taken[row] * moment
    return total


@jit
def _best(values, low, smooth, first, distributions, lost, light, scratch):
    """Return the cut of the smallest mask of largest score; see ``gains`` and ``_best_cut``."""
    taken = scratch.taken
    taken[:] = 0.0
    best, cut = 0.0, values[0]
    start = 1
    while start <= values.size:
        length = max(DIRECT, (RATIO - 1) * (start + first))
        stop = min(start + length, values.size + 1)
        direct = stop - start <= DIRECT
        lowest, highest = float(start + first), float(stop - 1 + first)
        middle = math.sqrt(lowest * highest)
        reach = 1.0 if direct else (highest - middle) / (highest + middle)
        knots = stop - start if direct else _nodes_needed(math.acosh(1.0 / reach))
        at, nodes, weights = scratch.at[:knots], scratch.nodes[:knots], scratch.weights[:knots]
        _write_nodes(nodes, weights)
        for k in range(knots):
            node = reach * nodes[k]
            at[k] = start + k if direct else middle * (1.0 + node) / (1.0 - node) - first
        for row in range(taken.size):
            _write_moments(distributions[row], first, smooth + 1.0, at, scratch.moments[row])
        _write_moments(lost, first, smooth, at, scratch.lost)
        shares = scratch.shares[:knots]
        for count in range(start, stop):
            _take(min(values[count - 1], 1.0), count - 1, light, taken)
            following = values[count] if count < values.size else low
            if not following < values[count - 1]:
                continue
            if direct:
                shares[:] = 0.0
                shares[count - start] = 1.0
            else:
                total = float(count + first)
                _interpolate(nodes, weights, (total - middle) / (total + middle) / reach, shares)
            gain = 2.0 * _score(taken, scratch.moments, shares, knots)
            if smooth > 0.0:
                fallen = 0.0
                for k in range(knots):
                    fallen += scratch.lost[k] * shares[k]
                gain -= count * fallen
            if gain > best:
                best, cut = gain, following
        start = stop
    return cut


@jit
def _light_share(moments):
    """Return the ``p`` up to which a pixel is light; see ``TRNATerms.light``."""
    share = 4.0 * max(moments.variance, CERTAIN) / HEAVY
    return 0.5 if share >= 1.0 else share / (1.0 + math.sqrt(1.0 - share)) / 2.0


@kernel
def refined_cut(values, low, moments, eps, smooth, truncated):
    """Return the cut of the best mask of a class by BA, or if ``truncated`` by TRNA.

    ``values`` are the probabilities of the pixels that may be in the mask, largest first; all
    exceed ``low``.
    """
    first, last = _range(moments, eps)
    width = last - first + 1
    limit, heavy, number, nodes = 0.5, 0, 0, 0
    if truncated:
        limit = _light_share(moments)
        number = HEAVY if limit < 0.5 else 0
        while heavy < values.size and min(values[heavy], 1.0) >= 1.0 - limit:
            heavy += 1
        spread = max(_sd(moments), math.sqrt(HEAVY) / 2.0)
        nodes = _nodes_needed(math.asinh(4.0 * spread))
    light = Light(limit, heavy, number, np.empty(nodes), np.empty(nodes), np.empty(nodes))
    _write_nodes(light.nodes, light.weights)
    rows = 2 * nodes + number if truncated else 1
    distributions = np.empty((rows, width))
    for k in range(nodes):
        doubt = limit * (1.0 + light.nodes[k]) / 2.0
        _write_without(moments, 1.0 - doubt, first, distributions[k])
        _write_without(moments, doubt, first, distributions[nodes + number + k])
    for k in range(number):
        p = min(values[min(heavy + k, values.size - 1)], 1.0)
        _write_without(moments, p, first, distributions[nodes + k])
    lost = np.zeros(width if smooth > 0.0 else 0)
    if smooth > 0.0 or not truncated:
        whole = lost if truncated else distributions[0]
        _write_without(moments, 0.0, first, whole)
        for i in range(lost.size):
            lost[i] = whole[i] * smooth / (first + i + smooth)
    scratch = Scratch(
        taken=np.empty(rows),
        at=np.empty(MOST_NODES),
        nodes=np.empty(MOST_NODES),
        weights=np.empty(MOST_NODES),
        shares=np.empty(MOST_NODES),
        lost=np.empty(MOST_NODES),
        moments=np.empty((rows, MOST_NODES)),
    )
    return _best(values, low, smooth, first, distributions, lost, light, scratch)
