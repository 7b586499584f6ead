"""``settings=`` in every framework: the file that ``rankseg tune`` or ``RankSEG.save`` wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.calibration import Calibration
from rankseg.integration import sam, transformers
from rankseg.integration.common import with_settings
from rankseg.integration.nnunet import decide_folders
from rankseg.prediction import predict_files

CALIBRATION = Calibration("softmax", [0.3] * 3, [0.0, 0.5, 0.1])
CHOSEN = {"metric": "iou", "solver": "RMA", "correlation": 0.2, "calibration": CALIBRATION}


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "settings.json"
    RankSEG(**CHOSEN, from_logits="softmax").save(path)
    return path


@pytest.fixture
def logits():
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_file_gives_what_was_chosen_and_options_beside_it_replace_its_own(settings):
    assert with_settings({"settings": settings}) == CHOSEN
    beside = {"metric": "dice", "correlation": 0.7, "presence": None}
    expected = CHOSEN | {"metric": "dice", "correlation": 0.7}
    assert with_settings({"settings": settings, **beside}) == expected
    assert with_settings({"settings": settings}, keep_link=True)["from_logits"] == "softmax"
    assert with_settings(beside) == beside


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        with_settings({"settings": tmp_path / "none.json"})


def test_nnunet(settings, logits, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    probs = logits.softmax(1).numpy()[0][:, None]  # one slice of a volume
    names = {"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(names))
    np.savez(tmp_path / "in" / "c.npz", probabilities=probs)
    labels = nibabel.Nifti1Image(probs.argmax(0).T.astype(np.uint8), np.eye(4))
    nibabel.save(labels, tmp_path / "in" / "c.nii.gz")
    outcome = decide_folders(tmp_path / "in", tmp_path / "out", settings=settings)
    assert outcome.written == ("c",)
    decided = np.asarray(nibabel.load(tmp_path / "out" / "c.nii.gz").dataobj).T
    np.testing.assert_array_equal(decided, RankSEG(**CHOSEN)(probs[None])[0])
    assert (decided != RankSEG()(probs[None])[0]).any()


def test_transformers(settings, logits):
    expected = RankSEG(**CHOSEN, from_logits="softmax")(logits)
    options = {"settings": settings}
    (labels,) = transformers.postprocess({"logits": logits}, rankseg_kwargs=options)
    assert torch.equal(labels, expected[0])
    assert not torch.equal(labels, RankSEG(from_logits="softmax")(logits)[0])


def test_sam(tmp_path, logits):
    path = tmp_path / "masks.json"
    RankSEG("iou", correlation=0.8).save(path)
    expected = RankSEG("iou", 0.0, "multilabel", correlation=0.8, from_logits="sigmoid")(logits)
    assert torch.equal(sam.decide_logits(logits, {"settings": path}), expected)
    adapter = sam.Sam2(rankseg_kwargs={"settings": path})
    path.unlink()  # the file is read once
    assert adapter._decision().correlation == 0.8


def test_monai(settings, logits):
    monai = pytest.importorskip("rankseg.integration.monai")
    assert monai.RankSEG(settings=settings).decide.settings == RankSEG.load(settings).settings
    changed = monai.RankSEG(settings=settings, correlation=0.7).decide
    assert (changed.metric, changed.correlation) == ("iou", 0.7)
    of_item = monai.RankSEGd("pred", settings=settings)({"pred": logits[0]})["pred"]
    assert torch.equal(of_item.long()[0], RankSEG.load(settings)(logits)[0])


def test_onnx(settings, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from rankseg.integration.onnx import export

    export(tmp_path / "decision.onnx", settings, 3)
    kept = {one.key: one.value for one in onnx.load(tmp_path / "decision.onnx").metadata_props}
    assert json.loads(kept["rankseg.options"])["correlation"] == 0.2


def test_predict_files(settings, logits, tmp_path):
    np.save(tmp_path / "a.npy", logits[0].numpy())
    predict_files(tmp_path / "a.npy", tmp_path / "out", suffix=".npy", settings=settings)
    expected = RankSEG.load(settings)(logits)[0]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npy"), expected)
