"""Files of a folder: those that are read, and those that are named because they are not."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from rankseg._commands import app
from rankseg._files.folders import files_of
from rankseg._files.whole import identify
from rankseg.evaluation import CaseFolder, compare, standard_methods
from support.maps import labelled

pytestmark = pytest.mark.filterwarnings("default::UserWarning")

MAPS, LABELS = labelled(0)


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_what_is_not_read_is_named_but_for_companions(tmp_path):
    quiet = ("meta.json", "README", "readme.rst", "notes.txt", "a.png", "a.pkl", ".hidden.h5")
    touch(tmp_path, "a.npz", "B.NPZ", *quiet)
    (tmp_path / "folder").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [file.name for file in files_of(tmp_path, [".npz"])] == ["B.NPZ", "a.npz"]
    touch(tmp_path, "c.npy", "d.pth")
    (tmp_path / "e.zarr").mkdir()
    words = r"not read in .*: c\.npy, d\.pth, e\.zarr; the formats are \.npz$"
    with pytest.warns(UserWarning, match=words):
        files_of(tmp_path, [".npz"])
    touch(tmp_path, *(f"f{i}.h5" for i in range(9)))
    with pytest.warns(UserWarning, match=r"f4\.h5 and 4 others; the"):
        files_of(tmp_path, [".npz"])


def test_predict_names_them(tmp_path):
    folder = tmp_path / "maps"
    touch(folder, "b.pth", "c.h5", "d.mhd")
    np.save(folder / "a.NPY", MAPS.astype("f4"))
    (folder / "a.NPY.npy").rename(folder / "a.NPY")
    result = run("predict", folder, "-o", tmp_path / "out", "--format", "npy")
    assert result.exit_code == 0
    assert result.stderr.count("Note: not read") == 1
    assert "b.pth, c.h5, d.mhd; the formats are .npy, .npz" in result.stderr
    assert (tmp_path / "out" / "a.npy").is_file()


def test_predict_names_folders_that_hold_maps(tmp_path):
    for folder in ("maps", "maps/more", "maps/pictures", "maps/labels"):
        touch(tmp_path / folder)
    for name in ("a.npy", "more/b.npy"):
        np.save(tmp_path / "maps" / name, MAPS)
    touch(tmp_path / "maps/pictures", "a.png")
    for _ in "ab":  # the second time, the folder of labels holds what could be maps
        result = run(
            "predict", tmp_path / "maps", "-o", tmp_path / "maps/labels", "--format", "npy"
        )
        assert f"Note: not read in {tmp_path / 'maps'}: more/; the formats are" in result.stderr
        assert result.stderr.rstrip().endswith("; folders in it are not searched")
    result = run("predict", tmp_path / "maps", tmp_path / "maps/more", "-o", tmp_path / "out")
    assert "2 written" in result.stdout
    assert "not read" not in result.stderr


def test_predict_names_folders_whose_folders_hold_maps(tmp_path):
    for folder in ("maps", "maps/val", "maps/val/city", "maps/empty", "maps/empty/er"):
        touch(tmp_path / folder)
    for name in ("a.npy", "val/city/b.npy"):
        np.save(tmp_path / "maps" / name, MAPS)
    result = run("predict", tmp_path / "maps", "-o", tmp_path / "out")
    assert f"Note: not read in {tmp_path / 'maps'}: val/; the formats are" in result.stderr


def test_a_folder_is_another_after_any_of_its_files_is_replaced(tmp_path):
    touch(tmp_path / "model", "config.json", "weights")
    os.utime(tmp_path / "model" / "weights", ns=(5, 5))
    before = identify(tmp_path / "model")
    assert identify(tmp_path / "model") == before
    os.utime(tmp_path / "model" / "weights", ns=(4, 4))  # of the same size, and older
    assert identify(tmp_path / "model") != before


def test_compare_reads_endings_in_capitals(tmp_path):
    np.savez(tmp_path / "a.npz", probs=MAPS, label=LABELS)
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    np.savez(tmp_path / "b.npz", probs=MAPS, label=LABELS)
    maps = CaseFolder.open(tmp_path)
    assert compare(maps, standard_methods()).cases == ("A", "b")
    assert len(maps.name_classes()) == len(MAPS)
    touch(tmp_path, "b.NPZ")
    (failure,) = compare(CaseFolder.open(tmp_path), standard_methods()).failures
    assert failure.name == "b"
    assert "several files may hold its maps" in failure.reason


@pytest.mark.parametrize("command", ["compare", "calibrate", "tune"])
def test_commands_name_them(tmp_path, command):
    touch(tmp_path, "c.npy", "broken.npz")
    result = run(command, tmp_path, "--output", tmp_path / "out")
    assert f"Note: not read in {tmp_path}: c.npy; the formats are .npz" in result.stderr


def test_nnunet_reads_endings_in_capitals_and_names_others(tmp_path):
    pytest.importorskip("nibabel", reason="needs nibabel")
    folder = tmp_path / "fold_0"
    touch(folder, "plans.json", "a.pkl", "b.npy")
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    np.savez(folder / "a.npz", probabilities=np.zeros((3, 1, 2, 2), "f4"))
    (folder / "a.npz").rename(folder / "a.NPZ")
    result = run("nnunet", folder, "-o", tmp_path / "out")
    assert f"Note: not read in {folder}: b.npy; the formats are .npz" in result.stderr
    assert "Not decided: a: the probabilities must have 2 channels" in result.stderr


def test_evaluate_names_predictions_without_truth_and_truths_that_are_not_read(tmp_path):
    ours, truth = tmp_path / "ours", tmp_path / "truth"
    unread = (".pt", ".mgz", ".jp2", ".dcm", ".npy.gz", ".hdr", ".pbm", ".pnm", ".jfif")
    touch(truth, *(f"t{i}{suffix}" for i, suffix in enumerate(unread)), "odd.xyz")
    touch(ours)
    for name in ("a", "extra"):
        np.save(ours / f"{name}.npy", LABELS)
    np.save(truth / "a.npy", LABELS)
    result = run("evaluate", ours, truth, "--classes", len(MAPS))
    assert result.exit_code == 1
    assert f"Note: not scored: ours predicts extra, without a truth in {truth}" in result.stderr
    assert f"Note: not read in {truth}: odd.xyz; the formats are" in result.stderr
    assert result.stderr.count("Not scored: t") == len(unread)
