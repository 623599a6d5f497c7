"""The HTTP surface: what an answer looks like, and that every error is a problem."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.serving_rows import FIRST_ID, TAG, user_ids
from infra.blobs import decode_candidates, decode_ranking
from infra.errors import StoreError
from infra.kv import BARS, CANDIDATES, NEIGHBOURS, RANKINGS
from infra.settings import RulesSettings
from infra.store import ObjectStore
from lookup_api.served_release import ServedRelease
from tests.suites.served_store import USERS, app_on, new_store, publish_day, tag_of, watch_of

KNOWN, UNKNOWN = FIRST_ID, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    store = new_store(tmp_path_factory.mktemp("api"))
    publish_day(store, 1)
    return store


@pytest.fixture(scope="module")
def client(store: ObjectStore) -> Iterator[FlaskClient]:
    app = app_on(store)
    yield app.test_client()
    watch_of(app).stop()


@pytest.fixture(scope="module")
def release(client: FlaskClient) -> ServedRelease:
    found = watch_of(client.application)._served
    assert found is not None
    return found


def path(user_id: object, query: str = "") -> str:
    return f"/v1/users/{user_id}/recommendations{query}"


def get(client: FlaskClient, user_id: object, query: str = "") -> dict[str, Any]:
    answer = client.get(path(user_id, query))
    assert answer.status_code == 200, answer.data
    assert answer.content_type == "application/json"
    return orjson.loads(answer.data)


def ids(answer: dict[str, Any]) -> list[int]:
    return [int(item["user_id"]) for item in answer["items"]]


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.data
    assert answer.content_type == "application/problem+json"
    body = orjson.loads(answer.data)
    assert set(body) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["status"] == status
    assert "Traceback" not in body["detail"]
    return body


def test_an_answer_has_exactly_the_promised_fields(client: FlaskClient, release: ServedRelease) -> None:
    answer = get(client, KNOWN, "?limit=3")
    assert list(answer) == [
        "user_id", "items", "source", "cache", "degraded", "release", "as_of", "age_s", "request_id",
    ]  # fmt: skip
    told = (answer["user_id"], answer["source"], answer["cache"], answer["degraded"])
    assert told == (str(KNOWN), "precomputed", "none", False)
    assert (answer["release"], answer["as_of"]) == (release.release_id, "2026-01-02T00:00:00Z")
    assert isinstance(answer["age_s"], int)
    for rank, item in enumerate(answer["items"], 1):
        assert list(item) == ["user_id", "rank", "score", "reasons"]
        assert isinstance(item["user_id"], str)
        assert item["rank"] == rank
        assert set(item["reasons"][0]) == {"kind", "count"}
        assert set(item["reasons"][1]) == {"kind", "attribute", "value"}


def test_items_are_those_of_the_stored_ranking_when_no_cap_binds(store: ObjectStore, release: ServedRelease) -> None:
    app = app_on(store, rules=RulesSettings(max_per_company=100, max_per_school=100))
    stored = decode_ranking(release.tables.get(RANKINGS, KNOWN) or b"")
    records = list(stored.items())
    answer = get(app.test_client(), KNOWN, "?limit=100")
    assert ids(answer) == stored.ids()
    np.testing.assert_allclose([i["score"] for i in answer["items"]], [r[1] for r in records], rtol=0, atol=1e-6)
    assert [item["reasons"] for item in answer["items"]] == [stored.reasons(record) for record in records]
    watch_of(app).stop()


@pytest.mark.parametrize(("query", "count"), [("", 20), ("?limit=1", 1), ("?limit=100", 100)])
def test_limit_says_how_many(client: FlaskClient, query: str, count: int) -> None:
    assert len(get(client, KNOWN, query)["items"]) == count


def test_excluded_people_are_not_shown_and_others_take_their_places(client: FlaskClient) -> None:
    first = ids(get(client, KNOWN, "?limit=5"))
    excluded = ",".join(map(str, [first[0], first[3], first[0]]))
    answer = get(client, KNOWN, f"?limit=5&exclude={excluded}")
    assert not {first[0], first[3]} & set(ids(answer))
    assert len(answer["items"]) == 5
    assert answer["source"] == "precomputed"


def test_an_unknown_user_gets_the_popular_list_and_is_not_degraded(client: FlaskClient, release: ServedRelease) -> None:
    answer = get(client, UNKNOWN, "?limit=2")
    assert (answer["source"], answer["degraded"]) == ("popular", False)
    assert ids(answer) == release.popular.ids()[:2]
    nobody_else = get(client, release.popular.ids()[0] - 1, f"?exclude={release.popular.ids()[0]}&limit=1")
    assert ids(nobody_else) == release.popular.ids()[1:2]


def test_a_user_who_excludes_the_whole_list_gets_friends_of_friends(client: FlaskClient) -> None:
    everybody = set(ids(get(client, KNOWN, "?limit=100")))
    answer = get(client, KNOWN, f"?exclude={','.join(map(str, everybody))}")
    assert (answer["source"], answer["degraded"]) == ("heuristic", False)
    assert answer["items"][0]["reasons"][0]["kind"] == "mutual_connections"
    assert KNOWN not in ids(answer)
    assert not everybody & set(ids(answer))


def test_nobody_left_is_an_empty_list_from_none(client: FlaskClient) -> None:
    everybody = ",".join(map(str, user_ids(USERS)))
    answer = get(client, KNOWN, f"?exclude={everybody}")
    assert (answer["items"], answer["source"], answer["degraded"]) == ([], "none", False)


def test_explain_adds_sources_and_the_stored_features(client: FlaskClient, release: ServedRelease) -> None:
    plain, answer = get(client, KNOWN), get(client, KNOWN, "?explain=1")
    stored = decode_candidates(release.tables.get(CANDIDATES, KNOWN) or b"")
    for item, other in zip(plain["items"], answer["items"], strict=True):
        explained = other.pop("explain")
        assert other == item
        if int(item["user_id"]) in stored.ids:
            place = stored.ids.index(int(item["user_id"]))
            known = dict(zip(release.head.pair_features, stored.features[place].tolist(), strict=True))
            del known["acted_on"]  # what the other did to the viewer stays theirs
            assert explained["features"] == known
            assert explained["sources"]
    assert get(client, UNKNOWN, "?explain=1&limit=1")["items"][0]["explain"] == {"sources": ["popular"], "features": {}}


def test_a_request_id_that_is_a_token_is_kept_and_another_is_replaced(client: FlaskClient) -> None:
    kept = client.get(path(KNOWN), headers={"X-Request-Id": "job-7.a_B:1"})
    assert kept.headers["X-Request-Id"] == orjson.loads(kept.data)["request_id"] == "job-7.a_B:1"
    for bad in ("", "a b", "x" * 129, '"><script>', "é"):
        answer = client.get(path(KNOWN), headers={"X-Request-Id": bad})
        assert orjson.loads(answer.data)["request_id"] == answer.headers["X-Request-Id"] != bad
    problem = client.get(path("x"), headers={"X-Request-Id": "mine"})
    assert problem.headers["X-Request-Id"] == "mine"


BAD_QUERIES = (
    "?limit=0", "?limit=101", "?limit=-1", "?limit=+5", "?limit=05", "?limit=5.0", "?limit=", "?limit=٣", "?limit",
    "?limit=5&limit=5", "?limit=%35x", "?limit=%ff", "?Limit=5", "?cursor=1", "?%ff=1", "?=1", "?&",
    "?explain=2", "?explain=true", "?explain=",
    "?exclude=", "?exclude=1,", "?exclude=1,,2", "?exclude=a", "?exclude=1;2", "?exclude=01", "?exclude=1%202",
    "?exclude=9223372036854775808", "?exclude=" + ",".join(["1"] * 1001), "?exclude=" + "1" * 40_000,
)  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES, ids=lambda query: query[:30])
def test_a_bad_parameter_is_refused_with_the_reason(client: FlaskClient, query: str) -> None:
    body = assert_problem(client.get(path(KNOWN, query)), 400)
    assert body["type"] == "urn:pymk:problem:invalid-parameter"
    assert len(body["detail"]) < 200


def test_a_thousand_excluded_ids_are_taken(client: FlaskClient) -> None:
    get(client, KNOWN, f"?exclude={','.join(['9223372036854775807'] * 1000)}")


BAD_IDS = ("x", "+5", "05", "-0", "--1", "1.0", "1e3", " 5", "5 ", "0x10", "٣", "9223372036854775808",
           "-9223372036854775809",
           "99999999999999999999", "null", "1\n", "%00", "-")  # fmt: skip


@pytest.mark.parametrize("user_id", BAD_IDS)
def test_an_id_that_is_not_a_canonical_int64_is_refused(client: FlaskClient, user_id: str) -> None:
    assert_problem(client.get(path(quote(user_id))), 400)


@pytest.mark.parametrize("user_id", [0, -1, 2**63 - 1, -(2**63)])
def test_every_int64_is_an_id(client: FlaskClient, user_id: int) -> None:
    assert get(client, user_id)["user_id"] == str(user_id)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=24), st.integers(-(2**65), 2**65))
@example("-", 0)
@example("", 2**63)
def test_any_text_as_an_id_is_answered_or_a_problem(client: FlaskClient, text: str, number: int) -> None:
    for user_id in (text, str(number)):
        answer = client.get(path(quote(user_id, safe="")))
        canonical = user_id.isascii() and user_id.lstrip("-").isdigit() and str(int(user_id)) == user_id
        valid = canonical and -(2**63) <= int(user_id) < 2**63
        if valid:
            assert answer.status_code == 200
        else:
            assert_problem(answer, 404 if "/" in user_id or not user_id else 400)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=40))
def test_any_query_is_answered_or_a_problem(client: FlaskClient, query: str) -> None:
    answer = client.get(path(KNOWN, "?" + quote(query, safe="=&,%")))
    if answer.status_code != 200:
        assert_problem(answer, 400)


def test_unknown_paths_and_methods_are_problems(client: FlaskClient) -> None:
    assert_problem(client.get("/v2"), 404)
    assert_problem(client.get("/v1/users/5"), 404)
    assert_problem(client.get(path("a/b")), 404)
    for method in ("post", "put", "delete", "patch"):
        answer = getattr(client, method)(path(KNOWN))
        assert_problem(answer, 405)
        assert "GET" in answer.headers["Allow"]


def test_an_unforeseen_failure_is_a_problem_without_internals(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(store)
    monkeypatch.setattr("lookup_api.lookup.Ladder.climb", lambda *_: 1 / 0)
    body = assert_problem(app.test_client().get(path(KNOWN)), 500)
    assert "ZeroDivision" not in str(body)
    assert 'status="500"' in app.test_client().get("/metrics").text
    watch_of(app).stop()


class Broken:
    """The tables of a release in which reads of some tables fail."""

    def __init__(self, tables: Any, broken: set[str]) -> None:
        self.tables = tables
        self.broken = broken

    def get(self, table: str, key: int) -> bytes | None:
        blob: bytes | None = self.tables.get(table, key)
        return b"\x01garbage" if table in self.broken and blob is not None else blob

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tables, name)


@pytest.mark.parametrize(
    ("broken", "source"),
    [
        ({RANKINGS}, "heuristic"),
        ({RANKINGS, BARS}, "popular"),
        ({RANKINGS, NEIGHBOURS}, "none"),
        ({CANDIDATES}, "precomputed"),
    ],
)
def test_a_failing_rung_is_skipped_and_the_answer_says_degraded(
    store: ObjectStore, broken: set[str], source: str
) -> None:
    """Where not even the people to leave out can be read, nobody is shown."""
    app = app_on(store)
    served = watch_of(app)._served
    assert served is not None
    served.tables = Broken(served.tables, broken)  # type: ignore[assignment]
    client = app.test_client()
    answer = get(client, KNOWN, "?explain=1")
    assert (answer["source"], answer["degraded"]) == (source, True)
    assert get(client, UNKNOWN)["degraded"] is False
    assert "pymk_degraded_total 1.0" in client.get("/metrics").text
    watch_of(app).stop()


def test_metrics_tell_requests_exclusions_and_the_release(store: ObjectStore) -> None:
    app = app_on(store)
    client = app.test_client()
    first = ids(get(client, KNOWN))[0]
    get(client, KNOWN, f"?exclude={first}")
    get(client, UNKNOWN)
    client.get(path("x"))
    text = client.get("/metrics").text
    assert 'pymk_requests_total{source="precomputed",status="200"} 2.0' in text
    assert 'pymk_requests_total{source="popular",status="200"} 1.0' in text
    assert 'pymk_requests_total{source="",status="400"} 1.0' in text
    assert 'pymk_request_seconds_count{source="precomputed"} 2.0' in text
    assert 'pymk_excluded_total{rule="exclude_parameter"} 1.0' in text
    assert f'pymk_release_info{{release="{get(client, KNOWN)["release"]}"}} 1.0' in text
    assert "pymk_release_age_seconds" in text
    watch_of(app).stop()


def test_items_carry_the_tag_of_their_release(client: FlaskClient) -> None:
    values = {r["value"] for i in get(client, KNOWN)["items"] for r in i["reasons"] if r.get("attribute") == TAG}
    assert values == {tag_of(1)}


def test_the_api_loads_no_batch_engine() -> None:
    code = (
        "import sys, lookup_api.app, lookup_api.routes\n"
        "heavy = ['torch', 'torch_geometric', 'pyspark', 'airflow', 'pandas', 'scipy', 'pyarrow', 'faiss']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["away", "damaged"])
def test_friends_in_common_are_503_while_what_they_need_cannot_be_read(
    client: FlaskClient, release: ServedRelease, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    def get_many(kind: str, keys: list[int]) -> list[bytes]:
        if damage == "away":
            raise StoreError("the tables do not answer")
        return [b"no such thing"] * len(keys)

    asked = f"/v1/users/{KNOWN}/mutual/{user_ids(USERS)[6]}"
    assert client.get(asked).status_code == 200
    monkeypatch.setattr(release.tables, "get_many", get_many)
    answer = client.get(asked)
    assert assert_problem(answer, 503)["type"] == "urn:pymk:problem:store-unreadable"
    assert int(answer.headers["Retry-After"]) > 0
