"""Hugging Face Transformers: RankSEG in place of the argmax of ``post_process_*``.

:func:`postprocess` takes what a model gave and returns labels, as the model's processor would.
:class:`RankSEGProcessor` is a processor that does so, for ``pipeline("image-segmentation")``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rankseg._common.arguments import describe
from rankseg._common.warn import one_of_a_kind
from rankseg._decision.module import RankSEG
from rankseg.integration._sam import FAMILIES as SAM_ADAPTERS
from rankseg.integration.common import (
    Size,
    check_channels_first,
    check_count,
    check_has_fields,
    check_logits,
    check_one_device,
    family_of_class,
    field_of,
    floating,
    image_sizes,
    keeps_dtype,
    require,
    resize,
    tell_of_swapped,
    to_probabilities,
    widened,
    with_settings,
)

__all__ = ["RankSEGProcessor", "postprocess", "restore_semantic_probs"]

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
    "sam3_lite_text": ("semantic_seg",),
}
"""What outputs hold, by family; all other families have ``logits`` of classes per pixel."""

STRUCTURES = {
    QUERIES: "maskformer",
    DETR: "detr",
    ("semantic_seg",): "sam3",
    ("pred_masks",): "sam",
}
"""The family whose rules outputs follow that do not say whose they are."""

EOMT = ("eomt", "eomt_dinov3")

MASK2FORMER_SIZE = (384, 384)
"""To which its processor resizes masks before anything else."""

REFUSED = {
    "seggpt": "it paints an image, and its scores are distances between colours, not probabilities",
    "clipseg": "it has one map per prompt and no classes: decide with "
    "RankSEG(output_mode='multilabel', from_logits='sigmoid')(outputs.logits[:, None])",
    "rf_detr": "it has instances only, with classes that do not exclude each other",
} | dict.fromkeys(
    SAM_ADAPTERS.keys() - FIELDS.keys(),
    "its masks have no classes: decide them with rankseg.integration.sam (Sam1, Sam2 or Sam3)",
)
"""Families without probabilities of classes per pixel, and why."""

KNOWN = {*FIELDS, *REFUSED}

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

    def decide(self, decide: RankSEG) -> Tensor:
        plain = keeps_dtype(decide) and decide.output_mode == "multiclass"
        if plain and len(self.values) > 1:  # the order alone counts, and
            return self.values.argmax(0)  # probabilities that are nearly the same round to a tie
        scores = self.values[None]
        if decide.from_logits is None:  # of logits the probabilities are never all in memory
            scores = to_probabilities(scores, self.kind)
        decision: Tensor = decide(scores)[0]
        return decision


@dataclass(frozen=True)
class _Outputs:
    """The checked fields of what a model gave, of one dtype, in the order of ``FIELDS``."""

    family: str | None
    fields: tuple[Tensor, ...]
    offsets: Sequence[Any] | None = None

    @property
    def classes(self) -> int:
        """How many classes there are, other than "no object"."""
        if len(self.fields) == 1:
            return self.fields[0].shape[1]
        return self.fields[0].shape[2] - (self.family != "conditional_detr")

    @property
    def kind(self) -> str:
        """What makes probabilities of the scores, one of ``KINDS`` in ``_common``."""
        if len(self.fields) == 2:
            return "query_sums"
        if self.family is not None:
            return "probabilities"
        return "softmax" if self.classes > 1 else "sigmoid"

    def decision(self, options: Mapping[str, Any], of_one_class: str) -> RankSEG:
        """Make the decision of the options, with the output of one class if they name none."""
        mode = of_one_class if self.classes == 1 else "multiclass"
        link = self.kind if self.kind in ("softmax", "sigmoid") else None
        return RankSEG(**{"output_mode": mode, **options}, from_logits=link)

    def widened(self, keep_dtype: bool) -> tuple[Tensor, ...]:
        """Return the fields, of half precision only if the dtype is to be kept."""
        if keep_dtype and self.family != "videomt":  # whose processor computes in float32
            return self.fields
        return tuple(widened(field) for field in self.fields)


@one_of_a_kind()
def restore_semantic_probs(
    outputs: Any, *, model: Any = None, target_sizes: Any = None
) -> list[Tensor]:
    """Make the probabilities of classes of what a segmentation model gave.

    Parameters
    ----------
    outputs : transformers.utils.ModelOutput
        What the model gave, or a mapping or object with the same fields; not a tuple.
    model : transformers.PreTrainedModel, optional
        The model, bare or wrapped by ``DataParallel``. Its configuration says which family it is,
        by ``model_type`` or by its class, and for EoMT how large its input was. Without it the
        class of ``outputs`` does, or else the fields they have.
    target_sizes : sequence of (int, int), mapping, tensor or array, optional
        Height and width of every image: ``(height, width)`` or ``{"height": ..., "width": ...}``
        of one image, or a sequence, tensor or array with one for every image. Scores are resized
        to them before they become probabilities, as the model's processor does. EoMT needs them.

    Returns
    -------
    list of torch.Tensor
        For every image, float32 or float64 ``(classes, height, width)``; one channel is binary.
        Softmax of logits per pixel; sigmoid of the logits of SAM3 and of one class; and for models
        of queries the sums over queries divided by their sum over classes, since such sums are no
        logits. The sums of one class are clamped to [0, 1] instead. Half precision is widened to
        float32 before anything else, and gradients are kept.

    Raises
    ------
    TypeError
        If ``outputs`` is a tuple, an argument is of the wrong type, or a field is not floating.
    ValueError
        If the family has no probabilities of classes per pixel (SegGPT, CLIPSeg, RF-DETR, and SAM,
        which has adapters of its own), a field is missing, empty, not finite or on another device,
        or the sizes do not fit.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.transformers import restore_semantic_probs
    >>> outputs = {"logits": torch.zeros(1, 4, 2, 2)}
    >>> (probs,) = restore_semantic_probs(outputs, target_sizes=[(6, 8)])
    >>> probs.shape, probs.unique()
    (torch.Size([4, 6, 8]), tensor([0.2500]))
    """
    read = _read(outputs, _family_of(outputs, model))
    found = _scores(read, target_sizes, _input_size(model), keep_dtype=False)
    return [scores.probabilities() for scores in found]


@torch.no_grad()
@one_of_a_kind()
def postprocess(
    outputs: Any,
    *,
    model: Any = None,
    target_sizes: Any = None,
    rankseg_kwargs: Mapping[str, Any] | None = None,
) -> list[Tensor]:
    """Decide labels from what a segmentation model gave.

    It goes where ``processor.post_process_semantic_segmentation(outputs, target_sizes)`` was, and
    with ``rankseg_kwargs={"metric": "acc"}`` it gives the same for two classes or more.

    Parameters
    ----------
    outputs, model, target_sizes
        As for :func:`restore_semantic_probs`.
    rankseg_kwargs : mapping, optional
        Keyword arguments of :class:`rankseg.RankSEG`, other than ``from_logits``, which follows
        from the family. ``output_mode`` is ``"multilabel"`` by default for one class, and
        ``"multiclass"`` for more. ``settings`` names a file that ``rankseg tune`` wrote.

    Returns
    -------
    list of torch.Tensor
        For every image the labels of the model, int64 ``(height, width)``; with
        ``output_mode="multilabel"`` the masks of the classes, bool ``(classes, height, width)``.

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
    read = _read(outputs, _family_of(outputs, model))
    decide = read.decision(options, of_one_class="multilabel")
    found = _scores(read, target_sizes, _input_size(model), keep_dtype=keeps_dtype(decide))
    return [scores.decide(decide) for scores in found]


