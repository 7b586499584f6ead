"""``rankseg predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands import _options
from rankseg._commands._options import DECISION, INPUT, OUTPUT, option
from rankseg._commands._terminal import print_outcome, tracker
from rankseg._decision.solvers import SOLVERS

__all__ = ["EPILOG", "predict"]

EPILOG = f"Solvers: auto, {', '.join(SOLVERS)}."
MODEL = "Images and a model"


def predict(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUTS", help="files, folders; with --model images"),
    ],
    output: Annotated[Path, option(OUTPUT, "DIR", "the folder of label maps", "--output", "-o")],
    suffix: Annotated[
        str, option(OUTPUT, "ENDING", "png, npy, zarr, nii.gz, tif, mha, nrrd, dcm", "--format")
    ] = "png",
    metric: _options.METRIC = "dice",
    solver: Annotated[str, option(DECISION, "NAME", "how: see below")] = "auto",
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
        str, option(DECISION, "MODE", "multiclass, or multilabel: masks")
    ] = "multiclass",
    from_logits: _options.FROM_LOGITS = None,
    key: _options.KEY = None,
    model: Annotated[
        str | None, option(MODEL, "MODEL", "of Hugging Face, or a file: .pt, .pt2")
    ] = None,
    mean: Annotated[
        list[float] | None, option(MODEL, "X", "for a file: subtracted; once or thrice")
    ] = None,
    std: Annotated[
        list[float] | None, option(MODEL, "X", "for a file: divides; once or thrice")
    ] = None,
    dicom: Annotated[
        Path | None,
        option(OUTPUT, "DIR", "for dcm: the DICOM slices, or a folder by case", file_okay=False),
    ] = None,
    workers: Annotated[int, option(INPUT, "N", "files at a time", min=1)] = 1,
    overwrite: Annotated[
        bool, option(OUTPUT, None, "decide cases anew that are there", "--overwrite")
    ] = False,
) -> None:
    """Write label maps of probability maps, or of images and a model.

    Maps are .npy, .npz, .pt, .safetensors, .zarr (classes, *spatial), .nii, .nii.gz (x, y, z,
    class), .mha, .nrrd or .tif. Images are .png, .jpg or .tif.

    Goes on where it was interrupted. Exits with 1 if a case could not be decided; the others are
    decided all the same.
    """
    from rankseg.prediction import predict_files

    options = _options.settings_from(locals())
    outcome = predict_files(
        inputs,
        output,
        suffix=f".{suffix.removeprefix('.')}",
        key=key,
        model=model,
        mean=mean,
        std=std,
        dicom=dicom,
        overwrite=overwrite,
        workers=workers,
        track=tracker("Deciding"),
        **options,
    )
    print_outcome(outcome, output)
