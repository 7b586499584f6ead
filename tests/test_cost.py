"""What a decision must not cost: copies of the input, and waits for the device per class."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rankseg import RankSEG
from support import maps
from support.memory import CLEAR, peak_growth

WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")
"""Operations whose result the host must wait for."""


class CountWaits(TorchDispatchMode):
    """Counts the operations that would make the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


def waits(decide, probs):
    with CountWaits() as counter:
        decide(probs)
    return counter.waits


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metric": "iou"},
        {"smooth": 1.0},
        {"solver": "joint"},
        {"output_mode": "multilabel"},
        {"output_mode": "multilabel", "solver": "BA"},
        {"output_mode": "multilabel", "solver": "TRNA"},
    ],
    ids=str,
)
def test_waits_for_the_device_do_not_grow_with_images_or_classes(monkeypatch, options):
    monkeypatch.setenv("RANKSEG_BACKEND", "torch")
    decide = RankSEG(**options)
    probs = torch.from_numpy(maps.softmax(1, 4, 20, 30)) / 2
    probs[:, :, 0] *= 2
    # The same images and classes again take about as many steps of the iterations: labels end a
    # pass or two later, since the rise of the objective is judged by all classes together.
    more = probs.repeat(5, 6, 1, 1)
    alone = waits(RankSEG(output_mode="multilabel", solver="RMA"), probs)
    assert alone > 0
    assert waits(decide, more) <= waits(decide, probs) + 6


@pytest.mark.skipif(not CLEAR.exists(), reason="needs Linux's record of peak memory")
@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"solver": "RMA"}, 0.15),
        ({"metric": "iou", "solver": "RMA"}, 0.15),
        ({"output_mode": "multilabel"}, 0.25),  # profiles and gains of the classes
        ({}, 0.8),  # five label maps, where many pixels are near the cuts
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "crop", "half", "valid"])
def test_memory_beyond_input_and_output(layout, options, share):
    probs = torch.from_numpy(maps.smooth(1, 16, 1024))  # 64 MiB
    valid = None
    if layout == "channels last":
        probs = probs.contiguous(memory_format=torch.channels_last)
    elif layout == "crop":
        probs = torch.nn.functional.pad(probs, (3, 5, 7, 2))[..., 7:-2, 3:-5]
    elif layout == "half":
        probs = probs.half()
    elif layout == "valid":
        valid = probs[:, 0] < 0.9
    decide = RankSEG(**options)
    decide(probs[..., :64, :64], None if valid is None else valid[..., :64, :64])
    growth, decision = peak_growth(lambda: decide(probs, valid))
    size = probs.numel() * probs.element_size()
    assert growth - decision.numel() * decision.element_size() < share * size
