"""The figures gathered from comparisons whose counts are known, and the page made of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from experiments import results
from experiments.members_page import write_members
from experiments.page import write_page
from experiments.quantities import measure
from experiments.records import read_comparison, write_comparison
from rankseg.evaluation import Case, Comparison
from rankseg.metrics import Counts

METHODS = ("argmax", "pruned_argmax", "correlated dice peak", "members dice", "members iou")


def comparison(true_pixels):
    """Return two images of a class of 10 pixels, of which argmax finds 5 and others some."""
    counts = {}
    for method, found in zip(METHODS, (5, 5, *true_pixels), strict=True):
        tp = torch.tensor([[90, found], [90, 5]])
        counts[method] = Counts(tp, torch.zeros_like(tp), torch.tensor([[0, 10], [0, 10]]) - tp)
    for one in counts.values():
        one.fn[:, 0] = 0
    seconds = {method: np.array([0.1, 0.1]) for method in METHODS}
    return Comparison(("background", "lesion"), ("a", "b"), counts, seconds)


@pytest.fixture
def runs(tmp_path):
    """Return a folder of two runs; the second seed finds all of the lesion of the first image."""
    for seed, found in enumerate(((5, 5, 5), (10, 5, 5))):
        folder = tmp_path / "busi" / "unet-ce" / f"seed{seed}"
        folder.mkdir(parents=True)
        write_comparison(comparison(found), folder / "decisions-raw.npz", background=True)
        after = comparison(found)
        after.counts["argmax"].tp[:, 1] = 10
        after.counts["argmax"].fn[:, 1] = 0
        write_comparison(after, folder / "decisions-calibrated.npz", background=True)
        case = Case("a", torch.full((2, 4), 0.5), torch.tensor([0, 0, 0, 1]))
        (folder / "quantities.json").write_text(json.dumps(asdict(measure([case], True))))
    write_comparison(comparison((5, 10, 10)), folder.parent / "members-2.npz", background=True)
    return tmp_path


def test_a_comparison_is_read_as_it_was_written(tmp_path):
    written = comparison((5, 6, 7))
    write_comparison(written, tmp_path / "all.npz", background=False)
    found = read_comparison(tmp_path / "all.npz")
    assert (found.classes, found.cases, found.methods) == (written.classes, written.cases, METHODS)
    for method in METHODS:
        assert torch.equal(found.counts[method].tp, written.counts[method].tp)
        assert torch.equal(found.counts[method].fn, written.counts[method].fn)
    write_comparison(written, tmp_path / "lesion.npz", background=True)
    assert read_comparison(tmp_path / "lesion.npz").classes == ("lesion",)


def test_figures_are_means_over_seeds(runs):
    (network,) = results.networks(runs)
    every = {
        (row.maps, row.method, row.metric, row.counted): row
        for row in results.decision_rows(network)
    }
    rows = {tuple(key): row for (maps, *key), row in every.items() if maps == "raw"}
    assert ("correlated dice peak", "iou", "label") not in rows
    row = rows["correlated dice peak", "dice", "label"]
    assert (row.set, row.network, row.seeds, row.images) == ("busi", "unet-ce", 2, 2)
    # Dice is 2/3 where half is found. One image of one seed of two gains 1/3.
    assert pytest.approx(100 * (2 / 3 + 1 / 12), abs=1e-3) == row.I
    assert row.change == row.I_change == row.pruned == pytest.approx(100 / 12, abs=1e-3)
    assert (row.wins, row.losses) == (1, 0)
    assert row.change_low == 0
    assert row.change_high == pytest.approx(100 / 6, abs=1e-3)
    assert row.spread == pytest.approx(100 / 6 / np.sqrt(2), abs=1e-3)
    assert pytest.approx(50, abs=1e-3) == rows["argmax", "iou", "either"].I
    # All changes are from argmax of the maps as they are.
    calibrated = every["calibrated", "argmax", "iou", "label"]
    assert (calibrated.I, calibrated.change) == pytest.approx((100, 50), abs=1e-3)
    assert every["calibrated", "correlated dice peak", "dice", "label"].change == row.change


def test_members_are_held_against_every_decision_on_the_mean(runs):
    rows = {(row.method, row.counted): row for row in results.members_rows(runs)}
    row = rows["correlated dice peak", "label"]
    assert (row.set, row.members, row.images, row.metric) == ("busi", 2, 2, "dice")
    assert row.ahead == row.error == pytest.approx(100 / 6, abs=1e-3)
    assert (row.wins, row.losses) == (1, 0)
    assert rows["members dice", "label"].ahead == 0
    assert rows["members dice", "label"].change == pytest.approx(100 / 6, abs=1e-3)


def test_the_page_shows_the_figures_of_every_network(runs, tmp_path, monkeypatch):
    for name in ("DECISIONS", "MEASURED", "MEMBERS"):
        monkeypatch.setattr(results, name, tmp_path / f"{name}.csv")
    results.collect(runs)
    page = tmp_path / "RESULTS.md"
    decisions, measured, members = results.gathered()
    write_page(page, decisions, measured)
    text = page.read_text()
    assert "| correlated dice peak | +8.33 | +8.33 | +8.33 |" in text
    assert "### busi, unet-ce: 2 images, 2 seeds" in text
    assert (tmp_path / "results" / "changes.png").stat().st_size > 1000
    write_members(page, members)
    text = page.read_text()
    assert "| busi | 2, 2 | not counted | members dice | 83.33 | +16.67 | +0.00 ± 0.00 |" in text
    assert "- loses" not in text
    assert "So rankseg has no decision for members" in text  # 16.67 is one standard error


def test_quantities():
    probs = torch.tensor([[0.95, 0.95, 0.2, 0.6], [0.05, 0.05, 0.8, 0.4]])
    cases = [
        Case("a", probs, torch.tensor([0, 0, 1, 255])),
        Case("b", probs[:, :2], torch.tensor([0, 1])),
        Case("c", probs[:, 2:3], torch.tensor([0])),
    ]
    found = measure(cases, background=True)
    sure = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    unsure = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert found.entropy == pytest.approx((4 * sure + 2 * unsure) / 6, rel=1e-5)
    assert found.unsure == pytest.approx(2 / 6)
    assert found.size == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found.volume == pytest.approx((0.9 + 0.1 + 0.8) / 2, rel=1e-5)
    assert (found.lost, found.invented) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_the_correlation_of_labels_is_recovered():
    source = torch.Generator().manual_seed(0)
    cut = torch.special.ndtri(torch.tensor(0.3)).item()
    cases = []
    for number in range(400):
        shared = torch.randn(1, generator=source)
        noise = torch.randn(400, generator=source)
        label = (0.1**0.5 * shared + 0.9**0.5 * noise < cut).long()
        cases.append(Case(str(number), torch.tensor([[0.7], [0.3]]).expand(2, 400), label))
    assert measure(cases, background=True).correlation == pytest.approx(0.1, abs=0.03)
