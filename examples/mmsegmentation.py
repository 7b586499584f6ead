"""Let an MMSegmentation model decide with RankSEG: `python examples/mmsegmentation.py`, seconds."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

from rankseg.integration.mmseg import disable, enable

CONFIG = Config(
    {
        "custom_imports": {"imports": ["rankseg.integration.mmseg"]},
        "model": {
            "type": "RankSEGEncoderDecoder",
            "rankseg": {"metric": "dice"},
            "data_preprocessor": {"type": "SegDataPreProcessor"},
            "backbone": {
                "type": "MixVisionTransformer",
                "embed_dims": 8,
                "num_stages": 2,
                "num_layers": [1, 1],
                "num_heads": [1, 1],
                "patch_sizes": [3, 3],
                "strides": [2, 2],
                "sr_ratios": [2, 1],
                "out_indices": (0, 1),
            },
            "decode_head": {
                "type": "SegformerHead",
                "in_channels": [8, 8],
                "in_index": [0, 1],
                "channels": 16,
                "num_classes": 5,
                "align_corners": False,
            },
            "test_cfg": {"mode": "whole"},
        },
    }
)


def main() -> None:
    """Decide as a config says, and as `enable` does on a model that was built without."""
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(CONFIG.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    images = [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)]
    with torch.no_grad():
        labels = model.test_step({"inputs": images})[0].pred_sem_seg.data
        print("labels", tuple(labels.shape), labels.dtype)

        plain = dict(CONFIG.model, type="EncoderDecoder")
        del plain["rankseg"]
        other = MODELS.build(plain).eval()
        other.load_state_dict(model.state_dict())
        enable(other, metric="dice")
        same = torch.equal(other.test_step({"inputs": images})[0].pred_sem_seg.data, labels)
        print("enable() gives the same labels:", same)
        argmax = disable(other).test_step({"inputs": images})[0].pred_sem_seg.data
    print(f"{(labels != argmax).float().mean():.0%} of the pixels differ from argmax")


if __name__ == "__main__":
    main()
