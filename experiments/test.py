"""Decide on the maps of a network by every method: ``python -m experiments.test data=...``.

The maps of validation and test images are taken from the cache, or made first. Every method decides
on the same arrays, as they are and calibrated by a fit to the validation maps.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from experiments.data import IGNORED
from experiments.maps import SPLITS, keep_maps
from experiments.methods import Calibrated, Methods, calibrated
from experiments.quantities import measure
from experiments.records import read_comparison, write_comparison
from experiments.tables import HEADER, QUANTITIES, markdown, rows_of
from experiments.train import run_folder
from rankseg._files.whole import write_whole
from rankseg.evaluation import Case, Comparison, Failure, cases, compare

PRIOR = "prior"


def test(config: DictConfig) -> None:
    """Decide and count, unless that is done; write the table, and what the maps are like."""
    folder = run_folder(config)
    rows: list[list[object]] = []
    kinds = dict(config.test.calibration)
    if config.loss.get("needs_frequencies", False):
        kinds["weights undone"] = PRIOR
    for maps, kind in kinds.items():
        path = folder / f"decisions-{maps}.npz"
        if not path.exists() or config.test.again:
            write_comparison(decide(config, kind), path, config.data.background)
        comparison = read_comparison(path)
        rows += [[maps, *row] for row in rows_of(comparison)]
    header = ["maps", *HEADER]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(folder / "table.csv", text.getvalue().encode())
    write_whole(folder / "table.md", markdown(header, rows).encode())
    measured = measure(cases(folder / "maps" / "test"), config.data.background)
    write_whole(folder / QUANTITIES, json.dumps(asdict(measured), indent=1).encode())
    print(f"wrote {folder / 'table.md'} and table.csv")


def decide(config: DictConfig, kind: str) -> Comparison:
    """Decide on the test maps after a calibration of some kind.

    ``'none'`` leaves them as they are, and ``'prior'`` undoes the class weights of the loss.
    """
    folder = keep_maps(config)
    validation, test_maps = (
        cases(folder / split, prior_correction=kind == PRIOR) for split in SPLITS
    )
    validation_maps = calibrated(validation, validation, "none" if kind == PRIOR else kind)
    data = instantiate(config.data.reader)
    presences = config.test.presence
    if len(data.classes) == 2:  # one is likeliest in a pixel exactly if it has its peak above 0.5
        presences = presences[:1]
    methods = Methods(config.methods, presences, validation_maps).all()
    print(f"{config.run}: {len(methods)} methods, calibration {kind}", flush=True)
    return compare(
        progress(Calibrated(test_maps, validation_maps.calibration), config.run),
        methods,
        classes=data.classes,
        ignore_index=IGNORED,
        clusters=data.clusters(test_maps.names),
    )


def progress(cases: Calibrated, name: str) -> Iterator[Case | Failure]:
    """Yield cases and print at every twentieth how many there were."""
    for number, case in enumerate(cases, 1):
        yield case
        if number % 20 == 0 or number == len(cases):
            print(f"{name}: decided {number} of {len(cases)} images", flush=True)


@hydra.main(version_base=None, config_path="conf", config_name="experiment")
def main(config: DictConfig) -> None:
    """Compare."""
    torch.set_num_threads(config.threads)
    test(config)


if __name__ == "__main__":
    main()
