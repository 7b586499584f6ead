"""A rule fitted to the score of a whole data set, and the decisions that it makes."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankseg import RankSEG
from rankseg.calibration import Calibration, PresenceModel
from rankseg.dataset import DatasetRule
from rankseg.evaluation import Case, CaseFolder, Failure
from rankseg.functional import rankseg
from support import maps as drawn

RULE = DatasetRule("iou", [0.8, 1.0, 1.2], [0.3, 0.5, 0.4])
MASKS = DatasetRule("dice", [1.0, 2.0, 1.0], [0.4, 0.7, 0.45], "multilabel")


def draw(seed, images=2, classes=3, pixels=60, spread=1.0):
    """Draw softmax maps float64 ``(images, classes, pixels)`` of classes that are not alike."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(images, classes, pixels)) + rng.normal(size=(classes, 1))
    return torch.from_numpy(logits).softmax(1)


def objective(metric, maps, masks, truth=None):
    """Return the mean score of the classes with volume: counts are summed over the images first.

    ``maps``, ``masks`` and ``truth`` are ``(images, classes, pixels)``.
    """
    truth = maps if truth is None else truth
    scores = []
    for probs, mask in zip(truth.transpose(0, 1).double(), masks.transpose(0, 1), strict=True):
        hits, count, volume = probs[mask].sum(), mask.sum(), probs.sum()
        size = (count + volume) / 2 if metric == "dice" else count + volume - hits
        if volume > 0:
            scores.append(float(hits / size))
    return sum(scores) / len(scores)


def one_hot(labels, classes):
    """Return ``(images, classes, pixels)`` of labels ``(images, pixels)``."""
    return labels.unsqueeze(1) == torch.arange(classes).view(-1, 1)


def fitted_objective(metric, maps, **options):
    """Return the objectives of the fitted rule and of argmax, or of masks and the threshold 1/2."""
    rule = DatasetRule.fit(maps, metric, **options)
    masks = options.get("output_mode") == "multilabel" or maps.shape[1] == 1
    decide = RankSEG(metric, output_mode="multilabel" if masks else "multiclass", rule=rule)
    if masks:
        return objective(metric, maps, decide(maps)), objective(metric, maps, maps > 0.5)
    ours, theirs = decide(maps), maps.argmax(1)
    classes = maps.shape[1]
    return tuple(objective(metric, maps, one_hot(one, classes)) for one in (ours, theirs))


