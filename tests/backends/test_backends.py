"""Every operation of the fast backend against the reference, exactly, on maps of many blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg._backends import native, native_library, torch_reference
from rankseg._formulas.bins import BINS, bin_edges, bin_of
from rankseg._formulas.objectives import Dice, IoU
from rankseg._formulas.records import (
    CONTESTED,
    POWERS,
    UNASSIGNED,
    GainCurves,
    Gains,
    Integrals,
    Steps,
)
from support import maps


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
    for backend in (native, torch_reference):
        opened_maps = backend.open_maps(probs, valid)
        pairs.append((backend, opened_maps, backend.survey(opened_maps)))
    return pairs


def test_probabilities(opened):
    classes = torch.tensor([3, 0])
    (one, other) = (
        backend.probabilities(maps, 1, classes, slice(2, 5)) for backend, maps, _ in opened
    )
    assert one.dtype == torch.float32
    assert torch.equal(one, other)
    probs, valid = regions(torch.float32)[1, [3, 0], 2:5], opened[1][1].valid
    assert torch.equal(one, probs if valid is None else probs.where(valid[1, 2:5], 0))


CUTS = torch.tensor([[0.5, 0.25, 0.5, 0.125, 0.375], [0.0, 0.25, torch.inf, 0.5, 0.25]]).double()
ACTIVE = torch.tensor([[True, True, True, False, True], [True, True, False, True, True]])
ROWS = ACTIVE.nonzero()


def assert_same(results):
    for ours, reference in zip(*results, strict=True):
        assert torch.equal(ours, reference)


def test_survey(opened):
    fields = ("mass", "peak", "likely_count", "likely_mass", "is_invalid")
    assert_same([[getattr(survey, name) for name in fields] for _, _, survey in opened])


def test_above(opened):
    assert_same([backend.above(m, survey, CUTS, ACTIVE) for backend, m, survey in opened])


@pytest.mark.parametrize("start", [0.0, 0.1875, 0.5, 0.625])
@pytest.mark.parametrize(("bonus", "offset"), [(0.0, 41000.0), (300.0, 41000.0), (0.0, 1.0)])
def test_raise_cuts(opened, start, bonus, offset):
    # From 0 more values lie below 1/2 than are kept; with the offset 1 cuts rise beyond 1/2.
    start, bonus, offset = (torch.full_like(CUTS, value) for value in (start, bonus, offset))
    raised = [b.raise_cuts(m, s, start, ACTIVE, bonus, offset) for b, m, s in opened]
    assert_same([[cuts] for cuts in raised])
    assert torch.equal(raised[0][~ACTIVE], start[~ACTIVE])
    backend, m, survey = opened[1]
    count, mass = backend.above(m, survey, raised[0], ACTIVE)
    fraction = (mass + bonus) / (count + offset)
    assert (fraction <= raised[0])[ACTIVE].all()
    rose = ACTIVE & (raised[0] > start)
    assert torch.equal(fraction[rose], raised[0][rose])
    assert (raised[0] > 0.5).any() or offset.max() > 1


@pytest.mark.parametrize("terms", [(0.0, 1.0, True), (0.5, 1.0, False), (0.0, 1e-30, True)])
def test_best_cuts(opened, terms):
    bonus, offset, keep_peak = terms
    for backend, m, survey in opened:
        terms = torch.full_like(survey.mass, bonus), survey.mass + offset
        cuts = backend.raise_cuts(m, survey, survey.first_cuts(*terms), ACTIVE, *terms)
        if keep_peak:
            cuts = cuts.minimum(torch.nextafter(survey.peak, torch.tensor(-torch.inf)))
        found = backend.best_cuts(m, survey, ACTIVE, bonus, offset, keep_peak)
        assert torch.equal(found, cuts.where(ACTIVE, torch.inf))


@pytest.mark.usefixtures("_slabs")
def test_raise_cuts_where_more_values_are_doubtful_than_are_kept():
    probs = 0.375 + torch.from_numpy(maps.dyadic(1, 2, 200, 205)) / 8
    probs[:, :, ::7] = 1.0
    cuts, active = torch.tensor([[0.25, 0.0]]).double(), torch.ones(1, 2, dtype=torch.bool)
    raised = []
    for backend in (native, torch_reference):
        m = backend.open_maps(probs.float(), None)
        survey = backend.survey(m)
        bonus, offset = torch.zeros_like(cuts), survey.mass + 1
        raised.append(backend.raise_cuts(m, survey, cuts, active, bonus, offset))
    assert torch.equal(*raised)
    assert ((raised[0] > cuts) & (raised[0] < 0.375)).all()


def test_masks(opened):
    assert_same([[backend.masks(m, survey, CUTS)] for backend, m, survey in opened])


def test_labels_of_unsettled_pixels_are_those_of_all(opened):
    cuts = CUTS.where(ACTIVE, torch.inf)
    results = []
    for backend, m, survey in opened:
        gains = Gains.probability(survey.mass)

        def share_out(m, survey, cuts=cuts, backend=backend, gains=gains):
            labels, _, _ = backend.claim(m, survey, cuts)
            return backend.resolve(m, survey, labels, cuts, gains, ACTIVE, -torch.inf, 255)

        labels, count, mass = backend.claim(m, survey, cuts, cuts * 0.75)
        some = (labels < 0).sum()
        part, told, place = backend.unsettled(m, survey, labels, ACTIVE, 255)
        own = share_out(part, told)
        held = backend.tally(part, told, own)
        joined = backend.join(labels, part, place, own)
        assert torch.equal(joined, share_out(m, survey))
        whole = backend.tally(m, survey, joined)
        assert torch.equal(count + held[0], whole[0])
        assert torch.equal(mass + held[1], whole[1])
        assert 0 < len(place) <= some < joined.numel() / 1.5
        results.append((joined, count, mass, place, *held))
    assert_same(results)


@pytest.mark.parametrize("at_first", [True, False])
def test_pixels_that_turn_valid_or_void_meanwhile_are_not_left_unsettled(monkeypatch, at_first):
    valid = torch.full((2, 40000), at_first)
    opened_maps = native.open_maps(torch.rand(2, 3, 40000), valid)
    survey = native.survey(opened_maps)
    cuts, active = torch.full((2, 3), torch.inf).double(), torch.ones(2, 3, dtype=torch.bool)
    labels = native.claim(opened_maps, survey, cuts)[0]

    def call(name, *arguments):
        native_library.call(name, *arguments)
        if name == "count_unsettled":
            valid[1] = not at_first

    monkeypatch.setattr(native, "call", call)
    part, told, place = native.unsettled(opened_maps, survey, labels, active, 255)
    own = native.claim(part, told, cuts)[0]
    gains = Gains.probability(survey.mass)
    own = native.resolve(part, told, own, cuts, gains, active, -torch.inf, 255)
    joined = native.join(labels, part, place, own)
    assert (joined >= 0).all()
    assert (joined[0] == 255).all() != at_first


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
    probs = torch_reference._probs(opened[1][1], slice(None)).double().flatten(2)
    mean, variance, third = results[0]
    assert torch.equal(mean, probs.sum(2) * ACTIVE)
    assert torch.equal(variance, (probs * (1 - probs)).sum(2) * ACTIVE)
    assert torch.equal(third, (probs * (1 - probs) * (1 - 2 * probs)).sum(2) * ACTIVE)


def test_split(opened):
    low = torch.where(ACTIVE, 0.2, 0.5).double()
    high = CUTS.clamp(min=0.25)
    degree = torch.tensor([[4, 1, 12, 0, 2], [3, 12, 2, 0, 12]])
    rate = torch.full_like(low, 1e4)
    ours, reference = (b.split(m, s, low, high, degree, rate) for b, m, s in opened)
    asked = degree > 0
    for counts, expected in zip(ours[:2], reference[:2], strict=True):
        assert torch.equal(counts[asked], expected[asked])
    asked = (torch.arange(POWERS) < degree[..., None, None]).expand_as(ours[2])
    torch.testing.assert_close(ours[2][asked], reference[2][asked], rtol=1e-11, atol=1e-11)
    _, maps_, _ = opened[1]
    probs = torch_reference._probs(maps_, slice(None)).double().flatten(2)
    for side, inside in enumerate((probs > high[..., None], probs <= low[..., None])):
        sums = torch.stack([(probs**j).where(inside, 0).sum(2) for j in range(1, POWERS + 1)], 2)
        expected = sums[asked[:, :, side]]
        torch.testing.assert_close(
            ours[2][:, :, side][asked[:, :, side]], expected, rtol=1e-10, atol=1e-10
        )


def test_split_skips_no_block_that_matters():
    # A block of nearly equal values is taken for one of equal values, but only as far as the
    # product of all (1 - p s), with s about 1 / rate, does not notice.
    values = torch.linspace(0, 1, 400 * 1024, dtype=torch.float64).view(1, 1, -1) ** 8
    opened_maps = native.open_maps(values, None)
    survey = native.survey(opened_maps)
    everything = torch.full_like(survey.mass, torch.inf)
    degree = torch.full_like(survey.mass, POWERS).long()
    sums = native.split(opened_maps, survey, everything, everything, degree, survey.mass)[2]
    order = torch.arange(1, POWERS + 1).double()
    direct = torch.stack([(values**power).sum() for power in order])
    assert not torch.equal(sums[0, 0, 1], direct)  # blocks were skipped
    s = 5 / survey.mass.item()
    log = -(sums[0, 0, 1] * s**order / order).sum()
    assert log.item() == pytest.approx(torch.log1p(-values * s).sum().item(), abs=3e-12)


def integrals(rows, outside, less_one):
    """Return integrals of rows with 3 to 8 nodes, as the exact solver might ask for them."""
    generator = torch.Generator().manual_seed(rows)
    label, part, amount = torch.rand(3, rows, 8, generator=generator).double()
    needed = torch.arange(rows) % 6 + 3
    part = part.where(torch.arange(8) < needed[:, None], 0)
    hits, mass = (less_one, 1.0) if outside else (2.0, 0.0)
    return Integrals(label, part, 3 + amount, needed, Steps(hits, mass, less_one, outside))


@pytest.mark.parametrize("less_one", [0.0, 1.0])
@pytest.mark.parametrize("outside", [True, False])
def test_scan(threads, outside, less_one):
    threads(2)
    rows, width = 40, 700
    rng = np.random.default_rng(6)
    extra = rng.integers(0, width + 1, rows)
    values = np.round(rng.random((rows, width)) ** rng.integers(1, 30, (rows, 1)), 2)
    values = np.sort(values * (np.arange(width) < extra[:, None]), 1)[:, ::-1].copy()
    terms = integrals(rows, outside, less_one)
    arguments = torch.from_numpy(values), torch.from_numpy(extra), terms
    taken = native.scan(*arguments)
    assert torch.equal(taken, torch_reference.scan(*arguments))
    assert len(taken.unique()) > 5
    for row in range(0, rows, 7):
        assert taken[row] == best_prefix(values[row, : extra[row]], terms, row)


def best_prefix(values, terms, row):
    """Return how many of the values are best to take, straight from the definition."""
    label, part, amount = (term[row, : terms.nodes[row]].numpy() for term in terms[:3])
    steps = terms.steps
    scores = []
    for taken in range(len(values) + 1):
        left = 1 - values[:, None] + values[:, None] * label
        hits = values[:, None] * label / left
        product = label**taken * (left[taken:] if steps.outside else left).prod(0)
        rise = steps.per_hit * hits[:taken].sum(0) - steps.per_count * (hits.sum(0) + taken)
        score = part @ (product * (amount + rise + steps.per_mass * values[:taken].sum()))
        inside_run = 0 < taken < len(values) and values[taken - 1] == values[taken]
        scores.append(-np.inf if inside_run else score)
    return int(np.argmax(scores))


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
        gains = Gains.probability(survey.mass)
        resolved = backend.resolve(m, survey, labels.clone(), CUTS, gains, ACTIVE, 0.3, 255)
        changes = [backend.exchange(m, survey, some, CUTS, ROWS) for some in (labels, resolved)]
        results.append([backend.profile(m, survey, ROWS), *changes])
    assert_same(results)
    whole, *changes = results[0]
    assert torch.equal(whole[..., 0].sum(1), torch.full((8,), 41000.0).double())
    (backend, m, survey), _ = opened
    place = ROWS.unbind(1)
    for some, change in zip((labels, resolved), changes, strict=True):
        masks, held = backend.above(m, survey, CUTS, ACTIVE), backend.tally(m, survey, some)
        for term in range(2):
            assert torch.equal(change[..., term].sum(1), (held[term] - masks[term])[place])
    assert (changes[0] < 0).any()
    assert (changes[1] > 0).any()


@pytest.mark.parametrize("floor", [0.0, -torch.inf])
def test_resolve_with_gains_by_curves(opened, floor):
    power = torch.linspace(0.5, 2, len(ROWS)).unsqueeze(1)
    curve = bin_edges(torch.device("cpu")).pow(power) - 0.3
    results = []
    for backend, m, survey in opened:
        labels = backend.claim(m, survey, CUTS)[0]
        gains = GainCurves.through(ROWS, curve)
        results.append([backend.resolve(m, survey, labels, CUTS, gains, ACTIVE, floor, 255)])
    assert_same(results)
    assert {0, 1, 2, 4} <= set(results[0][0].unique().tolist())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_bins_hold_their_upper_edge(dtype):
    edges = bin_edges(torch.device("cpu"))
    values = torch.cat((edges, torch.logspace(-12, 0, 4001), 1 - torch.logspace(-12, 0, 4001)))
    values = values.to(dtype)
    bins = bin_of(values)
    assert (values <= edges[bins + 1]).all()
    assert ((values > edges[bins]) | (bins == 0)).all()
    probs = values.view(1, 1, -1)
    m = native.open_maps(probs, None)
    counts = native.profile(m, native.survey(m), torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(counts[0, :, 0], torch.bincount(bins, minlength=BINS).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_profiles_sum_the_values_of_every_bin(dtype):
    ends = [0.0, -0.0, 1e-40, 2.0**-25, 2.0**-24, 0.5, 1.0, 1 + 3 * torch.finfo(dtype).eps]
    ends = torch.tensor(ends)
    values = torch.cat((torch.rand(5000, generator=torch.manual_seed(0)), ends.repeat(400)))
    values = values[torch.randperm(len(values))].double().to(dtype)
    m = native.open_maps(values.view(1, 1, -1), None)
    profile = native.profile(m, native.survey(m), torch.zeros(1, 2, dtype=torch.long))[0]
    expected = torch.zeros(BINS, 2).double()
    expected.index_add_(0, bin_of(values), torch.stack((values.double() ** 0, values.double()), 1))
    assert torch.allclose(profile, expected, rtol=1e-14, atol=0)


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
            gain = (gains.slope * p - gains.cost) / (gains.size - gains.shrink * p)
            assert gain.item() == pytest.approx(rise.item(), rel=error, abs=1e-9)
