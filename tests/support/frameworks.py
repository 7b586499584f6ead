"""Frameworks for tests of integrations: one that is missing skips, or fails if it is required."""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings

import pytest

REQUIRED = frozenset(os.environ.get("RANKSEG_REQUIRE", "").split())
"""Frameworks that must be there: without them, tests fail that would be skipped."""


def framework(name):
    """Import a framework that may be missing, or there and broken, as torchvision may be."""
    if name.partition(".")[0] == "mmseg":
        stand_in_for_compiled_operators()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        if name.partition(".")[0] in REQUIRED:
            pytest.fail(f"{name} is required and cannot be imported: {error}")
        pytest.skip(f"{name} cannot be imported: {error}", allow_module_level=True)


def stand_in_for_compiled_operators():
    """Let mmseg be imported with mmcv-lite, which lacks the operators of heads not tested here."""
    operators = types.ModuleType("mmcv.ops")
    for name in ("CrissCrossAttention", "PSAMask", "point_sample", "sigmoid_focal_loss"):
        setattr(operators, name, None)
    sys.modules.setdefault("mmcv.ops", operators)
