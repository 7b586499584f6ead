"""Label maps of many files: every format in and out, models, interruptions, broken files."""

from __future__ import annotations

import os
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
import zarr
from PIL import Image
from typer.testing import CliRunner

import maps
from rankseg import RankSEG, _files, _formats
from rankseg._commands import app
from rankseg._formats import read_labels, read_maps, write_labels
from rankseg.calibration import Calibration
from rankseg.prediction import predict_files

FLAT = maps.smooth(1, 3, 32)[0]
VOLUME = np.moveaxis(maps.smooth(1, 3, 32)[0].reshape(3, 32, 8, 4), 1, 2).copy()
AFFINE = np.array([[-2.0, 0, 0, 7], [0, 1.5, 0.2, -3], [0, -0.2, 3.0, 5], [0, 0, 0, 1]])


def write_maps(path, probs):
    ending = _formats.ending_of(path)
    if ending == ".npy":
        np.save(path, probs)
    elif ending == ".npz":
        np.savez(path, probs=probs, other=np.zeros(3))
    elif ending == ".pt":
        torch.save({"logits": torch.from_numpy(probs)}, path)
    elif ending == ".safetensors":
        safetensors.torch.save_file({"anything": torch.from_numpy(probs.copy())}, path)
    elif ending in (".nii", ".nii.gz"):
        image = nibabel.Nifti1Image(np.moveaxis(probs, 0, -1), AFFINE)
        image.header["descrip"] = b"of a scanner"
        nibabel.save(image, path)
    elif ending == ".tif":
        tifffile.imwrite(path, probs, photometric="minisblack")
    else:
        zarr.save_group(str(path), probs=probs)


@pytest.mark.parametrize("ending", [*_formats.MAPS])
def test_every_format_of_maps(tmp_path, ending):
    if ending in (".pth", ".tiff"):
        ending = ending[:-1] if ending == ".tiff" else ".pt"
    probs = VOLUME if ending.startswith(".nii") else FLAT
    write_maps(tmp_path / f"case{ending}", probs)
    outcome = predict_files(tmp_path, tmp_path / "out", metric="iou")
    assert outcome.written == (f"case{ending}",)
    expected = RankSEG("iou")(probs[None])[0]
    (written,) = (tmp_path / "out").iterdir()
    usual = {".nii": ".nii.gz", ".nii.gz": ".nii.gz", ".tif": ".tif", ".zarr": ".zarr"}
    assert written.name == "case" + usual.get(ending, ".png")
    np.testing.assert_array_equal(read_labels(written), expected)


@pytest.mark.parametrize("ending", _formats.WRITTEN)
def test_every_format_of_labels(tmp_path, ending):
    labels = np.random.default_rng(0).integers(0, 5, (7, 9))
    labels[2, 3] = 255
    path = tmp_path / f"labels{ending}"
    for _ in range(2):  # the second time it is there
        write_labels(path, labels)
        np.testing.assert_array_equal(read_labels(path), labels)
        assert [one.name for one in tmp_path.iterdir()] == [path.name]
    write_labels(path, labels * 200)
    np.testing.assert_array_equal(read_labels(path), labels * 200)


def test_nifti_stays_where_it_was(tmp_path):
    write_maps(tmp_path / "case.nii.gz", VOLUME)
    for mode in ("multiclass", "multilabel"):
        predict_files(tmp_path, tmp_path / mode, output_mode=mode)
        image = nibabel.load(tmp_path / mode / "case.nii.gz")
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
        assert image.header["descrip"] == b"of a scanner"
        assert image.get_data_dtype() == np.uint8
        decided = np.asanyarray(image.dataobj)
        expected = RankSEG(output_mode=mode)(VOLUME[None])[0]
        if mode == "multilabel":
            expected = np.moveaxis(expected, 0, -1)
        np.testing.assert_array_equal(decided, expected)
        assert read_maps(tmp_path / "case.nii.gz").header["descrip"] == b"of a scanner"
    first = (tmp_path / "multiclass" / "case.nii.gz").read_bytes()
    predict_files(tmp_path / "case.nii.gz", tmp_path / "again")
    assert (tmp_path / "again" / "case.nii.gz").read_bytes() == first


