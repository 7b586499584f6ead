"""What the SAM adapters are made of: checked fields of outputs, and maps on the way to masks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg._common.arguments import describe
from rankseg._common.warn import warn
from rankseg._decision.module import RankSEG
from rankseg.integration.common import (
    Size,
    check_count,
    check_finite,
    check_has_fields,
    check_logits,
    check_one_device,
    family_of_class,
    field_of,
    floating,
    image_sizes,
    is_one_size,
    keeps_dtype,
    resize,
    to_probabilities,
    widened,
    with_settings,
)

PAD_SIZE = 1024
"""What SAM's processor pads images to, unless it was made otherwise."""

SUPPRESSED = -10.0
"""No larger than this are the logits of an object where another one has the pixel, as in SAM 2."""

SCORES_AT_ONCE = 1 << 22
"""How many scores of full size are in memory while masks are decided, but for a single mask's."""

FAMILIES = {
    "sam": "Sam1",
    "sam_hq": "Sam1",
    "sam2": "Sam2",
    "sam2_video": "Sam2",
    "edgetam": "Sam2",
    "edgetam_video": "Sam2",
    "sam3_tracker": "Sam2",
    "sam3_tracker_video": "Sam2",
    "sam3": "Sam3",
    "sam3_lite_text": "Sam3",
    "sam3_video": "decide_logits",
}
"""Which adapter takes the outputs of a family."""

INSTANCE_AXES: dict[str, tuple[str | int, ...]] = {
    "pred_masks": ("images", "queries", "height", "width"),
    "pred_logits": ("images", "queries"),
    "pred_boxes": ("images", "queries", 4),
    "presence_logits": ("images", 1),
}
"""The axes of the fields of SAM 3; those of one name are of one length."""


@dataclass(frozen=True)
class ScoreMaps:
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
        if self.logits and keeps_dtype(decide):
            return scores > 0  # the sigmoid of a small positive logit would round to 1/2
        probs = to_probabilities(scores, "sigmoid") if self.logits else scores
        masks: Tensor = decide(probs.reshape(-1, 1, *self.size))
        return masks.view(probs.shape)


def resized(probs: Tensor, size: Size | None) -> ScoreMaps:
    """Return probabilities ``(masks, h, w)`` that are resized as such."""
    size = size or (probs.shape[-2], probs.shape[-1])
    return ScoreMaps(probs, size, lambda some: resize(some[None], size)[0], False)


def unpad(logits: Tensor, padded: Size, inside: Size, size: Size) -> Tensor:
    """Resize logits to those of the padded image, cut the padding off, resize to the image."""
    return resize(resize(logits, padded)[..., : inside[0], : inside[1]], size)


def resize_exclusively(logits: Tensor, size: Size) -> Tensor:
    """Resize the logits of the objects, and suppress all but the largest in every pixel."""
    logits = resize(logits, size)
    if len(logits) < 2:
        return logits
    objects = torch.arange(len(logits), device=logits.device).view(-1, 1, 1, 1)
    first = logits.argmax(0, keepdim=True) == objects
    return logits.where(first, logits.clamp(max=SUPPRESSED))


def mask_decision(rankseg_kwargs: Mapping[str, Any] | None) -> RankSEG:
    """Make the decision of the options, if it is one of masks from probabilities."""
    if not isinstance(rankseg_kwargs, Mapping | None):
        raise TypeError(
            f"rankseg_kwargs must be a mapping of options, got {describe(rankseg_kwargs)}"
        )
    options = {"output_mode": "multilabel", **with_settings(rankseg_kwargs or {})}
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


def check_family(outputs: Any, adapter: str) -> None:
    """Refuse outputs without names, or of a model that another adapter restores otherwise."""
    check_has_fields(outputs)
    family = family_of_class(outputs, FAMILIES)
    wanted = FAMILIES.get(family or "", adapter)
    if wanted != adapter:
        name = type(outputs).__name__
        raise ValueError(f"outputs must be those of a model for {adapter}; {name} is for {wanted}")


def _present(outputs: Any, name: str) -> Any:
    value = field_of(outputs, name)
    if value is None:
        raise ValueError(f"outputs must have {name}, which {describe(outputs)} lacks")
    return value


