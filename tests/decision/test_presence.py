"""Which classes are taken to be in an image: `presence`, held against argmax itself."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._backends import choose
from rankseg._decision.presence_model import PresenceTable
from rankseg.calibration import (
    Calibration,
    PresenceModel,
    calibrate,
    cross_validate_presence,
    fit,
)
from rankseg.evaluation import Case
from rankseg.evaluation.folds import folds_of
from rankseg.evaluation.image_labels import read_image_labels
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


def cases_with_rare_classes(number=200, seed=0):
    """Draw cases of three classes; the peak of the last says less of its presence than of others.

    A class that is there has a peak of 0.6 on average, one that is not of 0.4.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for index in range(number):
        there = rng.random(3) < np.array([1.0, 0.5, 0.2])
        peak = np.clip(rng.normal(0.4 + 0.2 * there, [0.02, 0.12, 0.12]), 0.01, 0.99)
        probs = peak[:, None] * rng.random((3, 50)) ** 2
        probs[:, 0] = peak
        label = np.zeros(50, np.int64)
        label[1] = 1 if there[1] else 0
        label[2] = 2 if there[2] else 0
        drawn.append(Case(str(index), torch.from_numpy(probs), torch.from_numpy(label)))
    return drawn


def test_a_model_tells_how_likely_classes_are_there():
    model = PresenceModel.fit(cases_with_rare_classes())
    table = PresenceTable.of(cases_with_rare_classes(1000, seed=1), None, None)
    told = model.probability(table.peak, table.share, 1.0)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        near = (told[:, 1:] - share).abs() < 0.1
        assert table.present[:, 1:][near].double().mean() == pytest.approx(share, abs=0.1)
    brier = (told - table.present.double()).square().mean()
    assert brier < 0.6 * (table.peak - table.present.double()).square().mean()


def test_the_fit_is_the_most_likely_one():
    """Its terms are where the gradient of log-likelihood and priors, written anew, vanishes."""
    table = PresenceTable.of(cases_with_rare_classes(), None, None)
    model = table.fit()
    shared = sum(model.offset) / (3 + 1 / 100)  # the mean, drawn to 0 by its own prior
    error = model.probability(table.peak, table.share, 1.0) - table.present.double()
    by_class = error.sum(0) + torch.tensor(model.offset) - shared
    torch.testing.assert_close(by_class, torch.zeros(3).double(), atol=1e-4, rtol=0)
    logit = (table.peak / (1 - table.peak)).log()
    for slope, feature in ((model.peak, logit), (model.volume, table.share.log())):
        assert float((error * feature).sum() + slope / 100) == pytest.approx(0, abs=1e-3)


def test_image_level_labels_do_in_place_of_masks():
    cases = cases_with_rare_classes()
    held = {case.name: set(case.label.unique().tolist()) for case in cases}
    blank = [Case(case.name, case.probs, torch.full_like(case.label, 255)) for case in cases]
    assert PresenceModel.fit(blank, held) == PresenceModel.fit(cases)


def test_few_cases_share_one_offset():
    with pytest.warns(UserWarning, match="19 cases are too few to tell the classes apart"):
        model = PresenceModel.fit(cases_with_rare_classes(19))
    assert len(set(model.offset)) == 1
    assert len(set(PresenceModel.fit(cases_with_rare_classes(20)).offset)) == 3


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ({"0": {0}}, "present must name the classes of every case, got none for '1'"),
        ({"0": {0}, "1": {3}}, r"the classes of 1 must be from 0 to 2, .* got \[3\]"),
        ({"0": {0}, "1": {0}, "x": {0}}, r"not among the maps: \['x'\]"),
        ({"0": [1, 0, 1], "1": {0}}, "classes of 0 must be named once each, got .1, 0, 1."),
        ({"0": {1, 2}, "1": {1}}, "present names class 0 for no case, .* would be given no pixel"),
    ],
)
def test_wrong_image_level_labels_are_named(present, message):
    with pytest.raises(ValueError, match=message):
        PresenceModel.fit(cases_with_rare_classes(2), present)


def test_marks_are_no_classes():
    for held in ([True, False, True], 1):
        with pytest.raises(TypeError, match="classes of 0 must be a collection of integers, got"):
            PresenceModel.fit(cases_with_rare_classes(2), {"0": held, "1": {0}})


def test_the_same_classes_for_every_case_are_told():
    """Cells of 0 and 1 that are taken for the numbers of classes name both classes everywhere."""
    cases = cases_with_rare_classes(20)
    with pytest.warns(UserWarning, match=r"the same classes, \[0, 1\], for every case"):
        PresenceModel.fit(cases, {case.name: [0, 1] for case in cases})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["case,left,right", "a,0,1"], r"of \['background'\], of 1 wherever a pixel is background"),
        (["case,Left,Right", "a,0,1"], r"got \['Left', 'Right'\]; add one for each of .*'right'"),
        (["case,right", "a,1"], "add one for each of .'background', 'left'"),
        (["case,1,2", "a,0,1"], "add one for each of .'background'.,"),
        (["case,background,right", "a,1,1"], r"add one for each of \['left'\]$"),
        (["case,background,left,right,up", "a,1,1,0,0"], r"in \[.*'right'\], got .*'up'\]$"),
    ],
)
def test_columns_of_some_classes_are_no_class_numbers(tmp_path, lines, message):
    path = tmp_path / "held.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        read_image_labels(path, ["background", "left", "right"])


