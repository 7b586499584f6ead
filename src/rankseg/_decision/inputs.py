"""Arrays and tensors as callers give them: taken as plain tensors, or refused with the cure."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.masked import MaskedTensor

from rankseg._common.arguments import describe, viewable
from rankseg._common.tracing import is_traced, refuse_constants
from rankseg._formulas.records import ULPS_ABOVE_ONE

__all__ = ["as_tensor", "check_dense", "check_probabilities", "dtype_cure"]

HOLDERS = ("probs", "probabilities", "logits", "out", "semantic_seg", "pred_masks", "masks")
"""Names under which the outputs of models hold maps, the likelier ones first."""

CONVERTIBLE = ("jax", "jaxlib", "mlx", "paddle", "tensorflow")
"""Libraries whose arrays ``numpy.asarray`` reads."""

LARGEST = {torch.uint8: 255, torch.uint16: 65535}
"""What stands for a probability of 1 in maps stored as integers."""


def as_tensor(name: str, value: object) -> Tensor:
    """View an array or tensor as a plain tensor without gradient.

    Raises
    ------
    TypeError
        If it is anything else, or a tensor whose values are not to be had one by one.
    """
    refuse_constants(value)
    _refuse_masked(name, value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        return torch.from_numpy(viewable(value))
    if isinstance(value, Tensor):
        return _plain(name, value)
    cure = _cure(name, value)
    raise TypeError(
        f"{name} must be a dense torch.Tensor or a numpy.ndarray of real numbers, "
        f"got {_full_type(value)}{cure and '; '}{cure}"
    )


def check_dense(name: str, value: object) -> None:
    """Refuse an array or tensor whose values are not to be had one by one, and change nothing."""
    _refuse_masked(name, value)
    if isinstance(value, Tensor):
        _refuse_kind(name, *_kind(name, value))


def dtype_cure(name: str, dtype: torch.dtype) -> str:
    """Say what to do about maps of a dtype that holds no probabilities."""
    if dtype in LARGEST:
        return f"if they store 0 to 1 as 0 to {LARGEST[dtype]}, pass {name} / {LARGEST[dtype]}"
    if dtype.is_floating_point:
        return f"pass {name}.float()"
    if dtype.is_complex:
        return "probabilities are real numbers"
    return "labels and masks hold no probabilities: pass the maps that they were decided from"


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor without gradient or subclass, if it is one of values in memory."""
    kind, cure = _kind(name, tensor)
    if not kind:
        plain = tensor.detach().resolve_neg()
        if is_traced():
            return plain
        # A subclass (MONAI's MetaTensor, say) would wrap every step of the work.
        plain = plain if type(plain) is Tensor else plain.as_subclass(Tensor)
        if _has_memory(plain):
            return plain
        kind, cure = _without_memory(tensor)
    _refuse_kind(name, kind, cure)
    return tensor


def _refuse_masked(name: str, value: object) -> None:
    masked_arrays = sys.modules.get("numpy.ma")  # who passes a masked array has loaded it
    is_masked_array = masked_arrays and isinstance(value, masked_arrays.MaskedArray)
    if is_masked_array or isinstance(value, MaskedTensor):
        raise TypeError(
            f"{name} must not be a masked array; pass its data, and leave pixels out with valid= "
            "where the function takes it"
        )


def _refuse_kind(name: str, kind: str, cure: str) -> None:
    if kind:
        raise TypeError(
            f"{name} must be a dense torch.Tensor or a numpy.ndarray of real numbers, "
            f"got a {kind} tensor; {cure}"
        )


def _kind(name: str, tensor: Tensor) -> tuple[str, str]:
    """Return what is unusual about a tensor, and what to do about it; nothing for most."""
    if tensor.is_nested:
        return "nested", (
            f"pass torch.nested.to_padded_tensor({name}, 0.0), and leave the padding out with "
            "valid= where the function takes it; or pass its images one by one"
        )
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch."), f"pass {name}.to_dense()"
    if tensor.is_quantized:
        return "quantized", f"pass {name}.dequantize()"
    if is_traced():
        return "", ""
    if tensor.is_meta:
        return "meta", "it has a shape and no values: move the model and its input to a device"
    if any(getattr(tensor, "names", ())):
        return "named", f"pass {name}.rename(None)"
    return "", ""


