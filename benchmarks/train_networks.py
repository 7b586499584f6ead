"""Train a small U-Net with plain cross-entropy; write its probability maps of held-out images.

Run ``python benchmarks/train_networks.py FOLDER OUTPUT`` where FOLDER holds ``images/``,
``masks/``, ``train.txt``, ``val.txt``, ``test.txt`` and ``meta.json``. OUTPUT gets one folder for
each of the splits ``val`` and ``test`` that ``rankseg compare`` reads: ``ID.npz`` with ``probs``
(float16, classes x height x width, at the size of the mask) and ``label``, and ``meta.json``.

No class weights, no Dice loss, no choice of a checkpoint by any score: the network is the one after
the last step. Training takes about a quarter of an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rankseg._demo.network import SmallUNet, centred

SIDE = 128
"""Height and width, in pixels, that the network is trained and run at."""

WIDTHS = (16, 32, 64, 96, 128)
BATCH_SIZE = 8
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2


def read_ids(folder: Path, split: str) -> list[str]:
    return (folder / f"{split}.txt").read_text().split()


def read_mask(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "masks" / f"{name}.png"))


def read_image(folder: Path, name: str) -> Tensor:
    """Return an image as float32 ``(3, SIDE, SIDE)`` in [0, 1]."""
    image = Image.open(folder / "images" / f"{name}.jpg").convert("RGB")
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return images ``(N, 3, SIDE, SIDE)`` and labels ``(N, SIDE, SIDE)`` of a split."""
    names = read_ids(folder, split)
    masks = [Image.fromarray(read_mask(folder, name)) for name in names]
    resized = [np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST)) for mask in masks]
    labels = torch.from_numpy(np.stack(resized)).long()
    return torch.stack([read_image(folder, name) for name in names]), labels


def augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, zoom by up to 1.4 and shift a batch, and change its brightness and contrast."""
    draw = torch.rand(6, len(images), generator=generator)
    mirror = 1 - 2 * (draw[0] < 0.5).float()
    scale = 0.7 + 0.45 * draw[1]  # below 1 zooms in
    affine = torch.zeros(len(images), 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = scale * mirror, scale
    affine[:, :, 2] = (draw[2:4].T - 0.5) * 0.4
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    sampled = F.grid_sample(
        labels[:, None].float(), grid, "nearest", padding_mode="reflection", align_corners=False
    )
    contrast, brightness = (0.8 + 0.4 * draw[4]), (draw[5] - 0.5) * 0.2
    images = images * contrast[:, None, None, None] + brightness[:, None, None, None]
    return images.clamp(0, 1), sampled[:, 0].long()


def train(images: Tensor, labels: Tensor, classes: int, ignored: int, steps: int) -> SmallUNet:
    """Train with cross-entropy, printing the mean loss of every 100 steps."""
    generator = torch.Generator().manual_seed(torch.initial_seed() + 1)
    network = SmallUNet(classes, WIDTHS)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    start, total = time.perf_counter(), 0.0
    network.train()
    for step in range(1, steps + 1):
        chosen = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
        batch, target = augment(images[chosen], labels[chosen], generator)
        loss = F.cross_entropy(network(centred(batch)), target, ignore_index=ignored)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 0:
            seconds = time.perf_counter() - start
            print(f"step {step:5d}  loss {total / 100:.4f}  {seconds:6.0f} s", flush=True)
            total = 0.0
    return network.eval()


@torch.inference_mode()
def write_maps(network: SmallUNet, folder: Path, split: str, output: Path) -> None:
    """Write maps and labels of a split at the size of its masks, and the class names."""
    output.mkdir(parents=True, exist_ok=True)
    names = read_ids(folder, split)
    right = pixels = 0
    for name in names:
        label = read_mask(folder, name)
        logits = network(centred(read_image(folder, name))[None])
        logits = F.interpolate(logits, label.shape, mode="bilinear", align_corners=False)
        probs = logits.softmax(1)[0].half().numpy()
        counted = label != 255
        right += int((probs.argmax(0) == label)[counted].sum())
        pixels += int(counted.sum())
        np.savez_compressed(output / f"{name}.npz", probs=probs, label=label)
    meta = json.loads((folder / "meta.json").read_text())
    kept = {key: meta[key] for key in ("classes", "ignore_index")}
    (output / "meta.json").write_text(json.dumps(kept, indent=1))
    print(
        f"{split}: {len(names)} images, pixel accuracy of argmax {right / pixels:.4f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="images, masks, splits and meta.json")
    parser.add_argument("output", type=Path, help="folder to write the folders val and test to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2400, help="training steps")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that every run sums in the same order
    torch.manual_seed(options.seed)
    meta = json.loads((options.folder / "meta.json").read_text())
    images, labels = read_split(options.folder, "train")
    network = train(images, labels, len(meta["classes"]), meta["ignore_index"], options.steps)
    for split in ("val", "test"):
        write_maps(network, options.folder, split, options.output / split)


if __name__ == "__main__":
    main()
