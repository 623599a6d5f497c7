"""The graph holds what the rules of the lake say, whatever the order, cut and spelling of the rows."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.errors import InputError, UsageError
from infra.graph import LEARN, NO_DAY, REPORT, VALIDATE, Csr, Graph
from infra.lake import output_schema
from infra.schemas import LAKE_TABLES, USER_EVENT_NAMES
from infra.settings import RulesSettings, Settings, load
from infra.store import open_store
from jobs import build_graph
from jobs.context import StageContext, StageResult
from jobs.past_view import rows_of_entries
from tests.jobs.graph_oracle import EPOCH, Oracle, Row

AS_OF = datetime(2020, 1, 1, tzinfo=UTC)
Built = tuple[Graph, StageResult, Path]
Build = Callable[..., Built]


@pytest.fixture(scope="module")
def build(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Runs the stage over a lake: tables by name, each a list of Parquet files to be."""

    def run(tables: dict[str, Sequence[pa.Table]], as_of: datetime = AS_OF, **flags: str) -> Built:
        place = tmp_path_factory.mktemp("run")
        write_lake(place / "lake", tables)
        (place / "data").mkdir()
        flags = {"spark__partitions": "2"} | flags
        settings, _ = load(flags={name.replace("__", "."): value for name, value in flags.items()}, environ={})
        context = StageContext(
            settings, as_of, str(place / "lake"), {}, place / "data", lambda: spark, lambda line: None
        )
        result = build_graph.run(context)
        return Graph.open(place / "data"), result, place / "data"

    return run


def write_lake(folder: Path, tables: Mapping[str, Sequence[pa.Table]]) -> None:
    for name, files in tables.items():
        (folder / name).mkdir(parents=True)
        for i, table in enumerate(files):
            pq.write_table(table, folder / name / f"{i}.parquet", row_group_size=1000)


def connections(*pairs: tuple[Any, Any]) -> dict[str, list[pa.Table]]:
    users, others = zip(*pairs, strict=True) if pairs else ((), ())
    return {
        "connections": [pa.table({"user_id": pa.array(users, pa.int64()), "other_id": pa.array(others, pa.int64())})]
    }


def random_lake(seed: int, dated: float = 1.0) -> dict[str, list[Row]]:
    """Every table, with times around the as-of, intervals, opposing events and ids past int32."""
    draw = np.random.default_rng(seed)
    ids = [int(i) for i in np.unique(draw.integers(-(2**62), 2**62, 40))]

    def when(missing: float = 0.1, days: int = 800) -> datetime | None:
        if draw.random() < missing:
            return None
        return AS_OF + timedelta(hours=int(draw.integers(-24 * days, 24 * 60)))

    def pair() -> Row:
        a, b = draw.choice(len(ids), 2, replace=False)
        return {"user_id": ids[a], "other_id": ids[b]}

    def interval(start: str, end: str) -> Row:
        begun = when(1 - 0.99 * dated)
        ended = None if draw.random() < 0.7 else (begun or AS_OF) + timedelta(days=int(draw.integers(0, 200)))
        return {**pair(), start: begun, end: ended}

    def one() -> Row:
        return {"user_id": int(draw.choice(ids))}

    events = USER_EVENT_NAMES[:-1] * 4 + ("erased",)
    return {
        "connections": [interval("connected_at", "disconnected_at") for _ in range(600)],
        "profiles": [
            {**one(), "joined_at": when(), "age": int(draw.integers(3)), "city": str(draw.choice(["b", "a", "ä"]))}
            for _ in range(70)
        ],
        "user_events": [
            {**one(), "event": str(draw.choice(events)), "at": when(0)} for _ in range(12)
        ],
        "affiliations": [
            {**one(), "kind": str(draw.choice(["school", "place"])), "entity_id": str(draw.integers(12)),
             "times": None if draw.random() < 0.5 else int(draw.integers(1, 9)), "since": when()}
            for _ in range(150)
        ],
        "interactions": [{**pair(), "kind": "message", "at": when(0)} for _ in range(200)],
        "blocks": [interval("at", "removed_at") for _ in range(15)],
        "dismissals": [interval("at", "removed_at") for _ in range(40)],
        "impressions": [{**pair(), "at": when(0), "position": 1, "outcome": "shown"} for _ in range(10)]
        + [{"user_id": 2**62, "other_id": ids[0], "at": AS_OF - timedelta(1), "position": 1, "outcome": "shown"}],
    }  # fmt: skip


