"""What the pages of results have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rankseg.metrics import Metric

METRIC_NAMES: dict[Metric, str] = {"dice": "Dice", "iou": "IoU"}

# Of fewer images a bootstrap interval is little more than the range of their differences.
FEWEST_FOR_CERTAINTY = 5


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Write a markdown table: the first columns to the left, numbers to the right."""
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
