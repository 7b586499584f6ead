"""What all commands share: where they print, how they fail and stop, progress."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.progress import track
from typer.core import TyperGroup

from rankseg._commands.tables import PlainConsole
from rankseg._common.interrupts import INTERRUPTED, raise_at_interrupt
from rankseg._files.batch import Outcome

__all__ = [
    "Commands",
    "check_place",
    "fail",
    "make_folder",
    "open_console",
    "print_failures",
    "print_outcome",
    "tracker",
]

PIPED_WIDTH = 100  # columns
PIECE = 1 << 20  # bytes read at a time

EXPECTED = (ImportError, MemoryError, OSError, TypeError, ValueError)
"""What wrong options, files and folders raise; the message is for whoever gave them."""

NO_REASON = "interrupted before the end; run the same command again"


class Commands(TyperGroup):
    """The commands: an expected error or Ctrl-C ends each of them with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        raise_at_interrupt()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _Notes(warnings.showwarning)  # type: ignore[assignment]
                return super().invoke(ctx)
        except EXPECTED as error:
            message, status = f"Error: {str(error) or type(error).__name__}", 1
        except KeyboardInterrupt as interrupt:
            reason = str(interrupt) or NO_REASON  # who works case by case says what is done
            message, status = reason[0].upper() + reason[1:], INTERRUPTED
        # The exception is gone by now, and the progress bar that it kept on the terminal.
        _print_errors([message])
        raise typer.Exit(status)


class _Notes:
    """Shows every warning of what a command works on once, on one line of the error stream."""

    def __init__(self, show: Callable[..., object]) -> None:
        self.show = show
        self.shown: set[str] = set()

    def __call__(self, message: Warning, category: type[Warning], *place: Any, **more: Any) -> None:
        if category is not UserWarning:
            self.show(message, category, *place, **more)
        elif str(message) not in self.shown:
            self.shown.add(str(message))
            _print_errors([f"Note: {message}"])


def open_console() -> PlainConsole:
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=PIPED_WIDTH)


def fail(reason: str) -> NoReturn:
    """Say on the error stream what is wrong, and exit with 1."""
    _print_errors([f"Error: {reason}"])
    raise typer.Exit(1)


def make_folder(folder: Path, marks: Mapping[str, str]) -> None:
    """Make a folder to write files to, of which ``marks`` has the names: see `check_place`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mark in marks.items():
        check_place(folder / name, mark)


def check_place(path: Path | None, mark: str = "rankseg") -> None:
    """Exit with the reason if a file cannot be written: before the work.

    A file that is there is replaced only if a command wrote it: all files of the kind hold
    ``mark``.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        fail(f"there is no folder {path.parent} to write {path.name} to")
    if path.is_file() and not _holds(path, mark.encode()):
        fail(f"{path} is there, and no result of this command: name another file, or remove it")


def _holds(path: Path, mark: bytes) -> bool:
    """Return whether a file holds some bytes, or nothing at all."""
    before = None
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            if mark in (before or b"") + piece:
                return True
            before = piece[-len(mark) :]
    return before is None


def tracker(description: str) -> Callable[[Any], Iterable[Any]]:
    """Return what shows a progress bar where somebody looks."""
    errors = PlainConsole(stderr=True)
    if not errors.is_terminal:
        return iter
    return partial(track, description=description, console=errors, transient=True)


def print_outcome(outcome: Outcome, output: Path) -> None:
    """Say what was written; name what could not be decided, and exit with 1 if anything is."""
    skipped = f", {len(outcome.skipped)} were there" if outcome.skipped else ""
    open_console().print(f"{len(outcome.written)} written to {output}{skipped}", soft_wrap=True)
    print_failures("Not decided", outcome.failures)


def print_failures(what: str, failures: Mapping[str, str]) -> None:
    """Name on the error stream what failed and why, and exit with 1 if anything did."""
    _print_errors(f"{what}: {case}: {reason}" for case, reason in failures.items())
    if failures:
        raise typer.Exit(1)


def _print_errors(messages: Iterable[str]) -> None:
    """Write every message on one line, however many lines it has."""
    errors = PlainConsole(stderr=True, soft_wrap=True)
    for message in messages:
        errors.print(" ".join(line.strip() for line in message.splitlines()))
