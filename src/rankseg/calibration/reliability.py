"""How often what was given a probability came true."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rankseg._common.arguments import integer
from rankseg._common.public import public
from rankseg._common.warn import one_of_a_kind
from rankseg._decision.calibration import Calibration, log_probabilities
from rankseg._decision.inputs import check_probabilities
from rankseg._decision.sampled_sums import check_exclusive
from rankseg.evaluation.labelled_cases import Case, Failure
from rankseg.evaluation.seen_labels import SeenLabels

__all__ = [
    "Reliability",
    "labelled_pixels",
    "measure",
    "of_events",
    "reliability",
    "warn_of_unfit",
    "without_failures",
]

MOST_BINS: Final = 10_000

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@public("rankseg.calibration")
@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities by bin, and how often they came true: what a reliability diagram shows.

    Reliabilities of other cases are added with ``+``.

    Attributes
    ----------
    classes : tuple of str
        The class names.
    edges : ndarray
        float64 (bins + 1,), from 0 to 1. A bin holds its upper edge.
    count : ndarray
        int64 (classes, bins): the pixels whose probability of the class lies in the bin.
    mass, hits : ndarray
        float64 and int64 (classes, bins): the sum of these probabilities, and the pixels among
        them that are of the class.
    top_count, top_mass, top_hits : ndarray
        (bins,): the same of the likeliest class, whichever it is.
    loss : float
        The negative log-likelihood of the labels, summed over pixels, in nats.
    """

    classes: tuple[str, ...]
    edges: Floats
    count: Counts
    mass: Floats
    hits: Counts
    top_count: Counts
    top_mass: Floats
    top_hits: Counts
    loss: float

    def __add__(self, other: Reliability) -> Reliability:
        if self.classes != other.classes or not np.array_equal(self.edges, other.edges):
            raise ValueError("reliabilities must be of the same classes and bins to be added")
        return Reliability(
            self.classes,
            self.edges,
            *(
                getattr(self, name) + getattr(other, name)
                for name in ("count", "mass", "hits", "top_count", "top_mass", "top_hits", "loss")
            ),
        )

    @property
    def pixels(self) -> int:
        """The number of labelled pixels."""
        return int(self.top_count.sum())

    @property
    def confidence(self) -> Floats:
        """float64 (classes, bins): the mean probability in the bin, NaN where it is empty."""
        return _ratio(self.mass, self.count)

    @property
    def frequency(self) -> Floats:
        """float64 (classes, bins): how often the class is there, NaN where the bin is empty."""
        return _ratio(self.hits, self.count)

    @property
    def top_confidence(self) -> Floats:
        """float64 (bins,): the mean probability of the likeliest class."""
        return _ratio(self.top_mass, self.top_count)

    @property
    def top_frequency(self) -> Floats:
        """float64 (bins,): how often the likeliest class is right."""
        return _ratio(self.top_hits, self.top_count)

    @property
    def ece(self) -> float:
        """Expected calibration error of the likeliest class: the mean of its distance by bin."""
        return float(np.abs(self.top_mass - self.top_hits).sum() / max(1, self.pixels))

    @property
    def classwise_ece(self) -> Floats:
        """float64 (classes,): the same of every class's own probabilities."""
        errors: Floats = np.abs(self.mass - self.hits).sum(1) / max(1, self.pixels)
        return errors

    @property
    def mean_classwise_ece(self) -> float:
        """The mean of `classwise_ece` over the classes."""
        return float(self.classwise_ece.mean())

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of a label, in nats; NaN without pixels."""
        return self.loss / self.pixels if self.pixels else math.nan

    @property
    def volume_ratio(self) -> Floats:
        """float64 (classes,): the sum of probabilities over the true volume; NaN without one."""
        return _ratio(self.mass.sum(1), self.hits.sum(1))


def reliability(
    cases: Iterable[Case | Failure],
    *,
    calibration: Calibration | None = None,
    bins: int = 15,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
) -> Reliability:
    """Measure how far probabilities can be taken at their word.

    Parameters
    ----------
    cases : iterable of Case or Failure
        Say a `rankseg.evaluation.CaseFolder`. Only one is held at a time; failures are left out.
    calibration : Calibration, optional
        Applied first.
    bins : int
        Of equal width, from 1 to 10,000.
    classes : sequence of str, optional
        Names of the classes; by default they are numbered.
    ignore_index : int, optional
        Pixels whose label has this value do not count. Default: all do.

    Returns
    -------
    Reliability
        Over all labelled pixels of all cases.

    Raises
    ------
    ValueError
        If there is no case, cases differ in classes, a map holds no probabilities, a label is no
        class, or no pixel that counts is of class 1 or above.

    Warns
    -----
    UserWarning
        For every failure among the cases, and every mask of 0 and ``ignore_index`` among masks of
        0 and 1.

    Examples
    --------
    >>> import torch
    >>> from rankseg.calibration import reliability
    >>> from rankseg.evaluation import Case
    >>> probs = torch.tensor([[0.9, 0.9, 0.9, 0.9]])  # one class, four pixels
    >>> measured = reliability([Case("a", probs, torch.tensor([1, 1, 1, 0]))])
    >>> f"{measured.ece:.2f}, {measured.volume_ratio[0]:.2f}"
    '0.15, 1.20'
    """
    seen = SeenLabels(ignore_index)
    with one_of_a_kind():
        measured = measure(
            seen.watch(cases),
            calibration=calibration,
            bins=bins,
            classes=classes,
            ignore_index=ignore_index,
            are_exclusive=calibration is None or calibration.link == "softmax",
        )
    seen.refuse_truth_without_foreground()
    warn_of_unfit(seen)
    return measured


def measure(
    cases: Iterable[Case | Failure],
    *,
    calibration: Calibration | None = None,
    bins: int = 15,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    are_exclusive: bool = False,
) -> Reliability:
    """Measure as `reliability` does, also cases of which none holds foreground: one fold, say.

    If classes are to be exclusive, there is a warning if the maps tell that they overlap.
    """
    bins = checked_bins(bins)
    found: Reliability | None = None
    for case in without_failures(cases):
        count = len(case.probs)
        names = tuple(classes or (f"class {i}" for i in range(count)))
        probs, label = labelled_pixels(case, ignore_index)
        if len(names) != count:
            raise ValueError(f"{case.name} has {count} classes where {len(names)} are expected")
        if are_exclusive:
            check_exclusive(probs[None, :, None])
        measured = _of_pixels(probs, label, calibration, names, np.linspace(0, 1, bins + 1))
        found = measured if found is None else found + measured
    if found is None:
        raise ValueError("cases must hold one at least, got none")
    return found


def checked_bins(bins: object) -> int:
    """Return a number of bins as an int."""
    count = integer("bins", bins)
    if not 1 <= count <= MOST_BINS:
        raise ValueError(f"bins must be from 1 to {MOST_BINS}, got {bins}")
    return count


def warn_of_unfit(seen: SeenLabels) -> None:
    """Warn of every label map without foreground whose foreground may have been read as void.

    An example is a mask of 0 and 255 where 255 is ``ignore_index``.
    """
    for name, reason in seen.truths_without_class().items():
        warnings.warn(f"{name} tells nothing of the foreground: {reason}", stacklevel=4)


def without_failures(cases: Iterable[Case | Failure]) -> Iterator[Case]:
    """Yield the cases, and warn of every failure among them."""
    for case in cases:
        if isinstance(case, Failure):
            warnings.warn(f"left out: {case.name}: {case.reason}", stacklevel=5)
        else:
            yield case


def labelled_pixels(
    case: Case, ignore_index: int | None, most: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return probabilities float64 (classes, n) and labels (n,) of pixels that have a label.

    ``most`` pixels at most, drawn at random.

    Raises
    ------
    ValueError
        If a value of the maps is no probability, or a label is no class.
    """
    check_probabilities(f"the maps of {case.name}", case.probs)
    label = case.label.flatten().long()
    kept = torch.ones_like(label, dtype=torch.bool)
    if ignore_index is not None:
        kept = label != ignore_index
    place = kept.nonzero().squeeze(1)
    largest = max(2, len(case.probs)) - 1
    if len(place):
        first, last = (int(end) for end in torch.aminmax(label[place]))
        if not 0 <= first <= last <= largest:
            raise ValueError(
                f"the labels of {case.name} must be classes from 0 to {largest}, or to be ignored, "
                f"got {first} to {last}"
            )
    if most is not None and len(place) > most:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(place), generator=generator, device="cpu")
        place = place[order[:most].to(place.device)]
    return case.probs.flatten(1)[:, place].double(), label[place]


