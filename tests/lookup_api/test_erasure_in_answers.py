"""Who was erased is in no answer of the release that still holds them, from the next request on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from benchmarks.serving_rows import user_ids
from infra.live_facts import facts_uri, open_live_facts
from infra.settings import ApiSettings, Settings
from infra.store import ObjectStore
from jobs.erasure import erase
from lookup_api.app import create_app
from tests.suites.served_store import USERS, new_store, publish_day

PEOPLE = user_ids(USERS).tolist()
ERASED = PEOPLE[7]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    found = new_store(tmp_path)
    publish_day(found, 1)
    return found


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """Live facts beside the store, or in Redis with a shared cache there too."""
    at = request.getfixturevalue("redis_uri") if request.param == "redis" else ""
    return Settings.model_validate(
        {
            "api": ApiSettings(poll_s=3600, facts=at).model_dump(),
            "ladder": {"l2": at},
            "events": {"redis_timeout_ms": 5000},
        }
    )


@pytest.fixture
def client(store: ObjectStore, settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(store.uri, settings)
    yield app.test_client()
    app.extensions["pymk"].stop()


def answers(client: FlaskClient) -> dict[str, str]:
    """Every path a caller may ask for somebody's list -> the answer as text, for everybody and some strangers."""
    paths = [f"/v1/users/{person}/recommendations?limit=100&explain=1" for person in (*PEOPLE[:40], 5, -1)]
    paths += [f"/v1/users/{person}/recommendations" for person in PEOPLE[:40]]
    paths += [f"/v1/users/{PEOPLE[0]}/mutual/{person}" for person in PEOPLE[1:20]]
    found = {}
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200, answer.data
        found[path] = answer.get_data(as_text=True)
    return found


def naming(found: dict[str, str]) -> list[str]:
    """Paths of others whose answer names the person."""
    name = re.compile(rf"(?<!\d){ERASED}(?!\d)")
    return [path for path, text in found.items() if str(ERASED) not in path and name.search(text)]


@pytest.mark.parametrize("settings", ["folder", "redis"], indirect=True)
def test_no_answer_names_an_erased_person_and_they_are_shown_nobody(
    store: ObjectStore, settings: Settings, client: FlaskClient
) -> None:
    assert naming(answers(client)), "who is looked for is there to be found"
    facts = open_live_facts(facts_uri(settings, store.uri), settings)
    erase(store, facts, ERASED, 10**15, settings.ladder.l2)
    facts.close()
    after = answers(client)
    assert naming(after) == []
    own = client.get(f"/v1/users/{ERASED}/recommendations").get_json()
    assert own["items"] == []
    assert any('"items":[{' in text for text in after.values()), "others are shown others"


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_a_server_that_starts_afterwards_shows_them_no_more_than_one_that_ran(
    store: ObjectStore, settings: Settings
) -> None:
    facts = open_live_facts(facts_uri(settings, store.uri), settings)
    erase(store, facts, ERASED, 10**15)
    facts.close()
    app = create_app(store.uri, settings)
    assert naming(answers(app.test_client())) == []
    app.extensions["pymk"].stop()
