"""The decision inside MMSegmentation: its own output for accuracy, RankSEG's for Dice and IoU."""

from __future__ import annotations

import copy
import pickle
import runpy

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from rankseg import RankSEG
from rankseg.evaluation import aggregate
from rankseg.metrics import count
from support.convention_cases import CASES
from support.frameworks import framework

pytestmark = pytest.mark.filterwarnings("ignore")  # mmengine's and mmcv's own


@pytest.fixture(scope="module", autouse=True)
def mmseg():
    framework("mmseg.models")
    framework("mmseg.utils").register_all_modules()
    from rankseg.integration import mmseg

    return mmseg


def head(classes, **options):
    return {
        "type": "FCNHead",
        "in_channels": 8,
        "channels": 8,
        "num_convs": 1,
        "in_index": 0,
        "num_classes": max(classes, 2),
        "out_channels": classes,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        **options,
    }


BACKBONE = {
    "type": "ResNetV1c",
    "depth": 18,
    "num_stages": 1,
    "strides": (1,),
    "dilations": (1,),
    "out_indices": (0,),
    "base_channels": 8,
    "stem_channels": 8,
}


def config(classes=4, **options):
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "size_divisor": 16},
        "backbone": BACKBONE,
        "decode_head": head(classes),
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
        **options,
    }


def build(given):
    """Build a model with logits far enough apart to be told from one another."""
    from mmengine.config import ConfigDict
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(copy.deepcopy(given))).eval()
    head = model.decode_head
    if hasattr(head, "conv_seg"):
        torch.nn.init.normal_(head.conv_seg.weight, std=2.0)
    return model


