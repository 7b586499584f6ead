"""What stored pixels mean, and files that hold more or less than one array."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from rankseg._formats import read_image, read_labels, read_maps, write_labels
from rankseg._formats.common import in_unit_range

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
image_module = pytest.importorskip("PIL.Image", reason="needs pillow")

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
LABELS = np.random.default_rng(0).integers(0, 3, (6, 8), np.uint8)


def as_image(colours):
    return colours.transpose(2, 0, 1) / np.float32(255)


class TestColoursOfTiff:
    @pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "RGB"])
    def test_they_are_converted_to_rgb(self, tmp_path, mode):
        image = image_module.fromarray(COLOURS).convert(mode)
        image.save(tmp_path / "a.tif")
        wanted = as_image(np.asarray(image.convert("RGB")))
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").maps, wanted)

    def test_a_palette_keeps_the_place(self, tmp_path):
        scale = (33550, "d", 3, (0.5, 0.25, 0.0), True)
        colormap = np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
        tifffile.imwrite(
            tmp_path / "a.tif", LABELS, photometric="palette", colormap=colormap, extratags=[scale]
        )
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_allclose(image.maps, colormap[:, LABELS] / 65535, atol=1 / 255)
        assert image.geometry.extratags[0][3] == (0.5, 0.25, 0.0)
        np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), LABELS)

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32])
    def test_where_0_is_white(self, tmp_path, dtype):
        pixels = np.eye(8, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
        brightest = 1 if dtype in (bool, np.float32) else np.iinfo(dtype).max
        wanted = np.broadcast_to(1 - pixels.astype(np.float32) / brightest, (3, 8, 8))
        np.testing.assert_allclose(read_image(tmp_path / "a.tif").maps, wanted, atol=1e-6)

    @pytest.mark.parametrize("kind", ["cielab", "icclab", "logluv"])
    def test_others_are_refused(self, tmp_path, kind):
        tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric=kind)
        with pytest.raises(ValueError, match=rf"a\.tif .*interpretation {kind.upper()}: convert"):
            read_image(tmp_path / "a.tif")

    def test_two_palette_images_are_refused(self, tmp_path):
        first = image_module.fromarray(LABELS).convert("P")
        first.save(tmp_path / "a.tif", save_all=True, append_images=[first])
        with pytest.raises(ValueError, match="must hold one image, got 2 frames"):
            read_image(tmp_path / "a.tif")


class TestRangeOfImages:
    @pytest.mark.parametrize(
        ("pixels", "words"),
        [
            (COLOURS.astype(np.float32), r"float32 must .*in \[0, 1\], got \[\d.0, 2\d\d.0\]"),
            (COLOURS.astype(np.float16), r"float16 must .*in \[0, 1\]"),
            (COLOURS / 255 - 0.5, r"float64 must .*in \[0, 1\], got \[-0\.5"),
            (np.where(COLOURS < 9, np.nan, 0.5), r"got \[nan, nan\]"),
            (COLOURS.astype(np.int16) - 900, r"int16 must .*\[0, 32767\], got \[-"),
        ],
    )
    def test_others_are_refused(self, tmp_path, pixels, words):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
        with pytest.raises(ValueError, match=words):
            read_image(tmp_path / "a.tif")

    def test_floating_colours(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", COLOURS / 255, photometric="rgb")
        np.testing.assert_allclose(read_image(tmp_path / "a.tif").maps, as_image(COLOURS))

    def test_grey_of_few_bits(self):
        """tifffile gives 4 or 12 bits in the next dtype, where imagecodecs is installed."""
        for bits, dtype in ((4, np.uint8), (12, np.uint16)):
            pixels = in_unit_range(np.array([0, 3, 2**bits - 1], dtype), bits)
            np.testing.assert_allclose(pixels, np.float32([0, 3 / (2**bits - 1), 1]))

    @pytest.mark.parametrize("save", ["tif", "png"])
    @pytest.mark.parametrize(("most", "of_bits"), [(4095, 4095), (1000, 1023), (200, 255)])
    def test_few_bits_in_many_are_told(self, tmp_path, save, most, of_bits):
        pixels = np.linspace(0, most, 48).astype(np.uint16).reshape(6, 8)
        path = tmp_path / f"a.{save}"

        def write(pixels):
            if save == "tif":
                tifffile.imwrite(path, pixels, photometric="minisblack")
            else:
                image_module.fromarray(pixels).save(path)

        write(pixels)
        told = f"values of at most {most}, and is divided by 65535: .* by 65535 / {of_bits} before"
        with pytest.warns(UserWarning, match=told):
            np.testing.assert_allclose(read_image(path).maps[0], pixels / np.float32(65535))
        for fine in (0 * pixels, pixels + np.uint16(4096 - most)):
            write(fine)
            read_image(path)

    @pytest.mark.parametrize("mode", ["I", "F"])
    def test_a_tiff_under_the_name_of_a_png(self, tmp_path, mode):
        image = image_module.fromarray(LABELS).convert(mode)
        image.save(tmp_path / "a.png", format="TIFF")
        with pytest.raises(ValueError, match=f"it holds TIFF of mode {mode}"):
            read_image(tmp_path / "a.png")


class TestLabelsWhere0IsWhite:
    @pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.uint16), LABELS / 2])
    def test_they_are_refused(self, tmp_path, labels):
        tifffile.imwrite(tmp_path / "a.tif", labels, photometric="miniswhite")
        for read in (read_labels, read_maps):
            with pytest.raises(ValueError, match="MINISWHITE: programs disagree"):
                read(tmp_path / "a.tif")

    def test_masks_of_other_programs_are_refused(self, tmp_path):
        image_module.fromarray(LABELS == 1).save(tmp_path / "a.tif", tiffinfo={262: 0})
        with pytest.raises(ValueError, match="MINISWHITE: programs disagree"):
            read_labels(tmp_path / "a.tif")

    @pytest.mark.parametrize("options", [{}, {"metadata": None}])
    def test_masks_of_tifffile_are_as_stored(self, tmp_path, options):
        tifffile.imwrite(tmp_path / "a.tif", LABELS == 1, **options)  # MINISWHITE by default
        np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), LABELS == 1)
        image_module.fromarray(LABELS == 1).save(tmp_path / "b.tif")
        np.testing.assert_array_equal(read_labels(tmp_path / "b.tif"), LABELS == 1)


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_labels_that_are_no_png(tmp_path, kind):
    image_module.fromarray(LABELS).save(tmp_path / "a.png", format=kind)
    with pytest.raises(ValueError, match=f"must be stored as PNG, got {kind}"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "MPO"])
def test_frames(tmp_path, kind):
    first = image_module.fromarray(COLOURS if kind == "MPO" else LABELS)
    other = image_module.fromarray(255 - np.asarray(first))
    first.save(tmp_path / "a.png", format=kind, save_all=True, append_images=[other])
    if kind == "MPO":  # of a camera: the photo, then a preview
        assert read_image(tmp_path / "a.png").maps.dtype == torch.float32
        return
    with pytest.raises(ValueError, match="must hold one image, got 2 frames: write one file"):
        read_image(tmp_path / "a.png")
    if kind == "PNG":
        with pytest.raises(ValueError, match="must hold one image, got 2 frames: write one file"):
            read_labels(tmp_path / "a.png")


@pytest.mark.parametrize("damage", ["cut", "sum", "data"])
def test_damaged_nii_gz(tmp_path, damage):
    voxels = np.random.default_rng(0).random((64, 64, 9, 2), np.float32)  # more than a buffer
    content = bytearray(gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes(), 0))
    if damage == "cut":
        del content[-8:]
    else:
        content[{"sum": -6, "data": -40}[damage]] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nii\.gz cannot be read as \.nii\.gz: C"):
        read_maps(tmp_path / "a.nii.gz")


def test_integers_beyond_int64(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[2**63]], np.uint64))
    with pytest.raises(ValueError, match=f"must fit into int64, got {2**63}"):
        read_labels(tmp_path / "a.npy")


@pytest.mark.parametrize("attributes", [{"scale_factor": 0.5}, {"add_offset": 1}])
def test_values_that_xarray_scaled(tmp_path, attributes):
    zarr.create_array(tmp_path / "a.zarr", data=LABELS, attributes=attributes)
    with pytest.raises(ValueError, match=r"a\.zarr .*got a scale_factor or add_offset"):
        read_labels(tmp_path / "a.zarr")


MAPS = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 6)).astype(np.float32).transpose(2, 0, 1)


def save_old(maps, file):
    torch.save(maps, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.npy", lambda maps, file: np.save(file, maps)),
        ("a.npz", lambda maps, file: np.savez(file, probs=maps)),
        ("a.pt", torch.save),
        ("a.pt", save_old),
    ],
)
def test_several_arrays_saved_to_one_file(tmp_path, name, save):
    with (tmp_path / name).open("wb") as file:
        save(torch.from_numpy(MAPS), file)
    np.testing.assert_array_equal(read_maps(tmp_path / name).maps, MAPS)
    with (tmp_path / name).open("ab") as file:
        save(torch.from_numpy(MAPS), file)
    with pytest.raises(ValueError, match=rf"{name} cannot be read .*more follows the first array"):
        read_maps(tmp_path / name)


@pytest.mark.parametrize("save", [torch.save, save_old])
@pytest.mark.parametrize("left", [0, 0.1, 0.5, 0.99])
def test_pt_files_cut_short(tmp_path, save, left):
    save(torch.rand(3, 64, 64), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(left * len(content))])
    with pytest.raises(ValueError, match=r"a\.pt cannot be read as \.pt: it is damaged, was cut"):
        read_maps(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:.*nested tensors.*:UserWarning", "ignore:Sparse")
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("torch.sparse_coo", torch.Tensor.to_sparse),
        ("torch.sparse_csr", lambda maps: maps[0].to_sparse_csr()),
        ("meta", lambda maps: maps.to("meta")),
        ("nested", lambda maps: torch.nested.nested_tensor([maps, maps[:, :2]])),
    ],
)
def test_tensors_that_are_not_dense(tmp_path, kind, make):
    torch.save({"probs": make(torch.from_numpy(MAPS))}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"must hold a dense tensor .* got a {kind} one: store"):
        read_maps(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png"])
def test_labels_of_one_axis_are_no_picture(tmp_path, name):
    with pytest.raises(ValueError, match=r"labels of shape \(5,\): write another format"):
        write_labels(tmp_path / name, np.arange(5))
    assert not list(tmp_path.iterdir())


def test_photos_are_turned_as_viewers_turn_them(tmp_path):
    """A phone stores rows as they come and says in EXIF which way is up."""
    image = image_module.fromarray(COLOURS)
    exif = image_module.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    turned = np.ascontiguousarray(np.rot90(COLOURS, -1))
    np.testing.assert_allclose(read_image(tmp_path / "a.png").maps, as_image(turned))


@pytest.mark.parametrize("compression", ["jpeg", "tiff_adobe_deflate"])
def test_labels_of_a_lossy_tiff_are_refused(tmp_path, compression):
    labels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) % 5
    Image.fromarray(labels).save(tmp_path / "a.tif", compression=compression)
    if compression == "jpeg":
        with pytest.raises(ValueError, match="compressed by JPEG, which changes labels"):
            read_labels(tmp_path / "a.tif")
    else:
        assert np.array_equal(read_labels(tmp_path / "a.tif").numpy(), labels)
