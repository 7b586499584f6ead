"""SAM, SAM-HQ, SAM 2, SAM 3 and their trackers: masks by expected Dice or IoU, not by a threshold.

Every mask of these models is a binary problem of its own: masks of an image may overlap, and the
alternatives for one prompt do. The adapters take the outputs of the models in ``transformers``, as
objects or mappings with the same fields, and need neither ``transformers`` nor ``torchvision``;
:func:`decide_logits` takes the logits of the predictors in ``segment-anything`` and ``sam2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._api import RankSEG
from rankseg._arguments import describe, integer, number
from rankseg._problem import Maps, as_tensor
from rankseg.integration._common import resize, to_probabilities

__all__ = ["Sam1", "Sam2", "Sam3", "decide_logits"]

Size = tuple[int, int]
"""Height and width, in pixels."""

PAD_SIZE = 1024
"""What SAM's processor pads images to, unless it was made otherwise."""

SUPPRESSED = -10.0
"""No larger than this are the logits of an object where another one has the pixel, as in SAM 2."""

SCORES_AT_ONCE = 1 << 22
"""How many scores of full size are in memory while masks are decided, but for a single mask's."""

FAMILIES = {
    "Sam": "Sam1",
    "SamHQ": "Sam1",
    "Sam2": "Sam2",
    "Sam2Video": "Sam2",
    "EdgeTam": "Sam2",
    "EdgeTamVideo": "Sam2",
    "Sam3Tracker": "Sam2",
    "Sam3TrackerVideo": "Sam2",
    "Sam3": "Sam3",
    "Sam3LiteText": "Sam3",
    "Sam3Video": "decide_logits",
}
"""Which door the outputs of a model belong to, by the name of their class up to its ending."""


class Sam1:
    """Masks of SAM and SAM-HQ, in place of their processor's ``post_process_masks``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`. ``output_mode`` is ``'multilabel'`` and cannot be
        otherwise; ``from_logits`` is not allowed, as the adapter knows what the maps are.
    pad_size : int, (int, int), mapping or sequence of pairs, optional
        The size that images were padded to: ``pad_size`` of the processor, a mapping with
        ``"height"`` and ``"width"``; or a pair for every image. 1024 by 1024 by default.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If an option is not allowed.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.sam import Sam1
    >>> outputs = {"pred_masks": torch.randn(1, 2, 3, 16, 16)}  # two prompts, three masks for each
    >>> sizes = {"original_sizes": [(30, 40)], "reshaped_input_sizes": [(48, 64)]}
    >>> (masks,) = Sam1(pad_size=64).postprocess(outputs, **sizes)
    >>> masks.shape, masks.dtype
    (torch.Size([2, 3, 30, 40]), torch.bool)
    """

    def __init__(
        self, *, rankseg_kwargs: Mapping[str, Any] | None = None, pad_size: Any = None
    ) -> None:
        self._decide = _decision(rankseg_kwargs)
        self._pad_size = PAD_SIZE if pad_size is None else pad_size

    def restore_mask_probs(
        self, outputs: Any, *, original_sizes: Any, reshaped_input_sizes: Any
    ) -> list[Tensor]:
        """Return the probabilities of the masks, at the sizes of the images.

        They are the sigmoid of what the processor's ``post_process_masks(..., binarize=False)``
        gives, taken in float32 where that is of half precision.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks``: logits ``(images, objects, masks, height, width)``, or a sequence
            of ``(objects, masks, height, width)``; tensors or NumPy arrays.
        original_sizes : sequence or tensor
            Height and width of every image.
        reshaped_input_sizes : sequence or tensor
            Height and width of every image as the model saw it, without padding.

        Returns
        -------
        list of torch.Tensor
            For every image ``(objects, masks, height, width)``, float32 or float64.

        Raises
        ------
        TypeError
            If a field is no floating tensor or array, or a size no integer.
        ValueError
            If the outputs are those of another family, a field is missing or of another shape,
            a logit is not finite, or sizes do not fit.
        """
        images = self._images(outputs, original_sizes, reshaped_input_sizes)
        return [image.probs() for image in images]

    def postprocess(
        self, outputs: Any, *, original_sizes: Any, reshaped_input_sizes: Any
    ) -> list[Tensor]:
        """Return the masks, at the sizes of the images.

        Arguments and errors are those of :meth:`restore_mask_probs`, whose probabilities are
        decided on; with ``metric='acc'`` the masks are those of the processor.

        Returns
        -------
        list of torch.Tensor
            For every image ``(objects, masks, height, width)``, boolean.
        """
        images = self._images(outputs, original_sizes, reshaped_input_sizes)
        return [image.masks(self._decide) for image in images]

    def _images(self, outputs: Any, original_sizes: Any, reshaped_input_sizes: Any) -> list[_Maps]:
        masks = _prompted_masks(outputs, "Sam1")
        sizes = _sizes("original_sizes", original_sizes, len(masks))
        inner = _sizes("reshaped_input_sizes", reshaped_input_sizes, len(masks))
        padded = _pad_sizes(self._pad_size, len(masks))
        for inside, whole in zip(inner, padded, strict=True):
            if inside[0] > whole[0] or inside[1] > whole[1]:
                raise ValueError(f"reshaped_input_sizes must fit in pad_size {whole}, got {inside}")
        return [
            _Maps(logits, size, partial(_unpad, padded=whole, inside=inside, size=size), True)
            for logits, size, inside, whole in zip(masks, sizes, inner, padded, strict=True)
        ]


