"""The measurement of ``benchmarks/dataset.py`` on small maps, and the tables made of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.dataset import DatasetRule
from rankseg.evaluation import CaseFolder, Method, compare
from rankseg.evaluation.decided_cases import decide_and_count
from support.maps import labelled


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "maps" / "set"
    folder.mkdir(parents=True)
    for seed in range(8):
        probs, label = labelled(seed, 3)
        np.savez(folder / f"{seed}.npz", probs=probs, label=label)
    meta = {"classes": ["a", "b", "c"], "class_weights": [1.0, 2.0, 4.0]}
    (folder / "meta.json").write_text(json.dumps(meta))
    return CaseFolder.open(folder)


def test_rows_and_tables(cases, benchmark, tmp_path, monkeypatch):
    script, page = benchmark("dataset"), benchmark("_dataset_page")
    monkeypatch.setattr(script, "RESAMPLES", 20)
    rows = list(script.measure(cases))
    assert {row.maps for row in rows} == set(page.INPUTS)
    rule = DatasetRule.fit(cases, "iou", ignore_index=255, pixels=script.RULE_PIXELS)
    methods = [
        Method("argmax", lambda probs: probs.argmax(1)),
        Method("rule", RankSEG("iou", rule=rule)),
    ]
    told = compare(cases, methods, classes=cases.classes, ignore_index=255)
    for aggregate in "DI":
        (row,) = page.pick(rows, maps="as stored", method="rule, presence all", metric="iou",
                           counted="label", aggregate=aggregate)  # fmt: skip
        scores = [100 * told.aggregates(method.name, "iou")[aggregate] for method in methods]
        assert row.score == pytest.approx(scores[1], abs=1e-3)
        assert row.difference == pytest.approx(scores[1] - scores[0], abs=1e-3)
        assert row.low <= row.difference <= row.high
    table = benchmark("_table")
    table.write_rows(tmp_path / "rows.csv", rows, script.Row)
    assert table.read_rows(tmp_path / "rows.csv", script.Row) == rows
    text = page.tables(rows)
    assert text.count("| as stored | set |") >= 5
    assert f"{row.difference:+.2f}" in text


def test_held_out_cases_are_decided_without_their_labels(cases, benchmark, monkeypatch):
    """Labels of every pixel wrong, in one case: its own decision does not change."""
    script = benchmark("dataset")
    decisions = []

    def note(some, methods, **options):
        if "3" in some.names:
            probs = some.read("3").probs[None].float()
            decisions.append({method.name: method.decide(probs) for method in methods})
        return decide_and_count(some, methods, **options)

    monkeypatch.setattr(script, "decide_and_count", note)
    first = script.decided(cases, "iou", None)
    probs, label = labelled(3, 3)
    np.savez(cases.path / "3.npz", probs=probs, label=(label + 1) % 3)
    second = script.decided(cases, "iou", None)
    for name, before in decisions[0].items():
        assert torch.equal(decisions[1][name], before)
    assert not torch.equal(first["rule"].tp, second["rule"].tp)
