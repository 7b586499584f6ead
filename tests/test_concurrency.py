"""Many threads at once, and data-loader workers, after the parent has used the library."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from conftest import SHARED_WORK
from rankseg import RankSEG, _backends, rankdice_ba
from rankseg._backends import native, native_library
from rankseg._decision.problem import Problem
from rankseg._decision.settings import Settings
from rankseg._formulas.bins import BINS, bin_of
from support import maps, public_calls

CASES = 6

TASKS = Path("/proc/self/task")
"""The threads of this process, on Linux."""


class Decisions(Dataset):
    """Decides in the worker, as a pipeline that post-processes in its loader would."""

    def __init__(self, threads):
        self.threads = threads

    def __len__(self):
        return CASES

    def __getitem__(self, index):
        native_library.VALUES_PER_TASK = SHARED_WORK
        torch.set_num_threads(self.threads)  # workers start with one
        return RankSEG()(probability_map(index)[None])[0]


def probability_map(index):
    return torch.from_numpy(maps.smooth(1, 5, 160, seed=index)[0])


@pytest.fixture(scope="module")
def expected():
    """Decide in the parent first, on every kind of threads: none of them must reach the workers."""
    before = torch.get_num_threads(), native_library.VALUES_PER_TASK
    torch.set_num_threads(2)
    native_library.VALUES_PER_TASK = SHARED_WORK
    decisions = [RankSEG()(probability_map(index)[None])[0] for index in range(CASES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_library, "_start_team", None)
        assert torch.equal(RankSEG()(probability_map(0)[None])[0], decisions[0])
    torch.set_num_threads(before[0])
    native_library.VALUES_PER_TASK = before[1]
    return torch.stack(decisions)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(expected, start, threads):
    loader = DataLoader(
        Decisions(threads), batch_size=2, num_workers=2, multiprocessing_context=start, timeout=120
    )
    assert torch.equal(torch.cat(list(loader)), expected)


KNOWN = {}
"""What the parent got, by name: a forked child has it too."""


def call_in_child(name, threads):
    public_calls.assert_same(public_calls.call(name, maps.smooth(1, 3, 192)), KNOWN[name])
    assert torch.get_num_threads() == threads


def use_everything(names, threads_in_child):
    """Call functions here, and then in a forked child."""
    for name in names:
        KNOWN[name] = public_calls.call(name, maps.smooth(1, 3, 192))
    torch.rand(1 << 20).sigmoid()  # wakes the threads of torch, if nothing before did
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for name in names:
            pool.apply_async(call_in_child, (name, threads_in_child)).get(60)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_may_call_everything(backend, threads):
    threads(2)
    use_everything(public_calls.NAMES, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_one_thread_where_openmp_ends_none(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(torch._C, "__file__", "no such library")
    use_everything(public_calls.OTHERS, 1)


FORK_EARLY = """
import os, signal
import rankseg, torch
torch.set_num_threads(2)
torch.rand(1 << 20).sigmoid()
assert "rankseg._decision.module" not in __import__("sys").modules
child = os.fork()
if not child:
    signal.alarm(60)
    from rankseg.evaluation import argmax
    argmax(torch.rand(8, 512, 512))
    os._exit(torch.get_num_threads())
assert os.waitpid(child, 0)[1] == 2 << 8 and torch.get_num_threads() == 2
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked there")
def test_a_child_may_be_forked_before_anything_is_used():
    """Nothing of the package but itself is imported until it is used."""
    subprocess.run([sys.executable, "-c", FORK_EARLY], check=True, timeout=120)


@pytest.fixture(params=["team", "pool"])
def kind_of_threads(request, monkeypatch):
    """Run the test on torch's threads, where they can be had, and on our own."""
    if request.param == "pool":
        monkeypatch.setattr(native_library, "_start_team", None)
    elif native_library._start_team is None:
        pytest.skip("torch has no threads to lend here")


@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP library there")
def test_torch_lends_its_threads():
    assert native_library._start_team is not None


def test_several_threads_share_the_work(kind_of_threads, threads):
    """Each thread of the process has used processor time when a large map is decided."""
    threads(2)
    maps_of_many_pixels = native.open_maps(torch.rand(1, 16, 1 << 20), None)

    def times():
        return {
            task.name: task.joinpath("stat").read_text().split()[13] for task in TASKS.iterdir()
        }

    before = times()
    started = time.process_time_ns(), time.perf_counter_ns()
    while time.perf_counter_ns() - started[1] < 3e8:
        native.survey(maps_of_many_pixels)
    used = sum(times().get(task) != spent for task, spent in before.items())
    kept = torch.get_num_threads() if native_library._start_team else 1  # others have ended
    assert used >= kept


