"""Counts, scores and aggregates against sets, hand-derived cases, torchmetrics and MONAI."""

from __future__ import annotations

import importlib
import math
import warnings
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from torch._subclasses.fake_tensor import FakeTensorMode

from rankseg.metrics import Counts, count, dice, iou, mean_by_class, mean_by_image, summary
from rankseg.metrics import counts as _counts

NAN = math.nan
RULES = ("label", "either", "always")


# The oracle: sets of pixels, exact fractions, one image and one class at a time.


def pixels(mask):
    return {tuple(index) for index in np.argwhere(mask)}


def set_counts(predicted, actual, kept):
    """TP, FP, FN of one class of one image."""
    predicted, actual = pixels(predicted & kept), pixels(actual & kept)
    return [len(predicted & actual), len(predicted - actual), len(actual - predicted)]


def slow_counts_of_labels(prediction, label, num_classes, ignore_index=None, valid=None):
    """(3, images, classes) for label maps."""
    kept = np.ones(label.shape, dtype=bool) if valid is None else valid
    if ignore_index is not None:
        kept = kept & (label != ignore_index)
    return [
        [
            [set_counts(p == c, t == c, k)[which] for c in range(num_classes)]
            for p, t, k in zip(prediction, label, kept, strict=True)
        ]
        for which in range(3)
    ]


def slow_counts_of_masks(prediction, label, kept):
    """(3, images, classes) for bool (images, classes, *spatial) everywhere."""
    return [
        [
            [set_counts(*of_class)[which] for of_class in zip(*of_image, strict=True)]
            for of_image in zip(prediction, label, kept, strict=True)
        ]
        for which in range(3)
    ]


def slow_score(tp, fp, fn, metric, counted, zero_division):
    if (counted == "label" and tp + fn == 0) or (counted == "either" and tp + fp + fn == 0):
        return NAN
    if tp + fp + fn == 0:
        return zero_division
    return Fraction(2 * tp, 2 * tp + fp + fn) if metric == "dice" else Fraction(tp, tp + fp + fn)


def slow_mean(values, worst=1):
    values = sorted(value for value in values if value == value)  # NaN is not itself
    kept = values[: max(1, math.floor(worst * len(values)))]
    return sum(kept) / len(kept) if kept else NAN


def as_lists(counts):
    return [counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()]


def make_counts(tp, fp, fn):
    return Counts(*(torch.tensor(value, dtype=torch.int64) for value in (tp, fp, fn)))


