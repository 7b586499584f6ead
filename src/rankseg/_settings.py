"""What is to be decided: every option, checked once, when it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, TypedDict

from rankseg._arguments import choice, describe, integer, number
from rankseg._calibration import LINKS, Calibration

__all__ = ["Settings", "SolverOptions"]

METRICS = {"dice": "dice", "iou": "iou", "acc": "acc", "accuracy": "acc"}
OUTPUT_MODES = ("multiclass", "multilabel")
POLICIES = ("max_score", "void")
VOID_INDEX = 255
EPS = 1e-4


class SolverOptions(TypedDict, total=False):
    """Options that only some solvers take; :class:`rankseg.RankSEG` describes them."""

    unassigned_policy: Literal["max_score", "void"]
    void_index: int
    correlation: float
    safe_screening: bool | Literal["auto"]
    eps: float


@dataclass(frozen=True)
class Support:
    """The metrics and outputs a solver decides for, and the options it takes with each output.

    For the outputs in ``binary`` it decides a single channel only.
    """

    metrics: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    binary: tuple[str, ...] = ()


MASKS_BY_VOLUME = Support(
    ("dice",), {"multiclass": ("eps", "void_index"), "multilabel": ("eps",)}, binary=("multiclass",)
)
"""BA and TRNA: the paper says how to decide a mask, and not how to share pixels among classes."""


SUPPORT = {
    "RMA": Support(
        ("dice", "iou"),
        {
            "multiclass": ("unassigned_policy", "void_index", "correlation", "safe_screening"),
            "multilabel": ("correlation", "safe_screening"),
        },
    ),
    "joint": Support(
        ("dice", "iou"), {"multiclass": ("unassigned_policy", "void_index", "correlation")}
    ),
    "exact": Support(
        ("dice", "iou"),
        {
            "multiclass": ("unassigned_policy", "void_index", "correlation"),
            "multilabel": ("correlation",),
        },
    ),
    "BA": MASKS_BY_VOLUME,
    "TRNA": MASKS_BY_VOLUME,
    "BA+TRNA": MASKS_BY_VOLUME,
    "TR": Support(("acc",), {"multilabel": ()}),
    "argmax": Support(("acc",), {"multiclass": ("void_index",), "multilabel": ()}),
}
"""In order of preference: ``'auto'`` takes the first that decides for metric and output."""


@dataclass(frozen=True)
class Settings:
    """Checked options of one decision; :class:`rankseg.RankSEG` describes them."""

    metric: str = "dice"
    smooth: float = 0.0
    output_mode: str = "multiclass"
    solver: str = "RMA"
    pruning_prob: float = 0.5
    unassigned_policy: str = "max_score"
    void_index: int = VOID_INDEX
    correlation: float = 0.0
    eps: float = EPS
    from_logits: str | None = None
    calibration: Calibration | None = None

    @classmethod
    def parse(
        cls,
        metric: str,
        smooth: float,
        output_mode: str,
        solver: str,
        pruning_prob: float,
        options: Mapping[str, Any],
        from_logits: str | None = None,
        calibration: object = None,
    ) -> Settings:
        """Check every option and the way they combine.

        Raises
        ------
        TypeError
            If an option is of the wrong type, or is not one that the solver takes.
        ValueError
            If an option is outside what is allowed, or solver, metric and output do not combine.
        """
        metric = METRICS[choice("metric", metric, METRICS)]
        output_mode = choice("output_mode", output_mode, OUTPUT_MODES)
        solver = choice("solver", solver, ("auto", *SUPPORT))
        solver = _combine(solver, metric, output_mode)
        _refuse_unknown(options, solver, output_mode)
        _check_screening(options.get("safe_screening", False))
        link = None if from_logits is None else choice("from_logits", from_logits, LINKS)
        return cls(
            metric=metric,
            smooth=number("smooth", smooth, 0.0, math.inf),
            output_mode=output_mode,
            solver=solver,
            pruning_prob=number("pruning_prob", pruning_prob, 0.0, 1.0),
            unassigned_policy=choice(
                "unassigned_policy", options.get("unassigned_policy", "max_score"), POLICIES
            ),
            void_index=integer("void_index", options.get("void_index", VOID_INDEX)),
            correlation=number(
                "correlation", options.get("correlation", 0.0), 0.0, 1.0, excluded=(1.0,)
            ),
            eps=number("eps", options.get("eps", EPS), 0.0, 1.0, excluded=(0.0, 1.0)),
            from_logits=link,
            calibration=_open_calibration(calibration, link),
        )


def _open_calibration(calibration: object, from_logits: str | None) -> Calibration | None:
    """Return a calibration that is given itself or as the path of its file."""
    if isinstance(calibration, str | PathLike):
        calibration = Calibration.load(calibration)
    if calibration is None:
        return None
    if not isinstance(calibration, Calibration):
        raise TypeError(
            "calibration must be a Calibration or the path of a file of one, got "
            f"{describe(calibration)}"
        )
    if from_logits not in (None, calibration.link):
        raise ValueError(
            f"calibration must be for from_logits={from_logits!r}, got one for {calibration.link!r}"
        )
    return calibration


def _combine(solver: str, metric: str, output_mode: str) -> str:
    """Return the solver named, or the preferred one for ``'auto'``, if it fits the rest."""
    fitting = [
        name
        for name, support in SUPPORT.items()
        if metric in support.metrics and output_mode in support.options
    ]
    if solver == "auto":
        return fitting[0]
    if solver not in fitting:
        raise ValueError(
            f"solver={solver!r} does not decide metric={metric!r} with "
            f"output_mode={output_mode!r}; the solvers that do are {['auto', *fitting]}"
        )
    return solver


def _refuse_unknown(options: Mapping[str, Any], solver: str, output_mode: str) -> None:
    allowed = SUPPORT[solver].options[output_mode]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise TypeError(
            f"solver={solver!r} with output_mode={output_mode!r} takes the options "
            f"{sorted(allowed)}, got {unknown}"
        )


def _check_screening(value: object) -> None:
    """Accept the published package's ``safe_screening``: nothing here needs screening."""
    if not isinstance(value, bool) and value != "auto":
        raise TypeError(f"safe_screening must be a bool or 'auto', got {value!r}")
