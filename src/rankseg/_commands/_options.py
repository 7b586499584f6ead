"""Options that several commands take, described once: in one line of a help of 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

if TYPE_CHECKING:
    from rankseg.evaluation import CaseFolder

__all__ = [
    "AMPLITUDE",
    "BAND",
    "CALIBRATION",
    "CLASSES",
    "CLUSTERS",
    "CORRELATION",
    "DECISION",
    "DETAILS",
    "FROM_LOGITS",
    "IGNORE_INDEX",
    "INPUT",
    "KEY",
    "LABELS",
    "MAPS",
    "METRIC",
    "OUTPUT",
    "PRESENCE",
    "PRUNING_PROB",
    "RULE",
    "RULE_PIXELS",
    "SCORE",
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
    "option",
    "settings_from",
]

RULE_PIXELS: Final = 1_000_000
"""Pixels that a rule of a data set is fitted to."""

CASES: Final = ("labels", "key", "from_logits", "valid")

SETTINGS: Final = (
    *("metric", "smooth", "output_mode", "solver", "pruning_prob"),
    *("presence", "correlation", "theta", "amplitude", "calibration", "rule", "from_logits"),
)


def option(group: str, metavar: str | None, text: str, *names: str, **more: Any) -> Any:
    """Return an option of a group of the help, whose value is called ``metavar``."""
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=group, **more)


INPUT, DECISION, OUTPUT, SCORE = "Input", "Decision", "Output", "Score"
"""Groups of options in a help."""

METRIC: TypeAlias = Annotated[str, option(DECISION, "NAME", "dice, iou or acc: what is maximised")]
SMOOTH: TypeAlias = Annotated[float, option(DECISION, "X", "added to numerator and denominator")]
PRUNING_PROB: TypeAlias = Annotated[
    float | None, option(DECISION, "P", "for peak: least peak of a class that is present")
]
PRESENCE: TypeAlias = Annotated[
    str | None, option(DECISION, "RULE", "which classes are present: peak, argmax or all")
]
CORRELATION: TypeAlias = Annotated[
    float | None, option(DECISION, "R", "of the labels of an image, in [0, 1)")
]
THETA: TypeAlias = Annotated[
    list[float] | None,
    option(DECISION, "PIXELS", "for DEP: kernel width, inf too; once, or per axis"),
]
AMPLITUDE: TypeAlias = Annotated[
    float | None, option(DECISION, "A", "for DEP: dependence of neighbours, in [0, 1]")
]
CALIBRATION: TypeAlias = Annotated[
    Path | None,
    option(DECISION, "FILE", "of rankseg calibrate; applied first", dir_okay=False),
]
FROM_LOGITS: TypeAlias = Annotated[
    str | None, option(INPUT, "LINK", "softmax or sigmoid: the maps hold logits")
]
KEY: TypeAlias = Annotated[
    str | None, option(INPUT, "NAME", "which array of a file that holds several")
]
MAPS: TypeAlias = Annotated[
    Path,
    typer.Argument(help="probability maps, in any format", metavar="MAPS"),
]
LABELS: TypeAlias = Annotated[
    Path | None,
    option(INPUT, "DIR", "label maps, matched by name; else in the maps", file_okay=False),
]
VALID: TypeAlias = Annotated[
    Path | None,
    option(INPUT, "DIR", "masks, matched by name: 0 is left out", file_okay=False),
]
CLASSES: TypeAlias = Annotated[
    str | None, option(INPUT, "N", "how many, or names with commas between")
]
SETTINGS_FILE: TypeAlias = Annotated[
    Path | None,
    option(DECISION, "FILE", "of rankseg tune; other options replace its own", dir_okay=False),
]
RULE: TypeAlias = Annotated[
    Path | None,
    option(DECISION, "FILE", "of rankseg calibrate --rule, for data-set scores", dir_okay=False),
]
CLUSTERS: TypeAlias = Annotated[
    Path | None,
    option(INPUT, "FILE", "CSV of case, cluster: cases that depend", dir_okay=False),
]
BAND: TypeAlias = Annotated[float, option(SCORE, "X", "up to this a change is a tie", min=0.0)]
DETAILS: TypeAlias = Annotated[
    bool, option(OUTPUT, None, "print all tables, tests, averages and times", "--details")
]
IGNORE_INDEX: TypeAlias = Annotated[
    str | None, option(INPUT, "N|none", "label of pixels that do not count")
]


def ignore_index_from(text: str) -> int | None:
    """Return the label of pixels that do not count, or None for ``none``."""
    from rankseg._common.arguments import integer

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
    from rankseg.evaluation import cases

    options = {name: arguments[name] for name in CASES}
    options["prior_correction"] = arguments.get("prior_correction", False)
    options["labelled"] = arguments.get("image_labels") is None
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
    from rankseg.evaluation import read_clusters
    from rankseg.evaluation.clusters import clusters_of

    clusters = None if path is None else read_clusters(path)
    clusters_of(cases, clusters)
    return clusters


def settings_from(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a command that are options of RankSEG and say something.

    Some options are not taken by every solver. Beside ``--settings`` these are the options that
    stand on the command line: ``context`` tells which do.
    """
    given = {name: arguments[name] for name in SETTINGS if arguments.get(name) is not None}
    if len(given.get("theta", ())) == 1:
        (given["theta"],) = given["theta"]
    if arguments.get("settings") is None:
        return given
    source = arguments["context"].get_parameter_source
    said = {name: value for name, value in given.items() if source(name).name == "COMMANDLINE"}
    return {"settings": arguments["settings"], **said}
