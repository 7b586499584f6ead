"""Training, the cache of maps, and the table, on images of a few pixels."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import REPOSITORY
from experiments.data import IGNORED
from experiments.losses import CrossEntropy, Mixed
from rankseg._demo.network import maps_of_image, network_of
from rankseg.evaluation import cases

hydra = pytest.importorskip("hydra")
pytest.importorskip("zarr")

from hydra.utils import instantiate  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from experiments.batches import Cropped, Draws, augment  # noqa: E402
from experiments.demo import sample_of, stored_weights, write_arrays  # noqa: E402
from experiments.maps import keep_maps, probabilities  # noqa: E402
from experiments.records import read_comparison  # noqa: E402
from experiments.test import test as run_test  # noqa: E402
from experiments.train import (  # noqa: E402
    CHECKPOINT,
    NETWORK,
    Run,
    build_network,
    input_of,
    learning_rate,
    train,
    train_in_processes,
)

IMAGES = 6


@pytest.fixture
def configured(tmp_path):
    """Return what makes the configuration of a small network on small images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "raw" / "busi"
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
    for number in range(IMAGES):
        label = np.zeros((20, 24), np.uint8)
        top, left = rng.integers(2, 10, 2)
        label[top : top + 8, left : left + 8] = 1 + number % 2
        pixels = (60 + 80 * label[..., None] + rng.integers(0, 40, (20, 24, 3))).astype(np.uint8)
        label[0] = IGNORED
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
        Image.fromarray(label).save(folder / "masks" / f"{number}.png")
    for split, names in {"train": "0 1 2", "val": "3 4", "test": "5 1"}.items():
        (folder / f"{split}.txt").write_text(names)
    classes = ["background", "benign", "malignant"]
    (folder / "meta.json").write_text(json.dumps({"classes": classes}))

    def compose(*overrides):
        with hydra.initialize("../../experiments/conf", version_base=None):
            return hydra.compose(
                "experiment",
                [
                    *(f"raw={tmp_path / 'raw'}", f"runs={tmp_path / 'runs'}"),
                    *("data.shape=[16,16]", "model.network.widths=[4,8]", "log_every=2"),
                    *("schedule.steps=6", "schedule.batch_size=2", "schedule.warm_up=1"),
                    *overrides,
                ],
            )

    return compose


def weights_of(path):
    return torch.load(path / NETWORK, weights_only=True)


