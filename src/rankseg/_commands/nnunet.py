"""``rankseg nnunet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands import _options
from rankseg._commands._terminal import print_outcome, tracker
from rankseg._decision.solvers import solvers_taking
from rankseg.integration.nnunet import decide_folders

__all__ = ["nnunet"]


def nnunet(
    context: typer.Context,
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="What nnUNetv2_predict --save_probabilities wrote. The probabilities of several "
            "folders are averaged.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write label maps to.")
    ],
    metric: _options.METRIC = "dice",
    solver: Annotated[
        str,
        typer.Option(
            help=f"How: auto, {', '.join(solvers_taking('presence'))}; for regions also "
            f"{', '.join(solvers_taking('eps'))}."
        ),
    ] = "auto",
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
        bool, typer.Option("--overwrite", help="Decide cases anew whose label map is there.")
    ] = False,
) -> None:
    """Write label maps of the probabilities that nnU-Net saved.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    options = _options.settings_from(locals())
    outcome = decide_folders(
        folders,
        output,
        overwrite=overwrite,
        track=tracker("Deciding"),
        **options,
    )
    print_outcome(outcome, output)
