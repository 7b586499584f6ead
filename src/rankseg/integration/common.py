"""What the adapters share: checks of a model's outputs, kinds of scores, and image sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rankseg._common.arguments import choice, describe, integer
from rankseg._common.optional import require
from rankseg._common.warn import warn
from rankseg._decision.module import RankSEG
from rankseg._decision.problem import DTYPES, as_tensor
from rankseg._decision.sampled_sums import check_activation
from rankseg._decision.settings_file import read_settings

__all__ = [
    "KINDS",
    "USUAL",
    "KnownAttributes",
    "Size",
    "check_channels_first",
    "check_count",
    "check_finite",
    "check_has_fields",
    "check_logits",
    "check_one_device",
    "family_of_class",
    "field_of",
    "floating",
    "image_sizes",
    "is_one_size",
    "keeps_dtype",
    "require",
    "resize",
    "tell_of_swapped",
    "to_probabilities",
    "widened",
    "with_settings",
]

Size = tuple[int, int]
"""Height and width, in pixels."""

KINDS = ("softmax", "sigmoid", "probabilities", "query_sums")
"""What scores can be, by what makes probabilities of them; see :func:`to_probabilities`."""

USUAL = {"metric": "dice", "smooth": 0.0, "output_mode": "multiclass", "solver": "auto"}
"""Options by default, which a file of settings holds where nobody chose them."""

SQUARE, FOREIGN = 0.1, 4
"""Aspect ratios differ if their logarithms do by more than the first; maps are of the other shape
if they are so many times nearer to it."""

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How scores are resized, by the number of spatial axes."""


class KnownAttributes:
    """What has options: a public attribute that no decision would depend on is refused.

    Once ``_settable`` is set, at the end of construction, it says which attributes can be set.
    A subclass of a user may have attributes of its own.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that counts at the next call, or one that is private."""
        settable = self.__dict__.get("_settable")
        ours = type(self).__module__.startswith("rankseg.")
        if ours and settable is not None and name not in settable and not name.startswith("_"):
            kind = type(self).__name__
            also = f"; set one of {settable}, or" if settable else ";"
            raise AttributeError(
                f"{name!r} cannot be set once a {kind} is made{also} make a new {kind}"
            )
        super().__setattr__(name, value)


def with_settings(options: Mapping[str, Any], *, keep_link: bool = False) -> dict[str, Any]:
    """Return options of RankSEG, where ``settings`` may name a file of them.

    ``rankseg tune`` or ``RankSEG.save`` wrote the file. Options beside it that are not None replace
    its own. What makes probabilities of the maps follows from the framework: ``from_logits`` of the
    file is left out unless ``keep_link`` is True.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds something else.
    """
    given = dict(options)
    settings = given.pop("settings", None)
    if settings is None:
        return given
    stored = read_settings(settings, RankSEG)
    if not keep_link:
        stored.pop("from_logits", None)
    kept = {name: value for name, value in stored.items() if USUAL.get(name) != value}
    return {**kept, **{name: value for name, value in given.items() if value is not None}}


