"""Small files, read whole and checked: JSON objects and CSV rows."""

from __future__ import annotations

import csv
import io
import json
import reprlib
from collections.abc import Callable, Collection, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

from rankseg._common.arguments import describe
from rankseg._files.whole import write_whole

__all__ = ["opened", "read_as", "read_json_object", "read_rows", "write_fields"]

T = TypeVar("T")

MOST_BYTES: Final = 1 << 26
"""64 MiB: the lists of cases in nnU-Net's files take a few of them."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    NaN and Infinity are read as floats, as ``json`` does: nnU-Net's plans may hold them.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not regular, is too large, is no JSON, is nested too deeply or holds no
        object. The message is one line.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a regular file, and is not")  # a pipe would never end
    try:
        content = json.loads(_read_text(path))
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {reprlib.repr(content)}")
    return content


def write_fields(path: Path, form: str, fields: dict[str, Any]) -> None:
    """Write a JSON object of fields and the name of their format, whole or not at all."""
    write_whole(path, (json.dumps({"format": form, **fields}, indent=1) + "\n").encode())


def read_as(
    make: Callable[[dict[str, Any]], T],
    what: str,
    path: str | PathLike[str],
    form: str,
    names: Sequence[str],
    optional: Collection[str] = (),
) -> T:
    """Return what ``make`` makes of the fields that `write_fields` wrote.

    An optional field that is missing is None.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds something else, or ``make`` refuses the fields. The message says that the
        file is no ``what``.
    """
    try:
        content = read_json_object(Path(path))
        if content.pop("format", None) != form:
            raise ValueError(f'it lacks "format": "{form}"')
        content = dict.fromkeys(optional) | content
        if missing := [name for name in names if name not in content]:
            raise ValueError(f"it lacks {missing}")
        if unknown := sorted(content.keys() - set(names)):
            raise ValueError(f"it must hold {list(names)} alone, got {unknown} too")
        return make(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no {what}: {error}") from error


def opened(name: str, kind: type[Any], value: object) -> Any:
    """Return a value of a kind with ``load``, or None; a path is loaded.

    Raises
    ------
    TypeError
        If the value is anything else. ``name`` is that of the argument.
    """
    if isinstance(value, str | PathLike):
        return kind.load(value)
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(
        f"{name} must be a {kind.__name__} or the path of a file of one, got {describe(value)}"
    )


def read_rows(path: Path) -> list[list[str]]:
    """Return the rows of a CSV that are not empty, their cells without surrounding blanks.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is too large, is no UTF-8, or has a cell that is too long. The message is one
        line.
    """
    try:
        table = csv.reader(io.StringIO(_read_text(path), newline=""))
        return [[cell.strip() for cell in row] for row in table if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error


def _read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, without the mark that some editors put before it."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it must have at most {MOST_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")
