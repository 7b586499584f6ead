"""``rankseg export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg import RankSEG
from rankseg._commands._options import PRESENCE, PRUNING_PROB, RULE, SETTINGS_FILE, settings_from
from rankseg._commands._terminal import check_place, open_console
from rankseg._decision.solvers import EXPORTABLE
from rankseg.integration.onnx import export as export_decision

__all__ = ["export"]


def export(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)],
    classes: Annotated[int, typer.Option(min=1, help="How many channels the maps have.")],
    metric: Annotated[str, typer.Option(help="dice, iou or acc: what is maximised.")] = "dice",
    output_mode: Annotated[
        str, typer.Option(help="multiclass: labels; multilabel: masks.")
    ] = "multiclass",
    from_logits: Annotated[
        str | None,
        typer.Option(help="softmax or sigmoid: the maps hold logits, and this is applied first."),
    ] = None,
    solver: Annotated[
        str, typer.Option(help=f"auto, {', '.join(EXPORTABLE[:-1])} or {EXPORTABLE[-1]}.")
    ] = "auto",
    presence: PRESENCE = None,
    pruning_prob: PRUNING_PROB = None,
    rule: RULE = None,
    settings: SETTINGS_FILE = None,
    smooth: Annotated[float, typer.Option(help="Added to numerator and denominator.")] = 0.0,
    spatial_axes: Annotated[int, typer.Option(min=2, max=3, help="2: images; 3: volumes.")] = 2,
    dtype: Annotated[str, typer.Option(help="Of the maps: float16, float32, float64.")] = "float32",
    opset: Annotated[
        int | None,
        typer.Option(help="Version of the ONNX operators, 18 or later; torch's by default."),
    ] = None,
) -> None:
    """Write the decision alone as an ONNX graph, to run behind a model that gives maps."""
    check_place(path, "rankseg.options")
    try:
        decide = RankSEG(**settings_from(locals()))
        export_decision(path, decide, classes, spatial_axes=spatial_axes, dtype=dtype, opset=opset)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    open_console().print(f"Written to {path}", soft_wrap=True)
