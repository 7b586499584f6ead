"""The checks of all options: each alone, then how they combine. They run once, in `parse`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from rankseg._common.arguments import (
    METRIC_NAMES,
    choice,
    integer,
    metric_name,
    nearest,
    number,
    shown,
)
from rankseg._common.warn import warn
from rankseg._decision.calibration import LINKS, Calibration
from rankseg._decision.dataset_rule import DatasetRule
from rankseg._decision.presence_model import PresenceModel
from rankseg._decision.settings import (
    EPS,
    OUTPUT_MODES,
    PRUNING_PROB,
    THETA,
    VOID_INDEX,
    Settings,
)
from rankseg._decision.solvers import SOLVERS, solvers_for, solvers_taking
from rankseg._files.small import opened

__all__ = ["checked", "combined", "parse", "refuse_misspelt", "smoothing"]

METRICS = ("dice", "iou", "acc")
POLICIES = ("max_score", "void")
PRESENCE = ("peak", "argmax", "all")
USUAL_CORRELATION = 0.5
"""The correlation of ``solver='auto'``: see ``docs/presence.md`` for the measurements."""

LARGEST_SMOOTH = 2.0**100
"""Every larger ``smooth`` gives the same decisions, but its sums and squares would overflow.

``(a + g) / (b + 2 g)`` is 1/2 to the last bit of a float64 if ``a`` and ``b`` are below 2**46.
"""

NAMED_BY_STRINGS = {
    "metric": (*METRICS, *METRIC_NAMES),
    "output_mode": OUTPUT_MODES,
    "solver": ("auto", *SOLVERS),
    "unassigned_policy": POLICIES,
    "presence": PRESENCE,
    "from_logits": LINKS,
}
"""The options that are strings, and the strings they take."""

POSITIONS = {
    "metric": "first",
    "smooth": "second",
    "output_mode": "third",
    "solver": "fourth",
    "pruning_prob": "fifth",
}
"""Options that RankSEG takes by position."""

OF_THE_CALL = ("probs", "valid")
"""Arguments of the call of a RankSEG, which are no options."""


def parse(
    metric: str,
    smooth: float,
    output_mode: str,
    solver: str,
    pruning_prob: float | None,
    options: Mapping[str, Any],
    from_logits: str | None = None,
    calibration: object = None,
) -> Settings:
    """Return the settings that the options give, after all checks.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If the value of an option is not allowed, or solver, metric and output mode do not combine.
    """
    metric = checked("metric", metric)
    output_mode = checked("output_mode", output_mode)
    named = checked("solver", solver)
    solver = combined(named, metric, output_mode, options)
    _refuse_unknown(options, solver, output_mode)
    rule: DatasetRule | None = checked("rule", options.get("rule"))
    _check_rule(rule, solver, metric, output_mode)
    checked("safe_screening", options.get("safe_screening", False))
    link: str | None = checked("from_logits", from_logits)
    applied: Calibration | None = checked("calibration", calibration)
    if applied is not None and link not in (None, applied.link):
        raise ValueError(
            f"calibration must be for from_logits={link!r}, got one for {applied.link!r}"
        )
    correlates = "correlation" in SOLVERS[solver].options[output_mode]
    usual = USUAL_CORRELATION if named == "auto" and correlates else 0.0
    least_peak: float | None = checked("pruning_prob", pruning_prob)
    presence = _presence_rule(options.get("presence"), least_peak)
    if presence is None:
        fitted = applied.presence if applied is not None and least_peak is None else None
        if fitted is not None and "presence" not in SOLVERS[solver].options[output_mode]:
            fitted = None
            _warn_of_unused_presence(solver, metric)
        presence = fitted or ("peak" if least_peak is not None else SOLVERS[solver].presence)
    return Settings(
        metric=metric,
        smooth=smoothing(smooth),
        output_mode=output_mode,
        solver=solver,
        pruning_prob=PRUNING_PROB if least_peak is None else least_peak,
        presence=presence,
        unassigned_policy=checked(
            "unassigned_policy", options.get("unassigned_policy", "max_score")
        ),
        void_index=checked("void_index", options.get("void_index", VOID_INDEX)),
        correlation=checked("correlation", options.get("correlation", usual)),
        theta=checked("theta", options.get("theta", THETA)),
        amplitude=checked("amplitude", options.get("amplitude", Settings.amplitude)),
        eps=checked("eps", options.get("eps", EPS)),
        rule=rule,
        from_logits=link,
        calibration=applied,
    )


def _presence_rule(given: object, least_peak: float | None) -> str | PresenceModel | None:
    """Return the presence rule that is given, or None if none is given."""
    rule: str | PresenceModel | None = checked("presence", given)
    if rule not in (None, "peak") and least_peak is not None:
        raise ValueError(
            f"pruning_prob goes with presence='peak', got {least_peak:g} with "
            f"presence={shown(rule)}: leave one of the two out"
        )
    return rule


def _warn_of_unused_presence(solver: str, metric: str) -> None:
    """Warn that a solver ignores the presence model of the calibration, unless metric is 'acc'."""
    if metric != "acc":
        warn(
            f"solver={solver!r} leaves out the presence model of the calibration, taking classes "
            f"whose largest probability exceeds {PRUNING_PROB}; {_meant('presence')}, or pass "
            f"pruning_prob={PRUNING_PROB} to say so"
        )


def smoothing(value: object) -> float:
    """Return ``smooth``, but at most `LARGEST_SMOOTH`."""
    given: float = checked("smooth", value)
    return min(given, LARGEST_SMOOTH)


def _check_rule(rule: DatasetRule | None, solver: str, metric: str, output_mode: str) -> None:
    """Refuse a rule that is missing, or was fitted to another metric or another kind of output."""
    needed = SOLVERS[solver].needs
    if rule is None:
        if needed is not None:
            raise ValueError(f"solver={solver!r} needs the option {needed}, got none")
        return
    asked = {"metric": metric, "output_mode": output_mode}
    if rule.classes == 1:  # masks and labels are the same
        del asked["output_mode"]
    for name, value in asked.items():
        fitted = getattr(rule, name)
        if fitted != value:
            raise ValueError(
                f"rule must be for {name}={value!r}, got one for {fitted!r}; pass {name}={fitted!r}"
            )


def _screening(value: object) -> object:
    """Check the published package's option ``safe_screening``, which has no effect here."""
    if not isinstance(value, bool) and not (isinstance(value, str) and value == "auto"):
        raise TypeError(f"safe_screening must be a bool or 'auto', got {shown(value)}")
    return value


