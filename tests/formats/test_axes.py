"""Which axis of a stored array is which, in every format."""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np
import pytest
import torch

from rankseg._formats import read_image, read_labels, read_maps, write_labels

nibabel = pytest.importorskip("nibabel", reason="needs nibabel")
tifffile = pytest.importorskip("tifffile", reason="needs tifffile")
zarr = pytest.importorskip("zarr", reason="needs zarr")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")


def probabilities(*shape):
    """Random maps with the classes first, which sum to 1."""
    logits = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
    return torch.from_numpy(logits).softmax(0).numpy()


FLAT = probabilities(4, 12, 10)  # classes, y, x
VOLUME = probabilities(3, 5, 12, 14)  # classes, z, y, x
DEPTH = np.random.default_rng(1).random((5, 12, 14), np.float32)  # one class of a volume

ARRAYS = {
    ".npy": np.save,
    ".npz": lambda path, array: np.savez(path, probs=array),
    ".pt": lambda path, array: torch.save(torch.from_numpy(array), path),
    ".safetensors": lambda path, array: safetensors.save_file(
        {"probs": torch.from_numpy(np.ascontiguousarray(array))}, path
    ),
    ".zarr": lambda path, array: zarr.save_array(path, array, mode="w"),
    ".tif": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack"),
}


@pytest.fixture(params=ARRAYS)
def store(request, tmp_path):
    """Store an array in a format that does not name its axes."""
    path = tmp_path / f"a{request.param}"

    def save(array):
        ARRAYS[request.param](path, array)
        return path

    return save


def assert_same(found, expected):
    assert tuple(found.shape) == expected.shape
    np.testing.assert_array_equal(found, expected)


class TestBatch:
    @pytest.mark.parametrize("maps", [FLAT, VOLUME, FLAT[:1], VOLUME[:1]], ids=str)
    def test_a_batch_of_one_is_left_out(self, store, maps):
        assert_same(read_maps(store(maps[None])).maps, maps)

    def test_logits_of_a_volume_in_a_batch_of_one(self, store):
        assert_same(read_maps(store(9 * VOLUME[None])).maps, 9 * VOLUME)

    def test_one_class_of_a_thin_volume_may_be_a_batch(self, store):
        with pytest.warns(UserWarning, match=r"\(1, 5, 12, 14\) are read as one class of a volume"):
            assert_same(read_maps(store(DEPTH[None])).maps, DEPTH[None])
        with pytest.warns(UserWarning, match=r"store maps\[0\]"):
            read_maps(store(9 * FLAT[None]))

    def test_one_class_of_a_thick_volume_is_none(self, store):
        cube = np.random.default_rng(0).random((1, 12, 12, 10), np.float32)
        assert_same(read_maps(store(cube)).maps, cube)

    @pytest.mark.parametrize(
        ("maps", "words"),
        [
            (np.stack([FLAT, FLAT]), r"\(2, 4, 12, 10\) axis 1 sums to 1 .*a batch: write one"),
            (np.stack([VOLUME, VOLUME]), r"axis 1 sums to 1 and axis 0 does not.*a batch"),
            (9 * np.stack([VOLUME, VOLUME]), r"\(2, 3, 5, 12, 14\): if axis 0 is a batch, write"),
            (np.moveaxis(FLAT, 0, -1), r"axis 2 sums to 1 .*np\.moveaxis\(maps, 2, 0\)"),
            (np.moveaxis(FLAT, 0, -1)[None], r"axis 3 sums to 1"),
            (np.moveaxis(VOLUME, 0, -1), r"axis 3 sums to 1"),
        ],
    )
    def test_another_axis_of_classes_is_refused(self, store, maps, words):
        with pytest.raises(ValueError, match=words):
            read_maps(store(maps))

    @pytest.mark.parametrize("dtype", ["f2", "f8"])
    def test_rounded_sums_are_sums(self, tmp_path, dtype):
        np.save(tmp_path / "a.npy", FLAT[None].astype(dtype))
        assert_same(read_maps(tmp_path / "a.npy").maps, FLAT.astype(dtype))

    def test_equal_values_tell_nothing(self, store):
        equal = np.full((20, 2, 16), 0.5, np.float32)
        assert_same(read_maps(store(equal)).maps, equal)

    def test_other_axes_are_no_matter_where_the_first_sums_to_one(self, store):
        both = np.full((2, 2, 2, 20), 0.5, np.float32)
        both[0, 0] = both[1, 1] = 0.9
        both[0, 1] = both[1, 0] = 0.1
        assert_same(read_maps(store(both)).maps, both)


