"""The sample network: believable, within its dates, the same for the same seed."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.errors import UsageError
from infra.schemas import LAKE_TABLES, USER_EVENT_NAMES
from jobs.sample import generate
from jobs.sampling.friendships import friendships_wanted

END = date(2025, 3, 1)
END_TIME = datetime(2025, 3, 1, tzinfo=UTC)


def write_lake(users: int, seed: int) -> tuple[dict, dict[str, bytes]]:
    files: dict[str, bytes] = {}

    def keep(key: str, path: Path) -> None:
        files[key] = path.read_bytes()

    return generate(users, keep, seed, END), files


def read(files: dict[str, bytes], table: str) -> pa.Table:
    parts = [pq.read_table(pa.BufferReader(files[key])) for key in sorted(files) if key.startswith(f"{table}/")]
    return pa.concat_tables(parts)


@pytest.fixture(scope="module")
def lake() -> dict[str, bytes]:
    return write_lake(2000, 5)[1]


def test_every_table_has_its_schema_and_no_fact_at_or_after_the_end(lake):
    for name, table in LAKE_TABLES.items():
        found = read(lake, name)
        assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in found.schema][: len(table.schema)]
        for required in table.required:
            assert found[required].null_count == 0
        for field in table.schema:
            if pa.types.is_timestamp(field.type) and found.num_rows:
                latest = pc.max(found[field.name]).as_py()
                assert latest is None or latest < END_TIME
        if "other_id" in found.column_names:
            assert not pc.any(pc.equal(found["user_id"], found["other_id"])).as_py()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_network():
    once, again, other = write_lake(300, 1), write_lake(300, 1), write_lake(300, 2)
    assert once == again
    assert once[1]["connections/part-00000.parquet"] != other[1]["connections/part-00000.parquet"]


def test_ids_are_sparse_and_past_32_bits(lake):
    ids = np.unique(read(lake, "connections")["user_id"].to_numpy())
    assert ids.min() > 2**32
    assert set((ids - 10_000_000_000) % 97) == {0}


def test_friends_met_after_both_joined(lake):
    profiles = read(lake, "profiles")
    joined = dict(zip(profiles["user_id"].to_pylist(), profiles["joined_at"].cast(pa.int64()).to_pylist(), strict=True))
    friends = read(lake, "connections")
    met = friends["connected_at"].cast(pa.int64()).to_pylist()
    for user, other, at in zip(friends["user_id"].to_pylist(), friends["other_id"].to_pylist(), met, strict=True):
        assert at >= joined.get(user, at)
        assert at >= joined.get(other, at)


def test_an_end_never_comes_before_its_beginning(lake):
    for name in ("connections", "blocks", "dismissals"):
        table = LAKE_TABLES[name]
        found = read(lake, name)
        assert pc.all(pc.less_equal(found[table.start], found[table.end])).as_py() in (True, None)


def test_friends_of_friends_are_friends_and_degrees_have_a_heavy_tail(lake):
    friends = read(lake, "connections")
    ids, codes = np.unique(
        np.concatenate([friends["user_id"].to_numpy(), friends["other_id"].to_numpy()]), return_inverse=True
    )
    adjacent = np.zeros((len(ids), len(ids)), np.float32)
    half = friends.num_rows
    adjacent[codes[:half], codes[half:]] = adjacent[codes[half:], codes[:half]] = 1
    assert adjacent.sum() == 2 * half, "a pair is there once"
    degree = adjacent.sum(axis=1)
    triangles = ((adjacent @ adjacent) * adjacent).sum(axis=1)
    several = degree > 1
    assert (triangles / np.maximum(degree * (degree - 1), 1))[several].mean() > 0.1
    assert degree.max() > 5 * np.median(degree)
    assert 15 < degree.mean() < 25


def test_some_left_some_are_blocked_and_some_attributes_are_missing(lake):
    events = read(lake, "user_events")
    assert set(events["event"].to_pylist()) <= set(USER_EVENT_NAMES)
    assert 20 <= pc.sum(pc.equal(events["event"], "deactivated")).as_py() <= 70
    assert read(lake, "blocks").num_rows > 0
    assert (
        0.01 < 1 - read(lake, "connections")["disconnected_at"].null_count / read(lake, "connections").num_rows < 0.03
    )
    profiles = read(lake, "profiles")
    assert 0 < profiles["age_band"].null_count < profiles.num_rows
    assert set(read(lake, "affiliations")["kind"].to_pylist()) == {"school", "company", "interest"}


def test_names_of_one_attribute_are_distinct():
    from jobs.sampling.facts import place_names

    assert len(set(place_names(1000))) == 1000


@pytest.mark.parametrize("users", [1, 2, 3])
def test_a_tiny_network_still_has_every_table(users):
    counts, files = write_lake(users, 1)
    assert counts["users"] == users
    assert {key.split("/")[0] for key in files} == set(LAKE_TABLES)
    assert counts["friendships"] <= users * (users - 1) / 2


def test_a_network_of_nobody_is_refused():
    with pytest.raises(UsageError, match="--users 0"):
        write_lake(0, 1)


def test_mean_degree_grows_gently_to_forty():
    assert friendships_wanted(200_000) == pytest.approx(4_000_000, rel=0.01)
    assert friendships_wanted(1_000_000) == 20_000_000
    assert friendships_wanted(2_000) == pytest.approx(20_000, rel=0.01)
