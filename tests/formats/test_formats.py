"""Maps and labels in files: what is read is what was stored, what is written can be read."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rankseg import _formats
from rankseg._files import whole as _files
from rankseg._formats import (
    find_files,
    read_image,
    read_labels,
    read_maps,
    stem,
    write_labels,
)
from support.frameworks import framework

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
image_module = pytest.importorskip("PIL.Image", reason="needs pillow")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")

AFFINE = np.array([[-0.8, 0, 0.1, 5], [0, 1.2, 0, -7], [0.05, 0, 2.5, 30], [0, 0, 0, 1.0]])
MAPS = np.random.default_rng(0).dirichlet([1, 1, 1], (4, 5, 6)).astype(np.float32)
MAPS = np.ascontiguousarray(MAPS.transpose(3, 0, 1, 2))  # (3, 4, 5, 6)
LABELS = MAPS.argmax(0)


def save_nifti(path, voxels, kind=nibabel.Nifti1Image):
    image = kind(voxels, AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, code=2)
    image.header["descrip"] = b"of a scanner"
    image.header["cal_max"] = 1
    nibabel.save(image, path)


def save_zarr(path, **arrays):
    group = zarr.open_group(path, mode="w")
    for name, array in arrays.items():
        group.create_array(name, data=array)


SAVERS = {
    "a.npy": np.save,
    "a.npz": lambda path, maps: np.savez_compressed(path, label=LABELS, probs=maps),
    "a.pt": lambda path, maps: torch.save(torch.from_numpy(maps), path),
    "dict.pt": lambda path, maps: torch.save({"logits": torch.from_numpy(maps), "n": 3}, path),
    "old.pt": lambda path, maps: torch.save(
        torch.from_numpy(maps), path, _use_new_zipfile_serialization=False
    ),
    "a.safetensors": lambda path, maps: safetensors.save_file(
        {"probabilities": torch.from_numpy(maps), "x": torch.ones(2)}, path
    ),
    "a.nii": lambda path, maps: save_nifti(path, np.moveaxis(maps, 0, -1)),
    "a.nii.gz": lambda path, maps: save_nifti(path, np.moveaxis(maps, 0, -1)),
    "two.NII.GZ": lambda path, maps: save_nifti(
        path, np.moveaxis(maps, 0, -1), nibabel.Nifti2Image
    ),
    "a.tif": lambda path, maps: tifffile.imwrite(path, maps, photometric="minisblack"),
    "channels.tiff": lambda path, maps: tifffile.imwrite(
        path, maps.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"}
    ),
    "a.zarr": lambda path, maps: zarr.save_array(path, maps),
    "group.zarr": lambda path, maps: save_zarr(path, probs=maps, other=maps[0]),
}


@pytest.fixture(params=SAVERS)
def stored(request, tmp_path):
    path = tmp_path / request.param
    SAVERS[request.param](path, MAPS)
    return path


def test_maps_are_read_as_stored(stored):
    maps = read_maps(stored).maps
    assert maps.dtype == torch.float32
    np.testing.assert_array_equal(maps.numpy(), MAPS)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_no_file_is_mapped_into_memory(stored):
    given = read_maps(stored)  # a mapped file that is cut short ends the process
    assert str(stored) not in Path("/proc/self/maps").read_text()
    assert given.maps.numel() == MAPS.size


def test_which_array(tmp_path):
    arrays = {"logits": MAPS + 1, "probabilities": MAPS + 2, "x": MAPS + 3, "probs": MAPS}
    for path in (tmp_path / "a.npz", tmp_path / "a.pt", tmp_path / "a.safetensors"):
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        {
            ".npz": lambda path, tensors=tensors: np.savez(path, **tensors),
            ".pt": lambda path, tensors=tensors: torch.save(tensors, path),
            ".safetensors": lambda path, tensors=tensors: safetensors.save_file(tensors, path),
        }[path.suffix](path)
        assert read_maps(path).maps.sum() == pytest.approx(MAPS.sum(), rel=1e-5)
        np.testing.assert_array_equal(read_maps(path, key="x").maps, MAPS + 3)
        for link in ("softmax", "sigmoid"):
            np.testing.assert_array_equal(read_maps(path, from_logits=link).maps, MAPS + 1)
            np.testing.assert_array_equal(read_maps(path, "probs", link).maps, MAPS)
        with pytest.raises(ValueError, match=r"no array 'y'; the arrays are .*'logits'"):
            read_maps(path, key="y")
    save_zarr(tmp_path / "a.zarr", one=MAPS, two=MAPS)
    with pytest.raises(ValueError, match=r"'probs' or .*\['one', 'two'\]; say by key"):
        read_maps(tmp_path / "a.zarr")


def test_bfloat16_and_foreign_bytes(tmp_path):
    maps = torch.from_numpy(MAPS).bfloat16()
    torch.save(maps, tmp_path / "a.pt")
    safetensors.save_file({"only": maps}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        assert torch.equal(read_maps(tmp_path / name).maps, maps)
    np.save(tmp_path / "a.npy", MAPS.astype(">f8"))
    np.testing.assert_array_equal(read_maps(tmp_path / "a.npy").maps, MAPS.astype(float))


def test_one_class_without_an_axis_of_its_own(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", MAPS[0])
    tifffile.imwrite(tmp_path / "a.tif", MAPS[0, 0])
    np.testing.assert_array_equal(read_maps(tmp_path / "a.nii.gz").maps, MAPS[:1])
    np.testing.assert_array_equal(read_maps(tmp_path / "a.tif").maps, MAPS[:1, 0])


def test_code_in_a_pt_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    for content in (Evil(), {"probs": torch.ones(2, 3), "model": Evil()}):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"a\.pt cannot be read as \.pt: .*tensors, which may"):
            read_maps(tmp_path / "a.pt")


def test_maps_that_are_none(tmp_path):
    np.save(tmp_path / "ints.npy", LABELS)
    np.save(tmp_path / "flat.npy", MAPS.ravel())
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    save_nifti(tmp_path / "five.nii.gz", MAPS[None])
    for name in ("ints.npy", "flat.npy", "words.npy", "five.nii.gz", "none.npy", "x.csv"):
        with pytest.raises(ValueError, match=r"must|no file|time 5"):
            read_maps(tmp_path / name)


@pytest.mark.parametrize("name", [*SAVERS, "a.png"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
def test_broken_files_are_value_errors(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    read = read_labels if name.endswith("png") else read_maps
    with pytest.raises(ValueError, match="cannot be read as"):
        read(path)


def test_files_cut_short(tmp_path):
    for name in ("a.npy", "a.npz", "a.nii.gz", "a.tif", "a.safetensors", "a.pt"):
        SAVERS[name](tmp_path / name, MAPS)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 4])
        with pytest.raises(ValueError, match=r"cannot be read as|must be floating"):
            read_maps(tmp_path / name)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}, {"ome": True}])
@pytest.mark.parametrize("left", [0.3, 0.6, 0.95])
def test_a_tiff_cut_short_loses_no_page_in_silence(tmp_path, options, left):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(0).random((9, 40, 40), np.float32), **options)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(ValueError, match="cannot be read as"):
        read_maps(path)


def lying_npz(path, _):
    header = io.BytesIO()
    kind = {"descr": "<f4", "fortran_order": False, "shape": (4, 10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, kind)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("probs.npy", header.getvalue())


def lying_npy(path, shape):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        file.write(bytes(100))


def lying_nifti(path, _):
    save_nifti(path, np.zeros((3, 4, 5, 2), np.float32))
    content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
    content = bytearray(content)
    content[42:50] = np.array([1000, 1000, 100, 2], "<i2").tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def lying_tiff(path, _):
    tifffile.imwrite(path, np.zeros((8, 8), np.float32), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(2_000_000)


def lying_zarr(path, shape):
    zarr.create_array(path, shape=shape, chunks=(1, 1000, 1000), dtype="f4", fill_value=0.5)


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("a.npy", lying_npy, "does not fit into memory"),
        ("a.npz", lying_npz, "does not fit into memory"),
        ("a.nii", lying_nifti, r"declares .*\(1000, 1000, 100, 2\), .* too small to hold it"),
        ("a.nii.gz", lying_nifti, r"declares .*\(1000, 1000, 100, 2\), .* too small to hold it"),
        ("a.tif", lying_tiff, r"declares .* more than the memory of this machine"),
        ("a.zarr", lying_zarr, r"declares .* more than the memory of this machine"),
    ],
)
def test_a_header_that_declares_too_much_is_an_error_of_its_file(tmp_path, name, save, words):
    save(tmp_path / name, (4, 10**6, 10**6))
    with pytest.raises(ValueError, match=rf"{name} .*{words}"):
        read_maps(tmp_path / name)


def read_anything(path):
    return (read_labels if path.suffix == ".png" else read_maps)(path)


@pytest.mark.parametrize("suffix", [*_formats.MAPS, ".png"])
def test_only_regular_files_are_opened(tmp_path, suffix):
    def refuse(name, words):
        with pytest.raises(ValueError, match=rf"{name}{suffix} {words}"):
            read_anything(tmp_path / f"{name}{suffix}")

    fifo = tmp_path / f"fifo{suffix}"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(b""))  # who reads it finds an end
    writer.start()
    refuse("fifo", "must be a regular file, got a FIFO")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer.join()
    os.close(reader)
    (tmp_path / f"null{suffix}").symlink_to("/dev/null")
    refuse("null", "must be a regular file, got a device")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    refuse("loop", "cannot be opened: Too many levels")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / f"socket{suffix}"))
        refuse("socket", "must be a regular file, got a socket")
    if suffix != ".zarr":
        (tmp_path / f"folder{suffix}").mkdir()
        refuse("folder", "must be a regular file, got a folder")


def test_a_chunk_that_is_no_regular_file(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", MAPS)
    chunk = next(file for file in (tmp_path / "a.zarr" / "c").rglob("*") if file.is_file())
    chunk.unlink()
    chunk.symlink_to("/dev/null")
    with pytest.raises(ValueError, match="must be a regular file, got a device"):
        read_maps(tmp_path / "a.zarr")


def test_links_to_nothing_are_inputs_that_cannot_be_read(tmp_path):
    (tmp_path / "a.npy").symlink_to("b.npy")
    assert find_files(tmp_path / "a.npy", _formats.MAPS) == [tmp_path / "a.npy"]
    with pytest.raises(ValueError, match=r"there is no file .*a\.npy"):
        read_maps(tmp_path / "a.npy")


def test_images_without_a_model(tmp_path):
    image_module.new("RGB", (3, 2)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png: to decide images, .*\(--model\)"):
        read_maps(tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError, match=r"to decide images, .*\(--model\)"):
        find_files(tmp_path, _formats.MAPS)
    np.save(tmp_path / "maps.npy", MAPS)
    with pytest.raises(ValueError, match=r"an image must be in a file .*maps\.npy"):
        read_image(tmp_path / "maps.npy")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TorchScript:UserWarning")
def test_a_network_where_maps_are_expected(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "n.pt")
    with pytest.raises(ValueError, match=r"holds a network, not maps: .*--model n\.pt"):
        read_maps(tmp_path / "n.pt")


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a.nii.gz", "a.tif", "a.tiff", "a.zarr"])
@pytest.mark.parametrize(("most", "dtype"), [(2, "u1"), (255, "u1"), (256, "u2"), (70000, "u4")])
def test_labels_come_back(tmp_path, name, most, dtype):
    labels = LABELS.copy()
    labels[0, 0, 0] = most
    path = tmp_path / name
    write_labels(path, torch.from_numpy(labels))
    np.testing.assert_array_equal(read_labels(path), labels)
    raw = {
        ".npy": np.load,
        ".nii": lambda path: np.asarray(nibabel.load(path).dataobj),
        ".tif": tifffile.imread,
        ".zarr": lambda path: zarr.open(path, mode="r")[...],
    }[".nii" if ".nii" in name else path.suffix.replace("ff", "f")](path)
    assert raw.dtype == np.dtype(dtype)


@pytest.mark.parametrize(("most", "mode"), [(2, "P"), (255, "P"), (256, "I;16"), (65535, "I;16")])
def test_labels_come_back_from_png(tmp_path, most, mode):
    labels = LABELS[0].copy()
    labels[0, 0] = most
    write_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    with image_module.open(tmp_path / "a.png") as image:
        assert image.mode == mode


def test_palette_is_that_of_the_pictures(tmp_path):
    write_labels(tmp_path / "a.png", np.array([[0, 1, 25, 255]]))
    with image_module.open(tmp_path / "a.png") as image:
        shown = np.asarray(image.convert("RGB"))[0]
    assert ["#" + bytes(colour).hex().upper() for colour in shown] == [
        "#2B2B2B", "#56B4E9", "#56B4E9", "#FFFFFF",
    ]  # fmt: skip


def test_negative_labels_of_a_tiff_are_read(tmp_path):
    labels = np.array([[-100, -1], [0, 1]], np.int16)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), labels)


def test_grey_values_of_few_bits_are_labels(tmp_path):
    labels = np.array([[0, 1, 2, 3]])
    (tmp_path / "a.png").write_bytes(grey_png(labels, 2))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    image_module.fromarray(labels == 1).save(tmp_path / "one.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "one.png"), labels == 1)


def grey_png(labels, bits):
    """Encode grey values of 2 bits, as optimisers of PNG files do."""
    import struct
    import zlib

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = labels.shape
    packed = int("".join(f"{label:0{bits}b}" for label in labels[0]), 2)
    row = b"\0" + packed.to_bytes(width * bits // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_colours_are_no_labels(tmp_path):
    image_module.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="got mode RGB: colours are no labels"):
        read_labels(tmp_path / "a.png")


def test_labels_of_npz_and_of_floating_nifti(tmp_path):
    np.savez(tmp_path / "a.npz", probs=MAPS, label=LABELS.astype(np.uint16))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.npz"), LABELS)
    save_nifti(tmp_path / "a.nii.gz", LABELS.astype(np.float32))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz"), LABELS)
    np.save(tmp_path / "mask.npy", LABELS == 1)
    assert read_labels(tmp_path / "mask.npy").dtype == torch.uint8
    np.save(tmp_path / "a.npy", MAPS)
    with pytest.raises(ValueError, match="labels must be integers"):
        read_labels(tmp_path / "a.npy")


def test_nifti_keeps_its_header(tmp_path):
    for name in ("a.nii.gz", "two.NII.GZ"):
        SAVERS[name](tmp_path / name, MAPS)
        given = read_maps(tmp_path / name)
        write_labels(tmp_path / "labels.nii.gz", LABELS, given)
        before, after = nibabel.load(tmp_path / name), nibabel.load(tmp_path / "labels.nii.gz")
        assert type(before) is type(after)
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.shape == before.shape[:3]
        changed = {key for key in before.header if not same(before.header[key], after.header[key])}
        assert changed <= {"dim", "datatype", "bitpix", "scl_slope", "scl_inter", "cal_max"}
        assert after.header["cal_max"] == 0
        assert after.get_data_dtype() == np.uint8


def same(a, b):
    return np.array_equal(a, b) or (a.dtype.kind == "f" and np.array_equal(a, b, equal_nan=True))


def test_scaled_nifti_maps_are_scaled_back_and_labels_not_scaled(tmp_path):
    image = nibabel.Nifti1Image(np.moveaxis(MAPS, 0, -1), AFFINE)
    image.set_data_dtype(np.uint16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    given = read_maps(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(given.maps, MAPS, atol=1e-4)
    write_labels(tmp_path / "b.nii.gz", LABELS, given)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.nii.gz"), LABELS)


def test_masks_have_their_classes_first_and_last_in_nifti(tmp_path):
    masks = MAPS > 0.4
    for name in ("a.npy", "a.tif", "a.zarr"):
        write_labels(tmp_path / name, masks, masks=True)
        np.testing.assert_array_equal(read_labels(tmp_path / name), masks)
    write_labels(tmp_path / "a.nii.gz", masks, masks=True)
    assert nibabel.load(tmp_path / "a.nii.gz").shape == (4, 5, 6, 3)
    np.testing.assert_array_equal(
        read_labels(tmp_path / "a.nii.gz").numpy(), np.moveaxis(masks, 0, -1)
    )
    write_labels(tmp_path / "flat.nii.gz", masks[:, 0], masks=True)
    assert nibabel.load(tmp_path / "flat.nii.gz").shape == (5, 6, 1, 3)
    write_labels(tmp_path / "one.png", masks[:1, 0], masks=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "one.png"), masks[0, 0])
    with pytest.raises(ValueError, match=r"one image, got 3 masks: write another format"):
        write_labels(tmp_path / "three.png", masks[:, 0], masks=True)


def test_tiff_keeps_its_place(tmp_path):
    scale = (33550, "d", 3, (0.5, 0.25, 0.0), True)
    tifffile.imwrite(
        tmp_path / "a.tif", MAPS[:, 0], photometric="minisblack", extratags=[scale],
        resolution=(300, 150), resolutionunit=2,
    )  # fmt: skip
    given = read_maps(tmp_path / "a.tif")
    write_labels(tmp_path / "b.tif", LABELS[0], given)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        tags = file.pages[0].tags
        assert tags[33550].value == (0.5, 0.25, 0.0)
        assert tags["XResolution"].value == (300, 1)
        assert tags["YResolution"].value == (150, 1)
    write_labels(tmp_path / "b.nii.gz", LABELS[0], given)  # where it means nothing
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii.gz").affine, np.eye(4))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((2, 3)), "must be integers, got float64"),
        (np.array([[-1, 2]]), "must be at least 0, got -1"),
        (np.array([[70000]]), "up to 65535, got 70000"),
        (LABELS, r"\(height, width\) of one image, got labels of shape \(4, 5, 6\)"),
    ],
)
def test_labels_that_cannot_be_written(tmp_path, labels, words):
    with pytest.raises(ValueError, match=words):
        write_labels(tmp_path / "a.png", labels)
    assert not list(tmp_path.iterdir())


def contents(path):
    """The bytes of a file, or those of all files of a folder by their names."""
    if path.is_file():
        return path.read_bytes()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file.relative_to(path)), file.read_bytes()) for file in files]


WRITTEN = [suffix for suffix in _formats.LABELS_WRITTEN if suffix != ".dcm"]
"""All but DICOM, whose files have identifiers and a date of their own."""


def need(suffix):
    """Skip a test if the package that writes a format is missing."""
    if suffix in (".mha", ".nrrd"):
        framework("SimpleITK")


@pytest.mark.parametrize("suffix", WRITTEN)
def test_same_labels_same_bytes(tmp_path, suffix, monkeypatch):
    need(suffix)
    labels = LABELS[0] if suffix == ".png" else LABELS
    write_labels(tmp_path / f"a{suffix}", labels)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_labels(tmp_path / f"b{suffix}", labels)
    assert contents(tmp_path / f"a{suffix}") == contents(tmp_path / f"b{suffix}")


@pytest.mark.parametrize("before", [True, False], ids=["there", "new"])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_crash_leaves_what_was_there(tmp_path, suffix, before, monkeypatch):
    need(suffix)
    labels = LABELS[0] if suffix == ".png" else LABELS
    path = tmp_path / f"a{suffix}"
    if before:
        write_labels(path, labels)
    old = contents(path) if before else None
    crash_midway(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        write_labels(path, labels + 1)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if before else [])
    assert not before or contents(path) == old
    write_labels(path, labels + 1)
    np.testing.assert_array_equal(read_labels(path), labels + 1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def crash_midway(monkeypatch):
    """Let every writer write a part and then fail."""

    def full(descriptor):
        assert os.fstat(descriptor).st_size > 0
        raise OSError("disk full")

    def half_folder(path, array):
        path.mkdir()
        (path / "zarr.json").write_text(json.dumps({}))
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(zarr, "save_array", half_folder)


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    write_labels(tmp_path / "a.zarr", LABELS)
    replace = _files.os.replace

    def refuse(source, target):
        if source.name == _files.NEW:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(_files.os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        write_labels(tmp_path / "a.zarr", LABELS + 1)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.zarr"), LABELS)


def test_files_of_folders(tmp_path):
    for name in ("b.npy", "a.npz", ".c.npy", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    save_zarr(tmp_path / "e.zarr", probs=MAPS)
    found = find_files([tmp_path, tmp_path / "d.txt"], _formats.MAPS)
    assert [file.name for file in found] == ["a.npz", "b.npy", "e.zarr", "d.txt"]
    assert [stem(file) for file in found] == ["a", "b", "e", "d"]
    with pytest.raises(FileNotFoundError, match=r"no file with an ending of \['\.jpg'\]"):
        find_files(tmp_path, [".jpg"])
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        find_files(tmp_path / "none", _formats.MAPS)
    with pytest.raises(ValueError, match="got none"):
        find_files([], _formats.MAPS)


@pytest.mark.parametrize(
    ("package", "name"),
    [("nibabel", "a.nii.gz"), ("tifffile", "a.tif"), ("zarr", "a.zarr"), ("PIL.Image", "a.png")],
)
def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch, package, name):
    write_labels(tmp_path / name, LABELS[0])
    monkeypatch.setitem(sys.modules, package, None)
    for call in (
        lambda: read_labels(tmp_path / name),
        lambda: write_labels(tmp_path / name, LABELS[0]),
    ):
        with pytest.raises(ImportError, match=r"pip install 'rankseg\[files\]'"):
            call()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_images_are_colours_in_0_to_1(tmp_path, name):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = 255
    image_module.fromarray(pixels).save(
        tmp_path / name, **({"quality": 100} if "jpg" in name else {})
    )
    image = read_image(tmp_path / name).maps
    assert (image.dtype, image.shape) == (torch.float32, (3, 8, 16))
    assert image[0, :, :7].min() > 0.97
    assert image[1:, :, :7].max() < 0.1
    image_module.fromarray(np.full((4, 5), 51, np.uint8)).save(tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name).maps, np.full((3, 4, 5), 0.2), atol=0.01)


def test_deep_grey_images(tmp_path):
    image_module.fromarray(np.full((2, 3), 13107, np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        read_image(tmp_path / "a.png").maps, np.full((3, 2, 3), 0.2), atol=1e-6
    )
