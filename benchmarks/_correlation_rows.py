"""The figures of ``correlation.py``: one row for every way to decide a set and to score it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

from rankseg.metrics import Counted, Metric

METRICS: tuple[Metric, ...] = ("dice", "iou")
COUNTED: tuple[Counted, ...] = ("label", "either")
WORST = (0.25,)
AGGREGATES = ("D", "I", "C", *(f"{of}@{fraction}" for fraction in WORST for of in "IC"))


@dataclass(frozen=True)
class Origin:
    """Where and when the rows were measured."""

    date: str
    machine: str
    commit: str
    version: str


@dataclass(frozen=True)
class Way:
    """A set of maps, a way to decide it, a way to score that, and what it is held against."""

    set: str
    maps: str  # "stored", or "corrected" where the class weights are undone
    method: str  # "argmax", "pruned argmax", "RMA", "joint"
    correlation: float | None
    pruning_prob: float | None
    metric: Metric  # what is scored, and what RankSEG maximises
    counted: Counted
    baseline: str  # "argmax" of the same maps, or "argmax as stored"


@dataclass(frozen=True)
class Record:
    """How many images there are, how they cluster, and on how many the way is the better one."""

    images: int
    clusters: int
    won: int
    lost: int
    tied: int


@dataclass(frozen=True)
class Figure:
    """An aggregate in points, its change from the baseline, and the 95 % interval of that."""

    value: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """Everything about one way."""

    way: Way
    record: Record
    figures: Mapping[str, Figure]  # by the name of the aggregate


COLUMNS = (
    *(field.name for kind in (Origin, Way, Record) for field in fields(kind)),
    *(" ".join((aggregate, field.name)) for aggregate in AGGREGATES for field in fields(Figure)),
)


def as_csv(origin: Origin, rows: Iterable[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        figures = [row.figures[aggregate] for aggregate in AGGREGATES]
        parts = [origin, row.way, row.record, *figures]
        writer.writerow([cell(value) for part in parts for value in astuple(part)])
    return text.getvalue()


def cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    # Adding 0 takes the sign from what rounds to nothing.
    return f"{round(value, 3) + 0.0:g}" if isinstance(value, float) else str(value)