class Sam2:
    """Masks of SAM 2, EdgeTAM and the trackers of SAM 3, images and frames of videos.

    In place of their processors' ``post_process_masks``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        As for :class:`Sam1`.
    apply_non_overlapping_constraints : bool
        Whether a pixel goes to the object with the largest logit there, and the logits of the
        others are made -10 at most before anything is decided, as the processor does. Masks of
        different objects then do not overlap, unless ``pruning_prob=0`` keeps an object that is
        likely nowhere.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If an option is not allowed.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.sam import Sam2
    >>> outputs = {"pred_masks": torch.randn(1, 2, 3, 16, 16)}  # two prompts, three masks for each
    >>> (masks,) = Sam2(rankseg_kwargs={"metric": "iou"}).postprocess(
    ...     outputs, original_sizes=[(30, 40)]
    ... )
    >>> masks.shape, masks.dtype
    (torch.Size([2, 3, 30, 40]), torch.bool)
    """

    def __init__(
        self,
        *,
        rankseg_kwargs: Mapping[str, Any] | None = None,
        apply_non_overlapping_constraints: bool = False,
    ) -> None:
        self._decide = _decision(rankseg_kwargs)
        if not isinstance(apply_non_overlapping_constraints, bool):
            raise TypeError(
                "apply_non_overlapping_constraints must be True or False, got "
                f"{apply_non_overlapping_constraints!r}"
            )
        self._exclusive = apply_non_overlapping_constraints

    def restore_mask_probs(self, outputs: Any, *, original_sizes: Any) -> list[Tensor]:
        """Return the probabilities of the masks, at the sizes of the images.

        They are the sigmoid of what the processor's ``post_process_masks(..., binarize=False)``
        gives, taken in float32 where that is of half precision.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks``: logits ``(images, objects, masks, height, width)``, a sequence of
            ``(objects, masks, height, width)``, or one of these, as the video models give for a
            frame; tensors or NumPy arrays.
        original_sizes : sequence or tensor
            Height and width of every image.

        Returns
        -------
        list of torch.Tensor
            For every image ``(objects, masks, height, width)``, float32 or float64.

        Raises
        ------
        TypeError
            If a field is no floating tensor or array, or a size no integer.
        ValueError
            If the outputs are those of another family, a field is missing or of another shape,
            a logit is not finite, or there is not a size for every image.
        """
        return [image.probs() for image in self._images(outputs, original_sizes)]

    def postprocess(self, outputs: Any, *, original_sizes: Any) -> list[Tensor]:
        """Return the masks, at the sizes of the images.

        Arguments and errors are those of :meth:`restore_mask_probs`, whose probabilities are
        decided on; with ``metric='acc'`` the masks are those of the processor.

        Returns
        -------
        list of torch.Tensor
            For every image ``(objects, masks, height, width)``, boolean.
        """
        return [image.masks(self._decide) for image in self._images(outputs, original_sizes)]

    def _images(self, outputs: Any, original_sizes: Any) -> list[_Maps]:
        masks = _prompted_masks(outputs, "Sam2")
        sizes = _sizes("original_sizes", original_sizes, len(masks))
        way = _resize_exclusively if self._exclusive else resize
        return [
            _Maps(logits, size, partial(way, size=size), True, together=self._exclusive)
            for logits, size in zip(masks, sizes, strict=True)
        ]


