"""One image with its probability maps and its label, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from rankseg._common.arguments import class_count, describe, distinct_names, integer
from rankseg._common.public import public

__all__ = [
    "IGNORE_INDEX",
    "MASK_VALUE",
    "Case",
    "Failure",
    "IgnoreIndex",
    "checked_cases",
    "ignored_label",
    "mask_as_classes",
    "named_classes",
    "reasons",
]

IGNORE_INDEX: Final = 255
"""The label of pixels to be ignored, where ``meta.json`` does not say another."""

IgnoreIndex: TypeAlias = int | Literal["default"] | None

MASK_VALUE: Final = 255
"""The foreground of masks as image editors and many data sets store them."""


@public("rankseg.evaluation")
@dataclass(frozen=True, eq=False)
class Case:
    """One image: the maps a network gave for it, and the truth.

    Parameters
    ----------
    name : str
        What results are reported under.
    probs : Tensor
        Floating (classes, *spatial), at least one spatial axis. One class is foreground against
        background.
    label : Tensor
        Integer (*spatial): the class of every pixel, or the index to be ignored. With one class,
        1 is foreground and 0 background.
    valid : Tensor, optional
        Bool (*spatial), if pixels without data were left out: where the pixels of ``probs``
        (classes, n) and ``label`` (n,) lie in the image, in order. Pictures need it, scores do not.

    Raises
    ------
    TypeError
        If ``probs`` is not floating or ``label`` not an integer tensor.
    ValueError
        If an axis is missing or empty, or the spatial shapes differ.
    """

    name: str
    probs: Tensor
    label: Tensor
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.probs.is_floating_point():
            raise TypeError(f"probs must be floating, got {self.probs.dtype}")
        if self.label.is_floating_point() or self.label.dtype == torch.bool:
            raise TypeError(f"label must hold integers, got {self.label.dtype}")
        shape = tuple(self.probs.shape)
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"probs must have the axes (classes, *spatial), none of them empty, got {shape}"
            )
        if tuple(self.label.shape) != shape[1:]:
            raise ValueError(
                f"label must have the spatial shape of probs, {shape[1:]}, "
                f"got {tuple(self.label.shape)}"
            )
        if self.valid is not None and shape[1:] != (int(self.valid.sum()),):
            raise ValueError(
                f"probs and label must hold the {int(self.valid.sum())} valid pixels alone, "
                f"(classes, n) and (n,), got probs of shape {shape}"
            )

    def image(self, pixels: Tensor, fill: int) -> Tensor:
        """Return values of the pixels (n,) or (*spatial) as an image (*spatial).

        Pixels that are not valid become ``fill``.
        """
        if self.valid is None:
            return pixels
        image = pixels.new_full(self.valid.shape, fill)
        image[self.valid] = pixels
        return image


@public("rankseg.evaluation")
@dataclass(frozen=True)
class Failure:
    """A case that could not be compared, and why."""

    name: str
    reason: str


def named_classes(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, of which the names or the number is given."""
    if isinstance(classes, int):
        classes = [f"class {i}" for i in range(class_count("classes", classes))]
    return distinct_names("classes", classes)


def reasons(failures: Sequence[Failure]) -> str:
    """Return a line for every failure, each after a line break, to stand behind an error."""
    return "".join(f"\n  {failure.name}: {failure.reason}" for failure in failures)


def ignored_label(ignore_index: object, num_classes: int) -> int | None:
    """Return the label of pixels that do not count, of ``'default'`` 255 unless that is a class."""
    if ignore_index != "default":
        return None if ignore_index is None else integer("ignore_index", ignore_index)
    if num_classes > IGNORE_INDEX:
        raise ValueError(
            f"ignore_index must be given for {num_classes} classes: by default pixels of label "
            f"{IGNORE_INDEX} do not count, which is a class here. Set ignore_index "
            "(--ignore-index) to the label of void pixels, or to None (none)"
        )
    return IGNORE_INDEX


def mask_as_classes(labels: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Return the labels of a binary mask stored as 0 and 255, with 1 in place of 255.

    Labels are such a mask if all values are 0 or 255, there is one class or two, and
    ``ignore_index`` is None. Then 255 cannot mean void. Any other labels are returned unchanged.
    """
    if num_classes > 2 or ignore_index is not None:
        return labels
    foreground = labels == MASK_VALUE
    if not foreground.any() or not (foreground | (labels == 0)).all():
        return labels
    return labels.masked_fill(foreground, 1)


def checked_cases(cases: Iterable[Case | Failure]) -> Iterator[Case | Failure]:
    """Yield the cases one by one; raise TypeError for an item that is no case or failure."""
    kind = "rankseg.evaluation.Case(name, probs, label)"
    if not isinstance(cases, Iterable):
        raise TypeError(f"cases must be an iterable of {kind}, got {describe(cases)}")
    for case in cases:
        if not isinstance(case, Case | Failure):
            raise TypeError(f"every case must be {kind}, got {describe(case)}")
        yield case
