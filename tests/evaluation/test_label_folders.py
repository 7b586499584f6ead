"""Folders of label maps: which file is scored, and how predictions lie on the truth."""

from __future__ import annotations

import itertools
import shutil
import warnings

import numpy as np
import pytest

from rankseg.evaluation import evaluate
from rankseg.prediction import predict_files

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
image_module = pytest.importorskip("PIL.Image", reason="needs pillow")

VOXELS = np.random.default_rng(0).integers(0, 3, (7, 8, 5)).astype(np.uint8)
FLAT = VOXELS[..., 0]
AFFINE = np.array([[0.8, 0, 0.1, 5], [0, 1.2, 0, -7], [-0.1, 0, 2.5, 30], [0, 0, 0, 1.0]])
SCORES = np.random.default_rng(0).random((3, *FLAT.shape), np.float32)


@pytest.fixture
def folders(tmp_path):
    for name in ("ours", "truth"):
        (tmp_path / name).mkdir()
    return tmp_path / "ours", tmp_path / "truth"


def save_nifti(path, voxels, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def save_png(path, labels):
    image_module.fromarray(labels).save(path)


def dice(folders):
    ours, truth = folders
    return evaluate({"ours": ours}, truth, classes=3).by_class("ours").tolist()


def reason(folders):
    """Return why the only case is not scored."""
    with pytest.raises(ValueError, match="no case could be scored, of 1 given") as error:
        dice(folders)
    return str(error.value)


class TestTwoFiles:
    @pytest.mark.parametrize(
        ("name", "save"),
        [
            ("a.npz", lambda path: np.savez(path, probabilities=SCORES)),
            ("a.npz", lambda path: np.savez(path, softmax=SCORES)),
            ("a.npy", lambda path: np.save(path, SCORES)),
            ("a.tif", lambda path: tifffile.imwrite(path, SCORES, photometric="minisblack")),
            ("a.zarr", lambda path: zarr.save_array(path, SCORES)),
            ("a.nii.gz", lambda path: save_nifti(path, SCORES)),
        ],
    )
    def test_scores_beside_labels_are_left_out(self, folders, name, save):
        for folder in folders:
            save_png(folder / "a.png", FLAT)
            save(folder / name)
        assert dice(folders) == [1, 1, 1]

    @pytest.mark.parametrize(
        ("one", "other"),
        list(itertools.combinations(["a.png", "a.npy", "a.npz", "a.tif", "a.tiff", "a.nii"], 2)),
    )
    @pytest.mark.parametrize("side", [0, 1])
    def test_two_files_of_labels_are_named(self, folders, one, other, side):
        save = {
            ".png": save_png,
            ".npy": np.save,
            ".npz": lambda path, labels: np.savez(path, label=labels, probs=SCORES),
            ".tif": tifffile.imwrite,
            ".tiff": tifffile.imwrite,
            ".nii": save_nifti,
        }
        np.save(folders[1 - side] / "a.npy", FLAT)
        for name in (one, other):
            path = folders[side] / name
            save[path.suffix](path, FLAT)
        told = reason(folders)
        assert "several files hold its labels" in told
        assert str(folders[side] / one) in told
        assert str(folders[side] / other) in told

    def test_a_damaged_file_beside_another_is_no_score(self, folders):
        np.save(folders[1] / "a.npy", FLAT)
        np.save(folders[0] / "a.npy", FLAT)
        (folders[0] / "a.png").write_bytes(b"nothing")
        assert "ours/a.png cannot be read as .png" in reason(folders)

    def test_scores_alone_are_told(self, folders):
        np.save(folders[1] / "a.npy", FLAT)
        np.savez(folders[0] / "a.npz", probabilities=SCORES)
        assert "a.npz cannot be read as .npz: it holds scores, not labels" in reason(folders)

    @pytest.mark.parametrize("labels", [FLAT.astype("f4"), np.where(FLAT, FLAT, np.nan)])
    @pytest.mark.parametrize("side", [0, 1])
    def test_labels_stored_as_floating_numbers_are_named(self, folders, labels, side):
        for folder in folders:
            save_png(folder / "a.png", FLAT)
        np.save(folders[side] / "a.npy", labels)
        told = reason(folders)
        assert f"{folders[side] / 'a.npy'} cannot be read as .npy: labels must be" in told
        assert f"got torch.{labels.dtype} of whole numbers: store labels.astype" in told

    @pytest.mark.parametrize("name", ["b.gif", "b.bmp", "b.jpg"])
    @pytest.mark.parametrize("side", [0, 1])
    def test_formats_that_are_not_read_are_named(self, folders, name, side):
        for folder in folders:
            save_png(folder / "a.png", FLAT)
            save_png(folder / "b.png", FLAT)
        (folders[side] / name).write_bytes(b"")
        assert evaluate({"ours": folders[0]}, folders[1], classes=3).cases == ("a", "b")
        (folders[side] / "b.png").unlink()  # without it, the other file is that of the case
        comparison = evaluate({"ours": folders[0]}, folders[1], classes=3)
        assert comparison.cases == ("a",)
        (failure,) = comparison.failures
        assert "with an ending of ['.npy', " in failure.reason
        assert str(folders[side] / name) in failure.reason

    def test_the_others_are_scored(self, folders):
        for name in "ab":
            np.save(folders[1] / f"{name}.npy", FLAT)
            np.save(folders[0] / f"{name}.npy", FLAT)
        save_png(folders[0] / "b.png", FLAT)
        comparison = evaluate({"ours": folders[0]}, folders[1], classes=3)
        assert comparison.cases == ("a",)
        assert [failure.name for failure in comparison.failures] == ["b"]


class TestOrientation:
    @pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
    def test_the_same_anatomy_scores_all(self, folders, axes, flips):
        save_nifti(folders[1] / "a.nii.gz", VOXELS)
        image = nibabel.load(folders[1] / "a.nii.gz")
        turned = image.as_reoriented(np.array(list(zip(axes, flips, strict=True))))
        nibabel.save(turned, folders[0] / "a.nii")
        assert dice(folders) == [1, 1, 1]

    def test_other_labels_are_not_turned_right(self, folders):
        save_nifti(folders[1] / "a.nii", VOXELS)
        save_nifti(folders[0] / "a.nii", VOXELS[::-1])
        assert max(dice(folders)) < 0.9

    @pytest.mark.parametrize(
        "change",
        [
            lambda affine: affine * [1, 1, 1.01, 1],  # spacing
            lambda affine: affine + np.array([[0, 0, 0, 0.1]] + [[0] * 4] * 3),  # origin
            lambda affine: np.eye(4),
            lambda affine: (
                nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.01), np.zeros(3))
                @ affine
            ),
        ],
    )
    def test_another_place_is_refused(self, folders, change):
        save_nifti(folders[1] / "a.nii", VOXELS)
        save_nifti(folders[0] / "a.nii", VOXELS, change(AFFINE))
        told = reason(folders)
        assert "ours/a.nii does not fit the truth: its voxels do not lie where" in told
        assert "the affine is [[" in told

    def test_rounding_is_none(self, folders):
        save_nifti(folders[1] / "a.nii", VOXELS)
        save_nifti(folders[0] / "a.nii", VOXELS, AFFINE * (1 + 2e-4) + 1e-3 * (AFFINE > 4))
        assert dice(folders) == [1, 1, 1]

    def test_without_a_place_voxels_are_compared_in_order(self, folders):
        save_nifti(folders[1] / "a.nii", VOXELS)
        np.save(folders[0] / "a.npy", VOXELS)
        assert dice(folders) == [1, 1, 1]
        (folders[0] / "a.npy").unlink()
        save_nifti(folders[0] / "a.nii", VOXELS, None)
        with pytest.warns(UserWarning, match="orientation of the prediction is not known"):
            assert dice(folders) == [1, 1, 1]
        with pytest.warns(UserWarning, match="orientation of the truth is not known"):
            assert dice(folders[::-1]) == [1, 1, 1]
        save_nifti(folders[1] / "a.nii", VOXELS, None)
        assert dice(folders) == [1, 1, 1]

    def test_other_shapes_are_told_as_such(self, folders):
        save_nifti(folders[1] / "a.nii", VOXELS)
        save_nifti(folders[0] / "a.nii", VOXELS[1:])
        assert "of the shape of the truth, (7, 8, 5), got (6, 8, 5)" in reason(folders)


