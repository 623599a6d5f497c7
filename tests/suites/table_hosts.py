"""What every host of serving tables must do; run by each implementation's module, which provides the fixture `uri`.

uri: the address of a host that holds nothing.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.errors import StoreError
from infra.kv import RANKINGS, USERS, KeyValueReader
from infra.table_hosts import TableHost, TableSet, open_host
from tests.suites.kv_stores import Rows, put_rows


def set_of(name: str, rows: Rows) -> TableSet:
    return TableSet(name, {table: len(values) for table, values in rows.items()})


def write(host: TableHost, name: str, rows: Rows, batch: int = 3) -> KeyValueReader:
    """Loads rows as a set of tables, a few a call; returns their reader."""
    tables = set_of(name, rows)
    writer = host.writer(tables)
    put_rows(writer, rows, batch)
    writer.finish()
    return host.reader(tables)


class TableHostSuite:
    @pytest.fixture
    def host(self, uri: str) -> Iterator[TableHost]:
        opened = open_host(uri, 60)
        yield opened
        opened.close()

    def test_notes_come_and_go_by_compare_and_swap(self, host: TableHost) -> None:
        assert host.notes() == {}
        assert host.note("a") is None
        assert host.swap("a", None, b"1")
        assert not host.swap("a", None, b"2")
        assert not host.swap("a", b"0", b"2")
        assert not host.swap("b", b"0", b"2")
        assert host.swap("a", b"1", b"\x00\xff")
        assert host.swap("b", None, b"3")
        assert host.notes() == {"a": b"\x00\xff", "b": b"3"}
        assert not host.swap("b", b"2", None)
        assert host.swap("b", b"3", None)
        assert host.note("b") is None

    def test_a_swap_has_one_winner_of_many(self, host: TableHost) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda number: host.swap("a", None, b"%d" % number), range(8)))
        assert sum(won) == 1
        assert host.note("a") == b"%d" % won.index(True)

    def test_sets_of_tables_are_apart_and_go_one_by_one(self, host: TableHost) -> None:
        sets = {
            name: TableSet(name, {USERS: 3, RANKINGS: 1}) for name in ("20260101T000000Z-a.1", "20260102T000000Z-b.2")
        }
        for name, tables in sets.items():
            writer = host.writer(tables)
            put_rows(writer, {USERS: {key: f"{name}{key}".encode() for key in (-1, 0, 1)}, RANKINGS: {1: b"r"}})
            writer.finish()
        first, second = sets.values()
        reader, other = host.reader(first), host.reader(second)
        assert reader.get(USERS, -1) == f"{first.name}-1".encode()
        assert (reader.count(USERS), reader.count(RANKINGS)) == (3, 1)
        host.drop(first)
        host.drop(first)
        with pytest.raises(StoreError):
            reader.get(USERS, -1)
        with pytest.raises(StoreError):
            host.reader(first).get_many(USERS, [-1])
        assert other.get(USERS, -1) == f"{second.name}-1".encode()

    def test_a_set_that_was_never_finished_can_be_dropped_and_written_anew(self, host: TableHost) -> None:
        tables = TableSet("half", {USERS: 2})
        put_rows(host.writer(tables), {USERS: {1: b"x", 2: b"y"}})
        host.drop(tables)
        writer = host.writer(tables)
        put_rows(writer, {USERS: {1: b"z"}})
        writer.finish()
        assert host.reader(tables).get_many(USERS, [1, 2]) == [b"z", None]

    def test_many_threads_read_through_one_reader(self, host: TableHost) -> None:
        values = {key: b"%d" % key for key in range(200)}
        tables = TableSet("one", {USERS: len(values)})
        writer = host.writer(tables)
        put_rows(writer, {USERS: values}, 50)
        writer.finish()
        reader = host.reader(tables)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda key: reader.get(USERS, key), values)) == list(values.values())
            assert set(map(tuple, pool.map(lambda _: reader.get_many(USERS, list(values)), range(8)))) == {
                tuple(values.values())
            }
