"""The expected Dice and IoU of a mask, exactly, as one-dimensional integrals.

Given the image, labels are independent with the probabilities ``p``. For a mask of ``n`` pixels,
with ``smooth`` written ``g``, both metrics are ``(gain + g) / (rest + n + g)``:

- Dice: gain is twice the number of true labels inside the mask, rest is the number of all true
  labels.
- IoU: gain is the number of true labels inside the mask, rest is the number of those outside.

Write the reciprocal as ``1/x = int_0^inf exp(-x u) du``. Labels are independent, so the expectation
under the integral is a product over pixels. Let ``t = exp(-u)`` and ``s = 1 - t``. Let ``h`` be the
sum of ``t p / (1 - p s)`` over the pixels inside, outside, or all::

    Dice   int exp(-(n + g) u)  prod_all (1 - p s)      [2 h_inside + g]    du
    IoU    int exp(-(n + g) u)  prod_outside (1 - p s)  [sum_inside p + g]  du

(for IoU, gain and rest are independent). The metric minus 1 has ``gain - rest - n`` in place of
``gain + g``, with ``h_all`` (Dice) or ``h_outside`` (IoU) for the rest. The code computes that if
``g > 0``: nothing is lost to rounding if ``g`` is large, and the empty mask needs no special case.

Where ``p s`` is small, a few power sums of ``p`` replace the sums over pixels: ``log(1 - p s)`` is
``-sum_j p^j s^j / j``, and ``p / (1 - p s)`` is ``sum_j p^j s^(j - 1)``, with ``j`` from 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg._formulas.quiet import exp, expm1, log
from rankseg._formulas.records import POWERS, Steps

STEP, FIRST, END = 0.25, -3.6, 40.0
"""Step and range of the trapezoidal rule in ``x`` (see :func:`place_nodes`).

Relative errors: 1e-15 by the step, exp(-exp(3.6)) by starting at ``FIRST``, and exp(-40) by ending
where the integrand has fallen by exp(-``END``)."""

NEGLIGIBLE = 1e-14
"""Relative error of an integral allowed for the truncation of a series of powers."""

SERIES_VOLUME = 100.0
"""If volume + g is at least this, ``s`` is small enough for ``POWERS`` power sums to replace any
pixels."""

SERIES_PROB = 1 / 16
"""Probabilities up to this are small enough for ``POWERS`` power sums to replace the pixels at any
``s``."""


SUFFICIENT = tuple((math.factorial(j) / NEGLIGIBLE) ** (1 / j) for j in range(1, POWERS))
"""The least rate at which ``j`` power sums suffice, for ``j`` from 1: see :func:`powers_needed`."""

MARGIN = 1.2
"""Factor by which brackets are wider than the guess: a few more pixels cost less than a second
scan of the map."""

DOUBLINGS = 64
"""Most times that the width of a bracket is doubled; from 1e-16 to 1 it takes fewer."""

NEAR, UNKNOWN = 1e-3, 1 / 32
"""Between 1/2 and a cut within ``NEAR`` of 1/2 there are too few pixels to estimate their density.
Then the half width of the bracket is ``UNKNOWN``."""

ROUNDING = 1e-15
"""A mask is excluded only if its upper bound is below a value by more than this, relatively."""


@dataclass(frozen=True)
class Ratio:
    """Dice or IoU as a ratio of gain and rest, as defined in the docstring of this module."""

    dice: bool

    def gain(self, inside: Tensor, mass: Tensor) -> Tensor:
        """Return the gain, given ``h_inside`` and the sum of the probabilities inside the mask."""
        return 2 * inside if self.dice else mass

    def rest(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Return the rest, given ``h_inside`` and ``h_outside``."""
        return inside + outside if self.dice else outside

    def value(self, cut: Tensor) -> Tensor:
        """Return the value of RMA's objective whose optimal cut is ``cut``, ``(batch, classes)``.

        A pixel raises an objective of that value if its probability exceeds ``cut``.
        """
        return 2 * cut if self.dice else cut / (1 - cut)

    def steps(self, smooth: float) -> Steps:
        """Return how one more pixel changes `Integrals` for this metric."""
        less_one = float(smooth > 0)
        if self.dice:
            return Steps(per_hit=2.0, per_mass=0.0, per_count=less_one, outside=False)
        return Steps(per_hit=less_one, per_mass=1.0, per_count=less_one, outside=True)


RATIOS = {"dice": Ratio(dice=True), "iou": Ratio(dice=False)}


class Nodes(NamedTuple):
    """Quadrature nodes ``u`` and weights, ``(rows, nodes)`` each; both are 0 in the padding."""

    u: Tensor
    weight: Tensor