@pytest.mark.parametrize(
    ("lines", "classes", "held"),
    [
        (["case,0,right,1", "a,1,1,0"], ("background", "left", "right"), [0, 2]),
        (["case,tumour", "a,1"], ("tumour",), [1]),
        (["case,tumour", "a,0"], ("tumour",), []),
        (["case,classes", "a,0"], ("background", "left"), [0]),
        (["case,first,second", "a,0,2"], ("background", "left", "right"), [0, 2]),
    ],
)
def test_image_level_labels_are_columns_or_lists(tmp_path, lines, classes, held):
    path = tmp_path / "held.csv"
    path.write_text("\n".join(lines))
    assert read_image_labels(path, classes) == {"a": held}


def test_maps_that_cannot_be_used_are_left_out():
    cases = cases_with_rare_classes(30)
    logits = Case("logits", cases[0].probs.logit(), cases[0].label)
    others = Case("others", cases[0].probs[:2], cases[0].label.clamp(max=1))
    lost = Case("lost", cases[0].probs * math.nan, cases[0].label)
    with pytest.warns(UserWarning, match="left out") as told:
        model = PresenceModel.fit([*cases, logits, others, lost])
    assert model == PresenceModel.fit(cases)
    reasons = [str(warning.message) for warning in told]
    assert "logits must be probabilities in [0, 1], got [-" in reasons[0]
    assert "has maps of 2 classes where 3 are expected" in reasons[1]
    assert "lost must be probabilities in [0, 1], got [nan" in reasons[2]


