"""Time the first call in fresh processes: what a script, a container or a cluster job pays once.

Run ``python benchmarks/first_call.py [--published PYTHON]``; ``PYTHON`` is an interpreter that has
the published package. Each process times ``import torch``, then ``import rankseg`` and the first
and the second call of ``RankSEG()`` on smooth random maps of 4 x 21 x 256 x 256,
of which four classes are present in each image. Caches are empty.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
STEPS = ("import torch", "import rankseg", "first call", "second call")

MEASURE = """
import json, time
marks = [time.perf_counter()]
import torch
marks.append(time.perf_counter())
coarse = torch.randn(4, 21, 16, 16, generator=torch.Generator().manual_seed(0))
coarse[:, 4:] -= 4  # four classes are present
probs = torch.nn.functional.interpolate(coarse, (256, 256), mode="bilinear").mul(5).softmax(1)
made = time.perf_counter() - marks[-1]
from rankseg import RankSEG
marks.append(time.perf_counter() - made)
decide = RankSEG("dice")
for call in range(2):
    decide(probs)
    marks.append(time.perf_counter() - made)
print(json.dumps([later - earlier for earlier, later in zip(marks, marks[1:])]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", help="an interpreter that has the published package")
    parser.add_argument("--processes", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'seconds, median':24}", *(f"{step:>15}" for step in STEPS))
    for name, python in (("this package", sys.executable), ("published", arguments.published)):
        if python:
            runs = [seconds(python, python == sys.executable) for _ in range(arguments.processes)]
            medians = map(statistics.median, zip(*runs, strict=True))
            print(f"{name:24}", *(f"{median:15.3f}" for median in medians))


def seconds(python: str, own: bool) -> list[float]:
    """Return what each step takes in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        environment["PYTHONPATH"] = str(SOURCE) if own else ""
        run = [python, "-W", "ignore", "-c", MEASURE]
        output = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    measured: list[float] = json.loads(output.stdout)
    return measured


if __name__ == "__main__":
    main()
