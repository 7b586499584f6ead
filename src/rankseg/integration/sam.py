"""SAM, SAM-HQ, SAM 2, SAM 3 and their trackers: masks by expected Dice or IoU, not by a threshold.

Every mask of these models is a binary problem of its own: masks of an image may overlap, and the
alternatives for one prompt do. The adapters take the outputs of the models in ``transformers``, as
objects or mappings with the same fields, and need neither ``transformers`` nor ``torchvision``;
:func:`decide_logits` takes the logits of the predictors in ``segment-anything`` and ``sam2``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._common.arguments import number
from rankseg._common.warn import one_of_a_kind
from rankseg._decision.module import RankSEG
from rankseg._decision.problem import Maps
from rankseg.integration._sam import (
    INSTANCE_AXES,
    ScoreMaps,
    check_family,
    check_reshaped,
    checked_fields,
    kept_instances,
    mask_decision,
    pad_sizes,
    prompted_masks,
    resize_exclusively,
    resized,
    sizes_of_maps,
    unpad,
)
from rankseg.integration.common import (
    KnownAttributes,
    check_count,
    check_logits,
    field_of,
    floating,
    image_sizes,
    keeps_dtype,
    resize,
    with_settings,
)

__all__ = ["Sam1", "Sam2", "Sam3", "decide_logits"]

MASK_DTYPES = (torch.bool, torch.int64)
"""What masks of SAM 3 can be: those of this package, and those of the processor."""


class _Adapter(KnownAttributes):
    """What the adapters of the families share: the options, read again at every call."""

    def __init__(self, rankseg_kwargs: Mapping[str, Any] | None) -> None:
        self.rankseg_kwargs = rankseg_kwargs
        self._decision()  # refuses wrong options now

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; options are copied, so that no other adapter shares them."""
        if name == "rankseg_kwargs" and isinstance(value, Mapping):
            value = with_settings(value)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: options of their own, also in shallow copies."""
        own = self.rankseg_kwargs and dict(self.rankseg_kwargs)
        return self.__dict__ | {"rankseg_kwargs": own}

    def _decision(self) -> RankSEG:
        return mask_decision(self.rankseg_kwargs)


class Sam1(_Adapter):
    """Masks of SAM and SAM-HQ, in place of their processor's ``post_process_masks``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`. ``output_mode`` is ``'multilabel'`` and cannot be
        otherwise; ``from_logits`` is not allowed, as the adapter knows what the maps are.
        ``settings`` names a file that ``rankseg tune`` wrote.
    pad_size : int, (int, int), mapping, tensor, array or sequence of these, optional
        The size that images were padded to: ``pad_size`` of the processor, a mapping with
        ``"height"`` and ``"width"``; or one size for every image. 1024 by 1024 by default.

    Attributes
    ----------
    rankseg_kwargs, pad_size
        The arguments. They can be set, and count at the next call.

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
        super().__init__(rankseg_kwargs)
        self.pad_size = pad_size
        self._settable = ("rankseg_kwargs", "pad_size")

    @one_of_a_kind()
    def restore_mask_probs(
        self, outputs: Any, *, original_sizes: Any, reshaped_input_sizes: Any
    ) -> list[Tensor]:
        """Return the probabilities of the masks, at the sizes of the images.

        They are the sigmoid of what the processor's ``post_process_masks(..., binarize=False)``
        gives for the logits; half precision is widened to float32 first. Gradients are kept.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks``: logits ``(images, objects, masks, height, width)``, or a sequence
            of ``(objects, masks, height, width)``; tensors or NumPy arrays. Four axes with several
            sizes are ``(images, masks, height, width)``.
        original_sizes : (int, int), mapping, tensor, array or sequence of these
            Height and width of every image: ``(height, width)`` or ``{"height": ..., "width":
            ...}`` of one image, or a sequence with one for every image.
        reshaped_input_sizes : (int, int), mapping, tensor, array or sequence of these
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
        images = self._images(outputs, original_sizes, reshaped_input_sizes, keep_dtype=False)
        return [image.probs() for image in images]

    @torch.no_grad()
    @one_of_a_kind()
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
        decide = self._decision()
        images = self._images(
            outputs, original_sizes, reshaped_input_sizes, keep_dtype=keeps_dtype(decide)
        )
        return [image.masks(decide) for image in images]

    def _images(
        self, outputs: Any, original_sizes: Any, reshaped_input_sizes: Any, *, keep_dtype: bool
    ) -> list[ScoreMaps]:
        sizes = image_sizes("original_sizes", original_sizes)
        masks = prompted_masks(outputs, "Sam1", sizes, keep_dtype)
        inner = image_sizes("reshaped_input_sizes", reshaped_input_sizes)
        check_count("reshaped_input_sizes", inner, len(masks))
        padded = pad_sizes(self.pad_size, len(masks))
        check_reshaped(inner, sizes, padded)
        return [
            ScoreMaps(logits, size, partial(unpad, padded=whole, inside=inside, size=size), True)
            for logits, size, inside, whole in zip(masks, sizes, inner, padded, strict=True)
        ]


class Sam2(_Adapter):
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

    Attributes
    ----------
    rankseg_kwargs, apply_non_overlapping_constraints
        The arguments. They can be set, and count at the next call.

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
        super().__init__(rankseg_kwargs)
        self.apply_non_overlapping_constraints = apply_non_overlapping_constraints
        self._settable = ("rankseg_kwargs", "apply_non_overlapping_constraints")
        self._exclusive()

    @one_of_a_kind()
    def restore_mask_probs(self, outputs: Any, *, original_sizes: Any) -> list[Tensor]:
        """Return the probabilities of the masks, at the sizes of the images.

        They are the sigmoid of what the processor's ``post_process_masks(..., binarize=False)``
        gives for the logits; half precision is widened to float32 first. Gradients are kept.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks``: logits ``(images, objects, masks, height, width)``, a sequence of
            ``(objects, masks, height, width)``, or one of these, as the video models give for a
            frame; tensors or NumPy arrays. Four axes with several sizes are ``(images, masks,
            height, width)``.
        original_sizes : (int, int), mapping, tensor, array or sequence of these
            Height and width of every image: ``(height, width)`` or ``{"height": ..., "width":
            ...}`` of one image, or a sequence with one for every image.

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
        images = self._images(outputs, original_sizes, keep_dtype=False)
        return [image.probs() for image in images]

    @torch.no_grad()
    @one_of_a_kind()
    def postprocess(self, outputs: Any, *, original_sizes: Any) -> list[Tensor]:
        """Return the masks, at the sizes of the images.

        Arguments and errors are those of :meth:`restore_mask_probs`, whose probabilities are
        decided on; with ``metric='acc'`` the masks are those of the processor.

        Returns
        -------
        list of torch.Tensor
            For every image ``(objects, masks, height, width)``, boolean.
        """
        decide = self._decision()
        images = self._images(outputs, original_sizes, keep_dtype=keeps_dtype(decide))
        return [image.masks(decide) for image in images]

    def _exclusive(self) -> bool:
        exclusive = self.apply_non_overlapping_constraints
        if not isinstance(exclusive, bool):
            raise TypeError(
                f"apply_non_overlapping_constraints must be True or False, got {exclusive!r}"
            )
        return exclusive

    def _images(self, outputs: Any, original_sizes: Any, *, keep_dtype: bool) -> list[ScoreMaps]:
        exclusive = self._exclusive()
        sizes = image_sizes("original_sizes", original_sizes)
        masks = prompted_masks(outputs, "Sam2", sizes, keep_dtype)
        way = resize_exclusively if exclusive else resize
        return [
            ScoreMaps(logits, size, partial(way, size=size), True, together=exclusive)
            for logits, size in zip(masks, sizes, strict=True)
        ]