class TestNifti:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_five_axes_have_the_class_last(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        stored = np.moveaxis(VOLUME, 0, -1)[..., None, :]
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), path)
        assert_same(read_maps(path).maps, VOLUME)
        nibabel.save(nibabel.Nifti1Image(stored[..., :1], np.eye(4)), path)
        assert_same(read_maps(path).maps, VOLUME[:1])

    @pytest.mark.parametrize("most", [255, 65535])
    @pytest.mark.parametrize("inter", [0, -1e-7])
    def test_scaled_maps_are_in_0_to_1(self, tmp_path, most, inter):
        stored = np.rint(np.moveaxis(VOLUME, 0, -1) * most).astype(np.min_scalar_type(most))
        stored[0, 0, 0] = [most, 0, 0]
        image = nibabel.Nifti1Image(stored, np.eye(4))
        image.header.set_slope_inter(1 / most + 1e-10, inter)
        (tmp_path / "a.nii").write_bytes(image.to_bytes())
        maps = read_maps(tmp_path / "a.nii").maps
        assert maps.dtype == torch.float32
        assert 0 <= maps.min() < maps.max() <= 1
        np.testing.assert_allclose(maps, np.moveaxis(stored / most, -1, 0), atol=1e-5)

    def test_scaled_logits_are_not_clipped(self, tmp_path):
        logits = np.array([-3, -1, 0, 1, 2, 3], np.int16).reshape(2, 1, 1, 3)
        image = nibabel.Nifti1Image(logits, np.eye(4))
        image.header.set_slope_inter(1.01, 0)
        (tmp_path / "a.nii").write_bytes(image.to_bytes())
        wanted = np.moveaxis(logits, -1, 0) * np.float32(1.01)
        np.testing.assert_allclose(read_maps(tmp_path / "a.nii").maps, wanted)

    def test_labels_of_maps_stored_as_vectors_are_none(self, tmp_path):
        image = nibabel.Nifti1Image(np.moveaxis(VOLUME, 0, -1)[..., None, :], np.eye(4))
        image.header.set_intent("vector")
        nibabel.save(image, tmp_path / "a.nii")
        write_labels(tmp_path / "b.nii", VOLUME.argmax(0), read_maps(tmp_path / "a.nii"))
        assert nibabel.load(tmp_path / "b.nii").header.get_intent()[0] == "none"

    def test_time_is_refused(self, tmp_path):
        stored = np.zeros((4, 5, 6, 2, 3), np.float32)
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"\(x 4, y 5, z 6, time 2, class 3\): write one file"):
            read_maps(tmp_path / "a.nii")

    def test_an_image_without_depth_needs_four_axes(self, tmp_path):
        stored = np.moveaxis(FLAT, 0, -1)
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"axis 3 sums to 1"):
            read_maps(tmp_path / "a.nii")
        nibabel.save(nibabel.Nifti1Image(stored[:, :, None], np.eye(4)), tmp_path / "a.nii")
        assert_same(read_maps(tmp_path / "a.nii").maps, FLAT[:, :, :, None])

    @pytest.mark.parametrize("axes", [1, 2])
    def test_labels_lose_last_axes_of_one(self, tmp_path, axes):
        labels = VOLUME.argmax(0).astype(np.uint8)
        stored = labels.reshape(*labels.shape, *[1] * axes)
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii.gz")
        assert_same(read_labels(tmp_path / "a.nii.gz"), labels)


def save_ome(path, arrays, axes, *, version="0.4"):
    """Write an image of OME-Zarr with a level for each array."""
    group = zarr.open_group(path, mode="a", zarr_format=3 if version == "0.5" else 2)
    for level, array in enumerate(arrays):
        group.create_array(str(level), data=array)
    levels = [{"path": str(level)} for level in range(len(arrays))]
    image = {"datasets": levels, **({} if axes is None else {"axes": axes})}
    content = {"multiscales": [image]}
    group.attrs.update({"ome": {"version": version, **content}} if version == "0.5" else content)


