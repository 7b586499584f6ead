"""How a comparison is shown in a terminal: the answer, what to try next, and details on demand."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from rankseg._commands import tables
from rankseg._commands._terminal import print_failures
from rankseg.evaluation import Comparison
from rankseg.evaluation.differences import RESAMPLES
from rankseg.evaluation.verdict import METRIC_NAMES, Remedy, Verdict, standing

__all__ = ["MARKS", "print_answer", "print_details", "print_not_compared", "print_remedies"]

MARKS = {
    "cases.csv": "method,seconds,dice",
    "classes.csv": "case,method,class,tp,fp,fn",
    "summary.json": '"unit": "scores and differences',
}
"""The files of a comparison, and what each of them holds."""

ANSWER_LEGEND = (
    "{name} in points (0.01), by image: the mean over its classes, then over images. 95 % "
    "interval: of the mean change, for other such cases. worst tenth: the mean of the tenth of the "
    "cases with the lowest {name}."
)
FALSE_ZERO_LEGEND = " false zero: the change if a class predicted where it is absent scores 0."
RULES_LEGEND = " pruned argmax: over the classes above {pruning_prob:g}. RMA: the published rule."

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


def print_answer(
    console: Console,
    comparison: Comparison,
    answer: Verdict,
    pruning_prob: float | None = None,
) -> None:
    """Print the verdict, the methods, what their columns mean, and what to try next."""
    console.print(answer.sentence + "\n")
    if len(comparison.methods) == 1:
        tables.print_table(tables.score_table(comparison))
    else:
        rows = standing(comparison, answer.metric, main=[answer.method])
        false_zero = comparison.predicts_absent_class
        tables.print_table(tables.answer_table(rows, answer.metric, false_zero))
        legend = ANSWER_LEGEND + (FALSE_ZERO_LEGEND if false_zero else "")
        legend += "" if pruning_prob is None else RULES_LEGEND
        shown = legend.format(name=METRIC_NAMES[answer.metric], pruning_prob=pruning_prob)
        console.print(shown + "\n", style="dim")
    print_remedies(console, answer.remedies)


def print_remedies(console: Console, remedies: Sequence[Remedy]) -> None:
    """Print commands to try next, each with its reason."""
    for place, remedy in enumerate(remedies):
        console.print(f"{'Or' if place else 'Try next'}: {remedy.reason}")
        console.print(f"  {remedy.command}", soft_wrap=True)


def print_details(console: Console, comparison: Comparison, pruning_prob: float | None) -> None:
    """Print tables by class and by image, tests if SciPy is there, and what the numbers mean.

    ``pruning_prob`` is None if nothing was decided here.
    """
    console.print()
    if len(comparison.methods) == 1:
        tables.print_table(tables.score_table(comparison, len(comparison.classes)))
    else:
        _print_methods(console, comparison, pruning_prob)
    tables.print_table(tables.aggregate_table(comparison))
    console.print(AGGREGATES_LEGEND + "\n", style="dim")
    if comparison.seconds:
        tables.print_table(tables.decision_table(comparison))


def _print_methods(console: Console, comparison: Comparison, pruning_prob: float | None) -> None:
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


def print_not_compared(comparison: Comparison, what: str = "Not compared") -> None:
    """Name the cases that failed, and exit with 1 if any did."""
    print_failures(what, {failure.name: failure.reason for failure in comparison.failures})
