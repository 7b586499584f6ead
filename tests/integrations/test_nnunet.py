"""What nnU-Net saves, decided anew; and its own predictor, deciding by RankSEG."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import pickle
import re
import runpy
import sys
import zipfile

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from rankseg import RankSEG
from rankseg.evaluation import aggregate
from rankseg.integration import nnunet, nnunet_folders
from rankseg.integration.nnunet import ClassMaps, decide_folders, enable
from rankseg.metrics import count
from support import frameworks
from support.convention_cases import CASES

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")

LABELS = {"background": 0, "organ": 1, "tumour": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": 3, "ignore": 4}
SHAPE = (7, 10, 12)  # (z, y, x)
AFFINE = np.array([[-0.8, 0, 0.1, 5], [0, 1.2, 0, -7], [0.05, 0, 2.5, 30], [0, 0, 0, 1.0]])


def maps(seed, channels=3, shape=SHAPE, regions=False):
    logits = np.random.default_rng(seed).normal(0, 2, (channels, *shape)).astype(np.float32)
    logits = torch.from_numpy(logits)
    return (logits.sigmoid() if regions else logits.softmax(0)).numpy()


def save_reference(path, shape=SHAPE):
    """A label map whose header says what only nnU-Net's own would."""
    image = nibabel.Nifti1Image(np.zeros(shape[::-1], np.uint8), AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, code=2)
    nibabel.save(image, path)


def save_case(folder, name, probs, reference=True):
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", probabilities=probs)
    if reference:
        save_reference(folder / f"{name}.nii.gz", probs.shape[1:])


def save_dataset(folder, labels=None, **more):
    folder.mkdir(exist_ok=True)
    content = {"labels": labels or LABELS, "file_ending": ".nii.gz", **more}
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "fold_0"
    save_dataset(path)
    for seed, name in enumerate("ab"):
        save_case(path, name, maps(seed))
    return path


def labels_in(path):
    """The labels of a file, (z, y, x)."""
    return np.asarray(nibabel.load(path).dataobj).T


def command(*arguments):
    testing = pytest.importorskip("typer.testing", reason="needs typer")
    from rankseg._commands import app

    return testing.CliRunner().invoke(app, ["nnunet", *map(str, arguments)])


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "acc"},
        {"metric": "dice"},
        {"metric": "iou", "solver": "joint", "correlation": 0.5, "pruning_prob": 0.8},
    ],
    ids=str,
)
def test_labels_are_those_of_all_maps_at_once(folder, tmp_path, options):
    outcome = decide_folders(folder, tmp_path / "out", **options)
    assert outcome == nnunet.Outcome(("a", "b"), (), {})
    for seed, name in enumerate("ab"):
        expected = RankSEG(**options)(maps(seed)[None])[0]
        got = labels_in(tmp_path / "out" / f"{name}.nii.gz")
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)
    assert len(np.unique(expected)) == 3


@pytest.mark.parametrize("options", [{}, {"correlation": 0.5}, {"solver": "exact"}], ids=str)
def test_regions_are_painted_in_their_order(tmp_path, options):
    save_dataset(tmp_path / "in", REGIONS, regions_class_order=[1, 3, 2])
    probs = maps(0, regions=True)
    save_case(tmp_path / "in", "a", probs)
    decide_folders(tmp_path / "in", tmp_path / "out", **options)
    masks = RankSEG(output_mode="multilabel", **options)(probs[None])[0]
    expected = np.zeros(SHAPE, np.uint8)
    for label, mask in zip((1, 3, 2), masks, strict=True):
        expected[mask] = label
    got = labels_in(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_array_equal(got, expected)
    assert set(np.unique(got)) == {0, 1, 2, 3}


def test_geometry_is_that_of_the_label_map_of_nnunet(folder, tmp_path):
    decide_folders(folder, tmp_path / "out")
    own, got = (nibabel.load(path / "a.nii.gz") for path in (folder, tmp_path / "out"))
    assert own.header["qform_code"] == 2
    assert got.header == own.header


def test_dtype_of_many_labels(tmp_path):
    save_dataset(tmp_path / "in", {f"label {i}": i for i in range(256)})
    probs = maps(0, 256, (2, 3, 4))
    save_case(tmp_path / "in", "a", probs)
    decide_folders(tmp_path / "in", tmp_path / "out", metric="acc")
    got = labels_in(tmp_path / "out" / "a.nii.gz")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, probs.argmax(0))


