"""``rankseg evaluate``, ``calibrate``, ``tune``, and what ``compare`` writes for others to read."""

from __future__ import annotations

import html
import io
import json
import os
import re
import zipfile

import numpy as np
import pytest
from matplotlib.image import imread

from conftest import CLASSES
from rankseg import RankSEG
from rankseg._formats import write_labels
from rankseg.calibration import Calibration, PresenceModel, cross_validate, fit
from rankseg.dataset import DatasetRule
from rankseg.evaluation import CaseFolder, aggregate, evaluate
from rankseg.evaluation.clusters import clusters_of
from rankseg.tuning import standard_candidates, tune
from support.command_line import assert_no_traceback, library, points, run, signed


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
                     "--classes", ",".join(CLASSES), "-o", labels / "out", "--details")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        told = evaluate(
            {"plain": labels / "plain", "ours": labels / "ours"}, labels / "truth", classes=CLASSES
        )
        change = told.difference("ours")
        row = ["ours", points(told.aggregates("ours")["I"]), signed(change.mean)]
        assert row in [line[:3] for line in words(result)]
        sentence = f"ours changes Dice by image of plain by {signed(change.mean)} points"
        assert result.stdout.startswith(sentence)
        last = f"rankseg compare MAPS --labels {labels / 'truth'}"
        assert last in result.stdout
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
        assert "ours/case_1.png does not fit the truth: it must be of the shape" in result.stderr
        assert "Not scored: case_2" in result.stderr
        assert result.stderr.count("Not scored") == 3

    def test_clusters_and_a_band(self, labels):
        table = labels / "clusters.csv"
        table.write_text("case,patient\n" + "".join(f"case_{i},{i // 3}\n" for i in range(6)))
        result = run("evaluate", labels / "plain", labels / "ours", labels / "truth",
                     "--classes", 3, "--clusters", table, "--band", 0.5, "--details")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        rows = [line for line in words(result) if line[:1] == ["ours"]]
        assert ["0", "0", "6"] in [row[-5:-2] for row in rows]
        assert "6 cases in 2 clusters" in " ".join(result.stdout.split())
        assert "over clusters" in " ".join(result.stdout.split())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere", "--classes", "3"], "nowhere is not a folder"),
            (["truth", "--classes", "1"], "classes must be at least two"),
            (["truth", "--classes", "1000000000"], "classes must be from 1 to 65536, got 10000000"),
            (["truth", "--classes", "99999999999999999999"], "classes must fit into int64"),
            (["truth", "--classes", "a, b,a"], "classes must be different names, none of them bl"),
            (["truth", "--classes", "a,b,"], "classes must be different names, none of them bl"),
            (["truth", "--classes", "3", "--band", "5"], "band must be in [0, 1], got 5.0"),
            (["truth", "truth", "--classes", "3"], "folders of predictions must be different nam"),
        ],
    )
    def test_wrong_arguments(self, labels, arguments, message):
        folders = [labels / name for name in (*arguments[: arguments.index("--classes")], "truth")]
        result = run("evaluate", *folders, *arguments[len(folders) - 1 :])
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

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_presence_goes_into_the_file_and_into_decisions(self, folder, tmp_path):
        path = tmp_path / "c.json"
        result = run("calibrate", folder, "-o", path, "--kind", "vector", "--presence", "zero",
                     "--folds", 3)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        maps = CaseFolder.open(folder)
        made = Calibration.load(path)
        with pytest.warns(UserWarning, match="6 cases are too few"):
            again = fit(maps, "vector", ignore_index=255, presence="zero")
        assert made == again
        with pytest.warns(UserWarning, match="4 cases are too few"):
            told = cross_validate(maps, "vector", folds=3, presence="zero").presence
        row = ["Brier", "score,", "held", "out", f"{told.brier_of_peaks:.4f}", f"{told.brier:.4f}"]
        assert row in words(result)
        assert RankSEG(calibration=path).settings.presence == made.presence

    @pytest.mark.parametrize("metric", ["iou", "dice"])
    def test_a_rule_is_fitted_to_the_calibrated_maps(self, folder, tmp_path, metric):
        path, rule = tmp_path / "c.json", tmp_path / "rule.json"
        result = run("calibrate", folder, "-o", path, "--folds", 2, "--rule", rule,
                     "--rule-metric", metric)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert f"Rule written to {rule}" in result.stdout
        maps = CaseFolder.open(folder)
        options = {"ignore_index": 255, "pixels": 1_000_000}
        expected = DatasetRule.fit(maps, metric, calibration=Calibration.load(path), **options)
        assert DatasetRule.load(rule) == expected
        again = run("calibrate", folder, "-o", path, "--folds", 2, "--rule", rule)
        assert again.exit_code == 0, again.stderr

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_a_rule_without_labels_of_pixels(self, folder, tmp_path):
        for file in folder.glob("*.npz"):
            np.savez(file, probs=np.load(file)["probs"])
        rows = ["case,classes", *(f"case_{i},background,{CLASSES[1 + i % 2]}" for i in range(6))]
        (tmp_path / "held.csv").write_text("\n".join(rows))
        rule = tmp_path / "rule.json"
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "none",
                     "--presence", "zero", "--image-labels", tmp_path / "held.csv",
                     "--rule", rule)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        maps = [np.load(file)["probs"] for file in sorted(folder.glob("*.npz"))]
        assert DatasetRule.load(rule).scale == pytest.approx(DatasetRule.fit(maps).scale)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--rule", "c.json"], "--rule must name another file than --output"),
            (["--rule", "r.json", "--rule-metric", "acc"], "metric must be one of"),
            (["--rule", "no/r.json"], "there is no folder no to write r.json to"),
        ],
    )
    def test_a_rule_that_cannot_be_written(self, folder, tmp_path, arguments, message, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = run("calibrate", folder, "-o", "c.json", *arguments)
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert message in " ".join(result.stderr.split())
        assert not (tmp_path / "c.json").exists()

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_image_level_labels_need_no_labels_of_pixels(self, folder, tmp_path):
        rows, held = ["case,classes"], {}
        for file in sorted(folder.glob("*.npz")):
            arrays = dict(np.load(file))
            held[file.stem] = sorted(set(arrays["label"].flatten().tolist()) - {255})
            rows.append(",".join([file.stem, *(CLASSES[index] for index in held[file.stem])]))
            np.savez(file, probs=arrays["probs"])
        table = tmp_path / "held.csv"
        table.write_text("\n".join(rows))
        options = ["--kind", "none", "--presence", "ignored", "--image-labels", table]
        (folder / "broken.npz").write_bytes(b"nothing")
        table.write_text("\n".join([*rows, "broken,1"]))
        result = run("calibrate", folder, "-o", tmp_path / "c.json", *options, "--folds", 3)
        assert result.exit_code == 1
        assert re.search(r"Left out: broken: .*broken.npz cannot be read as .npz", result.stderr)
        made = Calibration.load(tmp_path / "c.json")
        (folder / "broken.npz").unlink()
        with pytest.warns(UserWarning, match="6 cases are too few"):
            model = PresenceModel.fit(
                CaseFolder.open(folder).without_labels(), held, absent="ignored"
            )
        assert made == Calibration.of_presence(model)
        columns = ["case,vessel,background,organ"]
        for name, found in held.items():
            cells = [str(int(index in found)) for index in (2, 0, 1)]
            columns.append(",".join([name, *cells]))
        table.write_text("\n".join(columns))
        result = run("calibrate", folder, "-o", tmp_path / "m.json", *options, "--folds", 3)
        assert result.exit_code == 0, result.stderr
        assert Calibration.load(tmp_path / "m.json") == made
        table.write_text("\n".join([*columns[:-1], "case_5,1,organ,0"]))
        result = run("calibrate", folder, "-o", tmp_path / "m.json", *options)
        assert "has a column for each class: every cell must be 0 or 1" in result.stderr
        table.write_text("\n".join(rows[:-1]))
        result = run("calibrate", folder, "-o", tmp_path / "c.json", *options)
        assert "present must name the classes of every case, got none for 'case_5'" in result.stderr
        table.write_text("case_0,unicorn")
        result = run("calibrate", folder, "-o", tmp_path / "c.json", *options)
        assert (
            "must name classes in ['background', 'organ', 'vessel'] or their numbers"
            in result.stderr
        )
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--image-labels", table)
        assert "add --presence and --kind none" in result.stderr

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_a_class_left_alone_is_told(self, folder, tmp_path):
        for path in folder.glob("*.npz"):
            held = dict(np.load(path))
            np.savez(
                path, probs=held["probs"], label=np.where(held["label"] == 2, 1, held["label"])
            )
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "vector",
                     "--folds", 2)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count("Note: classes [2] are left as they are") == 1

    def test_class_weights(self, folder, tmp_path):
        result = run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "prior")
        assert result.exit_code == 1
        assert "names no class_weights" in result.stderr
        meta = {"classes": CLASSES, "class_weights": [1, 2, 4]}
        (folder / "meta.json").write_text(json.dumps(meta))
        assert run("calibrate", folder, "-o", tmp_path / "c.json", "--kind", "prior").exit_code == 0
        expected = Calibration.from_class_weights([1.0, 2.0, 4.0])
        assert Calibration.load(tmp_path / "c.json") == expected


