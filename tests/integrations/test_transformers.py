"""Outputs of Transformers: what its own processors decide, decided by RankSEG."""

from __future__ import annotations

import pickle
import runpy
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from rankseg import RankSEG
from rankseg.integration.transformers import (
    RankSEGProcessor,
    postprocess,
    restore_semantic_probs,
)
from support.frameworks import framework

T = framework("transformers")
framework("PIL")

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = 5
SIZES = [(40, 52), (75, 64)]
MAP = torch.zeros(1, 3, 8, 8)
ACC = {"metric": "acc"}
LABELS = {"num_labels": CLASSES}
IMAGES = 4 * torch.rand(2, 3, 64, 64, generator=torch.manual_seed(1)) - 2


def swin():
    stages = [f"stage{number}" for number in range(1, 5)]
    return T.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=stages,
    )


def resnet(stages=("stage1", "stage2", "stage3", "stage4")):
    return T.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 32],
        depths=[1] * 4,
        layer_type="basic",
        out_features=list(stages),
    )


def vit(**changes):
    return {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 64,
        "patch_size": 16,
        **changes,
    }


def segformer():
    return T.SegformerForSemanticSegmentation(
        T.SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[3, 3],
            strides=[4, 2],
            num_attention_heads=[1, 1],
            mlp_ratios=[1, 1],
            decoder_hidden_size=16,
            **LABELS,
        )
    )


def upernet():
    return T.UperNetForSemanticSegmentation(
        T.UperNetConfig(
            backbone_config=swin(), hidden_size=8, auxiliary_channels=8, auxiliary_in_channels=32,
            **LABELS,
        )
    )  # fmt: skip


def beit():
    return T.BeitForSemanticSegmentation(T.BeitConfig(**vit(out_indices=[1, 2, 3, 4]), **LABELS))


def data2vec():
    return T.Data2VecVisionForSemanticSegmentation(
        T.Data2VecVisionConfig(**vit(out_indices=[1, 2, 3, 4]), **LABELS)
    )


def dpt():
    return T.DPTForSemanticSegmentation(
        T.DPTConfig(
            **vit(backbone_out_indices=[0, 1, 2, 3]),
            neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8,
            **LABELS,
        )
    )


def mobilevit():
    return T.MobileViTForSemanticSegmentation(
        T.MobileViTConfig(
            image_size=64,
            hidden_sizes=[8, 8, 8],
            neck_hidden_sizes=[8] * 7,
            aspp_out_channels=8,
            initializer_range=0.3,
            **LABELS,
        )
    )


def mobilevit_v2():
    return T.MobileViTV2ForSemanticSegmentation(
        T.MobileViTV2Config(
            image_size=64,
            width_multiplier=0.25,
            base_attn_unit_dims=[16] * 3,
            n_attn_blocks=[1] * 3,
            aspp_out_channels=8,
            initializer_range=0.3,
            **LABELS,
        )
    )


def sapiens2():
    head = {"upsample_out_channels": [8, 8], "conv_out_channels": [8]}
    return T.Sapiens2ForSemanticSegmentation(
        T.Sapiens2Config(**vit(num_hidden_layers=2), head_config=head, **LABELS)
    )


def tipsv2():
    layers = {"out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": False}
    return T.Tipsv2DptForSemanticSegmentation(
        T.Tipsv2DptConfig(
            backbone_config=T.Tipsv2VisionConfig(**vit(), **layers),
            neck_hidden_sizes=[8] * 4,
            fusion_hidden_size=8,
            **LABELS,
        )
    )


def mobilenet_v2():
    return T.MobileNetV2ForSemanticSegmentation(
        T.MobileNetV2Config(image_size=64, depth_multiplier=0.25, **LABELS)
    )


SMALL_DETR = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "d_model": 128,
    "num_queries": 6,
}


def detr():
    return T.DetrForSegmentation(
        T.DetrConfig(backbone_config=resnet(), use_timm_backbone=False, **SMALL_DETR, **LABELS)
    )


def conditional_detr():
    return T.ConditionalDetrForSegmentation(
        T.ConditionalDetrConfig(
            backbone_config=resnet(), use_timm_backbone=False, **SMALL_DETR, **LABELS
        )
    )


def maskformer():
    decoder = T.DetrConfig(**(SMALL_DETR | {"d_model": 32}))
    return T.MaskFormerForInstanceSegmentation(
        T.MaskFormerConfig(
            backbone_config=swin(),
            decoder_config=decoder.to_dict(),
            fpn_feature_size=32,
            mask_feature_size=32,
            **LABELS,
        )
    )


def mask2former():
    return T.Mask2FormerForUniversalSegmentation(
        T.Mask2FormerConfig(
            backbone_config=swin(),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=6,
            **LABELS,
        )
    )


def oneformer():
    return T.OneFormerForUniversalSegmentation(
        T.OneFormerConfig(
            backbone_config=swin(),
            conv_dim=32,
            mask_dim=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=6,
            query_dec_layers=1,
            task_seq_len=7,
            **LABELS,
        )
    )


def eomt():
    return T.EomtForUniversalSegmentation(
        T.EomtConfig(**vit(num_blocks=1, num_queries=6, mlp_ratio=1), **LABELS)
    )


