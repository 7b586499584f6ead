"""``rankseg calibrate``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from rankseg._commands._options import (
    CLASSES,
    CLUSTERS,
    FROM_LOGITS,
    IGNORE_INDEX,
    KEY,
    LABELS,
    MAPS,
    OUTPUT,
    RULE_PIXELS,
    VALID,
    clusters_from,
    maps_from,
    option,
)
from rankseg._commands._terminal import check_place, fail, open_console, print_failures, tracker

__all__ = ["calibrate"]

LEGEND = (
    "Of maps left out of the fit, by cross-validation over {folds} folds. NLL: mean negative "
    "log-likelihood of a label, in nats. ECE: expected calibration error of the likeliest class, "
    "and by class the mean over the classes, in points, over {bins} bins. volume: the sum of the "
    "probabilities of a class over its true volume. Dice and IoU: points, mean per image, a class "
    "counts where the label holds it; a loss is a reason to leave calibration away."
)


FIT = "Fit"
KINDS = "what is fitted: see above"


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
        Path, option(OUTPUT, "FILE", "the JSON file to write", "--output", "-o", dir_okay=False)
    ] = Path("calibration.json"),
    kind: Annotated[
        KindChoice, option(FIT, "KIND", KINDS, case_sensitive=False)
    ] = KindChoice.TEMPERATURE,
    presence: Annotated[
        AbsentChoice | None,
        option(FIT, "SCORE", "fit which are present, too: zero or ignored", case_sensitive=False),
    ] = None,
    image_labels: Annotated[
        Path | None,
        option(FIT, "FILE", "CSV of case, classes: labels of images", dir_okay=False),
    ] = None,
    rule: Annotated[
        Path | None,
        option(OUTPUT, "FILE", "also fit a rule for scores of data sets", dir_okay=False),
    ] = None,
    rule_metric: Annotated[str, option(FIT, "NAME", "of --rule: iou or dice")] = "iou",
    folds: Annotated[int, option(FIT, "N", "parts, each left out once", min=2)] = 5,
    bins: Annotated[int, option(FIT, "N", "of the calibration error", min=1)] = 15,
    clusters: CLUSTERS = None,
    diagram: Annotated[
        Path | None,
        option(OUTPUT, "FILE", "also draw reliability before and after, a PNG", dir_okay=False),
    ] = None,
    seed: Annotated[int, option(FIT, "N", "of the draws of pixels and folds", min=0)] = 0,
) -> None:
    """Fit a calibration to labelled maps, and show what it changes.

    Changes are those on maps left out of the fit.

    temperature: one scale. vector: scale and offset by class. binary: these for each class by
    itself. prior: the class_weights of meta.json undone, without a fit.

    --presence zero: a class predicted where it is absent scores 0; ignored: it does not count.
    --image-labels needs --presence and --kind none, and no labels of pixels.

    The file is taken by rankseg predict --calibration and RankSEG(calibration=...). Exits with 1
    if a case could not be used; the fit is made to the others.
    """
    from rankseg._commands import tables
    from rankseg._common.arguments import metric_name
    from rankseg.calibration import Calibration, cross_validate, cross_validate_presence, fit
    from rankseg.dataset import DatasetRule
    from rankseg.evaluation.clusters import clusters_of
    from rankseg.evaluation.image_labels import read_image_labels
    from rankseg.metrics import METRICS
    from rankseg.plots import reliability_diagram, write_figure

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
            tracker("Reading", len(folder))(folder.without_labels()),
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
        usable = tracker("Fitting to all")(validation.folder)
        fit(usable, kind.value, presence=absent, **options).save(output)
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
            tracker("Fitting the rule", len(folder))(
                folder if labelled else folder.without_labels()
            ),
            rule_metric,
            ignore_index=folder.ignore_index if labelled else None,
            calibration=output,
            pixels=RULE_PIXELS,
            seed=seed,
        ).save(rule)
        console.print(f"Rule written to {rule}", soft_wrap=True)
    print_failures("Left out", failures)
