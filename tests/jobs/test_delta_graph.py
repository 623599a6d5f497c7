"""The graph of an hour is the one that a night at that time would build, but for what waits for the night."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.errors import InputError
from infra.graph import Graph
from infra.schemas import LAKE_TABLES
from infra.settings import Settings, SparkSettings
from infra.store import open_store
from jobs import build_graph
from jobs.context import StageContext
from jobs.delta_facts import find_new_facts
from jobs.delta_graph import Merged, merge
from jobs.delta_rows import LakeRows, Window
from jobs.sample import generate

NIGHT, HOUR = datetime(2025, 11, 1, tzinfo=UTC), datetime(2025, 12, 1, 6, tzinfo=UTC)
WITHIN, BEFORE, AFTER = NIGHT + timedelta(days=3), NIGHT - timedelta(days=200), HOUR + timedelta(days=1)
SETTINGS = Settings(spark=SparkSettings(partitions=2))
EXPIRED = HOUR - timedelta(days=SETTINGS.graph.dismissal_days, hours=1)
"""Of a dismissal that held at night and no more within the hour."""


@dataclass(frozen=True)
class Lake:
    folder: Path
    people: list[int]
    """Of some old friendships both ends, pair by pair."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("delta") / "lake"
    store = open_store(str(folder), create=True)
    generate(400, lambda key, path: store.upload(path, key), 17, date(2026, 1, 1))
    friends = pq.read_table(folder / "connections", filters=[("connected_at", "<", BEFORE)])
    old = friends.filter(friends["disconnected_at"].is_null())
    left = set(pq.read_table(folder / "user_events")["user_id"].to_pylist())
    pairs = [p for p in zip(old["user_id"].to_pylist(), old["other_id"].to_pylist(), strict=True) if not left & set(p)]
    people: list[int] = []
    for pair in pairs:
        people += [] if set(pair) & set(people) else pair
    add_rows(folder, people)
    return Lake(folder, people)


def add_rows(folder: Path, people: Sequence[int]) -> None:
    """What a sample of growth does not have: ends, returns, exclusions that begin, end and expire."""
    a, b, c, d, e, f = people[:6]
    new, returning, away = 10**12, people[8], people[10]
    add(folder, "connections", [(a, b, BEFORE, WITHIN)])  # ended; another row of the pair is open still
    add(folder, "connections", [(new, a, WITHIN, None), (new, new + 1, BEFORE, None), (new + 1, b, WITHIN, AFTER)])
    add(folder, "connections", [(c, new + 2, WITHIN, WITHIN + timedelta(hours=1)), (d, e, AFTER, None)])
    add(folder, "connections", [(d, f, WITHIN, None), (f, d, WITHIN + timedelta(days=1), None)])
    add(folder, "blocks", [(a, d, WITHIN, None), (b, c, BEFORE, WITHIN), (new, e, WITHIN, None), (e, f, BEFORE, AFTER)])
    add(folder, "blocks", [(a, away, WITHIN, None)])
    add(folder, "dismissals", [(a, f, WITHIN, None), (b, f, EXPIRED, None), (d, a, BEFORE, WITHIN), (c, a, None, None)])
    events = [(c, "deactivated", WITHIN), (returning, "banned", BEFORE), (returning, "unbanned", WITHIN)]
    events += [(d, "opted_out", WITHIN), (d, "opted_in", WITHIN), (new + 3, "banned", WITHIN), (f, "erased", AFTER)]
    events += [(away, "deactivated", BEFORE)]
    add(folder, "user_events", events)
    add(folder, "interactions", [(a, e, "message", WITHIN), (a, e, "message", BEFORE), (new, c, "message", WITHIN)])
    schema = pq.read_schema(next((folder / "profiles").iterdir()))
    rows = [{"user_id": new, "joined_at": WITHIN, "city": None}, {"user_id": e, "joined_at": WITHIN, "gender": "other"}]
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "profiles" / "later.parquet")


