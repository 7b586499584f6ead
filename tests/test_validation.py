"""One clear error for every wrong argument, before any work."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import maps
from rankseg import RankSEG, rankdice_ba, rankseg_rma
from rankseg.functional import rankseg

GOOD = torch.from_numpy(maps.softmax(2, 3, 8, 9))

BA = {"solver": "BA", "output_mode": "multilabel"}

WRONG_OPTIONS = [
    ({"metric": "dicee"}, ValueError, r"metric must be one of \['dice', 'iou', .*got 'dicee'"),
    ({"metric": 3}, TypeError, "metric must be a string.*got 3"),
    ({"metric": None}, TypeError, "metric must be a string.*got None"),
    ({"smooth": -1}, ValueError, "smooth must be finite and at least 0, got -1"),
    ({"smooth": float("nan")}, ValueError, "smooth must be finite and at least 0, got nan"),
    ({"smooth": float("inf")}, ValueError, "smooth must be finite and at least 0, got inf"),
    ({"smooth": "1"}, TypeError, "smooth must be a real number, got '1'"),
    ({"smooth": True}, TypeError, "smooth must be a real number, got True"),
    ({"correlation": 1}, ValueError, "correlation must be in \\[0, 1\\), got 1"),
    ({"correlation": -0.1}, ValueError, "correlation must be in \\[0, 1\\), got -0.1"),
    ({"correlation": float("nan")}, ValueError, "correlation must be in \\[0, 1\\), got nan"),
    ({"correlation": "0.5"}, TypeError, "correlation must be a real number, got '0.5'"),
    ({"smooth": 1j}, TypeError, "smooth must be a real number"),
    ({"output_mode": "multi"}, ValueError, "output_mode must be one of .*got 'multi'"),
    ({"output_mode": 0}, TypeError, "output_mode must be a string"),
    ({"solver": "simplex"}, ValueError, "solver must be one of .*'joint'.*got 'simplex'"),
    ({"solver": None}, TypeError, "solver must be a string"),
    ({"pruning_prob": 7}, ValueError, r"pruning_prob must be in \[0, 1\], got 7"),
    ({"pruning_prob": -0.1}, ValueError, r"pruning_prob must be in \[0, 1\], got -0.1"),
    ({"pruning_prob": None}, TypeError, "pruning_prob must be a real number, got None"),
    ({"unassigned_policy": "drop"}, ValueError, "unassigned_policy must be one of .*got 'drop'"),
    ({"unassigned_policy": 1}, TypeError, "unassigned_policy must be a string"),
    ({"void_index": 1.5}, TypeError, "void_index must be an integer, got 1.5"),
    ({"void_index": True}, TypeError, "void_index must be an integer, got True"),
    ({"void_index": 2**63}, ValueError, "void_index must fit into int64"),
    ({**BA, "eps": 0}, ValueError, "eps must be in \\(0, 1\\), got 0"),
    ({**BA, "eps": 1.0}, ValueError, "eps must be in \\(0, 1\\), got 1.0"),
    ({**BA, "eps": -0.1}, ValueError, "eps must be in \\(0, 1\\), got -0.1"),
    ({**BA, "eps": float("nan")}, ValueError, "eps must be in \\(0, 1\\), got nan"),
    ({**BA, "eps": "1e-4"}, TypeError, "eps must be a real number, got '1e-4'"),
    ({**BA, "eps": True}, TypeError, "eps must be a real number, got True"),
    ({"safe_screening": "yes"}, TypeError, "safe_screening must be a bool or 'auto', got 'yes'"),
]

WRONG_COMBINATIONS = [
    ({"solver": "joint", "output_mode": "multilabel"}, ValueError, r"'auto', 'RMA', 'exact', 'BA'"),
    (
        {"solver": "argmax"},
        ValueError,
        r"are \['auto', 'RMA', 'joint', 'exact', 'BA', 'TRNA', 'BA\+TRNA'\]",
    ),
    ({**BA, "metric": "iou"}, ValueError, r"are \['auto', 'RMA', 'exact'\]"),
    ({"metric": "iou", "solver": "trna"}, ValueError, r"are \['auto', 'RMA', 'joint', 'exact'\]"),
    ({**BA, "safe_screening": True}, TypeError, r"takes the options \['eps'\], got"),
    ({"solver": "BA", "unassigned_policy": "void"}, TypeError, r"options \['eps', 'void_index'\]"),
    ({"eps": 0.1}, TypeError, r"solver='RMA' .* takes the options .*got \['eps'\]"),
    ({"metric": "acc", "solver": "RMA"}, ValueError, r"are \['auto', 'argmax'\]"),
    ({"metric": "acc", "solver": "TR"}, ValueError, r"are \['auto', 'argmax'\]"),
    (
        {"metric": "acc", "output_mode": "multilabel", "solver": "RMA"},
        ValueError,
        r"are \['auto', 'TR', 'argmax'\]",
    ),
    ({"speed": 9}, TypeError, r"takes the options \['correlation', 'safe.*got \['speed'\]"),
    ({"metric": "acc", "unassigned_policy": "void"}, TypeError, r"options \['void_index'\]"),
    (
        {"output_mode": "multilabel", "unassigned_policy": "void"},
        TypeError,
        r"options \['correlation', 'safe_screening'\], got \['unassigned_policy'\]",
    ),
    ({"output_mode": "multilabel", "void_index": 9}, TypeError, r"got \['void_index'\]"),
]

WRONG_PROBS = [
    ([[[0.1]]], TypeError, "probs must be a dense torch.Tensor or a numpy.ndarray .*got list"),
    (np.ma.masked_array(GOOD.numpy()), TypeError, "must not be a masked array; .* with valid="),
    (None, TypeError, "got NoneType"),
    (GOOD.long(), TypeError, r"probs must be of a dtype in \['float16', .*got torch.int64"),
    (GOOD.bool(), TypeError, "got torch.bool"),
    (GOOD.cfloat(), TypeError, "got torch.complex64"),
    (GOOD.numpy().astype(int), TypeError, r"dtype in \['float16', .*got torch.int64"),
    (GOOD.numpy().astype(np.longdouble), TypeError, "got ndarray of float128"),
    (GOOD.numpy() > 0.5, TypeError, "got torch.bool"),
    (GOOD.to_sparse(), TypeError, "dense torch.Tensor"),
    (GOOD[0, 0], ValueError, r"axes \(batch, classes, \*spatial\).*got shape \(8, 9\)"),
    (torch.tensor(0.5), ValueError, r"got shape \(\)"),
    (GOOD[:, :0], ValueError, r"must not be empty, got shape \(2, 0, 8, 9\)"),
    (GOOD[..., :0], ValueError, r"must not be empty, got shape \(2, 3, 8, 0\)"),
]

WRONG_VALUES = [
    (-3.25, "probs must lie in .*got .-3.25, .*look like logits: apply softmax or sigmoid first"),
    (-1e-6, r"probs must lie in .*clip with probs.clamp\(0, 1\)"),
    (1.0078125, r"probs must lie in .*1.0078125\]; .*clip with"),
    (255.0, r"probs must lie in .*255.0\]; divide by"),
    (float("nan"), "probs must be finite, got 1 values"),
    (float("inf"), "probs must be finite, got 1 values"),
    (float("-inf"), "probs must be finite, got 1 values"),
]

VALID = torch.ones(2, 8, 9, dtype=torch.bool)
WRONG_VALID = [
    (VALID.int(), TypeError, "valid must be boolean, got torch.int32"),
    (VALID[:1], ValueError, r"\(batch, \*spatial\) = \(2, 8, 9\), got \(1, 8, 9\)"),
    (VALID.unsqueeze(1), ValueError, r"= \(2, 8, 9\), got \(2, 1, 8, 9\)"),
    ([True], TypeError, "valid must be a dense torch.Tensor or a numpy.ndarray .*got list"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG_OPTIONS + WRONG_COMBINATIONS)
def test_wrong_option_fails_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        RankSEG(**options)
    with pytest.raises(error, match=message):
        rankseg(GOOD, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"), [row for row in WRONG_OPTIONS if "solver" not in row[0]]
)
@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_wrong_option_of_rankseg_rma(options, error, message, output_mode):
    with pytest.raises(error, match=message):
        rankseg_rma(GOOD, **{"output_mode": output_mode, **options})


def test_rankseg_rma_is_not_for_accuracy():
    with pytest.raises(ValueError, match="solver='RMA' does not decide metric='acc'"):
        rankseg_rma(GOOD, "acc")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"solver": "RMA"}, ValueError, r"solver must be one of \['BA', 'TRNA', 'BA\+TRNA'\], got"),
        ({"solver": None}, TypeError, "solver must be a string"),
        ({"eps": 2}, ValueError, "eps must be in \\(0, 1\\), got 2"),
        ({"smooth": -1}, ValueError, "smooth must be finite and at least 0, got -1"),
        ({"pruning_prob": 7}, ValueError, r"pruning_prob must be in \[0, 1\], got 7"),
    ],
)
def test_wrong_option_of_rankdice_ba(options, error, message):
    with pytest.raises(error, match=message):
        rankdice_ba(GOOD, **options)


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA"])
def test_solver_of_one_channel_with_several(solver):
    decide = RankSEG(solver=solver)
    with pytest.raises(
        ValueError,
        match=rf"solver='{re.escape(solver)}' with output_mode='multiclass' decides one channel, "
        r"got probs of 3 classes; .* or a solver in \['auto', 'RMA', 'joint', 'exact'\]",
    ):
        decide(GOOD)
    decide(GOOD[:, :1])


@pytest.mark.parametrize(("probs", "error", "message"), WRONG_PROBS)
def test_wrong_probs(probs, error, message):
    with pytest.raises(error, match=message):
        RankSEG()(probs)


EXACT, CORRELATED, JOINT = {"solver": "exact"}, {"correlation": 0.5}, {"solver": "joint"}
DECISIONS = [
    *({}, {"output_mode": "multilabel"}, {"smooth": 1.0}, {"metric": "acc"}, BA, JOINT),
    *(EXACT, EXACT | {"output_mode": "multilabel"}, CORRELATED, JOINT | CORRELATED),
]


@pytest.mark.parametrize("options", DECISIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("value", "message"), WRONG_VALUES)
def test_wrong_value(backend, value, message, dtype, options):
    probs = GOOD.to(dtype, copy=True)
    probs[1, 2, 7, 8] = value
    with pytest.raises(ValueError, match=message):
        RankSEG(**options)(probs)
    with pytest.raises(ValueError, match=message):
        RankSEG(**options)(probs.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_more_than_rounding_above_one(backend, dtype):
    probs = GOOD.to(dtype, copy=True)
    probs[0, 0, 0, 0] = 1 + 5 * torch.finfo(dtype).eps
    with pytest.raises(ValueError, match="probs must lie in"):
        RankSEG()(probs)


def test_wrong_value_joint(backend):
    with pytest.raises(ValueError, match="look like logits"):
        RankSEG(solver="joint", smooth=1.0)(torch.randn(2, 3, 50, 50))


@pytest.mark.parametrize(("valid", "error", "message"), WRONG_VALID)
def test_wrong_valid(valid, error, message):
    with pytest.raises(error, match=message):
        RankSEG()(GOOD, valid)


@pytest.mark.parametrize("void_index", [0, 2])
def test_void_index_that_is_a_class(void_index):
    with pytest.raises(ValueError, match=f"labels 0 to 2, got {void_index}"):
        RankSEG(void_index=void_index)(GOOD)


def test_default_void_index_with_many_classes():
    probs = torch.full((1, 300, 4), 1 / 300)
    RankSEG()(probs)  # nothing void can come out
    for options, valid in (({"unassigned_policy": "void"}, None), ({}, torch.ones(1, 4).bool())):
        with pytest.raises(ValueError, match="labels 0 to 299, got 255"):
            RankSEG(**options)(probs, valid)


def test_void_index_of_one_channel():
    with pytest.raises(ValueError, match="labels 0 to 1, got 1"):
        RankSEG(void_index=1)(GOOD[:, :1])


def test_named_backend(monkeypatch):
    monkeypatch.setenv("RANKSEG_BACKEND", "cobol")
    with pytest.raises(ValueError, match=r"RANKSEG_BACKEND must be one of .*got 'cobol'"):
        RankSEG()(GOOD)
    monkeypatch.setenv("RANKSEG_BACKEND", "numba")
    with pytest.raises(RuntimeError, match="cannot run here: its kernels run on the CPU"):
        RankSEG()(GOOD.to("meta"))
