"""The shape of the code: what is imported, by whom, and what is promised to the outside."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import itertools
import pickle
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import numpy as np
import pytest

import rankseg
from conftest import REPOSITORY
from rankseg._decision.settings import Settings, SolverOptions
from rankseg._decision.solvers import SOLVERS
from rankseg.calibration import Calibration
from rankseg.dataset import DatasetRule

SOURCE = REPOSITORY / "src" / "rankseg"

OPTIONAL = (
    "native",
    "scipy",
    "matplotlib",
    "typer",
    "rich",
    "monai",
    "transformers",
    "torchvision",
)
OPTIONAL += ("onnx", "onnxscript", "onnxruntime", "nibabel", "nnunetv2", "triton")
OPTIONAL += ("mmseg", "mmengine", "paddle", "paddleseg")
OPTIONAL += ("PIL", "safetensors", "tifffile", "zarr")
OPTIONAL += ("SimpleITK", "highdicom", "imagecodecs", "pydicom")

ADAPTERS = ("mmseg", "monai", "nnunet", "onnx", "paddleseg", "sam", "transformers")

FOLDERS = [
    *("_version", "_common", "_files", "_formats", "_formulas", "_backends", "_decision"),
    *("distribution", "metrics", "functional", "dataset", "rankseg"),
    *("integration", "_demo", "evaluation", "calibration", "prediction"),
    *("tuning", "plots", "report", "app", "_commands", "cli", "__main__"),
]
"""Folders, and the modules beside them, the lowest first: each imports from lower ones only."""

PUBLIC = [
    *("rankseg", "rankseg.functional", "rankseg.metrics", "rankseg.distribution"),
    *(
        "rankseg.calibration",
        "rankseg.dataset",
        "rankseg.evaluation",
        "rankseg.tuning",
        "rankseg.prediction",
    ),
    *("rankseg.plots", "rankseg.report", "rankseg.app", "rankseg.cli", "rankseg.integration"),
    *(f"rankseg.integration.{name}" for name in ADAPTERS),
]
"""Modules whose names users import."""


def output_of(code):
    """Return what ``code`` prints in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_by(code):
    """Return the modules loaded by ``code`` in a fresh interpreter."""
    return set(output_of(f"{code}; import sys; print(*sorted(sys.modules))").split())


EVERY_NAME = "from rankseg import *"


def test_importing_rankseg_loads_nothing_optional():
    assert "torch" in loaded_by(EVERY_NAME)
    assert not loaded_by(EVERY_NAME) & set(OPTIONAL) - loaded_by("import torch, numpy")


def test_adapters_are_attributes_and_are_loaded_when_used():
    modules = {f"rankseg.integration.{name}" for name in ADAPTERS}
    assert not loaded_by("import rankseg.integration") & modules
    for name in ("sam", "transformers", "onnx", "nnunet"):
        code = f"import rankseg.integration as adapters; print(adapters.{name}.__name__)"
        assert output_of(code).strip() == f"rankseg.integration.{name}"
    code = "import rankseg.integration as adapters; print(hasattr(adapters, 'keras'))"
    assert output_of(code).strip() == "False"


def test_importing_rankseg_loads_no_compiler():
    # torch's own takes a second or two.
    assert "torch._dynamo" not in loaded_by(EVERY_NAME)


def test_nothing_slow_is_imported_before_the_command_line_answers_an_interrupt():
    assert loaded_by("import rankseg.cli").isdisjoint({"torch", "numpy", "typer", "rich"})


def test_names_are_imported_at_first_use():
    code = "import sys, rankseg; print('torch' in sys.modules); rankseg.RankSEG"
    before, names = output_of(f"{code}; print(dir(rankseg))").splitlines()
    assert before == "False"
    assert set(rankseg.__all__) <= set(ast.literal_eval(names))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rankseg.nothing


def test_the_check_above_can_fail():
    assert "scipy" in loaded_by("import rankseg.distribution.scipy_refined_normal")