class TestTheAnswerComesFirst:
    def test_compare(self, folder):
        told = library(folder).difference("RankSEG dice")
        lines = run("compare", folder).stdout.splitlines()
        assert lines[0].startswith(
            f"RankSEG dice changes Dice by image of argmax by {signed(told.mean)}"
        )
        first, last = (next(n for n, line in enumerate(lines) if line.startswith(word))
                       for word in ("─", "Dice in points"))  # fmt: skip
        assert [line.split()[0] for line in lines[first + 1 : last - 1]] == [
            *("argmax", "pruned", "RankSEG", "RankSEG")
        ]
        assert not any(line.startswith(("Per ", "Tests", "Time", "Averages")) for line in lines)
        assert "Try next: the gain is clear: decide new maps by it" in lines
        assert any(line.startswith("Or: the probabilities of vessel sum to 1.") for line in lines)
        assert f"  rankseg calibrate {folder} --kind vector -o calibration.json" in lines

    def test_no_more_than_eight_methods(self, folder):
        lines = run("compare", folder, "--all", "--presence", "argmax", "--presence",
                    "all").stdout.splitlines()  # fmt: skip
        first, last = (next(n for n, line in enumerate(lines) if line.startswith(word))
                       for word in ("─", "Dice in points"))  # fmt: skip
        assert last - first - 2 == 8

    def test_what_is_asked_for_is_judged(self, folder, tmp_path):
        RankSEG("iou", solver="RMA", correlation=0.2).save(tmp_path / "mine.json")
        output = run("compare", folder, "--settings", tmp_path / "mine.json").stdout
        assert output.startswith("mine changes IoU by image of argmax by ")
        output = run("compare", folder, "--solver", "joint", "--correlation", 0.7).stdout
        assert output.startswith("RankSEG dice joint r=0.7 changes Dice by image")
        output = run("compare", folder, "--metric", "iou", "--presence", "argmax").stdout
        assert output.startswith("RankSEG iou presence=argmax changes IoU by image")

    def test_a_clear_gain_names_the_command_that_decides_by_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rankseg.evaluation.verdict.is_clear", lambda gain, units: True)
        maps = masks(tmp_path / "maps", 1)
        for options, more in (
            ([], []),
            (["--solver", "joint"], ["--solver", "joint"]),
            (["--correlation", "0.2"], ["--solver", "RMA", "--correlation", "0.2"]),
        ):
            output = run("compare", maps, *options, "--ignore-index", "none").stdout
            assert "8 cases): a clear gain." in " ".join(output.split())
            command = ["rankseg", "predict", str(maps), "-o", "rankseg-labels", "--metric", "dice"]
            assert [*command, *more] in [line.split() for line in output.splitlines()]
        RankSEG("dice").save(tmp_path / "mine.json")
        output = run("compare", maps, "--settings", tmp_path / "mine.json").stdout
        assert f"-o rankseg-labels --settings {tmp_path / 'mine.json'}\n" in output

    def test_class_weights_that_are_undone_are_undone_for_new_maps_too(self, folder):
        meta = {"classes": CLASSES, "class_weights": [1, 2, 8]}
        (folder / "meta.json").write_text(json.dumps(meta))
        undo = f"  rankseg compare {folder} --prior-correction"
        assert undo in run("compare", folder).stdout.splitlines()
        assert undo not in run("compare", folder, "--prior-correction").stdout.splitlines()

    def test_the_demo_fits_one_screen(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rankseg._commands._terminal.PIPED_WIDTH", 80)
        lines = run("demo", "--output", tmp_path / "demo.png").stdout.splitlines()
        assert len(lines) <= 23  # and the prompt
        assert all(len(line) <= 80 for line in lines[:-1])
        assert lines[-1] == f"Picture: {tmp_path / 'demo.png'}"
        assert "  rankseg compare MAPS --labels LABELS" in lines


def test_tune(folder, tmp_path):
    path = tmp_path / "t.json"
    result = run("tune", folder, "-o", path, "--folds", 3, "--solver", "exact", "--presence", "all",
                 "--counted", "label", "--details")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    candidates = standard_candidates(
        classes=3, counted="label", values=3600, solvers=["exact"], presences=["all"]
    )
    tuned = tune(CaseFolder.open(folder), candidates=candidates, folds=3)
    saved = json.loads(path.read_text())
    assert RankSEG.load(path).metric == tuned.options["metric"]
    assert saved["about"]["expect"] == tuned.sentence
    assert saved["about"]["cases"] == 6
    shown = " ".join(result.stdout.split())
    assert shown.startswith(tuned.sentence)
    held = tuned.comparison.aggregates("held out")["I"], tuned.held_out.mean
    row = ["held", "out", points(held[0]), signed(held[1])]
    assert row in [line[:4] for line in words(result)]
    assert all(warning in shown for warning in tuned.warnings)
    assert f"Settings of {tuned.chosen.name}: {path}" in result.stdout


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


@pytest.mark.parametrize("number", [1, 2])
def test_one_case_or_two_are_explained(folder, tmp_path, number):
    for file in sorted(folder.glob("*.npz"))[number:]:
        file.unlink()
    result = run("tune", folder, "-o", tmp_path / "t.json")
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert result.stderr.startswith(
        "Error: there must be 3 cases or more, to fit to one, choose by"
    )
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "t.json").exists()


