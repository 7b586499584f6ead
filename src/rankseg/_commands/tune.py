"""``rankseg tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from rankseg._commands._options import (
    CLASSES,
    CLUSTERS,
    DETAILS,
    FROM_LOGITS,
    IGNORE_INDEX,
    KEY,
    LABELS,
    MAPS,
    OUTPUT,
    SCORE,
    VALID,
    clusters_from,
    command_to_decide,
    maps_as_arguments,
    maps_from,
    option,
)
from rankseg._commands._terminal import check_place, open_console, tracker

__all__ = ["tune_folder"]

TRIED = "Tried besides"

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
        Path, option(OUTPUT, "FILE", "the JSON file to write", "--output", "-o", dir_okay=False)
    ] = Path("settings.json"),
    metric: Annotated[str, option(SCORE, "NAME", "dice or iou")] = "dice",
    counted: Annotated[
        str, option(SCORE, "RULE", "label; either: absent classes score 0")
    ] = "either",
    score: Annotated[
        str, option(SCORE, "UNIT", "image: each by itself; dataset: all as one")
    ] = "image",
    solver: Annotated[list[str] | None, option(TRIED, "NAME", "repeatable")] = None,
    correlation: Annotated[list[float] | None, option(TRIED, "R", "in [0, 1); repeatable")] = None,
    presence: Annotated[
        list[str] | None, option(TRIED, "RULE", "argmax or all; repeatable")
    ] = None,
    calibration: Annotated[
        list[Path] | None, option(TRIED, "FILE", "of rankseg calibrate; repeatable")
    ] = None,
    folds: Annotated[
        int | None, option(SCORE, "N", "parts, each left out once; else 5 or fewer", min=3)
    ] = None,
    clusters: CLUSTERS = None,
    seed: Annotated[int, option(SCORE, "N", "of the folds", min=0)] = 0,
    details: DETAILS = False,
) -> None:
    """Choose the settings on labelled maps, and say what to expect.

    The choice is judged on cases that were left out of it. Argmax is kept unless the gain is clear.
    DEP, which is slow, is tried by itself on maps of 524,288 values or fewer. The file is taken by
    rankseg predict --settings and RankSEG.load. Exits with 1 if a case could not be decided; the
    choice is made on the others.
    """
    from rankseg._commands import tables
    from rankseg._commands._comparison import print_not_compared, print_remedies
    from rankseg.calibration import Calibration
    from rankseg.evaluation.verdict import METRIC_NAMES, Remedy, standing
    from rankseg.tuning import tune
    from rankseg.tuning.choice import HELD_OUT, standard_candidates_for

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
