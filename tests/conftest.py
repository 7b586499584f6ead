"""What every test may ask for: each backend in turn, and folders of probability maps."""

from __future__ import annotations

import importlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# Failed asserts of helpers then show their values, as those of tests do.
pytest.register_assert_rewrite("support")

settings.register_profile("house", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("house")

# A shell lets what it starts in the background, as .ci/run does, ignore Ctrl-C: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # tests about threads ask for them; small steps need not wait for others

SHARED_WORK = 1 << 12
"""Probabilities to a task in tests of threads: few, so that small maps go to several threads."""

CLASSES = ["background", "organ", "vessel"]
"""Names of the classes in the fixture ``folder``."""

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """Let a worker report a failure about names that are no UTF-8: it would end all workers."""
    return _encodable((yield))


def _encodable(content):
    if isinstance(content, str):
        return content.encode("utf-8", "backslashreplace").decode()
    if isinstance(content, dict):
        return {name: _encodable(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(_encodable, content))
    return content


@pytest.fixture(params=["native", "torch"])
def backend(request, monkeypatch):
    """Run the test once on each backend, named explicitly so that none stands in for another."""
    monkeypatch.setenv("RANKSEG_BACKEND", request.param)
    return request.param


@pytest.fixture
def threads(monkeypatch):
    """Set the number of threads, and set it back; even small work is shared between them."""
    monkeypatch.setattr("rankseg._backends.native_library.VALUES_PER_TASK", SHARED_WORK)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def benchmark(monkeypatch):
    """Return what imports a module of the benchmarks, which stand beside each other in a folder."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def folder(tmp_path):
    """Return a folder of six images with void pixels; every second image lacks the last class."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for index in range(6):
        rng = np.random.default_rng(index)
        probs = rng.dirichlet([2, 1, 0.3 + 0.2 * index], (30, 40)).transpose(2, 0, 1)
        label = (rng.random((30, 40)) > probs.cumsum(0)).sum(0).clip(max=1 + index % 2)
        label[:3] = 255
        np.savez(maps / f"case_{index}.npz", probs=probs.astype(np.float16), label=label)
    (maps / "meta.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255}))
    return maps


@pytest.fixture(scope="session")
def real_maps() -> Path:
    """Return the folder of shared probability maps; skip where it is missing."""
    folder = Path(os.environ.get("RANKSEG_DATA", REPOSITORY.parent / "shared" / "data")) / "maps"
    if not folder.is_dir():
        pytest.skip(f"the shared probability maps are not at {folder}")
    return folder
