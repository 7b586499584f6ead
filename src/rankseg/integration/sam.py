"""Segment Anything: the masks of SAM, SAM-HQ, SAM 2 and SAM 3, decided by RankSEG.

Every mask is a problem of its own, inside or outside, whatever others there are. SAM gives logits;
their threshold 0 is the probability 1/2. The outputs are those of the Transformers models; for the
predictors of ``segment-anything`` and ``sam2`` there is :func:`decide_logits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._api import RankSEG
from rankseg._arguments import describe, integer, number
from rankseg._problem import as_tensor
from rankseg.integration._common import decide_scores, decision, image_sizes, resize

__all__ = ["Sam1", "Sam2", "Sam3", "decide_logits"]

PAD_SIZE = 1024
"""Height and width of the images that SAM was trained with."""

SUPPRESSED = -10.0
"""Most that a logit may be where another object's is higher, if objects must not overlap."""

Sizes = Sequence[Sequence[int]] | Tensor


def decide_logits(logits: Any, rankseg_kwargs: Mapping[str, Any] | None = None) -> Any:
    """Decide masks from their logits, at the size these have.

    For the predictors of the packages ``segment-anything`` and ``sam2``, whose
    ``predict(..., return_logits=True)`` gives logits at the size of the image.

    Parameters
    ----------
    logits : Tensor or ndarray
        ``(*any, height, width)`` floating, a mask each.
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`, but for ``from_logits`` and ``output_mode``.
        ``{"metric": "acc"}`` is ``logits > 0``.

    Returns
    -------
    Tensor or ndarray
        bool, of the shape of ``logits``.

    Raises
    ------
    TypeError
        If ``logits`` is no floating tensor or array.
    ValueError
        If it has fewer than two axes or holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log(np.array([[0.9, 0.45, 0.4, 0.1]]) / np.array([[0.1, 0.55, 0.6, 0.9]]))
    >>> (logits > 0).astype(int), decide_logits(logits).astype(int)
    (array([[1, 0, 0, 0]]), array([[1, 1, 1, 0]]))
    """
    tensor = as_tensor("logits", logits)
    if tensor.dim() < 2:
        raise ValueError(f"logits must be (*any, height, width), got shape {tuple(tensor.shape)}")
    masks = _decide(tensor, _masks_decision(rankseg_kwargs), "sigmoid")
    return masks.numpy() if isinstance(logits, np.ndarray) else masks


