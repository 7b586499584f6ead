"""Choose how to decide on labelled maps, and say how much of the gain is the choosing.

`tune` decides every case by every candidate once. Then it is arithmetic on counts: the candidate
is chosen on some of the cases and scored on the others, in turn, which tells what choosing so is
worth on cases it has not seen; the one returned is chosen on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import product
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rankseg._common.arguments import choice, metric_name, number
from rankseg._decision.calibration import MOST, Calibration
from rankseg._decision.module import RankSEG
from rankseg._decision.settings import PRUNING_PROB
from rankseg._decision.settings_file import write_settings
from rankseg._decision.solvers import solvers_taking
from rankseg.evaluation import CaseFolder, Comparison, Method, argmax, compare
from rankseg.evaluation.differences import Difference, Floats
from rankseg.evaluation.folds import folds_of
from rankseg.evaluation.labelled_cases import Case, Failure, checked_cases, reasons
from rankseg.evaluation.methods import DEFAULT
from rankseg.metrics import Counted, Metric

__all__ = ["Candidate", "Tuning", "standard_candidates", "tune"]

FEWEST: Final = 10
"""With fewer cases or clusters than this, no choice differs significantly from chance."""


@dataclass(frozen=True)
class Candidate:
    """A way to decide, as options of `rankseg.RankSEG`; the simplest ones should come first.

    Parameters
    ----------
    options : mapping of str to object
        Keyword arguments. ``{"metric": "acc"}`` is argmax.
    """

    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called in tables: ``argmax``, or its options."""
        if self.options.get("metric") == "acc":
            return "argmax" + self._scale
        rest = {k: v for k, v in self.options.items() if k not in ("metric", "calibration")}
        named = [f"{key}={value}" for key, value in rest.items()]
        return " ".join([str(self.options.get("metric", "dice")), *named]) + self._scale

    @property
    def _scale(self) -> str:
        calibration = self.options.get("calibration")
        if calibration is None:
            return ""
        if isinstance(calibration, Calibration) and calibration.kind == "temperature":
            return f" T={1 / calibration.scale[0]:.3g}"
        return " calibrated"


