"""Hugging Face Transformers: RankSEG in place of the argmax of ``post_process_*``.

:func:`postprocess` takes what a model gave and returns labels, as the model's processor would.
:class:`RankSEGProcessor` is a processor that does so, for ``pipeline("image-segmentation")``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rankseg._api import RankSEG
from rankseg._arguments import describe, integer
from rankseg.integration._common import require, resize, to_probabilities

__all__ = ["RankSEGProcessor", "postprocess", "restore_semantic_probs"]

Size = tuple[int, int]

QUERIES = ("class_queries_logits", "masks_queries_logits")
DETR = ("logits", "pred_masks")

FIELDS: dict[str, tuple[str, ...]] = {
    "maskformer": QUERIES,
    "mask2former": QUERIES,
    "oneformer": QUERIES,
    "eomt": QUERIES,
    "eomt_dinov3": QUERIES,
    "videomt": QUERIES,
    "detr": DETR,
    "conditional_detr": DETR,
    "sam3": ("semantic_seg",),
}
"""What outputs hold, by family; all other families have ``logits`` of classes per pixel."""

STRUCTURES = {QUERIES: "maskformer", DETR: "detr", ("semantic_seg",): "sam3"}
"""The family whose rules outputs follow that do not say whose they are."""

EOMT = ("eomt", "eomt_dinov3")

MASK2FORMER_SIZE = (384, 384)
"""To which its processor resizes masks before anything else."""

REFUSED = {
    "seggpt": "it paints an image, and its scores are distances between colours, not probabilities",
    "clipseg": "it has one map per prompt and no classes: decide with "
    "RankSEG(output_mode='multilabel', from_logits='sigmoid')(outputs.logits[:, None])",
    "rf_detr": "it has instances only, with classes that do not exclude each other",
}
"""Families without probabilities of classes per pixel, and why."""

MERGING = ("post_process_instance_segmentation", "post_process_panoptic_segmentation")

LABELS_ONLY = ("output_mode", "unassigned_policy", "void_index")
"""Options that masks of queries do not have."""


@dataclass(frozen=True)
class _Scores:
    """The scores of one image, ``(classes, height, width)``, and what makes probabilities of them.

    ``kind`` is one of ``KINDS`` in ``_common``.
    """

    values: Tensor
    kind: str

    def probabilities(self) -> Tensor:
        return to_probabilities(self.values[None], self.kind)[0]

    def decide(self, options: Mapping[str, Any]) -> Tensor:
        decide = RankSEG(**options)
        plain = decide.solver == "argmax" and decide.calibration is None
        if plain and len(self.values) > 1:  # the order alone counts, and
            return self.values.argmax(0)  # probabilities that are nearly the same round to a tie
        scores = self.values[None]
        if self.kind in ("softmax", "sigmoid"):  # the probabilities are never all in memory
            decide.from_logits = self.kind
        else:
            scores = to_probabilities(scores, self.kind)
        decision: Tensor = decide(scores)[0]
        return decision


def restore_semantic_probs(
    outputs: Any, *, model: Any = None, target_sizes: Any = None
) -> list[Tensor]:
    """Make the probabilities of classes of what a segmentation model gave.

    Parameters
    ----------
    outputs : transformers.utils.ModelOutput
        What the model gave, or a mapping or object with the same fields; not a tuple.
    model : transformers.PreTrainedModel, optional
        The model. Its configuration says which family it is, and for EoMT how large its input was.
        Without it the class of ``outputs`` does, or else the fields they have.
    target_sizes : sequence of (int, int) or tensor ``(batch, 2)``, optional
        Height and width of every image, to which scores are resized before they become
        probabilities, as the model's processor does. EoMT needs them.

    Returns
    -------
    list of torch.Tensor
        For every image, floating ``(classes, height, width)``; one channel is binary. Softmax of
        logits per pixel; sigmoid of the logits of SAM3 and of one class; and for models of queries
        the sums over queries divided by their sum over classes, since such sums are no logits.

    Raises
    ------
    TypeError
        If ``outputs`` is a tuple, or an argument is of the wrong type.
    ValueError
        If the family has no probabilities of classes per pixel (SegGPT, CLIPSeg, RF-DETR), a field
        is missing, or the sizes do not fit.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.transformers import restore_semantic_probs
    >>> outputs = {"logits": torch.zeros(1, 4, 2, 2)}
    >>> (probs,) = restore_semantic_probs(outputs, target_sizes=[(6, 8)])
    >>> probs.shape, probs.unique()
    (torch.Size([4, 6, 8]), tensor([0.2500]))
    """
    found = _scores(outputs, _family_of(outputs, model), target_sizes, _input_size(model))
    return [scores.probabilities() for scores in found]


@torch.no_grad()
def postprocess(
    outputs: Any,
    *,
    model: Any = None,
    target_sizes: Any = None,
    rankseg_kwargs: Mapping[str, Any] | None = None,
) -> list[Tensor]:
    """Decide labels from what a segmentation model gave.

    It goes where ``processor.post_process_semantic_segmentation(outputs, target_sizes)`` was, and
    with ``rankseg_kwargs={"metric": "acc"}`` it gives the same.

    Parameters
    ----------
    outputs, model, target_sizes
        As for :func:`restore_semantic_probs`.
    rankseg_kwargs : mapping, optional
        Keyword arguments of :class:`rankseg.RankSEG`, other than ``from_logits``, which follows
        from the family.

    Returns
    -------
    list of torch.Tensor
        For every image int64 ``(height, width)``, the labels of the model; with
        ``output_mode="multilabel"`` bool ``(classes, height, width)``.

    Raises
    ------
    TypeError, ValueError
        As :func:`restore_semantic_probs` and :class:`rankseg.RankSEG`.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.transformers import postprocess
    >>> logits = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]]])
    >>> postprocess({"logits": logits}, rankseg_kwargs={"metric": "iou"})
    [tensor([[0, 1]])]
    """
    options = _options(rankseg_kwargs)
    found = _scores(outputs, _family_of(outputs, model), target_sizes, _input_size(model))
    return [scores.decide(options) for scores in found]


class RankSEGProcessor:
    """A processor whose ``post_process_*_segmentation`` decide with RankSEG.

    Everything else is done by the processor it was made of.

    Parameters
    ----------
    processor : image processor or processor of Transformers
        The one of the model.
    rankseg_kwargs : mapping, optional
        Keyword arguments of :class:`rankseg.RankSEG`, other than ``from_logits``.

    Raises
    ------
    TypeError, ValueError
        If ``rankseg_kwargs`` are not allowed; from a method, if the family is refused.

    Notes
    -----
    Semantic: as :func:`postprocess`. Instance and panoptic (DETR, Conditional DETR, MaskFormer,
    Mask2Former, OneFormer, EoMT): RankSEG decides the mask of every query, at the size at which the
    processor thresholds it; where it differs from the threshold 1/2, the probability is moved just
    across 1/2. The processor then scores, selects and merges as it always does, so that
    ``mask_threshold`` has to be 0.5.

    Examples
    --------
    >>> from transformers import pipeline  # doctest: +SKIP
    >>> from rankseg.integration.transformers import RankSEGProcessor
    >>> pipe = pipeline("image-segmentation", "nvidia/segformer-b0-...")  # doctest: +SKIP
    >>> pipe.image_processor = RankSEGProcessor(
    ...     pipe.image_processor, {"metric": "iou"}
    ... )  # doctest: +SKIP
    """

    def __init__(self, processor: Any, rankseg_kwargs: Mapping[str, Any] | None = None) -> None:
        self._options = _options(rankseg_kwargs)
        self._processor = processor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Prepare images, as the processor does."""
        return self._processor(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return what the processor has under a name; its post-processing decided by RankSEG."""
        if name.startswith("__") or name in ("_processor", "_options"):  # while it is unpickled
            raise AttributeError(name)
        inner = getattr(self._processor, name)
        if name == "post_process_semantic_segmentation":
            return functools.partial(self._semantic, inner)
        if name in MERGING:
            return functools.partial(self._merge, inner)
        return inner

    def __repr__(self) -> str:
        return f"RankSEGProcessor({self._processor!r}, {self._options!r})"

    @property
    def _family(self) -> str | None:
        processor = getattr(self._processor, "image_processor", self._processor)
        return _module_family(processor)

    def _size(self, size: Mapping[str, int] | None) -> Size | None:
        """Return the size of the input of EoMT, from that which its processor was given."""
        if self._family not in EOMT:
            return None
        edges = size or self._processor.size
        return edges["shortest_edge"], edges["longest_edge"] or edges["shortest_edge"]

    @torch.no_grad()
    def _semantic(
        self,
        inner: Callable[..., Any],
        outputs: Any,
        target_sizes: Any = None,
        *,
        size: Mapping[str, int] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Decide labels; with scores, in the processor's own structure."""
        family = self._family
        known = family if family in FIELDS or family in REFUSED else _structure(outputs)
        found = _scores(outputs, known, target_sizes, self._size(size))
        labels = [scores.decide(self._options) for scores in found]
        if not return_segmentation_scores:
            return labels
        extra = {} if size is None else {"size": size}
        told: list[Any] = inner(
            outputs, target_sizes=target_sizes, return_segmentation_scores=True, **extra
        )
        for image, decided in zip(told, labels, strict=True):
            image["segmentation"] = decided
        return told

    @torch.no_grad()
    def _merge(self, inner: Callable[..., Any], outputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Let the processor merge masks of queries that RankSEG decided."""
        family = self._family
        if family not in FIELDS or len(FIELDS[family]) != 2 or family == "videomt":
            raise ValueError(
                f"RankSEG decides the masks of queries of {_mergeable()}, got a processor of "
                f"{family}: call {inner.__name__} of the processor itself"
            )
        given = inspect.signature(inner).bind(outputs, *args, **kwargs).arguments
        if given.get("mask_threshold", 0.5) != 0.5:
            raise ValueError(
                "mask_threshold must be 0.5, since RankSEG decides the masks, "
                f"got {given['mask_threshold']!r}"
            )
        (classes_name, classes), (masks_name, masks) = _fields(outputs, family).items()
        size = self._size(given.get("size"))
        masks = _at_input_size(masks, family, size)
        valid = None if size is None else _unpadded(masks, given["target_sizes"], size)
        options = {key: self._options[key] for key in self._options if key not in LABELS_ONLY}
        decide = RankSEG(**options, output_mode="multilabel", from_logits="sigmoid")
        moved = _move_across(masks, decide(masks, valid))
        return inner(SimpleNamespace(**{classes_name: classes, masks_name: moved}), *args, **kwargs)


def _mergeable() -> str:
    return ", ".join(name for name, fields in FIELDS.items() if len(fields) == 2)


def _move_across(logits: Tensor, masks: Tensor) -> Tensor:
    """Return logits above 0 in the masks and below outside, changed only where they are not."""
    least = 2 * torch.finfo(logits.dtype).eps  # whose sigmoid differs from 1/2
    return torch.where(masks, logits.clamp(min=least), logits.clamp(max=-least))


def _unpadded(masks: Tensor, target_sizes: Any, size: Size) -> Tensor:
    """Return where images are in the padded input of EoMT, bool ``(batch, height, width)``."""
    transforms = require("transformers.image_transforms", "transformers", "undoing EoMT's padding")
    valid = masks.new_zeros(len(masks), *masks.shape[2:], dtype=torch.bool)
    for inside, target in zip(valid, _sizes(target_sizes, len(masks)), strict=True):
        height, width = transforms.get_size_with_aspect_ratio(target, *size)
        inside[:height, :width] = True
    return valid


def _options(rankseg_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of the decision, once RankSEG has taken them."""
    if rankseg_kwargs is not None and not isinstance(rankseg_kwargs, Mapping):
        raise TypeError(f"rankseg_kwargs must be a mapping, got {describe(rankseg_kwargs)}")
    options = dict(rankseg_kwargs or {})
    if "from_logits" in options:
        raise TypeError(
            "rankseg_kwargs must not hold from_logits, which follows from the family of the model, "
            f"got {options['from_logits']!r}"
        )
    RankSEG(**options)
    return options


def _module_family(thing: Any) -> str | None:
    """Return the folder of Transformers that the class of a thing, or a base of it, is from."""
    for kind in type(thing).__mro__:
        if kind.__module__.startswith("transformers.models."):
            return kind.__module__.split(".")[2]
    return None


def _family_of(outputs: Any, model: Any) -> str | None:
    """Return the family that says how to read outputs, None for logits per pixel."""
    if isinstance(outputs, tuple | list | Tensor):
        raise TypeError(
            "outputs must be a model output with named fields, got "
            f"{describe(outputs)}: call the model with return_dict=True"
        )
    if model is not None and not hasattr(model, "config"):
        raise TypeError(f"model must be a model of Transformers, got {describe(model)}")
    sources = (outputs,) if model is None else (model.config, outputs)
    for source in sources:
        family = _module_family(source)
        if family in FIELDS or family in REFUSED:
            return family
    return _structure(outputs)


def _structure(outputs: Any) -> str | None:
    """Return the family whose fields outputs have, None for logits per pixel."""
    for names, family in STRUCTURES.items():
        if all(_field(outputs, name) is not None for name in names):
            return "eomt" if _field(outputs, "patch_offsets") else family
    return None


def _input_size(model: Any) -> Size | None:
    size = getattr(getattr(model, "config", None), "image_size", None)
    return (size, size) if isinstance(size, int) else size and (size[0], size[1])


def _field(outputs: Any, name: str) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    return getattr(outputs, name, None)


def _fields(outputs: Any, family: str) -> dict[str, Tensor]:
    """Return the fields of a family, all there and tensors of their ranks."""
    found = {name: _field(outputs, name) for name in FIELDS[family]}
    for name, values in found.items():
        axes = 3 if name in ("class_queries_logits", "logits") else 4
        if not isinstance(values, Tensor) or values.ndim != axes:
            raise ValueError(
                f"outputs of {family} must have {' and '.join(found)}, and {name} {axes} axes, "
                f"got {_shape(values)}"
            )
    if len({values.shape[:2] for values in found.values()}) > 1:
        shapes = " and ".join(str(tuple(values.shape)) for values in found.values())
        raise ValueError(
            f"{' and '.join(found)} must have as many images and queries, got {shapes}"
        )
    return found


def _shape(values: Any) -> str:
    return f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else describe(values)


def _scores(
    outputs: Any, family: str | None, target_sizes: Any, input_size: Size | None
) -> list[_Scores]:
    """Return the scores of every image at its target size."""
    if family in REFUSED:
        raise ValueError(f"{family} has no probabilities of classes per pixel: {REFUSED[family]}")
    if family is None:
        logits = _logits(outputs)
        kind = "softmax" if logits.shape[1] > 1 else "sigmoid"
        return _resized(logits, kind, target_sizes)
    if family == "sam3":
        (logits,) = _fields(outputs, family).values()
        return _resized(logits.sigmoid(), "probabilities", target_sizes)
    classes, masks = _fields(outputs, family).values()
    offsets = _field(outputs, "patch_offsets") if family in EOMT else None
    if family in EOMT and target_sizes is None:
        raise ValueError("target_sizes must be given for EoMT, whose input is cut or padded")
    if offsets:
        side = int(offsets[0][2]) - int(offsets[0][1])
        input_size = input_size or (side, side)
    sums = _sums(classes, _at_input_size(masks, family, input_size), family)
    if offsets:
        sizes = _sizes(target_sizes, 1 + max(int(image) for image, _, _ in offsets))
        stitched = _stitched(sums, offsets, sizes)
        pairs = zip(stitched, sizes, strict=True)
        return [_Scores(resize(whole[None], size)[0], "query_sums") for whole, size in pairs]
    return _resized(sums, "query_sums", target_sizes)


def _logits(outputs: Any) -> Tensor:
    """Return logits of classes per pixel, ``(batch, classes, height, width)``."""
    logits = _field(outputs, "segmentation_logits")  # of TIPSv2
    logits = _field(outputs, "logits") if logits is None else logits
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        fields = (
            list(outputs)
            if isinstance(outputs, Mapping)
            else list(getattr(outputs, "__dict__", ()))
        )
        raise ValueError(
            "outputs must have logits (batch, classes, height, width), class_queries_logits and "
            "masks_queries_logits, logits and pred_masks, or semantic_seg, got "
            f"{describe(outputs)} with fields {fields} and logits of {_shape(logits)}"
        )
    return logits


def _at_input_size(masks: Tensor, family: str, input_size: Size | None) -> Tensor:
    """Resize logits of masks to the size that the processor of a family has them at first."""
    if family == "mask2former":
        return resize(masks, MASK2FORMER_SIZE)
    if family in EOMT:
        if input_size is None:
            raise ValueError("model must be given for EoMT, to know how large its input was")
        return resize(masks, input_size)
    return masks


def _sums(classes: Tensor, masks: Tensor, family: str) -> Tensor:
    """Return the sums over queries of class probability times mask probability."""
    if family == "videomt":  # whose processor computes in single precision
        classes, masks = classes.float(), masks.float()
    probs = classes.softmax(-1)
    if family != "conditional_detr":  # which alone has no class for "no object"
        probs = probs[..., :-1]
    if probs.shape[-1] < 2:
        raise ValueError(
            f"outputs of {family} must have two classes or more to be labels, got {probs.shape[-1]}"
        )
    return torch.einsum("bqc,bqhw->bchw", probs, masks.sigmoid())


def _stitched(sums: Tensor, offsets: Sequence[Any], sizes: Sequence[Size]) -> list[Tensor]:
    """Average the patches of EoMT, which overlap along the longer side, into one map an image."""
    classes, short = sums.shape[1:3]
    whole = []
    for image, (height, width) in enumerate(sizes):
        mine = [(patch, *map(int, at[1:])) for patch, at in enumerate(offsets) if at[0] == image]
        long = max(end for _, _, end in mine)
        axis = 1 if height > width else 2
        total = sums.new_zeros((classes, long, short) if axis == 1 else (classes, short, long))
        count = total.new_zeros(long)
        for patch, start, end in mine:
            total.narrow(axis, start, end - start).add_(sums[patch])
            count[start:end] += 1
        whole.append(total / count.clamp(min=1).view((-1, 1) if axis == 1 else (-1,)))
    return whole


def _resized(scores: Tensor, kind: str, target_sizes: Any) -> list[_Scores]:
    if target_sizes is None:
        return [_Scores(image, kind) for image in scores]
    sizes = _sizes(target_sizes, len(scores))
    pairs = zip(scores, sizes, strict=True)
    return [_Scores(resize(image[None], size)[0], kind) for image, size in pairs]


def _sizes(target_sizes: Any, images: int) -> list[Size]:
    """Return the target sizes, one pair of positive integers an image."""
    wanted = "target_sizes must be pairs of height and width, one an image"
    if not isinstance(target_sizes, Sequence | Tensor):
        raise TypeError(f"{wanted}, got {describe(target_sizes)}")
    if len(target_sizes) != images:
        raise ValueError(f"target_sizes must be one an image, {images}, got {len(target_sizes)}")
    sizes = []
    for pair in target_sizes:
        if not isinstance(pair, Sequence | Tensor) or len(pair) != 2:
            raise TypeError(f"{wanted}, got {pair!r}")
        edges = pair.tolist() if isinstance(pair, Tensor) else pair
        height, width = (integer("target_sizes", edge) for edge in edges)
        if height < 1 or width < 1:
            raise ValueError(f"target_sizes must be positive, got {(height, width)}")
        sizes.append((height, width))
    return sizes
