"""The ways of deciding that the group ``predict`` names, made ready for a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

from experiments.data import IGNORED
from rankseg import RankSEG
from rankseg.calibration import Calibration, PresenceModel, fit
from rankseg.dataset import DatasetRule
from rankseg.evaluation import Case, CaseFolder, Failure, Method, argmax, pruned_argmax
from rankseg.metrics import METRICS, Metric

CALIBRATION_PIXELS = 2000
"""Drawn of each validation image to fit a calibration to."""

RULE_PIXELS = 300_000
"""Drawn of all validation images to fit a rule to."""


@dataclass(frozen=True)
class Calibrated:
    """The cases of a folder with calibrated maps, read one by one as often as asked."""

    folder: CaseFolder
    calibration: Calibration | None

    def __len__(self) -> int:
        return len(self.folder)

    def __iter__(self) -> Iterator[Case | Failure]:
        for case in self.folder:
            if self.calibration is None or isinstance(case, Failure):
                yield case
            else:
                probs = self.calibration.of(case.probs.double()[None])[0]
                yield replace(case, probs=probs.float())


def calibrated(folder: CaseFolder, validation: CaseFolder, kind: str) -> Calibrated:
    """Return a folder whose maps are calibrated by a fit to ``validation``, unless it is 'none'."""
    if kind == "none":
        return Calibrated(folder, None)
    found = fit(validation, kind, ignore_index=IGNORED, pixels=CALIBRATION_PIXELS)  # type: ignore[arg-type]
    return Calibrated(folder, found)


class Methods:
    """The methods for the maps of a network, with what they need fitted to its validation maps.

    Parameters
    ----------
    chosen : mapping of str to mapping
        By name: ``kind``, which is ``'argmax'``, ``'pruned_argmax'``, ``'rankseg'`` or ``'rule'``;
        ``options`` of `rankseg.RankSEG`; ``metrics`` that it can maximise, by default both; and
        ``presence``, false if it takes no rule of presence.
    presences : sequence of str
        The rules of presence to decide by: those of RankSEG, or ``'fitted'`` for a `PresenceModel`.
    validation : Calibrated
        Labelled maps that are not those to be decided.
    """

    def __init__(
        self, chosen: Mapping[str, Any], presences: Sequence[str], validation: Calibrated
    ) -> None:
        self.chosen, self.presences, self.validation = chosen, presences, validation

    def all(self) -> list[Method]:
        """Return every method: ``METHOD``, ``METHOD METRIC`` or ``METHOD METRIC PRESENCE``."""
        return [Method("argmax", argmax), *chain.from_iterable(map(self._of, self.chosen))]

    def _of(self, name: str) -> Iterator[Method]:
        chosen = self.chosen[name]
        if chosen.kind == "argmax":
            return  # the baseline is there anyway
        if chosen.kind == "pruned_argmax":
            yield Method(name, pruned_argmax)
            return
        for metric in chosen.get("metrics", METRICS):
            options = dict(chosen.get("options", {}))
            if chosen.kind == "rule":
                options["rule"] = self._rule(metric)
            if not chosen.get("presence", True):
                yield Method(f"{name} {metric}", RankSEG(metric, **options))
                continue
            for presence in self.presences:
                rule = self._presence if presence == "fitted" else presence
                decide = RankSEG(metric, presence=rule, **options)  # type: ignore[arg-type]
                yield Method(f"{name} {metric} {presence}", decide)

    def _rule(self, metric: Metric) -> DatasetRule:
        """Return the rule that the validation maps suggest without their labels."""
        return DatasetRule.fit(self.validation, metric, ignore_index=IGNORED, pixels=RULE_PIXELS)

    @cached_property
    def _presence(self) -> PresenceModel:
        """The model of presence for scores by which false classes score 0."""
        return PresenceModel.fit(self.validation, absent="zero", ignore_index=IGNORED)
