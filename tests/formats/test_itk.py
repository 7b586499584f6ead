"""MetaImage and NRRD volumes, against SimpleITK itself and against NIfTI."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg._formats import read_label_file, read_labels, read_maps, write_labels
from rankseg.evaluation import cases
from rankseg.prediction import predict_files
from support.frameworks import framework

sitk = framework("SimpleITK")
nibabel = pytest.importorskip("nibabel")

SIZE = (5, 4, 3)  # x, y, z
ORIGIN, SPACING = (-20.0, 31.0, 7.0), (0.5, 0.7, 2.5)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
SUFFIXES = [".mha", ".nrrd"]


@pytest.fixture
def maps():
    """Maps (class, x, y, z)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, *SIZE, generator=generator).mul(4).softmax(0)


def write(path, array):
    """Write maps (class, x, y, z) as vectors, or labels (x, y, z), by SimpleITK alone."""
    array = np.asarray(array)
    vectors = array.ndim == 4
    image = sitk.GetImageFromArray(
        array.transpose(3, 2, 1, 0) if vectors else array.transpose(2, 1, 0), isVector=vectors
    )
    image.SetOrigin(ORIGIN)
    image.SetSpacing(SPACING)
    image.SetDirection(OBLIQUE)
    sitk.WriteImage(image, str(path))
    return image


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestFiles:
    def test_maps_are_read_with_the_axes_of_a_nifti(self, tmp_path, maps, suffix):
        image = write(tmp_path / f"a{suffix}", maps)
        found = read_maps(tmp_path / f"a{suffix}")
        assert torch.equal(found.maps, maps)
        voxel = (4, 1, 2)
        x, y, z = image.TransformIndexToPhysicalPoint(voxel)
        assert found.grid.affine @ [*voxel, 1] == pytest.approx([-x, -y, z, 1])  # NIfTI: R, A, S

    def test_classes_may_be_a_fourth_axis(self, tmp_path, maps, suffix):
        image = sitk.GetImageFromArray(maps.numpy().transpose(0, 3, 2, 1), isVector=False)
        sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
        assert torch.equal(read_maps(tmp_path / f"a{suffix}").maps, maps)

    def test_one_class_needs_no_axis(self, tmp_path, maps, suffix):
        write(tmp_path / f"a{suffix}", maps[0])
        assert torch.equal(read_maps(tmp_path / f"a{suffix}").maps, maps[:1])

    def test_predict_keeps_the_place(self, tmp_path, maps, suffix):
        image = write(tmp_path / f"a{suffix}", maps)
        outcome = predict_files(tmp_path / f"a{suffix}", tmp_path / "out", suffix=suffix)
        assert outcome.failures == {}
        written = sitk.ReadImage(str(tmp_path / "out" / f"a{suffix}"))
        expected = RankSEG()(maps[None])[0].numpy()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(written).T, expected)
        assert written.GetPixelIDTypeAsString() == "8-bit unsigned integer"
        assert written.GetOrigin() == pytest.approx(ORIGIN)
        assert written.GetSpacing() == pytest.approx(SPACING)
        assert written.GetDirection() == pytest.approx(OBLIQUE)
        assert image.GetSize() == written.GetSize()

    def test_masks_are_vectors(self, tmp_path, maps, suffix):
        write(tmp_path / f"a{suffix}", maps)
        options = {"suffix": suffix, "output_mode": "multilabel"}
        assert predict_files(tmp_path / f"a{suffix}", tmp_path / "out", **options).failures == {}
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"a{suffix}")))
        expected = RankSEG(output_mode="multilabel")(maps[None])[0].numpy()
        np.testing.assert_array_equal(written.transpose(3, 2, 1, 0), expected)

    def test_to_nifti_and_from_it(self, tmp_path, maps, suffix):
        image = write(tmp_path / f"a{suffix}", maps)
        predict_files(tmp_path / f"a{suffix}", tmp_path, suffix=".nii.gz")
        voxel = (4, 1, 2)
        x, y, z = image.TransformIndexToPhysicalPoint(voxel)
        affine = nibabel.load(tmp_path / "a.nii.gz").affine
        assert affine @ [*voxel, 1] == pytest.approx([-x, -y, z, 1])
        found = read_label_file(tmp_path / "a.nii.gz")
        given = nibabel.load(tmp_path / "a.nii.gz").header
        write_labels(tmp_path / f"b{suffix}", found.labels, read_maps_like(found, given))
        back = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
        assert back.GetOrigin() == pytest.approx(ORIGIN, abs=1e-4)
        assert torch.equal(read_labels(tmp_path / f"b{suffix}"), found.labels)

    def test_labels_are_turned_to_the_maps(self, tmp_path, maps, suffix):
        (tmp_path / "maps").mkdir()
        (tmp_path / "truth").mkdir()
        write(tmp_path / "maps" / f"a{suffix}", maps)
        label = maps.argmax(0).to(torch.uint8)
        flipped = sitk.Flip(write(tmp_path / f"b{suffix}", label), (True, False, False))
        sitk.WriteImage(flipped, str(tmp_path / "truth" / "a.nii.gz"))
        (case,) = cases(tmp_path / "maps", tmp_path / "truth")
        assert torch.equal(case.label, label.long())

    def test_a_file_cut_short_is_told(self, tmp_path, maps, suffix):
        path = tmp_path / f"a{suffix}"
        write(path, maps)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=rf"a{suffix} cannot be read as {suffix}: "):
            read_maps(path)

    def test_a_header_of_more_than_memory_is_refused(self, tmp_path, maps, suffix):
        path = tmp_path / f"a{suffix}"
        write(path, maps)
        path.write_bytes(path.read_bytes().replace(b" 5 4 3", b" 99999 99999 99999"))
        with pytest.raises(ValueError, match=r"cannot be read|does not fit"):
            read_maps(path)


def read_maps_like(found, header):
    """Return maps at the place of labels."""
    from rankseg._formats import MapFile

    return MapFile(found.labels[None].float(), found.grid, header)