def as_tables(rows: dict[str, list[Row]], files: int = 1, seed: int | None = None) -> dict[str, Sequence[pa.Table]]:
    """Typed Parquet tables; with a seed the rows are shuffled first."""
    made: dict[str, Sequence[pa.Table]] = {}
    for name, own in rows.items():
        order = np.arange(len(own)) if seed is None else np.random.default_rng(seed).permutation(len(own))
        whole = pa.Table.from_pylist([own[i] for i in order], schema=schema_of(name))
        cuts = np.linspace(0, len(own), files + 1).astype(int)
        made[name] = [whole[a:b] for a, b in pairwise(cuts)]
    return made


def schema_of(name: str) -> pa.Schema:
    schema = output_schema(LAKE_TABLES[name], {})
    fields = [field for field in schema if field.name not in ("reason", "given")]
    extra = [pa.field("age", pa.int8()), pa.field("city", pa.string())] if name == "profiles" else []
    return pa.schema([*fields, *extra])


def entries(graph: Graph, csr: Csr) -> dict[tuple[int, int], Any]:
    """(user id, user id) -> value, or True."""
    rows, columns = graph.ids[rows_of_entries(csr)], graph.ids[csr.indices]
    values = np.ones(csr.entries, bool) if csr.values is None else csr.values
    return dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), values.tolist(), strict=True))


def both_ways(pairs: dict[tuple[int, int], Any]) -> dict[tuple[int, int], Any]:
    return pairs | {(b, a): value for (a, b), value in pairs.items()}


def check(graph: Graph, data: Path, oracle: Oracle) -> None:
    """Everything but the choice of what is held out."""
    friends = {pair: int(NO_DAY) if day is None else day for pair, day in oracle.friends.items()}
    assert graph.ids.tolist() == oracle.users
    assert entries(graph, graph.now.connections) == both_ways(friends)
    held = {tuple(pair) for pair in graph.ids[graph.held_out].tolist()}
    assert entries(graph, graph.past.connections) == both_ways({p: d for p, d in friends.items() if p not in held})
    assert held <= set(friends)
    assert graph.held_out_day.tolist() == [friends[tuple(pair)] for pair in graph.ids[graph.held_out].tolist()]
    assert entries(graph, graph.now.interactions) == oracle.interactions()
    assert set(entries(graph, graph.excluded)) == oracle.excluded(180)
    assert seen_at(graph, data, graph.now.affiliations) == oracle.affiliations()
    assert seen_at(graph, data, graph.past.affiliations) == oracle.affiliations(graph.cutoff_day)
    assert profiles_of(graph, data) == {
        user: (row["age"], row["city"], NO_DAY if row["joined_at"] is None else (row["joined_at"] - EPOCH).days)
        for user, row in oracle.profiles().items()
    }
    for csr in (graph.now.connections, graph.past.connections, graph.now.interactions, graph.excluded):
        starts = rows_of_entries(csr).astype(np.int64) * graph.users + csr.indices
        assert (np.diff(starts) > 0).all(), "rows ascend and hold nobody twice"


