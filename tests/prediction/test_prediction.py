"""From files of maps or images to files of labels, by the library and by the command."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rankseg import RankSEG, prediction
from rankseg._commands import app
from rankseg._files import whole as _files
from rankseg._formats import read_image, read_labels
from rankseg.dataset import DatasetRule
from rankseg.integration.transformers import postprocess
from rankseg.prediction import Outcome, predict_files

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
image_module = pytest.importorskip("PIL.Image", reason="needs pillow")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")

AFFINE = np.diag([0.5, 2.0, 3.0, 1.0])


def run(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def maps(seed, shape=(12, 15), classes=3):
    logits = np.random.default_rng(seed).normal(0, 2, (classes, *shape)).astype(np.float32)
    return torch.from_numpy(logits).softmax(0).numpy()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "maps"
    path.mkdir()
    for seed, name in enumerate("abcd"):
        np.savez(path / f"{name}.npz", probs=maps(seed), label=np.zeros((12, 15)))
    return path


def names_in(out):
    """The outputs, without the record of the options."""
    names = {file.name for file in out.iterdir()}
    assert "rankseg.json" in names
    return names - {"rankseg.json"}


def files_in(path):
    """The files of an output and when they were written."""
    return {file: file.stat().st_mtime_ns for file in (path, *path.rglob("*"))}


def labels_of(seed, **options):
    return RankSEG(**options)(maps(seed)[None])[0]


def test_labels_are_those_of_rankseg(folder, tmp_path):
    outcome = predict_files(folder, tmp_path / "out", metric="iou", pruning_prob=0.3)
    assert outcome == Outcome(tuple("abcd"), (), {})
    for seed, name in enumerate("abcd"):
        expected = labels_of(seed, metric="iou", pruning_prob=0.3)
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / f"{name}.png"), expected)
    assert (expected != labels_of(3, metric="iou", correlation=0.0)).any()


def save_as(path, probs):
    match "".join(path.suffixes):
        case ".npy":
            np.save(path, probs)
        case ".npz":
            np.savez(path, probabilities=probs)
        case ".pt":
            torch.save(torch.from_numpy(probs), path)
        case ".safetensors":
            safetensors.save_file({"probs": torch.from_numpy(probs)}, path)
        case ".nii" | ".nii.gz":
            nibabel.save(nibabel.Nifti1Image(np.moveaxis(probs, 0, -1), AFFINE), path)
        case ".tif":
            tifffile.imwrite(path, probs, photometric="minisblack")
        case ".zarr":
            zarr.save_array(path, probs)


ENDINGS = (".npy", ".npz", ".pt", ".safetensors", ".nii", ".nii.gz", ".tif", ".zarr")


@pytest.mark.filterwarnings("ignore:.* is no NIfTI")
@pytest.mark.parametrize("suffix", [".npy", ".nii.gz", ".tif", ".zarr"])
def test_every_format_in_and_out(tmp_path, suffix):
    probs = maps(0, (4, 6, 5))
    for number, kind in enumerate(ENDINGS):
        save_as(tmp_path / f"case{number}{kind}", probs)
    outcome = predict_files(tmp_path, tmp_path / "out", suffix=suffix)
    assert len(outcome.written) == len(ENDINGS)
    expected = RankSEG()(probs[None])[0]
    for name in outcome.written:
        labels = read_labels(tmp_path / "out" / f"{name}{suffix}")
        np.testing.assert_array_equal(labels, expected)
    if suffix == ".nii.gz":
        affines = [nibabel.load(tmp_path / "out" / f"case{n}.nii.gz").affine for n in range(8)]
        for number, affine in enumerate(affines):
            np.testing.assert_array_equal(affine, AFFINE if number in (4, 5) else np.eye(4))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_axes_of_arrays_that_become_nifti_are_told(tmp_path, suffix):
    for name in ("a.npz", "b.nii"):
        save_as(tmp_path / name, maps(0, (4, 6, 5)))
    with pytest.warns(
        UserWarning, match=r"a\.npz is no NIfTI, mha or nrrd: .* for x, y, z; .* rankseg nnunet"
    ):
        predict_files(tmp_path / "a.npz", tmp_path / "out", suffix=suffix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_files(tmp_path / "a.npz", tmp_path / "other", suffix=".npy")
        predict_files(tmp_path / "b.nii", tmp_path / "other of b", suffix=suffix)


def test_logits_and_key(tmp_path):
    logits = np.random.default_rng(0).normal(0, 3, (3, 12, 15)).astype(np.float32)
    np.savez(tmp_path / "a.npz", other=logits, probs=maps(1))
    predict_files(tmp_path / "a.npz", tmp_path / "out", key="other", from_logits="softmax")
    expected = RankSEG(from_logits="softmax")(logits[None])[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.png"), expected)


def test_logits_are_read_where_logits_are_meant(tmp_path):
    logits = 9 * torch.randn(3, 12, 15, generator=torch.manual_seed(0))
    np.savez(tmp_path / "a.npz", probs=logits.flip(0).softmax(0), logits=logits)
    predict_files(tmp_path / "a.npz", tmp_path / "out", from_logits="softmax")
    expected = RankSEG(from_logits="softmax")(logits[None])[0]
    assert torch.equal(read_labels(tmp_path / "out" / "a.png").long(), expected)


@pytest.mark.filterwarnings("ignore:.* is no NIfTI")
def test_masks(tmp_path):
    np.save(tmp_path / "a.npy", maps(0))
    np.save(tmp_path / "one.npy", maps(0)[:1])
    outcome = predict_files(tmp_path, tmp_path / "png", output_mode="multilabel")
    assert outcome.written == ("one",)
    assert "got 3 masks: write another format" in outcome.failures["a"]
    decide = RankSEG(output_mode="multilabel")
    expected = decide(maps(0)[None])[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "png" / "one.png"), expected[0])
    for suffix in (".npy", ".tif", ".zarr", ".nii.gz"):
        out = tmp_path / suffix.strip(".")
        predict_files(tmp_path, out, suffix=suffix, output_mode="MultiLabel")
        got = read_labels(out / f"a{suffix}").numpy()
        if suffix == ".nii.gz":
            assert got.shape == (12, 15, 1, 3)
            got = np.moveaxis(got[:, :, 0], -1, 0)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("suffix", [".png", ".zarr"])
def test_goes_on_where_it_was_interrupted(folder, tmp_path, suffix):
    out = tmp_path / "out"
    predict_files(folder, out, suffix=suffix, metric="acc")
    (out / f"b{suffix}").rename(tmp_path / "away")
    old = files_in(out / f"a{suffix}")
    seen = []

    def track(names):
        seen.extend(names)
        return iter(names)

    outcome = predict_files(folder, out, suffix=suffix, metric="acc", track=track)
    assert seen == ["b"]
    assert outcome == Outcome(("b",), ("a", "c", "d"), {})
    assert files_in(out / f"a{suffix}") == old
    with pytest.raises(ValueError, match=r"other options, which rankseg\.json lists"):
        predict_files(folder, out, suffix=suffix)
    assert predict_files(folder, out, suffix=suffix, overwrite=True).written == tuple("abcd")
    np.testing.assert_array_equal(read_labels(out / f"a{suffix}"), labels_of(0))
    assert (labels_of(0) != labels_of(0, metric="acc")).any()
    assert names_in(out) == {f"{name}{suffix}" for name in "abcd"}


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_writer_that_fails_leaves_nothing(folder, tmp_path, suffix, monkeypatch):
    def full(descriptor):
        assert os.fstat(descriptor).st_size > 0
        raise OSError("disk full")

    def half_folder(path, array):
        path.mkdir()
        (path / "zarr.json").write_bytes(b"{")
        raise OSError("disk full")

    predict_files(folder / "a.npz", tmp_path / "out", suffix=suffix)  # also writes the record
    (tmp_path / "out" / f"a{suffix}").rename(tmp_path / "away")
    monkeypatch.setattr(prediction.Record, "keep", lambda *_: None)
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(zarr, "save_array", half_folder)
    outcome = predict_files(folder, tmp_path / "out", suffix=suffix)
    assert outcome.failures == dict.fromkeys("abcd", "disk full")
    assert not names_in(tmp_path / "out")
    monkeypatch.undo()
    assert predict_files(folder, tmp_path / "out", suffix=suffix).written == tuple("abcd")


def test_an_interruption_ends_the_run_and_leaves_whole_files(folder, tmp_path):
    def track(names):
        yield names[0]
        raise KeyboardInterrupt

    for workers in (1, 2):
        out = tmp_path / str(workers)
        with pytest.raises(KeyboardInterrupt, match=r"of 4 cases are written; .* to go on") as told:
            predict_files(folder, out, workers=workers, track=track)
        names = names_in(out)
        assert "a.png" in names
        assert {f"{name}.png" for name in told.value.outcome.written} == names
        for name in names:
            np.testing.assert_array_equal(read_labels(out / name), labels_of("abcd".index(name[0])))


def test_an_interrupt_within_a_case(folder, tmp_path, monkeypatch):
    read = prediction.read_maps

    def interrupt(path, *rest):
        if path.stem == "c":
            raise KeyboardInterrupt
        return read(path, *rest)

    (folder / "b.npz").write_bytes(b"")
    predict_files(folder / "a.npz", tmp_path / "out")
    monkeypatch.setattr(prediction, "read_maps", interrupt)
    with pytest.raises(KeyboardInterrupt, match="0 of 4 cases are written, 1 were there") as told:
        predict_files(folder, tmp_path / "out")
    assert told.value.outcome.skipped == ("a",)
    assert list(told.value.outcome.failures) == ["b"]
    with pytest.raises(KeyboardInterrupt, match=r"1 of 4 cases are written; .* to start anew"):
        predict_files(folder, tmp_path / "out", overwrite=True)


def test_label_maps_of_a_run_that_did_not_overwrite_all_are_not_taken_for_new(folder, tmp_path):
    out = tmp_path / "out"
    predict_files(folder, out, metric="dice")
    whole = (folder / "b.npz").read_bytes()
    (folder / "b.npz").write_bytes(b"")
    assert list(predict_files(folder, out, metric="acc", overwrite=True).failures) == ["b"]
    np.testing.assert_array_equal(read_labels(out / "b.png"), labels_of(1))
    (folder / "b.npz").write_bytes(whole)
    for metric in ("dice", "acc"):
        with pytest.raises(ValueError, match=r"other options|of two kinds, as rankseg\.json says"):
            predict_files(folder, out, metric=metric)
    assert predict_files(folder, out, metric="acc", overwrite=True).written == tuple("abcd")
    assert predict_files(folder, out, metric="acc").skipped == tuple("abcd")


def test_label_maps_of_other_inputs_are_not_taken_for_those_of_these(folder, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    predict_files(folder, out)
    shutil.copytree(folder, other)
    with pytest.raises(ValueError, match=r"that of a is made from .*maps/a\.npz; take another"):
        predict_files(other, out)
    np.savez(folder / "c.npz", probs=maps(9))
    with pytest.raises(ValueError, match=r"since that of c was made, .*maps/c\.npz changed; take"):
        predict_files(folder, out)
    assert predict_files(folder / "a.npz", out).skipped == ("a",)
    assert predict_files(folder, out, overwrite=True).written == tuple("abcd")
    np.testing.assert_array_equal(read_labels(out / "c.png"), labels_of(9))
    assert predict_files(folder, out).skipped == tuple("abcd")


def test_label_maps_in_another_format_do_not_hide_that_an_input_changed(folder, tmp_path):
    out = tmp_path / "out"
    predict_files(folder, out)
    np.savez(folder / "a.npz", probs=maps(9))
    with pytest.raises(ValueError, match=r"which rankseg\.json lists; take .*\(--overwrite"):
        predict_files(folder, out, suffix=".npy")
    predict_files(folder, out, suffix=".npy", overwrite=True)
    with pytest.raises(ValueError, match=r"which rankseg\.json lists"):  # a.png is out of date
        predict_files(folder, out)
    assert predict_files(folder, out, suffix=".npy").skipped == tuple("abcd")


@pytest.mark.parametrize("lost", [False, True])
def test_label_maps_that_no_run_wrote_are_not_taken_for_done(folder, tmp_path, lost):
    out = tmp_path / "out"
    if lost:
        predict_files(folder, out)
        (out / "rankseg.json").unlink()
    else:
        predict_files(folder / "b.npz", out)
        (out / "a.png").write_bytes(b"foreign")
    before = files_in(out)
    told = run(folder, "-o", out)
    assert told.exit_code == 1
    words = "that rankseg.json does not list, that of a among them; take another folder, or "
    assert f"{words}overwrite them (--overwrite" in told.output
    assert {file: time for file, time in files_in(out).items() if file != out} == {
        file: time for file, time in before.items() if file != out
    }
    assert predict_files(folder, out, overwrite=True).written == tuple("abcd")
    assert predict_files(folder, out).skipped == tuple("abcd")


def test_a_zarr_that_changed_is_another_input(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", maps(0))
    predict_files(tmp_path / "a.zarr", tmp_path / "out")
    assert predict_files(tmp_path / "a.zarr", tmp_path / "out").skipped == ("a",)
    shutil.rmtree(tmp_path / "a.zarr")
    zarr.save_array(tmp_path / "a.zarr", maps(1))
    with pytest.raises(ValueError, match=r"a\.zarr changed"):
        predict_files(tmp_path / "a.zarr", tmp_path / "out")


def test_a_case_that_failed_is_decided_once_it_is_mended(folder, tmp_path):
    whole = (folder / "b.npz").read_bytes()
    (folder / "b.npz").write_bytes(b"")
    assert list(predict_files(folder, tmp_path / "out").failures) == ["b"]
    (folder / "b.npz").write_bytes(whole)
    assert predict_files(folder, tmp_path / "out") == Outcome(("b",), ("a", "c", "d"), {})


def test_overwriting_some_label_maps_leaves_the_others_of_another_kind(folder, tmp_path):
    predict_files(folder, tmp_path / "out", metric="dice")
    predict_files(folder / "a.npz", tmp_path / "out", metric="acc", overwrite=True)
    assert predict_files(folder / "a.npz", tmp_path / "out", metric="acc").skipped == ("a",)
    with pytest.raises(ValueError, match=r"of two kinds, as rankseg\.json says: .* all, b among"):
        predict_files(folder, tmp_path / "out", metric="acc")


def test_runs_with_different_inputs_at_a_time_do_not_share_a_folder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    refused = []

    def track(names):
        with pytest.raises(ValueError, match="made from other inputs") as told:
            predict_files(tmp_path / "other", tmp_path / "out")
        refused.append(told)
        return names

    assert predict_files(folder, tmp_path / "out", track=track).written == tuple("abcd")
    assert len(refused) == 1


@pytest.mark.parametrize("content", [{"inputs": 3}, {"inputs": {"a": [3]}}, {"inputs": {"a": 3}}])
def test_a_record_of_no_inputs(folder, tmp_path, content):
    predict_files(folder, tmp_path / "out")
    path = tmp_path / "out" / "rankseg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    with pytest.raises(ValueError, match=r"'inputs' in .*rankseg\.json must list the files"):
        predict_files(folder, tmp_path / "out")


def test_runs_with_different_options_at_a_time_do_not_share_a_folder(folder, tmp_path):
    meet = threading.Barrier(4, timeout=60)

    def run_one(metric):
        meet.wait()
        try:
            return predict_files(folder, tmp_path / "out", metric=metric)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run_one, ["dice", "iou", "acc", "dice"]))
    refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(refused) in (2, 3)
    assert all("other options" in reason for reason in refused)


def test_whatever_goes_wrong_in_one_case_the_others_are_done(folder, tmp_path, monkeypatch):
    errors = {"a": MemoryError(), "b": RecursionError("too\n deep"), "c": KeyError("x")}
    read = prediction.read_maps

    def fail(path, *rest):
        if path.stem in errors:
            raise errors[path.stem]
        return read(path, *rest)

    monkeypatch.setattr(prediction, "read_maps", fail)
    for workers in (1, 2):
        outcome = predict_files(folder, tmp_path / str(workers), workers=workers)
        assert outcome.written == ("d",)
        assert outcome.failures == {
            "a": "not enough memory",
            "b": "RecursionError: too deep",
            "c": "KeyError: 'x'",
        }


@pytest.mark.filterwarnings("ignore:.* is no NIfTI")
@pytest.mark.parametrize("suffix", [".png", ".nii.gz", ".zarr"])
def test_names_and_places_that_cannot_be_written(tmp_path, suffix):
    maps_in, out = tmp_path / "maps", tmp_path / "out"
    maps_in.mkdir()
    longest = "l" * (255 - len(".npy"))
    fits = "l" * (255 - len(suffix)) if len(suffix) > len(".npy") else longest
    hidden = os.fsdecode(b"\xff")
    for name in ("a", "folder", "file", "link", fits, hidden, longest):
        np.save(maps_in / f"{name}.npy", maps(0))
    out.mkdir()
    (out / f"folder{suffix}").mkdir()
    (out / f"file{suffix}").write_bytes(b"old")
    (out / "elsewhere").write_bytes(b"stays")
    (out / f"link{suffix}").symlink_to("elsewhere")
    with pytest.raises(ValueError, match=r"that rankseg\.json does not list, that of f"):
        predict_files(maps_in, out, suffix=suffix)
    outcome = predict_files(maps_in, out, suffix=suffix, overwrite=True)
    names = {"a", fits, hidden, "file", "link"}
    if suffix == ".zarr":
        names.add("folder")
    else:
        assert "Is a directory" in outcome.failures["folder"]
    assert set(outcome.written) == names
    assert set(outcome.failures) == {"a", *maps_in_names(maps_in)} - names
    for name in names:
        np.testing.assert_array_equal(read_labels(out / f"{name}{suffix}"), labels_of(0))
    assert (out / "elsewhere").read_bytes() == b"stays"
    assert not (out / f"link{suffix}").is_symlink()


def maps_in_names(folder):
    return {file.name.removesuffix(".npy") for file in folder.iterdir()}


def test_what_a_killed_run_left_is_removed_by_the_next(folder, tmp_path):
    out = tmp_path / "out"
    predict_files(folder, out)
    left = out / f".rankseg-{_files._machine()}-0123456789abcdef.part"
    left.write_bytes(b"half")
    assert predict_files(folder, out).skipped == tuple("abcd")
    assert names_in(out) == {f"{name}.png" for name in "abcd"}


def test_output_that_is_no_folder(folder, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="output must be a folder, got the file"):
        predict_files(folder, tmp_path / "out")


def test_several_workers_give_the_same_files_in_the_same_order(folder, tmp_path, monkeypatch):
    (folder / "bb.npz").write_bytes(b"")
    both = threading.Barrier(2, timeout=20)
    read = prediction.read_maps

    def meet(path, *rest):
        if path.stem in "ab":
            both.wait()  # fails unless two are read at a time
        return read(path, *rest)

    serial = predict_files(folder, tmp_path / "serial")
    monkeypatch.setattr(prediction, "read_maps", meet)
    parallel = predict_files(folder, tmp_path / "parallel", workers=2)
    assert serial == parallel
    assert list(parallel.failures) == ["bb"]
    for name in "abcd":
        first, second = ((tmp_path / kind / f"{name}.png") for kind in ("serial", "parallel"))
        assert first.read_bytes() == second.read_bytes()


def test_broken_inputs_are_told_and_the_others_are_done(folder, tmp_path):
    (folder / "broken.npz").write_bytes(b"nothing of the kind")
    np.savez(folder / "keys.npz", x=maps(0), y=maps(0))
    np.save(folder / "logits.npy", 9 * maps(0))
    np.save(folder / "volume.npy", maps(0, (3, 4, 5)))
    result = run(folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "4 written to" in result.stdout
    told = dict(re.findall(r"^Not decided: (\w+): (.*)$", result.stderr, re.M))
    assert list(told) == ["broken", "keys", "logits", "volume"]
    assert told["broken"].startswith(
        f"{folder / 'broken.npz'} cannot be read as .npz: it is damaged"
    )
    assert "the arrays are ['x', 'y']; say by key which is meant" in told["keys"]
    assert "[0, 1]" in told["logits"]
    assert "write another format" in told["volume"]
    assert names_in(tmp_path / "out") == {f"{name}.png" for name in "abcd"}


@pytest.mark.filterwarnings("ignore:not read in:UserWarning")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suffix": ".jpg"}, r"suffix must be one of \['\.png'"),
        ({"workers": 0}, "workers must be from 1 to 1024, got 0"),
        ({"workers": 10**9}, "workers must be from 1 to 1024, got 1000000000"),
        ({"metric": "best"}, "metric must be one of"),
        ({"mean": [0.5]}, "for a model, which must be given"),
        ({"model": "none.pt2"}, "there is no file none.pt2"),
    ],
)
def test_options_are_checked_before_the_work(folder, tmp_path, options, words):
    if "model" in options:
        image_module.new("RGB", (4, 4)).save(folder / "a.png")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        predict_files(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_output_is_written_twice_and_no_input_is_overwritten(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "a.npy", maps(0))
    with pytest.raises(ValueError, match=r"must differ in name, since .*a\.npz and .*a\.npy"):
        predict_files([folder, other], tmp_path / "out")
    before = (other / "a.npy").read_bytes()
    with pytest.raises(ValueError, match="must not overwrite the input"):
        predict_files(other, other, suffix=".npy", overwrite=True)
    assert (other / "a.npy").read_bytes() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("presence", ["argmax", "all"])
def test_the_rule_of_presence_reaches_the_library(folder, tmp_path, presence):
    result = run(folder, "-o", tmp_path / "out", "--solver", "RMA", "--presence", presence)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = labels_of(0, solver="RMA", presence=presence)
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.png"), expected)
    result = run(folder, "-o", tmp_path / "o", "--presence", presence, "--pruning-prob", "0.4")
    assert result.exit_code == 1
    assert "pruning_prob goes with presence='peak', got 0.4" in result.stderr


def test_a_rule_decides_every_file(folder, tmp_path):
    rule = DatasetRule("iou", [0.8, 1.0, 1.2], [0.3, 0.5, 0.4])
    rule.save(tmp_path / "rule.json")
    options = ["--metric", "iou", "--rule", tmp_path / "rule.json"]
    result = run(folder, "-o", tmp_path / "out", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    expected = labels_of(1, metric="iou", rule=rule)
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "b.png"), expected)
    assert "4 were there" in " ".join(run(folder, "-o", tmp_path / "out", *options).stdout.split())
    DatasetRule("iou", [1.0, 1.0, 1.2], [0.3, 0.5, 0.4]).save(tmp_path / "rule.json")
    other = run(folder, "-o", tmp_path / "out", *options)
    assert other.exit_code == 1, "labels of another rule are there"
    result = run(folder, "-o", tmp_path / "o", "--rule", tmp_path / "rule.json")
    assert result.exit_code == 1
    assert "pass metric='iou'" in result.stderr


def test_options_of_the_command_reach_the_library(folder, tmp_path):
    arguments = "--format tif --metric iou --solver joint --smooth 1 --pruning-prob 0.2"
    arguments += " --correlation 0.5 --workers 2 --key probs"
    result = run(folder, "-o", tmp_path / "out", *arguments.split())
    assert (result.exit_code, result.stderr) == (0, "")
    options = {"metric": "iou", "solver": "joint", "smooth": 1.0, "pruning_prob": 0.2}
    for seed, name in enumerate("abcd"):
        expected = labels_of(seed, **options, correlation=0.5)
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / f"{name}.tif"), expected)
    again = run(folder, "-o", tmp_path / "out", *arguments.split())
    assert "0 written to" in again.stdout
    assert "4 were there" in " ".join(again.stdout.split())
    result = run(folder, "-o", tmp_path / "out", "--format", "bmp")
    assert result.exit_code == 1
    assert "suffix must be one of" in result.stderr


# Networks


class Network(torch.nn.Module):
    """Scores at half the size, as many networks give them."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        torch.nn.init.normal_(self.layer.weight, std=2)
        self.kind = kind

    def forward(self, image):
        scores = self.layer(image)
        if self.kind == "probs":
            return scores.softmax(1)
        return scores if self.kind == "tensor" else {self.kind: scores, "aux": scores.sum()}


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for seed, (name, size) in enumerate({"a.png": (20, 26), "b.jpg": (33, 18)}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        image_module.fromarray(pixels).save(path / name)
    return path


def save_network(path, network):
    """Save as TorchScript or as an exported program, for images of any size."""
    example = torch.rand(1, 3, 24, 28)
    if path.suffix == ".pt2":
        sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=(sizes,)), path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, example, strict=False), path)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.*")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("n.pt", "tensor"), ("n.pt", "out"), ("n.pt2", "logits"), ("n.pt2", "probs")],
)
def test_networks_in_files(images, tmp_path, name, kind):
    network = Network(kind)
    save_network(tmp_path / name, network)
    mean, std = [0.5, 0.4, 0.3], [0.2]
    options = {} if kind == "probs" else {"from_logits": "softmax"}
    arguments = [
        f"--{key}={value}" for key, values in (("mean", mean), ("std", std)) for value in values
    ]
    arguments += [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    result = run(images, "-o", tmp_path / "out", "--model", tmp_path / name, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    for file in images.iterdir():
        image = read_image(file).maps
        given = (image - torch.tensor(mean)[:, None, None]) / std[0]
        with torch.no_grad():
            scores = network(given[None])
        scores = scores if isinstance(scores, torch.Tensor) else scores[kind]
        scores = torch.nn.functional.interpolate(scores, image.shape[1:], mode="bilinear")
        expected = RankSEG(**options)(scores)[0]
        got = read_labels(tmp_path / "out" / f"{file.stem}.png")
        np.testing.assert_array_equal(got, expected)
        assert len(got.unique()) > 2


def test_logits_with_a_batch_of_one_are_of_several_classes(tmp_path):
    """Of whatever size: softmax over one class is none."""
    logits = np.random.default_rng(0).normal(size=(1, 20, 8, 8)).astype(np.float32)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", logits)
    outcome = predict_files(tmp_path / "maps", tmp_path / "out", from_logits="softmax")
    assert (outcome.written, outcome.failures) == (("a",), {})
    expected = RankSEG(from_logits="softmax")(logits)[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.png"), expected)


def test_networks_that_do_not_fit(images, tmp_path):
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot be loaded as a file of torch\.export\.save"):
        predict_files(images, tmp_path / "out", model=tmp_path / "broken.pt2")
    save_network(tmp_path / "n.pt", Network("other"))
    for options, words in (
        ({"std": [0.0]}, "std must be positive"),
        ({"mean": [123.7, 116.3, 103.5]}, "must be those of images in .0, 1.*divide them by 255"),
        ({"std": [58.4]}, "divide them by 255"),
        ({"mean": [1, 2]}, "mean must be one number or three"),
        ({"key": "x"}, "leave it out with a model"),
    ):
        with pytest.raises(ValueError, match=words):
            predict_files(images, tmp_path / "out", model=tmp_path / "n.pt", **options)
    outcome = predict_files(images, tmp_path / "out", model=tmp_path / "n.pt")
    assert "must return one of ('out', 'logits'), got ['other', 'aux']" in outcome.failures["a"]


class ChannelsLast(Network):
    def forward(self, image):
        return super().forward(image).movedim(1, -1)


def test_a_network_that_returns_channels_last_is_refused(images, tmp_path):
    save_network(tmp_path / "n.pt", ChannelsLast("tensor"))
    outcome = predict_files(images, tmp_path / "out", model=tmp_path / "n.pt")
    assert set(outcome.failures) == {"a", "b"}
    assert "what the model returns must be" in outcome.failures["a"]
    assert "make it the second, by movedim(-1, 1)" in outcome.failures["a"]


class WithDropout(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.drop = torch.nn.Dropout2d()
        self.nothing = torch.nn.Dropout(0.0)
        self.of_image = torch.nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, image):
        return self.of_image(self.nothing(self.drop(self.norm(self.network(image)))))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.*", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["n.pt", "n.pt2"])
def test_a_network_saved_in_training_mode_warns(images, tmp_path, name):
    options = {"model": tmp_path / name, "from_logits": "softmax"}
    save_network(tmp_path / name, WithDropout().eval())
    predict_files(images, tmp_path / "sound", **options)
    save_network(tmp_path / name, WithDropout().train())
    both = r"aten::batch_norm', 'aten::feature_dropout'\] give"
    with pytest.warns(UserWarning, match=rf"{name} was saved in training mode, .*{both}.*eval\(\)"):
        predict_files(images, tmp_path / "out", **options)


class WithStochasticDepth(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3, padding=1)

    def forward(self, image):
        features = super().forward(image)
        if self.training:  # as the DropPath of timm and Transformers
            features = features * features.new_empty((image.shape[0], 1, 1, 1)).bernoulli_(0.5)
        return features


def with_instance_norm():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.InstanceNorm2d(4, track_running_stats=True)
    )


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.*", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Trace had nondeterministic nodes", "ignore:Output nr")
@pytest.mark.parametrize("name", ["n.pt", "n.pt2"])
@pytest.mark.parametrize("network", [WithStochasticDepth, with_instance_norm])
def test_layers_that_are_skipped_or_normalised_in_training_warn(images, tmp_path, name, network):
    options = {"model": tmp_path / name, "from_logits": "softmax"}
    save_network(tmp_path / name, network().eval())
    predict_files(images, tmp_path / "sound", **options)
    save_network(tmp_path / name, network().train())
    with pytest.warns(UserWarning, match=f"{name} was saved in training mode"):
        predict_files(images, tmp_path / "out", **options)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.*")
def test_a_scripted_network_is_brought_to_evaluation(images, tmp_path):
    torch.jit.save(torch.jit.script(WithDropout().train()), tmp_path / "n.pt")
    predict_files(images, tmp_path / "out", model=tmp_path / "n.pt", from_logits="softmax")


def test_a_network_that_changed_is_another(images, tmp_path):
    model, out = tmp_path / "n.pt", tmp_path / "out"
    save_network(model, Network("tensor"))
    predict_files(images, out, model=model)
    assert not predict_files(images, out, model=model).written
    os.utime(model, ns=(0, 0))
    with pytest.raises(ValueError, match=r"other options, which rankseg\.json lists"):
        predict_files(images, out, model=model)


@pytest.mark.parametrize("name", ["m.pth", "m.ckpt", "m.safetensors", "m"])
@pytest.mark.parametrize("options", [{}, {"from_logits": "softmax"}, {"mean": [0.5]}])
def test_weights_alone_are_no_network(images, tmp_path, name, options):
    torch.save(Network("tensor").state_dict(), tmp_path / name)
    with pytest.raises(ValueError, match=rf"\(\.pt2\), or .*{name}: weights alone do not say"):
        predict_files(images, tmp_path / "out", model=tmp_path / name, **options)


class OneSize(torch.nn.Module):
    def forward(self, image):
        return image.view(1, 3, 20, 26)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch.*")
def test_a_network_that_fails_is_told_in_one_line(images, tmp_path):
    torch.jit.save(torch.jit.script(OneSize()), tmp_path / "n.pt")
    torch.export.save(
        torch.export.export(OneSize(), (torch.rand(1, 3, 20, 26),)), tmp_path / "n.pt2"
    )
    for name, words in (
        ("n.pt", r"RuntimeError: shape .* is invalid for input of size \d+"),
        ("n.pt2", r"Guard failed: .*; it was exported for images of other sizes: .* dynamic ones"),
    ):
        out = tmp_path / f"out of {name}"
        result = run(images, "-o", out, "--model", tmp_path / name, "--from-logits", "softmax")
        assert result.exit_code == 1
        assert re.fullmatch(rf"Not decided: b: the model failed: {words}\n", result.stderr)
        assert names_in(out) == {"a.png"}


@pytest.mark.parametrize("name", ["n.pt", "n.pt2"])
@pytest.mark.parametrize("content", [b"", b"nothing", "other", "tensor"])
def test_a_file_of_no_network_is_told_in_one_line(images, tmp_path, name, content, monkeypatch):
    if content == "other":
        torch.save(torch.ones(2), tmp_path / name)
    elif content == "tensor":
        other = tmp_path / ("other.pt2" if name == "n.pt" else "other.pt")
        save_network(other, Network("tensor"))
        other.rename(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    logged = []
    handler = logging.Handler()
    handler.emit = logged.append
    monkeypatch.setattr(logging.getLogger("torch.export"), "handlers", [handler])
    with pytest.raises(ValueError, match=r"cannot be loaded as a file of torch\.\w+\.save") as told:
        predict_files(images, tmp_path / "out", model=tmp_path / name)
    assert re.fullmatch(r".*it is damaged, or of another kind \([^\n]{1,120}\)", str(told.value))
    assert logged == []


def segformer(transformers):
    config = transformers.SegformerConfig(
        num_labels=4, hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4,
        decoder_hidden_size=8,
    )  # fmt: skip
    model = transformers.SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=5)
    return model, transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})


