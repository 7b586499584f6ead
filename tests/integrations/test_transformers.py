"""Transformers: every family against its own processor, on tiny random models."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import REPOSITORY, framework
from rankseg import RankSEG
from rankseg.integration.transformers import (
    RankSEGProcessor,
    postprocess,
    restore_semantic_probs,
)

ACC = {"metric": "acc"}
SIZES = [(40, 52), (33, 64)]

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, about options and missing backends


@pytest.fixture(scope="module")
def hf():
    return framework("transformers")


def swin(hf):
    return hf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def segformer(hf):
    config = hf.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=16,
        num_labels=5,
    )
    return hf.SegformerForSemanticSegmentation(config), hf.SegformerImageProcessorPil()


def beit(hf):
    config = hf.BeitConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        out_indices=[1, 2, 3, 4],
        num_labels=5,
    )
    return hf.BeitForSemanticSegmentation(config), hf.BeitImageProcessorPil()


def dpt(hf):
    config = hf.DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=16,
        num_labels=5,
    )
    return hf.DPTForSemanticSegmentation(config), hf.DPTImageProcessorPil()


def mobilevit(hf):
    config = hf.MobileViTConfig(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 48], num_labels=5
    )
    return hf.MobileViTForSemanticSegmentation(config), hf.MobileViTImageProcessorPil()


def mobilenet(hf):
    config = hf.MobileNetV2Config(num_labels=5, depth_multiplier=0.35)
    return hf.MobileNetV2ForSemanticSegmentation(config), hf.MobileNetV2ImageProcessorPil()


def upernet(hf):
    config = hf.UperNetConfig(
        backbone_config=swin(hf), hidden_size=16, auxiliary_in_channels=32, num_labels=5
    )
    return hf.UperNetForSemanticSegmentation(config), hf.SegformerImageProcessorPil()


def maskformer(hf):
    decoder = hf.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=6,
        use_timm_backbone=False,
        backbone=None,
        backbone_config=hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, layer_type="basic"
        ),
    )
    config = hf.MaskFormerConfig(
        backbone_config=swin(hf),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=5,
    )
    return hf.MaskFormerForInstanceSegmentation(config), hf.MaskFormerImageProcessorPil()


def mask2former(hf):
    config = hf.Mask2FormerConfig(
        backbone_config=swin(hf),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=5,
    )
    return hf.Mask2FormerForUniversalSegmentation(config), hf.Mask2FormerImageProcessorPil()


def eomt(hf, split=False):
    config = hf.EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_queries=6,
        num_upscale_blocks=1,
        num_labels=5,
    )
    size = {"shortest_edge": 64, "longest_edge": None if split else 64}
    processor = hf.EomtImageProcessorPil(size=size, do_split_image=split, do_pad=not split)
    return hf.EomtForUniversalSegmentation(config), processor


def detr(hf):
    processor = hf.DetrImageProcessorPil()
    return detr_outputs("DetrSegmentationOutput"), processor


def conditional_detr(hf):
    processor = hf.ConditionalDetrImageProcessorPil()
    return detr_outputs("ConditionalDetrSegmentationOutput"), processor


def detr_outputs(name):
    """Return what makes outputs of DETR's shape under the name of their type."""
    random = torch.Generator().manual_seed(3)
    outputs = type(name, (SimpleNamespace,), {})(
        logits=3 * torch.randn(2, 6, 6, generator=random),
        pred_masks=3 * torch.randn(2, 6, 16, 16, generator=random),
    )
    return lambda pixel_values: outputs


LOGITS = [segformer, beit, dpt, mobilevit, mobilenet, upernet]
QUERIES = [maskformer, mask2former, detr, conditional_detr, eomt]


def run(hf, make, images=None):
    """Return a model, its processor and its outputs for two random images."""
    torch.manual_seed(0)
    model, processor = make(hf)
    if isinstance(model, torch.nn.Module):
        model = model.eval()
    images = torch.rand(2, 3, 64, 64) if images is None else images
    with torch.no_grad():
        outputs = model(pixel_values=images)
        for name in ("logits", "class_queries_logits", "masks_queries_logits"):
            if getattr(outputs, name, None) is not None:  # random weights tell no classes apart
                setattr(outputs, name, 3 * torch.randn_like(getattr(outputs, name)))
    return (model if isinstance(model, torch.nn.Module) else None), processor, outputs