TIE_POINT = (33922, "d", 6, (0, 0, 0, 5e5, 4e6, 0), True)
SCALE = (33550, "d", 3, (10, 10, 0), True)
MATRIX = (34264, "d", 16, (10, 0, 0, 5e5, 0, -10, 0, 4e6, *[0] * 7, 1), True)


def save_geotiff(path, labels, *tags):
    tifffile.imwrite(path, labels, photometric="minisblack", extratags=tags)


class TestPlacesOfTiff:
    @pytest.mark.parametrize(
        "tags",
        [
            (SCALE, TIE_POINT),
            (MATRIX,),
            (SCALE, (33922, "d", 6, (2, 3, 0, 5e5 + 20, 4e6 - 30, 0), True)),  # another pixel
            (SCALE, (33922, "d", 6, (0, 0, 0, 5e5 + 4.9, 4e6, 0), True)),  # less than half a pixel
            (
                SCALE,
                (33922, "d", 6, (0, 0, 0, 5e5 + 5, 4e6 - 5, 0), True),
                (34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 2), True),  # the centre of the first one
            ),
            (SCALE,),  # says nothing of the place
            (),
        ],
    )
    def test_the_same_place_may_be_told_in_other_words(self, folders, tags):
        save_geotiff(folders[1] / "a.tif", FLAT, SCALE, TIE_POINT)
        save_geotiff(folders[0] / "a.tif", FLAT, *tags)
        assert dice(folders) == [1, 1, 1]
        assert dice(folders[::-1]) == [1, 1, 1]

    @pytest.mark.parametrize(
        ("tags", "pixels"),
        [
            ((SCALE, (33922, "d", 6, (0, 0, 0, 5e5 - 80, 4e6, 0), True)), "8 pixels"),
            ((SCALE, (33922, "d", 6, (0, 0, 0, 5e5, 4e6 + 6, 0), True)), "0.6 pixels"),
            (((33550, "d", 3, (10, 20, 0), True), TIE_POINT), "7 pixels"),
            (((33550, "d", 3, (10, -10, 0), True), TIE_POINT), "14 pixels"),  # from south to north
        ],
    )
    def test_another_place_is_refused(self, folders, tags, pixels):
        save_geotiff(folders[1] / "a.tif", FLAT, SCALE, TIE_POINT)
        save_geotiff(folders[0] / "a.tif", FLAT, *tags)
        assert f"its corners are up to {pixels} away. Resample it" in reason(folders)

    def test_other_formats_tell_no_place(self, folders):
        save_geotiff(folders[1] / "a.tif", FLAT, SCALE, TIE_POINT)
        save_png(folders[0] / "a.png", FLAT)
        assert dice(folders) == [1, 1, 1]


