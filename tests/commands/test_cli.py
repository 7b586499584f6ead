"""The command line: exit codes, the numbers it prints, and the files it leaves."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import rankseg
from conftest import CLASSES
from rankseg import RankSEG, cli
from rankseg._demo.example import load_sample
from rankseg.calibration import Calibration
from rankseg.dataset import DatasetRule
from rankseg.evaluation import Case, CaseFolder, Method, compare, standard_methods
from support.command_line import assert_no_traceback, library, points, run, signed


def tables(output):
    """Split the output at its titles: a list of the words of every line, by the title's start."""
    found, current = {}, []
    for line in output.splitlines():
        if line.startswith(("Per ", "Time")):
            current = found.setdefault(line.strip(), [])
        current.append(line.replace("pruned argmax", "pruned_argmax").split())
    return found


def image_rows(comparison, counted):
    """The rows that the table of means per image should have, as words."""
    rows = []
    for metric, name in (("dice", "Dice"), ("iou", "IoU")):
        rows.append([name])
        for method in comparison.methods:
            means = comparison.aggregates(method, metric, counted)
            row = ["pruned_argmax"] if method == "pruned argmax" else method.split()
            row.append(points(means["I"]))
            if method != "argmax":
                if comparison.predicted is not None:
                    row.append(signed(comparison.predicted_gain(method, metric)))
                paired = comparison.difference(method, metric, counted)
                row += [signed(paired.mean), signed(paired.low), "to", signed(paired.high)]
                row += [str(paired.wins), str(paired.losses), str(paired.ties)]
            rows.append([*row, points(means["C"]), points(means["D"])])
    return rows


def class_rows(comparison):
    """The rows that the table of classes should have, as words."""
    rows = []
    for i, name in enumerate(comparison.classes):
        row = [name, str(comparison.images_by_class[i])]
        for metric in ("dice", "iou"):
            best = [m for m in comparison.methods[2:] if metric in m] or comparison.methods[2:]
            scores = [
                comparison.by_class(method, metric)[i]
                for method in ("argmax", "pruned argmax", best[0])
            ]
            row += [*map(points, scores), signed(scores[2] - scores[0])]
        rows.append(row)
    return rows


def assert_prints(output, comparison):
    """Every number of the comparison is in its place in the output."""
    shown = tables(output)
    by_class = next(rows for title, rows in shown.items() if title.startswith("Per class"))
    assert [row for row in by_class if row and row[0] in comparison.classes] == class_rows(
        comparison
    )
    rules = {"label": "the label holds it", "either": "absent scores 0"}
    if not comparison.predicts_absent_class:
        del rules["either"]
        assert "No method predicts a class where it is absent" in output
    by_image = {title: rows for title, rows in shown.items() if title.startswith("Per image")}
    assert len(by_image) == len(rules)
    for counted, words in rules.items():
        rows = next(rows for title, rows in by_image.items() if words in title)
        expected = image_rows(comparison, counted)
        assert [row for row in rows if row in expected] == expected


