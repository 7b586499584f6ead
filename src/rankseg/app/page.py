"""The page: inputs, what it shows, and which of them follows from which."""

from __future__ import annotations

import html
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rankseg._common.optional import require
from rankseg._decision.solvers import solvers_taking
from rankseg._files.batch import reason_of
from rankseg._formats import write_labels
from rankseg.app.shown import PICTURES, Shown, show
from rankseg.app.uploads import Form, example_count, read_upload
from rankseg.evaluation import Case

__all__ = ["build", "launch"]

METRICS: Final = [("Dice", "dice"), ("IoU", "iou")]
SOLVERS: Final = ("auto", *solvers_taking("unassigned_policy"))
KINDS: Final = [
    ("probabilities", ""),
    ("logits, softmax", "softmax"),
    ("logits, sigmoid", "sigmoid"),
]
LOGITS_HINT: Final = ". On this page, choose what the maps hold."
AXES: Final = [("first", 0), ("second", 1), ("third", 2)]

HOUR: Final = 60 * 60
"""Seconds. Uploads are removed after a day, of a hosted page after an hour, and at the end."""
MEGABYTE: Final = 1 << 20
EXPANSION: Final = 16
"""How many times its largest upload a file of a hosted page may unpack to."""
MOST_WAITING: Final = 20
"""Visitors of a hosted page that may wait for a decision."""

INTRODUCTION: Final = """# RankSEG beside argmax
The same probabilities, decided by argmax and so that the expected Dice or IoU is largest. Expected
scores are what the probabilities promise, without any label. Choose an example or upload maps: the
page decides at every change."""

STYLE: Final = """<style>
.message { padding: .5rem .8rem; border-left: .3rem solid; margin: .3rem 0; color: #1b1b1b;
  overflow-wrap: anywhere; }
.error { background: #fdeee6; border-color: #D55E00; }
.warning { background: #fdf8e2; border-color: #B59B00; }
#legend .legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; list-style: none; padding: 0;
  margin: .3rem 0; }
#legend .legend li { display: flex; align-items: center; gap: .4rem; margin: 0; }
#legend .legend img { width: 1.1em; height: 1.1em; margin: 0; border: 1px solid #606060;
  image-rendering: pixelated; }
#scores .scroll { overflow-x: auto; }
#scores table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0;
  border: 0; }
#scores th, #scores td { padding: .2rem .6rem; text-align: right; white-space: nowrap;
  border: 0; border-bottom: 1px solid #8886; }
#scores thead th { white-space: normal; vertical-align: bottom; }
#scores th:first-child { text-align: left; }
#curves img { max-width: 100%; background: white; }
</style>"""


@dataclass(frozen=True, eq=False)
class _Decided:
    """What a visitor sees: the answer to a form, None if there was an error, and its files."""

    form: Form
    shown: Shown | None
    folder: Path


