"""``rankseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands._options import (
    CALIBRATION,
    CORRELATION,
    METRIC,
    PRUNING_PROB,
    SMOOTH,
    given,
)
from rankseg._commands._terminal import fail, print_outcome, tracker
from rankseg.prediction import predict_files

__all__ = ["predict"]


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Files or folders of probability or logit maps: npy, npz, pt, safetensors, tif, "
            "zarr of (classes, *spatial); nii and nii.gz of (x, y, z, classes). With --model, "
            "images.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write label maps to.")
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="png, npy, nii.gz, tif or zarr. By default that of the maps, or png.",
            show_default=False,
        ),
    ] = None,
    metric: METRIC = "dice",
    output_mode: Annotated[
        str, typer.Option(help="multiclass: labels; multilabel: masks.")
    ] = "multiclass",
    solver: Annotated[
        str, typer.Option(help="How: auto, RMA, joint, exact; for masks also BA, TRNA, BA+TRNA.")
    ] = "auto",
    pruning_prob: PRUNING_PROB = 0.5,
    smooth: SMOOTH = 0.0,
    correlation: CORRELATION = 0.0,
    calibration: CALIBRATION = None,
    from_logits: Annotated[
        str | None,
        typer.Option(help="softmax or sigmoid: the maps hold logits, of which this is taken."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Which array of a file. By default probs, probabilities or logits."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Decide images by this model: a name on the Hugging Face hub or a folder, a "
            "TorchScript file (.pt), or a program of torch.export (.pt2)."
        ),
    ] = None,
    mean: Annotated[
        list[float] | None,
        typer.Option(help="Taken from images in [0, 1] for .pt and .pt2; repeat it by channel."),
    ] = None,
    std: Annotated[
        list[float] | None, typer.Option(help="Images are divided by it after that.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Files decided at a time.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Decide anew what is there.")
    ] = False,
) -> None:
    """Write label maps of files of probabilities or logits, or of images by a model.

    Goes on where it was interrupted. Exits with 1 if a file could not be decided; the others are
    decided all the same.
    """
    try:
        outcome = predict_files(
            inputs,
            output,
            ending=None if format is None else f".{format.removeprefix('.')}",
            key=key,
            model=model,
            mean=mean or (0.0,),
            std=std or (1.0,),
            overwrite=overwrite,
            workers=workers,
            track=tracker("Deciding"),
            **given(
                metric=metric,
                output_mode=output_mode,
                solver=solver,
                pruning_prob=pruning_prob,
                smooth=smooth,
                correlation=correlation,
                calibration=calibration,
                from_logits=from_logits,
            ),
        )
    except (TypeError, ValueError, ImportError, OSError) as error:
        fail(str(error))
    print_outcome(outcome, output)
