"""The expected score of any prediction, against enumeration, distributions and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from torch.utils._python_dispatch import TorchDispatchMode

from rankseg import RankSEG, expected_score
from rankseg._decision import score as _score
from rankseg._formulas.correlation import factor_nodes, given_factor
from support import exact_oracles as oracles
from support import maps
from support.memory import CLEAR, peak_growth

METRICS = ("dice", "iou")
SMOOTHS = (0.0, 1e-12, 1e-3, 0.5, 1.0, 40.0, 1e9)


def predictions(probs, rng):
    """Yield masks that have nothing, little or much to do with the probabilities."""
    yield "nothing", np.zeros(probs.shape, bool)
    yield "everything", np.ones(probs.shape, bool)
    yield "threshold", probs > 0.4
    yield "complement", probs < 0.4
    yield "any", rng.random(probs.shape) < 0.3


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", METRICS)
def test_all_labels_enumerated(metric, smooth):
    rng = np.random.default_rng(1)
    for pixels in (1, 2, 5, 10):
        probs = np.stack([values for _, values in maps.adversarial(rng, pixels)])[None]
        for name, masks in predictions(probs, rng):
            scores = expected_score(probs, masks, metric, smooth)[0]
            for values, mask, score in zip(probs[0], masks[0], scores, strict=True):
                expected = oracles.by_enumeration(metric, values, mask[None], smooth)[0]
                assert score == pytest.approx(expected, rel=1e-13, abs=1e-13), name


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", maps.DTYPES)
def test_hundreds_of_pixels(dtype, metric, smooth):
    # Expected volumes on both sides of 100, where power sums replace logarithms.
    rng = np.random.default_rng(2)
    for pixels in (70, 600):
        probs = np.stack([values for _, values in maps.adversarial(rng, pixels)])[None]
        probs = probs.astype(dtype)
        for name, masks in predictions(probs, rng):
            scores = expected_score(probs, masks, metric, smooth)[0]
            for values, mask, score in zip(probs[0], masks[0], scores, strict=True):
                expected = oracles.by_distribution(metric, values, mask, smooth)
                assert score == pytest.approx(expected, rel=1e-13, abs=1e-13), name


@pytest.mark.parametrize("metric", METRICS)
def test_a_large_smooth_leaves_the_difference_to_one(metric):
    probs = np.random.default_rng(3).random(10)
    mask = probs > 0.5
    lost = 1 - expected_score(probs[None, None], mask[None, None], metric, 1e6)[0, 0]
    expected = -oracles.by_enumeration(metric, probs, mask[None], 1e6, less_one=True)[0]
    assert lost == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_no_mask_is_expected_to_score_more_than_the_exact_one(metric):
    probs = maps.smooth(2, 3, 96)
    decide = RankSEG(metric, output_mode="multilabel", solver="exact", pruning_prob=0.0)
    best = expected_score(probs, decide(probs), metric)
    rma = RankSEG(metric, output_mode="multilabel", pruning_prob=0.0)(probs)
    for masks in (rma, probs > 0.5, probs > 0.2):
        assert (expected_score(probs, masks, metric) <= best + 1e-15).all()


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_labels_are_masks(dtype, classes):
    probs = maps.softmax(2, classes + 1, 20, 30)[:, 1:]
    labels = np.random.default_rng(4).integers(0, 6, (2, 20, 30)).astype(dtype)
    labels[labels == 5] = 200 if dtype == "uint8" else -1
    names = np.arange(classes) if classes > 1 else np.array([1])
    masks = labels[:, None] == names.reshape(1, -1, 1, 1)
    scores = expected_score(probs, labels, "iou", 0.5)
    np.testing.assert_array_equal(scores, expected_score(probs, masks, "iou", 0.5))
    assert scores.shape == (2, classes)


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_pixels_outside_valid_do_not_exist(correlation):
    probs = maps.softmax(2, 3, 40, 30)
    masks = probs > 0.4
    valid = np.random.default_rng(5).random((2, 40, 30)) < 0.6
    probs_with_garbage = np.where(valid[:, None], probs, np.nan)
    scores = expected_score(probs_with_garbage, masks, valid=valid, correlation=correlation)
    for image in range(2):
        inside = valid[image]
        alone = expected_score(
            probs[image : image + 1, :, inside],
            masks[image : image + 1, :, inside],
            correlation=correlation,
        )
        np.testing.assert_allclose(scores[image], alone[0], rtol=1e-13)


def test_kinds_of_array():
    probs = maps.softmax(2, 3, 20, 30)
    tensor = torch.from_numpy(probs)
    scores = expected_score(probs, probs > 0.4)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float64
    ours = expected_score(tensor.requires_grad_(), tensor > 0.4)
    assert ours.dtype == torch.float64
    assert not ours.requires_grad
    np.testing.assert_array_equal(ours.numpy(), scores)
    mixed = expected_score(probs, tensor > 0.4)
    np.testing.assert_array_equal(mixed, scores)
    assert expected_score(tensor[:0], tensor[:0] > 0.4).shape == (0, 3)


@pytest.mark.parametrize("shape", [(700,), (1, 700), (7, 100), (5, 4, 7, 5)], ids=str)
@pytest.mark.parametrize("at_once", [1, 50, 1 << 20])
def test_pieces_and_layouts_do_not_matter(monkeypatch, at_once, shape):
    monkeypatch.setattr(_score, "VALUES_AT_ONCE", 1 << 16)
    probs = maps.softmax(1, 3, 700)
    expected = expected_score(probs, probs > 0.4, "dice", 0.5, correlation=0.2)
    probs = np.asfortranarray(probs.reshape(1, 3, *shape))
    monkeypatch.setattr(_score, "VALUES_AT_ONCE", at_once)
    scores = expected_score(probs, probs > 0.4, "dice", 0.5, correlation=0.2)
    np.testing.assert_allclose(scores, expected, rtol=1e-13)


def test_probabilities_a_rounding_above_one_count_as_one():
    probs = torch.tensor([[[1.0, 1.0, 0.5]]]).bfloat16()
    above = probs.clone()
    above[..., :2] = 1 + 4 * torch.finfo(torch.bfloat16).eps
    masks = probs > 0.7
    assert torch.equal(expected_score(above, masks), expected_score(probs, masks))


def simulate(probs, masks, metric, smooth, correlation, draws, rng):
    """Return mean and standard error of the metric over labels that share a factor."""
    z, noise = rng.normal(size=(draws, 1)), rng.normal(size=(draws, probs.size))
    labels = np.sqrt(correlation) * z + np.sqrt(1 - correlation) * noise <= ndtri(probs)
    hits = labels @ masks.astype(float)
    others = labels.sum(1) - hits
    scores = oracles.ratio(metric, hits, others, masks.sum(), smooth)
    return scores.mean(), scores.std() / np.sqrt(draws)


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("metric", METRICS)
def test_simulated_labels_that_share_a_factor(metric, smooth, correlation):
    rng = np.random.default_rng(6)
    for pixels, power in ((1, 1), (6, 1), (40, 4), (150, 0.3)):
        probs = rng.random(pixels) ** power
        mask = probs > 0.3
        mean, error = simulate(probs, mask, metric, smooth, correlation, 100_000, rng)
        score = expected_score(
            probs[None, None], mask[None, None], metric, smooth, correlation=correlation
        )
        assert abs(score[0, 0] - mean) <= 4 * error + 1e-12


@pytest.mark.parametrize("correlation", [1e-9, 0.1, 0.5, 0.7, 0.9, 0.98])
@pytest.mark.parametrize("metric", METRICS)
def test_enough_factors(metric, correlation):
    rng = np.random.default_rng(7)
    z = np.linspace(-8.5, 8.5, 801)
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()
    for pixels in (1, 4, 12):
        for name, values in maps.adversarial(rng, pixels):
            mask = values >= np.median(values)
            uncertain = (values > 0) & (values < 1)
            expected = 0.0
            for factor, weight in zip(z[::4], weights[::4] / weights[::4].sum(), strict=True):
                with np.errstate(all="ignore"):
                    moved = ndtr(
                        (ndtri(values) + np.sqrt(correlation) * factor) / np.sqrt(1 - correlation)
                    )
                given = np.where(uncertain, moved, values)
                expected += weight * oracles.by_distribution(metric, given, mask, 1.0)
            score = expected_score(
                values[None, None], mask[None, None], metric, 1.0, correlation=correlation
            )
            assert score[0, 0] == pytest.approx(expected, abs=2e-8), name


def test_full_correlation_is_approached():
    # Labels that are all the same function of one factor: half of the time both are true.
    probs, masks = np.full((1, 1, 2), 0.5), np.ones((1, 1, 2), bool)
    score = expected_score(probs, masks, "iou", correlation=1 - 1e-6)[0, 0]
    assert score == pytest.approx(0.5, abs=1e-3)


def test_a_factor_leaves_marginals_and_certainties_alone():
    probs = torch.tensor([0.0, 1e-300, 1e-9, 0.2, 0.5, 0.999, 1.0]).double()
    for correlation in (0.0, 0.3, 0.6):
        z, weights = factor_nodes(40)
        given = given_factor(probs, z.unsqueeze(1), correlation)
        torch.testing.assert_close(weights @ given, probs, rtol=1e-5, atol=1e-9)
        assert (given[:, 0] == 0).all()
        assert (given[:, -1] == 1).all()
    assert torch.equal(given_factor(probs, z[:1], 0.0), probs)


def test_factor_nodes_integrate_polynomials():
    z, weights = factor_nodes(15)
    assert z.dtype == weights.dtype == torch.float64
    for power, moment in ((0, 1), (1, 0), (2, 1), (4, 3), (8, 105), (28, 213458046676875)):
        assert (weights * z**power).sum().item() == pytest.approx(moment, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metric": "acc"}, ValueError, "metric must be one of"),
        ({"metric": 3}, TypeError, "metric must be a string"),
        ({"smooth": -1}, ValueError, "smooth must be"),
        ({"correlation": 1.0}, ValueError, r"correlation must be in \[0, 0.999999\], got 1.0"),
        ({"correlation": 1 - 1e-8}, ValueError, r"in \[0, 0.999999\], got 0.99999999"),
        ({"correlation": -0.1}, ValueError, "correlation must be in"),
        ({"correlation": None}, TypeError, "correlation must be a real number"),
        ({"probs": np.zeros((3, 4))}, ValueError, "probs must have the axes"),
        ({"probs": np.full((1, 2, 5), 1.5)}, ValueError, r"probs must lie in \[0, 1\]"),
        ({"probs": np.full((1, 2, 5), np.nan)}, ValueError, "probs must be finite"),
        ({"prediction": [[1]]}, TypeError, "prediction must be a dense"),
        ({"prediction": np.zeros((1, 5))}, TypeError, "prediction must be boolean masks or int"),
        ({"prediction": np.zeros((1, 4), int)}, ValueError, r"shape \(batch, \*spatial\) = \(1, 5"),
        ({"prediction": np.zeros((1, 5), bool)}, ValueError, r"\(batch, classes, \*spatial\) = "),
        ({"prediction": np.zeros((1, 2, 5), int)}, ValueError, "prediction, as labels of"),
        ({"prediction": np.ones((1, 2, 5), "uint8")}, ValueError, "masks, pass prediction != 0"),
        (
            {"probs": np.full((1, 1, 5), 0.5), "prediction": np.full((1, 5), 255, "uint8")},
            ValueError,
            r"got \[255\]; pass \(prediction != 0\)\.long\(\)",
        ),
        (
            {"probs": np.full((1, 1, 5), 0.5), "prediction": np.ones((1, 5), bool)},
            ValueError,
            r"the one channel, pass prediction\[:, None\]",
        ),
        ({"valid": np.zeros((1, 4), bool)}, ValueError, "valid must have the shape"),
        ({"valid": np.zeros((1, 5))}, TypeError, "valid must be boolean"),
    ],
)
def test_wrong_input(change, error, message):
    arguments = {"probs": np.full((1, 2, 5), 0.5), "prediction": np.zeros((1, 5), int)} | change
    with pytest.raises(error, match=message):
        expected_score(**arguments)


@pytest.mark.skipif(not CLEAR.exists(), reason="needs Linux's record of peak memory")
def test_memory_beyond_the_input():
    probs = torch.from_numpy(maps.smooth(1, 16, 1024))  # 64 MiB
    labels = probs.argmax(1)
    expected_score(probs[..., :64, :64], labels[..., :64, :64])
    growth, _ = peak_growth(lambda: expected_score(probs, labels), calls=4)
    assert growth < 64 << 20  # in float64: 128 MiB, or more


class LargestTensor(TorchDispatchMode):
    """Notes the most bytes of one tensor that is made."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if isinstance(made, torch.Tensor):
                self.most = max(self.most, made.untyped_storage().nbytes())
        return result


