"""Decide SAM's masks: `python examples/sam.py`, no download.

With a trained model, take `SamModel.from_pretrained` and the sizes that its processor returns.
"""

from __future__ import annotations

import torch
from transformers import SamConfig, SamModel

from rankseg.integration.sam import Sam1

SIDE = 64
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "mlp_dim": 32,
    "image_size": SIDE,
    "patch_size": 16,
    "output_channels": 16,
    "num_pos_feats": 8,
    "global_attn_indexes": [0],
    "window_size": 2,
}
PROMPT = {"hidden_size": 16, "image_size": SIDE, "patch_size": 16, "image_embedding_size": 4}
DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


def main() -> None:
    """Ask for the masks at two points, and decide them at the size of the image."""
    torch.manual_seed(0)
    config = SamConfig(
        vision_config=VISION, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER
    )
    points = torch.tensor([[[[20.0, 20.0]], [[40.0, 30.0]]]])
    with torch.no_grad():
        outputs = SamModel(config).eval()(
            pixel_values=torch.rand(1, 3, SIDE, SIDE), input_points=points
        )
    sam = Sam1(rankseg_kwargs={"metric": "iou"}, pad_size=SIDE)
    (masks,) = sam.postprocess(
        outputs, original_sizes=[(90, 120)], reshaped_input_sizes=[(48, SIDE)]
    )
    print(tuple(masks.shape), masks.dtype)


if __name__ == "__main__":
    main()