class Sums(NamedTuple):
    """Sums of ``log(1 - p s)`` and of ``t p / (1 - p s)`` over pixels, ``(rows, nodes)`` each."""

    log: Tensor
    hits: Tensor


def count_nodes(rate: Tensor, count: Tensor, rest: Tensor) -> Tensor:
    """Return how many quadrature nodes each row needs, ``(rows,)`` as float64.

    The integrands of a row must fall at least as fast as ``exp(-max(count, 1) u - rest s)``, and
    at most as fast as ``exp(-rate u)``.
    """
    end = END / count.clamp(min=1.0)
    sooner = -torch.log1p(-END / rest.clamp(min=2 * END))
    end = torch.where(rest > 2 * END, torch.minimum(end, sooner), end)
    return torch.ceil((log(end * rate) - FIRST) / STEP) + 1


def most_nodes(pixels: int) -> int:
    """Return a number of quadrature nodes that is enough for any class of a map of ``pixels``.

    The number is constant up to 256 pixels, then up to 256 ** 2 and so on. A traced graph has a
    fixed number of nodes, so it stays valid for all image sizes in such a range.
    """
    most = 256.0 ** math.ceil(math.log2(pixels + 1) / 8)
    return math.ceil((math.log(END * (2 * most + 3)) - FIRST) / STEP) + 1


def place_nodes(
    rate: Tensor, needed: Tensor, most: int, step: float = STEP, first: float = FIRST
) -> Nodes:
    """Return the ``needed`` nodes of each row, padded to ``most`` columns.

    The integrands must fall at most as fast as ``exp(-rate u)``. The rule is the trapezoidal one in
    ``x``, with ``u = exp(x - exp(-x)) / rate``. In ``x`` integrands fall doubly exponentially on
    both sides, and some 30 nodes reach rounding (Takahasi and Mori, Publ. RIMS 9, 1974). The nodes
    of a row do not depend on other rows.
    """
    order = torch.arange(most, dtype=torch.float64, device=rate.device)
    x = first + step * order
    place = exp(x - exp(-x)) / rate.unsqueeze(1)
    u = place.where(order < needed.unsqueeze(1), 0.0)
    return Nodes(u, step * u * (1 + exp(-x)))


def powers_needed(rate: Tensor) -> Tensor:
    """Return how many power sums suffice for integrands that fall as ``exp(-rate u)``.

    Truncating the series after ``j`` powers costs a relative error of ``j! / rate^j``, whatever the
    probabilities.
    """
    limits = torch.tensor(SUFFICIENT, dtype=torch.float64, device=rate.device)
    return 1 + (rate.unsqueeze(-1) < limits).sum(-1)


def series(powers: Tensor, u: Tensor) -> Sums:
    """Return ``sum log(1 - p s)`` and ``sum t p / (1 - p s)`` from power sums, ``(rows, POWERS)``.

    The order of the additions is fixed, so that a row does not depend on other rows.
    """
    s = -expm1(-u)
    order = torch.arange(1, POWERS + 1, dtype=torch.float64, device=u.device)
    rising = s.unsqueeze(1).expand(-1, POWERS, -1).cumprod(1)  # s^j
    terms = powers.unsqueeze(2) * rising
    logs = -(terms / order.unsqueeze(1)).cumsum(1)[:, -1]
    before = torch.nn.functional.pad(rising[:, :-1], (0, 0, 1, 0), value=1.0)
    hits = exp(-u) * (powers.unsqueeze(2) * before).cumsum(1)[:, -1]
    return Sums(logs, hits)


def integrand(
    ratio: Ratio,
    smooth: float,
    nodes: Nodes,
    count: Tensor,
    mass: Tensor,
    inside: Sums,
    outside: Sums,
) -> tuple[Tensor, Tensor]:
    """Return ``weight`` and ``amount``, ``(rows, nodes)``: products sum to the expected metric.

    The sum over the nodes is the expected metric of the mask of each row, minus 1 if ``smooth`` is
    not 0. ``count`` and ``mass`` of the masks are ``(rows,)``. ``inside`` and ``outside`` are the
    sums over the pixels in and outside of the mask.
    """
    count, mass = count.unsqueeze(1), mass.unsqueeze(1)
    logs = outside.log + inside.log if ratio.dice else outside.log
    weight = nodes.weight * exp(logs - (count + smooth) * nodes.u)
    amount = ratio.gain(inside.hits, mass).expand_as(weight)
    if smooth > 0:
        amount = amount - ratio.rest(inside.hits, outside.hits) - count
    return weight, amount
