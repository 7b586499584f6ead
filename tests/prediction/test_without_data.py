"""Pixels without data are not decided: NaN in all classes, or the nodata value of a GeoTIFF."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.calibration import Calibration
from rankseg.prediction import predict_files
from support.frameworks import framework

tifffile = pytest.importorskip("tifffile")

NODATA = -9999.0
GEOREFERENCE = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),  # the size of a pixel
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 6000000.0, 0.0), True),  # the place of one
    (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32631), True),  # EPSG:32631
]


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 12, 9, generator=generator).softmax(0).numpy()


@pytest.fixture
def hole():
    """Where there is no data."""
    hole = np.zeros((12, 9), bool)
    hole[:4, :5] = True
    return hole


def write_geotiff(path, maps, nodata=NODATA):
    tags = [*GEOREFERENCE, (42113, "s", 0, str(nodata), True)]
    tifffile.imwrite(path, maps, photometric="minisblack", planarconfig="separate", extratags=tags)


def labels_of(maps, hole, **options):
    return RankSEG(**options)(maps[None], ~hole[None])[0]


@pytest.mark.parametrize("calibration", [None, Calibration("softmax", [2.0] * 3, [0.0, 0.1, 0.2])])
def test_nan_regions_stay_void(tmp_path, maps, hole, calibration):
    np.save(tmp_path / "a.npy", np.where(hole, np.nan, maps))
    options = {"calibration": calibration, "solver": "RMA"}
    with pytest.warns(UserWarning, match="18.52% of the pixels are NaN in all classes"):
        outcome = predict_files(tmp_path / "a.npy", tmp_path / "out", suffix=".npy", **options)
    assert outcome.failures == {}
    labels = np.load(tmp_path / "out" / "a.npy")
    assert (labels[hole] == 255).all()
    np.testing.assert_array_equal(labels, labels_of(maps, hole, **options))
    assert not np.array_equal(labels[~hole], RankSEG(**options)(maps[None])[0][~hole])


def test_masks_are_empty_there(tmp_path, maps, hole):
    np.save(tmp_path / "a.npy", np.where(hole, np.nan, maps))
    with pytest.warns(UserWarning, match="NaN"):
        predict_files(tmp_path / "a.npy", tmp_path, suffix=".zarr", output_mode="multilabel")
    import zarr

    assert not zarr.open(tmp_path / "a.zarr")[:][:, hole].any()


def test_a_hole_in_some_classes_alone_is_an_error(tmp_path, maps, hole):
    maps[0][hole] = np.nan
    np.save(tmp_path / "a.npy", maps)
    outcome = predict_files(tmp_path / "a.npy", tmp_path / "out", suffix=".npy")
    assert "NaN" in outcome.failures["a"]


def refuse(*_, **__):
    raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")


class TestGeoTIFF:
    @pytest.fixture
    def written(self, tmp_path, maps, hole):
        write_geotiff(tmp_path / "a.tif", np.where(hole, np.float32(NODATA), maps))
        outcome = predict_files(tmp_path / "a.tif", tmp_path / "out", suffix=".tif")
        assert outcome.failures == {}
        return tmp_path / "out" / "a.tif"

    def test_nodata_stays_void(self, written, maps, hole):
        np.testing.assert_array_equal(tifffile.imread(written), labels_of(maps, hole))

    def test_gdal_finds_the_place_and_the_value_of_void_pixels(self, written, tmp_path, hole):
        rasterio = framework("rasterio")
        with rasterio.open(written) as labels, rasterio.open(tmp_path / "a.tif") as maps:
            assert labels.crs.to_epsg() == 32631
            assert labels.transform == maps.transform
            assert maps.transform.c == 500000
            assert labels.dtypes == ("uint8",)
            assert labels.nodata == 255
            np.testing.assert_array_equal(labels.read_masks(1) == 0, hole)

    @pytest.mark.parametrize("compression", ["lzw", "zstd", "lerc_deflate"])
    def test_what_gdal_compressed(self, tmp_path, maps, hole, compression):
        rasterio = framework("rasterio")
        framework("imagecodecs")
        options = {"width": 9, "height": 12, "count": 3, "dtype": "float32", "crs": "EPSG:32631"}
        place = rasterio.Affine(10, 0, 500000, 0, -10, 6000000)
        options |= {"transform": place, "nodata": NODATA, "compress": compression}
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", predictor=3, **options) as file:
            file.write(np.where(hole, np.float32(NODATA), maps))
        predict_files(tmp_path / "a.tif", tmp_path / "out", suffix=".tif")
        with rasterio.open(tmp_path / "out" / "a.tif") as labels:
            np.testing.assert_array_equal(labels.read(1), labels_of(maps, hole))
            assert (labels.crs.to_epsg(), labels.transform, labels.nodata) == (32631, place, 255)

    def test_a_compression_without_its_package_is_told(self, tmp_path, maps, monkeypatch):
        monkeypatch.setitem(sys.modules, "imagecodecs", None)
        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
        write_geotiff(tmp_path / "a.tif", maps)
        outcome = predict_files(tmp_path / "a.tif", tmp_path / "out", suffix=".tif")
        assert "pip install 'rankseg[geotiff]'" in outcome.failures["a"]

    def test_compare_and_evaluate_take_the_same_pixels(self, written, tmp_path, maps, hole):
        from rankseg.evaluation import cases

        (case,) = cases(tmp_path / "a.tif", tmp_path / "out")
        np.testing.assert_array_equal(case.valid, ~hole)

    def test_a_tile_without_any_data_is_void(self, tmp_path, maps):
        write_geotiff(tmp_path / "a.tif", np.full_like(maps, NODATA))
        predict_files(tmp_path / "a.tif", tmp_path / "out", suffix=".tif")
        assert (tifffile.imread(tmp_path / "out" / "a.tif") == 255).all()

    def test_a_tile_with_all_data_declares_the_same_value(self, tmp_path, maps):
        rasterio = framework("rasterio")
        write_geotiff(tmp_path / "a.tif", maps)
        predict_files(tmp_path / "a.tif", tmp_path / "out", suffix=".tif", void_index=300)
        with rasterio.open(tmp_path / "out" / "a.tif") as labels:
            assert labels.dtypes == ("uint16",)
            assert labels.nodata == 300
