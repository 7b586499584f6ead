"""The commands of ``rankseg``, a module each: parse, one call of the library, print."""

from __future__ import annotations

from typing import Annotated

import typer

from rankseg import __version__
from rankseg._commands import app as page
from rankseg._commands import (
    calibrate,
    compare,
    demo,
    evaluate,
    export,
    info,
    nnunet,
    predict,
    tune,
)
from rankseg._commands._terminal import Command, Commands

__all__ = ["app"]

app = typer.Typer(
    name="rankseg",
    cls=Commands,
    help="Segmentation masks that maximise expected Dice or IoU, against argmax.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: rich takes as long to import as all the rest
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for module, command in (
    (demo, demo.demo),
    (predict, predict.predict),
    (compare, compare.compare_folder),
    (evaluate, evaluate.evaluate_folders),
    (calibrate, calibrate.calibrate),
    (tune, tune.tune_folder),
    (nnunet, nnunet.nnunet),
    (export, export.export),
    (page, page.app),
    (info, info.info),
):
    name = module.__name__.rpartition(".")[2]
    app.command(name, cls=Command, epilog=getattr(module, "EPILOG", None))(command)
