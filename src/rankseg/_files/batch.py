"""Many cases, one after the other or several at a time: skip those done, collect what fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankseg._common.public import public
from rankseg._common.warn import about
from rankseg._files.folders import RECORD
from rankseg._files.small import read_json_object
from rankseg._files.whole import locked, sweep, write_new, write_whole

__all__ = [
    "OTHER_FOLDER",
    "Interrupted",
    "Outcome",
    "Record",
    "Track",
    "reason_of",
    "work_through",
]

INPUTS = "inputs"
"""In the record: the files of every case; null if its label map is of another kind, or may be."""

OTHER_FOLDER = "; take another folder, or overwrite them (--overwrite, overwrite=True)"

Identity = list[Any]
"""Of an input: its path, size and date."""

Track = Callable[[Sequence[str]], Iterable[str]]
"""Returns the names it is given one by one, and perhaps shows how far they are."""


@public("rankseg.prediction")
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
    run = _Run(lambda case: _do(work, case), failures)
    with ThreadPoolExecutor(workers) as pool:
        try:
            if workers > 1:
                run.begun = {case: pool.submit(run.work, case) for case in waiting}
            for case in track(waiting):
                run.finish(case)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            run.finish_begun()
            raise Interrupted(run.outcome(cases, skipped), len(cases), overwrite) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return run.outcome(cases, skipped)


def _do(work: Callable[[str], object], case: str) -> None:
    with about(case):
        work(case)


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
        """Return which cases were written, which were skipped, and which failed and why.

        Each list is in the order of ``cases``.
        """
        return Outcome(
            tuple(case for case in cases if case in self.written),
            tuple(case for case in cases if case in skipped),
            {case: self.failures[case] for case in cases if case in self.failures},
        )


@dataclass(frozen=True)
class Record:
    """How the label maps of a folder are made, and from what: kept beside them.

    Label maps made otherwise must not be mixed with new ones, nor taken for those of other inputs
    with the same name.

    Parameters
    ----------
    folder : Path
        Where the label maps are.
    content : mapping of str to object
        How they are made.
    inputs : mapping of str to list
        The files of every case, as `identify` returns them.
    is_written : callable
        Tells whether there is a label map of a case.
    """

    folder: Path
    content: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Identity]]
    is_written: Callable[[str], bool]

    def keep(self, overwrite: bool) -> None:
        """Make the folder and write the record into it.

        What killed runs left half written in the folder is removed.

        Raises
        ------
        OSError
            If the folder cannot be made or written to.
        ValueError
            If the folder holds label maps made otherwise, from other inputs or by no run that the
            record lists, and they are not to be overwritten.
        """
        folder, stored = self.folder, self.folder / RECORD
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"output must be a folder, got the file {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with locked(folder):  # two runs at a time must not both write it
            while True:
                known = read_json_object(stored) if os.path.lexists(stored) else None
                content = self._merged(known, overwrite)
                try:
                    if known is None:
                        write_new(stored, _encoded(content))
                    elif known != content:
                        write_whole(stored, _encoded(content))
                    return
                except FileExistsError:  # by a run on a file system without locks
                    continue

    def finish(self, outcome: Outcome) -> None:
        """Note what the label maps are made from that were overwritten."""
        stored = self.folder / RECORD
        if not stored.is_file():
            return
        with locked(self.folder):
            known = read_json_object(stored)
            made = known.get(INPUTS, {})
            new = {case: self.inputs[case] for case in outcome.written if made.get(case, 0) is None}
            if new:
                write_whole(stored, _encoded({**known, INPUTS: {**made, **new}}))

    def _merged(self, known: Mapping[str, Any] | None, overwrite: bool) -> dict[str, Any]:
        """Return what the record says from now on."""
        content: dict[str, Any] = json.loads(json.dumps(self.content, default=str))
        made = {} if known is None else known.get(INPUTS)
        if known is not None and (made is None or known != {**content, INPUTS: made}):
            if not overwrite:
                raise ValueError(
                    f"{self.folder} holds label maps made from other folders or with other "
                    f"options, which {RECORD} lists{OTHER_FOLDER}"
                )
            made = dict.fromkeys(made or ())  # all of another kind
        made = _as_inputs(made, self.folder / RECORD)
        for case, files in self.inputs.items():
            if made.get(case) == files:
                continue
            if overwrite:
                made[case] = None if self._may_be_written(case) else files
            else:
                self._refuse_other(case, made)
                made[case] = files
        return {**content, INPUTS: made}

    def _refuse_other(self, case: str, made: Mapping[str, list[Identity] | None]) -> None:
        """Raise a ValueError if a case has, or may get, a label map made from other input files.

        ``made`` is what the record of the folder lists. The inputs of a label map that the record
        does not list are unknown, which raises too.
        """
        files, known = self.inputs[case], made.get(case)
        paths = [path for path, *_ in known or ()]
        if known and paths != [path for path, *_ in files]:
            why = f"made from other inputs: that of {case} is made from {' and '.join(paths)}"
        elif not self._may_be_written(case):
            return
        elif known:
            why = f"of older inputs: since that of {case} was made, {' or '.join(paths)} changed"
        elif case not in made:
            why = f"that {RECORD} does not list, that of {case} among them"
        else:
            why = (
                f"of two kinds, as {RECORD} says: a run that was to overwrite them did not do all, "
                f"{case} among the others"
            )
        raise ValueError(f"{self.folder} holds label maps {why}{OTHER_FOLDER}")

    def _may_be_written(self, case: str) -> bool:
        try:
            return self.is_written(case)
        except OSError:  # such as a name that is too long; the case will fail
            return False


def _as_inputs(made: object, path: Path) -> dict[str, Any]:
    """Check the inputs that a record lists."""
    fits = isinstance(made, dict) and all(
        files is None
        or (isinstance(files, list) and all(isinstance(one, list) and one for one in files))
        for files in made.values()
    )
    if not fits:
        raise ValueError(f"{INPUTS!r} in {path} must list the files of every case")
    return dict(made)  # type: ignore[call-overload,no-any-return]


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
