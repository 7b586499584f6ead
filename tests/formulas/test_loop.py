"""A loop that ends when nothing rises any more ends in any case."""

from __future__ import annotations

import pytest
import torch

from rankseg._formulas.loop import MOST_STEPS, while_rising


def step(best, rising):
    return (best[0] + 1,), rising.clone()


def run(rising, fault):
    return while_rising(step, (torch.zeros(2),), rising, fault)[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loop_is_bounded(compiled):
    torch.compiler.reset()
    loop = torch.compile(run, fullgraph=True, backend="eager") if compiled else run
    yes, no = torch.tensor([True, True]), torch.tensor([False, False])
    fault = torch.tensor(False)
    assert loop(yes, fault).tolist() == [MOST_STEPS, MOST_STEPS]
    assert loop(no, fault).max() <= 1


def test_a_loop_ends_at_a_fault():
    assert run(torch.tensor([True, False]), torch.tensor(True)).tolist() == [1, 1]