def build(*, max_upload: int | None = None) -> Any:
    """Make the page.

    Parameters
    ----------
    max_upload : int, optional
        Of a page that others reach: the megabytes of the largest upload. The page then offers no
        model, which would be a folder of the server or fill its memory, and refuses files that
        unpack to more than 16 times as much.

    Returns
    -------
    gradio.Blocks
        Its ``launch()`` serves it; so does ``rankseg app``, which says less.

    Raises
    ------
    ImportError
        If gradio is missing.

    Examples
    --------
    >>> from rankseg.app import build
    >>> build().launch()  # doctest: +SKIP
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    gradio = require("gradio", "app", "the app")
    age = HOUR if max_upload else 24 * HOUR
    with gradio.Blocks(
        title="RankSEG beside argmax", analytics_enabled=False, delete_cache=(age, age)
    ) as page:
        _Page(gradio, max_upload).connect(page)
    if max_upload:
        page.queue(max_size=MOST_WAITING)
    return page


def launch(page: Any, host: str, port: int | None, max_upload: int | None = None) -> str:
    """Serve the page in the background without a word; return its address."""
    gradio = require("gradio", "app", "the app")
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        theme=gradio.themes.Default(
            text_size="lg", font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ).set(block_label_text_size="*text_md", block_info_text_size="*text_md"),
        max_file_size=None if max_upload is None else f"{max_upload}mb",
    )
    return str(address)


class _Page:
    """The components of the page, and the functions that fill them."""

    def __init__(self, gradio: Any, max_upload: int | None) -> None:
        self.gradio = gradio
        self.largest = None if max_upload is None else EXPANSION * max_upload * MEGABYTE
        self.scratch = tempfile.TemporaryDirectory(prefix="rankseg-", ignore_cleanup_errors=True)
        gradio.HTML(STYLE, padding=False)
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                self.inputs = self._make_inputs(max_upload)
            with gradio.Column(scale=3, min_width=300):
                self._make_outputs()
        age = HOUR if max_upload else None
        self.state = gradio.State(None, time_to_live=age, delete_callback=_remove_files)

    def _make_inputs(self, max_upload: int | None) -> dict[str, Any]:
        """Make the inputs, by the names of the fields of `Form`."""
        gradio = self.gradio
        most = f", at most {max_upload} MB" if max_upload else ""
        made = {
            "maps": self._file("maps", f"Probability maps, or an image{most}"),
            "truth": self._file("truth", "Truth: a label map (optional)"),
            "image": self._file("image", "Image (optional)"),
            "example": gradio.Dropdown(
                [(f"example {number}", number) for number in range(example_count())],
                value=0,
                label="Or an example",
            ),
            "from_logits": gradio.Radio(KINDS, value="", label="The maps hold"),
            "metric": gradio.Radio(METRICS, value="dice", label="Metric"),
        }
        with gradio.Accordion("More options", open=False):
            made |= {
                "solver": gradio.Radio(SOLVERS, value="auto", label="Solver"),
                "pruning_prob": gradio.Slider(0, 1, 0.5, step=0.05, label="pruning_prob"),
                "correlation": gradio.Slider(0, 0.95, 0.5, step=0.05, label="correlation"),
                "smooth": gradio.Number(0, label="smooth"),
                "key": gradio.Textbox("", label="Array of a file that holds several"),
                "classes": gradio.Textbox("", label="Class names", placeholder="sky, road, car"),
                "ignore_index": gradio.Number(255, label="Ignored label of the truth"),
                "model": gradio.Textbox(
                    "",
                    label="Model for an image",
                    placeholder="Hugging Face id or folder; empty: the examples' network",
                    visible=max_upload is None,
                ),
            }
        for name in ("pruning_prob", "correlation"):
            # Gradio prints a traceback of a number out of bounds; RankSEG's error goes to the page.
            made[name].preprocess = lambda value: value
        return {name: made[name] for name in Form._fields}

    def _file(self, name: str, label: str) -> Any:
        return self.gradio.File(label=label, height=170, elem_id=name)

    def _make_outputs(self) -> None:
        gradio = self.gradio
        self.messages = gradio.HTML(elem_id="messages", padding=False)
        self.summary = gradio.Markdown(elem_id="summary")
        with gradio.Row():
            self.opacity = gradio.Slider(0, 1, 0.7, step=0.05, label="Opacity of the labels")
            self.slice = gradio.Slider(0, 1, 0, step=1, label="Slice", visible=False)
            self.axis = gradio.Radio(AXES, value=0, label="Axis of the slices", visible=False)
        self.pictures = []
        for names in (PICTURES[:2], PICTURES[2:]):
            with gradio.Row():
                self.pictures += [
                    gradio.Image(
                        label=name,
                        alt_text=name,
                        interactive=False,
                        format="png",
                        buttons=["fullscreen"],
                        visible=name != "truth",
                    )
                    for name in names
                ]
        self.legend = gradio.HTML(elem_id="legend", padding=False)
        self.table = gradio.HTML(elem_id="scores", padding=False)
        self.curves = gradio.HTML(elem_id="curves", padding=False)
        self.files = gradio.File(
            label="The decision, as PNG and NPY", file_count="multiple", interactive=False
        )

    def connect(self, page: Any) -> None:
        """Let the page decide when it opens and at every change of an input."""
        typed = {"key", "classes", "model"}  # read when they are left, not at every letter
        inputs, on = self.inputs, self.gradio.on
        changed = [one.change for name, one in inputs.items() if name not in {*typed, "example"}]
        left = [event for name in typed for event in (inputs[name].submit, inputs[name].blur)]
        options: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "minimal"}
        given = [self.state, self.opacity, *inputs.values()]
        outputs = [
            *(self.state, self.messages, self.summary, self.slice, self.axis, *self.pictures),
            *(self.legend, self.table, self.files, self.curves),
        ]
        opened = on(
            [page.load, *changed, *left], self.decide, given, outputs, api_name="decide", **options
        )
        files = [inputs[name] for name in ("maps", "truth", "image")]
        options["api_name"] = False
        chosen = inputs["example"].input(lambda: [None] * len(files), None, files, **options)
        chosen = chosen.then(self.decide, given, outputs, **options)
        for decided in (opened, chosen):  # curves take longer, and are drawn after the decision
            decided.then(self.draw_curves, self.state, self.curves, **options)
        view = [self.state, self.opacity, self.slice, self.axis]
        moved = [self.opacity.input, self.slice.input]
        on(moved, self.draw, view, self.pictures, **options)
        self.axis.input(self.turn, view, [self.slice, *self.pictures], **options)

    def decide(self, state: _Decided | None, opacity: float, *values: Any) -> list[Any]:
        """Decide what the inputs name; return the values of all outputs."""
        form = Form(*values)
        if state is not None and state.form == form:
            return [self.gradio.skip()] * 13
        _remove_files(state)
        folder = Path(tempfile.mkdtemp(dir=self.scratch.name))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            try:
                shown, note, files = self._answer(form, folder)
            except Exception as error:  # libraries that read files raise what they like
                notes = [str(one.message) for one in warned if one.category is UserWarning]
                decided = _Decided(form, None, folder)
                return self._failed(decided, reason_of(error), notes)
        notes = [str(one.message) for one in warned if one.category is UserWarning]
        number, count = shown.most_different_slice(), shown.slices()
        slider = self.gradio.Slider(
            value=number, maximum=max(1, count - 1), visible=count > 1, label=f"Slice of {count}"
        )
        axes = self.gradio.Radio(value=0, visible=count > 1)
        return [
            *(_Decided(form, shown, folder), self._messages([], [*notes, *filter(None, [note])])),
            *(shown.summary, slider, axes, *self._images(shown, opacity, number, 0)),
            *(shown.legend(), shown.table(), files, ""),
        ]

    def _failed(self, decided: _Decided, reason: str, notes: Sequence[str]) -> list[Any]:
        """Return outputs that show an error, and nothing of an earlier decision."""
        hidden = self.gradio.update(visible=False)
        no_pictures = [self.gradio.update(value=None, visible=False)] * len(PICTURES)
        messages = self._messages([reason], notes)
        return [decided, messages, "", hidden, hidden, *no_pictures, "", "", None, ""]

    def _answer(self, form: Form, folder: Path) -> tuple[Shown, str, list[str]]:
        """Decide a form; return what to show, a note, and the files written to a folder."""
        upload = read_upload(form, folder, self.largest)
        options: dict[str, Any] = {"solver": form.solver, "metric": form.metric}
        probs = upload.case.probs if isinstance(upload.case, Case) else upload.case
        if form.solver == "joint" and len(probs) == 1:
            options["solver"] = "RMA"  # the same of one channel
        if form.solver == "auto" or form.solver in solvers_taking("correlation"):
            options["correlation"] = form.correlation
        shown = show(
            upload.case,
            upload.classes,
            labelled=upload.labelled,
            image=upload.image,
            ignore_index=upload.ignore_index,
            pruning_prob=form.pruning_prob,
            smooth=form.smooth,
            **options,
        )
        labels = shown.labels["RankSEG"].clip(0)
        endings = [".npy", ".png"] if labels.ndim == 2 else [".npy"]
        files = [folder / f"decision{suffix}" for suffix in endings]
        for path in files:
            write_labels(path, labels)
        return shown, upload.note, [str(path) for path in files]

    def _messages(self, errors: Sequence[str], notes: Sequence[str]) -> str:
        """Return HTML of errors and warnings, without the folders that uploads lie in."""
        errors = [f"{one}{LOGITS_HINT if 'from_logits' in one else ''}" for one in errors]
        lines = [("error", f"Error: {one}") for one in errors]
        lines += [("warning", f"Warning: {one}") for one in dict.fromkeys(notes)]
        return "".join(
            f'<p class="message {kind}" role="alert">{html.escape(_without_folders(text))}</p>'
            for kind, text in lines
        )

    def draw(self, state: _Decided | None, opacity: float, number: float, axis: int) -> list[Any]:
        """Return the pictures of a slice."""
        if state is None or state.shown is None:
            return [self.gradio.skip()] * len(PICTURES)
        return self._images(state.shown, opacity, int(number), axis)

    def draw_curves(self, state: _Decided | None) -> str:
        """Return HTML with the score against the cut."""
        return "" if state is None or state.shown is None else state.shown.curves

    def turn(self, state: _Decided | None, opacity: float, number: float, axis: int) -> list[Any]:
        """Return the slider and the pictures for slices along another axis."""
        if state is None or state.shown is None:
            return [self.gradio.skip()] * (1 + len(PICTURES))
        count = state.shown.slices(axis)
        number = state.shown.most_different_slice(axis)
        slider = self.gradio.Slider(
            value=number, maximum=max(1, count - 1), label=f"Slice of {count}"
        )
        return [slider, *self._images(state.shown, opacity, number, axis)]

    def _images(self, shown: Shown, opacity: float, number: int, axis: int) -> list[Any]:
        drawn = shown.pictures(min(number, shown.slices(axis) - 1), axis, opacity)
        return [
            self.gradio.Image(value=drawn.get(name), visible=name in drawn) for name in PICTURES
        ]


def _remove_files(decided: _Decided | None) -> None:
    """Remove the files of a decision: Gradio has copies of those that the page offers."""
    if decided is not None:
        shutil.rmtree(decided.folder, ignore_errors=True)


def _without_folders(text: str) -> str:
    """Leave the temporary folders of uploads out of a message."""
    words = (
        Path(word).name if word.startswith(tempfile.gettempdir() + os.sep) else word
        for word in text.split(" ")
    )
    return " ".join(words)
