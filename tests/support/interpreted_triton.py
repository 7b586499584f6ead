"""The GPU kernels against the reference, run by Triton's interpreter on the CPU.

``test_triton.py`` runs this file in a process of its own: the interpreter must be asked for before
Triton is imported.
"""

from __future__ import annotations

import pytest
import torch

from rankseg._backends import native, torch_reference, triton_gpu
from rankseg._formulas.objectives import Dice, IoU
from rankseg._formulas.records import CONTESTED, UNASSIGNED, Gains
from support import maps

CUTS = torch.tensor([[0.5, 0.25, 0.125, 0.375], [0.0, torch.inf, 0.5, 0.25]]).double()
ACTIVE = torch.tensor([[True, True, False, True], [True, False, True, True]])

LAYOUTS = {
    "contiguous": lambda probs: probs,
    "channels last": lambda probs: probs.to(memory_format=torch.channels_last),
    "crop": lambda probs: probs[..., 3:23, 5:38],
    "crop of a volume": lambda probs: probs.view(2, 4, 5, 5, 40)[:, :, 1:4, :3, 3:37],
    "four axes": lambda probs: probs.view(2, 4, 5, 5, 4, 10)[:, :, 1:4, :3, 1:3, 2:],
}
CASES = [
    ("contiguous", torch.float32, False),
    ("contiguous", torch.float16, True),
    ("channels last", torch.bfloat16, False),
    ("crop", torch.float64, True),
    ("crop of a volume", torch.float32, False),
    ("four axes", torch.float32, True),
]


@pytest.fixture
def gpu(monkeypatch):
    """Return the backend, with maps of many parts."""
    monkeypatch.setattr(triton_gpu, "TILE", 512)
    monkeypatch.setattr(triton_gpu, "LABEL_TILE", 256)
    monkeypatch.setattr(triton_gpu, "MOST_PARTS", 2)
    return triton_gpu


@pytest.fixture(params=CASES, ids=str)
def opened(request, gpu):
    """Open the same maps, whose sums are exact, in both backends."""
    layout, dtype, masked = request.param
    probs = LAYOUTS[layout](torch.from_numpy(maps.dyadic(2, 4, 25, 40)).to(dtype))
    valid = None
    if masked:
        valid = torch.rand(2, *probs.shape[2:], generator=torch.Generator().manual_seed(0)) < 0.8
    pairs = []
    for backend in (gpu, torch_reference):
        opened_maps = backend.open_maps(probs, valid)
        pairs.append((backend, opened_maps, backend.survey(opened_maps)))
    return pairs


def assert_same(results):
    for ours, reference in zip(*results, strict=True):
        assert torch.equal(ours, reference)


def test_sums_and_cuts(opened):
    fields = ("mass", "peak", "likely_count", "likely_mass", "is_invalid")
    assert_same([[getattr(survey, name) for name in fields] for _, _, survey in opened])
    assert_same([b.above(m, survey, CUTS, ACTIVE) for b, m, survey in opened])
    assert_same([[b.masks(m, survey, CUTS)] for b, m, survey in opened])
    start, none = torch.full_like(CUTS, 0.1), torch.zeros_like(CUTS)
    for offset in (1.0, 50.0):
        terms = start, ACTIVE, none, torch.full_like(CUTS, offset)
        raised = [b.raise_cuts(m, survey, *terms) for b, m, survey in opened]
        assert torch.equal(*raised)
        assert (raised[0] > start).any()
    for terms in ((0.0, 1.0, True), (0.5, 1.0, False), (0.0, 1e-30, True)):
        assert_same([[b.best_cuts(m, survey, ACTIVE, *terms)] for b, m, survey in opened])


@pytest.mark.parametrize("reach", [1.0, 0.75])
def test_labels(opened, reach):
    results = []
    for b, m, survey in opened:
        labels, count, mass = b.claim(m, survey, CUTS, None if reach == 1 else CUTS * reach)
        found = [labels.clone(), count, mass]
        cases = [
            (Gains.probability(survey.mass), 0.3, CONTESTED),
            (IoU(0.5).increment(count, mass, survey.mass), -torch.inf, 255),
            (Dice(0.5).increment(count, mass, survey.mass), 0.0, UNASSIGNED),
        ]
        for gains, floor, void in cases:
            terms = CUTS, gains, ACTIVE, floor, void
            resolved = b.resolve(m, survey, labels.clone(), *terms)
            found += [resolved, *b.tally(m, survey, resolved)]
        results.append(found)
    assert_same(results)
    assert len(results[0][0].unique()) >= 4


@pytest.mark.parametrize("value", [torch.nan, -0.25, 1.01, torch.inf])
def test_faults(gpu, value):
    probs = torch.rand(2, 2, 9, 40)
    assert not gpu.survey(gpu.open_maps(probs, None)).is_invalid
    probs[1, 1, 8, 39] = value
    assert gpu.survey(gpu.open_maps(probs, None)).is_invalid


def test_the_backend_has_every_operation(gpu):
    operations = {name for name in vars(native) if name in vars(torch_reference)}
    operations = {name for name in operations if name[0].islower() and callable(vars(native)[name])}
    here = torch_reference.__name__
    operations = {name for name in operations if vars(torch_reference)[name].__module__ == here}
    assert operations == set(gpu.__all__)