def seen_at(graph: Graph, data: Path, csr: Csr) -> dict[tuple[int, str, str], int]:
    names = pq.read_table(data / "entities.parquet").to_pylist()
    assert [graph.kinds[k] for k in graph.entity_kind] == [name["kind"] for name in names]
    assert names == sorted(names, key=lambda name: (name["kind"], name["entity_id"]))
    assert csr.values is not None
    return {
        (user, names[entity]["kind"], names[entity]["entity_id"]): times
        for user, entity, times in zip(
            graph.ids[rows_of_entries(csr)].tolist(), csr.indices.tolist(), csr.values.tolist(), strict=True
        )
    }


def profiles_of(graph: Graph, data: Path) -> dict[int, tuple[Any, ...]]:
    """Users with a profile: age, city, joined_day."""
    values = pq.read_table(data / "attribute_values.parquet").to_pylist()
    text = {(value["attribute"], value["code"]): value["value"] for value in values}
    assert graph.attributes == ("age", "city")
    assert [value["value"] for value in values] == ["0", "1", "2", "a", "b", "ä"]
    assert graph.cardinalities == (3, 3)
    found = {}
    for row, user in enumerate(graph.ids.tolist()):
        age, city = graph.attribute_codes[:, row].tolist()
        if age >= 0:
            found[user] = (int(text["age", age]), text["city", city], int(graph.joined_day[row]))
    return found


DATED_SEED = 3


@pytest.fixture(scope="module")
def dated(build: Build) -> Built:
    """The graph of a random lake in which nearly every friendship carries a time."""
    return build(as_tables(random_lake(DATED_SEED)))


def test_the_graph_equals_the_rules_in_plain_python(dated: Built) -> None:
    rows = random_lake(DATED_SEED)
    oracle = Oracle(rows, AS_OF)
    graph, result, data = dated
    assert len(oracle.inactive) > 2
    assert 2**62 in oracle.users, "somebody known from impressions alone is a user"
    check(graph, data, oracle)
    cutoff = graph.cutoff_day
    assert graph.hold_out == "time"
    assert cutoff is not None
    late = {pair for pair, day in oracle.friends.items() if day is not None and day >= cutoff}
    assert {tuple(pair) for pair in graph.ids[graph.held_out].tolist()} == late
    assert abs(len(late) / len(oracle.friends) - 0.1) < 0.02
    assert entries(graph, graph.past.interactions) == oracle.interactions(cutoff)
    assert result.rows == len(oracle.users)
    assert result.metrics["users_dropped_inactive"] == len(oracle.inactive)
    assert result.metrics["friendships_now"] == len(oracle.friends)
    assert result.metrics["cutoff"] == (date(1970, 1, 1) + timedelta(cutoff)).isoformat()


def test_friends_blocks_and_dismissals_of_inactive_users_are_kept_beside_the_graph(dated: Built) -> None:
    oracle = Oracle(random_lake(DATED_SEED), AS_OF)
    _, _, data = dated
    table = pq.read_table(data / "inactive_bars.parquet")
    found = list(zip(table["user_id"].to_pylist(), table["other_id"].to_pylist(), strict=True))
    assert found == oracle.inactive_bars(180)
    assert len({user for user, _ in found}) > 2
    assert not {other for _, other in found} <= set(oracle.users), "some are inactive both"


def test_nothing_is_kept_of_who_was_erased_and_nobody_is_kept_from_them(build: Build) -> None:
    lake = connections((1, 2), (3, 2), (4, 2), (4, 5))
    left = {"user_id": [2, 4, 5], "event": ["deactivated", "erased", "banned"], "at": [AS_OF - timedelta(days=1)] * 3}
    blocks = pa.table({"user_id": [6, 2, 4], "other_id": [5, 6, 1], "at": pa.nulls(3, pa.timestamp("us", "UTC"))})
    _, _, data = build({**lake, "user_events": [pa.table(left)], "blocks": [blocks]})
    found = pq.read_table(data / "inactive_bars.parquet").to_pylist()
    assert [(row["user_id"], row["other_id"]) for row in found] == [(2, 1), (2, 3), (2, 6), (5, 6)]


