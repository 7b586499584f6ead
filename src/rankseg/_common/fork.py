"""Forked processes: OpenMP ends torch's threads before a fork, so that no child waits for them.

A forked child (``multiprocessing`` on Linux, data-loader workers, pre-forking servers) has none of
its parent's threads, but OpenMP believes that they are there. The first operation of torch that is
large enough to be shared out would wait for them for ever. After this, parent and child start
threads of their own at their next operation. Where OpenMP cannot end its threads, torch uses one
thread in the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading

__all__ = ["register"]

SOFT = 1
"""``omp_pause_soft``: OpenMP keeps its settings."""

_last_fork = threading.local()


def register() -> None:
    """Let every fork from now on go this way; torch need not be imported yet."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_threads, after_in_child=_use_one_thread)


def _end_threads() -> None:
    """End the threads with which this one shares operations; they idle between operations."""
    _last_fork.are_ended = False
    with contextlib.suppress(KeyError, AttributeError, OSError):  # no torch, or no such OpenMP
        openmp = ctypes.CDLL(sys.modules["torch"]._C.__file__)  # its own dependencies' too
        failed = openmp.omp_pause_resource(SOFT, openmp.omp_get_initial_device())
        _last_fork.are_ended = not failed


def _use_one_thread() -> None:
    """Let torch share nothing in the child, if its threads could not be ended."""
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_num_threads is not None and not _last_fork.are_ended:
        set_num_threads(1)