def test_images_of_two_axes(folder, tmp_path):
    probs = maps(5, shape=(1, 9, 8))
    save_case(folder, "a", probs)
    save_reference(folder / "a.nii.gz", (9, 8))
    decide_folders(folder, tmp_path / "out", metric="acc")
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "a.nii.gz"), probs.argmax(0)[0])


def test_ensemble_is_the_decision_on_the_average(tmp_path):
    folders = [tmp_path / f"fold_{fold}" for fold in range(3)]
    for fold, path in enumerate(folders):
        save_dataset(path)
        save_case(path, "a", maps(fold), reference=fold == 1)
    decide_folders(folders, tmp_path / "out", metric="iou")
    total = maps(0) + maps(1) + maps(2)
    total /= 3
    expected = RankSEG("iou")(total[None])[0]
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "a.nii.gz"), expected)


def test_class_maps_come_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(nnunet_folders, "PIECE", 100)
    for name, dtype in (("a", np.float16), ("b", np.float64)):
        np.savez(tmp_path / f"{name}.npz", probabilities=maps(0).astype(dtype))
    given = ClassMaps.open(tmp_path / "a.npz", tmp_path / "b.npz")
    assert (len(given), given.shape) == (3, (3, *SHAPE))
    expected = (maps(0).astype(np.float16).astype(np.float32) + maps(0)) / 2
    got = list(given)
    assert got[0].dtype == np.float32
    np.testing.assert_array_equal(np.stack(got), expected)


def test_one_region_in_fortran_order(tmp_path):
    probs = np.asfortranarray(maps(0, 1, regions=True))
    save_case(tmp_path, "a", probs)
    (got,) = ClassMaps.open(tmp_path / "a.npz", tmp_path / "a.npz")
    np.testing.assert_array_equal(got, probs[0])


def test_goes_on_where_it_was_interrupted(folder, tmp_path):
    out = tmp_path / "out"
    decide_folders(folder, out)
    (out / "a.nii.gz").write_bytes(b"old")
    (out / "b.nii.gz").unlink()
    seen = []

    def track(names):
        seen.extend(names)
        return iter(names)

    outcome = decide_folders(folder, out, track=track)
    assert seen == ["b"]
    assert outcome == nnunet.Outcome(("b",), ("a",), {})
    assert (out / "a.nii.gz").read_bytes() == b"old"
    assert decide_folders(folder, out, overwrite=True).written == ("a", "b")
    assert labels_in(out / "a.nii.gz").shape == SHAPE
    names = {file.name for file in out.iterdir()}
    assert names == {"a.nii.gz", "b.nii.gz", "dataset.json", "rankseg.json"}


def test_label_maps_of_other_options_are_not_mixed(folder, tmp_path):
    decide_folders(folder, tmp_path / "out", metric="dice")
    with pytest.raises(ValueError, match=r"other options, which rankseg\.json lists"):
        decide_folders(folder, tmp_path / "out", metric="iou")
    decide_folders(folder, tmp_path / "out", metric="iou", overwrite=True)
    expected = RankSEG("iou")(maps(0)[None])[0]
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "a.nii.gz"), expected)


def test_label_maps_of_other_inputs_are_not_taken_for_those_of_these(folder, tmp_path):
    out = tmp_path / "out"
    decide_folders(folder, out)
    save_case(folder, "b", maps(9))
    with pytest.raises(ValueError, match=r"that of b was made, .*fold_0/b\.npz changed; take"):
        decide_folders(folder, out)
    assert decide_folders(folder, out, overwrite=True).written == ("a", "b")
    save_dataset(folder, {**LABELS, "tumour": 7})
    with pytest.raises(ValueError, match=r"out/dataset\.json differs from .*; take .*--overwrite"):
        decide_folders(folder, out)
    (out / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"other options, which rankseg\.json lists"):
        decide_folders(folder, out)


@pytest.mark.parametrize("name", ["a.nii.gz", "dataset.json"])
def test_files_that_no_run_wrote_are_neither_taken_nor_replaced(folder, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"foreign")
    with pytest.raises(ValueError, match=r"does not list|dataset\.json differs"):
        decide_folders(folder, out)
    assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [(name, b"foreign")]
    assert decide_folders(folder, out, overwrite=True).written == ("a", "b")
    assert decide_folders(folder, out).skipped == ("a", "b")


