"""Which classes are taken to be in an image: `presence`, held against argmax itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._backends import choose
from rankseg.functional import rankseg

SOLVERS = [
    {"solver": "RMA"},
    {"solver": "joint"},
    {"solver": "joint", "correlation": 0.5},
    {"solver": "exact"},
    {"solver": "joint", "correlation": 0.5, "unassigned_policy": "void"},
]


def predicted_by_argmax(probs, valid=None):
    """Return the classes that are the label of some valid pixel, ``(batch, classes)``."""
    found = torch.zeros(probs.shape[:2], dtype=torch.bool)
    for image, labels in enumerate(probs.argmax(1)):
        kept = labels if valid is None else labels[valid[image]]
        found[image, kept.unique()] = True
    return found


def winners(probs, valid=None, from_logits=None):
    backend, _ = choose(probs.device, from_logits)
    maps = backend.open_maps(probs, valid, from_logits)
    return backend.winners(maps, backend.survey(maps))


def draw(seed, kind, shape=(2, 6, 45, 70)):
    """Draw maps in which many classes win nowhere, or hardly anywhere."""
    rng = torch.Generator().manual_seed(seed)
    favours = 3 * torch.randn(*shape[:2], 1, 1, generator=rng)
    logits = torch.randn(shape, generator=rng) + favours
    if kind == "unsure":
        logits = logits / 4
    probs = logits.softmax(1)
    if kind == "ties":
        return (8 * probs).round() / 8
    if kind == "padding":
        return probs * (torch.rand(shape[0], 1, *shape[2:], generator=rng) > 0.5)
    if kind == "no sums":
        return torch.rand(shape, generator=rng) * torch.rand(*shape[:2], 1, 1, generator=rng)
    return probs


@pytest.mark.parametrize("kind", ["plain", "ties", "padding", "no sums"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_winners_are_the_classes_that_argmax_predicts(backend, kind, dtype, seed):
    probs = draw(seed, kind).to(dtype)
    last = probs.movedim(1, -1).contiguous().movedim(-1, 1)
    valid = torch.rand(2, *probs.shape[2:], generator=torch.Generator().manual_seed(seed)) > 0.9
    for maps in (probs, last, probs[:, :, 3:, ::2]):
        assert winners(maps).equal(predicted_by_argmax(maps))
        kept = valid[:, : maps.shape[2], : maps.shape[3]]
        assert winners(maps, kept).equal(predicted_by_argmax(maps, kept))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_winners_of_logits_are_those_of_their_probabilities(backend, link):
    logits = draw(0, "plain").log()
    probs = logits.softmax(1) if link == "softmax" else logits.sigmoid()
    assert winners(logits, from_logits=link).equal(predicted_by_argmax(probs))


def test_a_class_may_win_elsewhere_than_where_it_is_likeliest(backend):
    probs = torch.full((1, 3, 40, 100), 0.0)
    probs[:, 0] = 0.9
    probs[:, 1] = 0.1
    probs[0, :, 0, 0] = torch.tensor([0.5, 0.4, 0.1])  # likeliest, and yet not the winner
    probs[0, :, 30, 7] = torch.tensor([0.34, 0.35, 0.31])
    assert winners(probs).tolist() == [[True, True, False]]
    probs[0, :, 30, 7] = torch.tensor([0.35, 0.34, 0.31])
    assert winners(probs).tolist() == [[True, False, False]]


def test_one_pixel_that_does_not_sum_to_1_is_seen(backend):
    probs = torch.zeros(1, 4, 32, 32)
    probs[:, 0] = 1.0
    probs[0, :, 5, 5] = torch.tensor([0.0, 0.001, 0.0, 0.0])
    assert winners(probs).tolist() == [[True, True, False, False]]
    probs[0, 1, 5, 5] = 0.0  # of equal classes the first wins
    assert winners(probs).tolist() == [[True, False, False, False]]


def test_empty_batches_and_images_without_a_valid_pixel_have_no_winner(backend):
    assert winners(torch.rand(0, 3, 4, 4)).shape == (0, 3)
    assert not winners(torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)).any()


@pytest.mark.parametrize("options", SOLVERS, ids=str)
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_labels_are_of_the_classes_that_argmax_predicts(backend, options, metric):
    probs = draw(1, "unsure")
    labels = RankSEG(metric, presence="argmax", **options)(probs)
    found, present = predicted_by_argmax(probs), RankSEG(metric, **options).decide(probs).present
    assert (found & ~present).any(), "the published rule is to leave out a class that argmax has"
    for image in range(len(probs)):
        used = set(labels[image].unique().tolist()) - {255}
        assert used <= set(found[image].nonzero().flatten().tolist())


def test_a_class_that_never_reaches_a_half_is_found():
    probs = np.zeros((1, 3, 1, 6))
    probs[0, :, 0] = np.array([[0.9] * 3 + [0.3] * 3, [0.1] * 3 + [0.3] * 3, [0.0] * 3 + [0.4] * 3])
    assert rankseg(probs, presence="argmax").tolist() == [[[0, 0, 0, 2, 2, 2]]]
    assert rankseg(probs, presence="peak").tolist() == [[[0, 0, 0, 0, 0, 0]]]


@pytest.mark.parametrize("options", SOLVERS, ids=str)
def test_all_classes_are_those_above_a_pruning_prob_of_0(backend, options):
    probs = draw(2, "unsure")
    every = RankSEG(presence="all", **options)(probs)
    assert every.equal(RankSEG(pruning_prob=0.0, **options)(probs))
    assert not every.equal(RankSEG(**options)(probs))


@pytest.mark.parametrize("options", [*SOLVERS[:1], {"correlation": 0.5}, {"solver": "exact"}])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks_that_overlap_are_there_above_a_half(backend, options, channels):
    probs = 0.2 + 0.6 * draw(3, "no sums")[:, :channels]
    options = {"output_mode": "multilabel", **options}
    by_argmax = RankSEG(presence="argmax", **options)(probs)
    assert by_argmax.equal(RankSEG(pruning_prob=0.5, **options)(probs))
    assert RankSEG(presence="all", **options)(probs).flatten(2).any(2).all()


def test_one_channel_with_labels_is_there_above_a_half(backend):
    probs = torch.tensor([[[0.3, 0.45, 0.1]], [[0.6, 0.45, 0.1]]])
    assert RankSEG(presence="argmax", solver="RMA")(probs).tolist() == [[0, 0, 0], [1, 1, 0]]
    assert RankSEG(presence="all", solver="RMA")(probs).tolist() == [[1, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("options", SOLVERS, ids=str)
def test_decide_tells_the_classes_present(backend, options):
    probs = draw(1, "unsure")
    told = RankSEG(presence="argmax", **options).decide(probs)
    assert told.present.equal(predicted_by_argmax(probs))
    assert (told.volume[~told.present] == 0).all()
    assert RankSEG(presence="all", **options).decide(probs).present.all()


def test_a_graph_decides_presence_too():
    probs = draw(1, "unsure", (1, 6, 16, 24))
    decide = RankSEG(solver="joint", presence="argmax")
    exported = torch.export.export(decide, (probs,)).module()
    assert exported(probs).equal(decide(probs))


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"presence must be one of .*'peak'.*got 'peaks'"):
        RankSEG(presence="peaks")


@pytest.mark.parametrize("presence", ["argmax", "all"])
def test_pruning_prob_goes_with_peaks_only(presence):
    with pytest.raises(ValueError, match=r"pruning_prob goes with presence='peak', got 0\.5"):
        RankSEG(presence=presence, pruning_prob=0.5, solver="RMA")
    decide = RankSEG(presence=presence, solver="RMA")
    assert "pruning_prob" not in repr(decide)
    decide.pruning_prob = 0.3
    with pytest.raises(ValueError, match="leave one of the two out"):
        decide(torch.rand(1, 1, 4))
    decide.solver_params["presence"] = "peak"
    assert decide.settings.pruning_prob == 0.3
    decide.pruning_prob = None
    assert decide.pruning_prob == 0.5


@pytest.mark.parametrize("solver", ["BA", "TRNA"])
def test_solvers_of_the_volume_have_the_published_rule_only(solver):
    with pytest.raises(TypeError, match="presence goes with a solver in"):
        RankSEG(output_mode="multilabel", solver=solver, presence="argmax")