def floating(name: str, value: object) -> Tensor:
    """Return a tensor or array of real floating numbers as a plain tensor that keeps its gradient.

    Raises
    ------
    TypeError
        If the value is anything else: integers and booleans are no scores.
    """
    tensor = as_tensor(name, value)
    if tensor.dtype not in DTYPES:
        names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
        raise TypeError(f"{name} must be of a floating dtype in {names}, got {tensor.dtype}")
    return value.resolve_neg().as_subclass(Tensor) if isinstance(value, Tensor) else tensor


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity."""
    tensor = tensor.detach()
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        broken = int((~tensor.isfinite()).sum())
        raise ValueError(f"{name} must be finite, got {broken} values that are NaN or infinite")


def check_logits(name: str, logits: Tensor, link: str) -> None:
    """Refuse NaN and infinity, and warn if logits ``(n, channels, *spatial)`` look like probs."""
    check_finite(name, logits)
    check_activation(name, logits, link)


def check_channels_first(name: str, maps: Tensor, sizes: Sequence[Sequence[int]]) -> None:
    """Refuse maps ``(batch, height, width, channels)`` of images of some sizes.

    The last axis is well below the two before it, which are a square or of the shape of the
    images, and the last two axes are not of that shape.
    """
    _, first, second, last = maps.shape
    if 3 * last > 2 * min(first, second):
        return
    if all(
        (first == second or _of_shape(first, second, size)) and not _of_shape(second, last, size)
        for size in sizes
    ):
        raise ValueError(
            f"{name} must be (batch, channels, height, width), got shape {tuple(maps.shape)} for "
            f"images of {tuple(sizes[0])}: the last axis holds the channels; make it the second, "
            "by movedim(-1, 1)"
        )


def _of_shape(height: int, width: int, image: Sequence[int]) -> bool:
    """Say whether maps have the aspect ratio of an image, up to a pixel of rounding."""
    return abs(height / image[0] - width / image[1]) <= 1 / image[0] + 1 / image[1]


def tell_of_swapped(name: str, maps: Sequence[int], sizes: Sequence[Size]) -> None:
    """Warn of sizes whose width and height swapped are of the aspect ratio of maps (height, width).

    Maps of images that were made square tell nothing, and maps of a network with an input of one
    size tell the opposite of the truth where an image was squeezed into it from the other shape.
    """
    ratio = math.log(maps[0] / maps[1])
    for height, width in sizes:
        wanted = math.log(height / width)
        apart = abs(ratio - wanted)
        if apart > SQUARE and abs(ratio + wanted) < apart / FOREIGN:
            warn(
                f"{name} must be (height, width), got {(height, width)} for scores of "
                f"{maps[0]} x {maps[1]}, which are of the shape of an image of {(width, height)}: "
                "of an image of Pillow, whose size is (width, height), pass image.size[::-1]"
            )
            return


def check_one_device(fields: Mapping[str, Tensor]) -> None:
    """Refuse fields of one output that are on different devices."""
    if len({tensor.device for tensor in fields.values()}) > 1:
        found = ", ".join(f"{name} on {tensor.device}" for name, tensor in fields.items())
        raise ValueError(f"all fields must be on one device, got {found}")


def widened(scores: Tensor) -> Tensor:
    """Return half precision as float32, and everything else as it is."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def keeps_dtype(decide: RankSEG) -> bool:
    """Say whether a decision must be computed in the dtype of the model.

    Accuracy without a calibration promises what the framework decides. All other decisions need
    probabilities, and half precision rounds those that lie near 0 and 1.
    """
    return decide.metric == "acc" and decide.calibration is None


def to_probabilities(scores: Tensor, kind: str) -> Tensor:
    """Make probabilities ``(batch, classes, *spatial)`` of scores of the same shape.

    ``'softmax'`` and ``'sigmoid'`` take logits, of classes that exclude each other and of classes
    that do not. ``'query_sums'`` takes the sums over queries of class probability times mask
    probability, which are no logits. They are not negative. The sums of several classes are divided
    by their sum over the classes, since a pixel has one class; where that is 0 they stay 0. The sum
    of one class exceeds 1 where masks of queries overlap, and is clamped. Half precision is
    widened, as rounded probabilities lose what lies near 0 and 1.
    """
    kind = choice("kind", kind, KINDS)
    if kind == "probabilities":
        return scores
    wide = widened(floating("scores", scores))
    if kind == "softmax":
        return wide.softmax(1)
    if kind == "sigmoid":
        return wide.sigmoid()
    if wide.shape[1] == 1:
        return wide.clamp(0, 1)
    total = wide.sum(1, keepdim=True)
    return wide / total.where(total > 0, 1.0)