class TestReport:
    def test_says_what_the_library_says_and_loads_nothing(self, folder, tmp_path):
        (folder / "broken <b>.npz").write_bytes(b"nothing")
        path = tmp_path / "report.html"
        result = run("compare", folder, "--report", path, "--correlation", 0)
        assert result.exit_code == 1  # of the broken file
        page = path.read_text()
        maps = CaseFolder.open(folder)
        told = library(folder, correlations=[0]).difference("RankSEG dice RMA")
        text = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page)))
        assert f"by {signed(told.mean)} points (95 % interval {signed(told.low)} to" in text
        assert f"{told.wins} / {told.losses}" in text
        assert "Try next" in text
        assert f"rankseg tune {folder} -o settings.json" in text
        for name in ("Details by image", "Details by class", "Case by case", "Volumes", "Most gain",
                     "Can the probabilities be taken at their word?", "the cut"):  # fmt: skip
            assert name in text
        assert all(name in text for name in maps.classes)
        assert page.count("data:image/png;base64,") == 2 * 6  # wide, and narrow for phones
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

    def test_a_map_whose_label_is_no_class_does_not_keep_the_report_from_being_written(
        self, folder, tmp_path
    ):
        held = dict(np.load(folder / "case_0.npz"))
        np.savez(folder / "wrong.npz", probs=held["probs"], label=np.full((30, 40), 7))
        path = tmp_path / "report.html"
        result = run("compare", folder, "--report", path, "--correlation", 0)
        assert result.exit_code == 1
        assert "Not compared: wrong: label must lie in [0, 3)" in result.stderr
        assert "Can the probabilities be taken at their word?" in path.read_text()


