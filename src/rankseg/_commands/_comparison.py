"""How a comparison is shown in a terminal."""

from __future__ import annotations

from rich.console import Console

from rankseg._commands import tables
from rankseg._commands._terminal import print_failures
from rankseg.evaluation import Comparison
from rankseg.evaluation.differences import RESAMPLES

__all__ = ["MARKS", "print_aggregates", "print_comparison", "print_not_compared"]

MARKS = {
    "cases.csv": "method,seconds,dice",
    "classes.csv": "case,method,class,tp,fp,fn",
    "summary.json": '"unit": "scores and differences',
}
"""The files of a comparison, and what each of them holds."""

LEGEND = (
    "A point is 0.01. change: from the first method, paired by image; "
    f"interval: percentile bootstrap over {{units}}, {RESAMPLES:,} resamples. mean: over the "
    "classes of an image, then images; C: over the images of a class, then classes; D: counts "
    "summed over the data set first."
)
METHODS_LEGEND = (
    " pruned argmax: argmax over the classes whose largest probability in the image exceeds "
    "{pruning_prob:g}, as RankSEG prunes them. RankSEG dice: RankSEG by default for Dice, joint "
    "labels with correlation r = 0.5; RMA: the published rule."
)
AGGREGATES_LEGEND = (
    "Averages as toolkits report them by default. nnunet: by case, then the classes but the first; "
    "a class counts if label or prediction hold it. monai: by image; where the label holds it. "
    "torchmetrics: by image; if label or prediction hold it. mmseg: counts summed over the data "
    "set first."
)
PREDICTED_LEGEND = (
    " predicted: the change that the probabilities themselves expect, without labels. Both "
    "decisions are scored under the r of the row, so compare it with the change beside it, not "
    "with other rows. Mean over the classes of an image whose largest probability exceeds "
    "{pruning_prob:g}, ignored pixels and all, then images: what leaving out the other classes "
    "changes is not in it."
)


def print_comparison(console: Console, comparison: Comparison, pruning_prob: float | None) -> None:
    """Print tables by class and by image, tests if SciPy is there, and what the numbers mean.

    ``pruning_prob`` is None if nothing was decided here.
    """
    tables.print_table(tables.class_table(comparison))
    tables.print_table(tables.image_table(comparison, "label"))
    if comparison.predicts_absent_class:
        tables.print_table(tables.image_table(comparison, "either"))
    else:
        console.print("No method predicts a class where it is absent.\n")
    legend = METHODS_LEGEND if pruning_prob is not None else ""
    if comparison.predicted is not None:
        legend = legend + PREDICTED_LEGEND
    units = "images" if comparison.clusters is None else "clusters"
    shown = (LEGEND + legend).format(pruning_prob=pruning_prob, units=units)
    console.print(shown + "\n", style="dim")
    try:
        tables.print_table(tables.tests_table(comparison))
    except ImportError as error:
        console.print(f"No tests: {error}\n", style="dim")


def print_aggregates(console: Console, comparison: Comparison) -> None:
    """Print the averages of the toolkits."""
    tables.print_table(tables.aggregate_table(comparison))
    console.print(AGGREGATES_LEGEND + "\n", style="dim")


def print_not_compared(comparison: Comparison, what: str = "Not compared") -> None:
    """Name the cases that failed, and exit with 1 if any did."""
    print_failures(what, {failure.name: failure.reason for failure in comparison.failures})
