"""Make the network and the sample of ``rankseg demo`` of a run: ``python -m experiments.demo``.

Takes a run of `experiments.train` and writes ``network.npz``, its weights as float16, and
``sample.npz``: every n-th image of the test split with its label and the maps of this network. The
images are chosen by their place in the list alone, before anything is decided on them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from experiments.batches import resize, resize_label
from experiments.data import DataSet
from experiments.train import NETWORK, run_folder
from rankseg._demo.network import maps_of_image, network_of
from rankseg._files.whole import write_whole

PROBABILITY_STEP = 2.0**-12
"""Probabilities are stored to the nearest multiple of this.

It is the spacing of float16 between 1/4 and 1/2, so only smaller values are touched. Their digits
are most of what compression cannot shrink."""


def stored_weights(weights: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return weights as float16; counters stay int64."""
    return {
        name: (value.half() if value.is_floating_point() else value).numpy()
        for name, value in weights.items()
    }


def sample_of(
    data: DataSet, weights: dict[str, NDArray[Any]], shape: tuple[int, int], count: int
) -> dict[str, NDArray[Any]]:
    """Return ``count`` test images of one shape, evenly spaced in the list, and their maps."""
    files = data.splits["test"]
    step = len(files) // count
    network = network_of({name: torch.from_numpy(value) for name, value in weights.items()})
    images, labels, probs = [], [], []
    for one in files[: step * count : step]:
        image, label = data.read(one)
        pixels = (resize(image, shape).clamp(0, 1) * 255).round().to(torch.uint8)
        maps = maps_of_image(pixels.float() / 255, network)
        images.append(pixels.permute(1, 2, 0).numpy())
        labels.append(resize_label(label, shape).to(torch.uint8).numpy())
        rounded = (maps / PROBABILITY_STEP).round() * PROBABILITY_STEP
        probs.append(rounded.half().numpy())
    return {
        "images": np.stack(images),
        "labels": np.stack(labels),
        "probs": np.stack(probs),
        "classes": np.array(data.classes),
    }


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays compressed, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())
    print(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


@hydra.main(version_base=None, config_path="conf", config_name="experiment")
def main(config: DictConfig) -> None:
    """Write both files."""
    torch.set_num_threads(config.threads)
    weights = torch.load(run_folder(config) / NETWORK, weights_only=True, map_location="cpu")
    stored = stored_weights(weights)
    data = instantiate(config.data.reader)
    folder = Path(config.demo.folder)
    write_arrays(folder / "network.npz", stored)
    shape = (config.demo.side, config.demo.side)
    write_arrays(folder / "sample.npz", sample_of(data, stored, shape, config.demo.images))


if __name__ == "__main__":
    main()
