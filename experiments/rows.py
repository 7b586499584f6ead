"""The rows of the figures that RESULTS.md is written from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MeasuredRow", "MembersRow", "Row"]


@dataclass(frozen=True)
class Row:
    """A method on one kind of maps of a network, by one score; in points, means over the seeds.

    ``I``, ``C``, ``D`` and ``worst`` are the scores by image, by class, of the data set and of the
    worst tenth of the images; ``..._change`` their changes from argmax of the maps as they are.
    ``change`` and ``pruned`` are the mean changes by image from this argmax and from pruned argmax
    of the same maps, with the ends of their 95 % intervals: bootstrap over images, whose
    differences are averaged over the seeds first. ``wins`` and ``losses`` count these images.
    ``spread`` is the standard deviation of ``change`` over the seeds.
    """

    set: str
    network: str
    seeds: int
    maps: str
    method: str
    metric: str
    counted: str
    images: int
    I: float  # noqa: E741
    I_change: float
    C: float
    C_change: float
    D: float
    D_change: float
    worst: float
    worst_change: float
    change: float
    change_low: float
    change_high: float
    wins: int
    losses: int
    spread: float
    pruned: float
    pruned_low: float
    pruned_high: float
    seconds: float


@dataclass(frozen=True)
class MeasuredRow:
    """The `experiments.quantities.Quantities` of the maps of one run."""

    set: str
    network: str
    seed: str
    entropy: float
    unsure: float
    size: float
    volume: float
    invented: float
    lost: float
    correlation: float


@dataclass(frozen=True)
class MembersRow:
    """A decision on the mean map of several networks, by image and in points.

    ``change`` is the mean change from argmax of the mean map. ``ahead`` is by how much the labels
    for all members score more than this decision, ``error`` its standard error over images, and
    ``wins`` and ``losses`` count the images.
    """

    set: str
    members: int
    images: int
    metric: str
    counted: str
    method: str
    score: float
    change: float
    ahead: float
    error: float
    wins: int
    losses: int
