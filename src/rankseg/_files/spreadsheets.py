"""Tables as CSV that a spreadsheet shows and does not compute."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

__all__ = ["write_csv"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the start of a formula, which may run programs or send data."""


def write_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as a CSV in UTF-8.

    An apostrophe comes before text that a spreadsheet would compute, such as the name of a case
    that begins with ``=``. Numbers stay numbers. What UTF-8 lacks, as a file name may hold, is
    written as an escape of Python's.
    """
    lines: list[str] = []
    # Until Python 3.13 the writer quotes a carriage return only if it is in the line's end.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerows(map(_as_text, row) for row in rows)
    text = "".join(line.removesuffix("\r\n") + "\n" for line in lines)
    return text.encode(errors="backslashreplace")


def _as_text(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
