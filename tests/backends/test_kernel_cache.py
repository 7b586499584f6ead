"""Compiled kernels on disk: what is damaged or cannot be kept is compiled anew."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rankseg._backends.numba_compile import _Cache
from rankseg._backends.numba_compile import kernel as compiled_kernel

numba = pytest.importorskip("numba")


def doubled(values):
    return 2 * values.sum()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loads():
    """Decorate and call a kernel as a fresh process would; return how often it was loaded."""
    kernel = compiled_kernel(doubled)
    assert kernel(np.arange(4.0)) == 12
    return sum(kernel.stats.cache_hits.values())


def test_the_second_process_takes_what_the_first_kept(folder):
    assert [loads(), loads()] == [0, 1]


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut short", "flipped", "noise", "missing"])
def test_damaged_files_are_replaced(folder, ending, damage):
    loads()
    (file,) = folder.rglob(f"*doubled*.{ending}")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    flipped = content.copy()
    flipped[middle : middle + 8] = bytes(255 - byte for byte in content[middle : middle + 8])
    file.write_bytes(
        {"empty": b"", "cut short": content[:middle], "flipped": flipped}.get(
            damage, os.urandom(1000)
        )
    )
    if damage == "missing":
        file.unlink()
    assert [loads(), loads()] == [0, 1]


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_folder_in_the_place_of_a_file(folder, ending):
    loads()
    (file,) = folder.rglob(f"*doubled*.{ending}")
    file.unlink()
    file.mkdir()
    assert loads() == 0


def test_a_place_that_cannot_be_written_to(folder):
    folder.write_text("a file where the folder should be")
    loads()  # numba takes another folder, or none


def test_a_full_disk(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert [loads(), loads()] == [0, 0]


def test_damaged_code_does_not_reach_the_compiler(folder):
    with pytest.raises(ValueError, match="the compiled code is damaged"):
        _Cache(doubled)._impl.rebuild(None, (b"checksum", b"code"))
