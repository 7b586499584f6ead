"""``rankseg info``."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from typing import Annotated

import torch
import typer
from rich.table import Table

from rankseg import RankSEG, __version__
from rankseg._backends import choose
from rankseg._commands._terminal import fail, open_console

__all__ = ["info"]

PACKAGES = ("torch", "numpy", "numba", "matplotlib", "rich", "typer")


def info(
    warm_up: Annotated[
        bool,
        typer.Option("--warm-up", help="Compile the kernels now, and say how long that took."),
    ] = False,
) -> None:
    """Show versions, and which backend decides for maps on the CPU and why."""
    try:
        backend, reason = choose(torch.device("cpu"))
    except (ValueError, RuntimeError) as error:
        fail(str(error))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("rankseg", __version__)
    table.add_row("python", platform.python_version())
    for package in PACKAGES:
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("threads", str(torch.get_num_threads()))
    table.add_row("CPU backend", f"{backend.__name__.rpartition('.')[2]}: {reason}")
    console = open_console()
    console.print(table)
    if warm_up:
        console.print(f"Warm-up of float32 and float64 took {_warm_up():.1f} s.")


def _warm_up() -> float:
    """Make every kind of decision once in both dtypes; return the seconds it took."""
    start = time.perf_counter()
    decisions = (
        RankSEG("dice"),
        RankSEG("dice", output_mode="multilabel"),
        RankSEG("dice", solver="RMA"),
        RankSEG("dice", solver="RMA", smooth=1.0),
        RankSEG("dice", solver="RMA", output_mode="multilabel"),
        RankSEG("iou", solver="joint"),
        RankSEG("acc"),
        RankSEG("dice", solver="exact"),
        RankSEG("dice", solver="exact", output_mode="multilabel"),
        RankSEG("dice", solver="TRNA", output_mode="multilabel"),
    )
    for dtype in (torch.float32, torch.float64):
        probs = torch.linspace(0, 1, 3 * 64 * 64, dtype=dtype, device="cpu").view(1, 3, 64, 64)
        for decide in decisions:
            decide(probs)
    return time.perf_counter() - start