def masks(folder, foreground, shape=(16, 16), cases=8):
    """Write maps of one channel with masks of 0 and some value for foreground."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(cases):
        probs = 1 / (1 + np.exp(-2 * rng.normal(size=shape)))
        label = (rng.random(shape) < probs) * foreground
        np.savez(folder / f"{number}.npz", probs=probs[None].astype(np.float32), label=label)
    return folder


COMMANDS = {
    "compare": ["--correlation", 0],
    "calibrate": ["--folds", 2],
    "tune": ["--folds", 3],
}


def run_on(command, maps, output, *options):
    return run(command, maps, "-o", output, *COMMANDS[command], *options)


RESULTS = {
    "compare": ["cases.csv", "classes.csv", "summary.json", "example.png"],
    "compare --report": ["report.html"],
    "calibrate": ["c.json", "d.png"],
    "tune": ["t.json"],
    "evaluate": ["cases.csv", "classes.csv", "summary.json"],
    "export": ["d.onnx"],
}


def write_results(kind, folder, place):
    """Run a command that writes the files of `RESULTS` to a place."""
    files = [place / name for name in RESULTS[kind]]
    clusters = folder.parent / "clusters.csv"
    match kind:
        case "compare":
            return run_on("compare", folder, place, "--metric", "dice", "--clusters", clusters)
        case "compare --report":
            return run("compare", folder, "--correlation", 0, "--report", files[0])
        case "calibrate":
            return run_on("calibrate", folder, files[0], "--diagram", files[1])
        case "tune":
            return run_on("tune", folder, files[0])
        case "evaluate":
            names = [folder.parent / name for name in ("plain", "truth")]
            return run("evaluate", *names, "--classes", len(CLASSES), "-o", place)
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    return run("export", files[0], "--classes", 2, "--solver", "argmax", "--metric", "acc")


@pytest.mark.parametrize("kind", RESULTS)
class TestFilesThatAreThere:
    @pytest.fixture
    def place(self, labels, folder, tmp_path):
        rows = [f"{name},{name}\n" for name in CaseFolder.open(folder).names]
        (folder.parent / "clusters.csv").write_text("case,cluster\n" + "".join(rows))
        (tmp_path / "results").mkdir()
        return tmp_path / "results"

    def test_those_of_somebody_else_stay(self, folder, place, kind):
        for name in RESULTS[kind]:
            (place / name).write_text("case,cluster\na,b\n")
            result = write_results(kind, folder, place)
            assert result.exit_code == 1
            told = f"Error: {place / name} is there, and no result of this command: name another "
            assert result.stderr.startswith(told)
            assert [file.name for file in place.iterdir()] == [name]
            (place / name).unlink()

    def test_own_and_empty_ones_are_replaced(self, folder, place, kind):
        for name in RESULTS[kind]:
            (place / name).write_bytes(b"")  # nothing is lost
        for _ in range(2):
            result = write_results(kind, folder, place)
            assert result.exit_code == 0, result.stderr
            assert all((place / name).stat().st_size for name in RESULTS[kind])


@pytest.mark.parametrize("command", COMMANDS)
class TestIgnoreIndex:
    def test_a_set_without_foreground_is_refused_before_anything_is_written(
        self, tmp_path, command
    ):
        maps = masks(tmp_path / "maps", 255)
        result = run_on(command, maps, tmp_path / "out.json")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "hold only 0 and 255, where 255 is ignore_index" in result.stderr
        assert "--ignore-index none" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out.json").is_file()

    def test_none_reads_255_as_foreground(self, tmp_path, command):
        found = []
        for foreground, options in ((1, []), (255, ["--ignore-index", "none"])):
            maps = masks(tmp_path / f"maps {foreground}", foreground)
            output = tmp_path / f"out {foreground}"
            result = run_on(command, maps, output, *options)
            assert result.exit_code == 0, result.stderr
            written = output / "classes.csv" if command == "compare" else output
            found.append(written.read_text())
        assert found[0] == found[1]

    def test_a_negative_value_and_the_one_of_meta(self, tmp_path, command):
        maps = masks(tmp_path / "maps", 1)
        for path in maps.glob("*.npz"):
            held = dict(np.load(path))
            held["label"][:3] = -1
            np.savez(path, **held)
        result = run_on(command, maps, tmp_path / "out.json")
        assert result.exit_code == 1
        assert "-1" in result.stderr
        assert run_on(command, maps, tmp_path / "out.json", "--ignore-index", -1).exit_code == 0
        (maps / "meta.json").write_text('{"ignore_index": -1}')
        assert run_on(command, maps, tmp_path / "out.json").exit_code == 0
        assert run_on(command, maps, tmp_path / "out.json", "--ignore-index", 255).exit_code == 1

    def test_what_is_no_index(self, tmp_path, command):
        maps = masks(tmp_path / "maps", 1)
        result = run_on(command, maps, tmp_path / "out.json", "--ignore-index", "void")
        assert result.exit_code == 2
        assert "must be an integer" in " ".join(result.stderr.split())


def cut_off(folder, name):
    (folder / f"{name}.npz").write_bytes((folder / "case_0.npz").read_bytes()[:500])


def of_other_classes(folder, name):
    (folder / "meta.json").unlink(missing_ok=True)
    np.savez(folder / f"{name}.npz", probs=np.full((2, 9), 0.5), label=np.ones(9, int))


def no_class(folder, name):
    held = dict(np.load(folder / "case_0.npz"))
    np.savez(folder / f"{name}.npz", probs=held["probs"], label=np.full((30, 40), 7))


def logits(folder, name):
    held = dict(np.load(folder / "case_0.npz"))
    np.savez(folder / f"{name}.npz", probs=9 * held["probs"] - 4, label=held["label"])


def not_a_number(folder, name):
    held = dict(np.load(folder / "case_0.npz"))
    held["probs"][0, 5, 5] = np.nan
    np.savez(folder / f"{name}.npz", **held)


def pipe(folder, name):
    os.mkfifo(folder / f"{name}.npz")


def link_to_itself(folder, name):
    (folder / f"{name}.npz").symlink_to(f"{name}.npz")


def a_folder(folder, name):
    (folder / f"{name}.npz").mkdir()


def a_lie(folder, name):
    """A header that declares more than there is memory for."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (3, 10**7, 10**7)}
    )
    with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:
        archive.writestr("probs.npy", header.getvalue())
        archive.writestr("label.npy", header.getvalue())


