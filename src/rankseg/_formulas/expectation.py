"""The expected Dice and IoU of a mask, exactly: integrals that cost a few sums over the pixels.

Given the image, labels are independent with the probabilities ``p``. Of a mask of ``n`` pixels,
with ``smooth`` written ``g``, both metrics are ``(gain + g) / (rest + n + g)``: the gain of Dice is
twice the number of true labels inside, its rest the number of all true labels; the gain of IoU is
the number of true labels inside, its rest that of those outside. The reciprocal is an integral,
``1/x = int_0^inf exp(-x u) du``, under which labels factorise. With ``t = exp(-u)`` and ``s = 1 -
t``, and ``h = t p / (1 - p s)`` summed over the pixels inside, outside, or all::

    Dice   int exp(-(n + g) u)  prod_all (1 - p s)      [2 h_inside + g]    du
    IoU    int exp(-(n + g) u)  prod_outside (1 - p s)  [sum_inside p + g]  du

(of IoU, inside and outside are independent). Less 1, the integrals have ``gain - rest - n`` in
place of ``gain + g``, with ``h_all`` and ``h_outside`` for the rest. Written so, a large ``g``
drowns nothing, and an empty mask with a small one needs no care.

Where ``p s`` is small, a few power sums of ``p`` stand for all pixels: ``log(1 - p s)`` is
``-sum_j p^j s^j / j``, and ``p / (1 - p s)`` is ``sum_j p^j s^(j - 1)``, ``j`` from 1.
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
"""Of the trapezoidal rule: it loses 1e-15 by its step, exp(-exp(3.6)) before, exp(-40) after."""

NEGLIGIBLE = 1e-14
"""Relative error of an integral that cutting off a series may cause."""

MANY = 100.0
"""If ``rest + g`` is at least this, ``s`` is small enough for ``POWERS`` powers of any ``p``."""

FAINT = 1 / 16
"""Up to this, a probability is small enough for them at any ``s``."""


SUFFICIENT = tuple((math.factorial(j) / NEGLIGIBLE) ** (1 / j) for j in range(1, POWERS))
"""From which rate on ``j`` powers are enough, by ``j`` from 1: see :func:`powers_needed`."""

MARGIN = 1.2
"""By how much brackets of the best cut are wider than expected: a second try costs more than a few
more pixels."""

DOUBLINGS = 64
"""Most times that a bracket is widened: a width of ``DUST`` becomes more than 1 before."""

NEAR, UNKNOWN = 1e-3, 1 / 32
"""A cut this near 1/2 tells nothing about the values in between: then brackets are so wide."""

ROUNDING = 1e-15
"""By how much more than a value, relatively, a bound has to fall short of it."""


@dataclass(frozen=True)
class Ratio:
    """Dice or IoU as what is divided by what; the terms are those of the module's docstring."""

    dice: bool

    def gain(self, inside: Tensor, mass: Tensor) -> Tensor:
        """Return the gain, given ``h_inside`` and the sum of the probabilities inside."""
        return 2 * inside if self.dice else mass

    def rest(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Return the rest, given ``h_inside`` and ``h_outside``."""
        return inside + outside if self.dice else outside

    def value(self, cut: Tensor) -> Tensor:
        """Return the value of the metric at which pixels above ``cut`` pay, to RMA."""
        return 2 * cut if self.dice else cut / (1 - cut)

    def steps(self, smooth: float) -> Steps:
        """Return what one more pixel does to the integrals."""
        less_one = float(smooth > 0)
        if self.dice:
            return Steps(per_hit=2.0, per_mass=0.0, per_count=less_one, outside=False)
        return Steps(per_hit=less_one, per_mass=1.0, per_count=less_one, outside=True)


RATIOS = {"dice": Ratio(dice=True), "iou": Ratio(dice=False)}


class Nodes(NamedTuple):
    """Where the integrals of some rows are sampled: ``(rows, nodes)``, padded with zero weights."""

    u: Tensor
    weight: Tensor


class Sums(NamedTuple):
    """What some pixels contribute at every node, ``(rows, nodes)``: see :func:`series`."""

    log: Tensor
    hits: Tensor


def count_nodes(rate: Tensor, count: Tensor, rest: Tensor) -> Tensor:
    """Return how many nodes each row needs.

    Its integrands fall at least as ``exp(-count u - rest s)``, ``count`` taken for 1 if less, and
    at most as ``exp(-rate u)``.
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
    """Place the nodes ``needed`` by each row, for integrands that fall at most as ``exp(-rate u)``.

    The trapezoidal rule in ``x``, where ``u = exp(x - exp(-x)) / rate``: there integrands fall
    doubly exponentially on both sides, and some 30 nodes reach rounding (Takahasi and Mori, Publ.
    RIMS 9, 1974). The nodes of a row do not depend on other rows.
    """
    order = torch.arange(most, dtype=torch.float64, device=rate.device)
    x = first + step * order
    place = exp(x - exp(-x)) / rate.unsqueeze(1)
    u = place.where(order < needed.unsqueeze(1), 0.0)
    return Nodes(u, step * u * (1 + exp(-x)))


def powers_needed(rate: Tensor) -> Tensor:
    """Return how many powers stand for any probabilities where integrands fall as ``exp(-rate u)``.

    Cut off after ``j`` powers, the series lose ``j! / rate^j`` of an integral.
    """
    limits = torch.tensor(SUFFICIENT, dtype=torch.float64, device=rate.device)
    return 1 + (rate.unsqueeze(-1) < limits).sum(-1)


def series(powers: Tensor, u: Tensor) -> Sums:
    """Return ``sum log(1 - p s)`` and ``sum t p / (1 - p s)`` from power sums, ``(rows, POWERS)``.

    Summed in a fixed order, whatever the other rows.
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
    """Return two factors whose products sum, over the nodes, to the expected metric of a mask.

    Less 1 if ``smooth`` is not 0. ``count`` and ``mass`` are ``(rows,)``.
    """
    count, mass = count.unsqueeze(1), mass.unsqueeze(1)
    logs = outside.log + inside.log if ratio.dice else outside.log
    part = nodes.weight * exp(logs - (count + smooth) * nodes.u)
    amount = ratio.gain(inside.hits, mass).expand_as(part)
    if smooth > 0:
        amount = amount - ratio.rest(inside.hits, outside.hits) - count
    return part, amount
