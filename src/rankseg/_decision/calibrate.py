"""Calibrated probabilities of maps."""

from __future__ import annotations

import torch

from rankseg._decision.calibration import Calibration
from rankseg._decision.options import parse
from rankseg._decision.problem import Maps, Problem

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(
    probs: Maps,
    calibration: Calibration,
    valid: Maps | None = None,
    *,
    from_logits: str | None = None,
) -> Maps:
    """Apply a calibration.

    Parameters
    ----------
    probs : torch.Tensor or numpy.ndarray
        ``(batch, classes, *spatial)`` probabilities, or logits; as for :class:`rankseg.RankSEG`.
    calibration : Calibration or path
        For as many classes.
    valid : torch.Tensor or numpy.ndarray, optional
        ``(batch, *spatial)`` boolean. Pixels outside become 0.
    from_logits : {'softmax', 'sigmoid'}, optional
        What makes probabilities of the maps; by default they hold such.

    Returns
    -------
    torch.Tensor or numpy.ndarray
        Probabilities of the kind, shape and device that came in, float32 or wider.

    Raises
    ------
    TypeError, ValueError
        As :class:`rankseg.RankSEG` and its call.

    Examples
    --------
    >>> import numpy as np
    >>> from rankseg.calibration import Calibration, calibrate
    >>> hot = Calibration("softmax", [0.5, 0.5], [0.0, 0.0], "temperature")
    >>> calibrate(np.array([[[0.9], [0.1]]]), hot)
    array([[[0.75],
            [0.25]]])
    """
    settings = parse(
        "dice", 0.0, "multilabel", "auto", 0.0, {}, from_logits, calibration=calibration
    )
    problem = Problem.parse(probs, valid, settings)
    result: Maps = problem.restore(problem.calibrated().probs)
    return result