class Sam1:
    """Masks of SAM and SAM-HQ, in place of ``processor.post_process_masks``.

    Parameters
    ----------
    rankseg_kwargs : mapping, optional
        Options of :class:`rankseg.RankSEG`, but for ``from_logits`` and ``output_mode``.
        ``{"metric": "acc"}`` gives the masks that the processor gives.
    pad_size : int or (height, width) or mapping of these, optional
        What images were padded to, 1024 by default; the processor's ``pad_size``.

    Raises
    ------
    TypeError, ValueError
        If an option or ``pad_size`` is not allowed.

    Examples
    --------
    >>> import torch
    >>> outputs = {"pred_masks": torch.randn(1, 2, 3, 256, 256)}  # two prompts, three masks each
    >>> sizes = {"original_sizes": [(60, 90)], "reshaped_input_sizes": [(683, 1024)]}
    >>> Sam1().postprocess(outputs, **sizes)[0].shape
    torch.Size([2, 3, 60, 90])
    """

    def __init__(
        self, *, rankseg_kwargs: Mapping[str, Any] | None = None, pad_size: Any = None
    ) -> None:
        self._decide = _masks_decision(rankseg_kwargs)
        self._pad_size = _pad_size(PAD_SIZE if pad_size is None else pad_size)

    def restore_mask_probs(
        self, outputs: Any, *, original_sizes: Sizes, reshaped_input_sizes: Sizes
    ) -> list[Tensor]:
        """Restore the probabilities of every mask at the size of its image.

        Parameters
        ----------
        outputs : ModelOutput
            With ``pred_masks``, ``(batch, prompts, masks, height, width)``, or a list of these by
            image; or the masks themselves.
        original_sizes, reshaped_input_sizes : sequence of (height, width), or tensor
            The sizes of the images, and of what of them was fed to the model, as the processor
            returns them.

        Returns
        -------
        list of Tensor
            For every image floating ``(prompts, masks, height, width)``.

        Raises
        ------
        ValueError
            If masks or sizes do not fit.
        """
        logits = self._logits(outputs, original_sizes, reshaped_input_sizes)
        return [masks.float().sigmoid() for masks in logits]

    def postprocess(
        self, outputs: Any, *, original_sizes: Sizes, reshaped_input_sizes: Sizes
    ) -> list[Tensor]:
        """Decide every mask at the size of its image.

        Takes what :meth:`restore_mask_probs` takes; returns bool in place of probabilities.
        """
        logits = self._logits(outputs, original_sizes, reshaped_input_sizes)
        return [_decide(masks, self._decide, "sigmoid") for masks in logits]

    def _logits(self, outputs: Any, original_sizes: Any, reshaped_input_sizes: Any) -> list[Tensor]:
        masks = _masks_of(outputs)
        goals = _required(original_sizes, len(masks), "original_sizes")
        shown = _required(reshaped_input_sizes, len(masks), "reshaped_input_sizes")
        restored = []
        for one, goal, (height, width) in zip(masks, goals, shown, strict=True):
            padded = resize(one, self._pad_size)
            restored.append(resize(padded[..., :height, :width], goal))
        return restored


class Sam2:
    """Masks of SAM 2, and of the trackers of SAM 2 and SAM 3, likewise.

    Parameters
    ----------
    rankseg_kwargs
        As in :class:`Sam1`.
    apply_non_overlapping_constraints : bool
        Whether a pixel may be in the masks of several objects of an image: where not, only the
        object whose logit is highest keeps it, before anything is decided.

    Raises
    ------
    TypeError, ValueError
        If an option is not allowed.

    Examples
    --------
    >>> import torch
    >>> outputs = {"pred_masks": torch.randn(1, 2, 3, 64, 64)}
    >>> Sam2().postprocess(outputs, original_sizes=[(60, 90)])[0].shape
    torch.Size([2, 3, 60, 90])
    """

    def __init__(
        self,
        *,
        rankseg_kwargs: Mapping[str, Any] | None = None,
        apply_non_overlapping_constraints: bool = False,
    ) -> None:
        self._decide = _masks_decision(rankseg_kwargs)
        self._apart = bool(apply_non_overlapping_constraints)

    def restore_mask_probs(self, outputs: Any, *, original_sizes: Sizes) -> list[Tensor]:
        """Restore the probabilities of every mask; as in :class:`Sam1`, without padding.

        The masks of one frame of a video, ``(objects, 1, height, width)``, are one image.
        """
        return [masks.float().sigmoid() for masks in self._logits(outputs, original_sizes)]

    def postprocess(self, outputs: Any, *, original_sizes: Sizes) -> list[Tensor]:
        """Decide every mask at the size of its image: bool ``(prompts, masks, height, width)``."""
        logits = self._logits(outputs, original_sizes)
        return [_decide(masks, self._decide, "sigmoid") for masks in logits]

    def _logits(self, outputs: Any, original_sizes: Any) -> list[Tensor]:
        masks = _masks_of(outputs)
        goals = _required(original_sizes, len(masks), "original_sizes")
        restored = [resize(one, goal) for one, goal in zip(masks, goals, strict=True)]
        return [_keep_highest(one) for one in restored] if self._apart else restored


