"""Forked processes: torch's threads do not come along, and its library would wait for them.

A forked child (``multiprocessing`` on Linux, data-loader workers, pre-forking servers) inherits
from OpenMP the belief that its threads are there. The first operation of torch that is large
enough to be shared out then waits for ever. Inside a function of this package, torch is told to
use one thread there.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from types import FunctionType
from typing import TypeVar, cast

import torch

__all__ = ["kernel_threads", "methods_safe_in_fork", "safe_in_fork"]

Function = TypeVar("Function", bound=Callable[..., object])
Class = TypeVar("Class", bound=type)

_is_forked = False
_caller = threading.local()


def safe_in_fork(function: Function) -> Function:
    """Let torch use one thread while the function runs in a forked child."""

    @functools.wraps(function)
    def call(*args: object, **options: object) -> object:
        if not _is_forked or torch.compiler.is_compiling():
            return function(*args, **options)
        return _on_one_thread(function, *args, **options)

    return cast("Function", call)


def methods_safe_in_fork(owner: Class) -> Class:
    """Make every method and property that a class defines itself safe."""
    for name, value in list(vars(owner).items()):
        safe: object = value
        if isinstance(value, FunctionType):
            safe = safe_in_fork(value)
        elif isinstance(value, classmethod):
            safe = classmethod(safe_in_fork(value.__func__))
        elif type(value) is property and value.fget is not None:
            safe = property(safe_in_fork(value.fget))
        if safe is not value:
            setattr(owner, name, safe)
    return owner


def kernel_threads() -> int:
    """Return how many threads kernels may use: torch's number, or in a forked child the caller's.

    Kernels there run on plain threads, which may be started after a fork.
    """
    return cast("int", getattr(_caller, "threads", 0)) or torch.get_num_threads()


def _on_one_thread(function: Callable[..., object], *args: object, **options: object) -> object:
    before = torch.get_num_threads()
    outermost = not getattr(_caller, "threads", 0)
    if outermost:
        _caller.threads = before
    torch.set_num_threads(1)
    try:
        return function(*args, **options)
    finally:
        torch.set_num_threads(before)
        if outermost:
            _caller.threads = 0


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
