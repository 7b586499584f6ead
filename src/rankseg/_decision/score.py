"""What a mask or label map is expected to score, before anybody has seen the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankseg import _backends
from rankseg._common.arguments import metric_name, names_unknown, number
from rankseg._decision.inputs import as_tensor
from rankseg._decision.options import smoothing
from rankseg._decision.problem import Maps, Problem
from rankseg._decision.settings import Settings
from rankseg._formulas.bins import BINS
from rankseg._formulas.correlation import given_factor
from rankseg._formulas.expectation import (
    RATIOS,
    SERIES_PROB,
    SERIES_VOLUME,
    Nodes,
    Sums,
    count_nodes,
    integrand,
    place_nodes,
    powers_needed,
    series,
)
from rankseg._formulas.quiet import exp, log
from rankseg._formulas.records import NEGLIGIBLE_PROB, POWERS

__all__ = ["check_scored_correlation", "expected_score", "score"]

VALUES_AT_ONCE = (1 << 15) - 1
"""Numbers in a temporary array: so few that torch does not spread each step over threads."""

ROWS_AT_ONCE = 1 << 12
"""Classes, each given a factor, at a time: as many again need as much more memory."""

MANY_PIXELS = 4 * BINS
"""Pixels of an image that with a correlation are taken bin by bin."""

LARGEST_CORRELATION = 1 - 1e-6
"""Needs 23,334 factors; their number has no bound towards 1."""

FACTOR_STEP, FACTOR_END = 0.6, 7.0
"""Of the trapezoidal rule over the factor: it loses 1e-9 by its step and 3e-12 by its end."""


@names_unknown
@torch.no_grad()
def expected_score(
    probs: Maps,
    prediction: Any,
    metric: str = "dice",
    smooth: float = 0.0,
    *,
    valid: Any = None,
    correlation: float = 0.0,
) -> Maps:
    r"""Return the expected Dice or IoU of a prediction under the probabilities themselves.

    No labels are needed: the expectation is over the labels that the network itself thinks
    likely. It is exact, up to rounding, in time linear in pixels.

    Parameters
    ----------
    probs : torch.Tensor or numpy.ndarray
        ``(batch, classes, *spatial)`` probabilities, as :class:`rankseg.RankSEG` takes them. The
        batch may be empty.
    prediction : torch.Tensor or numpy.ndarray
        Masks, boolean ``(batch, classes, *spatial)``, which may overlap; or labels, integer
        ``(batch, *spatial)``. A label that is no class, such as a void index, is in no mask. With
        one channel the label 1 is its mask.
    metric : {'dice', 'iou'}
        What is expected.
    smooth : float
        Added to numerator and denominator of the metric, at least 0. With 0 the empty mask
        scores 0, even where the class may well be absent.
    valid : torch.Tensor or numpy.ndarray, optional
        ``(batch, *spatial)`` boolean. Pixels outside do not count, in mask or class.
    correlation : float
        In [0, 0.999999], how much the labels of a class in an image have in common: 0 takes them
        for independent, as the solvers do. Otherwise they share one normal factor (a one-factor
        Gaussian copula) that leaves the probability of each as it is. Of images of more than 11784
        pixels those in a bin of a :class:`rankseg.ClassProfile` are then taken for alike.

    Returns
    -------
    torch.Tensor or numpy.ndarray
        float64 ``(batch, classes)``, of the kind that ``probs`` is, on its device.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If a shape or an option is not allowed, or a probability is NaN, infinite or outside
        [0, 1].

    Notes
    -----
    For independent labels :math:`y_i`, a mask :math:`T` of :math:`n` pixels and :math:`g` =
    ``smooth``, the expectations are those of

    .. math::
        \frac{2 \sum_{i \in T} y_i + g}{n + \sum_i y_i + g}
        \quad\text{(Dice)},\qquad
        \frac{\sum_{i \in T} y_i + g}{n + \sum_{i \notin T} y_i + g}
        \quad\text{(IoU)}

    as one-dimensional integrals over the generating function of the sums. With a correlation
    :math:`r`, a mean of such expectations over the factor :math:`z`, the probabilities being
    :math:`\Phi((\Phi^{-1}(p_i) + \sqrt{r} z) / \sqrt{1 - r})`; the more factors, the closer
    :math:`r` is to 1: 25 up to 1/2, 71 at 0.9, 234 at 0.99, 2334 at 0.9999, 23334 at 0.999999. That
    leaves an error of about 1e-9, and 1e-6 where pixels are taken bin by bin.

    Examples
    --------
    One pixel is certain, the other as likely as not. Of the mask of both, Dice is 1 or 2/3:

    >>> import numpy as np
    >>> from rankseg import expected_score
    >>> expected_score(np.array([[[1.0, 0.5]]]), np.array([[1, 1]]))
    array([[0.83333333]])

    What a threshold of 1/2 and the best mask are expected to score:

    >>> import torch
    >>> from rankseg import RankSEG
    >>> probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])
    >>> mask = RankSEG("dice", solver="exact", output_mode="multilabel")(probs)
    >>> [f"{expected_score(probs, each).item():.3f}" for each in (probs > 0.5, mask)]
    ['0.653', '0.690']
    """
    metric = metric_name(metric, RATIOS)
    smooth = smoothing(smooth)
    correlation = check_scored_correlation(correlation)
    problem = Problem.parse(probs, valid, Settings(metric, smooth, "multilabel"))
    masks = _prediction(prediction, problem.probs)
    backend, _ = _backends.choose(problem.probs.device)
    problem.check_values(backend.survey(backend.open_maps(problem.probs, problem.valid)).is_invalid)
    return score(problem, masks, correlation)  # type: ignore[no-any-return]


def check_scored_correlation(correlation: object) -> float:
    """Return a correlation that an expected score can be computed for."""
    return number("correlation", correlation, 0.0, LARGEST_CORRELATION)


def score(problem: Problem, masks: Tensor, correlation: float) -> Any:
    """Return the expected score of masks or labels that fit a problem whose values are checked."""
    batch, classes = problem.probs.shape[:2]
    scores = torch.zeros(batch, classes, dtype=torch.float64, device=problem.probs.device)
    together = _factors(correlation, problem.probs.device)
    parts = [part.split(max(1, ROWS_AT_ONCE // classes)) for part in together]
    by_bin = correlation > 0 and problem.probs[0, 0].numel() > MANY_PIXELS if batch else False
    for image in range(batch):
        pixels = [_bins_of(problem, masks, image)] if by_bin else None
        for factors, weights in zip(*parts, strict=True):
            scoring = _Scoring(problem, masks, factors, weights, correlation, pixels)
            scores[image] += scoring.scores(image)
    return scores.numpy() if problem.numpy else scores


def _prediction(prediction: object, probs: Tensor) -> Tensor:
    """Check the type, shape and device of masks or labels."""
    tensor = as_tensor("prediction", prediction)
    if tensor.is_floating_point() or tensor.is_complex():
        raise TypeError(f"prediction must be boolean masks or integer labels, got {tensor.dtype}")
    masks, labels = tuple(probs.shape), (probs.shape[0], *probs.shape[2:])
    kind, expected = ("masks", masks) if tensor.dtype == torch.bool else ("labels", labels)
    if tensor.shape != expected:
        axes = "(batch, classes, *spatial)" if kind == "masks" else "(batch, *spatial)"
        raise ValueError(
            f"prediction, as {kind} of {tensor.dtype}, must have the shape {axes} = {expected}, "
            f"got {tuple(tensor.shape)}{_cure(tensor, masks, labels)}"
        )
    if kind == "labels" and probs.shape[1] <= 2:
        found = tensor.unique().tolist()
        if found == [0, 255] or (found == [255] and probs.shape[1] == 1):  # two: all may be void
            raise ValueError(
                "prediction, as labels of one channel or two, must hold 1 where the foreground is, "
                f"got {found}; pass (prediction != 0).long()"
            )
    if tensor.device != probs.device:
        raise ValueError(f"prediction must be on {probs.device}, as probs is, got {tensor.device}")
    return tensor


def _cure(prediction: Tensor, masks: tuple[int, ...], labels: tuple[int, ...]) -> str:
    """Say what to do about masks that are taken for labels, or labels for masks, by their dtype."""
    if prediction.shape == masks and prediction.dtype != torch.bool:
        return "; if these are masks, pass prediction != 0"
    if prediction.shape == labels and prediction.dtype == torch.bool and masks[1] == 1:
        return "; if this is the mask of the one channel, pass prediction[:, None]"
    return ""


def _factors(correlation: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return factors and weights whose weighted mean is the mean over a normal factor.

    The trapezoidal rule, whose error stays the same as its step follows the correlation. That of
    Gauss and Hermite with 15 nodes loses 8e-9 at 0.35, but 1e-6 at 1/2 and 6e-3 at 0.9.
    """
    if correlation == 0:
        one = torch.ones(1, dtype=torch.float64, device=device)
        return one - 1, one
    # Given the factor, probabilities change over a distance of sqrt((1 - r) / r).
    step = FACTOR_STEP * min(1.0, math.sqrt((1 - correlation) / correlation))
    number = math.ceil(2 * FACTOR_END / step) + 1
    z = torch.linspace(-FACTOR_END, FACTOR_END, number, dtype=torch.float64, device=device)
    weights = exp(-z.square() / 2)
    return z, weights / weights.sum()


