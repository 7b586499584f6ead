"""What an answer says, and each remedy on a case where it is right and one where it is not said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rankseg import RankSEG, metrics
from rankseg.calibration import Calibration, PresenceModel
from rankseg.evaluation import Case, Comparison, compare, standard_methods
from rankseg.evaluation.verdict import is_clear, main_method, standing, verdict
from rankseg.metrics import Counts

OURS = "RankSEG dice"
USUAL = RankSEG("dice")


def counts(tp, fp, fn, cases):
    return Counts(*(torch.tensor(one, dtype=torch.int64).expand(cases, -1) for one in (tp, fp, fn)))


def compared(argmax, ours, cases=24, volume=1.0, jitter=True):
    """Compare two methods of counts (tp, fp, fn), two lists of classes, the same in every case.

    Probabilities sum to ``volume`` times what they should. With ``jitter`` every second case
    changes in nothing.
    """
    theirs, made = counts(*argmax, cases), counts(*ours, cases)
    if jitter:
        same = (torch.arange(cases) % 2 == 0)[:, None]
        made = Counts(*(torch.where(same, getattr(theirs, key), getattr(made, key))
                        for key in ("tp", "fp", "fn")))  # fmt: skip
    true = (theirs.tp + theirs.fn).numpy().astype(float)
    return Comparison(
        classes=("background", "pole"),
        cases=tuple(f"case {i}" for i in range(cases)),
        counts={"argmax": theirs, "pruned argmax": theirs, OURS: made},
        seconds={},
        expected_volumes=true * volume,
    )


BASE = ([900, 60], [10, 30], [30, 10])
BETTER = ([905, 62], [8, 25], [25, 8])
WORSE = ([895, 60], [10, 35], [35, 10])
UNSURE = ([900, 61], [10, 31], [30, 9])


def commands(told):
    return [remedy.command for remedy in told.remedies]


def judged(comparison, **options):
    return verdict(comparison, maps="maps --labels truth", decide=USUAL, **options)


def test_a_clear_gain_is_to_be_used():
    told = judged(compared(BASE, BETTER), predict="rankseg predict maps")
    gain = compared(BASE, BETTER).difference(OURS)
    assert f"{100 * gain.mean:+.2f} points (95 % interval {100 * gain.low:+.2f} to" in told.sentence
    assert "24 cases): a clear gain." in told.sentence
    assert commands(told) == ["rankseg predict maps"]


def test_a_loss_is_not_to_be_used():
    told = judged(compared(BASE, WORSE), predict="rankseg predict maps")
    assert "a clear loss." in told.sentence
    assert "rankseg predict maps" not in commands(told)
    assert commands(told)[-1] == "rankseg tune maps --labels truth -o settings.json"


def test_too_few_cases_tell_nothing():
    told = judged(compared(BASE, BETTER, 5), predict="rankseg predict maps")
    assert "5 cases): fewer than 6 cases or clusters cannot tell." in told.sentence
    assert "rankseg predict maps" not in commands(told)
    one = judged(compared(BASE, BETTER, 1))
    assert "95 % interval -, 1 case)" in one.sentence
    assert not one.remedies
    many = compared(BASE, BETTER)
    clustered = replace(many, clusters=tuple("ab" * 12))
    assert "24 cases in 2 clusters): fewer than 6" in judged(clustered).sentence
    assert is_clear(many.difference(OURS), 24)
    assert not is_clear(many.difference(OURS), 5)


def test_cases_that_do_not_tell():
    rng = np.random.default_rng(0)
    comparison = compared(BASE, BASE)
    shifted = comparison.counts["argmax"].tp + torch.from_numpy(rng.integers(-2, 3, (24, 2)))
    ours = replace(comparison.counts["argmax"], tp=shifted)
    told = judged(replace(comparison, counts={**comparison.counts, OURS: ours}))
    assert "these cases do not tell which is better." in told.sentence


def test_class_weights_are_undone():
    command = "rankseg compare maps --labels truth --prior-correction"
    told = judged(compared(BASE, WORSE), class_weights=[1.0, 9.0])
    assert commands(told)[0] == command
    for weights in (None, [2.0, 2.0]):
        assert command not in commands(judged(compared(BASE, WORSE), class_weights=weights))


@pytest.mark.parametrize(
    ("volume", "said"), [(1.6, True), (0.6, True), (1.2, False), (0.85, False)]
)
def test_volumes_that_are_wrong_are_calibrated(volume, said):
    told = judged(compared(BASE, WORSE, volume=[1.0, volume]))
    command = "rankseg calibrate maps --labels truth --kind vector -o calibration.json"
    assert (command in commands(told)) == said
    if said:
        assert f"pole sum to {volume:.2f} times" in told.remedies[0].reason


def test_what_is_calibrated_is_not_calibrated_again():
    calibrated = RankSEG("dice", calibration=Calibration("softmax", [1.0, 1.0], [0.0, 0.1]))
    comparison = compared(BASE, WORSE, volume=[1.0, 1.6])
    told = verdict(comparison, maps="maps", decide=calibrated)
    assert not any("calibrate" in command for command in commands(told))
    unknown = judged(replace(comparison, expected_volumes=None))
    assert not any("calibrate" in command for command in commands(unknown))


INVENTED = ([900, 0], [10, 30], [30, 0])
LOST = ([900, 0], [10, 0], [30, 70])


@pytest.mark.parametrize(("found", "word"), [(INVENTED, "invented"), (LOST, "lost")])
def test_classes_that_are_lost_or_invented_are_fitted(found, word):
    command = (
        "rankseg calibrate maps --labels truth --kind none --presence zero -o calibration.json"
    )
    told = judged(compared(found, found))
    assert commands(told)[0] == command
    assert f"24 {word}" in told.remedies[0].reason or f"24 are {word}" in told.remedies[0].reason
    assert command not in commands(judged(compared(BASE, WORSE)))
    assert command not in commands(judged(compared(found, found, cases=12)))  # too few to fit
    both = judged(compared(found, found, volume=1.6))
    assert commands(both)[1] == command.replace("none", "vector")
    fitted = RankSEG("dice", presence=PresenceModel(1.0, 0.0, [0.0, 0.0]))
    told = verdict(compared(found, found), maps="maps", decide=fitted)
    assert not any("--presence" in one for one in commands(told))


def test_doubtful_pixels_ask_for_a_stronger_correlation():
    doubtful = ([900, 62], [10, 48], [30, 8])  # of 20 more pixels of the pole 2 are right
    command = "rankseg compare maps --labels truth --solver joint --correlation 0.8"
    told = judged(compared(BASE, doubtful))
    assert commands(told)[0] == command
    assert "10 % are right, and 38 % would pay" in told.remedies[0].reason
    sure = ([900, 66], [10, 38], [30, 4])  # 6 of 14
    assert command not in commands(judged(compared(BASE, sure)))
    strong = RankSEG("dice", correlation=0.8)
    told = verdict(compared(BASE, doubtful), maps="maps", decide=strong)
    assert not any("--correlation" in one for one in commands(told))
    published = verdict(compared(BASE, doubtful), maps="m", decide=RankSEG("dice", solver="RMA"))
    assert commands(published)[0] == "rankseg compare m --correlation 0.8"


def test_without_maps_the_remedy_is_to_compare_them():
    told = verdict(compared(BASE, WORSE), labels="truth")
    assert commands(told) == ["rankseg compare MAPS --labels truth"]


def test_a_single_method_is_scored():
    comparison = compared(BASE, WORSE)
    told = verdict(replace(comparison, counts={"ours": comparison.counts[OURS]}))
    mean = 100 * comparison.by_image(OURS).mean()
    assert told.sentence == f"ours scores {mean:.2f} points of Dice by image (24 cases)."


def test_the_method_judged_and_the_rows_shown():
    probs = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)).softmax(0)
    case = Case("a", probs, probs.argmax(0))
    comparison = compare([case], standard_methods(every=True))
    assert main_method(comparison, "iou") == "RankSEG iou"
    rows = standing(comparison, "dice", main=["RankSEG dice DEP"])
    names = [row.method for row in rows]
    assert names[0] == "argmax"
    assert "RankSEG dice DEP" in names
    assert not any("iou" in name for name in names)
    assert len(standing(comparison, "dice", main=comparison.methods)) == 8
    worst = metrics.summary(comparison.counts["argmax"], worst=[0.1])["I@0.1"]
    assert rows[0].worst_tenth == worst


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("counted", ["label", "either"])
def test_shares_of_cases_have_the_difference_of_the_data_set_as_their_mean(metric, counted):
    rng = np.random.default_rng(0)
    tables = rng.integers(0, 50, (2, 3, 9, 4))
    tables[0, :, :, 3] = 0
    made = [Counts(*map(torch.from_numpy, table)) for table in tables]
    made[1] = Counts(made[1].tp, made[1].fp, made[0].tp + made[0].fn - made[1].tp)
    cases = tuple("abcdefghi")
    comparison = Comparison(("a", "b", "c", "d"), cases, dict(zip("xy", made, strict=True)), {})
    shares = comparison.differences("y", metric, counted, score="dataset")
    told = [comparison.aggregates(name, metric, counted)["D"] for name in "yx"]
    assert shares.mean() == pytest.approx(told[0] - told[1], abs=1e-12)
    # The share of a case is what the score changes by, if the case counts a little more.
    weighted = []
    for counts_of in made:
        first = Counts(*(getattr(counts_of, key)[:1] for key in ("tp", "fp", "fn")))
        more = Counts.cat([counts_of] * 200 + [first])
        weighted.append(metrics.summary(more, metric, counted=counted)["D"])
    slope = (weighted[1] - weighted[0] - (told[0] - told[1])) * 200 * 9
    assert shares[0] - shares.mean() == pytest.approx(slope, rel=0.02, abs=1e-4)
    assert comparison.difference("y", metric, counted, score="dataset").mean == shares.mean()
