"""What visitors upload: every format, truths, images, and what is refused."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from rankseg import RankSEG
from rankseg._demo.example import load_sample
from rankseg._demo.network import maps_of_image
from rankseg._formats import write_labels
from rankseg.app.uploads import Form, read_upload
from support import maps

PROBS = maps.softmax(1, 3, 12, 10)[0].astype(np.float32)
TRUTH = PROBS.argmax(0).astype(np.uint8)


def form(path=None, **options):
    given = {
        "maps": None if path is None else str(path), "truth": None, "image": None, "example": 0,
        "from_logits": "", "metric": "dice", "solver": "auto", "pruning_prob": 0.5,
        "correlation": 0.5, "smooth": 0.0, "key": "", "classes": "", "ignore_index": 255.0,
        "model": "",
    }  # fmt: skip
    return Form(**{**given, **options})


def read(tmp_path, path=None, largest=None, **options):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return read_upload(form(path, **options), scratch, largest)


def write(path, array):
    """Write maps as a format by its ending."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, probs=array)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(array), path)
    elif path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file({"probs": torch.from_numpy(array)}, path)
    elif path.suffix == ".tif":
        pytest.importorskip("tifffile").imwrite(
            path, array, photometric="minisblack", compression="zlib", metadata={"axes": "CYX"}
        )
    elif path.suffix == ".gz":
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(array[..., None], 0, -1), np.eye(4)), path)
    elif path.suffix == ".zip":
        folder = path.parent / "maps.zarr"
        pytest.importorskip("zarr").save_group(str(folder), probs=array)
        shutil.make_archive(str(path)[: -len(".zip")], "zip", folder)
    return path


NAMES = ["a.npy", "a.npz", "a.pt", "a.safetensors", "a.tif", "a.nii.gz", "a.zarr.zip"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_maps_is_read(tmp_path, name):
    upload = read(tmp_path, write(tmp_path / name, PROBS))
    assert not upload.labelled
    np.testing.assert_allclose(upload.case.probs.squeeze(-1 if "nii" in name else ()), PROBS)


@pytest.mark.parametrize("name", ["t.png", "other name.npy", "t.tif"])
def test_a_truth_may_have_any_name_and_format(tmp_path, name):
    write(tmp_path / "a.npy", PROBS)
    write_labels(tmp_path / name, TRUTH)
    upload = read(tmp_path, tmp_path / "a.npy", truth=str(tmp_path / name), classes="x, y,z")
    assert upload.labelled
    np.testing.assert_array_equal(upload.case.label, TRUTH)
    assert upload.classes == ["x", "y", "z"]


def test_a_label_in_the_file_of_the_maps_is_its_truth(tmp_path):
    np.savez(tmp_path / "a.npz", probs=PROBS, label=TRUTH)
    upload = read(tmp_path, tmp_path / "a.npz")
    assert upload.labelled
    np.testing.assert_array_equal(upload.case.label, TRUTH)
    zarr = pytest.importorskip("zarr")
    zarr.save_group(str(tmp_path / "inner" / "a.zarr"), probs=PROBS, label=TRUTH)
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "inner")  # the folder itself
    upload = read(tmp_path, tmp_path / "a.zarr.zip")
    assert upload.labelled
    np.testing.assert_array_equal(upload.case.label, TRUTH)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_logits_become_probabilities(tmp_path, kind):
    logits = torch.randn(3, 6, 5, generator=torch.manual_seed(0))
    np.savez(tmp_path / "a.npz", probs=PROBS[:, :6, :5], logits=logits.numpy())
    upload = read(tmp_path, tmp_path / "a.npz", from_logits=kind)
    expected = logits.softmax(0) if kind == "softmax" else logits.sigmoid()
    torch.testing.assert_close(upload.case.probs, expected)


def test_an_array_is_chosen_by_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", first=PROBS, second=PROBS[::-1].copy())
    upload = read(tmp_path, tmp_path / "a.npz", key="second")
    np.testing.assert_array_equal(upload.case.probs, PROBS[::-1])


def test_pixels_without_data_are_left_out(tmp_path):
    probs = PROBS.copy()
    probs[:, 0, 0] = np.nan
    write(tmp_path / "a.npy", probs)
    with pytest.warns(UserWarning, match="NaN in all classes"):
        upload = read(tmp_path, tmp_path / "a.npy")
    assert not upload.labelled
    assert int(upload.case.valid.sum()) == TRUTH.size - 1


def test_an_image_is_shown_below_maps(tmp_path):
    write(tmp_path / "a.npy", PROBS)
    pixels = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    upload = read(tmp_path, tmp_path / "a.npy", image=str(tmp_path / "photo.png"))
    np.testing.assert_array_equal(upload.image, pixels)