Pixels = tuple[Tensor, Tensor, Tensor]
"""Probabilities, float64 ``(rows, n)``, which are in the mask, and for how many pixels each is."""


def _bins_of(problem: Problem, prediction: Tensor, image: int) -> Pixels:
    """Return the mean of the pixels in every bin, those inside the mask apart, by class."""
    backend, _ = _backends.choose(problem.probs.device)
    probs = problem.probs[image]
    row = torch.zeros(1, 2, dtype=torch.long, device=probs.device)
    valid = None if problem.valid is None else problem.valid[image]
    found = []
    for label, values in enumerate(probs):
        inside = _masks(prediction[image], len(probs), slice(label, label + 1))[0]
        if valid is not None:
            values, inside = values.where(valid, 0), inside & valid
        maps = (values, values.where(inside, 0))
        tables = []
        for one in maps:
            opened = backend.open_maps(one[None, None], None)
            tables.append(backend.profile(opened, backend.survey(opened), row)[0])
        whole, within = tables
        within[0, 0] -= (~inside).sum()
        found.append(torch.cat((within, whole - within)))
    count, mass = torch.stack(found).unbind(2)
    mean = torch.where(count > 0, mass / count, 0.0).clamp(0, 1)
    inside = torch.arange(2 * BINS, device=probs.device) < BINS
    return mean, inside.expand_as(mean), count


