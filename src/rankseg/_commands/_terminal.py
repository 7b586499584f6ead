"""What all commands share: where they print, how they fail, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from rankseg._batch import Outcome

__all__ = ["fail", "make_folder", "open_console", "print_failures", "print_outcome", "tracker"]

PIPED_WIDTH = 100  # columns


def open_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def fail(reason: str) -> NoReturn:
    """Say on the error stream what is wrong, and exit with 1."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"Error: {escape(reason)}")
    raise typer.Exit(1)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(str(error))


def tracker(description: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """Return what shows a progress bar where somebody looks."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        return iter
    return partial(track, description=description, console=errors, transient=True)


def print_outcome(outcome: Outcome, output: Path) -> None:
    """Say what was written; name what could not be decided, and exit with 1 if anything is."""
    skipped = f", {len(outcome.skipped)} were there" if outcome.skipped else ""
    open_console().print(f"{len(outcome.written)} written to {escape(str(output))}{skipped}")
    print_failures("Not decided", outcome.failures)


def print_failures(what: str, failures: Mapping[str, str]) -> None:
    """Name on the error stream what failed and why, and exit with 1 if anything did."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for case, reason in failures.items():
        errors.print(f"{what}: {escape(case)}: {escape(reason)}")
    if failures:
        raise typer.Exit(1)
