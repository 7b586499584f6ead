"""The decision as functions."""

from __future__ import annotations

from os import PathLike
from typing import Literal

from typing_extensions import Unpack

from rankseg._common.arguments import choice, names_unknown
from rankseg._decision.calibration import Calibration
from rankseg._decision.module import RankSEG
from rankseg._decision.problem import Maps
from rankseg._decision.settings import VOID_INDEX, SolverOptions
from rankseg._decision.solvers import solvers_taking

__all__ = ["rankdice_ba", "rankseg", "rankseg_rma"]


def rankseg(
    probs: Maps,
    metric: str = "dice",
    smooth: float = 0.0,
    output_mode: str = "multiclass",
    solver: str = "auto",
    pruning_prob: float | None = None,
    *,
    valid: Maps | None = None,
    from_logits: str | None = None,
    calibration: Calibration | str | PathLike[str] | None = None,
    **options: Unpack[SolverOptions],
) -> Maps:
    """Decide the masks or labels that maximise the expected Dice or IoU of each image.

    Parameters, result and errors are those of :class:`rankseg.RankSEG` and of its call.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.functional import rankseg
    >>> probs = np.array([[[0.9, 0.45, 0.4, 0.1]]])
    >>> rankseg(probs, metric="dice", output_mode="multilabel")
    array([[[ True,  True,  True, False]]])
    >>> rankseg(probs, metric="acc", output_mode="multilabel")
    array([[[ True, False, False, False]]])
    """
    decide = RankSEG(
        metric,
        smooth,
        output_mode,
        solver,
        pruning_prob,
        from_logits=from_logits,
        calibration=calibration,
        **options,
    )
    decision: Maps = decide.forward(probs, valid)
    return decision


@names_unknown
def rankseg_rma(
    probs: Maps,
    metric: str = "dice",
    smooth: float = 0.0,
    output_mode: str = "multiclass",
    pruning_prob: float = 0.5,
    unassigned_policy: Literal["max_score", "void"] = "max_score",
    void_index: int = VOID_INDEX,
    safe_screening: bool | Literal["auto"] = False,
    *,
    correlation: float = 0.0,
    valid: Maps | None = None,
) -> Maps:
    """Decide by RankSEG-RMA.

    The same as :func:`rankseg` with ``solver='RMA'``, under the published package's name. Masks
    leave no pixel void: with multilabel output, ``unassigned_policy`` and ``void_index`` must have
    their default values.

    Examples
    --------
    >>> import torch
    >>> from rankseg import rankseg_rma
    >>> rankseg_rma(torch.tensor([[[0.9, 0.45, 0.4, 0.1]]]), output_mode="multilabel")
    tensor([[[ True,  True,  True, False]]])
    """
    options = SolverOptions(
        unassigned_policy=unassigned_policy,
        void_index=void_index,
        correlation=correlation,
        safe_screening=safe_screening,
    )
    # Built even for masks, which take none of the options, so that a wrong one is refused as such.
    labels = RankSEG(metric, smooth, "multiclass", "RMA", pruning_prob, **options)
    masks = RankSEG(metric, smooth, output_mode, "RMA", pruning_prob, correlation=correlation)
    written = labels.settings.unassigned_policy != "max_score" or void_index != VOID_INDEX
    if written and masks.output_mode == "multilabel":
        raise ValueError(
            "unassigned_policy and void_index go with output_mode='multiclass', got "
            f"{unassigned_policy!r} and {void_index!r} with output_mode='multilabel'"
        )
    decide = labels if masks.output_mode == "multiclass" else masks
    decision: Maps = decide.forward(probs, valid)
    return decision


@names_unknown
def rankdice_ba(
    probs: Maps,
    solver: Literal["BA", "TRNA", "BA+TRNA"] = "BA",
    smooth: float = 0.0,
    eps: float = 1e-4,
    pruning_prob: float = 0.5,
    *,
    valid: Maps | None = None,
) -> Maps:
    """Decide masks that maximise the expected Dice by the approximations of the JMLR paper.

    The same as :func:`rankseg` with this solver, ``metric='dice'`` and
    ``output_mode='multilabel'``, under the published package's name.

    Examples
    --------
    >>> import torch
    >>> from rankseg import rankdice_ba
    >>> rankdice_ba(torch.tensor([[[0.9, 0.45, 0.4, 0.1]]]), solver="TRNA")
    tensor([[[ True,  True,  True, False]]])
    """
    chosen = choice("solver", solver, solvers_taking("eps"))
    decide = RankSEG("dice", smooth, "multilabel", chosen, pruning_prob, eps=eps)
    decision: Maps = decide.forward(probs, valid)
    return decision
