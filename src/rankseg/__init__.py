"""rankseg: segmentation masks that maximise expected Dice or IoU; the line that replaces argmax."""

import importlib
from typing import TYPE_CHECKING

from rankseg._common import fork
from rankseg._version import __version__

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

_MODULES = {
    "ClassProfile": "rankseg._decision.class_profile",
    "Decision": "rankseg._decision.decision",
    "RankSEG": "rankseg._decision.module",
    "RefinedNormal": "rankseg.distribution",  # not in __all__: a star import would need scipy
    "RefinedNormalPB": "rankseg.distribution",
    "calibration": "rankseg",
    "distribution": "rankseg",
    "expected_score": "rankseg._decision.score",
    "functional": "rankseg",
    "metrics": "rankseg",
    "rankdice_ba": "rankseg.functional",
    "rankseg_rma": "rankseg.functional",
}
"""The module or package that each name is in."""

fork.register()  # now, for children that are forked before any of these modules is imported

if TYPE_CHECKING:
    from rankseg import calibration as calibration
    from rankseg import distribution, functional, metrics
    from rankseg._decision.class_profile import ClassProfile
    from rankseg._decision.decision import Decision
    from rankseg._decision.module import RankSEG
    from rankseg._decision.score import expected_score
    from rankseg.distribution import RefinedNormal as RefinedNormal
    from rankseg.distribution import RefinedNormalPB
    from rankseg.functional import rankdice_ba, rankseg_rma
else:

    def __getattr__(name: str) -> object:
        # Imported at first use: the command line must answer Ctrl-C before torch is imported.
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if _MODULES[name] == __name__:
            return importlib.import_module(f"{__name__}.{name}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