class Sam3:
    """Instances and semantic masks of SAM 3, in place of its processor's ``post_process_*``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        As for :class:`Sam1`.
    threshold : float
        In [0, 1]. Instances are kept whose score, the probability of the query times that of
        presence, exceeds it.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If an option is not allowed.

    Notes
    -----
    As in the processor, the probabilities are resized here, and not the logits. The processor takes
    the sigmoid in the dtype of the logits; here half precision is widened first, so that masks can
    differ from the processor's where a probability rounds to 1/2.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.sam import Sam3
    >>> outputs = {
    ...     "pred_masks": torch.randn(1, 5, 16, 16),
    ...     "pred_logits": torch.tensor([[3.0, -3.0, 2.0, -3.0, -3.0]]),
    ...     "pred_boxes": torch.rand(1, 5, 4),
    ... }
    >>> (found,) = Sam3().postprocess_instance(outputs, target_sizes=[(30, 40)])
    >>> found["scores"], found["boxes"].shape, found["masks"].shape
    (tensor([0.9526, 0.8808]), torch.Size([2, 4]), torch.Size([2, 30, 40]))
    """

    def __init__(
        self, *, rankseg_kwargs: Mapping[str, Any] | None = None, threshold: float = 0.3
    ) -> None:
        self._decide = _decision(rankseg_kwargs)
        self._threshold = number("threshold", threshold, 0.0, 1.0)

    def restore_instance_mask_probs(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Return the instances whose score exceeds the threshold, with mask probabilities.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks`` ``(images, queries, height, width)``, ``pred_logits`` ``(images,
            queries)``, ``pred_boxes`` ``(images, queries, 4)``, relative corners, and maybe
            ``presence_logits`` ``(images, 1)``; tensors or NumPy arrays.
        target_sizes : sequence or tensor, optional
            Height and width of every image. Without them masks and boxes stay as they are.
        original_sizes : sequence or tensor, optional
            Another name of ``target_sizes``, which goes first if both are given.

        Returns
        -------
        list of dict
            For every image ``scores`` ``(instances,)``, ``boxes`` ``(instances, 4)`` and
            ``mask_probs`` ``(instances, height, width)``, float32 or float64. Where there is no
            instance, the masks have the size that the model gave, as those of the processor.

        Raises
        ------
        TypeError
            If a field is no floating tensor or array, or a size no integer.
        ValueError
            If the outputs are those of another family, a field is missing or of another shape,
            a mask logit is not finite, or there is not a size for every image.
        """
        sizes = original_sizes if target_sizes is None else target_sizes
        return [
            {**found, "mask_probs": masks.probs()}
            for found, masks in self._instances(outputs, sizes)
        ]

    def postprocess_instance(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Return the instances whose score exceeds the threshold, with their masks.

        Arguments and errors are those of :meth:`restore_instance_mask_probs`, whose probabilities
        are decided on; with ``metric='acc'`` the result is that of the processor.

        Returns
        -------
        list of dict
            For every image ``scores``, ``boxes`` and ``masks`` ``(instances, height, width)``,
            int64, 0 and 1.
        """
        sizes = original_sizes if target_sizes is None else target_sizes
        return [
            {**found, "masks": masks.masks(self._decide).long()}
            for found, masks in self._instances(outputs, sizes)
        ]

    def restore_semantic_mask_probs(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[Tensor]:
        """Return the probabilities of what was asked for, all instances together.

        Parameters
        ----------
        outputs : object or mapping
            With ``semantic_seg``: logits ``(images, 1, height, width)``, tensor or NumPy array.
        target_sizes : sequence or tensor, optional
            Height and width of every image. Without them maps stay as they are.
        original_sizes : sequence or tensor, optional
            Another name of ``target_sizes``, which goes first if both are given.

        Returns
        -------
        list of torch.Tensor
            For every image ``(1, height, width)``, float32 or float64.

        Raises
        ------
        TypeError
            If a field is no floating tensor or array, or a size no integer.
        ValueError
            If the outputs are those of another family, the field is missing or of another shape,
            a logit is not finite, or there is not a size for every image.
        """
        sizes = original_sizes if target_sizes is None else target_sizes
        return [image.probs() for image in self._semantic(outputs, sizes)]

    def postprocess_semantic(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[Tensor]:
        """Return the semantic mask of every image.

        Arguments and errors are those of :meth:`restore_semantic_mask_probs`, whose probabilities
        are decided on; with ``metric='acc'`` the masks are those of the processor.

        Returns
        -------
        list of torch.Tensor
            For every image ``(height, width)``, int64, 0 and 1.
        """
        sizes = original_sizes if target_sizes is None else target_sizes
        return [image.masks(self._decide)[0].long() for image in self._semantic(outputs, sizes)]

    def _instances(
        self, outputs: Any, target_sizes: Any
    ) -> Iterator[tuple[dict[str, Tensor], _Maps]]:
        """Return the kept scores, boxes and masks of every image, once everything is checked."""
        _check_family(outputs, "Sam3")
        masks = _probs_field(outputs, "pred_masks", (None, None, None, None))
        images, queries = masks.shape[:2]
        scores = _field(outputs, "pred_logits", (images, queries)).sigmoid()
        boxes = _field(outputs, "pred_boxes", (images, queries, 4))
        if _get(outputs, "presence_logits") is not None:
            scores = scores * _field(outputs, "presence_logits", (images, 1)).sigmoid()
        sizes = _optional_sizes(target_sizes, images)
        return (self._kept(*parts) for parts in zip(masks, scores, boxes, sizes, strict=True))

    def _kept(
        self, masks: Tensor, scores: Tensor, boxes: Tensor, size: Size | None
    ) -> tuple[dict[str, Tensor], _Maps]:
        keep = scores > self._threshold
        if size is not None:
            height, width = size
            boxes = boxes * torch.tensor([width, height, width, height], device=boxes.device)
        found = {"scores": scores[keep], "boxes": boxes[keep]}
        return found, _resized(masks[keep], size if keep.any() else None)

    def _semantic(self, outputs: Any, target_sizes: Any) -> list[_Maps]:
        _check_family(outputs, "Sam3")
        maps = _probs_field(outputs, "semantic_seg", (None, 1, None, None))
        sizes = _optional_sizes(target_sizes, len(maps))
        return [_resized(probs, size) for probs, size in zip(maps, sizes, strict=True)]


def decide_logits(logits: Maps, rankseg_kwargs: Mapping[str, Any] | None = None) -> Maps:
    """Decide masks from their logits at full size, each for itself.

    For what the predictors of ``segment-anything`` and ``sam2`` give with ``return_logits=True``,
    in place of the threshold 0.

    Parameters
    ----------
    logits : torch.Tensor or numpy.ndarray
        ``(..., height, width)``, floating.
    rankseg_kwargs : mapping, optional
        As for :class:`Sam1`.

    Returns
    -------
    torch.Tensor or numpy.ndarray
        Of the shape and kind that came in, boolean.

    Raises
    ------
    TypeError
        If the logits are no floating tensor or array, or an option is of the wrong type.
    ValueError
        If an option is not allowed, or the logits are not finite or of fewer than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.integration.sam import decide_logits
    >>> logits = np.array([[[3.0, -0.3, -0.4, -3.0]]])
    >>> decide_logits(logits, {"metric": "acc"}).astype(int)
    array([[[1, 0, 0, 0]]])
    >>> decide_logits(logits).astype(int)
    array([[[1, 1, 1, 0]]])
    """
    decide = _decision(rankseg_kwargs)
    maps = _logits("logits", logits)
    if maps.dim() < 2 or 0 in maps.shape[-2:]:
        raise ValueError(
            "logits must have the axes (..., height, width), the last two not empty, got shape "
            f"{tuple(maps.shape)}"
        )
    size = (maps.shape[-2], maps.shape[-1])
    masks = _Maps(maps.reshape(-1, *size), size, lambda part: part, True).masks(decide)
    masks = masks.view(maps.shape)
    return masks.numpy() if isinstance(logits, np.ndarray) else masks


@dataclass(frozen=True)
class _Maps:
    """Maps of one image, ``(..., h, w)``, and the way to those at the image's size.

    ``restored`` makes them of some of the maps, logits if ``logits`` says so, else probabilities;
    of all of them only if ``together``.
    """

    scores: Tensor
    size: Size
    restored: Callable[[Tensor], Tensor]
    logits: bool
    together: bool = False

    def probs(self) -> Tensor:
        """Return the probabilities ``(..., height, width)``."""
        scores = self.restored(self.scores)
        return to_probabilities(scores, "sigmoid") if self.logits else scores

    def masks(self, decide: RankSEG) -> Tensor:
        """Decide the masks ``(..., height, width)``, few at a time."""
        count, *shape = self.scores.shape[:-2] + self.size
        masks = torch.empty(count, *shape, dtype=torch.bool, device=self.scores.device)
        step = max(1, count if self.together else SCORES_AT_ONCE // max(1, math.prod(shape)))
        for start in range(0, count, step):
            some = slice(start, start + step)
            masks[some] = self._decided(decide, self.scores[some])
        return masks

    def _decided(self, decide: RankSEG, scores: Tensor) -> Tensor:
        scores = self.restored(scores)
        if self.logits and decide.metric == "acc" and decide.calibration is None:
            return scores > 0  # the sigmoid of a small positive logit would round to 1/2
        probs = to_probabilities(scores, "sigmoid") if self.logits else scores
        masks: Tensor = decide(probs.reshape(-1, 1, *self.size))
        return masks.view(probs.shape)


def _resized(probs: Tensor, size: Size | None) -> _Maps:
    """Return probabilities ``(masks, h, w)`` that are resized as such."""
    size = size or (probs.shape[-2], probs.shape[-1])
    return _Maps(probs, size, lambda some: resize(some[None], size)[0], False)


def _unpad(logits: Tensor, padded: Size, inside: Size, size: Size) -> Tensor:
    """Resize logits to those of the padded image, cut the padding off, resize to the image."""
    return resize(resize(logits, padded)[..., : inside[0], : inside[1]], size)


def _resize_exclusively(logits: Tensor, size: Size) -> Tensor:
    """Resize the logits of the objects, and suppress all but the largest in every pixel."""
    logits = resize(logits, size)
    if len(logits) < 2:
        return logits
    objects = torch.arange(len(logits), device=logits.device).view(-1, 1, 1, 1)
    first = logits.argmax(0, keepdim=True) == objects
    return logits.where(first, logits.clamp(max=SUPPRESSED))


def _decision(rankseg_kwargs: Mapping[str, Any] | None) -> RankSEG:
    """Make the decision of the options, if it is one of masks from probabilities."""
    if not isinstance(rankseg_kwargs, Mapping | None):
        raise TypeError(
            f"rankseg_kwargs must be a mapping of options, got {describe(rankseg_kwargs)}"
        )
    options = {"output_mode": "multilabel", **(rankseg_kwargs or {})}
    decide = RankSEG(**options)
    if decide.output_mode != "multilabel":
        raise ValueError(
            "rankseg_kwargs must leave output_mode='multilabel', since masks may overlap, got "
            f"{options['output_mode']!r}"
        )
    if decide.from_logits is not None:
        raise ValueError(
            "rankseg_kwargs must not name from_logits, since the maps are known to be logits, got "
            f"{options['from_logits']!r}"
        )
    return decide


def _check_family(outputs: Any, family: str) -> None:
    """Refuse the outputs of a model that another adapter restores otherwise."""
    name = type(outputs).__name__
    model = name.removesuffix("SegmentationOutput").removesuffix("Image")
    if model != name and FAMILIES.get(model, family) != family:
        raise ValueError(
            f"outputs must be those of a model for {family}; {name} is for {FAMILIES[model]}"
        )


def _get(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def _field(outputs: Any, name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Return a floating field of a shape, where None is any length."""
    field = _floating(name, _present(outputs, name))
    fits = field.dim() == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, field.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must be of shape ({wanted}), got {tuple(field.shape)}")
    return field


def _probs_field(outputs: Any, name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Return the probabilities of a field of logits: of all at once, as that decides rounding."""
    return to_probabilities(_logits(name, _field(outputs, name, shape)), "sigmoid")


def _present(outputs: Any, name: str) -> Any:
    value = _get(outputs, name)
    if value is None:
        raise ValueError(f"outputs must have {name}, which {describe(outputs)} lacks")
    return value


def _floating(name: str, value: object) -> Tensor:
    tensor = as_tensor(name, value)
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating, got {tensor.dtype}")
    return tensor


def _logits(name: str, value: object) -> Tensor:
    tensor = _floating(name, value)
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        broken = int((~tensor.isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {broken} values that are NaN or infinite")
    return tensor


def _prompted_masks(outputs: Any, family: str) -> list[Tensor]:
    """Return the logits ``(objects, masks, h, w)`` of every image."""
    _check_family(outputs, family)
    masks = _present(outputs, "pred_masks")
    if isinstance(masks, Tensor | np.ndarray):
        masks = [masks] if masks.ndim == 4 else list(masks)
    if not isinstance(masks, Sequence):
        raise TypeError(
            f"pred_masks must be a tensor, an array or a sequence of them, got {describe(masks)}"
        )
    masks = [_logits("pred_masks", one) for one in masks]
    for one in masks:
        if one.dim() != 4 or 0 in one.shape[2:]:
            raise ValueError(
                "pred_masks must be of shape (images, objects, masks, height, width), or hold "
                f"(objects, masks, height, width) for every image, got {tuple(one.shape)} for one"
            )
    return masks


def _optional_sizes(sizes: Any, count: int) -> list[Size | None]:
    if sizes is None:
        return [None] * count
    return [*_sizes("target_sizes", sizes, count)]


def _sizes(name: str, sizes: Any, count: int) -> list[Size]:
    """Return height and width of every image."""
    if isinstance(sizes, Tensor | np.ndarray):
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name} must be a sequence of (height, width), got {describe(sizes)}")
    pairs = [_size(name, size) for size in sizes]
    if len(pairs) != count:
        raise ValueError(f"{name} must be of {count} images, got {len(pairs)} sizes")
    return pairs


def _size(name: str, size: Any) -> Size:
    if isinstance(size, Tensor | np.ndarray):
        size = size.tolist()
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ValueError(f"{name} must hold (height, width), got {size!r} for one")
    height, width = (integer(name, length) for length in size)
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be positive, got {(height, width)}")
    return height, width


def _pad_sizes(pad_size: Any, count: int) -> list[Size]:
    """Return the size every image was padded to, given one for all or one for each."""
    if _get(pad_size, "height") is not None:  # a processor's
        pad_size = (pad_size["height"], pad_size["width"])
    elif isinstance(pad_size, int):
        pad_size = (pad_size, pad_size)
    one = isinstance(pad_size, tuple | list) and all(isinstance(side, int) for side in pad_size)
    return _sizes("pad_size", [pad_size] * count if one else pad_size, count)
