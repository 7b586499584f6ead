"""The table of a network: every method by every score, and its change from the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rankseg import metrics
from rankseg.evaluation import Comparison
from rankseg.metrics import METRICS, Counted, Metric

__all__ = ["HEADER", "QUANTITIES", "READINGS", "markdown", "metric_of", "rows_of"]

WORST = 0.1
QUANTITIES = "quantities.json"
"""The file of a run that holds what was measured of its maps."""

READINGS: tuple[tuple[Counted, str], ...] = (("label", "not counted"), ("either", "score 0"))
"""When a class counts in an image, and what that makes of a class that the image lacks."""

HEADER = (
    *("method", "metric", "absent classes", "by image", "by class", "data set", "worst tenth"),
    *("change", "low", "high", "wins", "losses"),
    *("change from pruned", "low", "high", "seconds"),
)
"""The columns. Scores and changes are in points, 0.01; changes are by image, from argmax first."""


def metric_of(method: str) -> str | None:
    """Return the metric that a method maximises; None for a baseline."""
    parts = method.split()
    return parts[1] if len(parts) > 1 else None


def rows_of(comparison: Comparison) -> Iterator[list[object]]:
    """Yield a row for every method, by the metric that it maximises, or by both."""
    for metric in METRICS:
        for counted, absent in READINGS:
            for method in comparison.methods:
                if metric_of(method) in (None, metric):
                    scores = _scores(comparison, method, metric, counted)
                    yield [method, metric, absent, *scores]


def _scores(
    comparison: Comparison, method: str, metric: Metric, counted: Counted
) -> Iterator[object]:
    counts = comparison.counts[method]
    found = metrics.summary(counts, metric, counted=counted, worst=[WORST])
    yield from (f"{100 * found[name]:.2f}" for name in ("I", "C", "D", f"I@{WORST}"))
    change = comparison.difference(method, metric, counted)
    yield from (f"{100 * value:+.2f}" for value in (change.mean, change.low, change.high))
    yield from (change.wins, change.losses)
    if "pruned_argmax" in comparison.methods:
        pruned = comparison.difference(method, metric, counted, baseline="pruned_argmax")
        yield from (f"{100 * value:+.2f}" for value in (pruned.mean, pruned.low, pruned.high))
    else:
        yield from ("", "", "")
    yield f"{np.median(comparison.seconds[method]):.4f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