def eomt_dinov3():
    return T.EomtDinov3ForUniversalSegmentation(
        T.EomtDinov3Config(**vit(num_blocks=1, num_queries=6, mlp_ratio=1), **LABELS)
    )


def videomt():
    return T.VideomtForUniversalSegmentation(
        T.VideomtConfig(**vit(num_blocks=1, num_queries=6, mlp_ratio=1), **LABELS)
    )


EOMT_SIZE = {"shortest_edge": 64, "longest_edge": 64}


def eomt_processor():
    return T.EomtImageProcessorPil(size=EOMT_SIZE, do_split_image=False, do_pad=True)


def oneformer_processor():
    kind = T.OneFormerImageProcessorPil
    processor = kind.__new__(kind)  # to be made, it wants a file from the hub
    processor.class_info_file = ""
    return processor


PIXELS = {
    segformer: T.SegformerImageProcessorPil,
    upernet: T.SegformerImageProcessorPil,
    beit: T.BeitImageProcessorPil,
    data2vec: T.BeitImageProcessorPil,
    dpt: T.DPTImageProcessorPil,
    mobilevit: T.MobileViTImageProcessorPil,
    mobilenet_v2: T.MobileNetV2ImageProcessorPil,
    mobilevit_v2: T.MobileViTImageProcessorPil,
    # Theirs need torchvision; the rule of this one is the same.
    sapiens2: T.SegformerImageProcessorPil,
    tipsv2: T.SegformerImageProcessorPil,
}

QUERIES = {
    detr: T.DetrImageProcessorPil,
    conditional_detr: T.ConditionalDetrImageProcessorPil,
    maskformer: T.MaskFormerImageProcessorPil,
    mask2former: T.Mask2FormerImageProcessorPil,
    oneformer: oneformer_processor,
    eomt: eomt_processor,
    eomt_dinov3: eomt_processor,
}

# The processor of this one needs torchvision; the rule of MaskFormer's is the same.
FAMILIES = PIXELS | QUERIES | {videomt: T.MaskFormerImageProcessorPil}

EOMT = (eomt, eomt_dinov3)
SIZE_OF_MASKS = {mask2former: (384, 384)} | dict.fromkeys(EOMT, (64, 64))

SPREAD = {  # over which axes scores get mean 0 and a deviation that is not small
    "logits": (0, 2, 3),
    "pred_masks": (2, 3),
    "masks_queries_logits": (2, 3),
    "class_queries_logits": (0, 1),
}

RESULTS = {}


def spread(outputs):
    """Let the scores of a random model differ as those of a trained one do."""
    for name in SPREAD.keys() & outputs.keys():
        axes = (0, 1) if outputs[name].ndim == 3 else SPREAD[name]
        scores = outputs[name] - outputs[name].mean(axes, keepdim=True)
        size = 8 if scores.ndim == 3 else 2
        outputs[name] = size * scores / scores.std(axes, keepdim=True).clamp(min=1e-30)


