"""``rankseg nnunet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands import _options
from rankseg._commands._options import DECISION, OUTPUT, option
from rankseg._commands._terminal import print_outcome, tracker
from rankseg._decision.solvers import solvers_taking

__all__ = ["EPILOG", "nnunet"]

EPILOG = (
    f"Solvers: auto, {', '.join(solvers_taking('presence'))}; for regions also "
    f"{', '.join(solvers_taking('eps'))}."
)


def nnunet(
    context: typer.Context,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDERS", help="what --save_probabilities wrote"),
    ],
    output: Annotated[Path, option(OUTPUT, "DIR", "the folder of label maps", "--output", "-o")],
    metric: _options.METRIC = "dice",
    solver: Annotated[str, option(DECISION, "NAME", "how: see below")] = "auto",
    presence: _options.PRESENCE = None,
    pruning_prob: _options.PRUNING_PROB = None,
    smooth: _options.SMOOTH = 0.0,
    correlation: _options.CORRELATION = None,
    theta: _options.THETA = None,
    amplitude: _options.AMPLITUDE = None,
    calibration: _options.CALIBRATION = None,
    rule: _options.RULE = None,
    settings: _options.SETTINGS_FILE = None,
    overwrite: Annotated[
        bool, option(OUTPUT, None, "decide cases anew that are there", "--overwrite")
    ] = False,
) -> None:
    """Write label maps of the probabilities that nnU-Net saved.

    The probabilities of several folders are averaged.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    from rankseg.integration.nnunet import decide_folders

    options = _options.settings_from(locals())
    outcome = decide_folders(
        folders,
        output,
        overwrite=overwrite,
        track=tracker("Deciding"),
        **options,
    )
    print_outcome(outcome, output)
