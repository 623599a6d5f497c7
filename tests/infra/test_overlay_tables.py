"""Rows of a delta are read before those of its base, and rows that are gone are nowhere."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from infra.errors import CorruptArtifact, StoreError
from infra.kv import BARS, META, RANKINGS, USERS, KeyValueReader
from infra.lmdb_tables import LmdbTables, LmdbWriter
from infra.overlay_tables import OverlayTables
from infra.serving_meta import (
    CHANGED_KEY,
    DEPARTED_KEY,
    INACTIVE_KEY,
    POPULAR_IDS_KEY,
    POPULAR_KEY,
    decode_ids,
    encode_ids,
)
from lookup_api.written_list import written_list
from tests.suites.kv_stores import put_rows

POPULAR = [7, -3, 2**40]
BASE = {key: b"base %d" % key for key in (-3, 1, 2, 5, 7)}
JOINED, CHANGED, GONE, AWAY = 10, 5, 7, 12

BARRED = {GONE: b"bars of who left", AWAY: b"bars of who was away"}


def stored(folder: Path, rows: Mapping[str, Mapping[int, bytes]]) -> KeyValueReader:
    with LmdbWriter(folder, 2) as writer:
        put_rows(writer, rows)
        writer.finish()
    return LmdbTables(folder)


def base_of(folder: Path, popular: Sequence[int] = POPULAR) -> KeyValueReader:
    n = len(popular)
    blob = written_list(list(popular), [1.0] * n, [("x",)] * n, [0] * n, [[]] * n, b"")
    bars = BASE | {AWAY: b"bars of that night"}
    return stored(folder, {USERS: BASE, RANKINGS: BASE, BARS: bars, META: {POPULAR_KEY: blob}})


def delta_of(folder: Path, bars: Mapping[int, bytes] = BARRED) -> KeyValueReader:
    """bars: of inactive users; without any as deltas of earlier versions are."""
    rows = {JOINED: b"joined", CHANGED: b"changed", GONE: b""}
    told = {CHANGED_KEY: sorted(rows), DEPARTED_KEY: [GONE], POPULAR_IDS_KEY: POPULAR, INACTIVE_KEY: [GONE, AWAY]}
    meta = {key: encode_ids(np.array(ids)) for key, ids in told.items() if key != INACTIVE_KEY or bars}
    return stored(folder, {USERS: rows, RANKINGS: rows, BARS: rows | bars, META: meta})


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[OverlayTables]:
    opened = OverlayTables(delta_of(tmp_path / "delta"), base_of(tmp_path / "base"))
    yield opened
    opened.close()


def test_a_delta_hides_what_its_base_says_of_a_user(tables: OverlayTables) -> None:
    expected = {JOINED: b"joined", CHANGED: b"changed", GONE: None, 1: BASE[1], -3: BASE[-3], 99: None}
    for table in (USERS, RANKINGS):
        assert {key: tables.get(table, key) for key in expected} == expected
        keys = [*expected, 1, GONE, CHANGED]
        assert tables.get_many(table, keys) == [expected[key] for key in keys]
        assert tables.get_many(table, [1, 99, -3]) == [BASE[1], None, BASE[-3]]
        assert tables.get_many(table, []) == []
        assert tables.count(table) == len(BASE) + 1 - 1
    assert tables.departed == {GONE}


def test_inactive_users_have_the_bars_of_the_delta_and_nothing_else(tables: OverlayTables, tmp_path: Path) -> None:
    assert tables.get_many(BARS, [AWAY, GONE, 1]) == [BARRED[AWAY], BARRED[GONE], BASE[1]]
    for person in (AWAY, GONE):
        assert tables.get(BARS, person) == BARRED[person]
        assert tables.get(USERS, person) is None
    earlier = OverlayTables(delta_of(tmp_path / "earlier", {}), base_of(tmp_path / "its base"))
    assert earlier.get(BARS, AWAY) == b"bars of that night"
    assert earlier.get(BARS, GONE) is None
    earlier.close()


def test_what_is_shared_comes_from_the_delta_where_it_has_it(tables: OverlayTables) -> None:
    assert decode_ids(tables.get(META, DEPARTED_KEY)).tolist() == [GONE]
    popular, changed, nothing = tables.get_many(META, [POPULAR_KEY, CHANGED_KEY, 77])
    assert popular is not None
    assert changed is not None
    assert nothing is None


def test_both_are_closed(tables: OverlayTables) -> None:
    tables.close()
    for key in (1, CHANGED):
        with pytest.raises(StoreError, match="close"):
            tables.get(USERS, key)


def test_a_delta_of_another_base_is_refused(tmp_path: Path) -> None:
    delta, base = delta_of(tmp_path / "delta"), base_of(tmp_path / "base")
    other = base_of(tmp_path / "other", POPULAR[::-1])
    with pytest.raises(CorruptArtifact, match="of another base"):
        OverlayTables(delta, other)
    with pytest.raises(CorruptArtifact, match="missing or cut off"):
        OverlayTables(base, base)
    for opened in (delta, other, base):
        opened.close()
