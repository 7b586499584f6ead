"""Where things are measured: processes of their own, and the machine they run on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _speed_report import Origin

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
SOURCE = REPOSITORY / "src"


@dataclass(frozen=True)
class Setup:
    """What is measured, how often and by whom."""

    cases: Path
    shapes: Mapping[str, tuple[int, ...]]
    repeats: int
    published_repeats: int
    threads: int
    device: str
    published: str | None

    def ask(
        self,
        task: str,
        own: bool = True,
        environment: Mapping[str, str] | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """Have one thing measured in a process of its own, by this package or the published one."""
        request |= {
            "task": task,
            "cases": str(self.cases),
            "threads": self.threads,
            "device": self.device,
        }
        python = sys.executable if own else str(self.published)
        answer = run(
            [python, HERE / "_speed_worker.py", json.dumps(request)], own, environment or {}
        )
        measured: dict[str, Any] = json.loads(answer.splitlines()[-1])
        if own != Path(measured["file"]).is_relative_to(SOURCE):
            sys.exit(f"{python} has the wrong rankseg: {measured['file']}")
        return measured


def run(
    command: Iterable[object],
    own: bool,
    environment: Mapping[str, str] | None = None,
    failure: str = "a measurement failed",
) -> str:
    """Run a process that sees this checkout's package, or (not ``own``) no trace of it."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "RANKSEG_BACKEND")
    }
    if own:
        paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    finished = subprocess.run(
        [str(part) for part in command],
        env={**inherited, **(environment or {})},
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        sys.exit(f"{finished.stderr.strip()}\n\n{failure}")
    return finished.stdout


def describe_origin(device: str, threads: int) -> Origin:
    return Origin(
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        machine=f"{processor()}; {os.cpu_count()} cores",
        commit=commit(),
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        threads=threads,
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit() -> str:
    """Return the commit, marked if the package timed is not what it holds."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        return f"{head}-dirty" if git("status", "--porcelain", "--", str(SOURCE)) else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
