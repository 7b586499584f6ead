"""What methods are predicted to gain, against `decide`, sums over all labels, and plainer code."""

from __future__ import annotations

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch

from rankseg import RankSEG, expected_score
from rankseg.evaluation import (
    Case,
    Method,
    argmax,
    compare,
    pruned_argmax,
    standard_methods,
)
from rankseg.evaluation import predictions as _predictions
from support.maps import labelled


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Threads that wait for each other on a busy machine take far longer over small maps."""
    threads(1)


def cases_of(classes, images=3, **options):
    """Labelled maps: in every second image the first class is too faint to be present."""
    cases = []
    for seed in range(images):
        probs, label = labelled(seed, classes, **options)
        if seed % 2:
            probs[0] *= 0.5
        cases.append(Case(f"image {seed}", torch.tensor(probs), torch.tensor(label)))
    return cases


def one_class(images=3):
    """The last class of two, alone: a foreground."""
    return [
        Case(case.name, case.probs[1:], (case.label == 1).long()) for case in cases_of(2, images)
    ]


@pytest.mark.parametrize("cases", [cases_of(4), cases_of(3, shape=(6, 7, 8)), one_class()])
@pytest.mark.parametrize("pruning_prob", [0.0, 0.6])
def test_it_is_what_the_user_of_a_method_is_told(cases, pruning_prob):
    options = {"solvers": ["RMA", "joint"], "correlations": [0.0, 0.5]}
    methods = standard_methods(pruning_prob, **options)
    told = compare(cases, methods, predict_above=pruning_prob)
    for method in methods[2:]:
        metric = method.decide.metric
        expected = [
            method.decide.decide(case.probs[None].float()).expected_gain.item() for case in cases
        ]
        gains = told.predicted_gains(method.name, metric)
        np.testing.assert_allclose(gains, expected, rtol=0, atol=1e-12)
        assert told.predicted_gain(method.name, metric) == pytest.approx(np.mean(expected))
        assert (np.abs(gains) > 1e-6).any()


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_it_is_the_mean_of_what_is_achieved_over_all_labels(metric):
    """One channel, and labels that are as likely as the map says: nothing but truth is left."""
    probs = torch.tensor([[0.9, 0.45, 0.4, 0.1, 0.05]])
    cases, weights = [], []
    for labels in itertools.product([0, 1], repeat=5):
        label = torch.tensor(labels)
        cases.append(Case(str(labels), probs, label))
        weights.append(torch.where(label == 1, probs[0], 1 - probs[0]).double().prod().item())
    told = compare(cases, standard_methods(solvers=["RMA"]), predict_above=0.5)
    for method in told.methods[2:]:
        achieved = told.differences(method, metric, "either")
        predicted = told.predicted_gains(method, metric)
        assert (predicted == predicted[0]).all()
        assert predicted[0] == pytest.approx(np.dot(weights, achieved), abs=1e-7)
    assert told.predicted_gain(f"RankSEG {metric} RMA", metric) > 0.01


def test_every_row_is_scored_by_both_metrics_under_its_own_correlation():
    cases = cases_of(4)
    masks = Method("masks", lambda probs: probs > 0.3, correlation=0.25)
    methods = [Method("base", pruned_argmax), masks, *standard_methods(correlations=[0.5])]
    told = compare(cases, methods, predict_above=0.5)
    for i, case in enumerate(cases):
        probs = case.probs[None].float()
        present = (probs.amax((0, 2, 3)) > 0.5).tolist()
        assert present == [i % 2 == 0, True, True, True]
        for method, metric in itertools.product(methods, ("dice", "iou")):
            ours, base = (
                expected_score(probs, one.decide(probs), metric, correlation=method.correlation)
                for one in (method, methods[0])
            )
            gain = (ours - base)[0, present].mean().item()
            found = told.predicted_gains(method.name, metric)[i]
            assert found == pytest.approx(gain, abs=1e-12)
    assert told.predicted_gain("masks") not in (0, told.predicted_gain("masks", "iou"))


@pytest.mark.filterwarnings("ignore:the likeliest classes of the maps are 1")  # made up
def test_labels_have_no_part_in_it():
    cases = cases_of(4)
    others = [Case(case.name, case.probs, (3 - case.label).clip(1)) for case in cases]
    tables = [
        compare(given, standard_methods(), ignore_index=ignored, predict_above=0.5)
        for given, ignored in ((cases, None), (others, 1))
    ]
    assert tables[0].difference("RankSEG dice") != tables[1].difference("RankSEG dice")
    for method, metric in itertools.product(tables[0].methods, ("dice", "iou")):
        first, second = (table.predicted_gains(method, metric).tolist() for table in tables)
        assert first == second


def test_decisions_that_are_equal_are_scored_once(monkeypatch):
    scored = []

    def spy(probs, masks, metric, *, correlation):
        scored.append((metric, correlation))
        return expected_score(probs, masks, metric, correlation=correlation)

    monkeypatch.setattr(_predictions, "expected_score", spy)
    methods = [
        Method("argmax", argmax),
        Method("the same", lambda probs: argmax(probs)[:, 0].int()),  # labels instead of masks
        Method("the same, r", argmax, correlation=0.5),
        Method("other", RankSEG("dice")),
        Method("other again", RankSEG("dice", output_mode="multilabel")),
    ]
    told = compare(one_class(1), methods, predict_above=0.5)
    assert sorted(scored) == [("dice", 0), ("dice", 0), ("iou", 0), ("iou", 0)]
    assert [told.predicted_gain(name) for name in told.methods[:3]] == [0, 0, 0]
    assert told.predicted_gain("other") == told.predicted_gain("other again") > 0


def test_an_image_of_no_present_class_has_none(tmp_path):
    faint = Case("faint", torch.full((1, 4), 0.3), torch.tensor([0, 1, 0, 0]))
    clear = Case("clear", torch.tensor([[0.9, 0.45, 0.4, 0.1]]), torch.tensor([1, 1, 0, 0]))
    told = compare([faint, clear], standard_methods(), predict_above=0.3)  # does not exceed it
    for method in told.methods:
        gains = told.predicted_gains(method)
        assert np.isnan(gains).tolist() == [False, False]
    told = compare([faint, clear], standard_methods(), predict_above=0.5)
    gains = told.predicted_gains("RankSEG dice")
    assert np.isnan(gains).tolist() == [True, False]
    assert told.predicted_gain("RankSEG dice") == gains[1] > 0
    none = compare([faint], standard_methods(), predict_above=0.5)
    assert math.isnan(none.predicted_gain("RankSEG dice"))
    none.write(tmp_path)
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)
    assert summary["methods"]["RankSEG dice"]["predicted_gain"] == {"dice": None, "iou": None}
    assert (tmp_path / "cases.csv").read_text().splitlines()[1].endswith(",,")


def test_the_files_hold_it(tmp_path):
    told = compare(cases_of(3), standard_methods(correlations=[0.0, 0.5]), predict_above=0.5)
    told.write(tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    written = json.loads((tmp_path / "summary.json").read_text())["methods"]
    for method, metric in itertools.product(told.methods, ("dice", "iou")):
        mine = [float(row[f"{metric}_predicted_gain"]) for row in rows if row["method"] == method]
        assert mine == told.predicted_gains(method, metric).tolist()
        assert written[method]["predicted_gain"][metric] == pytest.approx(np.mean(mine))


def test_nothing_is_predicted_unless_asked_for(tmp_path):
    comparison = compare(cases_of(3), standard_methods())
    assert comparison.predicted is None
    with pytest.raises(ValueError, match=r"compare\(\.\.\., predict_above=0\.5\)"):
        comparison.predicted_gain("argmax")
    comparison.write(tmp_path)
    for name in ("cases.csv", "summary.json"):
        assert "predicted" not in (tmp_path / name).read_text()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"predict_above must be in \[0, 1\], got 1\.5"):
        compare([], standard_methods(), predict_above=1.5)
    with pytest.raises(TypeError, match="predict_above"):
        compare([], standard_methods(), predict_above=True)
    told = compare(cases_of(3, 1), standard_methods(), predict_above=0.5)
    with pytest.raises(ValueError, match="method must be one of"):
        told.predicted_gains("RankSEG")
    with pytest.raises(ValueError, match="metric must be 'dice' or 'iou', got 'acc'"):
        told.predicted_gain("argmax", "acc")
