"""``rankseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands import _options
from rankseg._commands._terminal import print_outcome, tracker
from rankseg._decision.solvers import SOLVERS
from rankseg.prediction import predict_files

__all__ = ["predict"]


def predict(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Files or folders of probability or logit maps: .npy, .npz, .pt, .safetensors, "
            ".zarr (classes, *spatial), .nii, .nii.gz (x, y, z, class), .tif. With --model images: "
            ".png, .jpg, .tif.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write label maps to.")
    ],
    suffix: Annotated[
        str, typer.Option("--format", help="png, npy, nii, nii.gz, tif, tiff or zarr.")
    ] = "png",
    metric: _options.METRIC = "dice",
    solver: Annotated[str, typer.Option(help=f"How: auto, {', '.join(SOLVERS)}.")] = "auto",
    smooth: _options.SMOOTH = 0.0,
    presence: _options.PRESENCE = None,
    pruning_prob: _options.PRUNING_PROB = None,
    correlation: _options.CORRELATION = None,
    theta: _options.THETA = None,
    amplitude: _options.AMPLITUDE = None,
    calibration: _options.CALIBRATION = None,
    rule: _options.RULE = None,
    settings: _options.SETTINGS_FILE = None,
    output_mode: Annotated[
        str, typer.Option(help="multiclass: labels; multilabel: a mask for each class.")
    ] = "multiclass",
    from_logits: _options.FROM_LOGITS = None,
    key: _options.KEY = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Makes maps of images: a folder or an id of the Hugging Face Hub, a TorchScript "
            "file (.pt), or an exported program (.pt2)."
        ),
    ] = None,
    mean: Annotated[
        list[float] | None,
        typer.Option(help="Taken from the image before a .pt or .pt2 model; once, or thrice."),
    ] = None,
    std: Annotated[
        list[float] | None, typer.Option(help="By which it is then divided; once, or thrice.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Files at a time.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Decide cases anew whose label map is there.")
    ] = False,
) -> None:
    """Write label maps of probability maps, or of images and a model.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    options = _options.settings_from(locals())
    outcome = predict_files(
        inputs,
        output,
        suffix=f".{suffix.removeprefix('.')}",
        key=key,
        model=model,
        mean=mean,
        std=std,
        overwrite=overwrite,
        workers=workers,
        track=tracker("Deciding"),
        **options,
    )
    print_outcome(outcome, output)
