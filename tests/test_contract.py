"""What holds for every solver: shapes, types, layouts, threads, batches, masks of valid pixels."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import rankseg
from rankseg import RankSEG
from rankseg._decision import module
from rankseg._decision.settings import Settings
from rankseg._decision.solvers import SOLVERS
from support import maps

CASES = [
    {"metric": "dice"},
    {"metric": "iou"},
    {"metric": "dice", "smooth": 0.5},
    {"metric": "iou", "smooth": 0.5},
    {"metric": "dice", "unassigned_policy": "void"},
    {"metric": "dice", "solver": "joint"},
    {"metric": "iou", "solver": "joint", "unassigned_policy": "void"},
    {"metric": "dice", "correlation": 0.5},
    {"metric": "iou", "solver": "joint", "correlation": 0.5},
    {"metric": "iou", "output_mode": "multilabel", "correlation": 0.5},
    {"metric": "dice", "solver": "DEP"},
    {"metric": "iou", "solver": "DEP", "unassigned_policy": "void", "theta": 20},
    {"metric": "dice", "solver": "DEP", "output_mode": "multilabel", "smooth": 0.5},
    {"metric": "iou", "solver": "DEP", "output_mode": "multilabel", "amplitude": 0.5},
    {"metric": "acc"},
    {"metric": "dice", "output_mode": "multilabel"},
    {"metric": "iou", "output_mode": "multilabel"},
    {"metric": "dice", "output_mode": "multilabel", "solver": "exact"},
    {"metric": "iou", "output_mode": "multilabel", "solver": "exact", "smooth": 0.5},
    {"metric": "dice", "output_mode": "multilabel", "solver": "BA"},
    {"metric": "dice", "output_mode": "multilabel", "solver": "TRNA", "smooth": 0.5},
    {"metric": "dice", "output_mode": "multilabel", "solver": "BA+TRNA"},
    {"metric": "acc", "output_mode": "multilabel"},
    {"metric": "acc", "output_mode": "multilabel", "solver": "argmax"},
]


def name(options):
    return "-".join(str(value) for value in options.values())


@pytest.fixture(params=CASES, ids=name)
def decide(request):
    return RankSEG(**request.param)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("spatial", [(1,), (63,), (31, 65), (5, 9, 11), (2, 3, 4, 5)], ids=str)
def test_shape_and_type(decide, backend, spatial, dtype):
    probs = torch.from_numpy(maps.softmax(2, 3, *spatial)).to(dtype)
    before = probs.clone()
    decision = decide(probs)
    if decide.settings.output_mode == "multiclass":
        assert decision.dtype == torch.int64
        assert decision.shape == (2, *spatial)
        assert set(decision.unique().tolist()) <= {0, 1, 2, 255}
    else:
        assert decision.dtype == torch.bool
        assert decision.shape == (2, 3, *spatial)
    assert decision.device == probs.device
    assert not decision.requires_grad
    assert torch.equal(probs, before)


def test_empty_batch(decide, backend):
    decision = decide(torch.zeros(0, 4, 6, 7))
    classes = () if decide.settings.output_mode == "multiclass" else (4,)
    assert decision.shape == (0, *classes, 6, 7)


def test_one_channel_is_binary(decide, backend):
    probs = torch.from_numpy(maps.softmax(3, 2, 20, 30))[:, 1:]
    decision = decide(probs)
    options = decide.settings
    solver = options.solver if "multilabel" in SOLVERS[options.solver].options else "auto"
    more = {"correlation": options.correlation} if options.metric != "acc" else {}
    if options.solver in ("exact", "BA", "TRNA", "BA+TRNA"):
        more = {}
    if options.solver == "DEP":
        more = {"theta": options.theta, "amplitude": options.amplitude}
    masks = RankSEG(options.metric, options.smooth, "multilabel", solver, **more)(probs)
    assert masks.shape == (3, 1, 20, 30)
    assert torch.equal(decision.reshape(3, 20, 30), masks[:, 0].to(decision.dtype))


def test_numpy_in_numpy_out(decide):
    probs = maps.softmax(2, 3, 20, 30)
    decision = decide(probs)
    assert isinstance(decision, np.ndarray)
    np.testing.assert_array_equal(decision, decide(torch.from_numpy(probs)).numpy())


def layouts(probs):
    """Yield the same values laid out in memory in other ways."""
    yield "channels last", probs.contiguous(memory_format=torch.channels_last)
    yield "transposed", probs.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    batch, classes, height, width = probs.shape
    frame = torch.full((batch + 1, 2 * classes, height + 5, 3 * width), float("nan"))
    crop = frame[1:, ::2, 2:-3, 1::3]
    yield "crop of a frame", crop.copy_(probs)
    yield "expanded", probs[:1].expand(batch, -1, -1, -1)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "crop of a frame", "expanded"])
def test_layout_changes_nothing(decide, backend, layout):
    probs = torch.from_numpy(maps.smooth(2, 5, 112))
    if layout == "expanded":
        probs = probs[:1].expand(2, -1, -1, -1).contiguous()
    laid_out = dict(layouts(probs))[layout]
    assert torch.equal(laid_out, probs)
    assert torch.equal(decide(laid_out), decide(probs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_layout_changes_nothing_in_other_dtypes(decide, backend, dtype):
    probs = torch.from_numpy(maps.smooth(2, 5, 64)).to(dtype)
    crop = torch.full((2, 5, 70, 80), float("nan"), dtype=dtype)[:, :, 3:67, 9:73].copy_(probs)
    assert torch.equal(decide(crop), decide(probs))


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda probs: np.flip(np.flip(probs, 3).copy(), 3),  # negative strides
        lambda probs: probs.astype(">f4"),  # another byte order
        lambda probs: np.frombuffer(probs.tobytes(), np.float32).reshape(probs.shape),  # read-only
        lambda probs: np.asfortranarray(probs),
    ],
    ids=["flipped", "big-endian", "read-only", "fortran"],
)
def test_numpy_layout_changes_nothing(decide, rearrange):
    probs = maps.smooth(2, 5, 48)
    np.testing.assert_array_equal(decide(rearrange(probs)), decide(probs))


def test_memory_mapped_file(decide, tmp_path):
    probs = maps.smooth(2, 4, 48)
    np.save(tmp_path / "probs.npy", probs)
    mapped = np.load(tmp_path / "probs.npy", mmap_mode="r")
    np.testing.assert_array_equal(decide(mapped), decide(probs))


def test_threads_change_nothing(decide, threads):
    probs = torch.from_numpy(maps.smooth(3, 5, 320))
    threads(1)
    alone = decide(probs)
    for number in (2, 3, 8):
        threads(number)
        assert torch.equal(decide(probs), alone)


def test_batch_split_changes_nothing(decide, backend):
    probs = torch.from_numpy(maps.smooth(4, 5, 144))
    whole = decide(probs)
    assert torch.equal(torch.cat([decide(part) for part in probs.split([1, 2, 1])]), whole)


def holes(batch, *spatial):
    valid = torch.from_numpy(np.random.default_rng(5).random((batch, *spatial)) < 0.7)
    valid[:, :3] = False
    return valid


def test_pixels_outside_valid_do_not_exist(decide, backend):
    if decide.solver == "DEP":
        pytest.skip("DEP depends on distances: see test_dependent.py")
    probs = torch.from_numpy(maps.dyadic(2, 4, 50, 60))
    valid = holes(2, 50, 60)
    garbage = probs.clone().movedim(1, -1)
    garbage[~valid] = float("nan")
    decision = decide(garbage.movedim(-1, 1), valid)
    multiclass = decide.settings.output_mode == "multiclass"
    for i in range(2):
        inside = decide(probs[i : i + 1, :, valid[i]])  # the valid pixels, as if there were no more
        assert torch.equal(decision[i][..., valid[i]], inside[0])
        outside = decision[i][..., ~valid[i]]
        assert (outside == (255 if multiclass else False)).all()


def test_valid_with_one_channel_and_numpy(decide):
    probs = maps.softmax(2, 2, 20, 30)[:, 1:]
    valid = holes(2, 20, 30).numpy()
    decision = decide(probs, valid=valid)
    if decide.settings.output_mode == "multiclass":
        assert (decision[~valid] == 255).all()
        assert set(np.unique(decision[valid])) <= {0, 1}
    else:
        assert not decision[:, 0][~valid].any()


def test_no_valid_pixel_at_all(decide, backend):
    probs = torch.from_numpy(maps.softmax(2, 3, 10, 10))
    decision = decide(probs, torch.zeros(2, 10, 10, dtype=torch.bool))
    expected = 255 if decide.settings.output_mode == "multiclass" else False
    assert (decision == expected).all()


def test_negative_zero_is_zero(decide, backend):
    probs = maps.softmax(1, 3, 40, 40)
    probs[:, :, ::2] = np.array([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    negative = np.where(probs == 0, -0.0, probs).astype("float32")
    np.testing.assert_array_equal(decide(negative), decide(probs))


def test_error_settings_of_numpy_do_not_matter(decide, backend):
    if decide.metric != "acc":
        decide.pruning_prob = 0.0
    probs = maps.softmax(1, 3, 40, dtype="float32")
    probs[..., :4] = 1e-44
    probs[..., 4:9] = np.array([1.0, 0.0, 0.0]).reshape(3, 1)
    faint = np.full((1, 3, 40), 1e-300)
    expected = [decide(probs), decide(faint)]
    with np.errstate(all="raise"):
        decisions = [decide(probs), decide(faint)]
    np.testing.assert_array_equal(decisions, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_above_one_is_accepted(decide, backend, dtype):
    probs = torch.from_numpy(maps.softmax(1, 3, 40)).to(dtype, copy=True)
    probs[0, 0, 7] = 1 + 4 * torch.finfo(dtype).eps
    decide(probs)


def test_module(decide):
    probs = torch.from_numpy(maps.softmax(2, 3, 8, 8)).requires_grad_()
    assert not list(decide.parameters())
    for twin in (copy.deepcopy(decide), pickle.loads(pickle.dumps(decide)), decide.eval()):
        assert torch.equal(twin(probs), decide.predict(probs))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1), decide)
    assert model(torch.rand(2, 3, 8, 8)).shape[-2:] == (8, 8)
    assert f"metric='{decide.metric}'" in repr(decide)


def test_options_can_be_read_and_set():
    decide = RankSEG(" IOU", 0.5, "multilabel", pruning_prob=0.25, safe_screening=True)
    options = (decide.metric, decide.smooth, decide.output_mode, decide.solver, decide.pruning_prob)
    assert options == ("iou", 0.5, "multilabel", "RMA", 0.25)
    assert decide.solver_params == {"safe_screening": True}
    decide.metric = "Dice"
    probs = maps.softmax(1, 3, 200)
    expected = RankSEG("dice", 0.5, "multilabel", pruning_prob=0.25)(probs)
    np.testing.assert_array_equal(decide(probs), expected)
    with pytest.raises(ValueError, match="pruning_prob must be in"):
        decide.pruning_prob = 2
    assert decide.pruning_prob == 0.25


def test_options_changed_one_by_one_in_either_order():
    probs = maps.softmax(1, 3, 200)
    masks = RankSEG("acc", output_mode="multilabel", solver="TR")(probs)
    for order in itertools.permutations(("metric", "output_mode", "solver")):
        decide = RankSEG("dice", solver="joint")
        for name in order:
            setattr(
                decide, name, {"metric": "acc", "output_mode": "multilabel", "solver": "TR"}[name]
            )
            assert f"metric='{decide.metric}'" in repr(decide)
        np.testing.assert_array_equal(decide(probs), masks)
        np.testing.assert_array_equal(copy.deepcopy(decide)(probs), masks)


def test_options_that_do_not_combine_are_told_when_called():
    decide = RankSEG()
    decide.solver = "TR"
    with pytest.raises(ValueError, match="solver='TR' does not decide metric='dice'"):
        decide(maps.softmax(1, 3, 9))
    decide.solver = "auto"
    assert decide.solver == "joint"
    decide.metric = "acc"
    assert decide.solver == "argmax"


def test_items_of_solver_params_changed_later_count():
    probs = maps.softmax(1, 3, 200)
    decide = RankSEG(unassigned_policy="void")
    assert (decide(probs) == 255).any()
    decide.solver_params["void_index"] = 9
    np.testing.assert_array_equal(
        decide(probs), RankSEG(unassigned_policy="void", void_index=9)(probs)
    )
    assert (pickle.loads(pickle.dumps(decide))(probs) == 9).any()
    del decide.solver_params["unassigned_policy"]
    np.testing.assert_array_equal(decide(probs), RankSEG()(probs))
    decide.solver_params = {"correlation": 0.5}
    np.testing.assert_array_equal(decide(probs), RankSEG(correlation=0.5)(probs))
    for wrong, error in (({"eps": 0.1}, TypeError), ({"correlation": 2}, ValueError)):
        decide.solver_params.update(wrong)
        for _ in range(2):
            with pytest.raises(error, match=next(iter(wrong))):
                decide(probs)
        decide.solver_params.clear()
    np.testing.assert_array_equal(decide(probs), RankSEG()(probs))


@pytest.mark.parametrize(
    "twin_of", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies_have_options_of_their_own(twin_of):
    decide = RankSEG(unassigned_policy="void")
    twin = twin_of(decide)
    twin.metric, twin.void_index = "iou", 7
    assert (decide.metric, decide.solver_params) == ("dice", {"unassigned_policy": "void"})
    assert twin.settings == RankSEG("iou", unassigned_policy="void", void_index=7).settings


def test_options_of_some_solvers_are_attributes():
    assert RankSEG().correlation == RankSEG(output_mode="multilabel").correlation == 0.5
    decide = RankSEG(solver="RMA")
    for name, value in {"unassigned_policy": "void", "void_index": 9, "correlation": 0.5}.items():
        assert getattr(decide, name) == getattr(Settings(), name)
        setattr(decide, name, value)
        assert getattr(decide.settings, name) == getattr(decide, name) == value
    with pytest.raises(ValueError, match="correlation must be in"):
        decide.correlation = 1
    assert decide.solver_params["correlation"] == 0.5
    decide.solver_params = {"smooth": 1.0}
    with pytest.raises(TypeError, match=r"argument of its own: RankSEG\(smooth=...\)"):
        decide(maps.softmax(1, 3, 9))
    decide.solver_params = {}
    decide.eps = 0.1
    with pytest.raises(TypeError, match="eps goes with a solver in"):
        decide(maps.softmax(1, 3, 9))


@pytest.mark.parametrize(
    "name", ["corelation", "prunning_prob", "Metric", "void_idx", "solver_param"]
)
def test_misspelt_options_are_no_attributes(name):
    with pytest.raises(AttributeError, match=f"RankSEG has no option '{name}'; did you mean"):
        setattr(RankSEG(), name, 0)


def test_other_attributes_are_those_of_a_module():
    decide = RankSEG()
    with pytest.warns(UserWarning, match="no option 'note': the attribute is kept") as told:
        decide.note = 1
    assert [warning.filename for warning in told] == [__file__]
    decide.note = 2
    decide.forward, decide.training, decide._tag = decide.forward, False, 0
    decide.register_buffer("seen", torch.zeros(1))
    decide.seen = torch.ones(1)
    handle = decide.register_forward_hook(lambda module, inputs, decision: decision + 100)
    assert decide(maps.softmax(1, 3, 9)).min() >= 100
    handle.remove()

    class Counting(RankSEG):
        def __init__(self):
            super().__init__()
            self.metrics, self.correlation = [], 0.5

    assert (Counting().metrics, Counting().settings.correlation) == ([], 0.5)


@pytest.mark.parametrize("value", [True, np.array([0.5]), np.array([0.5, 0.5]), torch.tensor(0.5)])
def test_an_item_that_equals_the_one_before_is_checked_too(value):
    decide = RankSEG(correlation=0.5)
    decide.solver_params["correlation"] = value
    with pytest.raises(TypeError, match="correlation must be a real number"):
        decide(maps.softmax(1, 3, 9))
    with pytest.raises(TypeError, match="solver_params must be a dict of options"):
        decide.solver_params = None


def test_options_changed_while_others_are_checked_count(monkeypatch):
    decide = RankSEG()
    parse = module.parse

    def parse_while_another_thread_changes(*args, **options):
        decide.void_index = 9
        return parse(*args, **options)

    decide.void_index = 8
    with monkeypatch.context() as patch:
        patch.setattr(module, "parse", parse_while_another_thread_changes)
        assert decide.settings.void_index == 8
    assert decide.settings.void_index == 9


def test_argmax_of_masks_warns_that_they_do_not_overlap():
    decide = RankSEG("acc", output_mode="multilabel", solver="argmax")
    with pytest.warns(
        UserWarning, match="puts every pixel into one mask; .* pass solver='TR'"
    ) as told:
        masks = decide(maps.softmax(1, 3, 20))
    assert [warning.filename for warning in told] == [__file__]
    assert (masks.sum(1) == 1).all()


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("smooth", [1e12, 1e17, 1e155, 1e308, 1.7e308])
@pytest.mark.parametrize("options", [{}, {"solver": "exact"}, {"correlation": 0.5}], ids=str)
def test_smoothing_without_bounds_is_the_threshold_of_one_half(metric, smooth, options):
    probs = maps.softmax(2, 3, 8, 9, dtype="float64")
    masks = RankSEG(metric, smooth, "multilabel", pruning_prob=0.0, **options)(probs)
    np.testing.assert_array_equal(masks, probs > 0.5)
    labels = RankSEG(metric, smooth, pruning_prob=0.0, **options)(probs)
    np.testing.assert_array_equal(labels, probs.argmax(1))
    assert RankSEG(metric, smooth).smooth == smooth
    cut = rankseg.ClassProfile.from_probs(probs).cut(
        metric, smooth, options.get("correlation", 0.0), 0.0
    )
    apart = np.abs(probs - 0.5) > 0.01
    np.testing.assert_array_equal((probs > cut.numpy()[..., None, None])[apart], masks[apart])
    assert rankseg.expected_score(probs, masks, metric, smooth).min() > 0.999


def test_function_is_the_module(decide):
    probs = maps.softmax(2, 3, 30)
    settings = decide.settings
    decision = rankseg.functional.rankseg(
        probs,
        settings.metric,
        settings.smooth,
        settings.output_mode,
        decide._options["solver"],
        settings.pruning_prob,
        **decide.solver_params,
    )
    np.testing.assert_array_equal(decision, decide(probs))


def test_strings_ignore_case_and_blanks():
    probs = maps.softmax(1, 3, 50)
    decision = rankseg.functional.rankseg(probs, " IoU ", output_mode="MultiClass", solver="Auto\n")
    np.testing.assert_array_equal(decision, rankseg.functional.rankseg(probs, "iou"))


def test_tensor_subclass_gives_a_plain_tensor():
    class Tagged(torch.Tensor):
        pass

    probs = torch.from_numpy(maps.softmax(1, 3, 50))
    decision = RankSEG()(probs.as_subclass(Tagged))
    assert type(decision) is torch.Tensor
    assert torch.equal(decision, RankSEG()(probs))


def test_rankseg_rma_is_the_rma_solver():
    probs = maps.softmax(2, 4, 60)
    for mode in ("multiclass", "multilabel"):
        for metric in ("dice", "iou"):
            np.testing.assert_array_equal(
                rankseg.rankseg_rma(probs, metric, 0.5, mode, 0.2),
                RankSEG(metric, 0.5, mode, "RMA", 0.2)(probs),
            )
    np.testing.assert_array_equal(
        rankseg.rankseg_rma(probs, unassigned_policy="void", void_index=9, safe_screening="auto"),
        RankSEG(solver="RMA", unassigned_policy="void", void_index=9)(probs),
    )
