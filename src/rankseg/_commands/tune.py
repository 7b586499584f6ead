"""``rankseg tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rankseg._commands._options import (
    CLASSES,
    CLUSTERS,
    FROM_LOGITS,
    IGNORE_INDEX,
    KEY,
    LABELS,
    MAPS,
    OUTPUT,
    SCORE,
    VALID,
    clusters_from,
    maps_from,
    option,
)
from rankseg._commands._terminal import check_place, open_console, tracker
from rankseg._decision.solvers import solvers_taking

__all__ = ["tune_folder"]

SOLVERS = solvers_taking("correlation")

TRIED = "Tried"

LEGEND = (
    "points: the mean per image, and its change from argmax; best by itself, and so too good to "
    "expect. held out: chosen without the fold it is scored on, which tells what choosing so is "
    "worth on other cases; the rest is optimism. The simplest way within a standard error of the "
    "best is chosen."
)


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
    ] = Path("tuned.json"),
    metric: Annotated[str, option(SCORE, "NAME", "dice or iou")] = "dice",
    counted: Annotated[
        str, option(SCORE, "RULE", "label; either: absent classes score 0")
    ] = "either",
    solver: Annotated[
        list[str] | None, option(TRIED, "NAME", f"repeatable; else {' and '.join(SOLVERS)}")
    ] = None,
    correlation: Annotated[
        list[float] | None, option(TRIED, "R", "repeatable; else 0 and 0.5")
    ] = None,
    pruning_prob: Annotated[
        list[float] | None, option(TRIED, "P", "repeatable; else 0, 0.5 and 0.8")
    ] = None,
    presence: Annotated[
        list[str] | None, option(TRIED, "RULE", "argmax or all; repeatable; else argmax")
    ] = None,
    temperature: Annotated[list[float] | None, option(TRIED, "T", "repeatable; else 1")] = None,
    calibration: Annotated[
        list[Path] | None, option(TRIED, "FILE", "of rankseg calibrate; repeatable")
    ] = None,
    folds: Annotated[int, option(SCORE, "N", "parts, each left out once", min=2)] = 5,
    clusters: CLUSTERS = None,
    seed: Annotated[int, option(SCORE, "N", "of the folds", min=0)] = 0,
) -> None:
    """Choose the settings on labelled maps, by cross-validation.

    Argmax is always among the candidates. The file is taken by rankseg predict --settings and
    RankSEG.load. Exits with 1 if a case could not be decided; the choice is made on the others.
    """
    from rankseg._commands import tables
    from rankseg._commands._comparison import print_not_compared
    from rankseg.calibration import Calibration
    from rankseg.tuning import count_classes, standard_candidates, tune

    check_place(output, '"format": "rankseg settings')
    folder = maps_from(locals())
    candidates = standard_candidates(
        metric,  # type: ignore[arg-type]
        classes=count_classes(folder),
        solvers=solver or SOLVERS,
        correlations=correlation or (0.0, 0.5),
        pruning_probs=pruning_prob or (0.0, 0.5, 0.8),
        presences=presence or ("argmax",),
        temperatures=temperature or (1.0,),
        calibrations=[Calibration.load(path) for path in calibration or ()],
    )
    tuned = tune(
        folder,
        metric,  # type: ignore[arg-type]
        counted=counted,  # type: ignore[arg-type]
        candidates=candidates,
        folds=folds,
        clusters=clusters_from(clusters, folder.names),
        seed=seed,
        track=tracker("Deciding"),
    )
    tuned.save(output)
    console = open_console()
    tables.print_table(tables.tuning_table(tuned, metric, counted))  # type: ignore[arg-type]
    console.print(LEGEND + "\n", style="dim")
    for warning in tuned.warnings:
        console.print(f"Note: {warning}.")
    console.print(f"Chosen: {tuned.chosen.name}. Written to {output}", soft_wrap=True)
    print_not_compared(tuned.comparison, "Left out")
