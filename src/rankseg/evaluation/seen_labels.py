"""The values that a set of label maps holds, and sets and maps that leave nothing to score."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import torch
from torch import Tensor

from rankseg._common.warn import warn
from rankseg.evaluation.labelled_cases import (
    MASK_VALUE,
    Case,
    Failure,
    checked_cases,
    mask_as_classes,
)

__all__ = ["SeenLabels"]

COUNTED_UP_TO: Final = 1 << 16
"""Values below this are found by counting, which is faster than sorting."""

SHOWN: Final = 8
"""Most values that an error names."""

SAMPLED: Final = 4096
"""About how many pixels of a map tell whether predicted and true labels are numbered alike."""

LEAST_SHIFTED, TIMES_EQUAL = 0.25, 4
"""Labels are numbered differently if they differ by 1 in this share of the pixels, and in so many
times the pixels where they are equal."""


Colour: TypeAlias = tuple[int, ...]


@dataclass
class SeenLabels:
    """The values of all label maps of a set: one map without foreground is fine, a set is not.

    Nor is a map whose foreground has a value that is no class: one mask of 0 and 255 among masks
    of 0 and 1. Void labels have such a value, too; they are known by another map of the set that
    holds the value beside a class above 0.

    Parameters
    ----------
    ignore_index : int or None
        The label of pixels that do not count.
    num_classes : int
        At least 2; one channel has two classes.
    values : set of int
        The values seen so far.
    void : set of int
        Those that are no class and lie in a map beside a class above 0.
    without_class : dict of str to list of int
        The first values of every map that holds values that are no class, and no class above 0.
    colours : dict of int to tuple
        The colour that the palette of a picture gives a value, and the first case that has it.
    recoloured : tuple or None
        The first value that has another colour in a later case, and the names of both cases.
    may_be_masks : bool
        Whether an axis of all maps is as long as there are classes.
    pixels_by_shift : dict of int to int
        In how many sampled pixels the true label is the predicted one plus -1, 0 or 1.
    sampled : int
        How many pixels that count were sampled.
    """

    ignore_index: int | None
    num_classes: int = 2
    values: set[int] = field(default_factory=set)
    void: set[int] = field(default_factory=set)
    without_class: dict[str, list[int]] = field(default_factory=dict)
    colours: dict[int, tuple[Colour, str]] = field(default_factory=dict)
    recoloured: tuple[int, str, str] | None = None
    may_be_masks: bool = True
    pixels_by_shift: dict[int, int] = field(default_factory=lambda: {-1: 0, 0: 0, 1: 0})
    sampled: int = 0

    def add(self, labels: Tensor, case: str) -> Tensor:
        """Note the values of a label map; return it, a mask of 0 and 255 as classes."""
        # Torch has few operations for unsigned dtypes of more than 8 bits.
        labels = mask_as_classes(labels.long(), self.num_classes, self.ignore_index)
        values = _values_of(labels)
        self.values |= values
        ends = labels.shape[:1] + labels.shape[-1:]
        self.may_be_masks &= labels.ndim > 2 and self.num_classes in ends
        no_class = {value for value in values if not self._is_class(value)}
        if self._hold_foreground(values):
            self.void |= no_class
        elif no_class:
            self.without_class[case] = sorted(values)[: SHOWN + 1]
        return labels

    def add_colours(self, colours: Mapping[int, Colour], case: str) -> None:
        """Note the colours of the values of a label map."""
        for value in sorted(colours.keys() - {self.ignore_index}):
            first, other = self.colours.setdefault(value, (colours[value], case))
            if colours[value] != first and self.recoloured is None:
                self.recoloured = value, other, case

    def warn_of_colours(self, whose: str, truth: SeenLabels | None = None) -> None:
        """Warn of palettes that order their colours differently.

        Predictions may have other colours than the truth, but not those of its other classes.
        """
        clashes = [] if self.recoloured is None else [self.recoloured]
        if truth is not None and not clashes:
            known = {colour for colour, _ in truth.colours.values()}
            clashes = [
                (value, case, truth.colours[value][1])
                for value, (colour, case) in self.colours.items()
                if value in truth.colours and truth.colours[value][0] != colour in known
            ]
            whose += " and of the truth"
        if clashes:
            value, one, another = clashes[0]
            warn(
                f"the palettes of {whose} give the label {value} different colours, in {one} and "
                f"in {another}. Labels are taken for classes whatever their colours are: write all "
                "files with one palette"
            )

    def watch(self, cases: Iterable[Case | Failure]) -> Iterator[Case | Failure]:
        """Yield cases one by one, and note their labels; at the end warn if these are shifted."""
        for case in checked_cases(cases):
            if isinstance(case, Failure):
                yield case
            else:
                self.num_classes = max(self.num_classes, len(case.probs))
                label = self.add(case.label, case.name)
                self.add_pair(_sample(case.probs.flatten(1)).argmax(0), label)
                yield replace(case, label=label)
        self.warn_of_shift("the likeliest classes of the maps")

    def add_pair(self, predicted: Tensor, true: Tensor) -> None:
        """Note by how much labels of some pixels differ; true ones to be ignored do not count."""
        true = _sample(true.flatten()).long()
        difference = true - _sample(predicted.flatten()).long()
        if self.ignore_index is not None:
            difference = difference[true != self.ignore_index]
        for shift in self.pixels_by_shift:
            self.pixels_by_shift[shift] += int((difference == shift).sum())
        self.sampled += len(difference)

    def refuse_truth_without_foreground(self) -> None:
        """Raise a ValueError if no pixel that counts is of class 1 or above."""
        if self._hold_foreground(self.values - {self.ignore_index}):
            return
        void = hint = ""
        if self.ignore_index in self.values:
            void = f", where {self.ignore_index} is ignore_index and does not count"
            hint = self._mask_hint or (
                f"; if {self.ignore_index} is a class, set ignore_index (--ignore-index) to the "
                "value of void pixels, or to None (none)"
            )
        raise ValueError(
            "labels must hold pixels of class 1 or above that count; those of all cases hold only "
            f"{_listed(self.values)}{void}{hint}"
        )

    def truths_without_class(self) -> dict[str, str]:
        """Return why masks among others cannot be scored: what may be foreground is void.

        With more than two classes a map may well hold only the class 0 and void.
        """
        if self.num_classes > 2:
            return {}
        return {
            case: f"its label holds only {_listed(values)}, where {self.ignore_index} is "
            f"ignore_index and does not count, and no other label holds both "
            f"{self.ignore_index} and 1{self._mask_hint}"
            for case, values in self._suspects()
            if self.ignore_index in values
        }

    def predictions_without_class(self, method: str) -> dict[str, str]:
        """Return why predictions among others cannot be scored: what may be foreground is none."""
        return {
            case: f"its prediction by {method} must hold classes from 0 to "
            f"{self.num_classes - 1}, got only {_listed(values)}{self._mask_hint}"
            for case, values in self._suspects()
        }

    def warn_of_missed(self, method: str) -> None:
        """Warn of predicted values that are neither a class nor ignore_index."""
        missed = {one for one in self.void if one not in (self.ignore_index, MASK_VALUE)}
        if missed:
            warn(
                f"predictions of {method} hold {_listed(missed)} beside classes from 0 to "
                f"{self.num_classes - 1}; such pixels count as missed"
            )

    def warn_of_offset(self, method: str, truth: SeenLabels) -> None:
        """Warn of labels from 1 on one side where those of the other are from 0.

        Three values are needed where the largest one is no such sign: a method may well predict no
        background. Where 0 does not count, labels of both sides may be from 1: pixels tell.
        """
        if self.ignore_index == 0:
            self.warn_of_shift(f"labels of {method}")
            return
        ours, theirs = self.values - {self.ignore_index}, truth.values - {self.ignore_index}
        sides = (ours, theirs, method, "the truth"), (theirs, ours, "the truth", method)
        for upper, lower, whose, others in sides:
            shifted = {value + 1 for value in lower}
            if (
                0 in lower - upper
                and upper <= shifted
                and len(upper) > (1 if max(shifted) in upper else 2)
            ):
                warn(
                    f"labels of {whose} are {_listed(upper)}, those of {others} {_listed(lower)}: "
                    f"if labels of {whose} count from 1, subtract 1"
                )

    def warn_of_shift(self, predicted: str) -> None:
        """Warn of predicted labels that are the true ones less 1, or plus 1, at many pixels.

        With two classes they would be inverted masks.
        """
        if self.num_classes == 2:
            return
        equal = self.pixels_by_shift[0]
        for shift, word in ((1, "less"), (-1, "more")):
            shifted = self.pixels_by_shift[shift]
            if shifted > max(LEAST_SHIFTED * self.sampled, TIMES_EQUAL * equal):
                warn(
                    f"{predicted} are 1 {word} than the true labels at "
                    f"{shifted / self.sampled:.0%} of {self.sampled} sampled pixels that count, "
                    f"and equal at {equal / self.sampled:.0%}: if one side counts from 1, number "
                    "both alike"
                )

    def warn_of_masks(self, method: str, truth: SeenLabels) -> None:
        """Warn of predicted and true labels that look like a mask for each class."""
        no_class_above_1 = self.values | truth.values <= {0, 1, self.ignore_index}
        if self.num_classes > 2 and self.may_be_masks and no_class_above_1:
            warn(
                f"labels of {method} and of the truth hold only 0 and 1, of {self.num_classes} "
                f"classes, and an axis of length {self.num_classes}: if they are masks of classes "
                "that overlap, store every class in a folder of its own and score it with two "
                "classes"
            )

    def _suspects(self) -> Iterator[tuple[str, list[int]]]:
        """Yield maps without foreground of which no value is void elsewhere in the set."""
        for case, values in self.without_class.items():
            if self.void.isdisjoint(values):
                yield case, values

    def refuse_predictions_without_class(self, method: str) -> None:
        """Raise a ValueError if all labels but 0 are no class: each would count as a miss."""
        if all(map(self._is_class, self.values)) or self._hold_foreground(self.values):
            return
        raise ValueError(
            f"predictions of {method} must hold classes from 0 to {self.num_classes - 1}; those of "
            f"all cases hold only {_listed(self.values)}"
            f"{self._mask_hint or '; number the classes so'}"
        )

    def _is_class(self, value: int) -> bool:
        return 0 <= value < self.num_classes

    def _hold_foreground(self, values: set[int]) -> bool:
        return any(0 < value < self.num_classes for value in values)

    @property
    def _mask_hint(self) -> str:
        """Say how a mask of 0 and 255 is read, if this may be one."""
        if self.num_classes > 2 or not self.ignore_index == MASK_VALUE in self.values:
            return ""
        return (
            f"; if {MASK_VALUE} is the foreground, set ignore_index to None (--ignore-index none), "
            f"which reads {MASK_VALUE} as class 1, or write 1 in its place"
        )


def _sample(pixels: Tensor) -> Tensor:
    """Return some pixels of the last axis, of a sample all; an odd step meets most columns."""
    return pixels[..., :: pixels.shape[-1] // SAMPLED | 1]


def _listed(values: Collection[int]) -> str:
    """Name values, or the first few of many."""
    shown = [str(value) for value in sorted(values)[:SHOWN]]
    if len(values) > SHOWN:
        return f"{', '.join(shown)} and {len(values) - SHOWN} other values"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _values_of(labels: Tensor) -> set[int]:
    if not labels.numel():
        return set()
    flat = labels.flatten()
    low, high = (int(end) for end in torch.aminmax(flat))
    if low < 0 or high >= COUNTED_UP_TO:
        return set(flat.unique().tolist())
    return set(flat.bincount().nonzero().flatten().tolist())
