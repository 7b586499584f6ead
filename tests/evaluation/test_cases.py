"""Labelled maps in files: which pixels count, axes, classes, and what is read when."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from rankseg.calibration import fit, reliability
from rankseg.evaluation import (
    Case,
    CaseFolder,
    Failure,
    cases,
    compare,
    evaluate,
    read_case,
    standard_methods,
)
from support.maps import labelled

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

HOLE = (slice(2, 9), slice(5, 20))
NODATA_TAG = 42113


@pytest.fixture
def folders(tmp_path):
    """Four maps as npy, labels as npy, and masks that are 0 in a hole."""
    for name in ("maps", "labels", "valid"):
        (tmp_path / name).mkdir()
    for seed in range(4):
        probs, label = labelled(seed)
        valid = np.ones(label.shape, bool)
        valid[HOLE] = False
        np.save(tmp_path / "maps" / f"{seed}.npy", probs)
        np.save(tmp_path / "labels" / f"{seed}.npy", label)
        np.save(tmp_path / "valid" / f"{seed}.npy", valid)
    return tmp_path


def strip(seed):
    """The maps and labels of a case outside of the hole, pixel by pixel."""
    probs, label = labelled(seed)
    valid = np.ones(label.shape, bool)
    valid[HOLE] = False
    return probs[:, valid], label[valid]


def save_tiff(path, array, nodata, **options):
    tags = [(NODATA_TAG, "s", 0, str(nodata), True)]
    tifffile.imwrite(path, array, photometric="minisblack", extratags=tags, **options)


def test_cases_are_read_one_by_one_and_again(folders, monkeypatch):
    found = cases(folders / "maps", folders / "labels")
    assert (found.names, found.ignore_index) == (("0", "1", "2", "3"), 255)
    read = []
    inner = type(found).read
    monkeypatch.setattr(
        type(found), "read", lambda *args, **kw: read.append(args[1]) or inner(*args, **kw)
    )
    first = iter(found)
    assert next(first).name == "0"
    assert read == ["0"]
    for _ in range(2):
        for seed, case in enumerate(found):
            probs, label = labelled(seed)
            assert np.array_equal(case.probs.numpy(), probs)
            assert np.array_equal(case.label.numpy(), label)
            assert case.valid is None


def test_a_folder_made_by_hand_names_classes(tmp_path):
    probs, label = labelled(0)
    np.savez(tmp_path / "a.npz", probs=probs, label=label)
    folder = CaseFolder(tmp_path, ("a",))
    assert folder.name_classes() == ("class 0", "class 1", "class 2", "class 3")
    assert [case.name for case in folder] == ["a"]
    with pytest.raises(ValueError, match="there are no maps of 'b', only of a"):
        folder.read("b")


def test_a_meta_file_in_capitals_is_refused(folders):
    (folders / "maps" / "Meta.json").write_text('{"ignore_index": 2}')
    with pytest.raises(ValueError, match=r"Meta\.json must be called meta\.json to be read"):
        cases(folders / "maps", folders / "labels")


def test_a_file_that_breaks_a_library_is_a_failure(folders):
    (folders / "maps" / "0.npy").write_bytes(b"nothing")
    (folders / "labels" / "1.npy").unlink()
    found = list(cases(folders / "maps", folders / "labels"))
    assert [type(case) for case in found] == [Failure, Failure, Case, Case]
    assert "labels holds no file of this name" in found[1].reason


class TestPixelsWithoutData:
    def expect(self, found):
        for seed, case in enumerate(found):
            probs, label = strip(seed)
            assert np.array_equal(case.probs.numpy(), probs)
            assert np.array_equal(case.label.numpy(), label)
            assert not case.valid[HOLE].any()
            assert case.valid.sum() == len(label)
        assert seed == 3

    def test_by_masks(self, folders):
        self.expect(cases(folders / "maps", folders / "labels", valid=folders / "valid"))

    def test_by_nan(self, folders):
        for seed in range(4):
            probs = labelled(seed)[0]
            probs[(slice(None), *HOLE)] = np.nan
            np.save(folders / "maps" / f"{seed}.npy", probs)
        with pytest.warns(UserWarning, match=r"\d: 21.88% of the pixels are NaN in all classes"):
            self.expect(cases(folders / "maps", folders / "labels"))

    @pytest.mark.parametrize("nodata", [-9999, "nan", -3.4028234663852886e38])
    def test_by_the_nodata_value_of_maps(self, folders, nodata):
        for seed in range(4):
            probs = labelled(seed)[0].astype(np.float32)
            probs[(slice(None), *HOLE)] = nodata
            (folders / "maps" / f"{seed}.npy").unlink()
            save_tiff(folders / "maps" / f"{seed}.tif", probs, nodata, planarconfig="separate")
        self.expect(cases(folders / "maps", folders / "labels"))

    def test_by_the_nodata_value_of_labels(self, folders):
        for seed in range(4):
            label = labelled(seed)[1]
            label[HOLE] = 99
            (folders / "labels" / f"{seed}.npy").unlink()
            save_tiff(folders / "labels" / f"{seed}.tif", label, 99)
        self.expect(cases(folders / "maps", folders / "labels", ignore_index=None))
        # Pixels without a label are decided all the same, as ignored ones are.
        for seed, case in enumerate(cases(folders / "maps", folders / "labels", ignore_index=7)):
            probs, label = labelled(seed)
            label[HOLE] = 7
            assert np.array_equal(case.probs.numpy(), probs)
            assert np.array_equal(case.label.numpy(), label)

    @pytest.mark.filterwarnings("default::UserWarning")
    def test_a_nodata_value_that_is_a_class_counts(self, folders):
        for seed in range(4):
            (folders / "labels" / f"{seed}.npy").unlink()
            save_tiff(folders / "labels" / f"{seed}.tif", labelled(seed)[1], 0)
        with pytest.warns(UserWarning, match=r"nodata value 0 of label maps is a class"):
            found = list(cases(folders / "maps", folders / "labels"))
        for seed, case in enumerate(found):
            assert np.array_equal(case.label.numpy(), labelled(seed)[1])

    def test_a_nodata_value_that_is_a_probability_counts(self, tmp_path):
        probs = np.zeros((20, 24), np.float32)
        probs[5:] = 0.75
        save_tiff(tmp_path / "a.tif", probs, 0)
        (tmp_path / "labels").mkdir()
        np.save(tmp_path / "labels" / "a.npy", (probs > 0.5).astype(np.uint8))
        with pytest.warns(UserWarning, match="nodata value 0 is a probability, too"):
            (case,) = cases(tmp_path / "a.tif", tmp_path / "labels")
        assert case.probs.numel() == probs.size

    def test_a_case_without_data_is_a_failure(self, folders):
        np.save(folders / "valid" / "2.npy", np.zeros((20, 24), np.uint8))
        found = list(cases(folders / "maps", folders / "labels", valid=folders / "valid"))
        assert "no pixel has data" in found[2].reason

    def test_pixels_of_which_some_classes_are_nan_are_refused(self, folders):
        probs = labelled(0)[0]
        probs[0, 0, 0] = np.nan
        np.save(folders / "maps" / "0.npy", probs)
        found = cases(folders / "maps", folders / "labels")
        (failure,) = compare(found, standard_methods(metrics=["dice"])).failures
        assert "probs must be finite" in failure.reason

    def test_nothing_else_changes(self, folders):
        found = cases(folders / "maps", folders / "labels", valid=folders / "valid")
        plain = [Case(str(seed), *map(torch.from_numpy, strip(seed))) for seed in range(4)]
        plain = [Case(case.name, case.probs, case.label.long()) for case in plain]
        ours, theirs = (compare(one, standard_methods()) for one in (found, plain))
        assert ours.summary()["methods"].keys() == theirs.summary()["methods"].keys()
        for method in ours.methods:
            assert torch.equal(ours.scores(method), theirs.scores(method))
        assert fit(found).scale == fit(plain).scale
        assert reliability(found).nll == reliability(plain).nll

    def test_images_of_pixels(self):
        valid = torch.tensor([[True, False], [False, True]])
        case = Case("a", torch.tensor([[0.25, 0.5]]), torch.tensor([0, 1]), valid)
        assert case.image(case.label, -1).tolist() == [[0, -1], [-1, 1]]
        whole = Case("a", torch.tensor([[0.25, 0.5]]), torch.tensor([0, 1]))
        assert whole.image(whole.label, -1).tolist() == [0, 1]
        with pytest.raises(ValueError, match="must hold the 1 valid pixels alone"):
            Case("a", case.probs, case.label, torch.tensor([True, False]))

    def test_evaluate_leaves_out_the_nodata_value_of_the_truth(self, tmp_path):
        (tmp_path / "ours").mkdir()
        (tmp_path / "truth").mkdir()
        label = labelled(0)[1]
        np.save(tmp_path / "ours" / "a.npy", label)
        marked = label.copy()
        marked[HOLE] = 99
        save_tiff(tmp_path / "truth" / "a.tif", marked, 99)
        told = evaluate({"ours": tmp_path / "ours"}, tmp_path / "truth", classes=4)
        assert int(told.counts["ours"].tp.sum()) == label.size - label[HOLE].size
        assert int(told.counts["ours"].fp.sum()) == 0


class TestFormats:
    def test_logits_of_one_class(self, tmp_path):
        logits = np.random.default_rng(0).normal(0, 3, (1, 9, 8)).astype(np.float16)
        np.savez(tmp_path / "a.npz", logits=logits, label=np.eye(9, 8, dtype=np.uint8))
        (case,) = cases(tmp_path, from_logits="sigmoid")
        assert case.probs.dtype == torch.float32
        assert torch.equal(case.probs, torch.from_numpy(logits).float().sigmoid())

    def test_logits_that_are_not_finite(self, tmp_path):
        logits = np.zeros((2, 9, 8), np.float32)
        logits[1, 0, 0] = np.inf
        np.savez(tmp_path / "a.npz", logits=logits, label=np.eye(9, 8, dtype=np.uint8))
        (failure,) = cases(tmp_path, from_logits="softmax")
        assert "logits must be finite, got 1 values" in failure.reason

    def test_maps_and_label_in_one_zarr(self, tmp_path):
        probs, label = labelled(0)
        zarr.save_group(tmp_path / "a.zarr", probs=probs, label=label)
        case = read_case(tmp_path / "a.zarr")
        assert np.array_equal(case.probs.numpy(), probs)
        assert np.array_equal(case.label.numpy(), label)
        assert cases(tmp_path).names == cases(tmp_path / "a.zarr").names == ("a",)

    def test_an_array_by_its_name(self, folders):
        probs, label = labelled(7)
        (folders / "one").mkdir()
        np.savez(folders / "one" / "0.npz", probs=1 - probs, ours=probs, label=label)
        (case,) = cases(folders / "one", key="ours")
        assert np.array_equal(case.probs.numpy(), probs)

    def test_geotiffs_that_lie_elsewhere(self, tmp_path):
        probs, label = labelled(0)
        (tmp_path / "labels").mkdir()
        for name, array, x in (
            ("a.tif", probs.astype(np.float32), 0.0),
            ("labels/a.tif", label, 9),
        ):
            tags = [
                (33550, "d", 3, (1.0, 1.0, 0.0), True),
                (33922, "d", 6, (0.0, 0.0, 0.0, float(x), 0.0, 0.0), True),
            ]
            more = {"planarconfig": "separate"} if array.ndim > 2 else {}
            tifffile.imwrite(
                tmp_path / name, array, photometric="minisblack", extratags=tags, **more
            )
        (failure,) = cases(tmp_path / "a.tif", tmp_path / "labels")
        assert "its pixels do not lie where those of the maps do" in failure.reason

    def test_a_square_nifti_beside_a_square_picture(self, tmp_path):
        probs, label = labelled(0, shape=(12, 12))
        image = nibabel.Nifti1Image(np.moveaxis(probs.astype(np.float32), 0, -1)[:, :, None], None)
        nibabel.save(image, tmp_path / "a.nii.gz")
        (tmp_path / "labels").mkdir()
        Image.fromarray(label).save(tmp_path / "labels" / "a.png")
        (failure,) = cases(tmp_path / "a.nii.gz", tmp_path / "labels")
        assert "its axes must be in the order of the maps, 'xy', got 'yx'" in failure.reason


class TestNnunet:
    def save(self, folder, probs, stuff):
        (folder / "maps").mkdir()
        (folder / "labels").mkdir()
        np.savez(folder / "maps" / "a.npz", probabilities=probs)
        (folder / "maps" / "a.pkl").write_bytes(pickle.dumps(stuff))

    def test_pictures(self, tmp_path):
        probs, label = labelled(0)
        self.save(tmp_path, probs[:, None], {"spacing": (999, 1, 1)})
        Image.fromarray(label).save(tmp_path / "labels" / "a.png")
        (case,) = cases(tmp_path / "maps", tmp_path / "labels")
        assert np.array_equal(case.probs[:, 0].numpy(), probs.astype(np.float32))
        assert np.array_equal(case.label[0].numpy(), label)

    def test_places_by_a_pkl(self, tmp_path):
        probs, label = labelled(0, 3, (5, 9, 8))
        stuff = {"spacing": (1.0, 1.0, 2.0), "direction": np.eye(3).ravel(), "origin": (0, 0, 0)}
        self.save(tmp_path, probs, {"sitk_stuff": stuff})
        affine = np.diag([-1.0, -1, 2, 1])
        turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(label.T, affine))
        nibabel.save(turned, tmp_path / "labels" / "a.nii.gz")
        (case,) = cases(tmp_path / "maps", tmp_path / "labels")
        assert np.array_equal(case.probs.numpy(), np.moveaxis(probs.astype(np.float32).T, -1, 0))
        assert np.array_equal(case.label.numpy(), label.T)

    def test_a_label_map_that_does_not_tell_its_place(self, tmp_path):
        probs, label = labelled(0, 3, (5, 9, 8))
        self.save(tmp_path, probs, {})
        own = nibabel.Nifti1Image(label.T, None)
        nibabel.save(own, tmp_path / "maps" / "a.nii.gz")
        truth = nibabel.Nifti1Image(label.T, np.diag([1.0, 1, 2, 1]))
        nibabel.save(truth, tmp_path / "labels" / "a.nii.gz")
        with pytest.warns(UserWarning, match="the orientation of the maps is not known"):
            (case,) = cases(tmp_path / "maps", tmp_path / "labels")
        assert np.array_equal(case.label.numpy(), label.T)

    def test_labels_that_lie_elsewhere(self, tmp_path):
        probs, label = labelled(0, 3, (5, 9, 8))
        stuff = {"spacing": (1.0, 1.0, 2.0), "direction": np.eye(3).ravel(), "origin": (0, 0, 0)}
        self.save(tmp_path, probs, {"sitk_stuff": stuff})
        image = nibabel.Nifti1Image(label.T, np.diag([1.0, 1, 2, 1]))
        nibabel.save(image, tmp_path / "labels" / "a.nii.gz")
        (failure,) = cases(tmp_path / "maps", tmp_path / "labels")
        assert "its voxels do not lie where those of the maps do" in failure.reason

    def test_labels_with_gaps(self, tmp_path):
        probs, label = labelled(0, 3, (5, 9, 8))
        self.save(tmp_path, probs, {})
        np.save(tmp_path / "labels" / "a.npy", label)
        content = {"labels": {"background": 0, "organ": 2}}
        (tmp_path / "maps" / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="must be numbered from 0 without gaps"):
            cases(tmp_path / "maps", tmp_path / "labels")
