"""How a comparison is shown in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from rankseg import _tables
from rankseg._differences import RESAMPLES
from rankseg.evaluation import Comparison

__all__ = ["print_comparison", "print_failures"]

LEGEND = (
    "A point is 0.01. pruned argmax: argmax over the classes whose largest probability in the "
    "image exceeds {pruning_prob:g}, as RankSEG prunes them. r: the correlation of the labels that "
    "RankSEG assumes, 0 if none is named. change: from argmax, paired by image; "
    f"interval: percentile bootstrap over images, {RESAMPLES:,} resamples. mean: over the classes "
    "of an image, then images; C: over the images of a class, then classes; D: counts summed over "
    "the data set first."
)
PREDICTED_LEGEND = (
    " predicted: the change that the probabilities themselves expect, without labels. Both "
    "decisions are scored under the r of the row, so compare it with the change beside it, not "
    "with other rows. Mean over the classes of an image whose largest probability exceeds "
    "{pruning_prob:g}, ignored pixels and all, then images: what leaving out the other classes "
    "changes is not in it."
)


def print_comparison(console: Console, comparison: Comparison, pruning_prob: float) -> None:
    _tables.print_table(_tables.class_table(comparison))
    _tables.print_table(_tables.image_table(comparison, "label"))
    if comparison.predicts_absent_class:
        _tables.print_table(_tables.image_table(comparison, "either"))
    else:
        console.print("No method predicts a class where it is absent.\n")
    if not comparison.images_by_class.any():
        console.print("No label holds any class: where classes count by the label, none does.\n")
    legend = LEGEND if comparison.predicted is None else LEGEND + PREDICTED_LEGEND
    console.print(legend.format(pruning_prob=pruning_prob) + "\n", style="dim")


def print_failures(comparison: Comparison) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for failure in comparison.failures:
        errors.print(f"Not compared: {escape(failure.name)}: {escape(failure.reason)}")
