"""A calibration as a value: what it does to probabilities, and the small file it is kept in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from rankseg._common.arguments import choice, describe, number, number_tuple
from rankseg._common.public import public
from rankseg._decision.inputs import as_tensor
from rankseg._decision.presence_model import PresenceModel
from rankseg._files.small import read_as, write_fields

__all__ = ["LINKS", "MOST", "Calibration", "check_weights", "log_probabilities"]

FORMAT: Final = "rankseg calibration 1"
LINKS: Final = ("softmax", "sigmoid")

MOST: Final = 1e6
"""Largest scale; its reciprocal is the smallest.

Logarithms of probabilities lie in [-17.4, 0] here: beyond, calibrated probabilities are 0 and 1 or
all equal."""

LEAST: Final = 2.0**-25
"""Half of the least probability that half precision can hold."""


@public("rankseg.calibration")
@dataclass(frozen=True)
class Calibration:
    r"""A scale and an offset of the log-probabilities of every class.

    With the link ``'softmax'`` the classes exclude each other, and probabilities :math:`p` become
    :math:`\mathrm{softmax}_c (s_c \log p_c + b_c)`; with ``'sigmoid'``, for one channel or classes
    that do not, :math:`\sigma (s_c \, \mathrm{logit} \, p_c + b_c)`.

    Made by `rankseg.calibration.fit` or `from_class_weights`, applied by
    `rankseg.calibration.calibrate`, and taken by ``RankSEG(calibration=...)``, as is the path of
    the file it was saved to. Probabilities nearer to 0 (or for logits 1) than ``2 ** -25``, half of
    the least that half precision can hold, count as that near.

    Parameters
    ----------
    link : {'softmax', 'sigmoid'}
        What makes probabilities of the sums.
    scale : sequence of float
        One for each class, in [1e-06, 1e+06]: the reciprocal of a temperature.
    offset : sequence of float
        One for each class, in [-1e+06, 1e+06]. With softmax only their differences matter.
    kind : str
        What it is called: ``'temperature'``, ``'vector'``, ``'binary'``, ``'prior'``. ``'none'``
        leaves probabilities as they are, with scales of 1 and offsets of 0.
    presence : PresenceModel, optional
        Tells which classes are in an image, from the calibrated maps. RankSEG decides by it unless
        it is given ``presence`` or ``pruning_prob``.

    Raises
    ------
    TypeError, ValueError
        If an option is not allowed, or if the numbers of scales, of offsets and of the classes of
        ``presence`` differ.

    Examples
    --------
    >>> from rankseg.calibration import Calibration
    >>> Calibration("softmax", [0.5, 0.5], [0.0, 0.0], "temperature").scale
    (0.5, 0.5)
    """

    link: Literal["softmax", "sigmoid"]
    scale: Sequence[float]
    offset: Sequence[float]
    kind: str = "vector"
    presence: PresenceModel | None = None

    def __post_init__(self) -> None:
        choice("link", self.link, LINKS)
        if not isinstance(self.kind, str):
            raise TypeError(f"kind must be a string, got {self.kind!r}")
        for name, least in (("scale", 1 / MOST), ("offset", -MOST)):
            values = number_tuple(name, getattr(self, name), least, MOST)
            object.__setattr__(self, name, values)
        if len(self.scale) != len(self.offset):
            raise ValueError(
                f"scale and offset must have one entry for each class, got {len(self.scale)} and "
                f"{len(self.offset)}"
            )
        if self.kind == "none" and (set(self.scale), set(self.offset)) != ({1.0}, {0.0}):
            raise ValueError(
                "kind='none' must have scales of 1 and offsets of 0, got "
                f"{self.scale} and {self.offset}"
            )
        if not isinstance(self.presence, PresenceModel | None):
            raise TypeError(f"presence must be a PresenceModel, got {describe(self.presence)}")
        if self.presence is not None and self.presence.classes != self.classes:
            raise ValueError(
                f"presence must be a model of {self.classes} classes, as the calibration is, got "
                f"one of {self.presence.classes}"
            )

    @classmethod
    def from_class_weights(
        cls, class_weights: Sequence[float] | np.ndarray[Any, Any] | Tensor
    ) -> Calibration:
        """Return what undoes the weights of a cross-entropy: see `prior_correction`.

        A single weight is that of the foreground of one channel.

        Examples
        --------
        >>> from rankseg.calibration import Calibration
        >>> Calibration.from_class_weights([1.0, 1.0]).offset
        (0.0, 0.0)
        """
        logs = [-math.log(weight) for weight in check_weights(class_weights)]
        link: Literal["softmax", "sigmoid"] = "sigmoid" if len(logs) == 1 else "softmax"
        return cls(link, [1.0] * len(logs), [log + 0.0 for log in logs], "prior")

    @classmethod
    def of_presence(cls, model: PresenceModel) -> Calibration:
        """Return what leaves probabilities as they are, and tells which classes are there."""
        link: Literal["softmax", "sigmoid"] = "sigmoid" if model.classes == 1 else "softmax"
        return cls(link, [1.0] * model.classes, [0.0] * model.classes, "none", model)

    @property
    def classes(self) -> int:
        """The number of classes, or 1 for one channel."""
        return len(self.scale)

    def of_class(self, index: int) -> Calibration:
        """Return the calibration of one class by itself, of those with the link ``'sigmoid'``.

        Raises
        ------
        ValueError
            If the classes exclude each other, and so are calibrated together.
        """
        if self.link != "sigmoid":
            raise ValueError("calibration must be for 'sigmoid' to be of one class, got 'softmax'")
        model = None if self.presence is None else self.presence.of_class(index)
        return Calibration("sigmoid", [self.scale[index]], [self.offset[index]], self.kind, model)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as JSON; the file is there whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_fields(Path(path), FORMAT, asdict(self))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds something else.
        """
        names = [field.name for field in fields(cls)]
        return read_as(
            calibration_of, "calibration file", path, FORMAT, names, optional=["presence"]
        )

    def of(self, maps: Tensor, from_logits: str | None = None) -> Tensor:
        """Return calibrated probabilities ``(batch, classes, ...)`` of float64 maps, or logits."""
        if self.kind == "none" and from_logits is None:
            return maps  # those of overlapping classes too, which a softmax would bring to 1
        logs = log_probabilities(maps, self.link, from_logits)
        shape = -1, *[1] * (maps.dim() - 2)
        scale, offset = (
            torch.tensor(terms, dtype=torch.float64, device=maps.device).view(shape)
            for terms in (self.scale, self.offset)
        )
        sums = scale * logs + offset
        return sums.softmax(1) if self.link == "softmax" else sums.sigmoid()


