"""Batches of a data set, the same for a given seed and step whenever training was interrupted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.data import IGNORED, DataSet

LINEAR = {2: "bilinear", 3: "trilinear"}
"""Linear interpolation by the number of spatial axes."""


SCALES = (0.5, 2.0)
"""The least and largest factor by which images are resized before a crop is cut out."""


class Resized(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of a split, resized to one shape, kept in memory once read if asked to."""

    def __init__(self, data: DataSet, split: str, shape: Sequence[int], in_memory: bool) -> None:
        self.data, self.files, self.shape = data, data.splits[split], tuple(shape)
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, drawn: tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, _ = drawn
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        image, label = self.data.read(self.files[index])
        resized = resize(image, self.shape), resize_label(label, self.shape)
        if self.kept is not None:
            self.kept[index] = resized
        return resized


class Cropped(Dataset[tuple[Tensor, Tensor]]):
    """Crops of one shape out of images and labels of a split, resized by a random factor first.

    Where an image is too small, it is continued by 0 and its label by ``IGNORED``.
    """

    def __init__(self, data: DataSet, split: str, shape: Sequence[int]) -> None:
        self.data, self.files, self.shape = data, data.splits[split], tuple(shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, drawn: tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, number = drawn
        image, label = self.data.read(self.files[index])
        generator = torch.Generator().manual_seed(number)
        least, largest = (math.log2(scale) for scale in SCALES)
        draw = torch.rand(1 + label.dim(), generator=generator).tolist()
        scale = 2 ** (least + (largest - least) * draw[0])
        shape = [max(1, round(scale * length)) for length in label.shape]
        image, label = resize(image, shape), resize_label(label, shape)
        for axis, (length, place) in enumerate(zip(self.shape, draw[1:], strict=True)):
            start = int(place * (max(0, label.shape[axis] - length) + 1))
            image = image.narrow(axis + 1, start, min(length, label.shape[axis]))
            label = label.narrow(axis, start, min(length, label.shape[axis]))
        padding = [
            pad
            for length, found in zip(self.shape[::-1], list(label.shape)[::-1], strict=True)
            for pad in (0, length - found)
        ]
        return F.pad(image, padding), F.pad(label, padding, value=IGNORED)


def resize(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize (channels, *spatial) linearly, of two axes with antialiasing."""
    axes = len(shape)
    mode = LINEAR[axes]
    return F.interpolate(image[None], list(shape), mode=mode, antialias=axes == 2)[0]


def resize_label(label: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize a label (*spatial) to the nearest pixel."""
    return F.interpolate(label[None, None].float(), list(shape), mode="nearest-exact")[0, 0].long()


class Draws:
    """The images of every step, drawn by seed and step; of several processes those of one."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        steps: range,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed, self.steps = count, batch_size, seed, steps
        self.part = slice(rank, None, processes)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batch of every step: for each image its index and a number to draw by."""
        for step in self.steps:
            generator = random(self.seed, step)
            drawn = torch.randint(self.count, (self.batch_size,), generator=generator).tolist()
            numbers = torch.randint(1 << 40, (self.batch_size,), generator=generator).tolist()
            yield [*zip(drawn, numbers, strict=True)][self.part]


def random(seed: int, step: int) -> torch.Generator:
    """Return the source of random numbers of a step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batches(
    images: Dataset[tuple[Tensor, Tensor]], draws: Draws, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batch of every step."""
    loader = DataLoader(images, batch_sampler=draws, num_workers=workers)
    for step, (batch, labels) in zip(draws.steps, loader, strict=True):
        yield augment(batch, labels, random(draws.seed + draws.part.start, -1 - step))


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