def break_cases(folder):
    """Break cases in every way; return what is said of them."""
    (folder / "broken.npz").write_bytes(b"nothing of the kind")
    whole = (folder / "a.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 255
    (folder / "spoilt.npz").write_bytes(spoilt)
    save_reference(folder / "spoilt.nii.gz")
    np.savez(folder / "lacks.npz", softmax=maps(0))
    save_case(folder, "logits", 9 * maps(0))
    save_case(folder, "channels", maps(0, 4))
    save_case(folder, "flat", maps(0)[:, 0], reference=False)
    save_case(folder, "nowhere", maps(0), reference=False)
    save_case(folder, "size", maps(0))
    save_reference(folder / "size.nii.gz", (10, 7, 12))
    return {
        "broken": "cannot be read as probabilities",
        "channels": "must have 3 channels, as dataset.json says, got 4",
        "cut": "cannot be read as probabilities",
        "flat": r"must be floating \(classes, z, y, x\)",
        "lacks": "lacks the array 'probabilities', and holds",
        "logits": r"must lie in \[0, 1\]",
        "nowhere": "neither nowhere.nii.gz nor a nowhere.pkl",
        "size": "must have the size of the probabilities",
        "spoilt": "decompress|CRC",
    }


def test_broken_cases_are_told_and_the_others_are_done(folder, tmp_path):
    reasons = break_cases(folder)
    outcome = decide_folders(folder, tmp_path / "out")
    assert outcome.written == ("a", "b")
    assert sorted(outcome.failures) == sorted(reasons)
    for case, reason in reasons.items():
        assert re.search(reason, outcome.failures[case]), (case, outcome.failures[case])
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert left == {"a.nii.gz", "b.nii.gz", "dataset.json", "rankseg.json"}


def test_a_case_that_is_not_in_every_folder(folder, tmp_path):
    other = tmp_path / "fold_1"
    save_dataset(other)
    save_case(other, "a", maps(0))
    outcome = decide_folders([folder, other], tmp_path / "out")
    assert outcome.written == ("a",)
    assert "there is no b.npz in" in outcome.failures["b"]


def test_values_that_cannot_be_averaged(folder, tmp_path):
    other = tmp_path / "fold_1"
    save_dataset(other)
    for where, value in ((folder, np.inf), (other, -np.inf)):
        save_case(where, "a", np.full_like(maps(0), value))
    outcome = decide_folders([folder, other], tmp_path / "out")
    assert "must be finite" in outcome.failures["a"]


@pytest.mark.parametrize("stuff", ["sitk", "nibabel"])
def test_geometry_of_the_pkl_where_there_is_no_label_map(folder, tmp_path, stuff):
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    flip = np.diag([-1.0, -1.0, 1.0])
    sitk = {
        "spacing": tuple(spacing),
        "origin": tuple(flip @ AFFINE[:3, 3]),
        "direction": tuple((flip @ AFFINE[:3, :3] / spacing).ravel()),
    }
    known = (
        {"sitk_stuff": sitk} if stuff == "sitk" else {"nibabel_stuff": {"original_affine": AFFINE}}
    )
    (folder / "a.nii.gz").unlink()
    (folder / "a.pkl").write_bytes(pickle.dumps({**known, "spacing": [1, 2, 3]}))
    decide_folders(folder, tmp_path / "out", metric="acc")
    image = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, maps(0).argmax(0))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_an_odd_pkl_does_no_harm(folder, tmp_path):
    (folder / "a.pkl").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    (folder / "b.pkl").write_bytes(pickle.dumps([1, 2]))
    assert decide_folders(folder, tmp_path / "out").written == ("a", "b")
    assert not (tmp_path / "sprung").exists()


SITK = {
    "spacing": (1.0, 1.0, 1.0),
    "origin": (0.0, 0.0, 0.0),
    "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
}

