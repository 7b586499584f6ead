"""Time RankSEG against argmax and the published package; measure memory, growth and start-up.

Run ``python benchmarks/speed.py``; ``benchmarks/README.md`` says how each figure is taken. The
package timed is the one in ``src`` beside this folder. Nothing is timed if its results are wrong.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import _speed_cases
from _speed_report import Requirement, Row, append_history, print_table, row, show
from _speed_setup import HERE, REPOSITORY, Setup, describe_origin, note, run

Found = Mapping[tuple[str, str, str], Row]

METRICS = ("dice", "iou")
SECTIONS = ("time", "memory", "growth", "start")

SECONDS_PER_CANDIDATE = 30.0
IMPORTS = 7
FIRST_CALL_CASE, FIRST_CALL_SHAPE = "voc", (1, 21, 256, 256)

# The published package screens for Dice only; for IoU 'auto' is its default under another name.
PUBLISHED_WAYS = {
    ("dice", "default"): {"metric": "dice"},
    ("dice", "auto"): {"metric": "dice", "safe_screening": "auto"},
    ("iou", "default"): {"metric": "iou"},
}

# Three ways to grow 64-fold: pixels, classes with four of them present, classes all present.
GROWTH: dict[str, tuple[str, list[tuple[tuple[int, ...], int]]]] = {
    "pixels": ("voc", [((1, 21, side, side), 4) for side in (256, 512, 1024, 2048)]),
    "classes": ("voc", [((1, classes, 512, 512), 4) for classes in (4, 16, 64, 256)]),
    "present classes": ("dense", [((1, many, 512, 512), many) for many in (4, 16, 64, 256)]),
}

FASTER = {way: f"times faster than published {way}" for way in ("default", "auto")}
DIRECT = {way: f"{name}, direct" for way, name in FASTER.items()}
OUR_RATIO, OUR_MEMORY = "rankseg / argmax", "rankseg peak / input"
OUR_IMPORT, EXPONENT = "import rankseg", "exponent of growth"
NANOSECONDS = ("argmax per probability", "rankseg per probability")
OUR_NANOSECONDS = NANOSECONDS[1]

FOUR = ("voc", "ade", "city", "ct")
REQUIREMENTS = (
    Requirement("time / argmax on voc, ade, city, ct", (OUR_RATIO,), 0.10, cases=FOUR),
    Requirement("time / argmax on dense", (OUR_RATIO,), 0.15, cases=("dense",)),
    Requirement("time / (p > 0.5) on binary", (OUR_RATIO,), 1.3, cases=("binary",)),
    *(
        Requirement(FASTER[way], (FASTER[way], DIRECT[way]), limit, at_least=True)
        for way, limit in (("default", 30), ("auto", 10))
    ),
    Requirement("peak memory beyond input and output / input", (OUR_MEMORY,), 0.15),
    Requirement("time ~ size ^ exponent, over a 64-fold range", (EXPONENT,), 1.1),
    Requirement("import rankseg beyond import torch, s", (OUR_IMPORT,), 0.2),
)


def main() -> None:
    arguments = parse_arguments()
    setup = prepare(arguments)
    origin = describe_origin(setup.device, setup.threads)
    note("checking results")
    check_results(setup)
    rows: list[Row] = []
    for section in SECTIONS:
        if section in arguments.skip:
            continue
        measured = list(MEASURE[section](setup))
        append_history(arguments.output, origin, measured)
        SHOW[section](measured)
        rows += measured
    print_table(
        f"Requirements ({origin.machine}, {origin.threads} threads, {origin.device}, "
        f"commit {origin.commit})",
        ("requirement", "worst figure", "limit", ""),
        (requirement.judge(rows) for requirement in REQUIREMENTS),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = REPOSITORY.parent / "shared" / "tools" / "bench_cases.py"
    add = parser.add_argument
    add("--cases", type=Path, default=shared, help="Python file that makes the maps")
    add("--only", type=lambda text: text.split(","), help="names of cases, by comma")
    add("--repeats", type=int, default=21, help="pairs per case and metric")
    add("--threads", type=int, default=2, help="threads of torch")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--published", help="interpreter of an environment with the published package")
    add("--published-repeats", type=int, default=5, help="pairs for the published package")
    add("--skip", nargs="*", choices=SECTIONS, default=(), help="what not to measure")
    add("--output", type=Path, default=HERE / "results" / "speed.csv", help="history to add to")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Setup:
    if not arguments.cases.is_file():
        sys.exit(f"no cases at {arguments.cases}; name the file with --cases")
    shapes = {
        name: tuple(shape) for name, shape in _speed_cases.load(arguments.cases).SHAPES.items()
    }
    unknown = set(arguments.only or ()) - set(shapes)
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(shapes)}")
    published = arguments.published and shutil.which(arguments.published)
    if not published:
        note("not compared with the published package: --published names no interpreter")
    return Setup(
        cases=arguments.cases.resolve(),
        shapes={name: shapes[name] for name in shapes if name in (arguments.only or shapes)},
        repeats=arguments.repeats,
        published_repeats=arguments.published_repeats,
        threads=arguments.threads,
        device=arguments.device,
        published=published,
    )


def check_results(setup: Setup) -> None:
    gate = [sys.executable, HERE / "_speed_gate.py", setup.cases, setup.device]
    run(gate, own=True, failure="nothing was timed, because the results are wrong")


def measure_time(setup: Setup) -> Iterator[Row]:
    for case, shape in setup.shapes.items():
        note(f"timing {case}")
        ours = time_case(setup, case, shape, own=True)
        yield from ours
        if setup.published:
            theirs = time_case(setup, case, shape, own=False)
            yield from theirs
            yield from compare(case, ours, theirs)


def time_case(setup: Setup, case: str, shape: tuple[int, ...], own: bool) -> list[Row]:
    ways = {(metric, "rankseg"): own_options(metric) for metric in METRICS}
    if not own:
        ways = {
            (metric, f"published {way}"): options
            for (metric, way), options in PUBLISHED_WAYS.items()
        }
    pairs = setup.ask(
        "time",
        own,
        case=case,
        shape=shape,
        candidates={" ".join(way): options | for_shape(shape) for way, options in ways.items()},
        repeats=setup.repeats if own else setup.published_repeats,
        seconds=SECONDS_PER_CANDIDATE,
    )["pairs"]
    rows = []
    for metric, way in ways:
        plain, taken = zip(*pairs[f"{metric} {way}"], strict=True)
        ratios = [mine / argmax for argmax, mine in zip(plain, taken, strict=True)]
        rows += [
            row(case, metric, f"argmax beside {way}", (1e3 * one for one in plain), "ms"),
            row(case, metric, way, (1e3 * one for one in taken), "ms"),
            row(case, metric, f"{way} / argmax", ratios, "1"),
        ]
    return rows


def for_shape(shape: tuple[int, ...]) -> dict[str, str]:
    """Return the options one channel needs: the published package makes masks of it only."""
    return {"output_mode": "multilabel"} if shape[1] == 1 else {}


def compare(case: str, ours: Iterable[Row], theirs: Iterable[Row]) -> Iterator[Row]:
    """Divide the published package's times by ours: as they are, and each by its own argmax."""
    value = {(one.metric, one.what): one.value for one in (*ours, *theirs)}
    for metric, way in PUBLISHED_WAYS:
        published = f"published {way}"
        paired = value[metric, f"{published} / argmax"] / value[metric, OUR_RATIO]
        direct = value[metric, published] / value[metric, "rankseg"]
        yield row(case, metric, FASTER[way], [paired], "1")
        yield row(case, metric, DIRECT[way], [direct], "1")


