"""Time BA, TRNA and BA+TRNA against the published package.

Run ``python benchmarks/trna.py --published other-venv/bin/python``; ``benchmarks/README.md`` says
how each figure is taken. Nothing is timed if a mask does not reach the largest score.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import _speed_cases
import numpy as np
from _speed_report import Requirement, Row, append_history, print_table, row, show
from _speed_setup import HERE, REPOSITORY, Setup, describe_origin, note

from rankseg import rankdice_ba

SOLVERS = ("BA", "TRNA", "BA+TRNA")
SIDES = (8, 64, 512, 1024)
CASE = "binary"
SLOW_SIDE, SLOW_TIMES = 64, 1
"""Published TRNA goes by pairs of pixel and volume: once on this side, and not on larger ones."""

SECONDS_PER_CANDIDATE = 20.0
FASTER = "times faster than published"
REQUIREMENTS = (
    Requirement("BA, times faster than published", (f"BA {FASTER}",), 1, at_least=True),
    Requirement(
        "TRNA on 64 x 64, the same", (f"TRNA {FASTER}",), 1000, at_least=True, cases=("64x64",)
    ),
    Requirement("TRNA on 512 x 512, ms", ("TRNA",), 1000, cases=("512x512",)),
)


def main() -> None:
    arguments = parse_arguments()
    published = arguments.published and shutil.which(arguments.published)
    setup = Setup(
        cases=arguments.cases.resolve(),
        shapes={},
        repeats=arguments.repeats,
        published_repeats=arguments.published_repeats,
        threads=arguments.threads,
        device=arguments.device,
        published=published,
    )
    origin = describe_origin(setup.device, setup.threads)
    note("checking results")
    check_results()
    rows = [line for side in arguments.sides for line in time_side(setup, side)]
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
    add("--sides", type=int, nargs="+", default=SIDES, help="sides of the maps")
    add("--repeats", type=int, default=21, help="calls per solver")
    add("--threads", type=int, default=2, help="threads of torch")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--published", help="interpreter of an environment with the published package")
    add("--published-repeats", type=int, default=5, help="calls for the published package")
    add("--output", type=Path, default=HERE / "results" / "trna.csv", help="history to add to")
    arguments = parser.parse_args()
    if not arguments.cases.is_file():
        sys.exit(f"no cases at {arguments.cases}; name the file with --cases")
    return arguments


def check_results() -> None:
    """Hold the masks of small maps against every term of the paper's equations."""
    oracles = _speed_cases.load(REPOSITORY / "tests" / "support" / "oracles.py")
    rng = np.random.default_rng(0)
    for solver in SOLVERS[:2]:
        for spread in (0.2, 1.0, 5.0):
            values = rng.beta(spread, spread, 60)
            scores = oracles.dice_scores(values, solver, 0.5, 1e-4)
            count = rankdice_ba(values[None, None], solver, 0.5).sum()
            if count >= scores.size or scores[count] < scores.max() * (1 - 1e-11):
                sys.exit(f"nothing was timed: {solver} takes {count} pixels, not {scores.argmax()}")


def time_side(setup: Setup, side: int) -> Iterator[Row]:
    name = f"{side}x{side}"
    note(f"timing {name}")
    ours = time_solvers(setup, side, SOLVERS, setup.repeats, own=True)
    for solver, seconds in ours.items():
        yield row(name, "dice", solver, (1e3 * one for one in seconds), "ms")
    if not setup.published:
        return
    theirs = time_solvers(setup, side, ("BA", "BA+TRNA"), setup.published_repeats, own=False)
    if side <= SLOW_SIDE:
        theirs |= time_solvers(setup, side, ("TRNA",), SLOW_TIMES, own=False)
    for solver, seconds in theirs.items():
        published = row(name, "dice", f"published {solver}", (1e3 * one for one in seconds), "ms")
        own = row(name, "dice", solver, (1e3 * one for one in ours[solver]), "ms")
        yield published
        yield row(name, "dice", f"{solver} {FASTER}", [published.value / own.value], "1")


def time_solvers(
    setup: Setup, side: int, solvers: tuple[str, ...], repeats: int, own: bool
) -> dict[str, list[float]]:
    """Return the seconds of some calls of each solver, on a map of one class."""
    pairs = setup.ask(
        "time",
        own,
        case=CASE,
        shape=(1, 1, side, side),
        candidates={
            solver: {"metric": "dice", "solver": solver, "output_mode": "multilabel"}
            for solver in solvers
        },
        repeats=repeats,
        seconds=SECONDS_PER_CANDIDATE,
    )["pairs"]
    return {solver: [taken for _, taken in pairs[solver]] for solver in solvers}


def show_rows(rows: list[Row]) -> None:
    found = {(one.case, one.what): one for one in rows}
    cases = list(dict.fromkeys(one.case for one in rows))
    wanted = {
        (case, solver): (solver, f"published {solver}", f"{solver} {FASTER}")
        for case in cases
        for solver in SOLVERS
    }
    print_table(
        "One class, ms: median (20th to 80th percentile)",
        ("map", "solver", "rankseg", "published", "times faster"),
        (
            (case, solver, *(figure(found, case, what) for what in whats))
            for (case, solver), whats in wanted.items()
        ),
    )


def figure(found: dict[tuple[str, str], Row], case: str, what: str) -> str:
    return show(found[case, what]) if (case, what) in found else ""


if __name__ == "__main__":
    main()
