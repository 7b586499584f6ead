"""The CSV of all figures of a script: a row is a dataclass of strings and numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rankseg._files.whole import write_whole

KINDS = {"int": int, "float": float, "str": str}


def read_rows(path: Path, kind: Any) -> list[Any]:
    """Read rows of a dataclass; none if there is no such file."""
    if not path.exists():
        return []
    kinds = {field.name: KINDS[str(field.type)] for field in fields(kind)}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            kind(**{name: kinds[name](cell) for name, cell in line.items()})
            for line in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: Sequence[Any], kind: Any) -> None:
    """Write rows of a dataclass, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(kind)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    write_whole(path, text.getvalue().encode())
