"""What the formats share: arrays that have names, dtypes, files that cannot be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._arguments import viewable

__all__ = ["Names", "as_tensor", "reading"]


@dataclass(frozen=True)
class Names:
    """Which array of a file that holds several: the one named, else the first of the usual names.

    Parameters
    ----------
    chosen : str or None
        The name that a user gave.
    usual : tuple of str
        What such arrays are called.
    """

    chosen: str | None
    usual: tuple[str, ...]

    def pick(self, held: Sequence[str]) -> str:
        """Return a name that is held; of a single array, its own."""
        wanted = self.usual if self.chosen is None else (self.chosen,)
        for name in wanted:
            if name in held:
                return name
        if self.chosen is None and len(held) == 1:
            return held[0]
        named = " or ".join(map(repr, wanted))
        hint = "" if self.chosen is not None or not held else "; say by key which is meant"
        raise ValueError(f"there is no array {named}; the arrays are {list(held)}{hint}")


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Make a ValueError of everything that a broken file raises in the library that reads it."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"cannot be read as {kind}: {reason}") from error


def as_tensor(array: NDArray[Any]) -> Tensor:
    """View an array as a tensor, without a copy where torch can; unsigned integers are widened."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"an array must hold numbers, got {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(viewable(array))
