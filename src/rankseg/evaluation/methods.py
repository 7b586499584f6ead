"""Ways of deciding that can be compared: the baselines, RankSEG, and the time they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rankseg._common.public import public
from rankseg._decision.module import RankSEG
from rankseg._decision.options import USUAL_CORRELATION, checked, combined
from rankseg._decision.settings import PRUNING_PROB
from rankseg._decision.solvers import SOLVERS, solvers_taking
from rankseg.metrics import Metric

__all__ = ["Method", "Timing", "argmax", "pruned_argmax", "standard_methods", "time_methods"]


@public("rankseg.evaluation")
@dataclass(frozen=True)
class Method:
    """A named way of deciding.

    Parameters
    ----------
    name : str
        What its results are reported under.
    decide : callable
        Takes float32 probabilities (batch, classes, *spatial) and returns labels, integer
        (batch, *spatial), with 1 for the foreground of a single class; or masks, bool
        (batch, classes, *spatial).
    correlation : float
        In [0, 1): how far it takes the labels of an image to be right or wrong together. Only
        what it is predicted to gain depends on this; see `compare`.

    Raises
    ------
    TypeError, ValueError
        If ``correlation`` is no number in [0, 1).
    """

    name: str
    decide: Callable[[Tensor], Tensor]
    correlation: float = 0.0

    def __post_init__(self) -> None:
        checked("correlation", self.correlation)


def argmax(probs: Tensor) -> Tensor:
    """Label every pixel with its most probable class; one class: mask it above 0.5.

    Parameters
    ----------
    probs : Tensor
        Floating (batch, classes, *spatial).

    Returns
    -------
    Tensor
        int64 (batch, *spatial); with one class bool (batch, 1, *spatial).
    """
    return probs > 0.5 if probs.shape[1] == 1 else probs.argmax(1)


def pruned_argmax(probs: Tensor, pruning_prob: float = 0.5) -> Tensor:
    """Argmax over the classes whose largest probability in the image exceeds ``pruning_prob``.

    The presence decision that RankSEG makes, without the rest of it. If no class exceeds
    ``pruning_prob``, argmax is over all classes. With one class that does not, the mask is empty.

    Parameters
    ----------
    probs : Tensor
        Floating (batch, classes, *spatial).
    pruning_prob : float
        In [0, 1].

    Returns
    -------
    Tensor
        As `argmax`.

    Examples
    --------
    >>> import torch
    >>> from rankseg.evaluation import argmax, pruned_argmax
    >>> probs = torch.tensor([[[0.45, 0.9], [0.48, 0.0], [0.07, 0.1]]])
    >>> argmax(probs), pruned_argmax(probs)
    (tensor([[1, 0]]), tensor([[0, 0]]))
    """
    present = probs.flatten(2).amax(2) > pruning_prob  # (batch, classes)
    if probs.shape[1] > 1:
        present |= ~present.any(1, keepdim=True)
    absent = ~present.view(*present.shape, *[1] * (probs.dim() - 2))
    return argmax(probs.masked_fill(absent, -1.0))


@dataclass(frozen=True)
class _PrunedArgmax:
    """`pruned_argmax` with its option fixed."""

    pruning_prob: float

    def __call__(self, probs: Tensor) -> Tensor:
        return pruned_argmax(probs, self.pruning_prob)


DEFAULT = (combined("auto", "dice", "multiclass", {}), USUAL_CORRELATION)
"""Solver and correlation of RankSEG by default; of masks, RMA is the same."""

EVERY = (DEFAULT, *((name, 0.0) for name in solvers_taking("presence") if not SOLVERS[name].needs))
"""Solver and correlation of every model of the labels of an image."""


def standard_methods(
    pruning_prob: float = PRUNING_PROB,
    metrics: Sequence[Metric] = ("dice", "iou"),
    solvers: Sequence[str] | None = None,
    correlations: Sequence[float] | None = None,
    presences: Sequence[str] = ("peak",),
    *,
    every: bool = False,
) -> tuple[Method, ...]:
    """Return the two baselines and RankSEG for every rule, correlation, solver and metric.

    Without solvers and correlations, RankSEG is its default and the published rule, or with
    ``every`` each of its models of the labels of an image.

    Parameters
    ----------
    pruning_prob : float
        In [0, 1], for pruned argmax and RankSEG by peaks alike.
    metrics : sequence of {'dice', 'iou'}
        What RankSEG is to maximise.
    solvers : sequence of {'RMA', 'joint'}, optional
        How; RMA if correlations are given alone.
    correlations : sequence of float, optional
        In [0, 1): how strongly the labels of an image are taken to vary together; 0, the published
        rule, if solvers are given alone.
    presences : sequence of {'peak', 'argmax', 'all'}
        By what rule RankSEG tells which classes are in an image.
    every : bool
        Whether to return all models. Solvers and correlations must then not be given.

    Returns
    -------
    tuple of Method
        ``argmax``, ``pruned argmax``, then ``RankSEG dice`` and so on. ``RankSEG dice RMA r=0.2
        presence=all`` names solver and correlation, if they are not the default, and a rule that is
        not by peaks; ``RankSEG dice RMA`` is the published decision.

    Raises
    ------
    TypeError, ValueError
        If `rankseg.RankSEG` does not take an option, or solvers are given beside ``every``.

    Examples
    --------
    >>> from rankseg.evaluation import standard_methods
    >>> [method.name for method in standard_methods(metrics=["dice"], solvers=["RMA", "joint"])]
    ['argmax', 'pruned argmax', 'RankSEG dice RMA', 'RankSEG dice joint']
    """
    pairs = [*EVERY] if every else [DEFAULT, ("RMA", 0.0)]
    if every and (solvers is not None or correlations is not None):
        raise ValueError("every solver is compared: leave out solvers and correlations")
    if solvers is not None or correlations is not None:
        pairs = [(one, r) for r in correlations or (0.0,) for one in solvers or ("RMA",)]
    ours = [
        _ours(metric, solver, pruning_prob, correlation, presence)
        for presence in presences
        for solver, correlation in pairs
        for metric in metrics
    ]
    return (
        Method("argmax", argmax),
        Method("pruned argmax", _PrunedArgmax(pruning_prob)),
        *ours,
    )


def _ours(
    metric: Metric, solver: str, pruning_prob: float, correlation: float, presence: str
) -> Method:
    parts = ["RankSEG", metric]
    if (solver, correlation) != DEFAULT:
        parts += [solver, *([f"r={correlation:g}"] if correlation else [])]
    options: dict[str, Any] = {"pruning_prob": pruning_prob}
    if checked("presence", presence) != "peak":
        parts.append(f"presence={presence}")
        options = {"presence": presence}
    if solver in solvers_taking("correlation"):
        options["correlation"] = correlation
    decide = RankSEG(metric=metric, solver=solver, **options)
    return Method(" ".join(parts), decide, correlation)


@public("rankseg.evaluation")
@dataclass(frozen=True)
class Timing:
    """Seconds of the first call and the median of those after it."""

    first: float
    median: float


def time_methods(
    methods: Sequence[Method], probs: Tensor, *, repeats: int = 15
) -> dict[str, Timing]:
    """Time decisions on one batch, the methods taking turns so that a busy moment hits all alike.

    Parameters
    ----------
    methods : sequence of Method
        What to time.
    probs : Tensor
        Floating (batch, classes, *spatial), on the CPU.
    repeats : int
        Rounds after the first call of each, at least 1.

    Returns
    -------
    dict of str to Timing
        By the name of the method. On a GPU, the first call in a process may compile kernels.
    """
    first = {method.name: _seconds(method, probs) for method in methods}
    later: dict[str, list[float]] = {method.name: [] for method in methods}
    for _ in range(repeats):
        for method in methods:
            later[method.name].append(_seconds(method, probs))
    return {name: Timing(first[name], statistics.median(later[name])) for name in first}


def _seconds(method: Method, probs: Tensor) -> float:
    start = time.perf_counter()
    method.decide(probs)
    return time.perf_counter() - start
