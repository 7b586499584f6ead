"""Fuzz the CPU kernels: every operation and every solver, on maps of any shape, layout and value.

    PYTHONPATH=src python tests/backends/fuzz_kernels.py --seconds 60 --seed 1
    PYTHONPATH=src python tests/backends/fuzz_kernels.py --seed 1 --first 37 --cases 1

Seed and number name a case; the second line repeats case 37. In every second case another thread
writes to the maps during the calls. Such a call may return any labels in range, or raise a
ValueError. In all other cases values are constant. Operations then equal those of the reference,
bit for bit where sums are exact.

The last line has a digest of all results on constant values: the same for every ``RANKSEG_CPU``.
After a crash, ``--verbose`` names the case.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

from rankseg import RankSEG
from rankseg._backends import native, native_library, rows, torch_reference
from rankseg._formulas.bins import bin_edges
from rankseg._formulas.expectation import RATIOS
from rankseg._formulas.records import (
    CONTESTED,
    POWERS,
    UNASSIGNED,
    GainCurves,
    Gains,
    Integrals,
    Steps,
)

LEAST_INTEGER = -(2**63)

SPATIAL = [(1,), (1023,), (1024,), (1025,), (31, 33), (3, 5, 7), (2, 3, 4, 5), (90, 70), (20000,)]
EMPTY = [(0,), (3, 0)]
LONG = (1100, 1000)
"""More pixels than share one table of bins: ``CHUNK`` in ``native/profile.hpp``."""

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

EDGES = [0, -0.0, 5e-324, 1e-40, 1e-16, 2**-25, 2**-24, 0.25, 0.5, 0.5 + 2**-11, 1 - 2**-24, 1]
NO_PROBABILITIES = [np.nan, np.inf, -np.inf, -1e-30, -1.0, 1.5, 3e38, -3e38]
NO_CUTS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-300, 0.5, 1.0, 1e300]
SIZES = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-300, 3.7, 1e4, 1e18, 1e300]

MASKS = {"output_mode": "multilabel"}
SOLVERS: list[dict[str, Any]] = [
    {},
    {"metric": "dice"},
    {"metric": "dice", "presence": "argmax"},
    {"solver": "joint", "correlation": 0.0},
    {"solver": "joint", "correlation": 0.0, "unassigned_policy": "void", "void_index": -7},
    {"solver": "RMA"},
    {"solver": "RMA", "correlation": 0.5, "void_index": LEAST_INTEGER},
    {"solver": "RMA", **MASKS},
    {"solver": "RMA", "correlation": 0.3, **MASKS},
    {"metric": "dice", "solver": "exact"},
    {"solver": "exact", **MASKS},
    {"metric": "dice", "solver": "BA", **MASKS},
    {"metric": "dice", "solver": "TRNA", **MASKS},
    {"metric": "dice", "solver": "BA+TRNA", **MASKS},
    {"metric": "acc", "solver": "argmax"},
    {"metric": "acc", "solver": "TR", **MASKS},
]

SAME_FOR_ANY_VALUES = {"peak", "likely_count", "masks", "claimed", "winners", "between", "sizes"}
"""Results that are the same to the last bit even if sums are rounded: no sum goes into them."""


def values_of(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return float64 values: ``dyadic``, ``likely``, ``edges``, ``broken`` or ``logits``."""
    if kind == "logits":
        return rng.normal(0, 10, shape)
    if kind == "edges":
        return rng.choice(EDGES, shape)
    if kind == "likely" and shape[1]:
        scores = np.exp(rng.normal(0, 3, shape))
        return scores / scores.sum(1, keepdims=True)
    values = rng.integers(0, 129, shape) / 128  # exact in every dtype
    flat = values.reshape(*shape[:2], np.prod(shape[2:], dtype=int))
    for start in range(0, flat.shape[2], 2500):  # some blocks lie on one side of any cut
        flat[..., start : start + 1300] = rng.integers(0, 129, (*shape[:2], 1)) / 128
    if kind == "broken":
        places = rng.random(shape) < rng.choice([0.001, 0.3])
        values = np.where(places, rng.choice(NO_PROBABILITIES, shape), values)
    return values


