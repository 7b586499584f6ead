"""Masks found row by row are, bit for bit, those found pass by pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import maps
from rankseg import RankSEG
from rankseg._backends import numba_cpu, numba_cuts

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def both_ways(monkeypatch, threads):
    """Return what decides at once with two threads, and pass by pass with one."""

    def decide(probs, valid=None, **options):
        results = []
        for at_once in (True, False):
            monkeypatch.setattr(numba_cpu, "takes_rows_at_once", lambda _, way=at_once: way)
            threads(2 if at_once else 1)
            results.append(RankSEG(output_mode="multilabel", **options)(probs, valid))
        return results

    return decide


@pytest.mark.parametrize("pixels", [1, 999, 1024, 180 * 1024 + 7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("metric", "smooth"), [("dice", 0.0), ("iou", 0.0), ("iou", 3.0)])
def test_any_map(both_ways, metric, smooth, dtype, pixels):
    rows = [row for _, row in maps.adversarial(np.random.default_rng(3), pixels)]
    probs = torch.from_numpy(np.stack(rows)).to(dtype).view(3, 5, pixels)
    for pruning in (0.0, 0.5):
        options = {"metric": metric, "smooth": smooth, "pruning_prob": pruning}
        ours, others = both_ways(probs, **options)
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


@pytest.mark.parametrize("layout", ["channels last", "holes", "logits"])
def test_any_layout(both_ways, layout):
    probs, valid, options = torch.from_numpy(maps.smooth(2, 3, 160)), None, {}
    if layout == "channels last":
        probs = probs.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "holes":
        valid = torch.from_numpy(np.random.default_rng(0).random((2, 160, 160)) > 0.3)
    if layout == "logits":
        probs, options = probs.logit(1e-6), {"from_logits": "softmax"}
    ours, others = both_ways(probs, valid, **options)
    assert torch.equal(ours, others)
    assert 0 < ours.sum() < ours.numel()


def test_one_channel_as_labels(both_ways):
    probs = torch.from_numpy(maps.smooth(5, 2, 64))[:, :1]
    masks, _ = both_ways(probs)
    for at_once in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numba_cpu, "takes_rows_at_once", lambda _, way=at_once: way)
            assert torch.equal(RankSEG(solver="joint")(probs), masks[:, 0].long())


@pytest.mark.parametrize("value", [torch.nan, -0.25, 1.01, torch.inf])
def test_faults_are_found(both_ways, value):
    probs = torch.rand(2, 3, 5000)
    probs[1, 2, 4321] = value
    with pytest.raises(ValueError, match="probs must"):
        both_ways(probs)


def test_it_waits_for_enough_rows(threads):
    threads(2)
    assert not numba_cpu.takes_rows_at_once(numba_cpu.open_maps(torch.rand(1, 3, 9), None))
    assert numba_cpu.takes_rows_at_once(numba_cpu.open_maps(torch.rand(2, 2, 9), None))
    threads(1)
    assert numba_cpu.takes_rows_at_once(numba_cpu.open_maps(torch.rand(1, 1, 9), None))
