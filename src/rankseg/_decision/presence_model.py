"""How likely a class is in an image at all, fitted to image-level labels."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rankseg._common.arguments import choice, number, number_tuple
from rankseg._common.public import public
from rankseg._decision.inputs import check_probabilities

__all__ = ["ABSENT", "FEWEST", "PresenceModel", "PresenceTable"]

ABSENT: Final = ("ignored", "zero")

FEWEST: Final = 20
"""Cases below which all classes share an offset."""

LEAST: Final = 2.0**-25
"""Half of the least probability that half precision can hold: peaks are that far from 0 and 1."""

SPREAD: Final = 1.0
"""Standard deviation that the offsets of the classes are taken to have around their mean.

A class that is rarely seen stays near the mean."""

WIDE: Final = 10.0
"""The same of what all classes share, so that a fit has an end."""

MOST: Final = 1e6
STEPS: Final = 200


@public("rankseg.calibration")
@dataclass(frozen=True)
class PresenceModel:
    r"""The probability that a class is in an image, from its largest probability and its volume.

    For a class whose probabilities :math:`p` in an image of :math:`N` pixels have the largest
    value :math:`p_{max}` and the sum :math:`\mu`,

    .. math:: \pi = \sigma(a \, \mathrm{logit} \, p_{max} + b \, \log (\mu / N) + o_c)

    Made by :meth:`fit`. ``RankSEG(presence=model)`` decides with it which classes are present; a
    `Calibration` may hold one.

    Parameters
    ----------
    peak, volume : float
        The slopes :math:`a` and :math:`b`.
    offset : sequence of float
        :math:`o_c`, one for each class.
    absent : {'ignored', 'zero'}
        How a class is scored that the label does not hold. ``'ignored'``: not at all, and every
        class that may be there is taken. ``'zero'``: 0 if it is predicted. Class :math:`c` is taken
        then if :math:`\pi_c D_c > (1 - \pi_c) m`, where :math:`D_c` is what its own mask is
        expected to score if the class is there, and :math:`m` what the other classes are expected
        to score in the mean.

    Raises
    ------
    TypeError, ValueError
        If a slope or an offset is no number in [-1e6, 1e6], or ``absent`` is neither of the two.

    Examples
    --------
    >>> import torch
    >>> from rankseg.calibration import PresenceModel
    >>> model = PresenceModel(peak=1.0, volume=0.0, offset=[0.0, 1.0])
    >>> model.probability(torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, 2.0]]), 100)
    tensor([[0.5000, 0.7311]], dtype=torch.float64)
    """

    peak: float
    volume: float
    offset: Sequence[float]
    absent: Literal["ignored", "zero"] = "zero"

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", choice("absent", self.absent, ABSENT))
        for name in ("peak", "volume"):
            object.__setattr__(self, name, number(name, getattr(self, name), -MOST, MOST))
        object.__setattr__(self, "offset", number_tuple("offset", self.offset, -MOST, MOST))

    @property
    def classes(self) -> int:
        """The number of classes, or 1 for one channel."""
        return len(self.offset)

    def of_class(self, index: int) -> PresenceModel:
        """Return the model of one class by itself."""
        return PresenceModel(self.peak, self.volume, [self.offset[index]], self.absent)

    def probability(self, peak: Tensor, volume: Tensor, pixels: Tensor | float) -> Tensor:
        """Return how likely each class is there, float64 ``(..., classes)``.

        From its largest probability, the sum of its probabilities, and the pixels of the image.
        """
        features = _features(peak.double(), volume.double() / pixels)
        slopes = features.new_tensor((self.peak, self.volume))
        return ((features * slopes).sum(-1) + features.new_tensor(self.offset)).sigmoid()

    @classmethod
    def fit(
        cls,
        cases: Iterable[Any],
        present: Mapping[str, Collection[int]] | None = None,
        *,
        absent: Literal["ignored", "zero"] = "zero",
        ignore_index: int | None = None,
        calibration: Any = None,
    ) -> PresenceModel:
        """Fit to which classes images hold.

        Parameters
        ----------
        cases : iterable of Case or Failure
            Maps that the network was not trained on. Only one is held at a time; failures are left
            out.
        present : mapping of str to collection of int, optional
            The classes of every case, by its name; with one channel 1 is the foreground. By default
            those that its label holds.
        absent : {'ignored', 'zero'}
            How absent classes are scored.
        ignore_index : int, optional
            Pixels whose label has this value do not count. Default: all do.
        calibration : Calibration, optional
            Applied first: the model is then one of calibrated maps.

        Returns
        -------
        PresenceModel

        Raises
        ------
        TypeError, ValueError
            If there is no case, cases differ in classes, ``present`` names an unknown case or
            class or lacks a case, or ``absent`` is not allowed.

        Warns
        -----
        UserWarning
            If there are fewer than 20 cases: all classes share an offset then. If a case is a
            failure. If ``present`` names the same classes for every case.

        Notes
        -----
        Logistic regression of all classes together, by maximum a posteriori: the offsets of the
        classes have a normal prior of standard deviation 1 around their mean, so that a class that
        is rarely seen, or always, stays near the others.

        Examples
        --------
        >>> import torch
        >>> from rankseg.calibration import PresenceModel
        >>> from rankseg.evaluation import Case
        >>> likely = Case("a", torch.full((1, 9), 0.7), torch.ones(9, dtype=torch.long))
        >>> unlikely = Case("b", torch.full((1, 9), 0.4), torch.zeros(9, dtype=torch.long))
        >>> model = PresenceModel.fit([likely, unlikely] * 10)
        >>> model.probability(torch.tensor([0.7, 0.4]), torch.tensor([6.3, 3.6]), 9) > 0.5
        tensor([ True, False])
        """
        table = PresenceTable.of(cases, present, ignore_index, calibration)
        for name, reason in table.failures.items():
            warnings.warn(f"left out: {name}: {reason}", stacklevel=2)
        return table.fit(absent)


@dataclass(frozen=True, eq=False)
class PresenceTable:
    """What a presence model is fitted to, by case and class.

    Attributes
    ----------
    names
        Of the cases.
    peak, share
        float64 ``(cases, classes)``: the largest probability, and the mean over the pixels.
    present
        Boolean ``(cases, classes)``: whether the image holds the class.
    failures
        The cases that could not be used, and why.
    """

    names: tuple[str, ...]
    peak: Tensor
    share: Tensor
    present: Tensor
    failures: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        cases: Iterable[Any],
        present: Mapping[str, Collection[int]] | None,
        ignore_index: int | None,
        calibration: Any = None,
    ) -> PresenceTable:
        """Read the cases one after the other; arguments and errors are those of a fit."""
        names: list[str] = []
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        failures: dict[str, str] = {}
        for case in cases:
            try:
                flat = _probabilities(case, calibration, len(rows[0][0]) if rows else None)
            except ValueError as error:
                failures[case.name] = str(error)
                continue
            held = _labels_of(case, ignore_index) if present is None else present.get(case.name)
            if held is None:
                raise ValueError(
                    f"present must name the classes of every case, got none for {case.name!r}"
                )
            there = _marked(held, len(flat), case.name)
            names.append(case.name)
            rows.append((flat.amax(1).cpu(), flat.mean(1).cpu(), there))
        unknown = sorted(set(present or ()) - {*names, *failures})
        if unknown:
            raise ValueError(f"present names cases that are not among the maps: {unknown[:5]}")
        if not rows:
            reasons = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
            raise ValueError(f"cases must be at least one that can be used, got none{reasons}")
        peak, share, marked = map(torch.stack, zip(*rows, strict=True))
        if present is not None and marked.shape[1] > 1 and not marked[:, 0].any():
            raise ValueError(
                "present names class 0 for no case, and it would be given no pixel: name it, most "
                "often the background, where it is in the image"
            )
        if present is not None and len(marked) > 1 and (marked == marked[0]).all():
            warnings.warn(
                f"present names the same classes, {sorted(held or ())}, for every case, and tells "
                "nothing: list the classes that are in each image, not 0 or 1 for each class",
                stacklevel=3,
            )
        return cls(tuple(names), peak, share, marked, failures)

    @classmethod
    def joined(cls, parts: Sequence[PresenceTable]) -> PresenceTable:
        """Concatenate the rows of several tables."""
        peak, share, present = (
            torch.cat([getattr(one, key) for one in parts]) for key in ("peak", "share", "present")
        )
        return cls(tuple(name for one in parts for name in one.names), peak, share, present)

    def __getitem__(self, places: Any) -> PresenceTable:
        """Return the rows of some cases."""
        place = torch.as_tensor(places)
        names = tuple(self.names[index] for index in place.tolist())
        return PresenceTable(names, self.peak[place], self.share[place], self.present[place])

    def fit(self, absent: Literal["ignored", "zero"] = "zero") -> PresenceModel:
        """Fit a model to these rows."""
        number_of_cases, classes = self.present.shape
        pooled = number_of_cases < FEWEST
        if pooled:
            warnings.warn(
                f"{number_of_cases} cases are too few to tell the classes apart: all share one "
                f"offset; give {FEWEST} or more",
                stacklevel=4,
            )
        features = _features(self.peak, self.share)
        wide = torch.full((3,), WIDE, dtype=torch.float64, device="cpu")
        own = wide.new_full((classes,), 0.0 if pooled else SPREAD)
        spread = torch.cat((wide, own))
        terms = _most_likely(features, self.present.double(), spread)
        peak, volume, shared = terms[:3].tolist()
        return PresenceModel(peak, volume, (terms[3:] + shared).tolist(), absent)


def _probabilities(case: Any, calibration: Any, classes: int | None) -> Tensor:
    """Return probabilities float64 (classes, pixels) of a case, if it has so many classes."""
    if hasattr(case, "reason"):
        raise ValueError(case.reason)
    check_probabilities(f"the maps of {case.name}", case.probs)
    if classes not in (None, len(case.probs)):
        raise ValueError(f"has maps of {len(case.probs)} classes where {classes} are expected")
    probs: Tensor = case.probs.double()
    if calibration is not None:
        probs = calibration.of(probs[None])[0]
    return probs.flatten(1)


def _labels_of(case: Any, ignore_index: int | None) -> list[int]:
    held: list[int] = case.label.unique().tolist()
    return [label for label in held if label != ignore_index]


def _marked(held: Collection[int], classes: int, name: str) -> Tensor:
    """Mark the classes that an image holds; of one channel, 1 is the foreground."""
    known = range(max(2, classes))
    if not isinstance(held, Collection) or any(isinstance(index, bool) for index in held):
        raise TypeError(f"the classes of {name} must be a collection of integers, got {held!r}")
    if len(set(held)) < len(held):
        raise ValueError(
            f"the classes of {name} must be named once each, got {list(held)[:5]}: list the "
            "classes that are there, not 0 or 1 for each"
        )
    wrong = sorted(set(held) - set(known))
    if wrong:
        raise ValueError(
            f"the classes of {name} must be from 0 to {known[-1]}, or to be ignored, "
            f"got {wrong[:5]}"
        )
    first = 1 if classes == 1 else 0
    return torch.tensor([index in held for index in range(first, first + classes)], device="cpu")


def _features(peak: Tensor, share: Tensor) -> Tensor:
    """Return what a model weighs, ``(..., classes, 2)``."""
    peak = peak.clamp(LEAST, 1 - LEAST)
    return torch.stack(((peak / (1 - peak)).log(), share.clamp(min=LEAST**2).log()), -1)


@torch.inference_mode(False)
def _most_likely(features: Tensor, present: Tensor, spread: Tensor) -> Tensor:
    """Return two slopes, a shared offset and those of the classes, of largest posterior density.

    All have normal priors, of standard deviation ``spread`` around 0; those of spread 0 are 0.
    """
    features, present = features.clone(), present.clone()  # of inference mode they take no gradient
    terms = torch.zeros(len(spread), dtype=torch.float64, device="cpu", requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [terms], max_iter=STEPS, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        optimiser.zero_grad()
        used = terms * spread
        sums = (features * used[:2]).sum(-1) + used[2] + used[3:]
        loss = F.binary_cross_entropy_with_logits(sums, present, reduction="sum")
        loss = loss + terms.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(step)
    return terms.detach() * spread