def show_time(rows: list[Row]) -> None:
    found = {(one.case, one.metric, one.what): one for one in rows}
    cases = list(dict.fromkeys(one.case for one in rows))
    wanted = ("argmax beside rankseg", "rankseg", OUR_RATIO)
    print_table(
        "Time, ms: median (20th to 80th percentile)",
        ("case", "metric", "argmax (binary: p > 0.5)", "rankseg", OUR_RATIO),
        (
            (case, metric, *figures(found, case, metric, wanted))
            for case in cases
            for metric in METRICS
        ),
    )
    if any(one.what == FASTER["default"] for one in rows):
        show_published(found, cases)


def show_published(found: Found, cases: list[str]) -> None:
    wanted = {
        way: (f"published {way}", f"published {way} / argmax", FASTER[way], DIRECT[way])
        for way in FASTER
    }
    print_table(
        "The published package, ms, and how many times faster this one is",
        ("case", "metric", "way", "published", "/ argmax there", "faster, paired", "direct"),
        (
            (case, metric, way, *figures(found, case, metric, wanted[way]))
            for case in cases
            for metric, way in PUBLISHED_WAYS
        ),
    )


def figures(found: Found, case: str, metric: str, wanted: Iterable[str]) -> list[str]:
    return [show(found[case, metric, what]) for what in wanted]


