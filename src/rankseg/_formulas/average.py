"""An objective averaged over the hidden factor of a correlation; see ``correlation``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankseg._formulas.bins import BINS, bin_edges
from rankseg._formulas.correlation import factor_nodes, given_factor
from rankseg._formulas.objectives import Objective
from rankseg._formulas.profile import (
    Curves,
    above_cells,
    best_edge,
    bins_around,
    parts,
    root_between,
)
from rankseg._formulas.quiet import product


@dataclass(frozen=True)
class Factor:
    """What a decision needs to know of the factor.

    Attributes
    ----------
    weights
        ``(nodes,)`` of the values that stand for it.
    knots
        ``(nodes, BINS + 1)``: the probability given each value, at the edges of bins.
    curves
        The same, as curves of the probability.
    lines
        ``(nodes, 2 BINS)``: the same, slope and negative intercept of every bin.
    """

    weights: Tensor
    knots: Tensor
    curves: Curves
    lines: Tensor

    @classmethod
    def of(cls, correlation: float, device: torch.device) -> Factor:
        """Return the factor; without a correlation there is nothing to average over."""
        key = correlation, device
        if key in _KEPT and not torch.compiler.is_dynamo_compiling():
            return _KEPT[key]  # a constant of graphs that are exported: ONNX lacks the functions
        factor = _make_factor(correlation, device)
        if not torch.compiler.is_compiling():
            if len(_KEPT) == MOST_KEPT:
                _KEPT.clear()
            _KEPT[key] = factor
        return factor


MOST_KEPT = 8

_KEPT: dict[tuple[float, torch.device], Factor] = {}


def _make_factor(correlation: float, device: torch.device) -> Factor:
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
    """An objective averaged over the factor.

    ``whole`` is ``(rows, functions)``: the states of all pixels of an image, by class.
    """

    objective: Objective
    factor: Factor
    whole: Tensor

    @property
    def volume(self) -> Tensor:
        """The expected volume given the factor, ``(rows, nodes)``."""
        return self.whole[:, 2:]

    def over(self, whole: Tensor) -> Average:
        """Return the same of other rows."""
        return replace(self, whole=whole)

    def score(self, states: Tensor) -> Tensor:
        """Return the objective of masks, from their states ``(rows, masks, functions)``."""
        count, mass = states[..., :1], states[..., 2:]
        scores = self.objective.score(count, mass, self.volume.unsqueeze(1))
        return (scores * self.factor.weights).sum(-1)

    def gains_at(self, states: Tensor, edges: Tensor) -> Tensor:
        """Return what a part of a pixel adds to masks of states ``(rows, functions)``, averaged.

        At edges between bins: ``(rows, n)`` from their numbers, ``(rows, n)``.
        """
        slope, toll = self._gain(states)
        return (slope.unsqueeze(2) * self.factor.knots[:, edges].transpose(0, 1)).sum(1) - toll

    def gain_lines(self, states: Tensor) -> Tensor:
        """Return the same in every bin: slope and toll of a straight line, ``(rows, BINS, 2)``."""
        slope, toll = self._gain(states)
        lines = product(slope, self.factor.lines).view(-1, BINS, 2)
        lines[..., 1] += toll
        return lines

    def _gain(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a gain has of each probability given the factor, and less: its toll.

        Without its shrinkage, which no slope has, it is a straight line of these.
        """
        slope, toll, size, _ = self.objective.slope(
            states[:, :1], states[:, 2:], self.volume
        ).terms()
        weights = self.factor.weights / size
        return slope * weights, (toll * weights).sum(1, keepdim=True)


def best_cuts(
    profile: Tensor, factor: Factor, objective: Objective
) -> tuple[Average, Tensor, Tensor, Tensor]:
    """Return what is maximised and, of every row, the best cut, the edge next to it, its state.

    ``profile`` is ``(rows, BINS, 2)`` and loses its first bin; cuts and edges are ``(rows,)``, the
    states of the masks above the edges ``(rows, functions)``. No edge below the first bin is
    taken, which holds the pixels that are 0 or not valid: what it could add is below ``2 ** -24``.
    """
    found = [
        _best_cuts_of_few(profile[part], factor, objective) for part in parts(profile.shape[0])
    ]
    whole, *others = (torch.cat(terms) for terms in zip(*found, strict=True))
    cuts, edges, states = others
    return Average(objective, factor, whole), cuts, edges, states


def _best_cuts_of_few(
    profile: Tensor, factor: Factor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the state of all pixels of the rows, and of each the cut, the edge and its state."""
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
