"""Calibrations fitted to labelled maps, and what they change on maps they were not fitted to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rankseg._common.arguments import choice, describe, integer
from rankseg._common.public import public
from rankseg._common.warn import one_of_a_kind
from rankseg._decision.calibrate import calibrate
from rankseg._decision.calibration import MOST, Calibration, log_probabilities
from rankseg._decision.module import RankSEG
from rankseg._decision.presence_model import PresenceModel, PresenceTable
from rankseg._decision.sampled_sums import check_exclusive
from rankseg.calibration.presence_validation import PresenceValidation
from rankseg.calibration.reliability import (
    Reliability,
    checked_bins,
    labelled_pixels,
    measure,
    warn_of_unfit,
    without_failures,
)
from rankseg.evaluation import CaseFolder, Comparison, Method, argmax
from rankseg.evaluation.decided_cases import decide_and_count
from rankseg.evaluation.differences import Clusters
from rankseg.evaluation.folds import folds_of
from rankseg.evaluation.labelled_cases import Case, Failure, reasons
from rankseg.evaluation.seen_labels import SeenLabels

__all__ = ["CrossValidation", "cross_validate", "fit"]

Kind: TypeAlias = Literal["temperature", "vector", "binary", "none"]
KINDS: Final = ("temperature", "vector", "binary", "none")
Absent: TypeAlias = Literal["ignored", "zero"]

PIXELS: Final = 20_000
STEPS: Final = 200
"""Most steps of L-BFGS: a fit that takes more has not been seen."""

NEAR_ONE: Final = 0.02
"""How far half precision and resampling put the sums of softmax from 1, at most."""


def fit(
    cases: Iterable[Case | Failure],
    kind: Kind = "temperature",
    *,
    ignore_index: int | None = None,
    pixels: int = PIXELS,
    seed: int = 0,
    presence: Absent | None = None,
) -> Calibration:
    r"""Fit a calibration to labelled maps: the one under which their labels are likeliest.

    Parameters
    ----------
    cases : iterable of Case or Failure
        Maps that the network was not trained on, with their labels. Only one is held at a time;
        failures are left out.
    kind : {'temperature', 'vector', 'binary', 'none'}
        One scale for all classes; a scale and an offset for each class; or these for each class by
        itself, against all others, after which probabilities no longer sum to 1 over the classes.
        With one channel the second is the third. The last leaves probabilities as they are.
    ignore_index : int, optional
        Pixels whose label has this value do not count. Default: all do.
    pixels : int
        Most pixels taken of a case, drawn at random: 8 bytes of each are kept for every class.
    seed : int
        Of the draws.

    presence : {'ignored', 'zero'}, optional
        How classes that an image lacks are scored: fit a `PresenceModel` for that to the calibrated
        maps, too. ``cases`` are read twice then. Default: no model.

    Returns
    -------
    Calibration
        A class that no label holds, or every label, keeps scale 1 and offset 0 by ``'vector'`` and
        ``'binary'``, and a warning says so: its offset would have no end.

    Raises
    ------
    TypeError, ValueError
        If an option is not allowed, there is no case, cases differ in classes, a map holds no
        probabilities, a label is no class, or no pixel that counts is of class 1 or above.

    Warns
    -----
    UserWarning
        If a class is left alone, the fit did not come to an end, or a case is a failure or a mask
        of 0 and ``ignore_index`` among masks of 0 and 1.

    Notes
    -----
    Minimises the negative log-likelihood

    .. math:: -\sum_i \log \mathrm{softmax}_{y_i} (s \log p_i + b)

    (or of the sigmoid) over :math:`\log s` and :math:`b` by L-BFGS in float64. A temperature is
    :math:`1/s` [1]_. Scaling does not change the order of the classes of a pixel if it is the same
    for all, and so not argmax; it does change what RankSEG decides.

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    Probabilities that claim 0.9 and come true in three of four pixels:

    >>> import torch
    >>> from rankseg.calibration import fit
    >>> from rankseg.evaluation import Case
    >>> case = Case("a", torch.full((1, 4), 0.9), torch.tensor([1, 1, 1, 0]))
    >>> f"{fit([case]).of(torch.tensor([[[0.9]]], dtype=torch.float64)).item():.3f}"
    '0.750'
    """
    kind = _kind(kind)
    if presence is not None and iter(cases) is cases:
        cases = list(cases)
    most = integer("pixels", pixels)
    if most < 1:
        raise ValueError(f"pixels must be at least 1, got {pixels}")
    seen = SeenLabels(ignore_index)
    found = _gather(seen.watch(cases), ignore_index, most, integer("seed", seed))
    seen.refuse_truth_without_foreground()
    warn_of_unfit(seen)
    calibration = _fit(*found, kind)
    return _with_presence(calibration, cases, presence, ignore_index)


def _with_presence(
    calibration: Calibration,
    cases: Iterable[Case | Failure],
    absent: Absent | None,
    ignore_index: int | None,
) -> Calibration:
    """Return the calibration with a model of presence, fitted to the maps it makes."""
    if absent is None:
        return calibration
    options: dict[str, Any] = {"ignore_index": ignore_index, "calibration": calibration}
    model = PresenceModel.fit(cases, absent=absent, **options)
    return replace(calibration, presence=model)


@torch.inference_mode(False)
def _fit(probs: Tensor, label: Tensor, kind: Kind) -> Calibration:
    """Fit to probabilities (classes, n) and labels (n,)."""
    probs, label = probs.clone(), label.clone()  # made in inference mode they take no gradient
    if not len(label):
        raise ValueError("cases must hold labelled pixels, got none")
    binary = kind == "binary" or len(probs) == 1
    link: Literal["softmax", "sigmoid"] = "sigmoid" if binary else "softmax"
    if kind == "none":
        if (probs.sum(0) - 1).abs().max() > NEAR_ONE:
            link = "sigmoid"
        return Calibration(link, [1.0] * len(probs), [0.0] * len(probs), kind)
    if not binary:
        check_exclusive(probs[None, :, None])
    logs = log_probabilities(probs[None], link)[0]
    first = 1 if len(probs) == 1 else 0
    target = torch.stack([label == index for index in range(first, first + len(probs))])
    free = target.any(1) & ~target.all(1)
    if kind == "temperature":
        free = torch.ones_like(free)
    elif not free.all():
        names = [index for index, moves in enumerate(free.tolist()) if not moves]
        warnings.warn(
            f"classes {names} are left as they are: no label holds them, or every label",
            stacklevel=3,
        )

    def loss(scale: Tensor, offset: Tensor) -> Tensor:
        sums = scale.unsqueeze(1) * logs + offset.unsqueeze(1)
        if binary:
            each = F.binary_cross_entropy_with_logits(sums, target.double(), reduction="none")
            return each.sum(0).mean()
        # Classes that no label holds take no part: the fit would drive their probabilities to 0.
        return F.cross_entropy(sums[free].T, (free.cumsum(0) - 1)[label])

    scale, offset = _minimise(loss, free, shared=kind == "temperature")
    if not (scale.clamp(1 / MOST, MOST).equal(scale) and offset.clamp(-MOST, MOST).equal(offset)):
        warnings.warn(
            "the fit has no end: the probabilities say nothing about the labels, or separate them "
            f"without an error; its scales and offsets are cut off at {1 / MOST:g} and {MOST:g}",
            stacklevel=3,
        )
        scale, offset = scale.clamp(1 / MOST, MOST), offset.clamp(-MOST, MOST)
    return Calibration(link, scale.tolist(), offset.tolist(), kind)


def _kind(kind: object) -> Kind:
    named: Kind = choice("kind", kind, KINDS)  # type: ignore[assignment]
    return named


def _gather(
    cases: Iterable[Case | Failure], ignore_index: int | None, most: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return probabilities float64 (classes, n) and labels (n,) of all cases."""
    parts = [labelled_pixels(case, ignore_index, most, seed) for case in without_failures(cases)]
    counts = sorted({len(probs) for probs, _ in parts})
    if len(counts) != 1:
        raise ValueError(f"cases must be at least one, all of the same classes, got {counts}")
    return torch.cat([probs for probs, _ in parts], 1), torch.cat([label for _, label in parts])


