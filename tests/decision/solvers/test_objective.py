"""RMA masks reach the maximum of the RMA objective, whatever the map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankseg import RankSEG
from rankseg._backends import native
from rankseg.functional import rankseg
from support import maps, oracles

SMOOTHS = (0.0, 1e-9, 0.3, 1.0, 40.0, 1e5)
ROUNDING = 1e-11


def assert_optimal(probs, metric, smooth):
    """Check every class of ``(batch, classes, pixels)`` maps against sort and scan."""
    masks = rankseg(probs, metric, smooth, "multilabel", "RMA", 0.0)
    for image, mask in zip(probs, masks, strict=True):
        for values, chosen in zip(image, mask, strict=True):
            reached = oracles.mask_score(metric, values, chosen, smooth)
            best = oracles.best_score(metric, values, smooth)
            assert reached == pytest.approx(best, rel=ROUNDING, abs=0)


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("dtype", maps.DTYPES)
def test_adversarial_maps(backend, dtype, metric, smooth):
    rng = np.random.default_rng(7)
    for pixels in (1, 2, 7, 300, 2500):
        rows = [values for _, values in maps.adversarial(rng, pixels)]
        assert_optimal(np.stack(rows)[None].astype(dtype), metric, smooth)


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_thousands_of_random_maps(backend, metric, smooth):
    rng = np.random.default_rng(11)
    for pixels in (1, 3, 9, 40):
        probs = rng.random((5, 60, pixels)) ** rng.choice([0.2, 1, 3, 12], (5, 60, 1))
        assert_optimal(probs.astype("float32"), metric, smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@given(
    values=hnp.arrays(
        np.float32, st.integers(1, 30), elements=st.floats(0, 1, width=32, allow_subnormal=True)
    ),
    smooth=st.sampled_from(SMOOTHS) | st.floats(0, 1e9),
)
def test_any_map(metric, values, smooth):
    assert_optimal(values[None, None], metric, smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_bfloat16(backend, metric):
    probs = torch.from_numpy(maps.softmax(2, 3, 700)).bfloat16()
    masks = RankSEG(metric, output_mode="multilabel", solver="RMA")(probs)
    assert torch.equal(
        masks, RankSEG(metric, output_mode="multilabel", solver="RMA")(probs.float())
    )


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_half_precision_sums_beyond_its_range(backend, metric):
    # 300,000 pixels at 0.4 sum to 120,000; the largest float16 is 65,504.
    values = np.full((1, 1, 300_000), 0.4, np.float16)
    values[..., ::3] = 0.9
    assert_optimal(values, metric, 0.0)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_ten_million_voxels(backend, metric):
    rng = np.random.default_rng(3)
    values = rng.random((1, 1, 10_000_000), np.float32) ** 6
    assert_optimal(values, metric, 0.0)


def test_every_half_precision_number_is_widened_exactly():
    # As many pixels as numbers: masks of p > 1/2 and the sums they rest on see each one once.
    halves = np.arange(0x3C01, dtype=np.uint16).view(np.float16)[None, None]
    wide = halves.astype(np.float32)
    for metric in ("dice", "iou"):
        options = {"metric": metric, "output_mode": "multilabel", "pruning_prob": 0.0}
        np.testing.assert_array_equal(rankseg(halves, **options), rankseg(wide, **options))


def test_a_pixel_above_another_is_never_left_out():
    probs = maps.softmax(1, 4, 900)
    masks = rankseg(probs, output_mode="multilabel")
    for values, mask in zip(probs[0], masks[0], strict=True):
        if mask.any():
            assert values[mask].min() > values[~mask].max()


@given(seed=st.integers(0, 999))
def test_permuting_pixels_permutes_the_mask(seed):
    probs = maps.dyadic(1, 3, 200, seed=seed)
    order = np.random.default_rng(seed).permutation(200)
    masks = rankseg(probs, output_mode="multilabel")
    np.testing.assert_array_equal(
        rankseg(probs[..., order], output_mode="multilabel"), masks[..., order]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_bits_become_the_same_numbers(dtype):
    """Read every number that half precision has, each as a map of one pixel."""
    values = torch.arange(1 << 16).to(torch.int16).view(dtype).view(-1, 1, 1)
    tables = native.survey(native.open_maps(values, None)).scan_tables
    low, peak = (torch.from_numpy(array).view(-1, 1, 1) for array in tables.held[1:])
    proper = (values >= 0) & (values <= 1)
    assert torch.equal(low[proper], values[proper].float())
    assert torch.equal(low.view(torch.int32), peak.view(torch.int32))
    assert not ((low[~proper] >= 0) & (low[~proper] <= 1)).any()
