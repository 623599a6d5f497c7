"""docs/blends.md leads from torch to a canary, to stable and back, as it is written, and users see it happen."""

import re
import shlex
from pathlib import Path

import pytest

from infra.graph import Graph
from infra.releases import ReleaseStore
from infra.settings import LadderSettings
from infra.store import open_store
from lookup_api.served_release import ServedRelease
from tests.docs.reference import DOCS
from tests.lookup_api.test_scores import asked, scoring_on, stored_of
from tests.suites.canaries import until_watched
from tests.suites.command import pymk_json
from tests.suites.live_store import guarded_graph, live_artifacts, publish_live

PAGE = (DOCS / "blends.md").read_text()
SURFACE = "my-page"


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


def test_the_page_can_be_followed_to_the_letter(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    publish_live(store, live_artifacts(tmp_path / "made", graph))
    current = ReleaseStore(store).current()
    assert current is not None
    release = ServedRelease.open(store, current, LadderSettings())
    monkeypatch.chdir(tmp_path)
    Path("my-blend").mkdir()
    told = block("toml").replace("width = 128", f"width = {release.head.embedding_dimensions}")
    Path("my-blend/model.toml").write_text(told)
    exec(block("python"), {})

    def versions() -> dict[int, str]:
        """By user, as workers that look now answer."""
        scoring, found = scoring_on(store), {}
        until_watched(scoring.root.catalog)
        for user_id in graph.ids.tolist():
            people = list(stored_of(release, user_id).ids)[:5]
            found[user_id] = asked(scoring, release, user_id, people, (SURFACE,))["models"][SURFACE]
        scoring.root.close()
        return found

    seen = []
    for command in re.findall(r"^pymk (model .*)$", PAGE, re.MULTILINE):
        pymk_json(*shlex.split(command.replace("STORE", store.uri)))
        if " push " not in command:
            seen.append(versions())
    stable, canary, promoted, back = seen
    has_canary = {user for user in graph.ids.tolist() if canary[user] == "my-blend@2"}
    assert set(stable.values()) == {"my-blend@1"}
    assert 0 < len(has_canary) < 0.15 * len(graph.ids)
    assert canary == {user: f"my-blend@{2 if user in has_canary else 1}" for user in graph.ids.tolist()}
    assert set(promoted.values()) == {"my-blend@2"}
    assert back == stable
    release.give_back()
