"""The values that a set of label maps holds, and sets that leave nothing to score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from rankseg._cases import MASK_VALUE, Case, Failure, mask_as_classes

__all__ = ["SeenLabels"]

COUNTED_UP_TO: Final = 1 << 16
"""Values below this are found by counting, which is faster than sorting."""

SHOWN: Final = 8
"""Most values that an error names."""


@dataclass
class SeenLabels:
    """The values of all label maps of a set: one map without foreground is fine, a set is not.

    Parameters
    ----------
    ignore_index : int or None
        The label of pixels that do not count.
    num_classes : int
        At least 2; one channel has two classes.
    values : set of int
        The values seen so far.
    """

    ignore_index: int | None
    num_classes: int = 2
    values: set[int] = field(default_factory=set)

    def add(self, labels: Tensor) -> Tensor:
        """Note the values of a label map; return it, a mask of 0 and 255 as classes."""
        # Torch has few operations for unsigned dtypes of more than 8 bits.
        labels = mask_as_classes(labels.long(), self.num_classes, self.ignore_index)
        self.values |= _values_of(labels)
        return labels

    def watch(self, cases: Iterable[Case | Failure]) -> Iterator[Case | Failure]:
        """Yield cases one by one, and note the values of their labels."""
        for case in cases:
            if isinstance(case, Failure):
                yield case
            else:
                self.num_classes = max(self.num_classes, len(case.probs))
                yield replace(case, label=self.add(case.label))

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
            f"{self._listed}{void}{hint}"
        )

    def refuse_predictions_without_class(self, method: str) -> None:
        """Raise a ValueError if all labels but 0 are no class: each would count as a miss."""
        void = {value for value in self.values if not 0 <= value < self.num_classes}
        if not void or self._hold_foreground(self.values):
            return
        raise ValueError(
            f"predictions of {method} must hold classes from 0 to {self.num_classes - 1}; those of "
            f"all cases hold only {self._listed}{self._mask_hint or '; number the classes so'}"
        )

    def _hold_foreground(self, values: set[int]) -> bool:
        return any(0 < value < self.num_classes for value in values)

    @property
    def _listed(self) -> str:
        """Name the values, or the first few of many."""
        shown = [str(value) for value in sorted(self.values)[:SHOWN]]
        if len(self.values) > SHOWN:
            return f"{', '.join(shown)} and {len(self.values) - SHOWN} other values"
        return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))

    @property
    def _mask_hint(self) -> str:
        """Say how a mask of 0 and 255 is read, if this may be one."""
        if self.num_classes > 2 or not self.ignore_index == MASK_VALUE in self.values:
            return ""
        return (
            f"; if {MASK_VALUE} is the foreground, set ignore_index to None (--ignore-index none), "
            f"which reads {MASK_VALUE} as class 1, or write 1 in its place"
        )


def _values_of(labels: Tensor) -> set[int]:
    if not labels.numel():
        return set()
    flat = labels.flatten()
    low, high = (int(end) for end in torch.aminmax(flat))
    if low < 0 or high >= COUNTED_UP_TO:
        return set(flat.unique().tolist())
    return set(flat.bincount().nonzero().flatten().tolist())