def _masks(prediction: Tensor, classes: int, chosen: slice = slice(None)) -> Tensor:
    """Return the masks of the chosen classes, ``(k, *spatial)``, from masks or labels."""
    if prediction.dtype == torch.bool:
        return prediction[chosen]
    first = int(classes == 1)  # with one channel the label 1 is its mask
    labels = torch.arange(first, first + classes, device=prediction.device)[chosen]
    return prediction.long() == labels.view(-1, *[1] * prediction.dim())


@dataclass(frozen=True)
class _Scoring:
    """The scores of one image after the other, in pieces too small to count as memory.

    A row is a class given a factor: there are ``factors * classes``.
    """

    problem: Problem
    prediction: Tensor
    factors: Tensor
    weights: Tensor
    correlation: float
    pixels: Sequence[Pixels] | None

    def scores(self, image: int) -> Tensor:
        """Return what the factors add to the expected score of every class, ``(classes,)``."""
        ratio, smooth = RATIOS[self.problem.settings.metric], self.problem.settings.smooth
        count, mass, volume = self._totals(image)
        rest = ratio.rest(mass, volume - mass)
        rate = count + volume + smooth + 1
        needed = count_nodes(rate, count + smooth, rest)
        nodes = place_nodes(rate, needed, int(needed.max()))
        inside, outside = self._sums(image, count + rest + smooth, nodes)
        weight, amount = integrand(ratio, smooth, nodes, count, mass, inside, outside)
        score = (weight * amount).sum(1) + float(smooth > 0)
        return self.weights @ score.view(len(self.weights), -1)

    def _totals(self, image: int) -> Tensor:
        """Return count and mass of every mask and volume of every class, ``(3, rows)``."""
        totals = []
        for probs, inside, numbers in self._pieces(image):
            within = numbers.where(inside, 0)
            terms = (within, probs * within, probs * numbers)
            totals.append(torch.stack([term.sum(1, dtype=torch.float64) for term in terms]))
        return torch.stack(totals).sum(0)

    def _sums(self, image: int, rate: Tensor, nodes: Nodes) -> tuple[Sums, Sums]:
        """Return what the pixels inside and outside every mask contribute to its integrals."""
        rows, number = nodes.u.shape
        few = rate < SERIES_VOLUME
        degree = int(powers_needed(rate).masked_fill(few, POWERS).max())
        powers = torch.zeros(2, rows, POWERS, dtype=torch.float64, device=rate.device)
        logs, hits = torch.zeros(2, 2 * rows, number, dtype=torch.float64, device=rate.device)
        t = exp(-nodes.u)
        for probs, inside, numbers in self._pieces(image):
            apart = few.unsqueeze(1) & (probs > SERIES_PROB)
            _add_powers(probs.masked_fill(apart, 0), inside, numbers, degree, powers)
            for places in torch.split(apart.nonzero(), VALUES_AT_ONCE // number):
                row, pixel = places.unbind(1)
                p = probs[row, pixel].unsqueeze(1)
                left = 1 - p + p * t[row]
                side = torch.where(inside[row, pixel], row, row + rows)
                times = numbers[row, pixel].unsqueeze(1)
                logs.index_add_(0, side, times * log(left))
                hits.index_add_(0, side, times * p * t[row] / left)
        faint = (series(side, nodes.u) for side in powers)
        inner, outer = zip(faint, logs.chunk(2), hits.chunk(2), strict=True)
        return _added(*inner), _added(*outer)

    def _pieces(self, image: int) -> Iterator[Pixels]:
        """Give some pixels of every row, their probabilities those given the factor."""
        for pixels in self._slabs(image) if self.pixels is None else self.pixels:
            width = max(1, VALUES_AT_ONCE // (len(self.factors) * len(pixels[0])))
            parts = (torch.split(term, width, 1) for term in pixels)
            for probs, *others in zip(*parts, strict=True):
                given = given_factor(
                    probs.double().clamp(max=1), self.factors.view(-1, 1, 1), self.correlation
                )
                inside, numbers = (term.repeat(len(self.factors), 1) for term in others)
                yield given.flatten(0, 1), inside, numbers

    def _slabs(self, image: int) -> Iterator[Pixels]:
        """Give the pixels slab after slab, each for itself."""
        probs, valid = self.problem.probs[image], self.problem.valid
        sizes = probs.shape[1:]
        axis = max(range(len(sizes)), key=sizes.__getitem__)
        step = max(1, VALUES_AT_ONCE * sizes[axis] // probs.numel())
        for start in range(0, sizes[axis], step):
            length = min(step, sizes[axis] - start)
            values = probs.narrow(axis + 1, start, length).flatten(1)
            prediction = self.prediction[image]
            across = axis + (prediction.dtype == torch.bool)  # masks have the classes before
            inside = _masks(prediction.narrow(across, start, length), len(probs)).flatten(1)
            if valid is not None:
                counts = valid[image].narrow(axis, start, length).flatten()
                values, inside = values.where(counts, 0), inside & counts
            yield values, inside, torch.ones_like(values, dtype=torch.float64)


def _add_powers(probs: Tensor, inside: Tensor, numbers: Tensor, degree: int, sums: Tensor) -> None:
    """Add to the power sums of the pixels inside, and of those outside, ``(2, rows, POWERS)``."""
    terms = numbers * probs
    for power in range(degree):
        whole, within = terms.sum(1), terms.where(inside, 0).sum(1)
        sums[:, :, power] += torch.stack((within, whole - within))
        if power == 0:
            probs = probs.where(probs > NEGLIGIBLE_PROB, 0)
            terms = numbers * probs
        terms = terms * probs


def _added(faint: Sums, logs: Tensor, hits: Tensor) -> Sums:
    return Sums(faint.log + logs, faint.hits + hits)
