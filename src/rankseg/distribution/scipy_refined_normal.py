"""The refined normal as a SciPy distribution: the one module that needs scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import simpson
from scipy.stats import rv_continuous
from torch import Tensor

from rankseg._common.public import public
from rankseg._formulas.refined_normal import FAR, proper_cdf, proper_icdf, proper_pdf

__all__ = ["RefinedNormal"]

MOMENT_NODES = 20_001
"""Nodes of the integral for a moment: right to about 1e-7, as SciPy's own."""


@public("rankseg.distribution")
class RefinedNormal(rv_continuous):  # type: ignore[misc]  # scipy has no types
    r"""The standardised refined normal, as a SciPy distribution with the shape ``skew``.

    Make an instance, then use it as any distribution of ``scipy.stats``: ``cdf``, ``pdf``,
    ``ppf``, ``interval`` and the rest take ``skew`` after the value, then ``loc`` and ``scale``.
    Needs ``pip install 'rankseg[stats]'``.

    Parameters
    ----------
    name : str, optional
        And the other parameters of ``scipy.stats.rv_continuous``, none of which is needed.

    Notes
    -----
    The distribution function is that of [1]_,

    .. math:: F(x) = \Phi(x) + \tfrac{1}{6} \text{skew}\, (1 - x^2)\, \varphi(x),

    made a proper one as in :class:`rankseg.distribution.RefinedNormalPB`, to which this is
    related by ``RefinedNormalPB(dim, loc, scale, skew).cdf(k)`` =
    ``RefinedNormal().cdf(k + 0.5, skew, loc, scale)``. ``skew`` may be any finite number; it is
    the skewness of ``F`` itself, of which the proper distribution has nearly as much.

    References
    ----------
    .. [1] Volkova, "A refinement of the central limit theorem for sums of independent random
       indicators", Theory of Probability and its Applications 40, 1996.

    Examples
    --------
    >>> from rankseg.distribution import RefinedNormal
    >>> refined = RefinedNormal(name="refined_normal")
    >>> refined.cdf([-1.0, 0.0, 1.0], 0.3).round(4)
    array([0.1587, 0.5199, 0.8413])
    >>> volume = refined(0.3, loc=3.0, scale=1.5)
    >>> float(volume.cdf(volume.ppf(0.9)).round(6))
    0.9
    """

    def _argcheck(self, skew: ArrayLike) -> Any:
        return np.isfinite(skew)

    def _cdf(self, x: ArrayLike, skew: ArrayLike) -> Any:
        return proper_cdf(_tensor(x), _tensor(skew)).numpy()

    def _pdf(self, x: ArrayLike, skew: ArrayLike) -> Any:
        return proper_pdf(_tensor(x), _tensor(skew)).numpy()

    def _ppf(self, q: ArrayLike, skew: ArrayLike) -> Any:
        return proper_icdf(_tensor(q), _tensor(skew)).numpy()

    def _munp(self, n: int, skew: ArrayLike) -> Any:
        # By parts: n times the integral of x^(n - 1) (1 - F(x) + (-1)^n F(-x)) from 0. scipy
        # would ask for thousands of quantiles, one by one.
        x = np.linspace(0, FAR, MOMENT_NODES)
        skews = np.asarray(skew)[..., None]
        tails = 1 - self._cdf(x, skews) + (-1) ** n * self._cdf(-x, skews)
        return n * simpson(x ** (n - 1) * tails, x=x)


def _tensor(values: ArrayLike) -> Tensor:
    # A copy: scipy hands out read-only views, which torch warns of.
    return torch.from_numpy(np.array(values, dtype=np.float64))
