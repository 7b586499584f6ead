"""Choosing how to decide, on cases where it is known what is best."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.calibration import Calibration
from rankseg.evaluation import Case, CaseFolder
from rankseg.evaluation.folds import folds_of
from rankseg.tuning import Candidate, _choose, count_classes, standard_candidates, tune

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
    assert not any("may do as well" in warning for warning in tuned.warnings)


def test_finds_the_temperature_the_labels_were_drawn_at():
    temperatures = (0.5, 2.0, 4.0)
    candidates = standard_candidates(
        classes=1, solvers=["RMA"], correlations=[0.0], pruning_probs=[0.5],
        temperatures=temperatures,
    )  # fmt: skip
    assert [one.name for one in candidates] == [
        "argmax",
        "dice",
        "dice solver=RMA",
        "dice solver=RMA T=0.5",
        "dice solver=RMA T=2",
        "dice solver=RMA T=4",
    ]
    for temperature in (0.5, 4.0):
        tuned = tune(drawn(60, temperature), candidates=candidates)
        assert tuned.options["calibration"].scale == (1 / temperature,)


def test_rules_of_presence_are_candidates():
    options = {"solvers": ["RMA"], "correlations": [0.0], "presences": ["argmax", "all"]}
    names = [one.name for one in standard_candidates(classes=3, pruning_probs=[0.5], **options)]
    assert names == [
        *("argmax", "dice", "dice solver=RMA", "dice solver=RMA presence=argmax"),
        "dice solver=RMA presence=all",
    ]
    names = [one.name for one in standard_candidates(classes=1, pruning_probs=[0.8], **options)]
    assert names == [
        *("argmax", "dice", "dice solver=RMA pruning_prob=0.8", "dice solver=RMA presence=all")
    ]


def test_choosing_among_chance_is_optimistic_and_warned_of():
    rng = np.random.default_rng(0)
    cases = []
    for number in range(8):
        probs = torch.from_numpy(rng.random((1, 30)))
        cases.append(Case(f"{number}", probs, torch.from_numpy(rng.integers(0, 2, 30))))
    noise = [Candidate({"metric": "dice", "pruning_prob": p / 100, "smooth": float(s)})
             for p in range(3) for s in range(4)]  # fmt: skip
    tuned = tune(cases, candidates=[ARGMAX, *noise], folds=4)
    assert any("8 cases are too few" in warning for warning in tuned.warnings)
    assert any("say nothing about presence" in warning for warning in tuned.warnings)
    held_out = np.full(8, np.nan)
    for part, name in zip(folds_of(8, 4, None, 0), tuned.picked, strict=True):
        held_out[part] = tuned.comparison.differences(name)[part]
    assert tuned.held_out.mean == pytest.approx(held_out.mean())
    assert set(tuned.picked) != {tuned.chosen.name}


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
    assert tuned.chosen is DICE
    worse = list(drawn(12, temperature=0.05))
    assert tune(worse, candidates=[ARGMAX, DICE]).options == {"metric": "acc"}


def test_clusters_stay_together():
    cases = list(drawn(12))
    clusters = {case.name: f"patient {number // 4}" for number, case in enumerate(cases)}
    tuned = tune(cases, candidates=[ARGMAX, DICE], folds=3, clusters=clusters)
    assert len(tuned.picked) == 3
    assert any("3 clusters are too few" in warning for warning in tuned.warnings)
    with pytest.raises(ValueError, match="folds must be from 2 to the 3 clusters, got 5"):
        tune(cases, candidates=[ARGMAX, DICE], clusters=clusters)
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
        tune(drawn(3), folds=2, candidates=[DICE])
    with pytest.raises(ValueError, match="metric must be one of"):
        tune(drawn(3), "hd95")
    with pytest.raises(ValueError, match="cases must hold one at least"):
        tune([])


@pytest.mark.parametrize("temperature", [0, -1.0, 1e300, 1e-300, float("nan"), 10**400])
def test_temperatures_that_no_calibration_can_have(temperature):
    with pytest.raises(ValueError, match="every temperature must be in"):
        standard_candidates(classes=2, temperatures=[temperature])


def test_a_folder_whose_first_map_is_odd(tmp_path):
    for case in drawn(6):
        np.savez(tmp_path / f"{case.name}.npz", probs=case.probs.numpy(), label=case.label.numpy())
    np.savez(tmp_path / "a.npz", probs=np.full((2, 9), 0.5), label=np.ones(9, int))
    tuned = tune(CaseFolder.open(tmp_path), folds=2, candidates=[ARGMAX, DICE])
    assert len(tuned.comparison.cases) == 6
    assert [failure.name for failure in tuned.comparison.failures] == ["a"]
    with pytest.raises(ValueError, match=r"folds must be from 2 to the 6 cases, got 7\n  a: has"):
        tune(CaseFolder.open(tmp_path), folds=7, candidates=[ARGMAX, DICE])
    assert count_classes(CaseFolder.open(tmp_path)) == 1


def test_masks_that_are_void_wherever_they_are_not_0():
    cases = [Case(case.name, case.probs, 255 * case.label) for case in drawn(4)]
    with pytest.raises(ValueError, match="hold only 0 and 255, where 255 is ignore_index"):
        tune(cases, folds=2, candidates=[ARGMAX, DICE], ignore_index=255)
    tuned = tune(cases, folds=2, candidates=[ARGMAX, DICE])
    assert tuned.gain == tune(drawn(4), folds=2, candidates=[ARGMAX, DICE]).gain
