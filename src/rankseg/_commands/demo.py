"""``rankseg demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rankseg._commands._options import DETAILS, OUTPUT, option
from rankseg._commands._terminal import check_place, open_console, tracker, working

if TYPE_CHECKING:
    from rankseg.evaluation import Case

__all__ = ["demo"]


def demo(
    output: Annotated[
        Path, option(OUTPUT, "FILE", "the picture to write, a PNG", dir_okay=False)
    ] = Path("rankseg-demo.png"),
    details: DETAILS = False,
) -> None:
    """Compare argmax with RankSEG on images that the package brings."""
    from rankseg._commands._comparison import print_answer, print_details
    from rankseg._demo.example import load_sample
    from rankseg.evaluation import Case, compare, standard_methods
    from rankseg.evaluation.verdict import verdict
    from rankseg.plots import comparison_figure, gain_and_loss

    check_place(output)
    sample = load_sample()
    names = [f"image {i}" for i in range(len(sample.probs))]
    cases = [
        Case(name, probs, label)
        for name, probs, label in zip(names, sample.probs, sample.labels, strict=True)
    ]
    methods = standard_methods()
    comparison = compare(tracker("Comparing")(cases), methods, classes=sample.classes)
    console = open_console()
    console.print(
        f"{len(cases)} synthetic images of {_size(cases[0])} pixels, {len(sample.classes)} "
        "classes, and a small network.\n"
    )
    print_answer(console, comparison, verdict(comparison), pruning_prob=0.5)
    if details:
        print_details(console, comparison, pruning_prob=0.5)
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
