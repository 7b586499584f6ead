"""How a call runs: operation by operation, or recorded into a graph by a tracer of torch.

The one place outside of the backends that asks. A graph holds torch operations for any values and
sizes, so code that a graph holds must not look at values, use NumPy or fill a cache.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.fx import Proxy

__all__ = ["REFUSAL", "is_on_host", "is_traced", "kept", "not_in_graphs", "refuse_constants"]

P = ParamSpec("P")
T = TypeVar("T")

REFUSAL = (
    "{} cannot record a decision: what compiled kernels and Python compute would be a constant of "
    "its graph, the same for every image; use torch.compile or torch.export.export, or for ONNX "
    "rankseg.integration.onnx.export or torch.onnx.export(..., dynamo=True)"
)


# torch's function itself: torch.compile would record a function of ours that calls it, and answer
# True, even where it runs the calling function without recording it.
is_traced: Callable[[], bool] = torch.compiler.is_compiling
"""Return whether ``torch.compile`` or ``torch.export`` records this call into a graph."""


def is_on_host(tensor: Tensor) -> bool:
    """Return whether NumPy can view the values of a tensor: it is on the CPU, and not traced."""
    return tensor.device.type == "cpu" and not is_traced()


def not_in_graphs(function: Callable[P, T], reason: str) -> Callable[P, T]:
    """Return the function in a form that no graph records.

    ``torch.compile`` calls it between two graphs.

    Raises
    ------
    RuntimeError
        With ``reason`` as its text, if the function would be recorded: in a full graph.
    """
    if is_traced():
        raise RuntimeError(reason)
    if "torch._dynamo" not in sys.modules:  # takes long to import, and nothing records without it
        return function
    unrecorded: Callable[P, T] = torch.compiler.disable(function)
    return unrecorded


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function that makes constant tensors keep up to ``most`` of its results.

    What was kept is a constant in an exported graph. ``torch.compile`` makes it in the graph. No
    tensor of a graph is kept.
    """

    def keep(make: Callable[P, T]) -> Callable[P, T]:
        results: dict[tuple[object, ...], T] = {}

        @functools.wraps(make)
        def look_up(*args: P.args, **options: P.kwargs) -> T:
            assert not options, "results are kept by position"
            found = None if torch.compiler.is_dynamo_compiling() else results.get(args)
            if found is not None:
                return found
            made = make(*args, **options)
            if not is_traced():
                if len(results) >= most:
                    results.clear()
                results[args] = made
            return made

        return look_up

    return keep


def refuse_constants(value: object) -> None:
    """Raise if a tracer that records torch operations only is recording this call.

    Compiled kernels and what Python computes from values are no torch operations. Such a tracer
    takes their results for constants. For ``torch.compile`` and ``torch.export`` see `is_traced`.

    Raises
    ------
    RuntimeError
        If ``value`` stands for a tensor of ``torch.fx.symbolic_trace``, or ``torch.jit.trace``,
        ``torch.onnx.export(..., dynamo=False)`` or ``make_fx`` records.
    """
    if is_traced():
        return
    if isinstance(value, Proxy):
        tracer = "torch.fx.symbolic_trace"
    elif _is_exported_to_onnx():
        tracer = "torch.onnx.export(..., dynamo=False)"
    elif torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        tracer = "torch.jit.trace"
    elif _is_recorded_by_make_fx():
        tracer = "make_fx"
    else:
        return
    raise RuntimeError(REFUSAL.format(tracer))


# Whoever records has loaded the module that says so. Each takes long to load.


def _is_exported_to_onnx() -> bool:
    module = sys.modules.get("torch.onnx")
    return module is not None and module.is_in_onnx_export()


def _is_recorded_by_make_fx() -> bool:
    module = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return module is not None and module.get_proxy_mode() is not None