@pytest.mark.parametrize("make", LOGITS + QUERIES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("sizes", [SIZES, None], ids=["sizes", "as it is"])
def test_argmax_is_the_processors_own(hf, make, sizes):
    model, processor, outputs = run(hf, make)
    if sizes is None and make is eomt:
        with pytest.raises(ValueError, match="EoMT needs target_sizes"):
            postprocess(outputs, model=model)
        return
    expected = processor.post_process_semantic_segmentation(
        outputs, target_sizes=sizes, return_segmentation_scores=True
    )
    ours = postprocess(outputs, model=model, target_sizes=sizes, rankseg_kwargs=ACC)
    probs = restore_semantic_probs(outputs, model=model, target_sizes=sizes)
    wrapped = RankSEGProcessor(processor, ACC)
    again = wrapped.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    for label, prob, other, own in zip(ours, probs, again, expected, strict=True):
        assert label.dtype == own["segmentation"].dtype == torch.int64
        assert torch.equal(label, own["segmentation"])
        assert torch.equal(label, other)
        scores = own["segmentation_scores"]
        if make in LOGITS:
            assert torch.equal(prob, scores.softmax(0))
        else:
            assert scores.min() >= 0
            torch.testing.assert_close(prob, scores / scores.sum(0))
        assert prob.shape == scores.shape
    assert len(torch.cat([one.flatten() for one in ours]).unique()) > 1


@pytest.mark.parametrize("make", [segformer, mask2former], ids=lambda make: make.__name__)
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_decisions_are_those_of_the_probabilities(hf, make, metric):
    model, processor, outputs = run(hf, make)
    options = {"metric": metric, "pruning_prob": 0.0}
    ours = postprocess(outputs, target_sizes=torch.tensor(SIZES), rankseg_kwargs=options)
    probs = restore_semantic_probs(outputs, model=model, target_sizes=SIZES)
    expected = [RankSEG(**options)(one[None])[0] for one in probs]
    argmax = processor.post_process_semantic_segmentation(outputs, target_sizes=SIZES)
    for label, other, plain in zip(ours, expected, argmax, strict=True):
        assert torch.equal(label, other)
        assert not torch.equal(label, plain)
    wrapped = RankSEGProcessor(processor, options).post_process_semantic_segmentation(
        outputs, target_sizes=SIZES, return_segmentation_scores=True
    )
    for one, label in zip(wrapped, ours, strict=True):
        assert torch.equal(one["segmentation"], label)
        assert one["segmentation_scores"].shape[1:] == label.shape


def test_masks_may_overlap(hf):
    _, _, outputs = run(hf, segformer)
    (first, _) = postprocess(outputs, rankseg_kwargs={"output_mode": "multilabel"})
    assert first.dtype == torch.bool
    assert first.shape == outputs.logits.shape[1:]


def test_nearly_equal_logits():
    logits = 1e-3 * torch.randn(1, 150, 64, 64)  # softmax rounds some of them to ties
    (labels,) = postprocess(SimpleNamespace(logits=logits), rankseg_kwargs=ACC)
    assert torch.equal(labels, logits[0].argmax(0))


def test_half_precision(hf):
    _, processor, outputs = run(hf, segformer)
    outputs.logits = outputs.logits.half()
    ours = postprocess(outputs, target_sizes=SIZES, rankseg_kwargs=ACC)
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=SIZES)
    for label, own in zip(ours, expected, strict=True):
        assert torch.equal(label, own)


def test_patches_of_eomt_are_put_together(hf):
    torch.manual_seed(0)
    model, processor = eomt(hf, split=True)
    pictures = [np.random.default_rng(0).integers(0, 255, (70, 150, 3), np.uint8)]
    pictures.append(np.random.default_rng(1).integers(0, 255, (120, 64, 3), np.uint8))
    inputs = processor(images=pictures, return_tensors="pt")
    sizes = [picture.shape[:2] for picture in pictures]
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    assert len(outputs.masks_queries_logits) > 2
    expected = processor.post_process_semantic_segmentation(
        outputs, target_sizes=sizes, return_segmentation_scores=True
    )
    for route in (
        postprocess(outputs, model=model, target_sizes=sizes, rankseg_kwargs=ACC),
        RankSEGProcessor(processor, ACC).post_process_semantic_segmentation(
            outputs, target_sizes=sizes
        ),
    ):
        for label, own in zip(route, expected, strict=True):
            assert torch.equal(label, own["segmentation"])
    with pytest.raises(ValueError, match="EoMT needs model="):
        postprocess(outputs, target_sizes=sizes)


def same(ours, expected):
    for one, own in zip(ours, expected, strict=True):
        assert torch.equal(one["segmentation"], own["segmentation"])
        assert one["segments_info"] == own["segments_info"]


