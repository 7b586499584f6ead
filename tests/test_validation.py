"""One clear error for every wrong argument, before any work."""

from __future__ import annotations

import re
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rankseg import (
    ClassProfile,
    RankSEG,
    _backends,
    expected_score,
    rankdice_ba,
    rankseg_rma,
)
from rankseg.functional import rankseg
from support import maps

GOOD = torch.from_numpy(maps.softmax(2, 3, 8, 9))

BA = {"solver": "BA", "output_mode": "multilabel"}


def foreign(module, name):
    """Return an object of a class that another library seems to define."""
    return type(name, (), {"__module__": module})()


def test_theta_must_fit_the_axes():
    decide = RankSEG(solver="DEP", theta=(3, 4, 5))
    with pytest.raises(ValueError, match="for each of the 2 spatial axes of probs, got 3 numbers"):
        decide(GOOD)


def fake():
    with FakeTensorMode():
        return torch.rand(2, 3, 8, 9)


WRONG_OPTIONS = [
    ({"metric": "dicee"}, ValueError, r"metric must be one of \['dice', 'iou', .*got 'dicee'"),
    ({"metric": 3}, TypeError, "metric must be a string.*got 3"),
    ({"metric": None}, TypeError, "metric must be a string.*got None"),
    ({"smooth": -1}, ValueError, "smooth must be finite and at least 0, got -1"),
    ({"smooth": float("nan")}, ValueError, "smooth must be finite and at least 0, got nan"),
    ({"smooth": float("inf")}, ValueError, "smooth must be finite and at least 0, got inf"),
    ({"smooth": "1"}, TypeError, "smooth must be a real number, got '1'"),
    ({"smooth": True}, TypeError, "smooth must be a real number, got True"),
    *(
        ({"solver": "DEP", "theta": value}, ValueError, f"theta must be above 0.*got {value!r}")
        for value in (0, -3.0, float("nan"), float("-inf"))
    ),
    ({"solver": "DEP", "theta": (3, 0)}, ValueError, "theta must be above 0.*got 0"),
    ({"solver": "DEP", "theta": ()}, ValueError, "theta must hold a number for every .*got none"),
    ({"solver": "DEP", "theta": "3"}, TypeError, "theta must be a real number, got '3'"),
    ({"solver": "DEP", "amplitude": 1.1}, ValueError, "amplitude must be in \\[0, 1\\], got 1.1"),
    ({"solver": "DEP", "amplitude": float("nan")}, ValueError, "amplitude must be in .*got nan"),
    ({"solver": "DEP", "correlation": 0.5}, TypeError, "got .'correlation'.*RMA', 'joint'"),
    ({"solver": "RMA", "theta": 3}, TypeError, "theta goes with a solver in .'DEP'"),
    ({"solver": "auto", "amplitude": 0.5}, TypeError, "amplitude goes with a solver in .'DEP'"),
    ({"correlation": 1}, ValueError, "correlation must be in \\[0, 1\\), got 1"),
    ({"correlation": -0.1}, ValueError, "correlation must be in \\[0, 1\\), got -0.1"),
    ({"correlation": float("nan")}, ValueError, "correlation must be in \\[0, 1\\), got nan"),
    ({"correlation": "0.5"}, TypeError, "correlation must be a real number, got '0.5'"),
    ({"smooth": 1j}, TypeError, "smooth must be a real number"),
    ({"smooth": Decimal("0.5")}, TypeError, "smooth must be a real number, got Decimal"),
    ({"smooth": np.array([1.0, 2.0])}, TypeError, "real number, got ndarray of float64$"),
    ({"correlation": torch.tensor(0.5)}, TypeError, r"number, got .*; pass float\(correlation\)"),
    *(
        ({name: value}, ValueError, f"{name} must be ")
        for name in ("smooth", "correlation", "pruning_prob")
        for value in (10**400, -(10**5000), Fraction(10**400, 3), np.longdouble("1e4000"))
    ),
    ({"void_index": -(10**5000)}, ValueError, "void_index must fit into int64, got a value of typ"),
    ({"correlation": Fraction(10**400 - 1, 10**400)}, ValueError, "correlation must be in"),
    ({"output_mode": "multi"}, ValueError, "output_mode must be one of .*got 'multi'"),
    ({"output_mode": 0}, TypeError, "output_mode must be a string"),
    ({"solver": "simplex"}, ValueError, "solver must be one of .*'joint'.*got 'simplex'"),
    ({"solver": None}, TypeError, "solver must be a string"),
    ({"pruning_prob": 7}, ValueError, r"pruning_prob must be in \[0, 1\], got 7"),
    ({"pruning_prob": -0.1}, ValueError, r"pruning_prob must be in \[0, 1\], got -0.1"),
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
    ({**BA, "eps": 10**400}, ValueError, "eps must be in \\(0, 1\\), got 1000.*[.][.][.]000"),
    ({**BA, "eps": Fraction(1, 10**400)}, ValueError, "eps must be in \\(0, 1\\), got Fraction"),
    ({"safe_screening": np.ones(2)}, TypeError, "safe_screening must be .*got ndarray of float64"),
    ({"safe_screening": "yes"}, TypeError, "safe_screening must be a bool or 'auto', got 'yes'"),
]

