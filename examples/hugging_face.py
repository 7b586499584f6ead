"""Decide with a Transformers model: `python examples/hugging_face.py`, no download.

With a trained one, take `from_pretrained` in place of the tiny random model.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    pipeline,
)

from rankseg.integration.transformers import RankSEGProcessor, postprocess

SMALL = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [3, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 1],
    "mlp_ratios": [1, 1],
    "decoder_hidden_size": 16,
}


def main() -> None:
    """Decide from the outputs of a model, and in a pipeline."""
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(**SMALL, num_labels=5)).eval()
    processor = SegformerImageProcessorPil()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))

    with torch.no_grad():
        outputs = model(**processor(images=[picture], return_tensors="pt"))
    (labels,) = postprocess(outputs, model=model, target_sizes=[(90, 120)])
    print(model.config.model_type, tuple(labels.shape), labels.dtype)

    pipe = pipeline("image-segmentation", model=model, image_processor=processor)
    pipe.image_processor = RankSEGProcessor(pipe.image_processor, {"metric": "iou"})
    print([segment["label"] for segment in pipe(picture)])


if __name__ == "__main__":
    main()