def batch(truth=False, sizes=((41, 52), (48, 40)), flip=False):
    """Return two images of unlike sizes, which are padded, resized to others, and flipped."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(3)
    samples = []
    for size in sizes:
        sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": (48, 56)})
        if flip:
            sample.set_metainfo({"flip": True, "flip_direction": "horizontal"})
        if truth:
            label = torch.randint(0, 4, (1, *size), generator=generator)
            sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    images = [
        torch.randint(0, 255, (3, 48, 56), generator=generator, dtype=torch.uint8) for _ in sizes
    ]
    return {"inputs": images, "data_samples": samples}


def decided(model, **options):
    torch.manual_seed(1)
    with torch.no_grad():
        return model.test_step(batch(**options))


def assert_same(given, expected):
    for one, other in zip(given, expected, strict=True):
        for name in ("pred_sem_seg", "seg_logits"):
            got, wanted = getattr(one, name).data, getattr(other, name).data
            assert got.dtype == wanted.dtype
            assert torch.equal(got, wanted)


MODELS = {
    "whole": {},
    "slide": {"test_cfg": {"mode": "slide", "crop_size": (32, 32), "stride": (20, 20)}},
    "binary": {"decode_head": head(1, threshold=0.5)},
    "sigmoid": {
        "decode_head": head(4, loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": True})
    },
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_accuracy_is_what_mmseg_decides(mmseg, options, flip):
    own = decided(build(config(**options)), flip=flip)
    assert all(len(sample.pred_sem_seg.data.unique()) > 1 for sample in own)
    assert_same(decided(mmseg.enable(build(config(**options)), "acc"), flip=flip), own)
    registered = config(**options, rankseg={"metric": "acc"}) | {"type": "RankSEGEncoderDecoder"}
    assert_same(decided(build(registered), flip=flip), own)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("name", MODELS)
def test_labels_are_those_of_the_probabilities(mmseg, name, metric):
    own = decided(build(config(**MODELS[name])))
    ours = decided(mmseg.enable(build(config(**MODELS[name])), metric))
    assert any(
        (a.pred_sem_seg.data != b.pred_sem_seg.data).any() for a, b in zip(own, ours, strict=True)
    )
    for sample, expected in zip(ours, own, strict=True):
        assert torch.equal(sample.seg_logits.data, expected.seg_logits.data)
        scores = expected.seg_logits.data[None]
        probs = {"binary": scores, "sigmoid": scores.sigmoid()}.get(name, scores.softmax(1))
        wanted = RankSEG(metric)(probs)
        got = sample.pred_sem_seg.data
        assert got.shape == (1, *sample.ori_shape)
        assert got.dtype == (torch.float32 if name == "binary" else torch.int64)
        assert torch.equal(got, wanted.to(got.dtype))


def test_binary_replaces_the_threshold_of_the_head(mmseg):
    low, high = (config(decode_head=head(1, threshold=threshold)) for threshold in (0.01, 0.99))
    assert not torch.equal(
        decided(build(low))[0].pred_sem_seg.data, decided(build(high))[0].pred_sem_seg.data
    )
    assert_same(decided(mmseg.enable(build(low))), decided(mmseg.enable(build(high))))


def query_model(mmseg, name, classes=4):
    """Build a segmentor with the real ``predict`` of a head of queries, on random queries."""
    import mmseg.models.decode_heads as heads
    from mmengine.model import BaseModule

    class Queries(getattr(heads, name)):
        def __init__(self):
            BaseModule.__init__(self)
            self.align_corners = False
            self.num_classes = self.out_channels = classes

        def forward(self, features, samples):
            generator = torch.Generator().manual_seed(5)
            shape = (features[0].shape[0], 6)
            scores = 3 * torch.randn(*shape, classes + 1, generator=generator)
            return [scores], [4 * torch.randn(*shape, 12, 14, generator=generator)]

    model = build(config())
    model.decode_head = Queries()
    model.out_channels = classes
    return model


@pytest.mark.parametrize("name", ["MaskFormerHead", "Mask2FormerHead"])
def test_sums_over_queries_are_no_logits(mmseg, name):
    model = query_model(mmseg, name)
    assert mmseg.kind_of(model) == "query_sums"
    own = decided(model)
    assert_same(decided(mmseg.enable(model, "acc")), own)
    ours = decided(mmseg.enable(model, "iou"))
    for sample, expected in zip(ours, own, strict=True):
        sums = expected.seg_logits.data[None]
        assert (sums >= 0).all()
        wanted = RankSEG("iou")(sums / sums.sum(1, keepdim=True))
        assert torch.equal(sample.pred_sem_seg.data, wanted)
        assert not torch.equal(wanted, RankSEG("iou")(sums.softmax(1)))


def test_one_channel_of_query_sums_is_refused(mmseg):
    model = mmseg.enable(query_model(mmseg, "Mask2FormerHead", classes=1))
    model.decode_head.threshold = 0.5
    with pytest.raises(ValueError, match="query_sums' needs two classes or more"):
        decided(model)


def test_kinds(mmseg):
    assert mmseg.kind_of(build(config())) == "softmax"
    assert mmseg.kind_of(build(config(**MODELS["sigmoid"]))) == "sigmoid"
    cascade = config() | {
        "type": "CascadeEncoderDecoder",
        "num_stages": 2,
        "decode_head": [
            head(4),
            head(4, loss_decode=MODELS["sigmoid"]["decode_head"]["loss_decode"]),
        ],
    }
    # the second head of a real cascade looks at the first; its loss is all that is asked for
    assert mmseg.kind_of(build(cascade)) == "sigmoid"
    sigmoid = decided(mmseg.enable(build(config()), kind="sigmoid"))
    softmax = decided(mmseg.enable(build(config())))
    assert not torch.equal(sigmoid[0].pred_sem_seg.data, softmax[0].pred_sem_seg.data)


def test_config_with_custom_imports(tmp_path, mmseg):
    from mmengine.config import Config

    path = tmp_path / "config.py"
    base = tmp_path / "base.py"
    base.write_text(f"model = {config()!r}\n")
    path.write_text(
        "_base_ = 'base.py'\n"
        "custom_imports = dict(imports=['rankseg.integration.mmseg'])\n"
        "model = dict(type='RankSEGEncoderDecoder', rankseg=dict(metric='iou', smooth=1.0))\n"
    )
    model = build(Config.fromfile(path).model)
    assert type(model).__name__ == "RankSEGEncoderDecoder"
    assert_same(decided(model), decided(mmseg.enable(build(config()), "iou", smooth=1.0)))
    assert model.state_dict().keys() == build(config()).state_dict().keys()


def test_prediction_validation_and_test_agree(mmseg):
    from mmseg.evaluation import IoUMetric

    model = mmseg.enable(build(config()), "iou")
    results = {}
    for step in ("val_step", "test_step"):
        metric = IoUMetric(iou_metrics=["mIoU", "mDice"])
        metric.dataset_meta = {"classes": list("abcd")}
        with torch.no_grad():
            samples = getattr(model, step)(batch(truth=True))
        metric.process({}, [sample.to_dict() for sample in samples])
        results[step] = metric.evaluate(2)
    assert results["val_step"] == results["test_step"]
    counts = torch.zeros(2, 4)
    for sample in decided(build(config()), truth=True):
        labels = RankSEG("iou")(sample.seg_logits.data[None].softmax(1))
        for index in range(4):
            mask, truth = labels == index, sample.gt_sem_seg.data == index
            counts[:, index] += torch.stack([(mask & truth).sum(), (mask | truth).sum()])
    miou = 100 * (counts[0] / counts[1]).nanmean().item()
    assert results["val_step"]["mIoU"] == pytest.approx(miou, abs=0.01)


def test_init_model_and_inferencer(mmseg, tmp_path):
    import numpy as np
    from mmengine.config import Config
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (64, 48), "keep_ratio": False},
        {"type": "PackSegInputs"},
    ]
    written = Config(
        {
            "model": config(),
            "default_scope": "mmseg",
            "visualizer": {"type": "SegLocalVisualizer", "name": "visualizer"},
            "test_dataloader": {"dataset": {"pipeline": pipeline}},
            "test_pipeline": pipeline,
        }
    )
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    model = mmseg.enable(init_model(written, device="cpu"), "dice")
    sample = inference_model(model, image)
    assert sample.pred_sem_seg.data.shape == (1, 50, 70)
    wanted = RankSEG("dice")(sample.seg_logits.data[None].softmax(1))
    assert torch.equal(sample.pred_sem_seg.data, wanted)

    inferencer = MMSegInferencer(
        written, device="cpu", classes=list("abcd"), palette=[[9 * i] * 3 for i in range(4)]
    )
    inferencer.model.load_state_dict(model.state_dict())
    assert mmseg.enable(inferencer) is inferencer
    given = inferencer(image, return_datasamples=True)
    assert torch.equal(given.pred_sem_seg.data, wanted)


def test_predictions_without_samples_in_half_precision(mmseg):
    model = mmseg.enable(build(config()))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        logits = 3 * torch.randn(2, 4, 20, 24, generator=torch.manual_seed(0)).to(dtype)
        samples = model.postprocess_result(logits)
        wide = logits if dtype == torch.float64 else logits.float()
        labels = torch.cat([sample.pred_sem_seg.data for sample in samples])
        assert torch.equal(labels, RankSEG()(wide.softmax(1)))


@pytest.mark.parametrize("name", ["whole", "binary"])
def test_half_precision_is_widened_before_it_is_resized_but_for_accuracy(mmseg, name):
    logits = 3 * torch.randn(2, 1 if name == "binary" else 4, 48, 56).half()
    own = build(config(**MODELS[name])).postprocess_result(logits, batch()["data_samples"])
    given = config(**MODELS[name])
    for metric in ("dice", "acc"):
        registered = build(given | {"type": "RankSEGEncoderDecoder", "rankseg": {"metric": metric}})
        for model in (mmseg.enable(build(given), metric), registered):
            samples = model.postprocess_result(logits, batch()["data_samples"])
            wide = model.postprocess_result(logits.float(), batch()["data_samples"])
            assert_same(samples, own if metric == "acc" else wide)


@pytest.mark.parametrize("metric", ["dice", "acc"])
def test_scores_that_are_not_finite_or_not_floating(mmseg, metric):
    logits = torch.full((1, 4, 20, 24), torch.nan)
    for kind in ("softmax", "sigmoid", "query_sums", "probabilities"):
        model = mmseg.enable(build(config()), metric, kind=kind)
        with pytest.raises(ValueError, match="must be finite, got 1920"):
            model.postprocess_result(logits)
        with pytest.raises(TypeError, match="dtype"):
            model.postprocess_result(torch.zeros(1, 4, 20, 24, dtype=torch.int32))
        with pytest.raises(TypeError, match="dtype"):
            mmseg._Decision(metric, kind, {})(logits[0].to(torch.complex64), kind)


def test_disabling_copying_and_pickling(mmseg):
    plain = decided(build(config()))
    model = mmseg.enable(mmseg.enable(build(config()), "acc"), "iou")
    expected = decided(model)
    assert model.state_dict().keys() == build(config()).state_dict().keys()
    twin = copy.deepcopy(model)
    for other in (twin, pickle.loads(pickle.dumps(model))):
        assert other.postprocess_result.segmentor is other
        assert_same(decided(other), expected)
    assert mmseg.disable(mmseg.disable(model)) is model
    assert_same(decided(model), plain)
    assert_same(decided(twin), expected)


def test_wrong_arguments(mmseg):
    from mmseg.models import SegTTAModel

    model = build(config())
    for wrong in (torch.nn.ReLU(), "model", SegTTAModel(module=model)):
        with pytest.raises(TypeError, match=r"model must be a segmentor of MMSeg.*got "):
            mmseg.enable(wrong)
    with pytest.raises(ValueError, match=r"metric must be one of .*got 'hd95'"):
        mmseg.enable(model, "hd95")
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'logits'"):
        mmseg.enable(model, kind="logits")
    with pytest.raises(ValueError, match=r"\['output_mode'\] follow from the model"):
        mmseg.enable(model, output_mode="multilabel")
    assert "postprocess_result" not in vars(model)


def test_example(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "mmsegmentation.py"), run_name="__main__")
    assert "int64" in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ignored", [None, 255])
def test_the_average_is_that_of_its_metric(case, ignored):
    metric = framework("mmseg.evaluation").IoUMetric
    prediction, label, classes = CASES[case]
    if ignored is not None:
        label = np.where(np.arange(label.shape[1]) % 7 == 0, ignored, label)
    areas = [
        metric.intersect_and_union(torch.from_numpy(one), torch.from_numpy(truth), classes, 255)
        for one, truth in zip(prediction, label, strict=True)
    ]
    totals = [sum(some) for some in zip(*areas, strict=True)]
    theirs = metric.total_area_to_metrics(*totals, metrics=["mIoU", "mDice"])
    counts = count(prediction, label, num_classes=classes, ignore_index=ignored)
    for name, key in (("iou", "IoU"), ("dice", "Dice")):
        found = aggregate(counts, name, "mmseg")
        np.testing.assert_allclose(found.by_class, theirs[key], atol=1e-6)
        assert found.mean == pytest.approx(np.nanmean(theirs[key]), abs=1e-6)
