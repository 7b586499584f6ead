"""``rankseg calibrate``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from rankseg._commands import tables
from rankseg._commands._options import (
    CLASSES,
    CLUSTERS,
    FROM_LOGITS,
    IGNORE_INDEX,
    KEY,
    LABELS,
    MAPS,
    RULE_PIXELS,
    VALID,
    clusters_from,
    maps_from,
)
from rankseg._commands._terminal import check_place, fail, open_console, print_failures, tracker
from rankseg._common.arguments import metric_name
from rankseg.calibration import Calibration, cross_validate, cross_validate_presence, fit
from rankseg.dataset import DatasetRule
from rankseg.evaluation.clusters import clusters_of
from rankseg.evaluation.image_labels import read_image_labels
from rankseg.metrics import METRICS
from rankseg.plots import reliability_diagram, write_figure

__all__ = ["calibrate"]

LEGEND = (
    "Of maps left out of the fit, by cross-validation over {folds} folds. NLL: mean negative "
    "log-likelihood of a label, in nats. ECE: expected calibration error of the likeliest class, "
    "and by class the mean over the classes, in points, over {bins} bins. volume: the sum of the "
    "probabilities of a class over its true volume. Dice and IoU: points, mean per image, a class "
    "counts where the label holds it; a loss is a reason to leave calibration away."
)


class KindChoice(str, Enum):
    """What is fitted."""

    TEMPERATURE = "temperature"
    VECTOR = "vector"
    BINARY = "binary"
    PRIOR = "prior"
    NONE = "none"


class AbsentChoice(str, Enum):
    """How a class is scored that an image lacks."""

    IGNORED = "ignored"
    ZERO = "zero"


def calibrate(
    maps: MAPS,
    labels: LABELS = None,
    key: KEY = None,
    from_logits: FROM_LOGITS = None,
    classes: CLASSES = None,
    ignore_index: IGNORE_INDEX = None,
    valid: VALID = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The JSON file to write.", dir_okay=False)
    ] = Path("calibration.json"),
    kind: Annotated[
        KindChoice,
        typer.Option(
            case_sensitive=False,
            help="One scale; scale and offset by class; these for each class by itself; the "
            "class_weights of meta.json undone, without a fit; or none.",
        ),
    ] = KindChoice.TEMPERATURE,
    presence: Annotated[
        AbsentChoice | None,
        typer.Option(
            case_sensitive=False,
            help="Fit which classes are in an image, too; zero: a class predicted where it is "
            "absent scores 0; ignored: it does not count.",
        ),
    ] = None,
    image_labels: Annotated[
        Path | None,
        typer.Option(
            help="A CSV of a case and its classes in each row, in place of the labels of pixels: "
            "with --presence and --kind none.",
            dir_okay=False,
        ),
    ] = None,
    rule: Annotated[
        Path | None,
        typer.Option(
            help="A second JSON file to write: a rule for --rule-metric summed over a whole data "
            f"set, fitted without labels to {RULE_PIXELS:,} pixels of the calibrated maps; see "
            "rankseg predict --rule.",
            dir_okay=False,
        ),
    ] = None,
    rule_metric: Annotated[str, typer.Option(help="Of --rule: iou or dice.")] = "iou",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cases, each left out once.")] = 5,
    bins: Annotated[int, typer.Option(min=1, help="Of the calibration error.")] = 15,
    clusters: CLUSTERS = None,
    diagram: Annotated[
        Path | None,
        typer.Option(help="A PNG to write: reliability before and after.", dir_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of pixels and folds.")] = 0,
) -> None:
    """Fit a calibration to labelled maps, and show what it changes on maps left out of the fit.

    The file is taken by rankseg predict --calibration and RankSEG(calibration=...). Exits with 1
    if a case could not be used; the fit is made to the others.
    """
    check_place(output, '"format": "rankseg calibration')
    check_place(diagram)
    check_place(rule, '"format": "rankseg data-set rule')
    metric_name(rule_metric, METRICS)
    if rule == output:
        fail(f"--rule must name another file than --output, got {rule} for both")
    console = open_console()
    failures: Mapping[str, str] = {}
    folder = maps_from(locals())
    absent: Any = None if presence is None else presence.value
    if image_labels is not None:
        if absent is None or kind is not KindChoice.NONE:
            fail("--image-labels tells which classes images hold: add --presence and --kind none")
        names = folder.name_classes()
        checked = cross_validate_presence(
            folder.without_labels(),
            read_image_labels(image_labels, names),
            absent=absent,
            folds=folds,
            clusters=clusters_of(folder.names, clusters_from(clusters)),
            seed=seed,
        )
        assert checked.model is not None
        if checked.model.classes != len(names):
            fail(f"the maps hold {checked.model.classes} classes where {len(names)} are named")
        Calibration.of_presence(checked.model).save(output)
        tables.print_table(tables.presence_table(checked))
        failures = checked.failures
    elif kind is KindChoice.PRIOR:
        if absent is not None:
            fail("--kind prior fits nothing: give the class_weights to a fit with --presence")
        if folder.class_weights is None:
            fail(f"{maps / 'meta.json'} names no class_weights")
        Calibration.from_class_weights(folder.class_weights).save(output)
    else:
        validation = cross_validate(
            folder,
            kind.value,
            folds=folds,
            clusters=clusters_of(folder.names, clusters_from(clusters)),
            bins=bins,
            seed=seed,
            presence=absent,
            track=tracker("Fitting"),
        )
        options: dict[str, Any] = {"ignore_index": folder.ignore_index, "seed": seed}
        fit(validation.folder, kind.value, presence=absent, **options).save(output)
        tables.print_table(tables.calibration_table(validation))
        tables.print_table(tables.calibrated_decisions_table(validation))
        if validation.presence is not None:
            tables.print_table(tables.presence_table(validation.presence))
        if diagram is not None:
            figure = reliability_diagram(
                validation.before, validation.after, titles=["before", "after"]
            )
            write_figure(diagram, figure)
        failures = {failure.name: failure.reason for failure in validation.decisions.failures}
        console.print(LEGEND.format(folds=folds, bins=bins) + "\n", style="dim")
    console.print(f"Written to {output}", soft_wrap=True)
    if rule is not None:
        labelled = image_labels is None
        DatasetRule.fit(
            folder if labelled else folder.without_labels(),
            rule_metric,
            ignore_index=folder.ignore_index if labelled else None,
            calibration=output,
            pixels=RULE_PIXELS,
            seed=seed,
        ).save(rule)
        console.print(f"Rule written to {rule}", soft_wrap=True)
    print_failures("Left out", failures)
