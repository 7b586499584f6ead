"""MONAI: the decision as transforms, in place of ``AsDiscrete`` and ``AsDiscreted``.

Importing this module imports MONAI, whose transforms its classes are; without MONAI that is an
ImportError with the line that installs it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

import rankseg
from rankseg._common.arguments import integer
from rankseg._common.warn import one_of_a_kind, warn
from rankseg._decision.calibrate import calibrate
from rankseg._decision.problem import Maps, Problem
from rankseg._decision.sampled_sums import is_batch
from rankseg._decision.settings import SolverOptions
from rankseg._decision.solve import present_in
from rankseg._decision.solvers import SOLVERS
from rankseg.integration.common import (
    USUAL,
    KnownAttributes,
    check_finite,
    check_logits,
    floating,
    require,
    to_probabilities,
    with_settings,
)

require("monai", "monai", "RankSEG as a transform")

from monai.data.meta_obj import get_track_meta  # noqa: E402
from monai.transforms.transform import MapTransform, Transform  # noqa: E402
from monai.utils.enums import TransformBackends  # noqa: E402
from monai.utils.type_conversion import (  # noqa: E402
    convert_to_dst_type,
    convert_to_tensor,
    get_equivalent_dtype,
)

__all__ = ["RankSEG", "RankSEGD", "RankSEGDict", "RankSEGd"]

MOST_AXES = 4
"""The axes of an image that is a volume: MONAI knows of no image with more."""

THIN = 4
"""How many times shorter than the others the first axis of a volume is that is hardly one."""

UNCLAIMED = -1
"""The label of pixels that no foreground class claims, before 1 is added: then the background's."""