def _minimise(
    loss: Callable[[Tensor, Tensor], Tensor], free: Tensor, shared: bool
) -> tuple[Tensor, Tensor]:
    """Return the scales and offsets of least loss; those not free stay 1 and 0."""
    classes = len(free)
    zero = torch.zeros(classes, dtype=torch.float64, device=free.device)
    log_scale = zero[: 1 if shared else classes].clone().requires_grad_()
    offset = zero.requires_grad_(not shared)
    moved = [log_scale] if shared else [log_scale, offset]
    optimiser = torch.optim.LBFGS(
        moved,
        max_iter=STEPS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def terms() -> tuple[Tensor, Tensor]:
        return (log_scale * free).exp().expand(classes), offset * free

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss(*terms())
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(step)
    if optimiser.state[log_scale]["n_iter"] >= STEPS:
        warnings.warn(f"the fit did not come to an end in {STEPS} steps", stacklevel=4)
    scale, shift = terms()
    return scale.detach(), shift.detach()


@public("rankseg.calibration")
@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a kind of calibration changes on maps that it was not fitted to.

    Attributes
    ----------
    before, after : Reliability
        Of the maps as they are, and as calibrations fitted to the other folds make them.
    decisions : Comparison
        Argmax and RankSEG, on the maps as they are and ``calibrated``. The cases that could not be
        used are among its failures.
    folder : CaseFolder
        The cases that could be used.
    presence : PresenceValidation or None
        How well the fitted model predicts which classes are in an image; None if none was fitted.
    """

    before: Reliability
    after: Reliability
    decisions: Comparison
    folder: CaseFolder
    presence: PresenceValidation | None = None


def cross_validate(
    folder: CaseFolder,
    kind: Kind = "temperature",
    *,
    folds: int = 5,
    clusters: Clusters | None = None,
    bins: int = 15,
    seed: int = 0,
    presence: Absent | None = None,
    track: Callable[[Any], Iterable[Any]] = iter,
) -> CrossValidation:
    """Measure a kind of calibration on every case by one that was fitted without it.

    Every case is read once before the work: those that cannot be used are left out.

    Parameters
    ----------
    folder : CaseFolder
        The labelled maps.
    kind : {'temperature', 'vector', 'binary', 'none'}
        As for `fit`.
    folds : int
        Number of folds that the cases are split into, at least 2; each is left out once.
    clusters : sequence of str or int, optional
        The patient or sequence of every case, in the order of ``folder.names``: those of one stay
        together.
    bins : int
        As for `reliability`.
    seed : int
        Random seed for the sampled pixels and for the split into folds.
    presence : {'ignored', 'zero'}, optional
        As for `fit`. The calibrations then decide which classes are present, too.
    track : callable
        Called with the cases, then with the numbers of the folds; returns them one by one, as
        ``rich.progress.track``.

    Returns
    -------
    CrossValidation

    Raises
    ------
    TypeError
        If ``folder`` is no `CaseFolder`.
    ValueError
        If there are fewer cases or clusters than folds, no label that counts is of class 1 or
        above, or an option is not allowed.
    """
    kind, bins = _kind(kind), checked_bins(bins)
    if not isinstance(folder, CaseFolder):
        raise TypeError(
            "folder must be a CaseFolder, since its cases are read several times, got "
            f"{describe(folder)}: open it with rankseg.evaluation.CaseFolder.open(path)"
        )
    folds_of(len(folder), folds, clusters, seed)  # wrong options are found before the work
    folder, places, failures = _usable(folder, track)
    if clusters is not None:
        clusters = np.asarray(clusters)[places]
    try:
        parts = folds_of(len(folder), folds, clusters, seed)
    except ValueError as error:
        raise ValueError(f"{error}{reasons(failures)}") from error
    options: dict[str, Any] = {"classes": folder.classes, "ignore_index": folder.ignore_index}
    found: list[tuple[Reliability, Reliability, Comparison]] = []
    validations: list[PresenceValidation] = []
    with one_of_a_kind():
        for number in track(range(len(parts))):
            rest = _chosen(folder, np.concatenate([*parts[:number], *parts[number + 1 :]]))
            held_out = _chosen(folder, parts[number])
            calibration = _fit(*_gather(rest, folder.ignore_index, PIXELS, seed), kind)
            calibration = _with_presence(calibration, rest, presence, folder.ignore_index)
            if calibration.presence is not None:
                rows = PresenceTable.of(held_out, None, folder.ignore_index, calibration)
                validations.append(PresenceValidation.of(rows, calibration.presence))
            before = measure(held_out, bins=bins, **options)
            after = measure(held_out, calibration=calibration, bins=bins, **options)
            decisions = decide_and_count(held_out, list(_methods(calibration)), **options)
            found.append((before, after, decisions))
    before, after, decisions = found[0]
    for other in found[1:]:
        before, after, decisions = before + other[0], after + other[1], decisions + other[2]
    decisions = replace(decisions, failures=(*failures, *decisions.failures))
    checked = PresenceValidation.joined(validations) if validations else None
    return CrossValidation(before, after, decisions, folder, checked)


def _usable(
    folder: CaseFolder, track: Callable[[Any], Iterable[Any]]
) -> tuple[CaseFolder, list[int], list[Failure]]:
    """Return the cases that can be used, their places in the folder, and the others.

    Raises
    ------
    ValueError
        If no case can be used, or no label that counts is of class 1 or above.
    """
    seen = SeenLabels(folder.ignore_index)
    faults: dict[str, str] = {}
    expected = len(folder.name_classes())
    for name, case in zip(folder.names, seen.watch(track(folder)), strict=True):
        try:
            if isinstance(case, Failure):
                raise ValueError(case.reason)
            labelled_pixels(case, folder.ignore_index, most=1)
            if len(case.probs) != expected:
                raise ValueError(
                    f"has maps of {len(case.probs)} classes where {expected} are expected"
                )
        except ValueError as error:
            faults[name] = str(error)
    if len(faults) < len(folder):
        seen.refuse_truth_without_foreground()
    faults = seen.truths_without_class() | faults
    failures = [Failure(name, faults[name]) for name in folder.names if name in faults]
    places = [place for place, name in enumerate(folder.names) if name not in faults]
    if not places:
        raise ValueError(f"no case can be used, of {len(failures)} given{reasons(failures)}")
    return _chosen(folder, places), places, failures


def _chosen(folder: CaseFolder, places: Sequence[int] | np.ndarray) -> CaseFolder:
    return replace(folder, names=tuple(folder.names[place] for place in places))


def _methods(calibration: Calibration) -> Iterator[Method]:
    yield Method("argmax", argmax)
    yield Method("argmax, calibrated", _Calibrated(calibration))
    for metric in ("dice", "iou"):
        yield Method(f"RankSEG {metric}", RankSEG(metric))
        yield Method(f"RankSEG {metric}, calibrated", RankSEG(metric, calibration=calibration))


@dataclass(frozen=True)
class _Calibrated:
    """Argmax of calibrated maps."""

    calibration: Calibration

    def __call__(self, probs: Tensor) -> Tensor:
        return argmax(calibrate(probs, self.calibration))
