"""Maps with other axes or of another activation than the options say are told from their sums."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rankseg import ClassProfile, RankSEG, expected_score, rankseg_rma
from rankseg.calibration import Calibration, calibrate, fit, prior_correction, reliability
from rankseg.evaluation import Case
from rankseg.functional import rankseg
from support import maps

PROBS = torch.from_numpy(maps.softmax(4, 5, 32, 40))
SIGMOIDS = torch.from_numpy(3 * np.random.default_rng(0).normal(size=(4, 5, 32, 40))).sigmoid()
VOLUME = torch.from_numpy(maps.softmax(2, 5, 8, 9, 10))

OTHER_AXES = {
    "batch, height, width, class": (PROBS.movedim(1, -1), 3, r"probs.movedim\(-1, 1\)"),
    "class, height, width": (PROBS[0], 0, r"probs\[None\] if there is no batch axis"),
    "height, width, class": (PROBS[0].movedim(0, -1), 2, r"probs.movedim\(-1, 0\)\[None\]"),
    "class, batch, height, width": (PROBS.movedim(1, 0), 0, r"probs.movedim\(0, 1\)"),
    "class, depth, height, width": (VOLUME[0], 0, r"probs\[None\]"),
    "batch, depth, class, height, width": (VOLUME.movedim(1, 2), 2, r"probs.movedim\(2, 1\)"),
    "softmax over the rows": (torch.rand(2, 3, 8, 9).softmax(2), 2, r"softmax\(1\)"),
    "one-hot": ((PROBS.amax(1, True) == PROBS).float().movedim(1, -1), 3, "movedim"),
}

SOUND = {
    "float32": PROBS,
    "float16": PROBS.half(),
    "bfloat16": PROBS.bfloat16(),
    "volume": VOLUME,
    "one axis": PROBS.flatten(2),
    "many classes": torch.from_numpy(maps.softmax(1, 150, 32, 32)).half(),
    "stored in 8 bits": (torch.from_numpy(maps.softmax(1, 150, 32, 32)) * 255).round() / 255,
    "resized": nn.functional.interpolate(PROBS, (77, 91), mode="bilinear"),
    "padded": nn.functional.pad(PROBS, (20, 20, 20, 20)),
    "a few pixels off": torch.where(torch.arange(40) < 10, 0.7 * PROBS, PROBS),
    "constant": torch.full((2, 2, 2, 2), 0.5),
    "constant of four classes": torch.full((2, 4, 4, 5), 0.5),
    "one channel": SIGMOIDS[:, :1],
    "nothing": torch.zeros(0, 3, 8, 8),
}


@pytest.fixture(autouse=True)
def _every_warning_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("solver", [{}, {"solver": "joint"}, {"metric": "acc"}], ids=str)
@pytest.mark.parametrize("name", OTHER_AXES)
def test_labels_of_classes_on_another_axis_are_refused(backend, name, solver):
    probs, axis, cure = OTHER_AXES[name]
    message = rf"probs of shape .* sum to 1 over axis {axis} and .* over axis 1, .*{cure}"
    with pytest.raises(ValueError, match=message):
        RankSEG(**solver)(probs)


@pytest.mark.parametrize("name", OTHER_AXES)
def test_masks_of_classes_on_another_axis_warn(backend, name):
    probs, axis, cure = OTHER_AXES[name]
    with pytest.warns(UserWarning, match=rf"probs .* sum to 1 over axis {axis} .*{cure}"):
        RankSEG(output_mode="multilabel")(probs)


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("options", [{}, {"metric": "acc"}, {"output_mode": "multilabel"}], ids=str)
def test_sound_maps_say_nothing(backend, name, options):
    RankSEG(**options)(SOUND[name])


@pytest.mark.parametrize(
    ("probs", "cure"),
    [
        (SIGMOIDS, r"apply softmax\(1\) in place of sigmoid, or pass output_mode='multilabel'"),
        (torch.where(torch.arange(40) < 30, PROBS, SIGMOIDS), "in place of sigmoid"),
        (PROBS[:, 1:], r"add the class that is missing \(background\)"),
        (PROBS * 0.95, "axis 1 at 64 sampled pixels"),
        (SIGMOIDS[:, 0], r"probs\[None\] \(batch\) or probs\[:, None\] \(class\)"),
        (SIGMOIDS[:, 0, ..., None], r"probs.movedim\(-1, 1\) if the last axis holds the class"),
    ],
)
def test_labels_of_classes_that_do_not_sum_to_one_warn(backend, probs, cure):
    with pytest.warns(UserWarning, match=f"probs of shape .* sum to .*{cure}"):
        RankSEG()(probs)


def test_masks_need_no_sums():
    RankSEG(output_mode="multilabel")(SIGMOIDS)
    RankSEG(unassigned_policy="void")(PROBS[:, 1:])  # the rest may be void
    with pytest.warns(UserWarning, match="probs of shape .* sum to"):
        RankSEG(unassigned_policy="void")(SIGMOIDS)


@pytest.mark.parametrize(
    ("maps", "link"),
    [
        (PROBS, "softmax"),
        (SIGMOIDS, "softmax"),
        (SIGMOIDS, "sigmoid"),
        (PROBS[:, 1:2], "sigmoid"),
        ((SIGMOIDS > 0.4).float(), "sigmoid"),
        ((SIGMOIDS[:, :1] > 0.4).half(), "sigmoid"),
        ((SIGMOIDS > 0.4).double(), "softmax"),
        ((torch.arange(9000) == 4).bfloat16().view(1, 1, 90, 100), "sigmoid"),
    ],
)
def test_logits_that_look_like_probabilities_or_masks_warn(maps, link):
    mode = "multiclass" if link == "softmax" else "multilabel"
    with pytest.warns(UserWarning, match=f"probs lie in .*from_logits='{link}' takes the {link}"):
        RankSEG(output_mode=mode, from_logits=link)(maps)


UNSURE = {
    "base rate of two classes": torch.stack((0.28 + PROBS[:, 0] / 99, 0.72 - PROBS[:, 0] / 99), 1),
    "an untrained network": (0.2 * SIGMOIDS.logit()).softmax(1),
    "two unsure classes": (0.15 * SIGMOIDS[:, :2].logit()).softmax(1),
    "few pixels": PROBS[:1, :, :5, :5].softmax(1),
    "nearly uniform": (0.01 * SIGMOIDS.logit()).softmax(1),
    "sigmoids above one half": 0.55 + 0.15 * SIGMOIDS[:, :1],
    "sigmoids of an untrained network": (0.3 * SIGMOIDS[:, :1].logit()).sigmoid(),
}


@pytest.mark.parametrize("name", UNSURE)
def test_unsure_maps_say_nothing(name):
    for options in ({}, {"output_mode": "multilabel"}):
        RankSEG(**options)(UNSURE[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("options", [{}, {"output_mode": "multilabel"}, {"metric": "acc"}], ids=str)
def test_a_second_softmax_warns(dtype, classes, options):
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, classes, 24, 24)))
    twice = (12 * logits).softmax(1).softmax(1).to(dtype)
    with pytest.warns(UserWarning, match="look like the softmax of probabilities: .*once"):
        RankSEG(**options)(twice)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_second_sigmoid_warns(dtype, classes):
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, classes, 24, 24)))
    twice = (12 * logits).sigmoid().sigmoid().to(dtype)
    with pytest.warns(UserWarning, match="look like the sigmoid of probabilities: .*once"):
        RankSEG(output_mode="multilabel")(twice)


EXCLUSIVE = {
    "prior_correction": lambda: prior_correction(SIGMOIDS, [1.0, 2.0, 3.0, 4.0, 5.0]),
    "calibrate": lambda: calibrate(SIGMOIDS, FIVE),
    "masks of calibrated": lambda: RankSEG(output_mode="multilabel", calibration=FIVE)(SIGMOIDS),
    "fit": lambda: fit(CASES, "vector"),
    "reliability": lambda: reliability(CASES),
    "reliability of calibrated": lambda: reliability(CASES, calibration=FIVE),
}
EVERY_THIRD = torch.arange(32 * 40).view(32, 40) % 15
CASES = [
    Case(str(number), one, torch.where(EVERY_THIRD < 5, EVERY_THIRD, one.argmax(0)))
    for number, one in enumerate(SIGMOIDS)
]


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_sigmoids_where_classes_exclude_each_other_warn_once(name):
    with pytest.warns(UserWarning, match="sum to .*; apply softmax.1. [^,]*$") as told:
        EXCLUSIVE[name]()
    assert [warning.filename for warning in told] == [__file__]


def test_sigmoids_may_overlap_elsewhere():
    calibrate(SIGMOIDS, replace(FIVE, link="sigmoid"))
    reliability(CASES, calibration=replace(FIVE, link="sigmoid"))
    fit(CASES, "binary")
    prior_correction(SIGMOIDS[:, :1], [2.0])


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_logits_say_nothing(link):
    rare = (torch.arange(9000) == 4).float().view(1, 1, 90, 100).expand(1, 3, 90, 100)
    logit = SIGMOIDS.logit()
    for logits in (logit, torch.zeros(1, 3, 8, 8), PROBS - 0.001, -rare, 2 * rare):
        RankSEG(output_mode="multilabel", from_logits=link)(logits)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_labels_are_no_logits(link, dtype):
    labels = PROBS.argmax(1, keepdim=True).to(dtype)
    masks = 255 * (labels == torch.arange(5)[:, None, None]).to(dtype)
    decide = RankSEG(from_logits=link)
    for given, most in ((masks, 255), (torch.cat([labels, labels], 1), 4)):
        with pytest.warns(
            UserWarning, match=f"probs are whole numbers from 0 to {most} at"
        ) as told:
            decide(given)
        assert "look like labels" in str(told[0].message)
        assert len(told) == 1
        overlapping = RankSEG(output_mode="multilabel", from_logits=link)
        overlapping(given + 0.25)
        overlapping(given - 1)
    overlapping(labels[..., :4, :3].expand(-1, 2, -1, -1)[:1])  # few numbers are whole by accident


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_without_any_probability_are_told(backend, dtype):
    probs = PROBS.to(dtype).clone()
    probs[1] = 0
    told = r"are 0 in all classes at every pixel of images \[1\],"
    for options in ({}, {"solver": "joint"}, {"metric": "acc"}):
        with pytest.warns(UserWarning, match=told):
            RankSEG(**options)(probs)
    with pytest.warns(UserWarning, match=r"images \[0\], .* that the network ran"):
        RankSEG()(probs[1:2])
    valid = torch.ones(4, 32, 40, dtype=torch.bool)
    valid[:, :16] = False
    probs[1, :, :16] = 0.2  # where the image does not count
    with pytest.warns(UserWarning, match=told):
        RankSEG()(probs, valid)
    valid[1] = False
    RankSEG()(probs, valid)
    probs[1] = 0
    RankSEG(output_mode="multilabel")(probs)
    RankSEG(unassigned_policy="void")(probs)
    probs[1, :, 17, 29] = 0.2  # one pixel that none of the sampled is: the others pad
    RankSEG()(probs)


def test_pixels_outside_valid_are_not_looked_at(backend):
    valid = torch.zeros(4, 32, 40, dtype=torch.bool)
    RankSEG()(SIGMOIDS, valid)
    valid[:, :16] = True
    RankSEG()(torch.where(valid[:, None], PROBS, torch.nan), valid)
    with pytest.warns(UserWarning, match="at 32 sampled pixels"):
        RankSEG()(torch.where(valid[:, None], SIGMOIDS, torch.nan), valid)


CALLS = {
    "module": lambda: RankSEG()(SIGMOIDS),
    "array": lambda: RankSEG()(SIGMOIDS.numpy()),
    "predict": lambda: RankSEG().predict(SIGMOIDS),
    "network": lambda: nn.Sequential(nn.Identity(), RankSEG())(SIGMOIDS),
    "decide": lambda: RankSEG().decide(SIGMOIDS[:1]),
    "decide of masks": lambda: RankSEG(output_mode="multilabel").decide(VOLUME[0]),
    "decide of logits": lambda: RankSEG(from_logits="softmax").decide(PROBS[:1]),
    "calibrated": lambda: RankSEG(calibration=FIVE)(SIGMOIDS),
    "calibrated sigmoids": lambda: RankSEG(calibration=replace(FIVE, link="sigmoid"))(SIGMOIDS),
    "decide of calibrated": lambda: RankSEG(calibration=FIVE).decide(SIGMOIDS[:1]),
    "rankseg": lambda: rankseg(SIGMOIDS),
    "rankseg_rma": lambda: rankseg_rma(SIGMOIDS),
    "expected_score": lambda: expected_score(VOLUME[0], VOLUME[0] > 0.5),
    "profile": lambda: ClassProfile.from_probs(VOLUME[0]),
    "calibrate": lambda: calibrate(PROBS.movedim(1, 2)[:, :5], FIVE),
}
FIVE = Calibration("softmax", [1.0] * 5, [0.0] * 5)


@pytest.mark.parametrize("name", CALLS)
def test_one_warning_at_the_line_of_the_user(name):
    with pytest.warns(UserWarning, match="probs") as told:
        CALLS[name]()
    assert [warning.filename for warning in told] == [__file__]


def test_wrong_values_come_first():
    with pytest.raises(ValueError, match="look like logits"):
        RankSEG()(SIGMOIDS.logit())


def test_graphs_are_not_looked_at():
    compiled = torch.compile(RankSEG(), fullgraph=True, backend="eager")
    compiled(SIGMOIDS)


LOGITS = torch.from_numpy(3 * np.random.default_rng(1).normal(size=(2, 20, 30, 40)))


def test_sigmoids_of_classes_that_exclude_each_other_are_told():
    decide = RankSEG(from_logits="sigmoid")
    with pytest.warns(UserWarning, match="sigmoids of probs .* pass from_logits='softmax'"):
        decide(LOGITS)
    RankSEG(from_logits="sigmoid", output_mode="multilabel")(LOGITS)
    decide(LOGITS[:, :1])
    decide(torch.cat((LOGITS[:, :1], -LOGITS[:, :1]), 1))  # of two classes they sum to 1


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_relu_makes_no_logits(output_mode, classes):
    decide = RankSEG(from_logits="sigmoid", output_mode=output_mode)
    rectified = LOGITS[:, :classes].relu()
    with pytest.warns(UserWarning, match=r"are 0 in \d+% of .* the output of a ReLU") as told:
        decide(rectified)
    assert len(told) == 1
    RankSEG(from_logits="softmax")(LOGITS.relu())
    if output_mode == "multilabel":
        for sound in (nn.functional.softplus(LOGITS), (LOGITS + 9).relu(), LOGITS.clamp(-0.1)):
            decide(sound)


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_log_softmax_is_no_logit_of_a_sigmoid(output_mode, dtype):
    decide = RankSEG(from_logits="sigmoid", output_mode=output_mode)
    logs = LOGITS.log_softmax(1).to(dtype)
    with pytest.warns(UserWarning, match="look like a log_softmax: .*; pass from_logits='softmax'"):
        decide(logs)
    RankSEG(from_logits="softmax", output_mode=output_mode)(logs)
    if output_mode == "multilabel":
        for sound in (nn.functional.logsigmoid(LOGITS), logs + 0.1, -LOGITS.abs(), logs[:, :1]):
            decide(sound)


@pytest.mark.parametrize(
    "options",
    [
        {"from_logits": "softmax"},
        {"from_logits": "sigmoid", "output_mode": "multilabel"},
        {"output_mode": "multilabel"},
    ],
)
@pytest.mark.parametrize(
    ("given", "cure"),
    [
        (LOGITS[0], r"20 x|30 classes of 40 pixels; pass probs\[None\]"),
        (LOGITS[:, :5].movedim(1, -1), r"30 classes of 40 x 5 pixels; pass probs.movedim\(-1, 1\)"),
        (LOGITS[:, 0, ..., None], r"30 classes of 40 x 1 pixels; .* last axis holds the class$"),
        (LOGITS[..., None], r"20 classes of 30 x 40 x 1 pixels; .* holds the class$"),
    ],
)
def test_shapes_tell_where_sums_cannot(options, given, cure):
    with pytest.warns(UserWarning, match=cure):
        RankSEG(**options)(given if "from_logits" in options else given.sigmoid())


def test_scores_and_profiles_of_a_last_axis_of_one_are_told():
    probs = LOGITS[:, 0, ..., None].sigmoid()
    told = "30 classes of 40 x 1 pixels; .* holds the class"
    with pytest.warns(UserWarning, match=told):
        expected_score(probs, probs > 0.5)
    with pytest.warns(UserWarning, match=told):
        ClassProfile.from_probs(probs)


def test_ordinary_shapes_of_logits_say_nothing():
    decide = RankSEG(from_logits="softmax")
    shapes = (1, 150, 20, 20), (1, 20, 200), (2, 4, 3), (1, 3, 9, 9, 3)
    for shape in (*shapes, (1, 30, 500, 1), (1, 100, 20, 1), (1, 15, 15, 1)):
        decide(torch.from_numpy(np.random.default_rng(2).normal(size=shape)))


def test_softmax_over_a_batch_of_one_is_told():
    probs = torch.randn(1, 3, 16, 16).softmax(0)
    with pytest.warns(UserWarning, match="sum to 3"):
        RankSEG()(probs)


CLASSES_ELSEWHERE = {
    "stacked": (lambda probs: probs.movedim(1, 0), "axis 0"),
    "of a volume": (lambda probs: probs[:, None], "axis 2"),
}


@pytest.mark.parametrize("name", CLASSES_ELSEWHERE)
def test_one_channel_whose_classes_are_on_another_axis_is_told(name):
    moved, axis = CLASSES_ELSEWHERE[name]
    probs = torch.from_numpy(maps.smooth(1, 3, 40))
    with pytest.warns(UserWarning, match=f"read as one channel, and sum to 1 over {axis}"):
        RankSEG()(moved(probs))


def test_a_thin_line_of_one_channel_says_nothing():
    line = torch.zeros(2, 1, 40, 40)
    line[:, :, 17] = 1
    RankSEG()(line)
