"""Three users with maps and labels in their own files: what the commands say is what they say of
the same arrays in ``.npz`` files with ``probs`` and ``label``.
"""

from __future__ import annotations

import json
import pickle
import shlex
import textwrap

import numpy as np
import pytest
import torch

from conftest import REPOSITORY
from rankseg._commands.compare import compare_folder
from rankseg.evaluation import cases
from support.command_line import assert_no_traceback, run
from support.maps import labelled

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

NAMES = [f"case_{number}" for number in range(6)]
AFFINE = np.array([[-0.8, 0, 0, 5], [0, -1.2, 0, -7], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
NODATA = -9999.0
CLASSES_OF_IMAGES = ["--kind", "none", "--presence", "zero", "--folds", 2, "--classes", 4]


def save_private(folder, name, probs, label):
    """The layout that needs no ``--labels``."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", probs=probs, label=label)


def student(path):
    """Maps in float16, as npz and zarr, and labels as PNG with void pixels."""
    (path / "maps").mkdir()
    (path / "labels").mkdir()
    for seed, name in enumerate(NAMES):
        probs, label = labelled(seed)
        label[:2] = 255
        if seed % 2:
            zarr.save_array(path / "maps" / f"{name}.zarr", probs)
        else:
            np.savez_compressed(path / "maps" / f"{name}.npz", probs=probs)
        Image.fromarray(label).save(path / "labels" / f"{name}.png")
        save_private(path / "private", name, probs, label)
    return []


def clinic(path):
    """What nnU-Net saves: (z, y, x) in the axes of its label map; labels turned another way."""
    for folder in ("maps", "dataset", "dataset/labelsTr"):
        (path / folder).mkdir()
    content = {"labels": {"background": 0, "organ": 1, "tumour": 2, "ignore": 3}}
    (path / "maps" / "dataset.json").write_text(json.dumps(content))
    for seed, name in enumerate(NAMES):
        probs, label = labelled(seed, 3, (5, 9, 8))
        probs = probs.astype(np.float32)
        label[0] = 3
        np.savez_compressed(path / "maps" / f"{name}.npz", probabilities=probs)
        own = nibabel.Nifti1Image(np.zeros(label.T.shape, np.uint8), AFFINE)
        nibabel.save(own, path / "maps" / f"{name}.nii.gz")
        (path / "maps" / f"{name}.pkl").write_bytes(pickle.dumps({"sitk_stuff": {}}))
        truth = nibabel.as_closest_canonical(nibabel.Nifti1Image(label.T, AFFINE))
        nibabel.save(truth, path / "dataset" / "labelsTr" / f"{name}.nii.gz")
        save_private(path / "private", name, probs, label)
    content = {"classes": ["background", "organ", "tumour"], "ignore_index": 3}
    (path / "private" / "meta.json").write_text(json.dumps(content))
    (path / "labels").symlink_to(path / "dataset" / "labelsTr")
    return []


def geotiff(path, array, nodata, **options):
    """Write a GeoTIFF: pixels of 10 m, and the value of those without data."""
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 4_500_000.0, 0.0), True),
        (42113, "s", 0, str(nodata), True),
    ]
    tifffile.imwrite(path, array, photometric="minisblack", extratags=tags, **options)


def engineer(path):
    """Logits in GeoTIFF, without data in a corner; a label has its own value for no data."""
    (path / "maps").mkdir()
    (path / "labels").mkdir()
    for seed, name in enumerate(NAMES):
        probs, label = labelled(seed)
        logits = np.log(probs.astype(np.float32) + 1e-3)
        marked, unlabelled = logits.copy(), label.copy()
        marked[:, :6, :7] = NODATA
        unlabelled[-3:, -4:], label[-3:, -4:] = 200, 255
        geotiff(path / "maps" / f"{name}.tif", marked, NODATA, planarconfig="separate")
        geotiff(path / "labels" / f"{name}.tif", unlabelled, 200)
        valid = np.ones(label.shape, bool)
        valid[:6, :7] = False
        made = torch.from_numpy(logits[:, valid]).softmax(0).numpy()
        save_private(path / "private", name, made, label[valid])
    return ["--from-logits", "softmax"]


USERS = [student, clinic, engineer]
COMMANDS = {
    "compare": ["--correlation", 0, "--correlation", 0.5],
    "calibrate": ["--folds", 3],
    "tune": ["--folds", 3],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", USERS)
def test_numbers_are_those_of_the_private_layout(tmp_path, user, command):
    more = [*user(tmp_path), "--labels", tmp_path / "labels"]
    told = []
    for folder, options in (("maps", more), ("private", [])):
        out = tmp_path / f"{folder}.out"
        result = run(command, tmp_path / folder, *options, *COMMANDS[command], "-o", out)
        assert result.exit_code == 0, result.stderr
        assert "not used" not in result.stderr
        if command == "compare":
            told.append((out / "classes.csv").read_text())
            assert len(told[-1].splitlines()) > len(NAMES)
        else:
            content = json.loads(out.read_text())
            told.append(content)
    assert told[0] == told[1]


def commands_in(result):
    """Return the commands that an answer proposes."""
    return [
        shlex.split(line) for line in result.stdout.splitlines() if line.startswith("  rankseg")
    ]


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("user", USERS)
def test_what_is_proposed_runs_as_it_is_printed(tmp_path, monkeypatch, user):
    monkeypatch.chdir(tmp_path)
    more = user(tmp_path)
    first = run("compare", "maps", "--labels", "labels", *more)
    assert first.exit_code == 0, first.stderr
    tune = ["rankseg", "tune", "maps", "--labels", "labels", *more, "-o", "settings.json"]
    for command in [*commands_in(first), tune]:
        if command[1] not in ("predict", "nnunet"):
            assert command[2 : 5 + len(more)] == ["maps", "--labels", "labels", *more]
        again = run(*command[1:])
        assert again.exit_code == 0, again.stderr
    (last,) = commands_in(again)
    assert last[1] in ("predict", "nnunet", "compare")
    done = run(*last[1:])
    assert done.exit_code == 0, done.stderr
    used = run("compare", "maps", "--labels", "labels", *more, "--settings", "settings.json")
    assert used.exit_code == 0, used.stderr


@pytest.mark.parametrize("user", USERS)
def test_new_maps_are_decided_by_the_command_that_is_printed(tmp_path, monkeypatch, user):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rankseg.evaluation.verdict.is_clear", lambda gain, units: True)
    more = user(tmp_path)
    result = run("compare", "maps", "--labels", "labels", *more)
    command = commands_in(result)[0]
    assert command[1] == ("nnunet" if user is clinic else "predict")
    done = run(*command[1:])
    assert done.exit_code == 0, done.stderr
    assert {file.name.partition(".")[0] for file in (tmp_path / "rankseg-labels").iterdir()} > {
        *NAMES
    }


@pytest.mark.parametrize("user", USERS)
def test_the_report_draws_whole_images(tmp_path, user):
    more = user(tmp_path)
    result = run("compare", tmp_path / "maps", "--labels", tmp_path / "labels", *more,
                 "--correlation", 0, "-o", tmp_path / "out",
                 "--report", tmp_path / "report.html")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "example.png").is_file()
    assert "Most gain and most loss" in (tmp_path / "report.html").read_text()


def test_names_come_from_the_dataset_of_nnunet(tmp_path):
    clinic(tmp_path)
    found = cases(tmp_path / "maps", tmp_path / "labels")
    assert found.classes == ("background", "organ", "tumour")
    assert found.ignore_index == 3
    (tmp_path / "maps" / "dataset.json").rename(tmp_path / "dataset" / "dataset.json")
    found = cases(tmp_path / "maps", tmp_path / "labels")
    assert found.classes == ("background", "organ", "tumour")


README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SAVES = "\n".join(textwrap.dedent(compare_folder.__doc__.partition("\b\n")[2]).splitlines()[:5])


@pytest.mark.parametrize("other", [False, True], ids=["npz", "zarr"])
def test_the_recipe_saves_what_is_read(tmp_path, monkeypatch, other):
    assert f"```python\n{SAVES}\n```" in README
    code = SAVES
    if other:
        code = "\n".join(line for line in SAVES.splitlines() if "npz" not in line)
        code = code.replace("# or: ", "")
    logits = torch.randn(3, 4, 16, 12, generator=torch.Generator().manual_seed(0))
    labels = logits.argmax(1)
    (tmp_path / "maps").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(code, {"np": np, "zarr": zarr, "model": lambda images: images,
                "loader": [(logits, labels, ["a", "b", "c"])]})  # fmt: skip
    for number, case in enumerate(cases("maps")):
        assert case.name == "abc"[number]
        assert torch.equal(case.probs, logits.softmax(1).half()[number])
        assert torch.equal(case.label, labels[number])
    assert number == 2
    result = run("compare", "maps", "--correlation", 0)
    assert result.exit_code == 0, result.stderr


class TestWrongFiles:
    @pytest.fixture
    def files(self, tmp_path):
        student(tmp_path)
        return tmp_path

    @pytest.fixture
    def told(self, files):
        def tell(*options, command="compare", labels="labels"):
            short = {"compare": ["--correlation", 0], "calibrate": ["--folds", 2]}.get(command, [])
            result = run(command, files / "maps", "--labels", files / labels, *options,
                         *short, "-o", files / "out")  # fmt: skip
            assert_no_traceback(result)
            return result

        return tell

    @pytest.mark.parametrize("command", COMMANDS)
    def test_bad_files_are_named_and_the_others_are_done(self, files, told, command):
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(files / "labels" / "case_0.png")
        (files / "labels" / "case_1.png").unlink()
        np.save(files / "maps" / "case_2.npy", labelled(2)[0])
        (files / "maps" / "case_4.npz").write_bytes(b"nothing")
        probs, label = labelled(6)
        np.savez(files / "maps" / "case_6.npz", probs=probs)  # the third that is sound
        Image.fromarray(label).save(files / "labels" / "case_6.png")
        result = told(command=command)
        assert result.exit_code == 1
        assert (files / "out").exists()
        for words in (
            "case_0: the label in {}/labels/case_0.png does not fit the maps: it must be of the "
            "shape of the maps, (20, 24), got (3, 3)",
            "case_1: {}/labels holds no file of this name",
            "case_2: several files may hold its maps, {0}/maps/case_2.npy and {0}/maps/case_2.npz",
            "case_4: {}/maps/case_4.npz cannot be read as .npz: it is damaged",
        ):
            assert words.format(files) in result.stderr

    def test_labels_outside_the_classes(self, files, told):
        label = labelled(0)[1]
        label[0, 0] = 9
        Image.fromarray(label).save(files / "labels" / "case_0.png")
        result = told()
        assert result.exit_code == 1
        assert "Not compared: case_0: " in result.stderr
        assert "9" in result.stderr

    def test_two_files_of_labels(self, files, told):
        np.save(files / "labels" / "case_3.npy", labelled(3)[1])
        result = told()
        assert result.exit_code == 1
        assert "Not compared: case_3: several files hold its labels" in result.stderr

    @pytest.mark.filterwarnings("default")
    def test_labels_without_maps_are_a_note(self, files, told):
        np.save(files / "labels" / "other.npy", labelled(3)[1])
        result = told()
        assert result.exit_code == 0
        assert f"Note: not used: other in {files}/labels, without maps in" in result.stderr

    def test_no_match_at_all(self, files, told):
        (files / "renamed").mkdir()
        for name in NAMES:
            (files / "labels" / f"{name}.png").rename(files / "renamed" / f"{name}_mask.png")
        result = told(labels="renamed")
        assert result.exit_code == 1
        assert "is called like maps in" in result.stderr
        assert "there are case_0_mask, case_1_mask" in result.stderr
        assert "maps of case_0, case_1" in result.stderr

    def test_a_wrong_key(self, told):
        result = told("--key", "scores")
        assert result.exit_code == 1
        assert "Not compared: case_0: " in result.stderr
        assert "there is no array 'scores'; the arrays are ['probs']" in result.stderr

    def test_a_wrong_number_of_classes(self, told):
        result = told("--classes", "5")
        assert result.exit_code == 1
        assert "case_0: has maps of 4 classes where 5 are expected" in result.stderr

    def test_names_of_classes(self, told):
        result = told("--classes", "sky, road, car, tree", "--details")
        assert result.exit_code == 0
        assert "road" in result.stdout

    def test_wrong_logits(self, told):
        result = told("--from-logits", "tanh")
        assert result.exit_code == 1
        assert "from_logits must be one of ['softmax', 'sigmoid'], got 'tanh'" in result.stderr

    def test_logits_taken_for_probabilities(self, tmp_path):
        (tmp_path / "user").mkdir()
        engineer(tmp_path / "user")
        result = run("compare", tmp_path / "user" / "maps", "--labels", tmp_path / "user/labels")
        assert result.exit_code == 1
        assert "these look like logits" in result.stderr

    def test_folders_that_are_none(self, files):
        for option in ("--labels", "--valid"):
            result = run("compare", files / "private", option, files / "missing")
            assert result.exit_code == 1
            assert "missing is not a folder" in result.stderr

    def test_maps_without_labels(self, files):
        np.save(files / "labels" / "case_0.npy", labelled(0)[0])
        result = run("compare", files / "maps")
        assert result.exit_code == 1
        assert "name the folder of labels by labels (--labels)" in result.stderr
        for file in (files / "labels").glob("*.png"):
            file.unlink()
        result = run("compare", files / "labels")
        assert "of labels by labels (--labels)" in result.stderr.replace("their labels", "labels")

    def test_regions_of_nnunet(self, tmp_path):
        (tmp_path / "user").mkdir()
        clinic(tmp_path / "user")
        content = {"labels": {"background": 0, "whole": [1, 2], "core": 2},
                   "regions_class_order": [1, 2]}  # fmt: skip
        (tmp_path / "user" / "maps" / "dataset.json").write_text(json.dumps(content))
        result = run("compare", tmp_path / "user" / "maps", "--labels", tmp_path / "user/labels")
        assert result.exit_code == 1
        assert "describes regions, which may overlap" in result.stderr


@pytest.mark.filterwarnings("ignore:.* cases are too few")
def test_classes_of_images_go_with_maps_of_any_format(tmp_path):
    (tmp_path / "maps").mkdir()
    rows, presence = ["case,classes"], {}
    for seed, name in enumerate(NAMES):
        probs, label = labelled(seed)
        save_private(tmp_path / "private", name, probs, label)
        if seed % 2:
            np.save(tmp_path / "maps" / f"{name}.npy", probs)
        else:
            tifffile.imwrite(tmp_path / "maps" / f"{name}.tif", probs, photometric="minisblack")
        rows.append(",".join([name, *map(str, np.unique(label)[: 2 + seed % 3])]))
    (tmp_path / "held.csv").write_text("\n".join(rows))
    for folder in ("maps", "private"):
        result = run("calibrate", tmp_path / folder, "-o", tmp_path / f"{folder}.json",
                     "--image-labels", tmp_path / "held.csv", *CLASSES_OF_IMAGES)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        presence[folder] = json.loads((tmp_path / f"{folder}.json").read_text())["presence"]
    assert presence["maps"] == presence["private"]