ODD_GEOMETRIES = {
    "nan": ({"sitk_stuff": {**SITK, "spacing": (math.nan, 1, 1)}}, "spacing must be 3 finite"),
    "zero": ({"sitk_stuff": {**SITK, "spacing": (1, 0, 1)}}, "spacing must be positive"),
    "flat": ({"sitk_stuff": {**SITK, "direction": (0,) * 9}}, "must not lie in a plane"),
    "huge": ({"sitk_stuff": {**SITK, "origin": (10**400, 0, 0)}}, "cannot be read: .* 1329 bits"),
    "large": ({"sitk_stuff": {**SITK, "spacing": (1e300, 1, 1)}}, "must fit into float32"),
    "few": ({"sitk_stuff": {**SITK, "origin": (1, 2)}}, r"origin must be 3 .*, got \[1\.0, 2\.0\]"),
    "ragged": ({"sitk_stuff": {**SITK, "origin": ((1, 2), 3)}}, "origin must be numbers"),
    "words": ({"sitk_stuff": {**SITK, "direction": "abc"}}, "direction must be numbers"),
    "none": ({"sitk_stuff": None}, "it lacks 'spacing'"),
    "affine": ({"nibabel_stuff": {"original_affine": np.zeros((4, 4))}}, "in a plane"),
    "turned": ({"sitk_stuff": {**SITK, "original_orientation": "LPS"}}, "turned to RAS"),
    "list": ([1, 2], "must hold a dictionary, got list"),
    "trap": (Trap("sprung"), "no plain data"),
}


def test_geometries_that_cannot_be_used_are_told_and_the_others_are_done(tmp_path):
    save_dataset(tmp_path / "in")
    for number, name in enumerate(("a", *ODD_GEOMETRIES, "z")):
        save_case(tmp_path / "in", name, maps(number), reference=False)
        stuff = ODD_GEOMETRIES[name][0] if name in ODD_GEOMETRIES else {"sitk_stuff": SITK}
        (tmp_path / "in" / f"{name}.pkl").write_bytes(pickle.dumps(stuff))
    outcome = decide_folders(tmp_path / "in", tmp_path / "out")
    assert outcome.written == ("a", "z")
    assert sorted(outcome.failures) == sorted(ODD_GEOMETRIES)
    for name, (_, words) in ODD_GEOMETRIES.items():
        assert re.search(f"there is no {name}.nii.gz, and .*{words}", outcome.failures[name])
    save_reference(tmp_path / "in" / "nan.nii.gz")  # then its pkl does no harm
    assert decide_folders(tmp_path / "in", tmp_path / "out").written == ("nan",)


@pytest.mark.parametrize("reorient", [False, True])
def test_geometry_of_the_second_folder(folder, tmp_path, reorient):
    stuff = {"nibabel_stuff": {"original_affine": AFFINE}}
    if reorient:
        stuff["nibabel_stuff"]["reoriented_affine"] = np.eye(4)
    for name, content in ((folder, b"nothing"), (tmp_path / "fold_1", pickle.dumps(stuff))):
        save_dataset(name)
        save_case(name, "a", maps(0), reference=False)
        (name / "a.pkl").write_bytes(content)
    (folder / "a.nii.gz").unlink()
    outcome = decide_folders([folder, tmp_path / "fold_1"], tmp_path / "out", metric="acc")
    assert outcome.written == ("a",)
    image = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    expected = maps(0).argmax(0).T
    np.testing.assert_array_equal(
        np.asarray(image.dataobj), expected[::-1] if reorient else expected
    )


def save_claim(path, shape, compression=zipfile.ZIP_DEFLATED):
    """An npz that claims a shape and holds nothing."""
    header = io.BytesIO()
    content = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("probabilities.npy", header.getvalue())


