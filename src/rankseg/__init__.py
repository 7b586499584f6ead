"""rankseg: segmentation masks that maximise expected Dice or IoU; the line that replaces argmax."""

from rankseg import calibration, functional, metrics
from rankseg._api import RankSEG
from rankseg._class_profile import ClassProfile
from rankseg._version import __version__
from rankseg.functional import rankseg_rma

__all__ = [
    "ClassProfile",
    "RankSEG",
    "__version__",
    "calibration",
    "functional",
    "metrics",
    "rankseg_rma",
]
