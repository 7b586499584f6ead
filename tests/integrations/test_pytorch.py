"""The decision behind PyTorch models, as docs/integrations/pytorch.md shows it."""

from __future__ import annotations

import copy
import io
import runpy

import pytest
import torch
from torch import nn

from conftest import REPOSITORY
from rankseg import RankSEG
from support.frameworks import framework


def network(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1)).eval()


IMAGES = 3 * torch.rand(2, 3, 40, 48, generator=torch.manual_seed(1))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_logits_end_a_network(metric):
    body = network(4)
    model = nn.Sequential(body, RankSEG(metric, from_logits="softmax"))
    expected = RankSEG(metric)(body(IMAGES).softmax(1))
    assert torch.equal(model(IMAGES), expected)
    reference = nn.Sequential(body, nn.Softmax(1), RankSEG(metric))
    assert torch.equal(reference(IMAGES), expected)


def test_accuracy_is_argmax_and_threshold():
    body = network(4)
    labels = nn.Sequential(body, RankSEG("acc", from_logits="softmax"))
    assert torch.equal(labels(IMAGES), body(IMAGES).argmax(1))
    masks = nn.Sequential(body, RankSEG("acc", output_mode="multilabel", from_logits="sigmoid"))
    assert torch.equal(masks(IMAGES), body(IMAGES) > 0)


def test_binary_network():
    body = network(1)
    model = nn.Sequential(body, RankSEG(from_logits="sigmoid"))
    assert torch.equal(model(IMAGES), RankSEG()(body(IMAGES).sigmoid()))
    assert model(IMAGES).shape == (2, 40, 48)


def test_half_precision_network():
    body = network(4).bfloat16()
    model = nn.Sequential(body, RankSEG(from_logits="softmax"))
    images = IMAGES.bfloat16()
    assert torch.equal(model(images), RankSEG()(body(images).float().softmax(1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(images).dtype == torch.int64


def test_a_network_that_ends_in_the_decision_is_an_ordinary_module():
    plain = network(4)
    model = nn.Sequential(plain, RankSEG("iou", from_logits="softmax"))
    expected = model(IMAGES)
    assert set(model.state_dict()) == {f"0.{name}" for name in plain.state_dict()}
    assert torch.equal(copy.deepcopy(model)(IMAGES), expected)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(IMAGES), expected)
    assert model.train()[1](plain(IMAGES)).dtype == torch.int64


def test_example(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "pytorch.py"), run_name="__main__")
    assert "labels" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_lightning():
    lightning = framework("lightning")

    class Segmenter(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network(4)
            self.decide = RankSEG("dice", from_logits="softmax")

        def predict_step(self, batch, batch_idx):
            return self.decide(self.network(batch))

    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    loader = torch.utils.data.DataLoader(IMAGES, batch_size=1)
    predictions = torch.cat(trainer.predict(Segmenter(), loader))
    assert torch.equal(predictions, RankSEG()(network(4)(IMAGES).softmax(1)))


@pytest.mark.filterwarnings("ignore")
def test_torchvision():
    models = framework("torchvision.models.segmentation")
    torch.manual_seed(0)
    model = models.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    with torch.no_grad():
        logits = model(IMAGES)["out"]
    assert torch.equal(RankSEG("acc", from_logits="softmax")(logits), logits.argmax(1))
    labels = RankSEG("iou", from_logits="softmax")(logits)
    assert torch.equal(labels, RankSEG("iou")(logits.softmax(1)))


@pytest.mark.filterwarnings("ignore")
def test_segmentation_models_pytorch():
    smp = framework("segmentation_models_pytorch")
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    model = smp.Unet("resnet18", encoder_weights=None, classes=4).eval()
    segment = nn.Sequential(model, RankSEG("dice", from_logits="softmax"))
    with torch.no_grad():
        assert torch.equal(segment(images), RankSEG("dice")(model(images).softmax(1)))
    binary = smp.Unet("resnet18", encoder_weights=None, classes=1).eval()
    segment = nn.Sequential(binary, RankSEG(output_mode="multilabel", from_logits="sigmoid"))
    with torch.no_grad():
        assert segment(images).shape == (2, 1, 64, 64)


@pytest.mark.filterwarnings("ignore")
def test_timm():
    timm = framework("timm")
    torch.manual_seed(0)
    encoder = timm.create_model("resnet18", pretrained=False, features_only=True).eval()
    head = nn.Conv2d(encoder.feature_info.channels()[-1], 4, 1)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = head(encoder(images)[-1])
    logits = nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    labels = RankSEG("dice", from_logits="softmax")(logits)
    assert torch.equal(labels, RankSEG("dice")(logits.softmax(1)))


@pytest.mark.filterwarnings("ignore")
def test_torchgeo():
    trainers = framework("torchgeo.trainers")
    torch.manual_seed(0)
    task = trainers.SemanticSegmentationTask(
        model="unet", backbone="resnet18", in_channels=3, task="multiclass", num_classes=4
    ).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        given = task.predict_step({"image": images}, 0)
        probs = given["probabilities"] if isinstance(given, dict) else given
        assert torch.equal(RankSEG("iou")(probs), RankSEG("iou")(task(images).softmax(1)))
