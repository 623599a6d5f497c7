"""A delta release: who it is for, what stays as it was, and that a late night loses nothing of it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts import open_artifact
from infra.blobs import decode_bars, decode_neighbours, decode_ranking
from infra.kv import BARS, CANDIDATES, NEIGHBOURS, RANKINGS, USERS
from infra.loaded_releases import LoadedReleases
from infra.releases import Release, ReleaseStore
from infra.schemas import LAKE_TABLES
from infra.settings import LadderSettings, Settings, load
from infra.store import ObjectStore, open_store
from infra.table_hosts import open_host
from jobs.cli_release import open_release_folders
from jobs.context import Parent, StageContext
from jobs.delta_tables import run as run_stage
from jobs.explain import explain
from jobs.explain_answer import as_answered
from jobs.hourly import KIND, READ, open_files, run_hourly
from jobs.release_load import load_release
from lookup_api.circle import bars_by_night
from lookup_api.deadline import Deadline
from lookup_api.served_release import ServedRelease
from tests.conftest import SMALL_FLAGS, SmallRelease, small_pipeline
from tests.suites.served_store import app_on

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NIGHT, HOUR = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 7, tzinfo=UTC)
WITHIN = NIGHT + timedelta(hours=1)
NEW, ALONE = 10**12, 10**12 + 1
"""Who joined: one with a friend, one without."""
LISTED = (RANKINGS, CANDIDATES, USERS, NEIGHBOURS)
TABLES = (*LISTED, BARS)


@dataclass(frozen=True)
class Hour:
    """a, b: strangers of the night who befriended each other; c blocked d; left: who left, and away, who was inactive
    at night and is still, blocked a. night, delta: releases."""

    lake: str
    store: ObjectStore
    a: int
    b: int
    c: int
    d: int
    left: int
    away: int
    night: Release
    delta: Release
    made: dict[str, Any]


def settings_of() -> Settings:
    return load(None, SMALL_FLAGS, {})[0]


@pytest.fixture(scope="module")
def hour(small_release: SmallRelease, tmp_path_factory: pytest.TempPathFactory) -> Hour:
    """On a copy of the shared night and its lake."""
    folder = tmp_path_factory.mktemp("hour")
    lake = str(shutil.copytree(small_release.lake, folder / "lake"))
    store = open_store(str(shutil.copytree(small_release.store, folder / "store")), writable=True)
    night = ReleaseStore(store).current()
    assert night is not None
    people = add_hour(folder / "lake", store, night)
    made = run_hourly(lake, store, HOUR, settings_of(), lambda line: None)
    return Hour(lake, store, *people, night, ReleaseStore(store).get(made["release_id"]), made)


def add_hour(lake: Path, store: ObjectStore, night: Release) -> tuple[int, int, int, int, int, int]:
    """Writes what happened since; returns a, b, c, d, who left and who was away. The night shows c d, and many
    who left."""
    folder = open_artifact(store, "rankings", night.artifacts["rankings"].artifact_id).path
    rows = pq.read_table(folder)
    user, candidate = rows["user_id"].to_numpy(), rows["candidate_id"].to_numpy()
    a, b = int(user[0]), int(candidate[user == user[0]][-1])
    c, d = next((int(u), int(v)) for u, v in zip(user, candidate, strict=True) if len({a, b, int(u), int(v)}) == 4)
    ids, times = np.unique(candidate[~np.isin(candidate, [a, b, c, d])], return_counts=True)
    left = int(ids[np.argmax(times)])
    add(lake, "profiles", [(NEW, WITHIN), (ALONE, WITHIN)])
    add(lake, "connections", [(a, b, WITHIN, None), (NEW, a, WITHIN, None)])
    away = next(one for one in pq.read_table(lake / "user_events")["user_id"].to_pylist() if one not in user)
    add(lake, "blocks", [(c, d, WITHIN, None), (away, a, WITHIN, None)])
    add(lake, "user_events", [(left, "deactivated", WITHIN)])
    old = pq.read_table(lake / "affiliations")
    own = old.filter(pa.array(old["user_id"].to_numpy() == a))
    mine = own.set_column(0, own.schema.field("user_id"), pa.array([ALONE] * own.num_rows))
    pq.write_table(mine, lake / "affiliations" / "later.parquet")
    return a, b, c, d, left, away


def add(lake: Path, table: str, rows: list[tuple[Any, ...]]) -> None:
    schema = LAKE_TABLES[table].schema
    values = [dict(zip(schema.names, row, strict=False)) for row in rows]
    pq.write_table(pa.Table.from_pylist(values, schema), lake / table / "later.parquet")


@pytest.fixture
def served(hour: Hour) -> Iterator[dict[str, ServedRelease]]:
    ladder = LadderSettings()
    opened = {name: ServedRelease.open(hour.store, getattr(hour, name), ladder) for name in ("night", "delta")}
    yield opened
    for one in opened.values():
        one.give_back()


def test_a_delta_that_is_served_knows_when_its_night_was(served: dict[str, ServedRelease]) -> None:
    night, delta = served["night"], served["delta"]
    assert delta.night_s == night.night_s == night.as_of_s < delta.as_of_s


def test_it_is_published_on_its_night_and_found_again(hour: Hour) -> None:
    assert hour.made["published"]
    assert ReleaseStore(hour.store).current_id() == hour.delta.release_id
    assert (hour.delta.base, hour.delta.as_of) == (hour.night.release_id, "2026-01-01T07:00:00Z")
    ReleaseStore(hour.store).verify(hour.delta)
    again = run_hourly(hour.lake, hour.store, HOUR, settings_of(), lambda line: None)
    assert again["stages"]["delta_tables"]["found"]
    assert again["release_id"] == hour.delta.release_id


def test_whom_it_touches_are_who_joined_and_both_ends_of_what_changed(hour: Hour) -> None:
    lists = pq.read_table(open_files(hour.store, KIND, hour.delta.artifacts[KIND].artifact_id, ("",)).path / "rankings")
    assert set(lists["user_id"].to_pylist()) == {NEW, ALONE, hour.a, hour.b, hour.c, hour.d}
    assert hour.made["changed"] == {"joined": 2, "departed": 1, "friendships": 2, "touched": 6, "waiting": 0}


def test_rows_of_all_others_are_those_of_the_night(hour: Hour, served: dict[str, ServedRelease]) -> None:
    folder = open_artifact(hour.store, "rankings", hour.night.artifacts["rankings"].artifact_id).path
    ids = np.unique(pq.read_table(folder)["user_id"].to_numpy())
    others = np.setdiff1d(ids, [hour.a, hour.b, hour.c, hour.d, hour.left]).tolist()
    assert len(others) > 300
    before, after = served["night"].tables, served["delta"].tables
    for table in TABLES:
        assert after.get_many(table, others) == before.get_many(table, others), table
        assert before.get(table, hour.left) is not None
        assert after.get(table, NEW) is not None
    assert [after.get(table, hour.left) for table in LISTED] == [None] * len(LISTED)
    assert after.count(RANKINGS) == served["delta"].head.users == before.count(RANKINGS) + 1


def test_who_joined_is_ranked_and_found(hour: Hour, served: dict[str, ServedRelease]) -> None:
    tables = served["delta"].tables
    for person in (NEW, ALONE):
        listed = decode_ranking(tables.get(RANKINGS, person) or b"").ids()
        assert len(listed) > 20
        assert person not in listed
    circle = set(decode_neighbours(served["night"].tables.get(NEIGHBOURS, hour.a) or b"").ids)
    listed = decode_ranking(tables.get(RANKINGS, NEW) or b"").ids()
    assert len(circle & set(listed[:20])) > 3, "friends of the one friend come first"
    live = served["delta"].live
    assert live is not None
    assert live.nearest is not None
    vector = served["delta"].users([NEW]).embeddings(np.zeros(1, np.int64))[0]
    assert live.nearest.find(vector, 3, Deadline.after(60)).ids[0] == NEW


def test_nobody_is_shown_a_new_friend_or_whom_they_blocked(hour: Hour, served: dict[str, ServedRelease]) -> None:
    before, after = served["night"].tables, served["delta"].tables
    for one, other in ((hour.a, hour.b), (hour.c, hour.d)):
        assert other in decode_ranking(before.get(RANKINGS, one) or b"").ids()
        for user, person in ((one, other), (other, one)):
            assert person not in decode_ranking(after.get(RANKINGS, user) or b"").ids()
            barred = decode_neighbours(after.get(NEIGHBOURS, user) or b"").ids
            assert person in [*barred, *decode_bars(after.get(BARS, user) or b"")]


def test_who_left_or_was_away_is_still_kept_from_whom_the_lake_says(
    hour: Hour, served: dict[str, ServedRelease]
) -> None:
    """They may be let in again by an event within the hour."""
    before, after = served["night"].tables, served["delta"].tables
    night = bars_by_night(before, hour.left)
    assert night is not None
    assert len(night) > 0
    assert decode_bars(after.get(BARS, hour.left) or b"") == sorted(night.tolist())
    earlier = bars_by_night(before, hour.away)
    known = [] if earlier is None else earlier.tolist()
    assert decode_bars(after.get(BARS, hour.away) or b"") == sorted([*known, hour.a])


def test_who_left_is_shown_to_nobody(hour: Hour) -> None:
    app = app_on(hour.store)
    try:
        rows = pq.read_table(open_artifact(hour.store, "rankings", hour.night.artifacts["rankings"].artifact_id).path)
        mine = rows.filter(pa.array((rows["candidate_id"].to_numpy() == hour.left) & (rows["rank"].to_numpy() <= 20)))
        viewers = mine["user_id"].to_pylist()[:50]
        assert len(viewers) > 5
        with app.test_client() as client:
            for viewer in viewers:
                answer = client.get(f"/v1/users/{viewer}/recommendations?limit=100").json
                assert answer["release"] == hour.delta.release_id
                assert answer["source"] == "precomputed"
                assert str(hour.left) not in [item["user_id"] for item in answer["items"]]
            assert client.get(f"/v1/users/{NEW}/recommendations").json["source"] == "precomputed"
    finally:
        app.extensions["pymk"].stop()


def explained(hour: Hour, release: Release, user: int, person: int) -> dict[str, Any]:
    folders = open_release_folders(hour.store.uri, release.release_id)
    return as_answered(explain(folders, user, person), folders, hour.store.uri, settings_of(), 100)


def shown(hour: Hour, release: Release) -> list[dict[str, Any]]:
    """Rows of the lists that a delta made anew."""
    found = open_files(hour.store, KIND, release.artifacts[KIND].artifact_id, ("",)).path
    rows: list[dict[str, Any]] = pq.read_table(found / "rankings").to_pylist()
    return rows


def test_who_is_shown_since_is_explained_by_the_delta(hour: Hour) -> None:
    rows = shown(hour, hour.delta)
    for row in rows[:: len(rows) // 20]:
        found = explained(hour, hour.delta, row["user_id"], row["candidate_id"])
        assert found["shown"]
        assert (found["score"], found["reasons"]) == (pytest.approx(row["score"]), row["reasons"])
        assert found.get("stored_rank", found["rank"]) == row["rank"]
        assert found["sources"]
        assert found["user_features"]["user"]["degree"] == {NEW: 1, ALONE: 0}.get(row["user_id"], ANY)


def test_who_is_left_out_since_is_told_why(hour: Hour) -> None:
    other = next(u for u in night_rows(hour)["user_id"].to_pylist() if u not in people(hour))
    for user, person, rule in (
        (hour.a, hour.b, "connected"),
        (hour.c, hour.d, "blocked_or_dismissed"),
        (hour.a, hour.left, "unknown_or_inactive"),
        (hour.left, hour.a, "unknown_or_inactive"),
        (NEW, 10**13, "unknown_or_inactive"),
        (other, NEW, "joined_since"),
        (NEW, NEW, "self"),
    ):
        by = explained(hour, hour.delta, user, person)["left_out_by"]
        assert by["rule"] == rule
        assert by["stage"] == ("candidates" if rule == "self" else "delta_tables")
        if rule in ("connected", "blocked_or_dismissed"):
            assert explained(hour, hour.night, user, person)["left_out_by"] is None


def test_who_is_touched_by_nothing_new_is_explained_by_the_night(hour: Hour) -> None:
    rows = [row for row in night_rows(hour).to_pylist() if row["user_id"] not in people(hour)]
    for row in rows[:: len(rows) // 3]:
        pair = (row["user_id"], row["candidate_id"])
        if row["candidate_id"] != hour.left:
            assert explained(hour, hour.delta, *pair) == explained(hour, hour.night, *pair)


def test_who_is_below_the_cut_of_a_new_list_has_the_score_of_a_longer_one(hour: Hour) -> None:
    short = load(None, SMALL_FLAGS | {"rank.per_user": "20"}, {})[0]
    night = hour.night.release_id
    made = run_hourly(hour.lake, hour.store, HOUR, short, lambda line: None, night, publish=False)
    release = ReleaseStore(hour.store).get(made["release_id"])
    kept = {(row["user_id"], row["candidate_id"]) for row in shown(hour, release)}
    cut = [row for row in shown(hour, hour.delta) if (row["user_id"], row["candidate_id"]) not in kept]
    for row in cut[:: len(cut) // 5]:
        by = explained(hour, release, row["user_id"], row["candidate_id"])["left_out_by"]
        assert (by["rule"], by["kept"]) == ("below_the_cut", 20)
        # What is served of people whom nothing new touches is the night's, a friend's new friend aside.
        assert by["would_be_score"] == pytest.approx(row["score"], abs=0.05)
    told = [
        explained(hour, release, hour.a, person)["left_out_by"]
        for person in night_rows(hour)["user_id"].unique()[1::4].to_pylist()
    ]
    assert {"below_the_cut", "not_a_candidate"} <= {by["rule"] for by in told if by}


def people(hour: Hour) -> set[int]:
    return {NEW, ALONE, hour.a, hour.b, hour.c, hour.d, hour.left}


def night_rows(hour: Hour) -> pa.Table:
    return pq.read_table(open_artifact(hour.store, "rankings", hour.night.artifacts["rankings"].artifact_id).path)


def test_the_content_does_not_depend_on_threads(hour: Hour, tmp_path: Path) -> None:
    found = []
    for threads in ("1", "2"):
        flags = SMALL_FLAGS | {"run.threads": threads}
        (tmp_path / threads).mkdir()
        inputs = {}
        for kind, entry in hour.night.artifacts.items():
            opened = open_files(hour.store, kind, entry.artifact_id, READ.get(kind, ("",)))
            inputs[kind] = Parent(entry.artifact_id, opened.path, entry.content_hash, opened.manifest.__dict__)
        context = StageContext(
            load(None, flags, {})[0], HOUR, hour.lake, inputs, tmp_path / threads, no_spark, lambda line: None
        )
        found.append(run_stage(context).content_hash)
    assert set(found) == {hour.made["stages"]["delta_tables"]["content_hash"]}


def no_spark() -> Any:
    raise AssertionError("an hour needs no Spark")


def test_its_rows_are_loaded_beside_those_of_its_base(
    hour: Hour, served: dict[str, ServedRelease], redis_uri: str
) -> None:
    host = open_host(redis_uri, 60)
    try:
        made = load_release(hour.store, hour.delta, host, 1, True, lambda line: None)
        assert made["served"] == hour.delta.release_id
        loaded = LoadedReleases(host)
        assert {release.release_id for release in loaded.releases()} == {hour.delta.release_id, hour.night.release_id}
        opened = ServedRelease.of(hour.delta, loaded.open(hour.delta.release_id))
        people = [
            hour.a,
            hour.left,
            hour.away,
            NEW,
            *decode_ranking(served["night"].tables.get(RANKINGS, hour.a) or b"").ids(),
        ]
        for table in TABLES:
            assert opened.tables.get_many(table, people) == served["delta"].tables.get_many(table, people)
        assert opened.departed == served["delta"].departed
        opened.give_back()
    finally:
        host.close()


def test_an_hour_that_its_night_knows_adds_nothing(hour: Hour) -> None:
    made = run_hourly(hour.lake, hour.store, NIGHT, settings_of(), lambda line: None)
    assert not made["published"]
    assert made["release_id"] == hour.night.release_id
    assert "nothing to add" in made["said"]


def test_a_night_that_ends_late_loses_nothing_of_the_hour(hour: Hour, spark: "SparkSession", tmp_path: Path) -> None:
    """The night is of two hours after the first; its graph was built before the rows of the hour between came."""
    folder, lake = Path(hour.store.uri.removeprefix("file://")), tmp_path / "lake"
    store = open_store(str(shutil.copytree(folder, tmp_path / "store")), writable=True)
    shutil.copytree(hour.lake.removeprefix("file://"), lake, ignore=shutil.ignore_patterns("later.parquet"))
    as_of = (NIGHT + timedelta(hours=2)).isoformat()
    with small_pipeline(str(lake), store.uri, spark, as_of=as_of) as pipeline:
        pipeline.run(until="evaluate")
        graph = pipeline.artifact_id("graph")
    shutil.copytree(hour.lake.removeprefix("file://"), lake, dirs_exist_ok=True)
    with small_pipeline(str(lake), store.uri, spark, as_of=as_of) as pipeline:
        pipeline.graph_id = graph
        made = pipeline.publish()
    assert made["published"]
    current = ReleaseStore(store).current()
    assert current is not None
    assert (current.base, current.as_of) == (made["release_id"], hour.delta.as_of)
    opened = ServedRelease.open(store, current)
    try:
        assert len(decode_ranking(opened.tables.get(RANKINGS, NEW) or b"").ids()) > 20
        assert hour.d not in decode_ranking(opened.tables.get(RANKINGS, hour.c) or b"").ids()
        assert hour.left in opened.departed
    finally:
        opened.give_back()
