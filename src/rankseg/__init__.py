"""rankseg: segmentation masks that maximise expected Dice or IoU; the line that replaces argmax."""

import importlib
from typing import TYPE_CHECKING

from rankseg import distribution, functional, metrics
from rankseg._api import RankSEG
from rankseg._class_profile import ClassProfile
from rankseg._decision import Decision
from rankseg._score import expected_score
from rankseg._version import __version__
from rankseg.distribution import RefinedNormalPB
from rankseg.functional import rankdice_ba, rankseg_rma

__all__ = [
    "ClassProfile",
    "Decision",
    "RankSEG",
    "RefinedNormalPB",
    "__version__",
    "calibration",
    "distribution",
    "expected_score",
    "functional",
    "metrics",
    "rankdice_ba",
    "rankseg_rma",
]


if TYPE_CHECKING:
    from rankseg import calibration as calibration
    from rankseg.distribution import RefinedNormal as RefinedNormal
else:

    def __getattr__(name: str) -> object:
        # Not in __all__: a star import would load scipy, and fail without it.
        if name == "RefinedNormal":
            return distribution.RefinedNormal
        if name == "calibration":  # who only decides need not wait for it
            return importlib.import_module("rankseg.calibration")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
