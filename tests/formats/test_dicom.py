"""DICOM segmentations at the place of a folder of slices, read back by highdicom."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.prediction import predict_files
from support.command_line import run
from support.frameworks import framework

highdicom = framework("highdicom")
pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

SHAPE = (3, 4, 5)  # z, y, x
FIRST, STEP, SPACING = [-20.0, 31.0, 7.0], 2.5, [0.7, 0.5]
IMAGE = {
    "SOPClassUID": pydicom.uid.CTImageStorage,
    "Modality": "CT",
    "PatientID": "1",
    "PatientName": "A^B",
    "StudyDate": "20200101",
    "StudyTime": "000000",
    "StudyID": "1",
    "SeriesNumber": 1,
    "Rows": SHAPE[1],
    "Columns": SHAPE[2],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": SPACING,
    "SliceThickness": STEP,
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 0,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelData": bytes(2 * SHAPE[1] * SHAPE[2]),
}
EMPTY = ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName")
EMPTY += ("PositionReferenceIndicator",)


@pytest.fixture
def slices(tmp_path):
    """A folder of slices whose names are in another order than their places."""
    folder = tmp_path / "slices"
    folder.mkdir()
    of_series = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    shared = {name: pydicom.uid.generate_uid() for name in of_series}
    for place in range(SHAPE[0]):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        for name, value in {**IMAGE, **dict.fromkeys(EMPTY, ""), **shared}.items():
            setattr(one, name, value)
        one.SOPInstanceUID, one.InstanceNumber = pydicom.uid.generate_uid(), place + 1
        one.ImagePositionPatient = [*FIRST[:2], FIRST[2] + STEP * place]
        one.save_as(folder / f"{9 - place}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, *SHAPE, generator=generator).mul(4).softmax(0)


def segments_of(path):
    """Return the segments of a file (segment, z, y, x), z from the first slice."""
    volume = highdicom.seg.segread(path).get_volume()
    array = np.moveaxis(volume.array, -1, 0)
    return array if volume.affine[2, 0] > 0 else array[:, ::-1]


def test_classes_are_segments_at_the_place_of_the_slices(tmp_path, slices, maps):
    np.save(tmp_path / "a.npy", maps)
    result = run("predict", tmp_path / "a.npy", "-o", tmp_path / "out", "--format", "dcm",
                 "--dicom", slices)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    labels = RankSEG()(maps[None])[0].numpy()
    np.testing.assert_array_equal(
        segments_of(tmp_path / "out" / "a.dcm"), np.stack([labels == 1, labels == 2])
    )
    written = highdicom.seg.segread(tmp_path / "out" / "a.dcm")
    assert [one.SegmentLabel for one in written.SegmentSequence] == ["class 1", "class 2"]
    first = pydicom.dcmread(slices / "9.dcm")
    assert written.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert written.PatientID == "1"
    corner = written.get_volume().affine[:3, 3]
    assert corner[:2].tolist() == FIRST[:2]
    assert corner[2] in (FIRST[2], FIRST[2] + STEP * (SHAPE[0] - 1))


def test_maps_with_an_affine_are_turned_to_the_slices(tmp_path, slices, maps):
    affine = np.diag([-SPACING[1], -SPACING[0], STEP, 1.0])
    affine[:3, 3] = -FIRST[0], -FIRST[1], FIRST[2]
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = SHAPE[2] - 1
    stored = maps.permute(3, 2, 1, 0).flip(0).numpy()
    nibabel.save(nibabel.Nifti1Image(stored, affine @ flip), tmp_path / "a.nii.gz")
    predict_files(tmp_path / "a.nii.gz", tmp_path / "out", suffix=".dcm", dicom=slices)
    labels = RankSEG()(maps[None])[0].numpy()
    np.testing.assert_array_equal(segments_of(tmp_path / "out" / "a.dcm")[1], labels == 2)


def test_masks_and_a_case_without_any(tmp_path, slices, maps):
    maps[2] = 0.001
    np.save(tmp_path / "a.npy", maps)
    options = {"suffix": ".dcm", "dicom": slices, "output_mode": "multilabel"}
    assert predict_files(tmp_path / "a.npy", tmp_path / "out", **options).failures == {}
    masks = RankSEG(output_mode="multilabel")(maps[None])[0].numpy()
    np.testing.assert_array_equal(segments_of(tmp_path / "out" / "a.dcm"), masks)
    np.save(tmp_path / "b.npy", np.full((1, 1, *SHAPE), 0.001))
    options["output_mode"] = "multiclass"
    assert predict_files(tmp_path / "b.npy", tmp_path / "none", **options).failures == {}
    assert not segments_of(tmp_path / "none" / "b.dcm").any()


def test_each_case_has_a_folder_of_its_own(tmp_path, slices, maps):
    (tmp_path / "all").mkdir()
    slices.rename(tmp_path / "all" / "a")
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", maps)
    inputs = [tmp_path / "a.npy", tmp_path / "b.npy"]
    outcome = predict_files(inputs, tmp_path / "out", suffix=".dcm", dicom=tmp_path / "all")
    assert outcome.written == ("a",)
    assert "No such file or directory" in outcome.failures["b"]


def test_what_does_not_fit_is_told(tmp_path, slices, maps):
    np.save(tmp_path / "a.npy", maps[:, :2])
    outcome = predict_files(tmp_path / "a.npy", tmp_path / "out", suffix=".dcm", dicom=slices)
    assert "must be of the shape of the DICOM slices, (3, 4, 5)" in outcome.failures["a"]
    np.save(tmp_path / "a.npy", maps)
    (slices / "8.dcm").rename(slices / "8.txt")
    moved = pydicom.dcmread(slices / "8.txt")
    moved.ImagePositionPatient = [*FIRST[:2], 100.0]
    moved.save_as(slices / "8.txt")
    outcome = predict_files(tmp_path / "a.npy", tmp_path / "more", suffix=".dcm", dicom=slices)
    assert "must be at equal distances" in outcome.failures["a"]
    for options in ({"suffix": ".dcm"}, {"suffix": ".npy", "dicom": slices}):
        with pytest.raises(ValueError, match=r"dicom \(--dicom\) names the slices"):
            predict_files(tmp_path / "a.npy", tmp_path / "out", **options)