class Sam3(_Adapter):
    """Instances and semantic masks of SAM 3, in place of its processor's ``post_process_*``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        As for :class:`Sam1`.
    threshold : float
        In [0, 1]. Instances are kept whose score, the probability of the query times that of
        presence, exceeds it.
    mask_dtype : {torch.bool, torch.int64}
        The dtype of the masks; the processor's is int64.

    Attributes
    ----------
    rankseg_kwargs, threshold, mask_dtype
        The arguments. They can be set, and count at the next call.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If an option is not allowed.

    Notes
    -----
    As in the processor, the probabilities are resized here, and not the logits. Half precision is
    widened to float32 before the sigmoid, except for ``metric='acc'``, which computes in the dtype
    of the logits as the processor does.

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
        self,
        *,
        rankseg_kwargs: Mapping[str, Any] | None = None,
        threshold: float = 0.3,
        mask_dtype: torch.dtype = torch.bool,
    ) -> None:
        super().__init__(rankseg_kwargs)
        self.threshold = threshold
        self.mask_dtype = mask_dtype
        self._settable = ("rankseg_kwargs", "threshold", "mask_dtype")
        self._least_score()
        self._dtype()

    @one_of_a_kind()
    def restore_instance_mask_probs(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Return the instances whose score exceeds the threshold, with mask probabilities.

        Gradients are kept, and half precision is widened to float32 first.

        Parameters
        ----------
        outputs : object or mapping
            With ``pred_masks`` ``(images, queries, height, width)``, ``pred_logits`` ``(images,
            queries)``, ``pred_boxes`` ``(images, queries, 4)``, relative corners, and maybe
            ``presence_logits`` ``(images, 1)``; tensors or NumPy arrays.
        target_sizes : (int, int), mapping, tensor, array or sequence of these, optional
            Height and width of every image, as in :meth:`Sam2.restore_mask_probs`. Without them
            masks and boxes stay as they are.
        original_sizes : as ``target_sizes``, optional
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
            If the outputs are those of another family, a field is missing or of another shape or
            device, a value is not finite, or there is not a size for every image.
        """
        images = self._instances(outputs, target_sizes, original_sizes, keep_dtype=False)
        return [{**found, "mask_probs": masks.probs()} for found, masks in images]

    @torch.no_grad()
    @one_of_a_kind()
    def postprocess_instance(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Return the instances whose score exceeds the threshold, with their masks.

        Arguments and errors are those of :meth:`restore_instance_mask_probs`, whose probabilities
        are decided on; with ``metric='acc'`` the result is that of the processor.

        Returns
        -------
        list of dict
            For every image ``scores``, ``boxes`` and ``masks`` ``(instances, height, width)`` of
            ``mask_dtype``.
        """
        decide, dtype = self._decision(), self._dtype()
        images = self._instances(
            outputs, target_sizes, original_sizes, keep_dtype=keeps_dtype(decide)
        )
        return [{**found, "masks": masks.masks(decide).to(dtype)} for found, masks in images]

    @one_of_a_kind()
    def restore_semantic_mask_probs(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[Tensor]:
        """Return the probabilities of what was asked for, all instances together.

        Gradients are kept, and half precision is widened to float32 first.

        Parameters
        ----------
        outputs : object or mapping
            With ``semantic_seg``: logits ``(images, 1, height, width)``, tensor or NumPy array.
        target_sizes : (int, int), mapping, tensor, array or sequence of these, optional
            Height and width of every image, as in :meth:`Sam2.restore_mask_probs`. Without them
            maps stay as they are.
        original_sizes : as ``target_sizes``, optional
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
        images = self._semantic(outputs, target_sizes, original_sizes, keep_dtype=False)
        return [image.probs() for image in images]

    @torch.no_grad()
    @one_of_a_kind()
    def postprocess_semantic(
        self, outputs: Any, *, target_sizes: Any = None, original_sizes: Any = None
    ) -> list[Tensor]:
        """Return the semantic mask of every image.

        Arguments and errors are those of :meth:`restore_semantic_mask_probs`, whose probabilities
        are decided on; with ``metric='acc'`` the masks are those of the processor.

        Returns
        -------
        list of torch.Tensor
            For every image ``(height, width)`` of ``mask_dtype``.
        """
        decide, dtype = self._decision(), self._dtype()
        images = self._semantic(
            outputs, target_sizes, original_sizes, keep_dtype=keeps_dtype(decide)
        )
        return [image.masks(decide)[0].to(dtype) for image in images]

    def _least_score(self) -> float:
        return number("threshold", self.threshold, 0.0, 1.0)

    def _dtype(self) -> torch.dtype:
        if self.mask_dtype not in MASK_DTYPES:
            raise ValueError(f"mask_dtype must be in {MASK_DTYPES}, got {self.mask_dtype!r}")
        return self.mask_dtype

    def _instances(
        self, outputs: Any, target_sizes: Any, original_sizes: Any, *, keep_dtype: bool
    ) -> Iterator[tuple[dict[str, Tensor], ScoreMaps]]:
        """Return the kept scores, boxes and masks of every image, once everything is checked."""
        check_family(outputs, "Sam3")
        axes = dict(INSTANCE_AXES)
        if field_of(outputs, "presence_logits") is None:
            del axes["presence_logits"]
        fields = checked_fields(outputs, axes, keep_dtype)
        scores = fields["pred_logits"].sigmoid()
        if "presence_logits" in fields:
            scores = scores * fields["presence_logits"].sigmoid()
        kept = scores > self._least_score()
        sizes = sizes_of_maps(target_sizes, original_sizes, len(scores))
        masks = fields["pred_masks"].sigmoid()  # of all queries at once, as that decides rounding
        parts = zip(masks, scores, fields["pred_boxes"], kept, sizes, strict=True)
        return (kept_instances(*part) for part in parts)

    def _semantic(
        self, outputs: Any, target_sizes: Any, original_sizes: Any, *, keep_dtype: bool
    ) -> list[ScoreMaps]:
        check_family(outputs, "Sam3")
        axes = {"semantic_seg": ("images", 1, "height", "width")}
        maps = checked_fields(outputs, axes, keep_dtype)["semantic_seg"].sigmoid()
        sizes = sizes_of_maps(target_sizes, original_sizes, len(maps))
        return [resized(probs, size) for probs, size in zip(maps, sizes, strict=True)]


@torch.no_grad()
@one_of_a_kind()
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
    decide = mask_decision(rankseg_kwargs)
    maps = floating("logits", logits).detach()
    if maps.dim() < 2 or 0 in maps.shape[-2:]:
        raise ValueError(
            "logits must have the axes (..., height, width), the last two not empty, got shape "
            f"{tuple(maps.shape)}"
        )
    size = (maps.shape[-2], maps.shape[-1])
    stacked = maps.reshape(-1, *size)
    check_logits("logits", stacked.unsqueeze(1), "sigmoid")
    masks = ScoreMaps(stacked, size, lambda part: part, True).masks(decide)
    masks = masks.view(maps.shape)
    return masks.numpy() if isinstance(logits, np.ndarray) else masks