def named(axes):
    return [{"name": name} for name in axes]


class TestOmeZarr:
    @pytest.mark.parametrize("version", ["0.4", "0.5"])
    @pytest.mark.parametrize("key", [None, "0"])
    def test_axes_are_those_declared(self, tmp_path, version, key):
        path = tmp_path / "a.zarr"
        stored = VOLUME[None]
        save_ome(path, [stored, stored[..., ::2, ::2]], named("tczyx"), version=version)
        assert_same(read_maps(path, key).maps, VOLUME)
        assert_same(read_maps(path, "1").maps, VOLUME[..., ::2, ::2])

    @pytest.mark.parametrize(
        ("stored", "axes", "expected"),
        [
            (FLAT, named("cyx"), FLAT),
            (FLAT[None, :, None], None, FLAT[:, None]),
            (FLAT[None, :, None], list("tczyx"), FLAT[:, None]),
            (9 * np.moveaxis(VOLUME, 0, 1), named("zcyx"), 9 * VOLUME),
            (np.moveaxis(FLAT, 0, -1), named("yxc"), FLAT),
            (DEPTH, named("zyx"), DEPTH[None]),
            (DEPTH[None], named("czyx"), DEPTH[None]),
            (FLAT, [{"name": "k", "type": "channel"}, *named("yx")], FLAT),
        ],
    )
    def test_every_order(self, tmp_path, stored, axes, expected):
        save_ome(tmp_path / "a.zarr", [stored], axes)
        assert_same(read_maps(tmp_path / "a.zarr").maps, expected)

    @pytest.mark.parametrize(
        ("stored", "axes", "words"),
        [
            (np.stack([FLAT, FLAT]), "tcyx", r"\(time 2, class 4, y 12, x 10\): write one file"),
            (FLAT, "tyx", r"\(time 4, y 12, x 10\)"),
            (FLAT, "tczyx", "names 5 axes, but the array has 3"),
            (FLAT, "zyx", "axis 1 sums to 1"),
        ],
    )
    def test_what_is_refused(self, tmp_path, stored, axes, words):
        save_ome(tmp_path / "a.zarr", [stored], named(axes))
        with pytest.raises(ValueError, match=words):
            read_maps(tmp_path / "a.zarr")

    def test_labels(self, tmp_path):
        labels = VOLUME.argmax(0).astype(np.uint8)
        save_ome(tmp_path / "a.zarr", [labels[None, None]], named("tczyx"))
        assert_same(read_labels(tmp_path / "a.zarr"), labels)
        save_ome(tmp_path / "b.zarr", [np.stack([labels, labels])], named("czyx"))
        with pytest.raises(ValueError, match=r"one value for each pixel, got \(class 2, z 5"):
            read_labels(tmp_path / "b.zarr")
        save_ome(tmp_path / "c.zarr", [np.stack([labels, labels])], named("tzyx"))
        with pytest.raises(ValueError, match=r"time 2"):
            read_labels(tmp_path / "c.zarr")

    @pytest.mark.parametrize(
        "images",
        [
            {"a": 1}, "text", 5, [5], [{"datasets": 5}], [{"datasets": [{}]}],
            [{"datasets": [{"path": "0"}], "axes": 5}], [{"datasets": [5]}],
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("place", ["multiscales", "ome"])
    def test_metadata_of_another_form(self, tmp_path, images, place):
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        group.create_array("0", data=FLAT)
        content = {"multiscales": images}
        group.attrs.update(content if place == "multiscales" else {"ome": content})
        for read in (read_maps, read_labels):
            with pytest.raises(ValueError, match=r"metadata of OME-Zarr must be .*, got \{'multi"):
                read(tmp_path / "a.zarr")

    def test_the_label_image_of_an_image(self, tmp_path):
        labels = VOLUME.argmax(0).astype(np.uint8)
        save_ome(tmp_path / "a.zarr", [VOLUME], named("czyx"))
        save_ome(tmp_path / "a.zarr" / "labels" / "cells", [labels[None]], named("czyx"))
        zarr.open_group(tmp_path / "a.zarr" / "labels", mode="a", zarr_format=2)
        assert_same(read_labels(tmp_path / "a.zarr"), labels)
        assert_same(read_maps(tmp_path / "a.zarr").maps, VOLUME)
        save_ome(tmp_path / "a.zarr" / "labels" / "more", [labels], named("zyx"))
        with pytest.raises(ValueError, match=r"one label image, got \['cells', 'more'\]"):
            read_labels(tmp_path / "a.zarr")


def save_named(path, array, names, way):
    """Store an array that names its axes, as Zarr 3 does or as xarray does, perhaps in a group."""
    version = 2 if "2" in way else 3
    place = zarr.open_group(path, mode="w", zarr_format=version) if "group" in way else None
    options = {"name": "probs"} if place is not None else {"store": path, "overwrite": True}
    if "xarray" in way:
        options["attributes"] = {"_ARRAY_DIMENSIONS": list(names)}
    else:
        options["dimension_names"] = names
    if place is None:
        zarr.create_array(data=array, zarr_format=version, **options)
    else:
        place.create_array(data=array, **options)


class TestMissingChunks:
    @staticmethod
    def save(path, maps, version, **options):
        options = {"chunks": (len(maps), 6, 5), **options}
        zarr.create_array(path, data=maps, zarr_format=version, **options)
        chunks = [file for file in path.rglob("*") if re.fullmatch(r"[c/.\d]+", file.name)]
        next(file for file in sorted(chunks) if file.is_file()).unlink()

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("scale", [1, 9, -1])
    def test_they_are_told(self, tmp_path, version, scale):
        self.save(tmp_path / "a.zarr", scale * FLAT, version)
        with pytest.warns(UserWarning, match="1 of 4 chunks are not stored, .* it again"):
            read_maps(tmp_path / "a.zarr")

    def test_shards_are_told(self, tmp_path):
        self.save(tmp_path / "a.zarr", FLAT, 3, chunks=(4, 3, 5), shards=(4, 6, 10))
        with pytest.warns(UserWarning, match="4 of 8 chunks are not stored"):
            read_maps(tmp_path / "a.zarr")

    @pytest.mark.parametrize("maps", [DEPTH[:1], DEPTH], ids=["one class", "classes that overlap"])
    def test_chunks_of_zeros_are_not_stored(self, tmp_path, maps):
        maps = maps.copy()
        maps[:, :6, :7] = 0
        zarr.create_array(tmp_path / "a.zarr", data=maps, chunks=(len(maps), 6, 7))
        assert zarr.open(tmp_path / "a.zarr").nchunks_initialized == 3
        assert_same(read_maps(tmp_path / "a.zarr").maps, maps)

    def test_a_class_that_is_nowhere_in_a_chunk(self, tmp_path):
        maps = np.eye(3, dtype=np.float32)[VOLUME[0, 0].argsort(0) % 2].transpose(2, 0, 1)
        zarr.create_array(tmp_path / "a.zarr", data=maps, chunks=(1, 12, 14))
        assert_same(read_maps(tmp_path / "a.zarr").maps, maps)


class TestNamesOfZarr:
    @pytest.mark.parametrize(
        "way", ["zarr 3", "xarray 2", "xarray 3", "zarr 3 group", "xarray 2 group"]
    )
    @pytest.mark.parametrize(
        ("stored", "names", "expected"),
        [
            (np.moveaxis(FLAT, 0, -1), ("y", "x", "c"), FLAT),
            (np.moveaxis(FLAT, 0, 1), ("Latitude", "class", "Longitude"), FLAT),
            (np.moveaxis(VOLUME, 0, 1)[None], ("time", "depth", "band", "y_1", "x_1"), VOLUME),
            (FLAT[None], ("batch", "classes", "height", "width"), FLAT),
            (np.moveaxis(FLAT, 0, -1), ("y", "x", "tissue"), FLAT),
            (DEPTH, ("z", "y", "x"), DEPTH[None]),
            (FLAT, ("dim_0", "dim_1", "dim_2"), FLAT),
        ],
    )
    def test_declared_axes(self, tmp_path, way, stored, names, expected):
        save_named(tmp_path / "a.zarr", 9 * stored, names, way)
        assert_same(read_maps(tmp_path / "a.zarr").maps, 9 * expected)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (("time", "c", "y", "x"), r"\(time 3, class 5, y 12, x 14\): .*each point in time"),
            (("batch", "c", "y", "x"), r"\(batch 3, class 5, y 12, x 14\): .*each image"),
            (("channel", "band", "y", "x"), "more than one could be that of classes"),
            (("one", "other", "y", "x"), "more than one could be that of classes"),
        ],
    )
    def test_what_is_refused(self, tmp_path, names, words):
        save_named(tmp_path / "a.zarr", 9 * VOLUME, names, "zarr 3")
        with pytest.raises(ValueError, match=words):
            read_maps(tmp_path / "a.zarr")

    def test_labels(self, tmp_path):
        labels = VOLUME.argmax(0)
        save_named(tmp_path / "a.zarr", labels[None], ("time", "z", "y", "x"), "xarray 2")
        assert_same(read_labels(tmp_path / "a.zarr"), labels)
        save_named(tmp_path / "a.zarr", labels, ("y", "x", "class"), "zarr 3")
        with pytest.raises(ValueError, match=r"got \(y 5, x 12, class 14\): colours"):
            read_labels(tmp_path / "a.zarr")

    def test_names_that_are_no_list(self, tmp_path):
        zarr.create_array(tmp_path / "a.zarr", data=FLAT, attributes={"_ARRAY_DIMENSIONS": 3})
        with pytest.raises(ValueError, match="must be a list, got _ARRAY_DIMENSIONS 3"):
            read_maps(tmp_path / "a.zarr")

    def test_names_of_some_axes(self, tmp_path):
        zarr.create_array(tmp_path / "a.zarr", data=FLAT, dimension_names=("y", None, None))
        with pytest.raises(ValueError, match=r"\(y 4, page 12, page 10\), and more than one"):
            read_maps(tmp_path / "a.zarr")


