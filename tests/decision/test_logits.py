"""Logits: the decision of their probabilities, which are never all in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rankseg import RankSEG
from rankseg.functional import rankseg
from support import maps
from support.memory import CLEAR, peak_growth

OPTIONS = [
    {},
    {"metric": "iou"},
    {"metric": "iou", "output_mode": "multilabel"},
    {"smooth": 1.0},
    {"solver": "joint"},
    {"solver": "exact"},
    {"correlation": 0.5},
    {"output_mode": "multilabel", "solver": "BA"},
    {"metric": "acc"},
]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EXTREME = {torch.float16: 65504.0, torch.bfloat16: 3e38, torch.float32: 3e38, torch.float64: 1e308}


def random_logits(scale, dtype, shape=(2, 5, 40, 52), seed=0):
    """Return logits of which regions of images look like a network's."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(*shape[:2], shape[2] // 4, shape[3] // 4))
    logits = np.kron(coarse, np.ones((4, 4))) + 0.2 * rng.normal(size=shape)
    return torch.from_numpy(scale * logits).to(dtype)


def probabilities(logits, link):
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.softmax(1) if link == "softmax" else wide.sigmoid()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(
    ("options", "dtype"),
    [(options, torch.float32) for options in OPTIONS]
    + [(options, dtype) for options in OPTIONS[:3] for dtype in FLOATS if dtype != torch.float32],
    ids=str,
)
def test_decision_is_that_of_the_probabilities(backend, options, link, dtype, scale):
    logits = random_logits(scale, dtype)
    before = logits.clone()
    decision = RankSEG(from_logits=link, **options)(logits)
    expected = RankSEG(**options)(probabilities(logits, link))
    assert decision.dtype == expected.dtype
    assert decision.shape == expected.shape
    # The last place of an exponential may tip a pixel that equals the cut, or is torn between two.
    assert (decision != expected).sum() <= 1
    assert torch.equal(logits, before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_probabilities_that_are_read(dtype, link):
    from rankseg._backends import numba_cpu

    logits = torch.cat([random_logits(scale, dtype) for scale in (0.1, 3.0, 30.0, 1e4)])
    logits[0, :, :5] = 0.0
    logits[1, 0], logits[1, 1] = EXTREME[dtype], -EXTREME[dtype]
    survey = numba_cpu.survey(numba_cpu.open_maps(logits, None, link))
    exact = probabilities(logits.double(), link)
    tolerance = 1e-13 if dtype == torch.float64 else 3e-6
    assert not survey.is_invalid
    np.testing.assert_allclose(survey.mass, exact.flatten(2).sum(2), rtol=tolerance, atol=1e-30)
    np.testing.assert_allclose(survey.peak, exact.flatten(2).amax(2), rtol=tolerance, atol=1e-30)


def test_softmax_does_not_depend_on_what_all_classes_have_in_common(backend):
    logits = (random_logits(3.0, torch.float32) * 64).round() / 64  # exact after the shift, too
    shift = torch.from_numpy(np.random.default_rng(1).integers(-9000, 9000, (2, 1, 40, 52)))
    decide = RankSEG(from_logits="softmax", output_mode="multilabel")
    assert torch.equal(decide(logits + shift), decide(logits))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layout_changes_nothing(backend, dtype, link):
    logits = random_logits(3.0, dtype, (2, 5, 64, 80))
    decide = RankSEG("iou", from_logits=link)
    expected = decide(logits)
    crop = torch.full((2, 5, 70, 90), float("nan"), dtype=dtype)[:, :, 3:67, 9:89].copy_(logits)
    assert torch.equal(decide(crop), expected)
    assert torch.equal(decide(logits.contiguous(memory_format=torch.channels_last)), expected)
    assert torch.equal(decide(logits.mT.contiguous().mT), expected)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_threads_and_batches_change_nothing(threads, link):
    logits = random_logits(3.0, torch.float32, (3, 5, 320, 320))
    decide = RankSEG(from_logits=link)
    threads(1)
    alone = decide(logits)
    threads(3)
    assert torch.equal(decide(logits), alone)
    assert torch.equal(torch.cat([decide(part) for part in logits.split([1, 2])]), alone)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", [{}, {"output_mode": "multilabel"}], ids=str)
def test_pixels_outside_valid_do_not_exist(backend, link, options):
    logits = random_logits(3.0, torch.float32)
    valid = torch.from_numpy(np.random.default_rng(5).random((2, 40, 52)) < 0.7)
    garbage = logits.movedim(1, -1).contiguous()
    garbage[~valid] = float("nan")
    decide = RankSEG(from_logits=link, **options)
    decision = decide(garbage.movedim(-1, 1), valid)
    assert torch.equal(decision, RankSEG(**options)(probabilities(logits, link), valid))
    assert torch.equal(decision, decide(logits, valid))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_must_be_finite(backend, dtype, link, value):
    logits = random_logits(3.0, dtype)
    decide = RankSEG(from_logits=link)
    decide(logits.clamp(-EXTREME[dtype], EXTREME[dtype]))
    logits[1, 2, 7, 8] = value
    with pytest.raises(ValueError, match="logits must be finite, got 1 values that are NaN or inf"):
        decide(logits)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_largest_logits_there_are(backend, link):
    for dtype, largest in EXTREME.items():
        logits = torch.full((1, 3, 6, 7), -largest, dtype=dtype)
        logits[:, 1, :4] = largest
        logits[:, 2, 4:] = largest
        decision = RankSEG(from_logits=link)(logits)
        assert torch.equal(decision, logits.argmax(1))


def test_one_channel(backend):
    logits = random_logits(3.0, torch.float32)[:, :1]
    for options in ({}, {"output_mode": "multilabel"}):
        expected = RankSEG(**options)(logits.sigmoid())
        assert torch.equal(RankSEG(from_logits="sigmoid", **options)(logits), expected)
    with pytest.raises(ValueError, match=r"'softmax' needs two classes or more.*'sigmoid'"):
        RankSEG(from_logits="softmax")(logits)


def test_numpy_and_the_function():
    logits = random_logits(3.0, torch.float32)
    expected = RankSEG("iou")(logits.softmax(1)).numpy()
    decision = rankseg(logits.numpy(), "iou", from_logits=" Softmax ")
    assert isinstance(decision, np.ndarray)
    np.testing.assert_array_equal(decision, expected)
    module = RankSEG("iou")
    module.from_logits = "softmax"
    np.testing.assert_array_equal(module(logits.numpy()), expected)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("log", ValueError, r"from_logits must be one of \['softmax', 'sigmoid'\], got 'log'"),
        (True, TypeError, r"from_logits must be a string, one of .*got True"),
    ],
)
def test_wrong_option(value, error, message):
    with pytest.raises(error, match=message):
        RankSEG(from_logits=value)


