"""``rankseg tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rankseg._commands import tables
from rankseg._commands._comparison import print_not_compared, print_remedies
from rankseg._commands._options import (
    CLASSES,
    CLUSTERS,
    DETAILS,
    FROM_LOGITS,
    IGNORE_INDEX,
    KEY,
    LABELS,
    MAPS,
    VALID,
    clusters_from,
    command_to_decide,
    maps_as_arguments,
    maps_from,
)
from rankseg._commands._terminal import check_place, open_console, tracker
from rankseg.calibration import Calibration
from rankseg.evaluation.verdict import METRIC_NAMES, Remedy, standing
from rankseg.tuning import tune
from rankseg.tuning.choice import HELD_OUT, standard_candidates_for

__all__ = ["tune_folder"]

LEGEND = (
    "{name}: points of 0.01, {unit}. change: from argmax, by what was fitted without the case. "
    "held out: what was chosen without the case, too; expect this of new cases. worst tenth: the "
    "mean of the tenth of the cases with the lowest {name}."
)
UNITS = {
    "image": "the mean over the classes of an image, then over images",
    "dataset": "of counts summed over the data set, the mean over classes; won: cases that raise "
    "it",
}


def tune_folder(
    maps: MAPS,
    labels: LABELS = None,
    key: KEY = None,
    from_logits: FROM_LOGITS = None,
    classes: CLASSES = None,
    ignore_index: IGNORE_INDEX = None,
    valid: VALID = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The JSON file to write.", dir_okay=False)
    ] = Path("settings.json"),
    metric: Annotated[str, typer.Option(help="dice or iou.")] = "dice",
    counted: Annotated[
        str,
        typer.Option(
            help="label: a class counts where the label holds it. either: a class predicted where "
            "it is absent scores 0."
        ),
    ] = "either",
    score: Annotated[
        str,
        typer.Option(
            help="image: the mean over images. dataset: of counts summed over the data set, as "
            "leaderboards have it."
        ),
    ] = "image",
    solver: Annotated[
        list[str] | None, typer.Option(help="To try besides; repeat it for several.")
    ] = None,
    correlation: Annotated[
        list[float] | None, typer.Option(help="In [0, 1), to try besides; repeat it for several.")
    ] = None,
    presence: Annotated[
        list[str] | None, typer.Option(help="argmax or all, to try besides; repeat it for several.")
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Files of rankseg calibrate, to try besides; repeat it for several."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Parts of the cases, each left out once. By default 5, or as many as there are "
            "cases or clusters.",
        ),
    ] = None,
    clusters: CLUSTERS = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    details: DETAILS = False,
) -> None:
    """Choose calibration, presence and solver on labelled maps, and say what to expect.

    The choice is judged on cases that were left out of it. Argmax is kept unless the gain is clear.
    DEP, which is slow, is tried by itself on maps of 524,288 values or fewer. The file is taken by
    rankseg predict --settings and RankSEG.load. Exits with 1 if a case could not be decided; the
    choice is made on the others.
    """
    check_place(output, '"format": "rankseg settings')
    folder = maps_from(locals())
    options: dict[str, Any] = {"metric": metric, "counted": counted, "score": score}
    more: dict[str, Any] = {
        "solvers": solver or (),
        "correlations": correlation or (),
        "presences": presence or (),
        "calibrations": [Calibration.load(path) for path in calibration or ()],
    }
    asked = any(more.values())
    tuned = tune(
        folder,
        **options,
        candidates=standard_candidates_for(folder, **options, **more) if asked else None,
        folds=folds,
        clusters=clusters_from(clusters, folder.names),
        seed=seed,
        track=tracker("Deciding"),
    )
    tuned.save(output)
    console = open_console()
    console.print(tuned.sentence + "\n")
    everything = standing(tuned.comparison, **options, most=len(tuned.comparison.methods))
    ranked = sorted(everything, key=lambda row: row.mean, reverse=True)
    shown = (tuned.best.name, HELD_OUT, *(row.method for row in ranked))
    rows = everything if details else standing(tuned.comparison, **options, main=shown)
    tables.print_table(tables.answer_table(rows, options["metric"], False))
    console.print(
        LEGEND.format(name=METRIC_NAMES[options["metric"]], unit=UNITS[score]), style="dim"
    )
    if details:
        for warning in tuned.warnings:
            console.print(f"Note: {warning}.")
    console.print(f"\nSettings of {tuned.chosen.name}: {output}", soft_wrap=True)
    if tuned.chosen is tuned.best and tuned.best.name != "argmax":
        settings = ["--settings", output]
        first = replace(folder, names=tuned.comparison.cases)
        decide = command_to_decide(first, locals(), settings)
        print_remedies(console, [Remedy("decide new maps by them", decide)])
    else:
        look = f"rankseg compare {maps_as_arguments(locals())} --report report.html"
        print_remedies(console, [Remedy("look at the cases that lose", look)])
    print_not_compared(tuned.comparison, "Left out")
