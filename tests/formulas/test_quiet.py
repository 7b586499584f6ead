"""Functions that wake no threads: what they return, and that nothing else runs meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rankseg._formulas import quiet as _quiet

POINTS = torch.cat((torch.linspace(-700, 700, 4001), torch.linspace(-1e-3, 1e-3, 4001))).double()


@pytest.mark.parametrize(
    ("name", "points"),
    [("exp", POINTS), ("expm1", POINTS), ("log", POINTS.exp()), ("log1p", POINTS.exp())],
)
def test_functions(name, points):
    ours, expected = getattr(_quiet, name)(points), getattr(np, name)(points.numpy())
    np.testing.assert_allclose(ours, expected, rtol=4e-13, atol=0 if "log" not in name else 1e-15)


@pytest.mark.parametrize("pairs", [(), (4,)])
@pytest.mark.parametrize("shape", [(3, 5, 2), (40, 300, 1000), (1, 20000, 40), (600, 700, 3)])
def test_product(shape, pairs):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.rand(*pairs, rows, inner, dtype=torch.float64, generator=generator)
    right = torch.rand(*pairs, inner, columns, dtype=torch.float64, generator=generator)
    expected = np.einsum("...ij,...jk->...ik", left.numpy(), right.numpy())
    np.testing.assert_allclose(_quiet.product(left, right), expected, rtol=1e-12)


OTHERS = """
import os, time, torch
from rankseg._formulas import quiet as _quiet
torch.set_num_threads(2)
x = torch.rand(_quiet.VALUES_IN_ONE_THREAD).double()
square = torch.rand(60, 4000).double()
calls = {
    "exp": lambda: _quiet.exp(x), "expm1": lambda: _quiet.expm1(x), "log": lambda: _quiet.log(x),
    "log1p": lambda: _quiet.log1p(x),
    "product": lambda: _quiet.product(square, square.T), "torch.exp": lambda: torch.exp(x),
}
def ticks():
    tasks = [int(task) for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    lines = (open(f"/proc/self/task/{task}/stat").read() for task in tasks)
    stats = (line.rsplit(")", 1)[1].split() for line in lines)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats)
for name, call in calls.items():
    call()
    time.sleep(0.3)
    before, end = ticks(), time.perf_counter() + 0.3
    while time.perf_counter() < end:
        call()
    print(name, ticks() - before)
"""


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/task") or (os.cpu_count() or 1) < 2,
    reason="needs Linux's record of what threads do, and two cores",
)
def test_no_other_thread_works():
    environment = {name: value for name, value in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", OTHERS], capture_output=True, text=True, check=True, env=environment
    )
    worked = {name: int(ticks) for name, ticks in map(str.split, done.stdout.splitlines())}
    loud = worked.pop("torch.exp")  # up to 30 hundredths of a second; few on a busy machine
    assert loud >= 2
    assert max(worked.values()) <= min(1, loud // 2)