class TestFit:
    @given(
        seed=st.integers(0, 10**6),
        classes=st.integers(2, 6),
        pixels=st.integers(1, 40),
        spread=st.sampled_from([0.1, 1.0, 5.0]),
        metric=st.sampled_from(["dice", "iou"]),
    )
    def test_labels_never_score_below_argmax(self, seed, classes, pixels, spread, metric):
        ours, argmax = fitted_objective(metric, draw(seed, 2, classes, pixels, spread))
        assert ours >= argmax * (1 - 1e-12)

    @given(
        seed=st.integers(0, 10**6),
        classes=st.integers(1, 4),
        power=st.sampled_from([0.3, 1.0, 4.0]),
        metric=st.sampled_from(["dice", "iou"]),
    )
    def test_masks_are_the_best_of_all_masks(self, seed, classes, power, metric):
        maps = torch.from_numpy(np.random.default_rng(seed).random((2, classes, 4)) ** power)
        ours, _ = fitted_objective(metric, maps, output_mode="multilabel")
        every = torch.tensor([*itertools.product([False, True], repeat=8)]).view(-1, 2, 1, 4)
        best = 0.0
        for probs in maps.split(1, 1):
            best += max(objective(metric, probs, mask) for mask in every) / classes
        assert ours == pytest.approx(best, abs=2e-6)

    @pytest.mark.parametrize("metric", ["dice", "iou"])
    @pytest.mark.parametrize(("classes", "pixels", "least"), [(2, 8, 0.9), (3, 6, 0.8)])
    def test_labels_are_mostly_the_best_of_all_labels(self, metric, classes, pixels, least):
        every = torch.tensor([*itertools.product(range(classes), repeat=pixels)])
        every = every.view(len(every), 2, -1)
        found = []
        for seed in range(40):
            maps = draw(seed, 2, classes, pixels // 2, 1.5)
            masks = (every.unsqueeze(2) == torch.arange(classes).view(-1, 1)).double()
            hits, count = (masks * maps).sum((1, 3)), masks.sum((1, 3))
            volume = maps.sum((0, 2))
            size = (count + volume) / 2 if metric == "dice" else count + volume - hits
            best = (hits / size).mean(1).max().item()
            ours, argmax = fitted_objective(metric, maps)
            assert argmax <= ours <= best + 1e-12
            found.append(ours > best - 1e-9)
        assert np.mean(found) >= least

    @pytest.mark.parametrize("metric", ["dice", "iou"])
    def test_two_classes_of_many_pixels_are_within_a_thousandth_of_the_best_cut(self, metric):
        short = []
        for seed in range(20):
            maps = draw(seed, 2, 2, 100)
            cuts = maps[:, 1].flatten()
            labels = [(maps[:, 1] > cut).long() for cut in (*cuts.tolist(), -1.0)]
            best = max(objective(metric, maps, one_hot(one, 2)) for one in labels)
            ours, _ = fitted_objective(metric, maps)
            short.append(best - ours)
        assert np.mean(short) < 1e-3

    @pytest.mark.parametrize(
        ("metric", "cut"), [("dice", lambda f: f / 2), ("iou", lambda f: f / (1 + f))]
    )
    def test_the_threshold_is_that_of_the_score_reached(self, metric, cut):
        maps = draw(4, 3, 2, 2000)[:, 1:]
        rule = DatasetRule.fit(maps, metric)
        score = objective(metric, maps, RankSEG(metric, output_mode="multilabel", rule=rule)(maps))
        assert rule.offset[0] / rule.scale[0] == pytest.approx(cut(score), abs=1e-3)

    @pytest.mark.parametrize("metric", ["dice", "iou"])
    def test_the_lines_are_the_derivative_of_the_objective(self, metric):
        """IoU: ``(1 + f) / D`` and ``f / D``. Dice: ``2 / D`` and ``f / D``."""
        maps = draw(5, 3, 4, 4000)
        rule = DatasetRule.fit(maps, metric)
        masks = one_hot(RankSEG(metric, rule=rule)(maps), 4)
        hits, count, volume = (maps * masks).sum((0, 2)), masks.sum((0, 2)), maps.sum((0, 2))
        size = count + volume - (hits if metric == "iou" else 0)
        score = hits / size * (1 if metric == "iou" else 2)
        scale, offset = (1 + score if metric == "iou" else 2.0) / size, score / size
        np.testing.assert_allclose(rule.scale, scale / scale.mean(), rtol=0.01)
        np.testing.assert_allclose(rule.offset, offset / scale.mean(), rtol=0.01)
        assert np.mean(rule.scale) == pytest.approx(1)

    @pytest.mark.parametrize("metric", ["dice", "iou"])
    def test_with_labels_true_counts_decide(self, metric):
        maps = draw(6, 4, 3, 500)
        rng = np.random.default_rng(0)
        sure = (4 * maps.log()).softmax(1)  # the maps are under-confident
        labels = torch.from_numpy((rng.random((4, 1, 500)) > sure.cumsum(1).numpy()).sum(1))
        cases = [Case(str(i), *pair) for i, pair in enumerate(zip(maps, labels, strict=True))]
        truth = one_hot(labels, 3).double()
        options = {"ignore_index": 255}
        rule = DatasetRule.fit(cases, metric, use_labels=True, **options)
        masks = [one_hot(one, 3) for one in (RankSEG(metric, rule=rule)(maps), maps.argmax(1))]
        ours, argmax = (objective(metric, maps, mask, truth) for mask in masks)
        assert ours >= argmax
        assert rule != DatasetRule.fit(cases, metric, **options)
        assert DatasetRule.fit(cases, metric, **options) == DatasetRule.fit(maps, metric)

    def test_labels_of_one_channel_are_0_and_1(self):
        maps = draw(7, 1, 2, 400)[:, 1:]
        labels = (maps[:, 0] > 0.3).long()
        rule = DatasetRule.fit([Case("a", maps[0], labels[0])], "iou", use_labels=True)
        ours = RankSEG("iou", rule=rule)(maps)
        truth = labels.unsqueeze(1).double()
        reached = [objective("iou", maps, one, truth) for one in (ours[:, None] == 1, maps > 0.5)]
        assert reached[0] > reached[1]

    @pytest.mark.parametrize("use_labels", [False, True])
    def test_pixels_that_are_ignored_do_not_count(self, use_labels):
        maps = draw(8, 3, 3, 200)
        labels = maps.argmax(1)
        labels[:, 50:] = 255
        with_garbage = maps.clone()
        with_garbage[:, :, 50:] = math.nan
        cases, kept = (
            [Case(str(i), *pair) for i, pair in enumerate(zip(*some, strict=True))]
            for some in ((with_garbage, labels), (maps[..., :50], labels[:, :50]))
        )
        rules = [
            DatasetRule.fit(some, "dice", ignore_index=255, use_labels=use_labels)
            for some in (cases, kept)
        ]
        assert rules[0] == rules[1]
        labels[0] = 255  # an image without a pixel that counts
        DatasetRule.fit(cases, "dice", ignore_index=255, use_labels=use_labels)

    def test_shape_and_type_of_the_maps_do_not_matter(self):
        maps = draw(9, 3, 4, 120).float()
        rule = DatasetRule.fit(maps)
        volumes = maps.view(3, 4, 4, 5, 6)
        assert DatasetRule.fit(volumes) == rule
        assert DatasetRule.fit(volumes.numpy()) == rule
        assert DatasetRule.fit([one.movedim(-1, 1) for one in volumes]).scale == pytest.approx(
            rule.scale
        )
        half = DatasetRule.fit(maps.half())
        assert half.scale == pytest.approx(rule.scale, rel=0.05)

    def test_a_sample_of_all_pixels_is_the_full_fit_and_a_smaller_one_is_close(self):
        maps = draw(10, 5, 3, 3000)
        drawn_at = torch.rand(5, 1, 3000, generator=torch.Generator().manual_seed(0))
        labels = (drawn_at > maps.cumsum(1)).sum(1).clamp(max=2)
        labels[:, :100] = 255
        cases = [Case(str(i), *pair) for i, pair in enumerate(zip(maps, labels, strict=True))]
        for use_labels in (False, True):
            options = {"ignore_index": 255, "use_labels": use_labels}
            full = DatasetRule.fit(cases, "iou", **options)
            whole = DatasetRule.fit(iter(cases), "iou", pixels=10**6, **options)
            assert whole.scale == pytest.approx(full.scale)
            some = [DatasetRule.fit(cases, "iou", pixels=2000, seed=seed, **options)
                    for seed in (0, 0, 1)]  # fmt: skip
            assert some[0] == some[1] != some[2]
            assert some[0].scale == pytest.approx(full.scale, rel=0.35)

    def test_a_sample_is_uniform_over_the_pixels_of_images_of_all_sizes(self):
        from rankseg._decision.dataset_rule import _Data
        from rankseg._decision.settings import Settings

        sizes = (10, 1000, 300)
        maps = [torch.full((1, size), place / 4) for place, size in enumerate(sizes, 1)]
        data = _Data(maps, Settings(output_mode="multilabel"), False, None)
        share = np.zeros(3)
        for seed in range(50):
            (image,) = data.sample(131, seed)
            assert image.probs.shape == (1, 131)
            share += [float((image.probs == place / 4).sum()) for place in (1, 2, 3)]
        np.testing.assert_allclose(share / share.sum(), np.array(sizes) / 1310, atol=0.02)

    def test_calibrated_maps_are_those_that_are_decided(self, tmp_path):
        maps = draw(11, 3, 3, 300)
        calibration = Calibration("softmax", [0.5, 0.6, 2.0], [0.0, 0.5, 1.0])
        better = torch.cat([calibration.of(one[None]) for one in maps])
        rule = DatasetRule.fit(maps, "iou", calibration=calibration)
        assert rule.scale == pytest.approx(DatasetRule.fit(better, "iou").scale)
        calibration.save(tmp_path / "c.json")
        assert DatasetRule.fit(maps, "iou", calibration=str(tmp_path / "c.json")) == rule
        labels = RankSEG("iou", calibration=calibration, rule=rule)(maps)
        assert labels.equal(RankSEG("iou", rule=rule)(better))
        sampled = DatasetRule.fit(maps, "iou", calibration=calibration, pixels=10**4)
        assert sampled.scale == pytest.approx(rule.scale)

    def test_a_class_without_volume_keeps_the_threshold_of_a_half(self):
        maps = draw(12, 2, 3, 50)
        padded = torch.cat((maps, torch.zeros(2, 1, 50)), 1)
        rule, known = DatasetRule.fit(padded, "iou"), DatasetRule.fit(maps, "iou")
        assert (rule.scale[3], rule.offset[3]) == (1.0, 0.5)
        assert rule.scale[:3] == pytest.approx(known.scale)

    def test_a_rare_class_does_not_end_the_fit(self):
        """Whole steps overshoot here: they alone end at argmax."""
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(1, 4, 4000)) + np.array([0.0, 0.0, -4.0, -7.0])[:, None]
        ours, argmax = fitted_objective("dice", torch.from_numpy(logits).softmax(1))
        assert ours > argmax + 0.02

    def test_failures_are_left_out_and_named_once(self):
        maps = draw(13, 2, 3, 40)
        cases = [Case("a", maps[0], maps[0].argmax(0)), Failure("b", "is broken")]
        with pytest.warns(UserWarning, match="left out: b: is broken") as caught:
            rule = DatasetRule.fit(cases)
        assert len(caught) == 1
        assert rule == DatasetRule.fit(maps[:1])

    def test_a_folder_is_read(self, folder):
        cases = CaseFolder.open(folder)
        rule = DatasetRule.fit(cases, ignore_index=cases.ignore_index)
        assert rule.classes == 3
        assert rule == DatasetRule.fit(list(cases), ignore_index=255)