def _of_pixels(
    probs: Tensor,
    label: Tensor,
    calibration: Calibration | None,
    classes: tuple[str, ...],
    edges: Floats,
) -> Reliability:
    if calibration is not None:
        probs = calibration.of(probs[None])[0]
    pixels = torch.arange(len(label), device=label.device)
    if len(probs) == 1:
        probs = torch.cat((1 - probs, probs))
    logs = log_probabilities(probs, "softmax")
    top, likeliest = probs.max(0)
    right = likeliest == label
    first = len(probs) - len(classes)  # of one channel, only the foreground
    own = [
        _binned(values.numpy(), (label == index).numpy(), edges)
        for index, values in enumerate(probs[first:], first)
    ]
    of_top = _binned(top.numpy(), right.numpy(), edges)
    return Reliability(
        classes,
        edges,
        count=np.stack([table.pixels for table in own]),
        mass=np.stack([table.mass for table in own]),
        hits=np.stack([table.hits for table in own]),
        top_count=of_top.pixels,
        top_mass=of_top.mass,
        top_hits=of_top.hits,
        loss=float(-logs[label, pixels].sum()),
    )


def of_events(predicted: Tensor, happened: Tensor, bins: int) -> Reliability:
    """Return the reliability of probabilities ``(n, classes)`` of what ``happened`` or did not."""
    edges = np.linspace(0, 1, bins + 1)
    own = [
        _binned(column.numpy(), hit.numpy(), edges)
        for column, hit in zip(predicted.T, happened.T, strict=True)
    ]
    count, mass, hits = (np.stack(terms) for terms in zip(*own, strict=True))
    loss = F.binary_cross_entropy(predicted, happened.double(), reduction="sum")
    names = tuple(f"class {index}" for index in range(predicted.shape[1]))
    sums = count.sum(0), mass.sum(0), hits.sum(0)
    return Reliability(names, edges, count, mass, hits, *sums, float(loss))


class _Binned(NamedTuple):
    pixels: Counts
    mass: Floats
    hits: Counts


def _binned(probs: Floats, hit: NDArray[np.bool_], edges: Floats) -> _Binned:
    bins = len(edges) - 1
    place = np.clip(np.ceil(probs * bins).astype(np.int64) - 1, 0, bins - 1)
    return _Binned(
        np.bincount(place, minlength=bins).astype(np.int64),
        np.bincount(place, probs, minlength=bins).astype(np.float64),
        np.bincount(place[hit], minlength=bins).astype(np.int64),
    )


def _ratio(sums: NDArray[np.float64] | Counts, counts: Counts) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(counts > 0, sums / counts, math.nan)
    return ratio
