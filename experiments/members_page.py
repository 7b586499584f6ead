"""docs/members.md: the decision for several maps of an image against those on their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks._pages import METRIC_NAMES, table
from experiments.rows import MembersRow
from experiments.tables import READINGS
from rankseg._files.whole import write_whole
from rankseg.metrics import METRICS

__all__ = ["write_members"]

INTRODUCTION = """# Several maps of one image

Folds of a cross-validation, several seeds and test-time augmentation give several maps of one
image. Decide on their mean:

```python
RankSEG("dice")(probs.mean(0))  # probs: (members, batch, classes, *spatial)
```

The maps of the members say more than their mean: which labels may occur together. So the labels
were tried that maximise the mean over the members of RMA's objective, with the sums of each member:
for Dice the sum over classes of `mean_m 2 S_mc / (n_c + mu_mc + 1)`. The search starts from the
labels of `solver="joint"` for the mean map, gives every pixel to the class with the largest gain
`mean_m (2 p_mc - f_mc) / D_mc`, and repeats while the objective rises. IoU likewise.

This page measures them on networks that differ in their seed alone, U-Nets trained by
`python -m experiments.train` with plain cross-entropy, on test images.

- All methods take the classes that argmax of the mean map predicts: they differ in outlines only.
- `members` are the labels described above. All others decide on the mean map: `joint` for
  independent labels, `correlated` with a correlation of 0.5, `dep` by `solver="DEP"`.
- Figures are points (0.01) by image, without the background. *change*: from argmax of the mean map.
  *ahead*: what `members` scores more than the method of the line, with its standard error over the
  images.
- *not counted*: absent classes do not count. *score 0*: a predicted class that the label lacks
  scores 0.
"""


def write_members(path: Path, rows: Sequence[MembersRow]) -> None:
    """Write the page, of every set the measurement with the most members."""
    most = {row.set: max(one.members for one in rows if one.set == row.set) for row in rows}
    chosen = [row for row in rows if row.members == most[row.set]]
    parts = [INTRODUCTION, _verdict(chosen)]
    for metric in METRICS:
        parts += [f"## {METRIC_NAMES[metric]}\n", _table([r for r in chosen if r.metric == metric])]
    parts.append(
        "The figures are in [members.csv](../experiments/results/members.csv), and made by\n\n"
        "```bash\npython -m experiments.members data=busi seeds=5\n"
        "python -m experiments.results collect runs\npython -m experiments.results page\n```\n"
    )
    write_whole(path, "\n".join(parts).encode())


def _verdict(rows: Sequence[MembersRow]) -> str:
    """Say where the labels of all members win or lose against RankSEG on the mean map."""
    wins, losses = [], []
    for row in rows:
        if row.method.split()[0] == "correlated":
            place = f"{row.set}, {METRIC_NAMES[row.metric]}, {dict(READINGS)[row.counted]}"  # type: ignore[index]
            line = f"{place}: {row.ahead:+.2f} ± {row.error:.2f}"
            wins += [line] if row.ahead > row.error else []
            losses += [line] if row.ahead < -row.error else []
    shipped = bool(wins) and not losses
    verdict = (
        "So `members` is worth a place in rankseg."
        if shipped
        else "So rankseg has no decision for members: decide on their mean."
    )
    return (
        "Against RankSEG's default for labels on the mean map (`correlated`), `members` wins\n"
        f"{len(wins)} comparisons by more than one standard error and loses {len(losses)}.\n"
        f"{verdict}\n\n"
        + "".join(f"- wins: {one}\n" for one in wins)
        + "".join(f"- loses: {one}\n" for one in losses)
    )


def _table(rows: Sequence[MembersRow]) -> str:
    lines = [
        [
            *(row.set, f"{row.members}, {row.images}", dict(READINGS)[row.counted], row.method),  # type: ignore[index]
            *(f"{row.score:.2f}", f"{row.change:+.2f}"),
            *(f"{row.ahead:+.2f} ± {row.error:.2f}", f"{row.wins} / {row.losses}"),
        ]
        for row in rows
    ]
    header = ["set", "members, images", "absent classes", "method", "score", "change", "ahead"]
    return table([*header, "won / lost"], lines, left=4)
