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

BACKENDS = ("torch", "numba", "triton")


def choose(device: torch.device, from_logits: str | None = None) -> tuple[ModuleType, str]:
    """Return the backend for maps on ``device`` and the reason it was chosen.

    The environment variable ``RANKSEG_BACKEND`` names one explicitly (``torch``, ``numba`` or
    ``triton``); a backend that was named and cannot run is an error, never replaced by another.

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
    refusals = {"numba": _why_not_numba(device), "triton": _why_not_triton(device, from_logits)}
    if refusals.get(named):
        raise RuntimeError(f"RANKSEG_BACKEND={named} cannot run here: {refusals[named]}")
    if named == "torch":
        return torch_reference, "named by RANKSEG_BACKEND"
    if not refusals["numba"]:
        from rankseg._backends import numba_cpu  # numba takes half a second to load

        return numba_cpu, "compiled kernels for CPU tensors"
    if not refusals["triton"]:
        from rankseg._backends import triton_gpu  # and Triton is not everywhere

        return triton_gpu, "compiled kernels for GPU tensors"
    return torch_reference, refusals["numba" if device.type == "cpu" else "triton"]


def _why_not_numba(device: torch.device) -> str:
    if device.type != "cpu":
        return f"its kernels run on the CPU, the tensor is on {device}"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return ""


def _why_not_triton(device: torch.device, from_logits: str | None) -> str:
    if device.type != "cuda":
        return f"its kernels run on CUDA devices, the tensor is on {device}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if from_logits is not None:
        return "its kernels read probabilities, not logits"
    return ""