def add(folder: Path, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    schema = LAKE_TABLES[table].schema
    values = [dict(zip(schema.names, row, strict=False)) for row in rows]
    made = pa.Table.from_pylist(values, pa.schema([field.with_nullable(True) for field in schema]))
    pq.write_table(made, folder / table / f"more-{len(list((folder / table).iterdir()))}.parquet")


def built(lake: Lake, spark: SparkSession, as_of: datetime, data: Path) -> Graph:
    data.mkdir()
    build_graph.run(StageContext(SETTINGS, as_of, str(lake.folder), {}, data, lambda: spark, lambda line: None))
    return Graph.open(data)


@dataclass(frozen=True)
class Hour:
    night: Graph
    merged: Merged
    rebuilt: Graph
    folder: Path


@pytest.fixture(scope="module")
def hour(lake: Lake, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Hour:
    folder = tmp_path_factory.mktemp("graphs")
    night = built(lake, spark, NIGHT, folder / "night")
    rebuilt = built(lake, spark, HOUR, folder / "hour")
    return Hour(night, merged(lake.folder, night, folder / "night"), rebuilt, folder)


def merged(lake: Path, night: Graph, folder: Path, erased: Sequence[int] = ()) -> Merged:
    window = Window.between(NIGHT, HOUR)
    rows = LakeRows(str(lake), window, erased)
    facts = find_new_facts(rows, np.asarray(night.ids), np.array(erased, np.int64), SETTINGS.graph.dismissal_days)
    return merge(night, folder, facts, tuple(rows.attributes), window.until_us, SETTINGS)


def test_people_and_what_is_between_them_are_those_of_a_night_at_that_time(hour: Hour) -> None:
    found, expected = hour.merged.graph, hour.rebuilt
    assert len(hour.merged.joined) >= 3
    assert 0 < (hour.merged.row_of_base < 0).sum() < 10
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.split, expected.split)
    np.testing.assert_array_equal(found.joined_day, expected.joined_day)
    assert found.as_of_day == expected.as_of_day
    for name in ("now.connections", "now.interactions", "excluded"):
        view, _, part = name.rpartition(".")
        one, other = (getattr(graph.now if view else graph, part) for graph in (found, expected))
        np.testing.assert_array_equal(one.indptr, other.indptr, name)
        np.testing.assert_array_equal(one.indices, other.indices, name)
        if one.values is not None:
            np.testing.assert_array_equal(one.values, other.values, name)


def test_whom_inactive_users_must_not_be_shown_is_what_a_night_at_that_time_says(hour: Hour, lake: Lake) -> None:
    rows = LakeRows(str(lake.folder), Window.between(NIGHT, HOUR))
    known, nobody = np.asarray(hour.night.ids), np.zeros(0, np.int64)
    facts = find_new_facts(rows, known, nobody, SETTINGS.graph.dismissal_days)
    table = pq.read_table(hour.folder / "hour" / "inactive_bars.parquet")
    every = np.stack([table["user_id"].to_numpy(), table["other_id"].to_numpy()], axis=1)
    np.testing.assert_array_equal(facts.barred, every[np.isin(every[:, 0], facts.inactive)])
    assert set(facts.departed.tolist()) <= set(facts.inactive.tolist())
    assert lake.people[10] in facts.inactive, "inactive at night, and blocked since"
    assert facts.barred[facts.barred[:, 0] == lake.people[10], 1].tolist().count(lake.people[0]) == 1


def test_nobody_erased_is_kept_from_anybody(hour: Hour, lake: Lake) -> None:
    gone = lake.people[10]
    rows = LakeRows(str(lake.folder), Window.between(NIGHT, HOUR), [gone])
    facts = find_new_facts(rows, np.asarray(hour.night.ids), np.array([gone]), SETTINGS.graph.dismissal_days)
    assert gone not in facts.inactive
    assert len(facts.barred) > 0
    assert gone not in facts.barred


def test_an_hour_of_a_network_from_which_nobody_was_ever_erased_is_found(
    hour: Hour, lake: Lake, tmp_path: Path
) -> None:
    copy = shutil.copytree(lake.folder, tmp_path / "lake")
    for path in (copy / "user_events").iterdir():
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pc.not_equal(rows["event"], "erased")), path)
    nobody = np.zeros(0, np.int64)
    opened = LakeRows(str(copy), Window.between(NIGHT, HOUR))
    facts = find_new_facts(opened, np.asarray(hour.night.ids), nobody, SETTINGS.graph.dismissal_days)
    assert len(facts.barred) > 0


