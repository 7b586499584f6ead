"""Masks found row by row are those found pass by pass, of RMA bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG, expected_score
from rankseg._backends import numba_cpu, numba_cuts
from rankseg._formulas.expectation import RATIOS
from rankseg._formulas.objectives import Dice
from support import maps

CASES = [("RMA", 0.0), ("RMA", 3.0), *(("exact", g) for g in (0.0, 1e-12, 0.5, 30.0, 1e9))]

OPTIONS = {
    "RMA": {"solver": "RMA"},
    "exact": {"solver": "exact"},
}

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def both_ways(monkeypatch, threads):
    """Return what decides at once with two threads, and pass by pass with one."""

    def decide(probs, valid=None, **options):
        results = []
        for at_once in (True, False):
            monkeypatch.setattr(numba_cpu, "takes_rows_at_once", lambda *_, way=at_once, **__: way)
            threads(2 if at_once else 1)
            results.append(RankSEG(output_mode="multilabel", **options)(probs, valid))
        return results

    return decide


@pytest.mark.parametrize("pixels", [1, 999, 1024, 180 * 1024 + 7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize(("solver", "smooth"), CASES)
def test_any_map(both_ways, solver, smooth, metric, dtype, pixels):
    rows = [row for _, row in maps.adversarial(np.random.default_rng(3), pixels)]
    probs = torch.from_numpy(np.stack(rows)).to(dtype).view(3, 5, pixels)
    for pruning in (0.0, 0.5):
        options = {"metric": metric, "solver": solver, "smooth": smooth, "pruning_prob": pruning}
        ours, others = both_ways(probs, **options)
        if solver == "exact":  # of masks that are equally good, rounding chooses
            first, second = (expected_score(probs, some, metric, smooth) for some in (ours, others))
            assert torch.allclose(first, second, rtol=1e-13, atol=0)
            tied = probs.double() == 0.5 if pixels == 1 else torch.zeros(())
            assert torch.equal(ours | tied.bool(), others | tied.bool())
        else:
            assert torch.equal(ours, others)
    assert ours.any()


@pytest.mark.parametrize("top", [0.45, 0.6])
@pytest.mark.parametrize("falling", [True, False])
def test_more_doubtful_pixels_than_are_kept(both_ways, falling, top):
    """The mask marked at the first cut holds blocks that the last cut leaves out whole."""
    probs = torch.linspace(0.001, top, 60 * 1024)
    probs = probs.flip(0) if falling else probs
    ours, others = both_ways(probs.view(1, 1, -1), pruning_prob=0.0)
    assert torch.equal(ours, others)
    assert 0.3 < ours.float().mean() < 0.8


def test_blocks_without_doubtful_pixels_where_no_more_would_be_kept(both_ways):
    doubtful, sure = torch.full((numba_cuts.KEPT - 512,), 0.49), torch.tensor([0.9, 0.1])
    probs = torch.cat((doubtful, sure.repeat(10 * 1024)))
    ours, others = both_ways(probs.view(1, 1, -1))
    assert torch.equal(ours, others)
    assert torch.equal(ours.flatten(), probs > 0.3)


def test_more_masks_in_question_than_are_kept(both_ways):
    """All values of 1/4 are as good as the cut: what is not kept is left to the other way."""
    number = 2 * numba_cuts.KEPT
    crowded = torch.cat((torch.ones(number // 8), torch.full((number,), 0.25)))
    probs = torch.stack((crowded, torch.rand(len(crowded)))).unsqueeze(0)
    ratio, fraction = RATIOS["dice"], Dice().fraction_at_infinity
    opened = numba_cpu.open_maps(probs, None)
    *_, known = numba_cpu.exact_masks(opened, 0.5, ratio, 0.0, *fraction)
    assert known.tolist() == [[False, True]]
    ours, others = both_ways(probs, **OPTIONS["exact"])
    assert torch.equal(ours, others)
    assert ours.any()


@pytest.mark.parametrize("solver", ["RMA", "exact"])
@pytest.mark.parametrize("layout", ["channels last", "holes", "logits"])
def test_any_layout(both_ways, layout, solver):
    probs, valid, options = torch.from_numpy(maps.smooth(2, 3, 160)), None, OPTIONS[solver].copy()
    if layout == "channels last":
        probs = probs.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "holes":
        valid = torch.from_numpy(np.random.default_rng(0).random((2, 160, 160)) > 0.3)
    if layout == "logits":
        probs, options["from_logits"] = probs.logit(1e-6), "softmax"
    ours, others = both_ways(probs, valid, **options)
    assert torch.equal(ours, others)
    assert 0 < ours.sum() < ours.numel()


def test_one_channel_as_labels(both_ways):
    probs = torch.from_numpy(maps.smooth(5, 2, 64))[:, :1]
    masks, _ = both_ways(probs, solver="RMA")
    for at_once in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numba_cpu, "takes_rows_at_once", lambda *_, way=at_once, **__: way)
            assert torch.equal(RankSEG(solver="joint")(probs), masks[:, 0].long())


@pytest.mark.parametrize("solver", ["RMA", "exact"])
@pytest.mark.parametrize("value", [torch.nan, -0.25, 1.01, torch.inf])
def test_faults_are_found(both_ways, value, solver):
    probs = torch.rand(2, 3, 5000)
    probs[1, 2, 4321] = value
    with pytest.raises(ValueError, match="probs must"):
        both_ways(probs, **OPTIONS[solver])


@pytest.mark.parametrize(
    ("number", "rows", "pixels", "at_once"),
    [(2, 3, 1 << 19, False), (2, 4, 1 << 19, True), (1, 1, 1 << 19, True), (2, 1, 1 << 18, True)],
)
def test_it_waits_for_enough_rows_unless_they_are_small(
    monkeypatch, threads, number, rows, pixels, at_once
):
    threads(number)
    monkeypatch.setattr(numba_cpu, "VALUES_PER_TASK", 1 << 18)
    opened = numba_cpu.open_maps(torch.zeros(1, rows, 1).expand(1, rows, pixels), None)
    assert numba_cpu.takes_rows_at_once(opened) == at_once
    assert numba_cpu.takes_rows_at_once(opened, alike=False)


def test_where_the_ways_are_not_alike_only_the_size_of_a_row_decides(monkeypatch, threads):
    monkeypatch.setattr(numba_cpu, "LARGE_ROW", 1000)
    probs = torch.zeros(5, 7, 1).expand(5, 7, 1001)
    for number in (1, 2):
        threads(number)
        for pixels in (1000, 1001):
            opened = numba_cpu.open_maps(probs[..., :pixels], None)
            assert numba_cpu.takes_rows_at_once(opened, alike=False) == (pixels == 1000)
