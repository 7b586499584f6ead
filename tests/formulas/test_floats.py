"""Neighbours among floating numbers, against their bit patterns."""

from __future__ import annotations

import pytest
import torch

from rankseg._formulas.floats import next_below, round_down

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def patterns(dtype):
    """Return all numbers in [0, 1] of a small dtype; ends, powers of two and draws of a large."""
    integer = INTEGERS[dtype.itemsize]
    one = int(torch.ones((), dtype=dtype).view(integer))
    if dtype.itemsize == 2:
        return torch.arange(one + 1).to(integer).view(dtype)
    draws = torch.randint(0, one, (200_000,), generator=torch.manual_seed(0))
    ends = torch.arange(2000)
    bits = {4: 23, 8: 52}[dtype.itemsize]
    powers = torch.arange(1, one >> bits) << bits
    chosen = torch.cat((draws, ends, one - ends, powers, powers - 1, powers + 1))
    return chosen.to(integer).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_down(dtype):
    values = patterns(dtype).double()
    following = torch.nextafter(values, values + 1)
    before = torch.nextafter(values, values - 1).clamp_min(0)
    for numbers in (values, following, before, values * (1 - torch.finfo(dtype).eps / 2)):
        nearest = numbers.to(dtype)
        below = (nearest.view(INTEGERS[dtype.itemsize]) - 1).view(dtype)
        expected = torch.where(nearest.double() > numbers, below, nearest)
        assert torch.equal(round_down(numbers, dtype), expected)
    assert round_down(torch.tensor(torch.inf).double(), dtype) == torch.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_next_below(dtype):
    values = patterns(dtype).double()
    assert torch.equal(next_below(values), torch.nextafter(values, torch.zeros_like(values)))