def _theta(value: object) -> float | tuple[float, ...]:
    """Return the width of a kernel, or one for every spatial axis."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("theta must hold a number for every spatial axis, got none")
        return tuple(_width(one) for one in value)
    return _width(value)


def _width(value: object) -> float:
    if isinstance(value, float) and value == math.inf:
        return value
    try:
        return number("theta", value, 0.0, math.inf, excluded=(0.0,))
    except ValueError:
        raise ValueError(f"theta must be above 0, in pixels, or inf, got {shown(value)}") from None


CHECKS: dict[str, Callable[[Any], Any]] = {
    "metric": lambda value: metric_name(value, METRICS),
    "smooth": lambda value: number("smooth", value, 0.0, math.inf),
    "output_mode": lambda value: choice("output_mode", value, OUTPUT_MODES),
    "solver": lambda value: choice("solver", value, ("auto", *SOLVERS)),
    "pruning_prob": lambda value: (
        None if value is None else number("pruning_prob", value, 0.0, 1.0)
    ),
    "presence": lambda value: (
        value
        if value is None or isinstance(value, PresenceModel)
        else choice("presence", value, PRESENCE)
    ),
    "from_logits": lambda value: None if value is None else choice("from_logits", value, LINKS),
    "calibration": lambda value: opened("calibration", Calibration, value),
    "rule": lambda value: opened("rule", DatasetRule, value),
    "unassigned_policy": lambda value: choice("unassigned_policy", value, POLICIES),
    "void_index": lambda value: integer("void_index", value),
    "correlation": lambda value: number("correlation", value, 0.0, 1.0, excluded=(1.0,)),
    "theta": _theta,
    "amplitude": lambda value: number("amplitude", value, 0.0, 1.0),
    "eps": lambda value: number("eps", value, 0.0, 1.0, excluded=(0.0, 1.0)),
    "safe_screening": _screening,
}
"""The check of every option alone: it returns the value used, or raises."""


def checked(name: str, value: object) -> Any:
    """Return the value of an option in the form used; raise if the check of `CHECKS` fails."""
    try:
        return CHECKS[name](value)
    except (TypeError, ValueError) as error:
        hint = _misplaced(name, value)
        if not hint:
            raise
        raise type(error)(f"{error}; {hint}") from None


def _misplaced(name: str, value: object) -> str:
    """Return a hint for a value that belongs to another option, or ``''``.

    Most often the value was given by position.
    """
    if name == "metric" and isinstance(value, np.ndarray | Tensor):
        return "RankSEG takes options, and the call takes the maps: RankSEG()(probs)"
    key = value.strip().lower() if isinstance(value, str) else ""
    meant = [
        f"{other}={value!r}"
        for other, names in NAMED_BY_STRINGS.items()
        if key in [known.lower() for known in names]
    ]
    if not meant or name not in POSITIONS:
        return "; ".join(f"pass {option}" for option in meant)
    return f"{name} is the {POSITIONS[name]} positional argument of RankSEG: pass {meant[0]}"


def combined(solver: str, metric: str, output_mode: str, options: Mapping[str, Any]) -> str:
    """Return the solver, for ``'auto'`` the default one; raise if it does not fit the rest.

    If an option is given that only one solver takes and needs, ``'auto'`` is that solver.
    """
    fitting = solvers_for(metric, output_mode)
    if solver == "auto":
        meant = [name for name in fitting if options.get(SOLVERS[name].needs or "") is not None]
        defaults = [name for name in fitting if output_mode in SOLVERS[name].default_for]
        solver = (meant or defaults)[0]
    if solver not in fitting:
        raise ValueError(
            f"solver={solver!r} does not decide metric={metric!r} with "
            f"output_mode={output_mode!r}; the solvers that do are {['auto', *fitting]}"
        )
    return solver


def _refuse_unknown(options: Mapping[str, Any], solver: str, output_mode: str) -> None:
    allowed = SOLVERS[solver].options[output_mode]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        message = (
            f"solver={solver!r} with output_mode={output_mode!r} takes the options "
            f"{sorted(allowed)}, got {unknown}"
        )
        raise TypeError("; ".join([message, *filter(None, map(_meant, unknown))]))


def _meant(option: str) -> str:
    """Return a hint about an option that the solver does not take, or ``''`` if there is none."""
    solvers = solvers_taking(option)
    if solvers:
        modes = [mode for mode in OUTPUT_MODES if solvers_taking(option, mode)]
        output = f" and output_mode={modes[0]!r}" if len(modes) == 1 else ""
        return f"{option} goes with a solver in {list(solvers)}{output}"
    if option in OF_THE_CALL:
        return f"{option} goes into the call: RankSEG()(probs, valid)"
    if option in CHECKS:
        return f"{option} is an argument of its own: RankSEG({option}=...)"
    near = nearest(option.lower(), (*CHECKS, *OF_THE_CALL))
    cure = "" if near is None else f"for {option}, did you mean {near}?"
    if near == "void_index":
        cure += " That labels pixels that do not count: RankSEG()(probs, valid=labels != 255)"
    return cure


def refuse_misspelt(name: str) -> None:
    """Raise for a new attribute of a RankSEG that is spelt like an option; warn of any other."""
    near = difflib.get_close_matches(name.lower(), (*CHECKS, "solver_params"), 1)
    if near:
        raise AttributeError(f"RankSEG has no option {name!r}; did you mean {near[0]!r}?")
    warn(f"RankSEG has no option {name!r}: the attribute is kept, and no decision depends on it")