def family(build):
    """Return a model, what it gives for two images, and its processor; each made once."""
    if build not in RESULTS:
        torch.manual_seed(0)
        model = build().eval()
        extra = {"task_inputs": torch.ones(2, 7, dtype=torch.long)} if build is oneformer else {}
        images = {"pixel_values": IMAGES}
        if build is videomt:  # one video of two frames
            images = {"pixel_values_videos": IMAGES[None]}
        with torch.no_grad():
            outputs = model(**images, **extra)
        spread(outputs)
        RESULTS[build] = model, outputs, FAMILIES[build]()
    return RESULTS[build]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for got, expected in zip(ours, theirs, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


every_family = pytest.mark.parametrize("build", FAMILIES, ids=lambda build: build.__name__)
families_of_queries = pytest.mark.parametrize("build", QUERIES, ids=lambda build: build.__name__)


@every_family
def test_accuracy_is_what_the_processor_decides(build):
    model, outputs, processor = family(build)
    for sizes in (SIZES, torch.tensor(SIZES), None):
        if sizes is None and build in EOMT:
            continue
        given = sizes.tolist() if torch.is_tensor(sizes) else sizes
        expected = processor.post_process_semantic_segmentation(outputs, target_sizes=given)
        assert len(torch.cat([labels.flatten() for labels in expected]).unique()) > 1
        got = postprocess(outputs, model=model, target_sizes=sizes, rankseg_kwargs=ACC)
        assert_same(got, expected)


def by_hand(build, outputs, sizes):
    """Return the probabilities of classes, written down once more from the scores."""
    if build in PIXELS:
        scores = outputs.logits
    else:
        names = ("logits", "pred_masks") if "pred_masks" in outputs else (
            "class_queries_logits", "masks_queries_logits")  # fmt: skip
        classes, masks = (outputs[name] for name in names)
        classes = classes.softmax(-1)
        if build is not conditional_detr:
            classes = classes[..., :-1]
        size = SIZE_OF_MASKS.get(build, masks.shape[2:])
        masks = torch.nn.functional.interpolate(masks, size, mode="bilinear").sigmoid()
        scores = torch.stack(
            [
                sum(one[query, :, None, None] * mask[query] for query in range(len(mask)))
                for one, mask in zip(classes, masks, strict=True)
            ]
        )
    for image, size in zip(scores, sizes, strict=True):
        wide = torch.nn.functional.interpolate(image[None], size, mode="bilinear")[0]
        yield wide.softmax(0) if build in PIXELS else wide / wide.sum(0)


@every_family
def test_probabilities_and_labels_are_those_computed_by_hand(build):
    model, outputs, _ = family(build)
    probs = restore_semantic_probs(outputs, model=model, target_sizes=SIZES)
    for got, expected, size in zip(probs, by_hand(build, outputs, SIZES), SIZES, strict=True):
        assert got.shape == (CLASSES, *size)
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(got.sum(0), torch.ones(size))
    for metric in ("dice", "iou"):
        options = {"metric": metric, "pruning_prob": 0.2}
        labels = postprocess(outputs, model=model, target_sizes=SIZES, rankseg_kwargs=options)
        for got, maps in zip(labels, probs, strict=True):
            assert got.dtype == torch.int64
            assert (got != RankSEG(**options)(maps[None])[0]).float().mean() < 0.002


@every_family
def test_without_the_model_the_class_of_the_outputs_tells_the_family(build):
    model, outputs, _ = family(build)
    if build in EOMT:
        with pytest.raises(ValueError, match="model must be given for EoMT"):
            postprocess(outputs, target_sizes=SIZES)
        return
    assert_same(
        postprocess(outputs, target_sizes=SIZES),
        postprocess(outputs, model=model, target_sizes=SIZES),
    )


@every_family
def test_processor_decides_labels(build):
    model, outputs, processor = family(build)
    plain = T.utils.ModelOutput(outputs)  # as pipelines make of outputs, of no family
    decided = RankSEGProcessor(processor, {"metric": "iou"})
    expected = postprocess(
        outputs, model=model, target_sizes=SIZES, rankseg_kwargs={"metric": "iou"}
    )
    plain["patch_offsets"] = None
    assert_same(decided.post_process_semantic_segmentation(plain, target_sizes=SIZES), expected)
    told = decided.post_process_semantic_segmentation(
        plain, target_sizes=SIZES, return_segmentation_scores=True
    )
    assert_same([image.segmentation for image in told], expected)
    assert all(
        image.segmentation_scores.shape[1:] == size for image, size in zip(told, SIZES, strict=True)
    )


def test_sums_over_queries_are_not_logits():
    _, outputs, _ = family(maskformer)
    (probs, _) = restore_semantic_probs(outputs)
    mistaken = torch.einsum(
        "qc,qhw->chw",
        outputs.class_queries_logits[0].softmax(-1)[:, :-1],
        outputs.masks_queries_logits[0].sigmoid(),
    ).softmax(0)
    assert (probs - mistaken).abs().max() > 0.1


def test_structures_without_names():
    model, outputs, _ = family(maskformer)
    fields = {name: outputs[name] for name in ("class_queries_logits", "masks_queries_logits")}
    for plain in (fields, SimpleNamespace(**fields)):
        assert_same(postprocess(plain), postprocess(outputs, model=model))
    model, outputs, _ = family(detr)
    fields = {name: outputs[name] for name in ("logits", "pred_masks")}
    assert_same(postprocess(fields), postprocess(outputs, model=model))


def test_patches_of_eomt_are_put_together():
    model, _, _ = family(eomt)
    size = {"shortest_edge": 64, "longest_edge": None}
    processor = T.EomtImageProcessorPil(size=size, do_split_image=True, do_pad=False)
    shapes = [(100, 70), (64, 150), (80, 80)]
    images = [np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    inputs = processor(images=images, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    assert len(outputs.patch_offsets) > len(shapes)
    spread(outputs)
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=shapes)
    assert len(expected[0].unique()) > 1
    for given in (model, None):
        got = postprocess(outputs, model=given, target_sizes=shapes, rankseg_kwargs=ACC)
        assert_same(got, expected)
    decided = RankSEGProcessor(processor, ACC)
    assert_same(decided.post_process_semantic_segmentation(outputs, shapes), expected)
    with pytest.raises(ValueError, match="target_sizes must be of 3 images, got 2"):
        postprocess(outputs, target_sizes=shapes[:2])


def test_semantic_map_of_sam3():
    logits = 3 * torch.randn(2, 1, 12, 12, generator=torch.manual_seed(0))
    outputs = {"semantic_seg": logits, "pred_masks": torch.zeros(2, 3, 12, 12)}
    probs = [
        torch.nn.functional.interpolate(image[None].sigmoid(), size, mode="bilinear")[0]
        for image, size in zip(logits, SIZES, strict=True)
    ]
    assert_same(restore_semantic_probs(outputs, target_sizes=SIZES), probs)
    got = postprocess(outputs, target_sizes=SIZES, rankseg_kwargs=ACC)
    assert_same(got, [maps > 0.5 for maps in probs])
    got = postprocess(outputs, target_sizes=SIZES)
    assert_same(got, [RankSEG(output_mode="multilabel")(maps[None])[0] for maps in probs])
    labels = {"output_mode": "multiclass"}
    got = postprocess(outputs, target_sizes=SIZES, rankseg_kwargs=labels)
    assert_same(got, [RankSEG()(maps[None])[0] for maps in probs])


def test_one_class_of_logits_is_a_mask_or_labels_if_asked_for():
    logits = 3 * torch.randn(1, 1, 20, 20, generator=torch.manual_seed(0))
    outputs = {"logits": logits}
    for options in (ACC, {"metric": "acc", "solver": "TR"}):
        assert_same(postprocess(outputs, rankseg_kwargs=options), [logits[0] > 0])
    labels = postprocess(outputs, rankseg_kwargs=ACC | {"output_mode": "multiclass"})
    assert_same(labels, [(logits[0, 0] > 0).long()])
    decided = RankSEGProcessor(family(segformer)[2], ACC)
    assert_same(decided.post_process_semantic_segmentation(outputs), labels)


def of_one_class(names):
    """Return queries of one class and no object, whose masks overlap on the left."""
    classes = torch.tensor([[[6.0, -6.0], [5.0, -5.0], [-2.0, 2.0]]])
    masks = torch.randn(1, 3, 6, 6, generator=torch.manual_seed(3)) - 6
    masks[..., :3] += 12
    return dict(zip(names, (classes, masks), strict=True))


def test_attributes_of_a_processor_are_set_there():
    inner = SimpleNamespace(do_resize=True)
    processor = RankSEGProcessor(inner)
    processor.do_resize = False
    assert inner.do_resize is processor.do_resize is False
    with pytest.raises(AttributeError, match="has no 'metric'; make a new RankSEGPr"):
        processor.metric = "acc"


@pytest.mark.parametrize(
    "names", [("class_queries_logits", "masks_queries_logits"), ("logits", "pred_masks")]
)
def test_queries_of_one_class_are_clamped_sums(names):
    outputs = of_one_class(names)
    classes, masks = outputs.values()
    sums = torch.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :1], masks.sigmoid())
    (wide,) = torch.nn.functional.interpolate(sums, (9, 7), mode="bilinear")
    assert wide.max() > 1
    assert_same(restore_semantic_probs(outputs, target_sizes=[(9, 7)]), [wide.clamp(0, 1)])
    (mask,) = postprocess(outputs, target_sizes=[(9, 7)])
    expected = RankSEG(output_mode="multilabel")(wide.clamp(0, 1)[None])[0]
    assert_same([mask], [expected])
    assert mask.shape == (1, 9, 7)
    assert mask.any()
    assert not mask.all()


