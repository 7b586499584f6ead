"""What `app/` says to a server is what the command and the package know."""

from __future__ import annotations

import json
import re

from conftest import REPOSITORY
from support.command_line import run

DOCKERFILE = (REPOSITORY / "app/Dockerfile").read_text()
README = (REPOSITORY / "app/README.md").read_text()
COMMAND = json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.M).group(1))


def test_the_command_of_the_container_is_known():
    told = run("app", "--help").output
    assert COMMAND[:2] == ["rankseg", "app"]
    assert "--max-upload" in COMMAND
    for option in COMMAND[2::2]:
        assert option in told


def test_the_space_finds_the_port():
    port = COMMAND[COMMAND.index("--port") + 1]
    head = README.split("---")[1]
    assert "sdk: docker\n" in head
    assert f"app_port: {port}\n" in head
    assert f"EXPOSE {port}\n" in DOCKERFILE


def test_the_extras_are_those_of_the_package():
    project = (REPOSITORY / "pyproject.toml").read_text()
    for text in (DOCKERFILE, README):
        (extras,) = set(re.findall(r"\[([a-z,]+)\]'", text))
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.M)


def test_every_line_of_the_head_is_short_enough_for_a_space():
    description = re.search(r"^short_description: (.*)$", README, re.M).group(1)
    assert len(description) <= 60
