"""What Ctrl-C does before a command works, while it works, and after.

Needs the standard library alone, since torch takes seconds to import and Ctrl-C must work by then.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial

__all__ = ["INTERRUPTED", "ignore_interrupts", "leave", "leave_at_interrupt", "raise_at_interrupt"]

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended: 128 + SIGINT, as shells have it."""


def leave_at_interrupt(message: str) -> None:
    """Let Ctrl-C write a line and end the process at once.

    Only while nothing can be lost. Unlike an exception, an end at once cannot be caught, reported
    or turned into an ImportError by the module that is being imported.
    """
    _replace_handler(partial(leave, message))


def raise_at_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    _replace_handler(signal.default_int_handler)


def ignore_interrupts() -> None:
    """Let Ctrl-C do nothing: all output is written, and the interpreter ends within a second."""
    _replace_handler(signal.SIG_IGN)


def _replace_handler(handler: object) -> None:
    """Set the handler, unless somebody set another one or lets the process ignore Ctrl-C."""
    current = signal.getsignal(signal.SIGINT)
    if current is signal.default_int_handler or getattr(current, "func", None) is leave:
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


def leave(message: str = "", *_: object) -> None:
    """End the process at once, whatever its threads are at."""
    with contextlib.suppress(OSError):  # nobody reads
        os.write(2, message.encode())
    os._exit(INTERRUPTED)