class Sam3:
    """Instances and the semantic mask of SAM 3, for what a prompt names.

    Parameters
    ----------
    rankseg_kwargs
        As in :class:`Sam1`.
    threshold : float
        In [0, 1]: instances with a score above it are kept, 0.3 by default.

    Raises
    ------
    TypeError, ValueError
        If an option or the threshold is not allowed.

    Examples
    --------
    >>> import torch
    >>> outputs = {"semantic_seg": torch.randn(1, 1, 36, 36)}
    >>> Sam3().postprocess_semantic(outputs, target_sizes=[(60, 90)])[0].shape
    torch.Size([60, 90])
    """

    def __init__(
        self, *, rankseg_kwargs: Mapping[str, Any] | None = None, threshold: float = 0.3
    ) -> None:
        self._decide = _masks_decision(rankseg_kwargs, "probabilities")
        self._threshold = number("threshold", threshold, 0.0, 1.0)

    def restore_instance_mask_probs(
        self,
        outputs: Any,
        *,
        target_sizes: Sizes | None = None,
        original_sizes: Sizes | None = None,
    ) -> list[dict[str, Tensor]]:
        """Restore scores, boxes and mask probabilities of the instances that are kept.

        Parameters
        ----------
        outputs : Sam3ImageSegmentationOutput
            With ``pred_logits (batch, queries)``, ``pred_boxes``, ``pred_masks`` and perhaps
            ``presence_logits``.
        target_sizes : sequence of (height, width), or tensor, optional
            The size of every image; by default masks stay as they are and boxes relative.
        original_sizes
            Another name of it.

        Returns
        -------
        list of dict
            For every image ``scores (n,)``, ``boxes (n, 4)`` by left, top, right and bottom, and
            ``masks (n, height, width)``.

        Raises
        ------
        ValueError
            If a field is missing, or sizes do not fit or have two names.
        """
        logits, boxes, masks = (
            _tensor(outputs, name, axes)
            for name, axes in (("pred_logits", 2), ("pred_boxes", 3), ("pred_masks", 4))
        )
        scores = logits.sigmoid()
        presence = _field(outputs, "presence_logits")
        if presence is not None:
            scores = scores * presence.sigmoid()
        sizes = _one_name(target_sizes, original_sizes, len(masks))
        found = []
        for image, score in enumerate(scores):
            keep = score > self._threshold
            box, mask = boxes[image][keep], masks[image][keep].sigmoid()
            if sizes is not None:
                height, width = sizes[image]
                box = box * box.new_tensor([width, height, width, height])
                mask = resize(mask.unsqueeze(0), sizes[image])[0] if len(mask) else mask
            found.append({"scores": score[keep], "boxes": box, "masks": mask})
        return found

    def postprocess_instance(
        self,
        outputs: Any,
        *,
        target_sizes: Sizes | None = None,
        original_sizes: Sizes | None = None,
    ) -> list[dict[str, Tensor]]:
        """Decide the mask of every instance, in place of ``post_process_instance_segmentation``.

        Takes what :meth:`restore_instance_mask_probs` takes; ``masks`` are int64, 0 or 1.
        """
        found = self.restore_instance_mask_probs(
            outputs, target_sizes=target_sizes, original_sizes=original_sizes
        )
        for instance in found:
            masks = instance["masks"]
            instance["masks"] = _decide(masks, self._decide, "probabilities").long()
        return found

    def restore_semantic_mask_probs(
        self,
        outputs: Any,
        *,
        target_sizes: Sizes | None = None,
        original_sizes: Sizes | None = None,
    ) -> list[Tensor]:
        """Restore the probabilities of ``semantic_seg``: for every image ``(1, height, width)``.

        Sizes and errors are those of :meth:`restore_instance_mask_probs`.
        """
        probs = _tensor(outputs, "semantic_seg", 4).sigmoid()
        sizes = _one_name(target_sizes, original_sizes, len(probs))
        if sizes is None:
            return list(probs)
        return [resize(one[None], size)[0] for one, size in zip(probs, sizes, strict=True)]

    def postprocess_semantic(
        self,
        outputs: Any,
        *,
        target_sizes: Sizes | None = None,
        original_sizes: Sizes | None = None,
    ) -> list[Tensor]:
        """Decide the semantic mask: for every image int64 ``(height, width)``, 0 or 1.

        Takes what :meth:`restore_semantic_mask_probs` takes.
        """
        probs = self.restore_semantic_mask_probs(
            outputs, target_sizes=target_sizes, original_sizes=original_sizes
        )
        return [_decide(one, self._decide, "probabilities")[0].long() for one in probs]