def test_png_has_a_palette_that_tells_classes_apart(tmp_path):
    write_labels(tmp_path / "a.png", np.arange(256).reshape(16, 16))
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "P"
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert pixels[255].tolist() == [255, 255, 255]
    assert len(np.unique(pixels, axis=0)) > 250


def test_one_channel_of_formats_for_images(tmp_path):
    one = FLAT[:1]
    tifffile.imwrite(tmp_path / "a.tif", one[0])
    nibabel.save(nibabel.Nifti1Image(VOLUME[0], AFFINE), tmp_path / "b.nii")
    predict_files(tmp_path, tmp_path / "out", output_mode="multilabel", pruning_prob=0.0)
    np.testing.assert_array_equal(read_maps(tmp_path / "a.tif").maps, one)
    expected = RankSEG(output_mode="multilabel", pruning_prob=0.0)(one[None])[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.tif"), expected)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for seed in range(4):
        np.save(folder / f"case {seed}.npy", maps.smooth(1, 3, 32, seed=seed)[0])
    return folder


def read_all(folder):
    return {path.name: read_labels(path) for path in folder.iterdir()}


def test_side_by_side_is_the_same_and_what_is_there_is_not_done_again(folder, tmp_path):
    alone = predict_files(folder, tmp_path / "alone")
    together = predict_files([folder], tmp_path / "together", workers=3)
    assert alone == together
    assert len(alone.written) == 4
    for name, labels in read_all(tmp_path / "alone").items():
        np.testing.assert_array_equal(labels, read_all(tmp_path / "together")[name])
    (tmp_path / "alone" / "case 2.png").unlink()
    again = predict_files(folder, tmp_path / "alone", metric="iou")
    assert again.written == ("case 2.npy",)
    assert len(again.skipped) == 3
    assert len(predict_files(folder, tmp_path / "alone", overwrite=True).written) == 4


def test_a_broken_file_is_named_and_the_others_are_done(folder, tmp_path):
    (folder / "broken.npz").write_bytes(b"no such thing")
    (folder / "broken.pt").write_bytes(b"no such thing")
    (folder / "broken.nii.gz").write_bytes(b"no such thing")
    (folder / "broken.tif").write_bytes(b"no such thing")
    np.save(folder / "integers.npy", np.zeros((3, 4, 4), int))
    np.save(folder / "logits.npy", maps.smooth(1, 3, 32)[0] * 9)
    np.savez(folder / "several.npz", a=np.zeros(3), b=np.zeros(3))
    result = CliRunner().invoke(app, ["predict", str(folder), "-o", str(tmp_path / "out"),
                                      "--format", "npy"])  # fmt: skip
    assert result.exit_code == 1
    # Three names would be written to one file: an error before any work.
    assert "would both be written to" in result.stderr
    for name in ("broken.pt", "broken.nii.gz"):
        (folder / name).rename(folder / f"{name[7:]} {name}")
    (folder / "broken.tif").rename(folder / "picture.tif")
    result = CliRunner().invoke(app, ["predict", str(folder), "-o", str(tmp_path / "out"),
                                      "--format", "npy"])  # fmt: skip
    assert result.exit_code == 1
    assert "4 written to" in " ".join(result.stdout.split())
    reasons = result.stderr
    assert reasons.count("Not decided") == 7
    assert "integers.npy: maps must be floating (classes, *spatial)" in reasons
    assert "logits.npy: probs must lie in [0, 1]" in reasons
    assert "several.npz: the file must hold one of ['probs', 'probabilities', 'logits'], got" in (
        reasons
    )
    assert sorted(read_all(tmp_path / "out")) == [f"case {seed}.npy" for seed in range(4)]


@pytest.mark.parametrize("ending", _formats.WRITTEN)
def test_an_interruption_leaves_nothing_half_written(folder, tmp_path, monkeypatch, ending):
    def interrupted(*_):
        raise KeyboardInterrupt

    # Not os.replace itself, which libraries use as well.
    monkeypatch.setattr(_files, "os", SimpleNamespace(getpid=os.getpid, replace=interrupted))
    with pytest.raises(KeyboardInterrupt):
        predict_files(folder, tmp_path / "out", ending=ending)
    assert list((tmp_path / "out").iterdir()) == []


def test_options_keys_and_a_calibration(tmp_path):
    np.savez(tmp_path / "case.npz", a=np.log(FLAT), b=FLAT)
    hot = Calibration("softmax", [0.3] * 3, [0.0, 0.5, 0.0])
    hot.save(tmp_path / "c.json")
    arguments = ["predict", tmp_path / "case.npz", "-o", tmp_path / "out", "--key", "a",
                 "--from-logits", "softmax", "--calibration", tmp_path / "c.json",
                 "--solver", "joint", "--correlation", "0.4"]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    decide = RankSEG(solver="joint", correlation=0.4, calibration=hot, from_logits="softmax")
    expected = decide(np.log(FLAT)[None])[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "case.png"), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": "nowhere"}, FileNotFoundError, "there is no nowhere"),
        ({"ending": ".bmp"}, ValueError, "ending must be one of"),
        ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ({"model": "nowhere.pt"}, FileNotFoundError, "there is no nowhere.pt"),
        ({"metric": "f1"}, ValueError, "metric must be one of"),
        ({"output": None, "ending": ".npy"}, ValueError, "output must be another folder"),
    ],
)
def test_wrong_options(folder, tmp_path, change, error, message):
    arguments = {"inputs": folder, "output": tmp_path / "out"} | change
    if arguments["output"] is None:
        arguments["output"] = folder
    with pytest.raises(error, match=message):
        predict_files(**arguments)
    assert not (tmp_path / "out").exists()


