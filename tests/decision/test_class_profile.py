"""The class profile: it adds up, its cuts are those of the solver to a bin, it survives a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankseg import ClassProfile, RankSEG
from support import maps, oracles


def same(first, second):
    return all(
        torch.allclose(getattr(first, name), getattr(second, name), rtol=1e-12, atol=0)
        for name in ("count", "mass", "peak")
    )


def test_counts_and_sums_are_those_of_the_pixels(backend):
    probs = torch.from_numpy(maps.softmax(2, 3, 40, 50))
    profile = ClassProfile.from_probs(probs)
    assert torch.equal(profile.pixels, torch.full((2, 3), 2000.0).double())
    assert torch.allclose(profile.volume, probs.double().sum((2, 3)))
    assert torch.equal(profile.peak, probs.amax((2, 3)).double())
    edges = profile.edges
    for label in range(3):
        counts, _ = np.histogram(-probs[1, label].double().numpy(), -edges.numpy()[::-1])
        assert np.array_equal(profile.count[1, label].numpy(), counts[::-1])


def test_tiles_add_up_to_the_image(backend):
    probs = maps.softmax(2, 3, 40, 60)
    tiles = [ClassProfile.from_probs(tile) for tile in np.split(probs, 3, axis=3)]
    assert same(tiles[0] + tiles[1] + tiles[2], ClassProfile.from_probs(probs))


def test_pixels_not_valid_are_in_no_bin(backend):
    probs = maps.softmax(2, 3, 40, 60)
    valid = np.zeros((2, 40, 60), bool)
    valid[:, 5:30, 10:] = True
    inside = ClassProfile.from_probs(np.ascontiguousarray(probs[:, :, 5:30, 10:]))
    assert same(ClassProfile.from_probs(probs, valid), inside)


def test_images_pool_to_a_data_set():
    probs = maps.softmax(4, 3, 20, 20)
    joined = np.concatenate(list(probs), axis=2)[None]
    assert same(ClassProfile.from_probs(probs).pooled(), ClassProfile.from_probs(joined))


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("smooth", [0.0, 20.0])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_cuts_are_nearly_as_good_as_those_of_the_solver(metric, smooth, correlation):
    probs = maps.smooth(2, 4, 96).astype("float64")
    cuts = ClassProfile.from_probs(probs).cut(metric, smooth, correlation, 0.0).numpy()
    terms = smooth, correlation
    for image, rows in zip(probs, cuts, strict=True):
        for values, cut in zip(image, rows, strict=True):
            if correlation:
                best = oracles.correlated_scores(metric, values, *terms).max()
                score = oracles.correlated_mask_score(metric, values, values > cut, *terms)
            else:
                best = oracles.best_score(metric, values, smooth)
                score = oracles.mask_score(metric, values, values > cut, smooth)
            assert best - score < 2e-5


def test_classes_that_are_absent_have_no_cut():
    probs = maps.softmax(1, 3, 20, 20)
    probs[:, 1] *= 0.4
    cuts = ClassProfile.from_probs(probs).cut()
    assert torch.isinf(cuts).tolist() == [[False, True, False]]


def test_a_file_gives_the_profile_back(tmp_path):
    profile = ClassProfile.from_probs(maps.softmax(2, 3, 20, 20))
    profile.save(tmp_path / "profile.npz")
    loaded = ClassProfile.load(tmp_path / "profile.npz")
    assert same(loaded, profile)
    assert torch.equal(loaded.cut(), profile.cut())
    assert [path.name for path in tmp_path.iterdir()] == ["profile.npz"]


def test_wrong_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        ClassProfile.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", count=np.zeros(3))
    with pytest.raises(ValueError, match="holds no class profile"):
        ClassProfile.load(tmp_path / "other.npz")
    profile = ClassProfile.from_probs(maps.softmax(1, 2, 9, 9))
    profile.save(tmp_path / "profile.npz")
    monkeypatch.setattr("rankseg._decision.class_profile.LAYOUT", (23, 5))
    with pytest.raises(ValueError, match=r"bins \(23, 6\), not \(23, 5\)"):
        ClassProfile.load(tmp_path / "profile.npz")
    with pytest.raises(FileNotFoundError):
        profile.save(tmp_path / "no folder" / "profile.npz")


def test_wrong_arguments():
    profile = ClassProfile.from_probs(maps.softmax(1, 2, 9, 9))
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        profile + ClassProfile.from_probs(maps.softmax(1, 3, 9, 9))
    with pytest.raises(TypeError):
        profile + 1
    with pytest.raises(ValueError, match="these look like logits"):
        ClassProfile.from_probs(torch.randn(1, 2, 9, 9) * 4)
    with pytest.raises(ValueError, match="metric must be one of"):
        profile.cut("acc")
    with pytest.raises(ValueError, match="correlation must be in"):
        profile.cut(correlation=1.0)
    with pytest.raises(ValueError, match="count and mass must have the shape"):
        ClassProfile(profile.count[..., :-1], profile.mass, profile.peak)


def test_a_cut_needs_no_look_at_the_pixels_of_another_size():
    probs = maps.smooth(1, 3, 64)
    cut = ClassProfile.from_probs(probs).cut("dice")
    masks = RankSEG("dice", output_mode="multilabel")(torch.from_numpy(probs))
    ours = torch.from_numpy(probs) > cut[..., None, None]
    assert (ours != masks).float().mean() < 5e-3
