"""What the page shows of a case; the page itself is in ``tests/integrations/test_app.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG, expected_score
from rankseg._common.colours import CLASS_COLOURS
from rankseg.app import show
from rankseg.app.shown import LARGEST_SIDE
from rankseg.evaluation import Case
from rankseg.metrics import count, dice
from rankseg.plots.examples import BOTH_RIGHT, FIRST_RIGHT, LAST_RIGHT, VERDICT_COLOURS
from rankseg.plots.painting import rgb
from support import maps

DIFFERENT = rgb(VERDICT_COLOURS[FIRST_RIGHT])


def is_colour(picture, colour):
    return (picture == colour).all(-1)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_numbers_are_those_of_the_library(metric):
    probs = torch.from_numpy(maps.softmax(1, 3, 32, 32))
    shown = show(probs[0], ["a", "b", "c"], metric=metric, solver="joint", pruning_prob=0.3)
    labels = RankSEG(metric, solver="joint", pruning_prob=0.3)(probs)
    np.testing.assert_array_equal(shown.labels["RankSEG"], labels[0])
    np.testing.assert_array_equal(shown.labels["argmax"], probs[0].argmax(0))
    scores, plain = (expected_score(probs, one, metric)[0] for one in (labels, probs.argmax(1)))
    assert [row[0] for row in shown.rows] == ["a", "b", "c"]
    for number, row in enumerate(shown.rows):
        assert row[1] == str(int((probs.argmax(1) == number).sum()))
        assert row[2] == str(int((labels == number).sum()))
        assert row[4:] == [f"{plain[number].item():.3f}", f"{scores[number].item():.3f}"]
    assert {"dice": "Dice", "iou": "IoU"}[metric] in shown.summary
    assert len(shown.head) == 6


def test_with_a_truth_scores_are_achieved_ones_too():
    probs, truth = maps.labelled(0)
    case = Case("a", torch.from_numpy(probs).float(), torch.from_numpy(truth).long())
    shown = show(case, ignore_index=255, pruning_prob=0.2)
    decided = torch.from_numpy(shown.labels["RankSEG"])[None]
    scores = dice(count(decided, case.label[None], num_classes=len(probs), ignore_index=255))[0]
    assert shown.head[-2:] == ("Dice argmax", "Dice RankSEG")
    for row in shown.rows:
        number = int(row[0].removeprefix("class "))
        assert row[-3] == str(int((case.label == number).sum()))
        assert row[-1] == ("-" if scores[number].isnan() else f"{scores[number].item():.3f}")
    assert f"is {100 * scores.nanmean().item():.2f} by RankSEG" in shown.summary
    unlabelled = show(case, labelled=False, pruning_prob=0.2)
    assert "truth" not in unlabelled.labels
    assert "By the truth" not in unlabelled.summary


def test_one_channel_is_foreground_against_background():
    probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])
    case = Case("a", probs, torch.tensor([[1, 1, 0, 0]]))
    shown = show(case, ["spot"], solver="RMA")
    assert shown.classes == ("background", "spot")
    assert shown.labels["RankSEG"].tolist() == [[1, 1, 1, 0]]
    assert shown.rows[0][-3:] == ["2", "0.667", "0.800"]


def test_pictures_show_the_labels_and_where_they_differ():
    probs = maps.softmax(1, 3, 32, 32)[0]
    shown = show(probs)
    drawn = shown.pictures()
    assert list(drawn) == ["argmax", "RankSEG", "where they differ"]
    times = len(drawn["argmax"]) // 32
    plain, ours, difference = (one[::times, ::times] for one in drawn.values())
    differs = shown.labels["RankSEG"] != shown.labels["argmax"]
    np.testing.assert_array_equal((ours != plain).any(2), differs)
    np.testing.assert_array_equal(is_colour(difference, DIFFERENT), differs)
    assert 0 < differs.sum() < differs.size


def test_with_a_truth_the_picture_says_which_is_right():
    probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])
    shown = show(Case("a", probs, torch.tensor([[1, 1, 0, 0]])), solver="RMA")
    drawn = shown.pictures()["where they differ"]
    places = drawn[0, :: drawn.shape[1] // 4]
    verdicts = (BOTH_RIGHT, LAST_RIGHT, FIRST_RIGHT, BOTH_RIGHT)
    np.testing.assert_array_equal(places, [rgb(VERDICT_COLOURS[one]) for one in verdicts])
    assert "only argmax right" in shown.legend()
    assert "both wrong" not in shown.legend()


def test_opacity_mixes_labels_and_image():
    probs = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    image = np.array([[[200, 100, 0], [0, 0, 0]]], np.uint8)
    shown = show(probs, image=image)
    for opacity in (0.0, 0.25, 1.0):
        mixed = shown.pictures(opacity=opacity)["RankSEG"][0, 0]
        expected = opacity * rgb(CLASS_COLOURS[0]) + (1 - opacity) * image[0, 0]
        np.testing.assert_allclose(mixed, expected, atol=0.5)


def test_without_an_image_labels_lie_over_the_largest_probability():
    probs = torch.tensor([[[0.8, 0.6]], [[0.2, 0.4]]])
    below = show(probs).pictures(opacity=0.0)["argmax"]
    assert below[0, 0].tolist() == [204] * 3
    assert below[0, -1].tolist() == [153] * 3


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="height and width of the maps"):
        show(torch.ones(1, 4, 4), image=np.zeros((4, 5, 3), np.uint8))


def test_slices_of_a_volume_along_every_axis():
    probs = np.zeros((1, 5, 6, 7))
    probs[0, 3, 2, 4] = 0.45  # argmax does not take it, and RankSEG does
    shown = show(probs, pruning_prob=0.4)
    for axis, (count_, different) in enumerate(((5, 3), (6, 2), (7, 4))):
        assert shown.slices(axis) == count_
        assert shown.most_different_slice(axis) == different
        for number in range(count_):
            picture = shown.pictures(number, axis)["where they differ"]
            assert is_colour(picture, DIFFERENT).any() == (number == different)
    assert show(probs[:, 0]).slices() == 1


def test_large_maps_are_decided_as_they_are_and_shown_smaller():
    probs = np.full((1, 1030, 2100), 0.1)
    probs[0, 500:530, :9] = 0.45
    shown = show(probs, pruning_prob=0.4)
    assert shown.labels["RankSEG"].shape == (1030, 2100)
    assert shown.labels["RankSEG"][510, 5] == 1
    drawn = shown.pictures()
    for picture in drawn.values():
        assert picture.shape == (344, 700, 3)
    assert (drawn["RankSEG"][170, 1] != drawn["argmax"][170, 1]).any()


def test_a_difference_of_one_pixel_is_seen_in_a_smaller_picture():
    probs = np.zeros((1, 2 * LARGEST_SIDE + 2, 40))
    probs[0, 1001, 20] = 0.45
    shown = show(probs, pruning_prob=0.4)
    assert shown.labels["RankSEG"].sum() == 1
    assert is_colour(shown.pictures()["where they differ"], DIFFERENT).sum() == 1


def test_pixels_without_data_are_white():
    valid = torch.tensor([[True, False], [True, True]])
    probs = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.8, 0.2]])
    shown = show(Case("a", probs, torch.tensor([0, 1, 0]), valid))
    assert shown.labels["truth"].tolist() == [[0, -1], [1, 0]]
    picture = shown.pictures()["argmax"]
    assert picture[0, -1].tolist() == [255] * 3
    assert picture[0, 0].tolist() == rgb(CLASS_COLOURS[0]).tolist()


def test_without_any_class_nothing_is_expected():
    shown = show(np.full((3, 4, 4), 1 / 3))
    assert "nan" not in shown.summary
    assert "No class is present: none has a probability above pruning_prob." in shown.summary
    assert shown.curves == ""


def test_names_of_classes_are_no_html():
    shown = show(maps.softmax(1, 2, 8, 8)[0], ["<b>", "b"], pruning_prob=0.0)
    for text in (shown.table(), shown.legend(), shown.curves):
        assert text
        assert "<b>" not in text


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="must name the 3 classes"):
        show(maps.softmax(1, 3, 8, 8)[0], ["a", "b"])
