"""Choose among candidates by nested cross-validation, and judge the choice on cases left out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from os import PathLike
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from rankseg._common.arguments import choice, integer, metric_name
from rankseg._common.public import public
from rankseg._decision.module import RankSEG
from rankseg._decision.settings_file import write_settings
from rankseg.evaluation import CaseFolder, Comparison, Method, argmax, compare
from rankseg.evaluation.comparison import Score
from rankseg.evaluation.decided_cases import decide_and_count
from rankseg.evaluation.differences import Difference, Floats
from rankseg.evaluation.folds import checked_folds, folds_of
from rankseg.evaluation.labelled_cases import Case, Failure, checked_cases, reasons
from rankseg.evaluation.verdict import interval, is_clear, quantity, signed
from rankseg.metrics import Counted, Counts, Metric
from rankseg.tuning.candidates import Candidate, standard_candidates
from rankseg.tuning.fits import Fits, Folds, sampled

__all__ = ["HELD_OUT", "Tuning", "standard_candidates_for", "tune"]

HELD_OUT: Final = "held out"
"""The name, in a comparison, of deciding every case by what was chosen without it."""

NOTHING: Final[Folds] = frozenset()


@public("rankseg.tuning")
@dataclass(frozen=True, eq=False)
class Tuning:
    """What was chosen, and what to expect of it.

    Attributes
    ----------
    chosen : Candidate
        ``best`` if its gain is clear, else argmax.
    best : Candidate
        The simplest candidate that is within a standard error of the best.
    options : dict
        Keyword arguments of `rankseg.RankSEG` for ``chosen``, with what was fitted to all cases.
    gain : float
        The mean score of ``best`` minus that of argmax, a fraction. What was fitted was fitted
        without the case, but the choice was made with it.
    held_out : Difference
        The same on cases left out of the choice and of all fits: what to expect on new cases.
    picked : tuple of str
        What was chosen without each of the folds.
    candidates : tuple of Candidate
        All that were compared.
    comparison : Comparison
        Their counts by name, and those of the choices under ``held out``.
    sentence : str
        What to expect on new cases.
    warnings : tuple of str
        Why the choice may mean little.
    """

    chosen: Candidate
    best: Candidate
    options: Mapping[str, Any]
    gain: float
    held_out: Difference
    picked: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    comparison: Comparison
    sentence: str
    warnings: tuple[str, ...]

    @property
    def optimism(self) -> float:
        """``gain - held_out.mean``: how much of the gain is the choosing, and no gain at all."""
        return self.gain - self.held_out.mean

    def save(self, path: str | PathLike[str]) -> None:
        """Write the options, and what to expect of them, as JSON: whole or not at all.

        ``RankSEG.load(path)`` and ``rankseg predict --settings`` decide by the file.
        """
        expected = {
            name: None if math.isnan(value) else value
            for name, value in asdict(self.held_out).items()
        }
        about = {
            "made": f"rankseg tune, {datetime.now().astimezone():%Y-%m-%d}",
            "cases": len(self.comparison.cases),
            "expect": self.sentence,
            "best": self.best.name,
            "gain": None if math.isnan(self.gain) else self.gain,
            "held_out": expected,
            "warnings": list(self.warnings),
        }
        write_settings(path, self.options, about)


def tune(
    cases: CaseFolder | Iterable[Case | Failure],
    metric: Metric = "dice",
    *,
    counted: Counted = "label",
    score: Score = "image",
    candidates: Sequence[Candidate] | None = None,
    ignore_index: int | None = None,
    folds: int | None = None,
    clusters: Mapping[str, str] | None = None,
    seed: int = 0,
    track: Callable[[Any], Iterable[Any]] = iter,
) -> Tuning:
    """Choose a way to decide by nested cross-validation over cases.

    Use it with 20 labelled cases or more that the network was not trained on. With fewer than six
    no gain is clear, and argmax is kept.

    Parameters
    ----------
    cases : CaseFolder, or iterable of Case
        Labelled maps. A folder brings class names, ``ignore_index`` and class weights, and is read
        two or three times.
    metric : {'dice', 'iou'}
        What is made large.
    counted : {'label', 'either'}
        When a class counts in an image: see `rankseg.metrics`.
    score : {'image', 'dataset'}
        Whether the score is the mean over the classes of an image, then over images, or the mean
        over classes of counts summed over the data set, as leaderboards have it.
    candidates : sequence of Candidate, optional
        Argmax first; by default `standard_candidates`. Put the simple ones before others: they
        are taken unless others are better by more than a standard error.
    ignore_index : int, optional
        Of an iterable: pixels whose label has this value do not count.
    folds : int, optional
        Number of folds that the cases are split into, at least 3. Default: 5, or as many as there
        are cases or clusters.
    clusters : mapping of str to str, optional
        The patient or sequence of every case, by its name: those of one stay together.
    seed : int
        Random seed for the split into folds and the pixels that are drawn.
    track : callable
        Called with the cases; returns them one by one, as ``rich.progress.track``.

    Returns
    -------
    Tuning

    Raises
    ------
    ValueError
        If an option is not allowed, the first candidate is not argmax, there are fewer than three
        cases or clusters, or fewer than folds, or not one case could be decided.

    Notes
    -----
    For every outer fold, candidates are fitted without it and without one more fold, which scores
    them; the best, by all such scores, is fitted without the outer fold and scored on it. These
    scores are ``held_out``. Calibrations and rules are fitted to some 100,000 pixels of all cases
    together, or 500 of each case if that is more.

    Examples
    --------
    >>> from rankseg.evaluation import cases
    >>> from rankseg.tuning import tune
    >>> tuned = tune(cases("maps", "labels"), "dice")  # doctest: +SKIP
    >>> print(tuned.sentence)  # doctest: +SKIP
    """
    metric = metric_name(metric, ("dice", "iou"))  # type: ignore[assignment]
    counted = choice("counted", counted, ("label", "either"))  # type: ignore[assignment]
    seed = integer("seed", seed)
    names: Sequence[str] | None = None
    if isinstance(cases, CaseFolder):
        names, ignore_index = cases.name_classes() or None, cases.ignore_index
    else:
        cases = list(checked_cases(cases))
    if len(cases):
        checked_folds(folds, len(cases), "cases")  # wrong options are found before the work
    if candidates is None:
        candidates = standard_candidates_for(cases, metric, counted=counted, score=score)
    if not candidates or candidates[0].name != "argmax":
        raise ValueError("candidates must begin with Candidate({'metric': 'acc'}), argmax")
    samples, watched = sampled(cases, len(cases), ignore_index, seed)
    fixed = compare(
        track(_Sized(watched, len(cases))),
        [_method(one.name, one.options) for one in candidates if not one.is_fitted],
        classes=names,
        ignore_index=ignore_index,
        clusters=clusters,
    )
    kind = "cases" if fixed.clusters is None else "clusters"
    try:
        number = checked_folds(folds, fixed.units, kind)
    except ValueError as error:
        raise ValueError(f"{error}{reasons(fixed.failures)}") from error
    parts = folds_of(len(fixed.cases), number, fixed.clusters, seed)
    fold_of = {fixed.cases[place]: fold for fold, part in enumerate(parts) for place in part}
    samples = {name: samples[name] for name in fixed.cases if name in samples}
    fits = Fits(samples, fold_of, ignore_index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parts: the fit to all cases warns of itself
        layers = _layers(cases, fixed, fits, candidates, number, track)
    return _chosen(layers, fits, candidates, metric, counted, score)


@dataclass(frozen=True)
class _Sized:
    """Cases that are read once, with their number, which a progress bar asks for."""

    cases: Iterable[Case | Failure]
    number: int

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Any:
        return iter(self.cases)


def standard_candidates_for(
    cases: CaseFolder | Sequence[Case | Failure], metric: Metric, **options: Any
) -> list[Candidate]:
    """Return `standard_candidates` for the size, classes and class weights of some cases."""
    first = _first_case(cases)
    weights = None
    if isinstance(cases, CaseFolder) and not cases.prior_correction:
        weights = cases.class_weights
    return standard_candidates(
        metric,
        classes=len(first.probs),
        class_weights=weights,
        values=first.probs.numel(),
        **options,
    )


def _first_case(cases: CaseFolder | Iterable[Case | Failure]) -> Case:
    """Return the first case that can be read, with as many classes as a folder has."""
    failures: list[Failure] = []
    expected = len(cases.name_classes()) if isinstance(cases, CaseFolder) else 0
    for case in cases:
        if isinstance(case, Failure):
            failures.append(case)
        elif len(case.probs) == (expected or len(case.probs)):
            return case
    raise ValueError(f"cases must hold one at least that can be read, got none{reasons(failures)}")


def _method(name: str, options: Mapping[str, Any]) -> Method:
    if set(options) == {"metric"} and options["metric"] == "acc":
        return Method(name, argmax)
    decide = RankSEG(**options)
    return Method(name, decide, decide.correlation)


@dataclass(frozen=True)
class _Layers:
    """Counts by outer fold and candidate.

    In layer ``k`` every case is decided by what was fitted without its own fold and without fold
    ``k``; the last layer leaves out its own fold only.
    """

    comparison: Comparison
    folds: Sequence[NDArray[np.int64]]
    counts: Sequence[Mapping[str, Counts]]


def _layers(
    cases: CaseFolder | Sequence[Case | Failure],
    fixed: Comparison,
    fits: Fits,
    candidates: Sequence[Candidate],
    folds: int,
    track: Callable[[Any], Iterable[Any]],
) -> _Layers:
    fitted = [one for one in candidates if one.is_fitted]
    layers: list[dict[str, Counts]] = [{} for _ in range(folds)]
    if fitted:
        of_presence = {one.kind for one in fitted if one.absent is not None}
        pairs = {frozenset({i, j}) for i in range(folds) for j in range(folds)}
        wanted = [
            (kind, left) for kind in of_presence for left in sorted(pairs | {NOTHING}, key=sorted)
        ]
        if wanted:
            fits.read_presence(_named(cases, fixed.cases), wanted)
        decided = _decide_fitted(cases, fits, fitted, folds, track)
        kept = [place for place, name in enumerate(fixed.cases) if name in set(decided.cases)]
        fixed = _rows(fixed, kept)
        order = [decided.cases.index(name) for name in fixed.cases]
        for layer, found in enumerate(layers):
            found.update(
                {one.name: _of(decided.counts[f"{layer} {one.name}"], order) for one in fitted}
            )
    parts = [
        np.array([place for place, name in enumerate(fixed.cases) if fits.fold_of[name] == fold])
        for fold in range(folds)
    ]
    own = np.array([fits.fold_of[name] for name in fixed.cases])
    return _Layers(
        fixed, parts, [{**fixed.counts, **found} for found in [*layers, _own(layers, own)]]
    )


def _decide_fitted(
    cases: CaseFolder | Sequence[Case | Failure],
    fits: Fits,
    fitted: Sequence[Candidate],
    folds: int,
    track: Callable[[Any], Iterable[Any]],
) -> Comparison:
    """Decide every case by every candidate as fitted without its fold, and without one more."""
    by_fold = sorted(fits.fold_of, key=lambda name: fits.fold_of[name])
    stream = iter(track(_named(cases, by_fold)))
    decided: Comparison | None = None
    for fold in range(folds):
        methods = [
            _method(f"{layer} {one.name}", fits.options(one, frozenset({fold, layer})))
            for layer in range(folds)
            for one in fitted
        ]
        number = sum(other == fold for other in fits.fold_of.values())
        part = decide_and_count(
            islice(stream, number), methods, ignore_index=fits.ignore_index, timed=False
        )
        decided = part if decided is None else decided + part
    assert decided is not None
    return decided


def _named(
    cases: CaseFolder | Sequence[Case | Failure], names: Sequence[str]
) -> CaseFolder | list[Case | Failure]:
    """Return the cases of some names, in their order."""
    if isinstance(cases, CaseFolder):
        return replace(cases, names=tuple(names))
    by_name = {case.name: case for case in cases}
    return [by_name[name] for name in names]


def _of(counts: Counts, places: Sequence[int] | NDArray[np.int64]) -> Counts:
    place = torch.as_tensor(places, dtype=torch.int64)
    return Counts(counts.tp[place], counts.fp[place], counts.fn[place])


def _rows(comparison: Comparison, places: Sequence[int]) -> Comparison:
    """Return the comparison of some of its cases."""
    clusters = comparison.clusters
    return replace(
        comparison,
        cases=tuple(comparison.cases[place] for place in places),
        counts={name: _of(counts, places) for name, counts in comparison.counts.items()},
        seconds={},
        clusters=None if clusters is None else tuple(clusters[place] for place in places),
        expected_volumes=None,
    )


def _own(layers: Sequence[Mapping[str, Counts]], own: NDArray[np.int64]) -> dict[str, Counts]:
    """Take every case from the layer of its own fold."""
    return {name: _mixed([layer[name] for layer in layers], own) for name in layers[0]}


def _mixed(parts: Sequence[Counts], which: NDArray[np.int64]) -> Counts:
    """Return counts whose row ``i`` is that of the part ``which[i]``."""
    place = which, np.arange(len(which))
    columns = (
        torch.stack([getattr(one, key) for one in parts])[place] for key in ("tp", "fp", "fn")
    )
    return Counts(*columns)


def _chosen(
    layers: _Layers,
    fits: Fits,
    candidates: Sequence[Candidate],
    metric: Metric,
    counted: Counted,
    score: Score,
) -> Tuning:
    """Choose without every fold in turn, and with all."""
    names = [one.name for one in candidates]
    comparison = layers.comparison

    def best_of(layer: Mapping[str, Counts], places: NDArray[np.int64]) -> int:
        part = _rows(
            replace(comparison, counts={name: layer[name] for name in names}), list(places)
        )
        table = [part.differences(name, metric, counted, score=score) for name in names]
        return _choose(np.stack(table))

    everything = np.arange(len(comparison.cases))
    picked = np.zeros(len(everything), np.int64)
    for layer, part in zip(layers.counts, layers.folds, strict=False):
        picked[part] = best_of(layer, np.setdiff1d(everything, part))
    last = layers.counts[-1]
    best = candidates[best_of(last, everything)]
    counts = {name: last[name] for name in names}
    counts[HELD_OUT] = _mixed(list(counts.values()), picked)
    comparison = replace(comparison, counts=counts)
    held_out = comparison.difference(HELD_OUT, metric, counted, score=score)
    clear = best.name != "argmax" and is_clear(held_out, comparison.units)
    chosen = best if clear else candidates[0]
    gains = comparison.differences(best.name, metric, counted, score=score)
    by_fold = [names[picked[part[0]]] for part in layers.folds if len(part)]
    return Tuning(
        chosen=chosen,
        best=best,
        options=fits.options(chosen, NOTHING),
        gain=float(np.nanmean(gains)) if not np.isnan(gains).all() else math.nan,
        held_out=held_out,
        picked=tuple(by_fold),
        candidates=tuple(candidates),
        comparison=comparison,
        sentence=_sentence(best, comparison, held_out, quantity(metric, score)),
        warnings=tuple(_warnings(comparison, candidates, by_fold, counted)),
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


def _sentence(best: Candidate, comparison: Comparison, held_out: Difference, what: str) -> str:
    cases = f"{len(comparison.cases)} cases"
    cases += "" if comparison.clusters is None else f" in {comparison.units} clusters"
    gain = (
        f"{signed(held_out.mean)} points of {what} (95 % interval {interval(held_out)}; {cases}, "
        "held out: each decided by what was chosen without it)"
    )
    name = best.name if best.options.get("metric") == "acc" else f"RankSEG {best.name}"
    if best.name == "argmax":
        return f"Argmax is kept: no candidate beats it by more than chance. Choosing gained {gain}."
    if is_clear(held_out, comparison.units):
        return f"On new cases expect {name} to gain on argmax {gain}."
    return f"Argmax is kept: it is not clear that {name} gains on it: {gain}."


def _warnings(
    comparison: Comparison, candidates: Sequence[Candidate], picked: Sequence[str], counted: Counted
) -> Iterable[str]:
    if len(set(picked)) > 1:
        yield f"the folds do not agree: {', '.join(sorted(set(picked)))}"
    rules = {(one.options.get("presence"), one.options.get("pruning_prob"), one.absent)
             for one in candidates if one.options.get("metric") != "acc"}  # fmt: skip
    counts = comparison.counts[comparison.methods[0]]
    if len(rules) > 1 and bool((counts.tp + counts.fn > 0).all()):
        yield (
            "every class is in every image, so these cases say nothing about presence: do not "
            "read a choice of presence or pruning_prob as one"
        )
    elif len(rules) > 1 and counted == "label":
        yield (
            "by counted='label' a false class costs nothing, so presence is not judged: take "
            "'either' to choose presence or pruning_prob"
        )
