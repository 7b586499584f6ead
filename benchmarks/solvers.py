"""Time exact, correlated and dependent decisions against RMA's, on all cases of the benchmark.

Run ``python benchmarks/solvers.py``; ``benchmarks/README.md`` says how each figure is taken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import _speed_cases
from _speed_cases import CONTESTED
from _speed_report import Requirement, Row, append_history, print_table, row, show
from _speed_setup import HERE, REPOSITORY, Setup, describe_origin, note

CASES = ("voc", "ade", "city", "ct", "binary")
ONE_CLASS = {"one class, 512x512": ("binary", (1, 1, 512, 512))}
SECONDS_PER_CANDIDATE = 5.0
CANDIDATES = {
    "exact": {"solver": "exact"},
    "correlated": {"correlation": 0.5},
    "correlated joint": {"correlation": 0.5, "solver": "joint"},
    "DEP": {"solver": "DEP"},
    "presence": {"presence": "argmax"},
}
REQUIREMENTS = (
    Requirement("exact / RMA", ("exact / RMA",), 3, cases=("voc", "city", "ct", "binary")),
    Requirement("correlated / RMA", ("correlated / RMA",), 2.5, cases=("voc", "ade", "city", "ct")),
    Requirement(
        "correlated joint / RMA",
        ("correlated joint / RMA",),
        2.5,
        cases=("voc", "ade", "city", "ct"),
    ),
    Requirement("DEP / RMA", ("DEP / RMA",), 5, cases=("voc", "ade", "city", "ct")),
    Requirement("presence / RMA", ("presence / RMA",), 1.1, cases=("voc", "ade", "city", "ct")),
    Requirement("presence / RMA, worst case", ("presence / RMA",), 1.5, cases=(CONTESTED,)),
    Requirement("exact, one class of 512 x 512, ms", ("exact",), 50, cases=tuple(ONE_CLASS)),
)


def main() -> None:
    arguments = parse_arguments()
    maps = {case: (case, None) for case in (*arguments.only, CONTESTED)} | ONE_CLASS
    setup = Setup(
        cases=arguments.cases.resolve(),
        shapes={},
        repeats=arguments.repeats,
        published_repeats=0,
        threads=arguments.threads,
        device=arguments.device,
        published=None,
    )
    origin = describe_origin(setup.device, setup.threads)
    rows = [
        line
        for name, (case, shape) in maps.items()
        for mode in output_modes(setup, case)
        for metric in ("dice", "iou")
        for line in time_solvers(setup, name, case, shape, mode, metric)
    ]
    append_history(arguments.output, origin, rows)
    show_rows(rows)
    print_table(
        f"Requirements ({origin.machine}, {origin.threads} threads, commit {origin.commit})",
        ("requirement", "worst figure", "limit", ""),
        (requirement.judge(rows) for requirement in REQUIREMENTS),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = REPOSITORY.parent / "shared" / "tools" / "bench_cases.py"
    add = parser.add_argument
    add("--cases", type=Path, default=shared, help="Python file that makes the maps")
    add("--only", type=lambda names: names.split(","), default=CASES, help="some of the cases")
    add("--repeats", type=int, default=11, help="pairs per solver")
    add("--threads", type=int, default=2, help="threads of torch")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--output", type=Path, default=HERE / "results" / "solvers.csv", help="history to add to")
    arguments = parser.parse_args()
    if not arguments.cases.is_file():
        sys.exit(f"no cases at {arguments.cases}; name the file with --cases")
    return arguments


def output_modes(setup: Setup, case: str) -> tuple[str, ...]:
    """Return the outputs that differ: one channel is binary in both."""
    if case == CONTESTED:
        return ("multiclass",)
    several = _speed_cases.load(setup.cases).SHAPES[case][1] > 1
    return ("multiclass", "multilabel") if several else ("multilabel",)


def time_solvers(
    setup: Setup, name: str, case: str, shape: tuple[int, ...] | None, mode: str, metric: str
) -> Iterator[Row]:
    note(f"timing {name}, {metric}, {mode}")
    common = {"metric": metric, "output_mode": mode, "solver": "RMA"}
    candidates = {
        solver: {**common, **options}
        for solver, options in CANDIDATES.items()
        if mode == "multiclass" or options.get("solver") != "joint"
    }
    pairs = setup.ask(
        "time",
        case=case,
        shape=shape,
        baseline=common,
        candidates=candidates,
        repeats=setup.repeats,
        seconds=SECONDS_PER_CANDIDATE,
    )["pairs"]
    metric = f"{metric} {'labels' if mode == 'multiclass' else 'masks'}"
    yield row(name, metric, "RMA", (1e3 * one for one, _ in pairs["exact"]), "ms")
    for solver in candidates:
        yield row(name, metric, solver, (1e3 * one for _, one in pairs[solver]), "ms")
        ratios = (later / first for first, later in pairs[solver])
        yield row(name, metric, f"{solver} / RMA", ratios, "1")


def show_rows(rows: list[Row]) -> None:
    whats = ("RMA", *(f"{solver} / RMA" for solver in CANDIDATES))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for one in rows:
        lines.setdefault((one.case, one.metric), {})[one.what] = show(one)
    print_table(
        "Median (20th to 80th percentile): RMA in ms, the others as multiples of it",
        ("case", "", *whats),
        ((*place, *(line.get(what, "") for what in whats)) for place, line in lines.items()),
    )


if __name__ == "__main__":
    main()
