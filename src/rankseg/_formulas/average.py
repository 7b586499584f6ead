"""The objective of correlated labels: an average over their hidden factor (see ``correlation``)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankseg._common.tracing import kept
from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.correlation import factor_nodes, given_factor
from rankseg._formulas.objectives import Objective
from rankseg._formulas.profile import (
    Curves,
    above_cells,
    best_edge,
    bins_around,
    root_between,
    row_slices,
)
from rankseg._formulas.quiet import product


@dataclass(frozen=True)
class Factor:
    """The hidden factor at some quadrature nodes, and the probability given each of its values.

    Attributes
    ----------
    weights
        ``(nodes,)``: quadrature weights of the values of the factor, which sum to 1.
    knots
        ``(nodes, BINS + 1)``: the probability given each value, at the edges of the bins.
    curves
        The functions through ``knots``, as functions of the probability, with 1 and ``p`` before.
    lines
        ``(nodes, 2 BINS)``: slope and negative intercept of these functions in every bin.
    """

    weights: Tensor
    knots: Tensor
    curves: Curves
    lines: Tensor


@kept(most=8)  # ONNX has no ndtr and no ndtri, so that an exported graph needs a constant
def factor_of(correlation: float, device: torch.device) -> Factor:
    """Return the hidden factor; without a correlation it has one node of weight 1."""
    knots = bin_edges(device).unsqueeze(1)
    weights = torch.ones_like(knots[0])
    if correlation != 0:
        values, weights = factor_nodes(device=device)
        knots = given_factor(knots, values, correlation)
    curves = Curves.through(knots)
    intercept, slope = curves.lines[..., 2:].unbind(1)
    lines = torch.stack((slope, -intercept), 1).flatten(0, 1).T.contiguous()
    return Factor(weights, knots.T.contiguous(), curves, lines)


@dataclass(frozen=True)
class Average:
    """An objective averaged over the factor, for several rows: a row is one class of one image.

    ``whole`` is ``(rows, functions)``: the state of the mask that holds all pixels of the image.
    A state is a count, a mass, and the mass given each value of the factor.
    """

    objective: Objective
    factor: Factor
    whole: Tensor

    @property
    def volume(self) -> Tensor:
        """The expected volume given the factor, ``(rows, nodes)``."""
        return self.whole[:, 2:]

    def over(self, whole: Tensor) -> Average:
        """Return the same objective for other rows."""
        return replace(self, whole=whole)

    def score(self, states: Tensor) -> Tensor:
        """Return the objective, ``(rows, masks)``, of states ``(rows, masks, functions)``."""
        count, mass = states[..., :1], states[..., 2:]
        scores = self.objective.score(count, mass, self.volume.unsqueeze(1))
        return (scores * self.factor.weights).sum(-1)

    def gains_at(self, states: Tensor, edges: Tensor) -> Tensor:
        """Return the slope of the objective of masks, for a pixel whose ``p`` is an edge of a bin.

        ``states`` is ``(rows, functions)``. ``edges`` is ``(rows, n)``: indices of edges. Returns
        ``(rows, n)``. See ``Objective.slope``.
        """
        slope, cost = self._gain(states)
        return (slope.unsqueeze(2) * self.factor.knots[:, edges].transpose(0, 1)).sum(1) - cost

    def gain_lines(self, states: Tensor) -> Tensor:
        """Return the slope of the objective in every bin, as lines of ``GainCurves``.

        ``(rows, BINS, 2)``: the slope of the objective is ``a p - b``; the last axis is ``(a, b)``.
        """
        slope, cost = self._gain(states)
        lines = product(slope, self.factor.lines).view(-1, BINS, 2)
        lines[..., 1] += cost
        return lines

    def _gain(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of the averaged slope of the objective.

        The slope is linear in the probabilities given the factor: ``(slope * given).sum() - cost``
        with ``slope`` ``(rows, nodes)`` and ``cost`` ``(rows, 1)``. ``Gains.shrink`` is 0 for every
        ``Objective.slope``.
        """
        slope, cost, size, _ = self.objective.slope(
            states[:, :1], states[:, 2:], self.volume
        ).terms()
        weights = self.factor.weights / size
        return slope * weights, (cost * weights).sum(1, keepdim=True)


def best_cuts(
    profile: Tensor, factor: Factor, objective: Objective
) -> tuple[Average, Tensor, Tensor, Tensor]:
    """Return the averaged objective and, for every row, best cut, best edge and the state above it.

    ``profile`` is ``(rows, BINS, 2)``; its first bin is set to 0 in place. Cuts and edges are
    ``(rows,)`` probabilities. The states of the masks above the edges are ``(rows, functions)``.
    The edge 0 is never taken: the first bin holds the pixels that are not valid, and all other
    pixels in it have probabilities of at most ``2 ** -24``.
    """
    found = [
        _best_cuts_of_few(profile[rows], factor, objective) for rows in row_slices(profile.shape[0])
    ]
    whole, *others = (torch.cat(terms) for terms in zip(*found, strict=True))
    cuts, edges, states = others
    return Average(objective, factor, whole), cuts, edges, states


def _best_cuts_of_few(
    profile: Tensor, factor: Factor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do `best_cuts` for a few rows; return ``whole`` of `Average`, cuts, edges and states."""
    curves = factor.curves
    first = profile[:, 0].clone()
    profile[:, 0] = 0
    above = above_cells(profile, curves)
    whole = above[:, 0] + product(first, curves.lines[0])
    average = Average(objective, factor, whole)
    edge, states = best_edge(profile, above, curves, average.score)
    edge = edge.clamp_min(1)
    edges = bin_edges(profile.device)
    around = bins_around(profile, edge)
    cut = root_between(edges[around], average.gains_at(states, around))
    return whole, cut.maximum(edges[1]), edges[edge], states
