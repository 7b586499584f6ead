"""Labels of whole images: a table of the classes that each image holds."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankseg._files.small import read_rows

__all__ = ["read_image_labels"]


def read_image_labels(path: Path | str, classes: Sequence[str]) -> dict[str, list[int]]:
    """Read which classes images hold: a CSV of a case and its classes, by name or number.

    As many columns as there are classes to name; a first row of ``case`` and something else is a
    heading. If the heading names a class, or all cells below several names are 0 or 1, there is a
    column for each class: 1 where the image holds the class of the column, and 0 where not. With
    one class, an image holds it if the row names it, or 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no CSV in UTF-8, names an unknown class, names a case twice, or has columns
        of 0 and 1 that are not those of all classes.
    """
    rows = read_rows(Path(path))
    heading = rows.pop(0)[1:] if rows and rows[0][0].lower() == "case" else []
    first = 1 if len(classes) == 1 else 0
    known = {str(index): index for index in range(max(2, len(classes)))}
    known |= {name: index for index, name in enumerate(classes, first)}
    held: dict[str, list[int]] = {}
    marks = _are_marks(heading, rows, classes)
    if marks:
        _check_marks(path, heading, rows, {known[name]: name for name in classes}, known)
    for case, *named in rows:
        if case in held:
            raise ValueError(f"{path} names the case {reprlib.repr(case)} twice")
        if marks:
            named = [name for name, cell in zip(heading, named, strict=True) if cell == "1"]
        unknown = [name for name in named if name and name not in known]
        if unknown:
            raise ValueError(
                f"{path} must name classes in {list(classes)} or their numbers, got "
                f"{unknown[:3]} for {reprlib.repr(case)}"
            )
        held[case] = [known[name] for name in named if name]
    return held


def _are_marks(
    heading: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str]
) -> bool:
    """Tell whether columns are those of classes, so that cells of 0 and 1 are no class numbers."""
    names = {name.casefold() for name in classes}
    if any(column.casefold() in names for column in heading):
        return True
    return len(heading) > 1 and {cell for row in rows for cell in row[1:]} <= {"0", "1"}


def _check_marks(
    path: Path | str,
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Mapping[int, str],
    known: Mapping[str, int],
) -> None:
    """Refuse columns of 0 and 1 that are not those of all classes, once each."""
    columns = [known.get(name) for name in heading]
    missing = [name for index, name in names.items() if index not in columns]
    if missing or len(columns) > len(names):
        add = f"; add one for each of {missing}" if missing else ""
        ones = "" if 0 in columns or 0 not in names else ", of 1 wherever a pixel is background"
        raise ValueError(
            f"{path} must have a column of 0 and 1 for each class in {list(names.values())}, got "
            f"{list(heading)}{add}{ones}"
        )
    if not all(set(row[1:]) <= {"0", "1"} and len(row) == len(heading) + 1 for row in rows):
        raise ValueError(f"{path} has a column for each class: every cell must be 0 or 1")