def write_pages(path, pages, **options):
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **options)


def append_pages(path, pages):
    for page in pages:
        tifffile.imwrite(path, page, append=path.exists())


OME = (
    "<?xml version='1.0'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06' "
    "UUID='urn:uuid:{}'><Image ID='Image:0'><Pixels ID='Pixels:0' DimensionOrder='XYZCT' {} "
    "SizeZ='1' SizeC='2' SizeT='1'><Channel ID='C:0' SamplesPerPixel='1'/>"
    "<Channel ID='C:1' SamplesPerPixel='1'/>{}</Pixels></Image></OME>"
)


def save_set(folder, pages):
    """Write two pages as files of one set of OME-TIFF."""
    kind = "float" if pages.dtype.kind == "f" else "uint8"
    size = f"Type='{kind}' SizeX='{pages.shape[2]}' SizeY='{pages.shape[1]}'"
    places = "".join(
        f"<TiffData FirstC='{at}' IFD='0' PlaneCount='1'>"
        f'<UUID FileName="{at}.ome.tif">urn:uuid:{at}</UUID></TiffData>'
        for at in range(len(pages))
    )
    for at, page in enumerate(pages):
        content = OME.format(at, size, places)
        tifffile.imwrite(folder / f"{at}.ome.tif", page, description=content, metadata=None)


