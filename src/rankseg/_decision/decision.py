"""A decision and what it is expected to score: more than a mask, still without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._common.public import public
from rankseg._decision.inputs import as_tensor
from rankseg._decision.options import parse
from rankseg._decision.problem import Problem
from rankseg._decision.score import check_scored_correlation, score
from rankseg._decision.settings import Settings
from rankseg._decision.solve import present_in, solve
from rankseg._decision.solvers import SOLVERS

__all__ = ["Decision", "decide"]


@public("rankseg")
@dataclass(frozen=True, eq=False)
class Decision:
    """What :meth:`rankseg.RankSEG.decide` returns: a prediction, and what it is expected to score.

    Tensors are on the device of the probabilities; if those were a NumPy array, all are arrays.

    Attributes
    ----------
    prediction
        What a call of the module returns: masks or labels.
    cut
        ``(batch, classes)`` float64: the largest probability that the class's own mask leaves
        out, so that the mask is ``probs > cut`` (but for ties that BA and TRNA split). Labels
        share out what several such masks hold or none.
    volume
        ``(batch, classes)`` int64: pixels predicted as the class.
    expected
        ``(batch, classes)`` float64: the expected score of the prediction; see
        :func:`rankseg.expected_score`.
    expected_argmax
        The same of ``argmax``, or of the threshold 1/2 where masks were decided.
    present
        ``(batch, classes)`` boolean: whether the class is taken to be in the image, by the rule
        that ``presence`` names.
    upper_bound
        ``(batch,)`` float64: the mean over the present classes of what each class's own mask is
        expected to score. No labels can be expected to score more if the masks are those of
        ``solver='exact'``; RMA's fall short of them by a few ten-thousandths for classes that
        expect more than a hundred pixels.
    """

    prediction: Any
    cut: Any
    volume: Any
    expected: Any
    expected_argmax: Any
    present: Any
    upper_bound: Any

    @property
    def expected_mean(self) -> Any:
        """The mean of ``expected`` over the present classes, ``(batch,)``; NaN if there is none."""
        return _mean(self.expected, self.present)

    @property
    def expected_gain(self) -> Any:
        """By how much that mean exceeds the one of ``argmax``, ``(batch,)``."""
        return self.expected_mean - _mean(self.expected_argmax, self.present)


def decide(probs: Any, valid: Any, settings: Settings) -> Decision:
    """Decide, and return the decision with its expected score; see `Decision`.

    The score is expected under ``probs`` itself (after calibration, if there is one): no labels are
    needed.

    Raises
    ------
    ValueError
        If the metric is ``'acc'``, for which no expected score is implemented, or if the
        correlation exceeds 0.999999. Invalid input raises as in a call of ``RankSEG``.
    """
    if settings.metric == "acc":
        raise ValueError("decide() tells an expected score: metric must be 'dice' or 'iou'")
    check_scored_correlation(settings.correlation)
    problem = Problem.parse(probs, valid, settings).calibrated()
    prediction = solve(problem)
    problem = replace(problem.of_probabilities(), sums_are_checked=True)
    settings = problem.settings
    present = present_in(problem)
    inside = _masks_by_class(problem, prediction, present)
    baseline = parse("acc", 0.0, settings.output_mode, "auto", 0.0, {})
    scores = [
        score(problem, as_tensor("prediction", decided), settings.correlation)
        for decided in (prediction, solve(replace(problem, settings=baseline)), inside)
    ]
    shown = problem.probs
    if problem.valid is not None:
        shown = shown.masked_fill(~problem.valid.unsqueeze(1), 0)
    cut = shown.masked_fill(inside, 0).flatten(2).amax(2).double()
    volume = _volume(problem, prediction)
    tables = [table.numpy() if problem.numpy else table for table in (cut, volume, present)]
    bound = _mean(scores[2], tables[2])
    return Decision(prediction, tables[0], tables[1], scores[0], scores[1], tables[2], bound)


def _masks_by_class(problem: Problem, prediction: Any, present: Tensor) -> Tensor:
    """Return the best mask of each present class alone, before pixels get one label each."""
    settings = problem.settings
    if settings.output_mode == "multilabel":
        return as_tensor("prediction", prediction)
    row = SOLVERS[settings.solver]
    own = "multilabel" in row.several_classes and row.needs is None
    solver = settings.solver if own else "RMA"
    alone = replace(settings, output_mode="multilabel", solver=solver, presence="all")
    masks = as_tensor("masks", solve(replace(problem, settings=alone)))
    return masks & present.view(*present.shape, *[1] * (masks.dim() - 2))


def _volume(problem: Problem, prediction: Any) -> Tensor:
    """Count the pixels predicted as each class."""
    decided = torch.from_numpy(prediction) if problem.numpy else prediction
    if problem.settings.output_mode == "multilabel":
        return decided.flatten(2).sum(2)
    labels, classes = decided.flatten(1), problem.probs.shape[1]
    if problem.binary:
        return (labels == 1).sum(1, keepdim=True)
    return torch.stack([(labels == label).sum(1) for label in range(classes)], 1)


def _mean(scores: Any, present: Any) -> Any:
    """Average over the classes that are present."""
    if isinstance(scores, np.ndarray):
        return _mean(torch.from_numpy(scores), torch.from_numpy(present)).numpy()
    return scores.where(present, torch.nan).nanmean(1)