def test_a_binary_mask2former():
    model, outputs, _ = family(mask2former)
    one = {
        "class_queries_logits": outputs.class_queries_logits[..., -2:],
        "masks_queries_logits": outputs.masks_queries_logits,
    }
    masks = torch.nn.functional.interpolate(
        one["masks_queries_logits"], (384, 384), mode="bilinear"
    )
    probs = one["class_queries_logits"].softmax(-1)[..., :1]
    sums = torch.einsum("bqc,bqhw->bchw", probs, masks.sigmoid()).clamp(0, 1)
    restored = restore_semantic_probs(one, model=model)
    torch.testing.assert_close(torch.stack(restored), sums)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened_first_but_for_accuracy(half):
    _, outputs, processor = family(segformer)
    logits = T.modeling_outputs.SemanticSegmenterOutput(logits=outputs.logits.to(half))
    wide = T.modeling_outputs.SemanticSegmenterOutput(logits=logits.logits.float())
    expected = processor.post_process_semantic_segmentation(logits, target_sizes=SIZES)
    assert_same(postprocess(logits, target_sizes=SIZES, rankseg_kwargs=ACC), expected)
    queries = {"class_queries_logits": 9 * torch.randn(2, 5, CLASSES + 1)}
    queries["masks_queries_logits"] = 9 * torch.randn(2, 5, 6, 6)
    queries = {name: values.to(half) for name, values in queries.items()}
    for given, widened in (
        (logits, wide),
        (queries, {name: values.float() for name, values in queries.items()}),
    ):
        for size in (SIZES, None):
            assert_same(
                restore_semantic_probs(given, target_sizes=size),
                restore_semantic_probs(widened, target_sizes=size),
            )
        for options in ({"metric": "dice"}, {"metric": "iou", "output_mode": "multilabel"}):
            assert_same(
                postprocess(given, target_sizes=SIZES, rankseg_kwargs=options),
                postprocess(widened, target_sizes=SIZES, rankseg_kwargs=options),
            )


@pytest.mark.parametrize(
    ("dtypes", "promoted"),
    [
        ((torch.float16, torch.float64), torch.float64),
        ((torch.float32, torch.bfloat16), torch.float32),
        ((torch.float16, torch.bfloat16), torch.float32),
    ],
    ids=str,
)
def test_fields_of_mixed_dtypes_are_promoted(dtypes, promoted):
    torch.manual_seed(0)
    fields = {"class_queries_logits": torch.randn(1, 5, 4).to(dtypes[0])}
    fields["masks_queries_logits"] = torch.randn(1, 5, 6, 6).to(dtypes[1])
    same = {name: values.to(promoted) for name, values in fields.items()}
    assert_same(restore_semantic_probs(fields), restore_semantic_probs(same))
    assert_same(postprocess(fields, rankseg_kwargs=ACC), postprocess(same, rankseg_kwargs=ACC))
    assert restore_semantic_probs(fields)[0].dtype == promoted