def random_labels(seed, classes=5, shape=(4, 9, 11), absent=()):
    """Label maps and predictions right in about half of the pixels; no ``absent`` labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, classes, shape, generator=generator)
    for c in absent:
        label[label == c] = (c + 1) % classes
    noise = torch.randint(0, classes, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.5, label, noise), label


def masks_of(labels, classes=5):
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)


# Counting


SHAPES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)
INTEGERS = st.sampled_from(["u1", "<u2", ">i2", "i4", "i8"])


@st.composite
def label_maps(draw):
    shape, num_classes = draw(SHAPES), draw(st.integers(1, 4))
    ignore_index = draw(st.sampled_from([None, 0, 9, 100]))
    values = [*range(num_classes), *([] if ignore_index is None else [ignore_index])]
    prediction = draw(hnp.arrays(draw(INTEGERS), shape, elements=st.integers(0, 6)))
    label = draw(hnp.arrays(draw(INTEGERS), shape, elements=st.sampled_from(values)))
    valid = draw(st.none() | hnp.arrays(bool, shape))
    return prediction, label, num_classes, ignore_index, valid


@settings(deadline=None)
@given(label_maps(), st.sampled_from([1, 3, 1 << 20]))
def test_label_maps_agree_with_sets_of_pixels(case, block):
    prediction, label, num_classes, ignore_index, valid = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_counts, "_BLOCK_ELEMENTS", block)
        counts = count(
            prediction, label, num_classes=num_classes, ignore_index=ignore_index, valid=valid
        )
    assert counts.tp.shape == (len(label), num_classes)
    assert as_lists(counts) == slow_counts_of_labels(*case)


@st.composite
def masks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=3))
    prediction = draw(hnp.arrays(bool, shape))
    form = draw(st.sampled_from(["bool masks", "integer masks", "label map"]))
    ignore_index = None if form == "bool masks" else draw(st.sampled_from([None, 255]))
    valid = draw(st.none() | hnp.arrays(bool, (shape[0], *shape[2:])))
    if form == "bool masks":
        return prediction, draw(hnp.arrays(bool, shape)), ignore_index, valid
    allowed = range(2 if form == "integer masks" else shape[1])
    values = st.sampled_from([*allowed, *([] if ignore_index is None else [ignore_index])])
    label_shape = shape if form == "integer masks" else (shape[0], *shape[2:])
    return prediction, draw(hnp.arrays("u1", label_shape, elements=values)), ignore_index, valid


@settings(deadline=None)
@given(masks(), st.sampled_from([1, 5, 1 << 20]))
def test_masks_agree_with_sets_of_pixels(case, block):
    prediction, label, ignore_index, valid = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_counts, "_BLOCK_ELEMENTS", block)
        counts = count(prediction, label, ignore_index=ignore_index, valid=valid)
    kept = np.ones(prediction.shape, dtype=bool)
    if valid is not None:
        kept &= valid[:, None]
    if label.ndim < prediction.ndim:
        label = np.stack([label] * prediction.shape[1], axis=1)
        actual = label == np.arange(prediction.shape[1]).reshape(-1, *[1] * (label.ndim - 2))
    else:
        actual = label == 1
    if ignore_index is not None:
        kept &= label != ignore_index
    assert as_lists(counts) == slow_counts_of_masks(prediction, actual, kept)


def test_a_label_map_as_masks_has_the_same_counts():
    prediction, label = random_labels(0)
    as_maps = as_lists(count(prediction, label, num_classes=5))
    masked = masks_of(prediction).bool()
    assert as_lists(count(masked, label, num_classes=5)) == as_maps
    assert as_lists(count(masked, masks_of(label).bool())) == as_maps
    assert as_lists(count(masked, masks_of(label))) == as_maps


def test_a_void_prediction_is_a_miss_and_no_false_positive():
    prediction = torch.tensor([[255, -1, 0, 2]])
    counts = count(prediction, torch.tensor([[0, 1, 0, 1]]), num_classes=2)
    assert as_lists(counts) == [[[1, 0]], [[0, 0]], [[1, 2]]]


def test_ignored_pixels_cost_nothing_whatever_is_predicted():
    prediction, label = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 255, 1]])
    counts = count(prediction, label, num_classes=2, ignore_index=255)
    assert as_lists(counts) == [[[1, 1]], [[0, 0]], [[0, 0]]]


def test_an_ignored_class_still_collects_false_positives():
    prediction, label = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]])
    counts = count(prediction, label, num_classes=2, ignore_index=0)
    assert as_lists(counts) == [[[0, 1]], [[1, 0]], [[0, 1]]]


def test_pixels_outside_valid_may_hold_any_label():
    prediction, label = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 77, -5]])
    valid = torch.tensor([[True, False, False]])
    counts = count(prediction, label, num_classes=2, valid=valid)
    assert as_lists(counts) == [[[1, 0]], [[0, 0]], [[0, 0]]]


def test_an_ignore_index_that_the_dtype_cannot_hold_ignores_nothing():
    label = torch.tensor([[255, 0]], dtype=torch.uint8)  # 255 is -1 in eight bits
    prediction = torch.ones((1, 256, 2), dtype=torch.bool)
    assert count(prediction, label, num_classes=256, ignore_index=-1).tp.sum() == 2
    assert count(label, label, num_classes=256, ignore_index=-1).tp.sum() == 2


@pytest.mark.parametrize("form", ["label map", "masks", "masks against label map"])
def test_counts_beyond_float32_are_exact(form):
    many = 2**24 + 3  # no float32: its neighbours there are 2^24 + 2 and 2^24 + 4
    right = torch.zeros(1, dtype=torch.uint8).expand(1, many)
    present = torch.ones(1, dtype=torch.bool).expand(1, 1, many)
    if form == "label map":
        counts = count(right, right, num_classes=1)
    elif form == "masks":
        counts = count(present, present)
    else:
        counts = count(present, right)
    assert as_lists(counts) == [[[many]], [[0]], [[0]]]


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0), (2, 3, 0)])
def test_no_images_or_no_pixels_count_nothing(shape):
    labels = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros((shape[0], 4, *shape[1:]), dtype=torch.bool)
    for counts in (count(labels, labels, num_classes=4), count(mask, mask), count(mask, labels)):
        assert as_lists(counts) == torch.zeros((3, shape[0], 4)).tolist()
        assert counts.tp.dtype == torch.int64


def test_arrays_as_files_give_them_are_counted():
    prediction, label = (labels.numpy() for labels in random_labels(1))
    expected = slow_counts_of_labels(prediction, label, 5)
    read_only = label.astype("u2")
    read_only.flags.writeable = False
    assert as_lists(count(prediction, read_only, num_classes=5)) == expected
    assert as_lists(count(prediction, label.astype(">i4"), num_classes=5)) == expected
    flipped = as_lists(count(prediction[:, ::-1], label[:, ::-1], num_classes=5))
    assert flipped == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32])
def test_strided_tensors_of_any_integer_are_counted_and_left_alone(dtype):
    prediction, label = (labels.to(dtype).transpose(1, 2) for labels in random_labels(2))
    before = prediction.clone(), label.clone()
    expected = slow_counts_of_labels(prediction.numpy(), label.numpy(), 5, ignore_index=1)
    assert as_lists(count(prediction, label, num_classes=5, ignore_index=1)) == expected
    assert torch.equal(prediction, before[0])
    assert torch.equal(label, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_changes_nothing():
    prediction, label = random_labels(3)
    valid = torch.rand(label.shape) < 0.5
    for p in (prediction, masks_of(prediction).bool()):
        options = {"num_classes": 5, "ignore_index": 2}
        here = count(p, label, valid=valid, **options)
        there = count(p.cuda(), label.cuda(), valid=valid.cuda(), **options)
        assert there.tp.device.type == "cpu"
        assert as_lists(there) == as_lists(here)


# Counts


def test_cat_keeps_the_order_of_images_and_total_adds_them():
    prediction, label = random_labels(4)
    whole = count(prediction, label, num_classes=5)
    batches = [count(prediction[i : i + 3], label[i : i + 3], num_classes=5) for i in (0, 3)]
    empty = count(prediction[:0], label[:0], num_classes=5)
    assert as_lists(Counts.cat([empty, *batches])) == as_lists(whole)
    as_one_image = count(prediction.reshape(1, -1), label.reshape(1, -1), num_classes=5)
    assert as_lists(whole.total()) == as_lists(as_one_image)
    assert as_lists(empty.total()) == [[[0] * 5]] * 3


# Scores


# TP, FP, FN of one image: class 0 half right, 1 missed, 2 invented, 3 in neither.
# Dice 2*1/(2*1+1+1) = 1/2; IoU 1/(1+1+1) = 1/3.
MIXED = ([[1, 0, 0, 0]], [[1, 0, 5, 0]], [[1, 4, 0, 0]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"counted": "label"}, [0, NAN, NAN]),
        ({"counted": "either"}, [0, 0, NAN]),
        ({"counted": "always"}, [0, 0, NAN]),
        ({"counted": "always", "zero_division": 0}, [0, 0, 0]),
        ({"counted": "always", "zero_division": 1}, [0, 0, 1]),
        ({"counted": " Either "}, [0, 0, NAN]),
    ],
)
def test_what_each_rule_makes_of_missed_invented_and_absent_classes(options, expected):
    counts = make_counts(*MIXED)
    for score, first in ((dice, 1 / 2), (iou, 1 / 3)):
        scores = score(counts, **options)
        assert scores.dtype == torch.float64
        np.testing.assert_array_equal(scores.numpy(), [[first, *expected]])


def test_the_default_is_the_rule_of_the_papers():
    counts = make_counts(*MIXED)
    assert summary(counts) == summary(counts, "dice", counted="label", zero_division=NAN)
    for score in (dice, iou):
        torch.testing.assert_close(
            score(counts), score(counts, counted="label"), rtol=0, atol=0, equal_nan=True
        )


def test_scores_of_huge_counts_are_those_of_float64():
    counts = make_counts([[2**40]], [[1]], [[0]])
    assert iou(counts).item() == 2**40 / (2**40 + 1) < 1
    assert dice(counts).item() == 2**41 / (2**41 + 1) < 1


# Means


def test_means_of_a_table_derived_by_hand():
    scores = torch.tensor([[0.2, 0.4], [0.6, NAN], [NAN, NAN], [1.0, 0.0]], dtype=torch.float64)
    # Images: 0.3, 0.6, none, 0.5, of which three count: 1.4 / 3.
    assert mean_by_image(scores) == pytest.approx(1.4 / 3)
    # Classes: (0.2 + 0.6 + 1) / 3 = 0.6 and (0.4 + 0) / 2 = 0.2: mean 0.4.
    assert mean_by_class(scores) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("worst", "by_image", "by_class"),
    [
        # Images hold 0.1, 0.2, ..., 1.0: 0.25 of 10 is 2.5, hence 2: (0.1 + 0.2) / 2.
        # Class 0 is the same. Class 1 counts in 4 images, 0.25 of 4 is 1: 0.1. Mean of 0.15, 0.1.
        (0.25, 0.15, 0.125),
        # 0.05 of 10 and of 4 is below one, which is the least: 0.1 everywhere.
        (0.05, 0.1, 0.1),
        # 0.5: images (0.1 + ... + 0.5) / 5 = 0.3; class 1 (0.1 + 0.2) / 2 = 0.15; mean 0.225.
        (0.5, 0.3, 0.225),
        # All: 0.55; class 1 (0.1 + 0.2 + 0.3 + 0.4) / 4 = 0.25; mean 0.4.
        (1.0, 0.55, 0.4),
        (1, 0.55, 0.4),
    ],
)
def test_worst_cases_derived_by_hand(worst, by_image, by_class):
    values = torch.arange(10, 0, -1) / 10
    # Where class 1 counts it scores as class 0 does, so the means of the images are the values.
    scores = torch.stack([values, values.where(values < 0.45, NAN)], dim=1)
    assert mean_by_image(scores, worst=worst) == pytest.approx(by_image)
    assert mean_by_class(scores, worst=worst) == pytest.approx(by_class)


def test_a_fraction_is_not_cut_short_by_its_binary_form():
    scores = torch.arange(1.0, 101.0)[:, None]
    assert 0.29 * 100 < 29
    # The lowest 29 of 1, 2, ..., 100 have the mean (1 + 29) / 2.
    assert mean_by_image(scores, worst=0.29) == 15
    assert mean_by_class(scores, worst=0.29) == 15


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (1, 1)])
@pytest.mark.parametrize("worst", [0.1, 1.0])
def test_a_mean_over_nothing_is_nan(shape, worst):
    scores = torch.full(shape, NAN)
    assert math.isnan(mean_by_image(scores, worst=worst))
    assert math.isnan(mean_by_class(scores, worst=worst))


def test_scores_that_carry_gradients_or_half_precision_are_averaged():
    # In half precision 1 + 2^-11 is 1, and its half 0.5.
    scores = torch.tensor([[1.0], [2**-11]], dtype=torch.float16, requires_grad=True)
    assert mean_by_image(scores) == mean_by_class(scores) == 0.5 + 2**-12


@st.composite
def counts_tables(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6))
    tables = [draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 3))) for _ in range(3)]
    return [table.tolist() for table in tables]


@settings(deadline=None, max_examples=200)
@given(
    counts_tables(),
    st.sampled_from(["dice", "iou"]),
    st.sampled_from([*((rule, NAN) for rule in RULES), ("always", 0), ("always", 1)]),
    st.sampled_from([Fraction(n, 8) for n in range(1, 9)]),  # exact in binary
)
def test_summary_agrees_with_fractions(tables, metric, rule, worst):
    counted, zero_division = rule
    result = summary(
        make_counts(*tables),
        metric,
        counted=counted,
        zero_division=zero_division,
        worst=[float(worst)],
    )
    rows = [
        [slow_score(*counts, metric, *rule) for counts in zip(*image, strict=True)]
        for image in zip(*tables, strict=True)
    ]
    totals = [[sum(column) for column in zip(*table, strict=True)] for table in tables]
    columns = list(zip(*rows, strict=True))
    expected = {
        "D": slow_mean([slow_score(*c, metric, *rule) for c in zip(*totals, strict=True)]),
        "I": slow_mean([slow_mean(row) for row in rows]),
        "C": slow_mean([slow_mean(column) for column in columns]),
        f"I@{float(worst)}": slow_mean([slow_mean(row) for row in rows], worst),
        f"C@{float(worst)}": slow_mean([slow_mean(column, worst) for column in columns]),
    }
    as_floats = {key: float(value) for key, value in expected.items()}
    assert result == pytest.approx(as_floats, nan_ok=True, rel=1e-12)


def test_at_data_set_level_the_rule_applies_to_the_sum():
    # Class 1 is in one label and invented in the other image: summed, TP 2, FP 2, FN 0.
    counts = make_counts([[4, 2], [4, 0]], [[0, 0], [0, 2]], [[0, 0], [2, 0]])
    result = summary(counts, " IoU ", counted="label")
    assert result["D"] == pytest.approx((8 / 10 + 2 / 4) / 2)
    assert result["C"] == pytest.approx(((1 + 4 / 6) / 2 + 1) / 2)


@pytest.mark.parametrize("zero_division", [NAN, 0, 1])
def test_a_summary_of_no_images_is_nan(zero_division):
    counts = count(np.zeros((0, 4), int), np.zeros((0, 4), int), num_classes=3)
    result = summary(counts, counted="always", zero_division=zero_division, worst=[0.1])
    assert list(result) == ["D", "I", "C", "I@0.1", "C@0.1"]
    assert list(summary(counts, worst=np.array([0.5]))) == ["D", "I", "C", "I@0.5", "C@0.5"]
    assert all(math.isnan(value) for value in result.values())


def test_one_class_and_one_image_make_all_levels_equal():
    counts = count(np.ones((1, 1, 4), bool), np.array([[[True, False, True, True]]]))
    # TP 3, FP 1, FN 0: Dice 6/7.
    assert summary(counts, worst=(0.1,)) == pytest.approx(
        dict.fromkeys(["D", "I", "C", "I@0.1", "C@0.1"], 6 / 7)
    )


# Other toolkits, where they define the same thing


def imported(name):
    """Import a toolkit; what it deprecates while it loads is not this library's doing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        pytest.importorskip(name.partition(".")[0])
        return importlib.import_module(name)


