"""What all commands share: how they explain themselves, print, fail and stop, and progress."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from rankseg._common.interrupts import INTERRUPTED, raise_at_interrupt

if TYPE_CHECKING:  # rich and torch take seconds, and help needs neither
    from collections.abc import Iterable

    from rankseg._commands.tables import PlainConsole
    from rankseg._files.batch import Outcome

__all__ = [
    "Command",
    "Commands",
    "check_place",
    "fail",
    "make_folder",
    "open_console",
    "print_failures",
    "print_outcome",
    "tracker",
    "working",
]

PIPED_WIDTH = 100  # columns
PIECE = 1 << 20  # bytes read at a time
NAME_WIDTH = 34  # columns of the names of options in a help

EXPECTED = (ImportError, MemoryError, OSError, TypeError, ValueError)
"""What wrong options, files and folders raise; the message is for whoever gave them."""

NO_REASON = "interrupted before the end{}; run the same command again to start anew"

_begun: list[Tracked] = []
"""What a command shows the progress of, the latest last."""


class Command(TyperCommand):
    """A command: its help has a group for each kind of option, and it imports torch to work."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options by group, in the order of the groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            usual = "Arguments" if option.param_type_name == "argument" else "Options"
            group = getattr(option, "rich_help_panel", None) or usual
            if record := option.get_help_record(ctx):
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=NAME_WIDTH)

    def invoke(self, ctx: Any) -> Any:
        """Import what takes seconds while Ctrl-C still ends the process at once; then work."""
        importlib.import_module("rankseg._commands.tables")
        raise_at_interrupt()
        return super().invoke(ctx)


class Commands(TyperGroup):
    """The commands: an expected error or Ctrl-C ends each of them with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        _begun.clear()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _Notes(warnings.showwarning)  # type: ignore[assignment]
                return super().invoke(ctx)
        except EXPECTED as error:
            message, status = f"Error: {str(error) or type(error).__name__}", 1
        except KeyboardInterrupt as interrupt:
            done = "".join(f", {work}" for work in _begun[-1:])
            reason = str(interrupt) or NO_REASON.format(done)  # some say what is written
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
    from rankseg._commands.tables import PlainConsole

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


@dataclass(eq=False)
class Tracked:
    """Cases that show how many are done, how fast and how long the rest takes.

    On the error stream, if it is a terminal, each time they are iterated over.
    """

    description: str
    cases: Any
    total: int
    done: int = 0

    def __len__(self) -> int:
        return self.total

    def __str__(self) -> str:
        return f"{self.description.lower()}: {self.done} of {self.total} done"

    def __iter__(self) -> Iterator[Any]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        _begun.append(self)
        errors = _errors()
        words = TextColumn("{task.description}", markup=False)
        rate = TextColumn("{task.fields[rate]}", markup=False)
        columns = (
            words,
            BarColumn(),
            MofNCompleteColumn(),
            rate,
            Remaining(elapsed_when_finished=True),
        )
        quiet = not errors.is_terminal
        with Progress(*columns, console=errors, transient=True, disable=quiet) as bar:
            task = bar.add_task(self.description, total=self.total, rate="")
            for self.done, case in enumerate(self.cases):  # noqa: B020
                speed = bar.tasks[0].speed
                bar.update(task, completed=self.done, rate=_rate(speed))
                yield case
            self.done = self.total


def _rate(speed: float | None) -> str:
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def tracker(description: str, total: int | None = None) -> Callable[[Any], Iterable[Any]]:
    """Return what shows the progress through cases, and lets Ctrl-C tell it.

    ``total`` is the number of cases of an iterable that does not tell it.
    """
    return lambda cases: Tracked(description, cases, len(cases) if total is None else total)


def working(description: str) -> AbstractContextManager[object]:
    """Show that work of one step goes on, where somebody looks."""
    errors = _errors()
    return errors.status(description) if errors.is_terminal else nullcontext()


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
    errors = _errors()
    for message in messages:
        errors.print(" ".join(line.strip() for line in message.splitlines()), soft_wrap=True)


def _errors() -> PlainConsole:
    from rankseg._commands.tables import PlainConsole

    return PlainConsole(stderr=True)
