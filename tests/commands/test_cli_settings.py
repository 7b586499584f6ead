"""``--settings``: commands decide by what ``rankseg tune`` or ``RankSEG.save`` wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rankseg import RankSEG
from rankseg.calibration import Calibration
from rankseg.evaluation import CaseFolder
from support.command_line import assert_no_traceback, run

CALIBRATION = Calibration("softmax", [0.3] * 3, [0.0, 0.5, 0.1])

UNKNOWN = '{"format": "rankseg settings 1", "rankseg": "1", "about": {}, "options": {"colour": 3}}'


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "mine.json"
    RankSEG("iou", solver="RMA", correlation=0.2, calibration=CALIBRATION).save(path)
    return path


def labels_of(folder, decide):
    return {case.name: decide(case.probs[None])[0].numpy() for case in CaseFolder.open(folder)}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("--metric", "dice", "--correlation", 0.7), {"metric": "dice", "correlation": 0.7}),
    ],
)
def test_predict(folder, tmp_path, settings, arguments, options):
    out = tmp_path / "out"
    result = run("predict", folder, "-o", out, "--key", "probs", "--format", "npy",
                 "--settings", settings, *arguments)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    expected = labels_of(folder, RankSEG.load(settings, **options))
    assert len(expected) > 3
    for name, labels in expected.items():
        np.testing.assert_array_equal(np.load(out / f"{name}.npy"), labels)
    kept = json.loads((out / "rankseg.json").read_text())["options"]
    assert kept["calibration"]["scale"] == list(CALIBRATION.scale)


def test_compare_shows_it_by_the_name_of_the_file(folder, settings):
    result = run("compare", folder, "--settings", settings)
    assert result.exit_code == 0, result.stderr
    assert any(line.split()[:1] == ["mine"] for line in result.stdout.splitlines())


def test_export(tmp_path):
    onnx = pytest.importorskip("onnx")
    RankSEG("iou", solver="RMA", correlation=0.2).save(tmp_path / "mine.json")
    path = tmp_path / "decision.onnx"
    result = run("export", path, "--classes", 3, "--settings", tmp_path / "mine.json")
    assert result.exit_code == 0, result.stderr
    kept = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert json.loads(kept["rankseg.options"])["correlation"] == 0.2


@pytest.mark.parametrize("command", ["predict", "compare", "nnunet"])
@pytest.mark.parametrize("content", [None, "{}", UNKNOWN])
def test_a_file_that_is_none_is_refused_before_the_work(folder, tmp_path, command, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    out = tmp_path / "out"
    result = run(command, folder, "-o", out, "--settings", path)
    assert result.exit_code != 0
    assert_no_traceback(result)
    assert path.name in "".join(result.stderr.replace("│", "").split())  # it may be wrapped
    assert not out.exists() or not any(out.iterdir())
