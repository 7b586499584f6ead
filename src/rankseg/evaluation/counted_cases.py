"""Counts of single cases, and how they make a `Comparison`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankseg.evaluation.comparison import Comparison
from rankseg.evaluation.differences import Floats
from rankseg.evaluation.labelled_cases import Failure, reasons
from rankseg.metrics import METRICS, Counts, Metric

__all__ = ["CountedCase", "assemble", "leave_out", "refuse_nothing"]


@dataclass(frozen=True, eq=False)
class CountedCase:
    """One case: by method, the counts (1, classes), the seconds and, if any, predicted gains.

    ``expected_volume``, float64 (classes,), is the sum of the probabilities, if there are any.
    """

    name: str
    counts: list[Counts]
    seconds: list[float]
    predicted: dict[Metric, list[float]]
    expected_volume: Floats | None = None

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.counts[0].tp.shape[1]


def refuse_nothing(results: Sequence[CountedCase], failures: Sequence[Failure], done: str) -> None:
    """Raise a ValueError if there is no result."""
    if not results:
        raise ValueError(f"no case could be {done}, of {len(failures)} given{reasons(failures)}")


def leave_out(
    results: Sequence[CountedCase], failures: list[Failure], unfit: Mapping[str, str]
) -> list[CountedCase]:
    """Return the results of cases that are not unfit; add these to the failures."""
    failures += [Failure(one.name, unfit[one.name]) for one in results if one.name in unfit]
    return [one for one in results if one.name not in unfit]


def assemble(
    classes: tuple[str, ...],
    methods: Sequence[str],
    results: Sequence[CountedCase],
    failures: Sequence[Failure],
) -> Comparison:
    """Return the comparison of all counted cases."""
    volumes = [one.expected_volume for one in results if one.expected_volume is not None]
    return Comparison(
        classes=classes,
        cases=tuple(result.name for result in results),
        counts={
            name: Counts.cat(result.counts[i] for result in results)
            for i, name in enumerate(methods)
        },
        seconds={
            name: np.array([result.seconds[i] for result in results])
            for i, name in enumerate(methods)
            if results[0].seconds
        },
        failures=tuple(failures),
        predicted=_gather(methods, [result.predicted for result in results]),
        expected_volumes=np.stack(volumes) if volumes else None,
    )


def _gather(
    methods: Sequence[str], predicted: Sequence[Mapping[Metric, Sequence[float]]]
) -> dict[str, dict[Metric, Floats]] | None:
    """Collect the predicted gains of all cases by method and metric; None if a case has none."""
    if not all(predicted):
        return None
    return {
        name: {metric: np.array([gains[metric][i] for gains in predicted]) for metric in METRICS}
        for i, name in enumerate(methods)
    }
