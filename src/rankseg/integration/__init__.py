"""Frameworks: one module for each, which only converts; each is imported when it is first used.

An adapter turns the outputs of a framework into probabilities at the right size, lets
:class:`rankseg.RankSEG` decide, and gives the decision the framework's own shape, dtype and labels.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankseg.integration import mmseg as mmseg
    from rankseg.integration import monai as monai
    from rankseg.integration import nnunet as nnunet
    from rankseg.integration import onnx as onnx
    from rankseg.integration import paddleseg as paddleseg
    from rankseg.integration import sam as sam
    from rankseg.integration import transformers as transformers
else:
    MODULES = ("mmseg", "monai", "nnunet", "onnx", "paddleseg", "sam", "transformers")

    def __getattr__(name: str) -> object:
        if name in MODULES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
