"""The operations on whole probability maps, once per kind of hardware.

Every backend is a module with the same functions on ``(batch, classes, *spatial)`` maps; the
torch one is the reference. :func:`choose` is the only place that asks about hardware.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from types import ModuleType

import torch

from rankseg._backends import native, torch_reference

__all__ = ["choose"]

BACKENDS = ("torch", "native", "triton")


def choose(device: torch.device, from_logits: str | None = None) -> tuple[ModuleType, str]:
    """Return the backend for maps on ``device`` and the reason it was chosen.

    The environment variable ``RANKSEG_BACKEND`` names one explicitly (``torch``, ``native`` or
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
    if named == "torch":
        return torch_reference, "named by RANKSEG_BACKEND"
    no_native = _why_not_native(device)
    if not no_native and named != "triton":
        return native, "compiled kernels for CPU tensors"
    no_triton = _why_not_triton(device, from_logits)
    if not no_triton and named != "native":
        from rankseg._backends import triton_gpu  # Triton is not everywhere

        return triton_gpu, "compiled kernels for GPU tensors"
    if named:
        refusal = no_native if named == "native" else no_triton
        raise RuntimeError(f"RANKSEG_BACKEND={named} cannot run here: {refusal}")
    return torch_reference, no_native if device.type == "cpu" else no_triton


def _why_not_native(device: torch.device) -> str:
    if device.type != "cpu":
        return f"its kernels run on the CPU, the tensor is on {device}"
    return ""


def _why_not_triton(device: torch.device, from_logits: str | None) -> str:
    if device.type != "cuda":
        return f"its kernels run on CUDA devices, the tensor is on {device}"
    if not _is_installed("triton"):
        return "triton is not installed"
    if from_logits is not None:
        return "its kernels read probabilities, not logits"
    return ""


@functools.cache  # to look for it takes as long as deciding a small map
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
