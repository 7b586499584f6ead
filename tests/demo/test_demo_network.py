"""The embedded network is the one that made the embedded sample, at any size of image."""

from __future__ import annotations

import pytest
import torch

from rankseg._demo.example import load_sample
from rankseg._demo.network import centred, demo_network, maps_of_image


@pytest.fixture(scope="module")
def sample():
    return load_sample()


def image_of(sample, number):
    return torch.from_numpy(sample.images[number]).permute(2, 0, 1) / 255


def test_it_gives_the_maps_of_the_sample(sample):
    for number, stored in enumerate(sample.probs):
        given = maps_of_image(image_of(sample, number))
        torch.testing.assert_close(given, stored, rtol=0, atol=0.01)
        torch.testing.assert_close(given.sum(0), torch.ones(128, 128))


@pytest.mark.parametrize(("height", "width"), [(128, 121), (99, 128), (41, 50), (1, 3)])
def test_any_size_gives_maps_of_that_size(sample, height, width):
    image = image_of(sample, 2)[:, :height, :width]
    given = maps_of_image(image)
    assert given.shape == (6, height, width)
    rows = torch.arange(-(-height // 8) * 8).clamp(max=height - 1)
    columns = torch.arange(-(-width // 8) * 8).clamp(max=width - 1)
    with torch.no_grad():
        continued = demo_network()(centred(image[:, rows][:, :, columns])[None])[0].softmax(0)
    torch.testing.assert_close(given, continued[:, :height, :width])
