"""The masks of the SAM family against the processors' own, and against plain arithmetic."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import REPOSITORY, framework
from rankseg import RankSEG
from rankseg.integration.sam import Sam1, Sam2, Sam3, decide_logits

ACC = {"metric": "acc"}
ORIGINAL = [(40, 52), (33, 64)]
RESHAPED = [(49, 64), (33, 64)]

pytestmark = pytest.mark.filterwarnings("ignore")  # Transformers', about missing backends


def logits(*shape, seed=0):
    """Return logits with regions."""
    coarse = torch.randn(*shape[:-2], 5, 5, generator=torch.Generator().manual_seed(seed))
    flat = 6 * F.interpolate(coarse.reshape(1, -1, 5, 5), shape[-2:], mode="bilinear")
    return flat.reshape(shape)


@pytest.fixture(scope="module")
def hf():
    return framework("transformers")


def sam_model(hf):
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "mlp_dim": 32,
        "image_size": 64,
        "patch_size": 16,
        "output_channels": 16,
        "num_pos_feats": 8,
        "global_attn_indexes": [0],
        "window_size": 2,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "image_embedding_size": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    config = hf.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return hf.SamModel(config).eval()


def test_sam_itself(hf):
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = sam_model(hf)(
            pixel_values=torch.rand(2, 3, 64, 64), input_points=64 * torch.rand(2, 2, 1, 2)
        )
    processor = hf.SamImageProcessorPil(pad_size={"height": 64, "width": 64})
    sizes = {"original_sizes": ORIGINAL, "reshaped_input_sizes": RESHAPED}
    expected = processor.post_process_masks(outputs.pred_masks, **sizes)
    ours = Sam1(rankseg_kwargs=ACC, pad_size=processor.pad_size).postprocess(outputs, **sizes)
    for mask, own in zip(ours, expected, strict=True):
        assert mask.dtype == own.dtype == torch.bool
        assert mask.shape == own.shape
        assert torch.equal(mask, own)


@pytest.mark.parametrize("as_list", [False, True])
def test_sam1_against_its_processor(hf, as_list):
    processor = hf.SamImageProcessorPil()
    masks = logits(2, 2, 3, 64, 64)
    outputs = {"pred_masks": list(masks) if as_list else masks}
    sizes = {
        "original_sizes": torch.tensor(ORIGINAL),
        "reshaped_input_sizes": torch.tensor([(788, 1024), (528, 1024)]),
    }
    own = processor.post_process_masks(list(masks), binarize=False, **sizes)
    for probs, scores in zip(Sam1().restore_mask_probs(outputs, **sizes), own, strict=True):
        assert torch.equal(probs, scores.sigmoid())
    own = processor.post_process_masks(list(masks), **sizes)
    for mask, expected in zip(
        Sam1(rankseg_kwargs=ACC).postprocess(outputs, **sizes), own, strict=True
    ):
        assert torch.equal(mask, expected)
        assert 0 < mask.float().mean() < 1


def test_sam2_against_plain_arithmetic():
    masks = logits(2, 3, 1, 16, 16)
    outputs = SimpleNamespace(pred_masks=masks)
    resized = [F.interpolate(masks[i], ORIGINAL[i], mode="bilinear") for i in range(2)]
    for mask, scores in zip(
        Sam2(rankseg_kwargs=ACC).postprocess(outputs, original_sizes=ORIGINAL), resized, strict=True
    ):
        assert torch.equal(mask, scores > 0)
        assert (mask.sum(0) > 1).any()
    apart = Sam2(apply_non_overlapping_constraints=True, rankseg_kwargs={"pruning_prob": 0})
    for mask in apart.postprocess(outputs, original_sizes=ORIGINAL):
        assert (mask.sum(0) <= 1).all()
    frame = Sam2(rankseg_kwargs=ACC).postprocess(masks[0], original_sizes=ORIGINAL[:1])
    assert torch.equal(frame[0], resized[0] > 0)


def test_sam2_and_sam3_against_their_processors(hf):
    framework("torchvision")
    masks = logits(2, 3, 1, 16, 16)
    for apart in (False, True):
        options = {"apply_non_overlapping_constraints": apart}
        own = hf.Sam2ImageProcessor().post_process_masks(list(masks), ORIGINAL, **options)
        ours = Sam2(rankseg_kwargs=ACC, **options)
        for mask, expected in zip(
            ours.postprocess(masks, original_sizes=ORIGINAL), own, strict=True
        ):
            assert torch.equal(mask, expected)
    outputs = sam3_outputs()
    processor, ours = hf.Sam3ImageProcessor(), Sam3(rankseg_kwargs=ACC)
    for sizes in (None, ORIGINAL):
        own = processor.post_process_instance_segmentation(outputs, target_sizes=sizes)
        same_instances(ours.postprocess_instance(outputs, target_sizes=sizes), own)
        own = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        for mask, expected in zip(
            ours.postprocess_semantic(outputs, target_sizes=sizes), own, strict=True
        ):
            assert torch.equal(mask, expected)


def sam3_outputs():
    return SimpleNamespace(
        pred_logits=torch.linspace(-3, 3, 12).view(2, 6),
        pred_boxes=torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(1)),
        pred_masks=logits(2, 6, 18, 18, seed=2),
        presence_logits=torch.tensor([[3.0], [2.0]]),
        semantic_seg=logits(2, 1, 18, 18, seed=3),
    )


def same_instances(ours, expected):
    for one, own in zip(ours, expected, strict=True):
        assert one.keys() == own.keys()
        for name in one:
            assert one[name].dtype == own[name].dtype
            assert torch.equal(one[name], own[name])


def test_sam3_against_plain_arithmetic():
    outputs = sam3_outputs()
    found = Sam3(rankseg_kwargs=ACC).postprocess_instance(outputs, original_sizes=ORIGINAL)
    scores = outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid()
    kept = 0
    for image, (instance, (height, width)) in enumerate(zip(found, ORIGINAL, strict=True)):
        keep = scores[image] > 0.3
        kept += int(keep.sum())
        assert torch.equal(instance["scores"], scores[image][keep])
        side = torch.tensor([width, height, width, height])
        assert torch.equal(instance["boxes"], outputs.pred_boxes[image][keep] * side)
        probs = F.interpolate(
            outputs.pred_masks[image][keep].sigmoid()[None], (height, width), mode="bilinear"
        )[0]
        assert torch.equal(instance["masks"], (probs > 0.5).long())
    assert 0 < kept < 12
    none = Sam3(threshold=1.0).postprocess_instance(outputs, target_sizes=ORIGINAL)
    assert [tuple(one["masks"].shape) for one in none] == [(0, 18, 18)] * 2
    (mask, _) = Sam3(rankseg_kwargs=ACC).postprocess_semantic(outputs)
    assert torch.equal(mask, (outputs.semantic_seg[0, 0].sigmoid() > 0.5).long())


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_masks_are_decided_each_for_itself(metric):
    masks = logits(1, 2, 3, 16, 16) - 1
    outputs, sizes = {"pred_masks": masks}, {"original_sizes": [(40, 52)]}
    (probs,) = Sam2().restore_mask_probs(outputs, **sizes)
    decide = RankSEG(metric, output_mode="multilabel")
    expected = torch.stack([decide(one.unsqueeze(0))[0] for one in probs])
    (ours,) = Sam2(rankseg_kwargs={"metric": metric}).postprocess(outputs, **sizes)
    assert torch.equal(ours, expected)
    assert (ours != (probs > 0.5)).any()
    scores = F.interpolate(masks[0], (40, 52), mode="bilinear")
    array = decide_logits(scores.numpy(), {"metric": metric})
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, expected.numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Sam1(pad_size=0), ValueError, "pad_size must be positive"),
        (lambda: Sam1(pad_size=1.5), TypeError, "pad_size must be an integer"),
        (lambda: Sam2(rankseg_kwargs=[]), TypeError, "rankseg_kwargs must be a mapping"),
        (lambda: Sam2(rankseg_kwargs={"output_mode": "multiclass"}), ValueError, "may overlap"),
        (lambda: Sam3(threshold=2), ValueError, r"threshold must be in \[0, 1\]"),
        (lambda: Sam2().postprocess({}, original_sizes=ORIGINAL), ValueError, "pred_masks"),
        (
            lambda: Sam2().postprocess(torch.zeros(2, 1, 1, 4, 4), original_sizes=[(4, 4)]),
            ValueError,
            "original_sizes must be 2 pairs",
        ),
        (
            lambda: Sam2().postprocess(torch.zeros(2, 1, 1, 4, 4), original_sizes=None),
            ValueError,
            "original_sizes must be given",
        ),
        (lambda: Sam3().postprocess_semantic({}), ValueError, "SAM 3, with a semantic_seg"),
        (
            lambda: Sam3().postprocess_semantic(
                sam3_outputs(), target_sizes=ORIGINAL, original_sizes=ORIGINAL
            ),
            ValueError,
            "two names of one thing",
        ),
        (lambda: decide_logits(torch.zeros(3)), ValueError, "height, width"),
        (lambda: decide_logits([1.0]), TypeError, "logits must be a dense"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_example(hf, capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "sam.py"), run_name="__main__")
    assert "bool" in capsys.readouterr().out
