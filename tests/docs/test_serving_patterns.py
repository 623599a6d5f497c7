"""docs/serving-patterns.md names patterns with commands, settings and paths that exist."""

import re
import shlex
from typing import Any

import pytest

from infra.settings import Settings
from lookup_api.openapi import document
from tests.docs.reference import DOCS
from tests.docs.test_docs import commands

PAGE = (DOCS / "serving-patterns.md").read_text()
PATTERNS = (
    "Web-single",
    "Synchronous",
    "Asynchronous",
    "Batch",
    "Prep-pred",
    "Serial microservices",
    "Parallel microservices",
    "Inference cache",
    "Data cache",
)
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^(?:<a id=|## )|\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [line for block in re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in
            block.replace("\\\n", "").splitlines()]  # fmt: skip
OURS = [line for line in COMMANDS if line.startswith("pymk ")]
ASKED = [line for line in COMMANDS if line.startswith("curl ")]


def test_every_pattern_has_a_command_and_says_when() -> None:
    assert tuple(SECTIONS) == PATTERNS
    for name, text in SECTIONS.items():
        assert re.search(r"^```\npymk ", text, re.MULTILINE), name
        for part in ("**For:**", "**Against:**", "**Leave it when**"):
            assert text.count(part) == 1, (name, part)
        assert f"](#{name.lower().replace(' ', '-')})" in PAGE.split("\n## ")[0], name


@pytest.mark.parametrize("line", OURS)
def test_commands_take_the_options_that_are_shown(line: str) -> None:
    words = shlex.split(line)[1:]
    known: dict[str, Any] = commands()
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    options = {option for one in known[name].params for option in (*one.opts, *one.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= options
    for key in re.findall(r"--set (\w+\.\w+)=", line):
        section, _, field = key.partition(".")
        assert field in Settings().section(section), key


@pytest.mark.parametrize("line", ASKED)
def test_paths_that_are_asked_exist(line: str) -> None:
    [path] = re.findall(r"127\.0\.0\.1:8000(/[^?' ]*)", line)
    method = "post" if "-X POST" in line else "get"
    patterns = {re.sub(r"\{\w+\}", "[^/]+", known): known for known in document("0", 1)["paths"]}
    [found] = [known for pattern, known in patterns.items() if re.fullmatch(pattern, path)]
    assert method in document("0", 1)["paths"][found]
