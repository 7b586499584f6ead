"""The page that sums up what ``correlation.py`` measured, every number of it from the rows."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from _correlation_rows import COUNTED, METRICS, Figure, Origin, Row, Way
from _pages import FEWEST_FOR_CERTAINTY, METRIC_NAMES, table

from rankseg.metrics import Counted, Metric

PRUNING_PROB = 0.5
"""That of all tables but the one about it: the library's default."""

ADVISED = ("joint", 0.5)
"""Solver and correlation for a user without labels; the page says why, and what it loses."""

SCENARIOS = {
    "stored": "All sets as stored",
    "corrected": "Class weights undone where they are known, against argmax of the same maps",
    "undone": "Class weights undone where they are known, against argmax of the maps as stored",
}
COUNTED_NAMES: dict[Counted, str] = {"label": "not counted", "either": "score 0"}
AGGREGATE_NAMES = {
    "I": "by image",
    "C": "by class",
    "D": "data set",
    "I@0.25": "worst quarter of images",
    "C@0.25": "worst quarter by class",
}

INTRODUCTION = """\
# Correlated labels, presence and class weights on real probability maps

RankSEG as published takes the labels of pixels for independent; `correlation` says how strongly
they vary together instead (towards 1 a mask mostly nears that of the threshold 0.5). `pruning_prob`
decides which classes are present. `prior_correction` undoes the class weights a network was trained
with. This page measures all three on every set we have, losses as well as gains, and says what we
would set where nothing can be measured. Its numbers and tables, and
[all that is behind them](../benchmarks/results/correlation.csv), are written by

```
python benchmarks/correlation.py ../shared/data/maps
```

(rankseg {version}, commit {commit}, {date}, {machine}; the maps are not part of this repository.)

**What is compared.** *Argmax* (for one class the threshold 0.5); *pruned argmax*, over the classes
whose largest probability in the image exceeds `pruning_prob`, which RankSEG decides about presence
by too; RankSEG by its published rule (*RMA*, correlation 0), and *RMA* and *joint* for labels of
correlation `r`. RankSEG maximises the metric that it is scored by. Of one class there are masks,
and `joint` is `RMA`.

**How it is scored.** In points, 100 times Dice or IoU; the background is a class like others. *By
image* is the mean over the classes of an image, then over images (mIoU^I); *by class* over the
images of a class, then over classes (mIoU^C); *data set* sums the counts first (mIoU^D); *worst
quarter* is the first over the quarter of the images that score lowest. A class that an image lacks
is *not counted*, or *scores 0* where it is predicted: two conventions that differ by more than the
methods do.

**Intervals** are 95 % percentile bootstrap intervals of the change from argmax, paired: all methods
are scored on the same {resamples:,} draws of the images. A change is **bold** where its interval
excludes zero and the images fall into at least {fewest} clusters. Each is a cluster of its own but
for the frames of CamVid, of which neighbours are alike: these are drawn by drive or, where a set
has one drive only, in blocks of consecutive frames. That is still optimistic, for one drive is one
place and one day. Sets of fewer than {fewest} images have a section, but no part in means over
sets. The three CamVid networks of half size saw the same frames and are not independent sets.
"""

ADVICE = """\
## Without labels

We would set `solver="{solver}", correlation={correlation:g}`, leave `pruning_prob` at
{pruning_prob:g}, and undo class weights wherever they are known. Changes here are of IoU by image,
means over the sets, for classes that are absent: not counted / scoring 0 where predicted. The means
hang on few sets, and most on camvid-enet, whose class weights are the most uneven.

- **Class weights first.** RankSEG believes probabilities, so inflated ones cost it more than they
  cost argmax, for which the weights do what they were meant to. On the maps as stored the setting
  changes {advised_stored}; with the weights undone {advised_undone}, against the same baseline,
  argmax as stored. Argmax itself changes {argmax_undone} as the weights are undone: undo them for
  RankSEG, not for argmax.
- **Correlation.** From 0, the published rule, to {correlation:g} the change goes from
  {published_stored} to {advised_stored} on the maps as stored, and from {published_corrected} to
  {advised_corrected} on the corrected ones, against argmax of the same maps; the lowest change of
  any set goes from {lowest_published} to {lowest_advised}. Between 0.2 and 0.7 the mean on
  corrected maps stays between {flat}: there is no need to know the number well.
- **Presence.** A higher `pruning_prob` is a bet on the scoring: it can pay only where false classes
  score 0, and it leaves out classes that are there, more of them once the weights are undone. With
  0.8 the setting changes {pruned_stored} instead of {advised_stored} as stored, and
  {pruned_corrected} instead of {advised_corrected} corrected. How you will be scored is not in the
  maps; not knowing it, do not bet.
- **Solver.** `RMA` with the same correlation changes {rma_stored} as stored and {rma_corrected}
  corrected, against argmax of the same maps; its lowest change of any set is {lowest_other} where
  that of `joint` is {lowest_advised}. On most sets the two differ by less than the images can tell
  apart.

### Where this setting loses

Every score of a set of at least {fewest} images that is lower than that of argmax by
{noticeable:g} points or more.
"""

