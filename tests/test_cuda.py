"""Decisions on a CUDA device: the same as on the CPU, in a graph too, and with few waits."""

from __future__ import annotations

import warnings

import pytest
import torch

from rankseg import ClassProfile, RankSEG, expected_score
from support import maps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OPTIONS = [
    {},
    {"metric": "iou"},
    {"smooth": 0.5},
    {"metric": "iou", "smooth": 3.0, "unassigned_policy": "void"},
    {"output_mode": "multilabel"},
    {"metric": "iou", "output_mode": "multilabel", "pruning_prob": 0.0},
    {"solver": "joint"},
    {"solver": "exact"},
    {"metric": "iou", "solver": "exact", "output_mode": "multilabel"},
    {"correlation": 0.5},
    {"correlation": 0.5, "metric": "iou", "output_mode": "multilabel"},
    {"solver": "BA", "output_mode": "multilabel"},
    {"solver": "TRNA", "output_mode": "multilabel"},
    {"metric": "acc"},
]


def example(dtype=torch.float32, batch=2, classes=5):
    """Return maps whose sums are exact, so that every order of adding gives the same decision."""
    return torch.from_numpy(maps.dyadic(batch, classes, 64, 83)).to(dtype)


@pytest.fixture(autouse=True)
def _whole_and_in_slabs(monkeypatch):
    monkeypatch.setattr("rankseg._backends.torch_reference.SLAB", 7000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decisions_are_those_of_the_cpu(options, dtype):
    probs = example(dtype)
    valid = torch.ones(2, 64, 83, dtype=torch.bool)
    valid[1, 20:40] = False
    decide = RankSEG(**options)
    for mask in (None, valid):
        there = decide(probs.cuda(), valid=None if mask is None else mask.cuda())
        assert there.device.type == "cuda"
        assert torch.equal(there.cpu(), decide(probs, valid=mask))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", [{}, {"metric": "iou", "output_mode": "multilabel"}], ids=str)
def test_decisions_from_logits_are_those_from_their_probabilities(options, link):
    logits = 9 * example() - 2
    probs = logits.cuda().softmax(1) if link == "softmax" else logits.cuda().sigmoid()
    decided = RankSEG(from_logits=link, **options)(logits.cuda())
    differ = (decided != RankSEG(**options)(probs)).double().mean()
    assert differ <= 1e-3  # softmax over a slab may round otherwise than over the whole


@pytest.mark.parametrize("options", [{}, {"metric": "iou", "output_mode": "multilabel"}], ids=str)
def test_it_waits_for_the_device_as_often_for_many_images_and_classes_as_for_one(options):
    decide = RankSEG(**options)
    one = example(batch=1, classes=3).cuda() / 4
    many = one.repeat(8, 4, 1, 1)
    for _ in range(2):
        decide(one), decide(many)
    waits = [count_waits(decide, probs) for probs in (one, many)]
    assert waits[0] == waits[1] <= 12


def count_waits(decide, probs):
    """Count the times that the host waits for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            decide(probs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(one.message) for one in caught)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("options", [{}, {"metric": "iou", "output_mode": "multilabel"}], ids=str)
def test_full_graph_by_the_default_compiler(options):
    torch.compiler.reset()
    decide = RankSEG(**options)
    compiled = torch.compile(decide, fullgraph=True)
    probs = example().cuda()
    assert torch.equal(compiled(probs), decide(probs))


@pytest.mark.parametrize("options", [{}, {"solver": "exact"}, {"correlation": 0.5}], ids=str)
def test_bad_probabilities_are_refused(options):
    probs = example().cuda()
    probs[1, 2, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="probs must be finite"):
        RankSEG(**options)(probs)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_expected_scores_are_those_of_the_cpu(correlation):
    probs = example()
    label = probs.argmax(1)
    here = expected_score(probs, label, "iou", 1.0, correlation=correlation)
    there = expected_score(probs.cuda(), label.cuda(), "iou", 1.0, correlation=correlation)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-12, atol=1e-12)
    decision = RankSEG("iou", smooth=1.0).decide(probs.cuda())
    torch.testing.assert_close(
        decision.expected.cpu(), RankSEG("iou", smooth=1.0).decide(probs).expected
    )


def test_class_profiles_are_those_of_the_cpu():
    probs = example()
    here, there = ClassProfile.from_probs(probs), ClassProfile.from_probs(probs.cuda())
    torch.testing.assert_close(there.cut("dice").cpu(), here.cut("dice"))