SPOILS = [cut_off, of_other_classes, no_class, logits, not_a_number, pipe, link_to_itself, a_folder]
SPOILS += [a_lie]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_bad_file_among_good_ones_is_named_and_the_others_are_done(
    folder, tmp_path, command, spoil
):
    output = tmp_path / "out.json"
    spoil(folder, "a_first")
    spoil(folder, "z_last")
    result = run_on(command, folder, output)
    assert result.exit_code == 1
    assert_no_traceback(result)
    told = [line.split(": ", 2) for line in result.stderr.splitlines()]
    assert [name for _, name, _ in told] == ["a_first", "z_last"]
    assert all(len(reason) > 10 for _, _, reason in told)
    assert output.exists()
    if command == "calibrate":
        sound = [CaseFolder.open(folder).read(f"case_{number}") for number in range(6)]
        assert Calibration.load(output) == fit(sound, ignore_index=255)


@pytest.mark.parametrize("command", COMMANDS)
def test_only_bad_files(tmp_path, command):
    for name in "abc":
        (tmp_path / f"{name}.npz").write_bytes(b"nothing")
    result = run_on(command, tmp_path, tmp_path / "out.json")
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert all(f"{name}.npz cannot be read as .npz" in result.stderr for name in "abc")


def test_too_few_good_files_for_the_folds(folder, tmp_path):
    for number in range(4):
        (folder / f"case_{number}.npz").write_bytes(b"nothing")
    result = run("calibrate", folder, "-o", tmp_path / "c.json", "--folds", 3)
    assert result.exit_code == 1
    assert "folds must be from 2 to the 2 cases, got 3" in result.stderr
    assert "case_0.npz cannot be read" in result.stderr
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("command", ["compare", "calibrate", "tune"])
def test_a_case_without_a_cluster_is_named(folder, tmp_path, command):
    table = tmp_path / "clusters.csv"
    table.write_text("case,patient\n" + "".join(f"case_{i},{i // 2}\n" for i in range(5)))
    result = run_on(command, folder, tmp_path / "out.json", "--clusters", table)
    assert result.exit_code == 1
    assert "got none for ['case_5']" in result.stderr
    table.write_text("case,patient\n" + "".join(f"case_{i},\n" for i in range(6)))
    result = run_on(command, folder, tmp_path / "out.json", "--clusters", table)
    assert result.exit_code == 1
    assert "got a blank cell in ['case_0', '']" in result.stderr
    with pytest.raises(ValueError, match=r"got none for \['case_1'\]"):
        clusters_of(["case_0", "case_1"], {"case_0": "p", "case_1": " "})


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("command", ["compare", "calibrate", "tune", "predict"])
def test_a_case_whose_sums_are_not_1_is_named(folder, tmp_path, command):
    held = dict(np.load(folder / "case_3.npz"))
    np.savez(folder / "case_3.npz", **{**held, "probs": held["probs"] / 2})
    arguments = [folder, "-o", tmp_path / "out.json"]
    result = run(command, *arguments, *COMMANDS.get(command, ()))
    assert result.exit_code == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "probs of shape" in line]
    assert line.startswith("Note: case_3: probs of shape (1, 3, 30, 40) sum to ")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("calibrate", ["--bins", 10**9], "bins must be from 1 to 10000, got 1000000000"),
        ("calibrate", ["--seed", 10**30], "seed must fit into int64"),
        ("tune", ["--seed", 10**30], "seed must fit into int64"),
        ("tune", ["--folds", 100], "folds must be from 3 to the 6 cases, got 100"),
    ],
)
def test_numbers_without_measure_are_refused_before_the_work(
    folder, tmp_path, command, options, message, monkeypatch
):
    monkeypatch.setattr(CaseFolder, "read", None)
    result = run_on(command, folder, tmp_path / "out.json", *options)
    assert result.exit_code == 1
    assert_no_traceback(result)
    assert message in result.stderr


