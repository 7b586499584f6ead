"""How well models predict which classes are in an image, on images left out of the fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rankseg._common.public import public
from rankseg._decision.presence_model import PresenceModel, PresenceTable
from rankseg.calibration.reliability import Reliability, of_events
from rankseg.evaluation.differences import Clusters
from rankseg.evaluation.folds import folds_of
from rankseg.evaluation.labelled_cases import Case, Failure

__all__ = ["PresenceValidation", "cross_validate_presence"]


@public("rankseg.calibration")
@dataclass(frozen=True, eq=False)
class PresenceValidation:
    """Predictions of which classes are present, on images that were left out of the fit.

    Attributes
    ----------
    names : tuple of str
        The cases.
    peak, probability : Tensor
        float64 (cases, classes): the largest probability of the class, and how likely the model
        took the class to be there.
    present : Tensor
        Boolean (cases, classes): whether it was.
    model : PresenceModel or None
        Fitted to all the cases, by `cross_validate_presence`.
    failures : mapping of str to str
        The cases that it could not use, and why.
    """

    names: tuple[str, ...]
    peak: Tensor
    probability: Tensor
    present: Tensor
    model: PresenceModel | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, table: PresenceTable, model: PresenceModel) -> PresenceValidation:
        """Ask a model about images."""
        probability = model.probability(table.peak, table.share, 1.0)
        return cls(table.names, table.peak, probability, table.present)

    @classmethod
    def joined(cls, parts: Sequence[PresenceValidation]) -> PresenceValidation:
        """Concatenate the validations of several folds."""
        names = tuple(name for part in parts for name in part.names)
        columns = ("peak", "probability", "present")
        peak, probability, present = (
            torch.cat([getattr(one, key) for one in parts]) for key in columns
        )
        return cls(names, peak, probability, present)

    @property
    def brier_of_peaks(self) -> float:
        """Mean squared distance of the peaks from what is there, 1 or 0."""
        return _brier(self.peak, self.present)

    @property
    def brier(self) -> float:
        """The same of the fitted probabilities."""
        return _brier(self.probability, self.present)

    def reliability(self, bins: int = 10) -> tuple[Reliability, Reliability]:
        """Return how often classes are there by their peak, and by the fitted probability.

        In place of pixels these count images, and in place of the likeliest class all classes.
        """
        return (
            of_events(self.peak, self.present, bins),
            of_events(self.probability, self.present, bins),
        )


def cross_validate_presence(
    cases: Iterable[Case | Failure],
    present: Mapping[str, Sequence[int]] | None = None,
    *,
    absent: Literal["ignored", "zero"] = "zero",
    ignore_index: int | None = None,
    folds: int = 5,
    clusters: Clusters | None = None,
    seed: int = 0,
) -> PresenceValidation:
    """Tell of every image which classes it holds, by a `PresenceModel` fitted without its fold.

    Parameters
    ----------
    cases, present, absent, ignore_index
        As for `PresenceModel.fit`.
    folds, clusters, seed
        As for `cross_validate`.

    Returns
    -------
    PresenceValidation

    Raises
    ------
    ValueError
        If there are fewer cases or clusters than folds, and as for `PresenceModel.fit`.
    """
    table = PresenceTable.of(cases, present, ignore_index)
    everything = np.arange(len(table.names))
    parts = []
    for held_out in folds_of(len(everything), folds, clusters, seed):
        model = table[np.setdiff1d(everything, held_out)].fit(absent)
        parts.append(PresenceValidation.of(table[held_out], model))
    validation = PresenceValidation.joined(parts)
    return replace(validation, model=table.fit(absent), failures=table.failures)


def _brier(probability: Tensor, present: Tensor) -> float:
    return float((probability - present.double()).square().mean())