def resize(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resample scores ``(batch, channels, *spatial)`` to a size, linearly between pixel areas."""
    if tuple(scores.shape[2:]) == tuple(size):
        return scores
    return F.interpolate(scores, tuple(size), mode=MODES[len(size)], align_corners=False)


def check_has_fields(outputs: Any) -> None:
    """Refuse outputs of a model without names."""
    if isinstance(outputs, tuple | list | Tensor | np.ndarray):
        raise TypeError(
            "outputs must be a model output with named fields, got "
            f"{describe(outputs)}: call the model with return_dict=True"
        )


def field_of(outputs: Any, name: str) -> Any:
    """Return a key of a mapping or an attribute of an object; None if it is missing."""
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def family_of_class(thing: Any, families: Collection[str]) -> str | None:
    """Return the family that the class of a thing, or a base of that class, belongs to.

    A class belongs to a family of Transformers if it is from the folder of that family, or if its
    name begins with the family's, as ``Sam2VideoSegmentationOutput`` does with ``sam2_video``.
    """
    for kind in type(thing).__mro__:
        folder = kind.__module__.removeprefix("transformers.models.").split(".")[0]
        if folder != kind.__module__ and folder in families:
            return folder
        for family in sorted(families, key=len, reverse=True):
            length = len(family.replace("_", ""))
            begins = kind.__name__[:length].lower() == family.replace("_", "")
            if begins and not kind.__name__[length : length + 1].islower():
                return family
    return None


def image_sizes(name: str, sizes: Any) -> list[Size]:
    """Return the height and width of every image.

    ``sizes`` is that of one image, as ``(height, width)``, ``{"height": height, "width": width}``
    or a tensor or array of both numbers; or a sequence, tensor or array of one for every image.

    Raises
    ------
    TypeError
        If ``sizes`` is none of these, or a height or width is no integer.
    ValueError
        If ``sizes`` is None, or a size is not of height and width, or not positive.
    """
    if sizes is None:
        raise ValueError(f"{name} must be given: (height, width) of every image")
    if is_one_size(sizes):
        return [_size(name, sizes)]
    if isinstance(sizes, Tensor | np.ndarray):
        _check_integers(name, sizes)
        sizes = sizes.tolist()
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(
            f"{name} must be (height, width) of one image or a sequence with one for every image, "
            f"got {describe(sizes)}"
        )
    return [_size(name, size) for size in sizes]


def check_count(name: str, sizes: Sequence[Size], count: int) -> None:
    """Refuse sizes that are not as many as there are images."""
    if len(sizes) != count:
        raise ValueError(f"{name} must be of {count} images, got {len(sizes)} sizes")


def is_one_size(sizes: Any) -> bool:
    """Say whether this is meant as the size of one image."""
    if isinstance(sizes, Tensor | np.ndarray):
        return sizes.ndim == 1 and len(sizes) > 0
    if isinstance(sizes, Mapping) or _has_edges(sizes):
        return True
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
        return False
    return not any(
        isinstance(one, Sequence | Mapping) or getattr(one, "ndim", 0) or _has_edges(one)
        for one in sizes
    )


def _has_edges(size: Any) -> bool:
    """Say whether a size has the names that processors give to height and width."""
    return None not in (field_of(size, "height"), field_of(size, "width"))


def _check_integers(name: str, sizes: Tensor | np.ndarray) -> None:
    if isinstance(sizes, np.ndarray):
        integers = sizes.dtype.kind in "iu"
    else:
        kind = sizes.dtype
        integers = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    if not integers:
        raise TypeError(f"{name} must be of an integer dtype, got {sizes.dtype}")


def _size(name: str, size: Any) -> Size:
    given = size
    if isinstance(size, Tensor | np.ndarray):
        _check_integers(name, size)
        size = size.tolist()
    if _has_edges(size):
        size = field_of(size, "height"), field_of(size, "width")
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ValueError(f"{name} must hold (height, width) for every image, got {given!r} for one")
    height, width = (integer(name, length) for length in size)
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be positive, got {(height, width)}")
    return height, width
