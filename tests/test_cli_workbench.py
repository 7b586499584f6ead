"""``rankseg evaluate``, ``calibrate``, ``tune``, and what ``compare`` writes for others to read."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread

from rankseg import RankSEG
from rankseg._formats import write_labels
from rankseg.calibration import Calibration, cross_validate, fit
from rankseg.evaluation import CaseFolder, aggregate, evaluate
from rankseg.tuning import standard_candidates, tune
from test_cli import CLASSES, assert_no_traceback, folder, library, points, run, signed

__all__ = ["folder"]  # a fixture of the other commands


def words(result):
    return [line.split() for line in result.stdout.splitlines()]


@pytest.fixture
def labels(folder, tmp_path):
    """Folders of predictions by argmax and RankSEG, in two formats, and of the truth."""
    maps = CaseFolder.open(folder)
    for name in ("plain", "ours", "truth"):
        (tmp_path / name).mkdir()
    for name in maps.names:
        case = maps.read(name)
        probs = case.probs.float()[None]
        write_labels(tmp_path / "plain" / f"{name}.npy", probs.argmax(1)[0])
        write_labels(tmp_path / "ours" / f"{name}.png", RankSEG()(probs)[0])
        write_labels(tmp_path / "truth" / f"{name}.tif", case.label)
    return tmp_path


class TestEvaluate:
    def test_prints_what_the_library_says(self, labels):
        result = run("evaluate", labels / "plain", labels / "ours", labels / "truth",
                     "--classes", ",".join(CLASSES), "-o", labels / "out")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        told = evaluate(
            {"plain": labels / "plain", "ours": labels / "ours"}, labels / "truth", classes=CLASSES
        )
        change = told.difference("ours")
        row = next(line for line in words(result) if line[:1] == ["ours"])
        assert row[1:3] == [points(told.aggregates("ours")["I"]), signed(change.mean)]
        averages = [aggregate(told.counts["ours"], metric, name).mean
                    for metric in ("dice", "iou")
                    for name in ("nnunet", "monai", "torchmetrics", "mmseg")]  # fmt: skip
        assert ["ours", *map(points, averages)] in words(result)
        summary = json.loads((labels / "out" / "summary.json").read_text())
        assert summary["methods"]["ours"]["as nnunet"]["dice"] == averages[0]
        assert summary["methods"]["ours"]["dice, counted=label"]["tests"]["units"] == 6

    def test_one_method(self, labels):
        result = run("evaluate", labels / "ours", labels / "truth", "--classes", 3)
        assert result.exit_code == 0, result.stderr
        told = evaluate({"ours": labels / "ours"}, labels / "truth", classes=3)
        row = next(line for line in words(result) if line[:2] == ["class", "1"])
        assert row[2] == points(told.by_class("ours")[1])

    def test_cases_that_do_not_fit_are_named(self, labels):
        (labels / "ours" / "case_0.png").unlink()
        write_labels(labels / "ours" / "case_1.png", np.zeros((3, 3), int))
        (labels / "ours" / "case_2.png").write_bytes(b"nothing")
        result = run("evaluate", labels / "ours", labels / "truth", "--classes", 3)
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "Not scored: case_0: ours has no prediction of it" in result.stderr
        assert "Not scored: case_1: the prediction of ours must be of the shape" in result.stderr
        assert "Not scored: case_2" in result.stderr
        assert result.stderr.count("Not scored") == 3

    def test_clusters_and_a_band(self, labels):
        table = labels / "clusters.csv"
        table.write_text("case,patient\n" + "".join(f"case_{i},{i // 3}\n" for i in range(6)))
        result = run("evaluate", labels / "plain", labels / "ours", labels / "truth",
                     "--classes", 3, "--clusters", table, "--band", 0.5)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        row = next(line for line in words(result) if line[:1] == ["ours"])
        assert row[-5:-2] == ["0", "0", "6"]
        assert "over clusters" in " ".join(result.stdout.split())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere", "--classes", "3"], "nowhere is not a folder"),
            (["truth", "--classes", "1"], "classes must be at least two"),
        ],
    )
    def test_wrong_arguments(self, labels, arguments, message):
        result = run("evaluate", labels / arguments[0], labels / "truth", *arguments[1:])
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert message in result.stderr


class TestCalibrate:
    def test_prints_and_writes_what_the_library_says(self, folder, tmp_path):
        path = tmp_path / "c.json"
        result = run("calibrate", folder, "-o", path, "--folds", 3,
                     "--diagram", tmp_path / "d.png")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert min(imread(tmp_path / "d.png").shape[:2]) > 500
        maps = CaseFolder.open(folder)
        assert Calibration.load(path) == fit(maps, ignore_index=255)
        told = cross_validate(maps, folds=3)
        assert ["NLL", f"{told.before.nll:.4f}", f"{told.after.nll:.4f}"] in words(result)
        assert ["ECE", points(told.before.ece), points(told.after.ece)] in words(result)
        row = next(line for line in words(result) if line[:2] == ["RankSEG", "dice"])
        change = told.decisions.difference("RankSEG dice, calibrated", baseline="RankSEG dice")
        assert row[4] == signed(change.mean)

    def test_a_class_left_alone_is_told(self, folder, tmp_path):
        for path in folder.glob("*.npz"):
            held = dict(np.load(path))
            np.savez(
                path, probs=held["probs"], label=np.where(held["label"] == 2, 1, held["label"])
            )
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "vector",
                     "--folds", 2)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert "classes [2] are left as they are" in " ".join(result.stdout.split())

    def test_class_weights(self, folder, tmp_path):
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "prior")
        assert result.exit_code == 1
        assert "names no class_weights" in result.stderr
        meta = {"classes": CLASSES, "class_weights": [1, 2, 4]}
        (folder / "meta.json").write_text(json.dumps(meta))
        assert run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "prior").exit_code == 0
        expected = Calibration.from_class_weights([1.0, 2.0, 4.0])
        assert Calibration.load(tmp_path / "c.json") == expected


def test_tune(folder, tmp_path):
    path = tmp_path / "t.json"
    result = run("tune", folder, "-o", path, "--folds", 3, "--solver", "RMA",
                 "--correlation", 0, "--pruning-prob", 0.5, "--pruning-prob", 0)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    candidates = standard_candidates(
        classes=3, solvers=["RMA"], correlations=[0.0], pruning_probs=[0.5, 0.0]
    )
    tuned = tune(CaseFolder.open(folder), counted="either", candidates=candidates, folds=3)
    saved = json.loads(path.read_text())
    assert saved["options"] == tuned.options
    assert saved["optimism"] == tuned.optimism
    assert ["held", "out", signed(tuned.held_out.mean)] in [line[:3] for line in words(result)]
    assert f"Chosen: {tuned.chosen.name}." in result.stdout
    assert "6 cases are too few" in " ".join(result.stdout.split())


@pytest.mark.parametrize("command", ["calibrate", "tune"])
def test_wrong_options_are_noticed_before_the_work(folder, tmp_path, command):
    place = tmp_path / "nowhere" / "x.json"
    result = run(command, folder, "-o", place)
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert result.stderr == f"Error: there is no folder {place.parent} to write x.json to\n"
    result = run(command, folder, "-o", tmp_path / "x.json", "--seed", -1)
    assert result.exit_code == 2
    assert_no_traceback(result)


def test_a_diagram_without_a_folder_is_noticed_before_the_work(folder, tmp_path):
    result = run("calibrate", folder, "-o", tmp_path / "c.json",
                 "--diagram", tmp_path / "nowhere" / "d.png")  # fmt: skip
    assert result.exit_code == 1
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("temperature", [0, -1, "nan", "inf"])
def test_a_temperature_that_is_none(folder, tmp_path, temperature):
    result = run("tune", folder, "-o", tmp_path / "t.json", "--temperature", temperature)
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert "Error: every temperature must be" in result.stderr


class TestReport:
    def test_says_what_the_library_says_and_loads_nothing(self, folder, tmp_path):
        (folder / "broken <b>.npz").write_bytes(b"nothing")
        path = tmp_path / "report.html"
        result = run("compare", folder, "--report", path, "--correlation", 0)
        assert result.exit_code == 1  # of the broken file
        page = path.read_text()
        maps = CaseFolder.open(folder)
        told = library(folder, correlations=[0]).difference("RankSEG dice")
        text = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page)))
        assert f"by {signed(told.mean)} points (95 % interval {signed(told.low)} to" in text
        assert f"{told.wins} cases won, {told.losses} lost, {told.ties} tied" in text
        for name in ("Per image", "Per class", "Case by case", "Volumes", "Most gain",
                     "Can the probabilities be taken at their word?", "the cut"):  # fmt: skip
            assert name in text
        assert all(name in text for name in maps.classes)
        assert page.count("data:image/png;base64,") == 5
        assert not re.search(r"(src|href)=\"(?!data:)", page)
        assert "<script" not in page
        assert "broken &lt;b&gt;" in page
        assert "<b>" not in page

    def test_a_place_that_is_none(self, folder, tmp_path):
        result = run("compare", folder, "--report", tmp_path / "no" / "report.html")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "there is no folder" in result.stderr
        assert not result.stdout

    def test_cases_without_any_class(self, tmp_path):
        for name in "ab":
            np.savez(
                tmp_path / f"{name}.npz", probs=np.zeros((1, 4, 4)), label=np.zeros((4, 4), int)
            )
        result = run("compare", tmp_path, "--report", tmp_path / "report.html")
        assert result.exit_code == 0, result.stderr
        assert "against the cut" not in (tmp_path / "report.html").read_text()
