"""The operations on whole probability maps, once per kind of hardware.

Every backend is a module with the same functions on ``(batch, classes, *spatial)`` maps; the
torch one is the reference. :func:`choose` is the only place that asks about hardware.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import torch

from rankseg._backends import torch_reference

__all__ = ["choose"]

BACKENDS = ("torch", "numba")


def choose(device: torch.device) -> tuple[ModuleType, str]:
    """Return the backend for tensors on ``device`` and the reason it was chosen.

    The environment variable ``RANKSEG_BACKEND`` names one explicitly (``torch`` or ``numba``);
    a backend that was named and cannot run is an error, never replaced by another.

    Raises
    ------
    ValueError
        If ``RANKSEG_BACKEND`` is not the name of a backend.
    RuntimeError
        If the backend it names cannot run here.
    """
    if torch.compiler.is_compiling():
        return torch_reference, "a traced graph can hold torch operations only"
    named = os.environ.get("RANKSEG_BACKEND", "").strip().lower()
    if named and named not in BACKENDS:
        raise ValueError(f"RANKSEG_BACKEND must be one of {list(BACKENDS)}, got {named!r}")
    refusal = _why_not_numba(device)
    if named == "numba" and refusal:
        raise RuntimeError(f"RANKSEG_BACKEND=numba cannot run here: {refusal}")
    if named == "torch" or refusal:
        return torch_reference, refusal or "named by RANKSEG_BACKEND"
    from rankseg._backends import numba_cpu  # numba takes half a second to load

    return numba_cpu, "compiled kernels for CPU tensors"


def _why_not_numba(device: torch.device) -> str:
    if device.type != "cpu":
        return f"its kernels run on the CPU, the tensor is on {device}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return ""
