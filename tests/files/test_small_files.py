"""Small files that are broken or hostile: one line that names the file, never a traceback."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from rankseg._files.batch import Record
from rankseg._files.folders import RECORD
from rankseg.calibration import Calibration
from rankseg.evaluation import CaseFolder, read_clusters
from rankseg.integration.nnunet import decide_folders
from support.command_line import assert_no_traceback, run

BROKEN = {
    "nested arrays": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "too many digits": b'{"classes": ' + b"9" * 5000 + b"}",
    "latin-1": b'{"classes": ["\xe9"]}',
    "nothing": b"",
    "cut off": b'{"classes": [',
    "an array": b"[1, 2]",
    "a long string": b'"' + b"a" * 200_000 + b'"',
    "null": b"null",
}


def read_meta(folder):
    (folder / "a.npz").write_bytes(b"")
    CaseFolder.open(folder)


def read_dataset(folder):
    (folder / "a.npz").write_bytes(b"")
    decide_folders(folder, folder / "out")


READERS = {
    "meta.json": read_meta,
    "c.json": lambda folder: Calibration.load(folder / "c.json"),
    "dataset.json": read_dataset,
    RECORD: lambda folder: Record(folder, {}, {}, bool).keep(overwrite=False),
}


def refused(call, *arguments):
    """Return the one line with which a call is refused."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", READERS)
def test_broken_json(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in refused(READERS[name], tmp_path)


def test_json_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("rankseg._files.small.MOST_BYTES", 1 << 20)
    (tmp_path / "meta.json").write_bytes(b"{}" + b" " * (1 << 20))
    assert "at most 1 MiB" in refused(read_meta, tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("meta.json", "c.json"):
        os.mkfifo(tmp_path / name)
        assert "regular file" in refused(READERS[name], tmp_path)


def test_the_mark_of_some_editors_is_read_over(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    (tmp_path / "meta.json").write_bytes(b'\xef\xbb\xbf{"classes": ["a"]}')
    assert CaseFolder.open(tmp_path).classes == ("a",)
    (tmp_path / "clusters.csv").write_bytes(b"\xef\xbb\xbfcase,patient\na, p\n")
    assert read_clusters(tmp_path / "clusters.csv") == {"a": "p"}


@pytest.mark.parametrize(
    "content",
    [
        '{"class_weights": [1e999, 1]}',
        '{"class_weights": [NaN, 1]}',
        f'{{"class_weights": [1{"0" * 400}, 1]}}',
        '{"class_weights": [[1], 1]}',
        '{"class_weights": {"a": 1}}',
        f'{{"ignore_index": 1{"0" * 30}}}',
        '{"ignore_index": true}',
        '{"ignore_index": 255.0}',
        '{"ignore_index": "none"}',
        '{"classes": {"a": 1}}',
        '{"ignore": 0}',
        '{"ignore_Index": 0}',
        '{"class_weight": [1, 1]}',
        '{"class_names": ["a", "b"]}',
        f'{{"classes": ["{"a" * 200_000}", 3]}}',
    ],
)
def test_wrong_values_in_meta(tmp_path, content):
    (tmp_path / "meta.json").write_text(content)
    assert str(tmp_path / "meta.json") in refused(read_meta, tmp_path)


def test_keys_of_meta_that_are_meant_for_others(tmp_path):
    others = {"num_classes": 3, "name": "a", "class_weights": [1, 2], "class_weights_from": "b"}
    (tmp_path / "meta.json").write_text(json.dumps(others))
    read_meta(tmp_path)
    (tmp_path / "meta.json").write_text('{"Ignore": 0}')
    assert refused(read_meta, tmp_path).endswith("got 'Ignore'; did you mean 'ignore_index'?")


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"a": 1e999},
        {"a": 70_000},
        {"a": -1},
        {"a": 1.5},
        {"a": True},
        {"a": 10**400},
        {"a": [[1], 2]},
        {"a": None},
        [],
        3,
    ],
)
def test_wrong_values_in_the_description_of_a_data_set(tmp_path, labels):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert str(tmp_path / "dataset.json") in refused(read_dataset, tmp_path)


