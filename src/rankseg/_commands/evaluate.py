"""``rankseg evaluate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands._comparison import (
    MARKS,
    print_answer,
    print_details,
    print_not_compared,
)
from rankseg._commands._options import (
    BAND,
    CLUSTERS,
    DETAILS,
    classes_from,
    clusters_from,
    ignore_index_from,
)
from rankseg._commands._terminal import make_folder, open_console, tracker
from rankseg._common.arguments import distinct_names
from rankseg.evaluation import evaluate
from rankseg.evaluation.verdict import verdict

__all__ = ["evaluate_folders"]


def evaluate_folders(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of predicted label maps, one for each method, the baseline first; then "
            "the folder of true ones. Files are matched by name: png, npy, npz, nii, nii.gz, tif, "
            "zarr.",
        ),
    ],
    classes: Annotated[
        str,
        typer.Option(help="How many classes, or their names, separated by commas.", metavar="N"),
    ],
    ignore_index: Annotated[
        str | None,
        typer.Option(
            help="Pixels whose true label is this integer do not count; none: all do, and "
            "with two classes masks of 0 and 255 are read as 0 and 1. By default 255 if that is no "
            "class.",
            metavar="N|none",
        ),
    ] = None,
    clusters: CLUSTERS = None,
    band: BAND = 0.0,
    details: DETAILS = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A folder to write cases.csv, classes.csv and summary.json to."
        ),
    ] = None,
) -> None:
    """Score label maps against the truth: several folders of them are compared case by case.

    Exits with 1 if a case could not be scored; the others are scored all the same.
    """
    if len(folders) < 2:
        raise typer.BadParameter("name a folder of predictions and the folder of true labels")
    *predicted, truth = folders
    names = [folder.name or str(folder) for folder in predicted]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in predicted]
    distinct_names("folders of predictions", names)
    if output is not None:
        make_folder(output, MARKS)
    comparison = evaluate(
        dict(zip(names, predicted, strict=True)),
        truth,
        classes=classes_from(classes),
        ignore_index="default" if ignore_index is None else ignore_index_from(ignore_index),
        clusters=clusters_from(clusters),
        track=tracker("Scoring"),
        **({"band": band} if band else {}),
    )
    console = open_console()
    print_answer(console, comparison, verdict(comparison, labels=shlex.quote(str(truth))))
    if details:
        print_details(console, comparison, None)
    if output is not None:
        comparison.write(output)
        console.print(f"Written to {output}", soft_wrap=True)
    print_not_compared(comparison, "Not scored")
