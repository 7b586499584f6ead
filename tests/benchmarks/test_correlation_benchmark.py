"""The measurement of ``benchmarks/correlation.py``: its sums, and a run of it on small maps."""

from __future__ import annotations

import csv
import doctest
import json
import math

import numpy as np
import pytest
import torch

from rankseg import metrics
from rankseg.evaluation import CaseFolder, compare, standard_methods
from rankseg.metrics import Counts
from support.maps import labelled

FRACTIONS = (0.1, 0.25, 0.5)


@pytest.fixture
def script(benchmark):
    return benchmark("correlation")


@pytest.fixture
def resampling(benchmark):
    return benchmark("_resampling")


def some_counts(images, classes, seed=0):
    """Counts in which classes, and in the last image all of them, are missing here and there."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 50, (3, images, classes)) * (rng.random((3, images, classes)) < 0.6)
    table[:2, 0, 0], table[2, 0, 0] = 0, 7
    if classes > 1:
        table[[0, 2], :, 1] = 0  # a class that no label holds, predicted here and there
    table[:, -1] = 0
    return Counts(*torch.tensor(table))


class TestResampling:
    def test_its_examples_are_right(self, resampling):
        assert doctest.testmod(resampling).failed == 0
        assert doctest.testmod(resampling).attempted > 0

    @pytest.mark.parametrize("metric", ["dice", "iou"])
    @pytest.mark.parametrize("counted", ["label", "either"])
    @pytest.mark.parametrize("classes", [1, 4])
    def test_a_draw_scores_as_the_images_drawn(self, resampling, metric, counted, classes):
        counts = some_counts(9, classes)
        weights = resampling.draws([str(i // 2) for i in range(9)], resamples=20)
        found = resampling.aggregates(counts, metric, counted, weights, FRACTIONS)
        for draw, times in enumerate(weights.astype(int)):
            images = np.repeat(np.arange(9), times)
            drawn = Counts(counts.tp[images], counts.fp[images], counts.fn[images])
            expected = metrics.summary(drawn, metric, counted=counted, worst=FRACTIONS)
            here = {name: values[draw] for name, values in found.items()}
            assert here == pytest.approx(expected, nan_ok=True)

    def test_nothing_known_is_nothing(self, resampling):
        counts = Counts(*torch.zeros(3, 2, 3, dtype=torch.int64))
        found = resampling.aggregates(counts, "iou", "either", np.ones((1, 2)), FRACTIONS)
        assert all(math.isnan(values[0]) for values in found.values())

    def test_clusters_are_drawn_whole(self, resampling):
        clusters = ["a", "b", "a", "c", "b", "c", "d", "d"]
        weights = resampling.draws(clusters, resamples=500)
        assert weights[0].tolist() == [1] * 8
        assert (weights.sum(1) == 8).all()  # clusters of one size
        for name in "abcd":
            members = weights[:, [i for i, cluster in enumerate(clusters) if cluster == name]]
            assert (members[:, 0] == members[:, 1]).all()
        assert weights[1:].mean(0) == pytest.approx(np.ones(8), abs=0.15)


class TestClusters:
    @pytest.mark.parametrize(
        ("folder", "names", "clusters"),
        [
            ("nuclei", ["a_1", "a_2"], ["a_1", "a_2"]),
            ("camvid-x", ["s_1", "s_2", "s_3"], ["block 0", "block 0", "block 1"]),
            ("camvid-x", ["s_1", "s_2", "t_7"], ["s", "s", "t"]),
        ],
    )
    def test_are_drives_or_else_blocks_of_frames(self, script, tmp_path, folder, names, clusters):
        found = script.clusters_of(CaseFolder(tmp_path / folder, tuple(names)))
        assert list(found) == clusters


@pytest.fixture
def root(tmp_path):
    """Two sets: three classes with class weights, of six images; and one class, of five."""
    for name, classes, images in (("camvid-small", 3, 6), ("spots", 1, 5)):
        folder = tmp_path / "maps" / name
        folder.mkdir(parents=True)
        for index in range(images):
            probs, label = labelled(index, classes=max(classes, 2))
            probs[-1] *= 0.65 + 0.07 * index  # a peak on either side of the presence thresholds
            probs[0] = 1 - probs[1:].sum(0)
            label[label == index % 3] = 0  # some images lack a class
            label[:2] = 255
            np.savez(folder / f"drive_{index}.npz", probs=probs[-classes:], label=label)
        meta = {"ignore_index": 255}
        if classes > 1:
            meta["class_weights"] = [1.0, 3.0, 9.0]
        (folder / "meta.json").write_text(json.dumps(meta))
    return tmp_path / "maps"


class TestCounting:
    def test_once_for_all_that_keep_the_same_classes_is_as_often_as_it_takes(self, script, root):
        folder = CaseFolder.open(root / "camvid-small")
        rules = list(script.all_rules([0.0]))
        prunings = set()
        for name in folder.names:
            counted = script.count_case(folder, rules, name)
            probs = folder.read(name).probs.float()[None]
            for (rule, pruning_prob), counts in counted.items():
                decision = rule.decide(probs, pruning_prob)
                label = folder.read(name).label[None]
                expected = metrics.count(decision, label, num_classes=3, ignore_index=255)
                assert torch.equal(counts.tp, expected.tp)
                assert torch.equal(counts.fp, expected.fp)
                assert torch.equal(counts.fn, expected.fn)
            prunings |= {tuple((probs.amax((0, 2, 3)) > p).tolist()) for p in script.PRUNING_PROBS}
        assert len(prunings) > 1  # or nothing would have been pruned


class TestRun:
    @pytest.fixture
    def written(self, script, root, tmp_path, monkeypatch):
        monkeypatch.setattr(script, "RESAMPLES", 200)
        monkeypatch.setattr(script.torch, "set_num_threads", lambda threads: None)
        table, page = tmp_path / "new" / "table.csv", tmp_path / "page.md"
        arguments = ["correlation.py", root, "--correlations", 0, 0.5, "--workers", 2]
        arguments += ["--table", table, "--output", page]
        monkeypatch.setattr("sys.argv", [str(argument) for argument in arguments])
        script.main()
        with table.open(newline="") as file:
            return list(csv.DictReader(file)), page.read_text()

    def test_every_way_has_its_row(self, written):
        rows, _ = written
        per_score = 1 + (1 + 2 * 2) * 4  # argmax; pruned argmax, solvers, correlations; thresholds
        readings = 1 + 2  # one set as stored, the other also corrected, against two baselines
        assert len(rows) == 4 * per_score * (readings + 1)
        assert {row["maps"] for row in rows if row["set"] == "spots"} == {"stored"}
        assert all(row["commit"] and row["machine"] and row["date"] for row in rows)

    @pytest.mark.parametrize("corrected", [False, True])
    def test_its_figures_are_those_of_the_library(self, written, root, corrected):
        rows, _ = written
        folder = CaseFolder.open(root / "camvid-small", prior_correction=corrected)
        names = {"argmax": "argmax", "pruned argmax": "pruned argmax"}
        names |= {"RMA": "RankSEG {} RMA", "joint": "RankSEG {} joint"}
        for pruning_prob in (0.5, 0.9):
            methods = standard_methods(
                pruning_prob, solvers=["RMA", "joint"], correlations=[0, 0.5]
            )
            comparison = compare(folder, methods, ignore_index=255)
            for row in rows:
                if row["set"] != "camvid-small" or row["baseline"] != "argmax":
                    continue
                if (row["maps"] == "corrected") != corrected:
                    continue
                if row["pruning_prob"] not in ("", str(pruning_prob)):
                    continue
                metric, counted = row["metric"], row["counted"]
                method = names[row["method"]].format(metric)
                method += " r=0.5" if row["correlation"] == "0.5" else ""
                method = method.removesuffix(" joint r=0.5")  # RankSEG by default
                for name, value in comparison.aggregates(method, metric, counted).items():
                    assert float(row[f"{name} value"]) == pytest.approx(100 * value, abs=1e-3)
                difference = comparison.difference(method, metric, counted)
                assert float(row["I change"]) == pytest.approx(100 * difference.mean, abs=1e-3)
                record = [int(row[name]) for name in ("won", "lost", "tied")]
                assert record == [difference.wins, difference.losses, difference.ties]
                assert float(row["I low"]) <= float(row["I change"]) <= float(row["I high"])

    def test_corrected_maps_are_held_against_both_argmaxes(self, written):
        rows, _ = written
        baselines = {}
        for row in rows:
            if row["method"] == "argmax" and row["maps"] == "corrected":
                baselines.setdefault(row["baseline"], []).append(float(row["I change"]))
        assert baselines["argmax"] == [0, 0, 0, 0]
        assert all(change != 0 for change in baselines["argmax as stored"])

    def test_the_page_says_what_the_table_holds(self, written):
        rows, page = written
        advised = [
            row
            for row in rows
            if (row["method"], row["correlation"], row["pruning_prob"]) == ("joint", "0.5", "0.5")
        ]
        # The mean and the lowest change over the sets, by image, on the maps as stored.
        shown = page[page.index("### All sets as stored") :]
        line = next(line for line in shown.splitlines() if line.startswith("| joint r=0.5 "))
        for column, counted in enumerate(("label", "either")):
            changes = [
                float(row["I change"])
                for row in advised
                if row["maps"] == "stored" and (row["metric"], row["counted"]) == ("dice", counted)
            ]
            expected = [sum(changes) / len(changes), min(changes)]
            assert len(changes) == 2
            found = [float(number) for number in line.split("|")[2 + column].split("/")]
            assert found == pytest.approx(expected, abs=0.006)
        # Every loss is named.
        losses = set()
        for row in advised:
            for name in ("I", "C", "D", "I@0.25", "C@0.25"):
                if float(row[f"{name} change"]) <= -0.0505:
                    losses.add((row["set"], row["maps"], row["baseline"], row["metric"], name))
        shown = page[page.index("### Where this setting loses") : page.index("## Over the sets")]
        assert losses
        assert len(losses) <= shown.count("\n| ") - 2

    def test_the_page_has_a_section_for_every_reading(self, written):
        _, page = written
        titles = [line for line in page.splitlines() if line.startswith("## ")]
        assert titles[-3:] == [
            "## camvid-small",
            "## camvid-small, class weights undone",
            "## spots",
        ]
        assert "6 images, drawn as 3 clusters." in page
        assert "nan" not in page
        assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