class TestEvaluateMasks:
    """Masks of 0 and 255, as image editors write them."""

    @pytest.fixture
    def written(self, tmp_path):
        mask = (np.random.default_rng(0).random((20, 20)) > 0.7).astype(np.uint8)
        other = mask.copy()
        other[:3] = 1
        for name, array in {
            "truth 1": mask, "truth 255": 255 * mask, "ours 1": other, "ours 255": 255 * other,
            "empty": 0 * mask, "void": np.where(mask, 255, 0), "truth 2": 2 * mask,
        }.items():  # fmt: skip
            (tmp_path / name).mkdir()
            write_labels(tmp_path / name / "a.png", array)
            write_labels(tmp_path / name / "b.npy", array)
        return tmp_path

    def score(self, written, prediction, truth, *options, classes=2):
        return run("evaluate", written / prediction, written / truth, "--classes", classes,
                   *options)  # fmt: skip

    @pytest.mark.parametrize("prediction", ["empty", "ours 1", "ours 255"])
    def test_a_truth_that_is_void_wherever_it_is_not_0(self, written, prediction):
        result = self.score(written, prediction, "truth 255")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "hold only 0 and 255, where 255 is ignore_index" in result.stderr
        assert "--ignore-index none" in result.stderr
        assert "100.00" not in result.stdout

    def test_predictions_that_hold_no_class(self, written):
        result = self.score(written, "ours 255", "truth 1")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "predictions of ours 255 must hold classes from 0 to 1" in result.stderr
        assert "hold only 0 and 255" in result.stderr
        assert "--ignore-index none" in result.stderr

    @pytest.mark.filterwarnings("default::UserWarning")
    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("value", [2, 128, 255])
    def test_one_prediction_of_another_value_is_named(self, written, value, classes):
        foreground = np.load(written / "ours 1" / "b.npy") > 0
        np.save(written / "ours 1" / "b.npy", np.where(foreground, value, 0))
        result = self.score(written, "ours 1", "truth 1", classes=classes)
        if value < classes:
            assert result.exit_code == 0
            return
        assert result.exit_code == 1
        assert "Not scored: b: its prediction by ours 1 must hold classes from 0" in result.stderr
        assert f"got only 0 and {value}" in result.stderr
        np.save(written / "ours 1" / "a.npy", np.array([[0, value, 1]]))
        np.save(written / "truth 1" / "a.npy", np.array([[0, 1, 1]]))
        for name in ("ours 1", "truth 1"):
            (written / name / "a.png").unlink()
        assert self.score(written, "ours 1", "truth 1", classes=classes).exit_code == 0

    def test_one_truth_of_255_is_named(self, written):
        label = np.load(written / "truth 1" / "b.npy")
        np.save(written / "truth 1" / "b.npy", 255 * label)
        result = self.score(written, "ours 1", "truth 1")
        assert result.exit_code == 1
        assert "Not scored: b: its label holds only 0 and 255" in result.stderr
        result = self.score(written, "ours 1", "truth 1", "--ignore-index", "none")
        assert result.exit_code == 0, result.stderr

    def test_none_reads_255_as_1_in_both(self, written):
        told = evaluate({"ours": written / "ours 1"}, written / "truth 1", classes=2)
        for prediction in ("ours 1", "ours 255"):
            for truth in ("truth 1", "truth 255"):
                result = self.score(written, prediction, truth, "--ignore-index", "none")
                assert result.exit_code == 0, result.stderr
                row = next(line for line in words(result) if line[:2] == ["class", "1"])
                assert row[2] == points(told.by_class("ours")[1])

    def test_an_empty_prediction_scores_nothing(self, written):
        result = self.score(written, "empty", "truth 1")
        assert result.exit_code == 0
        row = next(line for line in words(result) if line[:2] == ["class", "1"])
        assert row[2] == "0.00"

    def test_several_classes(self, written):
        result = self.score(written, "ours 1", "truth 255", classes=4)
        assert result.exit_code == 1
        assert "hold only 0 and 255, where 255 is ignore_index" in result.stderr
        result = self.score(written, "ours 255", "truth 2", classes=4)
        assert result.exit_code == 1
        assert "predictions of ours 255 must hold classes from 0 to 3" in result.stderr
        result = self.score(written, "ours 255", "truth 2", "--ignore-index", "none", classes=4)
        assert result.exit_code == 1
        assert "predictions of ours 255 must hold classes" in result.stderr

    def test_minus_one_is_a_value(self, written):
        label = np.load(written / "truth 1" / "b.npy").astype(int)
        for kind in ("truth 1", "ours 1"):
            (written / kind / "a.png").unlink()
        label[:3] = -1
        np.save(written / "truth 1" / "b.npy", label)
        assert self.score(written, "ours 1", "truth 1").exit_code == 1
        result = self.score(written, "ours 1", "truth 1", "--ignore-index", -1)
        assert result.exit_code == 0, result.stderr
        assert "100.00" in result.stdout


