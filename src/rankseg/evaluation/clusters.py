"""Which patient or sequence each case belongs to."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankseg._common.arguments import is_blank
from rankseg._files.small import read_rows

__all__ = ["clusters_of", "read_clusters"]


def read_clusters(path: Path | str) -> dict[str, str]:
    """Read which patient or sequence every case belongs to: a CSV of case and cluster.

    Two columns; a first row of ``case`` and something else is a heading.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no CSV in UTF-8, a row has another number of columns or a blank cell
        (``nan``, ``NA`` and ``None`` are blank, too), or a case is named twice.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(f"there is no file {path} of cases and their clusters")
    rows = read_rows(Path(path))
    if rows and rows[0][0].lower() == "case":
        del rows[0]
    clusters: dict[str, str] = {}
    for row in rows:
        if len(row) != 2:
            raise ValueError(
                f"every row of {path} must be a case and its cluster, got {reprlib.repr(row)}"
            )
        if not row[0] or is_blank(row[1]):
            raise ValueError(
                f"every row of {path} must be a case and its cluster, got a blank cell in "
                f"{reprlib.repr(row)}: "
                "give a case that shares its patient with no other a cluster of its own"
            )
        case, cluster = row
        if case in clusters:
            raise ValueError(f"{path} names the case {reprlib.repr(case)} twice")
        clusters[case] = cluster
    return clusters


def clusters_of(cases: Sequence[str], clusters: Mapping[str, str] | None) -> tuple[str, ...] | None:
    """Return the cluster of every case; None if there are no clusters.

    Raises
    ------
    ValueError
        If a case has none.
    """
    if clusters is None:
        return None
    missing = {case: clusters.get(case) for case in cases if is_blank(clusters.get(case))}
    if missing:
        held = f", of which {missing} are blank" if set(missing) & set(clusters) else ""
        raise ValueError(
            f"clusters must have an entry for every case, got none for {list(missing)}{held}"
        )
    return tuple(clusters[case] for case in cases)
