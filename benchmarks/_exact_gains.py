"""Exact labels that go on to be relabelled, judged by the expected score itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.solvers.models import ExactLabels
from rankseg._formulas.records import GainCurves


@dataclass(frozen=True)
class JudgedByScore(ExactLabels):
    """The model of ``solver='exact'``, with the worth of labels and what parts of pixels add."""

    def tally(self, labels: Tensor, images: Tensor | None = None) -> Any:
        return (*super().tally(labels), self.profile(labels))

    def choose(self, images: Tensor, state: Any, other: Any) -> Any:
        rows = images[self.rows[:, 0]].view(-1, 1, 1)
        profile = torch.where(rows, state[2], other[2])
        return (*super().choose(images, state[:2], other[:2]), profile)

    def score(self, state: Any) -> Tensor:
        expectation = self.expectation(state)
        exact = (expectation.weight * expectation.amount).sum(1) + float(expectation.smooth > 0)
        return super().score(state[:2]).index_put(self.rows.unbind(1), exact)

    def slope(self, state: Any, images: Tensor | None = None) -> GainCurves:
        return self.with_small(super().slope(state[:2]), state)
