"""Pictures, read back from the file: what is drawn where, and in which colours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from rankseg._common.colours import BACKGROUND_COLOUR, CLASS_COLOURS, IGNORED_COLOUR
from rankseg._files import whole as _files
from rankseg.evaluation import Case, Method, argmax, compare
from rankseg.plots import Example, comparison_figure, examples, figures, gain_and_loss

TRUTH = np.repeat([[0, 1], [1, 2]], 8, axis=0).repeat(8, axis=1)  # four blocks of 8 x 8
ARGMAX = np.repeat([[0, 0], [1, 1]], 8, axis=0).repeat(8, axis=1)
RANKSEG = np.repeat([[0, 1], [0, 0]], 8, axis=0).repeat(8, axis=1)
CLASSES = ("background", "liver", "kidney")
EXAMPLE = Example("four blocks", TRUTH, {"argmax": ARGMAX, "RankSEG dice": RANKSEG})


def draw(path, *examples, classes=CLASSES, **options):
    """Write a picture and return its pixels, uint8 (height, width, 3)."""
    comparison_figure(path, examples, classes, **options)
    return np.round(imread(path)[..., :3] * 255).astype(np.uint8)


def share(pixels, colour):
    """Return which part of the pixels has exactly this colour."""
    expected = np.round(np.array(to_rgb(colour)) * 255)
    return float((pixels == expected).all(-1).mean())


def inches(count):
    return round(count * figures.DOTS_PER_INCH)


def panels(pixels, count, rows=1):
    """Cut out the insides of the square panels of the first rows."""
    side, margin, found = examples.PANEL_WIDTH, examples.MARGIN, []
    for row in range(rows):
        above = margin / 2 + row * (examples.ROW_TITLE + examples.PANEL_TITLE + side + examples.GAP)
        top = above + examples.ROW_TITLE + examples.PANEL_TITLE
        for column in range(count):
            left = margin + column * (side + examples.GAP)
            inside = slice(inches(top + 0.03), inches(top + side - 0.03))
            found.append(pixels[inside, inches(left + 0.03) : inches(left + side - 0.03)])
    return found


class TestComparisonFigure:
    def test_shows_truth_predictions_and_where_they_differ(self, tmp_path):
        truth, most, ours, verdict = panels(draw(tmp_path / "x.png", EXAMPLE), 4)
        dark, liver, kidney = BACKGROUND_COLOUR, *CLASS_COLOURS[:2]
        for panel, shares in (
            (truth, {dark: 1 / 4, liver: 1 / 2, kidney: 1 / 4}),
            (most, {dark: 1 / 2, liver: 1 / 2, kidney: 0}),
            (ours, {dark: 3 / 4, liver: 1 / 4, kidney: 0}),
            # same and right; RankSEG right; argmax right; both wrong in different ways
            (verdict, dict.fromkeys((examples.VERDICT_COLOURS[i] for i in (0, 2, 3, 4)), 1 / 4)),
        ):
            for colour, expected in shares.items():
                assert share(panel, colour) == pytest.approx(expected, abs=0.01)
        top_left = verdict[: len(verdict) // 3, : len(verdict) // 3]
        assert share(top_left, examples.VERDICT_COLOURS[examples.BOTH_RIGHT]) == 1
        top_right = verdict[: len(verdict) // 3, -len(verdict) // 3 :]
        assert share(top_right, examples.VERDICT_COLOURS[examples.LAST_RIGHT]) == 1

    def test_ignored_pixels_have_no_verdict(self, tmp_path):
        truth = np.where(TRUTH == 2, 255, TRUTH)
        example = Example("void", truth, EXAMPLE.predictions)
        shown = panels(draw(tmp_path / "x.png", example, ignore_index=255), 4)
        assert share(shown[0], "#FFFFFF") == pytest.approx(1 / 4, abs=0.01)
        assert share(shown[3], IGNORED_COLOUR) == pytest.approx(1 / 4, abs=0.01)
        assert share(shown[3], examples.VERDICT_COLOURS[examples.BOTH_WRONG]) == 0

    def test_same_errors_are_told_from_same_successes(self, tmp_path):
        example = Example("same", TRUTH, {"argmax": ARGMAX, "RankSEG": ARGMAX})
        verdict = panels(draw(tmp_path / "x.png", example), 4)[3]
        for kind in (examples.BOTH_RIGHT, examples.SAME_ERROR):
            assert share(verdict, examples.VERDICT_COLOURS[kind]) == pytest.approx(1 / 2, abs=0.01)

    def test_an_image_gets_a_panel_of_its_own(self, tmp_path):
        image = np.zeros((16, 16, 3), np.uint8)
        image[:8] = 200, 30, 90
        photo = Example("photo", TRUTH, EXAMPLE.predictions, image)
        without = draw(tmp_path / "x.png", EXAMPLE)
        pixels = draw(tmp_path / "y.png", photo)
        wider = examples.PANEL_WIDTH + examples.GAP
        assert pixels.shape[1] - without.shape[1] == pytest.approx(inches(wider), abs=1)
        shown = panels(pixels, 5)
        assert share(shown[0], "#C81E5A") == pytest.approx(1 / 2, abs=0.01)
        assert share(shown[1], CLASS_COLOURS[0]) == pytest.approx(1 / 2, abs=0.01)

    def test_a_row_without_an_image_leaves_its_place_empty(self, tmp_path):
        photo = Example("photo", TRUTH, EXAMPLE.predictions, np.full((16, 16), 0.5))
        shown = panels(draw(tmp_path / "x.png", photo, EXAMPLE), 5, rows=2)
        assert share(shown[0], "#808080") > 0.99
        assert share(shown[5], "#FFFFFF") == 1
        assert share(shown[6], CLASS_COLOURS[0]) == pytest.approx(1 / 2, abs=0.01)

    def test_rows_stand_below_each_other(self, tmp_path):
        one, two = draw(tmp_path / "x.png", EXAMPLE), draw(tmp_path / "y.png", EXAMPLE, EXAMPLE)
        assert two.shape[1] == one.shape[1]
        row = examples.ROW_TITLE + examples.PANEL_TITLE + examples.PANEL_WIDTH + examples.GAP
        assert two.shape[0] - one.shape[0] == pytest.approx(inches(row), abs=1)
        shown = panels(two, 4, rows=2)
        for above, below in zip(shown[:4], shown[4:], strict=True):
            assert share(above, CLASS_COLOURS[0]) == pytest.approx(
                share(below, CLASS_COLOURS[0]), abs=0.01
            )

    def test_of_a_volume_the_slice_that_differs_most_is_shown(self, tmp_path):
        truth = np.zeros((5, 16, 16), int)
        ours = truth.copy()
        truth[1] = 2
        ours[1] = 2
        ours[1, :2] = 1
        ours[3, :4] = 1
        volume = Example("volume", truth, {"argmax": 0 * truth, "RankSEG": ours})
        assert "slice 1 of 5" in examples._most_different_slice(volume, None).title
        # Where there is no truth no method is right, and only slice 3 is left.
        truth[1] = 255
        chosen = examples._most_different_slice(volume, 255)
        assert chosen.title == "volume, slice 3 of 5"
        pixels = draw(tmp_path / "x.png", volume, ignore_index=255)
        assert share(panels(pixels, 4)[2], CLASS_COLOURS[0]) == pytest.approx(0.25, abs=0.01)

    def test_a_volume_without_differences_shows_where_something_is(self):
        truth = np.zeros((4, 6, 6), int)
        truth[2, 2:4] = 1
        volume = Example("volume", truth, {"argmax": truth, "RankSEG": truth})
        assert examples._most_different_slice(volume, None).title == "volume, slice 2 of 4"

    def test_a_narrow_picture_has_its_panels_in_several_lines(self, tmp_path):
        title = "a long title of four blocks that does not fit in a line of a narrow picture"
        example = Example(title, TRUTH, EXAMPLE.predictions)
        pixels = draw(tmp_path / "x.png", example, width=3.6)
        assert pixels.shape[1] == inches(3.6)
        side = (3.6 - 2 * examples.MARGIN + examples.GAP) / 2 - examples.GAP
        assert pixels.shape[0] > inches(2 * side)
        kidney = (pixels == np.round(np.array(to_rgb(CLASS_COLOURS[1])) * 255)).all(-1).sum()
        assert kidney >= 0.95 * inches(side) ** 2 / 4  # of the truth alone

    def test_a_class_called_like_a_verdict_keeps_its_colour(self):
        names = ("background", "ignored", "same, right")
        classes, _ = examples._entries([EXAMPLE], names, None)
        assert [name for name, _ in classes] == list(names)

    def test_a_signal_is_drawn_as_a_strip(self, tmp_path):
        truth = np.array([0, 1, 1, 0])
        signal = Example("signal", truth, {"argmax": truth, "RankSEG": truth})
        assert share(draw(tmp_path / "x.png", signal), CLASS_COLOURS[0]) > 0.01

    @pytest.mark.parametrize("odd", ["$x_{$", "$", "a_b", "{", "_a", "结\udcff\x1b"])
    def test_names_are_no_mathematics(self, tmp_path, odd):
        example = Example(odd, TRUTH, {f"1{odd}": ARGMAX, f"2{odd}": RANKSEG})
        draw(tmp_path / "x.png", example, classes=(f"1{odd}", f"2{odd}", f"3{odd}"))

    def test_what_does_not_fit_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="at least two"):
            Example("x", TRUTH, {"argmax": ARGMAX})
        with pytest.raises(ValueError, match="shape of truth"):
            Example("x", TRUTH, {"argmax": ARGMAX, "RankSEG": RANKSEG[:8]})
        with pytest.raises(ValueError, match="height and width"):
            Example("x", TRUTH, EXAMPLE.predictions, np.zeros((8, 16, 3)))
        with pytest.raises(ValueError, match="at least one"):
            comparison_figure(tmp_path / "x.png", [], CLASSES)
        other = Example("x", TRUTH, {"argmax": ARGMAX, "other": RANKSEG})
        with pytest.raises(ValueError, match="same methods"):
            comparison_figure(tmp_path / "x.png", [EXAMPLE, other], CLASSES)
        assert not list(tmp_path.iterdir())


class TestFiles:
    def test_an_old_picture_stays_until_the_new_one_is_whole(self, tmp_path, monkeypatch):
        draw(tmp_path / "x.png", EXAMPLE)
        before = (tmp_path / "x.png").read_bytes()
        monkeypatch.setattr(_files.os, "replace", lambda source, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            draw(tmp_path / "x.png", EXAMPLE, EXAMPLE)
        assert [file.name for file in tmp_path.iterdir()] == ["x.png"]
        assert (tmp_path / "x.png").read_bytes() == before

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            comparison_figure(tmp_path / "missing" / "x.png", [EXAMPLE], CLASSES)


class TestMatplotlib:
    def test_is_loaded_late_and_without_pyplot(self, tmp_path):
        program = (
            "import sys, numpy as np\n"
            "from rankseg.plots import Example, comparison_figure\n"
            "assert 'matplotlib' not in sys.modules\n"
            "x = np.eye(4, dtype=int)\n"
            "example = Example('eye', x, dict(a=x, b=x))\n"
            f"comparison_figure({str(tmp_path / 'x.png')!r}, [example], 'ab')\n"
            "assert 'matplotlib' in sys.modules\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        assert imread(tmp_path / "x.png").shape[0] > 100

    @pytest.mark.parametrize("module", ["matplotlib", "matplotlib.figure"])
    def test_says_what_to_install(self, tmp_path, monkeypatch, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=r"pip install 'rankseg\[cli\]'"):
            comparison_figure(tmp_path / "x.png", [EXAMPLE], CLASSES)


def row_of(*foreground):
    """One class on a strip of ten pixels: the probability of those in the foreground is 0.9."""
    return torch.tensor([[0.9 if i in foreground else 0.1 for i in range(10)]])


class TestGainAndLoss:
    METHODS = (Method("argmax", argmax), Method("all but 0.1", lambda probs: probs > 0.05))

    def compare(self, *labels, probs=row_of(0, 1), **options):  # noqa: B008
        cases = {
            f"case {i}": Case(f"case {i}", probs, torch.tensor(label))
            for i, label in enumerate(labels)
        }
        comparison = compare(cases.values(), self.METHODS)
        return gain_and_loss(comparison, self.METHODS, cases.__getitem__, **options)

    def test_finds_the_two_ends(self):
        few, half, most = [1, 1] + [0] * 8, [1] * 5 + [0] * 5, [1] * 9 + [0]
        gain, loss = self.compare(half, most, few, half)
        # Nine of ten pixels: Dice of two pixels 4/11, of all ten 18/19.
        assert gain.title == "Largest gain: case 1, mean Dice argmax 36.4, all but 0.1 94.7"
        # Two of ten: of two pixels 1, of all ten 4/12.
        assert loss.title == "Largest loss: case 2, mean Dice argmax 100.0, all but 0.1 33.3"
        assert gain.truth.tolist() == most
        assert gain.predictions["argmax"].tolist() == few
        assert gain.predictions["all but 0.1"].tolist() == [1] * 10

    def test_finds_a_loss_smaller_than_the_gain(self):
        three = [1, 1, 1] + [0] * 7  # of two pixels 4/5, of all ten 6/13
        gain, loss = self.compare([1] * 10, three)
        assert gain.title.endswith("case 0, mean Dice argmax 33.3, all but 0.1 100.0")
        assert loss.title.endswith("case 1, mean Dice argmax 80.0, all but 0.1 46.2")

    def test_shows_no_loss_where_there_is_none(self):
        (gain,) = self.compare([1] * 10, [1] * 9 + [0])
        assert gain.title.startswith("Largest gain: case 0")

    def test_a_false_mask_where_nothing_is_can_be_the_loss(self):
        _, loss = self.compare([0] * 10, [1] * 10, probs=row_of(), counted="either")
        assert loss.title == "Largest loss: case 0, mean Dice argmax -, all but 0.1 0.0"
        (gain,) = self.compare([0] * 10, [1] * 10, probs=row_of(), counted="label")
        assert gain.title.startswith("Largest gain: case 1")

    def test_shows_a_tie_if_there_is_nothing_else(self):
        methods = (self.METHODS[0], Method("same", argmax))
        case = Case("only", row_of(3), torch.tensor([1] + [0] * 9))
        (tie,) = gain_and_loss(compare([case], methods), methods, lambda name: case)
        assert tie.title.startswith("No case differs: only")

    @pytest.mark.filterwarnings("ignore:the likeliest classes of the maps are 1")  # made up
    def test_takes_the_image_of_the_case_and_shortens_its_name(self, tmp_path):
        name = "5" * 64
        probs = torch.rand(3, 8, 8).softmax(0)
        case = Case(name, probs, probs.argmin(0))
        methods = (Method("argmax", argmax), Method("argmin", lambda probs: probs.argmin(1)))
        image = np.zeros((8, 8, 3), np.uint8)
        (gain,) = gain_and_loss(
            compare([case], methods), methods, lambda _: case, metric="iou", images={name: image}
        )
        assert gain.image is image
        assert gain.title == f"Largest gain: {name[:24]}..., mean IoU argmax 0.0, argmin 100.0"
        comparison_figure(Path(tmp_path) / "x.png", [gain], ["a", "b", "c"])
