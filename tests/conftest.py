"""What every test may ask for: each backend in turn, and the shared probability maps."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("house")

# A shell lets what it starts in the background, as .ci/run does, ignore Ctrl-C: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # tests about threads ask for them; small steps need not wait for others

SHARED_WORK = 1 << 12
"""Probabilities to a task in tests of threads: few, so that small maps go to several threads."""

REPOSITORY = Path(__file__).resolve().parents[1]


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


@pytest.fixture(scope="session")
def real_maps() -> Path:
    """Return the folder of shared probability maps; skip where it is missing."""
    folder = Path(os.environ.get("RANKSEG_DATA", REPOSITORY.parent / "shared" / "data")) / "maps"
    if not folder.is_dir():
        pytest.skip(f"the shared probability maps are not at {folder}")
    return folder
