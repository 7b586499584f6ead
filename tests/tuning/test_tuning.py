"""Choosing how to decide, on cases where it is known what is best."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.calibration import Calibration, PresenceModel
from rankseg.dataset import DatasetRule
from rankseg.evaluation import Case, CaseFolder
from rankseg.evaluation.folds import folds_of
from rankseg.tuning import Candidate, choice, standard_candidates, tune
from rankseg.tuning.choice import HELD_OUT, _choose
from rankseg.tuning.fits import Fits

ARGMAX, DICE = Candidate({"metric": "acc"}), Candidate({"metric": "dice"})


def drawn(cases, temperature=1.0, seed=0, pixels=400):
    """Return maps of one class and labels drawn from them at some temperature."""
    rng = np.random.default_rng(seed)
    for number in range(cases):
        logits = 2 * rng.normal(size=pixels) - 1.5
        label = rng.random(pixels) < 1 / (1 + np.exp(-logits / temperature))
        probs = 1 / (1 + np.exp(-logits))
        yield Case(
            f"case {number:02}", torch.from_numpy(probs)[None], torch.from_numpy(label).long()
        )


def test_chooses_what_gains_and_expects_as_much_of_other_cases():
    cases = list(drawn(40))
    tuned = tune(cases, candidates=[ARGMAX, DICE])
    assert tuned.options == {"metric": "dice"}
    assert tuned.gain == tuned.comparison.difference("dice").mean > 0.02
    # One candidate is chosen in every fold, so that nothing is gained by choosing.
    assert set(tuned.picked) == {"dice"}
    assert tuned.optimism == pytest.approx(0.0, abs=1e-12)
    assert tuned.held_out.mean == pytest.approx(tuned.gain)
    assert tuned.sentence.startswith("On new cases expect RankSEG dice to gain on argmax +")


@pytest.mark.parametrize("kind", ["temperature", "vector"])
def test_fits_the_temperature_the_labels_were_drawn_at(kind):
    tuned = tune(drawn(60, 4.0), candidates=[ARGMAX, DICE, Candidate({"metric": "dice"}, kind)])
    assert tuned.chosen.name == f"dice {kind}"
    assert tuned.options["calibration"].scale == pytest.approx((1 / 4,), abs=0.03)
    assert tuned.held_out.low > 0


def test_candidates_by_default_are_no_full_product():
    names = [one.name for one in standard_candidates(classes=3, counted="either", values=1 << 19)]
    assert names == [
        *("argmax", "dice", "dice presence=argmax", "dice solver=RMA", "dice correlation=0.8"),
        *("dice pruning_prob=0.8", "dice solver=DEP", "dice temperature", "dice vector"),
        *("dice presence=fitted", "dice presence=fitted vector", "dice presence=argmax vector"),
    ]
    large = standard_candidates(classes=3, values=(1 << 19) + 1, class_weights=[1.0, 2.0, 3.0])
    names = [one.name for one in large]
    assert "dice solver=DEP" not in names
    assert "dice prior" in names
    assert {"dice presence=all", "dice presence=all vector"} <= set(names)
    assert not any("fitted" in name for name in names)
    assert "dice presence=argmax" not in [one.name for one in standard_candidates(classes=1)]
    asked = standard_candidates(
        classes=1, solvers=["exact"], correlations=[0.3], presences=["peak"],
        calibrations=[Calibration("sigmoid", [0.5], [0.0], "binary")],
    )  # fmt: skip
    names = {one.name for one in asked}
    assert {
        "dice solver=exact",
        "dice correlation=0.3",
        "dice presence=peak",
        "dice binary",
    } < names


def test_what_is_chosen_among_chance_is_not_taken():
    rng = np.random.default_rng(0)
    cases = []
    for number in range(8):
        probs = torch.from_numpy(rng.random((1, 30)))
        cases.append(Case(f"{number}", probs, torch.from_numpy(rng.integers(0, 2, 30))))
    noise = [Candidate({"metric": "dice", "pruning_prob": p / 100, "smooth": float(s)})
             for p in range(3) for s in range(4)]  # fmt: skip
    tuned = tune(cases, candidates=[ARGMAX, *noise], folds=4)
    assert any("say nothing about presence" in warning for warning in tuned.warnings)
    held_out = np.full(8, np.nan)
    for part, name in zip(folds_of(8, 4, None, 0), tuned.picked, strict=True):
        held_out[part] = tuned.comparison.differences(name)[part]
    assert tuned.held_out.mean == pytest.approx(held_out.mean())
    assert set(tuned.picked) != {tuned.best.name}


def test_argmax_is_kept_unless_the_gain_is_clear():
    few = tune(drawn(5), candidates=[ARGMAX, DICE])  # of five cases none is clear
    assert few.best is DICE
    assert few.chosen is ARGMAX
    assert few.options == {"metric": "acc"}
    assert few.sentence.startswith(
        "Argmax is kept: it is not clear that RankSEG dice gains on it: +"
    )
    clear = tune(drawn(12), candidates=[ARGMAX, DICE])
    low, high = 100 * clear.held_out.low, 100 * clear.held_out.high
    assert clear.held_out.low > 0
    assert clear.chosen is DICE
    assert (
        f"expect RankSEG dice to gain on argmax {100 * clear.held_out.mean:+.2f} points"
        in clear.sentence
    )
    assert f"(95 % interval {low:+.2f} to {high:+.2f}; 12 cases, held out:" in clear.sentence
    none = tune(drawn(12, temperature=0.05), candidates=[ARGMAX, DICE])
    assert none.sentence.startswith("Argmax is kept: no candidate beats it")


def test_no_case_is_decided_by_what_was_fitted_with_it_or_its_inner_fold(monkeypatch):
    left_outs, seen = [], []

    def options(self, candidate, left_out):
        left_outs.append(left_out)
        return {"metric": "dice", "pruning_prob": (len(left_outs) - 1) / 100}

    decide_and_count = choice.decide_and_count

    def watched(cases, methods, **more):
        cases = list(cases)
        for case in cases:
            for method in methods:
                layer = int(method.name.split()[0])
                left_out = left_outs[round(100 * method.decide.pruning_prob)]
                seen.append((case.name, layer, left_out))
        return decide_and_count(cases, methods, **more)

    monkeypatch.setattr(Fits, "options", options)
    monkeypatch.setattr(choice, "decide_and_count", watched)
    tune(drawn(12), candidates=[ARGMAX, Candidate({"metric": "dice"}, "vector")], folds=4)
    fold_of = {f"case {place:02}": fold
               for fold, part in enumerate(folds_of(12, 4, None, 0)) for place in part}  # fmt: skip
    assert len(seen) == 12 * 4
    assert all(left_out == {fold_of[name], layer} for name, layer, left_out in seen)
    assert left_outs[-1] == frozenset()


def test_a_fit_sees_no_case_of_the_folds_left_out():
    samples = {case.name: case for case in drawn(6)}
    fits = Fits(samples, {name: place // 2 for place, name in enumerate(samples)}, None)
    rest = [case.name for case in fits._rest(frozenset({0, 2}))]
    assert rest == ["case 02", "case 03"]
    fits.read_presence(samples.values(), [(None, frozenset({1}))])
    (table,) = fits.tables.values()
    assert [name for row in table for name in row.names] == [
        *("case 00", "case 01", "case 04", "case 05")
    ]


def unsure(cases):
    """Return maps of three classes, of which the last is often in no pixel though it peaks at 0.6.

    Where it is there, its mean probability is higher.
    """
    rng = np.random.default_rng(0)
    for number in range(cases):
        there = number % 3 == 0
        probs = np.full((3, 20, 20), 0.1)
        probs[0, :, 10:] = probs[1, :, :10] = 0.8
        spot = (slice(3, 9), slice(3, 9)) if there else (slice(4, 6), slice(4, 6))
        probs[:, spot[0], spot[1]] = np.array([0.1, 0.3, 0.6])[:, None, None]
        label = (rng.random((20, 20)) > probs.cumsum(0)).sum(0).clip(max=2)
        label[label == 2] = 1
        if there:
            label[spot] = 2
        yield Case(f"{number:02}", torch.from_numpy(probs), torch.from_numpy(label))


def test_a_fitted_presence_is_chosen_where_classes_are_invented():
    candidates = [ARGMAX, DICE, Candidate({"metric": "dice"}, None, "zero"),
                  Candidate({"metric": "dice"}, "vector", "zero")]  # fmt: skip
    tuned = tune(unsure(24), candidates=candidates, counted="either")
    assert tuned.chosen is candidates[2]
    assert isinstance(tuned.options["presence"], PresenceModel)
    assert tuned.held_out.mean > 0.15
    assert tuned.options["presence"] == PresenceModel.fit(list(unsure(24)), absent="zero")


def test_the_score_of_the_data_set_is_chosen_for_by_a_rule():
    rng = np.random.default_rng(0)
    cases = []
    for number in range(12):
        probs = rng.dirichlet([3, 1, 0.4], 900).T
        label = (rng.random(900) > probs.cumsum(0)).sum(0)
        cases.append(Case(f"{number}", torch.from_numpy(probs), torch.from_numpy(label)))
    rule = Candidate({"metric": "iou"}, rule=True)
    tuned = tune(cases, "iou", score="dataset", candidates=[ARGMAX, rule])
    assert tuned.chosen is rule
    assert isinstance(tuned.options["rule"], DatasetRule)
    assert "points of IoU of the data set" in tuned.sentence
    told = [tuned.comparison.aggregates(name, "iou")["D"] for name in (HELD_OUT, "argmax")]
    assert tuned.held_out.mean == pytest.approx(told[0] - told[1])
    assert tuned.held_out.mean > 0.03


@pytest.mark.parametrize("number", [1, 2])
def test_one_case_or_two_are_too_few(number):
    with pytest.raises(
        ValueError, match=f"there must be 3 cases or more, .* got {number}: rankseg"
    ):
        tune(drawn(number))


def test_what_is_better_by_chance_alone_is_not_taken():
    rng = np.random.default_rng(3)
    table = np.stack([np.zeros(20), rng.normal(0.0, 1.0, 20), rng.normal(0.0, 1.0, 20)])
    table[1] += 0.1 - table[1].mean()  # by less than a standard error
    table[2] -= 1 + table[2].mean()
    assert _choose(table) == 0
    table[1] += 0.5
    assert _choose(table) == 1


def test_the_simplest_within_a_standard_error():
    same = Candidate({"metric": "dice", "pruning_prob": 0.4})
    tuned = tune(drawn(12), candidates=[ARGMAX, DICE, same])
    assert tuned.best is DICE


def test_clusters_stay_together():
    cases = list(drawn(12))
    clusters = {case.name: f"patient {number // 4}" for number, case in enumerate(cases)}
    tuned = tune(cases, candidates=[ARGMAX, DICE], folds=3, clusters=clusters)
    assert len(tuned.picked) == 3
    assert "12 cases in 3 clusters" in tuned.sentence
    assert tuned.chosen is ARGMAX  # of three clusters nothing is clear
    with pytest.raises(ValueError, match="folds must be from 3 to the 3 clusters, got 5"):
        tune(cases, candidates=[ARGMAX, DICE], folds=5, clusters=clusters)
    with pytest.raises(ValueError, match="clusters must have an entry for every case"):
        tune(cases, candidates=[ARGMAX, DICE], clusters={})


def test_what_is_saved_decides_the_same(tmp_path):
    (case,) = drawn(1)
    candidates = [
        ARGMAX,
        Candidate({"metric": "iou", "correlation": 0.3,
                   "calibration": Calibration("sigmoid", [0.7], [0.2])}),
    ]  # fmt: skip
    tuned = tune(drawn(12, temperature=3.0), "iou", candidates=candidates)
    tuned.save(tmp_path / "tuned.json")
    saved = json.loads((tmp_path / "tuned.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.json"]
    decided = RankSEG.load(tmp_path / "tuned.json")(case.probs[None])
    assert torch.equal(decided, RankSEG(**tuned.options)(case.probs[None]))
    assert saved["about"]["cases"] == 12
    assert saved["about"]["held_out"]["mean"] == tuned.held_out.mean


def test_wrong_options():
    with pytest.raises(ValueError, match="candidates must begin with"):
        tune(drawn(3), candidates=[DICE])
    with pytest.raises(ValueError, match="metric must be one of"):
        tune(drawn(3), "hd95")
    with pytest.raises(ValueError, match="cases must hold one at least"):
        tune([])


@pytest.mark.filterwarnings("ignore:6 cases are too few")
def test_a_folder_whose_first_map_is_odd(tmp_path):
    for case in drawn(6):
        np.savez(tmp_path / f"{case.name}.npz", probs=case.probs.numpy(), label=case.label.numpy())
    np.savez(tmp_path / "a.npz", probs=np.full((2, 9), 0.5), label=np.ones(9, int))
    candidates = [ARGMAX, DICE, Candidate({"metric": "dice"}, "vector", "zero")]
    tuned = tune(CaseFolder.open(tmp_path), candidates=candidates)
    assert len(tuned.comparison.cases) == 6
    assert [failure.name for failure in tuned.comparison.failures] == ["a"]
    with pytest.raises(ValueError, match=r"folds must be from 3 to the 6 cases, got 7\n  a: has"):
        tune(CaseFolder.open(tmp_path), folds=7, candidates=[ARGMAX, DICE])
    assert len(choice._first_case(CaseFolder.open(tmp_path)).probs) == 1


def test_masks_that_are_void_wherever_they_are_not_0():
    cases = [Case(case.name, case.probs, 255 * case.label) for case in drawn(4)]
    with pytest.raises(ValueError, match="hold only 0 and 255, where 255 is ignore_index"):
        tune(cases, candidates=[ARGMAX, DICE], ignore_index=255)
    tuned = tune(cases, candidates=[ARGMAX, DICE])
    assert tuned.gain == tune(drawn(4), candidates=[ARGMAX, DICE]).gain
