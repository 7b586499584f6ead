"""Cases that several methods decide, counted against their labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rankseg import metrics
from rankseg._common.arguments import distinct_names, number
from rankseg._common.warn import about
from rankseg._files.batch import reason_of
from rankseg.evaluation.clusters import clusters_of
from rankseg.evaluation.comparison import Comparison
from rankseg.evaluation.counted_cases import CountedCase, assemble, leave_out, refuse_nothing
from rankseg.evaluation.differences import TIE
from rankseg.evaluation.labelled_cases import Case, Failure
from rankseg.evaluation.methods import Method
from rankseg.evaluation.predictions import predicted_gains
from rankseg.evaluation.seen_labels import SeenLabels
from rankseg.metrics import METRICS, Counts

__all__ = ["compare", "decide_and_count"]


def compare(
    cases: Iterable[Case | Failure],
    methods: Sequence[Method],
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    predict_above: float | None = None,
    clusters: Mapping[str, str] | None = None,
    band: float = TIE,
) -> Comparison:
    """Decide every case by every method, and count.

    Decisions are made on the maps in float32, one image at a time, and know nothing of the label:
    ignored pixels are decided too, and left out of the counts only. One class is scored as
    foreground against background; with several, all count, the background among them.

    Parameters
    ----------
    cases : iterable of Case or Failure
        Say a `CaseFolder`. Only one is held at a time.
    methods : sequence of Method
        At least one; the first is the baseline of the differences.
    classes : sequence of str, optional
        Names of the classes; by default those of the first case are numbered.
    ignore_index : int, optional
        Pixels whose label has this value do not count. Default: all do. With two classes or one,
        labels of 0 and 255 are then read as 0 and 1.
    predict_above : float, optional
        In [0, 1]: predict what the methods gain on the first, too, over the classes whose largest
        probability in the image exceeds this, which should be the methods' own ``pruning_prob``.
        See the notes. Default: predict nothing; with predictions it takes some five times as long,
        and some fifty times where methods assume a correlation.
    clusters : mapping of str to str, optional
        The patient or sequence of every case, by the case's name: see `Comparison`.
    band : float
        At least 0: differences of at most this are ties, by default those of rounding.

    Returns
    -------
    Comparison
        Of the cases that could be compared. The others are among its failures: those that came as
        such, have another number of classes, do not fit into memory, are refused by a method or
        the count (values that are no probabilities, labels that are no class), or are masks of 0
        and ``ignore_index`` among masks of 0 and 1 of which none holds ``ignore_index``.

    Raises
    ------
    TypeError
        If ``predict_above`` is no number.
    ValueError
        If there is no method, two methods or two cases have one name, ``predict_above`` is outside
        [0, 1], not one case could be compared, or no pixel that counts is of class 1 or above.

    Notes
    -----
    The predicted gain is the expected score of a method's decision under the probabilities
    themselves, minus that of the first method's, in the unit of the achieved one: the mean over
    classes of an image, then over images. It knows no label. So it is over the classes whose
    largest probability exceeds ``predict_above``, where the achieved gain is over those that count
    by the label; and over all pixels, those that the label ignores among them. Pruned argmax is
    predicted next to nothing: what it changes, it changes for classes that are left out.

    Both decisions are scored under the correlation that the method assumes, so that the predicted
    gain is what ``RankSEG.decide(probs).expected_gain`` tells the method's user. Hold it against
    what this method achieved, not against what one of another correlation promises. Where the two
    differ by more than chance, the probabilities or the assumption are wrong.

    Examples
    --------
    >>> import torch
    >>> from rankseg.evaluation import Case, compare, standard_methods
    >>> probs = torch.tensor([[0.1, 0.55, 0.9, 0.9], [0.9, 0.45, 0.1, 0.1]])
    >>> case = Case("strip", probs, torch.tensor([1, 1, 0, 0]))
    >>> comparison = compare([case], standard_methods(metrics=["dice"]))
    >>> comparison.by_class("argmax").round(4).tolist()
    [0.8, 0.6667]
    >>> comparison.difference("RankSEG dice RMA").wins
    1

    What one gains on the threshold 1/2, as the map alone predicts it and as it came out:

    >>> case = Case("one class", torch.tensor([[0.9, 0.45, 0.4, 0.1]]), torch.tensor([1, 1, 0, 0]))
    >>> comparison = compare([case], standard_methods(metrics=["dice"]), predict_above=0.5)
    >>> ours = "RankSEG dice RMA"
    >>> f"{comparison.predicted_gain(ours):.3f}, {comparison.difference(ours).mean:.3f}"
    '0.037, 0.133'
    """
    band = number("band", band, 0.0, 1.0)
    seen = SeenLabels(ignore_index)
    comparison = decide_and_count(
        seen.watch(cases),
        methods,
        classes=classes,
        ignore_index=ignore_index,
        predict_above=predict_above,
        seen=seen,
    )
    return replace(comparison, clusters=clusters_of(comparison.cases, clusters), band=band)


def decide_and_count(
    cases: Iterable[Case | Failure],
    methods: Sequence[Method],
    *,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    predict_above: float | None = None,
    seen: SeenLabels | None = None,
    timed: bool = True,
) -> Comparison:
    """Compare as `compare` does, also cases of which none holds foreground: one fold, say.

    ``seen`` has watched the labels of a whole set, and judges them at the end. If the comparison is
    ``timed``, every method decides the first case once more, before the clock starts.
    """
    if predict_above is not None:
        predict_above = number("predict_above", predict_above, 0.0, 1.0)
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"methods must be at least one, of different names, got {names}")
    class_names = None if classes is None else distinct_names("classes", classes)
    results: list[CountedCase] = []
    failures: list[Failure] = []
    seen_names: set[str] = set()
    for case in cases:
        if case.name in seen_names:
            raise ValueError(f"cases must differ in name, got {case.name!r} twice")
        seen_names.add(case.name)
        if not isinstance(case, Failure):
            # The first call is not timed: memory is touched for the first time.
            with about(case.name):
                warm_up = timed and not results
                result = _evaluate(case, methods, class_names, ignore_index, predict_above, warm_up)
        else:
            result = case
        if isinstance(result, Failure):
            failures.append(result)
            continue
        results.append(result)
        class_names = class_names or tuple(f"class {i}" for i in range(result.classes))
    refuse_nothing(results, failures, "compared")
    if seen is not None:
        seen.refuse_truth_without_foreground()
        results = leave_out(results, failures, seen.truths_without_class())
        refuse_nothing(results, failures, "compared")
    return assemble(class_names or (), names, results, failures)


def _evaluate(
    case: Case,
    methods: Sequence[Method],
    classes: Sequence[str] | None,
    ignore_index: int | None,
    predict_above: float | None,
    warm_up: bool,
) -> CountedCase | Failure:
    """Decide and count one case by every method."""
    found = len(case.probs)
    if classes is not None and len(classes) != found:
        return Failure(case.name, f"has maps of {found} classes where {len(classes)} are expected")
    result = CountedCase(case.name, [], [], {})
    decisions: list[Tensor] = []
    try:
        probs, label = case.probs.float()[None], case.label[None]
        for method in methods:
            if warm_up:
                method.decide(probs)
            start = time.perf_counter()
            decision = method.decide(probs)
            result.seconds.append(time.perf_counter() - start)
            result.counts.append(_count(decision, label, found, ignore_index))
            if predict_above is not None:
                decisions.append(decision)
        if predict_above is not None:
            assumed = [method.correlation for method in methods]
            for metric in METRICS:
                gains = predicted_gains(probs, decisions, assumed, metric, predict_above)
                result.predicted[metric] = gains
        counted = probs if ignore_index is None else probs * (label != ignore_index)[:, None]
        volume = counted.flatten(2).sum(2, dtype=torch.float64)[0]
        result = replace(result, expected_volume=volume.cpu().numpy())
    except (ValueError, MemoryError, RuntimeError) as error:  # torch lacks memory by the last
        return Failure(case.name, reason_of(error))
    return result


def _count(decision: Tensor, label: Tensor, classes: int, ignore_index: int | None) -> Counts:
    """Count labels (1, *spatial) or masks (1, classes, *spatial) against (1, *spatial)."""
    if classes > 1:
        return metrics.count(decision, label, num_classes=classes, ignore_index=ignore_index)
    mask = decision if decision.dtype == torch.bool else (decision == 1)[:, None]
    return metrics.count(mask, label[:, None], ignore_index=ignore_index)