CALIBRATION = {"format": "rankseg calibration 1", "link": "softmax", "scale": [1.0, 1.0],
               "offset": [0.0, 0.0], "kind": "vector"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", float("nan")),
        ("scale", float("inf")),
        ("scale", -1.0),
        ("scale", 0.0),
        ("scale", 1e300),
        ("scale", 1e-300),
        ("scale", 10**400),
        ("scale", True),
        ("scale", "1"),
        ("scale", None),
        ("scale", [1.0]),
        ("offset", float("nan")),
        ("offset", float("-inf")),
        ("offset", 1e300),
        ("offset", -1e300),
        ("offset", -(10**400)),
    ],
)
def test_absurd_calibrations(tmp_path, name, value):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CALIBRATION))
    assert Calibration.load(path).scale == (1.0, 1.0)
    path.write_text(json.dumps(CALIBRATION | {name: [value, 1.0]}))
    message = refused(Calibration.load, path)
    assert str(path) in message
    assert f"every {name} must be" in message


@pytest.mark.parametrize("name", ["link", "scale", "offset", "kind"])
def test_a_calibration_that_lacks_something(tmp_path, name):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({key: CALIBRATION[key] for key in CALIBRATION if key != name}))
    assert f"it lacks ['{name}']" in refused(Calibration.load, path)


CLUSTERS = {
    "a long cell": b"case,patient\n" + b"a" * 200_000 + b",p\n",
    "many cells": b"a,b" * 50_000,
    "latin-1": b"case,patient\na,\xe9\n",
    "twice": b"a,p\na,q\n",
    "blank as pandas writes it": b"case,patient\na,p\nb,NaN\n",
    "not available": b"a,p\nb,NA\n",
    "none": b"a,p\nb,None\n",
    "a long name twice": 2 * (b"a" * 100_000 + b",p\n"),
}


@pytest.mark.parametrize("content", CLUSTERS.values(), ids=CLUSTERS)
def test_broken_clusters(tmp_path, content):
    path = tmp_path / "clusters.csv"
    path.write_bytes(content)
    assert str(path) in refused(read_clusters, path)


def test_a_file_of_clusters_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.csv"):
        read_clusters(tmp_path / "none.csv")


@pytest.mark.parametrize("command", ["compare", "calibrate", "tune"])
@pytest.mark.parametrize("name", ["nested arrays", "too many digits"])
def test_commands_say_it_in_one_line(folder, tmp_path, command, name):
    (folder / "meta.json").write_bytes(BROKEN[name])
    result = run(command, folder, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert len(result.stderr.splitlines()) == 1
    assert str(folder / "meta.json") in result.stderr


@pytest.mark.parametrize("command", ["compare", "calibrate", "tune", "evaluate"])
def test_commands_refuse_broken_clusters_in_one_line(folder, tmp_path, command):
    table = tmp_path / "clusters.csv"
    table.write_bytes(CLUSTERS["a long cell"])
    arguments = [folder]
    if command == "evaluate":
        (tmp_path / "labels").mkdir()
        np.save(tmp_path / "labels" / "a.npy", np.array([0, 1]))
        arguments = [tmp_path / "labels", tmp_path / "labels", "--classes", 2]
    result = run(command, *arguments, "--clusters", table, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert len(result.stderr.splitlines()) == 1
    assert str(table) in result.stderr


def test_tune_takes_a_calibration_that_is_none_in_one_line(folder, tmp_path):
    (tmp_path / "c.json").write_bytes(BROKEN["nested objects"])
    result = run("tune", folder, "--calibration", tmp_path / "c.json", "-o", tmp_path / "t.json")
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert len(result.stderr.splitlines()) == 1
    assert "c.json is no calibration file" in result.stderr