MISTAKEN_OPTIONS = [
    ({"prunning_prob": 0.5}, TypeError, "got .*'prunning_prob'.*; .*did you mean pruning_prob\\?"),
    ({"Smoothing": 1}, TypeError, "did you mean smooth\\?"),
    ({"ignore_index": 1}, TypeError, "did you mean void_index\\?"),
    ({"speed": 9, "corelation": 0.5}, TypeError, "for corelation, did you mean correlation\\?$"),
    ({"eps": 0.1}, TypeError, r"eps goes with a solver in \['BA', 'TRNA', 'BA\+TRNA'\]$"),
    (
        {"output_mode": "multilabel", "unassigned_policy": "void"},
        TypeError,
        r"policy goes with a solver in \['RMA', 'joint', 'DEP', 'exact'\] and "
        r"output_mode='multiclass'$",
    ),
    ({"metric": "iou_score"}, ValueError, "got 'iou_score'; did you mean 'iou'\\?"),
    ({"metric": "f1_score"}, ValueError, "did you mean 'dice'\\?"),
    ({"metric": "Jaccard index"}, ValueError, "did you mean 'iou'\\?"),
    ({"metric": "pixel_accuracy"}, ValueError, "did you mean 'acc'\\?"),
    ({"solver": "rankseg-rma"}, ValueError, "did you mean 'RMA'\\?"),
    ({"output_mode": "multi-class"}, ValueError, "did you mean 'multiclass'\\?"),
    ({"metric": "tversky"}, ValueError, "got 'tversky'$"),
    ({"from_logits": "multilabel"}, ValueError, "; pass output_mode='multilabel'$"),
]

MISPLACED = [
    (("dice", "RMA"), TypeError, "smooth is the second positional argument .*solver='RMA'"),
    (("dice", "multilabel"), TypeError, "second positional .*output_mode='multilabel'"),
    (("dice", 0.0, "exact"), ValueError, "output_mode is the third .*solver='exact'"),
    (("RMA",), ValueError, "metric is the first positional argument .*solver='RMA'"),
    ((GOOD,), TypeError, r"got Tensor of torch.float32; .*RankSEG\(\)\(probs\)$"),
]