def measure_memory(setup: Setup) -> Iterator[Row]:
    for case in setup.shapes:
        note(f"measuring the memory of {case}")
        for metric in METRICS:
            yield memory_row(setup, case, metric, OUR_MEMORY, own_options(metric), own=True)
        if setup.published:
            for (metric, way), options in PUBLISHED_WAYS.items():
                what = f"published {way} peak / input"
                yield memory_row(setup, case, metric, what, options, own=False)


def memory_row(
    setup: Setup, case: str, metric: str, what: str, options: dict[str, str], own: bool
) -> Row:
    shape = setup.shapes[case]
    options = options | for_shape(shape)
    measured = setup.ask("memory", own, case=case, shape=shape, options=options)
    return row(case, metric, what, [measured["beyond"] / measured["input"]], "1")


def show_memory(rows: list[Row]) -> None:
    print_table(
        "Peak memory beyond input and output, divided by the input",
        ("case", "metric", "what", "memory"),
        ((one.case, one.metric, one.what, show(one, 2)) for one in rows),
    )


def measure_growth(setup: Setup) -> Iterator[Row]:
    for series, (case, steps) in GROWTH.items():
        note(f"growing {series}")
        rows = [
            line
            for shape, present in steps
            for line in time_step(setup, series, case, shape, present)
        ]
        yield from rows
        sizes = [math.prod(shape) for shape, _ in steps]
        for metric in METRICS:
            rates = [
                one.value for one in rows if one.metric == metric and one.what == OUR_NANOSECONDS
            ]
            yield row(series, metric, EXPONENT, [exponent(sizes, rates)], "1")


def time_step(
    setup: Setup, series: str, case: str, shape: tuple[int, ...], present: int
) -> Iterator[Row]:
    size = math.prod(shape)
    name = f"{series}: {'x'.join(map(str, shape))}, {present} present"
    pairs = setup.ask(
        "time",
        case=case,
        shape=shape,
        present=present,
        candidates={metric: own_options(metric) for metric in METRICS},
        repeats=setup.repeats,
        seconds=SECONDS_PER_CANDIDATE,
    )["pairs"]
    for metric in METRICS:
        for what, seconds in zip(NANOSECONDS, zip(*pairs[metric], strict=True), strict=True):
            yield row(name, metric, what, (1e9 * one / size for one in seconds), "ns")


def exponent(sizes: list[int], rates: list[float]) -> float:
    """Return d log time / d log size, from end to end, of times given per unit of size."""
    return 1 + math.log(rates[-1] / rates[0]) / math.log(sizes[-1] / sizes[0])


def show_growth(rows: list[Row]) -> None:
    found = {(one.case, one.metric, one.what): one for one in rows}
    steps = [(one.case, one.metric) for one in rows if one.what == OUR_NANOSECONDS]
    print_table(
        "Growth: ns per probability",
        ("growing", "metric", "argmax", "rankseg"),
        ((case, metric, *figures(found, case, metric, NANOSECONDS)) for case, metric in steps),
    )
    print_table(
        "Growth: time goes as size to this power",
        ("64-fold in", "metric", "exponent"),
        ((one.case, one.metric, show(one)) for one in rows if one.what == EXPONENT),
    )


def measure_start(setup: Setup) -> Iterator[Row]:
    note("starting interpreters")
    yield row("", "", OUR_IMPORT, import_seconds(setup, own=True), "s")
    if setup.published:
        yield row("", "", "import published", import_seconds(setup, own=False), "s")
    extra = [first_call_extra(setup) for _ in range(IMPORTS)]
    yield row("", "", "first call beyond a later one", extra, "s")


def own_options(metric: str) -> dict[str, str]:
    """Return the options of the published rule, so that both packages decide alike."""
    return {"metric": metric, "solver": "RMA"}


def import_seconds(setup: Setup, own: bool) -> list[float]:
    return [setup.ask("import", own)["seconds"] for _ in range(IMPORTS)]


def first_call_extra(setup: Setup) -> float:
    with tempfile.TemporaryDirectory() as cache:
        measured = setup.ask(
            "first",
            environment={"TRITON_CACHE_DIR": cache},
            case=FIRST_CALL_CASE,
            shape=FIRST_CALL_SHAPE,
            options={},
        )
    return float(measured["extra"])


def show_start(rows: list[Row]) -> None:
    print_table(
        "Start-up: seconds beyond import torch, or beyond a later call",
        ("what", "s"),
        ((one.what, show(one)) for one in rows),
    )


MEASURE: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "time": measure_time,
    "memory": measure_memory,
    "growth": measure_growth,
    "start": measure_start,
}
SHOW: dict[str, Callable[[list[Row]], None]] = {
    "time": show_time,
    "memory": show_memory,
    "growth": show_growth,
    "start": show_start,
}

if __name__ == "__main__":
    main()