GOOD = draw(0)
LABELS = GOOD.argmax(1)


class Changing:
    """Maps that are others in every pass."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield draw(self.passes)[0]


class Used:
    """An iterable that is empty after one image."""

    def __init__(self):
        self.maps = iter(GOOD)

    def __iter__(self):
        return (one for one in self.maps)


class TestBadInput:
    @pytest.mark.parametrize(
        ("maps", "options", "error", "message"),
        [
            (GOOD, {"metric": "acc"}, ValueError, r"metric must be one of \['dice', 'iou'\]"),
            (GOOD, {"metric": 3}, TypeError, "metric must be a string"),
            (GOOD, {"output_mode": "masks"}, ValueError, "output_mode must be one of"),
            (GOOD, {"pixels": 0}, ValueError, "pixels must be at least 1, got 0"),
            (GOOD, {"pixels": 2.5}, TypeError, "pixels must be an integer, got 2.5"),
            (GOOD, {"pixels": 5, "seed": "a"}, TypeError, "seed must be an integer, got 'a'"),
            (GOOD, {"calibration": 3}, TypeError, "calibration must be a Calibration or the path"),
            (
                GOOD,
                {"calibration": Calibration("softmax", [1.0] * 2, [0.0] * 2)},
                ValueError,
                "image 0: calibration must be for the 3 classes of probs, got one for 2",
            ),
            (3, {}, TypeError, "maps must be an iterable of maps .* or cases, got int"),
            (None, {}, TypeError, "maps must be an iterable"),
            (iter(GOOD), {}, TypeError, "maps must be iterable several times, got .*pixels=1_000"),
            ((one for one in GOOD), {}, TypeError, "several times, got generator: pass a list"),
            ([], {}, ValueError, "maps must hold one image at least, got none"),
            (Used(), {}, ValueError, "maps must be the same|maps must hold one image at least"),
            (Changing(), {}, ValueError, "maps must be the same in every pass, and have changed"),
            (["a"], {}, TypeError, "image 0: maps must be a dense torch.Tensor or"),
            ([GOOD[0], GOOD[1, :2]], {}, ValueError, "image 1: has maps of 2 classes where 3"),
            ([GOOD[0] * math.nan], {}, ValueError, r"image 0: maps must be probabilities in \[0"),
            ([GOOD[0], GOOD[1] * math.inf], {}, ValueError, "image 1: maps must be probabilities"),
            ([4 * GOOD[0]], {}, ValueError, "image 0: maps must be .*apply softmax or sigmoid"),
            ([GOOD[0].long()], {}, TypeError, "image 0: probs must be of a dtype in"),
            ([torch.rand(5)], {}, ValueError, "image 0: probs must have the axes"),
            (torch.zeros(2, 1, 9), {}, ValueError, "maps must hold some pixel or probability"),
            (GOOD, {"use_labels": True}, TypeError, "image 0: use_labels=True needs cases with la"),
            (
                [Case("a", GOOD[0], LABELS[0] + 1)],
                {"use_labels": True},
                ValueError,
                "a: labels must be classes from 0 to 2, or to be ignored, got 2 to 3",
            ),
            (
                [Case("a", GOOD[0], LABELS[0] * 0 + 255)],
                {"use_labels": True, "ignore_index": 255},
                ValueError,
                "maps must hold some pixel or probability",
            ),
        ],
    )
    def test_one_error_that_names_what_is_wrong(self, maps, options, error, message):
        with pytest.raises(error, match=message):
            DatasetRule.fit(maps, **options)

    def test_a_sample_looks_at_every_value(self):
        broken = GOOD.clone()
        broken[1, 0, 3] = math.nan
        with pytest.raises(ValueError, match="image 1: maps must be probabilities"):
            DatasetRule.fit(iter(broken), pixels=1)

    @pytest.mark.parametrize(
        ("terms", "error", "message"),
        [
            (("acc", [1.0], [0.0]), ValueError, "metric must be one of"),
            (("iou", [], []), TypeError, "scale must be a sequence of numbers, got list"),
            (("iou", "11", [0.0]), TypeError, "scale must be a sequence of numbers, got str"),
            (("iou", [0.0], [0.0]), ValueError, r"every scale must be in \(0, 1e\+12\], got 0.0"),
            (("iou", [-1.0], [0.0]), ValueError, "every scale must be in"),
            (("iou", [math.nan], [0.0]), ValueError, "every scale must be in"),
            (("iou", [1.0], [math.inf]), ValueError, "every offset must be in"),
            (("iou", [1.0], [True]), TypeError, "every offset must be a real number, got True"),
            (("iou", [1.0], [0.0, 1.0]), ValueError, "one entry for each class, got 1 and 2"),
            (("iou", [1.0], [0.0], "masks"), ValueError, "output_mode must be one of"),
        ],
    )
    def test_terms(self, terms, error, message):
        with pytest.raises(error, match=message):
            DatasetRule(*terms)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (
                {"rule": 3},
                TypeError,
                "rule must be a DatasetRule or the path of a file of one, got",
            ),
            ({"rule": RULE}, ValueError, "for metric='dice', got one for 'iou'; pass metric='iou'"),
            (
                {"metric": "iou", "rule": RULE, "output_mode": "multilabel"},
                ValueError,
                "rule must be for output_mode='multilabel', got one for 'multiclass'",
            ),
            ({"metric": "acc", "rule": RULE}, TypeError, r"rule goes with a solver in \['dataset"),
            ({"solver": "RMA", "rule": RULE}, TypeError, "solver='RMA' .*got .'rule'"),
            ({"solver": "dataset"}, ValueError, "solver='dataset' needs the option rule, got none"),
            ({"rule": None, "solver": "dataset"}, ValueError, "needs the option rule, got none"),
            ({"metric": "iou", "rule": RULE, "correlation": 0.5}, TypeError, "'correlation'"),
            ({"rule": "nowhere.json"}, FileNotFoundError, "nowhere.json"),
        ],
    )
    def test_options(self, options, error, message):
        with pytest.raises(error, match=message):
            RankSEG(**options)

    def test_maps_of_another_number_of_classes(self):
        with pytest.raises(ValueError, match="rule must be for the 4 classes of probs, got one f"):
            RankSEG("iou", rule=RULE)(np.full((1, 4, 5), 0.25))


class TestDecision:
    @pytest.mark.parametrize("shape", [(2, 3, 77), (2, 3, 31, 40), (1, 3, 5, 9, 11)])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_every_pixel_gets_the_class_of_the_highest_line(self, backend, shape, dtype):
        maps = torch.from_numpy(drawn.softmax(*shape)).to(dtype)
        scale, offset = (
            torch.tensor(terms, dtype=torch.float64).view(-1, *[1] * (maps.dim() - 2))
            for terms in (RULE.scale, RULE.offset)
        )
        expected = (scale * maps.double() - offset).argmax(1)
        assert RankSEG("iou", rule=RULE)(maps).equal(expected)
        assert not expected.equal(maps.argmax(1))
        valid = torch.rand(shape[0], *shape[2:]) > 0.3
        labels = RankSEG("iou", rule=RULE, void_index=9)(maps, valid)
        assert labels.equal(expected.where(valid, 9))

    def test_masks_exceed_the_quotient(self, backend):
        maps = torch.from_numpy(drawn.softmax(2, 3, 31, 40))
        cuts = torch.tensor(MASKS.offset) / torch.tensor(MASKS.scale)
        decide = RankSEG("dice", output_mode="multilabel", rule=MASKS)
        assert decide(maps).equal(maps > cuts.view(3, 1, 1))
        one = MASKS.of_class(1)
        assert RankSEG("dice", rule=one)(maps[:, 1:2]).equal((maps[:, 1] > cuts[1]).long())
        assert RankSEG("dice", output_mode="multilabel", rule=one)(maps[:, 1:2]).equal(
            decide(maps)[:, 1:2]
        )

    def test_numpy_logits_and_functions_decide_the_same(self, tmp_path):
        logits = torch.randn(2, 3, 30, 30, generator=torch.Generator().manual_seed(0))
        labels = RankSEG("iou", rule=RULE)(logits.softmax(1))
        assert RankSEG("iou", rule=RULE, from_logits="softmax")(logits).equal(labels)
        RULE.save(tmp_path / "rule.json")
        for rule in (RULE, tmp_path / "rule.json", str(tmp_path / "rule.json")):
            found = rankseg(logits.softmax(1).numpy(), "iou", rule=rule)
            np.testing.assert_array_equal(found, labels)

    @pytest.mark.parametrize("presence", ["argmax", "peak", PresenceModel(1.0, 0.0, [0.0] * 3)])
    def test_presence_is_every_class_unless_it_is_named(self, presence, backend):
        maps = torch.tensor([[[0.9, 0.6], [0.06, 0.36], [0.04, 0.04]]])
        rule = DatasetRule("iou", [1.0, 3.0, 20.0], [0.0, 0.0, 0.5])
        assert RankSEG("iou", rule=rule)(maps).tolist() == [[0, 1]]
        assert (
            RankSEG("iou", rule=rule, presence="all").settings == RankSEG("iou", rule=rule).settings
        )
        decide = RankSEG("iou", rule=rule, presence=presence)
        present = decide.decide(maps).present
        assert decide(maps).tolist() == [[0, 1 if present[0, 1] else 0]]
        assert RankSEG("iou", rule=rule, pruning_prob=0.5)(maps).tolist() == [[0, 0]]

    def test_a_decision_tells_what_it_is_expected_to_score(self):
        maps = torch.from_numpy(drawn.softmax(2, 3, 20, 20))
        decision = RankSEG("iou", rule=RULE).decide(maps)
        assert decision.prediction.equal(RankSEG("iou", rule=RULE)(maps))
        assert (decision.expected_mean <= decision.upper_bound + 1e-3).all()
        assert RankSEG("iou", rule=RULE).correlation == 0

    def test_empty_batch(self):
        assert RankSEG("iou", rule=RULE)(np.zeros((0, 3, 4, 4))).shape == (0, 4, 4)

    def test_copies_pickles_and_attributes_keep_the_rule_and_need_no_file(self, tmp_path):
        RULE.save(tmp_path / "rule.json")
        decide = RankSEG("iou", rule=tmp_path / "rule.json")
        (tmp_path / "rule.json").unlink()
        assert decide.rule == RULE
        assert decide.solver == "dataset"
        for other in (copy.deepcopy(decide), pickle.loads(pickle.dumps(decide))):
            assert other.settings == decide.settings
        maps = np.full((1, 3, 4), 1 / 3)
        decide.rule = DatasetRule("iou", [1.0, 1.0, 2.0], [0.0] * 3)
        assert (decide(maps) == 2).all()
        with pytest.raises(TypeError, match="rule must be a DatasetRule"):
            decide.rule = 3

    def test_a_graph_decides_the_same(self):
        maps = torch.from_numpy(drawn.softmax(1, 3, 8, 9))
        decide = RankSEG("iou", rule=RULE)
        exported = torch.export.export(decide, (maps,)).module()
        assert exported(maps).equal(decide(maps))


class TestFile:
    @pytest.mark.parametrize("rule", [RULE, MASKS])
    def test_round_trip(self, tmp_path, rule):
        rule.save(tmp_path / "rule.json")
        assert DatasetRule.load(tmp_path / "rule.json") == rule
        assert [path.name for path in tmp_path.iterdir()] == ["rule.json"]

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "rankseg calibration 1"},
            {"format": None},
            {"metric": "acc"},
            {"metric": ["iou"]},
            {"scale": None},
            {"scale": [0, 1, 1]},
            {"scale": [1.0, 1.0]},
            {"scale": [1.0, 1.0, [1.0]]},
            {"scale": [10**400, 1.0, 1.0]},
            {"scale": {"0": 1.0}},
            {"offset": [math.nan, 0.0, 0.0]},
            {"offset": [math.inf, 0.0, 0.0]},
            {"offset": ["0", 0.0, 0.0]},
            {"offset": [True, 0.0, 0.0]},
            {"output_mode": 3},
            {"labels": 1},
        ],
    )
    def test_what_is_no_rule(self, tmp_path, change):
        path = tmp_path / "rule.json"
        RULE.save(path)
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=r"rule\.json is no file of a data-set rule: "):
            RankSEG("iou", rule=path)

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"scale": [1]}']
    )
    def test_other_files(self, tmp_path, content):
        (tmp_path / "rule.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"rule\.json is no file of a data-set rule: "):
            DatasetRule.load(tmp_path / "rule.json")

    @pytest.mark.parametrize("name", ["metric", "scale", "offset", "output_mode"])
    def test_a_field_that_is_missing_is_named(self, tmp_path, name):
        RULE.save(tmp_path / "rule.json")
        content = json.loads((tmp_path / "rule.json").read_text(), object_pairs_hook=OrderedDict)
        del content[name]
        (tmp_path / "rule.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"it lacks \['{name}'\]"):
            DatasetRule.load(tmp_path / "rule.json")


class TestFrameworks:
    """Adapters pass the rule on to RankSEG."""

    def test_monai(self, tmp_path):
        transform = pytest.importorskip("rankseg.integration.monai")
        RULE.save(tmp_path / "rule.json")
        maps = torch.from_numpy(drawn.softmax(1, 3, 20, 20))
        decided = transform.RankSEG("iou", rule=tmp_path / "rule.json")(maps[0])
        assert decided[0].long().equal(RankSEG("iou", rule=RULE)(maps)[0])
        with pytest.raises(ValueError, match="include_background=False does not go with a rule"):
            transform.RankSEG("iou", rule=RULE, include_background=False)

    def test_transformers(self):
        postprocess = pytest.importorskip("rankseg.integration.transformers").postprocess
        logits = torch.from_numpy(drawn.softmax(1, 3, 16, 16)).log()
        (decided,) = postprocess({"logits": logits}, rankseg_kwargs={"metric": "iou", "rule": RULE})
        assert decided.equal(RankSEG("iou", rule=RULE)(logits.softmax(1))[0])

    def test_sam(self):
        from rankseg.integration.sam import decide_logits

        logits = 3 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        found = decide_logits(logits, {"rule": DatasetRule("dice", [1.0], [0.2])})
        np.testing.assert_array_equal(np.asarray(found), (logits.sigmoid() > 0.2).numpy())

    def test_regions_of_nnunet_one_by_one(self, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        from rankseg.integration.nnunet import decide_folders

        maps = np.random.default_rng(0).random((2, 3, 6, 7), np.float32)
        np.savez(tmp_path / "case.npz", probabilities=maps)
        geometry = nibabel.Nifti1Image(np.zeros((7, 6, 3), np.uint8), np.eye(4))
        nibabel.save(geometry, tmp_path / "case.nii.gz")
        labels = {"background": 0, "whole": [1, 2], "core": 2}
        told = {"labels": labels, "regions_class_order": [1, 2], "file_ending": ".nii.gz"}
        (tmp_path / "dataset.json").write_text(json.dumps(told))
        rule = DatasetRule("dice", [1.0, 2.0], [0.7, 0.4], "multilabel")
        assert decide_folders(tmp_path, tmp_path / "out", rule=rule).failures == {}
        expected = np.where(maps[0] > 0.7, 1, 0)
        expected[maps[1] > 0.2] = 2
        found = np.asanyarray(nibabel.load(tmp_path / "out" / "case.nii.gz").dataobj)
        np.testing.assert_array_equal(found, expected.T)
        failures = decide_folders(tmp_path, tmp_path / "o", rule=MASKS).failures
        assert "rule must be for 2 regions, got 3" in failures["case"]
