"""Better probabilities before the decision: RankSEG can only be as good as the numbers it is given.

`reliability` measures how far they can be taken at their word; `prior_correction` undoes the class
weights that a network was trained with; `fit` makes a `Calibration` of labelled maps, which is
saved as a small file and taken by ``RankSEG(calibration=...)``; `cross_validate` tells what it
changes on maps that it was not fitted to, the decisions included.
"""

from rankseg._decision.calibrate import calibrate
from rankseg._decision.calibration import Calibration
from rankseg._decision.presence_model import PresenceModel
from rankseg._decision.prior_correction import prior_correction
from rankseg.calibration.fitting import CrossValidation, cross_validate, fit
from rankseg.calibration.presence_validation import PresenceValidation, cross_validate_presence
from rankseg.calibration.reliability import Reliability, reliability

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
