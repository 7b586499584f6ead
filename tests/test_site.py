"""The site builds without a warning, and what its pages show runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from conftest import REPOSITORY
from support.frameworks import framework

DOCS = REPOSITORY / "docs"
PAGES = [DOCS / f"{name}.md" for name in ("index", "getting-started", "metrics", "faq")]
PAGES += [DOCS / "guides" / f"{name}.md" for name in ("masks", "large-images", "ensembles")]


def blocks(text, language):
    """Return the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run_in_their_order(page):
    names = {}
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        exec(compile(block, page.name, "exec"), names)
    assert names.keys() & {"labels", "masks", "counts"}


def test_the_site_builds_without_a_warning(tmp_path):
    """The build runs the gallery, whose examples assert what they show."""
    framework("sphinx")
    script = [str(REPOSITORY / "scripts" / "site"), str(tmp_path)]
    environment = os.environ | {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    result = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The line that replaces" in (tmp_path / "index.html").read_text()
    assert "not the best threshold" in (tmp_path / "auto_gallery/index.html").read_text()
    assert "expected_argmax" in (tmp_path / "reference/rankseg.html").read_text()


def anchors(page):
    """Return the anchors of the headings of a Markdown page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


MARKDOWN = sorted({*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *REPOSITORY.glob("*/README.md")})


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_files_lead_somewhere(page):
    for target, anchor in re.findall(
        r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]+)?\)", page.read_text(encoding="utf-8")
    ):
        file = page if not target else page.parent / target
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor[1:] in anchors(file), f"{page.name}: {target}{anchor}"


ENGLISH, CHINESE = (
    (REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README_zh.md")
)


def test_the_first_snippet_of_the_readme_runs_as_pasted():
    names = {}
    exec(blocks(ENGLISH, "python")[0], names)
    assert names["labels"].shape == (2, 64, 64)
    assert names["masks"].shape == (2, 5, 64, 64)


def test_the_chinese_readme_has_the_same_structure_code_links_and_figures():
    def code(text):
        return re.sub(r" *#.*", "", "".join(blocks(text, r"\w+")))

    def links(text):
        return sorted(re.findall(r"\]\(([^)]+)\)", text.partition("\n## ")[2]))

    def figures(text):  # of tables row by row, of the rest as a set: the order of words differs
        rows = [re.findall(r"\d+(?:\.\d+)?", row) for row in re.findall(r"^\|.*", text, re.M)]
        return rows, set(re.findall(r"\d+\.\d+", text))

    for part in (code, links, figures):
        assert part(ENGLISH) == part(CHINESE), part.__name__
    assert re.findall("^#+", ENGLISH, re.M) == re.findall("^#+", CHINESE, re.M)


def test_the_readme_fits_150_lines():
    assert len(ENGLISH.splitlines()) <= 150
