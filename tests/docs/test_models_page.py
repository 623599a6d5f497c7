"""docs/models.md leads from a notebook to a canary and back, as it is written."""

import re
import shlex
from pathlib import Path

import pytest

from infra.model_routes import LOOKUP, ModelRef, Route, RouteStore
from infra.store import open_store
from tests.docs.reference import DOCS
from tests.suites.command import pymk_json

PAGE = (DOCS / "models.md").read_text()


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_page_can_be_followed_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-model").mkdir()
    Path("my-model/model.toml").write_text(block("toml"))
    exec(block("python"), {})
    store = open_store(str(tmp_path / "store"), create=True)
    commands = re.findall(r"^pymk (model (?!rank).*)$", PAGE, re.MULTILINE)
    answers = [pymk_json(*shlex.split(command.replace("STORE", store.uri))) for command in commands]
    assert [answer.get("stable") for answer in answers[2:]] == ["release", "release", "my-model@1", "release"]
    surface = RouteStore(store).read().of(LOOKUP)
    assert (surface.route, surface.stopped[0].model) == (Route(), ModelRef.parse("my-model@1"))
