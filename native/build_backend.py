"""Build rankseg with CMake, and fetch a C++ compiler where the machine has none.

These are the hooks that pip calls (PEP 517). scikit-build-core does the work; this module chooses
the compiler. Without one, it asks the package index for the ``ziglang`` wheel, which holds clang
with its headers and libraries.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from scikit_build_core import build as scikit_build
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, "str | list[str]"]

ZIG = "ziglang==0.17.1"
"""Pinned: its flags change from release to release."""

ADVICE = "install g++ 11 or clang++ 12 or newer, or unset CXX to let the build fetch a compiler"

PROBE = """
#include <bit>
#include <pthread.h>
int main() { return std::popcount(0u); }
"""


def get_requires_for_build_wheel(settings: Settings | None = None) -> list[str]:
    """Return what a wheel is built with: CMake, ninja and a compiler, where they are missing."""
    return [*scikit_build.get_requires_for_build_wheel(settings), *missing_compiler()]


def get_requires_for_build_editable(settings: Settings | None = None) -> list[str]:
    """Return what an editable installation is built with."""
    return [*scikit_build.get_requires_for_build_editable(settings), *missing_compiler()]


def build_wheel(folder: str, settings: Settings | None = None, metadata: str | None = None) -> str:
    """Build a wheel in ``folder`` and return its name."""
    with tempfile.TemporaryDirectory() as cache:
        return scikit_build.build_wheel(folder, with_compiler(settings, cache), metadata)


def build_editable(
    folder: str, settings: Settings | None = None, metadata: str | None = None
) -> str:
    """Build an editable wheel in ``folder`` and return its name."""
    with tempfile.TemporaryDirectory() as cache:
        return scikit_build.build_editable(folder, with_compiler(settings, cache), metadata)


def missing_compiler() -> list[str]:
    """Return the requirement that brings a compiler, if the machine has none."""
    return [] if installed_compiler() else [ZIG]


def with_compiler(settings: Settings | None, cache: str) -> Settings:
    """Return the settings with the compiler that CMake shall use; ``cache`` is for its files."""
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        os.environ.setdefault(name, cache)
    compiler = installed_compiler() or fetched_compiler()
    return {"cmake.define.CMAKE_CXX_COMPILER": ";".join(compiler), **(settings or {})}


def installed_compiler() -> list[str] | None:
    """Return the command of this machine's compiler, or None if it has none for C++20.

    On Windows it returns None: the sources and flags are those of clang and g++.
    """
    if sys.platform == "win32":
        return None
    if named := shlex.split(os.environ.get("CXX", "")):
        if not compiles(named):
            raise SystemExit(f"CXX={os.environ['CXX']} cannot build rankseg: {ADVICE}.")
        return named
    return next(([name] for name in ("c++", "g++", "clang++") if compiles([name])), None)


def compiles(command: list[str]) -> bool:
    """Tell whether a command compiles and links C++20, for the best processor if it is x86-64.

    The name alone does not tell: a Mac without developer tools has a ``c++`` that only offers to
    install them.
    """
    flags = ["-std=c++20"]
    if platform.machine() == "x86_64":
        flags.append("-march=x86-64-v4")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE, encoding="ascii")
        output = ["-o", str(Path(folder, "probe"))]
        try:
            run = subprocess.run(
                [*command, *flags, str(source), *output], capture_output=True, check=False
            )
        except OSError:
            return False
    return run.returncode == 0


def fetched_compiler() -> list[str]:
    """Return the command of the compiler in the ``ziglang`` wheel.

    It is ``zig cc``, to which CMakeLists.txt adds the headers of C++. ``zig c++`` would compile the
    library of C++ before it links anything, for two minutes, even in CMake's tests of the compiler.
    """
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise SystemExit(f"rankseg needs a C++20 compiler, and none was found: {ADVICE}.")
    zig = Path(found.origin).with_name("zig.exe" if sys.platform == "win32" else "zig")
    return [str(zig), "cc", "-target", target()]


def target() -> str:
    """Return zig's name of this system: any processor, and the C library that torch asks for."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    systems = {"win32": "windows-gnu", "darwin": "macos"}
    return f"{machine}-{systems.get(sys.platform, 'linux-gnu.2.28')}"
