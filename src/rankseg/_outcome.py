"""Work on many cases: one that fails does not stop the others, and what is done is not redone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

__all__ = ["Outcome", "Track", "work_through"]

Track = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True)
class Outcome:
    """What became of the cases of a folder.

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
    is_done: Callable[[str], bool],
    work: Callable[[str], None],
    errors: tuple[type[Exception], ...],
    *,
    workers: int = 1,
    track: Track = iter,
) -> Outcome:
    """Work on the cases not done, some at a time; these ``errors`` are the case's own."""
    skipped = [case for case in cases if is_done(case)]
    left = [case for case in cases if case not in set(skipped)]
    written, failures = [], {}
    pool = ThreadPoolExecutor(workers)
    try:
        started = {case: pool.submit(work, case) for case in left}
        for case in track(left):
            try:
                started[case].result()
                written.append(case)
            except errors as error:
                failures[case] = str(error) or type(error).__name__
    finally:  # interrupted, it ends with what it is at
        pool.shutdown(cancel_futures=True)
    return Outcome(tuple(written), tuple(skipped), failures)