def test_profiles_and_affiliations_are_those_of_that_night_in_the_codes_of_the_base(hour: Hour) -> None:
    """What the night has not seen of anybody is left out of what is compared: it waits for the next one."""
    night, now = (traits(graph, hour.folder / name) for graph, name in ((hour.night, "night"), (hour.rebuilt, "hour")))
    known = {trait[:2] for traits_of in night.values() for trait in traits_of}
    expected = {person: {trait for trait in of if trait[:2] in known} for person, of in now.items()}
    assert traits(hour.merged.graph, hour.folder / "night") == expected
    assert hour.merged.changed["waiting"] == sum(len(now[person]) - len(of) for person, of in expected.items())


def traits(graph: Graph, folder: Path) -> dict[int, set[tuple[Any, ...]]]:
    """What each person is and where they belong, in words."""
    values, entities = (pq.read_table(folder / f"{name}.parquet") for name in ("attribute_values", "entities"))
    named = zip(values["attribute"].to_pylist(), values["code"].to_pylist(), strict=True)
    words = dict(zip(named, values["value"].to_pylist(), strict=True))
    places = list(zip(entities["kind"].to_pylist(), entities["entity_id"].to_pylist(), strict=True))
    found: dict[int, set[tuple[Any, ...]]] = {}
    belongs = graph.now.affiliations
    for row, person in enumerate(graph.ids.tolist()):
        codes = zip(graph.attributes, graph.attribute_codes[:, row].tolist(), strict=True)
        found[person] = {(name, words[name, code]) for name, code in codes if code >= 0}
        entries = range(belongs.indptr[row], belongs.indptr[row + 1])
        found[person] |= {(*places[belongs.indices[at]], float(belongs.values[at])) for at in entries}
    return found


def test_whom_nothing_touches_is_as_at_night(hour: Hour) -> None:
    """Of the others friends, exclusions and traits are the same, but for friends who left."""
    found, night = hour.merged, hour.night
    there = found.row_of_base >= 0
    others = np.setdiff1d(found.row_of_base[there], found.touched)
    assert len(others) > 50
    for row in others.tolist():
        was = found.base_row[row]
        friends = found.row_of_base[night.now.connections.row(was)]
        np.testing.assert_array_equal(found.graph.now.connections.row(row), friends[friends >= 0])
        barred = found.row_of_base[night.excluded.row(was)]
        np.testing.assert_array_equal(found.graph.excluded.row(row), barred[barred >= 0])
        np.testing.assert_array_equal(found.graph.attribute_codes[:, row], night.attribute_codes[:, was])
        np.testing.assert_array_equal(found.graph.now.affiliations.row(row), night.now.affiliations.row(was))


def test_a_fact_that_comes_late_waits_for_the_night(lake: Lake, hour: Hour, tmp_path: Path) -> None:
    copy = copied(lake.folder, tmp_path)
    one, other = lake.people[0], lake.people[7]
    add(copy, "connections", [(one, other, BEFORE, None), (one, 5 * 10**12, None, None)])
    add(copy, "blocks", [(lake.people[1], lake.people[10], BEFORE, None)])
    again = merged(copy, hour.night, hour.folder / "night")
    np.testing.assert_array_equal(again.graph.ids, hour.merged.graph.ids)
    np.testing.assert_array_equal(again.graph.now.connections.indices, hour.merged.graph.now.connections.indices)
    np.testing.assert_array_equal(again.graph.excluded.indices, hour.merged.graph.excluded.indices)


