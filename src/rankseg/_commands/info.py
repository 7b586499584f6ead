"""``rankseg info``."""

from __future__ import annotations

from rankseg import __version__
from rankseg._commands._terminal import fail, open_console

__all__ = ["info"]

PACKAGES = ("torch", "numpy", "matplotlib", "rich", "typer")


def info() -> None:
    """Show versions, the backend that decides on the CPU, and why."""
    import importlib.metadata
    import platform

    import torch
    from rich.table import Table

    from rankseg._backends import choose
    from rankseg._backends.native_library import level

    try:
        backend, reason = choose(torch.device("cpu"))
        instructions = level()
    except (ImportError, ValueError, RuntimeError) as error:
        fail(str(error))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("rankseg", __version__)
    table.add_row("python", platform.python_version())
    for package in PACKAGES:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("threads", str(torch.get_num_threads()))
    table.add_row("CPU backend", f"{backend.__name__.rpartition('.')[2]}: {reason}")
    table.add_row("instructions", instructions)
    open_console().print(table)
