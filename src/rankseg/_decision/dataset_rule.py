"""One pair of scale and offset for each class, fitted to the score of a whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from rankseg._common.arguments import choice, describe, integer, metric_name, number_tuple
from rankseg._common.public import public
from rankseg._common.warn import warn
from rankseg._decision.calibration import Calibration
from rankseg._decision.inputs import as_tensor, check_probabilities
from rankseg._decision.problem import Problem
from rankseg._decision.settings import OUTPUT_MODES, Settings
from rankseg._decision.solve import solve
from rankseg._files.small import opened, read_as, write_fields
from rankseg._formulas.dataset import lines, score
from rankseg._formulas.loop import MOST_STEPS

__all__ = ["DatasetRule"]

FORMAT: Final = "rankseg data-set rule 1"
METRICS: Final = ("dice", "iou")

MOST: Final = 1e12
"""Largest scale and offset. The mean of fitted scales is 1: none exceeds the number of classes."""

NOTICEABLE: Final = 1e-6
"""A relative change of the objective below this ends the fit."""

STEPS: Final = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Fractions of the way to the new pairs, tried in this order.

The whole way overshoots if a class is predicted in few pixels: the objective falls on the maps of
ENet (``docs/dataset.md``), and half of the way raises it."""


@public("rankseg.dataset")
@dataclass(frozen=True)
class DatasetRule:
    r"""The decision that maximises the Dice or IoU of a data set, as one line for each class.

    Use it if the score sums pixels over all images before it divides (mIoU of a leaderboard). A
    pixel gets the class :math:`\arg\max_c (s_c p_c - o_c)`. With overlapping masks, or one channel,
    a pixel is in the mask of class :math:`c` if :math:`p_c > o_c / s_c`.

    Made by :meth:`fit` and taken by ``RankSEG(metric, rule=rule)``, as is the path of the file it
    was saved to.

    Parameters
    ----------
    metric : {'dice', 'iou'}
        The score that the rule maximises.
    scale : sequence of float
        :math:`s_c`, one for each class, above 0 and at most 1e12.
    offset : sequence of float
        :math:`o_c`, one for each class, in [-1e12, 1e12].
    output_mode : {'multiclass', 'multilabel'}
        Whether the rule was fitted to labels or to masks that may overlap. With one channel both
        are the same.

    Raises
    ------
    TypeError, ValueError
        If a value is not allowed, or if the numbers of scales and offsets differ.

    References
    ----------
    .. [1] Dinkelbach, "On nonlinear fractional programming", Management Science 13(7), 1967.

    Examples
    --------
    The second class is rare in the data set, so each of its pixels counts more:

    >>> import torch
    >>> from rankseg import RankSEG
    >>> from rankseg.dataset import DatasetRule
    >>> maps = torch.tensor([[[0.9, 0.9, 0.9, 0.6], [0.1, 0.1, 0.1, 0.4]]])
    >>> rule = DatasetRule.fit(maps, "iou")
    >>> maps.argmax(1), RankSEG("iou", rule=rule)(maps)
    (tensor([[0, 0, 0, 0]]), tensor([[0, 0, 0, 1]]))
    """

    metric: str
    scale: Sequence[float]
    offset: Sequence[float]
    output_mode: str = "multiclass"

    def __post_init__(self) -> None:
        checked = {
            "metric": metric_name(self.metric, METRICS),
            "output_mode": choice("output_mode", self.output_mode, OUTPUT_MODES),
            "scale": number_tuple("scale", self.scale, 0.0, MOST, excluded=(0.0,)),
            "offset": number_tuple("offset", self.offset, -MOST, MOST),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if len(self.scale) != len(self.offset):
            raise ValueError(
                f"scale and offset must have one entry for each class, got {len(self.scale)} and "
                f"{len(self.offset)}"
            )

    @property
    def classes(self) -> int:
        """The number of classes, or 1 for one channel."""
        return len(self.scale)

    def of_class(self, index: int) -> DatasetRule:
        """Return the rule of one class by itself, of those with ``output_mode='multilabel'``."""
        return DatasetRule(self.metric, (self.scale[index],), (self.offset[index],), "multilabel")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the rule as JSON; the file is there whole or not at all.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_fields(Path(path), FORMAT, asdict(self))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> DatasetRule:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds something else.
        """
        names = [one.name for one in fields(cls)]
        return read_as(
            lambda content: cls(**content), "file of a data-set rule", path, FORMAT, names
        )

    @classmethod
    def fit(
        cls,
        maps: Iterable[Any],
        metric: str = "iou",
        *,
        output_mode: str = "multiclass",
        use_labels: bool = False,
        ignore_index: int | None = None,
        calibration: Calibration | str | PathLike[str] | None = None,
        pixels: int | None = None,
        seed: int = 0,
    ) -> DatasetRule:
        """Fit the rule to the maps of a data set, with or without labels.

        Parameters
        ----------
        maps : iterable of Tensor, ndarray or Case
            Probabilities ``(classes, *spatial)`` of one image each, floating, or cases with such
            maps and labels. A tensor ``(images, classes, *spatial)`` is such an iterable, too.
            Failures of a `CaseFolder` are left out. One image is in memory at a time. The maps are
            read 6 to 40 times, so an iterator is refused unless ``pixels`` is given.
        metric : {'iou', 'dice'}
            The score to maximise.
        output_mode : {'multiclass', 'multilabel'}
            Labels, or masks that may overlap.
        use_labels : bool
            Whether to count true pixels instead of summing probabilities. Needs cases.
        ignore_index : int, optional
            Pixels of a case whose label has this value do not count. Default: all do.
        calibration : Calibration or path, optional
            Applied first. Decide with it too: ``RankSEG(calibration=calibration, rule=rule)``.
        pixels : int, optional
            Fit to a uniform sample of so many pixels of the data set, which are held in memory with
            4 bytes for each class. The maps are then read once. Default: fit to all pixels.
        seed : int
            Of the sample.

        Returns
        -------
        DatasetRule

        Raises
        ------
        TypeError
            If an item of ``maps`` is of another type, an iterator is given without ``pixels``, or
            ``use_labels`` is given without cases.
        ValueError
            If there is no image, images differ in classes, a value is no probability, a label is no
            class, no class has any volume, or the maps change between two passes.

        Warns
        -----
        UserWarning
            If an item is a failure.

        Notes
        -----
        The objective is the mean score of the classes with volume. The fit relabels all pixels by
        the lines that are its derivative, as long as it rises. If the whole step to the new lines
        lowers it, fractions of the step are tried. The scales at the start are ``volume ** -0.5``.
        If the fit ends below argmax (masks: the threshold 1/2), it starts again from argmax. So the
        rule never scores below argmax on the maps that it is fitted to.

        For masks and one channel this is Dinkelbach's iteration [1]_, which ends at the best
        thresholds if no labels are used: ``f / 2`` for Dice and ``f / (1 + f)`` for IoU, with the
        score ``f`` reached. For labels the sum of fractions may have several maxima, and the fit
        ends at one of them.

        Every class may be predicted in every image, which is what ``RankSEG(rule=...)`` does unless
        it is given ``presence``.
        """
        metric = metric_name(metric, METRICS)
        settings = Settings(
            metric=metric,
            output_mode=choice("output_mode", output_mode, OUTPUT_MODES),
            solver="dataset",
            presence="all",
            calibration=opened("calibration", Calibration, calibration),
        )
        if not isinstance(maps, Iterable):
            raise TypeError(
                "maps must be an iterable of maps (classes, *spatial) or cases, got "
                f"{describe(maps)}"
            )
        data = _Data(maps, settings, use_labels, ignore_index)
        if pixels is not None:
            data = data.sample(integer("pixels", pixels), integer("seed", seed))
        elif iter(maps) is maps:
            raise TypeError(
                f"maps must be iterable several times, got {describe(maps)}: pass a list or a "
                "CaseFolder, or read it once with pixels=1_000_000"
            )
        return _best_rule(data)


class _Pixels(NamedTuple):
    """The pixels of an image that count: ``(classes, n)`` probabilities, ``(n,)`` labels if any."""

    probs: Tensor
    label: Tensor | None


class _Sums(NamedTuple):
    """What the score of a data set depends on, float64 ``(classes,)`` each."""

    predicted: Tensor
    hits: Tensor
    volume: Tensor

    def objective(self, metric: str) -> float:
        """Return the mean score of the classes with volume."""
        return score(metric, *self)[self.volume > 0].mean().item()


@dataclass(frozen=True)
class _Data:
    """The images of a data set, read anew in every pass."""

    maps: Iterable[Any]
    settings: Settings
    use_labels: bool
    ignore_index: int | None
    left_out: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[_Pixels]:
        """Yield the pixels of every image; raise for items and values that are not allowed."""
        classes = 0
        for place, item in enumerate(self.maps):
            name = f"image {place}"
            if not isinstance(item, Tensor):  # whose name is None
                name = getattr(item, "name", name)
            if hasattr(item, "reason"):
                self._warn(item)
                continue
            try:
                pixels = self._read(item)
                if classes not in (0, len(pixels.probs)):
                    found = len(pixels.probs)
                    raise ValueError(f"has maps of {found} classes where {classes} are expected")
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
            classes = len(pixels.probs)
            yield pixels
        if not classes:
            raise ValueError("maps must hold one image at least, got none")

    def _warn(self, failure: Any) -> None:
        if failure.name not in self.left_out:  # it comes in every pass
            self.left_out.add(failure.name)
            warn(f"left out: {failure.name}: {failure.reason}")

    def _read(self, item: Any) -> _Pixels:
        """Return the calibrated probabilities of the pixels that count, and their labels."""
        probs, label = as_tensor("maps", getattr(item, "probs", item)), getattr(item, "label", None)
        if self.use_labels and label is None:
            raise TypeError("use_labels=True needs cases with labels: Case(name, probs, label)")
        valid = None
        if label is not None and self.ignore_index is not None:
            valid = label != self.ignore_index
        given = None if valid is None else valid[None]
        problem = Problem.parse(probs[None], given, self.settings).calibrated()
        problem.check_values(False)  # the sums over the classes
        values = problem.probs[0].flatten(1)
        counted = None if label is None or not self.use_labels else label.flatten()
        if valid is not None:
            values = values[:, valid.flatten()]
            counted = None if counted is None else counted[valid.flatten()]
        if values.shape[1]:
            check_probabilities("maps", values)
        if counted is not None and len(counted):
            last = max(2, len(values)) - 1
            low, high = (int(end) for end in torch.aminmax(counted))
            if not 0 <= low <= high <= last:
                raise ValueError(
                    f"labels must be classes from 0 to {last}, or to be ignored, got {low} to "
                    f"{high}"
                )
        return _Pixels(values, counted)

    def sums(self, rule: DatasetRule) -> _Sums:
        """Decide all images by the rule, and sum."""
        total = torch.zeros(3, rule.classes, dtype=torch.float64, device="cpu")
        for pixels in self:
            if pixels.probs.shape[1]:
                total += _counts(pixels, rule, self.settings).cpu()
        return _Sums(*total)

    def sample(self, pixels: int, seed: int) -> _Data:
        """Return the data of one image, whose pixels are a uniform sample of all that count."""
        if pixels < 1:
            raise ValueError(f"pixels must be at least 1, got {pixels}")
        generator = torch.Generator("cpu").manual_seed(seed)
        kept: list[Tensor] = []  # keys, probabilities and labels of the pixels of smallest key
        for values, label in self:
            keys = torch.rand(
                values.shape[1], generator=generator, dtype=torch.float64, device="cpu"
            )
            rows = [keys.to(values.device), values, *([] if label is None else [label])]
            if kept:
                rows = [torch.cat(pair, -1) for pair in zip(kept, rows, strict=True)]
            chosen = rows[0].topk(min(pixels, len(rows[0])), largest=False).indices
            kept = [row[..., chosen] for row in rows]
        sample = _Pixels(kept[1], kept[2] if self.use_labels else None)
        settings = replace(self.settings, calibration=None)
        return _Data([sample], settings, self.use_labels, None)


def _counts(pixels: _Pixels, rule: DatasetRule, settings: Settings) -> Tensor:
    """Return count, hits and volume of every class in an image, float64 ``(3, classes)``."""
    settings = replace(settings, calibration=None, rule=rule)
    probs, label = pixels.probs, pixels.label
    decision = solve(Problem(probs[None], None, settings, numpy=False, sums_are_checked=True))[0]
    first = 1 if rule.classes == 1 else 0
    classes = torch.arange(first, first + rule.classes, device=probs.device).unsqueeze(1)
    masks = decision if decision.dtype == torch.bool else decision == classes
    truth = probs if label is None else label == classes
    terms = (masks, truth.where(masks, torch.zeros_like(truth)), truth)
    return torch.stack([term.sum(1, dtype=torch.float64) for term in terms])


class _Trial(NamedTuple):
    """A rule that was tried, with its terms, the sums of what it decides, and the mean score."""

    rule: DatasetRule
    scale: Tensor
    offset: Tensor
    sums: _Sums
    objective: float


def _best_rule(data: _Data) -> DatasetRule:
    """Return the rule of largest objective that is found; see the notes of `DatasetRule.fit`."""
    classes = len(next(iter(data)).probs)
    overlap = classes == 1 or data.settings.output_mode == "multilabel"
    ones = torch.ones(classes, dtype=torch.float64, device="cpu")
    argmax = _tried(data, ones, ones * (0.5 if overlap else 0.0))
    volume = argmax.sums.volume
    if not volume.any():
        raise ValueError("maps must hold some pixel or probability of a class, got none")
    rarity = torch.where(volume > 0, volume, volume.sum()).rsqrt()
    rarity = rarity / rarity.mean()
    best = _climbed(data, _tried(data, argmax.scale * rarity, argmax.offset * rarity))
    if best.objective < argmax.objective:
        best = _climbed(data, argmax)
    return best.rule


def _tried(data: _Data, scale: Tensor, offset: Tensor) -> _Trial:
    """Decide the data by these terms, in one pass."""
    metric, output_mode = data.settings.metric, data.settings.output_mode
    rule = DatasetRule(metric, scale.tolist(), offset.tolist(), output_mode)
    sums = data.sums(rule)
    return _Trial(rule, scale, offset, sums, sums.objective(metric))


def _climbed(data: _Data, best: _Trial) -> _Trial:
    """Return the last rule of an iteration that goes on while the objective rises."""
    for _ in range(MOST_STEPS):
        for step in STEPS:
            new = lines(data.settings.metric, *best.sums)
            trial = _tried(data, best.scale.lerp(new[0], step), best.offset.lerp(new[1], step))
            if not trial.sums.volume.equal(best.sums.volume):
                raise ValueError("maps must be the same in every pass, and have changed")
            rise, noticeable = trial.objective - best.objective, NOTICEABLE * best.objective
            if rise > noticeable or abs(rise) <= noticeable:
                break
        if rise <= noticeable:
            break
        best = trial
    return best
