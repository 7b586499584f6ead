"""Compare ways to make labels of exact masks, by the exact expected score of the labels.

``python benchmarks/exact_labels.py MAPS`` decides some images of every set of several classes in
the folder MAPS, and crowds of small regions drawn at random. It adds how the mean over the present
classes differs from that of argmax to ``benchmarks/results/exact_labels.csv``, with the time taken.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import _speed_cases
import torch
from _exact_gains import JudgedByScore
from _speed_report import Row, append_history, number, print_table, row
from _speed_setup import REPOSITORY, describe_origin, note
from small_regions import POINTS, SIDE, Regions
from torch import Tensor

from rankseg import RankSEG, _backends, expected_score
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.baselines import argmax_labels
from rankseg._decision.solvers.joint import NOTICEABLE, ROUNDING, _Relabelling, joint_labels
from rankseg._decision.solvers.models import Exact, Model
from rankseg._decision.solvers.presence import eligible_classes, present_classes
from rankseg._decision.solvers.rma import share_out, shared_labels
from rankseg._formulas.loop import while_rising
from rankseg._formulas.objectives import OBJECTIVES
from rankseg._formulas.records import Survey

HISTORY = REPOSITORY / "benchmarks" / "results" / "exact_labels.csv"

METRICS = ("dice", "iou")
VOLUMES = (1, 2, 5, 10, 20, 50)  # expected pixels of a region, before it meets its rivals
REGIONS = 4  # to an image, and to a class each
WINDOW = 32  # pixels
AT_ONCE = 10  # images: more make temporaries that no cache holds
SEED = 0
TIE = 1e-12
TIMED = ("voc", "city", "ct")
REPEATS = 7

Rule = Callable[[ModuleType, Any, Survey, Settings], Tensor]
"""Decides labels, as a solver does."""


def rma_gains(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Share exact masks out by RMA's increments."""
    objective = OBJECTIVES[settings.metric](settings.smooth)
    return shared_out(Exact(backend, maps, survey, objective, settings), settings)


