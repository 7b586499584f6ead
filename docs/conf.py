"""Sphinx settings of the site: ``scripts/site`` builds it."""

from __future__ import annotations

import re
from typing import Any

from rankseg import __version__

project = "rankseg"
author = "the rankseg authors"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery", "_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # two classes are named RankSEG: the MONAI transform is one

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types, shapes and units
autoclass_content = "class"
napoleon_google_docstring = False
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": (),  # no <matplotlib...> below the pictures
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 0,
}

html_theme = "furo"
html_title = f"rankseg {release}"
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


PAGES_OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Files of the repository that are not in this folder, and the pages of the site that hold them."""


def link_to_pages(app: Any, page: str, source: list[str]) -> None:
    """Let links to files beside this folder lead to pages of the site."""
    for file, target in PAGES_OUTSIDE.items():
        source[0] = source[0].replace(f"](../{file})", f"](/{target})")
        source[0] = source[0].replace(f"](../../{file})", f"](/{target})")


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let docstrings be read as plain text too: shapes need no escapes, references no markup."""
    text = "\n".join(lines)
    text = re.sub(r"^( *)\.\. \[(\d)\] ", r"\1\2. ", text, flags=re.M)
    text = re.sub(r"\[(\d)\]_", r"[\1]", text)
    outside, *rest = re.split("(``.*?``)", text, flags=re.S)
    escaped = [outside, *rest]
    escaped[::2] = [re.sub(r"\*(?=[a-z_.]+[,)])", r"\*", piece) for piece in escaped[::2]]
    lines[:] = "".join(escaped).split("\n")


def setup(app: Any) -> None:
    app.connect("source-read", link_to_pages)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