def calibration_of(content: Mapping[str, Any]) -> Calibration:
    """Make a calibration of its fields, as ``dataclasses.asdict`` gives them."""
    model = content.get("presence")
    return Calibration(**{**content, "presence": None if model is None else PresenceModel(**model)})


def log_probabilities(maps: Tensor, link: str, from_logits: str | None = None) -> Tensor:
    """Return what a calibration scales: log-probabilities, or with ``'sigmoid'`` their logits.

    A logarithm needs some value: probabilities nearer to 0 than ``LEAST``, and for logits to 1,
    count as that near.
    """
    if link == "softmax":
        return maps.log_softmax(1) if from_logits else maps.clamp(min=LEAST).log()
    if from_logits:
        return maps
    return maps.clamp(min=LEAST).log() - (1 - maps).clamp(min=LEAST).log()


def check_weights(class_weights: object) -> list[float]:
    """Return class weights as positive floats."""
    if isinstance(class_weights, np.ndarray | Tensor):
        class_weights = as_tensor("class_weights", class_weights).tolist()
    if not isinstance(class_weights, Iterable) or isinstance(class_weights, str):
        raise TypeError(
            f"class_weights must be a sequence of real numbers, got {describe(class_weights)}"
        )
    weights = [number("every class weight", weight, 0.0, math.inf) for weight in class_weights]
    if 0 in weights:
        raise ValueError(
            f"every class weight must be above 0, got {weights}; a class of weight 0 was not "
            "trained: leave its channel out of the maps"
        )
    return weights