def imports(path):
    """Return the names of this package that a module imports at run time."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively, which this test cannot follow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def source_of(module):
    return MODULES[module].read_text()


def folder_of(module):
    """Return the folder of a module, or the module itself if it is in none."""
    return [*module.split("."), "rankseg"][1]


def as_module(name):
    """Return the module that an imported name is, or is in."""
    return name if name in MODULES else name.rpartition(".")[0]


def modules_imported_by(module):
    names = {as_module(name) for name in imports(MODULES[module])}
    return sorted(names & set(MODULES) - {module})


def test_every_folder_has_its_place():
    assert sorted(FOLDERS) == sorted({folder_of(module) for module in MODULES})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_folders_import_downwards(module):
    place = FOLDERS.index(folder_of(module))
    for imported in modules_imported_by(module):
        assert FOLDERS.index(folder_of(imported)) <= place, f"{module} imports {imported}"


def test_no_modules_import_each_other():
    order = TopologicalSorter({module: modules_imported_by(module) for module in MODULES})
    assert len([*order.static_order()]) == len(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_private_name_crosses_a_folder(module):
    for name in imports(MODULES[module]):
        parts = name.split(".")
        if parts[0] == "rankseg" and len(parts) > 2 and parts[1] != folder_of(module):
            private = [part for part in parts[2:] if part.startswith("_") and part != "__version__"]
            assert not private, f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if "._backends" in name])
def test_backends_know_nothing_of_options(module):
    for name in imports(MODULES[module]):
        if name.startswith("rankseg"):
            known = name.startswith(("rankseg._backends", "rankseg._formulas"))
            assert known, f"{module} imports {name}"


MOST_PARAMETERS = 8


@pytest.mark.parametrize("module", [name for name in MODULES if "._backends" not in name])
def test_only_public_functions_take_many_parameters(module):
    tree = ast.parse(source_of(module))
    public = promised_by(module)
    methods = {
        node
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef) and owner.name in public
        for node in owner.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            number = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
            is_public = node.name in {"__init__", *public}
            is_public |= node in methods and not node.name.startswith("_")
            assert number <= MOST_PARAMETERS or is_public, f"{node.name} takes {number}"


ASKS_TORCH = {"rankseg._common.tracing"}
"""The modules outside of the backends that ask how torch runs a call; formulas need the answers."""

TRACING = {"is_compiling", "is_dynamo_compiling", "is_exporting", "is_tracing", "is_scripting"}
HARDWARE = {"is_cuda", "is_cpu", "is_mps"}


def questions_about_torch(tree):
    """Yield where a module asks whether it is traced, or on which device it runs."""
    for node in ast.walk(tree):
        by_name = isinstance(node, ast.Attribute) and node.attr in TRACING | HARDWARE
        by_type = isinstance(node, ast.Compare) and ".device.type" in ast.unparse(node)
        if by_name or by_type:
            yield ast.unparse(node)


@pytest.mark.parametrize("module", [name for name in MODULES if "._backends" not in name])
def test_only_backends_ask_about_hardware_and_tracing(module):
    asked = [*questions_about_torch(ast.parse(MODULES[module].read_text()))]
    assert bool(asked) == (module in ASKS_TORCH), asked


def promised_by(module):
    """Return the ``__all__`` of a module, read and not imported: its framework may be missing."""
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_all_is_what_is_documented():
    documented = set(re.findall(r"^#+ `([\w.]+)`", (REPOSITORY / "docs/api.md").read_text(), re.M))
    promised = {f"{module}.{name}" for module in PUBLIC for name in promised_by(module)}
    assert documented == promised


def test_all_exists():
    for name in rankseg.__all__:
        assert hasattr(rankseg, name)


def rule_of(classes, mode):
    return {"rule": DatasetRule("dice", [1.0] * classes, [0.4] * classes, mode)}


NEEDED = {"rule": rule_of}
"""Options that some solver needs, for a number of classes and an output mode."""


@pytest.mark.parametrize("solver", [name for name, row in SOLVERS.items() if row.needs])
def test_a_solver_that_needs_an_option_is_auto_where_that_is_given(solver):
    row = SOLVERS[solver]
    for mode in row.options:
        assert rankseg.RankSEG("dice", 0.0, mode, **NEEDED[row.needs](2, mode)).solver == solver
        with pytest.raises(ValueError, match=f"needs the option {row.needs}, got none"):
            rankseg.RankSEG("dice", 0.0, mode, solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_takes_the_options_and_decides_the_classes_it_says(solver):
    row = SOLVERS[solver]
    options = {field.name for field in dataclasses.fields(Settings)} | {"safe_screening"}
    assert all(isinstance(vars(rankseg.RankSEG)[name], property) for name in options)
    assert set(row.several_classes) <= set(row.options)
    for mode, allowed in row.options.items():
        assert set(allowed) <= options & set(SolverOptions.__annotations__)
        needed = NEEDED.get(row.needs, lambda classes, mode: {})
        decide = rankseg.RankSEG(row.metrics[0], 0.0, mode, solver, **needed(1, mode))
        assert decide(np.ones((1, 1, 4))).all()
        decide = rankseg.RankSEG(row.metrics[0], 0.0, mode, solver, **needed(2, mode))
        if mode in row.several_classes:
            assert len(decide(np.full((1, 2, 4), 0.5))) == 1
        else:
            with pytest.raises(ValueError, match="decides one channel, got probs of 2 classes"):
                decide(np.full((1, 2, 4), 0.5))


def test_auto_is_one_solver_of_several_classes():
    for row in SOLVERS.values():
        assert set(row.default_for) <= set(row.several_classes)
        for metric, mode in itertools.product(row.metrics, row.options):
            solver = SOLVERS[rankseg.RankSEG(metric, 0.0, mode).solver]
            assert metric in solver.metrics
            assert mode in solver.default_for


CLASSES = [
    pytest.param(module, name, id=f"{module}.{name}")
    for module in PUBLIC
    if not module.startswith("rankseg.integration")
    for name in promised_by(module)
    if isinstance(getattr(importlib.import_module(module), name), type)
]


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_public_classes_name_their_public_module(module, name):
    cls = getattr(importlib.import_module(module), name)
    assert cls.__module__ in PUBLIC
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_pickles_name_public_modules_only():
    calibration = Calibration("softmax", [0.5, 0.5], [0.0, 0.0], "temperature")
    decide = rankseg.RankSEG(calibration=calibration)
    decide(np.full((1, 2, 4), 0.5))
    named = re.findall(rb"rankseg[\w.]*", pickle.dumps(decide, protocol=0))
    assert {b"rankseg", b"rankseg.calibration"} <= set(named) <= {name.encode() for name in PUBLIC}
    assert pickle.loads(pickle.dumps(decide)).settings == decide.settings


@pytest.mark.parametrize("module", [name for name in MODULES if "@public(" in source_of(name)])
def test_examples_of_public_classes_are_tested(module):
    found = {test.name for test in doctest.DocTestFinder().find(importlib.import_module(module))}
    for line in re.findall(r"@public.*(?:\n@.*)*\nclass (\w+)", source_of(module)):
        assert f"{module}.__test__.{line}" in found


A_SOLVER = "|".join(map(re.escape, SOLVERS))
LISTED = re.compile(rf"\b({A_SOLVER})(, | or | and |\|)({A_SOLVER})\b")


def lists_of_solvers(tree):
    """Yield the displays, classes and texts for help of a module that name several solvers."""
    annotations = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    for node in ast.walk(tree):
        values = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and node not in annotations:
            values = node.elts
        elif isinstance(node, ast.Dict):
            values = node.keys
        elif isinstance(node, ast.ClassDef):
            values = [line.value for line in node.body if isinstance(line, ast.Assign)]
        names = {value.value for value in values if isinstance(value, ast.Constant)}
        is_help = isinstance(node, ast.keyword) and node.arg == "help"
        if len(names & set(SOLVERS)) > 1 or (is_help and LISTED.search(ast.unparse(node))):
            yield ast.unparse(node)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"rankseg._decision.solvers"}))
def test_no_other_module_lists_solvers(module):
    assert not [*lists_of_solvers(ast.parse(MODULES[module].read_text()))]


@pytest.mark.parametrize(
    "code",
    [
        "A = ('RMA', 'joint')",
        "{'BA': 1, 'TRNA': 2}",
        "class A:\n    a = 'RMA'\n    b = 'TR'",
        "f(help='How: auto, RMA or joint.')",
    ],
)
def test_a_list_of_solvers_is_seen(code):
    assert [*lists_of_solvers(ast.parse(code))]
    assert not [*lists_of_solvers(ast.parse("solver: Literal['BA', 'TRNA'] = 'BA', ('RMA', 0.5)"))]


def test_deciding_while_the_interpreter_ends():
    code = (
        "import atexit, torch, rankseg\n"
        "from rankseg._backends import native_library\n"
        "torch.set_num_threads(2); native_library.VALUES_PER_TASK = 4096\n"
        "probs = torch.rand(1, 3, 200, 200).softmax(1)\n"
        "atexit.register(lambda: print(rankseg.RankSEG()(probs).shape))"
    )
    assert output_of(code).strip() == "torch.Size([1, 200, 200])"


def test_version_has_a_changelog_entry():
    assert f"## {rankseg.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_types_are_shipped():
    assert (SOURCE / "py.typed").exists()


def test_backends_offer_the_same_operations():
    from rankseg._backends import native, torch_reference

    cuts = {"open_maps", "survey", "above", "raise_cuts", "best_cuts", "between", "masks"}
    operations = cuts | {"claim", "unsettled", "resolve", "join", "tally", "profile", "exchange"}
    operations |= {"sizes", "moments", "winners", "probabilities"}
    operations |= {"split", "scan", "own_masks", "exact_masks"}
    for backend in (native, torch_reference):
        public = {
            name
            for name, value in vars(backend).items()
            if callable(value)
            and not name.startswith("_")
            and getattr(value, "__module__", "") == backend.__name__
            and not isinstance(value, type)
        }
        assert public == operations


def test_without_its_library_nothing_decides_slowly_without_a_word():
    """The reference must be named by the user."""
    code = (
        "import torch, rankseg\n"
        "from rankseg._backends import native_library\n"
        "native_library.__package__ = 'rankseg._common'\n"
        "probs = torch.tensor([[[0.9, 0.3], [0.1, 0.7]]])\n"
        "try: rankseg.RankSEG()(probs)\n"
        "except ImportError as error: print(error)\n"
        "import os; os.environ['RANKSEG_BACKEND'] = 'torch'\n"
        "print(rankseg.RankSEG()(probs))"
    )
    message, labels = output_of(code).splitlines()
    assert "rankseg was not built" in message
    assert labels == "tensor([[0, 1]])"