WRONG_COMBINATIONS = [
    (
        {"solver": "joint", "output_mode": "multilabel"},
        ValueError,
        r"'auto', 'RMA', 'DEP', 'exact', 'BA'",
    ),
    (
        {"solver": "argmax"},
        ValueError,
        r"are \['auto', 'RMA', 'joint', 'DEP', 'exact', 'BA', 'TRNA', 'BA\+TRNA', 'dataset'\]",
    ),
    ({**BA, "metric": "iou"}, ValueError, r"are \['auto', 'RMA', 'DEP', 'exact', 'dataset'\]"),
    (
        {"metric": "iou", "solver": "trna"},
        ValueError,
        r"are \['auto', 'RMA', 'joint', 'DEP', 'exact', 'dataset'\]",
    ),
    ({**BA, "safe_screening": True}, TypeError, r"takes the options \['eps'\], got"),
    ({"solver": "BA", "unassigned_policy": "void"}, TypeError, r"options \['eps', 'void_index'\]"),
    ({"eps": 0.1}, TypeError, r"solver='joint' .* takes the options .*got \['eps'\]"),
    ({"metric": "acc", "solver": "RMA"}, ValueError, r"are \['auto', 'argmax'\]"),
    ({"metric": "acc", "solver": "TR"}, ValueError, r"are \['auto', 'argmax'\]"),
    (
        {"metric": "acc", "output_mode": "multilabel", "solver": "RMA"},
        ValueError,
        r"are \['auto', 'TR', 'argmax'\]",
    ),
    (
        {"speed": 9},
        TypeError,
        r"takes the options \['correlation', 'presence', 'safe.*got \['speed'\]",
    ),
    ({"metric": "acc", "unassigned_policy": "void"}, TypeError, r"options \['void_index'\]"),
    (
        {"output_mode": "multilabel", "unassigned_policy": "void"},
        TypeError,
        r"options \['correlation', 'presence', 'safe_screening'\], got \['unassigned_policy'\]",
    ),
    ({"output_mode": "multilabel", "void_index": 9}, TypeError, r"got \['void_index'\]"),
]

WRONG_PROBS = [
    ([[[0.1]]], TypeError, "probs must be a dense torch.Tensor or a numpy.ndarray .*got list"),
    (np.ma.masked_array(GOOD.numpy()), TypeError, "must not be a masked array; .* with valid="),
    (None, TypeError, "got NoneType"),
    ([GOOD[0], GOOD[1]], TypeError, r"got list; pass torch.stack\(probs\)$"),
    ([GOOD[0].numpy()], TypeError, r"got list; pass numpy.stack\(probs\)$"),
    ((GOOD,), TypeError, r"got tuple; pass torch.stack\(probs\), or probs\[0\] if a model"),
    ({"aux": GOOD, "out": GOOD}, TypeError, r"got dict; pass probs\['out'\]$"),
    (OrderedDict(logits=GOOD), TypeError, r"OrderedDict; pass probs\['logits'\]$"),
    (OrderedDict(class_queries_logits=GOOD), TypeError, "integration.transformers.postprocess"),
    ({"a": GOOD}, TypeError, r"got dict; it has the keys \['a'\]"),
    (SimpleNamespace(logits=GOOD), TypeError, "SimpleNamespace; pass probs.logits$"),
    ("probs.npy", TypeError, "got str; read the file first"),
    (torch.nn.Identity(), TypeError, "got Identity; call the model"),
    (foreign("PIL.Image", "Image"), TypeError, "got PIL.Image; an image holds no probabilities"),
    (foreign("jaxlib._jax", "ArrayImpl"), TypeError, "jaxlib.ArrayImpl; pass numpy.asarray"),
    (foreign("paddle", "Tensor"), TypeError, "got paddle.Tensor; pass numpy.asarray"),
    (foreign("tensorflow.ops", "EagerTensor"), TypeError, "tensorflow.EagerTensor; pass numpy.as"),
    (np.array([None, 1], dtype=object), TypeError, r"of object; .*numpy.stack\(probs\)"),
    (GOOD.numpy().astype(np.longdouble), TypeError, r"pass probs.astype\('float64'\)$"),
    (GOOD.to_sparse(), TypeError, r"got a sparse_coo tensor; pass probs.to_dense\(\)$"),
    (GOOD.to_mkldnn(), TypeError, r"got a _mkldnn tensor; pass probs.to_dense\(\)$"),
    (GOOD.to("meta"), TypeError, "got a meta tensor; it has a shape and no values"),
    (fake(), TypeError, "got a FakeTensor tensor; it holds no values of its own"),
    (GOOD.byte(), TypeError, r"got torch.uint8; if they store 0 to 1 as 0 to 255, .*probs / 255$"),
    (GOOD.numpy().astype("u2"), TypeError, "got torch.uint16; .*pass probs / 65535$"),
    (GOOD.argmax(1), TypeError, "got torch.int64; labels and masks hold no probabilities"),
    (GOOD.to(torch.float8_e4m3fn), TypeError, r"got torch.float8_e4m3fn; pass probs.float\(\)$"),
    (GOOD.long(), TypeError, r"probs must be of a dtype in \['float16', .*got torch.int64"),
    (GOOD.bool(), TypeError, "got torch.bool"),
    (GOOD.cfloat(), TypeError, "got torch.complex64"),
    (GOOD.numpy().astype(int), TypeError, r"dtype in \['float16', .*got torch.int64"),
    (GOOD.numpy().astype(np.longdouble), TypeError, "got ndarray of float128"),
    (GOOD.numpy() > 0.5, TypeError, "got torch.bool"),
    (GOOD.to_sparse(), TypeError, "dense torch.Tensor"),
    (GOOD[0, 0], ValueError, r"and a class axis too if there is none, with probs\[None, None\]"),
    (GOOD[0, 0], ValueError, r"axes \(batch, classes, \*spatial\).*got shape \(8, 9\)"),
    (torch.tensor(0.5), ValueError, r"got shape \(\)"),
    (GOOD[:, :0], ValueError, r"must not be empty, got shape \(2, 0, 8, 9\)"),
    (GOOD[..., :0], ValueError, r"must not be empty, got shape \(2, 3, 8, 0\)"),
]