NOTICEABLE = 0.05
"""Points below which a loss is not listed."""


@dataclass(frozen=True)
class Choice:
    """A way to decide, whatever the set."""

    method: str
    correlation: float | None = None
    pruning_prob: float | None = PRUNING_PROB

    def decided(self, way: Way) -> bool:
        mine = (self.method, self.correlation, self.pruning_prob)
        return mine == (way.method, way.correlation, way.pruning_prob)

    @property
    def name(self) -> str:
        if self.correlation is None:
            return self.method
        published = ", published" if self.method == "RMA" and self.correlation == 0 else ""
        return f"{self.method} r={self.correlation:g}{published}"


def page(origin: Origin, rows: Sequence[Row], resamples: int) -> str:
    parts = [
        INTRODUCTION.format(
            version=origin.version,
            commit=origin.commit,
            date=origin.date[:10],
            machine=origin.machine,
            resamples=resamples,
            fewest=FEWEST_FOR_CERTAINTY,
        )
    ]
    if any(Choice(*ADVISED).decided(row.way) for row in rows):
        parts += [wrap(advice(rows)), losses(rows)]
    parts.append("## Over the sets\n")
    for scenario, title in SCENARIOS.items():
        parts += over_sets(of_scenario(rows, scenario), title)
    parts += presence(rows)
    for name, maps in dict.fromkeys((row.way.set, row.way.maps) for row in rows):
        parts.append(section(rows, name, maps))
    return "\n".join(parts)


def of_scenario(rows: Iterable[Row], scenario: str) -> list[Row]:
    """Return one reading of every set that is large enough for a mean over sets."""
    large = [row for row in rows if row.record.images >= FEWEST_FOR_CERTAINTY]
    correctable = {row.way.set for row in large if row.way.maps == "corrected"}
    baseline = "argmax as stored" if scenario == "undone" else "argmax"
    return [
        row
        for row in large
        if (
            (row.way.maps, row.way.baseline) == ("corrected", baseline)
            if scenario != "stored" and row.way.set in correctable
            else row.way.maps == "stored"
        )
    ]


def choices(rows: Iterable[Row]) -> list[Choice]:
    """Return the ways to decide, in order, at the usual ``pruning_prob``."""
    found = (
        Choice(row.way.method, row.way.correlation)
        for row in rows
        if row.way.pruning_prob == PRUNING_PROB
    )
    order = ("pruned argmax", "RMA", "joint")
    return sorted(dict.fromkeys(found), key=lambda choice: order.index(choice.method))


# Over the sets