def test_a_mask_of_0_and_255_is_doubted(tmp_path):
    write(tmp_path / "a.npy", PROBS[:1])
    write_labels(tmp_path / "t.png", np.where(TRUTH == 0, 255, 0))
    given = {"truth": str(tmp_path / "t.png")}
    upload = read(tmp_path, tmp_path / "a.npy", **given)
    assert "if 255 is foreground there, empty the field" in upload.note
    upload = read(tmp_path, tmp_path / "a.npy", ignore_index=None, **given)
    assert upload.note == ""
    np.testing.assert_array_equal(upload.case.label, TRUTH == 0)


def test_what_does_not_fit_is_refused(tmp_path):
    write(tmp_path / "a.npy", PROBS)
    write_labels(tmp_path / "t.png", TRUTH[:4])
    with pytest.raises(ValueError, match="does not fit the maps"):
        read(tmp_path, tmp_path / "a.npy", truth=str(tmp_path / "t.png"))
    with pytest.raises(ValueError, match="upload the probability maps"):
        read(tmp_path, truth=str(tmp_path / "t.png"))
    (tmp_path / "a.zarr.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="must be a zip archive"):
        read(tmp_path, tmp_path / "a.zarr.zip")


@pytest.mark.parametrize("name", ["a.npz", "a.nii.gz", "a.zarr.zip", "a.npy", "a.tif"])
def test_what_unpacks_to_too_much_is_refused(tmp_path, name):
    path = write(tmp_path / name, np.full((3, 500, 500), 0.3, np.float32))
    read(tmp_path, path, largest=1 << 24)
    with pytest.raises(
        ValueError, match=f"{name.removesuffix('.zip')}.* must unpack to at most 1 MB here"
    ):
        read(tmp_path, path, largest=1 << 20)


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    unpacked = []
    whole = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size: unpacked.append(size) or whole(self, size)
    )
    with pytest.raises(ValueError, match="must unpack to at most"):
        read(tmp_path, tmp_path / "a.nii.gz", largest=2 << 20)
    assert sum(unpacked) <= 4 << 20


def test_an_example_has_image_and_truth(tmp_path):
    sample = load_sample()
    upload = read(tmp_path, example=5)
    assert upload.labelled
    np.testing.assert_array_equal(upload.image, sample.images[5])
    np.testing.assert_array_equal(upload.case.label, sample.labels[5])


def test_an_image_without_a_model_goes_through_the_embedded_network(tmp_path):
    sample = load_sample()
    Image.fromarray(sample.images[3]).save(tmp_path / "image.png")
    write_labels(tmp_path / "t.png", sample.labels[3])
    pixels = torch.from_numpy(sample.images[3]).permute(2, 0, 1) / 255
    for truth in (None, str(tmp_path / "t.png")):
        upload = read(tmp_path, tmp_path / "image.png", truth=truth)
        probs = upload.case.probs if truth else upload.case
        torch.testing.assert_close(probs, maps_of_image(pixels))
        assert upload.labelled == (truth is not None)
        assert "knows no other pictures" in upload.note
        assert upload.classes == sample.classes
        np.testing.assert_array_equal(upload.image, sample.images[3])


def test_a_large_image_is_reduced_and_that_is_said(tmp_path):
    photo = Image.fromarray(load_sample().images[3]).resize((3000, 1500))
    photo.save(tmp_path / "photo.png")
    upload = read(tmp_path, tmp_path / "photo.png")
    assert "The image of 1500 x 3000 pixels was reduced to 512 x 1024 first" in upload.note
    assert upload.image.shape == (512, 1024, 3)
    assert upload.case.shape == (6, 512, 1024)
    expected = np.asarray(photo.resize((1024, 512), Image.Resampling.BILINEAR))
    assert np.abs(upload.image.astype(int) - expected).max() <= 2


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
    upload = read(tmp_path, tmp_path / "image.png", model=str(tmp_path / "model"))
    with torch.no_grad():
        logits = model(**processor(images=image, return_tensors="pt")).logits
    probs = torch.nn.functional.interpolate(logits, (100, 128), mode="bilinear").softmax(1)
    decide = RankSEG("iou", solver="joint")
    np.testing.assert_array_equal(decide(upload.case[None]), decide(probs))
    assert upload.classes == ["road", "kerb", "sky"]
    assert upload.note == ""


def test_a_model_that_is_not_there_is_an_error_and_not_the_embedded_network(tmp_path):
    pytest.importorskip("transformers")
    Image.fromarray(load_sample().images[3]).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="model must be a"):
        read(tmp_path, tmp_path / "image.png", model=str(tmp_path / "nowhere"))