WRONG_VALUES = [
    (-3.25, "probs must lie in .*got .-3.25, .*look like logits: apply softmax or sigmoid first"),
    (-9999.0, r"probs must lie in .*if -(9999|10000) marks pixels .* by valid=probs\[:, 0\] >= 0"),
    (-1e-6, r"probs must lie in .*clip with probs.clamp\(0, 1\)"),
    (1.0078125, r"probs must lie in .*1.0078125\]; .*clip with"),
    (255.0, r"probs must lie in .*255.0\]; divide by"),
    (float("nan"), "probs must be finite, got 1 values"),
    (float("inf"), "probs must be finite, got 1 values"),
    (float("-inf"), "probs must be finite, got 1 values"),
]

VALID = torch.ones(2, 8, 9, dtype=torch.bool)
WRONG_VALID = [
    (VALID.int(), TypeError, "valid must be boolean, got torch.int32; pass valid != 0"),
    (VALID[:1], ValueError, r"\(batch, \*spatial\) = \(2, 8, 9\), got \(1, 8, 9\)"),
    (VALID.unsqueeze(1), ValueError, r"= \(2, 8, 9\), got \(2, 1, 8, 9\); pass valid.squeeze\(1\)"),
    ([True], TypeError, "valid must be a dense torch.Tensor or a numpy.ndarray .*got list"),
]


@pytest.mark.parametrize(
    ("options", "error", "message"), WRONG_OPTIONS + WRONG_COMBINATIONS + MISTAKEN_OPTIONS
)
def test_wrong_option_fails_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        RankSEG(**options)
    with pytest.raises(error, match=message):
        rankseg(GOOD, **options)


@pytest.mark.parametrize(("given", "error", "message"), MISPLACED)
def test_option_in_the_place_of_another(given, error, message):
    with pytest.raises(error, match=message):
        RankSEG(*given)


def test_what_belongs_into_the_call():
    with pytest.raises(TypeError, match=r"valid goes into the call: RankSEG\(\)\(probs, valid\)"):
        RankSEG(valid=VALID)


