"""``rankseg nnunet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands._terminal import fail, print_outcome, tracker
from rankseg.integration.nnunet import decide_folders

__all__ = ["nnunet"]


def nnunet(
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
    metric: Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")] = "dice",
    solver: Annotated[
        str, typer.Option(help="How: auto, RMA, joint, exact; for regions also BA, TRNA, BA+TRNA.")
    ] = "auto",
    pruning_prob: Annotated[
        float,
        typer.Option(help="A class whose largest probability does not exceed this is absent."),
    ] = 0.5,
    smooth: Annotated[float, typer.Option(help="Added to numerator and denominator.")] = 0.0,
    correlation: Annotated[
        float,
        typer.Option(help="In [0, 1): how strongly the labels of an image vary together."),
    ] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Decide cases anew whose label map is there.")
    ] = False,
) -> None:
    """Write label maps of the probabilities that nnU-Net saved.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    options = {"correlation": correlation} if correlation else {}
    try:
        outcome = decide_folders(
            folders,
            output,
            overwrite=overwrite,
            track=tracker("Deciding"),
            metric=metric,
            smooth=smooth,
            solver=solver,
            pruning_prob=pruning_prob,
            **options,
        )
    except (TypeError, ValueError, ImportError, OSError) as error:
        fail(str(error))
    print_outcome(outcome, output)
