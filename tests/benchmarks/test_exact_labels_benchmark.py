"""The measurement of ``benchmarks/exact_labels.py``."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG, expected_score
from support import maps

METRICS = ("dice", "iou")


@pytest.fixture
def script(benchmark):
    return benchmark("exact_labels")


@pytest.mark.parametrize("metric", METRICS)
def test_no_rule_passes_the_bound_and_the_judged_one_loses_nothing(script, metric):
    probs = script.crowd(3, 12, torch.Generator().manual_seed(1))
    measured = script.measure("3 pixels", [probs], metric)
    names = list(script.RULES)
    for name in names:
        assert (measured.scores[name] <= measured.scores[script.BOUND] + 1e-9).all()
    # Judged by what the profile tells, which takes the pixels of a bin for equal.
    judged = measured.scores[names[-1]] - measured.scores["exact masks, exact increments"]
    assert (judged > -1e-3).all()
    assert measured.scores[script.SHIPPED].mean() > measured.scores["argmax"].mean()


def test_crowds_hold_contested_pixels(script):
    probs = script.crowd(10, 4, torch.Generator().manual_seed(0))
    assert probs.shape == (4, 1 + script.REGIONS, script.WINDOW, script.WINDOW)
    torch.testing.assert_close(probs.sum(1), torch.ones(4, script.WINDOW, script.WINDOW))
    masks = RankSEG("dice", output_mode="multilabel", solver="exact")(probs)
    assert (masks.sum(1) > 1).any()
    assert (masks.sum(1) == 0).any()


def test_a_run_adds_every_figure(script, tmp_path, monkeypatch):
    folder = tmp_path / "maps" / "blurred"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"classes": list("abcd")}))
    for seed in range(3):
        probs, label = maps.labelled(seed)
        np.savez(folder / f"{seed}.npz", probs=probs, label=label)
    binary = tmp_path / "maps" / "binary"
    binary.mkdir()
    np.savez(binary / "0.npz", probs=probs[:1], label=label.clip(max=1))
    monkeypatch.setattr(script, "VOLUMES", (2,))
    monkeypatch.setattr(script.torch, "set_num_threads", lambda threads: None)
    history = tmp_path / "history.csv"
    arguments = ["exact_labels.py", tmp_path / "maps", "--crowds", 4, "--images", 2]
    monkeypatch.setattr("sys.argv", [*map(str, arguments), "--history", str(history)])
    script.main()
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {"blurred", "2 pixels"}
    per_case = 5 * len(script.RULES) + 3
    assert len(rows) == 2 * 2 * per_case
    figures = {
        (row["case"], row["metric"], row["what"]): float(row["value"])
        for row in rows
        if row["case"] == "blurred"
    }
    for metric in METRICS:
        changes = []
        for seed in (0, 2):
            probs = torch.from_numpy(maps.labelled(seed)[0])[None].float()
            labels = RankSEG(metric, solver="RMA")(probs)
            present = probs.flatten(2).amax(2) > 0.5
            rise = expected_score(probs, labels, metric)
            rise = rise - expected_score(probs, probs.argmax(1), metric)
            changes.append(100 * rise[present].mean().item())
        found = figures["blurred", metric, "RMA: mean change from argmax"]
        assert found == pytest.approx(np.mean(changes), rel=1e-4)