class TestTiff:
    @pytest.mark.parametrize("scale", [1, 9], ids=["probabilities", "logits"])
    @pytest.mark.parametrize(
        "write",
        [
            write_pages,
            append_pages,
            lambda path, pages: write_pages(path, pages, metadata=None),
            lambda path, pages: write_pages(path, pages, contiguous=True),
            lambda path, pages: write_pages(path, pages, compression="zlib"),
        ],
    )
    def test_classes_written_one_by_one(self, tmp_path, write, scale):
        write(tmp_path / "a.tif", scale * FLAT)
        assert_same(read_maps(tmp_path / "a.tif").maps, scale * FLAT)

    def test_slices_and_classes_written_one_by_one(self, tmp_path):
        slices = [np.ascontiguousarray(VOLUME[:, z]) for z in range(5)]
        write_pages(tmp_path / "slices.tif", slices, photometric="minisblack")
        write_pages(tmp_path / "classes.tif", VOLUME, photometric="minisblack")
        write_pages(
            tmp_path / "samples.tif",
            [9 * page for page in slices],
            photometric="minisblack",
            planarconfig="separate",
        )
        assert_same(read_maps(tmp_path / "slices.tif").maps, VOLUME)
        assert_same(read_maps(tmp_path / "classes.tif").maps, VOLUME)
        assert_same(read_maps(tmp_path / "samples.tif").maps, 9 * VOLUME)
        write_pages(tmp_path / "a.tif", 9 * VOLUME, photometric="minisblack")
        with pytest.raises(ValueError, match=r"\(page 3, page 5, y 12, x 14\), and more than one"):
            read_maps(tmp_path / "a.tif")

    @pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}, {"photometric": "rgb"}, {}])
    def test_declared_axes(self, tmp_path, kind):
        options = {"photometric": "minisblack", **kind}
        if "imagej" in kind:
            tifffile.imwrite(
                tmp_path / "a.tif", 9 * np.moveaxis(VOLUME, 0, 1), metadata={"axes": "ZCYX"},
                **options,
            )  # fmt: skip
        elif "rgb" in options.values():
            write_pages(tmp_path / "a.tif", 9 * VOLUME.transpose(1, 2, 3, 0), **options)
        else:
            tifffile.imwrite(tmp_path / "a.tif", 9 * VOLUME, metadata={"axes": "CZYX"}, **options)
        assert_same(read_maps(tmp_path / "a.tif").maps, 9 * VOLUME)

    def test_slices_may_be_classes_in_imagej(self, tmp_path):
        options = {"imagej": True, "metadata": {"axes": "ZYX"}}
        tifffile.imwrite(tmp_path / "a.tif", FLAT, **options)
        assert_same(read_maps(tmp_path / "a.tif").maps, FLAT)
        tifffile.imwrite(tmp_path / "a.tif", DEPTH, **options)
        with pytest.raises(ValueError, match=r"\(z 5, y 12, x 14\), and more than one could be"):
            read_maps(tmp_path / "a.tif")

    def test_what_is_refused(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.stack([FLAT, FLAT]), imagej=True, metadata={"axes": "TCYX"})
        with pytest.raises(ValueError, match=r"\(time 2, class 4, y 12, x 10\): write one file"):
            read_maps(path)
        tifffile.imwrite(path, FLAT, imagej=True, metadata={"axes": "TYX"})
        with pytest.raises(ValueError, match=r"\(time 4, y 12, x 10\)"):
            read_maps(path)
        tifffile.imwrite(path, VOLUME, imagej=True)  # as (z, class, y, x), which it is not
        with pytest.raises(ValueError, match="sums to 1 and axis 0 does not"):
            read_maps(path)
        write_pages(path, [*FLAT, FLAT[0, ::2, ::2]])
        with pytest.raises(ValueError, match=r"one shape and type, got \(6, 5\) .*, \(12, 10\)"):
            read_maps(path)
        write_pages(path, [*FLAT[:3], FLAT[3].astype(np.float64)])
        with pytest.raises(ValueError, match=r"float32, .* of float64"):
            read_maps(path)

    @pytest.mark.parametrize("lost", [None, 0, 1])
    def test_pages_of_other_files_are_refused(self, tmp_path, lost):
        labels = (9 * VOLUME.astype(np.uint8))[:2, 0]
        for read, pages in ((read_maps, FLAT[:2]), (read_labels, labels)):
            save_set(tmp_path, pages)
            if lost is not None:
                (tmp_path / f"{lost}.ome.tif").unlink()
            told = "" if lost is None else rf", of which \['{lost}\.ome\.tif'\] are missing"
            for path in tmp_path.iterdir():
                words = rf"\['0\.ome\.tif', '1\.ome\.tif'\] with other files{told}: write"
                with pytest.raises(ValueError, match=words):
                    read(path)

    def test_pages_that_a_file_declares_but_lacks_are_refused(self, tmp_path):
        content = OME.format(0, "Type='float' SizeX='10' SizeY='12'", "<TiffData IFD='0'/>")
        tifffile.imwrite(tmp_path / "a.tif", FLAT[0], description=content, metadata=None)
        with pytest.raises(ValueError, match=r"a\.tif .* it lacks pages that it declares"):
            read_maps(tmp_path / "a.tif")

    def test_reduced_copies_are_no_pages(self, tmp_path):
        half = np.ascontiguousarray(FLAT[:, ::2, ::2])
        options = {"photometric": "minisblack", "metadata": None}
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(FLAT, subifds=1, **options)
            file.write(half, subfiletype=1, **options)
        with tifffile.TiffWriter(tmp_path / "b.tif") as file:
            file.write(FLAT, planarconfig="separate", **options)
            file.write(half, planarconfig="separate", subfiletype=1, **options)
        with tifffile.TiffWriter(tmp_path / "c.tif") as file:
            for page in FLAT:
                file.write(page)
            for page in half:
                file.write(page, subfiletype=1)
        with tifffile.TiffWriter(tmp_path / "d.tif") as file:
            file.write(FLAT, **options)
            file.write(np.zeros((12, 16), bool), subfiletype=4, **options)  # a mask
        for name in "abcd":
            assert_same(read_maps(tmp_path / f"{name}.tif").maps, FLAT)

    @pytest.mark.parametrize("options", [{}, {"metadata": None}, {"compression": "zlib"}])
    def test_labels_written_slice_by_slice(self, tmp_path, options):
        labels = VOLUME.argmax(0).astype(np.uint8)
        write_pages(tmp_path / "a.tif", labels, **options)
        assert_same(read_labels(tmp_path / "a.tif"), labels)

    @pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
    def test_labels_written_at_once(self, tmp_path, options):
        labels = VOLUME.argmax(0).astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack", **options)
        assert_same(read_labels(tmp_path / "a.tif"), labels)

    def test_colours_are_no_labels(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 10, 3), np.uint8), photometric="rgb")
        with pytest.raises(ValueError, match=r"got \(y 12, x 10, class 3\): colours"):
            read_labels(tmp_path / "a.tif")
        tifffile.imwrite(
            tmp_path / "a.tif", np.zeros((2, 12, 10), np.uint8), imagej=True,
            metadata={"axes": "TYX"},
        )  # fmt: skip
        with pytest.raises(ValueError, match="time 2"):
            read_labels(tmp_path / "a.tif")

    def test_images_are_of_one_page(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 256, (3, 12, 10), np.uint8)
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, colours, photometric="rgb", planarconfig="separate")
        np.testing.assert_array_equal(read_image(path).maps, colours / np.float32(255))
        tifffile.imwrite(path, colours.transpose(1, 2, 0), photometric="rgb")
        np.testing.assert_array_equal(read_image(path).maps, colours / np.float32(255))
        for write, words in (
            (lambda: write_pages(path, colours), r"\(page 3, y 12, x 10\)"),
            (
                lambda: tifffile.imwrite(path, colours, photometric="minisblack"),
                r"\(page 3, y 12, x 10\)",
            ),
            (
                lambda: write_pages(path, [colours.transpose(1, 2, 0)] * 2, photometric="rgb"),
                r"\(page 2, y 12, x 10, class 3\)",
            ),
            (lambda: write_pages(path, [colours[0], colours[0, ::2]]), "one shape and type"),
        ):
            write()
            with pytest.raises(ValueError, match=words):
                read_image(path)


def test_every_map_that_is_read_in_silence_sums_to_one(tmp_path):
    """No order of axes of a softmax, with or without a batch, is read as anything else."""
    maps = probabilities(3, 7, 8, 9)
    for order in itertools.permutations(range(4)):
        for batch in (False, True):
            stored = maps.transpose(order)
            np.save(tmp_path / "a.npy", stored[None] if batch else stored)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    found = read_maps(tmp_path / "a.npy").maps
                except (ValueError, UserWarning):
                    assert order[0] != 0
                else:
                    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