def test_order_cut_and_repeats_of_rows_change_nothing(build: Build, dated: Built) -> None:
    rows = random_lake(DATED_SEED)
    _, whole, _ = dated
    reversed_too = [{**row, "user_id": row["other_id"], "other_id": row["user_id"]} for row in rows["connections"]]
    rows = rows | {"connections": rows["connections"] + reversed_too + rows["connections"][:50]}
    _, cut, _ = build(as_tables(rows, files=3, seed=8), spark__partitions="3")
    assert cut.content_hash == whole.content_hash


def test_without_times_a_seeded_share_is_held_out(build: Build) -> None:
    rows = random_lake(4, dated=0.5)
    graph, first, data = build(as_tables(rows))
    check(graph, data, Oracle(rows, AS_OF))
    assert graph.hold_out == "random"
    assert graph.cutoff_day is None
    assert 0.03 < len(graph.held_out) / (graph.now.connections.entries / 2) < 0.2
    assert graph.past.interactions.entries == 0, "nothing tells which of them came before the friendship"
    _, other, _ = build(as_tables(rows), run__seed="18")
    assert other.content_hash != first.content_hash


def test_a_lake_without_rows_is_an_empty_graph(build: Build) -> None:
    graph, result, data = build(connections())
    assert (graph.users, result.rows, graph.held_out.shape) == (0, 0, (0, 2))
    assert pq.read_table(data / "quarantine.parquet").num_rows == 0


def test_one_active_user_has_no_friends(build: Build) -> None:
    left = pa.table({"user_id": [2], "event": ["erased"], "at": [AS_OF - timedelta(days=1)]})
    graph, _, _ = build({**connections((1, 2)), "user_events": [left]})
    assert graph.ids.tolist() == [1]
    assert graph.now.connections.entries == graph.past.connections.entries == 0


def test_a_user_of_profiles_alone_is_isolated_but_there(build: Build) -> None:
    graph, _, _ = build({**connections((1, 2)), "profiles": [pa.table({"user_id": [9], "city": ["Ulm"]})]})
    assert graph.ids.tolist() == [1, 2, 9]
    assert graph.now.connections.degrees().tolist() == [1, 1, 0]
    assert graph.attribute_codes.tolist() == [[-1, -1, 0]]


def test_ids_span_int64_and_may_be_text_floats_or_unsigned(build: Build) -> None:
    low, high = -(2**63), 2**63 - 1
    files = [
        pa.table({"user_id": pa.array([low, -1], pa.int64()), "other_id": pa.array([high, 5], pa.int64())}),
        pa.table({"user_id": ["5", " 7 "], "other_id": [str(high), "8"]}),
        pa.table({"user_id": pa.array([7.0, None]), "other_id": pa.array([2**64 - 1, 3], pa.uint64())}),
        pa.table({"user_id": ["9" * 19, "x"], "other_id": [1, 1]}),
    ]
    graph, result, data = build({"connections": files}, graph__max_bad_share="0.5")
    assert graph.ids.tolist() == [low, -1, 5, 7, 8, high]
    assert sorted(entries(graph, graph.now.connections)) == sorted(
        both_ways(dict.fromkeys([(low, high), (-1, 5), (5, high), (7, 8)]))
    )
    told = ("other_id is past int64", "user_id is missing", "user_id is not an integer", "user_id is past int64")
    assert result.metrics["quarantined"] == {"connections": dict.fromkeys(told, 1)}
    refused = pq.read_table(data / "quarantine.parquet").to_pylist()
    assert refused[2]["reason"] == told[2]
    assert refused[2]["row"] == '{"user_id":"x","other_id":1}'