def interrupted_calls(seconds):
    """Decide until an alarm is raised; return the labels of the last call that ended before."""
    probs, labels = probability_map(0)[None], None
    end = time.monotonic() + 60
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < end:
            labels = RankSEG()(probs)
        pytest.fail("the alarm rang, and what it raised was lost")
    return labels


def test_no_interrupt_is_lost_and_no_call_returns_after_it(expected, kind_of_threads, threads):
    threads(2)

    def interrupt(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(1, 41):
            labels = interrupted_calls(0.02 + number * 1e-4)
            assert labels is None or torch.equal(labels[0], expected[0])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_concurrent_calls(expected, kind_of_threads, threads):
    threads(2)
    indices = list(range(CASES)) * 20
    with ThreadPoolExecutor(8) as pool:
        decisions = pool.map(lambda i: RankSEG()(probability_map(i)[None])[0], indices)
        for index, decision in zip(indices, decisions, strict=True):
            assert torch.equal(decision, expected[index])


def test_concurrent_calls_of_one_module(kind_of_threads, threads):
    threads(2)
    decide = RankSEG("iou", output_mode="multilabel")
    probs = maps.smooth(1, 5, 160)
    alone = decide(probs)
    with ThreadPoolExecutor(8) as pool:
        for decision in pool.map(decide, [probs] * 60):
            np.testing.assert_array_equal(decision, alone)


def test_values_that_appear_between_two_passes_find_no_room():
    """Another thread may write to the maps: no pass writes beyond what it was given."""
    probs = torch.full((1, 2, 3000), 0.25)
    opened = native.open_maps(probs, None)
    survey = native.survey(opened)
    rows = torch.tensor([[0, 0], [0, 1]])
    low, high = torch.tensor([0.1, 0.4]).double(), torch.tensor([0.3, 0.5]).double()
    found = native.between(opened, survey, low, high, rows, width=5)
    assert found.tolist() == [[0.25] * 5, [0.0] * 5]

    labels = np.full((2, 3000), -1)
    valid = np.ones((2, 3000), np.bool_)
    maps_of_two = native.open_maps(probs.repeat(2, 1, 1), torch.from_numpy(valid))
    place, values = np.full((2, 5), 7), np.zeros((2, 2, 5), np.float32)
    flags, starts = np.ones((2, 2), np.bool_), np.array([[0, 5], [3, 5]])
    library_arguments = maps_of_two.source, labels, flags, starts, 255, 5, place, values
    native_library.call("gather_unsettled", *library_arguments)
    assert values.tolist() == [[[0.25] * 5] * 2, [[0.0] * 3 + [0.25] * 2] * 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, -1.0, 7.0])
def test_values_that_become_no_probabilities_are_in_some_bin(value, dtype):
    probs = torch.full((1, 1, 2000), 0.25, dtype=dtype)
    opened = native.open_maps(probs, None)
    survey = native.survey(opened)
    probs[0, 0, 100:200] = value
    table = native.profile(opened, survey, torch.tensor([[0, 0]]))
    assert table[0, :, 0].sum() == 2000
    assert 0 <= bin_of(probs).min() <= bin_of(probs).max() < BINS


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0, 1e30])
def test_volumes_of_values_that_changed_are_refused(wrong, backend, monkeypatch):
    used, _ = _backends.choose(torch.device("cpu"))
    monkeypatch.setattr(used, "moments", lambda maps, survey, active: [survey.mass * 0 + wrong] * 3)
    with pytest.raises(ValueError, match="probs must not change during a call"):
        rankdice_ba(torch.rand(1, 2, 30).clamp(min=0.6))


class ChangesBeforeIndexing(TorchDispatchMode):
    """Lets all pixels count just before any tensor is indexed."""

    def __init__(self, valid):
        super().__init__()
        self.valid = valid

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index.Tensor:
            self.valid.fill_(True)
        return func(*args, **(kwargs or {}))


def test_pixels_that_come_to_count_find_no_room():
    probs, valid = torch.full((1, 2, 9), torch.nan), torch.arange(9)[None] == 4
    with (
        ChangesBeforeIndexing(valid),
        pytest.raises(ValueError, match="got 2 values that are NaN"),
    ):
        Problem.parse(probs, valid, Settings()).check_values(True)