def _masks_decision(rankseg_kwargs: Mapping[str, Any] | None, kind: str = "sigmoid") -> RankSEG:
    """Make the decision on masks that do not exclude each other."""
    decision(rankseg_kwargs)  # refuses what is no mapping
    mode = (rankseg_kwargs or {}).get("output_mode", "multilabel")
    if mode != "multilabel":
        raise ValueError(f"output_mode must be 'multilabel', as masks may overlap, got {mode!r}")
    return decision({**(rankseg_kwargs or {}), "output_mode": mode}, kind)


def _decide(masks: Tensor, decide: RankSEG, kind: str) -> Tensor:
    """Decide masks ``(*any, height, width)`` as the classes of one image."""
    if masks.numel() == 0:
        return torch.zeros_like(masks, dtype=torch.bool)
    flat = masks.reshape(1, -1, *masks.shape[-2:])
    return decide_scores(decide, flat, kind).view(masks.shape)


def _keep_highest(logits: Tensor) -> Tensor:
    """Leave every pixel to the object, ``(objects, masks, height, width)``, of highest logit."""
    highest = logits.argmax(0, keepdim=True)
    objects = torch.arange(len(logits), device=logits.device).view(-1, 1, 1, 1)
    return torch.where(objects == highest, logits, logits.clamp(max=SUPPRESSED))


def _masks_of(outputs: Any) -> list[Tensor]:
    """Return the logits of masks by image, ``(prompts, masks, height, width)`` each."""
    masks = outputs
    if not isinstance(outputs, (Tensor, list)):
        masks = _field(outputs, "pred_masks")
    if isinstance(masks, Tensor) and masks.dim() == 4:
        masks = masks.unsqueeze(0)
    images = list(masks) if isinstance(masks, (Tensor, list)) else []
    if not images or not all(isinstance(one, Tensor) and one.dim() == 4 for one in images):
        raise ValueError(
            "outputs must hold pred_masks, (batch, prompts, masks, height, width) or a list of "
            f"these by image, got {describe(outputs)}"
        )
    return images


def _field(outputs: Any, name: str) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    return getattr(outputs, name, None)


def _tensor(outputs: Any, name: str, axes: int) -> Tensor:
    value = _field(outputs, name)
    if not isinstance(value, Tensor) or value.dim() != axes:
        raise ValueError(
            f"outputs must be of SAM 3, with a {name} of {axes} axes, got {describe(outputs)}"
        )
    return value


def _required(sizes: Any, images: int, name: str) -> list[tuple[int, int]]:
    found = image_sizes(sizes, images, name)
    if found is None:
        raise ValueError(f"{name} must be given, a (height, width) for every image")
    return found


def _one_name(target: Any, original: Any, images: int) -> list[tuple[int, int]] | None:
    if target is not None and original is not None:
        raise ValueError("target_sizes and original_sizes are two names of one thing; give one")
    return image_sizes(target, images) or image_sizes(original, images, "original_sizes")


def _pad_size(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        value = value.get("height"), value.get("width")
    elif hasattr(value, "height"):  # as processors of Transformers hold it
        value = value.height, value.width
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    height, width = (integer("pad_size", side) for side in sides)
    if height < 1 or width < 1:
        raise ValueError(f"pad_size must be positive, got {value!r}")
    return height, width
