"""Options that several commands take, described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from rankseg.evaluation import read_clusters

__all__ = [
    "BAND",
    "CALIBRATION",
    "CLUSTERS",
    "CORRELATION",
    "METRIC",
    "PRUNING_PROB",
    "SMOOTH",
    "clusters_from",
    "given",
]

METRIC: TypeAlias = Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")]
SMOOTH: TypeAlias = Annotated[float, typer.Option(help="Added to numerator and denominator.")]
PRUNING_PROB: TypeAlias = Annotated[
    float, typer.Option(help="A class whose largest probability does not exceed this is absent.")
]
CORRELATION: TypeAlias = Annotated[
    float, typer.Option(help="In [0, 1): how strongly the labels of an image vary together.")
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


def clusters_from(path: Path | None) -> dict[str, str] | None:
    """Read the clusters, if a file is named."""
    return None if path is None else read_clusters(path)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that say something: some are not taken by every solver."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and not (name == "correlation" and value == 0)
    }
