"""What all figures share: fonts, titles, legends, and how text of users is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rankseg._files.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FONT_SIZE",
    "drawable",
    "heading",
    "legend_below",
    "name_ticks",
    "new_figure",
]
__all__ += ["require_matplotlib", "shortened", "text_width", "title", "write_figure"]

DOTS_PER_INCH: Final = 150
FONT_SIZE: Final = 11.0
"""Points: 15 pixels where a figure 3.6 inches wide fills a phone of 390 pixels."""
ELLIPSIS: Final = "..."


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'rankseg[cli]'", name="matplotlib"
        ) from error


def write_figure(path: Path | str, figure: Figure) -> None:
    """Write a figure as a PNG, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "rankseg"})
    write_whole(Path(path), picture.getvalue())


def new_figure(
    width: float, height: float, *, columns: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure of a width and height in inches, and its axes, row by row."""
    require_matplotlib()
    from matplotlib.figure import Figure  # needs no display and leaves no global state

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=FONT_SIZE)
        one.xaxis.label.set_fontsize(FONT_SIZE)
        one.yaxis.label.set_fontsize(FONT_SIZE)
    return figure, axes


def heading(figure: Figure, text: str) -> None:
    """Write the title of a figure of one axes, from the left edge."""
    room = figure.get_figwidth() - 0.2
    figure.suptitle(
        shortened(text, room), x=0.1 / figure.get_figwidth(), ha="left", fontsize=FONT_SIZE,
        parse_math=False,
    )  # fmt: skip


def title(axes: Axes, text: str) -> None:
    """Write the title of one of several axes, shortened to its column."""
    columns = axes.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    width = axes.figure.get_figwidth() / columns - 0.55  # type: ignore[union-attr]
    axes.set_title(shortened(text, width), fontsize=FONT_SIZE, loc="left", parse_math=False)


def name_ticks(axes: Axes, places: Sequence[float], names: Sequence[str], width: float) -> None:
    """Write names at places of the vertical axis, each in at most ``width`` inches."""
    axes.set_yticks(places, [shortened(name, width) for name in names])
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Write the one legend of a figure below its axes.

    Each handle is named by its label, also one that begins with ``_``, which matplotlib's own
    legends leave out.
    """
    names = [str(handle.get_label()) for handle in handles]
    room = figure.get_figwidth() - 0.3
    widest = min(room, max(text_width(drawable(name)) for name in names) + 0.5)
    legend = figure.legend(
        handles,
        list(map(str, range(len(handles)))),
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(room / widest))),
        fontsize=FONT_SIZE,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.0,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shortened(name, room - 0.6))


def drawable(text: str) -> str:
    """Write what the font lacks as escapes of Python's: boxes would all look the same."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in rcParams["font.family"]]
    return "".join(
        character
        if any(font.get_char_index(ord(character)) for font in fonts)
        else ascii(character)[1:-1]
        for character in text
    )


def text_width(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """Return the width in inches of text that the font can draw."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight=weight)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def shortened(text: str, width: float, size: float = FONT_SIZE, weight: str = "normal") -> str:
    """Return text that the font can draw in ``width`` inches: its middle is left out if need be.

    The ends stay, since names of cases and methods often differ in either alone.
    """
    text = drawable(text)
    kept = len(text)
    short = text
    while kept > 2 and text_width(short, size, weight) > width:
        kept -= 1
        short = text[: kept - kept // 2] + ELLIPSIS + text[len(text) - kept // 2 :]
    return short
