"""Options that several commands take, described once."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from rankseg import RankSEG
from rankseg._common.arguments import integer
from rankseg._decision.settings_file import read_settings
from rankseg.evaluation import CaseFolder, cases, read_clusters
from rankseg.evaluation.clusters import clusters_of

__all__ = [
    "AMPLITUDE",
    "BAND",
    "CALIBRATION",
    "CLASSES",
    "CLUSTERS",
    "CORRELATION",
    "DETAILS",
    "FROM_LOGITS",
    "IGNORE_INDEX",
    "KEY",
    "LABELS",
    "MAPS",
    "METRIC",
    "PRESENCE",
    "PRUNING_PROB",
    "RULE",
    "RULE_PIXELS",
    "SETTINGS_FILE",
    "SMOOTH",
    "THETA",
    "VALID",
    "classes_from",
    "clusters_from",
    "command_to_decide",
    "ignore_index_from",
    "maps_as_arguments",
    "maps_from",
    "settings_from",
]

RULE_PIXELS: Final = 1_000_000
"""Pixels that a rule of a data set is fitted to."""

CASES: Final = ("labels", "key", "from_logits", "valid")

SETTINGS: Final = (
    *("metric", "smooth", "output_mode", "solver", "pruning_prob"),
    *("presence", "correlation", "theta", "amplitude", "calibration", "rule", "from_logits"),
)

METRIC: TypeAlias = Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")]
SMOOTH: TypeAlias = Annotated[float, typer.Option(help="Added to numerator and denominator.")]
PRUNING_PROB: TypeAlias = Annotated[
    float | None,
    typer.Option(help="With --presence peak: what the largest probability of a class exceeds."),
]
PRESENCE: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Which classes are taken to be in an image. peak: largest probability above "
        "--pruning-prob; argmax: those that argmax predicts; all."
    ),
]
CORRELATION: TypeAlias = Annotated[
    float | None, typer.Option(help="In [0, 1): how strongly the labels of an image vary together.")
]
THETA: TypeAlias = Annotated[
    list[float] | None,
    typer.Option(
        help="With --solver DEP: the width of its kernel in pixels, or inf. Repeat it to give one "
        "for every spatial axis."
    ),
]
AMPLITUDE: TypeAlias = Annotated[
    float | None,
    typer.Option(help="With --solver DEP, in [0, 1]: how strongly neighbouring labels depend."),
]
CALIBRATION: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="What rankseg calibrate wrote; applied first.", dir_okay=False),
]
FROM_LOGITS: TypeAlias = Annotated[
    str | None,
    typer.Option(help="softmax or sigmoid: the maps hold logits, and this is applied first."),
]
KEY: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Which array of a file that holds several; probs, probabilities or logits "
        "by default (with --from-logits logits first), or the only one."
    ),
]
MAPS: TypeAlias = Annotated[
    Path,
    typer.Argument(
        help="Probability maps that the network was not trained on: a folder of files as for "
        "rankseg predict, or of nnU-Net's CASE.npz. Perhaps with meta.json: classes, ignore_index "
        "(255 by default) and class_weights.",
        metavar="MAPS",
    ),
]
LABELS: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="The folder of label maps, matched by name: png, tif, nii, nii.gz, npy, npz, zarr. "
        "By default .npz and .zarr files hold both probs (classes, *spatial) and label (*spatial).",
        file_okay=False,
    ),
]
VALID: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A folder of masks, matched by name: pixels where they are 0 are left out. So are "
        "pixels that are NaN or have the nodata value of a GeoTIFF.",
        file_okay=False,
    ),
]
CLASSES: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="How many classes, or their names, separated by commas. By default what meta.json or "
        "nnU-Net's dataset.json says, or as many as the maps have.",
        metavar="N",
    ),
]
SETTINGS_FILE: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="What rankseg tune or RankSEG.save wrote. Options given beside it replace its own.",
        dir_okay=False,
    ),
]
RULE: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="What rankseg calibrate --rule wrote: decides for the score of a whole data set.",
        dir_okay=False,
    ),
]
CLUSTERS: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A CSV of case and cluster (patient, sequence): cases of one are not independent.",
        dir_okay=False,
    ),
]


DETAILS: TypeAlias = Annotated[
    bool,
    typer.Option("--details", help="Print all tables, tests, toolkits' averages and times, too."),
]


BAND: TypeAlias = Annotated[
    float,
    typer.Option(min=0.0, help="Changes of at most this are ties, as a fraction: 0.01 is a point."),
]


IGNORE_INDEX: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Pixels whose label is this integer do not count; none: all do, and with two classes "
        "or one channel masks of 0 and 255 are read as 0 and 1. By default what meta.json says, or "
        "else 255 if that is no class.",
        metavar="N|none",
    ),
]


def ignore_index_from(text: str) -> int | None:
    """Return the label of pixels that do not count, or None for ``none``."""
    if text.strip().lower() == "none":
        return None
    try:
        return integer("--ignore-index", int(text))
    except ValueError:
        raise typer.BadParameter(
            f"--ignore-index must be an integer, -1 say, or none, got {text!r}"
        ) from None


def classes_from(text: str) -> int | list[str]:
    """Return the number of classes, or their names."""
    return int(text) if text.strip().isdecimal() else [name.strip() for name in text.split(",")]


def maps_from(arguments: Mapping[str, Any]) -> CaseFolder:
    """Find the labelled maps that the arguments of a command name."""
    options = {name: arguments[name] for name in CASES}
    options["prior_correction"] = arguments.get("prior_correction", False)
    if arguments["classes"] is not None:
        options["classes"] = classes_from(arguments["classes"])
    if arguments["ignore_index"] is not None:
        options["ignore_index"] = ignore_index_from(arguments["ignore_index"])
    return cases(arguments["maps"], **options)


def maps_as_arguments(arguments: Mapping[str, Any]) -> str:
    """Return the maps and labels that a command was given, to be given to another one."""
    parts = [str(arguments["maps"])]
    for name in (*CASES, "classes", "ignore_index", "clusters"):
        if arguments.get(name) is not None:
            parts += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(parts)


def command_to_decide(
    folder: CaseFolder, arguments: Mapping[str, Any], options: Sequence[object]
) -> str:
    """Return the command that writes label maps of the maps that a command was given.

    The first of the names of ``folder`` must be of a case that can be read.
    """
    parts: list[object] = ["rankseg", "nnunet" if folder.of_nnunet else "predict", folder.path]
    parts += ["-o", "rankseg-labels", *options]
    if not folder.of_nnunet:
        for name in ("key", "from_logits"):
            if arguments[name] is not None:
                parts += [f"--{name.replace('_', '-')}", arguments[name]]
        first = folder.read(folder.names[0], labelled=False)
        shape = (first.label if first.valid is None else first.valid).shape
        parts += ["--format", "npy"] if len(shape) > 2 else []
    return shlex.join(map(str, parts))


def clusters_from(path: Path | None, cases: Sequence[str] = ()) -> dict[str, str] | None:
    """Read the clusters, if a file is named; it must have those of all cases."""
    clusters = None if path is None else read_clusters(path)
    clusters_of(cases, clusters)
    return clusters


def settings_from(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a command that are options of RankSEG and say something.

    Some options are not taken by every solver. If there is ``--settings``, these are the options of
    the file, replaced by those that stand on the command line: ``context`` tells which do.
    """
    given = {name: arguments[name] for name in SETTINGS if arguments.get(name) is not None}
    if len(given.get("theta", ())) == 1:
        (given["theta"],) = given["theta"]
    if arguments.get("settings") is None:
        return given
    source = arguments["context"].get_parameter_source
    said = {name: value for name, value in given.items() if source(name).name == "COMMANDLINE"}
    return {**read_settings(arguments["settings"], RankSEG), **said}
