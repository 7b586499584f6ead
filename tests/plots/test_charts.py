"""The plots of a report: what is drawn is what the library says."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer

from rankseg import RankSEG
from rankseg._formulas.objectives import OBJECTIVES
from rankseg.calibration import reliability
from rankseg.evaluation import Case, Difference, compare, standard_methods
from rankseg.metrics import count, dice, iou
from rankseg.plots import (
    class_changes,
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
    *kinds, mean = axes.containers
    assert [len(bars) for bars in kinds] == counts
    names = [bars.get_label() for bars in kinds]
    assert names == [f"{n} {kind}" for n, kind in zip(counts, ("won", "tied", "lost"), strict=True)]
    bars = sorted((bar for bars in kinds for bar in bars), key=lambda bar: bar.get_y())
    differences = dict(
        zip(comparison.cases, comparison.differences("RankSEG dice", "iou"), strict=True)
    )
    ordered = sorted(differences, key=differences.__getitem__, reverse=True)
    drawn = [text.get_text() for text in axes.get_yticklabels()]
    assert drawn == [*ordered, "mean"]
    np.testing.assert_allclose(
        [bar.get_width() for bar in bars], [100 * differences[name] for name in ordered]
    )
    marker, _, (interval,) = mean
    assert marker.get_xdata()[0] == pytest.approx(100 * told.mean)
    ends = interval.get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, [100 * told.low, 100 * told.high])


def test_of_many_cases_those_at_both_ends_have_names():
    few = list(cases(30))
    many = compare(few, standard_methods(metrics=["dice"]), ignore_index=255)
    (axes,) = paired_differences(many, "RankSEG dice").axes
    values = many.differences("RankSEG dice")
    order = [many.cases[index] for index in np.argsort(-values, kind="stable")]
    drawn = [text.get_text() for text in axes.get_yticklabels()]
    assert drawn == [*order[:10], *order[-10:], "mean"]
    bars = sorted((bar for kind in axes.containers[:3] for bar in kind), key=lambda b: b.get_y())
    assert len(bars) == 30
    np.testing.assert_allclose([bar.get_width() for bar in bars], np.sort(-100 * values) * -1)
    centres = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    np.testing.assert_allclose(np.array(centres)[[0, 9, 20, 29]], axes.get_yticks()[[0, 9, 10, 19]])
    assert bars[15].get_height() < bars[0].get_height()


def test_class_changes(comparison):
    (axes,) = class_changes(comparison, "RankSEG dice").axes
    before, after = (comparison.by_class(name) for name in ("argmax", "RankSEG dice"))
    held = comparison.images_by_class > 0
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, 100 * (after - before)[held])
    images = comparison.images_by_class[held]
    names = [
        f"{name} ({n})" for name, n in zip(np.array(comparison.classes)[held], images, strict=True)
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    scores = comparison.scores("RankSEG dice") - comparison.scores("argmax")
    told = Difference.of(scores[:, np.flatnonzero(held)[0]].numpy())
    intervals = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    ends = intervals[0][2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, [100 * told.low, 100 * told.high])


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
    assert [text.get_text() for text in figure.legends[0].get_texts()] == DRAWN
    assert [text.get_text() for text in axes.get_yticklabels()] == DRAWN
    figure = reliability_diagram(reliability(cases(), classes=ODD, ignore_index=255))
    figure.savefig(io.BytesIO())
    assert [text.get_text() for text in figure.legends[0].get_texts()][2:] == DRAWN
    figure = score_by_cut(next(cases()), classes=ODD, ignore_index=255, pruning_prob=0.0)
    figure.savefig(io.BytesIO())
    assert [one.get_title("left") for one in figure.axes[:4]] == DRAWN


def test_reliability_diagram():
    told = reliability(cases(), ignore_index=255)
    _, _, left, right = reliability_diagram(told, told).axes
    np.testing.assert_array_equal(left.lines[1].get_ydata(), told.top_frequency)
    for number, name in enumerate(told.classes):
        line = right.lines[1 + number]
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), told.confidence[number])
    assert f"{100 * told.ece:.2f}" in left.get_title("left")


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
        assert axes.get_title("left") == "abcd"[number]


def test_a_class_that_is_pruned_has_no_cut():
    probs = torch.tensor([[0.4, 0.3, 0.1, 0.1]])
    case = Case("a", probs, torch.tensor([1, 1, 0, 0]))
    for pruning_prob, marked in ((0.5, False), (0.3, True)):
        (axes,) = score_by_cut(case, pruning_prob=pruning_prob).axes
        assert any(line.get_label() == "chosen" for line in axes.lines) == marked


def test_of_probabilities_alone_only_what_is_expected_is_drawn():
    probs = torch.tensor([[0.9, 0.6, 0.1, 0.1]])
    (axes,) = score_by_cut(probs, cuts=[0.55]).axes
    assert [line.get_label() for line in axes.lines if line.get_label()[0] != "_"] == [
        *("expected", "1/2", "chosen")
    ]
    expected, chosen = axes.lines[0], axes.lines[-1]
    np.testing.assert_allclose(expected.get_ydata()[0], 2 * 0.9 / (1 + 1.7 + 1))
    assert chosen.get_xdata()[0] == 0.55
    assert chosen.get_ydata()[0] == pytest.approx(2 * 1.5 / (2 + 1.7 + 1))
    (axes,) = score_by_cut(probs, cuts=[float("nan")]).axes
    assert all(line.get_label() != "chosen" for line in axes.lines)


@pytest.mark.parametrize("width", [3.6, 8.4])
def test_every_chart_keeps_to_its_width_and_has_one_legend(comparison, width):
    told = reliability(cases(), ignore_index=255)
    method = "RankSEG dice"
    for figure in (
        paired_differences(comparison, method, width=width),
        class_changes(comparison, method, width=width),
        volume_changes(comparison, width=width),
        reliability_diagram(told, told, width=width),
        score_by_cut(next(cases()), ignore_index=255, width=width),
    ):
        assert figure.get_figwidth() == width
        assert len(figure.legends) == 1
        assert all(axes.get_legend() is None for axes in figure.axes)
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_nothing_to_draw():
    empty = Case("a", torch.zeros(1, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="case must have a class to draw, a has none"):
        score_by_cut(empty)