@pytest.mark.parametrize("make", [maskformer, mask2former, detr], ids=lambda make: make.__name__)
@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_instances_and_panoptic_segments(hf, make, task):
    _, processor, outputs = run(hf, make)
    name = f"post_process_{task}_segmentation"
    options = {"target_sizes": SIZES, "threshold": 0.1}
    expected = getattr(processor, name)(outputs, **options)
    same(getattr(RankSEGProcessor(processor, ACC), name)(outputs, **options), expected)
    # doubtful everywhere: masks by the threshold 1/2 are empty, those by Dice are not
    field = "pred_masks" if make is detr else "masks_queries_logits"
    setattr(outputs, field, getattr(outputs, field) / 100 - 0.2)
    decided = getattr(RankSEGProcessor(processor, {"pruning_prob": 0.0}), name)(outputs, **options)
    if task == "instance":
        assert any((one["segmentation"] > 0).any() for one in decided)
    assert not any(
        (one["segmentation"] > 0).any() for one in getattr(processor, name)(outputs, **options)
    )


def test_pipeline(hf):
    from PIL import Image

    torch.manual_seed(0)
    model, processor = segformer(hf)
    model.eval().config.id2label = {index: f"class {index}" for index in range(5)}
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    pipe = hf.pipeline("image-segmentation", model=model, image_processor=processor)
    plain = pipe(picture)
    pipe.image_processor = RankSEGProcessor(processor, ACC)
    for one, own in zip(pipe(picture), plain, strict=True):
        assert one["label"] == own["label"]
        assert one["mask"].tobytes() == own["mask"].tobytes()
    pipe.image_processor = RankSEGProcessor(processor, {"pruning_prob": 0.0, "metric": "iou"})
    decided = pipe(picture)
    assert [one["mask"].tobytes() for one in decided] != [one["mask"].tobytes() for one in plain]
    assert all(one["mask"].size == (70, 50) for one in decided)


def test_sam3_and_clipseg():
    scores = torch.randn(2, 1, 12, 12)
    probs = restore_semantic_probs({"semantic_seg": scores}, target_sizes=SIZES)
    assert [tuple(one.shape) for one in probs] == [(1, 40, 52), (1, 33, 64)]
    labels = postprocess({"semantic_seg": scores}, target_sizes=SIZES, rankseg_kwargs=ACC)
    for label, prob in zip(labels, probs, strict=True):
        assert torch.equal(label, (prob[0] > 0.5).long())
    clip = type("CLIPSegImageSegmentationOutput", (SimpleNamespace,), {})(logits=scores[:, 0])
    labels = postprocess(clip, rankseg_kwargs=ACC)
    assert torch.equal(torch.stack(labels), (scores[:, 0] > 0).long())


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ((torch.zeros(1, 2, 4, 4),), TypeError, "return_dict=True"),
        (
            SimpleNamespace(),
            ValueError,
            r"outputs must be of .*; got SimpleNamespace with no tensors",
        ),
        (SimpleNamespace(logits=torch.zeros(2, 5)), ValueError, r"got .*'logits': \(2, 5\)"),
        (type("SegGptOutput", (), {})(), ValueError, "seggpt.*no probabilities"),
        (type("VideomtOutput", (), {})(), ValueError, "frame by frame"),
    ],
    ids=["tuple", "empty", "classification", "SegGPT", "VideoMT"],
)
def test_other_outputs_are_refused(outputs, error, message):
    with pytest.raises(error, match=message):
        postprocess(outputs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target_sizes": [(4, 4)]}, ValueError, "target_sizes must be 2 pairs"),
        ({"target_sizes": [(4, 0), (4, 4)]}, ValueError, "positive integers"),
        ({"target_sizes": [(4,), (4, 4)]}, ValueError, "pairs"),
        ({"model": "segformer"}, TypeError, "model must be a Transformers model, got str"),
        ({"rankseg_kwargs": "dice"}, TypeError, "rankseg_kwargs must be a mapping"),
        ({"rankseg_kwargs": {"from_logits": "softmax"}}, ValueError, "must not hold from_logits"),
        ({"rankseg_kwargs": {"metric": "f1"}}, ValueError, "metric must be one of"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        postprocess(SimpleNamespace(logits=torch.zeros(2, 3, 4, 4)), **arguments)


def test_a_processor_without_a_task_has_none(hf):
    wrapped = RankSEGProcessor(hf.SegformerImageProcessorPil())
    assert not hasattr(wrapped, "post_process_panoptic_segmentation")
    assert wrapped.size == hf.SegformerImageProcessorPil().size
    with pytest.raises(ValueError, match="metric must be one of"):
        RankSEGProcessor(hf.SegformerImageProcessorPil(), {"metric": "f1"})


def test_example(hf, capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "hugging_face.py"), run_name="__main__")
    assert "segformer" in capsys.readouterr().out