def test_a_user_with_50000_friends(build: Build) -> None:
    hub = pa.table({"user_id": np.arange(1, 50_001), "other_id": np.zeros(50_000, np.int64)})
    graph, _, _ = build({"connections": [hub]})
    assert graph.now.connections.degrees()[0] == 50_000
    assert (graph.now.connections.row(0) == np.arange(1, 50_001)).all()
    assert (graph.now.connections.degrees()[1:] == 1).all()
    shares = np.bincount(graph.split, minlength=3) / graph.users
    assert shares[[LEARN, VALIDATE, REPORT]] == pytest.approx([0.6, 0.1, 0.3], abs=0.01)
    assert len(graph.held_out) / 50_000 == pytest.approx(0.1, abs=0.01)


def test_too_many_bad_rows_stop_the_run_with_examples(build: Build) -> None:
    lake = connections((1, 2), (3, 3), (4, 4))
    with pytest.raises(InputError) as caught:
        build(lake)
    told = str(caught.value)
    assert "table connections: 2 of 3 rows are bad (66.7%, at most 1.0% may be)" in told
    assert 'user_id and other_id are the same: {"user_id":3,"other_id":3' in told
    assert "graph.max_bad_share" in told


def test_a_bad_file_is_named(build: Build, tmp_path: Path) -> None:
    listed = pa.table({"user_id": [[1]], "other_id": [2]})
    with pytest.raises(InputError, match=r"/0.parquet: connections.user_id is list<.*>, expected an integer"):
        build({"connections": [listed]})
    with pytest.raises(InputError, match=r"/0.parquet: connections needs a column other_id"):
        build({"connections": [listed.select(["user_id"])]})


def test_shares_that_leave_nobody_to_learn_from_are_refused(build: Build) -> None:
    with pytest.raises(UsageError, match="leaves no user to learn from") as caught:
        build(connections((1, 2)), graph__report_share="0.95")
    assert "below 1" in caught.value.fix


def test_what_is_silently_missing_is_told_and_the_first_as_of_there_is_works(
    spark: SparkSession, tmp_path: Path
) -> None:
    """Nothing of a lake is before year 1 but what has no time; no dismissal has expired by then."""
    dismissed = pa.table({"user_id": [1], "other_id": [3]})
    write_lake(tmp_path / "lake", {**connections((1, 2)), "dismissals": [dismissed], "Profiles": [dismissed]})
    (tmp_path / "data").mkdir()
    settings, _ = load(flags={"rules.company_attributes": "nope", "graph.dismissal_days": "36500"}, environ={})
    said: list[str] = []
    first = datetime(1, 1, 1, tzinfo=UTC)
    build_graph.run(
        StageContext(settings, first, str(tmp_path / "lake"), {}, tmp_path / "data", lambda: spark, said.append)
    )
    graph = Graph.open(tmp_path / "data")
    assert set(entries(graph, graph.excluded)) == {(1, 3)}
    warnings = [line for line in said if "warning" in line]
    assert len(warnings) == 2
    assert "ignored, not a table: Profiles; the tables are called connections, profiles" in warnings[0]
    assert "rules.company_attributes: no attribute or kind is called nope; there are none" in warnings[1]


def test_names_of_the_default_rules_may_be_missing() -> None:
    assert list(build_graph.rule_warnings(RulesSettings(), ())) == []
    assert list(build_graph.rule_warnings(RulesSettings(company_attributes=("club",)), ("club",))) == []


def test_s3_gives_the_same_graph_as_a_folder(build: Build, spark: SparkSession, s3_bucket: str, tmp_path: Path) -> None:
    tables = {**connections((1, 2), (2, 3)), "profiles": [pa.table({"user_id": [1], "city": ["Ulm"]})]}
    _, local, _ = build(tables)
    write_lake(tmp_path / "lake", tables)
    (tmp_path / "data").mkdir()
    store = open_store(f"s3://{s3_bucket}/lake")
    for path in (tmp_path / "lake").rglob("*.parquet"):
        store.upload(path, path.relative_to(tmp_path / "lake").as_posix())
    context = StageContext(Settings(), AS_OF, store.uri, {}, tmp_path / "data", lambda: spark, lambda line: None)
    assert build_graph.run(context).content_hash == local.content_hash