class TestModels:
    @pytest.fixture
    def images(self, tmp_path):
        folder = tmp_path / "images"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name, shape in (("a.png", (33, 47, 3)), ("b.jpg", (64, 40, 3))):
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
        return folder

    def test_of_the_hub(self, images, tmp_path):
        transformers = pytest.importorskip("transformers")
        from rankseg.integration.transformers import postprocess

        config = transformers.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
            patch_sizes=[3, 3], strides=[4, 2], num_attention_heads=[1, 1], mlp_ratios=[1, 1],
            decoder_hidden_size=16, num_labels=5,
        )  # fmt: skip
        model = transformers.SegformerForSemanticSegmentation(config).eval()
        processor = transformers.SegformerImageProcessorPil()
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        outcome = predict_files(
            images, tmp_path / "out", model=tmp_path / "model", metric="iou", pruning_prob=0.0
        )
        assert outcome.failures == {}
        image = Image.open(images / "a.png")
        with torch.no_grad():
            outputs = model(**processor(image, return_tensors="pt"))
        (expected,) = postprocess(
            outputs,
            model=model,
            target_sizes=[(33, 47)],
            rankseg_kwargs={"metric": "iou", "pruning_prob": 0.0},
        )
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.png"), expected)

    @pytest.mark.parametrize("ending", [".pt", ".pt2"])
    @pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
    def test_from_a_file(self, images, tmp_path, ending):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1).eval()
        example = torch.zeros(1, 3, 33, 47)
        path = tmp_path / f"model{ending}"
        if ending == ".pt":
            torch.jit.trace(network, example).save(path)
        else:
            axes = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
            torch.export.save(torch.export.export(network, (example,), dynamic_shapes=axes), path)
        outcome = predict_files(
            images,
            tmp_path / "out",
            model=path,
            mean=[0.4, 0.5, 0.6],
            std=[0.2] * 3,
            from_logits="softmax",
            pruning_prob=0.0,
        )
        assert outcome.failures == {}
        pixels = np.asarray(Image.open(images / "b.jpg")).astype(np.float32) / 255
        shifted = (pixels - np.float32([0.4, 0.5, 0.6])) / np.float32(0.2)
        with torch.no_grad():
            logits = network(torch.from_numpy(np.moveaxis(shifted, -1, 0).copy())[None])
        logits = torch.nn.functional.interpolate(logits, (64, 40), mode="bilinear")
        expected = RankSEG(from_logits="softmax", pruning_prob=0.0)(logits)[0].numpy()
        found = read_labels(tmp_path / "out" / "b.png")
        assert (found != expected).mean() < 0.002

    def test_no_model(self, images, tmp_path):
        (tmp_path / "m.pt").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"m\.pt holds no model"):
            predict_files(images, tmp_path / "out", model=tmp_path / "m.pt")
