"""The torch backend runs inside a graph, with the decisions of the eager one."""

from __future__ import annotations

import io

import pytest
import torch
import torch._dynamo.testing
from torch.fx.experimental.proxy_tensor import make_fx

from rankseg import RankSEG
from support import maps, public_calls

OPTIONS = [
    {},
    {"metric": "iou", "smooth": 0.5},
    {"solver": "joint"},
    {"correlation": 0.5},
    {"correlation": 0.5, "metric": "iou", "output_mode": "multilabel"},
    {"solver": "joint", "metric": "iou", "unassigned_policy": "void"},
    {"metric": "iou", "output_mode": "multilabel", "solver": "exact", "smooth": 0.5},
    {"metric": "acc"},
]


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch.compiler.reset()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_full_graph(options):
    model = torch.nn.Sequential(torch.nn.Softmax(1), RankSEG(**options))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        logits = torch.from_numpy(maps.dyadic(2, 5, 24, 31, seed=seed)) * 9
        assert torch.equal(compiled(logits), model(logits))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
def test_full_graph_by_the_default_compiler():
    decide = RankSEG()
    compiled = torch.compile(decide, fullgraph=True)
    probs = torch.from_numpy(maps.dyadic(2, 5, 24, 31))
    assert torch.equal(compiled(probs), decide(probs))


def test_options_changed_later_make_another_graph():
    decide = RankSEG()
    compiled = torch.compile(decide, fullgraph=True, backend="aot_eager")
    probs = torch.from_numpy(maps.dyadic(2, 5, 24, 31))
    assert torch.equal(compiled(probs), decide(probs))
    decide.metric, decide.pruning_prob = "iou", 0.25
    decide.solver_params["unassigned_policy"] = "void"
    expected = RankSEG("iou", pruning_prob=0.25, unassigned_policy="void")(probs)
    assert torch.equal(compiled(probs), expected)


GRAPHS = [
    *("RMA-dice-multiclass", "RMA-iou-multilabel", "joint-dice-multiclass"),
    *("RMA-dice-multiclass-correlated", "exact-dice-multilabel", "TR-acc-multilabel"),
    *("argmax-acc-multiclass", "argmax-acc-multilabel", "smooth", "void", "logits", "calibrated"),
]
"""Every solver and output that a graph can hold, and decides as outside of one."""


@pytest.mark.parametrize("name", GRAPHS)
def test_one_graph_of_any_size(name):
    decide = RankSEG(**public_calls.DECISIONS[name])
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(decide, fullgraph=True, dynamic=True, backend=graphs)
    counts = []
    for seed, shape in enumerate([(2, 3, 8, 9), (3, 3, 7, 11), (4, 3, 10, 5)]):
        probs = torch.from_numpy(maps.dyadic(*shape, seed=seed))
        assert torch.equal(compiled(probs), decide(probs))
        counts.append(graphs.frame_count)
    assert counts[0] == counts[-1]  # the first call may have compiled more than once


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("options", [{}, {"unassigned_policy": "void", "void_index": 77}], ids=str)
def test_joint_of_any_size_by_the_default_compiler(options):
    decide = RankSEG(solver="joint", **options)
    compiled = torch.compile(decide, fullgraph=True, dynamic=True)
    for seed, shape in enumerate([(2, 3, 20, 30), (1, 3, 40, 17)]):
        probs = torch.from_numpy(maps.dyadic(*shape, seed=seed))
        assert torch.equal(compiled(probs), decide(probs))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("options", [{}, {"metric": "iou", "output_mode": "multilabel"}], ids=str)
