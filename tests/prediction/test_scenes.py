"""The recipe for scenes that were cut into tiles: `docs/integrations/pytorch.md` as it stands."""

from __future__ import annotations

import re

import numpy as np

from conftest import REPOSITORY
from rankseg import RankSEG
from support.command_line import run
from support.frameworks import framework
from support.maps import softmax

rasterio = framework("rasterio")

PAGE = (REPOSITORY / "docs" / "integrations" / "pytorch.md").read_text(encoding="utf-8")
RECIPE = re.search(r"<!-- scene -->\s+```python\n(.*?)```", PAGE, re.S)[1]

PLACE = rasterio.Affine(10, 0, 500000, 0, -10, 6000000)
IMAGE = {"driver": "GTiff", "width": 30, "height": 20, "count": 1, "dtype": "uint8"}


def test_a_scene_of_overlapping_tiles_is_decided_as_one_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    with rasterio.open("scene.tif", "w", crs="EPSG:32631", transform=PLACE, **IMAGE) as file:
        file.write(np.ones((1, 20, 30), np.uint8))
    (maps,) = softmax(1, 3, 20, 40)
    starts = [(row, column) for row in (0, 8) for column in (0, 12, 24)]  # the last ones stick out
    tiles = [
        (maps[None, :, row : row + 12, column : column + 16], [PLACE @ (column, row)])
        for row, column in starts
        if (row, column) != (8, 24)
    ]
    exec(RECIPE, {"tiles": tiles, "num_classes": 3})
    result = run("predict", "maps", "-o", "labels", "--format", "tif")
    assert result.exit_code == 0, result.stderr
    covered = np.ones((20, 30), bool)
    covered[12:, 28:] = False
    expected = RankSEG()(maps[None, :, :, :30], covered[None])[0]
    with rasterio.open("labels/scene.tif") as labels:
        np.testing.assert_array_equal(labels.read(1), expected)
        assert (labels.crs.to_epsg(), labels.transform, labels.nodata) == (32631, PLACE, 255)
