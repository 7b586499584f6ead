"""Every operation of the fast backend against the reference, exactly, on maps of many blocks."""

from __future__ import annotations

import pytest
import torch

import maps
from rankseg._backends import numba_cpu, torch_reference
from rankseg._backends._bins import BINS, bin_edges, bin_of
from rankseg._backends._records import CONTESTED, UNASSIGNED, Gains
from rankseg._objectives import Dice, IoU


def regions(dtype):
    """Return dyadic maps of 40 blocks a class, some wholly inside a mask, some outside."""
    probs = torch.from_numpy(maps.dyadic(2, 5, 200, 205)) / 2
    probs[:, 0, :60] = 1.0
    probs[:, 1:, :60] = 0.0
    probs[:, 2, 90:150] = 0.75
    probs[1, 3, 120:] = 0.75
    return probs.to(dtype)


def valid_pixels(kind):
    if kind == "all":
        return None
    valid = torch.ones(2, 200, 205, dtype=torch.bool)
    valid[0, 30:100, 20:] = False
    return valid


@pytest.fixture(params=[1 << 20, 3000], ids=["one slab", "many slabs"])
def _slabs(request, monkeypatch):
    monkeypatch.setattr(torch_reference, "SLAB", request.param)


@pytest.fixture(params=["all", "holes"])
def opened(request, _slabs, threads):
    """Open the same maps in both backends: pairs of backend, maps and survey."""
    threads(2)
    probs, valid = regions(torch.float32), valid_pixels(request.param)
    pairs = []
    for backend in (numba_cpu, torch_reference):
        opened_maps = backend.open_maps(probs, valid)
        pairs.append((backend, opened_maps, backend.survey(opened_maps)))
    return pairs


CUTS = torch.tensor([[0.5, 0.25, 0.5, 0.125, 0.375], [0.0, 0.25, torch.inf, 0.5, 0.25]]).double()
ACTIVE = torch.tensor([[True, True, True, False, True], [True, True, False, True, True]])


def assert_same(results):
    for ours, reference in zip(*results, strict=True):
        assert torch.equal(ours, reference)


def test_survey(opened):
    fields = ("mass", "peak", "likely_count", "likely_mass", "fault")
    assert_same([[getattr(survey, name) for name in fields] for _, _, survey in opened])


def test_above(opened):
    assert_same([backend.above(m, survey, CUTS, ACTIVE) for backend, m, survey in opened])


def test_masks(opened):
    assert_same([[backend.masks(m, survey, CUTS)] for backend, m, survey in opened])


def test_between(opened):
    rows = ACTIVE.nonzero()
    low, high = torch.full((len(rows),), 0.1).double(), torch.full((len(rows),), 0.4).double()
    results = [b.between(m, survey, low, high, rows, m.pixels) for b, m, survey in opened]
    assert_same([[values] for values in results])
    assert (results[0] > 0).any()


def test_sizes(opened):
    results = [[backend.sizes(m)] for backend, m, _ in opened]
    assert_same(results)
    valid = opened[1][1].valid
    expected = [200 * 205] * 2 if valid is None else valid.sum((1, 2)).tolist()
    assert results[0][0].tolist() == expected


def test_moments(opened):
    results = [backend.moments(m, survey, ACTIVE) for backend, m, survey in opened]
    assert_same(results)
    probs = opened[1][1].probs.double().flatten(2)
    mean, variance, third = results[0]
    assert torch.equal(mean, probs.sum(2) * ACTIVE)
    assert torch.equal(variance, (probs * (1 - probs)).sum(2) * ACTIVE)
    assert torch.equal(third, (probs * (1 - probs) * (1 - 2 * probs)).sum(2) * ACTIVE)


def test_claim(opened):
    results = [backend.claim(m, survey, CUTS) for backend, m, survey in opened]
    assert_same(results)
    for label in (UNASSIGNED, CONTESTED, 0, 2):
        assert (results[0][0] == label).any()


@pytest.mark.parametrize("floor", [0.0, -torch.inf])
@pytest.mark.parametrize("void", [255, UNASSIGNED, CONTESTED])
def test_resolve(opened, void, floor):
    results = []
    for backend, m, survey in opened:
        labels, count, mass = backend.claim(m, survey, CUTS)
        gains = IoU(0.5).increment(count, mass, survey.mass)
        results.append(
            [backend.resolve(m, survey, labels.clone(), CUTS, gains, ACTIVE, floor, void)]
        )
    assert_same(results)


def test_tally(opened):
    results = []
    for backend, m, survey in opened:
        labels = backend.claim(m, survey, CUTS)[0]
        gains = Gains.probability(survey.mass)
        labels = backend.resolve(m, survey, labels, CUTS, gains, ACTIVE, 0.3, 255)
        results.append(backend.tally(m, survey, labels))
    assert_same(results)


def test_profile(opened):
    results = []
    for backend, m, survey in opened:
        labels = backend.claim(m, survey, CUTS)[0]
        results.append(
            [backend.profile(m, survey, ACTIVE), backend.profile(m, survey, ACTIVE, labels)]
        )
    assert_same(results)
    whole, labelled = results[0]
    assert torch.equal(whole[..., 0].sum(2), ACTIVE * 41000.0)
    assert 0 < labelled.sum() < whole.sum()


@pytest.mark.parametrize("floor", [0.0, -torch.inf])
def test_resolve_with_gains_by_pieces(opened, floor):
    power = torch.linspace(0.5, 2, 10).view(2, 5, 1)
    curve = bin_edges(torch.device("cpu")).pow(power) - 0.5
    results = []
    for backend, m, survey in opened:
        labels = backend.claim(m, survey, CUTS)[0]
        gains = Gains.through(curve)
        results.append([backend.resolve(m, survey, labels, CUTS, gains, ACTIVE, floor, 255)])
    assert_same(results)
    assert set(range(5)) <= set(results[0][0].unique().tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_bins_hold_their_upper_edge(dtype):
    edges = bin_edges(torch.device("cpu"))
    values = torch.cat((edges, torch.logspace(-12, 0, 4001), 1 - torch.logspace(-12, 0, 4001)))
    values = values.to(dtype)
    bins = bin_of(values)
    assert (values <= edges[bins + 1]).all()
    assert ((values > edges[bins]) | (bins == 0)).all()
    probs = values.view(1, 1, -1)
    m = numba_cpu.open_maps(probs, None)
    counts = numba_cpu.profile(m, numba_cpu.survey(m), torch.ones(1, 1, dtype=torch.bool))
    assert torch.equal(counts[0, 0, :, 0], torch.bincount(bins, minlength=BINS).double())


@pytest.mark.parametrize("smooth", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("objective", [Dice, IoU])
def test_gains_are_differences_and_derivatives_of_the_score(objective, smooth):
    objective = objective(smooth)
    count, mass, volume = (torch.tensor([[value]]).double() for value in (12.0, 7.0, 11.0))
    before = objective.score(count, mass, volume)
    for p in (0.0, 0.2, 0.9, 1.0):
        for part, gains, error in (
            (1.0, objective.increment(count, mass, volume), 1e-14),
            (1e-6, objective.slope(count, mass, volume), 1e-6),
        ):
            rise = (objective.score(count + part, mass + part * p, volume) - before) / part
            gain = (gains.slope * p - gains.toll) / (gains.size - gains.shrink * p)
            assert gain.item() == pytest.approx(rise.item(), rel=error, abs=1e-9)
