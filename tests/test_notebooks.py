"""The notebooks run from top to bottom; those of frameworks that are missing are skipped."""

from __future__ import annotations

import json

import matplotlib as mpl
import pytest

from conftest import REPOSITORY
from support.frameworks import framework

NOTEBOOKS = {path.stem: path for path in sorted((REPOSITORY / "docs/notebooks").glob("*.ipynb"))}
NEEDS = {"nnunet": "nibabel", "sam": "transformers", "mmseg": "mmseg", "paddleseg": "paddleseg"}
NEEDS |= {"monai": "monai", "transformers": "transformers"}


def cells(notebook):
    """Return the code of every cell of a notebook."""
    book = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name):
    if name in NEEDS:
        framework(NEEDS[name])
    mpl.use("agg")
    first, *others = cells(NOTEBOOKS[name])
    assert "%pip install" in first
    names = {}
    for number, code in enumerate(others, 1):
        exec(compile(code, f"{name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_shows_was_run(name):
    book = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    prints = [cell for cell in code if "print(" in "".join(cell["source"])]
    assert all(cell["outputs"] for cell in prints)
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