class RankSEGProcessor:
    """A processor whose ``post_process_*_segmentation`` decide with RankSEG.

    Everything else is done by the processor it was made of.

    Parameters
    ----------
    processor : image processor or processor of Transformers
        The one of the model.
    rankseg_kwargs : mapping, optional
        As for :func:`postprocess`.

    Raises
    ------
    TypeError, ValueError
        If ``rankseg_kwargs`` are not allowed; from a method, if the family is refused.

    Notes
    -----
    Semantic: as :func:`postprocess`, but of one class labels 0 and 1. Instance and panoptic (DETR,
    Conditional DETR, MaskFormer, Mask2Former, OneFormer, EoMT): RankSEG decides the mask of every
    query, at the size at which the processor thresholds it; where it differs from the threshold
    1/2, the probability is moved just across 1/2. The processor then scores, selects and merges as
    it always does, so that ``mask_threshold`` has to be 0.5.

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
        RankSEG(**self._options)  # refuses wrong options now
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what the processor has under a name, there."""
        if name.startswith("_"):
            return super().__setattr__(name, value)
        if not hasattr(self._processor, name):
            raise AttributeError(f"the processor has no {name!r}; make a new RankSEGProcessor")
        return setattr(self._processor, name, value)

    def __repr__(self) -> str:
        return f"RankSEGProcessor({self._processor!r}, {self._options!r})"

    @property
    def _family(self) -> str | None:
        processor = getattr(self._processor, "image_processor", self._processor)
        return family_of_class(processor, KNOWN)

    def _size(self, size: Mapping[str, int] | None) -> Size | None:
        """Return the size of the input of EoMT, from that which its processor was given."""
        if self._family not in EOMT:
            return None
        edges = size or self._processor.size
        return edges["shortest_edge"], edges["longest_edge"] or edges["shortest_edge"]

    @torch.no_grad()
    @one_of_a_kind()
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
        read = _read(outputs, self._family or _structure(outputs))
        decide = read.decision(self._options, of_one_class="multiclass")
        found = _scores(read, target_sizes, self._size(size), keep_dtype=keeps_dtype(decide))
        labels = [scores.decide(decide) for scores in found]
        if not return_segmentation_scores:
            return labels
        extra = {} if size is None else {"size": size}
        segmentations: list[Any] = inner(
            outputs, target_sizes=target_sizes, return_segmentation_scores=True, **extra
        )
        for image, decided in zip(segmentations, labels, strict=True):
            image["segmentation"] = decided
        return segmentations

    @torch.no_grad()
    @one_of_a_kind()
    def _merge(self, inner: Callable[..., Any], outputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Let the processor merge masks of queries that RankSEG decided."""
        family = self._family
        if family is None or len(FIELDS.get(family, ())) != 2 or family == "videomt":
            raise ValueError(
                f"RankSEG decides the masks of queries of {_mergeable()}, got "
                f"{describe(self._processor)}: call {inner.__name__} of the processor itself"
            )
        given = inspect.signature(inner).bind(outputs, *args, **kwargs).arguments
        if given.get("mask_threshold", 0.5) != 0.5:
            raise ValueError(
                "mask_threshold must be 0.5, since RankSEG decides the masks, "
                f"got {given['mask_threshold']!r}"
            )
        options = {key: self._options[key] for key in self._options if key not in LABELS_ONLY}
        decide = RankSEG(**options, output_mode="multilabel", from_logits="sigmoid")
        keep_dtype = keeps_dtype(decide)
        classes, masks = _read(outputs, family).widened(keep_dtype)
        if not keep_dtype:
            size = self._size(given.get("size"))
            masks = _at_input_size(masks, family, size)
            valid = None if size is None else _unpadded(masks, given["target_sizes"], size)
            masks = _move_across(masks, decide(masks, valid))
        fields = zip(FIELDS[family], (classes, masks), strict=True)
        return inner(SimpleNamespace(**dict(fields)), *args, **kwargs)


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
    for inside, target in zip(valid, _target_sizes(target_sizes, len(masks)), strict=True):
        height, width = transforms.get_size_with_aspect_ratio(target, *size)
        inside[:height, :width] = True
    return valid


def _options(rankseg_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of the decision, if they are a mapping that leaves from_logits out."""
    if rankseg_kwargs is not None and not isinstance(rankseg_kwargs, Mapping):
        raise TypeError(f"rankseg_kwargs must be a mapping, got {describe(rankseg_kwargs)}")
    options = with_settings(rankseg_kwargs or {})
    if "from_logits" in options:
        raise TypeError(
            "rankseg_kwargs must not hold from_logits, which follows from the family of the model, "
            f"got {options['from_logits']!r}"
        )
    return options


def _family_of(outputs: Any, model: Any) -> str | None:
    """Return the family that says how to read outputs, None for logits per pixel."""
    check_has_fields(outputs)
    return _model_family(model) or family_of_class(outputs, KNOWN) or _structure(outputs)


def _model_family(model: Any) -> str | None:
    """Return the family that a model names by its configuration or its class."""
    model = _unwrapped(model)
    config = field_of(model, "config")
    declared = field_of(config, "model_type")
    if isinstance(declared, str) and declared.lower().replace("-", "_") in KNOWN:
        return declared.lower().replace("-", "_")
    return family_of_class(config, KNOWN) or family_of_class(model, KNOWN)


def _unwrapped(model: Any) -> Any:
    """Return a model itself, also if ``DataParallel`` or the like wraps it."""
    if model is not None and not (isinstance(model, nn.Module) or hasattr(model, "config")):
        raise TypeError(f"model must be a model of Transformers, got {describe(model)}")
    while field_of(model, "config") is None and isinstance(model, nn.Module):
        if not isinstance(getattr(model, "module", None), nn.Module):
            break
        model = model.module
    return model


def _structure(outputs: Any) -> str | None:
    """Return the family whose fields outputs have, None for logits per pixel."""
    for names, family in STRUCTURES.items():
        if all(field_of(outputs, name) is not None for name in names):
            patches = isinstance(outputs, Mapping) and "patch_offsets" in outputs
            patches = patches or hasattr(outputs, "patch_offsets")  # EoMT's, None if not cut
            return "eomt" if patches and names == QUERIES else family
    return None


def _input_size(model: Any) -> Size | None:
    size = field_of(field_of(_unwrapped(model), "config"), "image_size")
    if isinstance(size, Sequence):
        return size[0], size[1]
    return (size, size) if isinstance(size, int) else None


def _read(outputs: Any, family: str | None) -> _Outputs:
    """Return the fields of a family: finite, of their ranks, on one device, of one dtype."""
    if family in REFUSED:
        raise ValueError(f"{family} has no probabilities of classes per pixel: {REFUSED[family]}")
    fields = {"logits": _logits(outputs)} if family is None else _fields(outputs, family)
    check_one_device(fields)
    for name, field in fields.items():
        if 0 in field.shape[1:]:
            raise ValueError(
                f"{name} may have an empty batch, but no other empty axis, got shape "
                f"{tuple(field.shape)}"
            )
        if field.dim() == 3:  # the classes of queries, on the last axis
            check_logits(name, field.movedim(-1, 1), "softmax")
        else:
            is_exclusive = name == "logits" and field.shape[1] > 1
            check_logits(name, field, "softmax" if is_exclusive else "sigmoid")
    dtype = functools.reduce(torch.promote_types, (field.dtype for field in fields.values()))
    offsets = field_of(outputs, "patch_offsets") if family in EOMT else None
    read = _Outputs(family, tuple(field.to(dtype) for field in fields.values()), offsets)
    least = 2 if family == "conditional_detr" else 1  # the softmax of one class is 1
    if read.classes < least:
        raise ValueError(
            f"outputs of {family} must have {least} or more classes other than 'no object', got "
            f"{read.classes}"
        )
    return read


def _fields(outputs: Any, family: str) -> dict[str, Tensor]:
    """Return the fields of a family, all there and floating tensors of their ranks."""
    names = FIELDS[family]
    found: dict[str, Tensor] = {}
    for name in names:
        axes = 3 if name in ("class_queries_logits", "logits") else 4
        values = field_of(outputs, name)
        if values is None or getattr(values, "ndim", axes) != axes:
            raise ValueError(
                f"outputs of {family} must have {' and '.join(names)}, and {name} {axes} axes, "
                f"got {_shape(values)}"
            )
        found[name] = floating(name, values)
    if len({values.shape[:2] for values in found.values()}) > 1:
        shapes = " and ".join(str(tuple(values.shape)) for values in found.values())
        raise ValueError(
            f"{' and '.join(found)} must have as many images and queries, got {shapes}"
        )
    return found


def _shape(values: Any) -> str:
    return f"shape {tuple(values.shape)}" if hasattr(values, "shape") else describe(values)


def _scores(
    read: _Outputs, target_sizes: Any, input_size: Size | None, *, keep_dtype: bool
) -> list[_Scores]:
    """Return the scores of every image at its target size."""
    family, offsets = read.family, read.offsets
    if target_sizes is not None and not offsets:
        sizes = image_sizes("target_sizes", target_sizes)
        tell_of_swapped("target_sizes", read.fields[-1].shape[-2:], sizes)
    if len(read.fields) == 1:
        (maps,) = read.widened(keep_dtype)
        maps = maps.sigmoid() if read.kind == "probabilities" else maps
        return _resized(maps, read.kind, target_sizes)
    if family in EOMT and target_sizes is None:
        raise ValueError("target_sizes must be given for EoMT, whose input is cut or padded")
    if offsets:
        side = int(offsets[0][2]) - int(offsets[0][1])
        input_size = input_size or (side, side)
    classes, masks = read.widened(keep_dtype)
    masks = _at_input_size(masks, family, input_size)
    # Autocast would round the sums to half precision again, as it does for the processor.
    with (
        contextlib.nullcontext() if keep_dtype else torch.autocast(masks.device.type, enabled=False)
    ):
        sums = _sums(classes, masks, read.classes)
    if offsets:
        sizes = _target_sizes(target_sizes, 1 + max(int(image) for image, _, _ in offsets))
        stitched = _stitched(sums, offsets, sizes)
        pairs = zip(stitched, sizes, strict=True)
        return [_Scores(resize(whole[None], size)[0], "query_sums") for whole, size in pairs]
    return _resized(sums, "query_sums", target_sizes)


def _logits(outputs: Any) -> Tensor:
    """Return logits of classes per pixel, ``(batch, classes, height, width)``."""
    logits = field_of(outputs, "segmentation_logits")  # of TIPSv2
    logits = field_of(outputs, "logits") if logits is None else logits
    if logits is None or getattr(logits, "ndim", 4) != 4:
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
    return floating("logits", logits)


def _at_input_size(masks: Tensor, family: str | None, input_size: Size | None) -> Tensor:
    """Resize logits of masks to the size that the processor of a family has them at first."""
    if family == "mask2former":
        return resize(masks, MASK2FORMER_SIZE)
    if family in EOMT:
        if input_size is None:
            raise ValueError("model must be given for EoMT, to know how large its input was")
        return resize(masks, input_size)
    return masks


def _sums(logits: Tensor, masks: Tensor, classes: int) -> Tensor:
    """Return the sums over queries of class probability times mask probability."""
    probs = logits.softmax(-1)[..., :classes]  # the last may be "no object"
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
    sizes = _target_sizes(target_sizes, len(scores))
    if kind != "query_sums" and sizes:
        check_channels_first("logits", scores, sizes)
    pairs = zip(scores, sizes, strict=True)
    return [_Scores(resize(image[None], size)[0], kind) for image, size in pairs]


def _target_sizes(target_sizes: Any, images: int) -> list[Size]:
    sizes = image_sizes("target_sizes", target_sizes)
    check_count("target_sizes", sizes, images)
    return sizes
