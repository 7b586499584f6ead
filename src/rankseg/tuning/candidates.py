"""Ways to decide that are worth trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rankseg._common.arguments import choice
from rankseg._common.public import public
from rankseg.calibration import Calibration
from rankseg.evaluation.comparison import Score
from rankseg.metrics import Counted, Metric

__all__ = ["Candidate", "standard_candidates"]

Kind = Literal["temperature", "vector"]
Absent = Literal["ignored", "zero"]

LARGEST_FOR_DEP: Final = 1 << 19
"""Probabilities of a map above which DEP is not tried by default.

It takes 5 to 30 times as long as RMA (``docs/dependent.md``): a tenth of a second for a map of this
size."""


@public("rankseg.tuning")
@dataclass(frozen=True)
class Candidate:
    """A way to decide: options of `rankseg.RankSEG`, and what is fitted for it.

    Parameters
    ----------
    options : mapping of str to object
        Keyword arguments. ``{"metric": "acc"}`` is argmax.
    kind : {'temperature', 'vector'}, optional
        The kind of calibration that is fitted: see `rankseg.calibration.fit`.
    absent : {'zero', 'ignored'}, optional
        A model of which classes an image holds is fitted for this way to score absent classes: see
        `rankseg.calibration.PresenceModel`.
    rule : bool
        Whether a `rankseg.dataset.DatasetRule` is fitted, to the calibrated maps.
    """

    options: Mapping[str, Any]
    kind: Kind | None = None
    absent: Absent | None = None
    rule: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether anything is fitted to cases."""
        return self.rule or self.kind is not None or self.absent is not None

    @property
    def name(self) -> str:
        """Name in tables: ``argmax``, or the options and what is fitted."""
        options = dict(self.options)
        calibration = options.pop("calibration", None)
        metric = options.pop("metric", "dice")
        parts = ["argmax" if metric == "acc" else metric]
        parts += [f"{key}={value}" for key, value in options.items()]
        parts += ["presence=fitted"] if self.absent else []
        parts += ["rule"] if self.rule else []
        if isinstance(calibration, Calibration):
            calibration = calibration.kind
        parts += [str(one) for one in (calibration, self.kind) if one]
        return " ".join(parts)


def standard_candidates(
    metric: Metric = "dice",
    *,
    classes: int,
    counted: Counted = "label",
    score: Score = "image",
    class_weights: Sequence[float] | None = None,
    values: int | None = None,
    solvers: Sequence[str] = (),
    correlations: Sequence[float] = (),
    presences: Sequence[str] = (),
    calibrations: Sequence[Calibration] = (),
) -> list[Candidate]:
    """Return argmax, RankSEG by default, and what may be better, the simplest first.

    The list is no full product. Solver, correlation and rule of presence are each changed alone.
    Calibrations and presence are combined, since calibrated maps hold other classes. What is asked
    for by name is added, alone.

    Parameters
    ----------
    metric : {'dice', 'iou'}
        What is maximised.
    classes : int
        Of the maps.
    counted : {'label', 'either'}
        Presence is fitted only if a false class costs something, by ``'either'``. Otherwise
        ``presence="all"`` is tried.
    score : {'image', 'dataset'}
        With ``'dataset'``, rules for the score of a whole data set are tried in place of rules of
        presence.
    class_weights : sequence of float, optional
        Of the training loss: undoing them is tried, too.
    values : int, optional
        How many probabilities a map holds. DEP is tried if there are 524,288 at most: it takes 5
        to 30 times as long as RMA. Default: DEP is not tried.
    solvers, correlations, presences, calibrations : sequence
        Others to try.

    Returns
    -------
    list of Candidate

    Examples
    --------
    >>> from rankseg.tuning import standard_candidates
    >>> [candidate.name for candidate in standard_candidates("iou", classes=3, score="dataset")]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['argmax', 'iou', 'iou solver=RMA', 'iou correlation=0.8', 'iou temperature', 'iou vector',
     'argmax vector', 'iou rule', 'iou rule temperature', 'iou rule vector']
    """
    choice("score", score, ("image", "dataset"))
    base = {"metric": metric}
    changes: list[dict[str, Any]] = [{"solver": "RMA"}, {"correlation": 0.8}]
    rules: list[dict[str, Any]] = []
    if score == "image":
        changes.append({"pruning_prob": 0.8})
        rules = [{"presence": "argmax"}] if classes > 1 else []
        rules += [{"presence": "all"}] if counted == "label" else []
    if values is not None and values <= LARGEST_FOR_DEP:
        changes.append({"solver": "DEP"})
    changes += [{"solver": one} for one in solvers]
    changes += [{"correlation": one} for one in correlations]
    changes += [{"presence": one} for one in presences]
    changes += [{"calibration": one} for one in calibrations]
    if class_weights is not None and len({*class_weights}) > 1:
        changes.append({"calibration": Calibration.from_class_weights(class_weights)})
    kinds: tuple[Kind, ...] = ("temperature", "vector")
    found = [Candidate({"metric": "acc"}), Candidate(base)]
    found += [Candidate(base | change) for change in (*rules, *changes)]
    found += [Candidate(base, kind) for kind in kinds]
    if score == "dataset":
        found.append(Candidate({"metric": "acc"}, "vector"))
        found += [Candidate(base, kind, rule=True) for kind in (None, *kinds)]
    elif counted == "either":
        found += [Candidate(base, kind, "zero") for kind in (None, "vector")]
    found += [Candidate(base | rule, "vector") for rule in rules]
    return [one for place, one in enumerate(found) if one not in found[:place]]
