"""The report on screens and phones; what it says is in ``tests/commands/test_cli_workbench.py``."""

from __future__ import annotations

import base64
import io
import re

import pytest
import torch
from PIL import Image

from rankseg import report
from rankseg.calibration import reliability
from rankseg.evaluation import Case, compare, standard_methods
from support import maps


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    cases = {}
    for seed in range(4):
        probs, label = maps.labelled(seed)
        name = f"case {seed}"
        cases[name] = Case(name, torch.from_numpy(probs).float(), torch.from_numpy(label).long())
    methods = standard_methods(metrics=["dice"])
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report(
        path,
        compare(cases.values(), methods, ignore_index=255),
        methods=methods,
        read=cases.__getitem__,
        reliability=reliability(cases.values(), ignore_index=255),
        ignore_index=255,
    )
    return path.read_text()


def widths(page, pattern):
    """Return the widths in pixels of the pictures embedded after a pattern."""
    found = re.findall(pattern + r'"data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))).width for one in found]


def test_every_picture_has_a_narrow_one_for_phones(page):
    narrow = widths(page, r'<source media="\(max-width: 600px\)" srcset=')
    wide = widths(page, r"<img alt=\"[^\"]+\" src=")
    assert len(narrow) == len(wide) == page.count("<picture>") == 6
    assert set(narrow) == {round(2 * report.DOTS_PER_INCH * report.NARROW)}
    assert set(wide) == {round(report.DOTS_PER_INCH * report.WIDE)}


def test_tables_scroll_inside_their_box(page):
    assert page.count("<table>") == page.count('<div class="scroll"><table>') > 0
    assert re.search(r"\.scroll \{ overflow-x: auto;", page)


def test_no_text_is_smaller_than_15_pixels(page):
    style = page[page.index("<style>") : page.index("</style>")]
    sizes = re.findall(r"font(?:-size)?: ([\d.]+)(px|rem)", style)
    assert len(sizes) >= 3
    assert min(float(size) * (16 if unit == "rem" else 1) for size, unit in sizes) >= 15