class TestCompare:
    def test_prints_what_the_library_says(self, folder):
        result = run("compare", folder, "--details")
        assert result.exit_code == 0
        comparison = library(folder)
        # Else the test could not tell a row from another.
        assert comparison.predicts_absent_class
        assert comparison.difference("RankSEG dice RMA").losses > 0
        assert comparison.difference("RankSEG dice", baseline="RankSEG dice RMA").mean != 0
        assert_prints(result.stdout, comparison)

    @pytest.mark.parametrize(
        ("arguments", "options"),
        [
            (["--metric", "dice"], {"metrics": ["dice"]}),
            (["--metric", "IOU", "--solver", "JOINT"], {"metrics": ["iou"], "solvers": ["joint"]}),
            (["--pruning-prob", "0.99"], {"pruning_prob": 0.99}),
            (["--correlation", "0"], {"correlations": [0]}),
            (
                ["--presence", "argmax", "--presence", "all", "--correlation", "0"],
                {"presences": ["argmax", "all"], "correlations": [0]},
            ),
            (
                ["--correlation", "0.8", "--metric", "dice"],
                {"correlations": [0, 0.8], "metrics": ["dice"]},
            ),
        ],
    )
    def test_options_reach_the_library(self, folder, arguments, options):
        result = run("compare", folder, *arguments, "--details")
        assert result.exit_code == 0
        assert_prints(result.stdout, library(folder, **options))

    @pytest.mark.parametrize("pruning_prob", [0.5, 0.9])
    def test_shows_the_predicted_gain_beside_the_achieved_one(self, folder, pruning_prob):
        result = run("compare", folder, "--predicted", "--pruning-prob", pruning_prob)
        assert result.exit_code == 0
        told = library(folder, pruning_prob=pruning_prob, predict_above=pruning_prob)
        other = library(folder, pruning_prob=pruning_prob, predict_above=1.4 - pruning_prob)
        assert told.predicted_gain("RankSEG dice") != other.predicted_gain("RankSEG dice")
        assert_prints(result.stdout, told)
        legend = " ".join(result.stdout[result.stdout.index("A point is") :].split())
        assert "predicted: the change that the probabilities themselves expect" in legend
        assert f"whose largest probability exceeds {pruning_prob}, ignored pixels" in legend
        shown = result.stdout[result.stdout.index("Per class") : result.stdout.index("A point is")]
        assert all(len(line.rstrip()) <= 100 for line in shown.splitlines())

    def test_predicts_nothing_unless_asked_to(self, folder):
        output = run("compare", folder, "--details").stdout
        assert "predicted:" not in output
        assert "predicted" not in output[output.index("tied") - 50 : output.index("tied")]

    def test_the_report_holds_the_predicted_gains(self, folder, tmp_path):
        result = run("compare", folder, "--predicted", "--output", tmp_path / "report")
        assert result.exit_code == 0
        written = json.loads((tmp_path / "report" / "summary.json").read_text())["methods"]
        told = library(folder, predict_above=0.5)
        for method in told.methods:
            assert written[method]["predicted_gain"] == {
                metric: told.predicted_gain(method, metric) for metric in ("dice", "iou")
            }

    def test_class_weights_are_undone(self, folder):
        meta = {"classes": CLASSES, "class_weights": [1, 2, 8]}
        (folder / "meta.json").write_text(json.dumps(meta))
        result = run("compare", folder, "--prior-correction", "--details")
        assert result.exit_code == 0
        assert "Class weights undone" in result.stdout
        corrected = library(folder, prior_correction=True)
        assert corrected.by_class("argmax").tolist() != library(folder).by_class("argmax").tolist()
        assert_prints(result.stdout, corrected)

    def test_the_picture_is_of_the_maps_compared(self, folder, tmp_path, monkeypatch):
        meta = {"classes": CLASSES, "class_weights": [1, 2, 8]}
        (folder / "meta.json").write_text(json.dumps(meta))
        drawn = []
        monkeypatch.setattr(
            "rankseg.plots.comparison_figure",
            lambda path, examples, *_, **__: drawn.extend(examples),
        )
        run("compare", folder, "--output", tmp_path / "report", "--prior-correction")
        maps = CaseFolder.open(folder, prior_correction=True)
        expected = [maps.read(name).probs.argmax(0).numpy() for name in maps.names]
        assert drawn
        for example in drawn:
            assert any(np.array_equal(example.predictions["argmax"], one) for one in expected)

    def test_class_weights_that_are_not_known(self, folder):
        result = run("compare", folder, "--prior-correction")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "prior_correction needs class_weights" in result.stderr

    def test_a_calibration_of_other_cases_is_shown_too(self, folder, tmp_path):
        path = tmp_path / "calibration.json"
        cases = CaseFolder.open(folder)
        Calibration("softmax", [0.3] * 3, [0.0, 0.5, 0.1]).save(path)
        result = run("compare", folder, "--calibration", path, "--details")
        assert result.exit_code == 0
        methods = [
            *standard_methods(),
            Method("RankSEG dice calibrated", RankSEG("dice", calibration=path)),
            Method("RankSEG iou calibrated", RankSEG("iou", calibration=path)),
        ]
        told = compare(cases, methods, classes=cases.classes, ignore_index=cases.ignore_index)
        assert told.difference("RankSEG dice calibrated", baseline="RankSEG dice").mean != 0
        assert_prints(result.stdout, told)
        missing = run("compare", folder, "--calibration", tmp_path / "no.json")
        assert missing.exit_code != 0
        assert_no_traceback(missing)

    @pytest.mark.parametrize("presence", [None, "argmax"])
    def test_a_rule_of_other_cases_is_shown_too(self, folder, tmp_path, presence):
        path = tmp_path / "rule.json"
        cases = CaseFolder.open(folder)
        rule = DatasetRule("iou", [1.0, 1.5, 2.0], [0.4, 0.3, 0.2])
        rule.save(path)
        given = {} if presence is None else {"presence": presence}
        more = [] if presence is None else ["--presence", presence]
        result = run("compare", folder, "--rule", path, "--correlation", 0, *more, "--details")
        assert result.exit_code == 0, result.stderr
        name = "RankSEG iou rule" + (f" presence={presence}" if presence else "")
        fixed = standard_methods(correlations=[0], presences=[presence or "peak"])
        methods = [*fixed, Method(name, RankSEG("iou", rule=rule, **given))]
        told = compare(cases, methods, classes=cases.classes, ignore_index=cases.ignore_index)
        assert told.difference(name, baseline="argmax").mean != 0
        assert_prints(result.stdout, told)
        path.write_text("{}")
        broken = run("compare", folder, "--rule", path)
        assert broken.exit_code != 0
        assert_no_traceback(broken)
        assert "data-set rule" in broken.stderr

    def test_all_decides_by_every_model_and_a_rule(self, folder):
        result = run("compare", folder, "--all", "--metric", "iou", "--presence", "argmax",
                     "--details")  # fmt: skip
        assert result.exit_code == 0, result.stderr
        cases = CaseFolder.open(folder)
        rule = DatasetRule.fit(cases, "iou", pixels=1_000_000, ignore_index=cases.ignore_index)
        options = {"metrics": ["iou"], "presences": ["argmax"], "every": True}
        methods = [
            *standard_methods(**options),
            Method(
                "RankSEG iou rule presence=argmax", RankSEG("iou", rule=rule, presence="argmax")
            ),
        ]
        names = [method.name for method in methods]
        assert "RankSEG iou DEP presence=argmax" in names
        assert len(names) == 8
        told = compare(cases, methods, classes=cases.classes, ignore_index=cases.ignore_index)
        assert_prints(result.stdout, told)

    def test_all_is_refused_beside_some(self, folder):
        result = run("compare", folder, "--all", "--solver", "RMA")
        assert result.exit_code == 2
        assert "leave out solvers" in " ".join(result.stderr.split())

    def test_fits_a_terminal_of_80_columns(self, folder):
        output = run("compare", folder, "--details").stdout
        answer = output[output.index("worst") : output.index("Dice in points")]
        details = output[output.index("Per class") : output.index("A point is")]
        assert all(len(line.rstrip()) <= 80 for line in (answer + details).splitlines())

    def test_no_number_is_cut_off_in_a_narrow_terminal(self, folder, monkeypatch):
        monkeypatch.setattr("rankseg._commands._terminal.PIPED_WIDTH", 30)
        comparison = library(folder, solvers=["joint"])
        assert_prints(run("compare", folder, "--solver", "joint", "--details").stdout, comparison)

    def test_a_broken_file_is_named_and_the_others_are_done(self, folder):
        expected = library(folder)
        (folder / "broken [red].npz").write_bytes(b"nothing of the kind")
        np.savez(folder / "case_2b.npz", probs=np.full((3, 2, 2), 1 / 3))
        np.savez(folder / "wide.npz", probs=np.full((2, 2, 2), 0.5), label=np.zeros((2, 2), int))
        result = run("compare", folder, "--details")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert_prints(result.stdout, expected)
        messages = result.stderr.splitlines()
        assert len(messages) == 3
        assert re.match(
            r"Not compared: broken \[red\]: .*broken \[red\]\.npz cannot be read as .npz",
            messages[0],
        )
        assert messages[1].startswith("Not compared: case_2b: ")
        assert "it holds scores, not labels; the arrays are ['probs']" in messages[1]
        assert messages[2].startswith("Not compared: wide: has maps of 2 classes where 3")

    def test_nothing_but_broken_files(self, folder):
        for file in folder.glob("*.npz"):
            file.write_bytes(b"")
        result = run("compare", folder)
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "no case could be compared, of 6 given" in result.stderr
        assert "case_5.npz cannot be read" in result.stderr
        assert result.stdout == ""

    def test_a_folder_that_is_none(self, tmp_path):
        for place, reason in (
            (tmp_path / "missing", "is not a folder"),
            (tmp_path, "holds no file with an ending of"),
        ):
            result = run("compare", place)
            assert result.exit_code == 1
            assert_no_traceback(result)
            assert reason in result.stderr

    def test_options_that_make_no_sense(self, folder):
        for arguments in (
            ["--pruning-prob", "1.5"],
            ["--metric", "acc"],
            ["--solver", "best"],
            ["--presence", "some"],
            ["--correlation", "-0.1"],
            ["--correlation", "1"],
            ["--correlation", "nan"],
        ):
            result = run("compare", folder, *arguments)
            assert result.exit_code == 2
            assert_no_traceback(result)

    def test_no_progress_bar_where_nobody_looks(self, folder):
        assert run("compare", folder).stderr == ""

    def test_the_report_holds_tables_and_a_picture(self, folder, tmp_path):
        output = tmp_path / "new" / "report"
        result = run("compare", folder, "--output", output)
        assert result.exit_code == 0
        names = {file.name for file in output.iterdir()}
        assert names == {"cases.csv", "classes.csv", "summary.json", "example.png"}
        written = json.loads((output / "summary.json").read_text())
        expected = library(folder).summary()
        for summary in (written, expected):
            for method in summary["methods"].values():
                del method["median_seconds"]
        assert written == expected
        pixels = imread(output / "example.png")
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 5

    def test_the_picture_is_of_the_metric_asked_for(self, folder, tmp_path, monkeypatch):
        drawn = []
        monkeypatch.setattr(
            "rankseg.plots.comparison_figure",
            lambda path, examples, *_, **__: drawn.extend(examples),
        )
        run("compare", folder, "--output", tmp_path / "report", "--metric", "iou")
        assert drawn
        assert all("mean IoU argmax" in example.title for example in drawn)
        assert all(list(example.predictions) == ["argmax", "RankSEG iou"] for example in drawn)

    def test_one_class_gets_a_background_in_the_picture(self, tmp_path):
        maps = tmp_path / "maps"
        maps.mkdir()
        rng = np.random.default_rng(0)
        for name in "ab":
            probs = rng.beta(0.5, 1, (1, 20, 20)).astype(np.float16)
            np.savez(maps / f"{name}.npz", probs=probs, label=rng.random((20, 20)) < probs[0])
        result = run("compare", maps, "--output", tmp_path / "report", "--details")
        assert result.exit_code == 0
        assert "No method predicts a class where it is absent" in result.stdout
        assert imread(tmp_path / "report" / "example.png").shape[2] >= 3

    def test_a_report_that_cannot_be_written(self, folder, tmp_path):
        (tmp_path / "file").write_text("in the way")
        result = run("compare", folder, "--output", tmp_path / "file" / "report")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "file" in result.stderr
        assert result.stdout == ""  # noticed before the work

    @pytest.mark.parametrize("name", ["camvid-espnet-full", "drive-lwnet"])
    def test_real_maps(self, real_maps, name):
        result = run("compare", real_maps / name, "--details")
        assert result.exit_code == 0
        assert_prints(result.stdout, library(real_maps / name))


