"""The decision as an ONNX graph: the labels that torch gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rankseg import RankSEG, __version__
from rankseg.dataset import DatasetRule
from rankseg.integration.onnx import export
from support import maps
from support.frameworks import framework

framework("onnx")
framework("onnxscript")
runtime = framework("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:copyreg")  # torch's own

CLASSES = 11


def session(path):
    quiet = runtime.SessionOptions()
    quiet.log_severity_level = 3
    return runtime.InferenceSession(str(path), quiet)


def run(graph, array):
    (given,) = graph.get_inputs()
    return graph.run(None, {given.name: array})[0]


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch.compiler.reset()


def several_sizes(classes):
    yield maps.softmax(2, classes, 24, 31)
    yield maps.smooth(3, classes, 48, seed=1)
    yield maps.smooth(1, classes, 208, seed=2)
    yield np.zeros((1, classes, 5, 7), np.float32)
    yield np.eye(classes, dtype=np.float32).reshape(1, classes, 1, classes)
    yield maps.dyadic(1, classes, 40, 33, seed=3) * np.float32(0.25)


def real_probs(real_maps, name, number):
    files = sorted((real_maps / name).glob("*.npz"))[:number]
    assert files
    return [np.load(file)["probs"][None].astype(np.float32) for file in files]


@pytest.fixture(scope="module")
def labelling_file(tmp_path_factory):
    """Return a decision of labels and the file it was written to."""
    path = tmp_path_factory.mktemp("onnx") / "decision.onnx"
    decide = RankSEG("dice")
    export(path, decide, CLASSES)
    return decide, path


@pytest.fixture(scope="module")
def labelling(labelling_file):
    """Return the same with its graph."""
    decide, path = labelling_file
    return decide, session(path)


@pytest.fixture(scope="module")
def masking(tmp_path_factory):
    """Return a decision of masks of volumes and its graph."""
    path = tmp_path_factory.mktemp("onnx") / "decision.onnx"
    decide = RankSEG("iou", output_mode="multilabel")
    export(path, decide, 3, spatial_axes=3)
    return decide, session(path)


def test_labels(labelling):
    decide, graph = labelling
    (given,), (got,) = graph.get_inputs(), graph.get_outputs()
    assert (given.name, given.shape) == ("probs", ["batch", CLASSES, "height", "width"])
    assert (got.name, got.type) == ("labels", "tensor(int64)")
    for probs in several_sizes(CLASSES):
        np.testing.assert_array_equal(run(graph, probs), decide(probs))


def test_masks_of_volumes(masking):
    decide, graph = masking
    (given,), (got,) = graph.get_inputs(), graph.get_outputs()
    assert given.shape == ["batch", 3, "depth", "height", "width"]
    assert (got.name, got.type) == ("masks", "tensor(bool)")
    probs = maps.softmax(2, 3, 9, 8, 11)
    np.testing.assert_array_equal(run(graph, probs), decide(probs))


def test_real_maps(labelling, masking, real_maps):
    for (decide, graph), names in (
        (labelling, ("camvid-cgnet", "camvid-enet", "camvid-espnet-full")),
        (masking, ("hippocampus-unet3d",)),
    ):
        for name in names:
            for probs in real_probs(real_maps, name, 2):
                np.testing.assert_array_equal(run(graph, probs), decide(probs))


def test_adversarial_maps_of_one_channel(tmp_path):
    decide = RankSEG("dice", 0.0, "multilabel", "RMA", 0.0)
    export(tmp_path / "decision.onnx", decide, 1, dtype="float64")
    graph = session(tmp_path / "decision.onnx")
    for seed in range(4):
        for name, probs in maps.adversarial(np.random.default_rng(seed), 391):
            probs = probs.reshape(1, 1, 17, 23)
            np.testing.assert_array_equal(run(graph, probs), decide(probs), err_msg=name)


def test_merging_with_a_network(labelling_file, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    decide, path = labelling_file
    decision = onnx.load(path)
    given, got = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CLASSES, "h", "w"])
        for name in ("images", "scores")
    )
    softmax = helper.make_node("Softmax", ["images"], ["scores"], axis=1)
    network = helper.make_model(
        helper.make_graph([softmax], "network", [given], [got]),
        opset_imports=decision.opset_import,
        ir_version=decision.ir_version,
    )
    network = onnx.compose.add_prefix(network, "network_")
    merged = onnx.compose.merge_models(network, decision, io_map=[("network_scores", "probs")])
    onnx.save(merged, tmp_path / "model.onnx")
    images = np.random.default_rng(0).normal(0, 3, (2, CLASSES, 30, 20)).astype(np.float32)
    expected = decide(torch.from_numpy(images).softmax(1)).numpy()
    assert (run(session(tmp_path / "model.onnx"), images) != expected).mean() < 0.002


@pytest.mark.parametrize("link", ["softmax", None])
def test_model_that_ends_in_the_decision(tmp_path, link):
    ending = [RankSEG("iou", from_logits=link)]
    if link is None:
        ending.insert(0, torch.nn.Softmax(1))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), *ending).eval()
    images = 4 * torch.rand(2, 3, 20, 26)
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.onnx.export(
        model, (images,), dynamo=True, verbose=False, dynamic_shapes=(axes,)
    )
    program.save(tmp_path / "model.onnx")
    graph = session(tmp_path / "model.onnx")
    for given in (images, 4 * torch.rand(1, 3, 33, 29)):
        np.testing.assert_array_equal(run(graph, given.numpy()), model(given).numpy())


def test_labels_for_all_classes_at_once(tmp_path):
    options = {"smooth": 1.0, "solver": "joint"}
    decide = RankSEG(**options)
    export(tmp_path / "decision.onnx", decide, 4)
    graph = session(tmp_path / "decision.onnx")
    for probs in (maps.softmax(2, 4, 24, 31), maps.smooth(1, 4, 64)):
        np.testing.assert_array_equal(run(graph, probs), decide(probs))


@pytest.mark.parametrize("options", [{"solver": "joint"}, {"output_mode": "multilabel"}], ids=str)
def test_correlated_labels(tmp_path, options):
    decide = RankSEG("dice", correlation=0.5, **options)
    export(tmp_path / "decision.onnx", decide, CLASSES)
    graph = session(tmp_path / "decision.onnx")
    for probs in several_sizes(CLASSES):
        np.testing.assert_array_equal(run(graph, probs), decide(probs))


@pytest.mark.parametrize("solver", ["RMA", "joint"])
def test_presence_by_argmax(tmp_path, solver):
    decide = RankSEG("dice", solver=solver, presence="argmax")
    export(tmp_path / "d.onnx", decide, 5)
    probs = (0.5 * torch.randn(2, 5, 20, 24, generator=torch.manual_seed(0))).softmax(1)
    assert (probs.amax((2, 3)) <= 0.5).any()  # some class that the published rule leaves out
    given = run(session(tmp_path / "d.onnx"), probs.numpy())
    np.testing.assert_array_equal(given, decide(probs))


@pytest.mark.parametrize("presence", ["all", "argmax"])
def test_a_rule_of_a_data_set(tmp_path, presence):
    rule = DatasetRule("iou", [0.8, 1.0, 1.2], [0.3, 0.5, 0.4])
    decide = RankSEG("iou", rule=rule, presence=presence)
    export(tmp_path / "decision.onnx", decide, 3)
    graph = session(tmp_path / "decision.onnx")
    probs = maps.softmax(2, 3, 9, 11)
    np.testing.assert_array_equal(run(graph, probs), decide(probs))


def test_sigmoids_of_classes_that_exclude_each_other(tmp_path):
    with pytest.warns(UserWarning, match="from_logits='sigmoid' is of classes that overlap"):
        export(tmp_path / "d.onnx", RankSEG(from_logits="sigmoid"), 3)


def test_metadata_and_newer_operators(tmp_path):
    import onnx

    decide = RankSEG("acc", from_logits="sigmoid", output_mode="multilabel")
    export(tmp_path / "decision.onnx", decide, 3, opset=23)
    assert onnx.load(tmp_path / "decision.onnx").opset_import[0].version == 23
    stored = session(tmp_path / "decision.onnx").get_modelmeta().custom_metadata_map
    assert stored["rankseg.version"] == __version__
    options = json.loads(stored["rankseg.options"])
    assert {name: options[name] for name in ("metric", "solver", "from_logits")} == {
        "metric": "acc",
        "solver": "TR",
        "from_logits": "sigmoid",
    }
    assert [file.name for file in tmp_path.iterdir()] == ["decision.onnx"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((RankSEG(solver="exact"), 3), ValueError, r"solvers \['RMA', .*got solver='exact'"),
        ((3, 3), TypeError, "decide must be a RankSEG or the path"),
        ((RankSEG(), 0), ValueError, "classes must be from 1 to 65536, got 0"),
        ((RankSEG(), 99999999999), ValueError, "classes must be from 1 to 65536, got 9999999"),
        ((RankSEG(), 2.0), TypeError, "classes must be an integer, got 2.0"),
        ((RankSEG(void_index=2), 3), ValueError, "void_index must not be one of the labels 0 to 2"),
        ((RankSEG(from_logits="softmax"), 1), ValueError, "needs two classes or more"),
    ],
)
def test_what_cannot_be_exported(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        export(tmp_path / "decision.onnx", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [-1, 17, 99, 10**30])
def test_operators_that_cannot_be_written(tmp_path, opset):
    with pytest.raises(ValueError, match="opset must"):
        export(tmp_path / "x.onnx", RankSEG(), 3, opset=opset)
    assert not list(tmp_path.iterdir())


def test_the_oldest_operators(tmp_path):
    import onnx

    export(tmp_path / "x.onnx", RankSEG(), 3, opset=18)
    assert onnx.load(tmp_path / "x.onnx").opset_import[0].version == 18


def test_wrong_shape_dtype_and_folder(tmp_path):
    for options, error, message in (
        ({"spatial_axes": 4}, ValueError, "spatial_axes must be 2 or 3, got 4"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of .*'float32'.*got 'int8'"),
    ):
        with pytest.raises(error, match=message):
            export(tmp_path / "decision.onnx", RankSEG(), 3, **options)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export(tmp_path / "nowhere" / "decision.onnx", RankSEG(), 3)


def test_command(tmp_path):
    testing = pytest.importorskip("typer.testing", reason="needs typer")
    from rankseg._commands import app

    path = tmp_path / "decision.onnx"
    line = f"export {path} --classes 3 --metric iou --output-mode multilabel --from-logits sigmoid"
    result = testing.CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    assert "Written to" in result.output
    logits = np.random.default_rng(0).normal(size=(2, 3, 12, 14)).astype(np.float32)
    expected = RankSEG("iou", output_mode="multilabel", from_logits="sigmoid")(logits)
    np.testing.assert_array_equal(run(session(path), logits), expected)
    wrong = testing.CliRunner().invoke(app, f"export {path} --classes 3 --metric hd95".split())
    assert wrong.exit_code == 2
    assert "metric" in wrong.output
