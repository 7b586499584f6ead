"""The measurement of ``benchmarks/exact_labels.py``: its exact increments, and a small run."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

import exact_oracles as oracle
import maps
from rankseg import RankSEG, _backends, expected_score
from rankseg._backends._bins import bin_of
from rankseg._settings import Settings

METRICS = ("dice", "iou")


@pytest.fixture
def script(benchmark):
    return benchmark("exact_labels")


@pytest.fixture
def gains(benchmark):
    return benchmark("_exact_gains")


def model_of(gains, probs, metric, smooth):
    tensor = torch.from_numpy(probs)
    backend, _ = _backends.choose(tensor.device)
    opened = backend.open_maps(tensor, None)
    settings = Settings(metric, smooth, pruning_prob=0.0)
    return gains.ExactGains.build(backend, opened, backend.survey(opened), settings)


@pytest.mark.parametrize("smooth", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("metric", METRICS)
def test_increments_are_differences_of_enumerated_scores(gains, metric, smooth):
    for seed in range(6):
        probs = maps.softmax(1, 3, 9, scale=2.0, seed=seed, dtype="float64")
        labels = np.random.default_rng(seed).integers(-1, 3, (1, 9))
        labels[:, :2] = -1  # pixels for every class to gain
        labels = np.where(labels == seed % 4, -1, labels)  # of some seeds, a class without any
        model = model_of(gains, probs, metric, smooth)
        state = model.tally(torch.from_numpy(labels))
        lines = model.increment(state).lines.view(3, -1, 2)
        expectation = model._expectation(state)
        for label, values in enumerate(probs[0]):
            mask = labels[0] == label
            joined = np.flatnonzero(~mask)
            masks = np.array([mask, *(mask | (np.arange(9) == pixel) for pixel in joined)])
            scores = oracle.by_enumeration(metric, values, masks, smooth)
            points = torch.from_numpy(values[joined]).expand(3, -1)
            found = expectation.gains(points)[label].numpy()
            np.testing.assert_allclose(found, scores[1:] - scores[0], atol=1e-12)
            assert model.score(state)[0, label].item() == pytest.approx(scores[0], abs=1e-12)
            # In straight lines between the edges of bins they lose little.
            bins = bin_of(points[0])
            slope, toll = lines[label, bins].unbind(1)
            np.testing.assert_allclose((slope * points[0] - toll).numpy(), found, atol=3e-5)


@pytest.mark.parametrize("smooth", [0.0, 0.7])
@pytest.mark.parametrize("metric", METRICS)
def test_classes_of_both_sizes_gain_as_their_scores_rise(gains, metric, smooth, monkeypatch):
    monkeypatch.setattr(gains, "SMALL", 30.0)
    probs = maps.softmax(1, 4, 200, scale=2.0, dtype="float64")
    probs *= np.array([1.0, 0.3, 0.1, 0.9])[:, None]
    model = model_of(gains, probs, metric, smooth)
    assert 0 < len(model.rows) < 4
    labels = torch.from_numpy(probs.argmax(1))
    labels[:, :50] = -1
    state = model.tally(labels)
    lines = model.increment(state).lines.view(4, -1, 2)
    bins = bin_of(torch.from_numpy(probs))
    before = expected_score(probs, labels.numpy(), metric, smooth)
    for pixel in range(5):
        for label in range(4):
            after = labels.clone()
            after[0, pixel] = label
            rise = expected_score(probs, after.numpy(), metric, smooth) - before
            piece = bins[0, label, pixel]
            slope, toll = lines[label, piece].tolist()
            gain = slope * probs[0, label, pixel] - toll
            allowed = 3e-5 if [0, label] in model.rows.tolist() else 1e-3
            assert gain == pytest.approx(rise[0, label], abs=allowed)


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