@pytest.mark.parametrize(
    ("named", "metric"), [("mIoU", "iou"), (" Jaccard", "iou"), ("F1", "dice"), ("DSC", "dice")]
)
def test_other_names_of_metrics(named, metric):
    assert RankSEG(named).metric == metric
    score = expected_score(GOOD, GOOD > 0.5, named)
    assert torch.equal(score, expected_score(GOOD, GOOD > 0.5, metric))
    cut = ClassProfile.from_probs(GOOD).cut
    assert torch.equal(cut(named), cut(metric))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unassigned_policy": "void"}, "got 'void' and 255 with output_mode='multilabel'"),
        ({"void_index": 7}, "got 'max_score' and 7 with output_mode='multilabel'"),
    ],
)
def test_masks_of_rankseg_rma_are_never_void(options, message):
    with pytest.raises(ValueError, match=message):
        rankseg_rma(GOOD, output_mode="multilabel", **options)
    rankseg_rma(GOOD, output_mode="multilabel", unassigned_policy="max_score", void_index=255)


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
        r"got probs of 3 classes; .* or a solver in "
        r"\['auto', 'RMA', 'joint', 'DEP', 'exact', 'dataset'\]",
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


@pytest.mark.filterwarnings("ignore")  # torch's own, of quantized, nested and masked tensors
def test_unusual_tensors():
    quantized = torch.quantize_per_tensor(GOOD, 0.01, 0, torch.quint8)
    nested = torch.nested.nested_tensor([GOOD[0], GOOD[1]])
    jagged = torch.nested.nested_tensor([GOOD[0], GOOD[1]], layout=torch.jagged)
    masked = torch.masked.masked_tensor(GOOD, GOOD > 0.1)
    for probs, message in (
        (quantized, r"got a quantized tensor; pass probs.dequantize\(\)$"),
        (nested, "got a nested tensor; pass torch.nested.to_padded_tensor"),
        (jagged, "got a nested tensor; pass torch.nested.to_padded_tensor"),
        (masked, "must not be a masked array"),
    ):
        with pytest.raises(TypeError, match=message):
            RankSEG()(probs)
    for transform in (torch.func.vmap, torch.func.grad):
        with pytest.raises(TypeError, match=r"got a functorch tensor; .* outside of the"):
            transform(RankSEG())(GOOD[None])


def test_valid_of_maps_whose_classes_are_last():
    with pytest.raises(ValueError, match=r"got \(2, 8, 9\); .*pass probs.movedim\(-1, 1\)"):
        RankSEG()(GOOD.movedim(1, -1), VALID)


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
    monkeypatch.setenv("RANKSEG_BACKEND", "native")
    with pytest.raises(RuntimeError, match="cannot run here: its kernels run on the CPU"):
        _backends.choose(torch.device("meta"))


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (rankseg_rma, {"prunning_prob": 0.1}, "did you mean pruning_prob?"),
        (rankseg_rma, {"solver": "joint"}, "RankSEG may take solver"),
        (rankdice_ba, {"metric": "dice"}, "RankSEG may take metric"),
        (expected_score, {"corelation": 0.5}, "did you mean correlation?"),
        (ClassProfile.cut, {"prunning_prob": 0.1}, "did you mean pruning_prob?"),
    ],
)
def test_unknown_arguments_of_functions(function, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        function(GOOD, **options)


def test_a_metric_that_is_known_is_not_misspelt():
    profile = ClassProfile.from_probs(GOOD)
    for take in (profile.cut, lambda metric: expected_score(GOOD, GOOD > 0, metric)):
        for metric in ("acc", "accuracy"):
            with pytest.raises(ValueError, match="metric must be one of") as told:
                take(metric)
            assert "did you mean" not in str(told.value)
        with pytest.raises(ValueError, match="did you mean 'dice'"):
            take("dise")


def test_ignored_labels_are_told_in_the_call():
    with pytest.raises(TypeError, match=r"pixels that do not count: .*valid=labels != 255"):
        RankSEG(ignore_index=255)