class TestAxesOfOne:
    @pytest.mark.parametrize("side", [0, 1])
    def test_they_may_differ(self, folders, side):
        np.save(folders[side] / "a.npy", FLAT[None])
        save_png(folders[1 - side] / "a.png", FLAT)
        assert dice(folders) == [1, 1, 1]
        (folders[side] / "a.npy").unlink()
        save_nifti(folders[side] / "a.nii.gz", FLAT[..., None, None])
        assert dice(folders) == [1, 1, 1]

    def test_turned_images_without_depth(self, folders):
        save_nifti(folders[1] / "a.nii", FLAT)
        save_nifti(folders[0] / "a.nii", FLAT[::-1, :, None], AFFINE @ flip(FLAT.shape[0]))
        assert dice(folders) == [1, 1, 1]


def flip(length):
    """The affine of voxels whose first axis runs the other way."""
    return np.array([[-1, 0, 0, length - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


class TestScaledLabels:
    @staticmethod
    def save(path, stored, slope, inter=0.0):
        image = nibabel.Nifti1Image(stored, AFFINE)
        image.header.set_slope_inter(slope, inter)
        path.write_bytes(image.to_bytes())
        assert nibabel.load(path).dataobj.slope == pytest.approx(slope)

    @pytest.mark.parametrize(("levels", "dtype"), [(255, np.uint8), (32767, np.int16)])
    def test_they_are_rounded(self, folders, levels, dtype):
        slope = 3.3 / levels  # no multiple of it is 1 or 2
        save_nifti(folders[1] / "a.nii", VOXELS)
        self.save(folders[0] / "a.nii", np.rint(VOXELS / slope).astype(dtype), slope)
        assert dice(folders) == [1, 1, 1]
        self.save(folders[0] / "a.nii", np.rint((VOXELS + 1) / slope).astype(dtype), slope, -1)
        assert dice(folders) == [1, 1, 1]

    @pytest.mark.parametrize("slope", [0.909, 0.5, 0.1, 1 / 255])
    def test_other_values_are_refused(self, folders, slope):
        save_nifti(folders[1] / "a.nii", VOXELS)
        self.save(folders[0] / "a.nii", VOXELS + (np.uint8(99) if slope < 0.1 else 0), slope)
        assert "a.nii cannot be read as .nii: labels must be integers" in reason(folders)


class TestMasksOfEachClass:
    @pytest.mark.parametrize("axis", [0, -1])
    @pytest.mark.parametrize("suffix", ["npy", "zarr"])
    def test_they_are_no_volume_of_labels(self, folders, axis, suffix):
        masks = np.moveaxis(np.eye(3, dtype=np.uint8)[FLAT], -1, axis)
        for folder in folders:
            save = np.save if suffix == "npy" else zarr.save_array
            save(folder / f"a.{suffix}", masks)
        told = reason(folders)
        assert "a mask of 0 and 1 for each of 3 classes" in told
        assert f"argmax({-3 if axis == 0 else -1})" in told

    def test_a_volume_with_as_many_slices_as_classes_is_scored(self, folders):
        masks = np.moveaxis(np.eye(3, dtype=np.uint8)[FLAT], -1, 0)
        masks[:, 0, 0] = 0
        masks[:, 1, 1] = 2
        for folder in folders:
            np.save(folder / "a.npy", masks)
        assert dice(folders) == [1, 1, 1]

    @pytest.mark.parametrize("axis", [0, -1])
    def test_those_that_may_overlap_are_told(self, folders, axis):
        masks = np.moveaxis(np.stack([FLAT < 1, FLAT < 2, FLAT > 0]), 0, axis).astype(np.uint8)
        for folder in folders:
            np.save(folder / "a.npy", masks)
        with pytest.warns(UserWarning, match="labels of ours and of the truth hold only 0 and 1"):
            dice(folders)
        np.save(folders[1] / "b.npy", FLAT)  # one label map, and nothing is a mask
        np.save(folders[0] / "b.npy", FLAT)
        dice(folders)

    @pytest.mark.filterwarnings("ignore:.* is no NIfTI")
    @pytest.mark.parametrize("suffix", [".npy", ".tif", ".zarr", ".nii.gz"])
    @pytest.mark.parametrize("classes", [1, 2, 3])
    def test_those_that_predict_wrote_are_refused_but_for_one(self, folders, suffix, classes):
        ours, truth = folders
        np.save(ours.parent / "a.npy", SCORES[:classes])
        predict_files(ours.parent / "a.npy", ours, suffix=suffix, output_mode="multilabel")
        shutil.copytree(ours, truth, dirs_exist_ok=True)
        if classes == 1:
            assert evaluate({"ours": ours}, truth, classes=2).by_class("ours").tolist() == [1, 1]
            return
        told = f"a mask for each of {classes} classes, as rankseg.json beside it says"
        if suffix == ".tif":
            with pytest.warns(UserWarning, match=f"unless its pages are slices .* holds {told}"):
                evaluate({"ours": ours}, truth, classes=2)
            return
        with pytest.raises(ValueError, match=told):
            evaluate({"ours": ours}, truth, classes=2)


@pytest.mark.parametrize("order", [("y", "x"), ("x", "y")])
def test_axes_that_both_files_declare_are_in_one_order(folders, order):
    square = FLAT[:7, :7]
    for folder, names in zip(folders, (order, ("y", "x")), strict=True):
        array = zarr.create_array(
            folder / "a.zarr", shape=square.shape, dtype="u1", dimension_names=names
        )
        array[...] = square
    if order == ("y", "x"):
        assert dice(folders) == [1, 1, 1]
    else:
        assert "in the order of the truth, 'yx', got 'xy': transpose" in reason(folders)


def save_declared(path, labels):
    names = ("y", "x")
    array = zarr.create_array(path, shape=labels.shape, dtype="u1", dimension_names=names)
    array[...] = labels


SQUARE = FLAT[:7, :7]
PICTURES = {"a.png": save_png, "a.tif": tifffile.imwrite, "a.zarr": save_declared}


class TestAxesOfAFormat:
    @pytest.mark.parametrize("name", PICTURES)
    @pytest.mark.parametrize("shape", [(7, 7), (7, 7, 1)])
    @pytest.mark.parametrize("side", [0, 1])
    def test_a_nifti_is_no_picture(self, folders, name, shape, side):
        save_nifti(folders[side] / "a.nii.gz", SQUARE.T.reshape(shape))
        PICTURES[name](folders[1 - side] / name, SQUARE)
        orders = ["xy", "yx"] if side else ["yx", "xy"]
        assert "in the order of the truth, '{}', got '{}'".format(*orders) in reason(folders)

    @pytest.mark.parametrize("name", PICTURES)
    @pytest.mark.parametrize("other", [*PICTURES, "a.npy"])
    def test_pictures_have_one_order(self, folders, name, other):
        PICTURES[name](folders[0] / name, SQUARE)
        (PICTURES | {"a.npy": np.save})[other](folders[1] / other, SQUARE)
        assert dice(folders) == [1, 1, 1]

    @pytest.mark.parametrize("length", [5, 7])
    def test_pages_are_slices(self, folders, length):
        voxels = VOXELS[:5, :5] if length == 5 else VOXELS[:7, :7]
        save_nifti(folders[1] / "a.nii", voxels)
        tifffile.imwrite(folders[0] / "a.tif", voxels, photometric="minisblack")
        if length == 7:  # pages are x, as the lengths tell
            assert dice(folders) == [1, 1, 1]
        else:
            assert "in the order of the truth, 'xyz', got 'zyx'" in reason(folders)


@pytest.mark.parametrize("ome", [True, False])
def test_images_of_one_ome_tiff_are_no_slices(folders, ome):
    for folder in folders:
        with tifffile.TiffWriter(folder / "a.tif", ome=ome) as file:
            for page in (FLAT, FLAT):
                file.write(page, photometric="minisblack", contiguous=False)
    if ome:
        assert "it holds 2 images of one shape (7, 8)" in reason(folders)
    else:
        assert dice(folders) == [1, 1, 1]


def test_a_folder_of_maps_with_their_truth_is_hardly_a_prediction(folders):
    """Scored against itself, the truth would be perfect."""
    ours, truth = folders
    np.savez(ours / "a.npz", label=FLAT, probs=SCORES)
    save_png(truth / "a.png", FLAT)
    with pytest.warns(UserWarning, match="labels beside probabilities in one .npz are the truth"):
        assert dice(folders) == [1, 1, 1]


class TestPalettes:
    """Values are classes, whatever their colours are: another palette may hide a mistake."""

    RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)

    @staticmethod
    def save(path, labels, *colours):
        if path.suffix == ".png":
            image = image_module.fromarray(labels)
            image.putpalette(bytes(np.array(colours, np.uint8)))
            image.save(path)
        else:
            colormap = np.zeros((3, 256), np.uint16)
            colormap[:, : len(colours)] = 257 * np.array(colours).T
            tifffile.imwrite(path, labels, photometric="palette", colormap=colormap)

    @pytest.mark.parametrize("ending", ["png", "tif"])
    @pytest.mark.parametrize("side", [0, 1])
    def test_those_of_one_folder_are_alike(self, folders, ending, side):
        colours = [self.RED, self.GREEN, self.BLUE]
        for folder in folders:
            for name in "abc":
                self.save(folder / f"{name}.{ending}", FLAT, *colours)
        assert dice(folders) == [1, 1, 1]
        self.save(folders[side] / f"c.{ending}", FLAT, self.RED, self.BLUE, self.GREEN)
        whose = ["ours", "the truth"][side]
        told = f"palettes of {whose} give the label 1 different colours, in a and in c"
        with pytest.warns(UserWarning, match=told):
            dice(folders)

    def test_the_truth_has_no_colours_in_another_order(self, folders):
        self.save(folders[0] / "a.png", FLAT, self.RED, self.BLUE, self.GREEN)
        self.save(folders[1] / "a.png", FLAT, self.RED, self.GREEN, self.BLUE)
        with pytest.warns(
            UserWarning, match="palettes of ours and of the truth give the label 1 .* in a and in a"
        ):
            dice(folders)

    def test_other_colours_are_not_told(self, folders):
        """Say those that rankseg predict writes; nor are colours that no pixel has."""
        self.save(folders[0] / "a.png", FLAT, self.WHITE, (9, 9, 9), (8, 8, 8))
        self.save(folders[1] / "a.png", FLAT, self.RED, self.GREEN, self.BLUE, self.WHITE)
        for folder in folders:
            save_png(folder / "b.png", FLAT)
        assert dice(folders) == [1, 1, 1]

    def test_void_may_have_any_colour(self, folders):
        void = np.where(FLAT == 2, 255, FLAT).astype(np.uint8)
        rest = [self.RED, self.GREEN, *[self.BLUE] * 253]
        for name, colour in (("a", self.WHITE), ("b", self.BLUE)):
            self.save(folders[0] / f"{name}.png", FLAT, *rest)
            self.save(folders[1] / f"{name}.png", void, *rest, colour)
        assert dice(folders)[:2] == [1, 1]


class TestLabelsFromOne:
    @staticmethod
    def told(folders, ours, truth, **options):
        for folder, labels in zip(folders, (ours, truth), strict=True):
            np.save(folder / "a.npy", labels)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            evaluate({"ours": folders[0]}, folders[1], classes=4, **options)
        return [str(one.message) for one in told]

    @pytest.mark.parametrize("most", [1, 2])
    def test_they_are_told_on_both_sides(self, folders, most):
        labels = FLAT.clip(0, most)
        values = "0 and 1", "1 and 2"
        if most == 2:
            values = "0, 1 and 2", "1, 2 and 3"
        (told,) = self.told(folders, labels + 1, labels)
        assert told == (
            f"labels of ours are {values[1]}, those of the truth {values[0]}: "
            "if labels of ours count from 1, subtract 1"
        )
        (told,) = self.told(folders, labels, labels + 1)
        assert "if labels of the truth count from 1" in told

    def test_rare_classes_may_be_missed(self, folders):
        (told,) = self.told(folders, 1 + FLAT, np.arange(56).reshape(7, 8) % 4)
        assert "count from 1" in told

    @pytest.mark.parametrize(
        ("ours", "truth"),
        [
            (FLAT, FLAT),
            (FLAT.clip(1), FLAT),  # no background is predicted
            (FLAT * 0, FLAT * 0 + 1),
            (FLAT * 0 + 1, FLAT.clip(0, 1)),
            (FLAT + 1, FLAT + 1),
            (FLAT, np.where(FLAT == 2, 255, FLAT)),
            (FLAT.clip(0, 1) * 2, FLAT),
        ],
    )
    def test_others_say_nothing(self, folders, ours, truth):
        assert self.told(folders, ours, truth) == []

    def test_where_0_does_not_count_pixels_tell(self, folders):
        """ADE20K: networks give 0 to 149, label maps are 1 to 150, and 0 is void."""
        void = np.where(np.arange(56).reshape(7, 8) % 9, FLAT + 1, 0)
        (told,) = self.told(folders, FLAT, void, ignore_index=0)
        assert told == (
            "labels of ours are 1 less than the true labels at 100% of 49 sampled pixels that "
            "count, and equal at 0%: if one side counts from 1, number both alike"
        )
        (told,) = self.told(folders, FLAT + 1, FLAT, ignore_index=0)
        assert "are 1 more than the true labels at 100%" in told

    def test_nor_do_right_labels_where_0_does_not_count(self, folders):
        wrong = (FLAT + (np.arange(56).reshape(7, 8) % 4 == 0)) % 3 + 1
        for ours in (FLAT + 1, wrong, FLAT * 0 + 1):
            assert self.told(folders, ours, FLAT + 1, ignore_index=0) == []