def exact_gains(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Share exact masks out by exact increments."""
    return shared_labels(backend, maps, survey, replace(settings, solver="exact"))


def joint_by_rma(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Relabel as the joint rule does, judged by the RMA objective, from exact masks."""
    objective = OBJECTIVES[settings.metric](settings.smooth)
    model = Exact(backend, maps, survey, objective, settings)
    return relabelled(model, shared_out(model, settings), settings)


def joint_by_score(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Relabel with exact increments, judged by the expected score."""
    objective = OBJECTIVES[settings.metric](settings.smooth)
    eligible = eligible_classes(present_classes(backend, maps, survey, settings))
    model = JudgedByScore.build(backend, maps, survey, objective, settings, eligible)
    return relabelled(model, shared_out(model, settings), settings)


def shared_out(model: Model, settings: Settings) -> Tensor:
    """Share the pixels out between the model's own masks."""
    kept = kept_classes(model, settings)
    return share_out(model, model.cuts(kept), kept, settings)


def kept_classes(model: Model, settings: Settings) -> Tensor:
    return present_classes(model.backend, model.maps, model.survey, settings)


def relabelled(model: Model, labels: Tensor, settings: Settings) -> Tensor:
    eligible = eligible_classes(kept_classes(model, settings))
    limits = torch.tensor([ROUNDING, NOTICEABLE], dtype=torch.float64)
    relabelling = _Relabelling(model, eligible, False, settings.void_index, *limits)
    rising = torch.ones(len(labels), dtype=torch.bool)
    best = labels, *model.tally(labels)
    return while_rising(relabelling.step, best, rising, model.survey.is_invalid)[0]


SHIPPED = "exact masks, exact increments"
RULES: dict[str, Rule] = {
    "argmax": argmax_labels,
    "RMA": shared_labels,
    "joint": joint_labels,
    "exact masks, RMA increments": rma_gains,
    SHIPPED: exact_gains,
    "joint from exact labels": joint_by_rma,
    "joint from exact labels, by expected score": joint_by_score,
}
BOUND = "upper bound"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path, help="the folder of the sets")
    parser.add_argument("--images", type=int, default=8, help="of every set, at most")
    parser.add_argument("--crowds", type=int, default=60, help="images of small regions by size")
    parser.add_argument("--cases", type=Path, help="maps to time the rules on, as of speed.py")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--history", type=Path, default=HISTORY, help="the CSV to add to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    origin = describe_origin("cpu", arguments.threads)
    rows = []
    for name, images in cases(arguments.maps, arguments.images, arguments.crowds):
        note(name)
        for metric in METRICS:
            rows += measure(name, images, metric).rows()
    for name in TIMED if arguments.cases else ():
        note(name)
        rows += times(name, _speed_cases.probs(arguments.cases, name))
    append_history(arguments.history, origin, rows)
    show(rows)


def cases(folder: Path, images: int, crowds: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Give what is decided, by name: real maps image by image, and crowds in batches."""
    from rankseg.evaluation import Case, CaseFolder

    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        names = CaseFolder.open(path).names
        step = math.ceil(len(names) / images)
        read = [CaseFolder.open(path).read(name) for name in names[::step]]
        probs = [one.probs[None].float() for one in read if isinstance(one, Case)]
        if probs[0].shape[1] > 1:
            yield path.name, probs
    for volume in VOLUMES:
        generator = torch.Generator().manual_seed(SEED)
        yield f"{volume} pixels", list(crowd(volume, crowds, generator).split(AT_ONCE))


def crowd(volume: float, images: int, generator: torch.Generator) -> Tensor:
    """Draw images in which regions of several classes are in each other's way.

    The logit of every region is its own against the background. Returns float32
    ``(images, 1 + REGIONS, WINDOW, WINDOW)``, the background first.
    """
    regions = Regions.draw(images * REGIONS, generator)
    likely = regions.expecting(volume).squeeze(1).clamp(1e-12, 1 - 1e-12)
    reach = 0.5 + 1.5 * math.sqrt(volume / math.pi)
    apart = reach * (2 * torch.rand(images * REGIONS, 2, generator=generator) - 1)
    corner = (SIDE - WINDOW) // 2 + apart.round().long()
    logits = [
        one[down : down + WINDOW, right : right + WINDOW]
        for one, (down, right) in zip(likely.logit(), corner.tolist(), strict=True)
    ]
    several = torch.stack(logits).view(images, REGIONS, WINDOW, WINDOW)
    return torch.cat((torch.zeros_like(several[:, :1]), several), 1).softmax(1).float()


def decide(rule: Rule, probs: Tensor, settings: Settings) -> tuple[Tensor, float]:
    """Return the labels, and the seconds they took."""
    start = time.perf_counter()
    backend, _ = _backends.choose(probs.device)
    maps = backend.open_maps(probs, None)
    labels = rule(backend, maps, backend.survey(maps), settings)
    return labels, time.perf_counter() - start


@dataclass(frozen=True)
class Measured:
    """Expected scores ``(images,)`` in points, and seconds, by rule."""

    case: str
    metric: str
    scores: Mapping[str, Tensor]
    seconds: Mapping[str, float]

    def rows(self) -> list[Row]:
        """Sum up: by how much argmax is beaten, how often a rule is best, and what it takes."""
        best = torch.stack([self.scores[name] for name in RULES]).amax(0)
        rows = []
        for name, scores in self.scores.items():
            change = (scores - self.scores["argmax"]).tolist()
            against = scores - self.scores[SHIPPED]
            figures = {
                "lowest against what ships": (against.min().item(), "points"),
                "highest against what ships": (against.max().item(), "points"),
            }
            if name != BOUND:
                wins = int((scores >= best - POINTS * TIE).sum())
                figures["best"] = (wins, f"of {len(scores)} images")
                figures["time"] = (self.seconds[name] / self.seconds["RMA"], "x RMA")
            mean = row(self.case, self.metric, f"{name}: mean change from argmax", change, "points")
            rows.append(replace(mean, value=math.fsum(change) / len(change)))
            rows += [
                row(self.case, self.metric, f"{name}: {what}", [value], unit)
                for what, (value, unit) in figures.items()
            ]
        return rows


def measure(case: str, images: Sequence[Tensor], metric: str) -> Measured:
    """Decide all images by all rules, and score them."""
    settings = Settings(metric)
    masks = RankSEG(metric, output_mode="multilabel", solver="exact")
    scores: dict[str, list[Tensor]] = {name: [] for name in (*RULES, BOUND)}
    seconds = dict.fromkeys(RULES, 0.0)
    for probs in images:
        for name, rule in RULES.items():
            decide(rule, probs, settings)  # the first call may compile, and touches fresh memory
            labels, taken = decide(rule, probs, settings)
            scores[name].append(present_mean(probs, labels, metric))
            seconds[name] += taken
        scores[BOUND].append(present_mean(probs, masks(probs), metric))
    all_scores = {name: torch.cat(some) for name, some in scores.items()}
    some_present = ~all_scores[BOUND].isnan()
    return Measured(case, metric, {k: v[some_present] for k, v in all_scores.items()}, seconds)


def present_mean(probs: Tensor, prediction: Tensor, metric: str) -> Tensor:
    """Return the mean expected score over the classes not pruned, in points; NaN without any."""
    present = probs.flatten(2).amax(2) > Settings().pruning_prob
    scores = expected_score(probs, prediction, metric)
    return POINTS * scores.where(present, torch.nan).nanmean(1)


def times(case: str, probs: Tensor) -> list[Row]:
    """Time the rules on maps of the field's sizes; each is followed by RMA."""
    rows = []
    for metric in METRICS:
        settings = Settings(metric)
        for name, rule in RULES.items():
            for each in (rule, shared_labels):
                decide(each, probs, settings)
            ratios = [
                decide(rule, probs, settings)[1] / decide(shared_labels, probs, settings)[1]
                for _ in range(REPEATS)
            ]
            rows.append(row(case, metric, f"{name}: time", ratios, "x RMA"))
    return rows


def show(rows: Sequence[Row]) -> None:
    """Print a table for every case and metric, a line for every rule."""
    columns = [
        "mean change from argmax",
        "best",
        "lowest against what ships",
        "highest against what ships",
        "time",
    ]
    for case, metric in dict.fromkeys((one.case, one.metric) for one in rows):
        figures = {one.what: one.value for one in rows if (one.case, one.metric) == (case, metric)}
        lines = [
            [name, *(shown(figures.get(f"{name}: {column}")) for column in columns)]
            for name in (*RULES, BOUND)
        ]
        print_table(f"{case}, expected {metric} in points", ["rule", *columns], lines)


def shown(value: float | None) -> str:
    return "" if value is None else number(value) if abs(value) >= 1e-7 else "0"


if __name__ == "__main__":
    main()
