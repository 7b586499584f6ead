"""``rankseg demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rankseg._commands._options import OUTPUT, option
from rankseg._commands._terminal import check_place, open_console, tracker, working

if TYPE_CHECKING:
    from rankseg.evaluation import Case

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, option(OUTPUT, "FILE", "the picture to write, a PNG", dir_okay=False)
    ] = Path("rankseg-demo.png"),
) -> None:
    """Compare argmax with RankSEG on images that the package brings."""
    from rankseg._commands import tables
    from rankseg._commands._comparison import print_comparison
    from rankseg._demo.example import load_sample
    from rankseg.evaluation import Case, compare, standard_methods, time_methods
    from rankseg.plots import comparison_figure, gain_and_loss

    check_place(output)
    sample = load_sample()
    names = [f"image {i}" for i in range(len(sample.probs))]
    cases = [
        Case(name, probs, label)
        for name, probs, label in zip(names, sample.probs, sample.labels, strict=True)
    ]
    methods = standard_methods()
    timings = time_methods(methods, sample.probs)
    comparison = compare(tracker("Comparing")(cases), methods, classes=sample.classes)
    console = open_console()
    console.print(
        f"{len(cases)} synthetic images of {_size(cases[0])} pixels, {len(sample.classes)} "
        "classes; maps of a small network trained by\ncross-entropy on other images of the kind.\n"
    )
    print_comparison(console, comparison, pruning_prob=0.5)
    tables.print_table(tables.time_table(timings, len(cases)))
    drawn = [methods[0], methods[2]]
    examples = gain_and_loss(
        comparison,
        drawn,
        dict(zip(names, cases, strict=True)).__getitem__,
        images=dict(zip(names, sample.images, strict=True)),
    )
    with working("Drawing"):
        comparison_figure(output, examples, sample.classes)
    console.print(f"Picture: {output}", soft_wrap=True)


def _size(case: Case) -> str:
    return " x ".join(map(str, case.label.shape))
