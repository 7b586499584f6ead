"""Threads for the kernels of the CPU backend: the OpenMP threads of torch, or a Python thread pool.

After an operation, torch's threads spin for about a millisecond in wait of the next one and keep
the cores busy. Threads of a second pool would compete with them for the cores. So if torch is
built on GNU OpenMP, or on a library with its entry points, the kernels run on torch's threads,
which begin at once. Otherwise they run on a thread pool.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

Job = Callable[[int, int], None]
"""``job(first, last)`` does the units from ``first`` to ``last - 1``."""

Ranges = deque[tuple[int, int]]
"""Ranges of units still to be done; ``popleft`` of a deque gives each range to one thread only."""

MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""What every thread of a team runs."""


def spread(job: Job, units: int, tasks: int) -> None:
    """Run a job over all units, cut into ``tasks`` ranges, on up to ``torch.get_num_threads()``."""
    bounds = [units * task // tasks for task in range(tasks + 1)]
    ranges = deque(itertools.pairwise(bounds))
    threads = min(torch.get_num_threads(), tasks)
    if threads == 1 or sys.is_finalizing():  # no other thread can enter the interpreter any more
        _work_through(job, ranges)
    elif _start_team is not None:
        done: list[int] = []
        _work_in_team(_start_team, _counted(job, done), ranges, threads)
        if sum(done) < units:  # a second interrupt came while the first was kept
            raise KeyboardInterrupt
    else:
        _work_with_pool(job, ranges, threads)


def _counted(job: Job, done: list[int]) -> Job:
    """Return a job that appends to ``done`` how many units it has finished."""

    def count(first: int, last: int) -> None:
        job(first, last)
        done.append(last - first)

    return count


def _work_through(job: Job, ranges: Ranges) -> None:
    """Take ranges of units until none is left."""
    while True:
        try:
            first, last = ranges.popleft()
        except IndexError:
            return
        job(first, last)


def _work_in_team(start_team: Any, job: Job, ranges: Ranges, threads: int) -> None:
    """Let torch's threads, this one among them, work through the ranges."""
    failures: list[BaseException] = []
    members = [_member(job, ranges, failures) for _ in range(threads)]
    for member in members:
        next(member)
    # Every thread resumes one member. ``next`` and ``map`` are written in C: no Python function is
    # entered outside of the member's ``try``.
    start_team(MEMBER(functools.partial(next, map(next, members))), None, threads, 0)
    if failures:
        raise failures[0]


def _member(job: Job, ranges: Ranges, failures: list[BaseException]) -> Iterator[None]:
    """Work through the ranges when asked a second time, and keep what is raised.

    Python raises KeyboardInterrupt when a Python function is entered. If OpenMP enters the
    function, the exception is lost. So this generator is started beforehand and stops inside its
    ``try``: when OpenMP resumes it, the ``except`` catches the exception and keeps it.
    """
    try:
        yield
        _work_through(job, ranges)
    except BaseException as failure:
        ranges.clear()
        failures.append(failure)


def _work_with_pool(job: Job, ranges: Ranges, threads: int) -> None:
    """Work through the ranges in this thread and in those of a thread pool."""
    helpers = []
    with contextlib.suppress(RuntimeError):  # the interpreter is ending: this thread does it all
        for _ in range(threads - 1):
            helpers.append(_pool(torch.get_num_threads()).submit(_work_through, job, ranges))
    _work_through(job, ranges)
    for helper in helpers:
        if not helper.cancel():  # one that has not begun is not waited for: nothing is left to do
            helper.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rankseg")


def _find_team() -> Any:
    """Return the function that starts a team of the OpenMP library torch is linked with, or None.

    ``GOMP_parallel(member, argument, threads, flags)`` returns when all have done: the same as
    compiled code calls for ``#pragma omp parallel``.
    """
    if sys.platform != "linux":
        return None
    try:
        start_team = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # its own dependencies' too
    except (OSError, AttributeError):
        return None
    start_team.argtypes = MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    start_team.restype = None
    return start_team


def _forget_threads() -> None:
    """Start anew in a forked child (a data-loader worker): none of the threads came along."""
    global _start_team
    _start_team = None  # OpenMP would wait for them for ever
    _pool.cache_clear()


_start_team = _find_team()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
