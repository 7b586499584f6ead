"""Many cases, one after the other or several at a time: skip those done, collect what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rankseg._files import write_whole
from rankseg._small_files import read_json_object

__all__ = ["RECORD", "Outcome", "Track", "keep_record", "work_through"]

RECORD = "rankseg.json"
"""The file beside label maps that says how they were made."""

Track = Callable[[Sequence[str]], Iterable[str]]
"""Returns the names it is given one by one, and perhaps shows how far they are."""


@dataclass(frozen=True)
class Outcome:
    """What became of many cases.

    Parameters
    ----------
    written, skipped : tuple of str
        The cases decided now, and those whose label map was there.
    failures : dict of str to str
        The reason, for every case that could not be decided.
    """

    written: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: dict[str, str]


def work_through(
    cases: Sequence[str],
    work: Callable[[str], object],
    *,
    done: Callable[[str], bool],
    expected: tuple[type[Exception], ...],
    track: Track = iter,
    workers: int = 1,
) -> Outcome:
    """Do the work of every case that is not done; go on after one that fails as expected.

    With several workers, cases are done by as many threads, and told in their order all the same.
    """
    skipped = [case for case in cases if done(case)]
    waiting = [case for case in cases if case not in set(skipped)]
    written, failures = [], {}
    with ThreadPoolExecutor(workers) as pool:
        finish: dict[str, Callable[[], object]] = {
            case: pool.submit(work, case).result if workers > 1 else partial(work, case)
            for case in waiting
        }
        try:
            for case in track(waiting):
                try:
                    finish[case]()
                    written.append(case)
                except expected as error:
                    failures[case] = str(error) or type(error).__name__
        finally:
            pool.shutdown(cancel_futures=True)
    return Outcome(tuple(written), tuple(skipped), failures)


def keep_record(folder: Path, record: Mapping[str, Any], overwrite: bool) -> None:
    """Make a folder for label maps and write into it how they are made.

    Label maps made otherwise are not to be mixed with new ones.

    Raises
    ------
    ValueError
        If the folder holds some, and they are not to be overwritten.
    """
    stored, content = folder / RECORD, json.dumps(record, indent=1, default=str)
    if stored.is_file() and not overwrite and read_json_object(stored) != json.loads(content):
        raise ValueError(
            f"{folder} holds label maps made from other folders or with other options, which "
            f"{RECORD} lists; take another folder, or overwrite them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(stored, content.encode())