class TestDemo:
    def test_prints_what_the_library_says_and_writes_a_picture(self, tmp_path):
        picture = tmp_path / "demo.png"
        result = run("demo", "--output", picture, "--details")
        assert result.exit_code == 0
        sample = load_sample()
        pairs = zip(sample.probs, sample.labels, strict=True)
        cases = [Case(str(i), *pair) for i, pair in enumerate(pairs)]
        comparison = compare(cases, standard_methods(), classes=sample.classes)
        assert_prints(result.stdout, comparison)
        pixels = imread(picture)
        assert pixels.shape[1] > 1500  # image, truth, two predictions and where they differ
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100
        assert [file.name for file in tmp_path.iterdir()] == ["demo.png"]

    def test_a_place_that_is_none_is_refused_first(self, tmp_path):
        result = run("demo", "--output", tmp_path / "missing" / "demo.png")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert result.stdout == ""
        assert "missing" in result.stderr


class TestInfo:
    def test_says_what_would_run_and_why(self, backend):
        result = run("info")
        assert result.exit_code == 0
        rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
        assert rows["rankseg"].strip() == rankseg.__version__
        assert rows["torch"].strip() == torch.__version__
        shown = next(line for line in result.stdout.splitlines() if line.startswith("CPU backend"))
        assert backend in shown
        reason = {"native": "compiled kernels", "torch": "named by RANKSEG_BACKEND"}[backend]
        assert reason in shown

    def test_a_backend_that_is_none(self, monkeypatch):
        monkeypatch.setenv("RANKSEG_BACKEND", "abacus")
        result = run("info")
        assert result.exit_code == 1
        assert_no_traceback(result)
        assert "abacus" in result.stderr


class TestDoor:
    @pytest.fixture(autouse=True)
    def handler(self):
        before = signal.getsignal(signal.SIGINT)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("module", ["typer", "rich", "matplotlib"])
    def test_without_the_extra_it_says_what_to_install(self, monkeypatch, capsys, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 1
        shown = capsys.readouterr()
        assert "pip install 'rankseg[cli]'" in [line.strip() for line in shown.err.splitlines()]
        assert module in shown.err
        assert shown.out == ""

    def test_without_the_extra_there_is_no_traceback(self):
        program = "import sys; sys.modules['typer'] = None\nfrom rankseg.cli import main; main()\n"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "    pip install 'rankseg[cli]'\n" in done.stderr

    def test_runs_as_a_module(self):
        command = [sys.executable, "-m", "rankseg", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"rankseg {rankseg.__version__}\n"

    def test_version_and_help(self):
        assert run("--version").stdout == f"rankseg {rankseg.__version__}\n"
        shown = run("--help")
        assert shown.exit_code == 0
        assert all(command in shown.stdout for command in ("demo", "compare", "info"))
