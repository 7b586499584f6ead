"""What the page shows of a case; the page itself is in ``tests/integrations/test_app.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rankseg import RankSEG, app, expected_score
from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg.app import build, show
from support import maps


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_numbers_are_those_of_the_library(metric):
    probs = torch.from_numpy(maps.softmax(1, 3, 32, 32))
    shown = show(probs[0], ["a", "b", "c"], metric=metric, solver="joint", pruning_prob=0.3)
    labels = RankSEG(metric, solver="joint", pruning_prob=0.3)(probs)
    np.testing.assert_array_equal(shown.labels, labels[0])
    scores, plain = (expected_score(probs, one, metric)[0] for one in (labels, probs.argmax(1)))
    assert [row[0] for row in shown.rows] == ["a", "b", "c"]
    for number, row in enumerate(shown.rows):
        assert row[1] == str(int((probs.argmax(1) == number).sum()))
        assert row[2] == str(int((labels == number).sum()))
        assert row[4:] == [f"{plain[number].item():.3f}", f"{scores[number].item():.3f}"]
    assert {"dice": "Dice", "iou": "IoU"}[metric] in shown.summary


def test_pictures_show_the_labels_and_where_they_differ():
    probs = maps.softmax(1, 3, 32, 32)[0]
    shown = show(probs)
    times = len(shown.ours) // 32
    ours, plain, difference = (
        one[::times, ::times] for one in (shown.ours, shown.argmax, shown.difference)
    )
    differs = shown.labels != probs.argmax(0)
    np.testing.assert_array_equal((ours != plain).any(2), differs)
    np.testing.assert_array_equal((difference != 237).any(2), differs)
    assert 0 < differs.sum() < differs.size


def test_a_slice_of_a_volume_and_one_channel():
    volume = np.moveaxis(maps.softmax(1, 3, 32, 32)[0].reshape(3, 32, 8, 4), 1, 2)[:1]
    first, last = (show(volume, depth=depth) for depth in (0.0, 1.0))
    assert first.labels.shape == (8, 32, 4)
    assert first.ours.shape == last.ours.shape
    assert (first.ours != last.ours).any()


def test_large_maps_are_decided_as_they_are_and_shown_smaller():
    probs = np.full((1, 1030, 2100), 0.1)
    probs[0, 500:530, :9] = 0.45  # argmax does not take it, and RankSEG does
    shown = show(probs, pruning_prob=0.4)
    assert shown.labels.shape == (1030, 2100)
    assert shown.labels[510, 5] == 1
    assert "The pictures show one pixel of 3 x 3." in shown.summary
    for picture in (shown.argmax, shown.ours, shown.difference):
        assert picture.shape == (344, 700, 3)
    np.testing.assert_array_equal(shown.ours[170, 1], shown.ours[171, 2])
    assert (shown.ours[170, 1] != shown.argmax[170, 1]).any()


def test_a_difference_of_one_pixel_is_seen_in_a_smaller_picture():
    probs = np.zeros((1, 2050, 40))
    probs[0, 1001, 20] = 0.45
    shown = show(probs, pruning_prob=0.4)
    assert shown.labels.sum() == 1
    assert (shown.difference == app.DIFFERENT).all(-1).sum() == 1


def test_without_any_class_nothing_is_expected():
    summary = show(np.full((3, 4, 4), 1 / 3)).summary
    assert "nan" not in summary
    assert "No class is present: none has a probability above pruning_prob." in summary


def page_of(scratch, upload, model="", example=0):
    form = app._Form(upload, example, model, "iou", "joint", 0.5, 0, 0, 0.5)
    return app._page_of(str(scratch), form)


def test_an_image_without_a_model_goes_through_the_embedded_network(tmp_path):
    sample = load_sample()
    Image.fromarray(sample.images[3]).save(tmp_path / "image.png")
    summary, image, _, _, ours, rows, files = page_of(tmp_path, str(tmp_path / "image.png"))
    pixels = torch.from_numpy(sample.images[3]).permute(2, 0, 1) / 255
    expected = show(maps_of_image(pixels), sample.classes, metric="iou", solver="joint")
    assert summary.startswith(expected.summary)
    assert "knows no other pictures" in summary
    assert rows == expected.rows
    np.testing.assert_array_equal(image[::3, ::3], sample.images[3])
    np.testing.assert_array_equal(ours, expected.ours)
    np.testing.assert_array_equal(np.load(files[0]), expected.labels)


def test_a_large_image_is_reduced_and_that_is_said(tmp_path):
    photo = Image.fromarray(load_sample().images[3]).resize((3000, 1500))
    photo.save(tmp_path / "photo.png")
    summary, image, *pictures, _, files = page_of(tmp_path, str(tmp_path / "photo.png"))
    assert "The image of 1500 x 3000 pixels was reduced to 512 x 1024 first" in summary
    assert "knows no other pictures" in summary
    assert {one.shape for one in (image, *pictures)} == {(512, 1024, 3)}
    assert np.load(files[0]).shape == (512, 1024)
    expected = np.asarray(photo.resize((1024, 512), Image.Resampling.BILINEAR))
    assert np.abs(image.astype(int) - expected).max() <= 2


def test_warnings_are_on_the_page(tmp_path):
    np.save(tmp_path / "maps.npy", np.random.default_rng(0).random((3, 32, 32), np.float32))
    summary, *_ = page_of(tmp_path, str(tmp_path / "maps.npy"))
    assert summary.startswith("Warning: probs of shape (1, 3, 32, 32) sum to")


def test_an_example_is_shown_with_its_image_and_maps_have_none(tmp_path):
    sample = load_sample()
    _, image, *_ = page_of(tmp_path, None, example=5)
    np.testing.assert_array_equal(image[::3, ::3], sample.images[5])
    np.save(tmp_path / "maps.npy", sample.probs[5].numpy())
    summary, image, *_ = page_of(tmp_path, str(tmp_path / "maps.npy"))
    assert image is None
    assert "knows no other pictures" not in summary


@pytest.mark.filterwarnings("ignore")
def test_an_image_goes_through_the_model_that_is_named(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
        patch_sizes=[3, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=8, id2label={0: "road", 1: "kerb", 2: "sky"},
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=5)
    processor = transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    image = Image.fromarray(load_sample().images[3][:100])
    image.save(tmp_path / "image.png")

    summary, shown, _, _, _, rows, files = page_of(
        tmp_path, str(tmp_path / "image.png"), model=str(tmp_path / "model")
    )
    with torch.no_grad():
        logits = model(**processor(images=image, return_tensors="pt")).logits
    probs = torch.nn.functional.interpolate(logits, (100, 128), mode="bilinear").softmax(1)
    labels = RankSEG("iou", solver="joint")(probs)[0]
    np.testing.assert_array_equal(np.load(files[0]), labels)
    assert {name for name, *_ in rows} <= {"road", "kerb", "sky"}
    assert labels.unique().numel() > 1
    assert "knows no other pictures" not in summary
    np.testing.assert_array_equal(shown[::3, ::3], np.asarray(image))


def test_a_model_that_is_not_there_is_an_error_and_not_the_embedded_network(tmp_path):
    pytest.importorskip("transformers")
    Image.fromarray(load_sample().images[3]).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="model must be a"):
        page_of(tmp_path, str(tmp_path / "image.png"), model=str(tmp_path / "nowhere"))


def test_without_gradio_the_error_says_what_to_install():
    try:
        import gradio  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'rankseg\[app\]'"):
            build()
