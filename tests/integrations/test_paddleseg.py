"""The decision inside PaddleSeg: its own output for accuracy, RankSEG's for Dice and IoU."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from rankseg import RankSEG
from support.frameworks import framework

pytestmark = pytest.mark.filterwarnings("ignore")  # Paddle's and its dependencies' own

CLASSES = 4

SIZE = [("resize", (40, 52)), ("padding", (45, 60))]
"""What was done to the image, and is undone: it was resized from 40 x 52, then padded."""


@pytest.fixture(scope="module", autouse=True)
def paddle():
    framework("paddleseg")
    framework("paddleseg.core")
    return framework("paddle")


@pytest.fixture
def adapter():
    from rankseg.integration import paddleseg

    yield paddleseg
    paddleseg.disable()


@pytest.fixture
def infer():
    return sys.modules["paddleseg.core.infer"]


def network(paddle, classes=CLASSES):
    """Return a network with the conventions of PaddleSeg, which gives a list of logits."""

    class Network(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            paddle.seed(0)
            self.body = paddle.nn.Conv2D(3, 8, 5, padding=2)
            self.head = paddle.nn.Conv2D(8, classes, 3, padding=1)

        def forward(self, images):
            return [4 * self.head(paddle.nn.functional.relu(self.body(images)))]

    model = Network()
    model.eval()
    return model


def image(paddle, height=48, width=64):
    rng = np.random.default_rng(0)
    return paddle.to_tensor(rng.normal(0, 1, (1, 3, height, width)).astype(np.float32))


WAYS = {
    "whole": ("inference", {}),
    "slide": ("inference", {"is_slide": True, "crop_size": (32, 32), "stride": (20, 20)}),
    "scales and flips": ("aug_inference", {"scales": [0.75, 1.0], "flip_horizontal": True}),
}


def decided(paddle, infer, way, model=None):
    name, options = WAYS[way]
    with paddle.no_grad():
        return getattr(infer, name)(
            model or network(paddle), image(paddle), trans_info=SIZE, **options
        )


@pytest.mark.parametrize("way", WAYS)
def test_accuracy_is_what_paddleseg_decides(paddle, adapter, infer, way):
    own, own_logits = decided(paddle, infer, way)
    with adapter.enable("acc"):
        labels, logits = decided(paddle, infer, way)
    assert labels.dtype == own.dtype == paddle.int32
    assert list(labels.shape) == list(own.shape) == [1, 1, 40, 52]
    assert labels.place == own.place
    np.testing.assert_array_equal(labels.numpy(), own.numpy())
    np.testing.assert_array_equal(logits.numpy(), own_logits.numpy())
    assert len(np.unique(labels.numpy())) > 1


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("way", WAYS)
def test_labels_are_those_of_the_probabilities(paddle, adapter, infer, way, metric):
    own, logits = decided(paddle, infer, way)
    with adapter.enable(metric, smooth=1.0):
        labels, _ = decided(paddle, infer, way)
    probs = torch.from_numpy(logits.numpy()).softmax(1)
    expected = RankSEG(metric, smooth=1.0)(probs)[:, None].int().numpy()
    np.testing.assert_array_equal(labels.numpy(), expected)
    assert (labels.numpy() != own.numpy()).any()


def test_logits_are_read_where_they_are(paddle, adapter):
    logits = paddle.randn([1, CLASSES, 20, 24])
    logits.stop_gradient = False
    seen = []

    class Spy(RankSEG):
        def forward(self, probs, valid=None):
            seen.append(probs.data_ptr())
            return super().forward(probs, valid)

    adapter.decide(logits, Spy(from_logits="softmax"))
    assert seen == [logits.data_ptr()]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(paddle, adapter, dtype):
    values = 3 * torch.randn(2, CLASSES, 20, 24, generator=torch.manual_seed(0))
    rounded = values.to(getattr(torch, dtype))
    labels = adapter.decide(
        paddle.to_tensor(values.numpy()).astype(dtype), RankSEG(from_logits="softmax")
    )
    wide = rounded if dtype == "float64" else rounded.float()
    np.testing.assert_array_equal(labels.numpy()[:, 0], RankSEG()(wide.softmax(1)).numpy())


@pytest.mark.parametrize("metric", ["dice", "acc"])
def test_half_precision_is_widened_before_it_is_resized_but_for_accuracy(
    paddle, adapter, infer, metric
):
    seen = []
    logits = paddle.to_tensor(torch.randn(1, CLASSES, 12, 16).numpy()).astype("float16")
    resizing = infer.reverse_transform
    interpolate = infer.F.interpolate
    infer.F.interpolate = lambda maps, *args, **kwargs: (
        seen.append(maps.dtype) or interpolate(maps.astype("float32"), *args, **kwargs)
    )
    try:
        with adapter.enable(metric):
            infer.reverse_transform(logits, [("resize", (24, 32))], mode="bilinear")
    finally:
        infer.F.interpolate = interpolate
    assert seen == [paddle.float16 if metric == "acc" else paddle.float32]
    assert infer.reverse_transform is resizing


def test_logits_that_are_refused(paddle, adapter):
    decision = RankSEG(from_logits="softmax")
    for values, error, message in (
        (paddle.full([1, CLASSES, 4, 4], np.nan), ValueError, "logits must be finite"),
        (paddle.zeros([1, CLASSES, 4, 4], dtype="int32"), TypeError, "dtype"),
        (paddle.zeros([CLASSES, 4, 4]), ValueError, r"be of shape \(batch, classes, height, wid"),
        (paddle.zeros([CLASSES]), ValueError, r"be of shape \(batch, classes, height, width\)"),
    ):
        with pytest.raises(error, match=message):
            adapter.decide(values, decision)


def test_enabling_and_disabling(paddle, adapter, infer):
    before = infer.inference, infer.aug_inference
    own, _ = decided(paddle, infer, "whole")
    adapter.enable("acc")
    manager = adapter.enable("dice")
    assert infer.inference is not before[0]
    ours, _ = decided(paddle, infer, "whole")
    assert (ours.numpy() != own.numpy()).any()
    manager.close()
    assert (infer.inference, infer.aug_inference) == before
    with pytest.raises(KeyError), adapter.enable("iou"):
        raise KeyError
    adapter.disable()
    assert (infer.inference, infer.aug_inference) == before


def test_logits_alone_stay_logits(paddle, adapter, infer):
    with adapter.enable(), paddle.no_grad():
        logits = infer.inference(network(paddle), image(paddle))
    assert logits.shape == [1, CLASSES, 48, 64]


def write_images(folder):
    """Write two images and labels, and return their paths."""
    from PIL import Image

    rng = np.random.default_rng(1)
    paths = []
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (40, 52, 3), dtype=np.uint8)
        labels = rng.integers(0, CLASSES, (40, 52), dtype=np.uint8)
        labels[:3] = 255
        paths.append((folder / f"{name}.jpg", folder / f"{name}_label.png"))
        Image.fromarray(pixels).save(paths[-1][0])
        Image.fromarray(labels).save(paths[-1][1])
    return paths


def areas(pred, label, classes, ignore_index=255):
    """Count as ``calculate_area`` does, which in PaddleSeg 2.8.0 fails with Paddle 3."""
    import paddle

    pred, label = pred.numpy().ravel(), label.numpy().ravel()
    pred, label = pred[label != ignore_index], label[label != ignore_index]
    both = np.bincount(label[pred == label], minlength=classes)
    given, wanted = (np.bincount(values, minlength=classes) for values in (pred, label))
    return tuple(paddle.to_tensor(counts) for counts in (both, given, wanted))


def test_prediction_and_validation_agree(paddle, adapter, tmp_path, monkeypatch):
    from paddleseg import transforms
    from paddleseg.core import evaluate, predict
    from paddleseg.datasets import Dataset
    from PIL import Image

    monkeypatch.setattr("paddleseg.utils.metrics.calculate_area", areas)
    paths = write_images(tmp_path)
    (tmp_path / "val.txt").write_text("".join(f"{a.name} {b.name}\n" for a, b in paths))
    steps = [transforms.Resize(target_size=(64, 48)), transforms.Normalize()]
    data = Dataset(
        mode="val",
        dataset_root=str(tmp_path),
        transforms=steps,
        num_classes=CLASSES,
        val_path=str(tmp_path / "val.txt"),
    )
    model = network(paddle)
    own = evaluate(model, data, num_workers=0, print_detail=False)
    with adapter.enable("iou"):
        scores = evaluate(model, data, num_workers=0, print_detail=False)
        predict(
            model,
            model_path=_save(paddle, model, tmp_path),
            transforms=transforms.Compose(steps),
            image_list=[str(path) for path, _ in paths],
            image_dir=str(tmp_path),
            save_dir=str(tmp_path / "out"),
        )
    counts = np.zeros((2, CLASSES))
    for path, label in paths:
        saved = np.array(Image.open(tmp_path / "out/pseudo_color_prediction" / f"{path.stem}.png"))
        truth = np.array(Image.open(label))
        counted = truth != 255
        for index in range(CLASSES):
            mask, wanted = (saved == index) & counted, truth == index
            counts[:, index] += (mask & wanted).sum(), (mask | wanted).sum()
    assert scores[0] == pytest.approx((counts[0] / counts[1]).mean(), abs=1e-6)
    assert scores[0] != own[0]


def _save(paddle, model, folder):
    paddle.save(model.state_dict(), str(folder / "model.pdparams"))
    return str(folder / "model.pdparams")


def test_wrong_arguments(paddle, adapter, infer):
    before = infer.inference
    for options, message in (
        ({"metric": "hd95"}, r"metric must be one of .*got 'hd95'"),
        ({"output_mode": "multilabel"}, r"\['output_mode'\] follow from PaddleSeg"),
        ({"pruning_prob": 2.0}, r"pruning_prob must be in \[0, 1\], got 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            adapter.enable(**options)
    assert infer.inference is before
    with (
        adapter.enable(),
        pytest.raises(ValueError, match=r"two classes or more.*got \(1, 1, 40, 52\)"),
    ):
        decided(paddle, infer, "whole", network(paddle, classes=1))


def test_example(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "paddle_segmentation.py"), run_name="__main__")
    assert "int32" in capsys.readouterr().out
