"""DEP: masks and labels against all thresholds, with the kernel of all pairs, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._decision.solvers import dependent
from rankseg._decision.solvers.kernel import Kernel
from support import maps, oracles
from support.command_line import run

SHAPES = {
    1: lambda rng: (int(rng.integers(1, 120)),),
    2: lambda rng: tuple(map(int, rng.integers(1, 13, 2))),
    3: lambda rng: tuple(map(int, rng.integers(1, 6, 3))),
}


def probabilities(rng, pixels):
    logits = 3 * rng.normal(size=pixels) + 2 * np.repeat(rng.normal(size=pixels), 4)[:pixels]
    kinds = [
        rng.random(pixels),
        rng.beta(0.3, 0.3, pixels),
        rng.beta(0.2, 2, pixels),
        1 / (1 + np.exp(-logits)),
    ]
    return kinds[rng.integers(4)].clip(1e-6, 1 - 1e-9)


def problem(rng, shape=None):
    """Return flat probabilities, the kernel of all pairs, the shape, and options of RankSEG."""
    shape = shape or SHAPES[int(rng.integers(1, 4))](rng)
    theta = [float(one) for one in np.exp(rng.uniform(np.log(0.7), np.log(300), len(shape)))]
    amplitude = float(rng.choice([1.0, rng.random()]))
    probs = probabilities(rng, math.prod(shape))
    options = {"theta": theta, "amplitude": amplitude, "solver": "DEP", "presence": "all"}
    return probs, oracles.gaussian_kernel(shape, theta, amplitude), shape, options


def decide(metric, probs, shape, smooth, **options):
    """Return the mask of one class, flat."""
    return RankSEG(metric, smooth, "multilabel", **options)(probs.reshape(1, 1, *shape)).ravel()


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_larger_dice(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        probs, kernel, shape, options = problem(rng)
        smooth = float(rng.choice([0, 1e-3, 1, 20]))
        mask = decide("dice", probs, shape, smooth, **options)
        score = oracles.dependent_score("dice", probs, kernel, mask, smooth)
        assert score >= oracles.best_dependent_dice(probs, kernel, smooth) - 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_has_a_larger_iou(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        probs, kernel, shape, options = problem(rng)
        smooth = float(rng.choice([0, 1e-3, 1, 20]))
        mask = decide("iou", probs, shape, smooth, **options)
        score = oracles.dependent_score("iou", probs, kernel, mask, smooth)
        assert score >= oracles.best_dependent_cut("iou", probs, kernel, smooth) - 1e-6


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_no_set_of_few_pixels_has_a_larger_objective(metric):
    rng = np.random.default_rng(0)
    for _ in range(60):
        probs, kernel, shape, options = problem(rng, tuple(map(int, rng.integers(1, 4, 2))))
        mask = decide(metric, probs, shape, 0.5, **options)
        score = oracles.dependent_score(metric, probs, kernel, mask, 0.5)
        for other in itertools.product([False, True], repeat=len(probs)):
            best = oracles.dependent_score(metric, probs, kernel, np.array(other), 0.5)
            assert score >= best - 1e-6


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_larger_images_lose_little_and_never_fall_below_rma(metric, seed):
    rng = np.random.default_rng(seed)
    probs, kernel, shape, options = problem(rng, (19, 23))
    best = oracles.best_dependent_cut(metric, probs, kernel, 0.0)
    if metric == "dice":
        best = max(best, oracles.best_dependent_dice(probs, kernel, 0.0))
    mask = decide(metric, probs, shape, 0.0, **options)
    score = oracles.dependent_score(metric, probs, kernel, mask, 0.0)
    assert score >= best - 1e-4
    published = decide(metric, probs, shape, 0.0, solver="RMA", presence="all")
    assert score >= oracles.dependent_score(metric, probs, kernel, published, 0.0) - 1e-9


@pytest.mark.parametrize("seed", range(30))
def test_the_coarse_grid_gives_the_sums_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    _, kernel, shape, options = problem(rng)
    values = rng.random((2, *shape)) ** rng.integers(1, 10)
    theta, amplitude = options["theta"], options["amplitude"]
    like = torch.from_numpy(values)
    coarse = Kernel.build(shape, theta, amplitude, like, values_per_part=17)
    shares = sum(coarse.collect(like[:, part.rows], part) for part in coarse.parts)
    sums = coarse.spread(shares)
    found = torch.cat([coarse.at(sums, part, like.dtype) for part in coarse.parts], 1)
    expected = (values.reshape(2, -1) @ kernel).reshape(values.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    if max(theta) <= 8:
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("amplitude", [1.0, 0.3])
def test_with_an_infinite_theta_the_volume_is_a_function_of_the_probability(amplitude):
    probs = probabilities(np.random.default_rng(0), 500)
    deviation = np.sqrt(probs * (1 - probs))
    given = probs.sum() + amplitude * deviation / probs * deviation.sum()
    mask = decide("dice", probs, (20, 25), 0.0, solver="DEP", theta=math.inf, amplitude=amplitude)
    count = mask.sum()
    cost = (2 * probs / (count + given) ** 2)[mask].sum()
    assert np.array_equal(mask, 2 * probs / (count + given) > cost)
    wide = decide("dice", probs, (20, 25), 0.0, solver="DEP", theta=1e9, amplitude=amplitude)
    assert np.array_equal(mask, wide)


@pytest.mark.parametrize("seed", range(10))
def test_with_an_amplitude_of_0_dep_is_rma_without_the_1_in_the_denominator_of_dice(seed):
    probs = probabilities(np.random.default_rng(seed), 600)
    options = {"solver": "DEP", "amplitude": 0.0, "presence": "all"}
    mask = decide("iou", probs, (20, 30), 0.0, **options)
    assert np.array_equal(mask, decide("iou", probs, (20, 30), 0.0, solver="RMA", presence="all"))
    mask = decide("dice", probs, (20, 30), 0.0, **options)
    ranked = np.sort(probs)[::-1]
    scores = 2 * ranked.cumsum() / (np.arange(1, 601) + probs.sum())
    assert mask.sum() == scores.argmax() + 1
    assert np.array_equal(mask, probs >= ranked[mask.sum() - 1])


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("theta", [4.0, 30.0, math.inf])
def test_labels_score_at_least_those_of_rma_and_few_moves_gain(metric, theta):
    probs = maps.smooth(1, 4, 32, seed=3, dtype="float64")
    kernel = oracles.gaussian_kernel((32, 32), theta, 1.0)
    flat = probs[0].reshape(4, -1)

    def score(labels):
        masks = labels.ravel() == np.arange(4)[:, None]
        pairs = zip(flat, masks, strict=True)
        return sum(oracles.dependent_score(metric, *pair, 0.0) for pair in with_kernel(pairs))

    def with_kernel(pairs):
        return ((one, kernel, mask) for one, mask in pairs)

    labels = RankSEG(metric, solver="DEP", theta=theta, presence="all")(probs)
    best = score(labels)
    assert best >= score(RankSEG(metric, solver="RMA", presence="all")(probs))
    rng = np.random.default_rng(0)
    for _ in range(200):  # pixels moved to another class
        other = labels.copy()
        other[0].ravel()[rng.integers(0, 1024, 8)] = rng.integers(4)
        assert score(other) <= best + 1e-4


def test_a_theta_for_every_axis():
    probs = maps.softmax(2, 3, 20, 40, dtype="float64")
    decide = RankSEG(solver="DEP", theta=(2, 40))
    turned = RankSEG(solver="DEP", theta=[40, 2.0])
    labels = decide(probs)
    assert np.array_equal(labels, turned(probs.swapaxes(2, 3)).swapaxes(1, 2))
    assert not np.array_equal(labels, turned(probs))
    assert decide.settings.theta == (2.0, 40.0)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_parts_of_the_image_change_nothing(metric, mode, monkeypatch, backend):
    probs = torch.from_numpy(maps.smooth(2, 3, 48, dtype="float64"))
    decide = RankSEG(metric, 0.5, mode, "DEP", theta=20)
    whole = decide(probs)
    monkeypatch.setattr(dependent, "VALUES_ON_HOST", 300)
    assert torch.equal(decide(probs), whole)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_pixels_that_are_not_valid_count_in_no_sum(metric, mode, backend):
    probs = torch.from_numpy(maps.smooth(1, 3, 48, dtype="float64"))
    valid = torch.zeros(1, 48, 48, dtype=torch.bool)
    valid[:, :30] = True
    broken = probs.masked_fill(~valid.unsqueeze(1), torch.nan)
    decide = RankSEG(metric, output_mode=mode, solver="DEP", theta=20)
    assert torch.equal(decide(broken, valid)[..., :30, :], decide(probs[:, :, :30]))
    outside = decide(broken, valid)[..., 30:, :]
    assert (outside == (255 if mode == "multiclass" else 0)).all()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_logits_decide_as_their_probabilities(metric, link, backend):
    logits = 3 * torch.randn(2, 4, 24, 30, dtype=torch.float64)
    probs = logits.softmax(1) if link == "softmax" else logits.sigmoid()
    mode = "multiclass" if link == "softmax" else "multilabel"
    options = {"metric": metric, "output_mode": mode, "solver": "DEP", "theta": 9}
    assert torch.equal(RankSEG(**options, from_logits=link)(logits), RankSEG(**options)(probs))


def test_an_image_without_any_probability_has_an_empty_mask():
    probs = np.zeros((1, 2, 20, 20))
    decide = RankSEG(output_mode="multilabel", solver="DEP", presence="all")
    assert not decide(probs).any()


def test_a_long_signal_needs_no_table_of_all_pairs():
    probs = maps.softmax(1, 2, 300_000)[:, :1]
    assert RankSEG(output_mode="multilabel", solver="DEP", theta=50)(probs).any()


def test_a_tracer_is_refused():
    probs = torch.from_numpy(maps.softmax(1, 3, 8, 8))
    with pytest.raises(RuntimeError, match="solver='DEP' takes as many steps as the maps demand"):
        torch.compile(RankSEG(solver="DEP"), fullgraph=True, backend="eager")(probs)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--theta", "3"], {"theta": 3}),
        (["--theta", "inf", "--amplitude", "0.5"], {"theta": math.inf, "amplitude": 0.5}),
        (["--theta", "3", "--theta", "9"], {"theta": (3, 9)}),
    ],
)
def test_the_options_of_the_command_line(arguments, options, tmp_path):
    probs = maps.smooth(1, 3, 48)
    np.save(tmp_path / "case.npy", probs[0])
    output = tmp_path / "labels"
    places = (tmp_path / "case.npy", "-o", output, "--format", "npy")
    result = run("predict", *places, "--solver", "DEP", *arguments)
    assert result.exit_code == 0, result.output
    (written,) = output.glob("*.npy")
    assert np.array_equal(np.load(written), RankSEG(solver="DEP", **options)(probs)[0])
