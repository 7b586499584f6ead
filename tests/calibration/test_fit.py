"""Calibrations: fitted, kept in a file, applied before a decision, measured."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from rankseg import RankSEG
from rankseg.calibration import (
    Calibration,
    calibrate,
    cross_validate,
    fit,
    prior_correction,
    reliability,
)
from rankseg.evaluation import Case, CaseFolder, Failure, Method, compare
from rankseg.functional import rankseg
from rankseg.tuning import tune
from support import maps

VECTOR = Calibration("softmax", [0.5, 1.5, 1.0], [0.3, -0.4, 0.1])


def simulated(calibration, cases=4, pixels=20_000, seed=0):
    """Return cases whose labels are drawn from the calibrated probabilities."""
    rng = np.random.default_rng(seed)
    classes = calibration.classes
    for number in range(cases):
        logits = torch.from_numpy(3 * rng.normal(size=(1, max(classes, 2), pixels)))
        probs = logits.softmax(1)[:, -classes:]
        true = calibration.of(probs)[0].numpy()
        if classes == 1:
            true = np.concatenate([1 - true, true])
        label = (true.cumsum(0) < rng.random(pixels)).sum(0).clip(max=len(true) - 1)
        yield Case(f"case {number}", probs[0], torch.from_numpy(label))


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("temperature", Calibration("softmax", [0.4] * 3, [0.0] * 3)),
        ("vector", VECTOR),
        ("temperature", Calibration("sigmoid", [1.7], [0.0])),
        ("vector", Calibration("sigmoid", [0.6], [-0.8])),
        ("binary", Calibration("sigmoid", [0.6], [-0.8])),
    ],
)
def test_fit_recovers_what_the_labels_were_drawn_from(kind, truth):
    found = fit(simulated(truth), kind)
    assert found.kind == kind
    assert found.link == truth.link
    np.testing.assert_allclose(found.scale, truth.scale, atol=0.05)
    shift = np.mean(found.offset) - np.mean(truth.offset) if found.classes > 1 else 0.0
    np.testing.assert_allclose(np.array(found.offset) - shift, truth.offset, atol=0.06)


@pytest.mark.parametrize("kind", ["temperature", "vector", "binary"])
def test_fit_in_inference_mode(kind):
    cases = list(simulated(VECTOR, cases=1, pixels=500))
    with torch.inference_mode():
        made = [replace(case, probs=case.probs.clone(), label=case.label.clone()) for case in cases]
        fitted = fit(made, kind)
    assert fitted == fit(cases, kind)


def test_each_class_by_itself():
    cases = list(simulated(VECTOR))
    found = fit(cases, "binary")
    for index in range(3):
        alone = (Case(one.name, one.probs[index : index + 1], (one.label == index).long())
                 for one in cases)  # fmt: skip
        expected = fit(alone, "vector")
        np.testing.assert_allclose(found.scale[index], expected.scale[0], rtol=1e-4)
        np.testing.assert_allclose(found.offset[index], expected.offset[0], atol=1e-4)


def test_a_fit_is_never_less_likely_than_none_and_real_maps_may_hold_zeros():
    cases = []
    for seed in range(3):
        probs, label = maps.labelled(seed)
        cases.append(Case(str(seed), torch.from_numpy(probs).half(), torch.from_numpy(label)))
    assert any((case.probs == 0).any() for case in cases)
    plain = reliability(cases, ignore_index=255)
    for kind in ("temperature", "vector"):
        fitted = fit(cases, kind, ignore_index=255, pixels=10**6)
        better = reliability(cases, calibration=fitted, ignore_index=255)
        assert better.nll <= plain.nll


def test_ignored_pixels_and_failures_do_not_count():
    cases = list(simulated(VECTOR, cases=2))
    spoilt = []
    for case in cases:
        label = case.label.clone()
        label[::3] = 9
        kept = label != 9
        spoilt.append(Case(case.name, case.probs, label))
        spoilt.append(Case("kept", case.probs[:, kept], label[kept]))
    ours = fit(spoilt[::2], ignore_index=9, pixels=10**6)
    assert ours.scale[0] == pytest.approx(fit(spoilt[1::2], pixels=10**6).scale[0], rel=1e-9)
    told = reliability(spoilt[::2], ignore_index=9)
    assert told.nll == pytest.approx(reliability(spoilt[1::2]).nll)
    with pytest.raises(ValueError, match="labels of case 0 must be classes from 0 to 2"):
        fit(spoilt[::2])


def test_a_class_without_labels_is_left_alone():
    (case,) = simulated(VECTOR, cases=1)
    case = Case("a", case.probs, case.label.clamp(max=1))
    with pytest.warns(UserWarning, match=r"classes \[2\] are left as they are"):
        found = fit([case], "vector")
    assert found.scale[2] == 1
    assert found.offset[2] == 0


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_errors_are_those_of_torchmetrics(bins):
    cases = list(simulated(VECTOR, cases=2, pixels=500))
    told = reliability(cases, bins=bins)
    probs = torch.cat([case.probs for case in cases], 1).T
    label = torch.cat([case.label for case in cases])
    expected = multiclass_calibration_error(probs, label, 3, n_bins=bins)
    assert told.ece == pytest.approx(expected.item(), abs=1e-6)
    for index in range(3):
        expected = binary_calibration_error(probs[:, index], (label == index).long(), n_bins=bins)
        assert told.classwise_ece[index] == pytest.approx(expected.item(), abs=1e-6)
    assert told.nll == pytest.approx(
        torch.nn.functional.nll_loss(probs.log(), label).item(), rel=1e-6
    )
    truth = [(label == index).sum() for index in range(3)]
    np.testing.assert_allclose(told.volume_ratio, probs.sum(0).numpy() / truth)
    assert told.pixels == len(label)
    assert told.count.sum(1).tolist() == [len(label)] * 3


def test_a_bin_holds_its_upper_edge():
    probs = torch.tensor([[0.0, 0.2, 0.2001, 0.5, 0.8, 1.0]], dtype=torch.float64)
    told = reliability([Case("a", probs, torch.tensor([0, 0, 1, 0, 1, 1]))], bins=5)
    assert told.count.tolist() == [[2, 1, 1, 1, 1]]
    assert told.hits.tolist() == [[0, 1, 0, 1, 1]]
    np.testing.assert_allclose(told.confidence, [[0.1, 0.2001, 0.5, 0.8, 1.0]])
    assert told.top_count.tolist() == [0, 0, 1, 3, 2]


def test_one_channel_tells_of_the_foreground_and_of_the_likelier_side():
    (case,) = simulated(Calibration("sigmoid", [0.5], [0.0]), cases=1, pixels=500)
    told = reliability([case], classes=["nucleus"])
    expected = binary_calibration_error(case.probs[0], case.label, n_bins=15)
    assert told.classwise_ece[0] == pytest.approx(expected.item(), abs=1e-6)
    both = torch.stack([1 - case.probs[0], case.probs[0]], 1)
    expected = multiclass_calibration_error(both, case.label, 2, n_bins=15)
    assert told.ece == pytest.approx(expected.item(), abs=1e-6)


class TestApplied:
    @pytest.mark.parametrize("from_logits", [None, "softmax"])
    @pytest.mark.parametrize("options", [{}, {"metric": "iou", "output_mode": "multilabel"}])
    def test_the_decision_is_that_of_calibrated_maps(self, from_logits, options):
        logits = torch.from_numpy(maps.smooth(2, 3, 64)).log() * 0.7
        given = logits if from_logits else logits.softmax(1)
        better = (torch.tensor(VECTOR.scale).view(3, 1, 1) * logits.log_softmax(1)
                  + torch.tensor(VECTOR.offset).view(3, 1, 1)).softmax(1)  # fmt: skip
        found = calibrate(given, VECTOR, from_logits=from_logits)
        torch.testing.assert_close(found, better.to(found.dtype), atol=1e-6, rtol=1e-5)
        expected = RankSEG(**options)(found)
        decide = RankSEG(**options, from_logits=from_logits, calibration=VECTOR)
        assert torch.equal(decide(given), expected)
        assert not torch.equal(RankSEG(**options, from_logits=from_logits)(given), expected)
        np.testing.assert_array_equal(
            rankseg(given.numpy(), **options, from_logits=from_logits, calibration=VECTOR),
            expected.numpy(),
        )

    def test_decide_and_valid(self):
        probs = torch.from_numpy(maps.smooth(1, 3, 64))
        valid = torch.ones(1, 64, 64, dtype=torch.bool)
        valid[:, :9] = False
        broken = probs.masked_fill(~valid.unsqueeze(1), torch.nan)
        told = RankSEG(calibration=VECTOR).decide(broken, valid)
        expected = RankSEG().decide(calibrate(broken, VECTOR, valid), valid)
        for name in expected.__dataclass_fields__:
            torch.testing.assert_close(getattr(told, name), getattr(expected, name), msg=name)

    def test_half_precision_and_a_graph(self):
        probs = torch.from_numpy(maps.smooth(1, 3, 64)).half()
        expected = RankSEG()(calibrate(probs, VECTOR))
        decide = RankSEG(calibration=VECTOR)
        assert torch.equal(decide(probs), expected)
        compiled = torch.compile(decide, fullgraph=True, backend="eager")
        assert (compiled(probs.float()) != expected).float().mean() < 1e-3

    def test_class_weights_are_undone_as_by_prior_correction(self):
        probs = maps.softmax(2, 3, 50)
        found = calibrate(probs, Calibration.from_class_weights([1.0, 4.0, 0.2]))
        np.testing.assert_allclose(found, prior_correction(probs, [1.0, 4.0, 0.2]), atol=1e-6)
        one = probs[:, :1]
        found = calibrate(one, Calibration.from_class_weights([3.0]))
        np.testing.assert_allclose(found, prior_correction(one, [3.0]), atol=1e-6)

    def test_order_is_kept_by_one_scale_so_argmax_is(self):
        probs = torch.from_numpy(maps.smooth(1, 3, 64))
        mild = Calibration("softmax", [0.3] * 3, [0.0] * 3)
        assert torch.equal(RankSEG("acc", calibration=mild)(probs), probs.argmax(1))

    def test_wrong_values_are_seen(self):
        decide = RankSEG(calibration=VECTOR)
        probs = torch.full((1, 3, 5), 1 / 3)
        probs[0, 1, 2] = 1.5
        with pytest.raises(ValueError, match=r"probs must lie in \[0, 1\]"):
            decide(probs)
        with pytest.raises(ValueError, match="calibration must be for the 2 classes of probs"):
            decide(probs[:, :2])

    def test_an_adapter_takes_the_file(self, tmp_path):
        from rankseg.integration.monai import RankSEG as Transform

        VECTOR.save(tmp_path / "c.json")
        probs = torch.from_numpy(maps.smooth(1, 3, 64))
        decided = Transform(calibration=tmp_path / "c.json")(probs[0])
        assert torch.equal(decided[0].long(), RankSEG(calibration=VECTOR)(probs)[0])

    def test_monai_without_the_background(self):
        from rankseg.integration.monai import RankSEG as Transform

        logits = torch.from_numpy(maps.smooth(1, 3, 64)).log()
        better = calibrate(logits, VECTOR, from_logits="softmax")
        options = {"include_background": False, "output_mode": "multilabel"}
        decide = Transform(calibration=VECTOR, from_logits="softmax", **options)
        assert torch.equal(decide(logits[0]), Transform(**options)(better[0]))

    def test_accuracy_of_transformers_is_that_of_calibrated_maps(self):
        from rankseg.integration.transformers import postprocess

        logits = torch.from_numpy(maps.softmax(1, 3, 16, 16)).log()
        options = {"metric": "acc", "calibration": VECTOR}
        (decided,) = postprocess({"logits": logits}, rankseg_kwargs=options)
        expected = calibrate(logits, VECTOR, from_logits="softmax").argmax(1)[0]
        assert torch.equal(decided, expected)
        assert not torch.equal(decided, logits.argmax(1)[0])

    def test_sam(self):
        from rankseg.integration.sam import decide_logits

        logits = 3 * torch.randn(2, 1, 16, 16, generator=torch.manual_seed(0))
        sharp = Calibration("sigmoid", [1.0], [-1.5])
        found = decide_logits(logits, {"metric": "acc", "calibration": sharp})
        np.testing.assert_array_equal(np.asarray(found), (logits > 1.5).numpy())

    def test_regions_of_nnunet_one_by_one(self, tmp_path):
        import nibabel

        from rankseg.integration.nnunet import decide_folders

        maps_ = np.random.default_rng(0).random((2, 3, 6, 7), np.float32)
        np.savez(tmp_path / "case.npz", probabilities=maps_)
        nibabel.save(nibabel.Nifti1Image(np.zeros((7, 6, 3), np.uint8), np.eye(4)),
                     tmp_path / "case.nii.gz")  # fmt: skip
        labels = {"background": 0, "whole": [1, 2], "core": 2}
        told = {"labels": labels, "regions_class_order": [1, 2], "file_ending": ".nii.gz"}
        (tmp_path / "dataset.json").write_text(json.dumps(told))
        each = Calibration("sigmoid", [2.0, 0.5], [0.3, -0.7])
        outcome = decide_folders(tmp_path, tmp_path / "out", calibration=each)
        assert outcome.failures == {}
        expected = np.zeros((3, 6, 7), np.uint8)
        for channel, label in enumerate((1, 2)):
            mask = RankSEG(output_mode="multilabel", calibration=each.of_class(channel))
            expected[mask(maps_[None, channel : channel + 1])[0, 0]] = label
        found = np.asanyarray(nibabel.load(tmp_path / "out" / "case.nii.gz").dataobj)
        np.testing.assert_array_equal(found, expected.T)


class TestFile:
    def test_round_trip(self, tmp_path):
        VECTOR.save(tmp_path / "c.json")
        assert Calibration.load(tmp_path / "c.json") == VECTOR
        assert RankSEG(calibration=str(tmp_path / "c.json")).calibration == VECTOR
        assert [path.name for path in tmp_path.iterdir()] == ["c.json"]

    @pytest.mark.parametrize("change", [{"format": "x"}, {"scale": [0, 1]}, {"offset": [1]},
                                        {"scale": None}, {"link": "log"}, {"kind": 3}])  # fmt: skip
    def test_what_is_no_calibration(self, tmp_path, change):
        path = tmp_path / "c.json"
        VECTOR.save(path)
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=r"c\.json is no calibration file"):
            Calibration.load(path)

    def test_an_unknown_key_is_named(self, tmp_path):
        VECTOR.save(tmp_path / "c.json")
        content = json.loads((tmp_path / "c.json").read_text()) | {"scales": [1.0] * 3}
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"c\.json is no calibration file: .*got \['scales'\]"):
            Calibration.load(tmp_path / "c.json")

    def test_other_files(self, tmp_path):
        (tmp_path / "c.json").write_text("{")
        with pytest.raises(ValueError, match=r"c\.json is no calibration file"):
            RankSEG(calibration=tmp_path / "c.json")
        with pytest.raises(FileNotFoundError):
            RankSEG(calibration="nowhere.json")
        with pytest.raises(TypeError, match="calibration must be a Calibration or the path"):
            RankSEG(calibration=3)
        with pytest.raises(ValueError, match="calibration must be for from_logits='sigmoid'"):
            RankSEG(calibration=VECTOR, from_logits="sigmoid")


@pytest.fixture
def folder(tmp_path):
    truth = Calibration("softmax", [0.35] * 3, [0.0] * 3)
    for case in simulated(truth, cases=6, pixels=2_000):
        np.savez(tmp_path / f"{case.name}.npz", probs=case.probs.numpy(), label=case.label.numpy())
    return CaseFolder.open(tmp_path)


def test_cross_validation(folder):
    told = cross_validate(folder, folds=3, clusters=["a", "a", "b", "b", "c", "c"])
    assert told.before.nll == pytest.approx(reliability(folder).nll)
    assert told.after.nll < told.before.nll
    assert told.after.ece < 0.3 * told.before.ece
    assert sorted(told.decisions.cases) == list(folder.names)
    rest = [folder.read(f"case {number}") for number in (0, 1, 2, 3)]
    decide = RankSEG("iou", calibration=fit(rest))
    held_out = [folder.read(f"case {number}") for number in (4, 5)]
    expected = compare(held_out, [Method("ours", decide)])
    for place, name in enumerate(expected.cases):
        found = told.decisions.by_image("RankSEG iou, calibrated")[told.decisions.cases.index(name)]
        assert found == expected.by_image("ours")[place]


def test_what_are_no_cases():
    pair = torch.rand(2, 9).softmax(0), torch.ones(9, dtype=torch.long)
    methods = [Method("argmax", RankSEG("acc"))]
    for use in (fit, reliability, tune, lambda cases: compare(cases, methods)):
        with pytest.raises(TypeError, match=r"every case must be rankseg\.evaluation\.Case.*tuple"):
            use([pair])
        with pytest.raises(TypeError, match=r"cases must be an iterable of .* got Case"):
            use(Case("a", *pair))
    for given in ([Case("a", *pair)] * 5, (one for one in [pair])):
        with pytest.raises(TypeError, match=r"folder must be a CaseFolder, .*CaseFolder\.open"):
            cross_validate(given)


def test_cross_validation_leaves_out_what_cannot_be_used(folder):
    expected = cross_validate(folder, folds=3, clusters=list("aabbcc"))
    np.savez(folder.path / "a.npz", probs=np.full((2, 9), 0.5), label=np.ones(9, int))
    (folder.path / "z.npz").write_bytes(b"nothing")
    told = cross_validate(CaseFolder.open(folder.path), folds=3, clusters=list("xaabbccx"))
    assert [failure.name for failure in told.decisions.failures] == ["a", "z"]
    assert told.folder.names == folder.names
    assert told.after.nll == expected.after.nll


def test_a_fold_without_foreground_is_no_error_and_a_set_is(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        probs = rng.random((1, 99))
        label = (rng.random(99) < probs[0]) & (number < 3)
        np.savez(tmp_path / f"{number}.npz", probs=probs, label=label)
    told = cross_validate(CaseFolder.open(tmp_path), folds=6)
    assert len(told.decisions.cases) == 6
    empty = replace(CaseFolder.open(tmp_path), names=("3", "4", "5"))
    for call in (lambda: cross_validate(empty, folds=3), lambda: fit(empty),
                 lambda: reliability(empty)):  # fmt: skip
        with pytest.raises(ValueError, match="labels must hold pixels of class 1 or above"):
            call()


def test_foreground_counts_that_is_not_among_the_pixels_drawn():
    label = torch.zeros(10_000, dtype=torch.int64)
    label[-1] = 1
    case = Case("rare", torch.full((1, 10_000), 0.1), label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two pixels of background have no calibration
        assert fit([case], pixels=2).classes == 1


def test_255_is_foreground_where_nothing_else_can_be_meant():
    cases = list(simulated(Calibration("sigmoid", [1.7], [0.0]), cases=2, pixels=500))
    masks = [replace(case, label=255 * case.label) for case in cases]
    assert fit(masks) == fit(cases)
    assert reliability(masks).nll == reliability(cases).nll
    for call in (fit, reliability):
        with pytest.raises(ValueError, match="hold only 0 and 255, where 255 is ignore_index"):
            call(masks, ignore_index=255)


def test_one_mask_of_255_among_those_of_1_is_named(tmp_path):
    for case in simulated(Calibration("sigmoid", [1.7], [0.0]), cases=4, pixels=500):
        label = case.label * (255 if case.name == "case 2" else 1)
        np.savez(tmp_path / f"{case.name}.npz", probs=case.probs.numpy(), label=label.numpy())
    folder = CaseFolder.open(tmp_path)
    told = cross_validate(folder, folds=3)
    assert [failure.name for failure in told.decisions.failures] == ["case 2"]
    for call in (fit, reliability):
        with pytest.warns(UserWarning, match="case 2 tells nothing of the foreground: its label"):
            call(folder, ignore_index=255)


def test_a_label_that_is_no_class_is_found_whatever_pixels_are_drawn(folder):
    odd = next(iter(folder))
    label = odd.label.clone()
    label.view(-1)[0] = 7
    np.savez(folder.path / "odd.npz", probs=odd.probs.numpy(), label=label.numpy())
    told = cross_validate(CaseFolder.open(folder.path), folds=3)
    assert [failure.name for failure in told.decisions.failures] == ["odd"]
    assert "must be classes from 0 to" in told.decisions.failures[0].reason


@pytest.mark.filterwarnings("ignore:.*2.*:UserWarning")
@pytest.mark.parametrize("kind", ["vector", "binary"])
def test_a_class_that_no_label_holds_keeps_its_probability(kind):
    torch.manual_seed(0)
    cases = []
    for number in range(6):
        logits = 3 * torch.randn(3, 40, 40) - torch.tensor([0.0, 0.0, 4.0]).view(3, 1, 1)
        probs = logits.softmax(0)
        label = torch.distributions.Categorical(probs[:2].movedim(0, -1)).sample()
        cases.append(Case(f"case {number}", probs, label))
    new = (3 * torch.randn(1, 3, 40, 40)).softmax(1)
    before, after = (one[:, 2].mean() for one in (new, calibrate(new, fit(cases, kind))))
    assert 0.9 * before < after < 1.1 * before


def test_failures_are_named():
    cases = [*simulated(VECTOR, 1, 99), Failure("lost", "was never there")]
    for call in (fit, reliability):
        with pytest.warns(UserWarning, match="left out: lost: was never there"):
            call(cases)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_maps_that_hold_no_probabilities_are_refused(value):
    probs = torch.full((2, 4), 0.5)
    probs[0, 2] = value
    case = Case("wrong", probs, torch.tensor([0, 1, 255, 0]))
    for call in (fit, reliability):
        with pytest.raises(ValueError, match=r"maps of wrong must be probabilities in \[0, 1\]"):
            call([case], ignore_index=255)


@pytest.mark.parametrize(("margin", "scale"), [(1e-6, 1e6), (-0.3, 1e-6)])
def test_a_fit_without_an_end_is_cut_off(margin, scale):
    label = torch.tensor([0, 1] * 50)
    foreground = 0.5 + margin * (2 * label - 1).double()
    case = Case("a", torch.stack([1 - foreground, foreground]), label)
    with pytest.warns(UserWarning, match="the fit has no end"):
        assert fit([case]).scale == (scale, scale)


def test_wrong_folds(folder):
    with pytest.raises(ValueError, match="folds must be from 2 to the 6 cases, got 7"):
        cross_validate(folder, folds=7)
    with pytest.raises(ValueError, match="folds must be from 2 to the 2 clusters, got 3"):
        cross_validate(folder, folds=3, clusters=list("aaabbb"))
    with pytest.raises(ValueError, match="clusters must have one entry for each of 6 cases"):
        cross_validate(folder, folds=2, clusters=list("ab"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "isotonic"}, ValueError, "kind must be one of"),
        ({"pixels": 0}, ValueError, "pixels must be at least 1"),
        ({"cases": []}, ValueError, "cases must be at least one, all of the same classes"),
    ],
)
def test_wrong_options(change, error, message):
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        fit(**({"cases": simulated(VECTOR, 1, 9)} | change))
