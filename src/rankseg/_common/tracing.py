"""Older tracers of torch, whose graphs would keep the decision of the example as a constant."""

from __future__ import annotations

import sys

import torch
from torch.fx import Proxy

__all__ = ["REFUSAL", "refuse_constants"]

REFUSAL = (
    "{} cannot record a decision: what compiled kernels and Python compute would be a constant of "
    "its graph, the same for every image; use torch.compile or torch.export.export, or for ONNX "
    "rankseg.integration.onnx.export or torch.onnx.export(..., dynamo=True)"
)


def refuse_constants(value: object) -> None:
    """Raise if a tracer that records torch operations only is recording this call.

    Compiled kernels and what Python computes from values are no torch operations. Such a tracer
    takes their results for constants. ``torch.compile`` and ``torch.export`` say that they
    compile, and get a graph of torch operations instead.

    Raises
    ------
    RuntimeError
        If ``value`` stands for a tensor of ``torch.fx.symbolic_trace``, or ``torch.jit.trace``,
        ``torch.onnx.export(..., dynamo=False)`` or ``make_fx`` records.
    """
    if torch.compiler.is_compiling():
        return
    if isinstance(value, Proxy):
        tracer = "torch.fx.symbolic_trace"
    elif torch.onnx.is_in_onnx_export():
        tracer = "torch.onnx.export(..., dynamo=False)"
    elif torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        tracer = "torch.jit.trace"
    elif _is_recorded_by_make_fx():
        tracer = "make_fx"
    else:
        return
    raise RuntimeError(REFUSAL.format(tracer))


def _is_recorded_by_make_fx() -> bool:
    # Who records has loaded the module, which takes long to load.
    module = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return module is not None and module.get_proxy_mode() is not None
