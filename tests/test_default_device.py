"""Torch's default device is for what a user makes; results are where the data is."""

from __future__ import annotations

import ast

import pytest
import torch

from conftest import REPOSITORY
from support import maps, public_calls

FACTORIES = {"arange", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randint"}
FACTORIES |= {"randn", "randperm", "scalar_tensor", "tensor", "zeros"}


@pytest.mark.parametrize("name", public_calls.NAMES)
def test_results_are_where_the_data_is(name, backend):
    probs = torch.from_numpy(maps.smooth(2, 3, 48))
    expected = public_calls.call(name, probs)
    with torch.device("meta"):  # stands in for a GPU
        found = public_calls.call(name, probs)
    public_calls.assert_same(found, expected)


@pytest.mark.parametrize("name", [name for name in public_calls.NAMES if "count" not in name])
def test_arrays_too(name):
    probs = maps.smooth(2, 3, 48)
    expected = public_calls.call(name, probs)
    with torch.device("meta"):
        found = public_calls.call(name, probs)
    public_calls.assert_same(found, expected)


def test_labels_as_arrays_are_counted_on_the_cpu():
    probs = maps.smooth(2, 3, 48)
    labels = probs.argmax(1)
    expected = public_calls.metrics.count(labels, probs.argmin(1), num_classes=3)
    with torch.device("meta"):
        found = public_calls.metrics.count(labels, probs.argmin(1), num_classes=3)
    public_calls.assert_same(found, expected)


def test_every_new_tensor_names_its_device():
    nameless = []
    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or "torch." not in ast.unparse(node.func):
                continue
            named = ast.unparse(node.func).removeprefix("torch.")
            keywords = {keyword.arg for keyword in node.keywords}
            if named in FACTORIES and not keywords & {"device", "generator"}:
                nameless.append(f"{path.name}:{node.lineno} torch.{named}")
    assert nameless == []
