"""The expected metric itself, averaged over the hidden factor of a correlation.

Given the factor, labels are independent and the expected metric is an integral (``_expectation``)
of functions of sums over the pixels: of ``log(1 - p s)`` and ``t p / (1 - p s)`` at every node.
With the probabilities given the factor put in, these are more curves of the probability, and the
profile gives their sums as it gives those of the probabilities.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg._backends._bins import bin_edges
from rankseg._correlation import factor_nodes, given_factor
from rankseg._expectation import RATIOS, Nodes, Ratio, Sums, integrand, place_nodes
from rankseg._objectives import Objective
from rankseg._settings import Settings
from rankseg._solvers._average import Average, Factor
from rankseg._solvers._profile_cuts import Curves

STEP, FIRST, END = 0.5, -3.2, 22.0
"""Of the trapezoidal rule: together they lose some 1e-8 of an integral."""


@dataclass(frozen=True)
class ExactAverage(Average):
    """The expected metric averaged over the factor; gains are those of the objective.

    Attributes
    ----------
    ratio, smooth
        The metric.
    nodes
        Of the integral, ``(1, nodes)``.
    """

    ratio: Ratio
    smooth: float
    nodes: Nodes

    def score(self, states: Tensor) -> Tensor:
        """Return the expected metric, less 1 if ``smooth`` is not 0, as ``integrand`` has it."""
        inside = self._sums(states)
        outside = self._sums(self.whole.unsqueeze(1) - states)
        count = states[..., :1].expand(inside.log.shape[:-1])
        mass = states[..., 2 : 2 + len(self.factor.weights)]
        flat = [Sums(*(term.flatten(0, -2) for term in sums)) for sums in (inside, outside)]
        part, amount = integrand(
            self.ratio, self.smooth, self.nodes, count.flatten(), mass.flatten(), *flat
        )
        scores = (part * amount).sum(1).view(mass.shape)
        return (scores * self.factor.weights).sum(-1)

    def _sums(self, states: Tensor) -> Sums:
        """Return what pixels contribute, ``(rows, masks, values of the factor, nodes)``."""
        table = states[..., 2 + len(self.factor.weights) :]
        logs, hits = table.unflatten(-1, (2, len(self.factor.weights), -1)).unbind(-3)
        return Sums(logs, hits)


def exact_average(
    settings: Settings, objective: Objective, pixels: int, device: torch.device
) -> ExactAverage:
    """Return the average for images of so many pixels, of none yet."""
    octaves = math.ceil(math.log2(2 * pixels + 1))  # so that few sizes need tables of their own
    make = _make_tables if torch.compiler.is_compiling() else _kept_tables
    factor, nodes = make(settings.correlation, octaves, settings.smooth, device)
    ratio = RATIOS[settings.metric]
    return ExactAverage(objective, factor, factor.no_rows(), ratio, settings.smooth, nodes)


def _make_tables(
    correlation: float, octaves: int, smooth: float, device: torch.device
) -> tuple[Factor, Nodes]:
    """Return the factor with the curves of all nodes, for masks of at most ``2 ** octaves``."""
    rate = 2.0**octaves + smooth
    number = math.ceil((math.log(END * rate / max(smooth, 1.0)) - FIRST) / STEP) + 1
    one = torch.ones(1, dtype=torch.float64, device=device)
    nodes = place_nodes(rate * one, number * one, number, STEP, FIRST)
    values, weights = factor_nodes(device=device)
    knots = given_factor(bin_edges(device).unsqueeze(1), values, correlation)
    s = -torch.expm1(-nodes.u[0])
    left = 1 - knots.unsqueeze(2) * s
    hits = torch.exp(-nodes.u[0]) * knots.unsqueeze(2) / left
    table = torch.stack((torch.log(left), hits), 1).flatten(1)
    factor = Factor(weights, knots.T.contiguous(), Curves.through(torch.cat((knots, table), 1)))
    return factor, nodes


_kept_tables = functools.lru_cache(maxsize=1)(_make_tables)  # one has some fifty megabytes