def standard_candidates(
    metric: Metric = "dice",
    *,
    classes: int,
    solvers: Sequence[str] = solvers_taking("correlation"),
    correlations: Sequence[float] = (0.0, 0.5),
    pruning_probs: Sequence[float] = (0.0, 0.5, 0.8),
    presences: Sequence[str] = ("argmax",),
    temperatures: Sequence[float] = (1.0,),
    calibrations: Sequence[Calibration] = (),
) -> list[Candidate]:
    """Return argmax, RankSEG as it is by default, and then every combination of some options.

    Parameters
    ----------
    metric : {'dice', 'iou'}
        What is maximised.
    classes : int
        Of the maps. One channel has no ``joint``.
    solvers, correlations, pruning_probs, presences : sequence
        Values of these options. ``pruning_probs`` and ``presences`` stand for rules for which
        classes are in an image, and each is tried by itself.
    temperatures : sequence of float
        From 1e-06 to 1e+06: maps are calibrated by ``1 / temperature``, if it is not 1.
    calibrations : sequence of Calibration
        Others to try.

    Returns
    -------
    list of Candidate

    Raises
    ------
    ValueError
        If a temperature is outside this range.
    """
    link = "sigmoid" if classes == 1 else "softmax"
    scaled: list[Calibration | None] = [None, *calibrations]
    scaled += [
        Calibration(link, [1 / t] * classes, [0.0] * classes, "temperature")  # type: ignore[arg-type]
        for t in (number("every temperature", one, 1 / MOST, MOST) for one in temperatures)
        if t != 1
    ]
    solvers = [solver for solver in solvers if classes > 1 or solver != "joint"]
    found = [Candidate({"metric": "acc"}), Candidate({"metric": metric})]
    rules: list[dict[str, Any]] = [
        {"pruning_prob": pruning} if pruning != PRUNING_PROB else {} for pruning in pruning_probs
    ]
    same = "argmax" if classes == 1 else None  # of one channel it is the rule of peaks above 0.5
    rules += [{"presence": presence} for presence in presences if presence != same]
    for calibration, solver, correlation, rule in product(scaled, solvers, correlations, rules):
        options: dict[str, Any] = {"metric": metric, "solver": solver}
        options |= {"correlation": correlation} if correlation else {}
        options |= rule
        options |= {"calibration": calibration} if calibration is not None else {}
        found.append(Candidate(options))
    usual = {"metric": metric, "solver": DEFAULT[0], "correlation": DEFAULT[1]}
    unlike = [candidate for candidate in found if candidate.options != usual]
    return sorted(unlike, key=lambda one: len(one.options))


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was chosen, and what is to be expected of it.

    Attributes
    ----------
    chosen : Candidate
        The simplest candidate that is within a standard error of the best.
    gain : float
        Its mean score minus that of argmax on the cases it was chosen on, a fraction.
    held_out : Difference
        The gain on cases that were left out of the choice, fold by fold: what to expect.
    optimism : float
        ``gain - held_out.mean``: how much of the gain is the choosing.
    picked : tuple of str
        What was chosen without each of the folds.
    candidates : tuple of Candidate
        All that were compared.
    comparison : Comparison
        Their counts, by name.
    warnings : tuple of str
        Why the choice may mean little.
    """

    chosen: Candidate
    gain: float
    held_out: Difference
    optimism: float
    picked: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    comparison: Comparison
    warnings: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `rankseg.RankSEG`."""
        return dict(self.chosen.options)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the options, and what is to be expected of them, as JSON: whole or not at all.

        ``RankSEG.load(path)`` and ``rankseg predict --settings`` decide by the file; a calibration
        among the options is inside.
        """
        expected = {
            name: None if math.isnan(value) else value
            for name, value in asdict(self.held_out).items()
        }
        about = {
            "made": f"rankseg tune, {datetime.now().astimezone():%Y-%m-%d}",
            "cases": len(self.comparison.cases),
            "gain": self.gain,
            "held_out": expected,
            "optimism": self.optimism,
            "warnings": list(self.warnings),
        }
        write_settings(path, self.options, about)


def tune(
    cases: CaseFolder | Iterable[Case | Failure],
    metric: Metric = "dice",
    *,
    counted: Counted = "label",
    candidates: Sequence[Candidate] | None = None,
    ignore_index: int | None = None,
    folds: int = 5,
    clusters: Mapping[str, str] | None = None,
    seed: int = 0,
    track: Callable[[Any], Iterable[Any]] = iter,
) -> Tuning:
    """Choose a way to decide by cross-validation over cases.

    Parameters
    ----------
    cases : CaseFolder, or iterable of Case
        Labelled maps that the network was not trained on. A folder brings class names and
        ``ignore_index``.
    metric : {'dice', 'iou'}
        The mean over the classes of an image, then over images, is what is made large.
    counted : {'label', 'either'}
        When a class counts in an image: see `rankseg.metrics`.
    candidates : sequence of Candidate, optional
        Argmax first; by default `standard_candidates`. Put the simple ones before others: they
        are taken unless others are better by more than a standard error.
    ignore_index : int, optional
        Of an iterable: pixels whose label has this value do not count.
    folds : int
        Number of folds that the cases are split into, at least 2.
    clusters : mapping of str to str, optional
        The patient or sequence of every case, by its name: those of one stay together.
    seed : int
        Random seed for the split into folds.
    track : callable
        Called with the cases; returns them one by one, as ``rich.progress.track``.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If an option is not allowed, the first candidate is not argmax, there are fewer cases or
        clusters than folds, or not one case could be decided.

    Examples
    --------
    >>> from rankseg.evaluation import CaseFolder
    >>> from rankseg.tuning import tune
    >>> tuned = tune(CaseFolder.open("maps"), "dice")  # doctest: +SKIP
    >>> tuned.options, tuned.held_out.mean, tuned.optimism  # doctest: +SKIP
    """
    metric = metric_name(metric, ("dice", "iou"))  # type: ignore[assignment]
    counted = choice("counted", counted, ("label", "either"))  # type: ignore[assignment]
    names: Sequence[str] | None = None
    if isinstance(cases, CaseFolder):
        names, ignore_index = cases.name_classes() or None, cases.ignore_index
    else:
        cases = list(checked_cases(cases))
    if len(cases):
        folds_of(len(cases), folds, None, seed)  # wrong options are found before the work
    if candidates is None:
        candidates = standard_candidates(metric, classes=count_classes(cases))
    if not candidates or candidates[0].name != "argmax":
        raise ValueError("candidates must begin with Candidate({'metric': 'acc'}), argmax")
    comparison = compare(
        track(cases),
        [_method(candidate) for candidate in candidates],
        classes=names,
        ignore_index=ignore_index,
        clusters=clusters,
    )
    table = np.stack([comparison.differences(name, metric, counted) for name in comparison.methods])
    try:
        parts = folds_of(len(comparison.cases), folds, comparison.clusters, seed)
    except ValueError as error:
        raise ValueError(f"{error}{reasons(comparison.failures)}") from error
    everything = np.arange(len(comparison.cases))
    chosen = _choose(table)
    held_out = np.full(len(everything), math.nan)
    picked = []
    for part in parts:
        best = _choose(table[:, np.setdiff1d(everything, part)])
        held_out[part] = table[best, part]
        picked.append(candidates[best].name)
    honest = Difference.of(held_out, clusters=comparison.clusters)
    gain = float(np.nanmean(table[chosen])) if not np.isnan(table[chosen]).all() else math.nan
    return Tuning(
        chosen=candidates[chosen],
        gain=gain,
        held_out=honest,
        optimism=gain - honest.mean,
        picked=tuple(picked),
        candidates=tuple(candidates),
        comparison=comparison,
        warnings=tuple(
            _warnings(comparison, candidates, candidates[chosen], honest, picked, counted)
        ),
    )


def count_classes(cases: CaseFolder | Iterable[Case | Failure]) -> int:
    """Return the number of classes of a folder, or of the first case of others."""
    if isinstance(cases, CaseFolder) and cases.name_classes():
        return len(cases.name_classes())
    failures: list[Failure] = []
    for case in cases:
        if not isinstance(case, Failure):
            return len(case.probs)
        failures.append(case)
    raise ValueError(f"cases must hold one at least that can be read, got none{reasons(failures)}")


def _method(candidate: Candidate) -> Method:
    if candidate.name == "argmax":
        return Method("argmax", argmax)
    return Method(
        candidate.name, RankSEG(**candidate.options), candidate.options.get("correlation", 0.0)
    )


def _choose(table: Floats) -> int:
    """Return the first candidate within a standard error of the best, (candidates, cases)."""
    known: NDArray[np.float64] = table[:, ~np.isnan(table).any(0)]
    if not known.shape[1]:
        return 0
    best = int(known.mean(1).argmax())
    short = known[best] - known  # (candidates, cases)
    error = short.std(1, ddof=1) / math.sqrt(known.shape[1]) if known.shape[1] > 1 else 0.0
    return int((short.mean(1) <= error).argmax())


def _warnings(
    comparison: Comparison,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    honest: Difference,
    picked: Sequence[str],
    counted: Counted,
) -> Iterable[str]:
    units = len(set(comparison.clusters or comparison.cases))
    if units < FEWEST:
        kind = "cases" if comparison.clusters is None else "clusters"
        yield f"{units} {kind} are too few to tell a choice from chance"
    if chosen.name != "argmax" and not honest.low > 0:
        yield "the interval of the gain on held-out cases includes 0: argmax may do as well"
    if len(set(picked)) > 1:
        yield f"the folds do not agree: {', '.join(sorted(set(picked)))}"
    ours = [one.options for one in candidates if one.options.get("metric") != "acc"]
    rules = {(one.get("presence"), one.get("pruning_prob")) for one in ours}
    counts = comparison.counts[comparison.methods[0]]
    present = counts.tp + counts.fn > 0
    if len(rules) > 1 and bool(present.all()):
        yield (
            "every class is in every image, so these cases say nothing about presence: do not "
            "read a choice of presence or pruning_prob as one"
        )
    elif len(rules) > 1 and counted == "label":
        yield (
            "by counted='label' a false class costs nothing, so presence is not judged: take "
            "'either' to choose presence or pruning_prob"
        )
