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


def with_encoder(
    channels: int, classes: int, architecture: str, encoder: str, weights: str | None
) -> nn.Module:
    """Return a network of segmentation-models-pytorch; ``tu-`` encoders are those of timm."""
    import segmentation_models_pytorch

    network = getattr(segmentation_models_pytorch, architecture)
    return network(  # type: ignore[no-any-return]
        encoder, encoder_weights=weights, in_channels=channels, classes=classes
    )


def swin_unetr(channels: int, classes: int, features: int) -> nn.Module:
    """Return MONAI's SwinUNETR for volumes; crops must divide by 32."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    return SwinUNETR(channels, classes, feature_size=features)  # type: ignore[no-any-return]


def monai_unet(channels: int, classes: int, axes: int, widths: Sequence[int]) -> nn.Module:
    """Return MONAI's U-Net with residual units, every scale half as large as the one before."""
    from monai.networks.nets.unet import UNet

    strides = [2] * (len(widths) - 1)
    return UNet(axes, channels, classes, widths, strides, num_res_units=1)  # type: ignore[no-any-return]