def advice(rows: Sequence[Row]) -> str:
    solver, correlation = ADVISED
    stored, corrected, undone = (of_scenario(rows, scenario) for scenario in SCENARIOS)
    advised, published = Choice(*ADVISED), Choice("RMA", 0.0)
    pruned, other = Choice(solver, correlation, 0.8), Choice("RMA", correlation)
    similar = [
        mean(figures_of(corrected, choice, counted=rule))
        for choice in choices(corrected)
        for rule in COUNTED
        if choice.method == solver and 0.2 <= (choice.correlation or 0) <= 0.7
    ]
    return ADVICE.format(
        solver=solver,
        correlation=correlation,
        pruning_prob=PRUNING_PROB,
        advised_stored=both(stored, advised),
        advised_corrected=both(corrected, advised),
        advised_undone=both(undone, advised),
        argmax_undone=both(undone, Choice("argmax", None, None)),
        published_stored=both(stored, published),
        published_corrected=both(corrected, published),
        lowest_published=lowest([*stored, *corrected], published),
        lowest_advised=lowest([*stored, *corrected], advised),
        lowest_other=lowest([*stored, *corrected], other),
        flat=f"{signed(min(similar))} and {signed(max(similar))}",
        pruned_stored=both(stored, pruned),
        pruned_corrected=both(corrected, pruned),
        rma_stored=both(stored, other),
        rma_corrected=both(corrected, other),
        fewest=FEWEST_FOR_CERTAINTY,
        noticeable=NOTICEABLE,
    )


def figures_of(
    rows: Iterable[Row],
    choice: Choice,
    metric: Metric = "iou",
    counted: Counted | None = None,
    aggregate: str = "I",
) -> list[Figure]:
    """Return the figure of every set; by both conventions if none is named."""
    return [
        row.figures[aggregate]
        for row in rows
        if choice.decided(row.way)
        and row.way.metric == metric
        and counted in (None, row.way.counted)
    ]


def mean(figures: Sequence[Figure]) -> float:
    return sum(figure.change for figure in figures) / len(figures) if figures else math.nan


def both(rows: Sequence[Row], choice: Choice) -> str:
    """Write the mean change over the sets by both conventions."""
    return " / ".join(signed(mean(figures_of(rows, choice, counted=rule))) for rule in COUNTED)


def lowest(rows: Sequence[Row], choice: Choice) -> str:
    """Write the lowest change of any set by either convention."""
    return signed(min((figure.change for figure in figures_of(rows, choice)), default=math.nan))


def losses(rows: Iterable[Row]) -> str:
    """List what the setting that is advised loses, against either baseline."""
    lines: dict[tuple[str, ...], dict[Counted, str]] = {}
    for row in rows:
        way = row.way
        if not Choice(*ADVISED).decided(way) or row.record.images < FEWEST_FOR_CERTAINTY:
            continue
        for aggregate, name in AGGREGATE_NAMES.items():
            figure = row.figures[aggregate]
            if figure.change <= -NOTICEABLE:
                key = (way.set, way.maps, way.baseline, f"{METRIC_NAMES[way.metric]} {name}")
                shown = change(figure, row.record.clusters) + interval(figure)
                lines.setdefault(key, {})[way.counted] = shown
    header = ["set", "maps", "against", "score"]
    header += [f"absent classes {COUNTED_NAMES[rule]}" for rule in COUNTED]
    body = [[*key, *(cells.get(rule, "") for rule in COUNTED)] for key, cells in lines.items()]
    return table(header, body, left=4)


def over_sets(rows: Sequence[Row], title: str) -> list[str]:
    """Show the mean and the lowest change of every way to decide, by every aggregate."""
    sets = dict.fromkeys(row.way.set for row in rows)
    parts = [f"### {title}\n", f"Mean change over {len(sets)} sets / lowest change of any set.\n"]
    shown = [(aggregate, rule) for aggregate in ("I", "C", "D", "I@0.25") for rule in COUNTED]
    for metric in METRICS:
        header = [f"{METRIC_NAMES[metric]}, `pruning_prob` {PRUNING_PROB:g}"]
        header += [f"{AGGREGATE_NAMES[name]}, {COUNTED_NAMES[rule]}" for name, rule in shown]
        lines = [
            [choice.name]
            + [spread(figures_of(rows, choice, metric, rule, name)) for name, rule in shown]
            for choice in choices(rows)
        ]
        parts.append(table(header, lines))
    return parts


