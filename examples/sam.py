"""Decide the masks of SAM: `python examples/sam.py`, seconds, no download."""

from __future__ import annotations

import torch
from transformers import SamConfig, SamModel

from rankseg.integration.sam import Sam1, decide_logits

SIDE = 64
"""What the model takes; that of the published weights is 1024."""


def tiny_sam() -> SamModel:
    """Return a small random SAM."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_dim": 32,
        "image_size": SIDE,
        "patch_size": 16,
        "output_channels": 32,
        "num_pos_feats": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    prompts = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
    masks = {"hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 16, "num_hidden_layers": 1}
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks
    )
    return SamModel(config).eval()


def main() -> None:
    """Decide by accuracy, which is the processor's threshold, and by Dice."""
    torch.manual_seed(0)
    inputs = {  # what a processor makes of an image of 90 by 120 pixels and two points in it
        "pixel_values": torch.rand(1, 3, SIDE, SIDE),
        "input_points": SIDE * torch.rand(1, 2, 1, 2),
    }
    sizes = {"original_sizes": [(90, 120)], "reshaped_input_sizes": [(48, 64)]}
    with torch.no_grad():
        outputs = tiny_sam()(**inputs)
    outputs.pred_masks *= 3 / outputs.pred_masks.std()  # random weights hardly tell pixels apart

    (plain,) = Sam1(rankseg_kwargs={"metric": "acc"}, pad_size=SIDE).postprocess(outputs, **sizes)
    (masks,) = Sam1(rankseg_kwargs={"metric": "dice"}, pad_size=SIDE).postprocess(outputs, **sizes)
    print("masks", tuple(masks.shape), masks.dtype)
    for point, (before, after) in enumerate(zip(plain, masks, strict=True)):
        areas = zip(before.sum((1, 2)).tolist(), after.sum((1, 2)).tolist(), strict=True)
        told = ", ".join(f"{old} -> {new}" for old, new in areas)
        print(f"point {point}: pixels of its three masks, threshold -> Dice: {told}")

    logits = outputs.pred_masks[0, 0].numpy()  # predict(..., return_logits=True) gives such arrays
    print("predictor's masks", decide_logits(logits).shape)


if __name__ == "__main__":
    main()