class RankSEG(KnownAttributes, Transform):  # type: ignore[misc, unused-ignore]
    """Decide the labels or masks that maximise the expected Dice or IoU of one image.

    Goes where ``AsDiscrete(argmax=True)`` or ``AsDiscrete(threshold=0.5)`` was, and with
    ``metric='acc'`` gives exactly what they give.

    Parameters
    ----------
    metric, smooth, output_mode, solver, pruning_prob, from_logits, **options
        Those of :class:`rankseg.RankSEG`, which describes them. ``output_mode='multiclass'``
        stands for argmax, ``'multilabel'`` for the threshold.
    to_onehot : int, optional
        With multiclass output: give a channel for each of so many classes in place of labels. At
        least as many as there are; two for maps of one channel. A void pixel is in no channel.
    include_background : bool
        Whether channel 0 is one of the classes whose scores are maximised, as in ``DiceMetric``.
        If not, the decision is for the others alone, and what none of them claims is background:
        the label 0, or the mask of channel 0, which stays. Its probabilities must be finite and
        count in nothing but the softmax of ``from_logits='softmax'``. Not for multiclass accuracy.
    dtype : dtype
        Of the result, as torch, NumPy or their names have it; float32 by default, as ``AsDiscrete``
        has it.
    settings : path-like, optional
        A file that ``rankseg tune`` or ``RankSEG.save`` wrote. Options that differ from their
        default replace those of the file.

    Raises
    ------
    TypeError
        If an argument is of the wrong type, or not one that the solver takes.
    ValueError
        If it is not allowed, or does not combine with the others.

    Notes
    -----
    With ``include_background=False``, ``from_logits='softmax'`` makes all probabilities at once, as
    large as the logits in float32; so does ``'sigmoid'`` unless ``presence`` is ``'peak'``.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.integration.monai import RankSEG
    >>> probs = np.array([[0.1, 0.55, 0.6, 0.9], [0.9, 0.45, 0.4, 0.1]])  # background and a class
    >>> RankSEG("acc")(probs)
    array([[1., 0., 0., 0.]], dtype=float32)
    >>> RankSEG("dice", include_background=False)(probs)
    array([[1., 1., 1., 0.]], dtype=float32)
    """

    backend: ClassVar[list[str]] = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        metric: str = "dice",
        smooth: float = 0.0,
        output_mode: str = "multiclass",
        solver: str = "auto",
        pruning_prob: float | None = None,
        *,
        to_onehot: int | None = None,
        include_background: bool = True,
        dtype: Any = torch.float,
        from_logits: str | None = None,
        settings: str | PathLike[str] | None = None,
        **options: Unpack[SolverOptions],
    ) -> None:
        super().__init__()
        arguments: dict[str, Any] = {
            "metric": metric,
            "smooth": smooth,
            "output_mode": output_mode,
            "solver": solver,
            "pruning_prob": pruning_prob,
            "from_logits": from_logits,
            **options,
        }
        if settings is not None:  # an option that is not by default replaces that of the file
            chosen = {name: one for name, one in arguments.items() if USUAL.get(name) != one}
            arguments = with_settings({"settings": settings, **chosen}, keep_link=True)
        decide = rankseg.RankSEG(**arguments)
        if not isinstance(include_background, bool):
            raise TypeError(f"include_background must be a bool, got {include_background!r}")
        self.include_background = include_background
        self.link = decide.from_logits
        self.whole = decide
        self.converts = not include_background and _converts(decide)
        self.calibration = None if include_background else decide.calibration
        self.decide = decide if include_background else _of_foreground(decide)
        self.to_onehot = None if to_onehot is None else integer("to_onehot", to_onehot)
        if to_onehot is not None and decide.output_mode == "multilabel":
            raise ValueError(
                "output_mode='multilabel' gives masks already: to_onehot must be None, "
                f"got {to_onehot}"
            )
        self.dtype = _dtype(dtype)
        self.has_labels = decide.output_mode == "multiclass" and to_onehot is None
        if self.has_labels and include_background and decide.settings.unassigned_policy == "void":
            self._check_dtype("void_index", decide.settings.void_index)
        self._settable = ()

    @one_of_a_kind()
    def __call__(self, img: Maps) -> Maps:
        """Decide one image.

        Parameters
        ----------
        img : MetaTensor, torch.Tensor or numpy.ndarray
            ``(channels, *spatial)`` probabilities without a batch axis, as ``decollate_batch``
            gives them, or logits if ``from_logits`` says so; any floating dtype, any device.

        Returns
        -------
        MetaTensor, torch.Tensor or numpy.ndarray
            Labels ``(1, *spatial)``, or ``(channels, *spatial)`` of zeros and ones. An array for an
            array. For a tensor what ``AsDiscrete`` gives: a MetaTensor, with affine, metadata and
            applied operations of a MetaTensor that came in, unless MONAI does not track.

        Raises
        ------
        TypeError
            If ``img`` is not a dense floating tensor or array.
        ValueError
            If its shape does not fit or a value is no probability.
        """
        scores = floating("img", img).detach()
        self._check_shape(tuple(scores.shape))
        # A batch of one from which squeeze(0) took its axis still says that it is a batch.
        affines = getattr(img, "affine", ()) if getattr(img, "is_batch", False) else ()
        says_so = len(affines) == len(scores)
        is_told = scores.dim() > MOST_AXES or (says_so and scores.dim() > 3)
        if is_told or (self.link is None and is_batch(scores)):
            raise ValueError(
                f"img must be (channels, *spatial), got a batch of shape {tuple(scores.shape)}: "
                "its classes are axis 1; pass its images one by one, as decollate_batch gives them"
            )
        self._tell_of_batch(tuple(scores.shape))
        if self.converts:
            check_logits("img", scores.unsqueeze(0), str(self.link))
        elif not self.include_background:  # whose values the decision itself never reads
            check_finite("img", scores)
        decided = self._classes(scores)
        with scores.device:  # not torch's default device, on which MONAI would make tensors
            if isinstance(img, Tensor):
                img = convert_to_tensor(img, track_meta=get_track_meta())
            result: Maps = convert_to_dst_type(decided, img, dtype=self.dtype)[0]
        return result

    def _tell_of_batch(self, shape: tuple[int, ...]) -> None:
        """Warn of a shape of several images, where the values do not tell."""
        overlap = self.link is not None or self.decide.output_mode == "multilabel"
        if not overlap or len(shape) < MOST_AXES or THIN * shape[1] > min(shape[2:]):
            return
        if shape[0] > 1 or 1 < shape[1] <= THIN:  # one channel is often that of a thin volume
            warn(
                f"img of shape {shape} is read as {shape[0]} channel{'s' * (shape[0] > 1)} of a "
                f"volume {' x '.join(map(str, shape[1:]))}; if axis 0 is a batch, pass its images "
                "one by one, as decollate_batch gives them"
            )

    def _check_dtype(self, name: str, label: int) -> None:
        """Raise a ValueError if the dtype of the result does not hold a label."""
        if int(torch.tensor(label, device="cpu").to(self.dtype).double()) != label:
            raise ValueError(
                f"dtype must hold {name}, {label}, which {self.dtype} does not: take torch.float32"
            )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2:
            raise ValueError(f"img must be (channels, *spatial), without a batch axis, got {shape}")
        if not self.include_background and shape[0] < 2:
            raise ValueError(
                "include_background=False needs a channel for the background and at least one "
                f"other, got img of shape {shape}"
            )
        classes = max(shape[0], 2)  # one channel gives the labels 0 and 1
        if self.has_labels:
            for label in (classes - 2, classes - 1):  # halves hold every second large integer
                self._check_dtype("the labels", label)
        if self.to_onehot is not None and self.to_onehot < classes:
            raise ValueError(
                f"to_onehot must be at least the number of classes, {classes} for img of shape "
                f"{shape}, got {self.to_onehot}"
            )

    def _classes(self, scores: Tensor) -> Tensor:
        """Return labels ``(1, *spatial)`` or boolean masks ``(channels, *spatial)``."""
        maps = scores.unsqueeze(0)
        if self.calibration is not None:
            maps = calibrate(maps, self.calibration, from_logits=self.link)
        elif self.converts:
            maps = to_probabilities(maps, str(self.link))
        if not self.include_background:
            maps = self._of_present(maps)[:, 1:]
        decided: Tensor = self.decide(maps)
        masks = self.decide.output_mode == "multilabel"
        decided = decided.squeeze(0) if masks else decided
        if self.decide.metric == "acc" and (masks or maps.shape[1] == 1):
            decided = decided | self._ties(maps.squeeze(0))
        if masks:
            return decided if self.include_background else _with_background(decided)
        if not self.include_background and maps.shape[1] > 1:
            decided = decided - UNCLAIMED
        return decided if self.to_onehot is None else _one_hot(decided, self.to_onehot)

    def _of_present(self, maps: Tensor) -> Tensor:
        """Return the maps with 0 for absent classes.

        The presence rule needs all channels, also the background. With ``presence='peak'`` the maps
        stay as they are: the decision without the background finds the same classes.
        """
        settings = replace(self.whole.settings, from_logits=None, calibration=None)
        if settings.presence == "peak":
            return maps
        present = present_in(Problem.parse(maps, None, settings))
        return maps.masked_fill(~present.view(*present.shape, *[1] * (maps.dim() - 2)), 0)

    def _ties(self, maps: Tensor) -> Tensor:
        """Return where a probability is 1/2: ``AsDiscrete`` includes it; accuracy is the same."""
        if self.decide.from_logits == "sigmoid":
            maps = to_probabilities(maps, "sigmoid")
        return maps == 0.5


