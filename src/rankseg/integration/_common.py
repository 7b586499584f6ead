"""What the adapters share: kinds of scores, sizes, and packages that may be missing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankseg._api import RankSEG
from rankseg._arguments import choice, describe

KINDS = ("softmax", "sigmoid", "probabilities", "query_sums")
"""What scores can be, by what makes probabilities of them; see :func:`to_probabilities`."""

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How scores are resized, by the number of spatial axes."""


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {package} ({error}): pip install 'rankseg[{extra}]'", name=package
        ) from error


def to_probabilities(scores: Tensor, kind: str) -> Tensor:
    """Make probabilities ``(batch, classes, *spatial)`` of scores of the same shape.

    ``'softmax'`` and ``'sigmoid'`` take logits, of classes that exclude each other and of classes
    that do not. ``'query_sums'`` takes the sums over queries of class probability times mask
    probability, which are no logits: they are not negative, and are divided by their sum over the
    classes, since a pixel has one of them. Where that is 0 they stay 0. Half precision is widened,
    as rounded probabilities lose what lies near 0 and 1.
    """
    kind = choice("kind", kind, KINDS)
    if kind == "probabilities":
        return scores
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if kind == "softmax":
        return wide.softmax(1)
    if kind == "sigmoid":
        return wide.sigmoid()
    total = wide.sum(1, keepdim=True)
    return wide / total.where(total > 0, 1.0)


def resize(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resample scores ``(batch, channels, *spatial)`` to a size, linearly between pixel areas."""
    if tuple(scores.shape[2:]) == tuple(size):
        return scores
    return F.interpolate(scores, tuple(size), mode=MODES[len(size)], align_corners=False)


def decision(rankseg_kwargs: Mapping[str, Any] | None, kind: str | None = None) -> RankSEG:
    """Make the decision that an adapter's ``rankseg_kwargs`` ask for, for one kind of scores.

    Logits are taken as they are; of other scores :func:`to_probabilities` is asked first.
    """
    if not isinstance(rankseg_kwargs, Mapping | None):
        raise TypeError(
            f"rankseg_kwargs must be a mapping of options, got {describe(rankseg_kwargs)}"
        )
    options = dict(rankseg_kwargs or {})
    if "from_logits" in options:
        raise ValueError("rankseg_kwargs must not hold from_logits: the outputs tell what they are")
    return RankSEG(**options, from_logits=kind if kind in ("softmax", "sigmoid") else None)


def decide_scores(decide: RankSEG, scores: Tensor, kind: str) -> Tensor:
    """Decide scores ``(batch, classes, *spatial)`` of one kind with the decision made for it.

    Accuracy is decided on the scores themselves, as the frameworks do: they rank pixels and classes
    as the probabilities do, which round.
    """
    multiclass = decide.output_mode == "multiclass"
    if decide.metric == "acc" and kind == "sigmoid":
        masks = scores > 0
        return masks[:, 0].long() if multiclass and masks.shape[1] == 1 else masks
    if decide.metric == "acc" and multiclass and scores.shape[1] > 1:
        return scores.argmax(1)
    maps = scores if decide.from_logits else to_probabilities(scores, kind)
    decided: Tensor = decide(maps)
    return decided


def image_sizes(
    sizes: Any, images: int, name: str = "target_sizes"
) -> list[tuple[int, int]] | None:
    """Check the (height, width) asked for every image; None stays None."""
    if sizes is None:
        return None
    rows = sizes.tolist() if isinstance(sizes, Tensor) else [list(size) for size in sizes]
    good = all(len(row) == 2 and all(int(side) == side >= 1 for side in row) for row in rows)
    if not good or len(rows) != images:
        raise ValueError(
            f"{name} must be {images} pairs (height, width) of positive integers, one for every "
            f"image, got {rows}"
        )
    return [(int(height), int(width)) for height, width in rows]
