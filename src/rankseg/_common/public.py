"""Classes that users import from another module than the one they are defined in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["public"]

T = TypeVar("T")


def public(module: str) -> Callable[[type[T]], type[T]]:
    """Let a class name the module that users import it from: in pickles, reprs and tracebacks.

    So a pickle can be read after the class has moved to another private module. Examples of the
    class are still tested: doctest takes classes of other modules for imported ones, unless
    ``__test__`` of the module lists them.
    """

    def move(cls: type[T]) -> type[T]:
        names = vars(sys.modules[cls.__module__])
        names.setdefault("__test__", {})[cls.__name__] = cls
        cls.__module__ = module
        return cls

    return move