def presence(rows: Sequence[Row]) -> list[str]:
    """Show the mean and lowest change by image for every ``pruning_prob``."""
    prunings = sorted({row.way.pruning_prob for row in rows if row.way.pruning_prob is not None})
    parts = [
        "## Presence\n",
        "Mean change by image over the sets / lowest change of any set, by `pruning_prob`; class "
        "weights\nundone where they are known, against argmax of the same maps.\n",
    ]
    corrected = of_scenario(rows, "corrected")
    shown = [(rule, pruning_prob) for rule in COUNTED for pruning_prob in prunings]
    for metric in METRICS:
        header = [METRIC_NAMES[metric]]
        header += [f"{pruning_prob:g}, {COUNTED_NAMES[rule]}" for rule, pruning_prob in shown]
        lines = []
        for choice in choices(corrected):
            line = [choice.name]
            for rule, pruning_prob in shown:
                here = Choice(choice.method, choice.correlation, pruning_prob)
                line.append(spread(figures_of(corrected, here, metric, rule)))
            lines.append(line)
        parts.append(table(header, lines))
    return parts


# Set by set


def section(rows: Sequence[Row], name: str, maps: str) -> str:
    """Write everything about one reading of one set, at the usual ``pruning_prob``."""
    mine = [row for row in rows if (row.way.set, row.way.maps) == (name, maps)]
    title = name if maps == "stored" else f"{name}, class weights undone"
    record = mine[0].record
    drawn = "" if record.clusters == record.images else f", drawn as {record.clusters} clusters"
    parts = [f"## {title}\n", f"{record.images} images{drawn}.\n"]
    parts += [details([row for row in mine if row.way.metric == metric]) for metric in METRICS]
    return "\n".join(parts)


def details(rows: Sequence[Row]) -> str:
    """Show one metric of one reading: scores of argmax, and the changes of the other ways."""
    against = dict.fromkeys(row.way.baseline for row in rows)
    shown = [("I", rule, baseline) for baseline in against for rule in COUNTED]
    shown += [(name, rule, "argmax") for name in ("C", "D", "I@0.25") for rule in COUNTED]
    header = [METRIC_NAMES[rows[0].way.metric]]
    for name, rule, baseline in shown:
        suffix = "" if baseline == "argmax" else f", against {baseline}"
        header.append(f"{AGGREGATE_NAMES[name]}, {COUNTED_NAMES[rule]}{suffix}")
    header.insert(2, "won / lost / tied")
    lines = []
    for choice in (Choice("argmax", None, None), *choices(rows)):
        found = {
            (row.way.counted, row.way.baseline): row for row in rows if choice.decided(row.way)
        }
        first = found["label", "argmax"].record
        line = [choice.name]
        for name, rule, baseline in shown:
            figure = found[rule, baseline].figures[name]
            if choice.method == "argmax" and baseline == "argmax":
                line.append(f"{figure.value:.2f}")
            else:
                # The intervals of the other aggregates are in the CSV file.
                line.append(
                    change(figure, first.clusters) + (interval(figure) if name == "I" else "")
                )
        line.insert(
            2, "" if choice.method == "argmax" else f"{first.won} / {first.lost} / {first.tied}"
        )
        lines.append(line)
    return table(header, lines)


# Numbers


def signed(points: float) -> str:
    rounded = round(points, 2)
    return "-" if math.isnan(points) else f"{rounded:+.2f}" if rounded else "0.00"


def spread(figures: Sequence[Figure]) -> str:
    if not figures:
        return "-"
    return f"{signed(mean(figures))} / {signed(min(figure.change for figure in figures))}"


def change(figure: Figure, clusters: int) -> str:
    shown = signed(figure.change)
    certain = clusters >= FEWEST_FOR_CERTAINTY and (figure.low > 0 or figure.high < 0)
    return f"**{shown}**" if certain else shown


def interval(figure: Figure) -> str:
    if math.isnan(figure.low):
        return ""
    return f" ({signed(figure.low)} to {signed(figure.high)})"


def wrap(text: str) -> str:
    """Fill the lines of paragraphs and lists, once their numbers are in."""
    blocks = text.strip().split("\n\n")
    filled = ["\n".join(map(fill, re.split(r"\n(?=- )", block))) for block in blocks]
    return "\n\n".join(filled) + "\n"


def fill(item: str) -> str:
    indent = "  " if item.startswith("- ") else ""
    return textwrap.fill(
        " ".join(item.split()), 100, subsequent_indent=indent, break_on_hyphens=False
    )
