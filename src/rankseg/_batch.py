"""Many cases, one after the other or several at a time: skip those done, collect what fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankseg._files import sweep, write_new, write_whole
from rankseg._small_files import read_json_object

__all__ = [
    "RECORD",
    "Interrupted",
    "Outcome",
    "Track",
    "finish_record",
    "keep_record",
    "reason_of",
    "work_through",
]

RECORD = "rankseg.json"
"""The file beside label maps that says how they were made."""

OVERWRITING = "overwriting"
"""In the record: label maps made otherwise are being replaced, and some may still be there."""

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


class Interrupted(KeyboardInterrupt):
    """An interrupt between or within cases; its text says what is written and how to go on.

    Parameters
    ----------
    outcome : Outcome
        What became of the cases before the interrupt.
    cases : int
        How many there are.
    overwrite : bool
        Whether the same run again would start anew.
    """

    def __init__(self, outcome: Outcome, cases: int, overwrite: bool) -> None:
        there = f", {len(outcome.skipped)} were there" if outcome.skipped else ""
        again = "start anew" if overwrite else "go on"
        super().__init__(
            f"interrupted: {len(outcome.written)} of {cases} cases are written{there}; run the "
            f"same again to {again}"
        )
        self.outcome = outcome


def reason_of(error: Exception) -> str:
    """Say in one line why a case failed."""
    text = " ".join(filter(None, map(str.strip, str(error).splitlines())))
    if isinstance(error, MemoryError):
        return f"not enough memory: {text}" if text else "not enough memory"
    if text and isinstance(error, OSError | TypeError | ValueError | ImportError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def work_through(
    cases: Sequence[str],
    work: Callable[[str], object],
    *,
    is_written: Callable[[str], bool],
    overwrite: bool = False,
    track: Track = iter,
    workers: int = 1,
) -> Outcome:
    """Do the work of every case that is not written; go on after one that fails, for any reason.

    With several workers, cases are done by as many threads. The outcome names them in their order
    all the same.

    Raises
    ------
    Interrupted
        On a KeyboardInterrupt, after the cases that were begun by other threads are finished.
    """
    skipped: set[str] = set()
    failures: dict[str, str] = {}
    for case in cases if not overwrite else ():
        try:
            if is_written(case):
                skipped.add(case)
        except OSError as error:  # such as a name that is too long
            failures[case] = reason_of(error)
    waiting = [case for case in cases if case not in skipped and case not in failures]
    run = _Run(work, failures)
    with ThreadPoolExecutor(workers) as pool:
        try:
            if workers > 1:
                run.begun = {case: pool.submit(work, case) for case in waiting}
            for case in track(waiting):
                run.finish(case)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            run.finish_begun()
            raise Interrupted(run.outcome(cases, skipped), len(cases), overwrite) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return run.outcome(cases, skipped)


@dataclass
class _Run:
    """Cases that are being done, some by other threads."""

    work: Callable[[str], object]
    failures: dict[str, str]
    written: set[str] = field(default_factory=set)
    begun: dict[str, Future[object]] = field(default_factory=dict)

    def finish(self, case: str) -> None:
        """Do a case, or wait for the thread that does it."""
        try:
            if case in self.begun:
                self.begun[case].result()
            else:
                self.work(case)
            self.written.add(case)
        except Exception as error:  # a file can make a library raise anything
            self.failures[case] = reason_of(error)

    def finish_begun(self) -> None:
        """Take the result of every case that a thread has done."""
        for case, result in self.begun.items():
            if not result.cancelled():
                self.finish(case)

    def outcome(self, cases: Sequence[str], skipped: Collection[str]) -> Outcome:
        """Return what became of the cases, in their order."""
        return Outcome(
            tuple(case for case in cases if case in self.written),
            tuple(case for case in cases if case in skipped),
            {case: self.failures[case] for case in cases if case in self.failures},
        )


def keep_record(folder: Path, record: Mapping[str, Any], overwrite: bool) -> None:
    """Make a folder for label maps and write into it how they are made.

    Label maps made otherwise must not be mixed with new ones. What killed runs left half written
    in the folder is removed.

    Raises
    ------
    OSError
        If the folder cannot be made or written to.
    ValueError
        If the folder holds label maps made otherwise, and they are not to be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"output must be a folder, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    stored, content = folder / RECORD, _plain(record)
    try:
        write_new(stored, _encoded(content))  # two runs at a time must not both write it
    except FileExistsError:
        known = read_json_object(stored)
        if known == content:
            return
        if not overwrite:
            raise ValueError(_mixture(folder, known)) from None
        write_whole(stored, _encoded({**content, OVERWRITING: True}))


def finish_record(folder: Path, record: Mapping[str, Any], outcome: Outcome) -> None:
    """Note that all label maps are made as the record says, if none failed to be overwritten."""
    stored, content = folder / RECORD, _plain(record)
    if outcome.failures or not stored.is_file():
        return
    if read_json_object(stored) == {**content, OVERWRITING: True}:
        write_whole(stored, _encoded(content))


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it is read from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(record, default=str))
    return plain


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()


def _mixture(folder: Path, known: Mapping[str, Any]) -> str:
    if known.get(OVERWRITING):
        why = f"of two kinds, as {RECORD} says: a run that was to overwrite them did not do all"
    else:
        why = f"made from other folders or with other options, which {RECORD} lists"
    return f"{folder} holds label maps {why}; take another folder, or overwrite them"
