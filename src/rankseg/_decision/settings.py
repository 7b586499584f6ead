"""What is to be decided: the checked options of one decision, and their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypedDict

from rankseg._decision.calibration import Calibration
from rankseg._decision.presence_model import PresenceModel

if TYPE_CHECKING:
    from rankseg._decision.dataset_rule import DatasetRule

__all__ = ["Settings", "SolverOptions"]

OUTPUT_MODES = ("multiclass", "multilabel")
PRUNING_PROB = 0.5
VOID_INDEX = 255
EPS = 1e-4
THETA = 300.0

SMOOTH_PER_PIXEL = 2.0**24
"""Decisions are the same for a larger ``smooth`` per pixel, where masks are found by their scores.

Scores differ by ``1 / smooth`` of themselves. A mask's cut is nearer to 1/2 than 1e-7 by then, and
its score known to 1e-9 of the pixels.
"""


class SolverOptions(TypedDict, total=False):
    """Options that only some solvers take; :class:`rankseg.RankSEG` describes them."""

    unassigned_policy: Literal["max_score", "void"]
    void_index: int
    presence: Literal["peak", "argmax", "all"] | PresenceModel
    correlation: float
    theta: float | Sequence[float]
    amplitude: float
    safe_screening: bool | Literal["auto"]
    eps: float
    rule: DatasetRule | str | PathLike[str]


@dataclass(frozen=True)
class Settings:
    """Checked options of one decision; :class:`rankseg.RankSEG` describes them."""

    metric: str = "dice"
    smooth: float = 0.0
    output_mode: str = "multiclass"
    solver: str = "RMA"
    pruning_prob: float = PRUNING_PROB
    presence: str | PresenceModel = "peak"
    unassigned_policy: str = "max_score"
    void_index: int = VOID_INDEX
    correlation: float = 0.0
    theta: float | tuple[float, ...] = THETA
    amplitude: float = 1.0
    eps: float = EPS
    rule: DatasetRule | None = None
    from_logits: str | None = None
    calibration: Calibration | None = None
