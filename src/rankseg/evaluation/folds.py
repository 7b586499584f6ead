"""Split cases into folds for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rankseg._common.arguments import integer, refuse_blanks
from rankseg.evaluation.differences import Clusters

__all__ = ["checked_folds", "folds_of"]

FOLDS: Final = 5
FEWEST: Final = 3


def checked_folds(folds: int | None, units: int, kind: str) -> int:
    """Return the number of folds for nested cross-validation over so many cases or clusters.

    Raises
    ------
    ValueError
        If there are fewer than three folds, or fewer cases or clusters than folds.
    """
    if units < FEWEST:
        raise ValueError(
            f"there must be {FEWEST} {kind} or more, to fit to one, choose by another and judge by "
            f"a third, got {units}: rankseg compare shows them, and a clear choice takes 20 or more"
        )
    folds = min(FOLDS, units) if folds is None else integer("folds", folds)
    if not FEWEST <= folds <= units:
        raise ValueError(f"folds must be from {FEWEST} to the {units} {kind}, got {folds}")
    return folds


def folds_of(
    cases: int, folds: int, clusters: Clusters | None, seed: int
) -> list[NDArray[np.int64]]:
    """Return the places of the cases of each fold, those of one cluster in the same.

    Clusters are drawn at random and go, one after the other, to the fold with fewest cases.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or fewer clusters than folds.
    """
    folds, seed = integer("folds", folds), integer("seed", seed)
    own: Sequence[Any] | NDArray[Any] = np.arange(cases) if clusters is None else clusters
    if len(own) != cases:
        raise ValueError(f"clusters must have one entry for each of {cases} cases, got {len(own)}")
    refuse_blanks("clusters", own)
    _, member = np.unique(np.asarray(own), return_inverse=True)
    sizes = np.bincount(member)
    what = "cases" if clusters is None else "clusters"
    if len(sizes) < 2:
        raise ValueError(f"there must be two {what} or more, to leave some out, got {len(sizes)}")
    if not 2 <= folds <= len(sizes):
        raise ValueError(f"folds must be from 2 to the {len(sizes)} {what}, got {folds}")
    fold_of = np.zeros(len(sizes), np.int64)
    held = np.zeros(folds, np.int64)
    for cluster in np.random.default_rng(seed).permutation(len(sizes)):
        fold_of[cluster] = held.argmin()
        held[fold_of[cluster]] += sizes[cluster]
    return [np.flatnonzero(fold_of[member] == fold) for fold in range(folds)]
