"""ONNX: the decision inside an exported model, or as a graph of its own.

A model that ends in :class:`rankseg.RankSEG` is exported with ``torch.onnx.export`` as any other.
:func:`export` writes the decision alone, to be put behind a model that exists in ONNX already.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from os import PathLike
from pathlib import Path

import torch

from rankseg._common.arguments import choice, class_count, integer
from rankseg._common.warn import warn
from rankseg._decision.module import RankSEG
from rankseg._decision.solvers import EXPORTABLE
from rankseg._files.small import opened
from rankseg._files.whole import write_whole
from rankseg._version import __version__
from rankseg.integration.common import require

__all__ = ["export"]

DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}

OLDEST_OPSET = 18
"""The oldest version of the operators that torch writes."""

AXES = ("height", "width"), ("depth", "height", "width")
"""Names of the spatial axes, of images and of volumes."""

LEAST_PIXELS = 4
"""Along every axis of the example that is traced: not one, which would be taken for a constant."""


def export(
    path: str | PathLike[str],
    decide: RankSEG | str | PathLike[str],
    classes: int,
    *,
    spatial_axes: int = 2,
    dtype: str = "float32",
    opset: int | None = None,
) -> None:
    """Write the decision as an ONNX graph.

    Its input, ``probs`` or with ``from_logits`` ``logits``, is ``(batch, classes, *spatial)``; its
    output is ``labels``, int64 ``(batch, *spatial)``, or ``masks``, bool ``(batch, classes,
    *spatial)``. Batch and spatial sizes are free. The options are stored in the metadata of the
    model, as JSON under ``rankseg.options``, with the ``rankseg.version`` that wrote it.

    Parameters
    ----------
    path : path-like
        The file to write, whole or not at all.
    decide : RankSEG or path
        The decision, or the file of its settings that ``rankseg tune`` or ``RankSEG.save`` wrote.
        Its solver must be RMA, joint, TR, argmax or dataset.
    classes : int
        How many channels the maps have.
    spatial_axes : {2, 3}
        Images or volumes.
    dtype : {'float32', 'float16', 'float64'}
        Of the maps.
    opset : int, optional
        The version of the ONNX operators, 18 or later; that which torch prefers by default.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If it is not allowed, or ONNX has no operators for the solver.
    ImportError
        If ``onnx`` or ``onnxscript`` is not installed.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If labels are to be decided among several classes from sigmoids: these classes overlap.

    Notes
    -----
    As any traced graph, this one does not look whether its input holds probabilities.

    Examples
    --------
    >>> from rankseg import RankSEG
    >>> from rankseg.integration.onnx import export
    >>> export("decision.onnx", RankSEG("iou", from_logits="softmax"), 19)  # doctest: +SKIP
    """
    decide = _checked(opened("decide", RankSEG, decide))
    if not Path(path).parent.is_dir():  # before the work
        raise FileNotFoundError(f"there is no folder {Path(path).parent} to write to")
    example = _example(class_count("classes", classes), spatial_axes, DTYPES[_dtype(dtype)])
    # Raises what the options forbid, and computes what the graph is to hold as constants.
    decide(example if decide.from_logits else example.sigmoid())
    if classes > 1 and decide.from_logits == "sigmoid" and decide.output_mode == "multiclass":
        warn(
            "from_logits='sigmoid' is of classes that overlap, and output_mode='multiclass' gives "
            "each pixel one: pass from_logits='softmax', or output_mode='multilabel'"
        )
    for package in ("onnx", "onnxscript"):
        require(package, "onnx", "exporting to ONNX")
    _check_opset(opset)
    masks = decide.output_mode == "multilabel"
    axes = {0: "batch", **dict(enumerate(AXES[spatial_axes - 2], 2))}
    with _quiet():
        program = torch.onnx.export(
            copy.copy(decide).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=["logits" if decide.from_logits else "probs"],
            output_names=["masks" if masks else "labels"],
            dynamic_shapes=({axis: torch.export.Dim(name) for axis, name in axes.items()},),
        )
    assert program is not None  # as it is with dynamo
    (maps,) = program.model.graph.inputs
    sizes = list(maps.shape or ())
    fixed = {name for axis, name in axes.items() if isinstance(sizes[axis], int)}
    if fixed:
        raise RuntimeError(f"torch {torch.__version__} takes {sorted(fixed)} for constants")
    program.model.metadata_props["rankseg.version"] = __version__
    program.model.metadata_props["rankseg.options"] = json.dumps(asdict(decide.settings))
    write_whole(Path(path), program.model_proto.SerializeToString())


def _checked(decide: RankSEG | None) -> RankSEG:
    if decide is None:
        raise TypeError("decide must be a RankSEG, got None")
    settings = decide.settings
    if settings.solver not in EXPORTABLE:
        raise ValueError(
            f"ONNX has operators for the solvers {list(EXPORTABLE)}, got solver={settings.solver!r}"
        )
    return decide


def _check_opset(opset: int | None) -> None:
    """Refuse a version that torch would silently replace by the oldest it writes."""
    newest = require("onnx", "onnx", "exporting to ONNX").defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= integer("opset", opset) <= newest:
        raise ValueError(f"opset must be from {OLDEST_OPSET} to {newest}, got {opset}")


def _dtype(dtype: str) -> str:
    return choice("dtype", dtype, DTYPES)


def _example(classes: int, spatial_axes: int, dtype: torch.dtype) -> torch.Tensor:
    """Return maps to trace with, of no two axes alike."""
    if integer("spatial_axes", spatial_axes) not in (2, 3):
        raise ValueError(f"spatial_axes must be 2 or 3, got {spatial_axes}")
    spatial = range(LEAST_PIXELS, LEAST_PIXELS + spatial_axes)
    return torch.zeros(2, classes, *spatial, dtype=dtype, device="cpu")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter says of itself and of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