def stored(values: torch.Tensor, layout: str) -> torch.Tensor:
    """Return the values, or some of them, in the order in which a layout has them in memory."""
    if layout == "unaligned" and values.numel():
        room = bytearray(1 + values.numel() * values.element_size())
        moved = torch.frombuffer(room, dtype=values.dtype, offset=1)
        return moved.view(values.shape).copy_(values)
    backwards = tuple(reversed(range(values.dim())))
    return {
        "plain": values,
        "classes last": values.movedim(1, -1),
        "reversed": values.permute(backwards),
        "sliced": torch.stack((values, values), -1).flatten(-2) if values.numel() else values,
        "repeated": values[:, :, :1],
        "one image": values[:1],
        "unaligned": values,
    }[layout].contiguous()


def viewed(memory: torch.Tensor, layout: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return maps ``(batch, classes, *spatial)`` as a view of what `stored` returned."""
    if layout == "classes last":
        return memory.movedim(-1, 1)
    if layout == "reversed":
        return memory.permute(tuple(reversed(range(memory.dim()))))
    if layout == "sliced" and memory.numel():
        return memory[..., 1::2]
    return memory.expand(shape)


KINDS = ["dyadic", "dyadic", "likely", "likely", "edges", "broken", "logits"]
LAYOUTS = [
    *("plain", "plain", "classes last", "reversed"),
    *("sliced", "repeated", "one image", "unaligned"),
]


@dataclass(frozen=True)
class Case:
    """Maps and how to call the kernels on them."""

    rng: np.random.Generator
    kind: str
    changes: bool
    dtype: torch.dtype
    layout: str
    memory: torch.Tensor
    probs: torch.Tensor
    valid: torch.Tensor | None
    from_logits: str | None
    threads: int
    values_per_task: int

    @classmethod
    def make(cls, seed: int, number: int, constant: bool) -> Case:
        rng = np.random.default_rng((seed, number))
        changes = number % 2 == 1 and not constant
        kind = str(rng.choice(KINDS))
        spatial = SPATIAL[rng.integers(len(SPATIAL))]
        shape = (int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 2, 3, 5, 21])), *spatial)
        rare = rng.integers(60)
        if rare == 0:
            shape = (*shape[:2], *EMPTY[rng.integers(len(EMPTY))])
        elif rare == 1:
            shape = (1, int(rng.choice([1, 2])), *LONG)
        elif rare == 2:
            shape = (*rng.choice([[0, 3], [2, 0], [0, 0]]).tolist(), *spatial)
        elif rare == 3:
            shape = (1, 300, 31, 33)
        dtype, layout = DTYPES[rng.integers(len(DTYPES))], str(rng.choice(LAYOUTS))
        values = torch.from_numpy(values_of(kind, shape, rng)).to(dtype)
        memory = stored(values, layout)
        valid = None
        if rng.random() < 0.3:
            share = rng.choice([0.0, 0.02, 0.8], (shape[0], *[1] * (len(shape) - 2)))
            valid = torch.from_numpy(rng.random((shape[0], *shape[2:])) < share)
        links = ["softmax", "sigmoid"] if shape[1] > 1 else ["sigmoid"]
        return cls(
            rng=rng,
            kind=kind,
            changes=changes,
            dtype=dtype,
            layout=layout,
            memory=memory,
            probs=viewed(memory, layout, shape),
            valid=valid,
            from_logits=str(rng.choice(links)) if kind == "logits" else None,
            threads=int(rng.choice([1, 2, 2])),
            values_per_task=int(rng.choice([1, 1000, 1 << 18])),
        )

    def __str__(self) -> str:
        shown = ("kind", "changes", "dtype", "layout", "from_logits", "threads", "values_per_task")
        facts = ", ".join(f"{name}={getattr(self, name)}" for name in shown)
        valid = "all" if self.valid is None else int(self.valid.sum())
        return f"{tuple(self.probs.shape)}, {facts}, valid={valid}"

    @property
    def rows(self) -> tuple[int, int]:
        return self.probs.shape[0], self.probs.shape[1]

    @property
    def is_sound(self) -> bool:
        """Whether all values are probabilities, or logits, and stay so."""
        return not self.changes and self.kind != "broken"

    @property
    def has_reference(self) -> bool:
        """Whether the reference decides by the same values: its own softmax differs by a bit."""
        return self.is_sound and self.from_logits is None and self.probs.numel() > 0

    def versions(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield without end what is written to, and other values for it."""
        shape = tuple(self.memory.shape)
        made = [torch.from_numpy(values_of(kind, shape, self.rng)) for kind in KINDS]
        versions = [(self.memory, values.to(self.dtype)) for values in made]
        versions.append((self.memory, self.memory.clone()))
        if self.valid is not None:
            versions += [(self.valid, ~self.valid), (self.valid, self.valid.clone())]
        return itertools.cycle(versions)


@contextlib.contextmanager
def changing(versions: Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """Let another thread write the versions to memory, one after the other, in the meantime."""
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            memory, values = next(versions)
            memory.copy_(values)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


@dataclass(frozen=True)
class Given:
    """What operations take besides maps: multiples of 1/64, or for unsound maps any numbers."""

    cuts: torch.Tensor
    reach: torch.Tensor
    active: torch.Tensor
    degree: torch.Tensor
    width: int
    keep_peak: bool
    by_curves: bool
    floor: float
    void: int

    @classmethod
    def draw(cls, case: Case) -> Given:
        rng, shape, pixels = case.rng, case.rows, case.probs.shape[2:].numel()
        cuts, reach = rng.integers(0, 65, (2, *shape)) / 64
        degree, width = rng.integers(0, POWERS + 1, shape), pixels
        if case.is_sound:
            reach = np.minimum(cuts, reach)
        else:
            cuts, reach = rng.choice(NO_CUTS, (2, *shape))
            degree, width = degree * rng.choice([1, 7, -7]), int(rng.integers(0, pixels + 1))
        return cls(
            cuts=torch.from_numpy(cuts),
            reach=torch.from_numpy(reach),
            active=torch.from_numpy(rng.random(shape) < 0.7),
            degree=torch.from_numpy(degree),
            width=width,
            keep_peak=bool(rng.integers(2)),
            by_curves=bool(rng.integers(2)),
            floor=float(rng.choice([-np.inf, 0.0])),
            void=int(rng.choice([255, UNASSIGNED, CONTESTED, LEAST_INTEGER])),
        )

    @property
    def chosen(self) -> torch.Tensor:
        """Image and class of some active classes."""
        return self.active.nonzero()[:40]

    @property
    def claims(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts and smaller cuts, infinite for classes that are not active."""
        return self.cuts.where(self.active, torch.inf), self.reach.where(self.active, torch.inf)

    def gains(self, volume: torch.Tensor) -> Gains | GainCurves:
        if not self.by_curves:
            return Gains.probability(volume)
        rows = self.active.nonzero()
        power = torch.linspace(0.5, 2, max(len(rows), 1))[: len(rows)].unsqueeze(1)
        return GainCurves.through(rows, bin_edges(torch.device("cpu")).pow(power) - 0.25)


Found = dict[str, torch.Tensor]
"""Results by name."""


def operate(backend, opened, given: Given) -> Found:
    """Call every operation that all backends have."""
    survey = backend.survey(opened)
    named = ("mass", "peak", "likely_count", "likely_mass", "is_invalid")
    found = {name: getattr(survey, name) for name in named}
    found |= cut(backend, opened, survey, given)
    found |= label(backend, opened, survey, given)
    return found | add_up(backend, opened, survey, given)


def cut(backend, opened, survey, given: Given) -> Found:
    cuts, reach, active, chosen = given.cuts, given.reach, given.active, given.chosen
    ends = reach[chosen.unbind(1)], cuts[chosen.unbind(1)]
    return {
        "sizes": backend.sizes(opened),
        "winners": backend.winners(opened, survey),
        "above": torch.stack(backend.above(opened, survey, cuts, active)),
        "masks": backend.masks(opened, survey, cuts),
        "between": backend.between(opened, survey, *ends, chosen, given.width),
        "raised": backend.raise_cuts(opened, survey, reach / 2, active, cuts, survey.mass + 1),
        "best": backend.best_cuts(opened, survey, active, 0.0, 1.0, given.keep_peak),
    }


def label(backend, opened, survey, given: Given) -> Found:
    cuts, reach = given.claims
    gains, void = given.gains(survey.mass), given.void
    rule = gains, given.active, given.floor, void
    labels, *held = backend.claim(opened, survey, cuts, reach)
    resolved = backend.resolve(opened, survey, labels.clone(), cuts, *rule)
    found = {"claimed": labels.clone(), "held": torch.stack(held), "resolved": resolved}
    part, of_part, place = backend.unsettled(opened, survey, labels, given.active, void)
    own, *_ = backend.claim(part, of_part, cuts)
    own = backend.resolve(part, of_part, own, cuts, *rule)
    assert ((place >= 0) & (place < labels.numel())).all()
    joined = backend.join(labels, part, place, own)
    for some in (resolved, joined):
        in_range(some, classes_of(opened), {void, UNASSIGNED, CONTESTED})
    return found | {"place": place, "joined": joined}


def add_up(backend, opened, survey, given: Given) -> Found:
    """Sum values, and values by label: also where labels are wild."""
    rows, degree = given.chosen[:9], given.degree
    labels, *_ = backend.claim(opened, survey, given.cuts)
    labels = labels.masked_fill(labels == CONTESTED, given.void)
    low, high = torch.minimum(given.reach, given.cuts), torch.maximum(given.reach, given.cuts)
    *counts, powers = backend.split(opened, survey, low, high, degree, torch.ones_like(low))
    asked = torch.arange(POWERS) < degree[..., None, None]
    return {
        "moments": torch.stack(backend.moments(opened, survey, given.active)),
        "profile": backend.profile(opened, survey, rows),
        "exchange": backend.exchange(opened, survey, labels, given.cuts, rows),
        "tally": torch.stack(backend.tally(opened, survey, labels)),
        "split": torch.stack([count.where(degree > 0, 0) for count in counts]),
        "powers": powers.where(asked, 0),
    }


def classes_of(opened) -> int:
    """Return the number of classes of maps that either backend opened."""
    return int(opened.classes if isinstance(opened, native.Maps) else opened.probs.shape[1])


def in_range(decision: torch.Tensor, classes: int, others: set[int]) -> None:
    """Fail if a label is neither a class nor one of the others, or a mask neither 0 nor 1."""
    if decision.dtype == torch.bool:
        assert (decision.view(torch.uint8) <= 1).all()
        return
    is_class = (decision >= 0) & (decision < classes)
    assert (is_class | torch.isin(decision, torch.tensor(sorted(others)))).all()


def compare(ours: Found, expected: Found, kind: str) -> None:
    """Fail if a result differs from that of the reference."""
    for name, reference in expected.items():
        found = ours[name]
        if name == "powers":
            torch.testing.assert_close(found, reference, rtol=1e-10, atol=1e-10)
        elif kind == "dyadic" or name in SAME_FOR_ANY_VALUES:
            assert torch.equal(found, reference), name
        elif name == "mass":
            torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


def mask_rows(opened, case: Case) -> None:
    """Call what takes row by row; masks are those of cuts, found pass by pass."""
    peak = float(case.rng.choice([0.0, 0.5]))
    with mock.patch.object(native, "_keeps_threads_busy", return_value=True):
        masks, is_invalid = native.own_masks(opened, peak, 0.0, 1.0, True)
    in_range(masks, 0, set())
    metric, smooth = str(case.rng.choice(["dice", "iou"])), float(case.rng.choice([0, 0.5, 1e9]))
    exact, _, known = native.exact_masks(opened, peak, RATIOS[metric], smooth, 0.0, 1.0)
    in_range(exact, 0, set())
    assert tuple(known.shape) == case.rows
    if case.is_sound:
        survey = native.survey(opened)
        assert not is_invalid
        cuts = native.best_cuts(opened, survey, survey.peak > peak, 0.0, 1.0, True)
        assert torch.equal(masks, native.masks(opened, survey, cuts))


def sort_rows(case: Case) -> None:
    """Call what works on sorted rows: with any numbers, some of them no probabilities."""
    rng, shape = case.rng, tuple(case.rng.choice([0, 1, 2, 17, 700], 2).tolist())
    values = np.sort(values_of(str(rng.choice(["dyadic", "broken"])), (1, *shape), rng)[0])
    values = torch.from_numpy(values[:, ::-1].copy())
    nodes = int(rng.integers(0, 9))
    terms = torch.from_numpy(rng.choice([*NO_CUTS, 0.3, 0.7], (3, shape[0], nodes)))
    needed, extra = (torch.from_numpy(rng.integers(-3, n + 4, shape[0])) for n in (nodes, shape[1]))
    steps = Steps(2.0, 0.0, float(rng.integers(2)), bool(rng.integers(2)))
    taken = native.scan(values, extra, Integrals(*terms, needed, steps))
    assert ((taken >= 0) & (taken <= extra.clamp(0, shape[1]))).all()
    smooth, blind = float(rng.choice([0.0, 2.0])), bool(rng.integers(2))
    for row in values.numpy()[:2]:
        size = int(rng.choice([-1, 0, 1, len(row), 10**6]))
        volume = rows.VolumeMoments(*rng.choice(SIZES, 3).tolist(), size)
        rows.refined_gains(row, volume, 1e-4, smooth, blind)
    volume = rows.VolumeMoments(3.7, 2.0, 0.1, 1000)
    gains = rows.refined_gains(np.linspace(1, 0, shape[1]), volume, 1e-4, smooth, blind)
    assert np.isfinite(gains).all()


def decide(case: Case, digest) -> None:
    """Decide by three solvers. Unless values are no probabilities, or change, that is no error."""
    for index in case.rng.permutation(len(SOLVERS))[:3]:
        options = {"metric": "iou", "from_logits": case.from_logits, **SOLVERS[index]}
        if options["metric"] != "acc":
            options["smooth"] = float(case.rng.choice([0.0, 1.0]))
        if "output_mode" not in options:
            options.setdefault("void_index", 999)  # which is no class
        at_once = bool(case.rng.integers(2))
        with mock.patch.object(native, "_keeps_threads_busy", return_value=at_once):
            try:
                decision = RankSEG(**options)(case.probs, case.valid)
            except ValueError:
                assert not case.is_sound or 0 in case.probs.shape[1:], options
                continue
        in_range(decision, max(case.probs.shape[1], 2), {options.get("void_index", 999)})
        if case.is_sound:
            digest.update(decision.numpy().tobytes())
        if case.kind == "dyadic" and case.has_reference and options.get("solver") != "exact":
            with by_reference():
                assert torch.equal(decision, RankSEG(**options)(case.probs, case.valid)), options


@contextlib.contextmanager
def by_reference():
    """Decide by the reference: on one thread, because small maps on several take longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with mock.patch.dict(os.environ, RANKSEG_BACKEND="torch"):
            yield
    finally:
        torch.set_num_threads(threads)


def run(case: Case, digest) -> None:
    """Make all calls of a case."""
    torch.set_num_threads(case.threads)
    native_library.VALUES_PER_TASK = case.values_per_task
    given = Given.draw(case)
    with changing(case.versions()) if case.changes else contextlib.nullcontext():
        opened = native.open_maps(case.probs, case.valid, case.from_logits)
        ours = operate(native, opened, given)
        mask_rows(opened, case)
        sort_rows(case)
        decide(case, digest)
    if case.is_sound:
        for result in ours.values():
            digest.update(result.numpy().tobytes())
    if case.has_reference:
        with by_reference():
            reference = torch_reference.open_maps(case.probs, case.valid)
            compare(ours, operate(torch_reference, reference, given), case.kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to end")
    parser.add_argument("--cases", type=int, default=1 << 62, help="after how many cases to end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--constant", action="store_true", help="let no thread change the maps")
    parser.add_argument(
        "--new-threads", action="store_true", help="work on new threads, not on those of torch"
    )
    parser.add_argument("--verbose", action="store_true", help="print every case before it runs")
    arguments = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    if arguments.new_threads:
        native_library._start_team = None
    digest, begun, done = hashlib.sha256(), time.monotonic(), 0
    while done < arguments.cases and time.monotonic() - begun < arguments.seconds:
        number = arguments.first + done
        case = Case.make(arguments.seed, number, arguments.constant)
        if arguments.verbose:
            print(f"case {number}: {case}", flush=True)
        try:
            run(case, digest)
        except BaseException:
            print(f"case {number} of seed {arguments.seed}: {case}", flush=True)
            raise
        done += 1
    print(f"{native_library.level()}: {done} cases, results {digest.hexdigest()[:16]}")


if __name__ == "__main__":
    main()
