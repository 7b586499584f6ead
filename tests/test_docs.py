"""The pages say what is in the code, under names that exist."""

from __future__ import annotations

import pkgutil
import re

import pytest

from conftest import REPOSITORY
from rankseg._commands import app

THEORY = (REPOSITORY / "docs" / "theory.md").read_text(encoding="utf-8")

NAMES = sorted(set(re.findall(r"`(rankseg(?:\.\w+)+)`", THEORY)))


@pytest.mark.parametrize("name", NAMES)
def test_the_theory_names_what_exists(name):
    assert pkgutil.resolve_name(name) is not None


def test_every_name_in_the_theory_is_looked_at():
    spans = re.findall(r"`([^`\s]+)`", THEORY)
    assert {span for span in spans if span.startswith("rankseg.")} == set(NAMES)


def test_the_reference_lists_every_command():
    reference = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `rankseg (\w+)` \|", reference, re.M)
    assert listed == [one.name or one.callback.__name__ for one in app.registered_commands]