class RankSEGd(KnownAttributes, MapTransform):  # type: ignore[misc, unused-ignore]
    """Replace the maps in one or more items of a dictionary by labels or masks.

    Parameters
    ----------
    keys : str or sequence of str
        The keys of the maps.
    allow_missing_keys : bool
        Whether to skip a key that is not in the dictionary; by default it is a KeyError.
    metric, smooth and all others
        The arguments of :class:`RankSEG`. Each may be a list with one value for each key. If the
        solver of a key does not take an option in ``**options``, write None for this key.

    Raises
    ------
    TypeError, ValueError
        As :class:`RankSEG`, and if the length of a list differs from the number of keys.

    Examples
    --------
    >>> import torch
    >>> from rankseg.integration.monai import RankSEGd
    >>> pred = torch.tensor([[0.1, 0.55, 0.6, 0.9], [0.9, 0.45, 0.4, 0.1]])
    >>> decide = RankSEGd("pred", metric=["dice"], include_background=False)
    >>> decide({"pred": pred})["pred"].tolist()
    [[1.0, 1.0, 1.0, 0.0]]
    """

    backend: ClassVar[list[str]] = RankSEG.backend

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        metric: str | Sequence[str] = "dice",
        smooth: float | Sequence[float] = 0.0,
        output_mode: str | Sequence[str] = "multiclass",
        solver: str | Sequence[str] = "auto",
        pruning_prob: float | Sequence[float | None] | None = None,
        *,
        to_onehot: int | Sequence[int | None] | None = None,
        include_background: bool | Sequence[bool] = True,
        dtype: Any = torch.float,
        from_logits: str | Sequence[str | None] | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        arguments: dict[str, Any] = {
            "metric": metric,
            "smooth": smooth,
            "output_mode": output_mode,
            "solver": solver,
            "pruning_prob": pruning_prob,
            "to_onehot": to_onehot,
            "include_background": include_background,
            "dtype": dtype,
            "from_logits": from_logits,
            **options,
        }
        columns = {name: self._for_each_key(name, value) for name, value in arguments.items()}
        self.converters = [
            RankSEG(
                **{
                    name: column[place]
                    for name, column in columns.items()
                    if name not in options or column[place] is not None
                }
            )
            for place in range(len(self.keys))
        ]
        self._settable = ("keys", "allow_missing_keys")

    def _for_each_key(self, name: str, value: Any) -> Sequence[Any]:
        """Return one argument for each key: a list as it is, a single value repeated."""
        if not isinstance(value, list | tuple):
            return [value] * len(self.keys)
        if len(value) != len(self.keys):
            raise ValueError(
                f"{name} must be one value or a list of {len(self.keys)}, one for each key, "
                f"got {len(value)}"
            )
        return value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary with labels or masks in place of the maps."""
        decided = dict(data)
        for key, convert in self.key_iterator(decided, self.converters):
            decided[key] = convert(decided[key])
        return decided


RankSEGD = RankSEGDict = RankSEGd


def _of_foreground(decide: rankseg.RankSEG) -> rankseg.RankSEG:
    """Return the RankSEG for maps without the background: it leaves unclaimed pixels void."""
    options: dict[str, Any] = dict(decide.solver_params)
    written = sorted({"unassigned_policy", "void_index"} & set(options))
    if written:
        raise ValueError(
            "include_background=False makes background of what no other class claims, and leaves "
            f"nothing to say for {written}"
        )
    if decide.output_mode == "multiclass" and decide.metric == "acc":
        raise ValueError(
            "include_background=False does not go with metric='acc' and output_mode='multiclass': "
            "accuracy counts pixels, of all classes"
        )
    settings = decide.settings
    if settings.rule is not None:
        raise ValueError(
            "include_background=False does not go with a rule, which is fitted to the maps of all "
            "classes: leave it out"
        )
    allowed = SOLVERS[settings.solver].options[settings.output_mode]
    if "unassigned_policy" in allowed:
        options |= {"unassigned_policy": "void", "void_index": UNCLAIMED}
    if "presence" in allowed:
        options |= {"presence": "peak" if settings.presence == "peak" else "all"}
    if "correlation" in allowed:
        options |= {"correlation": settings.correlation}
    return rankseg.RankSEG(
        decide.metric,
        decide.smooth,
        decide.output_mode,
        decide.solver,
        decide.pruning_prob if settings.presence == "peak" else None,
        from_logits=None if _converts(decide) or decide.calibration else decide.from_logits,
        **options,
    )


def _converts(decide: rankseg.RankSEG) -> bool:
    """Return whether logits become probabilities before the background channel is removed."""
    told_by_all = decide.settings.presence != "peak"
    return decide.from_logits == "softmax" or (decide.from_logits is not None and told_by_all)


def _dtype(dtype: Any) -> torch.dtype:
    """Return the torch dtype that MONAI takes a dtype for."""
    try:
        found = get_equivalent_dtype(dtype, Tensor)
    except (AttributeError, KeyError, TypeError):
        found = None
    if not isinstance(found, torch.dtype):
        raise TypeError(f"dtype must be one of torch or NumPy, or the name of one, got {dtype!r}")
    return found


def _with_background(masks: Tensor) -> Tensor:
    """Put a background mask first: the pixels that are in no other mask."""
    return torch.cat([~masks.any(0, keepdim=True), masks])


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return boolean ``(classes, *spatial)`` of labels ``(1, *spatial)``."""
    names = torch.arange(classes, device=labels.device)
    return labels == names.view(-1, *[1] * (labels.dim() - 1))
