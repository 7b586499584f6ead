"""The volume of a class: a sum of independent Bernoulli labels, exactly and approximately.

Given the image, the labels of the pixels are modelled as independent, each 1 with its own
probability. Their sum, the volume, then has a Poisson-binomial distribution. `PoissonBinomial` is
that distribution; `RefinedNormalPB` is its refined normal approximation; `RefinedNormal` is the
approximation in standard units, as a SciPy distribution. SciPy is loaded when `RefinedNormal` is
asked for, and needed for nothing else here: ``pip install 'rankseg[stats]'``.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property

from rankseg._common.arguments import describe, integer, number, shown
from rankseg._decision.inputs import check_dense
from rankseg._formulas.poisson_binomial import pmf_table
from rankseg._formulas.refined_normal import proper_cdf, proper_icdf, proper_pdf

__all__ = ["PoissonBinomial", "RefinedNormal", "RefinedNormalPB"]


def _load_refined_normal() -> type:
    try:
        from rankseg.distribution.scipy_refined_normal import RefinedNormal
    except ImportError as error:
        raise ImportError(
            "RefinedNormal needs scipy: pip install 'rankseg[stats]'", name="scipy"
        ) from error
    return RefinedNormal


if TYPE_CHECKING:
    from rankseg.distribution.scipy_refined_normal import RefinedNormal
else:

    def __getattr__(name: str) -> type:
        if name == "RefinedNormal":
            return _load_refined_normal()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class PoissonBinomial(Distribution):
    r"""The number of ones among independent Bernoulli labels, exactly.

    Everything is computed and returned in float64, on the device of ``probs``, and can be
    differentiated by ``probs``. Values to be scored broadcast with ``batch_shape``.

    Parameters
    ----------
    probs : torch.Tensor
        ``(*batch, N)`` floating, in [0, 1]: the probability of each label to be 1. Batch and
        ``N`` may be empty; the sum of no labels is 0.
    validate_args : bool, optional
        Whether to check the values of ``probs``, and that values given to :meth:`log_prob` are
        in the support; by default what ``torch.distributions`` is set to, which is to check.

    Raises
    ------
    TypeError
        If ``probs`` is not a floating tensor.
    ValueError
        If ``probs`` has no axis or is not in [0, 1].

    Notes
    -----
    The probabilities of all values are the coefficients of :math:`\prod_i (1 - p_i + p_i t)`.
    Products of 256 factors at most are multiplied out; longer ones are built from these in pairs
    by FFT. So up to ``N`` = 256 every probability is right to about 1e-14 of itself. Beyond that
    the error is *absolute*: below 1e-14 for a probability and 1e-13 for the distribution
    function, up to ``N`` = 100 000 (a tenth of a second); what is lost in the rounding, about
    1e-16 of the largest probability, is given as 0. The ``N + 1`` probabilities of an image are
    computed when first asked for, and kept.

    Examples
    --------
    >>> import torch
    >>> from rankseg.distribution import PoissonBinomial
    >>> volume = PoissonBinomial(torch.tensor([0.9, 0.5, 0.5]))
    >>> volume.pmf(volume.enumerate_support())
    tensor([0.0250, 0.2750, 0.4750, 0.2250], dtype=torch.float64)
    >>> volume.cdf(1)
    tensor(0.3000, dtype=torch.float64)
    >>> volume.mean, volume.variance
    (tensor(1.9000, dtype=torch.float64), tensor(0.5900, dtype=torch.float64))
    """

    arg_constraints = {"probs": constraints.unit_interval}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, probs: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(probs, Tensor) or not probs.is_floating_point():
            raise TypeError(f"probs must be a floating torch.Tensor, got {describe(probs)}")
        check_dense("probs", probs)
        if probs.dim() == 0:
            raise ValueError("probs must have the axes (*batch, N), got a tensor without axes")
        if self._validate_args if validate_args is None else validate_args:
            _refuse("probs", probs, ~((probs >= 0) & (probs <= 1)), "in [0, 1]")
        self.probs = probs
        super().__init__(probs.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """Return the constraint that holds for the integers from 0 to ``N``."""
        return constraints.integer_interval(0, self.probs.shape[-1])

    @property
    def mean(self) -> Tensor:
        r"""The expected value :math:`\sum_i p_i`."""
        return self.probs.sum(-1, dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`\sum_i p_i (1 - p_i)`."""
        p = self.probs.double()
        return (p * (1 - p)).sum(-1)

    @property
    def skewness(self) -> Tensor:
        r"""The skewness :math:`\sum_i p_i (1 - p_i) (1 - 2 p_i) / \text{sd}^3`, 0 where sd is."""
        p = self.probs.double()
        spread = p * (1 - p)
        variance = spread.sum(-1)
        some = torch.where(variance > 0, variance, 1.0)
        # Not the third power of the deviation, which underflows for tiny probabilities.
        return (spread * (1 - 2 * p)).sum(-1) / some / some.sqrt()

    def pmf(self, value: Tensor | float) -> Tensor:
        """Return the probability of ``value``, any real number: 0 outside the support."""
        k = _values("value", value, self.probs.device)
        nearest = k.clamp(0, self.probs.shape[-1]).floor()
        return torch.where(k == nearest, self._look_up(self._pmf_table, nearest), 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of :meth:`pmf`; ``value`` must be in the support."""
        if self._validate_args:
            self._validate_sample(value)
        return self.pmf(value).log()

    def cdf(self, value: Tensor | float) -> Tensor:
        """Return the probability of ``value``, any real number, or less."""
        k = _values("value", value, self.probs.device)
        nearest = k.clamp(0, self.probs.shape[-1]).floor()
        return torch.where(k >= 0, self._look_up(self._cdf_table, nearest), 0.0)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw int64 values of the shape ``(*sample_shape, *batch_shape)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        draws = torch.rand(shape, dtype=torch.float64, device=self.probs.device)
        count = math.prod(sample_shape)
        by_image = draws.reshape(count, *self.batch_shape).movedim(0, -1).contiguous()
        values = torch.searchsorted(self._cdf_table.contiguous(), by_image, right=True)
        return values.movedim(-1, 0).reshape(shape)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return the integers from 0 to ``N``, int64 ``(N + 1, *batch_shape)``.

        Unless they are to ``expand``, all axes but the first have the length 1.
        """
        values = torch.arange(self.probs.shape[-1] + 1, device=self.probs.device)
        values = values.reshape(-1, *[1] * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    def expand(
        self, batch_shape: Sequence[int], _instance: PoissonBinomial | None = None
    ) -> PoissonBinomial:
        """Return the same distribution with its batch broadcast to ``batch_shape``."""
        new: PoissonBinomial = self._get_checked_instance(  # type: ignore[no-untyped-call]
            PoissonBinomial, _instance
        )
        for name in {"probs", "_pmf_table", "_cdf_table"} & self.__dict__.keys():
            entries = getattr(self, name)
            setattr(new, name, entries.expand(*batch_shape, entries.shape[-1]))
        super(PoissonBinomial, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def _pmf_table(self) -> Tensor:
        return pmf_table(self.probs.double())

    @lazy_property
    def _cdf_table(self) -> Tensor:
        running = self._pmf_table.cumsum(-1)
        return running / running[..., -1:]

    def _look_up(self, table: Tensor, k: Tensor) -> Tensor:
        """Return the entry ``k`` of each row of a table ``(*batch, N + 1)``."""
        shape = _broadcast_shape(value=k.shape, batch_shape=self.batch_shape)
        index = k.long().expand(shape).unsqueeze(-1)
        return table.expand(*shape, table.shape[-1]).gather(-1, index).squeeze(-1)


class RefinedNormalPB(Distribution):
    r"""The refined normal approximation of a sum of independent Bernoulli labels.

    The parameters broadcast with each other. A value to be scored broadcasts with
    ``batch_shape``, or, if it has more axes, has the batch first: ``(*batch, K)`` scores ``K``
    values of each. Computed in float64; results have the common dtype of the parameters and the
    value. :meth:`cdf`, :meth:`pdf` and :meth:`pmf` can be differentiated.

    Parameters
    ----------
    dim : int or torch.Tensor
        The number of labels, an integer of at least 0: the upper end of every interval.
    loc : float or torch.Tensor
        The mean of the sum.
    scale : float or torch.Tensor
        Its standard deviation, at least 0. With 0 the sum is ``loc`` for certain.
    skew : float or torch.Tensor
        Its skewness. Parameters that are all numbers get torch's default dtype.
    validate_args : bool, optional
        Whether to check the values of the parameters; by default what ``torch.distributions``
        is set to, which is to check.

    Raises
    ------
    TypeError
        If a parameter is neither a real number nor a tensor of real numbers.
    ValueError
        If a parameter is not finite or out of range, or the parameters do not broadcast or are
        on different devices.

    Notes
    -----
    The distribution function at ``k``, with the correction for continuity, is that of [1]_:

    .. math::
        F(x) = \Phi(x) + \tfrac{1}{6} \text{skew}\, (1 - x^2)\, \varphi(x),
        \qquad x = \frac{k + 1/2 - \text{loc}}{\text{scale}}.

    Two things make it a proper one: it is kept within [0, 1], which :math:`F` leaves by a
    little in one tail, and where :math:`F` falls, which it does between two zeros of its
    derivative when ``|skew| > 3``, it keeps its height until :math:`F` has risen above it.

    References
    ----------
    .. [1] Volkova, "A refinement of the central limit theorem for sums of independent random
       indicators", Theory of Probability and its Applications 40, 1996.

    Examples
    --------
    >>> import torch
    >>> from rankseg.distribution import PoissonBinomial, RefinedNormalPB
    >>> probs = torch.linspace(0.1, 0.9, 30) ** 2
    >>> exact, refined = PoissonBinomial(probs), RefinedNormalPB.from_probs(probs)
    >>> exact.cdf(8), refined.cdf(8)
    (tensor(0.3748, dtype=torch.float64), tensor(0.3751, dtype=torch.float64))
    >>> refined.interval(0.05)
    (tensor(4), tensor(14))
    """

    arg_constraints = {  # noqa: RUF012
        "dim": constraints.nonnegative_integer,
        "loc": constraints.real,
        "scale": constraints.greater_than_eq(0),
        "skew": constraints.real,
    }
    support = constraints.real

    def __init__(
        self,
        dim: Tensor | int,
        loc: Tensor | float,
        scale: Tensor | float,
        skew: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        parameters = _parameters({"dim": dim, "loc": loc, "scale": scale, "skew": skew})
        if self._validate_args if validate_args is None else validate_args:
            _check_parameters(parameters)
        parameters["dim"] = parameters["dim"].long()
        shape = _broadcast_shape(**{name: value.shape for name, value in parameters.items()})
        for name, value in parameters.items():
            setattr(self, name, value.expand(shape))
        super().__init__(shape, validate_args=validate_args)

    dim: Tensor
    loc: Tensor
    scale: Tensor
    skew: Tensor

    @classmethod
    def from_probs(cls, probs: Tensor, validate_args: bool | None = None) -> RefinedNormalPB:
        """Approximate ``PoissonBinomial(probs)``: the parameters and the errors are the same."""
        exact = PoissonBinomial(probs, validate_args)
        return cls(probs.shape[-1], exact.mean, exact.stddev, exact.skewness, validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean of the sum that is approximated, ``loc``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of the sum that is approximated, ``scale ** 2``."""
        return self.scale.square()

    def cdf(self, value: Tensor | float) -> Tensor:
        """Return the probability of ``value``, any real number, or less."""
        gap, scale, skew = self._measure(value)
        return proper_cdf(_in_units(gap, scale), skew).to(self._dtype_with(value))

    def pmf(self, value: Tensor | float) -> Tensor:
        """Return ``cdf(value) - cdf(value - 1)``."""
        gap, scale, skew = self._measure(value)
        upper = proper_cdf(_in_units(gap, scale), skew)
        lower = proper_cdf(_in_units(gap - 1, scale), skew)
        return (upper - lower).clamp(min=0).to(self._dtype_with(value))

    def pdf(self, value: Tensor | float) -> Tensor:
        """Return the derivative of :meth:`cdf`."""
        gap, scale, skew = self._measure(value)
        density = proper_pdf(_in_units(gap, scale), skew) / torch.where(scale > 0, scale, 1.0)
        step = torch.where(gap == 0, torch.inf, 0.0)
        return torch.where(scale > 0, density, step).to(self._dtype_with(value))

    @torch.no_grad()
    def icdf(self, p: Tensor | float, max_iter: int = 1000, tol: float = 1e-6) -> Tensor:
        """Return the smallest real number at which :meth:`cdf` reaches ``p``.

        Parameters
        ----------
        p : torch.Tensor or float
            In the open interval (0, 1).
        max_iter : int
            At least 1. No effect: the inverse is exact to the rounding of float64. Programs written
            for rankseg 0.0.8 may pass it.
        tol : float
            Above 0. No effect, like ``max_iter``.
        """
        _check_search(max_iter, tol)
        probability = _values("p", p, self.loc.device)
        _refuse("p", probability, (probability <= 0) | (probability >= 1), "in (0, 1)")
        _, loc, scale, skew = self._aligned("p", probability)
        value = loc - 0.5 + scale * proper_icdf(probability, skew)
        return value.to(self._dtype_with(p))

    @torch.no_grad()
    def interval(self, p: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the first and last integer of an interval that holds all but a mass ``p``.

        Parameters
        ----------
        p : torch.Tensor or float
            The mass left out, in [0, 1], half of it below and half above.

        Returns
        -------
        tuple of torch.Tensor
            int64: with the quantiles ``icdf(p / 2) + 1/2`` and ``icdf(1 - p / 2) + 1/2``, one
            less than the former rounded down and the latter rounded up, moved into
            ``[0, dim]``. With ``p = 0`` they are 0 and ``dim``.
        """
        mass = _values("p", p, self.loc.device)
        _refuse("p", mass, (mass < 0) | (mass > 1), "in [0, 1]")
        dim, loc, scale, skew = self._aligned("p", mass)
        # The upper quantile is minus a lower one of the mirror image: 1 - p / 2 may round to 1.
        low = (loc + scale * proper_icdf(mass / 2, skew)).floor() - 1
        high = (loc - scale * proper_icdf(mass / 2, -skew)).ceil()
        low, high = torch.where(mass > 0, low, 0.0), torch.where(mass > 0, high, dim)
        return low.clamp(min=0).minimum(dim).long(), high.clamp(min=0).minimum(dim).long()

    def expand(
        self, batch_shape: Sequence[int], _instance: RefinedNormalPB | None = None
    ) -> RefinedNormalPB:
        """Return the same distribution with its batch broadcast to ``batch_shape``."""
        new: RefinedNormalPB = self._get_checked_instance(  # type: ignore[no-untyped-call]
            RefinedNormalPB, _instance
        )
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(RefinedNormalPB, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _aligned(self, name: str, value: Tensor) -> list[Tensor]:
        """Return all parameters in float64, with an axis for each that only the value has."""
        extra = value.dim() - len(self.batch_shape)
        shape = self.batch_shape + torch.Size([1] * extra)
        _broadcast_shape(**{name: value.shape, "batch_shape": shape})
        return [getattr(self, key).double().reshape(shape) for key in self.arg_constraints]

    def _measure(self, value: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Return how far ``value + 1/2`` lies above ``loc``; scale and skew to go with it."""
        k = _values("value", value, self.loc.device)
        _, loc, scale, skew = self._aligned("value", k)
        return k + 0.5 - loc, scale, skew

    def _dtype_with(self, value: object) -> torch.dtype:
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.promote_types(self.loc.dtype, value.dtype)
        return self.loc.dtype


def _in_units(gap: Tensor, scale: Tensor) -> Tensor:
    """Divide, with the sign of the gap times infinity where the scale is 0."""
    step = torch.where(gap >= 0, torch.inf, -torch.inf)
    return torch.where(scale > 0, gap / torch.where(scale > 0, scale, 1.0), step)


def _parameters(given: dict[str, Any]) -> dict[str, Tensor]:
    """Return the parameters as tensors on one device; all but ``dim`` of one floating dtype."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Tensor | numbers.Real):
            raise TypeError(f"{name} must be a real number or a tensor, got {shown(value)}")
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    devices = {name: str(value.device) for name, value in tensors.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"the parameters must be on one device, got {devices}")
    for name, value in tensors.items():
        _check_real(name, value)
    floating = [value.dtype for value in tensors.values() if value.is_floating_point()]
    common = functools.reduce(torch.promote_types, floating or [torch.get_default_dtype()])
    device = next((value.device for value in tensors.values()), None)
    dim = given["dim"]
    if not isinstance(dim, Tensor):
        whole = isinstance(dim, numbers.Integral)
        dim = torch.tensor(integer("dim", dim) if whole else _float(dim), device=device)
    rest = {name: given[name] for name in given if name != "dim"}
    return {"dim": dim} | {
        name: torch.as_tensor(
            value if isinstance(value, Tensor) else _float(value), dtype=common, device=device
        )
        for name, value in rest.items()
    }


def _float(value: Any) -> float:
    """Return a real number as a float, infinity for what no float can hold."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value > 0 or -1)


def _check_real(name: str, values: Tensor) -> None:
    check_dense(name, values)
    if values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, got {describe(values)}")


def _check_parameters(parameters: dict[str, Tensor]) -> None:
    """Raise for the first parameter with a value that is not allowed."""
    allowed = {
        "dim": "an integer, at least 0",
        "loc": "finite",
        "scale": "finite and at least 0",
        "skew": "finite",
    }
    for name, values in parameters.items():
        wrong = ~values.isfinite()
        if name == "dim":
            wrong = wrong | (values != values.floor())
        if name in ("dim", "scale"):
            wrong = wrong | (values < 0)
        _refuse(name, values, wrong, allowed[name])


def _check_search(max_iter: object, tol: object) -> None:
    if integer("max_iter", max_iter) < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter!r}")
    if number("tol", tol, 0.0, math.inf) == 0:
        raise ValueError(f"tol must be above 0, got {tol!r}")


def _values(name: str, given: object, device: torch.device) -> Tensor:
    """Return values to be scored, a tensor or what NumPy makes an array of, in float64."""
    check_dense(name, given)
    values = given
    if not isinstance(values, Tensor):
        is_number = isinstance(values, numbers.Real) and not isinstance(values, bool)
        array = np.asarray(_float(values) if is_number else values)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{name} must be a real number or a tensor, got {shown(given)}")
        values = torch.tensor(array.astype(np.float64), device=device)
    _check_real(name, values)
    values = values.double()
    _refuse(name, values, values.isnan(), "a number")
    return values


def _refuse(name: str, values: Tensor, wrong: Tensor, allowed: str) -> None:
    if wrong.any():
        raise ValueError(f"{name} must be {allowed}, got {values[wrong][0].item()!r}")


def _broadcast_shape(**shapes: torch.Size) -> torch.Size:
    try:
        shape: torch.Size = torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        named = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"these shapes must broadcast, got {named}") from None
    return shape
