"""Networks from images (N, channels, *spatial) to logits (N, classes, *spatial)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rankseg._demo.network import SmallUNet


def small_unet(channels: int, classes: int, widths: Sequence[int]) -> nn.Module:
    """Return the U-Net of ``rankseg demo`` in other widths; height and width divide by 8 or 16."""
    if channels != 3:
        raise ValueError(f"model=small_unet takes pictures of 3 channels, got {channels}")
    return SmallUNet(classes, tuple(widths))


def monai_unet(channels: int, classes: int, axes: int, widths: Sequence[int]) -> nn.Module:
    """Return MONAI's U-Net with residual units, every scale half as large as the one before."""
    from monai.networks.nets import UNet

    strides = [2] * (len(widths) - 1)
    return UNet(axes, channels, classes, widths, strides, num_res_units=1)  # type: ignore[no-any-return]