def test_what_came_since_the_graph_was_built_counts_though_it_is_of_the_day_before(
    lake: Lake, spark: SparkSession, hour: Hour, tmp_path: Path
) -> None:
    """As a night at that time would have it. What the night knew of that day touches nobody."""
    copy, late, far = copied(lake.folder, tmp_path), NIGHT - timedelta(minutes=30), 9 * 10**12
    a, b, c, d, e, f = lake.people[12:18]
    known = zip(lake.people[20:40:2], lake.people[23:43:2], strict=True)
    add(copy, "connections", [(*pair, late, None) for pair in known])
    night = built(Lake(copy, []), spark, NIGHT, tmp_path / "night")
    before = merged(copy, night, tmp_path / "night")
    add(copy, "connections", [(a, c, late, None), (far, a, late, None), (a, b, BEFORE, late)])
    add(copy, "blocks", [(d, e, late, None)])
    add(copy, "dismissals", [(f, a, late, None)])
    add(copy, "user_events", [(b, "deactivated", late)])
    found, expected = merged(copy, night, tmp_path / "night"), built(Lake(copy, []), spark, HOUR, tmp_path / "hour")
    np.testing.assert_array_equal(found.graph.ids, expected.ids)
    for one, other in (
        (found.graph.now.connections, expected.now.connections),
        (found.graph.excluded, expected.excluded),
    ):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)
    touched, touched_before = (set(one.graph.ids[one.touched].tolist()) for one in (found, before))
    assert {a, c, d, e, f, far} <= touched
    assert touched - touched_before <= {a, c, d, e, f, far}
    assert len(touched_before & {*lake.people[20:43]}) < 10


def test_who_is_erased_is_nowhere(lake: Lake, hour: Hour) -> None:
    known, new = int(hour.night.ids[5]), 10**12
    found = merged(lake.folder, hour.night, hour.folder / "night", (known, new))
    assert not np.isin([known, new], found.graph.ids).any()
    assert found.row_of_base[5] == -1


def test_a_value_that_the_base_has_not_seen_waits(lake: Lake, hour: Hour, tmp_path: Path) -> None:
    copy, new = copied(lake.folder, tmp_path), 7 * 10**12
    schema = pq.read_schema(next((copy / "profiles").iterdir()))
    rows = [{"user_id": new, "joined_at": WITHIN, "city": "Atlantis", "gender": "other"}]
    pq.write_table(pa.Table.from_pylist(rows, schema), copy / "profiles" / "new.parquet")
    add(copy, "affiliations", [(new, "company", "nobody else's", 1, WITHIN)])
    found = merged(copy, hour.night, hour.folder / "night")
    row = int(np.searchsorted(found.graph.ids, new))
    assert found.changed["waiting"] == hour.merged.changed["waiting"] + 2
    assert len(found.graph.now.affiliations.row(row)) == 0
    codes = dict(zip(found.graph.attributes, found.graph.attribute_codes[:, row].tolist(), strict=True))
    assert codes["city"] == -1
    assert codes["gender"] >= 0


def test_bad_rows_are_refused_by_the_rules_of_the_night(
    lake: Lake, spark: SparkSession, hour: Hour, tmp_path: Path
) -> None:
    copy = copied(lake.folder, tmp_path)
    add(copy, "connections", [(1, 1, WITHIN, None), (2, 3, WITHIN, BEFORE), (4, 4, BEFORE, None)])
    add(copy, "affiliations", [(1, "company", "x", 0, WITHIN), (2, "company", None, 1, WITHIN)])
    add(copy, "user_events", [(1, "vanished", WITHIN), (2, None, WITHIN)])
    odd = {"user_id": ["7", "x;y"], "other_id": ["8", "9"], "connected_at": [WITHIN, WITHIN]}
    pq.write_table(pa.table(odd), copy / "connections" / "odd.parquet")
    rows = LakeRows(str(copy), Window.between(NIGHT, HOUR))
    find_new_facts(rows, np.asarray(hour.night.ids), np.zeros(0, np.int64), 365)
    (tmp_path / "data").mkdir()
    loose = SETTINGS.model_copy(update={"graph": SETTINGS.graph.model_copy(update={"max_bad_share": 0.5})})
    context = StageContext(loose, HOUR, str(copy), {}, tmp_path / "data", lambda: spark, lambda line: None)
    expected = build_graph.run(context).metrics["quarantined"]
    assert {name: judged.bad for name, judged in rows.judged.items() if judged.bad} == expected
    assert rows.quarantine.num_rows == sum(sum(of.values()) for of in expected.values()) - 1, "one is older"
    rows.refuse_bad(0.5)
    with pytest.raises(InputError, match="rows are bad"):
        rows.refuse_bad(0.0)


def copied(lake: Path, folder: Path) -> Path:
    return Path(shutil.copytree(lake, folder / "lake"))
