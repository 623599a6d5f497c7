"""What explain says of a stored list after events and rules is what the lookup API answers at that moment."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.blobs import decode_ranking
from infra.events import Event
from infra.kv import RANKINGS
from infra.live_facts import open_live_facts
from infra.settings import RulesSettings
from jobs.cli_release import open_release_folders
from jobs.explain_answer import as_answered
from tests.suites.served_store import SETTINGS, app_on, new_store, publish_day, watch_of

RULES = RulesSettings(max_per_company=2, max_per_school=1, fatigue_places=3)
CHOSEN = SETTINGS.model_copy(update={"rules": RULES})


class Site:
    """A store, its API, and explain on both; user: somebody whose list is long and has demoted people."""

    def __init__(self, folder: Path) -> None:
        store = new_store(folder)
        publish_day(store, 0)
        self.uri, self.app = store.uri, app_on(store, rules=RULES)
        self.folders = open_release_folders(self.uri, None, ("serving_tables",))
        with watch_of(self.app).hold() as release:
            assert release is not None
            self.popular = release.popular.ids()
            self.lists = {user: self._stored(release.tables, user) for user in self.popular[:40]}
        self.user = max(self.lists, key=lambda user: len(self.lists[user]))

    @staticmethod
    def _stored(tables: Any, user: int) -> dict[int, dict[str, Any]]:
        """What jobs.explain says of everybody in the stored list of a user, by person."""
        ranking = decode_ranking(tables.get(RANKINGS, user))
        told: dict[int, dict[str, Any]] = {}
        for rank, (person, record) in enumerate(zip(ranking.ids(), ranking.items(), strict=True), 1):
            pair = {"user_id": str(user), "candidate_id": str(person), "left_out_by": None}
            told[person] = pair | {"shown": True, "rank": rank, "score": record[1], "summary": f"shown at rank {rank}"}
        return told

    def explained(self, user: int, person: int, limit: int = 20) -> dict[str, Any]:
        return as_answered(self.lists[user][person], self.folders, self.uri, CHOSEN, limit)

    def answered(self, user: int, limit: int = 100) -> dict[int, int]:
        answer: Any = self.app.test_client().get(f"/v1/users/{user}/recommendations?limit={limit}").json
        return {int(item["user_id"]): item["rank"] for item in answer["items"]}

    def record(self, *events: tuple[str, int, int | None]) -> None:
        now = time.time_ns() // 1000
        with closing(open_live_facts(f"{self.uri}/live", CHOSEN)) as live:
            live.record([Event(f"{now}-{at}", *event, now + at) for at, event in enumerate(events)])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.app.extensions["pymk"].stop()


def test_the_rank_explained_is_the_rank_answered_for_everybody_of_a_list(site: Site) -> None:
    demoted = 0
    for user, people in site.lists.items():
        places, first = site.answered(user), site.answered(user, 5)
        for person, stored in people.items():
            found = site.explained(user, person, 5)
            assert found["rank"] == places[person]
            assert found["stored_rank"] == stored["rank"]
            assert found["shown"] == (person in first)
            if found["demoted_by"]:
                demoted += 1
                assert set(found["demoted_by"]) <= {"max_per_school", "max_per_company"}
                assert f"demoted by {', '.join(found['demoted_by'])} to {found['rank']} of " in found["summary"]
            assert ("(limit 5: not shown)" in found["summary"]) == (not found["shown"])
    assert demoted


def test_an_event_since_the_release_leaves_out_by_its_own_rule_and_moves_the_others(site: Site) -> None:
    user = site.user
    blocked, dismissed, gone, tired, *_, last = site.lists[user]
    site.record(("blocked", user, blocked), ("dismissed", user, dismissed), ("deactivated", gone, None))
    site.record(*[("shown", user, tired)] * 3)
    places = site.answered(user)
    for person, rule in ((blocked, "blocked"), (dismissed, "dismissed"), (gone, "deactivated")):
        found = site.explained(user, person)
        assert person not in places
        assert (found["shown"], found["rank"]) == (False, None)
        assert (found["left_out_by"]["stage"], found["left_out_by"]["rule"]) == ("live_facts", rule)
        assert f"stored at rank {found['stored_rank']}" in found["summary"]
    assert site.explained(user, tired)["rank"] == places[tired]
    assert "fatigue_places" in site.explained(user, tired)["demoted_by"]
    assert site.explained(user, last)["rank"] == places[last]
    assert site.explained(user, last)["live_facts"] == "read"


def test_a_user_who_is_hidden_is_shown_nobody(site: Site) -> None:
    site.record(("opted_out", site.user, None))
    person = next(iter(site.lists[site.user]))
    assert site.answered(site.user) == {}
    assert site.explained(site.user, person)["left_out_by"]["rule"] == "opted_out"


def test_a_rule_of_the_night_that_nothing_newer_changes_keeps_its_name(site: Site) -> None:
    person = next(iter(site.lists[site.user]))
    site.record(("blocked", site.user, person))
    told = site.lists[site.user][person] | {"shown": False, "left_out_by": {"stage": "candidates", "rule": "connected"}}
    found = as_answered(told, site.folders, site.uri, CHOSEN)
    assert found["left_out_by"]["rule"] == "connected"


def test_where_no_event_was_recorded_no_file_is_made(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    person = next(iter(site.lists[site.user]))
    found = as_answered(site.lists[site.user][person], site.folders, str(elsewhere), CHOSEN)
    assert found["live_facts"] == "none"
    assert not elsewhere.exists()


def test_a_store_without_a_place_for_live_facts_is_explained_and_says_so(site: Site) -> None:
    person = next(iter(site.lists[site.user]))
    found = as_answered(site.lists[site.user][person], site.folders, "s3://bucket/store", CHOSEN)
    assert "api.facts names none" in found["summary"]
