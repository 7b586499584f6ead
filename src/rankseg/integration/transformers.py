"""Transformers: semantic, instance and panoptic outputs, decided by RankSEG.

Every family of models gives one of four kinds of scores, and each is made probabilities in its own
way: logits by softmax, logits of one channel or one prompt by sigmoid, and sums over queries, which
are no logits, by division; see :data:`rankseg.integration._common.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rankseg._arguments import describe
from rankseg.integration._common import (
    decide_scores,
    decision,
    image_sizes,
    require,
    resize,
    to_probabilities,
)

__all__ = ["RankSEGProcessor", "postprocess", "restore_semantic_probs"]

MASK2FORMER_SIZE = 384, 384
"""What its processor resizes the masks of queries to, whatever the image."""

REFUSED = {
    "seggpt": "it gives colours, to be compared with a palette: no probabilities",
    "videomt": "it labels videos, frame by frame",
    "rfdetr": "its queries are instances; their classes do not exclude each other",
}
"""Families without semantic probabilities, and why."""

EXPECTED = (
    "outputs must be of a Transformers model for semantic or universal segmentation: with logits "
    "(batch, classes, height, width); class_queries_logits and masks_queries_logits; logits and "
    "pred_masks (DETR); semantic_seg (SAM 3); or logits (prompts, height, width) (CLIPSeg)"
)


def restore_semantic_probs(
    outputs: Any,
    *,
    model: Any = None,
    target_sizes: Sequence[Sequence[int]] | Tensor | None = None,
) -> list[Tensor]:
    """Restore the probabilities of every class from the outputs of a model.

    Resized as the model's own processor does it, and made probabilities by what the scores are.

    Parameters
    ----------
    outputs : ModelOutput
        What the model returned, or another object or mapping with the same fields.
    model : PreTrainedModel, optional
        The model, which tells its family; by default the type of ``outputs`` does. Needed for EoMT,
        whose masks are to be resized to the size of its input first.
    target_sizes : sequence of (height, width), or ``(batch, 2)`` tensor, optional
        The size of every image in pixels; by default scores stay as they are. Needed for EoMT.

    Returns
    -------
    list of Tensor
        For every image ``(classes, height, width)``, float32 or float64; of one channel or prompt
        ``(1, height, width)``. Those of query heads are 0 where no query has any mass.

    Raises
    ------
    TypeError
        If ``outputs`` is a tuple: ask the model for ``return_dict=True``.
    ValueError
        If the outputs hold no scores of a known kind, or the family has no probabilities, or
        ``target_sizes`` does not fit.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> outputs = SimpleNamespace(logits=torch.zeros(1, 4, 8, 8))
    >>> restore_semantic_probs(outputs, target_sizes=[(30, 40)])[0].shape
    torch.Size([4, 30, 40])
    """
    kind, scores = _semantic_scores(outputs, model, target_sizes)
    return [to_probabilities(one, kind)[0] for one in scores]


def postprocess(
    outputs: Any,
    *,
    model: Any = None,
    target_sizes: Sequence[Sequence[int]] | Tensor | None = None,
    rankseg_kwargs: Mapping[str, Any] | None = None,
) -> list[Tensor]:
    """Decide the semantic segmentation of every image, in place of the processor.

    Takes the place of ``post_process_semantic_segmentation``, which takes argmax; so does
    ``rankseg_kwargs={"metric": "acc"}``. Logits of large images are never all turned into
    probabilities.

    Parameters
    ----------
    outputs, model, target_sizes
        As in :func:`restore_semantic_probs`.
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`, but for ``from_logits``, which the outputs tell.

    Returns
    -------
    list of Tensor
        For every image int64 ``(height, width)``, labels of the model's ``id2label``; with
        ``output_mode='multilabel'`` bool ``(classes, height, width)``.

    Raises
    ------
    TypeError, ValueError
        As in :func:`restore_semantic_probs`, and for options that RankSEG refuses.

    Examples
    --------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> outputs = SimpleNamespace(logits=torch.randn(2, 4, 8, 8))
    >>> labels = postprocess(outputs, target_sizes=[(30, 40), (32, 32)])
    >>> labels[0].shape, labels[0].dtype
    (torch.Size([30, 40]), torch.int64)
    """
    return list(_decide(outputs, model, target_sizes, rankseg_kwargs))


class RankSEGProcessor:
    """A processor that decides with RankSEG, and does all else as the one it wraps.

    ``pipe.image_processor = RankSEGProcessor(pipe.image_processor)`` makes the pipeline
    ``"image-segmentation"`` use it, for semantic, instance and panoptic segmentation.

    Instances and panoptic segments are still merged by the wrapped processor. The mask of every
    query is decided as one class alone, and its logits are shifted so that this mask is where they
    exceed 0: what the processor takes from them, its own threshold of 1/2 included, then follows
    the decision. Scores that it averages over masks are those of the shifted logits.

    Parameters
    ----------
    processor : BaseImageProcessor
        The processor to wrap.
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`, but for ``from_logits`` and, for masks of queries,
        ``output_mode``. ``{"metric": "acc"}`` gives what the processor gives by itself.

    Raises
    ------
    TypeError, ValueError
        If an option is not allowed.

    Examples
    --------
    >>> from transformers import pipeline  # doctest: +SKIP
    >>> pipe = pipeline("image-segmentation", "nvidia/segformer-b0-finetuned-ade-512-512")
    ... # doctest: +SKIP
    >>> pipe.image_processor = RankSEGProcessor(pipe.image_processor)  # doctest: +SKIP
    """

    def __init__(self, processor: Any, rankseg_kwargs: Mapping[str, Any] | None = None) -> None:
        decision(rankseg_kwargs)  # refuses wrong options now
        self._processor = processor
        self._rankseg_kwargs = dict(rankseg_kwargs or {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Prepare images, as the wrapped processor does."""
        return self._processor(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_processor":  # asked for before there is one
            raise AttributeError(name)
        own = getattr(self._processor, name)
        if name == "post_process_semantic_segmentation":
            return self._semantic
        if name in ("post_process_instance_segmentation", "post_process_panoptic_segmentation"):
            return partial(self._merge, own)
        return own

    def _semantic(
        self,
        outputs: Any,
        target_sizes: Any = None,
        size: Mapping[str, int] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        size = size or getattr(self._processor, "size", None)
        labels = list(_decide(outputs, None, target_sizes, self._rankseg_kwargs, size))
        if not return_segmentation_scores:
            return labels
        given = self._processor.post_process_semantic_segmentation(
            outputs, target_sizes=target_sizes, return_segmentation_scores=True
        )
        for one, label in zip(given, labels, strict=True):
            one["segmentation"] = label
        return list(given)

    def _merge(self, own: Callable[..., Any], outputs: Any, *args: Any, **kwargs: Any) -> Any:
        name = "masks_queries_logits"
        if _field(outputs, name) is None:
            name = "pred_masks"
        logits = _field(outputs, name)
        if logits is None or logits.dim() != 4:
            raise ValueError(
                "outputs must hold masks_queries_logits or pred_masks, (batch, queries, height, "
                f"width), got {describe(outputs)}"
            )
        shifted = _shift_to_decision(logits, self._rankseg_kwargs)
        return own(_Replaced(outputs, name, shifted), *args, **kwargs)


class _Replaced:
    """Outputs with another tensor in one of their fields."""

    def __init__(self, outputs: Any, name: str, value: Tensor) -> None:
        self._outputs = outputs
        setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return _field(self._outputs, name)


def _shift_to_decision(logits: Tensor, rankseg_kwargs: Mapping[str, Any]) -> Tensor:
    """Shift the logits of every query so that they exceed 0 where its decided mask is.

    To halfway between the least logit inside and the largest outside; a threshold of 1/2 needs no
    shift. Where nothing is inside, all are below 0; where nothing is outside, all above.
    """
    decide = decision({**rankseg_kwargs, "output_mode": "multilabel"}, "sigmoid")
    if decide.metric == "acc":
        return logits
    inside = decide(logits)
    lowest = logits.masked_fill(~inside, torch.inf).flatten(2).amin(2)
    highest = logits.masked_fill(inside, -torch.inf).flatten(2).amax(2)
    cut = (lowest + highest) / 2
    cut = torch.where(lowest.isinf(), highest + 1, torch.where(highest.isinf(), lowest - 1, cut))
    return logits - cut[..., None, None]


def _decide(
    outputs: Any,
    model: Any,
    target_sizes: Any,
    rankseg_kwargs: Mapping[str, Any] | None,
    size: Mapping[str, int] | None = None,
) -> Iterator[Tensor]:
    """Decide image by image."""
    kind, scores = _semantic_scores(outputs, model, target_sizes, size)
    decide = decision(rankseg_kwargs, kind)
    for one in scores:
        yield decide_scores(decide, one, kind)[0]


def _semantic_scores(
    outputs: Any, model: Any, target_sizes: Any, size: Mapping[str, int] | None = None
) -> tuple[str, Iterator[Tensor]]:
    """Return the kind of the scores, and for every image its scores ``(1, classes, *size)``."""
    if isinstance(outputs, (tuple, list)):
        raise TypeError("outputs must not be a tuple: call the model with return_dict=True")
    family = _family(outputs, model)
    for name, reason in REFUSED.items():
        if family.startswith(name):
            raise ValueError(f"outputs of {family} have no semantic probabilities: {reason}")
    kind, maps = _maps(outputs, family)
    if family.startswith("eomt"):
        return kind, _eomt_scores(outputs, model, maps, target_sizes, size)
    if kind == "query_sums":
        maps = (part for part in _query_sums(outputs, maps, family))
        sizes = image_sizes(target_sizes, len(_queries(outputs)[0]))
    else:
        sizes = image_sizes(target_sizes, len(maps))
        maps = (part.unsqueeze(0) for part in maps)
    if sizes is None:
        return kind, iter(maps)
    return kind, (resize(part, one) for part, one in zip(maps, sizes, strict=True))


def _family(outputs: Any, model: Any) -> str:
    """Return the model's family in small letters, without separators."""
    if model is not None:
        name = getattr(getattr(model, "config", None), "model_type", None)
        if not isinstance(name, str):
            raise TypeError(f"model must be a Transformers model, got {describe(model)}")
    else:
        name = type(outputs).__name__
    return name.lower().replace("_", "").replace("-", "")


def _field(outputs: Any, name: str) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    return getattr(outputs, name, None)


def _queries(outputs: Any) -> tuple[Any, Any]:
    """Return the logits of classes ``(batch, queries, ...)`` and masks of the queries."""
    classes, masks = (_field(outputs, f"{part}_queries_logits") for part in ("class", "masks"))
    if classes is None:
        return _field(outputs, "logits"), _field(outputs, "pred_masks")
    return classes, masks


def _maps(outputs: Any, family: str) -> tuple[str, Any]:
    """Return the kind of scores and the tensor that holds them, or the masks of queries."""
    semantic = _field(outputs, "semantic_seg")
    if isinstance(semantic, Tensor) and semantic.dim() == 4:
        return "probabilities", semantic.sigmoid()  # its processor resizes these, not the logits
    classes, masks = _queries(outputs)
    if isinstance(masks, Tensor) and masks.dim() == 4 and isinstance(classes, Tensor):
        if classes.dim() == 3 and classes.shape[:2] == masks.shape[:2]:
            return "query_sums", masks
    elif isinstance(classes, Tensor) and masks is None:
        if classes.dim() == 4:
            return "softmax" if classes.shape[1] > 1 else "sigmoid", classes
        if classes.dim() == 3 and family.startswith("clipseg"):
            return "sigmoid", classes.unsqueeze(1)
    raise ValueError(f"{EXPECTED}; got {_shapes(outputs)}")


def _shapes(outputs: Any) -> str:
    """Describe outputs by their fields."""
    fields = outputs if isinstance(outputs, Mapping) else getattr(outputs, "__dict__", {})
    found = {
        name: tuple(value.shape) for name, value in fields.items() if isinstance(value, Tensor)
    }
    return f"{type(outputs).__name__} with {found or 'no tensors'}"


def _query_sums(outputs: Any, masks: Tensor, family: str) -> Iterator[Tensor]:
    """Yield, image by image, the sum over queries of class probability times mask probability."""
    classes = _queries(outputs)[0]
    weights = classes.softmax(-1)
    if not family.startswith("conditionaldetr"):  # the only family without a class for nothing
        weights = weights[..., :-1]
    for weight, mask in zip(weights, masks, strict=True):
        logits = mask.unsqueeze(0)
        if family.startswith("mask2former"):
            logits = resize(logits, MASK2FORMER_SIZE)
        yield torch.einsum("qc,bqhw->bchw", weight, logits.sigmoid())


def _eomt_scores(
    outputs: Any, model: Any, masks: Tensor, target_sizes: Any, size: Mapping[str, Any] | None
) -> Iterator[Tensor]:
    """Yield the query sums of EoMT's images, put together from the patches they were cut into."""
    if size is None:
        side = getattr(getattr(model, "config", None), "image_size", None)
        if side is None:
            raise ValueError("EoMT needs model=, which tells the size of its input")
        size = {"shortest_edge": side, "longest_edge": None}
    short, long = size["shortest_edge"], size["longest_edge"]
    offsets = _field(outputs, "patch_offsets")
    images = len(masks)
    if offsets is not None and len(offsets):
        offsets = torch.as_tensor([[int(value) for value in one] for one in offsets])
        images = int(offsets[:, 0].max()) + 1
    else:
        offsets = None
    sizes = image_sizes(target_sizes, images)
    if sizes is None:
        raise ValueError("EoMT needs target_sizes, the (height, width) of every image")
    masks = resize(masks, (short, long or short))
    sums = _query_sums(outputs, masks, "eomt")
    if offsets is None:
        return (resize(one, goal) for one, goal in zip(sums, sizes, strict=True))
    return _joined_patches(list(sums), offsets, sizes, short, long)


def _joined_patches(
    patches: list[Tensor], offsets: Tensor, sizes: list[tuple[int, int]], short: int, long: Any
) -> Iterator[Tensor]:
    """Yield images of which patches were cut along the longer side, averaged where they overlap."""
    shapes = require("transformers.image_transforms", "transformers", "EoMT")
    for image, goal in enumerate(sizes):
        shape = shapes.get_size_with_aspect_ratio(goal, short, long)
        total = patches[0].new_zeros(1, patches[0].shape[1], *shape)
        times = total.new_zeros(shape)
        axis = 0 if goal[0] > goal[1] else 1
        for patch, (owner, start, end) in zip(patches, offsets.tolist(), strict=True):
            if owner == image:
                total.narrow(2 + axis, start, end - start).add_(patch)
                times.narrow(axis, start, end - start).add_(1)
        yield resize(total / times.clamp(min=1), goal)