def test_a_model_that_is_of_no_use_is_refused():
    for options, message in [
        ({"peak": math.nan}, r"peak must be in \[-1e\+06, 1e\+06\]"),
        ({"offset": []}, "offset must be a sequence of numbers"),
        ({"absent": "one"}, "absent must be one of"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            PresenceModel(**({"peak": 1.0, "volume": 0.0, "offset": [0.0]} | options))
    with pytest.raises(ValueError, match="at least one that can be used, got none"):
        PresenceModel.fit([])


MODEL = PresenceModel(peak=1.0, volume=0.0, offset=[9.0, 0.0, 0.0])


def test_where_absent_classes_score_0_doubtful_ones_are_left_out(backend):
    probs = torch.zeros(1, 3, 4, 25)
    probs[:, 0] = 1.0
    probs[0, :, 0, :20] = torch.tensor([0.4, 0.6, 0.0])[:, None]
    probs[0, :, 1, :20] = torch.tensor([0.6, 0.0, 0.4])[:, None]
    told = RankSEG(solver="joint", presence=MODEL).decide(probs)
    assert told.present.tolist() == [[True, True, False]]
    everything = PresenceModel(1.0, 0.0, MODEL.offset, "ignored")
    assert RankSEG(solver="joint", presence=everything).decide(probs).present.all()
    masks = RankSEG(output_mode="multilabel", presence=MODEL)(probs)
    assert masks.flatten(2).any(2).tolist() == [[True, True, False]]


def test_the_rule_is_the_one_stated(backend):
    """pi D > (1 - pi) m, with the expected scores of own masks given presence."""
    probs = draw(1, "unsure")
    model = PresenceModel(1.5, 0.2, [1.0, 0.5, 0.0, -0.5, 0.0, 0.0])
    masks = RankSEG("iou", output_mode="multilabel", presence="all")(probs)
    share = model.probability(probs.flatten(2).amax(2), probs.flatten(2).sum(2), 45 * 70)
    times = 1 / share.maximum(probs.flatten(2).amax(2))
    inside = (probs * masks).flatten(2).sum(2) * times
    volume = probs.flatten(2).sum(2) * times
    score = inside / (masks.flatten(2).sum(2) + volume - inside)
    kept = torch.zeros(2, 6, dtype=torch.bool)
    for image in range(2):
        for label in range(6):
            others = [other for other in range(6) if other != label]
            mean = (share * score)[image, others].sum() / share[image, others].sum()
            chance = share[image, label]
            kept[image, label] = chance * score[image, label] > (1 - chance) * mean
    assert 0 < kept.sum() < kept.numel()
    assert RankSEG("iou", solver="RMA", presence=model).decide(probs).present.equal(kept)


def test_one_channel_is_there_if_that_is_likelier_than_not(backend):
    model = PresenceModel(peak=1.0, volume=0.0, offset=[1.0])
    probs = torch.tensor([[[0.3, 0.2, 0.1]], [[0.2, 0.2, 0.1]]])  # 0.54 and 0.40
    masks = RankSEG(output_mode="multilabel", presence=model)(probs)
    assert masks.any(2).tolist() == [[True], [False]]


def test_a_calibration_brings_its_model(tmp_path):
    probs = draw(1, "unsure", (1, 3, 20, 20))
    calibration = Calibration("softmax", [0.8] * 3, [0.1, 0.0, 0.0], "vector", MODEL)
    calibration.save(tmp_path / "made.json")
    assert Calibration.load(tmp_path / "made.json") == calibration
    decide = RankSEG(solver="joint", calibration=str(tmp_path / "made.json"))
    assert decide.settings.presence == MODEL
    bare = RankSEG(solver="joint", calibration=replace(calibration, presence=None), presence=MODEL)
    assert decide(probs).equal(bare(probs))
    assert replace(calibration, link="sigmoid").of_class(2).presence.offset == (0.0,)
    for other in ({"presence": "all"}, {"pruning_prob": 0.3}):
        assert RankSEG(calibration=calibration, **other).settings.presence != MODEL
    assert RankSEG("acc", calibration=calibration).settings.presence == "peak"


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA"])
@pytest.mark.parametrize("output_mode", ["multilabel", "multiclass"])
def test_a_solver_that_takes_no_model_of_a_calibration_says_so(solver, output_mode):
    calibration = Calibration("softmax", [0.8] * 3, [0.1, 0.0, 0.0], "vector", MODEL)
    takers = "'RMA', 'joint', 'DEP', 'exact'"
    told = rf"solver='{re.escape(solver)}' leaves out the presence model .*{takers}"
    options = {"output_mode": output_mode, "calibration": calibration}
    with pytest.warns(UserWarning, match=told):
        RankSEG(solver=solver, **options)
    decide = RankSEG(solver="RMA", **options)
    decide.solver = solver
    with pytest.warns(UserWarning, match=told):
        assert decide.settings.presence == "peak"
    RankSEG(solver=solver, pruning_prob=0.5, **options)


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="presence must be for the 2 classes of probs, got one fo"):
        RankSEG(solver="RMA", presence=MODEL)(torch.rand(1, 2, 4, 4))
    with pytest.raises(ValueError, match="presence must be a model of 2 classes"):
        Calibration("softmax", [1.0, 1.0], [0.0, 0.0], presence=MODEL)
    with pytest.raises(TypeError, match="presence must be a PresenceModel, got dict"):
        Calibration("softmax", [1.0] * 3, [0.0] * 3, presence={"peak": 1.0})


def test_presence_is_validated_on_images_left_out_of_the_fit():
    cases = cases_with_rare_classes(100)
    told = cross_validate_presence(cases, folds=4)
    assert sorted(told.names) == sorted(case.name for case in cases)
    assert told.brier < 0.7 * told.brier_of_peaks
    place = told.names.index("7")
    fold = next(part for part in folds_of(100, 4, None, 0) if 7 in part)
    without = PresenceModel.fit([case for index, case in enumerate(cases) if index not in fold])
    table = PresenceTable.of([cases[7]], None, None)
    expected = without.probability(table.peak, table.share, 1.0)[0]
    torch.testing.assert_close(told.probability[place], expected)
    before, after = told.reliability(bins=5)
    assert before.count.sum() == after.hits.size * 20 == 300
    assert after.hits.sum() == int(told.present.sum())
    assert after.ece < before.ece


def test_a_fit_makes_calibration_and_model_together():
    cases = cases_with_rare_classes(40)
    made = fit(iter(cases), "none", presence="ignored")
    assert made.scale == (1.0, 1.0, 1.0)
    assert made.presence.absent == "ignored"
    plain = PresenceModel.fit(cases)
    assert made.presence.offset == pytest.approx(plain.offset, rel=1e-6)
    warm = fit(cases, "temperature", presence="zero")
    assert warm.presence == PresenceModel.fit(cases, calibration=replace(warm, presence=None))
    assert warm.presence.offset != pytest.approx(plain.offset, rel=1e-3)
    assert fit(cases, "temperature").presence is None


def test_leaving_probabilities_as_they_are_leaves_them():
    one_of = [Case("a", torch.tensor([[0.2, 0.7], [0.8, 0.3]]), torch.tensor([0, 1]))]
    any_of = [Case("a", torch.tensor([[0.9, 0.7], [0.8, 0.3]]), torch.tensor([0, 1]))]
    for cases in (one_of, any_of):
        kept = calibrate(cases[0].probs[None], fit(cases, "none"))
        torch.testing.assert_close(kept[0], cases[0].probs)


def test_presence_alone_leaves_probabilities_of_overlapping_classes():
    """Fitted to image-level labels, it comes with a calibration that changes nothing."""
    probs = 0.2 + 0.8 * draw(3, "no sums")[:, :3]
    kept = calibrate(probs, Calibration.of_presence(MODEL))
    torch.testing.assert_close(kept, probs, rtol=0, atol=0)
    with pytest.raises(ValueError, match="kind='none' must have scales of 1 and offsets of 0"):
        Calibration("softmax", [2.0, 1.0], [0.0, 0.0], "none")
