"""``rankseg evaluate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands._options import (
    BAND,
    CLUSTERS,
    DETAILS,
    IGNORE_INDEX,
    INPUT,
    OUTPUT,
    classes_from,
    clusters_from,
    ignore_index_from,
    option,
)
from rankseg._commands._terminal import make_folder, open_console, tracker

__all__ = ["evaluate_folders"]


def evaluate_folders(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDERS", help="predictions, last the truth"),
    ],
    classes: Annotated[str, option(INPUT, "N", "how many, or names with commas between")],
    ignore_index: IGNORE_INDEX = None,
    clusters: CLUSTERS = None,
    band: BAND = 0.0,
    details: DETAILS = False,
    output: Annotated[
        Path | None, option(OUTPUT, "DIR", "write tables there", "--output", "-o")
    ] = None,
) -> None:
    """Score folders of label maps against the truth, case by case.

    Exits with 1 if a case could not be scored; the others are scored all the same.
    """
    from rankseg._commands._comparison import (
        MARKS,
        print_answer,
        print_details,
        print_not_compared,
    )
    from rankseg._common.arguments import distinct_names
    from rankseg.evaluation import evaluate
    from rankseg.evaluation.verdict import verdict

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