def test_full_graph_of_logits(options, link):
    decide = RankSEG(from_logits=link, **options)
    compiled = torch.compile(decide, fullgraph=True, backend="aot_eager")
    logits = torch.from_numpy(maps.dyadic(2, 5, 24, 31)) * 9 - 2
    assert torch.equal(compiled(logits), decide(logits))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metric": "iou", "output_mode": "multilabel"},
        {"smooth": 1.0},
        {"from_logits": "softmax"},
    ],
    ids=str,
)
def test_export(options):
    decide = RankSEG(**options)
    axes = {axis: torch.export.Dim(name) for axis, name in ((0, "b"), (2, "h"), (3, "w"))}
    scale = 1 if decide.from_logits is None else 9
    probs = torch.from_numpy(maps.dyadic(2, 5, 24, 31)) * scale
    exported = torch.export.export(decide, (probs,), dynamic_shapes=(axes,)).module()
    for shape in ((2, 5, 24, 31), (1, 5, 17, 40)):
        other = torch.from_numpy(maps.dyadic(*shape, seed=1)) * scale
        assert torch.equal(exported(other), decide(other))


@pytest.mark.parametrize("solver", ["BA", "TRNA", "BA+TRNA", "DEP"])
def test_a_solver_that_sorts_cannot_be_in_a_graph(solver):
    decide = RankSEG(output_mode="multilabel", solver=solver)
    probs = torch.from_numpy(maps.dyadic(2, 5, 24, 31))
    compiled = torch.compile(decide, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="it outside of a graph, or take solver='RMA'"):
        compiled(probs)
    with pytest.raises(RuntimeError, match="it outside of a graph, or take solver='RMA'"):
        torch.export.export(decide, (probs,))


@pytest.mark.parametrize("solver", ["BA", "DEP"])
def test_a_solver_that_sorts_is_left_out_of_a_graph_that_need_not_be_full(solver):
    decide = RankSEG(output_mode="multilabel", solver=solver)
    model = torch.nn.Sequential(torch.nn.Softmax(1), decide)
    logits = torch.from_numpy(maps.dyadic(2, 5, 24, 31)) * 9
    assert torch.equal(torch.compile(model, backend="eager")(logits), model(logits))


def test_full_graph_with_valid_pixels():
    decide = RankSEG()
    compiled = torch.compile(decide, fullgraph=True, backend="aot_eager")
    probs = torch.from_numpy(maps.dyadic(2, 5, 24, 31))
    valid = probs[:, 0] < 0.8
    assert torch.equal(compiled(probs, valid), decide(probs, valid))


class Calling(torch.nn.Module):
    """Ends in a function of this package, as a network does."""

    def __init__(self, name):
        super().__init__()
        decide = RankSEG(**public_calls.DECISIONS.get(name, {}))
        self.call = decide if name in public_calls.DECISIONS else public_calls.OTHERS[name]

    def forward(self, probs):
        result = self.call(probs)
        return getattr(result, "prediction", result)


def export_to_old_onnx(model, probs):
    torch.onnx.export(model, (probs,), io.BytesIO(), dynamo=False)


OLD_TRACERS = {
    "torch.jit.trace": torch.jit.trace,
    "torch.onnx.export": export_to_old_onnx,
    "torch.fx.symbolic_trace": lambda model, probs: torch.fx.symbolic_trace(model),
    "make_fx": lambda model, probs: make_fx(model)(probs),
    "make_fx of shapes": lambda model, probs: make_fx(model, tracing_mode="symbolic")(probs),
    "make_fx before autograd": lambda model, probs: make_fx(model, pre_dispatch=True)(probs),
}
TRACED = [
    *(*public_calls.DECISIONS, "decide", "decide_labels", "profile", "calibrated_maps"),
    *("score", "score_correlated", "count_labels", "count_masks", "one_function"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("tracer", OLD_TRACERS)
def test_no_graph_holds_the_decision_of_its_example(tracer, name, backend):
    probs = torch.from_numpy(maps.softmax(1, 3, 6, 7))
    way = "use torch.compile or torch.export.export, or for ONNX rankseg.integration.onnx.export"
    with pytest.raises(RuntimeError, match=f"{tracer.split(' ')[0]}.* cannot record .*{way}"):
        OLD_TRACERS[tracer](Calling(name), probs)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_decision_is_no_script():
    for model in (RankSEG(), torch.nn.Sequential(torch.nn.Softmax(1), RankSEG("iou"))):
        with pytest.raises(RuntimeError, match=r"torch\.jit\.script cannot record a decision"):
            torch.jit.script(model)
