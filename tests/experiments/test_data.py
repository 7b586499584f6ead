"""Readers of data sets, on small trees of their layout; what is missing or wrong is one error."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data import (
    IGNORED,
    ade20k,
    cityscapes,
    decathlon,
    deepglobe_land,
    deepglobe_road,
    folder_of_splits,
    kits,
    lits,
    nuclei,
    pascal_voc,
)

nibabel = pytest.importorskip("nibabel")


def write_image(path, shape=(6, 8), value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)


def write_label(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(label, np.uint8)).save(path)


@pytest.fixture
def splits(tmp_path):
    """Return a folder of splits with three images, one in each."""
    for name in ("a_1", "a_2", "b_1"):
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_label(tmp_path / "masks" / f"{name}.png", np.full((6, 8), IGNORED))
    write_label(tmp_path / "masks" / "a_1.png", [[0, 1], [2, 255]])
    write_image(tmp_path / "images" / "a_1.jpg", (2, 2))
    for split, name in {"train": "a_1", "val": "a_2", "test": "b_1"}.items():
        (tmp_path / f"{split}.txt").write_text(f"{name}\n")
    (tmp_path / "meta.json").write_text(json.dumps({"classes": ["one", "two", "three"]}))
    return tmp_path


def test_a_folder_of_splits(splits):
    data = folder_of_splits(str(splits))
    assert data.classes == ("one", "two", "three")
    assert [files.name for files in data.splits["val"]] == ["a_2"]
    image, label = data.read(data.splits["train"][0])
    assert image.shape == (3, 2, 2)
    assert image.mean() == pytest.approx(100 / 255, abs=0.01)
    assert label.tolist() == [[0, 1], [2, IGNORED]]


def test_a_missing_file_is_an_error_before_anything_is_read(splits):
    (splits / "masks" / "b_1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files of the 2 .*b_1\.png.*unpacked"):
        folder_of_splits(str(splits))
    (splits / "meta.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing: meta\.json.*DATA\.md"):
        folder_of_splits(str(splits))


def test_a_label_that_is_no_class_is_an_error(splits):
    write_label(splits / "masks" / "a_1.png", [[0, 3]])
    data = folder_of_splits(str(splits))
    with pytest.raises(ValueError, match=r"a_1\.png holds the labels \[3\].*3 classes"):
        data.read(data.splits["train"][0])


def test_frames_in_a_row_are_a_cluster(splits):
    assert folder_of_splits(str(splits)).clusters(["a_1", "b_1"]) is None
    data = folder_of_splits(str(splits), frames_per_cluster=2)
    found = data.clusters(["b_1", "a_3", "a_1", "a_2"])
    assert found == {"a_1": "a 0", "a_2": "a 0", "a_3": "a 1", "b_1": "b 0"}


def test_nuclei(tmp_path):
    for number in range(9):
        write_image(tmp_path / "images" / f"{number}.png")
        write_label(tmp_path / "masks" / f"{number}.png", np.eye(6, 8) * 255)
    (tmp_path / "validation.txt").write_text("3\n5\n")
    data = nuclei(str(tmp_path))
    names = {split: [one.name for one in files] for split, files in data.splits.items()}
    assert names == {"train": ["1", "2", "4", "6", "7"], "val": ["0", "8"], "test": ["3", "5"]}
    _, label = data.read(data.splits["test"][0])
    assert torch.equal(label, torch.eye(6, 8, dtype=torch.uint8))


def write_task(folder, cases, labels=("background", "liver")):
    """Write a task of the decathlon whose volumes are 4 x 5 x 6."""
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    pairs = []
    for number in range(cases):
        name = f"liver_{number}.nii.gz"
        volume = np.random.default_rng(number).normal(40, 7, (4, 5, 6)).astype(np.float32)
        label = np.zeros((4, 5, 6), np.uint8)
        label[1] = 1
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "imagesTr" / name)
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / name)
        pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    classes = {str(number): name for number, name in enumerate(labels)}
    (folder / "dataset.json").write_text(json.dumps({"labels": classes, "training": pairs}))


def test_a_task_of_the_decathlon(tmp_path):
    write_task(tmp_path, 10)
    data = decathlon(str(tmp_path))
    assert data.classes == ("background", "liver")
    assert [one.name for one in data.splits["test"]] == ["liver_0", "liver_5"]
    image, label = data.read(data.splits["test"][0])
    assert image.shape == (1, 4, 5, 6)
    assert image.mean() == pytest.approx(0, abs=1e-5)
    assert image.std() == pytest.approx(1, abs=0.01)
    assert label.unique(return_counts=True)[1].tolist() == [90, 30]
    named = decathlon(str(tmp_path), test_ids=["liver_9"])
    assert [one.name for one in named.splits["test"]] == ["liver_9"]
    assert len(named.splits["train"]) + len(named.splits["val"]) == 9


def test_pascal_voc(tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    lists = {"train": [f"t_{number}" for number in range(11)], "val": ["v_0"]}
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            write_image(folder / "JPEGImages" / f"{name}.jpg")
            label = Image.fromarray(np.array([[0, 20, 255]], np.uint8), mode="P")
            label.putpalette(np.repeat(np.arange(256), 3).tolist())  # as grey shades
            (folder / "SegmentationClass").mkdir(exist_ok=True)
            label.save(folder / "SegmentationClass" / f"{name}.png")
    data = pascal_voc(str(tmp_path))
    assert len(data.classes) == 21
    assert [one.name for one in data.splits["val"]] == ["t_0", "t_10"]
    assert [one.name for one in data.splits["test"]] == ["v_0"]
    assert data.read_label(data.splits["test"][0]).tolist() == [[0, 20, IGNORED]]
    (folder / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing: ImageSets/Segmentation/val\.txt"):
        pascal_voc(str(tmp_path))


def test_cityscapes(tmp_path):
    for split, names in {"train": ["aachen_0_1", "bonn_0_2"], "val": ["ulm_0_3"]}.items():
        for name in names:
            town = name.split("_")[0]
            write_image(tmp_path / "leftImg8bit" / split / town / f"{name}_leftImg8bit.png")
            labels = tmp_path / "gtFine" / split / town / f"{name}_gtFine_labelIds.png"
            write_label(labels, [[0, 7, 8], [33, 29, 30]])
    data = cityscapes(str(tmp_path))
    assert len(data.classes) == 19
    assert {split: len(files) for split, files in data.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), 1
    )
    found = data.read_label(data.splits["test"][0])
    assert found.tolist() == [[IGNORED, 0, 1], [18, IGNORED, IGNORED]]
    (tmp_path / "gtFine" / "val" / "ulm" / "ulm_0_3_gtFine_labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match="unpacked completely"):
        cityscapes(str(tmp_path))


def test_ade20k(tmp_path):
    for split, count in {"training": 3, "validation": 1}.items():
        for number in range(count):
            name = f"ADE_{split}_{number}"
            write_image(tmp_path / "images" / split / f"{name}.jpg")
            write_label(tmp_path / "annotations" / split / f"{name}.png", [[0, 1, 150]])
    lines = [f"{number}\t0.1\t10\t2\tthing {number}" for number in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\t...\tName", *lines]))
    data = ade20k(str(tmp_path))
    assert data.classes == tuple(f"thing {number}" for number in range(1, 151))
    assert data.read_label(data.splits["test"][0]).tolist() == [[IGNORED, 0, 149]]
    assert [one.name for one in data.splits["val"]] == ["ADE_training_0"]


def write_volume(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(values), np.eye(4)), path)


@pytest.mark.parametrize("reader", [lits, kits])
def test_ct_by_fold(tmp_path, reader):
    volume = np.full((3, 4, 5), -1000.0, np.float32)
    volume[0], volume[1, 0] = 100, 3000
    label = np.zeros((3, 4, 5), np.uint8)
    label[2] = 2
    for number in range(12):
        if reader is lits:
            places = [f"volume-{number}.nii", f"segmentation-{number}.nii"]
        else:
            places = [f"case_{number:05}/imaging.nii.gz", f"case_{number:05}/segmentation.nii.gz"]
        for place, values in zip(places, (volume, label), strict=True):
            write_volume(tmp_path / place, values)
    data = reader(str(tmp_path), fold=1)
    assert [one.name[-1] for one in data.splits["test"]] == ["1", "6", "1"]  # 1, 6 and 11
    assert sum(map(len, data.splits.values())) == 12
    image, found = data.read(data.splits["test"][0])
    assert image.shape == (1, 3, 4, 5)
    assert len(image.unique()) == 3  # clipped below and above
    assert found.unique(return_counts=True)[1].tolist() == [40, 20]
    with pytest.raises(ValueError, match="fold must be 0 to 4, got 5"):
        reader(str(tmp_path), fold=5)


def test_deepglobe(tmp_path):
    land = [[(0, 255, 255), (255, 255, 255), (0, 0, 0), (0, 0, 255)]]
    road = [[(255, 255, 255), (0, 0, 0), (3, 3, 3), (254, 254, 254)]]
    for kind, colours in {"land": land, "road": road}.items():
        for number in range(7):
            write_image(tmp_path / kind / "train" / f"{number}_sat.jpg")
            write_label(tmp_path / kind / "train" / f"{number}_mask.png", colours)
    data = deepglobe_land(str(tmp_path / "land"))
    assert (data.classes[0], data.classes[-1]) == ("urban", "barren")
    assert data.read_label(data.splits["test"][0]).tolist() == [[0, 5, IGNORED, 4]]
    assert [one.name for one in data.splits["test"]] == ["0", "5"]
    data = deepglobe_road(str(tmp_path / "road"))
    assert data.read_label(data.splits["test"][0]).tolist() == [[1, 0, 0, 1]]
