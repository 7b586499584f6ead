"""Many threads at once, and data-loader workers, after the parent has used the library."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import maps
from conftest import SHARED_WORK
from rankseg import RankSEG
from rankseg._backends import numba_cpu

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
    """Decide in the parent first: its pool of threads must not reach the workers."""
    before = torch.get_num_threads(), numba_cpu.VALUES_PER_TASK
    torch.set_num_threads(2)
    numba_cpu.VALUES_PER_TASK = SHARED_WORK
    decisions = [RankSEG()(probability_map(index)[None])[0] for index in range(CASES)]
    assert numba_cpu._pool.cache_info().currsize
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


def test_concurrent_calls(expected, threads):
    threads(2)
    indices = list(range(CASES)) * 20
    with ThreadPoolExecutor(8) as pool:
        decisions = pool.map(lambda i: RankSEG()(probability_map(i)[None])[0], indices)
        for index, decision in zip(indices, decisions, strict=True):
            assert torch.equal(decision, expected[index])


def test_a_call_does_not_wait_for_threads_that_are_busy(expected, threads):
    threads(2)
    free = Event()
    pool = numba_cpu._pool(2)
    waiting = [pool.submit(free.wait, 40) for _ in range(2)]
    try:
        assert torch.equal(RankSEG()(probability_map(0)[None])[0], expected[0])
        assert not any(wait.done() for wait in waiting)
    finally:
        free.set()


def test_concurrent_calls_of_one_module(threads):
    threads(2)
    decide = RankSEG("iou", output_mode="multilabel")
    probs = maps.smooth(1, 5, 160)
    alone = decide(probs)
    with ThreadPoolExecutor(8) as pool:
        for decision in pool.map(decide, [probs] * 60):
            np.testing.assert_array_equal(decision, alone)
