"""A few cases of the fuzzer, at every level of instructions that the processor has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rankseg._backends import native_library

FUZZER = Path(__file__).with_name("fuzz_kernels.py")
CASES = 16


def fuzzed(level):
    """Return what the fuzzer says of some cases that it runs at a level."""
    environment = {**os.environ, "RANKSEG_CPU": level, "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run(
        [sys.executable, str(FUZZER), "--cases", str(CASES), "--seed", "3"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    named, _, rest = result.stdout.strip().partition(": ")
    assert named == level
    return rest


def test_every_level_survives_the_fuzzer_and_gives_the_same_bits():
    found = {level: fuzzed(level) for level in native_library.levels()}
    assert len(set(found.values())) == 1, found
    assert f"{CASES} cases" in found[native_library.level()]