def test_maps_that_do_not_lie_alike_are_not_averaged(folder, tmp_path):
    other = tmp_path / "fold_1"
    save_dataset(other)
    for name in "ab":
        save_case(other, name, maps(2))
    image = nibabel.load(other / "b.nii.gz")
    nibabel.save(image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])), other / "b.nii.gz")
    outcome = decide_folders([folder, other], tmp_path / "out")
    assert outcome.written == ("a",)
    assert "fold_1 do not lie where those of" in outcome.failures["b"]
    stuff = {"nibabel_stuff": {"original_affine": AFFINE, "reoriented_affine": np.eye(4)}}
    told = [
        (folder / "a.pkl", pickle.dumps({"sitk_stuff": SITK})),
        (folder / "plans.json", b'{"image_reader_writer": "SimpleITKIO"}'),
    ]
    for number, (path, content) in enumerate(told):
        (other / "a.pkl").write_bytes(pickle.dumps(stuff))
        path.write_bytes(content)
        outcome = decide_folders([other, folder], tmp_path / str(number))
        assert "fold_1 have the axes of RAS and those in" in outcome.failures["a"]
        path.unlink()
    assert decide_folders([other, folder], tmp_path / "last").written == ("a",)


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_files_that_are_none_are_told_and_the_others_are_done(tmp_path, labels):
    folder = tmp_path / "in"
    save_dataset(folder, labels, regions_class_order=[1, 3, 2])
    for name in ("a", "z"):
        save_case(folder, name, maps(0, regions=labels is REGIONS))
    os.mkfifo(folder / "fifo.npz")
    (folder / "loop.npz").symlink_to("loop.npz")
    (folder / "endless.npz").symlink_to("/dev/zero")
    (folder / "folder.npz").mkdir()
    for number, shape in enumerate([(3, 30000, 30000, 30000), (3, -1, -1, 9), (3, 10**400, 1, 1)]):
        save_claim(folder / f"claim{number}.npz", shape)
    outcome = decide_folders(folder, tmp_path / "out")
    assert outcome.written == ("a", "z")
    for name in ("fifo", "loop", "endless", "folder"):
        assert "it is no regular file" in outcome.failures[name]
    assert "too small" in outcome.failures["claim0"]
    assert "none of them empty" in outcome.failures["claim1"]
    assert "too small" in outcome.failures["claim2"]
    assert len(outcome.failures) == 7


def test_a_claim_that_a_compressed_file_cannot_hold(tmp_path):
    """Not even if the archive says so, too."""
    save_claim(tmp_path / "a.npz", (3, 500, 500, 500))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    start = content.index(b"PK\x01\x02") + 24
    content[start : start + 4] = b"\xff\xff\xff\xfe"
    (tmp_path / "a.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.getinfo("probabilities.npy").file_size > 4e9
    with pytest.raises(ValueError, match=r"is too small for 'probabilities' of float32 \(3, 500"):
        ClassMaps.open(tmp_path / "a.npz")


def test_a_disk_that_is_full_is_told(folder, tmp_path, monkeypatch):
    """A file that is mapped before there is room for it would end the process."""

    def refuse(descriptor, start, size):
        assert size == maps(0).nbytes
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    outcome = decide_folders(folder, tmp_path / "out")
    assert outcome.failures == dict.fromkeys("ab", "[Errno 28] No space left on device")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "rankseg.json",
    ]


def test_an_interrupt_tells_what_is_written(folder, tmp_path):
    def track(names):
        yield names[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="1 of 2 cases are written") as told:
        decide_folders(folder, tmp_path / "out", track=track)
    assert told.value.outcome.written == ("a",)


