"""Options in a file: what `RankSEG.save` writes, `RankSEG.load` decides by."""

from __future__ import annotations

import json

import pytest
import torch

from rankseg import RankSEG, __version__
from rankseg.calibration import Calibration, PresenceModel
from rankseg.dataset import DatasetRule
from support import maps

MODEL = PresenceModel(peak=1.0, volume=0.1, offset=[0.0, 0.2, -0.3], absent="ignored")
RULE = DatasetRule("iou", [1.0, 1.5, 0.5], [0.3, 0.2, 0.1])

OPTIONS = [
    {},
    {"metric": "iou", "smooth": 0.5, "solver": "RMA", "correlation": 0.3},
    {"output_mode": "multilabel", "solver": "BA", "eps": 1e-3, "pruning_prob": 0.2},
    {"unassigned_policy": "void", "void_index": -1, "presence": "argmax"},
    {"presence": MODEL, "from_logits": "softmax"},
    {"calibration": Calibration("softmax", [2.0, 1.0, 0.5], [0.0, 0.1, 0.0], "vector", MODEL)},
    {"metric": "iou", "rule": RULE},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_what_was_saved_decides_the_same(tmp_path, options):
    decide = RankSEG(**options)
    decide.save(tmp_path / "settings.json", about={"cases": 3})
    loaded = RankSEG.load(tmp_path / "settings.json")
    assert loaded.settings == decide.settings
    probs = torch.from_numpy(maps.smooth(2, 3, 40))
    assert torch.equal(loaded(probs), decide(probs))
    content = json.loads((tmp_path / "settings.json").read_text())
    assert content["rankseg"] == __version__
    assert content["about"] == {"cases": 3}


def test_options_replace_those_of_the_file(tmp_path):
    RankSEG("iou", solver="RMA", correlation=0.3).save(tmp_path / "a.json")
    loaded = RankSEG.load(tmp_path / "a.json", metric="dice", from_logits="sigmoid")
    assert (loaded.metric, loaded.correlation, loaded.from_logits) == ("dice", 0.3, "sigmoid")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", 'no file of settings: it lacks "format": "rankseg settings 1"'),
        ('{"format": "rankseg settings 1", "options": {}}', r"lacks \['rankseg', 'about'\]"),
        (
            '{"format": "rankseg settings 1", "rankseg": "1", "about": {}, "options": []}',
            r"options must be an object, got \[\]",
        ),
        (
            '{"format": "rankseg settings 1", "rankseg": "1", "about": {}, '
            '"options": {"calibration": {"link": "softmax", "scale": [1, 1], "offset": [0]}}}',
            "no file of settings: scale and offset",
        ),
        (
            '{"format": "rankseg settings 1", "rankseg": "1", "about": {}, '
            '"options": {"metric": "iou", "colour": 3}}',
            "no file of settings: .*colour",
        ),
        (
            '{"format": "rankseg settings 1", "rankseg": "1", "about": {}, '
            '"options": {"metric": "dice", "correlation": 7}}',
            "no file of settings: correlation must be",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        RankSEG.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        RankSEG.load(tmp_path / "a.json")


def test_recommended():
    assert RankSEG.recommended().settings == RankSEG().settings
    ignored = RankSEG.recommended("iou", absent="ignored", from_logits="softmax")
    assert ignored.settings == RankSEG("iou", presence="argmax", from_logits="softmax").settings
    with pytest.raises(ValueError, match=r"absent must be one of \['ignored', 'zero'\]"):
        RankSEG.recommended(absent="kept")
    with pytest.raises(ValueError, match="metric must be one of"):
        RankSEG.recommended("acc")