def test_training_goes_on_where_it_was_interrupted(configured, tmp_path, monkeypatch):
    train(configured("run=whole"))
    save = Run.save

    def interrupted(run, path):
        save(run, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(configured("run=parts"))
    monkeypatch.setattr(Run, "save", save)
    train(configured("run=parts"))
    whole, parts = (weights_of(tmp_path / "runs" / name) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not (tmp_path / "runs" / "parts" / CHECKPOINT).exists()
    with (tmp_path / "runs" / "parts" / "training.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    if importlib.util.find_spec("tensorboard"):
        assert [*(tmp_path / "runs" / "parts" / "tensorboard").iterdir()]


def test_processes_share_the_batches(configured, tmp_path, monkeypatch):
    places = []
    for rank in range(2):
        draws = Draws(9, 4, seed=3, steps=range(5), rank=rank, processes=2)
        places.append([place for batch in draws for place, _ in batch])
    whole = [place for batch in Draws(9, 4, seed=3, steps=range(5)) for place, _ in batch]
    assert places == [whole[::2], whole[1::2]]
    config = configured("schedule.steps=2")
    OmegaConf.save(config, tmp_path / "config.yaml")
    code = (
        "import torch; from omegaconf import OmegaConf; from experiments import train\n"
        f"torch.set_num_threads(1); config = OmegaConf.load({str(tmp_path / 'config.yaml')!r})\n"
        "train.train_in_processes(config)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **ports, "PYTHONPATH": path, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]
    folder = tmp_path / "runs" / "busi" / "small_unet-ce" / "seed0"
    assert (folder / NETWORK).exists()
    config.schedule.batch_size = 3
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="multiple of the 2 processes, got 3"):
        train_in_processes(config)


def test_seeds_give_different_networks(configured, tmp_path):
    train(configured("schedule.steps=1", "run=a"))
    train(configured("schedule.steps=1", "run=b", "seed=1"))
    first, second = (weights_of(tmp_path / "runs" / name)["head.weight"] for name in "ab")
    assert not torch.equal(first, second)


def test_maps_are_probabilities_of_the_size_of_the_label(configured):
    config = configured()
    with pytest.raises(FileNotFoundError, match=r"holds no network\.pt: train it first"):
        keep_maps(config)
    train(config)
    folder = keep_maps(config)
    found = cases(folder / "test")
    assert sorted(found.names) == ["1", "5"]
    case = found.read("5")
    assert case.probs.shape == (3, 20, 24)
    assert case.probs.dtype == torch.float16
    torch.testing.assert_close(case.probs.float().sum(0), torch.ones(20, 24), atol=2e-3, rtol=0)
    assert (case.label[0] == IGNORED).all()


@pytest.mark.filterwarnings("ignore:2 cases are too few", "ignore:the fit has no end")
def test_the_table_holds_every_method_as_it_is_and_calibrated(configured, tmp_path):
    config = configured(
        "predict=[pruned_argmax,correlated,ba,dataset_rule]",
        "test.presence=[peak,argmax,fitted]",
    )
    train(config)
    run_test(config)
    folder = tmp_path / "runs" / "busi" / "small_unet-ce" / "seed0"
    with (folder / "table.csv").open() as file:
        rows = [*csv.reader(file)]
    methods = {row[1] for row in rows[1:]}
    fitted = {f"correlated {m} {p}" for m in ("dice", "iou") for p in ("peak", "argmax", "fitted")}
    rules = {"dataset_rule dice", "dataset_rule iou"}
    assert methods == {"argmax", "pruned_argmax", "ba dice", *fitted, *rules}
    assert {row[0] for row in rows[1:]} == {"raw", "calibrated"}
    comparison = read_comparison(folder / "decisions-raw.npz")
    assert comparison.classes == ("benign", "malignant")
    assert comparison.cases == ("1", "5")
    counted = comparison.counts["argmax"]
    assert (counted.tp + counted.fn).tolist() == [[0, 64], [0, 64]]


@pytest.mark.parametrize("kind", ["dice", "jaccard"])
@pytest.mark.parametrize("over", ["batch", "image"])
def test_losses(kind, over):
    labels = torch.tensor([[0, 1, 1, IGNORED], [0, 0, 0, IGNORED]])
    right = 20.0 * torch.nn.functional.one_hot(labels.clamp(max=1), 2).movedim(-1, 1)
    assert Mixed(kind, over, 0.25)(right, labels) == pytest.approx(0, abs=1e-4)
    even = torch.zeros(2, 2, 4)
    held = [(4, 6), (2, 6)] if over == "batch" else [(1, 3), (2, 3), (3, 3)]
    overlap = np.mean([score_of_halves(kind, *one) for one in held])
    expected = 0.75 * np.log(2) + 0.25 * (1 - overlap)
    assert Mixed(kind, over, 0.25)(even, labels) == pytest.approx(expected, abs=1e-5)


def score_of_halves(kind, held, pixels):
    """Return the score of probabilities 1/2 in all pixels against a class in ``held`` of them."""
    both, total = held / 2, pixels / 2 + held
    return 2 * both / total if kind == "dice" else both / (total - both)


def test_weighted_cross_entropy_counts_classes_by_weight():
    logits = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    labels = torch.tensor([[0, 1]])
    losses = [float(CrossEntropy()(logits[..., [i]], labels[:, [i]])) for i in (0, 1)]
    weighted = CrossEntropy([1.0, 3.0])(logits, labels)
    assert float(weighted) == pytest.approx((losses[0] + 3 * losses[1]) / 4, abs=1e-6)


def test_class_weights_are_written_beside_the_maps_and_can_be_undone(configured, tmp_path):
    config = configured(
        *("loss=ce_weighted", "predict=pruned_argmax", "schedule.steps=1"),
        "~test.calibration.calibrated",
    )
    train(config)
    folder = keep_maps(config)
    meta = json.loads((folder / "test" / "meta.json").read_text())
    frequencies = [1 - 64 / 456, 64 / 1368 * 2, 64 / 1368]  # of 0, 1, 2: two lesions and one
    expected = [1 / np.log(1.02 + one) for one in frequencies]
    assert meta["class_weights"] == pytest.approx(expected, rel=1e-3)
    run_test(config)
    table = (
        tmp_path / "runs" / "busi" / "small_unet-ce_weighted" / "seed0" / "table.csv"
    ).read_text()
    assert "\nweights undone,argmax,dice" in table


def test_a_network_of_crops_slides_over_the_image(configured, tmp_path):
    config = configured("data.shape=[8,8]", "+data.crop=true", "test.flips=true")
    train(config)
    data = instantiate(config.data.reader)
    network = build_network(config, data)
    network.load_state_dict(weights_of(tmp_path / "runs" / "busi" / "small_unet-ce" / "seed0"))
    network.eval()
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    found = probabilities(network, image, (20, 24), config)
    mirrored = probabilities(network, image.flip(-1), (20, 24), config)
    torch.testing.assert_close(found.sum(0), torch.ones(20, 24))
    torch.testing.assert_close(found, mirrored.flip(-1))
    with torch.inference_mode():
        windows = (image[None, :, y : y + 8, x : x + 8] for y, x in ((0, 0), (12, 16)))
        corners = [network(input_of(window, config)).softmax(1)[0] for window in windows]
    config.test.flips = False
    plain = probabilities(network, image, (20, 24), config)
    torch.testing.assert_close(plain[:, :4, :4], corners[0][:, :4, :4])
    torch.testing.assert_close(plain[:, -4:, -4:], corners[1][:, -4:, -4:])


def test_crops_continue_images_that_are_too_small(configured):
    data = instantiate(configured().data.reader)
    crops = Cropped(data, "train", [30, 30])
    sizes = set()
    for number in range(20):
        image, label = crops[0, number]
        assert (image.shape, label.shape) == ((3, 30, 30), (30, 30))
        assert (label[image.sum(0) == 0] == IGNORED).all()
        sizes.add(int((image.sum(0) > 0).sum()))
    assert len(sizes) > 5
    assert max(sizes) == 900


def test_a_run_becomes_the_network_and_the_sample_of_the_demo(configured, tmp_path):
    config = configured("schedule.steps=1")
    train(config)
    weights = stored_weights(weights_of(tmp_path / "runs" / "busi" / "small_unet-ce" / "seed0"))
    data = instantiate(config.data.reader)
    sample = sample_of(data, weights, (16, 20), 2)
    write_arrays(tmp_path / "sample.npz", sample)
    with np.load(tmp_path / "sample.npz") as arrays:
        assert arrays["images"].shape == (2, 16, 20, 3)
        assert arrays["probs"].shape == (2, 3, 16, 20)
        assert arrays["classes"].tolist() == ["background", "benign", "malignant"]
        assert (arrays["labels"][:, 0] == IGNORED).all()
        image = torch.from_numpy(arrays["images"][1]).permute(2, 0, 1) / 255
        network = network_of({name: torch.from_numpy(value) for name, value in weights.items()})
        given = maps_of_image(image, network)
        stored = torch.from_numpy(arrays["probs"][1]).float()
        torch.testing.assert_close(given, stored, rtol=0, atol=3e-4)
    _, label = data.read(data.splits["test"][1])
    assert sorted(np.unique(sample["labels"][1])) == sorted(label.unique().tolist())


def test_the_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, 10, 4) for step in range(11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[10] == 0


@pytest.mark.parametrize("shape", [(8, 12), (4, 6, 8)])
def test_images_and_labels_are_moved_together(shape):
    labels = (torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) > 0.5).long()
    labels = torch.nn.functional.interpolate(
        labels[:, None].float(), scale_factor=4.0, mode="nearest"
    )[:, 0].long()
    images = labels[:, None].float()
    moved, moved_labels = augment(images, labels, torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    for image, label, before in zip(moved, moved_labels, labels, strict=True):
        assert not torch.equal(label, before)
        inside, outside = image[0][label == 1], image[0][label == 0]
        assert inside.mean() - outside.mean() > 0.5
    again = augment(images, labels, torch.Generator().manual_seed(1))
    assert torch.equal(moved, again[0])