def test_with_a_correlation_probabilities_given_the_factor_are_never_all_in_memory():
    # Peak memory itself varies too much where so many small tensors come and go.
    probs = torch.from_numpy(maps.smooth(1, 16, 256))  # 4 MiB, given the factor 120 in float64
    with LargestTensor() as noted:
        expected_score(probs, probs.argmax(1), correlation=0.3)
    assert noted.most < 12 << 20


def test_many_factors_take_no_more_memory_than_few(monkeypatch):
    probs = torch.from_numpy(maps.softmax(1, 3, 12))
    expected = expected_score(probs, probs.argmax(1), correlation=0.999)
    monkeypatch.setattr(_score, "ROWS_AT_ONCE", 100)
    with LargestTensor() as noted:
        scores = expected_score(probs, probs.argmax(1), correlation=0.999)
    torch.testing.assert_close(scores, expected, rtol=1e-13, atol=0)
    assert (
        noted.most < 8 * _score.POWERS * _score.ROWS_AT_ONCE * 100
    )  # all 738 factors need 7 times that


@pytest.mark.parametrize("output", ["labels", "masks"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_many_pixels_are_taken_bin_by_bin(metric, output, backend, monkeypatch):
    probs = maps.smooth(2, 3, 64, seed=4, dtype="float64")
    prediction = probs.argmax(1) if output == "labels" else probs > 0.4
    valid = np.random.default_rng(0).random((2, 64, 64)) < 0.8
    terms = {"valid": valid, "correlation": 0.5}
    exact = expected_score(probs, prediction, metric, 0.3, **terms)
    monkeypatch.setattr("rankseg._decision.score.MANY_PIXELS", 1000)
    by_bin = expected_score(probs, prediction, metric, 0.3, **terms)
    assert not np.array_equal(by_bin, exact)
    np.testing.assert_allclose(by_bin, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 2])
def test_labels_of_0_and_255_are_refused(classes):
    probs = torch.full((1, classes, 4, 4), 1 / classes)
    labels = 255 * (torch.arange(16).view(1, 4, 4) % 2)
    with pytest.raises(ValueError, match=r"pass \(prediction != 0\)\.long\(\)"):
        expected_score(probs, labels)
    expected_score(probs, (labels != 0).long())
