"""The GPU kernels without a GPU: compiled for an H100, and interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from conftest import REPOSITORY

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rankseg._backends import triton_kernels

FLAGS = {"valid", "active", "eligible", "inside"}
WHOLE = {"batch_step", "class_step", "size0", "size1", "step0", "step1", "step2", "pixels",
         "classes", "parts", "void"}

def kind(name, dtype):
    if name.isupper():
        return "constexpr"
    if name in WHOLE:
        return "i32"
    return {"probs": dtype, "labels": "*i64"}.get(name, "*u8" if name in FLAGS else "*fp64")

for name in "survey above first_cuts raise_cuts last_cuts masks claim tally resolve".split():
    kernel = getattr(triton_kernels, name)
    for dtype, plain in (("*fp32", True), ("*fp64", False), ("*bf16", False)):
        constants = {
            "FLAT": plain, "MASKED": not plain, "WIDE": dtype == "*fp64", "TILE": 1024,
            "FIRST": plain, "PARTS": 64, "LIMIT": 1.001, "FLOOR": float("-inf"),
            "BONUS": 0.0, "OFFSET": 1.0, "KEEP_PEAK": plain,
        }
        constants = {key: constants[key] for key in kernel.arg_names if key in constants}
        signature = {key: kind(key, dtype) for key in kernel.arg_names}
        target = GPUTarget("cuda", 90, 32)
        source = ASTSource(kernel, signature, constants)
        triton.compile(source, target=target, options={"enable_fp_fusion": False})
"""


def test_compiles(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    finish(["-c", COMPILE], environment)


def test_interpreted():
    file = str(REPOSITORY / "tests" / "support" / "interpreted_triton.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    quiet = ["-W", "ignore::RuntimeWarning"]  # sums of rows that are done are never read
    output = finish(["-m", "pytest", "-q", "-p", "no:cacheprovider", *quiet, file], environment)
    assert "passed" in output


def finish(arguments, environment):
    """Run Python to its end, and return what it wrote."""
    command = [sys.executable, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not finished.returncode, finished.stdout + finished.stderr
    return finished.stdout
