"""What a comparison says in one sentence, and the command that is likeliest to help next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankseg import metrics
from rankseg._decision.module import RankSEG
from rankseg._decision.presence_model import FEWEST as FEWEST_FOR_PRESENCE
from rankseg._decision.presence_model import PresenceModel
from rankseg._decision.solvers import solvers_taking
from rankseg.evaluation.comparison import Comparison, Score
from rankseg.evaluation.differences import Difference
from rankseg.metrics import Counted, Metric

__all__ = [
    "COUNTED",
    "METRIC_NAMES",
    "Remedy",
    "Standing",
    "Verdict",
    "interval",
    "is_clear",
    "main_method",
    "points",
    "quantity",
    "signed",
    "standing",
    "verdict",
]

METRIC_NAMES: Final[dict[Metric, str]] = {"dice": "Dice", "iou": "IoU"}
COUNTED: Final[dict[Counted, str]] = {
    "label": "a class counts where the label holds it",
    "either": "a class predicted where it is absent scores 0",
}

MOST_ROWS: Final = 8
MOST_REMEDIES: Final = 2

FEWEST: Final = 6
"""Cases or clusters below which no gain is clear: five wins of five have p = 0.06 by signs."""

FEWEST_TO_FIT: Final = 5
"""Cases below which no fit is proposed: ``rankseg calibrate`` has five folds."""

NOTICEABLE_VOLUME: Final = 1.25
"""Expected over true volume of a class, or its inverse, from which calibration is proposed."""

NOTICEABLE_PRESENCE: Final = 0.05
"""Share of the classes of all cases, lost or invented, from which a fit of presence is proposed."""

STRONG_CORRELATION: Final = 0.8

NOTICEABLE_DOUBT: Final = 0.8
"""How often added pixels are right, over how often they must be: below it, a remedy is proposed."""


def points(score: float) -> str:
    """Write a score as points; a dash where there is none."""
    return "-" if math.isnan(score) else f"{100 * score:.2f}"


def signed(difference: float) -> str:
    """Write a difference as points; what rounds to nothing has no sign."""
    if math.isnan(difference):
        return "-"
    rounded = round(100 * difference, 2)
    return "0.00" if rounded == 0 else f"{rounded:+.2f}"


def interval(difference: Difference) -> str:
    """Write the ends of the interval as points."""
    if math.isnan(difference.low):
        return "-"
    return f"{signed(difference.low)} to {signed(difference.high)}"


def quantity(metric: Metric, score: Score = "image") -> str:
    """Return what is compared: ``Dice by image``, say."""
    return f"{METRIC_NAMES[metric]} {'by image' if score == 'image' else 'of the data set'}"


def main_method(comparison: Comparison, metric: Metric) -> str:
    """Return the first RankSEG method that maximises the metric, or else the first there is."""
    others = [name for name in comparison.methods[1:] if name != "pruned argmax"]
    fitting = [name for name in others if metric in name.split()]
    return (fitting or others or list(comparison.methods[-1:]))[0]


def is_clear(difference: Difference, units: int) -> bool:
    """Return whether the interval of a gain excludes 0, over cases enough to trust it."""
    return units >= FEWEST and difference.low > 0


@dataclass(frozen=True)
class Standing:
    """One row of the table of an answer.

    Attributes
    ----------
    method : str
        Its name.
    mean, worst_tenth : float
        The mean score, and that of the tenth of the cases with the lowest.
    change : Difference or None
        From the first method; None for that itself.
    false_zero : float
        The mean change if a class predicted where it is absent scores 0.
    """

    method: str
    mean: float
    worst_tenth: float
    change: Difference | None
    false_zero: float


def standing(
    comparison: Comparison,
    metric: Metric,
    counted: Counted = "label",
    *,
    score: Score = "image",
    main: Sequence[str] = (),
    most: int = MOST_ROWS,
) -> list[Standing]:
    """Return the first method, ``main``, and those that maximise the metric, ``most`` together."""
    other = {"dice": "iou", "iou": "dice"}[metric]
    fitting = [name for name in comparison.methods if other not in name.split()]
    first = dict.fromkeys([comparison.methods[0], *main, *fitting])
    shown = set([*first][:most])
    return [
        _stand(comparison, name, metric, counted, score)
        for name in comparison.methods
        if name in shown
    ]


def _stand(
    comparison: Comparison, method: str, metric: Metric, counted: Counted, score: Score
) -> Standing:
    means = metrics.summary(comparison.counts[method], metric, counted=counted, worst=(0.1,))
    change, false_zero = None, math.nan
    if method != comparison.methods[0]:
        change = comparison.difference(method, metric, counted, score=score)
        false_zero = comparison.difference(method, metric, "either").mean
    mean = means["I" if score == "image" else "D"]
    return Standing(method, mean, means["I@0.1"], change, false_zero)


@dataclass(frozen=True)
class Remedy:
    """What was measured, and the command that answers it."""

    reason: str
    command: str


@dataclass(frozen=True)
class Verdict:
    """What came out of a comparison.

    Attributes
    ----------
    sentence : str
        The gain of the method judged, its interval, and the number of cases.
    method : str
        The method judged.
    metric : {'dice', 'iou'}
        What it is judged by.
    remedies : tuple of Remedy
        What to try next, the likeliest to help first; two at most.
    """

    sentence: str
    method: str
    metric: Metric
    remedies: tuple[Remedy, ...]


def verdict(
    comparison: Comparison,
    metric: Metric = "dice",
    *,
    counted: Counted = "label",
    method: str = "",
    decide: object = None,
    maps: str = "",
    labels: str = "LABELS",
    class_weights: Sequence[float] | None = None,
    predict: str = "",
) -> Verdict:
    """Judge a method against the first, and find what to try next.

    Parameters
    ----------
    comparison : Comparison
        Of one method or more.
    metric, counted
        What the judgement is about.
    method : str
        The method judged, by default `main_method`.
    decide : RankSEG, optional
        What decides by the method: a remedy that it has already is not named.
    maps : str
        The maps and labels that were compared, as arguments of a command. Default: maps are not
        known, and the remedy is to compare the user's own.
    labels : str
        The folder of labels, if maps are not known.
    class_weights : sequence of float, optional
        The weights of the training loss, if the maps still hold them.
    predict : str
        The command that decides new maps by the method.

    Returns
    -------
    Verdict

    Notes
    -----
    Remedies, in this order: class weights that are known are undone; if the gain is clear, decide
    by it; if probabilities of a class sum to 1.25 times its true volume or more, or to 0.8 or less,
    calibrate; if 5 % of the classes of all images are lost or invented, fit presence; if the pixels
    that the method adds to argmax are right too rarely to pay, assume a stronger correlation; if
    the gain is not clear, ``rankseg tune``.
    """
    method = method or main_method(comparison, metric)
    if len(comparison.methods) == 1:
        mean = metrics.summary(comparison.counts[method], metric, counted=counted)["I"]
        sentence = (
            f"{method} scores {points(mean)} points of {quantity(metric)} ({_cases(comparison)})."
        )
        gain = Difference(math.nan, math.nan, math.nan, 0, 0, 0)
    else:
        gain = comparison.difference(method, metric, counted)
        baseline = comparison.methods[0]
        sentence = (
            f"{method} changes {quantity(metric)} of {baseline} by {signed(gain.mean)} points "
            f"(95 % interval {interval(gain)}, {_cases(comparison)}): {_judged(comparison, gain)}."
        )
    if not maps:
        found = [Remedy("decide your own maps", f"rankseg compare MAPS --labels {labels}")]
    else:
        known = _Known(
            comparison, metric, method, decide if isinstance(decide, RankSEG) else None, maps
        )
        found = [*_remedies(known, class_weights, predict, is_clear(gain, comparison.units))]
    return Verdict(sentence, method, metric, tuple(found[:MOST_REMEDIES]))


def _cases(comparison: Comparison) -> str:
    cases = len(comparison.cases)
    clusters = "" if comparison.clusters is None else f" in {comparison.units} clusters"
    return f"{cases} case{'' if cases == 1 else 's'}{clusters}"


def _judged(comparison: Comparison, gain: Difference) -> str:
    if is_clear(gain, comparison.units):
        return "a clear gain"
    if comparison.units < FEWEST:
        return f"fewer than {FEWEST} cases or clusters cannot tell"
    if gain.high < 0:
        return "a clear loss"
    return "these cases do not tell which is better"


@dataclass(frozen=True)
class _Known:
    """What remedies are found from."""

    comparison: Comparison
    metric: Metric
    method: str
    decide: RankSEG | None
    maps: str


def _remedies(
    known: _Known, class_weights: Sequence[float] | None, predict: str, clear: bool
) -> Iterator[Remedy]:
    enough = known.comparison.units >= FEWEST_TO_FIT
    if class_weights is not None and len({*class_weights}) > 1:
        yield Remedy(
            "meta.json names class weights of the training loss, which inflate rare classes: undo "
            "them",
            f"rankseg compare {known.maps} --prior-correction",
        )
    if clear and predict:
        yield Remedy("the gain is clear: decide new maps by it", predict)
    volume = _volume_remedy(known) if enough else None
    if volume is not None:
        yield volume
    presence = _presence_remedy(known, "none" if volume is None else "vector")
    if presence is not None:
        yield presence
    if not clear:
        doubtful = None if volume is not None else _doubtful_remedy(known)
        if doubtful is not None:
            yield doubtful
        if enough:
            yield Remedy(
                "try calibrations, presence and solvers together, judged on cases left out",
                f"rankseg tune {known.maps} -o settings.json",
            )


def _volume_remedy(known: _Known) -> Remedy | None:
    """Propose a calibration if probabilities sum to another volume than the true one."""
    expected, counts = known.comparison.expected_volumes, known.comparison.counts[known.method]
    if expected is None or (known.decide is not None and known.decide.calibration is not None):
        return None
    true = (counts.tp + counts.fn).sum(0).numpy()
    held = known.comparison.images_by_class >= min(3, len(known.comparison.cases))
    ratio = np.where(held & (true > 0), expected.sum(0) / np.maximum(true, 1), 1.0)
    factor = np.exp(np.abs(np.log(np.maximum(ratio, 1e-9))))
    worst = int(factor.argmax())
    if factor[worst] < NOTICEABLE_VOLUME:
        return None
    return Remedy(
        f"the probabilities of {known.comparison.classes[worst]} sum to {ratio[worst]:.2f} times "
        "its true volume: calibrate, so that they come true as often as they say",
        f"rankseg calibrate {known.maps} --kind vector -o calibration.json",
    )


def _presence_remedy(known: _Known, kind: str) -> Remedy | None:
    """Propose to fit which classes an image holds, if the method is often wrong about that."""
    is_fitted = known.decide is not None and isinstance(
        known.decide.settings.presence, PresenceModel
    )
    if len(known.comparison.cases) < FEWEST_FOR_PRESENCE or is_fitted:
        return None
    counts = known.comparison.counts[known.method]
    held, found = counts.tp + counts.fn > 0, counts.tp + counts.fp > 0
    lost, invented = int((held & ~found).sum()), int((~held & found).sum())
    if lost + invented < NOTICEABLE_PRESENCE * held.numel():
        return None
    return Remedy(
        f"of {held.numel()} classes of images, {lost} are lost and {invented} invented: fit "
        "presence, the classes that an image holds",
        f"rankseg calibrate {known.maps} --kind {kind} --presence zero -o calibration.json",
    )


def _doubtful_remedy(known: _Known) -> Remedy | None:
    """Propose a stronger correlation if pixels that the method adds are right too rarely.

    A pixel raises a Dice of ``f`` if it is right more often than ``f / 2``, an IoU more often than
    ``f / (1 + f)``.
    """
    decide = known.decide
    if decide is None or decide.solver not in solvers_taking("correlation"):
        return None
    if decide.correlation >= STRONG_CORRELATION:
        return None
    comparison, metric = known.comparison, known.metric
    theirs, ours = (
        comparison.counts[name].total() for name in (comparison.methods[0], known.method)
    )
    score = metrics.dice if metric == "dice" else metrics.iou
    reached = score(theirs)[0].nan_to_num().numpy()
    needed = reached / (2 if metric == "dice" else 1 + reached)
    right = (ours.tp - theirs.tp)[0].numpy()
    added = right + (ours.fp - theirs.fp)[0].numpy()
    grows = added > 0
    if not grows.any() or right[grows].sum() > NOTICEABLE_DOUBT * (needed * added)[grows].sum():
        return None
    share, least = (
        100 * part[grows].sum() / added[grows].sum() for part in (right, needed * added)
    )
    solver = "" if decide.solver == "RMA" else f" --solver {decide.solver}"
    return Remedy(
        f"of the pixels that {known.method} adds, {share:.0f} % are right, and {least:.0f} % would "
        "pay: doubtful pixels are included too often; assume that errors come together",
        f"rankseg compare {known.maps}{solver} --correlation {STRONG_CORRELATION}",
    )
