"""An objective averaged over the hidden factor of a correlation; see ``_correlation``."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankseg._backends._bins import bin_edges
from rankseg._correlation import factor_nodes, given_factor
from rankseg._objectives import Objective
from rankseg._quiet import product
from rankseg._solvers._profile_cuts import Curves


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
    """

    weights: Tensor
    knots: Tensor
    curves: Curves

    @classmethod
    def of(cls, correlation: float, device: torch.device) -> Factor:
        """Return the factor; without a correlation there is nothing to average over."""
        make = _make_factor if torch.compiler.is_compiling() else _kept_factor
        return make(correlation, device)

    def no_rows(self) -> Tensor:
        """Return the states of nothing yet."""
        return self.weights.new_empty(0, self.curves.functions)


def _make_factor(correlation: float, device: torch.device) -> Factor:
    knots = bin_edges(device).unsqueeze(1)
    weights = torch.ones_like(knots[0])
    if correlation != 0:
        values, weights = factor_nodes(device=device)
        knots = given_factor(knots, values, correlation)
    return Factor(weights, knots.T.contiguous(), Curves.through(knots))


_kept_factor = functools.lru_cache(maxsize=8)(_make_factor)


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
        return self.whole[:, 2 : 2 + len(self.factor.weights)]

    def over(self, whole: Tensor) -> Average:
        """Return the same of other rows."""
        return replace(self, whole=whole)

    def score(self, states: Tensor) -> Tensor:
        """Return the objective of masks, from their states ``(rows, masks, functions)``."""
        count, mass = states[..., :1], states[..., 2:]
        scores = self.objective.score(count, mass, self.volume.unsqueeze(1))
        return (scores * self.factor.weights).sum(-1)

    def independent_score(self, states: Tensor) -> Tensor:
        """Return what the objective would be if labels were independent."""
        return self.objective.score(states[..., 0], states[..., 1], self.whole[:, 1:2])

    def slope(self, states: Tensor) -> Tensor:
        """Return what a part of a pixel adds to masks of states ``(rows, functions)``, averaged.

        At the edges of bins: ``(rows, BINS + 1)``. Without its shrinkage, which no slope has, a
        gain is a straight line of the probability given the factor.
        """
        slope, toll, size, _ = self.objective.slope(
            states[:, :1], states[:, 2 : 2 + len(self.factor.weights)], self.volume
        ).terms()
        weights = self.factor.weights / size
        line = product(slope * weights, self.factor.knots)
        return line - (toll * weights).sum(1, keepdim=True)
