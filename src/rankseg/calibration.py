"""Better probabilities before the decision: RankSEG can only be as good as the numbers it is given.

`reliability` measures how far they can be taken at their word; `prior_correction` undoes the class
weights that a network was trained with; `fit` makes a `Calibration` of labelled maps, which is
saved as a small file and taken by ``RankSEG(calibration=...)``; `cross_validate` tells what it
changes on maps that it was not fitted to, the decisions included.
"""

from rankseg._calibrate import calibrate
from rankseg._calibration import Calibration
from rankseg._fit import CrossValidation, cross_validate, fit
from rankseg._presence import PresenceModel
from rankseg._presence_validation import PresenceValidation, cross_validate_presence
from rankseg._prior_correction import prior_correction
from rankseg._reliability import Reliability, reliability

__all__ = [
    "Calibration",
    "CrossValidation",
    "PresenceModel",
    "PresenceValidation",
    "Reliability",
    "calibrate",
    "cross_validate",
    "cross_validate_presence",
    "fit",
    "prior_correction",
    "reliability",
]
