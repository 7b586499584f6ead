"""Arrays as numerical libraries store them: npy, npz, pt, safetensors and zarr."""

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

from rankseg._files import write_folder_whole, write_whole
from rankseg._formats._common import Names, as_tensor
from rankseg.integration._common import require

__all__ = ["read_npy", "read_npz", "read_pt", "read_safetensors", "read_zarr"]
__all__ += ["write_npy", "write_zarr"]


def read_npy(path: Path, names: Names) -> Tensor:
    """Map the array into memory: it is read where it is used."""
    return as_tensor(np.load(path, mmap_mode="r"))


def read_npz(path: Path, names: Names) -> Tensor:
    with path.open("rb") as content, np.load(content) as file:  # numpy leaves a broken one open
        return as_tensor(file[names.pick(file.files)])


def read_pt(path: Path, names: Names) -> Tensor:
    """Read a tensor or a dictionary of tensors, and run nothing that the file may ask for."""
    mapped = zipfile.is_zipfile(path)  # all but files of very old releases
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if isinstance(content, Mapping):
        tensors = {str(key): one for key, one in content.items() if isinstance(one, Tensor)}
        content = tensors[names.pick(list(tensors))]
    if not isinstance(content, Tensor):
        raise ValueError(f"it must hold a tensor or a dictionary of them, got {type(content)}")
    return content.detach()


def read_safetensors(path: Path, names: Names) -> Tensor:
    safetensors = require("safetensors", "files", "reading .safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(names.pick(list(file.keys())))
        return tensor


def read_zarr(path: Path, names: Names) -> Tensor:
    """Read an array, or one of the arrays of a group."""
    zarr = require("zarr", "files", "reading .zarr")
    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Group):
        node = node[names.pick(sorted(node.array_keys()))]
    return as_tensor(np.asarray(node[...]))


def write_npy(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    content = io.BytesIO()
    np.save(content, labels)
    write_whole(path, content.getvalue())


def write_zarr(path: Path, labels: NDArray[Any], geometry: Any, masks: bool) -> None:
    zarr = require("zarr", "files", "writing .zarr")
    write_folder_whole(path, lambda place: zarr.save_array(place, labels))
