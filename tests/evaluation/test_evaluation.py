"""Cases, methods, paired comparisons: against numbers derived by hand or by plainer code."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from rankseg import RankSEG, evaluation
from rankseg._files import whole as _files
from rankseg.calibration import fit, reliability
from rankseg.evaluation import (
    Case,
    CaseFolder,
    Comparison,
    Failure,
    Method,
    argmax,
    bootstrap_interval,
    compare,
    read_case,
    standard_methods,
)
from rankseg.evaluation.folds import folds_of
from rankseg.evaluation.seen_labels import SeenLabels
from rankseg.metrics import Counts, summary
from support.maps import labelled

SETS = ("camvid-cgnet", "camvid-enet", "drive-lwnet", "hippocampus-unet3d", "nuclei-unet2d")


LOOKS = [
    lambda cases: compare(cases, standard_methods(), ignore_index=0),
    lambda cases: fit(cases, ignore_index=0),
    lambda cases: reliability(cases, ignore_index=0),
]


def write_case(folder, name, probs, label):
    np.savez_compressed(folder / f"{name}.npz", probs=probs, label=label)


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def constant(name, labels):
    """A method that gives the same labels whatever the maps."""
    return Method(name, lambda probs: torch.tensor(labels)[None])


def comparison_of(baseline, other):
    """Compare two methods given as lists of (tp, fp, fn), each of one entry per class."""
    counts = {}
    for name, images in (("argmax", baseline), ("other", other)):
        table = torch.tensor(images)  # (images, classes, 3)
        counts[name] = Counts(*table.unbind(-1))
    images, classes = counts["argmax"].tp.shape
    return Comparison(
        classes=tuple("abcdef"[:classes]),
        cases=tuple(f"case {i}" for i in range(images)),
        counts=counts,
        seconds={name: np.zeros(images) for name in counts},
    )


class TestReadCase:
    def test_keeps_what_was_stored(self, tmp_path):
        probs, label = labelled(0, shape=(5, 6, 7))
        write_case(tmp_path, "volume.a", probs, label)
        case = read_case(tmp_path / "volume.a.npz")
        assert case.name == "volume.a"
        assert case.probs.dtype == torch.float16
        assert np.array_equal(case.probs.numpy(), probs)
        assert np.array_equal(case.label.numpy(), label)

    @pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
    @pytest.mark.parametrize("label_dtype", ["u2", ">i4", "?"])
    def test_takes_any_byte_order_and_integer(self, tmp_path, dtype, label_dtype):
        probs = np.linspace(0, 1, 8).reshape(2, 4).astype(dtype)
        label = np.array([0, 1, 1, 0]).astype(label_dtype)
        write_case(tmp_path, "x", probs, label)
        case = read_case(tmp_path / "x.npz")
        assert np.array_equal(case.probs.numpy(), probs)
        assert case.label.tolist() == [0, 1, 1, 0]

    def test_leaves_other_arrays_alone(self, tmp_path):
        probs, label = labelled(1)
        np.savez(tmp_path / "x.npz", probs=probs, label=label, notes=np.array([{"a": 1}]))
        assert read_case(tmp_path / "x.npz").probs.shape == probs.shape

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (
                npz_bytes(probs=np.zeros((2, 3))),
                r"scores, not labels; the arrays are \['probs'\]: store the label beside the maps",
            ),
            (npz_bytes(p=np.zeros(3), q=np.zeros(3)), "no array 'label' or 'labels'"),
            (
                npz_bytes(probs=np.zeros((2, 3)), label=np.zeros(4, int)),
                r"shape of the maps, \(3,\)",
            ),
            (npz_bytes(probs=np.zeros((2, 3)), label=np.zeros(3)), "labels must be integers"),
            (npz_bytes(probs=np.zeros((2, 3), int), label=np.zeros(3, int)), "must be floating"),
            (npz_bytes(probs=np.zeros(3), label=np.array(0)), r"maps must be floating"),
            (npz_bytes(probs=np.zeros((0, 3)), label=np.zeros(3, int)), "none of them empty"),
            (npz_bytes(probs=np.array([None]), label=np.zeros(3, int)), "cannot be read"),
            (npz_bytes(probs=np.zeros((2, 99)), label=np.zeros(99, int))[:-40], "cannot be read"),
            (2 * npz_bytes(probs=np.zeros((2, 3)), label=np.zeros(3, int)), "more follows"),
            (
                npz_bytes(probs=np.zeros((2, 3)), label=np.full(3, 2**64 - 1, "u8")),
                "must fit into int64, got 18446744073709551615",
            ),
            (b"", "cannot be read"),
            (b"not an archive", "cannot be read"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path, content, reason):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_case(tmp_path / "x.npz")

    def test_a_damaged_member_is_noticed(self, tmp_path):
        content = bytearray(npz_bytes(probs=np.full((2, 999), 0.5), label=np.zeros(999, int)))
        content[5000] ^= 255
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_case(tmp_path / "x.npz")


class TestCase:
    def test_refuses_dtypes_that_cannot_be_meant(self):
        with pytest.raises(TypeError, match="probs must be floating"):
            Case("x", torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
        with pytest.raises(TypeError, match="label must hold integers"):
            Case("x", torch.zeros(2, 3), torch.zeros(3))


class TestCaseFolder:
    def test_lists_cases_without_reading_them(self, tmp_path):
        (tmp_path / "b.npz").write_bytes(b"broken")
        write_case(tmp_path, "a", *labelled(0))
        (tmp_path / "._a.npz").write_bytes(b"left by an archiver")
        (tmp_path / "notes.txt").write_text("not a case")
        folder = CaseFolder.open(tmp_path)
        assert folder.names == ("a", "b")
        assert len(folder) == 2
        assert folder.classes is None
        assert folder.ignore_index == 255

    def test_a_broken_file_does_not_stop_the_others(self, tmp_path):
        for name in ("a", "c"):
            write_case(tmp_path, name, *labelled(0))
        (tmp_path / "b.npz").write_bytes(b"broken")
        read = list(CaseFolder.open(tmp_path))
        assert [case.name for case in read] == ["a", "b", "c"]
        assert [type(case) for case in read] == [Case, Failure, Case]
        assert "cannot be read" in read[1].reason

    @pytest.mark.parametrize(
        ("meta", "classes", "ignore_index"),
        [
            ('{"classes": ["sky", "road"], "ignore_index": 7}', ("sky", "road"), 7),
            ('{"ignore_index": null}', None, None),
            ('{"class_weights": [1.0, 2.0]}', None, 255),
        ],
    )
    def test_reads_meta(self, tmp_path, meta, classes, ignore_index):
        write_case(tmp_path, "a", *labelled(0))
        (tmp_path / "meta.json").write_text(meta)
        folder = CaseFolder.open(tmp_path)
        assert (folder.classes, folder.ignore_index) == (classes, ignore_index)

    def test_reads_class_weights(self, tmp_path):
        write_case(tmp_path, "a", *labelled(0))
        assert CaseFolder.open(tmp_path).class_weights is None
        (tmp_path / "meta.json").write_text('{"class_weights": [1, 2.5, 3, 4]}')
        assert CaseFolder.open(tmp_path).class_weights == (1.0, 2.5, 3.0, 4.0)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_undoes_class_weights_where_asked_to(self, tmp_path, dtype):
        probs, label = labelled(0)
        write_case(tmp_path, "a", probs.astype(dtype), label)
        weights = [1.0, 60_000.0, 3.0, 0.5]
        (tmp_path / "meta.json").write_text(json.dumps({"class_weights": weights}))
        plain = CaseFolder.open(tmp_path).read("a")
        assert np.array_equal(plain.probs.numpy(), probs)
        folder = CaseFolder.open(tmp_path, prior_correction=True)
        case = folder.read("a")
        assert torch.equal(case.label, plain.label)
        assert case.probs.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
        expected = probs.astype(float) / np.reshape(weights, (4, 1, 1))
        expected /= expected.sum(0)
        np.testing.assert_allclose(case.probs, expected, rtol=1e-6)
        assert torch.equal(next(iter(folder)).probs, case.probs)

    def test_cannot_undo_weights_it_does_not_know(self, tmp_path):
        write_case(tmp_path, "a", *labelled(0))
        with pytest.raises(ValueError, match=r"prior_correction needs class_weights.*meta\.json"):
            CaseFolder.open(tmp_path, prior_correction=True)

    def test_a_case_of_other_classes_than_weights_does_not_stop_the_others(self, tmp_path):
        write_case(tmp_path, "a", *labelled(0, classes=3))
        write_case(tmp_path, "b", *labelled(0, classes=4))
        (tmp_path / "meta.json").write_text('{"class_weights": [1, 2, 3, 4]}')
        first, second = CaseFolder.open(tmp_path, prior_correction=True)
        assert "class_weights must have one entry for each of the 3 classes" in first.reason
        assert isinstance(second, Case)

    @pytest.mark.parametrize(
        "meta",
        [
            "{",
            "[]",
            '{"classes": ["a", "b", "a"]}',
            '{"classes": ["a", " "]}',
            '{"classes": "sky"}',
            '{"classes": [1]}',
            '{"classes": []}',
        ]
        + [f'{{"ignore_index": {value}}}' for value in ("1.5", "true", '"255"')]
        + [f'{{"class_weights": {value}}}' for value in ("2", '"12"', '["1"]', "[-1]", "[NaN]")]
        + ['{"class_weights": [1, 2], "classes": ["a", "b", "c"]}'],
    )
    def test_refuses_meta_that_makes_no_sense(self, tmp_path, meta):
        write_case(tmp_path, "a", *labelled(0))
        (tmp_path / "meta.json").write_text(meta)
        with pytest.raises(ValueError, match=r"meta\.json"):
            CaseFolder.open(tmp_path)

    def test_says_where_nothing_is(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"holds no file with an ending of \['.npz', '.zarr'\]$"
        ):
            CaseFolder.open(tmp_path)
        with pytest.raises(FileNotFoundError, match="is not a folder"):
            CaseFolder.open(tmp_path / "missing")


class TestCompare:
    def test_counts_by_hand(self):
        # Void pixels (9) are in no count, whatever is predicted there.
        label = torch.tensor([[0, 0, 1], [2, 9, 9]])
        case = Case("x", torch.zeros(3, 2, 3), label)
        methods = [
            constant("argmax", [[0, 1, 1], [1, 2, 0]]),
            constant("right", [[0, 0, 1], [2, 1, 1]]),
        ]
        comparison = compare([case], methods, classes=["a", "b", "c"], ignore_index=9)
        counts = comparison.counts["argmax"]
        assert counts.tp.tolist() == [[1, 1, 0]]
        assert counts.fp.tolist() == [[0, 2, 0]]
        assert counts.fn.tolist() == [[1, 0, 1]]
        assert comparison.by_class("argmax").tolist() == [2 / 3, 2 / 4, 0]
        assert comparison.by_class("argmax", "iou").tolist() == [1 / 2, 1 / 3, 0]
        assert comparison.by_image("right").tolist() == [1]
        assert comparison.images_by_class.tolist() == [1, 1, 1]
        assert not comparison.predicts_absent_class

    def test_one_class_is_foreground_against_background(self):
        label = torch.tensor([1, 1, 0, 0, 255, 255])
        case = Case("x", torch.tensor([[0.9, 0.4, 0.6, 0.1, 0.9, 0.1]]), label)
        comparison = compare([case], standard_methods(), ignore_index=255)
        assert comparison.classes == ("class 0",)
        counts = comparison.counts["argmax"]  # 0.9 and 0.6 are above one half
        assert (counts.tp.item(), counts.fp.item(), counts.fn.item()) == (1, 1, 1)
        counts = comparison.counts["RankSEG dice RMA"]  # 0.4 too: 3.8/6.9 against 3.0/5.9
        assert (counts.tp.item(), counts.fp.item(), counts.fn.item()) == (2, 1, 0)

    def test_masks_that_overlap_are_counted_too(self):
        masks = Method("masks", lambda probs: probs > 0.3)
        case = Case("x", torch.tensor([[0.6, 0.4], [0.4, 0.6]]), torch.tensor([0, 1]))
        counts = compare([case], [masks]).counts["masks"]
        assert counts.tp.tolist() == [[1, 1]]
        assert counts.fp.tolist() == [[1, 1]]

    def test_methods_get_float32_of_one_whole_image(self):
        seen = []
        method = Method("spy", lambda probs: seen.append(probs) or probs.argmax(1))
        probs, label = labelled(5)
        label[:10] = 255
        compare([Case("x", torch.tensor(probs), torch.tensor(label))], [method], ignore_index=255)
        for maps in seen:
            assert maps.dtype == torch.float32
            assert np.array_equal(maps.numpy(), probs[None].astype(np.float32))

    def test_the_first_call_is_not_timed(self, monkeypatch):
        calls = []
        method = Method("spy", lambda probs: calls.append("decide") or probs.argmax(1))
        clock = iter(range(1000))
        monkeypatch.setattr(
            evaluation.decided_cases.time,
            "perf_counter",
            lambda: calls.append("clock") or next(clock),
        )
        probs, label = map(torch.tensor, labelled(0))
        comparison = compare([Case("a", probs, label), Case("b", probs, label)], [method])
        timed = ["clock", "decide", "clock"]
        assert calls == ["decide", *timed, *timed]
        assert comparison.seconds["spy"].tolist() == [1, 1]

    def test_what_cannot_be_compared_is_reported_and_the_rest_is_done(self):
        probs, label = map(torch.tensor, labelled(0))
        wrong_label = label.clone()
        wrong_label[0, 0] = 17
        not_a_number = probs.clone()
        not_a_number[0, 0, 0] = math.nan
        cases = [
            Case("good", probs, label),
            Failure("unreadable", "no such thing"),
            Case("logits", probs * 20 - 10, label),
            Case("nan", not_a_number, label),
            Case("label", probs, wrong_label),
            Case("classes", probs[:3], label),
            Case("also good", probs, label),
        ]
        comparison = compare(cases, standard_methods(), ignore_index=255)
        assert comparison.cases == ("good", "also good")
        assert {name: len(s) for name, s in comparison.seconds.items()} == dict.fromkeys(
            comparison.methods, 2
        )
        reasons = {failure.name: failure.reason for failure in comparison.failures}
        assert list(reasons) == ["unreadable", "logits", "nan", "label", "classes"]
        assert reasons["unreadable"] == "no such thing"
        assert "look like logits" in reasons["logits"]
        assert "NaN" in reasons["nan"]
        assert "17" in reasons["label"]
        assert reasons["classes"] == "has maps of 3 classes where 4 are expected"

    def test_only_one_case_is_asked_for_at_a_time(self):
        probs, label = map(torch.tensor, labelled(0))
        events = []

        def cases():
            for name in "ab":
                events.append(f"read {name}")
                yield Case(name, probs, label)

        compare(cases(), [Method("m", lambda p: events.append("decide") or p.argmax(1))])
        assert events == ["read a", "decide", "decide", "read b", "decide"]

    def test_nothing_to_compare_is_an_error_that_says_why(self):
        with pytest.raises(ValueError, match="0 given"):
            compare([], standard_methods())
        with pytest.raises(ValueError, match=r"1 given\n  x: broken"):
            compare([Failure("x", "broken")], standard_methods(), classes=["a"])

    def test_methods_need_names_of_their_own(self):
        with pytest.raises(ValueError, match="different names"):
            compare([], [Method("a", argmax), Method("a", argmax)])
        with pytest.raises(ValueError, match="at least one"):
            compare([], [])


class TestScores:
    def test_means_by_hand(self):
        # Dice of class a: 1, 0.5; of b: 0.8 and, where the label lacks it, a false class.
        comparison = comparison_of(
            [[(5, 0, 0), (2, 1, 0)], [(1, 0, 2), (0, 3, 0)]],
            [[(5, 0, 0), (2, 1, 0)], [(1, 0, 2), (0, 0, 0)]],
        )
        assert comparison.by_class("argmax").tolist() == [0.75, 0.8]
        assert comparison.by_class("argmax", counted="either").tolist() == [0.75, 0.4]
        assert comparison.by_image("argmax").tolist() == [0.9, 0.5]
        assert comparison.by_image("argmax", counted="either").tolist() == [0.9, 0.25]
        assert comparison.by_image("other", counted="either").tolist() == [0.9, 0.5]
        assert comparison.predicts_absent_class
        means = comparison.aggregates("argmax", counted="either")
        assert means["I"] == pytest.approx((0.9 + 0.25) / 2)
        assert means["C"] == pytest.approx((0.75 + 0.4) / 2)
        assert means["D"] == pytest.approx((12 / 14 + 4 / 8) / 2)
        difference = comparison.difference("other", counted="either")
        assert (difference.wins, difference.losses, difference.ties) == (1, 0, 1)
        assert difference.mean == pytest.approx(0.125)
        assert comparison.difference("other").ties == 2

    def test_a_class_that_no_image_holds_has_no_score(self):
        comparison = comparison_of([[(1, 0, 0), (0, 2, 0)]], [[(1, 0, 0), (0, 0, 0)]])
        assert math.isnan(comparison.by_class("argmax")[1])
        assert comparison.by_class("argmax", counted="either")[1] == 0
        assert math.isnan(comparison.by_class("other", counted="either")[1])

    def test_a_false_mask_where_nothing_is_counts_as_a_loss(self):
        # One class, three images: the label is empty in the first two.
        comparison = comparison_of(
            [[(0, 0, 0)], [(0, 4, 0)], [(2, 0, 0)], [(0, 0, 0)]],
            [[(0, 3, 0)], [(0, 0, 0)], [(2, 0, 0)], [(0, 0, 0)]],
        )
        differences = comparison.differences("other", counted="either")
        assert np.array_equal(differences, [-1, 1, 0, math.nan], equal_nan=True)
        by_label = comparison.differences("other", counted="label")
        assert np.array_equal(by_label, [math.nan, math.nan, 0, math.nan], equal_nan=True)

    def test_a_baseline_can_be_named(self):
        comparison = comparison_of([[(1, 0, 0)]], [[(1, 2, 0)]])
        assert comparison.differences("argmax", baseline="other").tolist() == [0.5]
        assert comparison.differences("other", baseline="other").tolist() == [0]

    def test_clusters_of_cases_widen_the_interval(self):
        baseline = [[(1, 1, 0)]] * 6
        comparison = comparison_of(baseline, [[(1, 0, 0)]] * 3 + [[(1, 2, 0)]] * 3)
        alone = comparison.difference("other")
        clustered = comparison.difference("other", clusters=["a"] * 3 + ["b"] * 3)
        assert (clustered.low, clustered.high) == pytest.approx((1 / 2 - 2 / 3, 1 - 2 / 3))
        assert clustered.low < alone.low < alone.high < clustered.high
        assert clustered.mean == alone.mean

    def test_unknown_names_are_refused(self):
        comparison = comparison_of([[(1, 0, 0)]], [[(1, 2, 0)]])
        with pytest.raises(ValueError, match=r"method must be one of \['argmax', 'other'\]"):
            comparison.by_image("RankSEG")
        with pytest.raises(ValueError, match="metric"):
            comparison.by_image("other", "Dice")
        with pytest.raises(ValueError, match="counted"):
            comparison.by_image("other", counted="both")


class TestWrite:
    @pytest.fixture
    def comparison(self):
        cases = []
        for seed in range(4):
            probs, label = labelled(seed, classes=3)
            label[label == 2] = 1 if seed == 0 else 2  # the first image lacks a class
            cases.append(Case(f"case, {seed}", torch.tensor(probs), torch.tensor(label)))
        cases.append(Failure("lost", "was never there"))
        return compare(cases, standard_methods(), classes=["a", "b", "c"])

    def test_rows_of_cases_hold_the_scores(self, comparison, tmp_path):
        comparison.write(tmp_path / "new" / "folder")
        with (tmp_path / "new" / "folder" / "cases.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4 * 6
        for method in comparison.methods:
            mine = [row for row in rows if row["method"] == method]
            assert [row["case"] for row in mine] == list(comparison.cases)
            for metric in ("dice", "iou"):
                for counted in ("label", "either"):
                    written = [float(row[f"{metric}_{counted}"]) for row in mine]
                    assert written == comparison.by_image(method, metric, counted).tolist()

    def test_rows_of_classes_hold_the_counts(self, comparison, tmp_path):
        comparison.write(tmp_path)
        with (tmp_path / "classes.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4 * 6 * 3
        found = [row for row in rows if row["method"] == "RankSEG iou" and row["class"] == "b"]
        for name in ("tp", "fp", "fn"):
            counts = getattr(comparison.counts["RankSEG iou"], name)[:, 1].tolist()
            assert [int(row[name]) for row in found] == counts

    def test_the_summary_is_strict_json_and_agrees(self, comparison, tmp_path):
        comparison.write(tmp_path)
        read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
        assert read == comparison.summary()
        assert read["cases"] == 4
        assert read["cases_by_class"]["c"] == 3
        assert read["failures"] == [{"name": "lost", "reason": "was never there"}]
        iou = read["methods"]["RankSEG iou"]["iou, counted=either"]
        means = summary(comparison.counts["RankSEG iou"], "iou", counted="either")
        assert {name: iou[name] for name in "IDC"} == means
        difference = comparison.difference("RankSEG iou", "iou", "either")
        assert iou["difference"]["mean"] == difference.mean
        assert iou["difference"]["wins"] == difference.wins

    def test_scores_that_do_not_exist_are_null_and_blank(self, tmp_path):
        comparison = comparison_of([[(0, 0, 0)]], [[(0, 0, 0)]])
        comparison.write(tmp_path)
        scores = json.loads((tmp_path / "summary.json").read_text())["methods"]["other"]
        assert scores["dice, counted=label"]["I"] is None
        assert scores["dice, counted=label"]["difference"]["mean"] is None
        assert (tmp_path / "cases.csv").read_text().splitlines()[1] == "case 0,argmax,0.0,,,,"

    def test_names_are_no_formulas_and_numbers_are_numbers(self, tmp_path):
        names = ["=1+1", "@SUM(1)", "-x", "+x", "\tx", "\rx", "\nx", "plain=1", "\udcff"]
        expected = [f"'{name}" for name in names[:7]] + ["plain=1", "\\udcff"]
        counts = Counts(*(torch.ones((9, 9), dtype=torch.int64) for _ in range(3)))
        seconds = {name: np.full(9, -1.0) for name in names}
        Comparison(
            tuple(names), tuple(names), dict.fromkeys(names, counts), seconds, clusters=tuple(names)
        ).write(tmp_path)
        with (tmp_path / "classes.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for column in ("case", "method", "class"):
            assert list(dict.fromkeys(row[column] for row in rows)) == expected
        with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert list(dict.fromkeys(row["case"] for row in rows)) == expected
        assert {row["seconds"] for row in rows} == {"-1.0"}

    def test_a_file_is_there_whole_or_not_at_all(self, comparison, tmp_path, monkeypatch):
        comparison.write(tmp_path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert set(before) == {"cases.csv", "classes.csv", "summary.json"}

        def fail(source, target):
            assert Path(source).stat().st_size > 0
            raise OSError("disk full")

        monkeypatch.setattr(_files.os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            comparison_of([[(1, 0, 0)]], [[(1, 0, 0)]]).write(tmp_path)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def plain_scores(prediction, label, classes):
    """Dice of every class of one image, NaN where the label lacks it; from the definition."""
    scores = []
    for c in classes:
        held, found = label == c, (prediction == c) & (label != 255)
        total = held.sum() + found.sum()
        scores.append(2 * (held & found).sum() / total if held.any() else math.nan)
    return scores


class TestRealMaps:
    @pytest.fixture(params=SETS)
    def folder(self, request, real_maps):
        folder = CaseFolder.open(real_maps / request.param)
        return CaseFolder(folder.path, folder.names[:3], folder.classes, folder.ignore_index)

    def test_scores_are_those_of_plainer_code(self, folder):
        comparison = compare(
            folder, standard_methods(), classes=folder.classes, ignore_index=folder.ignore_index
        )
        assert comparison.failures == ()
        assert comparison.classes == folder.classes
        expected = {"argmax": [], "RankSEG dice RMA": []}
        for name in folder.names:
            with np.load(folder.path / f"{name}.npz") as file:
                probs, label = file["probs"].astype(np.float32), file["label"]
            classes = range(1, 2) if len(probs) == 1 else range(len(probs))
            most = probs[0] > 0.5 if len(probs) == 1 else probs.argmax(0)
            expected["argmax"].append(plain_scores(most, label, classes))
            best = RankSEG("dice", solver="RMA")(probs[None])[0]
            expected["RankSEG dice RMA"].append(plain_scores(best, label, classes))
        for method, scores in expected.items():
            assert comparison.scores(method).numpy() == pytest.approx(
                np.array(scores), abs=1e-12, nan_ok=True
            )


class TestLabelsWithoutForeground:
    """A set of labels in which nothing can be scored is refused; single images may be so."""

    def case(self, label, classes=1, name="a"):
        label = torch.tensor(label)
        return Case(name, torch.full((classes, len(label)), 1 / max(2, classes)), label)

    @pytest.mark.parametrize(
        ("labels", "classes", "ignore_index", "told"),
        [
            ([[0, 255], [0, 0]], 1, 255, "only 0 and 255, where 255 is ignore_index"),
            ([[0, 255], [0, 0]], 2, 255, r"--ignore-index none\), which reads 255 as class 1"),
            ([[255, 255]], 1, 255, "only 255, where 255 is ignore_index"),
            ([[0, 255]], 3, 255, "if 255 is a class, set ignore_index"),
            ([[0, -1]], 2, -1, "only -1 and 0, where -1 is ignore_index"),
            ([[0, 1]], 2, 1, "if 1 is a class, set ignore_index"),
            ([[0, 0]], 1, None, "hold only 0$"),
            ([[0, 255], [0, 128]], 1, 255, "only 0, 128 and 255, where 255"),
        ],
    )
    def test_is_refused(self, labels, classes, ignore_index, told):
        cases = [self.case(label, classes, str(i)) for i, label in enumerate(labels)]
        with pytest.raises(ValueError, match=told):
            compare(cases, standard_methods(), ignore_index=ignore_index)

    def test_a_case_that_does_not_fit_into_memory_is_named(self):
        def decide(probs):
            if probs.shape[-1] == 3:
                raise MemoryError
            return argmax(probs)

        cases = [self.case([0, 1, 1], name="large"), self.case([0, 1])]
        told = compare(cases, [Method("argmax", decide)])
        assert told.cases == ("a",)
        assert told.failures == (Failure("large", "not enough memory"),)

    def test_many_values_are_not_all_named(self):
        seen = SeenLabels(None)
        seen.add(torch.arange(100_000) + 2, "a")
        with pytest.raises(ValueError, match=r"only 2, 3, .*, 9 and 99992 other values"):
            seen.refuse_truth_without_foreground()

    @pytest.mark.parametrize("empty", [[0, 0], [0, 255], [255, 255]])
    def test_one_image_may_lack_it(self, empty):
        cases = [self.case(empty), self.case([1, 255], name="b")]
        told = compare(cases, standard_methods(), ignore_index=255)
        assert told.images_by_class.tolist() == [1]
        assert not told.failures

    @pytest.mark.parametrize("mask", [[0, 255], [255, 255]])
    @pytest.mark.parametrize("classes", [1, 2])
    def test_one_mask_of_255_among_those_of_1_is_named(self, mask, classes):
        cases = [self.case(mask, classes, "odd"), self.case([0, 1], classes)]
        told = compare(cases, standard_methods(), ignore_index=255)
        assert told.cases == ("a",)
        assert [failure.name for failure in told.failures] == ["odd"]
        assert "255 is ignore_index and does not count" in told.failures[0].reason
        assert "--ignore-index none" in told.failures[0].reason
        cases = [self.case(mask, 3, "void"), self.case([0, 1], 3)]
        assert not compare(cases, standard_methods(), ignore_index=255).failures

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64])
    def test_255_is_foreground_where_nothing_else_can_be_meant(self, dtype):
        label = torch.tensor([0, 255, 0, 255]).to(dtype)
        case = Case("a", torch.tensor([[0.1, 0.9, 0.2, 0.3]]), label)
        counts = compare([case], standard_methods()).counts["argmax"]
        assert (counts.tp.item(), counts.fn.item(), counts.fp.item()) == (1, 1, 0)

    @pytest.mark.parametrize("label", [[0, 1, 255], [0, 128, 255], [2, 0, 255]])
    def test_other_values_beside_255_are_refused(self, label):
        with pytest.raises(ValueError, match=r"label must lie in \[0, 2\), got 255"):
            compare([self.case(label)], standard_methods())

    def test_another_void_value_leaves_255_no_class(self):
        with pytest.raises(ValueError, match=r"or be ignore_index \(-1\), got 255"):
            compare([self.case([0, 255, -1])], standard_methods(), ignore_index=-1)

    def test_several_classes_keep_255(self):
        with pytest.raises(ValueError, match=r"label must lie in \[0, 3\), got 255"):
            compare([self.case([0, 255], 3)], standard_methods())

    def test_predictions_of_void_beside_classes_are_misses(self, tmp_path):
        for name, labels in {"truth": [0, 1, 1, 1], "ours": [0, 255, 1, 7]}.items():
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "a.npy", np.array(labels))
        with pytest.warns(UserWarning, match="of ours hold 7 beside classes from 0 to 1; such"):
            told = evaluation.evaluate({"ours": tmp_path / "ours"}, tmp_path / "truth", classes=2)
        assert told.counts["ours"].fn.tolist() == [[0, 2]]
        np.save(tmp_path / "ours" / "a.npy", np.array([0, 7, 7, 0]))
        with pytest.raises(ValueError, match="hold only 0 and 7; number the classes so"):
            evaluation.evaluate({"ours": tmp_path / "ours"}, tmp_path / "truth", classes=2)


class TestNamesOfClasses:
    def test_as_many_as_most_maps_have(self, tmp_path):
        for name, classes in (("a", 4), ("b", 3), ("c", 3)):
            write_case(tmp_path, name, np.full((classes, 5), 0.2), np.zeros(5, int))
        (tmp_path / "d.npz").write_bytes(b"broken")
        folder = CaseFolder.open(tmp_path)
        assert folder.name_classes() == ("class 0", "class 1", "class 2")
        (tmp_path / "meta.json").write_text('{"classes": ["x", "y"]}')
        assert CaseFolder.open(tmp_path).name_classes() == ("x", "y")

    def test_none_without_a_map(self, tmp_path):
        (tmp_path / "d.npz").write_bytes(b"broken")
        assert CaseFolder.open(tmp_path).name_classes() == ()


class TestLabelsFromOne:
    """Labels from 1, of which 0 is ignored, and maps of three classes from 0."""

    @staticmethod
    def case(shift):
        true = torch.arange(90).reshape(9, 10) % 2
        likely = true.clone()
        likely[0] = 1 - true[0]
        probs = torch.nn.functional.one_hot(likely, 3).movedim(-1, 0) * 0.9 + 0.1 / 3
        return Case("a", probs, true + shift)

    @pytest.mark.filterwarnings("ignore:the fit has no end")
    @pytest.mark.parametrize("look", LOOKS)
    def test_they_are_told(self, look):
        told = "classes of the maps are 1 less than the true labels at 89% of 90 sampled pixels"
        with pytest.warns(UserWarning, match=told):
            look([self.case(1)])

    @pytest.mark.parametrize("look", LOOKS)
    def test_others_say_nothing(self, look):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            look([self.case(0)])


@pytest.mark.parametrize("blank", [float("nan"), None, "nan", "NA", " "])
def test_blank_clusters_are_not_one_cluster(blank):
    cases = [Case(name, *map(torch.from_numpy, labelled(i))) for i, name in enumerate("abc")]
    clusters = {"a": "p", "b": blank, "c": blank}
    with pytest.raises(ValueError, match=r"got none for \['b', 'c'\]"):
        compare(cases, standard_methods(), clusters=clusters)
    values = np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"clusters must not be blank, got .* 2 times"):
        bootstrap_interval(values, clusters=list(clusters.values()))
    with pytest.raises(ValueError, match="clusters must not be blank"):
        folds_of(3, 2, list(clusters.values()), 0)


def test_two_cases_of_one_name():
    case = Case("a", *map(torch.from_numpy, labelled(0)))
    with pytest.raises(ValueError, match="cases must differ in name, got 'a' twice"):
        compare([case, case], standard_methods())


def test_one_cluster_cannot_be_left_out():
    with pytest.raises(ValueError, match=r"there must be two clusters or more, .* got 1"):
        folds_of(3, 2, list("aaa"), 0)
