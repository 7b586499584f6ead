"""Decide on several maps of one image: ``python -m experiments.members data=busi seeds=5``.

Networks of several seeds give several maps of an image. Usually one decides on their mean. As a
mixture they also say what labels may occur together, so the labels that maximise the mean over
members of the expected score are measured beside the decisions on the mean map.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from experiments.data import IGNORED
from experiments.maps import keep_maps
from experiments.records import write_comparison
from experiments.train import run_folder
from rankseg import RankSEG, metrics
from rankseg.evaluation import CaseFolder, Comparison, argmax, cases
from rankseg.metrics import METRICS, Counts, Metric

MOST_PASSES = 20
PRESENCE: Final = "argmax"
"""The rule of presence of every method: the classes that argmax of the mean map predicts."""

Decide = Callable[[Tensor], Tensor]
"""From the maps of the members, float32 (members, classes, *spatial), to labels (1, *spatial)."""


def members_labels(members: Tensor, metric: Metric) -> Tensor:
    r"""Return the labels (1, *spatial) that maximise the mean over members of RMA's objective.

    For Dice and the pixels :math:`T_c` of class :math:`c` the objective is the sum over classes of
    :math:`\operatorname{mean}_m 2 S_{mc} / (n_c + \mu_{mc} + 1)`, with the sum :math:`S_{mc}` of
    the probabilities of member :math:`m` in :math:`T_c`, their sum :math:`\mu_{mc}` in the image,
    and :math:`n_c` pixels in :math:`T_c`. The search starts from `RankSEG`'s labels for the mean
    map, gives every pixel to the class whose objective rises fastest, and repeats while the sum
    rises.
    """
    mean = members.mean(0, keepdim=True)
    labels: Tensor = RankSEG(metric, solver="joint", presence=PRESENCE)(mean)
    absent = torch.ones(members.shape[1], dtype=torch.bool)
    absent[argmax(mean).unique()] = False
    pixels = members.double().flatten(2)
    best, state = objective(pixels, labels.flatten(), metric)
    for _ in range(MOST_PASSES):
        gains = gains_of(pixels, *state, metric)
        gains[absent] = -torch.inf
        tried = gains.argmax(0)
        score, state = objective(pixels, tried, metric)
        if score <= best:
            break
        best, labels = score, tried.view(labels.shape)
    return labels


def objective(
    pixels: Tensor, labels: Tensor, metric: Metric
) -> tuple[float, tuple[Tensor, Tensor]]:
    """Return the objective of labels, and scores and denominators (members, classes).

    ``pixels`` is float64 (members, classes, pixels).
    """
    classes = pixels.shape[1]
    held = torch.nn.functional.one_hot(labels, classes).T.double()  # (classes, pixels)
    both, size, volume = (pixels * held).sum(2), held.sum(1), pixels.sum(2)
    if metric == "dice":
        below = size + volume + 1
        scores = 2 * both / below
    else:
        below = (size + volume - both).clamp(min=1e-9)
        scores = both / below
    return float(scores.mean(0).sum()), (scores, below)


def gains_of(pixels: Tensor, scores: Tensor, below: Tensor, metric: Metric) -> Tensor:
    """Return by how much the objective rises as a pixel joins a class, (classes, pixels)."""
    slope = (2 if metric == "dice" else 1 + scores) / below
    return (
        torch.einsum("mcn,mc->cn", pixels, slope) / len(pixels)
        - ((scores / below).mean(0)[:, None])
    )


def on_mean(decide: Decide) -> Decide:
    """Return the decision on the mean map of the members."""
    return lambda members: decide(members.mean(0, keepdim=True))


def methods() -> dict[str, Decide]:
    """Return all decisions, argmax of the mean map first."""
    chosen: dict[str, Decide] = {"argmax": on_mean(argmax)}
    for metric in METRICS:
        for name, options in {
            "rankseg_rma": {"solver": "RMA"},
            "joint": {"solver": "joint"},
            "correlated": {"solver": "joint", "correlation": 0.5},
            "dep": {"solver": "DEP"},
        }.items():
            decide = RankSEG(metric, presence=PRESENCE, **options)  # type: ignore[arg-type]
            chosen[f"{name} {metric}"] = on_mean(decide)
        chosen[f"members {metric}"] = lambda maps, metric=metric: members_labels(maps, metric)  # type: ignore[misc]
    return chosen


def members_of(folders: Sequence[CaseFolder]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, maps of all members and label of every case."""
    for name in folders[0].names:
        found = [folder.read(name) for folder in folders]
        yield name, torch.stack([one.probs.float() for one in found]), found[0].label


def compare_members(folders: Sequence[CaseFolder], classes: Sequence[str]) -> Comparison:
    """Decide every case by every method."""
    chosen = methods()
    counts: dict[str, list[Counts]] = {name: [] for name in chosen}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for members, label in ((maps, label) for _, maps, label in members_of(folders)):
        for name, decide in chosen.items():
            start = time.perf_counter()
            labels = decide(members)
            seconds[name].append(time.perf_counter() - start)
            counts[name].append(
                metrics.count(labels, label[None], num_classes=len(classes), ignore_index=IGNORED)
            )
    return Comparison(
        classes=tuple(classes),
        cases=tuple(folders[0].names),
        counts={name: Counts.cat(one) for name, one in counts.items()},
        seconds={name: torch.tensor(one).double().numpy() for name, one in seconds.items()},
    )


@hydra.main(version_base=None, config_path="conf", config_name="experiment")
def main(config: DictConfig) -> None:
    """Measure."""
    torch.set_num_threads(config.threads)
    folders = []
    for seed in range(config.seeds):
        of_seed = OmegaConf.merge(config, {"seed": seed})
        folders.append(cases(keep_maps(of_seed) / "test"))
    comparison = compare_members(folders, folders[0].name_classes())
    path = run_folder(config).parent / f"members-{config.seeds}.npz"
    write_comparison(comparison, path, config.data.background)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
