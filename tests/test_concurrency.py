"""Many threads at once, and data-loader workers, after the parent has used the library."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, get_native_id

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from conftest import SHARED_WORK
from rankseg import RankSEG, _backends, rankdice_ba
from rankseg._backends import numba_cpu, numba_labels, numba_threads
from rankseg._decision.problem import Problem
from rankseg._decision.settings import Settings
from rankseg._formulas.bins import BINS, bin_of
from support import maps, public_calls

CASES = 6


class Decisions(Dataset):
    """Decides in the worker, as a pipeline that post-processes in its loader would."""

    def __init__(self, threads):
        self.threads = threads

    def __len__(self):
        return CASES

    def __getitem__(self, index):
        numba_cpu.VALUES_PER_TASK = SHARED_WORK
        torch.set_num_threads(self.threads)  # workers start with one
        return RankSEG()(probability_map(index)[None])[0]


def probability_map(index):
    return torch.from_numpy(maps.smooth(1, 5, 160, seed=index)[0])


@pytest.fixture(scope="module")
def expected():
    """Decide in the parent first, on every kind of threads: none of them must reach the workers."""
    before = torch.get_num_threads(), numba_cpu.VALUES_PER_TASK
    torch.set_num_threads(2)
    numba_cpu.VALUES_PER_TASK = SHARED_WORK
    decisions = [RankSEG()(probability_map(index)[None])[0] for index in range(CASES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_threads, "_start_team", None)
        assert torch.equal(RankSEG()(probability_map(0)[None])[0], decisions[0])
    assert numba_threads._pool.cache_info().currsize
    torch.set_num_threads(before[0])
    numba_cpu.VALUES_PER_TASK = before[1]
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
        monkeypatch.setattr(numba_threads, "_start_team", None)
    elif numba_threads._start_team is None:
        pytest.skip("torch has no threads to lend here")


@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP library there")
def test_torch_lends_its_threads():
    assert numba_threads._start_team is not None


def test_several_threads_share_the_work(kind_of_threads, threads):
    threads(2)
    both = Barrier(2)
    seen = set()

    def job(first, last):
        both.wait(40)  # breaks unless two threads come
        seen.add((get_native_id(), first, last))

    numba_threads.spread(job, 10, 2)
    assert sorted(ranges[1:] for ranges in seen) == [(0, 5), (5, 10)]
    assert len({ranges[0] for ranges in seen}) == 2


@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_any_thread_is_raised(kind_of_threads, threads, failing):
    threads(2)
    both = Barrier(2)

    def job(first, last):
        both.wait(40)
        if first == failing:
            raise MemoryError(f"unit {first}")

    with pytest.raises(MemoryError, match=f"unit {failing}"):
        numba_threads.spread(job, 2, 2)


@pytest.mark.skipif(numba_threads._start_team is None, reason="torch has no threads to lend here")
def test_a_team_loses_no_interrupt(threads):
    threads(2)
    due = []

    def interrupt(*_):
        due.append(True)
        raise TimeoutError

    def work_until(number):
        signal.setitimer(signal.ITIMER_REAL, 0.002 + number * 1e-4)
        while len(due) < number:
            numba_threads.spread(lambda *_: None, 8, 8)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(1, 41):
            with pytest.raises(TimeoutError):
                work_until(number)
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


def test_a_call_does_not_wait_for_threads_that_are_busy(expected, threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(numba_threads, "_start_team", None)
    free = Event()
    pool = numba_threads._pool(2)
    waiting = [pool.submit(free.wait, 40) for _ in range(2)]
    try:
        assert torch.equal(RankSEG()(probability_map(0)[None])[0], expected[0])
        assert not any(wait.done() for wait in waiting)
    finally:
        free.set()


def test_concurrent_calls_of_one_module(kind_of_threads, threads):
    threads(2)
    decide = RankSEG("iou", output_mode="multilabel")
    probs = maps.smooth(1, 5, 160)
    alone = decide(probs)
    with ThreadPoolExecutor(8) as pool:
        for decision in pool.map(decide, [probs] * 60):
            np.testing.assert_array_equal(decision, alone)


@pytest.mark.skipif(numba_threads._start_team is None, reason="torch has no threads to lend here")
def test_a_failure_that_is_lost_in_the_team_is_not_taken_for_success(monkeypatch, threads):
    """A second interrupt can come before the first is kept."""
    threads(2)

    def lost(job, ranges, failures):
        yield
        ranges.clear()

    monkeypatch.setattr(numba_threads, "_member", lost)
    with pytest.raises(KeyboardInterrupt):
        numba_threads.spread(lambda *_: None, 8, 8)


def test_values_that_appear_between_two_passes_find_no_room():
    """Another thread may write to the maps: no pass writes beyond what it was given."""
    probs = torch.full((1, 2, 3000), 0.25)
    opened = numba_cpu.open_maps(probs, None)
    survey = numba_cpu.survey(opened)
    rows = torch.tensor([[0, 0], [0, 1]])
    low, high = torch.tensor([0.1, 0.4]).double(), torch.tensor([0.3, 0.5]).double()
    found = numba_cpu.between(opened, survey, low, high, rows, width=5)
    assert found.tolist() == [[0.25] * 5, [0.0] * 5]

    labels = np.full((2, 3000), -1)
    valid = np.ones((2, 3000), np.bool_)
    maps_of_two = numba_cpu.open_maps(probs.repeat(2, 1, 1), torch.from_numpy(valid))
    place, values = np.full((2, 5), 7), np.zeros((2, 2, 5), np.float32)
    numba_labels.gather_unsettled(
        maps_of_two.source,
        labels,
        np.ones((2, 2), np.bool_),
        np.zeros((2, 1), np.int64),
        255,
        place[:1].copy(),
        values,
        0,
        1,
    )
    assert values[0].tolist() == [[0.25] * 5] * 2
    assert not values[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, -1.0, 7.0])
def test_values_that_become_no_probabilities_are_in_some_bin(value, dtype):
    probs = torch.full((1, 1, 2000), 0.25, dtype=dtype)
    opened = numba_cpu.open_maps(probs, None)
    survey = numba_cpu.survey(opened)
    probs[0, 0, 100:200] = value
    table = numba_cpu.profile(opened, survey, torch.tensor([[0, 0]]))
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