def test_masks_of_classes():
    _, outputs, _ = family(segformer)
    masks = postprocess(outputs, target_sizes=SIZES, rankseg_kwargs={"output_mode": "multilabel"})
    assert [(mask.dtype, mask.shape) for mask in masks] == [
        (torch.bool, (CLASSES, *size)) for size in SIZES
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_keep_gradients(dtype, classes):
    pixels = {"logits": torch.randn(1, classes, 6, 6).to(dtype)}
    queries = {"class_queries_logits": torch.randn(1, 5, classes + 1).to(dtype)}
    queries["masks_queries_logits"] = torch.randn(1, 5, 6, 6).to(dtype) - 4  # sums below 1
    for outputs in (pixels, queries):
        for values in outputs.values():
            values.requires_grad_()
        (probs,) = restore_semantic_probs(outputs, target_sizes=[(8, 9)])
        probs[0].square().sum().backward()
        assert all(values.grad.abs().sum() > 0 for values in outputs.values())
        assert not postprocess(outputs)[0].requires_grad


# --- families ---


class Mask2FormerForUniversalSegmentationOutput(SimpleNamespace):
    """Outputs by the name of their class."""


class WrappedOutput(Mask2FormerForUniversalSegmentationOutput):
    """Outputs by the name of the base of their class."""


class DetrendedOutput(SimpleNamespace):
    """Of no family, though the name begins with the letters of one."""


class Wrapped(torch.nn.Module):
    """A model without a configuration, around one that may have one."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Configured(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config


class MyConfig(T.Mask2FormerConfig):
    model_type = "mine"


class MyMask2Former(torch.nn.Module):
    """A model of no family, by its name."""


MASK2FORMER = SimpleNamespace(model_type="mask2former")


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (SimpleNamespace, SimpleNamespace(config=MASK2FORMER)),
        (SimpleNamespace, SimpleNamespace(config={"model_type": "mask2former"})),
        (SimpleNamespace, SimpleNamespace(config=SimpleNamespace(model_type="Mask2Former"))),
        (SimpleNamespace, SimpleNamespace(config=MyConfig.__new__(MyConfig))),
        (SimpleNamespace, torch.nn.DataParallel(Configured(MASK2FORMER))),
        (SimpleNamespace, Wrapped(Wrapped(Configured(MASK2FORMER)))),
        (Mask2FormerForUniversalSegmentationOutput, None),
        (Mask2FormerForUniversalSegmentationOutput, Wrapped(torch.nn.Identity())),
        (WrappedOutput, None),
        (WrappedOutput, SimpleNamespace(config={"model_type": "mine"})),
        (T.models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput, None),
    ],
)
def test_what_a_family_is_recognised_by(kind, model):
    torch.manual_seed(0)
    fields = {"class_queries_logits": torch.randn(1, 5, 4)}
    fields["masks_queries_logits"] = torch.randn(1, 5, 6, 6)
    resized = torch.nn.functional.interpolate(
        fields["masks_queries_logits"], (384, 384), mode="bilinear"
    )
    (expected,) = restore_semantic_probs(fields | {"masks_queries_logits": resized})
    assert_same(restore_semantic_probs(kind(**fields), model=model), [expected])


def test_what_belongs_to_no_family():
    logits = torch.randn(1, 3, 6, 6)
    probs = [logits[0].softmax(0)]
    assert_same(restore_semantic_probs(DetrendedOutput(logits=logits)), probs)
    assert_same(restore_semantic_probs({"logits": logits}, model=MyMask2Former()), probs)


@pytest.mark.parametrize("offsets", [None, []])
@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_a_field_of_patches_means_eomt(kind, offsets):
    fields = {"class_queries_logits": torch.randn(1, 5, 4)}
    fields["masks_queries_logits"] = torch.randn(1, 5, 6, 6)
    outputs = kind(**fields, patch_offsets=offsets)
    with pytest.raises(ValueError, match="target_sizes must be given for EoMT"):
        restore_semantic_probs(outputs)
    with pytest.raises(ValueError, match="model must be given for EoMT"):
        restore_semantic_probs(outputs, target_sizes=[(4, 4)])
    model = SimpleNamespace(config={"image_size": [8, 8]})
    (probs,) = restore_semantic_probs(outputs, model=model, target_sizes=[(4, 4)])
    assert probs.shape == (3, 4, 4)


@pytest.mark.parametrize(
    "size",
    [
        (8, 9),
        {"height": 8, "width": 9},
        np.array([8, 9]),
        np.array([[8, 9]]),
        torch.tensor([8, 9]),
        [np.array([8, 9])],
        [{"height": 8, "width": 9}],
    ],
    ids=repr,
)
def test_target_sizes_in_every_form(size):
    (probs,) = restore_semantic_probs({"logits": MAP}, target_sizes=size)
    assert probs.shape == (3, 8, 9)


def queries(build):
    """Return six queries for two images, with the fields that a family has."""
    _, outputs, _ = family(build)
    torch.manual_seed(5)
    names = [name for name in SPREAD if name in outputs]
    masks = torch.nn.functional.interpolate(4 * torch.randn(2, 6, 4, 4), 24, mode="bicubic")
    fields = {name: masks if "masks" in name else torch.randn(2, 6, CLASSES + 1) for name in names}
    return SimpleNamespace(**fields, patch_offsets=None)


MERGING = [(build, task) for build in QUERIES for task in ("instance", "panoptic")]


def merge(processor, build, task, outputs, threshold=0.1):
    options = {"threshold": threshold}
    if build is not oneformer:  # without torchvision its processor cannot resize
        options["target_sizes"] = SIZES
    if build not in EOMT or task == "panoptic":
        options["overlap_mask_area_threshold"] = 0.05
    return getattr(processor, f"post_process_{task}_segmentation")(outputs, **options)


every_merging = pytest.mark.parametrize(("build", "task"), MERGING)


@every_merging
def test_accuracy_merges_as_the_processor_does(build, task):
    processor, outputs = family(build)[2], queries(build)
    expected = merge(processor, build, task, outputs)
    assert sum(len(image["segments_info"]) for image in expected) > 3
    merged = merge(RankSEGProcessor(processor, ACC), build, task, outputs)
    for got, image in zip(merged, expected, strict=True):
        assert got["segmentation"].dtype == image["segmentation"].dtype
        assert torch.equal(got["segmentation"], image["segmentation"])
        assert got["segments_info"] == image["segments_info"]


@every_merging
def test_masks_of_queries_are_those_of_rankseg(build, task):
    processor, outputs = family(build)[2], queries(build)
    options = {"metric": "dice", "pruning_prob": 0.0}
    merged = merge(RankSEGProcessor(processor, options), build, task, outputs)
    names = [name for name in vars(outputs) if "masks" in name]
    size = SIZE_OF_MASKS.get(build)
    logits = getattr(outputs, names[0])
    if size:
        logits = torch.nn.functional.interpolate(logits, size, mode="bilinear")
    masks = RankSEG(**options, output_mode="multilabel", from_logits="sigmoid")(logits)
    if build in EOMT:  # pixels of the padding are none
        for image, (height, width) in enumerate([(49, 64), (64, 55)]):
            inside = logits[image : image + 1, :, :height, :width]
            decided = RankSEG(**options, output_mode="multilabel", from_logits="sigmoid")(inside)
            masks[image] = False
            masks[image, :, :height, :width] = decided[0]
    assert (masks != (logits > 0)).any()
    forced = torch.where(masks, logits.clamp(min=1e-5), logits.clamp(max=-1e-5))
    by_rankseg = SimpleNamespace(**(vars(outputs) | {names[0]: forced}))
    expected = merge(processor, build, task, by_rankseg)
    for got, image in zip(merged, expected, strict=True):
        assert (got["segmentation"] != image["segmentation"]).float().mean() < 0.002
        told, hoped = got["segments_info"], image["segments_info"]
        assert [one["label_id"] for one in told] == [one["label_id"] for one in hoped]
        scores = [[one["score"] for one in side] for side in (told, hoped)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    plain = merge(processor, build, task, outputs)
    if task == "instance" and build in (maskformer, mask2former, *EOMT):
        assert not torch.equal(plain[0]["segmentation"], merged[0]["segmentation"])


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_masks_of_queries_in_half_precision(task):
    processor, outputs = family(mask2former)[2], queries(mask2former)
    half = SimpleNamespace(
        class_queries_logits=outputs.class_queries_logits.half(),
        masks_queries_logits=outputs.masks_queries_logits.half(),
    )
    wide = SimpleNamespace(**{name: values.float() for name, values in vars(half).items()})
    decided = RankSEGProcessor(processor, {"metric": "dice", "pruning_prob": 0.0})
    for options, given in ((decided, wide), (processor, half)):
        used = options if options is decided else RankSEGProcessor(processor, ACC)
        got = merge(used, mask2former, task, half)
        expected = merge(options, mask2former, task, given)
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one["segmentation"], other["segmentation"])
            assert one["segments_info"] == other["segments_info"]
    broken = SimpleNamespace(
        **vars(outputs) | {"masks_queries_logits": torch.full((2, 6, 4, 4), torch.nan)}
    )
    for options in (ACC, {}):
        with pytest.raises(ValueError, match="masks_queries_logits must be finite"):
            merge(RankSEGProcessor(processor, options), mask2former, task, broken)


def test_masks_of_queries_have_one_threshold_and_no_options_of_labels():
    processor, outputs = family(detr)[2], queries(detr)
    decided = RankSEGProcessor(processor, {"unassigned_policy": "void"})
    for arguments in ((0.1, 0.3), ()):
        with pytest.raises(ValueError, match=r"mask_threshold must be 0.5, .*got 0.3"):
            decided.post_process_panoptic_segmentation(
                outputs, *arguments, **({} if arguments else {"mask_threshold": 0.3})
            )
    assert len(decided.post_process_panoptic_segmentation(outputs, 0.1, 0.5)) == 2


def test_processor_is_otherwise_the_processor():
    processor = family(segformer)[2]
    decided = pickle.loads(pickle.dumps(RankSEGProcessor(processor, {"metric": "iou"})))
    assert decided.size == processor.size
    assert "SegformerImageProcessorPil" in repr(decided)
    image = np.zeros((40, 30, 3), np.uint8)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(decided(image, return_tensors="pt")["pixel_values"], expected)
    assert not hasattr(decided, "post_process_panoptic_segmentation")


@pytest.mark.parametrize(
    ("build", "subtask"),
    [(segformer, None), (maskformer, "semantic"), (maskformer, "instance"), (eomt, None)],
)
def test_pipeline(build, subtask):
    from PIL import Image

    model, _, processor = family(build)
    if build in EOMT:  # or its random weights find no object anywhere
        model.class_predictor.bias.data[-1] = -50
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0, "subtask": subtask}
    pipe = T.pipeline("image-segmentation", model=model, image_processor=processor, device="cpu")
    expected = pipe(Image.fromarray(pixels), **options)
    assert expected
    pipe.image_processor = RankSEGProcessor(processor, ACC)
    got = pipe(Image.fromarray(pixels), **options)
    assert [(one["label"], one["score"]) for one in got] == [
        (one["label"], one["score"]) for one in expected
    ]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one["mask"]), np.asarray(other["mask"]))


class Named(dict):
    """A mapping that claims to come from a family."""


def outputs_of(name, **fields):
    module = f"transformers.models.{name}.modeling_{name}"
    return type("Output", (Named,), {"__module__": module})(**fields)


@pytest.mark.parametrize(
    ("outputs", "options", "error", "message"),
    [
        ((MAP,), {}, TypeError, "got tuple: call the model with return_dict=True"),
        (outputs_of("seggpt", pred_masks=MAP), {}, ValueError, "seggpt .*distances between col"),
        (outputs_of("clipseg", logits=MAP[0]), {}, ValueError, "clipseg .*one map per prompt"),
        (outputs_of("rf_detr", logits=MAP), {}, ValueError, "rf_detr .*instances only"),
        ({"logits": MAP[0, 0]}, {}, ValueError, r"must have logits \(batch, .*semantic_seg, got"),
        ({"predicted_depth": MAP}, {}, ValueError, r"must have logits .*\['predicted_depth'\]"),
        (outputs_of("detr", logits=MAP[0]), {}, ValueError, "detr must have logits and pred_masks"),
        (outputs_of("sam3", pred_masks=MAP), {}, ValueError, "sam3 must have semantic_seg.*None"),
        (
            {"class_queries_logits": MAP[:, :, 0, :1], "masks_queries_logits": MAP},
            {},
            ValueError,
            "maskformer must have 1 or more classes other than 'no object', got 0",
        ),
        (
            outputs_of("conditional_detr", logits=MAP[:, :, 0, :1], pred_masks=MAP),
            {},
            ValueError,
            "conditional_detr must have 2 or more classes other than 'no object', got 1",
        ),
        *(
            ({name: values}, {}, ValueError, "logits must be finite, got 192")
            for name, values in (("logits", MAP * torch.nan), ("logits", MAP + torch.inf))
        ),
        (
            {"class_queries_logits": MAP[:, :, 0] * torch.nan, "masks_queries_logits": MAP},
            {"rankseg_kwargs": {"metric": "acc"}},
            ValueError,
            "class_queries_logits must be finite, got 24",
        ),
        (
            {"class_queries_logits": MAP[:, :, 0], "masks_queries_logits": MAP - torch.inf},
            {},
            ValueError,
            "masks_queries_logits must be finite",
        ),
        ({"logits": MAP * torch.nan}, {"rankseg_kwargs": {"metric": "acc"}}, ValueError, "finite"),
        ({"logits": MAP.int()}, {}, TypeError, "logits must be of a floating dtype .*int32"),
        ({"logits": MAP.to(torch.complex64)}, {}, TypeError, "logits must be .*complex64"),
        ({"semantic_seg": MAP.bool()}, {}, TypeError, "semantic_seg must be of a floating dtype"),
        ({"logits": MAP[:, :0]}, {}, ValueError, r"no other empty axis, got shape \(1, 0, 8, 8\)"),
        ({"logits": MAP[..., :0]}, {}, ValueError, r"no other empty axis, got shape"),
        (
            {"class_queries_logits": MAP[:, :0, 0], "masks_queries_logits": MAP[:, :0]},
            {},
            ValueError,
            "class_queries_logits may have an empty batch, but no other empty axis",
        ),
        (
            {"class_queries_logits": MAP[:, :, 0], "masks_queries_logits": MAP.to("meta")},
            {},
            TypeError,
            "masks_queries_logits must be .* got a meta tensor",
        ),
        ({"logits": MAP.to("meta")}, {}, TypeError, "logits must be .* a meta tensor"),
        ({"pred_masks": MAP}, {}, ValueError, "rankseg.integration.sam"),
        (
            {"pred_masks": MAP, "pred_boxes": MAP, "pred_logits": MAP[0, 0]},
            {},
            ValueError,
            "rankseg.integration.sam",
        ),
        (outputs_of("sam2", pred_masks=MAP), {}, ValueError, "rankseg.integration.sam"),
        (
            {"class_queries_logits": MAP[:, :2, 0], "masks_queries_logits": MAP},
            {},
            ValueError,
            r"as many images and queries, got \(1, 2, 8\) and \(1, 3, 8, 8\)",
        ),
        (
            outputs_of("eomt", class_queries_logits=MAP[:, :, 0], masks_queries_logits=MAP),
            {},
            ValueError,
            "target_sizes must be given for EoMT",
        ),
        ({"logits": MAP}, {"target_sizes": [(8, 8)] * 2}, ValueError, "be of 1 images, got 2"),
        ({"logits": MAP}, {"target_sizes": [(8.5, 8)]}, TypeError, "target_sizes must be an int"),
        ({"logits": MAP}, {"target_sizes": [(0, 8)]}, ValueError, r"be positive, got \(0, 8\)"),
        ({"logits": MAP}, {"target_sizes": [8]}, ValueError, "target_sizes must hold"),
        ({"logits": MAP}, {"target_sizes": [(4, 5, 6)]}, ValueError, "target_sizes must hold"),
        ({"logits": MAP}, {"target_sizes": torch.ones(1, 2)}, TypeError, "integer dtype"),
        ({"logits": MAP[:0]}, {"target_sizes": torch.empty(0, 2)}, TypeError, "integer dtype"),
        ({"logits": MAP}, {"target_sizes": 8}, TypeError, "target_sizes must be .* got int"),
        ({"logits": MAP}, {"model": "segformer"}, TypeError, "model must be a model of Transf"),
        ({"logits": MAP}, {"rankseg_kwargs": ["dice"]}, TypeError, "be a mapping, got list"),
        ({"logits": MAP}, {"rankseg_kwargs": {"metric": "hd95"}}, ValueError, "metric must be one"),
        (
            {"logits": MAP},
            {"rankseg_kwargs": {"from_logits": "softmax"}},
            TypeError,
            "must not hold from_logits",
        ),
    ],
)
def test_what_is_refused(outputs, options, error, message):
    with pytest.raises(error, match=message):
        postprocess(outputs, **options)


def test_example(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "hugging_face.py"), run_name="__main__")
    assert "instances" in capsys.readouterr().out


@pytest.mark.parametrize("function", [postprocess, restore_semantic_probs])
@pytest.mark.parametrize("channels", [1, 4])
def test_probabilities_in_place_of_logits_warn_once_for_all_images(function, channels):
    logits = 6 * torch.from_numpy(np.random.default_rng(0).normal(size=(3, channels, 16, 16)))
    probs = logits.sigmoid() if channels == 1 else logits.softmax(1)
    with pytest.warns(UserWarning, match="they look like probabilities, of which this") as told:
        function({"logits": probs}, target_sizes=[(30, 40), (20, 20), (16, 16)])
    assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize(
    "names", [("class_queries_logits", "masks_queries_logits"), ("logits", "pred_masks")]
)
@pytest.mark.parametrize("function", [postprocess, restore_semantic_probs])
def test_probabilities_of_the_classes_of_queries_warn(function, names):
    rng = np.random.default_rng(0)
    classes = 3 * torch.from_numpy(rng.normal(size=(2, 20, 5)))
    masks = 6 * torch.from_numpy(rng.normal(size=(2, 20, 16, 16)))
    function(dict(zip(names, (classes, masks), strict=True)))
    with pytest.warns(UserWarning, match=f"{names[0]} lie in .* sum to 1 over the classes"):
        function(dict(zip(names, (classes.softmax(-1), masks), strict=True)))


@pytest.mark.parametrize("shape", [(8, 8, 5), (16, 16, 1), (24, 32, 4), (128, 128, 19)])
def test_logits_whose_channels_are_last_are_refused(shape):
    logits = torch.randn(2, *shape)
    for size in ((48, 64), (96, 128)) if shape[0] == 24 else ((512, 512), (333, 500)):
        with pytest.raises(ValueError, match=r"logits must be .* by movedim\(-1, 1\)"):
            postprocess({"logits": logits}, target_sizes=[size] * 2)
        postprocess({"logits": logits.movedim(-1, 1)}, target_sizes=[size] * 2)


@pytest.mark.parametrize("names", [("logits",), ("class_queries_logits", "masks_queries_logits")])
@pytest.mark.parametrize("function", [postprocess, restore_semantic_probs])
def test_width_and_height_swapped_are_told(function, names):
    scores = 3 * torch.randn(2, 5, 24, 32, generator=torch.manual_seed(0))
    outputs = dict(zip(names[::-1], (scores, scores.flatten(2)[..., :4]), strict=False))
    told = r"got \(128, 95\) for scores of 24 x 32, .* pass image.size\[::-1\]"
    with pytest.warns(UserWarning, match=told):
        function(outputs, target_sizes=[(96, 128), (128, 95)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sizes in ([(96, 128), (90, 128)], [(128, 128), (96, 96)], [(30, 31), (64, 32)], None):
            function(outputs, target_sizes=sizes)


@pytest.mark.parametrize(
    ("shape", "size"), [((40, 40, 10), (400, 100)), ((64, 32, 8), (500, 125)), ((2, 2, 1), (2, 1))]
)
def test_logits_of_tall_images_have_their_channels_first(shape, size):
    (labels,) = postprocess({"logits": torch.randn(1, *shape)}, target_sizes=[size])
    assert labels.shape == size


def test_autocast_does_not_round_sums_over_queries():
    rng = np.random.default_rng(0)
    outputs = {
        "class_queries_logits": torch.from_numpy(rng.normal(size=(1, 6, 4)).astype("f4")),
        "masks_queries_logits": torch.from_numpy(3 * rng.normal(size=(1, 6, 16, 16)).astype("f4")),
    }
    (expected,) = restore_semantic_probs(outputs)
    with torch.autocast("cpu", torch.bfloat16):
        (probs,) = restore_semantic_probs(outputs)
    assert probs.dtype == expected.dtype
    assert torch.equal(probs, expected)