def _has_memory(tensor: Tensor) -> bool:
    """Return whether the values can be read: not in a transform, and not if they are fake."""
    try:
        return tensor.untyped_storage().device != torch.device("meta")
    except (RuntimeError, NotImplementedError):
        return False


def _without_memory(tensor: Tensor) -> tuple[str, str]:
    """Return what a tensor without memory is, and what to do about it."""
    kind = type(tensor).__name__
    if kind != "Tensor":
        return kind, "it holds no values of its own: pass the plain tensor behind it"
    return "functorch", (
        "its values cannot be read inside torch.func.vmap, grad and the like: decide outside of "
        "the transform, where the first axis is the batch"
    )


def _full_type(value: object) -> str:
    """Return the type of a value, with the library that it is from."""
    library = type(value).__module__.partition(".")[0]
    known = library in ("builtins", "numpy", "torch") or isinstance(value, np.ndarray)
    return describe(value) if known else f"{library}.{describe(value)}"


def _cure(name: str, value: object) -> str:
    """Say how to get an array out of a value, if it is of a kind that is often given."""
    library = type(value).__module__.partition(".")[0]
    if isinstance(value, np.ndarray):
        return _array_cure(name, value)
    if isinstance(value, list | tuple):
        return _sequence_cure(name, value)
    if isinstance(value, str | os.PathLike):
        return "read the file first, or decide files with rankseg.prediction.predict_files"
    if isinstance(value, nn.Module):
        return "call the model, and pass what it returns"
    if library == "PIL":
        return "an image holds no probabilities: pass what a network makes of it"
    holder = _holder(name, value)
    if holder:
        return holder
    if library in CONVERTIBLE or hasattr(value, "__array__"):
        return f"pass numpy.asarray({name})"
    return f"pass torch.from_dlpack({name})" if hasattr(value, "__dlpack__") else ""


def _array_cure(name: str, array: np.ndarray) -> str:
    if array.dtype == object:
        return (
            f"it holds Python objects: join arrays of one shape with numpy.stack({name}), and "
            "decide those of several shapes one by one"
        )
    return f"pass {name}.astype('float64')" if array.dtype.kind == "f" else ""


def _sequence_cure(name: str, values: list[object] | tuple[object, ...]) -> str:
    """Say how maps in a list or tuple become a batch."""
    first = values[0] if values else None
    if isinstance(first, np.ndarray | np.number):
        join = f"numpy.stack({name})"
    elif isinstance(first, Tensor):
        join = f"torch.stack({name})"
    else:
        join = f"torch.stack({name}) if it holds tensors, torch.tensor({name}) if numbers"
    one = f", or {name}[0] if a model returned it" if isinstance(values, tuple) else ""
    return f"pass {join}{one}"


def _holder(name: str, value: object) -> str:
    """Say which field of a model's output to pass."""
    fields = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    if "class_queries_logits" in fields:
        return "let rankseg.integration.transformers.postprocess decide it"
    found = [field for field in HOLDERS if field in fields]
    if isinstance(value, Mapping):
        given = f"it has the keys {list(fields)}"
        return f"pass {name}[{found[0]!r}]" if found else f"{given}: pass the maps under one"
    return f"pass {name}.{found[0]}" if found else ""


def check_probabilities(name: str, maps: Tensor) -> None:
    """Raise a ValueError if a value of floating maps is no probability."""
    low, high = (end.item() for end in torch.aminmax(maps))
    if not 0 <= low <= high <= 1 + ULPS_ABOVE_ONE * torch.finfo(maps.dtype).eps:
        raise ValueError(
            f"{name} must be probabilities in [0, 1], got [{low:g}, {high:g}]; apply softmax or "
            "sigmoid to logits first"
        )
