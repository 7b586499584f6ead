"""What was measured: rows of a history, tables to read, and requirements to hold them against."""

from __future__ import annotations

import csv
import math
import operator
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """Where and when rows were measured."""

    date: str
    machine: str
    commit: str
    torch: str
    device: str
    threads: int


@dataclass(frozen=True)
class Row:
    """One figure: the median, and the 20th and 80th percentile where it was taken repeatedly."""

    case: str
    metric: str
    what: str
    value: float
    unit: str
    p20: float
    p80: float


COLUMNS = tuple(field.name for kind in (Origin, Row) for field in fields(kind))


def row(case: str, metric: str, what: str, values: Iterable[float], unit: str) -> Row:
    """Summarise repeated measurements of one figure."""
    values = list(values)
    low = high = middle = statistics.median(values)
    if len(values) > 1:
        low, _, _, high = statistics.quantiles(values, n=5, method="inclusive")
    return Row(case, metric, what, middle, unit, low, high)


def append_history(path: Path, origin: Origin, rows: Sequence[Row]) -> None:
    """Add rows to a CSV file, which is either left as it was or complete."""
    if path.exists():
        history = path.read_text(encoding="utf-8")
        if history.splitlines()[:1] != [",".join(COLUMNS)]:
            raise SystemExit(f"{path} has other columns than {COLUMNS}; move it away")
    else:
        history = ",".join(COLUMNS) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, suffix=".csv", delete=False
    ) as file:
        file.write(history)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(cells(origin, one) for one in rows)
    Path(file.name).chmod(0o644)  # temporary files are made for their owner alone
    os.replace(file.name, path)


def cells(origin: Origin, measured: Row) -> list[str]:
    return [
        f"{cell:.6g}" if isinstance(cell, float) else str(cell)
        for cell in (*astuple(origin), *astuple(measured))
    ]


def print_table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a markdown table, padded so that it reads well as it is."""
    lines = [tuple(header), *map(tuple, lines)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    padded.insert(1, ["-" * width for width in widths])
    print(f"\n## {title}\n")
    for line in padded:
        print("| " + " | ".join(line) + " |")
    print(flush=True)


def show(measured: Row, digits: int = 3) -> str:
    """Write a figure with the range of its middle three fifths, where there is one."""
    if measured.p20 == measured.p80:
        return number(measured.value, digits)
    low, high = number(measured.p20, digits), number(measured.p80, digits)
    return f"{number(measured.value, digits)} ({low} to {high})"


def number(value: float, digits: int = 3) -> str:
    """Write a number to so many significant digits, never with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


@dataclass(frozen=True)
class Requirement:
    """A limit that the worst of some figures has to keep."""

    text: str
    what: tuple[str, ...]
    limit: float
    at_least: bool = False
    cases: tuple[str, ...] = ()  # () for all

    def judge(self, rows: Iterable[Row]) -> tuple[str, str, str, str]:
        """Return text, worst figure, limit and whether it is met."""
        measured = [
            one
            for one in rows
            if one.what in self.what and (not self.cases or one.case in self.cases)
        ]
        sign = "at least" if self.at_least else "at most"
        limit = f"{sign} {self.limit:g}"
        if not measured:
            return self.text, "not measured", limit, "unknown"
        worst_of: Callable[..., Row] = min if self.at_least else max
        worst = worst_of(measured, key=operator.attrgetter("value"))
        kept = worst.value >= self.limit if self.at_least else worst.value <= self.limit
        figure = " ".join(filter(None, (number(worst.value), worst.case, worst.metric)))
        return self.text, figure, limit, "met" if kept else "NOT MET"
