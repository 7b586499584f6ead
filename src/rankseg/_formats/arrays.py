"""Arrays as numerical libraries store them: npy, npz, pt and safetensors."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.optional import require
from rankseg._files.whole import write_whole
from rankseg._formats.common import Names, Stored, as_tensor

__all__ = ["read_npy", "read_npz", "read_pt", "read_safetensors", "refuse_appended", "write_npy"]


def read_npy(path: Path, names: Names) -> Stored:
    """Read the array into memory: a mapped file that is cut short would end the process."""
    with path.open("rb") as content:
        array = np.lib.format.read_array(content, allow_pickle=False)
        _refuse_more(bool(content.read(1)))
    return Stored(as_tensor(array))


def read_npz(path: Path, names: Names) -> Stored:
    if not zipfile.is_zipfile(path):  # numpy would tell users to let the file run code
        raise ValueError("it is damaged, or was not written by numpy.savez")
    refuse_appended(path)
    with path.open("rb") as content, np.load(content) as file:  # numpy leaves a broken one open
        return Stored(as_tensor(file[names.pick(file.files)]))


def read_pt(path: Path, names: Names) -> Stored:
    """Read a tensor, or one tensor of a dictionary, from a file of ``torch.save``.

    Code stored in the file is never executed: torch loads weights only.
    """
    is_zip = zipfile.is_zipfile(path)
    try:
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
            more = _is_appended(path) if is_zip else bool(file.read(1))
    except MemoryError:
        raise
    except Exception as error:  # of any type, where pickled bytes are damaged
        raise ValueError(_why_not(path, str(error))) from error
    _refuse_more(more)
    if isinstance(content, Mapping):
        tensors = {str(key): one for key, one in content.items() if isinstance(one, Tensor)}
        content = tensors[names.pick(list(tensors))]
    if not isinstance(content, Tensor):
        raise ValueError(f"it must hold a tensor or a dictionary of them, got {type(content)}")
    if content.is_nested or content.is_meta or content.layout != torch.strided:
        kind = "nested" if content.is_nested else "meta" if content.is_meta else content.layout
        raise ValueError(
            f"it must hold a dense tensor with its values, got a {kind} one: store "
            "maps.to_dense(), or one file for each image"
        )
    return Stored(content.detach())


def _refuse_more(more: bool) -> None:
    """Refuse a file that holds several arrays saved one after another: only one would be read."""
    if more:
        raise ValueError(
            "more follows the first array: it must hold what one call saved. Write one file for "
            "each image"
        )


def refuse_appended(path: Path) -> None:
    """Refuse a file of several zip archives one after another: readers see only the last."""
    _refuse_more(_is_appended(path))


def _is_appended(path: Path) -> bool:
    """Tell whether a zip archive follows other bytes, as after a second save to an open file."""
    with zipfile.ZipFile(path) as archive:
        return min((one.header_offset for one in archive.infolist()), default=0) > 0


def _why_not(path: Path, reason: str) -> str:
    """Say why torch does not load a file: its words tell users to let the file run code."""
    if "TorchScript" in reason:
        return f"it holds a network, not maps: pass images, and --model {path.name}"
    if "weights_only" in reason or "Weights only" in reason:
        return (
            "it is damaged, or holds Python objects beside tensors, which may run code and are "
            "not loaded: store the tensor alone, torch.save(maps, path)"
        )
    return "it is damaged, was cut short, or was not written by torch.save"


def read_safetensors(path: Path, names: Names) -> Stored:
    """Read the file into memory, as `read_npy` does; safetensors maps what it opens itself."""
    load = require("safetensors.torch", "files", "reading .safetensors").load
    tensors: dict[str, Tensor] = load(path.read_bytes())
    return Stored(tensors[names.pick(list(tensors))])


def write_npy(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    content = io.BytesIO()
    np.save(content, labels)
    write_whole(path, content.getvalue())
