"""The plots of a report: what is drawn is what the library says."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._formulas.objectives import OBJECTIVES
from rankseg.calibration import reliability
from rankseg.evaluation import Case, compare, standard_methods
from rankseg.metrics import count, dice, iou
from rankseg.plots import (
    paint_labels,
    paired_differences,
    reliability_diagram,
    score_by_cut,
    volume_changes,
)
from support import maps


def cases(number=5):
    for seed in range(number):
        probs, label = maps.labelled(seed)
        yield Case(f"case {seed}", torch.from_numpy(probs).float(), torch.from_numpy(label).long())


@pytest.fixture(scope="module")
def comparison():
    return compare(cases(), standard_methods(metrics=["dice"]), ignore_index=255)


def test_paired_differences(comparison):
    banded = replace(comparison, band=0.005)
    (axes,) = paired_differences(banded, "RankSEG dice", "iou").axes
    told = banded.difference("RankSEG dice", "iou")
    counts = [told.wins, told.ties, told.losses]
    assert told.ties > 0
    assert [len(bars) for bars in axes.containers] == counts
    names = [bars.get_label() for bars in axes.containers]
    assert names == [f"{n} {kind}" for n, kind in zip(counts, ("won", "tied", "lost"), strict=True)]
    heights = sorted(bar.get_height() for bars in axes.containers for bar in bars)
    np.testing.assert_allclose(
        heights, np.sort(100 * comparison.differences("RankSEG dice", "iou"))
    )
    assert axes.lines[1].get_ydata()[0] == pytest.approx(100 * told.mean)


def test_volume_changes(comparison):
    (axes,) = volume_changes(comparison, ["argmax", "RankSEG dice"]).axes
    counts = comparison.counts["RankSEG dice"].total()
    ratio = (counts.tp + counts.fp) / (counts.tp + counts.fn)
    np.testing.assert_allclose(axes.lines[1].get_xdata(), ratio[0].numpy())
    assert axes.lines[1].get_label() == "RankSEG dice"


ODD = ["$\\foo$", "_a", "结\udcff", "a\nb"]
DRAWN = ["$\\foo$", "_a", "\\u7ed3\\udcff", "a\\nb"]


def test_every_name_is_drawn_as_it_is_or_escaped(comparison):
    methods = [
        replace(method, name=name)
        for method, name in zip(standard_methods(solvers=["RMA"]), ODD, strict=True)
    ]
    odd = compare(cases(), methods, classes=ODD, ignore_index=255)
    figure = volume_changes(odd)
    figure.savefig(io.BytesIO())
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == DRAWN
    assert [text.get_text() for text in axes.get_yticklabels()] == DRAWN
    figure = reliability_diagram(reliability(cases(), classes=ODD, ignore_index=255))
    figure.savefig(io.BytesIO())
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == DRAWN
    figure = score_by_cut(next(cases()), classes=ODD, ignore_index=255, pruning_prob=0.0)
    figure.savefig(io.BytesIO())
    assert [one.get_title() for one in figure.axes[:4]] == DRAWN


def test_reliability_diagram():
    told = reliability(cases(), ignore_index=255)
    _, _, left, right = reliability_diagram(told, told).axes
    np.testing.assert_array_equal(left.lines[1].get_ydata(), told.top_frequency)
    for number, name in enumerate(told.classes):
        line = right.lines[1 + number]
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), told.confidence[number])
    assert f"{100 * told.ece:.2f}" in left.get_title()


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_score_by_cut(metric):
    case = next(cases())
    names = ["a", "b", "c", "d"]
    figure = score_by_cut(case, metric, ignore_index=255, classes=names, pruning_prob=0.0)
    valid = case.label != 255
    masks = RankSEG(metric, 0.0, "multilabel", "RMA", 0.0)(case.probs[None], valid[None])
    score = dice if metric == "dice" else iou
    for number, axes in enumerate(figure.axes[:4]):
        truth = (case.label == number)[None, None]
        achieved = axes.lines[0]
        for place in (1, len(achieved.get_xdata()) // 2):
            cut = achieved.get_xdata()[place]
            mask = (case.probs[number] > cut)[None, None]
            counts = count(mask & valid, truth & valid)
            assert achieved.get_ydata()[place] == pytest.approx(score(counts).item(), abs=1e-6)
            probs = case.probs[number].double()
            inside, volume = probs[mask[0, 0] & valid], probs[valid].sum()
            told = OBJECTIVES[metric](0.0).score(
                torch.tensor(float(len(inside))), inside.sum(), volume
            )
            assert axes.lines[1].get_ydata()[place] == pytest.approx(told.item(), rel=1e-6)
        chosen = axes.lines[4]
        assert chosen.get_label() == "chosen"
        inside = case.probs[number][masks[0, number]]
        assert inside.min() > chosen.get_xdata()[0]
        outside = case.probs[number][~masks[0, number] & valid]
        assert outside.max() == pytest.approx(chosen.get_xdata()[0])
        assert axes.get_title() == "abcd"[number]


def test_a_class_that_is_pruned_has_no_cut():
    probs = torch.tensor([[0.4, 0.3, 0.1, 0.1]])
    case = Case("a", probs, torch.tensor([1, 1, 0, 0]))
    for pruning_prob, marked in ((0.5, False), (0.3, True)):
        (axes,) = score_by_cut(case, pruning_prob=pruning_prob).axes
        assert any(line.get_label() == "chosen" for line in axes.lines) == marked


def test_nothing_to_draw():
    empty = Case("a", torch.zeros(1, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="case must have a class to draw, a has none"):
        score_by_cut(empty)


def test_labels_in_colours():
    painted = paint_labels(np.array([[0, 1, 2, 255]]), ["background", "a", "b"])
    assert painted.dtype == np.uint8
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == 4
    assert painted[0, 3].tolist() == [255, 255, 255]
