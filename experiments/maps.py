"""Keep the probabilities of a trained network: ``python -m experiments.maps data=... seed=...``.

``test`` does this by itself where it is missing.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
import zarr
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from experiments.batches import LINEAR, resize
from experiments.data import IGNORED, DataSet, Files
from experiments.train import NETWORK, build_loss, build_network, crops, input_of, run_folder

SPLITS = ("val", "test")


@torch.inference_mode()
def probabilities(
    network: nn.Module, image: Tensor, shape: tuple[int, ...], config: DictConfig
) -> Tensor:
    """Return float32 (classes, *shape) for an image (channels, *spatial).

    The image is resized to the shape that the network was trained at; if that is a crop, windows of
    this shape slide over the image. Several scales and flips are averaged as probabilities.
    """
    found = []
    for scale in config.test.scales:
        lengths = config.data.shape if not crops(config) else image.shape[1:]
        resized = resize(image, [max(1, round(scale * length)) for length in lengths])[None]
        for flipped in (False, True) if config.test.flips else (False,):
            given = input_of((resized.flip(-1) if flipped else resized).to(config.device), config)
            logits = slide(network, given, config) if crops(config) else network(given)
            logits = logits.flip(-1) if flipped else logits
            mode = LINEAR[len(shape)]
            found.append(F.interpolate(logits, shape, mode=mode, align_corners=False).softmax(1)[0])
    return torch.stack(found).mean(0).cpu()


def slide(network: nn.Module, image: Tensor, config: DictConfig) -> Tensor:
    """Return logits of windows of the training shape, averaged where they overlap."""
    from monai.inferers.utils import sliding_window_inference

    shape, overlap = [*config.data.shape], config.test.overlap
    return sliding_window_inference(image, shape, 1, network, overlap=overlap)  # type: ignore[no-any-return]


def keep_maps(config: DictConfig) -> Path:
    """Write the maps of val and test that are not there yet; return their folder."""
    folder = run_folder(config)
    if not (folder / NETWORK).exists():
        raise FileNotFoundError(
            f"{folder} holds no {NETWORK}: train it first, by experiments.train"
        )
    data = instantiate(config.data.reader)
    network = build_network(config, data, trained=True)
    weights = torch.load(folder / NETWORK, weights_only=True, map_location=config.device)
    network.load_state_dict(weights)
    network.eval()
    meta: dict[str, Any] = {"classes": data.classes, "ignore_index": IGNORED}
    class_weights = getattr(build_loss(config, data), "weights", None)
    if class_weights is not None:
        meta["class_weights"] = class_weights.tolist()
    for split in SPLITS:
        target = folder / "maps" / split
        target.mkdir(parents=True, exist_ok=True)
        (target / "meta.json").write_text(json.dumps(meta, indent=1))
        for files in data.splits[split]:
            keep_case(network, data, files, target, config)
        print(f"{config.run}: {len(data.splits[split])} maps of {split}", flush=True)
    return folder / "maps"


def keep_case(
    network: nn.Module, data: DataSet, files: Files, target: Path, config: DictConfig
) -> None:
    """Write ``NAME.zarr`` with ``probs``, float16, and ``label``, unless it is there."""
    path = target / f"{files.name}.zarr"
    if path.exists():
        return
    image, label = data.read(files)
    probs = probabilities(network, image, tuple(label.shape), config)
    partial = target / f"{files.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    arrays: dict[str, Any] = {"probs": probs.half().numpy(), "label": label.numpy()}
    zarr.save_group(str(partial), **arrays)
    os.replace(partial, path)


@hydra.main(version_base=None, config_path="conf", config_name="experiment")
def main(config: DictConfig) -> None:
    """Keep the maps."""
    torch.set_num_threads(config.threads)
    keep_maps(config)


if __name__ == "__main__":
    main()
