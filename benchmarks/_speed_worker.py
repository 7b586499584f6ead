"""Measure one thing in a process of its own, with the ``rankseg`` that this interpreter has.

The same file measures this package and the published one, each in its own interpreter, so that
both are measured alike. Run as ``python _speed_worker.py REQUEST``; request and answer are JSON.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import _speed_cases
import torch
from torch import Tensor

Request = dict[str, Any]
Decision = Callable[[Tensor], Tensor]

FEWEST_PAIRS = 3
CALLS_AFTER_FIRST = 5
MALLOC_KEEPS_NOTHING = 0


def main() -> None:
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    answer = TASKS[request["task"]](request)
    library = importlib.import_module("rankseg")
    answer |= {"version": library.__version__, "file": library.__file__}
    print(json.dumps(answer))


def time_pairs(request: Request) -> dict[str, Any]:
    """Time each candidate and the baseline in turn; pairs of seconds for every candidate.

    The baseline is what a program without rankseg does, unless the request names a decision.
    The first call of each is not counted. A candidate stops early once it has taken its share of
    seconds, but not before ``FEWEST_PAIRS``.
    """
    maps = load_maps(request)
    plain = decision(request["baseline"]) if "baseline" in request else baseline(maps)
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in request["candidates"]}
    decisions = {name: decision(options) for name, options in request["candidates"].items()}
    for decide in (plain, *decisions.values()):
        seconds_of(decide, maps)
    gc.disable()
    for turn in range(request["repeats"]):
        for name, decide in decisions.items():
            if not spent(pairs[name], request["seconds"]):
                pairs[name].append(time_pair(plain, decide, maps, swap=turn % 2 == 1))
    return {"pairs": pairs}


def spent(pairs: list[tuple[float, float]], seconds: float) -> bool:
    return len(pairs) >= FEWEST_PAIRS and sum(map(sum, pairs)) > seconds


def time_pair(plain: Decision, decide: Decision, maps: Tensor, swap: bool) -> tuple[float, float]:
    """Return the seconds of both; ``swap`` takes the second first, so that order favours none."""
    if swap:
        later = seconds_of(decide, maps)
        return seconds_of(plain, maps), later
    return seconds_of(plain, maps), seconds_of(decide, maps)


def seconds_of(decide: Decision, maps: Tensor) -> float:
    synchronise(maps)
    start = time.perf_counter()
    output = decide(maps)
    synchronise(maps)
    elapsed = time.perf_counter() - start
    del output  # its memory goes back after the clock has stopped, for every candidate
    return elapsed


def peak_memory(request: Request) -> dict[str, Any]:
    """Measure the peak memory of one call beyond its input and its output.

    A call on a small map of the same kind comes first, so that code, kernels and threads are
    loaded. What that left unused in the heap goes back to the system: a warm heap would hide
    what the call takes.
    """
    decide = decision(request["options"])
    small = _speed_cases.small_shape(request["shape"])
    decide(load_maps(request | {"shape": small}))
    maps = load_maps(request)
    gc.collect()
    meter = DeviceMeter() if maps.is_cuda else ResidentMeter()
    output = decide(maps)
    synchronise(maps)
    peak = meter.peak()
    input_bytes, output_bytes = (part.nelement() * part.element_size() for part in (maps, output))
    return {"beyond": peak - output_bytes, "input": input_bytes}


class ResidentMeter:
    """The largest resident set since the start, by Linux's resettable high-water mark.

    Linux counts pages in batches, so this is good to about half a MiB.
    """

    def __init__(self) -> None:
        ctypes.CDLL("libc.so.6").malloc_trim(MALLOC_KEEPS_NOTHING)
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")  # proc_pid_clear_refs(5): reset the high-water mark
        self._before = status_bytes("VmRSS")

    def peak(self) -> int:
        return status_bytes("VmHWM") - self._before


class DeviceMeter:
    """The largest sum of torch's allocations on the GPU since the start."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() - self._before


def status_bytes(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: peak memory needs Linux")


def import_time(request: Request) -> dict[str, Any]:
    """Time ``import rankseg`` and its first use, where torch and numpy are loaded already."""
    importlib.import_module("numpy")
    start = time.perf_counter()
    _ = importlib.import_module("rankseg").RankSEG  # imported at first use
    return {"seconds": time.perf_counter() - start}


def first_call(request: Request) -> dict[str, Any]:
    """Time what the first call in a process takes beyond a later one."""
    maps = load_maps(request)
    decide = decision(request["options"])
    first = seconds_of(decide, maps)
    later = statistics.median(seconds_of(decide, maps) for _ in range(CALLS_AFTER_FIRST))
    return {"extra": first - later}


def load_maps(request: Request) -> Tensor:
    maps = _speed_cases.probs(
        request["cases"], request["case"], request["shape"], request.get("present")
    )
    return maps.to(request["device"])


def decision(options: dict[str, Any]) -> Decision:
    decide: Decision = importlib.import_module("rankseg").RankSEG(**options)
    return decide


def baseline(maps: Tensor) -> Decision:
    """Return what a program without rankseg does: the likelier label of each pixel."""
    return likelier if maps.shape[1] == 1 else likeliest


def likeliest(maps: Tensor) -> Tensor:
    return maps.argmax(1)


def likelier(maps: Tensor) -> Tensor:
    return maps > 0.5


def synchronise(maps: Tensor) -> None:
    if maps.is_cuda:
        torch.cuda.synchronize()


TASKS = {
    "time": time_pairs,
    "memory": peak_memory,
    "import": import_time,
    "first": first_call,
}

if __name__ == "__main__":
    main()