def checked_fields(
    outputs: Any, axes: Mapping[str, tuple[str | int, ...]], keep_dtype: bool
) -> dict[str, Tensor]:
    """Return finite floating fields on one device, whose axes have the same length by name."""
    lengths: dict[str | int, int] = {}
    fields = {}
    for name, wanted in axes.items():
        field = floating(name, _present(outputs, name))
        shape = [lengths.get(axis, axis) for axis in wanted]
        fits = field.dim() == len(shape) and all(
            axis == length or isinstance(axis, str)
            for axis, length in zip(shape, field.shape, strict=True)
        )
        if not fits:
            text = ", ".join(map(str, shape))
            raise ValueError(f"{name} must be of shape ({text}), got {tuple(field.shape)}")
        lengths.update(zip(wanted, field.shape, strict=True))
        if 0 in (lengths.get("height"), lengths.get("width")):
            raise ValueError(f"{name} must not be empty, got shape {tuple(field.shape)}")
        fields[name] = field
    check_one_device(fields)
    for name, field in fields.items():
        if field.dim() == 4 or name == "pred_logits":
            check_logits(name, field.unsqueeze(1) if field.dim() == 2 else field, "sigmoid")
        else:
            check_finite(name, field)
    return fields if keep_dtype else {name: widened(field) for name, field in fields.items()}


def prompted_masks(
    outputs: Any, adapter: str, sizes: Sequence[Size], keep_dtype: bool
) -> list[Tensor]:
    """Return the logits ``(objects, masks, h, w)`` of every image, as many as there are sizes."""
    check_family(outputs, adapter)
    masks = _present(outputs, "pred_masks")
    if isinstance(masks, Tensor | np.ndarray):
        if masks.ndim == 4:  # one frame of a video, or images with one object each
            masks = masks[None] if len(sizes) == 1 else masks[:, None]
        masks = list(masks) if masks.ndim == 5 else [masks]
    if not isinstance(masks, Sequence) or isinstance(masks, str):
        raise TypeError(
            f"pred_masks must be a tensor, an array or a sequence of them, got {describe(masks)}"
        )
    masks = [floating("pred_masks", one) for one in masks]
    for one in masks:
        if one.dim() != 4 or 0 in one.shape[1:]:
            raise ValueError(
                "pred_masks must be of shape (images, objects, masks, height, width), or hold "
                "(objects, masks, height, width) for every image, the last three not empty, got "
                f"{tuple(one.shape)} for one"
            )
    check_count("original_sizes", sizes, len(masks))
    for one in masks:
        check_logits("pred_masks", one, "sigmoid")
    return masks if keep_dtype else [widened(one) for one in masks]


def sizes_of_maps(target_sizes: Any, original_sizes: Any, count: int) -> list[Size | None]:
    """Return the size to which the maps of every image are resized, None if they are not."""
    name = "original_sizes" if target_sizes is None else "target_sizes"
    given = original_sizes if target_sizes is None else target_sizes
    if given is None:
        return [None] * count
    sizes = image_sizes(name, given)
    check_count(name, sizes, count)
    return [*sizes]


def pad_sizes(pad_size: Any, count: int) -> list[Size]:
    """Return the size every image was padded to, given one for all or one for each."""
    if pad_size is None:
        pad_size = PAD_SIZE
    if isinstance(pad_size, numbers.Integral):
        pad_size = (pad_size, pad_size)
    sizes = image_sizes("pad_size", pad_size)
    if is_one_size(pad_size):
        return sizes * count
    check_count("pad_size", sizes, count)
    return sizes


def check_reshaped(inner: Sequence[Size], sizes: Sequence[Size], padded: Sequence[Size]) -> None:
    """Check the sizes that SAM's processor gave images: the longer side is that of the padding.

    Raises
    ------
    ValueError
        If a size exceeds the padded one, or is not of the aspect ratio of its image.
    """
    for inside, size, whole in zip(inner, sizes, padded, strict=True):
        if inside[0] > whole[0] or inside[1] > whole[1]:
            raise ValueError(f"reshaped_input_sizes must fit in pad_size {whole}, got {inside}")
        # One factor scales both sides; each size may be off by a pixel of rounding.
        least = max((new - 1) / (old + 1) for new, old in zip(inside, size, strict=True))
        most = min((new + 1) / max(old - 1, 1) for new, old in zip(inside, size, strict=True))
        if least > most:
            raise ValueError(
                "reshaped_input_sizes must be (height, width) of the image at another scale, got "
                f"{inside} for original_sizes of {size}: the aspect ratios differ; are height and "
                "width swapped in one of them?"
            )
        if inside == size and inside[0] < whole[0] and inside[1] < whole[1]:
            warn(
                f"reshaped_input_sizes are original_sizes, {size}, and neither side is that of "
                f"pad_size {whole}, to which SAM's processor scales the longer side; pass "
                'inputs["reshaped_input_sizes"] of the processor, unless it scales nothing'
            )


def kept_instances(
    masks: Tensor, scores: Tensor, boxes: Tensor, kept: Tensor, size: Size | None
) -> tuple[dict[str, Tensor], ScoreMaps]:
    if size is not None:
        height, width = size
        boxes = boxes * torch.tensor([width, height, width, height], device=boxes.device)
    found = {"scores": scores[kept], "boxes": boxes[kept]}
    return found, resized(masks[kept], size if kept.any() else None)
