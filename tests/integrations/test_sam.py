"""The SAM family: the processors' own masks by accuracy, RankSEG's by Dice and IoU."""

from __future__ import annotations

import copy
import inspect
import pickle
import runpy
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import REPOSITORY
from rankseg import RankSEG
from rankseg.integration import _sam
from rankseg.integration.sam import Sam1, Sam2, Sam3, decide_logits
from support.frameworks import framework

ACCURACY = {"metric": "acc"}
PAD = 64
SIZES = [(45, 60), (50, 31)]
INNER = [(48, 64), (64, 40)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


# --- what the processors compute, in plain torch ---


def linear(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def restored_by_sam1(masks, pad=(PAD, PAD)):
    return [
        linear(linear(one, pad)[..., :height, :width], size)
        for one, size, (height, width) in zip(masks, SIZES, INNER, strict=True)
    ]


def restored_by_sam2(masks):
    return [linear(one, size) for one, size in zip(masks, SIZES, strict=True)]


def decided(probs, **options):
    """Decide every mask by a call of its own."""
    decide = RankSEG(**options, output_mode="multilabel")
    masks = [decide(one[None, None])[0, 0] for one in probs.flatten(0, -3)]
    return torch.stack(masks).view(probs.shape)


def all_equal(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def blobs(*shape, seed=0):
    """Return smooth logits that are neither all positive nor all negative."""
    noise = torch.randn(*shape, generator=torch.manual_seed(seed))
    coarse = F.avg_pool2d(noise.flatten(0, -3), 5, 1, 2).view(shape)
    return 12 * coarse - 0.5


PROMPTED = blobs(2, 3, 3, 16, 16)


def instances(dtype=torch.float32, **fields):
    return {
        "pred_masks": blobs(2, 6, 18, 18, seed=1).to(dtype),
        "pred_logits": torch.linspace(-2, 2, 12).view(2, 6).to(dtype),
        "pred_boxes": torch.rand(2, 6, 4, generator=torch.manual_seed(2)).to(dtype),
        "presence_logits": torch.tensor([[3.0], [0.5]]).to(dtype),
        "semantic_seg": blobs(2, 1, 18, 18, seed=3).to(dtype),
    } | fields


def restored_by_sam3(outputs, number, threshold):
    """Return scores, relative boxes and mask probabilities of one image."""
    scores = outputs["pred_logits"][number].sigmoid()
    if outputs["presence_logits"] is not None:
        scores = scores * outputs["presence_logits"][number].sigmoid()
    keep = scores > threshold
    probs = outputs["pred_masks"].sigmoid()[number][keep]
    return scores[keep], outputs["pred_boxes"][number][keep], linear(probs[None], SIZES[number])[0]


# --- tiny random models ---


def made(name, *arguments, **options):
    """Make an object of transformers; skip where what it needs is missing or broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(framework("transformers"), name)(*arguments, **options)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} cannot be made: {' '.join(str(error).split())}")


SMALL = {"hidden_size": 32, "num_attention_heads": 2}
LAYER = SMALL | {"intermediate_size": 32, "num_hidden_layers": 1}
PROMPT = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
MASK_DECODER = SMALL | {"mlp_dim": 16, "num_hidden_layers": 1, "iou_head_hidden_dim": 16}

PYRAMID = {"fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}

HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 8,
    "image_size": [64, 64],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 2, 2, 2],
    "window_positional_embedding_background_size": [4, 4],
    "global_attention_blocks": [3],
}

VIT3 = LAYER | {
    "model_type": "sam3_vit_model",
    "image_size": 56,
    "patch_size": 14,
    "window_size": 2,
    "global_attn_indexes": [0],
    "pretrain_image_size": 28,
}


def run(family, configuration, **inputs):
    torch.manual_seed(0)
    config = made(f"{family}Config", **configuration)
    model = made(f"{family}Model", config).eval()
    with torch.no_grad():
        outputs = model(**inputs)
    outputs.pred_masks *= 3 / outputs.pred_masks.std()  # a random network hardly tells pixels apart
    assert type(outputs).__name__ == f"{family}ImageSegmentationOutput"
    return outputs


def points(side):
    seed = torch.manual_seed(1)
    return {
        "pixel_values": torch.rand(2, 3, side, side, generator=seed),
        "input_points": side * torch.rand(2, 2, 1, 2, generator=seed),
    }


@pytest.fixture(scope="module", params=["Sam", "SamHQ"])
def sam1_outputs(request):
    vision = LAYER | {"image_size": 64, "patch_size": 16, "mlp_dim": 32, "output_channels": 32}
    vision |= {"num_hidden_layers": 2, "window_size": 2, "global_attn_indexes": [1]}
    vision |= {"num_pos_feats": 16}
    decoder = MASK_DECODER | ({"vit_dim": 32} if request.param == "SamHQ" else {})
    configuration = {
        "vision_config": vision,
        "prompt_encoder_config": PROMPT,
        "mask_decoder_config": decoder,
    }
    return run(request.param, configuration, **points(64))


@pytest.fixture(scope="module", params=["Sam2", "Sam3Tracker"])
def sam2_outputs(request):
    hiera = {"backbone_config": HIERA, "backbone_channel_list": [64, 32, 16, 8]}
    backbone = hiera if request.param == "Sam2" else {"backbone_config": VIT3}
    side, patch = (64, 16) if request.param == "Sam2" else (56, 14)
    configuration = {
        "vision_config": PYRAMID | backbone,
        "prompt_encoder_config": PROMPT | {"image_size": side, "patch_size": patch},
        "mask_decoder_config": MASK_DECODER,
    }
    labels = torch.ones(2, 2, 1, dtype=torch.int)
    return run(request.param, configuration, **points(side), input_labels=labels)


@pytest.fixture(scope="module")
def sam3_outputs():
    layers = SMALL | {"intermediate_size": 32, "num_layers": 1}
    text = LAYER | {"vocab_size": 64, "max_position_embeddings": 8, "projection_dim": 32}
    configuration = {
        "vision_config": PYRAMID | {"backbone_config": VIT3},
        "text_config": text | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": layers | {"num_queries": 6},
        "mask_decoder_config": SMALL,
    }
    ids = torch.tensor([[0, 5, 6, 1]] * 2)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    outputs = run("Sam3", configuration, pixel_values=points(56)["pixel_values"], **inputs)
    outputs.pred_logits = torch.linspace(-2, 4, 12).view(6, 2).T
    outputs.semantic_seg *= 3 / outputs.semantic_seg.std()
    return outputs


# --- SAM and SAM-HQ ---


SAM1 = {"original_sizes": SIZES, "reshaped_input_sizes": INNER}


def test_sam1_is_its_processor(sam1_outputs):
    processor = made("SamImageProcessorPil", pad_size={"height": PAD, "width": PAD})
    masks, outputs = sam1_outputs.pred_masks, sam1_outputs
    logits = processor.post_process_masks(masks, SIZES, INNER, binarize=False)
    adapter = Sam1(rankseg_kwargs=ACCURACY, pad_size=processor.pad_size)
    all_equal(adapter.restore_mask_probs(outputs, **SAM1), [one.sigmoid() for one in logits])
    expected = processor.post_process_masks(masks, SIZES, INNER)
    assert 0 < expected[0].float().mean() < 1
    all_equal(adapter.postprocess(outputs, **SAM1), expected)
    for metric in ("dice", "iou"):
        got = Sam1(rankseg_kwargs={"metric": metric}, pad_size=PAD).postprocess(outputs, **SAM1)
        all_equal(got, [decided(one.sigmoid(), metric=metric) for one in logits])


def test_sam1_pads_to_1024_as_its_processor():
    processor = made("SamImageProcessorPil")
    inner = [(768, 1024), (1024, 640)]
    given = {"original_sizes": SIZES, "reshaped_input_sizes": inner}
    expected = processor.post_process_masks(PROMPTED, SIZES, inner)
    adapter = Sam1(rankseg_kwargs=ACCURACY)
    all_equal(adapter.postprocess({"pred_masks": PROMPTED}, **given), expected)


def test_sam1_tells_of_sizes_that_no_processor_made():
    given = {"original_sizes": SIZES, "reshaped_input_sizes": SIZES}
    outputs = {"pred_masks": PROMPTED}
    with pytest.warns(UserWarning, match=r"are original_sizes, \(45, 60\), .* pad_size \(64"):
        Sam1(pad_size=PAD).postprocess(outputs, **given)
    Sam1(pad_size=[(60, 60), (50, 50)]).postprocess(outputs, **given)


@pytest.mark.parametrize("height", [1, 2, 3, 31, 682, 683, 1023, 1024, 1025, 3999])
@pytest.mark.parametrize("width", [1, 5, 1024, 3000, 4000])
def test_sam1_takes_the_sizes_that_rounding_makes(height, width):
    longer = max(height, width)
    inner = tuple(max(int(side * 1024 / longer + 0.5), 1) for side in (height, width))
    _sam.check_reshaped([inner], [(height, width)], [(1024, 1024)])


def test_sam1_is_the_documented_arithmetic():
    logits = restored_by_sam1(PROMPTED)
    outputs = SimpleNamespace(pred_masks=PROMPTED)
    all_equal(Sam1(pad_size=PAD).restore_mask_probs(outputs, **SAM1), [x.sigmoid() for x in logits])
    by_accuracy = Sam1(rankseg_kwargs=ACCURACY, pad_size=PAD).postprocess(outputs, **SAM1)
    all_equal(by_accuracy, [one > 0 for one in logits])
    by_dice = Sam1(pad_size=PAD).postprocess(outputs, **SAM1)
    all_equal(by_dice, [decided(one.sigmoid()) for one in logits])
    assert any((one != other).any() for one, other in zip(by_dice, by_accuracy, strict=True))


@pytest.mark.parametrize(
    ("pad_size", "used"),
    [
        (96, (96, 96)),
        ((80, 72), (80, 72)),
        ({"height": 80, "width": 72}, (80, 72)),
        ([(80, 72), (80, 72)], (80, 72)),
        (torch.tensor([[80, 72], [80, 72]]), (80, 72)),
    ],
    ids=str,
)
def test_pad_size(pad_size, used):
    got = Sam1(pad_size=pad_size).restore_mask_probs({"pred_masks": PROMPTED}, **SAM1)
    all_equal(got, [one.sigmoid() for one in restored_by_sam1(PROMPTED, used)])


# --- SAM 2, EdgeTAM and the trackers ---


@pytest.mark.parametrize("exclusive", [False, True])
def test_sam2_is_its_processor(sam2_outputs, exclusive):
    processor = made("Sam2ImageProcessor")
    masks, options = sam2_outputs.pred_masks, {"apply_non_overlapping_constraints": exclusive}
    logits = processor.post_process_masks(masks, SIZES, binarize=False, **options)
    adapter = Sam2(rankseg_kwargs=ACCURACY, **options)
    restored = adapter.restore_mask_probs(sam2_outputs, original_sizes=SIZES)
    all_equal(restored, [one.sigmoid() for one in logits])
    got = adapter.postprocess(sam2_outputs, original_sizes=torch.tensor(SIZES))
    all_equal(got, processor.post_process_masks(masks, SIZES, **options))
    got = Sam2(**options).postprocess(sam2_outputs, original_sizes=SIZES)
    all_equal(got, [decided(one.sigmoid()) for one in logits])


def test_the_processor_of_sam3_restores_prompted_masks_as_that_of_sam2(sam2_outputs):
    processor = made("Sam3ImageProcessor")
    got = Sam2(rankseg_kwargs=ACCURACY).postprocess(sam2_outputs, original_sizes=SIZES)
    all_equal(got, processor.post_process_masks(sam2_outputs.pred_masks, SIZES))


def test_sam2_is_the_documented_arithmetic():
    logits = restored_by_sam2(PROMPTED)
    given = {"original_sizes": SIZES}
    outputs = {"pred_masks": PROMPTED}
    all_equal(Sam2().restore_mask_probs(outputs, **given), [one.sigmoid() for one in logits])
    by_accuracy = Sam2(rankseg_kwargs=ACCURACY).postprocess(outputs, **given)
    all_equal(by_accuracy, [one > 0 for one in logits])
    by_iou = Sam2(rankseg_kwargs={"metric": "iou"}).postprocess(outputs, **given)
    all_equal(by_iou, [decided(one.sigmoid(), metric="iou") for one in logits])


@pytest.mark.parametrize("metric", ["dice", "iou", "acc"])
def test_objects_do_not_overlap(metric):
    options = {"rankseg_kwargs": {"metric": metric}}
    outputs, given = {"pred_masks": PROMPTED + 1}, {"original_sizes": SIZES}
    assert (torch.cat(Sam2(**options).postprocess(outputs, **given)[:1]).sum(0) > 1).any()
    adapter = Sam2(**options, apply_non_overlapping_constraints=True)
    for masks in adapter.postprocess(outputs, **given):
        assert masks.any()
        assert (masks.sum(0) <= 1).all()
    (probs, _) = adapter.restore_mask_probs(outputs, **given)
    (plain, _) = Sam2().restore_mask_probs(outputs, **given)
    first = plain == plain.amax(0)
    assert torch.equal(probs[first], plain[first])
    assert probs[~first].max() <= torch.tensor(-10.0).sigmoid()


def test_one_object_overlaps_with_nothing():
    outputs, given = {"pred_masks": PROMPTED[:, :1]}, {"original_sizes": SIZES}
    alone = Sam2(apply_non_overlapping_constraints=True).restore_mask_probs(outputs, **given)
    all_equal(alone, Sam2().restore_mask_probs(outputs, **given))


def test_a_frame_of_a_video_and_objects_that_differ_in_number():
    frame = {"pred_masks": PROMPTED[0, :, :1]}
    (got,) = Sam2().postprocess(frame, original_sizes=SIZES[:1])
    assert torch.equal(
        got, Sam2().postprocess({"pred_masks": PROMPTED}, original_sizes=SIZES)[0][:, :1]
    )
    ragged = {"pred_masks": [PROMPTED[0, :1], PROMPTED[1].numpy()]}
    one, other = Sam2().postprocess(ragged, original_sizes=SIZES)
    assert one.shape == (1, 3, *SIZES[0])
    assert other.shape == (3, 3, *SIZES[1])


def test_a_frame_of_the_video_model():
    video = framework("transformers.models.sam2_video.modeling_sam2_video")
    memory = {"hidden_size": 32, "num_layers": 1, "feed_forward_hidden_size": 16}
    memory |= {"num_attention_heads": 1, "rope_feat_sizes": [4, 4]}
    fuser = {"num_layers": 1, "embed_dim": 32, "intermediate_dim": 32}
    config = made(
        "Sam2VideoConfig",
        vision_config=PYRAMID
        | {"backbone_config": HIERA, "backbone_channel_list": [64, 32, 16, 8]},
        prompt_encoder_config=PROMPT,
        mask_decoder_config=MASK_DECODER,
        image_size=64,
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        **{f"memory_attention_{name}": value for name, value in memory.items()},
        **{f"memory_fuser_{name}": value for name, value in fuser.items()},
    )
    torch.manual_seed(1)  # one of the two objects is found
    model = made("Sam2VideoModel", config).eval()
    frames = torch.rand(2, 3, 64, 64)
    height, width = SIZES[0]
    session = video.Sam2VideoInferenceSession(
        frames, video_height=height, video_width=width, dtype=torch.float32
    )
    for name in (1, 2):
        click = {"point_coords": 60 * torch.rand(1, 1, 1, 2)}
        click["point_labels"] = torch.ones(1, 1, 1, dtype=torch.int)
        session.add_point_inputs(session.obj_id_to_idx(name), 0, click)
    session.obj_with_new_inputs = [1, 2]
    with torch.no_grad():
        outputs = model(session, frame_idx=0)
    (masks,) = Sam2(rankseg_kwargs=ACCURACY).postprocess(outputs, original_sizes=[(height, width)])
    assert masks.shape == (2, 1, height, width)
    assert torch.equal(masks, linear(outputs.pred_masks, (height, width)) > 0)
    assert masks.any()


# --- what prompted masks have in common ---


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision_is_widened_before_it_is_resized_but_for_accuracy(dtype):
    logits = PROMPTED.to(dtype)
    outputs = {"pred_masks": logits}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    probs = [one.sigmoid() for one in restored_by_sam1(logits.to(wide))]
    all_equal(Sam1(pad_size=PAD).restore_mask_probs(outputs, **SAM1), probs)
    all_equal(Sam1(pad_size=PAD).postprocess(outputs, **SAM1), [decided(one) for one in probs])
    by_accuracy = Sam1(rankseg_kwargs=ACCURACY, pad_size=PAD).postprocess(outputs, **SAM1)
    all_equal(by_accuracy, [one > 0 for one in restored_by_sam1(logits)])
    for exclusive in (False, True):
        adapter = Sam2(apply_non_overlapping_constraints=exclusive)
        got = adapter.restore_mask_probs(outputs, original_sizes=SIZES)
        widened = {"pred_masks": logits.to(wide)}
        all_equal(got, adapter.restore_mask_probs(widened, original_sizes=SIZES))


def test_the_smallest_positive_logit_is_foreground_by_accuracy():
    tiny = PROMPTED * 1e-9
    assert (tiny.sigmoid() <= 0.5).all()
    got = Sam2(rankseg_kwargs=ACCURACY).postprocess({"pred_masks": tiny}, original_sizes=SIZES)
    all_equal(got, [one > 0 for one in restored_by_sam2(tiny)])
    assert np.array_equal(decide_logits(tiny.numpy(), ACCURACY), tiny.numpy() > 0)


@pytest.mark.parametrize("budget", [1, 20_000])
def test_few_masks_at_a_time_give_the_same(monkeypatch, budget):
    outputs = instances()
    whole = Sam1(pad_size=PAD).postprocess({"pred_masks": PROMPTED}, **SAM1)
    exclusive = Sam2(apply_non_overlapping_constraints=True)
    apart = exclusive.postprocess({"pred_masks": PROMPTED}, original_sizes=SIZES)
    found = Sam3(threshold=0.0).postprocess_instance(outputs, target_sizes=SIZES)
    monkeypatch.setattr(_sam, "SCORES_AT_ONCE", budget)
    seen = []
    monkeypatch.setattr(
        _sam,
        "resize",
        lambda maps, size, real=_sam.resize: seen.append(len(maps)) or real(maps, size),
    )
    all_equal(Sam1(pad_size=PAD).postprocess({"pred_masks": PROMPTED}, **SAM1), whole)
    assert set(seen) == ({1} if budget == 1 else {2, 1, 3})  # three objects, of two sizes
    all_equal(exclusive.postprocess({"pred_masks": PROMPTED}, original_sizes=SIZES), apart)
    again = Sam3(threshold=0.0).postprocess_instance(outputs, target_sizes=SIZES)
    all_equal([one["masks"] for one in again], [one["masks"] for one in found])


def test_arrays_gradients_sizes_and_the_callers_data():
    masks = PROMPTED.clone().requires_grad_()
    expected = Sam1(pad_size=PAD).postprocess({"pred_masks": PROMPTED}, **SAM1)
    sizes = {name: np.array(value) for name, value in SAM1.items()}
    all_equal(Sam1(pad_size=PAD).postprocess({"pred_masks": masks}, **sizes), expected)
    array = PROMPTED.numpy().copy()
    array.flags.writeable = False
    got = Sam1(pad_size=PAD).postprocess(SimpleNamespace(pred_masks=array), **SAM1)
    all_equal(got, expected)
    assert np.array_equal(array, PROMPTED.numpy())
    assert not got[0].requires_grad


def test_no_object_and_no_image():
    empty = {"pred_masks": PROMPTED[:, :0]}
    for exclusive in (False, True):
        adapter = Sam2(apply_non_overlapping_constraints=exclusive)
        for masks, size in zip(
            adapter.postprocess(empty, original_sizes=SIZES), SIZES, strict=True
        ):
            assert masks.shape == (0, 3, *size)
            assert masks.dtype == torch.bool
    assert Sam2().postprocess({"pred_masks": PROMPTED[:0]}, original_sizes=[]) == []


# --- SAM 3 ---


@pytest.mark.parametrize("target_sizes", [SIZES, None])
@pytest.mark.parametrize("threshold", [0.3, 0.99])
def test_sam3_instances_are_those_of_its_processor(sam3_outputs, target_sizes, threshold):
    processor = made("Sam3ImageProcessor")
    expected = processor.post_process_instance_segmentation(
        sam3_outputs, threshold, target_sizes=target_sizes
    )
    adapter = Sam3(rankseg_kwargs=ACCURACY, threshold=threshold, mask_dtype=torch.int64)
    got = adapter.postprocess_instance(sam3_outputs, target_sizes=target_sizes)
    assert threshold == 0.99 or all(len(one["scores"]) for one in expected)
    for name in ("scores", "boxes", "masks"):
        all_equal([one[name] for one in got], [one[name] for one in expected])
    assert all(set(one) == set(other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("target_sizes", [SIZES, None])
def test_sam3_semantic_masks_are_those_of_its_processor(sam3_outputs, target_sizes):
    processor = made("Sam3ImageProcessor")
    expected = processor.post_process_semantic_segmentation(
        sam3_outputs, target_sizes, return_segmentation_scores=True
    )
    adapter = Sam3(rankseg_kwargs=ACCURACY, mask_dtype=torch.int64)
    given = {"target_sizes": target_sizes}
    masks = adapter.postprocess_semantic(sam3_outputs, **given)
    all_equal(masks, [one.segmentation for one in expected])
    probs = adapter.restore_semantic_mask_probs(sam3_outputs, **given)
    all_equal(probs, [one.segmentation_scores for one in expected])


@pytest.mark.parametrize("presence", [True, False])
@pytest.mark.parametrize("metric", ["dice", "iou", "acc"])
def test_sam3_instances_are_the_documented_arithmetic(metric, presence):
    outputs = instances(**({} if presence else {"presence_logits": None}))
    adapter = Sam3(rankseg_kwargs={"metric": metric}, threshold=0.4)
    restored = adapter.restore_instance_mask_probs(outputs, target_sizes=SIZES)
    found = adapter.postprocess_instance(SimpleNamespace(**outputs), original_sizes=SIZES)
    for number, (height, width) in enumerate(SIZES):
        scores, boxes, probs = restored_by_sam3(outputs, number, 0.4)
        boxes = boxes * torch.tensor([width, height, width, height])
        masks = probs > 0.5 if metric == "acc" else decided(probs, metric=metric)
        all_equal([*restored[number].values()], [scores, boxes, probs])
        all_equal([*found[number].values()], [scores, boxes, masks])
        assert list(restored[number]) == ["scores", "boxes", "mask_probs"]
        assert list(found[number]) == ["scores", "boxes", "masks"]
    assert 0 < len(found[0]["scores"]) < 6 or 0 < len(found[1]["scores"]) < 6


@pytest.mark.parametrize("metric", ["dice", "iou", "acc"])
def test_sam3_semantic_masks_are_the_documented_arithmetic(metric):
    outputs = instances()
    adapter = Sam3(rankseg_kwargs={"metric": metric})
    expected = [
        linear(probs[None], size)[0]
        for probs, size in zip(outputs["semantic_seg"].sigmoid(), SIZES, strict=True)
    ]
    all_equal(adapter.restore_semantic_mask_probs(outputs, original_sizes=SIZES), expected)
    masks = [one > 0.5 if metric == "acc" else decided(one, metric=metric) for one in expected]
    got = adapter.postprocess_semantic(outputs, target_sizes=SIZES, original_sizes=[(1, 1)])
    all_equal(got, [one[0] for one in masks])
    all_equal(adapter.postprocess_semantic(outputs, original_sizes=SIZES), got)


def test_masks_do_not_compete_whatever_the_solver():
    options = {"metric": "acc", "solver": "argmax"}
    adapter = Sam3(rankseg_kwargs=options, threshold=0.0)
    for number, one in enumerate(adapter.postprocess_instance(instances(), target_sizes=SIZES)):
        _, _, probs = restored_by_sam3(instances(), number, 0.0)
        assert torch.equal(one["masks"], probs > 0.5)
        assert (one["masks"].sum(0) > 1).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sam3_widens_half_precision_before_the_sigmoid_but_for_accuracy(dtype):
    outputs = instances(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    widened = {name: values.to(wide) for name, values in outputs.items()}
    adapter, by_accuracy = Sam3(), Sam3(rankseg_kwargs=ACCURACY)
    restored = adapter.restore_instance_mask_probs(outputs, target_sizes=SIZES)
    found = adapter.postprocess_instance(outputs, target_sizes=SIZES)
    for number, (height, width) in enumerate(SIZES):
        scores, boxes, probs = restored_by_sam3(widened, number, 0.3)
        boxes = boxes * torch.tensor([width, height, width, height])
        all_equal([*restored[number].values()], [scores, boxes, probs])
        all_equal([*found[number].values()], [scores, boxes, decided(probs)])
    for number, one in enumerate(by_accuracy.postprocess_instance(outputs, target_sizes=SIZES)):
        scores, _, probs = restored_by_sam3(outputs, number, 0.3)
        all_equal([one["scores"], one["masks"]], [scores, probs > 0.5])
    (probs, _) = adapter.restore_semantic_mask_probs(outputs)
    assert torch.equal(probs, widened["semantic_seg"].sigmoid()[0])


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64])
def test_masks_of_sam3_are_of_the_dtype_asked_for(mask_dtype):
    adapter = Sam3(mask_dtype=mask_dtype)
    for one in adapter.postprocess_instance(instances(), target_sizes=SIZES):
        assert one["masks"].dtype == mask_dtype
    assert adapter.postprocess_semantic(instances())[0].dtype == mask_dtype
    assert Sam3().mask_dtype == torch.bool


def test_sam3_without_instances_keeps_the_size_of_the_model():
    adapter = Sam3(threshold=1.0)
    (first, _) = adapter.postprocess_instance(instances(), target_sizes=SIZES)
    assert first["masks"].shape == (0, 18, 18)
    assert first["masks"].dtype == torch.bool
    assert first["boxes"].shape == (0, 4)
    (first, _) = adapter.restore_instance_mask_probs(instances(), target_sizes=SIZES)
    assert first["mask_probs"].shape == (0, 18, 18)


def test_certain_masks_of_sam3_can_be_resized():
    outputs = instances(pred_masks=torch.full((2, 6, 18, 18), 90.0))
    for one in Sam3(threshold=0.0).postprocess_instance(outputs, target_sizes=SIZES):
        assert one["masks"].all()


# --- options that are changed between calls ---


def test_options_that_are_set_later_count_at_the_next_call():
    outputs = {"pred_masks": PROMPTED}
    adapter = Sam1()
    assert (adapter.rankseg_kwargs, adapter.pad_size) == (None, None)
    adapter.rankseg_kwargs, adapter.pad_size = {"metric": "iou"}, PAD
    expected = Sam1(rankseg_kwargs={"metric": "iou"}, pad_size=PAD).postprocess(outputs, **SAM1)
    all_equal(adapter.postprocess(outputs, **SAM1), expected)
    adapter.rankseg_kwargs["metric"] = "acc"
    expected = Sam1(rankseg_kwargs=ACCURACY, pad_size=PAD).postprocess(outputs, **SAM1)
    all_equal(adapter.postprocess(outputs, **SAM1), expected)

    adapter = Sam2()
    assert adapter.apply_non_overlapping_constraints is False
    adapter.apply_non_overlapping_constraints = True
    for masks in adapter.postprocess(outputs, original_sizes=SIZES):
        assert (masks.sum(0) <= 1).all()

    adapter = Sam3()
    assert (adapter.threshold, adapter.mask_dtype) == (0.3, torch.bool)
    adapter.threshold, adapter.mask_dtype = 0.0, torch.int64
    (first, _) = adapter.postprocess_instance(instances())
    assert first["masks"].shape[0] == 6
    assert first["masks"].dtype == torch.int64


def setting(adapter, **attributes):
    """Set attributes of an adapter, and decide."""

    def call():
        for name, value in attributes.items():
            setattr(adapter, name, value)
        if isinstance(adapter, Sam1):
            return adapter.postprocess({"pred_masks": PROMPTED}, **SAM1)
        if isinstance(adapter, Sam2):
            return adapter.postprocess({"pred_masks": PROMPTED}, original_sizes=SIZES)
        return adapter.postprocess_instance(instances())

    return call


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (setting(Sam1(), pad_size=0), ValueError, "pad_size must be positive"),
        (setting(Sam1(), pad_size=True), TypeError, "pad_size must be an integer, got True"),
        (setting(Sam2(), rankseg_kwargs={"metric": "hd95"}), ValueError, "metric must be one of"),
        (setting(Sam2(), rankseg_kwargs=5), TypeError, "rankseg_kwargs must be a mapping"),
        (setting(Sam2(), apply_non_overlapping_constraints=1), TypeError, "True or False, got 1"),
        (setting(Sam3(), threshold=2), ValueError, r"threshold must be in \[0, 1\], got 2"),
        (setting(Sam3(), threshold=None), TypeError, "threshold must be a real number"),
        (setting(Sam3(), mask_dtype=torch.uint8), ValueError, "mask_dtype must be in .*uint8"),
        (lambda: Sam3(mask_dtype="bool"), ValueError, "mask_dtype must be in .*'bool'"),
    ],
)
def test_options_that_are_set_later_are_checked(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", [Sam1, Sam2, Sam3])
@pytest.mark.parametrize("name", ["treshold", "Threshold", "metric", "postprocess"])
def test_attributes_without_effect_are_refused(kind, name):
    with pytest.raises(AttributeError, match=f"'{name}' cannot be set .* one of .'rankseg_kwargs'"):
        setattr(kind(), name, 0.9)


@pytest.mark.parametrize("kind", [Sam1, Sam2, Sam3])
def test_no_other_adapter_shares_the_options(kind):
    given = {"metric": "iou"}
    adapter = kind(rankseg_kwargs=given)
    for other in (copy.copy(adapter), pickle.loads(pickle.dumps(adapter)), copy.copy(kind())):
        other.rankseg_kwargs = other.rankseg_kwargs or {}
        other.rankseg_kwargs["metric"] = "acc"
        assert adapter.rankseg_kwargs == given == {"metric": "iou"}
    adapter.rankseg_kwargs = given
    adapter.rankseg_kwargs["metric"] = "acc"
    assert given == {"metric": "iou"}


# --- gradients ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_probabilities_keep_gradients_and_masks_have_none(dtype):
    masks = PROMPTED.to(dtype, copy=True).requires_grad_()
    outputs = {"pred_masks": masks}
    found = {name: one.clone().requires_grad_() for name, one in instances(dtype).items()}
    exclusive = Sam2(apply_non_overlapping_constraints=True)
    for restored, source in (
        (Sam1(pad_size=PAD).restore_mask_probs(outputs, **SAM1), masks),
        (exclusive.restore_mask_probs(outputs, original_sizes=SIZES), masks),
        (Sam3().restore_semantic_mask_probs(found), found["semantic_seg"]),
    ):
        source.grad = None
        sum(one.sum() for one in restored).backward()
        assert source.grad.abs().sum() > 0
    restored = Sam3().restore_instance_mask_probs(found, target_sizes=SIZES)
    sum(values.sum() for one in restored for values in one.values()).backward()
    for name in ("pred_masks", "pred_logits", "pred_boxes", "presence_logits"):
        assert found[name].grad.abs().sum() > 0
    for one in Sam3().postprocess_instance(found):
        assert not any(values.requires_grad for values in one.values())
    assert not decide_logits(masks).requires_grad


# --- sizes ---

ONE = {"pred_masks": PROMPTED[:1]}


@pytest.mark.parametrize(
    "size",
    [
        (45, 60),
        [45, 60],
        {"height": 45, "width": 60},
        SimpleNamespace(height=45, width=60),
        torch.tensor([45, 60], dtype=torch.int32),
        np.array([45, 60]),
        np.array([[45, 60]], np.uint16),
        [{"height": 45, "width": 60}],
        [np.array([45, 60])],
        [torch.tensor([45, 60])],
        [(np.int64(45), np.int32(60))],
        torch.Size([45, 60]),
    ],
    ids=repr,
)
def test_the_size_of_one_image_in_every_form(size):
    (expected,) = Sam2().postprocess(ONE, original_sizes=[(45, 60)])
    all_equal(Sam2().postprocess(ONE, original_sizes=size), [expected])
    (padded,) = Sam1(pad_size=PAD).postprocess(
        ONE, original_sizes=size, reshaped_input_sizes=(48, 64)
    )
    assert padded.shape == expected.shape
    found = {name: values[:1] for name, values in instances().items()}
    (mask,) = Sam3().postprocess_semantic(found, target_sizes=size)
    assert mask.shape == (45, 60)


def test_sizes_of_several_images_as_mappings():
    outputs = {"pred_masks": PROMPTED}
    sizes = [{"height": height, "width": width} for height, width in SIZES]
    expected = Sam2().postprocess(outputs, original_sizes=SIZES)
    all_equal(Sam2().postprocess(outputs, original_sizes=sizes), expected)


@pytest.mark.parametrize("form", [np.array, torch.tensor, list], ids=["array", "tensor", "list"])
def test_one_pad_size_for_all_images(form):
    adapter = Sam1(pad_size=form([80, 72]))
    got = adapter.restore_mask_probs({"pred_masks": PROMPTED}, **SAM1)
    all_equal(got, [one.sigmoid() for one in restored_by_sam1(PROMPTED, (80, 72))])


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ((3.5, 5), TypeError, "must be an integer, got 3.5"),
        ((True, 5), TypeError, "must be an integer, got True"),
        (torch.tensor([3.0, 5.0]), TypeError, "must be of an integer dtype, got torch.float32"),
        (np.array([[3.0, 5.0]]), TypeError, "must be of an integer dtype, got float64"),
        (torch.empty(0, 2), TypeError, "must be of an integer dtype"),
        ((0, 5), ValueError, "must be positive"),
        ((3, 4, 5), ValueError, r"must hold \(height, width\)"),
        ({"height": 3}, ValueError, r"must hold \(height, width\)"),
        ({"longest_edge": 1024}, ValueError, r"must hold \(height, width\)"),
        ("45x60", TypeError, ".*got str"),
        (45, TypeError, ".*got int"),
        ([], ValueError, "must be of 1 images, got 0"),
        ([None], ValueError, r"must hold \(height, width\)"),
    ],
    ids=repr,
)
def test_what_is_no_size(size, error, message):
    with pytest.raises(error, match=f"original_sizes {message}"):
        Sam2().restore_mask_probs(ONE, original_sizes=size)
    found = {name: values[:1] for name, values in instances().items()}
    with pytest.raises(error, match=f"target_sizes {message}"):
        Sam3().restore_semantic_mask_probs(found, target_sizes=size)
    with pytest.raises(error, match=f"original_sizes {message}"):
        Sam3().restore_instance_mask_probs(found, original_sizes=size)


def test_four_axes_with_several_sizes_are_images_of_one_object():
    masks = PROMPTED[:, 0]
    expected = Sam2().postprocess({"pred_masks": PROMPTED[:, :1]}, original_sizes=SIZES)
    all_equal(Sam2().postprocess({"pred_masks": masks}, original_sizes=SIZES), expected)
    all_equal(Sam2().postprocess({"pred_masks": masks.numpy()}, original_sizes=SIZES), expected)
    expected = Sam1(pad_size=PAD).postprocess({"pred_masks": PROMPTED[:, :1]}, **SAM1)
    all_equal(Sam1(pad_size=PAD).postprocess({"pred_masks": masks}, **SAM1), expected)
    with pytest.raises(ValueError, match="original_sizes must be of 2 images, got 3 sizes"):
        Sam2().postprocess({"pred_masks": masks}, original_sizes=[(4, 5)] * 3)


# --- logits of other predictors ---


@pytest.mark.parametrize("shape", [(20, 24), (3, 20, 24), (4, 3, 20, 24)], ids=str)
@pytest.mark.parametrize("metric", ["dice", "acc"])
def test_logits_of_any_shape(shape, metric):
    logits = blobs(12, 1, 20, 24).flatten()[: torch.Size(shape).numel()].view(shape)
    got = decide_logits(logits, {"metric": metric})
    by_dice = (
        decided(logits.sigmoid()[None, None])[0, 0]
        if len(shape) == 2
        else decided(logits.sigmoid())
    )
    assert torch.equal(got, logits > 0 if metric == "acc" else by_dice)
    as_array = decide_logits(logits.numpy(), {"metric": metric})
    assert isinstance(as_array, np.ndarray)
    assert as_array.dtype == bool
    assert np.array_equal(as_array, got.numpy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_of_any_dtype(dtype):
    logits = PROMPTED[0].to(dtype)
    wide = logits if dtype == torch.float64 else logits.float()
    assert torch.equal(decide_logits(logits), decided(wide.sigmoid()))


PHOTO = (255 * np.random.default_rng(0).random((45, 60, 3))).astype(np.uint8)
CLICK = {"point_coords": np.array([[20.0, 20.0]]), "point_labels": np.array([1])}


def is_what_it_predicts(predictor):
    predictor.set_image(PHOTO)
    logits, _, _ = predictor.predict(**CLICK, return_logits=True)
    masks, _, _ = predictor.predict(**CLICK)
    assert masks.shape == (3, 45, 60)
    assert masks.any()
    np.testing.assert_array_equal(decide_logits(logits, ACCURACY), masks)
    by_dice = decided(torch.from_numpy(logits).sigmoid())
    np.testing.assert_array_equal(decide_logits(logits), by_dice.numpy())


def test_the_predictor_of_segment_anything():
    framework("segment_anything")
    parts = framework("segment_anything.modeling")
    torch.manual_seed(0)
    encoder = parts.ImageEncoderViT(
        depth=1, embed_dim=32, img_size=64, mlp_ratio=1, num_heads=2, out_chans=32
    )
    prompts = parts.PromptEncoder(32, (4, 4), (64, 64), mask_in_chans=4)
    transformer = parts.TwoWayTransformer(depth=1, embedding_dim=32, mlp_dim=16, num_heads=2)
    decoder = parts.MaskDecoder(
        transformer_dim=32, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=16
    )
    model = parts.Sam(encoder, prompts, decoder).eval()
    is_what_it_predicts(framework("segment_anything").SamPredictor(model))


@pytest.mark.filterwarnings("ignore")
def test_the_predictor_of_sam2():
    build = framework("sam2.build_sam").build_sam2
    torch.manual_seed(0)
    small = ["++model.image_size=128"]
    model = build("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", hydra_overrides_extra=small)
    predictor = framework("sam2.sam2_image_predictor").SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]  # it knows those of 1024 pixels only
    is_what_it_predicts(predictor)


# --- what is refused ---


class SamImageSegmentationOutput(SimpleNamespace):
    """Outputs by the name of their class."""


class WrappedOutput(SamImageSegmentationOutput):
    """Outputs by the name of the base of their class."""


class Sam3ImageSegmentationOutput(SimpleNamespace):
    """Outputs by the name of their class."""


class Sam3VideoSegmentationOutput(SimpleNamespace):
    """Outputs by the name of their class."""


def prompted(pred_masks, sizes=SIZES):
    return lambda: Sam2().postprocess({"pred_masks": pred_masks}, original_sizes=sizes)


def padded(pad_size=PAD, **sizes):
    return lambda: Sam1(pad_size=pad_size).postprocess({"pred_masks": PROMPTED}, **SAM1 | sizes)


def found(**fields):
    return lambda: Sam3().postprocess_instance(instances(**fields), target_sizes=SIZES)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Sam2().postprocess(
                SamImageSegmentationOutput(pred_masks=PROMPTED), original_sizes=SIZES
            ),
            ValueError,
            "outputs must be those of a model for Sam2; SamImageSegmentationOutput is for Sam1",
        ),
        (
            lambda: Sam2().postprocess(WrappedOutput(pred_masks=PROMPTED), original_sizes=SIZES),
            ValueError,
            "model for Sam2; WrappedOutput is for Sam1",
        ),
        (
            lambda: Sam1().postprocess(Sam3ImageSegmentationOutput(**instances()), **SAM1),
            ValueError,
            "model for Sam1; Sam3ImageSegmentationOutput is for Sam3",
        ),
        (
            lambda: Sam3().postprocess_semantic(SamImageSegmentationOutput(pred_masks=PROMPTED)),
            ValueError,
            "model for Sam3; SamImageSegmentationOutput is for Sam1",
        ),
        (
            lambda: Sam2().postprocess(Sam3VideoSegmentationOutput(), original_sizes=SIZES),
            ValueError,
            "Sam3VideoSegmentationOutput is for decide_logits",
        ),
        (prompted(None), ValueError, "outputs must have pred_masks, which dict lacks"),
        (prompted("masks"), TypeError, "pred_masks must be"),
        (prompted(3), TypeError, "pred_masks must be a tensor, .* got int"),
        (prompted(PROMPTED > 0), TypeError, "pred_masks must be of a floating .*torch.bool"),
        (prompted(PROMPTED[0, 0]), ValueError, r"pred_masks must .*got \(3, 16, 16\)"),
        (prompted(PROMPTED * torch.nan), ValueError, "pred_masks must be finite, got 2304 values"),
        (prompted(PROMPTED, SIZES[:1]), ValueError, "original_sizes must be of 2 images, got 1"),
        (prompted(PROMPTED, None), ValueError, "original_sizes must be given"),
        (prompted(PROMPTED, [4, 5]), ValueError, "original_sizes must be of 2 images, got 1"),
        (prompted(PROMPTED, [(4, 5.5)] * 2), TypeError, "original_sizes must be an integer"),
        (prompted(PROMPTED, [(4, 0)] * 2), ValueError, r"original_sizes must be positive, got \(4"),
        (
            padded(reshaped_input_sizes=[(65, 64)] * 2),
            ValueError,
            r"reshaped_input_sizes must fit in pad_size \(64, 64\), got \(65, 64\)",
        ),
        (
            padded(reshaped_input_sizes=[(64, 48), (64, 40)]),
            ValueError,
            r"got \(64, 48\) for original_sizes of \(45, 60\): the aspect ratios differ",
        ),
        (padded("64"), TypeError, r"pad_size must be \(height, width\) .* got str"),
        (padded((64, 6.4)), TypeError, "pad_size must be an integer, got 6.4"),
        (padded({"longest_edge": 3}), ValueError, r"pad_size must hold \(height, width\)"),
        (padded([(64, 64)]), ValueError, "pad_size must be of 2 images, got 1"),
        (prompted(PROMPTED.to(torch.complex64)), TypeError, "pred_masks .*got torch.complex64"),
        (prompted(PROMPTED[:, :, :0]), ValueError, "pred_masks must .*the last three not empty"),
        (prompted(PROMPTED[..., :0]), ValueError, "pred_masks must .*the last three not empty"),
        (prompted(PROMPTED.to("meta")), TypeError, "pred_masks must be .* got a meta tensor"),
        (found(pred_masks=None), ValueError, "outputs must have pred_masks"),
        (found(pred_masks=PROMPTED[:, 0, :, :0]), ValueError, "pred_masks must not be empty"),
        (found(pred_logits=torch.ones(2, 6, dtype=torch.int)), TypeError, "pred_logits must be of"),
        (found(pred_logits=torch.full((2, 6), torch.nan)), ValueError, "pred_logits must be fin"),
        (found(pred_boxes=torch.full((2, 6, 4), torch.inf)), ValueError, "pred_boxes must be fi"),
        (found(presence_logits=torch.tensor([[1.0], [torch.nan]])), ValueError, "presence_logits"),
        (
            found(pred_boxes=torch.rand(2, 6, 4, device="meta")),
            TypeError,
            "pred_boxes must be .* got a meta tensor",
        ),
        (
            lambda: Sam3().restore_semantic_mask_probs(
                instances(semantic_seg=torch.full((2, 1, 4, 4), torch.nan))
            ),
            ValueError,
            "semantic_seg must be finite, got 32",
        ),
        (found(pred_logits=torch.rand(2, 5)), ValueError, r"pred_logits must be of shape \(2, 6\)"),
        (found(pred_boxes=torch.rand(2, 6)), ValueError, r"pred_boxes must be .*\(2, 6, 4\), got"),
        (found(presence_logits=torch.rand(1, 2)), ValueError, r"presence_logits must .*\(2, 1\)"),
        (
            found(pred_masks=PROMPTED),
            ValueError,
            r"pred_masks .*queries, height, width\), got",
        ),
        (
            lambda: Sam3().postprocess_semantic(instances(semantic_seg=None)),
            ValueError,
            "outputs must have semantic_seg",
        ),
        (
            lambda: Sam3().postprocess_semantic(instances(), target_sizes=SIZES * 2),
            ValueError,
            "target_sizes must be of 2 images, got 4",
        ),
        (lambda: decide_logits([[1.0]]), TypeError, "logits must be a dense torch.Tensor or"),
        (lambda: decide_logits(torch.rand(4)), ValueError, r"logits must have the axes .*\(4,\)"),
        (lambda: decide_logits(np.full((2, 2), np.inf)), ValueError, "logits must be finite"),
        (
            lambda: Sam1(rankseg_kwargs={"output_mode": "multiclass"}),
            ValueError,
            "rankseg_kwargs must leave output_mode='multilabel'.*got 'multiclass'",
        ),
        (
            lambda: Sam2(rankseg_kwargs={"from_logits": "sigmoid"}),
            ValueError,
            "rankseg_kwargs must not name from_logits",
        ),
        (lambda: Sam3(rankseg_kwargs="dice"), TypeError, "rankseg_kwargs must be a mapping"),
        (lambda: Sam3(rankseg_kwargs={"metric": "hd95"}), ValueError, "metric must be one of"),
        (lambda: Sam3(threshold=1.5), ValueError, r"threshold must be in \[0, 1\], got 1.5"),
        (
            lambda: Sam2(apply_non_overlapping_constraints="yes"),
            TypeError,
            "apply_non_overlapping_constraints must be True or False, got 'yes'",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- names, imports, the example ---


def test_names_and_parameters_are_those_of_the_published_package():
    signatures = {
        Sam1: "rankseg_kwargs pad_size",
        Sam1.restore_mask_probs: "self outputs original_sizes reshaped_input_sizes",
        Sam1.postprocess: "self outputs original_sizes reshaped_input_sizes",
        Sam2: "rankseg_kwargs apply_non_overlapping_constraints",
        Sam2.restore_mask_probs: "self outputs original_sizes",
        Sam2.postprocess: "self outputs original_sizes",
        Sam3: "rankseg_kwargs threshold mask_dtype",
        Sam3.restore_instance_mask_probs: "self outputs target_sizes original_sizes",
        Sam3.restore_semantic_mask_probs: "self outputs target_sizes original_sizes",
        Sam3.postprocess_instance: "self outputs target_sizes original_sizes",
        Sam3.postprocess_semantic: "self outputs target_sizes original_sizes",
    }
    for function, names in signatures.items():
        assert " ".join(inspect.signature(function).parameters) == names
    assert inspect.signature(Sam3).parameters["threshold"].default == 0.3


def test_the_adapter_loads_no_framework():
    code = (
        "import sys; sys.modules.update(transformers=None, torchvision=None, PIL=None)\n"
        "import torch\n"
        "from rankseg.integration.sam import Sam2\n"
        "outputs = {'pred_masks': torch.randn(1, 1, 3, 8, 8)}\n"
        "print(*Sam2().postprocess(outputs, original_sizes=[(9, 7)])[0].shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "1 3 9 7", result.stderr


def test_example(capsys):
    framework("transformers")
    runpy.run_path(str(REPOSITORY / "examples" / "sam.py"), run_name="__main__")
    assert "masks" in capsys.readouterr().out


LOGITS = 6 * torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, 3, 16, 16)))
OUTPUTS = {
    "pred_masks": LOGITS.sigmoid(),
    "semantic_seg": LOGITS[:, :, 0].sigmoid()[:, :1],
}
SAM1_SIZES = {"original_sizes": SIZES, "reshaped_input_sizes": INNER}
INSTANCES = {
    "pred_masks": LOGITS[:, 0].sigmoid(),
    "pred_logits": LOGITS[:, 0, :, 0, 0],
    "pred_boxes": LOGITS[:, 0, :, 0, :4],
}
ACTIVATED = {
    "decide_logits": lambda: decide_logits(LOGITS.sigmoid()),
    "decide_logits of arrays": lambda: decide_logits(LOGITS.sigmoid().numpy(), ACCURACY),
    "Sam1": lambda: Sam1(pad_size=PAD).postprocess(OUTPUTS, **SAM1_SIZES),
    "Sam1 restored": lambda: Sam1(pad_size=PAD).restore_mask_probs(OUTPUTS, **SAM1_SIZES),
    "Sam2": lambda: Sam2().postprocess(OUTPUTS, original_sizes=SIZES),
    "Sam2 restored": lambda: Sam2().restore_mask_probs(OUTPUTS, original_sizes=SIZES),
    "Sam3": lambda: Sam3().postprocess_instance(INSTANCES),
    "Sam3 restored": lambda: Sam3().restore_instance_mask_probs(INSTANCES),
    "Sam3 semantic": lambda: Sam3().postprocess_semantic(OUTPUTS),
    "Sam3 semantic restored": lambda: Sam3().restore_semantic_mask_probs(OUTPUTS),
}


@pytest.mark.parametrize("name", ACTIVATED)
def test_probabilities_in_place_of_logits_warn_once(name):
    with pytest.warns(UserWarning, match="they look like probabilities, of which this") as told:
        ACTIVATED[name]()
    assert [warning.filename for warning in told] == [__file__]


def test_masks_and_scores_in_place_of_logits_warn():
    with pytest.warns(UserWarning, match="pred_masks lie in .* they look like masks of 0 and 1"):
        Sam2().postprocess({"pred_masks": (LOGITS > 0).float()}, original_sizes=SIZES)
    scores = {"pred_masks": LOGITS[:, 0], "pred_logits": INSTANCES["pred_logits"].sigmoid()}
    with pytest.warns(UserWarning, match="pred_logits lie in .* they look like probabilities"):
        Sam3().postprocess_instance(INSTANCES | scores)


@pytest.mark.parametrize("adapter", [Sam1(), Sam2()])
def test_outputs_without_names_are_refused(adapter):
    sizes = SAM1_SIZES if isinstance(adapter, Sam1) else {"original_sizes": SIZES}
    with pytest.raises(TypeError, match="got tuple: call the model with return_dict=True"):
        adapter.postprocess((LOGITS,), **sizes)
    with pytest.raises(TypeError, match="got tuple: call the model with return_dict=True"):
        Sam3().postprocess_semantic((LOGITS,))
