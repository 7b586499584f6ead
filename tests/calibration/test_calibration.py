"""Prior correction against exact fractions, against the losses it undoes, and what it refuses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._decision import problem as _problem
from rankseg.calibration import prior_correction
from support.maps import DTYPES, softmax

WEIGHTS = {
    "ordinary": [1.0, 44.1, 0.3, 7.0],
    "equal": [3.0, 3.0, 3.0, 3.0],
    "huge": [1e300, 1e308, 1e305, 1.7e308],
    "tiny": [1e-300, 1e-308, 1e-305, 5e-324],
    "far apart": [1e-120, 1.0, 1e60, 1e100],
}


def exact(probs, weights):
    """Return p / w renormalised over the classes in exact arithmetic, rounded once at the end."""
    shares = np.vectorize(Fraction, otypes=[object])(np.asarray(probs, np.float64))
    if shares.shape[1] == 1:
        shares, weights = np.concatenate([1 - shares, shares], 1), [1.0, *weights]
    divisors = np.array([Fraction(weight) for weight in weights], object)
    shares = shares / divisors.reshape(-1, *[1] * (shares.ndim - 2))
    total = shares.sum(1, keepdims=True)
    corrected = (shares / np.where(total == 0, 1, total)).astype(np.float64)
    return corrected[:, -probs.shape[1] :]


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
    @pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 2)])
    def test_are_those_of_exact_arithmetic(self, dtype, weights, spatial):
        probs = softmax(2, 4, *spatial, seed=len(spatial), dtype=dtype)
        found = prior_correction(probs, weights)
        step = np.finfo(dtype)
        np.testing.assert_allclose(
            found, exact(probs, weights), rtol=2 * step.eps + 1e-12, atol=step.smallest_subnormal
        )

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("weight", [1.0, 9.0, 0.02, 1e300, 1e-300])
    def test_of_one_channel_weigh_it_against_a_background_of_one(self, dtype, weight):
        probs = np.random.default_rng(0).random((2, 1, 4, 3)).astype(dtype)
        probs[0, 0, 0] = [0, 0.5, 1]
        found = prior_correction(probs, [weight])
        step = np.finfo(dtype)
        expected = exact(probs, [weight])
        np.testing.assert_allclose(
            found, expected, rtol=2 * step.eps + 1e-12, atol=step.smallest_subnormal
        )
        both = np.concatenate([1 - probs.astype(float), probs], 1)
        np.testing.assert_allclose(prior_correction(both, [1, weight])[:, 1:], expected, rtol=1e-12)

    def test_extremes(self):
        probs = np.zeros((1, 3, 5))
        probs[0, 1, 1] = 1  # certain stays certain
        probs[0, :, 2] = [0.5, 0.5, 0]  # impossible stays impossible
        probs[0, 2, 3] = 1e-310  # a lone rest of a probability is all there is
        probs[0, :, 4] = [1e-200, 0, 1e-200]
        found = prior_correction(probs, [1.0, 2.0, 4.0])
        assert found[0].T.tolist()[:2] == [[0, 0, 0], [0, 1, 0]]
        assert found[0, :, 2] == pytest.approx([2 / 3, 1 / 3, 0])
        assert found[0, :, 3].tolist() == [0, 0, 1]
        assert found[0, :, 4] == pytest.approx([0.8, 0, 0.2])

    def test_weights_at_both_ends_of_the_numbers_there_are(self):
        probs = np.array([[[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]]])
        found = prior_correction(probs, [5e-324, 1.7e308])
        assert found.tolist() == [[[1, 0, 1], [0, 1, 0]]]

    @pytest.mark.parametrize("weight", [1e-6, 1e6])
    def test_half_precision_does_not_overflow(self, weight):
        probs = softmax(1, 3, 50, dtype="float16")
        found = prior_correction(probs, [weight] * 3)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, probs, rtol=2e-3, atol=1e-7)

    def test_only_ratios_of_weights_matter(self):
        probs = softmax(1, 4, 30, dtype="float64")
        weights = np.array(WEIGHTS["ordinary"])
        np.testing.assert_allclose(
            prior_correction(probs, weights), prior_correction(probs, 17 * weights), rtol=1e-13
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_can_be_decided_on(self, dtype):
        probs = torch.tensor(softmax(2, 4, 40, 40)).to(dtype)
        corrected = prior_correction(probs, WEIGHTS["ordinary"])
        assert float(corrected.max()) <= 1
        tolerance = 4 * 4 * torch.finfo(dtype).eps
        assert torch.allclose(corrected.double().sum(1), torch.ones(()).double(), atol=tolerance)
        assert RankSEG()(corrected).shape == (2, 40, 40)


class TestReason:
    """The losses that it is said to undo, as torch has them."""

    def test_it_gives_the_truth_back_at_the_least_weighted_cross_entropy(self):
        truth = torch.tensor(softmax(1, 4, 6, dtype="float64"))
        weights = torch.tensor(WEIGHTS["ordinary"], dtype=torch.float64)
        weighted = weights.view(-1, 1) * truth
        logits = weighted.log().requires_grad_()
        loss = torch.nn.functional.cross_entropy(logits, truth, weight=weights)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.abs().max() < 1e-12  # the loss is convex: this is its least
        found = prior_correction(logits.softmax(1), weights)
        torch.testing.assert_close(found, truth)

    def test_and_at_the_least_binary_cross_entropy(self):
        truth = torch.rand(1, 1, 6, dtype=torch.float64, generator=torch.manual_seed(0))
        weight = torch.tensor([9.0], dtype=torch.float64)
        logits = (weight * truth / (1 - truth)).log().requires_grad_()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, truth, pos_weight=weight
        )
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.abs().max() < 1e-12
        torch.testing.assert_close(prior_correction(logits.sigmoid(), weight), truth)


class TestContract:
    @pytest.mark.parametrize("kind", ["list", "tuple", "array", "tensor", "iterator"])
    def test_weights_of_any_kind(self, kind):
        probs, weights = softmax(1, 4, 9), WEIGHTS["ordinary"]
        kinds = {
            "list": weights,
            "tuple": tuple(weights),
            "array": np.array(weights),
            "tensor": torch.tensor(weights, dtype=torch.float64),
            "iterator": iter(weights),
        }
        expected = prior_correction(probs, weights)
        assert np.array_equal(prior_correction(probs, kinds[kind]), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_tensors_give_tensors(self, dtype):
        probs = torch.tensor(softmax(2, 4, 3, 5)).to(dtype)
        before = probs.clone()
        found = prior_correction(probs, WEIGHTS["ordinary"])
        assert (found.dtype, found.shape) == (dtype, probs.shape)
        assert torch.equal(probs, before)
        assert not prior_correction(probs.requires_grad_(), WEIGHTS["ordinary"]).requires_grad

    def test_arrays_give_arrays_and_are_left_alone(self):
        probs = softmax(2, 4, 3, 5, dtype="float64")
        before = probs.copy()
        probs.flags.writeable = False
        found = prior_correction(probs, WEIGHTS["ordinary"])
        assert isinstance(found, np.ndarray)
        assert np.array_equal(probs, before)
        assert not np.shares_memory(found, probs)

    def test_any_strides(self):
        probs = torch.tensor(softmax(2, 4, 6, 8))
        expected = prior_correction(probs, WEIGHTS["ordinary"])
        for layout in (
            probs.contiguous(memory_format=torch.channels_last),
            probs.transpose(2, 3).contiguous().transpose(2, 3),
            torch.nn.functional.pad(probs, (3, 3))[..., 3:-3],
        ):
            assert torch.equal(prior_correction(layout, WEIGHTS["ordinary"]), expected)

    def test_an_empty_batch(self):
        assert prior_correction(torch.zeros(0, 4, 3, 3), WEIGHTS["ordinary"]).shape == (0, 4, 3, 3)

    @pytest.mark.parametrize("shape", [(2, 4, 7, 11), (1, 4, 1, 70), (1, 4, 5, 3, 6), (3, 4, 1)])
    def test_piece_by_piece_is_the_same(self, shape, monkeypatch):
        probs = softmax(*shape, dtype="float64")
        whole = prior_correction(probs, WEIGHTS["ordinary"])
        monkeypatch.setattr(_problem, "CHUNK", 30)
        maps = torch.tensor(probs)
        pieces = [maps[part].numel() for part in _problem._chunks(maps)]
        rest = math.prod(shape[1:]) // max(shape[2:])  # what one step along the longest axis holds
        assert sum(pieces) == probs.size
        assert max(pieces) <= max(30, rest)
        assert np.array_equal(prior_correction(probs, WEIGHTS["ordinary"]), whole)


class TestRefuses:
    @pytest.mark.parametrize(
        ("weights", "error", "words"),
        [
            ([1.0, 2.0], ValueError, "one entry for each of the 3 classes, got 2"),
            ([], ValueError, "one entry for each of the 3 classes, got 0"),
            ([1, 2, 0], ValueError, "every class weight must be above 0"),
            ([1, 2, -1], ValueError, "every class weight must be finite and at least 0, got -1"),
            ([1, 2, math.inf], ValueError, "every class weight must be finite"),
            ([1, 2, math.nan], ValueError, "every class weight must be finite"),
            ([1, 2, "3"], TypeError, "every class weight must be a real number, got '3'"),
            ([1, 2, True], TypeError, "every class weight must be a real number, got True"),
            ("123", TypeError, "class_weights must be a sequence of real numbers, got str"),
            (2.0, TypeError, "class_weights must be a sequence of real numbers, got float"),
            (None, TypeError, "class_weights must be a sequence of real numbers, got NoneType"),
            (torch.ones(3, device="meta"), TypeError, "class_weights must be .* a meta tensor; "),
            (np.ma.array([1.0, 2.0, 3.0]), TypeError, "class_weights must not be a masked array"),
            (np.ones((1, 3)), TypeError, "every class weight must be a real number"),
            (torch.tensor(2.0), TypeError, "class_weights must be a sequence of real numbers"),
        ],
    )
    def test_weights_that_make_no_sense(self, weights, error, words):
        with pytest.raises(error, match=words):
            prior_correction(softmax(1, 3, 4), weights)

    def test_two_weights_for_one_channel_and_says_what_one_means(self):
        with pytest.raises(ValueError, match="the weight of the foreground, that of the backgr"):
            prior_correction(np.full((1, 1, 4), 0.5), [1.0, 2.0])

    @pytest.mark.parametrize(
        ("probs", "error", "words"),
        [
            (np.full((1, 3, 4), 3.0), ValueError, r"must lie in \[0, 1\]"),
            (np.full((1, 3, 4), -0.5), ValueError, "look like logits"),
            (np.full((1, 3, 4), math.nan), ValueError, "must be finite, got 12 values"),
            (np.full((1, 3, 4), math.inf), ValueError, "must be finite"),
            (np.ones((3, 4)) / 3, ValueError, "must have the axes"),
            (np.ones((1, 3, 0)), ValueError, "must not be empty"),
            (np.ones((1, 3, 4), int), TypeError, "must be of a dtype"),
            ([[[1.0], [0.0], [0.0]]], TypeError, "must be a dense torch.Tensor or a numpy.nd"),
        ],
    )
    def test_maps_that_are_no_probabilities(self, probs, error, words):
        with pytest.raises(error, match=words):
            prior_correction(probs, [1, 2, 3])

    @pytest.mark.parametrize("place", [(0, 0, 0), (0, 2, 50), (1, 2, 99)])
    def test_a_fault_in_any_piece_is_seen(self, place, monkeypatch):
        monkeypatch.setattr(_problem, "CHUNK", 30)
        probs = softmax(2, 3, 100)
        probs[place] = 1.5
        with pytest.raises(ValueError, match="must lie in"):
            prior_correction(probs, [1, 2, 3])
