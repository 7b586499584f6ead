"""Decide what a Transformers model gave, with no download: `python examples/hugging_face.py`."""

from __future__ import annotations

import torch
from transformers import MaskFormerImageProcessorPil, SegformerImageProcessorPil
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.segformer import SegformerConfig, SegformerForSemanticSegmentation

from rankseg.integration.transformers import RankSEGProcessor, postprocess, restore_semantic_probs

CLASSES = 5


def network() -> SegformerForSemanticSegmentation:
    """Return a small random model; yours comes from `from_pretrained`."""
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=16,
        num_labels=CLASSES,
    )
    return SegformerForSemanticSegmentation(config).eval()


def main() -> None:
    """Decide labels and panoptic segments."""
    torch.manual_seed(0)
    model, processor = network(), SegformerImageProcessorPil()
    sizes = [(96, 128), (120, 90)]
    with torch.no_grad():
        logits = model(pixel_values=torch.rand(2, 3, 64, 64)).logits
    logits = 3 * (logits - logits.mean((2, 3), keepdim=True)) / logits.std((2, 3), keepdim=True)
    outputs = SemanticSegmenterOutput(logits=logits)  # as far apart as those of a trained model

    before = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    options = {"metric": "dice", "pruning_prob": 0.2}
    after = postprocess(outputs, model=model, target_sizes=sizes, rankseg_kwargs=options)
    for old, new in zip(before, after, strict=True):
        changed = (old != new).float().mean()
        print(f"labels {tuple(new.shape)} {new.dtype}, {changed:.0%} of the pixels differ")
    (probs, _) = restore_semantic_probs(outputs, model=model, target_sizes=sizes)
    print("probabilities", tuple(probs.shape))

    queries = {
        "class_queries_logits": 2 * torch.randn(1, 6, CLASSES + 1),
        "masks_queries_logits": torch.nn.functional.interpolate(4 * torch.randn(1, 6, 4, 4), 32),
    }
    decided = RankSEGProcessor(MaskFormerImageProcessorPil(), {"metric": "iou"})
    (told,) = decided.post_process_instance_segmentation(
        SemanticSegmenterOutput(queries), threshold=0.2, target_sizes=[(48, 64)]
    )
    print(len(told["segments_info"]), "instances")


if __name__ == "__main__":
    main()
