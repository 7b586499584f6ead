"""PaddleSeg: the decision in place of argmax, behind prediction and validation alike.

``paddleseg.core.predict`` and ``paddleseg.core.evaluate`` both decide in ``inference`` and
``aug_inference`` of ``paddleseg.core.infer``, on logits that are stitched and resized. Those two
functions are replaced, for as long as they are to be.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.utils.dlpack import from_dlpack

from rankseg._decision.module import RankSEG
from rankseg.integration.common import keeps_dtype, require, with_settings

__all__ = ["decide", "disable", "enable"]

NAMES = ("inference", "aug_inference")

RESIZING = "reverse_transform"
"""The function of PaddleSeg that resizes logits to the size of the image."""

PURPOSE = "deciding in PaddleSeg"


def enable(metric: str | None = None, **rankseg_kwargs: Any) -> contextlib.ExitStack:
    """Let PaddleSeg decide with RankSEG, in prediction and validation.

    Parameters
    ----------
    metric : {'dice', 'iou', 'acc'}, optional
        What is maximised: by default what ``settings`` says, or else Dice.
    **rankseg_kwargs
        Further options of :class:`rankseg.RankSEG`, but for ``output_mode`` and ``from_logits``;
        ``settings``, a file that ``rankseg tune`` wrote.

    Returns
    -------
    contextlib.ExitStack
        A context manager, at whose end :func:`disable` is called. It need not be used as one.

    Raises
    ------
    TypeError
        If an option is of the wrong type.
    ValueError
        If an option is not allowed.
    ImportError
        If PaddlePaddle or PaddleSeg is not installed.

    Notes
    -----
    Logits of half precision are widened to float32 before PaddleSeg resizes them, except for
    accuracy. For the whole process, until :func:`disable`. Enabled again, it takes the new options.
    Code that has imported the two functions by name before keeps those of PaddleSeg.

    Examples
    --------
    >>> from paddleseg.core import evaluate  # doctest: +SKIP
    >>> from rankseg.integration.paddleseg import enable
    >>> with enable(metric="iou"):  # doctest: +SKIP
    ...     evaluate(model, dataset)
    """
    given = rankseg_kwargs if metric is None else {"metric": metric, **rankseg_kwargs}
    options = with_settings(given)
    fixed = {"output_mode", "from_logits"} & options.keys()
    if fixed:
        raise ValueError(f"{sorted(fixed)} follow from PaddleSeg and cannot be set")
    decision = RankSEG(from_logits="softmax", **options)
    infer = _infer()
    disable()
    for name in NAMES:
        setattr(infer, name, _deciding(getattr(infer, name), decision))
    if not keeps_dtype(decision):
        setattr(infer, RESIZING, _widening(getattr(infer, RESIZING)))
    stack = contextlib.ExitStack()
    stack.callback(disable)
    return stack


def disable() -> None:
    """Give PaddleSeg back its own decision; without effect if none was enabled."""
    infer = _infer()
    for name in (*NAMES, RESIZING):
        function = getattr(infer, name)
        setattr(infer, name, getattr(function, "_rankseg_replaces", function))


def decide(logits: Any, decision: RankSEG) -> Any:
    """Decide from the logits of PaddleSeg, ``(batch, classes, H, W)``.

    Parameters
    ----------
    logits : paddle.Tensor
        Floating, of two classes or more. Torch reads them where they are, without a copy.
    decision : RankSEG
        For logits, with multiclass output.

    Returns
    -------
    paddle.Tensor
        Labels, int32 ``(batch, 1, H, W)``, where the logits are.

    Raises
    ------
    TypeError
        If the logits are not floating.
    ValueError
        If the logits have other axes, or are not finite, or there is one channel, of which
        PaddleSeg's argmax makes label 0 everywhere.
    """
    paddle = require("paddle", "paddleseg", PURPOSE)
    if len(logits.shape) != 4 or logits.shape[1] < 2:
        raise ValueError(
            "logits must be of shape (batch, classes, height, width), with two classes or more, as "
            f"PaddleSeg takes their argmax, got {tuple(logits.shape)}"
        )
    labels: Tensor = decision(_to_torch(logits))
    return paddle.utils.dlpack.from_dlpack(labels.int().unsqueeze(1))


def _widening(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with logits of half precision widened, before it resizes them."""

    @functools.wraps(function)
    def wrapped(logits: Any, *args: Any, **kwargs: Any) -> Any:
        half = str(logits.dtype).removeprefix("paddle.") in ("float16", "bfloat16")
        return function(logits.astype("float32") if half else logits, *args, **kwargs)

    wrapped._rankseg_replaces = function  # type: ignore[attr-defined]
    return wrapped


def _to_torch(tensor: Any) -> Tensor:
    """View a tensor of Paddle as one of torch."""
    shared: Tensor = from_dlpack(tensor.detach())
    return shared


def _infer() -> ModuleType:
    """Return the module that decides; an attribute of its package may be a function instead."""
    require("paddle", "paddleseg", PURPOSE)
    require("paddleseg.core.infer", "paddleseg", PURPOSE)
    return sys.modules["paddleseg.core.infer"]


def _deciding(function: Callable[..., Any], decision: RankSEG) -> Callable[..., Any]:
    """Return the function with its prediction replaced, where it makes one."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = function(*args, **kwargs)
        if not isinstance(given, tuple):  # logits alone, of one scale of several
            return given
        _, logits = given
        return decide(logits, decision), logits

    wrapped._rankseg_replaces = function  # type: ignore[attr-defined]
    return wrapped
