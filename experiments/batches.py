"""Batches of a data set, the same for a given seed and step whenever training was interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.data import IGNORED, DataSet

LINEAR = {2: "bilinear", 3: "trilinear"}
"""Linear interpolation by the number of spatial axes."""


class Resized(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of a split, resized to one shape, kept in memory once read if asked to."""

    def __init__(self, data: DataSet, split: str, shape: Sequence[int], in_memory: bool) -> None:
        self.data, self.files, self.shape = data, data.splits[split], tuple(shape)
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        image, label = self.data.read(self.files[index])
        resized = resize(image, self.shape), resize_label(label, self.shape)
        if self.kept is not None:
            self.kept[index] = resized
        return resized


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize (channels, *spatial) linearly, of two axes with antialiasing."""
    axes = len(shape)
    mode = LINEAR[axes]
    return F.interpolate(image[None], list(shape), mode=mode, antialias=axes == 2)[0]


def resize_label(label: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize a label (*spatial) to the nearest pixel."""
    return F.interpolate(label[None, None].float(), list(shape), mode="nearest-exact")[0, 0].long()


class Draws:
    """The images of every step from ``first`` on, drawn by seed and step."""

    def __init__(self, count: int, batch_size: int, seed: int, steps: range) -> None:
        self.count, self.batch_size, self.seed, self.steps = count, batch_size, seed, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            drawn = torch.randint(self.count, (self.batch_size,), generator=random(self.seed, step))
            yield drawn.tolist()


def random(seed: int, step: int) -> torch.Generator:
    """Return the source of random numbers of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batches(
    images: Dataset[tuple[Tensor, Tensor]], draws: Draws, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batch of every step."""
    loader = DataLoader(images, batch_sampler=draws, num_workers=workers)
    for step, (batch, labels) in zip(draws.steps, loader, strict=True):
        yield augment(batch, labels, random(draws.seed, -1 - step))


def augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, zoom and shift a batch, and change its contrast and brightness.

    The last axis is flipped in half of the images. The zoom is 0.87 to 1.43, the shift at most a
    fifth of half the image, contrast 0.8 to 1.2 and brightness -0.1 to 0.1. Pixels from beyond the
    border reflect the image.
    """
    count, axes = len(images), images.dim() - 2
    scale = 0.7 + 0.45 * torch.rand(count, generator=generator)  # below 1 zooms in
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    affine = torch.zeros(count, axes, axes + 1)
    for axis in range(axes):
        affine[:, axis, axis] = scale * mirror if axis == 0 else scale
    affine[:, :, axes] = (torch.rand(count, axes, generator=generator) - 0.5) * 0.4
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    sampled = F.grid_sample(
        labels[:, None].float(), grid, "nearest", padding_mode="reflection", align_corners=False
    )
    change = torch.rand(2, count, *[1] * (axes + 1), generator=generator)
    images = images * (0.8 + 0.4 * change[0]) + (change[1] - 0.5) * 0.2
    return images, sampled[:, 0].long()


__all__ = ["IGNORED", "LINEAR", "Draws", "Resized", "augment", "batches", "resize", "resize_label"]