def test_logits_without_the_option_are_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"look like logits: .* or name it in from_logits"):
        RankSEG()(random_logits(3.0, torch.float32))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_decide(link):
    logits = random_logits(3.0, torch.float32, (2, 3, 12, 16))
    valid = torch.ones(2, 12, 16, dtype=torch.bool)
    valid[:, :2] = False
    told = RankSEG(from_logits=link).decide(logits, valid)
    expected = RankSEG().decide(probabilities(logits, link), valid)
    for name in expected.__dataclass_fields__:
        torch.testing.assert_close(getattr(told, name), getattr(expected, name), msg=name)
    logits.movedim(1, -1)[~valid] = float("nan")
    again = RankSEG(from_logits=link).decide(logits.numpy(), valid.numpy())
    np.testing.assert_allclose(again.expected, expected.expected, rtol=1e-6)


SLACK = 2 << 20
"""Bytes that the system hands out in one go, whatever is asked for."""


@pytest.mark.skipif(not CLEAR.exists(), reason="needs Linux's record of peak memory")
@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"solver": "RMA"}, 0),
        ({"metric": "iou", "solver": "RMA"}, 0),
        ({"output_mode": "multilabel", "solver": "RMA"}, 0),
        ({}, 5 << 23),  # five label maps, where many pixels are near the cuts
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("link", "classes", "dtype", "share"),
    [
        ("softmax", 8, torch.float32, 0.2),
        ("softmax", 24, torch.float32, 0.08),
        ("softmax", 16, torch.float16, 0.2),
        ("softmax", 8, torch.float64, 0.2),
        ("sigmoid", 8, torch.float32, 0.05),
    ],
    ids=str,
)
def test_memory_beyond_input_and_output(link, classes, dtype, share, options, more):
    logits = 5 * torch.from_numpy(maps.smooth(1, classes, 1024)).to(dtype)  # 32 MiB or more
    decide = RankSEG(from_logits=link, **options)
    decide(logits[..., :64, :64])
    growth, decision = peak_growth(lambda: decide(logits))
    size = logits.numel() * logits.element_size()
    assert growth - decision.numel() * decision.element_size() < share * size + more + SLACK


class LargestProbabilities(TorchDispatchMode):
    """Notes the most probabilities that are made of logits at once."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("_softmax", "sigmoid"):
            self.most = max(self.most, result.numel())
        return result


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", OPTIONS[:5] + OPTIONS[-1:], ids=str)
def test_other_devices_never_hold_all_probabilities(monkeypatch, link, options):
    monkeypatch.setenv("RANKSEG_BACKEND", "torch")
    monkeypatch.setattr("rankseg._backends.torch_reference.SLAB", 5 * 4 * 52)
    logits = random_logits(3.0, torch.float32, (1, 5, 40, 52))
    with LargestProbabilities() as noted:
        RankSEG(from_logits=link, **options)(logits)
    assert noted.most == 5 * 4 * 52


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_real_maps(real_maps, link):
    files = sorted(real_maps.glob("camvid-*/*.npz"))[::12]
    files += sorted(real_maps.glob("hippo*/*.npz"))[:2]
    assert files
    for file in files:
        probs = torch.from_numpy(np.load(file)["probs"][None].astype(np.float32))
        logits = torch.logit(probs.clamp(1e-6, 1 - 1e-6)).half()
        for options in ({}, {"metric": "iou"}, {"output_mode": "multilabel"}):
            decision = RankSEG(from_logits=link, **options)(logits)
            expected = RankSEG(**options)(probabilities(logits, link))
            assert (decision != expected).sum() <= 1