def assert_same(scores, theirs):
    torch.testing.assert_close(scores, theirs.double(), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("ignore_index", [None, 3, -100])
def test_label_map_counts_are_torchmetrics_samplewise_stat_scores(ignore_index):
    theirs = imported("torchmetrics.functional.classification")
    prediction, label = random_labels(5)
    if ignore_index == -100:
        label[torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) < 0.2] = -100
    stats = theirs.multiclass_stat_scores(
        prediction,
        label,
        num_classes=5,
        average=None,
        multidim_average="samplewise",
        ignore_index=ignore_index,
    )
    counts = count(prediction, label, num_classes=5, ignore_index=ignore_index)
    tp, fp, _, fn, _ = stats.unbind(-1)
    assert as_lists(counts) == [tp.tolist(), fp.tolist(), fn.tolist()]


@pytest.mark.parametrize("ignore_index", [None, 255])
def test_mask_counts_are_torchmetrics_multilabel_samplewise_stat_scores(ignore_index):
    theirs = imported("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(6)
    prediction = torch.rand((4, 3, 8, 7), generator=generator) < 0.5
    label = torch.randint(0, 2, prediction.shape, generator=generator)
    if ignore_index is not None:
        label[torch.rand(label.shape, generator=generator) < 0.2] = ignore_index
    stats = theirs.multilabel_stat_scores(
        prediction.int(),
        label,
        num_labels=3,
        average=None,
        multidim_average="samplewise",
        ignore_index=ignore_index,
    )
    tp, fp, _, fn, _ = stats.unbind(-1)
    counts = count(prediction, label, ignore_index=ignore_index)
    assert as_lists(counts) == [tp.tolist(), fp.tolist(), fn.tolist()]


@pytest.mark.parametrize("level", ["samplewise", "global"])
def test_counted_either_is_torchmetrics_dice_score(level):
    theirs = imported("torchmetrics.functional.segmentation")
    prediction, label = random_labels(7, absent=(3, 4))
    prediction[prediction == 4] = 0  # class 3 is invented, class 4 in neither
    their_scores = theirs.dice_score(
        prediction,
        label,
        num_classes=5,
        average="none",
        input_format="index",
        aggregation_level=level,
    )
    counts = count(prediction, label, num_classes=5)
    counts = counts if level == "samplewise" else counts.total()
    scores = dice(counts, counted="either")
    assert scores.isnan().sum(1).tolist() == [1] * len(scores)
    assert_same(scores, their_scores)


def test_counted_either_is_torchmetrics_mean_iou_with_minus_one_for_nan():
    theirs = imported("torchmetrics.functional.segmentation")
    prediction, label = random_labels(8, absent=(3, 4))
    prediction[prediction == 4] = 0
    their_scores = theirs.mean_iou(
        prediction, label, num_classes=5, per_class=True, input_format="index"
    )
    scores = iou(count(prediction, label, num_classes=5), counted="either")
    assert_same(scores.nan_to_num(-1), their_scores)


def test_data_set_level_is_torchmetrics_jaccard_index():
    theirs = imported("torchmetrics.functional.classification")
    prediction, label = random_labels(9, absent=(3, 4))
    prediction[prediction == 4] = 0
    label[:, 0] = -1
    options = {"num_classes": 5, "ignore_index": -1}
    counts = count(prediction, label, **options)
    per_class = theirs.multiclass_jaccard_index(
        prediction, label, average="none", zero_division=NAN, **options
    )
    assert_same(iou(counts.total(), counted="either")[0], per_class)
    # Its macro average, too, leaves out the classes that neither label nor prediction holds.
    macro = theirs.multiclass_jaccard_index(prediction, label, average="macro", **options)
    assert summary(counts, "iou", counted="either")["D"] == pytest.approx(macro.item(), rel=1e-6)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize(
    ("ignore_empty", "options"),
    [
        (True, {"counted": "label"}),
        (False, {"counted": "always", "zero_division": 1}),
    ],
)
def test_monai_scores_follow_label_or_always_with_one(metric, ignore_empty, options):
    theirs = imported("monai.metrics")
    prediction, label = random_labels(10, absent=(3, 4))
    prediction[prediction == 4] = 0
    compute = theirs.compute_dice if metric == "dice" else theirs.compute_iou
    their_scores = compute(masks_of(prediction), masks_of(label), ignore_empty=ignore_empty)
    score = dice if metric == "dice" else iou
    assert_same(score(count(prediction, label, num_classes=5), **options), their_scores)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_monai_reductions_are_the_image_and_class_levels(metric):
    theirs = imported("monai.metrics")
    prediction, label = random_labels(11, shape=(6, 4, 2))
    label[0] = 0  # an image with one class, so that averages differ by level
    counts = count(prediction, label, num_classes=5)
    make = theirs.DiceMetric if metric == "dice" else theirs.MeanIoU
    expected = {}
    for level, reduction in (("I", "mean"), ("C", "mean_batch")):
        their_metric = make(reduction=reduction, ignore_empty=True)
        their_metric(masks_of(prediction), masks_of(label))
        expected[level] = their_metric.aggregate().mean().item()
    result = summary(counts, metric, counted="label")
    assert {level: result[level] for level in "IC"} == pytest.approx(expected, rel=1e-6)
    assert abs(expected["I"] - expected["C"]) > 0.001


# Wrong arguments


LABELS = torch.zeros((2, 3, 4), dtype=torch.int64)
MASKS = torch.zeros((2, 5, 3, 4), dtype=torch.bool)
ONE = make_counts([[1]], [[1]], [[1]])
TWO = make_counts([[1, 1]], [[1, 1]], [[1, 1]])


def nested(tensor):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        return torch.nested.as_nested_tensor(list(tensor))


def fake(tensor):
    return FakeTensorMode().from_tensor(tensor)


@pytest.mark.parametrize("size", [(4, 5), (4, 5, 6)])
def test_bool_masks_have_their_classes_first(size):
    labels = torch.randint(0, 3, (2, *size), generator=torch.manual_seed(0))
    masks = torch.nn.functional.one_hot(labels, 3).bool()
    told = r"the last axis of .* for each of 3 classes: pass {}.movedim\(-1, 1\)"
    with pytest.raises(ValueError, match=told.format("prediction")):
        count(masks, labels)
    with pytest.raises(ValueError, match=told.format("prediction")):
        count(masks, masks)
    with pytest.raises(ValueError, match=told.format("label")):
        count(masks & False, masks)
    first = masks.movedim(-1, 1)
    line = torch.eye(3, dtype=torch.bool).expand(9, 1, 3, 3)  # a pixel in each row
    for fine in (first, masks & (labels > 0)[..., None], masks[:, :3], line):
        count(fine, fine)


@pytest.mark.parametrize("label_dtype", [torch.bool, torch.int64])
def test_bool_masks_without_a_class_axis_are_told(label_dtype):
    masks = torch.rand(2, 32, 48, generator=torch.manual_seed(0)) > 0.5
    told = r"prediction of shape \(2, 32, 48\) are read as 32 classes .*\[:, None\] if no class"
    with pytest.warns(UserWarning, match=told):
        count(masks, masks.to(label_dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count(masks, masks.to(label_dtype), num_classes=32)
        count(masks[:, None], masks[:, None].to(label_dtype))
        count(masks.flatten(1)[:, None].expand(2, 3, -1), masks.flatten(1).long())


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int8])
@pytest.mark.parametrize("size", [(4, 5), (4, 5, 6)])
def test_one_hot_integers_are_no_volumes(dtype, size):
    labels = torch.randint(0, 3, (2, *size), generator=torch.manual_seed(0))
    one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).to(dtype)
    with pytest.raises(ValueError, match=r"mask of 0 and 1 for each of 3 classes: pass pred"):
        count(one_hot, one_hot.flip(1), num_classes=3)
    for other in (2, 4):
        with pytest.raises(ValueError, match=r"mask of 0 and 1 for each of 3 classes: pass pred"):
            count(one_hot, one_hot.flip(1), num_classes=other)
    surface = one_hot.movedim(1, -1)  # of a volume, one voxel in each column
    count(surface, surface, num_classes=2)
    two_of_a_column = one_hot.clone()
    two_of_a_column[-1, :, 0, 0] = 1
    for volume in (two_of_a_column, 2 * one_hot, torch.zeros_like(one_hot)):
        count(volume, volume, num_classes=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prediction": LABELS.float()}, TypeError, "prediction must be .* got Tensor of torch.fl"),
        ({"prediction": [[0]]}, TypeError, "prediction must be .* got list"),
        ({"label": LABELS.numpy().astype(float)}, TypeError, "label must .* ndarray of float64"),
        ({"label": None}, TypeError, "label must be .* got NoneType"),
        ({"label": LABELS.bool()}, TypeError, "label must be an integer tensor .* got bool"),
        ({"label": LABELS[:, :2]}, ValueError, r"prediction and label .* \(2, 3, 4\) and \(2, 2"),
        ({"prediction": LABELS[:, 0, 0], "label": LABELS[:, 0, 0]}, ValueError, r"got \(2,\)"),
        ({"num_classes": None}, ValueError, "num_classes must be given .* got None"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"num_classes": 5.0}, TypeError, "num_classes must be an integer, got 5.0"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer, got True"),
        ({"ignore_index": "255"}, TypeError, "ignore_index must be an integer, got '255'"),
        ({"valid": LABELS}, TypeError, "valid must be bool, got torch.int64"),
        ({"valid": LABELS[0].bool()}, ValueError, r"valid must .* \(2, 3, 4\), got \(3, 4\)"),
        ({"valid": MASKS}, ValueError, r"valid must have the shape .* got \(2, 5, 3, 4\)"),
        ({"label": LABELS.to("meta")}, TypeError, "label must be .* got a meta tensor; "),
        ({"valid": LABELS.bool().to("meta")}, TypeError, "valid must be .* got a meta tensor; "),
        ({"prediction": np.ma.array(LABELS, mask=LABELS == 0)}, TypeError, "prediction .* masked"),
        ({"label": np.ma.array(LABELS, mask=LABELS == 0)}, TypeError, "label .* masked array; "),
        ({"valid": np.ma.array(LABELS == 0)}, TypeError, "valid must not be a masked array; "),
        ({"prediction": LABELS.to_sparse()}, TypeError, r"sparse_coo tensor; .*to_dense\(\)"),
        ({"prediction": nested(LABELS)}, TypeError, "prediction must be .* got a nested tensor; "),
        ({"label": fake(LABELS)}, TypeError, "label must be .* FakeTensor tensor; it holds no"),
        ({"label": LABELS + 7}, ValueError, r"label must lie in \[0, 5\), got 7"),
        ({"label": LABELS - 1}, ValueError, r"label must lie in \[0, 5\), got -1"),
        (
            {"label": LABELS + 5, "ignore_index": 255},
            ValueError,
            r"label must lie in \[0, 5\) or be ignore_index \(255\), got 5",
        ),
        (
            {"prediction": MASKS[:, 0, 0], "label": MASKS[:, 0, 0]},
            ValueError,
            r"prediction of bool must have shape .* got \(2, 4\)",
        ),
        (
            {"prediction": MASKS[:, :0], "label": MASKS[:, :0], "num_classes": None},
            ValueError,
            r"at least one class, got \(2, 0, 3, 4\)",
        ),
        (
            {"prediction": MASKS, "label": MASKS, "num_classes": 4},
            ValueError,
            "num_classes must be the length of axis 1 of a bool prediction, 5, got 4",
        ),
        (
            {"prediction": MASKS, "label": MASKS[:, :4]},
            ValueError,
            r"label must have the shape of a bool prediction, \(2, 5, 3, 4\), .* \(2, 4, 3, 4\)",
        ),
        (
            {"prediction": MASKS, "label": LABELS.bool()},
            ValueError,
            r"integers of shape \(2, 3, 4\), got torch.bool of shape \(2, 3, 4\)",
        ),
        (
            {"prediction": MASKS, "label": MASKS, "ignore_index": 255},
            ValueError,
            "ignore_index must be None when label is bool, got 255",
        ),
        ({"prediction": MASKS, "label": LABELS + 6}, ValueError, r"lie in \[0, 5\), got 6"),
        ({"prediction": MASKS, "label": MASKS.int() + 2}, ValueError, r"lie in \[0, 2\), got 2"),
    ],
)
def test_count_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        count(**{"prediction": LABELS, "label": LABELS, "num_classes": 5, **arguments})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Counts(ONE.tp, ONE.fp, ONE.fn.int()), TypeError, "fn must .* torch.int32"),
        (lambda: Counts(ONE.tp, [[1]], ONE.fn), TypeError, "fp must be an int64 tensor, got list"),
        (lambda: Counts(ONE.tp[0], [1], ONE.fn[0]), TypeError, "fp must be an int64 tensor"),
        (lambda: Counts(ONE.tp, ONE.fp, TWO.fn), ValueError, r"got \(1, 1\), \(1, 1\), \(1, 2\)"),
        (lambda: Counts(ONE.tp[0], ONE.fp[0], ONE.fn[0]), ValueError, r"got \(1,\), \(1,\)"),
        (lambda: Counts(*[ONE.tp[:, :0]] * 3), ValueError, "at least one class"),
        (lambda: Counts.cat([]), ValueError, "at least one Counts, .* got 0"),
        (lambda: Counts.cat([ONE, TWO]), ValueError, r"numbers of classes \[1, 2\]"),
        (lambda: Counts.cat([ONE, ONE.tp]), TypeError, "every part must be Counts, .* got Tensor"),
        (lambda: dice(ONE.tp), TypeError, "counts must be Counts, .* got Tensor of torch.int64"),
        (lambda: iou(None), TypeError, "counts must be Counts, .* got NoneType"),
        (lambda: summary(ONE.tp), TypeError, "counts must be Counts"),
        (lambda: dice(ONE, counted="present"), ValueError, "counted must be one of .* 'present'"),
        (lambda: iou(ONE, counted=None), TypeError, "counted must be a string, one of .* got None"),
        (
            lambda: dice(ONE, counted="always", zero_division=0.5),
            ValueError,
            "zero_division must be nan, 0 or 1, got 0.5",
        ),
        (
            lambda: dice(ONE, counted="always", zero_division=10**400),
            ValueError,
            r"zero_division must be nan, 0 or 1, got 1000.*\.\.\.000",
        ),
        (
            lambda: dice(ONE, counted="always", zero_division=True),
            TypeError,
            "zero_division must be nan, 0 or 1, got True",
        ),
        (
            lambda: dice(ONE, counted="always", zero_division="nan"),
            TypeError,
            "zero_division must be nan, 0 or 1, got 'nan'",
        ),
        (
            lambda: iou(ONE, counted="either", zero_division=1),
            ValueError,
            "zero_division must be nan unless counted is 'always', got 1 with counted='either'",
        ),
        (lambda: mean_by_image([[0.5]]), TypeError, "scores must be a floating tensor, got list"),
        (lambda: mean_by_class(ONE.tp), TypeError, "scores must .* got Tensor of torch.int64"),
        (lambda: mean_by_image(torch.zeros(3)), ValueError, r"scores must .* shape \(3,\)"),
        (lambda: mean_by_image(dice(ONE), worst=0), ValueError, r"worst must be in \(0, 1\].* 0"),
        (lambda: mean_by_class(dice(ONE), worst=5), ValueError, r"worst must be in \(0, 1\].* 5"),
        (lambda: mean_by_class(dice(ONE), worst=NAN), ValueError, "worst must be .* got nan"),
        (
            lambda: mean_by_image(dice(ONE), worst="5%"),
            TypeError,
            "worst must be a real number, .*'5%'",
        ),
        (lambda: mean_by_image(dice(ONE), worst=10**400), ValueError, "worst must be in .* got 10"),
        (lambda: mean_by_image(dice(ONE).to("meta")), TypeError, "scores must .* a meta tensor; "),
        (lambda: mean_by_class(dice(ONE).to_sparse()), TypeError, "scores must .* sparse_coo"),
        (lambda: Counts(*[ONE.tp.to_sparse()] * 3), TypeError, "tp must be .* sparse_coo tensor"),
        (lambda: mean_by_image(dice(ONE), worst=True), TypeError, "worst must .* got True"),
        (lambda: summary(ONE, "acc"), ValueError, r"metric must be one of \['dice', 'iou'\]"),
        (lambda: summary(ONE, None), TypeError, "metric must be a string, one of .* got None"),
        (lambda: summary(ONE, worst=0.1), TypeError, "worst must be an iterable .* got 0.1"),
        (lambda: summary(ONE, worst=[10]), ValueError, "every fraction in worst must .* got 10"),
        (lambda: summary(ONE, worst="5"), TypeError, "every fraction in worst must .* got '5'"),
    ],
)
def test_scores_and_means_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
