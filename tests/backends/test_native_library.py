"""The shared library of kernels: its functions are called as they are declared."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rankseg._backends import native, rows
from rankseg._backends import native_library as library

HEADERS = Path(__file__).resolve().parents[2] / "native"

C_TYPES = {
    library.DOUBLES: {"double*"},
    library.INTEGERS: {"int64_t*"},
    library.FLAGS: {"uint8_t*"},
    library.BYTES: {"int8_t*"},
    library.VALUES: {"void*"},
    library.DOUBLE: {"double"},
    library.INTEGER: {"int64_t"},
}


def declared():
    """Return the argument types of every exported function, without the team's."""
    text = "".join(path.read_text() for path in sorted(HEADERS.glob("*.hpp")))
    functions = {}
    for name, arguments in re.findall(r"RANKSEG_EXPORT\((\w+)\)\((.*?)\) \{", text, re.DOTALL):
        kinds = [re.sub(r"const |\s*\w+$", "", part.strip()) for part in arguments.split(",")]
        functions[name] = [kind.strip() for kind in kinds[1:]]
    return functions


def test_every_function_is_declared_alike_on_both_sides():
    functions = declared()
    assert functions.keys() == library.SIGNATURES.keys()
    for name, kinds in library.SIGNATURES.items():
        expected = [C_TYPES.get(kind) or {f"{kind.__name__}*"} for kind in kinds]
        found = functions[name]
        assert len(found) == len(expected), name
        for there, here in zip(found, expected, strict=True):
            assert there in here, (name, there, here)


@pytest.mark.parametrize(
    "structure", ["Team", "Source", "Tables", "GainTable", "Steps", "Metric", "Volume"]
)
def test_every_structure_has_the_same_fields_on_both_sides(structure):
    text = "".join(path.read_text() for path in sorted(HEADERS.glob("*.hpp")))
    body = re.search(rf"^struct {structure} {{(.*?)^}};", text, re.DOTALL | re.MULTILINE).group(1)
    body = re.sub(r"//.*", "", body)
    body = re.sub(r"\(\*start\)\([^;]*", "start", body.replace("(*member)(void*)", "member"))
    names = re.findall(r"(\w+)\s*(?=[,;])", body)
    assert names == [name for name, _ in getattr(library, structure)._fields_]


def test_an_array_of_another_type_is_refused():
    with pytest.raises(TypeError, match=r"arrays of .*float64.*, got one of torch\.float32"):
        library.call("scan", torch.zeros(1, 1), *[None] * 10)


def test_the_memory_of_an_array_that_is_not_contiguous_is_copied():
    values = np.array([[0.9, 0.0], [0.8, 0.0], [0.7, 0.0]])
    volume = rows.VolumeMoments(2.4, 0.5, 0.0, 6)
    gains, expected = (
        rows.refined_gains(some, volume, 1e-4, 0.0, False)
        for some in (values[:, 0], values[:, 0].copy())
    )
    assert not values[:, 0].flags.c_contiguous
    np.testing.assert_array_equal(gains, expected)


def test_values_at_odd_addresses_are_copied():
    odd = torch.frombuffer(bytearray(1 + 4 * 6), dtype=torch.float32, offset=1).view(1, 2, 3)
    assert odd.data_ptr() % 4 != 0
    assert native.open_maps(odd, None).source.values % 4 == 0


def test_the_level_can_be_lowered_and_no_other_named(monkeypatch):
    for level in library.levels():
        monkeypatch.setenv("RANKSEG_CPU", level)
        assert library.level() == level
        assert isinstance(getattr(library._library(), f"rankseg_survey_{level}"), ctypes._CFuncPtr)
    monkeypatch.setenv("RANKSEG_CPU", "v9")
    with pytest.raises(ValueError, match=r"RANKSEG_CPU must be one of \[.*\] on this processor"):
        library.level()
