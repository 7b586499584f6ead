"""``rankseg export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankseg._commands import _options
from rankseg._commands._options import DECISION, option
from rankseg._commands._terminal import check_place, open_console, working
from rankseg._decision.solvers import EXPORTABLE

__all__ = ["EPILOG", "export"]

EPILOG = f"Solvers: auto, {', '.join(EXPORTABLE)}."
GRAPH = "Graph"


def export(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="the file to write", dir_okay=False)],
    classes: Annotated[int, option(GRAPH, "N", "how many channels the maps have", min=1)],
    metric: _options.METRIC = "dice",
    output_mode: Annotated[
        str, option(DECISION, "MODE", "multiclass, or multilabel: masks")
    ] = "multiclass",
    from_logits: _options.FROM_LOGITS = None,
    solver: Annotated[str, option(DECISION, "NAME", "how: see below")] = "auto",
    presence: _options.PRESENCE = None,
    pruning_prob: _options.PRUNING_PROB = None,
    rule: _options.RULE = None,
    settings: _options.SETTINGS_FILE = None,
    smooth: _options.SMOOTH = 0.0,
    spatial_axes: Annotated[int, option(GRAPH, "N", "2: images, 3: volumes", min=2, max=3)] = 2,
    dtype: Annotated[str, option(GRAPH, "TYPE", "of maps: float16, float32, float64")] = "float32",
    opset: Annotated[
        int | None, option(GRAPH, "N", "version of the operators, 18 or later")
    ] = None,
) -> None:
    """Write the decision as an ONNX graph, to run behind a model."""
    from rankseg import RankSEG
    from rankseg.integration.onnx import export as export_decision

    check_place(path, "rankseg.options")
    try:
        options = _options.settings_from(locals())
        decide = (
            RankSEG.load(options.pop("settings"), **options) if settings else RankSEG(**options)
        )
        with working("Exporting"):
            export_decision(
                path, decide, classes, spatial_axes=spatial_axes, dtype=dtype, opset=opset
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    open_console().print(f"Written to {path}", soft_wrap=True)
