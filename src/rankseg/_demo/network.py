"""The small network of ``rankseg demo`` and its weights.

``scripts/train_demo_network.py`` trains it, and writes the file read here and the sample of
`rankseg._demo.example`. ``python -m experiments.demo`` writes both for a network and images of a
data set.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SmallUNet", "centred", "demo_network", "maps_of_image", "network_of"]

MID_GREY: Final = 0.36
SPREAD: Final = 0.15
_WEIGHTS_FILE = "network.npz"


class SmallUNet(nn.Module):
    """A U-Net with a scale for each width: images (N, 3, H, W) to logits (N, C, H, W)."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (8, 16, 48, 96)) -> None:
        super().__init__()
        sources = (3, *widths[:-1])
        self.encoders = nn.ModuleList(
            _conv_block(source, width) for source, width in zip(sources, widths, strict=True)
        )
        self.decoders = nn.ModuleList(
            _conv_block(fine + coarse, fine)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.stride = 2 ** (len(widths) - 1)
        """The coarsest scale has one pixel for so many; heights and widths must be multiples."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits of `centred` float32 images; H and W must be multiples of ``stride``."""
        skips: list[Tensor] = []
        features = images
        for level, encoder in enumerate(self.encoders):
            features = encoder(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for decoder in self.decoders:
            finer = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = decoder(torch.cat([skips.pop(), finer], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (channels_in, channels_out):
        layers.append(nn.Conv2d(source, channels_out, 3, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(channels_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def centred(images: Tensor) -> Tensor:
    """Return images with values in [0, 1] as the network takes them."""
    return (images - MID_GREY) / SPREAD


@cache
def demo_network() -> SmallUNet:
    """Return the trained network, from weights kept as float16."""
    path = resources.files("rankseg._demo").joinpath(_WEIGHTS_FILE)
    with path.open("rb") as file, np.load(file) as arrays:
        return network_of({name: torch.from_numpy(arrays[name]) for name in arrays})


def network_of(weights: dict[str, Tensor]) -> SmallUNet:
    """Return the network that has such weights, to predict."""
    first = [weights[name] for name in weights if re.fullmatch(r"encoders\.\d+\.0\.weight", name)]
    network = SmallUNet(len(weights["head.bias"]), tuple(len(one) for one in first))
    network.load_state_dict(weights)
    return network.eval()


@torch.inference_mode()
def maps_of_image(image: Tensor, network: SmallUNet | None = None) -> Tensor:
    """Return the probabilities ``(classes, H, W)`` of an image ``(3, H, W)`` in [0, 1].

    The image is continued by its border to the next multiple of the network's stride. The network
    is by default that of ``rankseg demo``.

    Examples
    --------
    >>> maps_of_image(torch.rand(3, 50, 70)).shape
    torch.Size([6, 50, 70])
    """
    network = network or demo_network()
    height, width = image.shape[1:]
    padding = (0, -width % network.stride, 0, -height % network.stride)
    padded = F.pad(centred(image)[None], padding, mode="replicate")
    logits: Tensor = network(padded)[0, :, :height, :width]
    return logits.softmax(0)