def mask2former(transformers):
    swin = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, num_queries=6, num_labels=4,
    )  # fmt: skip
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=5)
    size = {"height": 64, "width": 64}
    return model, transformers.Mask2FormerImageProcessorPil(size=size)


def cropped(transformers):
    """A network with the processor of MobileViT, which crops the centre."""
    crop = {"height": 64, "width": 64}
    processor = transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 72}, crop_size=crop, do_center_crop=True
    )
    return segformer(transformers)[0], processor


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [segformer, mask2former, cropped])
def test_a_model_of_transformers(images, tmp_path, build):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    model, processor = build(transformers)
    model.eval().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    arguments = ["--model", tmp_path / "model", "--metric", "iou", "--pruning-prob", "0"]
    result = run(images, "-o", tmp_path / "out", *arguments)
    assert (result.exit_code, result.exception) == (0, None)
    found = set()
    for file in images.iterdir():
        with image_module.open(file) as image:
            whole = {"do_center_crop": False} if build is cropped else {}
            inputs, size = processor(images=image, return_tensors="pt", **whole), image.size[::-1]
        with torch.no_grad():
            outputs = model(**inputs)
        (expected,) = postprocess(
            outputs,
            model=model,
            target_sizes=[size],
            rankseg_kwargs={"metric": "iou", "pruning_prob": 0},
        )
        got = read_labels(tmp_path / "out" / f"{file.stem}.png")
        np.testing.assert_array_equal(got, expected)
        found.update(got.unique().tolist())
    assert len(found) > 1


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_transformers_that_does_not_fit(images, tmp_path):
    pytest.importorskip("transformers", reason="needs transformers")
    (tmp_path / "model").mkdir()
    with pytest.raises(TypeError, match="from_logits follows from a model of Transformers"):
        predict_files(images, tmp_path / "o", model=tmp_path / "model", from_logits="softmax")
    with pytest.raises(ValueError, match="mean and std follow from a model"):
        predict_files(images, tmp_path / "o", model=tmp_path / "model", mean=[0.5])
    with pytest.raises(ValueError, match=r"file, or a folder or the id of .*, got .*model"):
        predict_files(images, tmp_path / "o", model=tmp_path / "model")
