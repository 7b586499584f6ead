"""The door of the ``rankseg`` command; the commands themselves need the extra ``cli``."""

from __future__ import annotations

import importlib.util
import io
import sys

from rankseg._common.interrupts import INTERRUPTED, ignore_interrupts, leave, leave_at_interrupt

__all__ = ["main"]

NEEDED = ("matplotlib", "rich", "typer")


def main() -> None:
    """Run the command line, or say how to install what it needs and exit with 1."""
    leave_at_interrupt("Interrupted before the work began; run the same command again\n")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the encoding of the terminal lacks is written as \u80cc or \udcff: no
            # name ends a command, and two names never look the same.
            stream.reconfigure(errors="backslashreplace")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The rankseg command needs packages that are not installed ({', '.join(missing)}). "
            "Run:\n\n    pip install 'rankseg[cli]'\n",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from rankseg._commands import app

    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            leave()  # threads that a second Ctrl-C left at work can abort an orderly end
        raise
    finally:
        ignore_interrupts()
