"""Options that several commands take, described once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from rankseg._common.arguments import integer
from rankseg.evaluation import CaseFolder, read_clusters
from rankseg.evaluation.case_folders import clusters_of

__all__ = [
    "AMPLITUDE",
    "BAND",
    "CALIBRATION",
    "CLUSTERS",
    "CORRELATION",
    "IGNORE_INDEX",
    "METRIC",
    "PRESENCE",
    "PRUNING_PROB",
    "SMOOTH",
    "THETA",
    "clusters_from",
    "ignore_index_from",
    "maps_from",
    "settings_from",
]

SETTINGS: Final = (
    *("metric", "smooth", "output_mode", "solver", "pruning_prob"),
    *("presence", "correlation", "theta", "amplitude", "calibration", "from_logits"),
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
CLUSTERS: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A CSV of case and cluster (patient, sequence): cases of one are not independent.",
        dir_okay=False,
    ),
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


def maps_from(
    folder: Path, ignore_index: str | None, *, prior_correction: bool = False
) -> CaseFolder:
    """Open a folder of labelled maps; ``--ignore-index``, if given, stands for ``meta.json``'s."""
    options = {} if ignore_index is None else {"ignore_index": ignore_index_from(ignore_index)}
    return CaseFolder.open(folder, prior_correction=prior_correction, **options)


def clusters_from(path: Path | None, cases: Sequence[str] = ()) -> dict[str, str] | None:
    """Read the clusters, if a file is named; it must have those of all cases."""
    clusters = None if path is None else read_clusters(path)
    clusters_of(cases, clusters)
    return clusters


def settings_from(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of a command that are options of RankSEG and say something.

    Some options are not taken by every solver.
    """
    given = {name: arguments[name] for name in SETTINGS if arguments.get(name) is not None}
    if len(given.get("theta", ())) == 1:
        (given["theta"],) = given["theta"]
    return given