class TestClass255:
    """With more than 255 classes, the label that is ignored by default is that of a class."""

    @pytest.fixture
    def maps(self, tmp_path):
        folder = tmp_path / "many"
        folder.mkdir()
        labels = np.array([[0, 255], [255, 1]])
        probs = np.full((300, 2, 2), 0.1 / 299)
        np.put_along_axis(probs, labels[None], 0.9, 0)
        for name in "ab":
            np.savez(folder / f"{name}.npz", probs=probs.astype("f4"), label=labels)
        return folder

    @pytest.mark.parametrize("command", ["compare", "calibrate", "tune"])
    def test_maps_need_an_ignore_index(self, maps, tmp_path, command):
        (maps / "a.npz").rename(maps / "c.npz")
        (maps / "a.npz").write_bytes(b"nothing")  # of which no number of classes is known
        output = tmp_path / "told"
        result = run(command, maps, "-o", output)
        assert result.exit_code == 1
        assert "ignore_index must be given for 300 classes" in result.stderr
        result = run(command, maps, "-o", output, "--ignore-index", "none")
        assert "ignore_index must be given" not in result.stderr

    def test_labels_need_an_ignore_index(self, maps, tmp_path):
        for name in ("ours", "truth"):
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "a.npy", np.array([[0, 255], [255, 1]]))
        command = ["evaluate", tmp_path / "ours", tmp_path / "truth", "--classes"]
        result = run(*command, 256)
        assert result.exit_code == 1
        assert "ignore_index must be given for 256 classes" in result.stderr
        assert run(*command, 255).exit_code == 0
        assert run(*command, 256, "--ignore-index", "none").exit_code == 0

    def test_what_is_said_counts(self, maps):
        with pytest.raises(ValueError, match=r"must be given for 300 .* \(--ignore-index\)"):
            CaseFolder.open(maps)
        assert CaseFolder.open(maps, ignore_index=255).ignore_index == 255
        (maps / "meta.json").write_text(json.dumps({"ignore_index": None}))
        assert CaseFolder.open(maps).ignore_index is None
