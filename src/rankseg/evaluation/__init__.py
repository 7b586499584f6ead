"""Compare decisions on labelled probability maps, image by image: argmax, pruned argmax, RankSEG.

1. A `Case` is one image: its probability maps and its label. `cases` finds them in files of any
   format, and the `CaseFolder` that it returns reads one at a time; what cannot be read is a
   `Failure` with a reason, and the others go on.
2. A `Method` is a name and a decision. `standard_methods` gives argmax, argmax over the classes
   that are present (which explains much of what is usually credited to the decision), and RankSEG.
3. `compare` decides every case by every method and keeps exact counts. `Comparison` answers from
   them: scores by class and by image, aggregates, and the paired difference to argmax with wins,
   losses and a bootstrap interval. Asked to, it also tells the *predicted* gain: by how much the
   probabilities alone expect a method to score more than the first.

Scores and differences are fractions here. Where a page or a table speaks of *points*, a point is
0.01: a Dice of 0.873 is 87.3 points. ``counted`` says when a class counts in an image, as in
`rankseg.metrics`: ``"label"``, where the label holds it; ``"either"``, also where only the
prediction does, so that a false class scores 0.
"""

from __future__ import annotations

from rankseg.evaluation.case_folders import CaseFolder, cases, read_case
from rankseg.evaluation.clusters import read_clusters
from rankseg.evaluation.comparison import Comparison
from rankseg.evaluation.conventions import Aggregate, aggregate
from rankseg.evaluation.decided_cases import compare
from rankseg.evaluation.differences import Difference, PairedTests, bootstrap_interval
from rankseg.evaluation.labelled_cases import Case, Failure
from rankseg.evaluation.methods import (
    Method,
    Timing,
    argmax,
    pruned_argmax,
    standard_methods,
    time_methods,
)
from rankseg.evaluation.scored_folders import evaluate

__all__ = [
    "Aggregate",
    "Case",
    "CaseFolder",
    "Comparison",
    "Difference",
    "Failure",
    "Method",
    "PairedTests",
    "Timing",
    "aggregate",
    "argmax",
    "bootstrap_interval",
    "cases",
    "compare",
    "evaluate",
    "pruned_argmax",
    "read_case",
    "read_clusters",
    "standard_methods",
    "time_methods",
]
