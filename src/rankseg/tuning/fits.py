"""What candidates are fitted to: some pixels of every case, and which classes it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rankseg._decision.presence_model import PresenceTable
from rankseg.calibration import Calibration, fit
from rankseg.calibration.reliability import labelled_pixels
from rankseg.dataset import DatasetRule
from rankseg.evaluation.labelled_cases import Case, Failure
from rankseg.tuning.candidates import Candidate

__all__ = ["Fits", "Folds", "sampled"]

Folds = frozenset[int]
"""Folds that are left out of a fit."""

PIXELS: Final = 100_000
"""Pixels of all cases together that calibrations and rules are fitted to, about."""

MOST_OF_A_CASE: Final = 20_000
LEAST_OF_A_CASE: Final = 500


def sampled(
    cases: Iterable[Case | Failure], number: int, ignore_index: int | None, seed: int
) -> tuple[dict[str, Case], Iterator[Case | Failure]]:
    """Return samples of cases by name, which fill while the second, all the cases, is read.

    A sample holds float64 probabilities (classes, n) and labels (n,) of pixels that count: the same
    share of every case.
    """
    most = min(MOST_OF_A_CASE, max(LEAST_OF_A_CASE, PIXELS // max(1, number)))
    samples: dict[str, Case] = {}

    def watched() -> Iterator[Case | Failure]:
        share = 0.0
        for case in cases:
            if isinstance(case, Case):
                share = share or most / case.label.numel()
                drawn = math.ceil(min(share * case.label.numel(), 10 * most))
                try:
                    pixels = labelled_pixels(case, ignore_index, drawn, seed)
                    samples[case.name] = Case(case.name, *pixels)
                except ValueError:
                    pass  # no pixel counts, or the comparison names what is wrong
            yield case

    return samples, watched()


@dataclass
class Fits:
    """Calibrations, models of presence and rules, each fitted without some of the folds.

    Attributes
    ----------
    samples : mapping of str to Case
        By the name of the case: see `sampled`.
    fold_of : mapping of str to int
        The fold of every case, by its name.
    ignore_index : int or None
        The label of pixels that do not count.
    """

    samples: Mapping[str, Case]
    fold_of: Mapping[str, int]
    ignore_index: int | None
    calibrations: dict[tuple[str | None, Folds], Calibration | None] = field(default_factory=dict)
    tables: dict[tuple[str | None, Folds], list[PresenceTable]] = field(default_factory=dict)
    made: dict[tuple[str, Folds], dict[str, Any]] = field(default_factory=dict)

    def options(self, candidate: Candidate, left_out: Folds) -> dict[str, Any]:
        """Return the options of RankSEG of a candidate, fitted without some of the folds."""
        key = candidate.name, left_out
        if key not in self.made:
            self.made[key] = self._fitted(candidate, left_out)
        return self.made[key]

    def _fitted(self, candidate: Candidate, left_out: Folds) -> dict[str, Any]:
        options = dict(candidate.options)
        calibration = self.calibration(candidate.kind, left_out)
        if calibration is not None:
            options["calibration"] = calibration
        if candidate.absent is not None:
            table = PresenceTable.joined(self.tables[candidate.kind, left_out])
            options["presence"] = table.fit(candidate.absent)
        if candidate.rule:
            options["rule"] = DatasetRule.fit(
                self._rest(left_out),
                options["metric"],
                calibration=options.get("calibration"),
                pixels=PIXELS,
            )
        return options

    def calibration(self, kind: str | None, left_out: Folds) -> Calibration | None:
        """Return a calibration fitted without some of the folds; None if it would tell nothing."""
        if (kind, left_out) not in self.calibrations:
            made = None
            if kind is not None:
                rest = self._rest(left_out)
                if any((sample.label > 0).any() for sample in rest):
                    made = fit(rest, kind)  # type: ignore[arg-type]
            self.calibrations[kind, left_out] = made
        return self.calibrations[kind, left_out]

    def read_presence(
        self, cases: Iterable[Case | Failure], wanted: Iterable[tuple[str | None, Folds]]
    ) -> None:
        """Look which classes the cases hold, and how likely they seem after every calibration."""
        wanted = list(wanted)
        for case in cases:
            if not isinstance(case, Case):
                continue
            plain: dict[str | None, PresenceTable] = {}
            for kind, left_out in wanted:
                if self.fold_of[case.name] in left_out:
                    continue
                made = self.calibration(kind, left_out)
                if made is None and None in plain:
                    row = plain[None]
                else:
                    row = PresenceTable.of([case], None, self.ignore_index, made)
                if made is None:
                    plain[None] = row
                self.tables.setdefault((kind, left_out), []).append(row)

    def _rest(self, left_out: Folds) -> list[Case]:
        return [
            sample for name, sample in self.samples.items() if self.fold_of[name] not in left_out
        ]