def test_what_makes_no_sense(folder, tmp_path):
    for options, error, message in (
        ({"metric": "hd95"}, ValueError, "metric must be one of"),
        ({"output_mode": "multilabel"}, TypeError, r"\['output_mode'\] follow from the labels"),
        ({"unassigned_policy": "void"}, ValueError, "no label for void"),
    ):
        with pytest.raises(error, match=message):
            decide_folders(folder, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="output must be another folder"):
        decide_folders(folder, folder)
    with pytest.raises(ValueError, match="one folder at least"):
        decide_folders([], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        decide_folders(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="--save_probabilities"):
        decide_folders(tmp_path / "empty", tmp_path / "out")
    save_case(tmp_path / "other", "a", maps(0))
    for labels in ({"background": 0, "organ": 1}, {**LABELS, "organ": 2, "tumour": 1}):
        save_dataset(tmp_path / "other", labels)
        with pytest.raises(ValueError, match=r"folders must be of the same labels, got .*'organ'"):
            decide_folders([folder, tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_with_several_archives_are_told(folder, tmp_path):
    with (folder / "a.npz").open("wb") as file:
        for seed in range(2):
            np.savez(file, probabilities=maps(seed))
    outcome = decide_folders(folder, tmp_path / "out")
    assert outcome.written == ("b",)
    assert "more follows the first array" in outcome.failures["a"]


def test_the_order_of_regions_is_that_of_their_channels(tmp_path):
    for name, regions in (("one", REGIONS), ("two", dict(reversed(REGIONS.items())))):
        save_dataset(tmp_path / name, regions, regions_class_order=[1, 2, 3])
        save_case(tmp_path / name, "a", maps(0, regions=True))
    with pytest.raises(ValueError, match="folders must be of the same labels"):
        decide_folders([tmp_path / "one", tmp_path / "two"], tmp_path / "out")


def test_datasets_that_say_nothing_of_labels(folder, tmp_path):
    for content, message in (
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "does not describe labels"),
        (json.dumps({"labels": REGIONS}), "does not describe labels"),
        (json.dumps({"labels": REGIONS, "regions_class_order": [1, 2]}), "each of the 3 regions"),
        (json.dumps({"labels": {"a": 1e999}}), "does not describe labels"),
        (json.dumps({"labels": {"a": 0, "b": 65536}}), r"must lie in \[0, 65535\]"),
        (json.dumps({"labels": {}}), "it names no label"),
        (json.dumps({"labels": {"a": -1, "b": 0}}), r"must lie in \[0, 65535\]"),
        ('{"labels":' + "[" * 100_000, "is not valid JSON: it is nested too deeply"),
    ):
        (folder / "dataset.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            decide_folders(folder, tmp_path / "out")
    (folder / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match="which nnUNetv2_predict writes"):
        decide_folders(folder, tmp_path / "out")


def test_without_nibabel(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'rankseg\[nnunet\]'"):
        decide_folders(folder, tmp_path / "out")


def test_command_passes_its_options(folder, tmp_path):
    named = {
        "metric": "iou",
        "solver": "joint",
        "pruning-prob": 0.3,
        "correlation": 0.4,
        "smooth": 1,
    }
    options = [word for name, value in named.items() for word in (f"--{name}", value)]
    result = command(folder, folder, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "2 written to" in result.output
    decide = RankSEG("iou", solver="joint", pruning_prob=0.3, correlation=0.4, smooth=1)
    for seed, name in enumerate("ab"):
        got = labels_in(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_array_equal(got, decide(maps(seed)[None])[0])
    again = command(folder, folder, "-o", tmp_path / "out", *options)
    assert "0 written to" in again.output
    assert "2 were there" in " ".join(again.output.split())
    forced = command(folder, folder, "-o", tmp_path / "out", *options, "--overwrite")
    assert "2 written to" in forced.output


def test_command_tells_what_failed(folder, tmp_path):
    (folder / "broken [red].npz").write_bytes(b"nothing of the kind")
    result = command(folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "2 written to" in result.output
    assert "Not decided: broken [red]:" in result.output
    wrong = command(folder, "-o", tmp_path / "other", "--metric", "hd95")
    assert wrong.exit_code == 1
    assert "Error: metric must be one of" in wrong.output
    assert isinstance(wrong.exception, SystemExit)


def test_the_example_runs(monkeypatch):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        runpy.run_path(str(REPOSITORY / "examples" / "nnunet_folder.py"), run_name="__main__")
    assert "voxels differ" in shown.getvalue()


# With nnU-Net itself, from here on.

ORGANS = {"background": 0, "organ": 1, "tumour": 2}


@pytest.fixture(scope="module")
def framework():
    """Import nnU-Net, or skip."""
    return frameworks.framework("nnunetv2.inference.predict_from_raw_data")


def plans_of(reader):
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "x",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 1,
                "patch_size": [8, 8, 8],
                "spacing": [1.5, 1.5, 1.0],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "architecture": {"network_class_name": "none", "arch_kwargs": {}},
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
            }
        },
    }


def predictor_of(framework, labels, reader="SimpleITKIO", seed=0, **more):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(plans_of(reader))
    dataset = {
        "labels": labels,
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
        "numTraining": 1,
        **more,
    }
    manager = plans.get_label_manager(dataset)
    torch.manual_seed(seed)
    network = torch.nn.Conv3d(1, manager.num_segmentation_heads, 3, padding=1).eval()
    with torch.no_grad():
        network.weight *= 6
    predictor = framework.nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    configuration = plans.get_configuration("3d_fullres")
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None
    )
    return predictor


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images with empty borders, which nnU-Net crops, and axes that are not those of RAS."""
    path = tmp_path_factory.mktemp("images")
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        values = np.zeros((14, 12, 9), np.float32)
        values[2:12, 1:11, 2:8] = rng.normal(5, 1, (10, 10, 6))
        nibabel.save(nibabel.Nifti1Image(values, AXES), path / f"{name}_0000.nii.gz")
    return path


AXES = np.array([[0, -1.1, 0, 5], [-0.9, 0, 0, 8], [0, 0, 2.0, -3], [0, 0, 0, 1.0]])


def predict(predictor, images, output, save_probabilities=True):
    """Predict in this process, and write the json files that only the parallel way writes."""
    output.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor.predict_from_files_sequential(str(images), str(output), save_probabilities)
    (output / "dataset.json").write_text(json.dumps(predictor.dataset_json))
    (output / "plans.json").write_text(json.dumps(predictor.plans_manager.plans))


def assert_same_files(one, other):
    """The label maps of two folders are alike: voxels, dtype and geometry."""
    names = sorted(file.name for file in one.glob("*.nii.gz"))
    assert names == ["a.nii.gz", "b.nii.gz"]
    for name in names:
        own, got = nibabel.load(one / name), nibabel.load(other / name)
        assert own.get_data_dtype() == got.get_data_dtype()
        np.testing.assert_array_equal(np.asarray(got.dataobj), np.asarray(own.dataobj))
        np.testing.assert_array_equal(got.affine, own.affine)
        assert got.header.get_zooms() == own.header.get_zooms()
        for code in ("qform_code", "sform_code", "xyzt_units"):
            assert got.header[code] == own.header[code]


own_warnings = pytest.mark.filterwarnings("ignore")  # those of nnU-Net


@own_warnings
@pytest.mark.parametrize(
    "reader",
    ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"],
)
@pytest.mark.parametrize("helper", ["label map", "pkl"])
def test_folder_by_accuracy_is_that_of_nnunet(framework, images, tmp_path, reader, helper):
    own = tmp_path / "own"
    predict(predictor_of(framework, ORGANS, reader), images, own)
    assert decided_variety(own) == {0, 1, 2}
    given = tmp_path / "given"
    given.mkdir()
    for file in own.iterdir():
        if not file.name.endswith(".pkl" if helper == "label map" else ".nii.gz"):
            (given / file.name).write_bytes(file.read_bytes())
    outcome = decide_folders(given, tmp_path / "out", metric="acc")
    if helper == "pkl" and reader == "SimpleITKIOWithReorient":
        assert sorted(outcome.failures) == ["a", "b"]
        return
    assert outcome.written == ("a", "b")
    if helper == "label map":
        assert_same_files(own, tmp_path / "out")
        return
    for name in "ab":
        one, other = (nibabel.load(path / f"{name}.nii.gz") for path in (own, tmp_path / "out"))
        np.testing.assert_array_equal(np.asarray(other.dataobj), np.asarray(one.dataobj))
        np.testing.assert_allclose(other.affine, one.affine, atol=1e-5)


def decided_variety(folder):
    return set(np.unique(labels_in(folder / "a.nii.gz")).tolist())


REGION_MODEL = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
}


@own_warnings
def test_regions_by_accuracy_are_those_of_nnunet(framework, images, tmp_path):
    predict(predictor_of(framework, **REGION_MODEL), images, tmp_path / "own")
    assert decided_variety(tmp_path / "own") == {0, 1, 2}
    decide_folders(tmp_path / "own", tmp_path / "out", metric="acc")
    assert_same_files(tmp_path / "own", tmp_path / "out")


@own_warnings
def test_ensemble_by_accuracy_is_that_of_nnunet(framework, images, tmp_path):
    from nnunetv2.ensembling.ensemble import ensemble_folders

    folds = [tmp_path / f"fold_{fold}" for fold in range(3)]
    for seed, fold in enumerate(folds):
        predict(predictor_of(framework, ORGANS, seed=seed), images, fold)
    with contextlib.redirect_stdout(io.StringIO()):
        ensemble_folders(list(map(str, folds)), str(tmp_path / "own"), num_processes=1)
    decide_folders(folds, tmp_path / "out", metric="acc")
    assert_same_files(tmp_path / "own", tmp_path / "out")


@own_warnings
@pytest.mark.parametrize("model", [{"labels": ORGANS}, REGION_MODEL], ids=["labels", "regions"])
@pytest.mark.parametrize("save_probabilities", [False, True])
def test_predictor_by_accuracy_is_that_of_nnunet(
    framework, images, tmp_path, model, save_probabilities
):
    predict(predictor_of(framework, **model), images, tmp_path / "own", save_probabilities)
    predictor = enable(predictor_of(framework, **model), metric="acc")
    predict(predictor, images, tmp_path / "out", save_probabilities)
    assert_same_files(tmp_path / "own", tmp_path / "out")


@own_warnings
@pytest.mark.parametrize("model", [{"labels": ORGANS}, REGION_MODEL], ids=["labels", "regions"])
def test_converters_give_what_those_of_nnunet_give(framework, model):
    own = predictor_of(framework, **model).label_manager
    ours = enable(predictor_of(framework, **model), metric="acc").label_manager
    logits = torch.from_numpy(
        np.random.default_rng(0).normal(0, 1, (own.num_segmentation_heads, 8, 9, 7))
    )
    for given in (logits.float(), logits.half(), logits.float().numpy()):
        expected = own.convert_logits_to_segmentation(given)
        got = ours.convert_logits_to_segmentation(given)
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    probabilities = own.apply_inference_nonlin(logits)
    dice = enable(predictor_of(framework, **model), metric="dice").label_manager
    got = dice.convert_logits_to_segmentation(logits.float())
    mode = "multilabel" if own.has_regions else "multiclass"
    decided = RankSEG("dice", output_mode=mode)(probabilities[None])[0]
    if own.has_regions:
        decided = decided[0].long().masked_fill(decided[1], 2)
    np.testing.assert_array_equal(got, decided)
    assert not np.array_equal(got, own.convert_logits_to_segmentation(logits.float()))
    with pytest.raises(ValueError, match="predicted_probabilities must have"):
        ours.convert_probabilities_to_segmentation(probabilities[:1])


@own_warnings
def test_predictor_decides_in_spawned_workers(framework, images, tmp_path):
    predictor = enable(predictor_of(framework, **REGION_MODEL), metric="dice")
    with contextlib.redirect_stdout(io.StringIO()):
        predictor.predict_from_files(
            str(images), str(tmp_path / "own"), True, True,
            num_processes_preprocessing=1, num_processes_segmentation_export=1,
        )  # fmt: skip
    decide_folders(tmp_path / "own", tmp_path / "out", metric="dice")
    assert_same_files(tmp_path / "own", tmp_path / "out")
    decide_folders(tmp_path / "own", tmp_path / "plain", metric="acc")
    plain, ours = (labels_in(path / "a.nii.gz") for path in (tmp_path / "plain", tmp_path / "out"))
    assert not np.array_equal(plain, ours)


@own_warnings
def test_predictors_that_cannot_be_enabled(framework):
    with pytest.raises(ValueError, match="initialised, got nnUNetPredictor"):
        enable(framework.nnUNetPredictor(device=torch.device("cpu")))
    with pytest.raises(ValueError, match="initialised, got int"):
        enable(3)
    predictor = predictor_of(framework, ORGANS)
    with pytest.raises(ValueError, match="metric must be one of"):
        enable(predictor, metric="hd95")
    assert type(predictor.plans_manager).__name__ == "PlansManager"


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.parametrize(
    ("case", "ignored"), [*((case, None) for case in CASES), ("absent classes", 9)]
)
def test_the_average_is_that_of_its_evaluation(tmp_path, case, ignored):
    theirs = frameworks.framework("nnunetv2.evaluation.evaluate_predictions")
    reader = frameworks.framework("nnunetv2.imageio.nibabel_reader_writer").NibabelIO()
    prediction, label, classes = CASES[case]
    if ignored is not None:
        label = np.where(np.arange(label.shape[1]) % 7 == 0, ignored, label)
    for name, maps_ in (("truth", label), ("predicted", prediction)):
        (tmp_path / name).mkdir()
        for number, one in enumerate(maps_):
            image = nibabel.Nifti1Image(one.astype(np.uint8)[None, None], np.eye(4))
            nibabel.save(image, tmp_path / name / f"{number}.nii.gz")
    told = theirs.compute_metrics_on_folder(
        str(tmp_path / "truth"),
        str(tmp_path / "predicted"),
        None,
        reader,
        ".nii.gz",
        list(range(1, classes)),
        ignored,
        1,
    )
    counts = count(prediction, label, num_classes=classes, ignore_index=ignored)
    for metric, key in (("dice", "Dice"), ("iou", "IoU")):
        found = aggregate(counts, metric, "nnunet")
        by_class = [told["mean"][index][key] for index in range(1, classes)]
        np.testing.assert_allclose(found.by_class[1:], by_class, atol=1e-9)
        assert found.mean == pytest.approx(told["foreground_mean"][key], abs=1e-9, nan_ok=True)
