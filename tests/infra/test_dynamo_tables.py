"""Serving tables in a server that speaks DynamoDB's protocol do what every store of them must."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from infra import dynamo_tables
from infra.dynamo_tables import LARGEST_VALUE, DynamoHost
from infra.errors import PymkError, StoreError, UsageError
from infra.kv import META, RANKINGS, USERS
from infra.table_hosts import TableSet, open_host
from tests.suites.kv_stores import KeyValueSuite, Load, put_rows
from tests.suites.ports import free_port
from tests.suites.table_hosts import TableHostSuite, write


@pytest.fixture
def dynamo_uri(s3_bucket: str) -> str:
    """The name of the test's bucket is nobody else's, here as there."""
    return f"dynamodb://{s3_bucket}"


@pytest.fixture
def host(dynamo_uri: str) -> Iterator[DynamoHost]:
    opened = DynamoHost(dynamo_uri, 60)
    yield opened
    opened.close()


class TestDynamoTables(KeyValueSuite):
    @pytest.fixture
    def load(self, host: DynamoHost) -> Load:
        return lambda rows: write(host, "one", rows)


class TestDynamoHost(TableHostSuite):
    @pytest.fixture
    def uri(self, dynamo_uri: str) -> str:
        return dynamo_uri


def test_more_rows_than_one_call_takes_are_written_and_read(host: DynamoHost) -> None:
    rows = {RANKINGS: {key: b"%d" % key for key in range(-110, 111)}}
    reader = write(host, "one", rows, batch=1000)
    keys = [*range(111, -112, -1), 5]
    assert reader.get_many(RANKINGS, keys) == [rows[RANKINGS].get(key) for key in keys]


def test_what_a_busy_dynamodb_leaves_out_is_asked_for_again(host: DynamoHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server under test never is too busy, so its answers are cut on their way."""
    rows = {USERS: {key: b"%d" % key for key in range(60)}}
    tables = TableSet("one", {USERS: 60})
    writer = host.writer(tables)
    write_whole, read_whole = host._patient.batch_write_item, host._client.batch_get_item

    def write_half(RequestItems: Any) -> Any:
        [(name, items)] = RequestItems.items()
        half = len(items) // 2
        write_whole(RequestItems={name: items[half:]})
        return {"UnprocessedItems": {name: items[:half]} if half else {}}

    def read_half(RequestItems: Any) -> Any:
        [(name, wanted)] = RequestItems.items()
        half = len(wanted["Keys"]) // 2
        left = {name: wanted | {"Keys": wanted["Keys"][:half]}} if half else {}
        return read_whole(RequestItems={name: wanted | {"Keys": wanted["Keys"][half:]}}) | {"UnprocessedKeys": left}

    monkeypatch.setattr(host._patient, "batch_write_item", write_half)
    monkeypatch.setattr(host._client, "batch_get_item", read_half)
    put_rows(writer, rows, 60)
    writer.finish()
    monkeypatch.setattr(dynamo_tables, "READ_ATTEMPTS", 8)
    assert host.reader(tables).get_many(USERS, list(range(60))) == list(rows[USERS].values())
    monkeypatch.setattr(dynamo_tables, "READ_ATTEMPTS", 2)
    with pytest.raises(StoreError, match="asked too much"):
        host.reader(tables).get_many(USERS, list(range(60)))


def test_a_row_that_dynamodb_cannot_keep_is_refused_by_name(host: DynamoHost) -> None:
    writer = host.writer(TableSet("one", {META: 1}))
    value = np.zeros(LARGEST_VALUE + 1, np.uint8)
    with pytest.raises(PymkError, match="meta: the row of 7 has 400,001 bytes"):
        writer.put(META, np.array([7]), value, np.array([len(value)]))


def test_a_write_that_fails_in_the_background_is_told(host: DynamoHost) -> None:
    tables = TableSet("one", {USERS: 1})
    writer = host.writer(tables)
    host.drop(tables)
    put_rows(writer, {USERS: {1: b"x"}})
    with pytest.raises(StoreError, match="are gone"):
        writer.finish()


@pytest.mark.parametrize(
    "uri", ["dynamodb://", "dynamodb://a b", "dynamodb://a/b", "dynamodb://a?b=1", "mysql://a", "/a"]
)
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="dynamodb://"):
        open_host(uri)


def test_a_dynamodb_that_is_down_is_a_store_error_at_every_door(
    dynamo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(dynamo_tables, "ATTEMPTS", 1)
    host = open_host(dynamo_uri, 1)
    tables = TableSet("one", {USERS: 1})
    reader = host.reader(tables)
    for do in (
        lambda: reader.get(USERS, 1), lambda: reader.get_many(USERS, [1]), lambda: host.notes(),
        lambda: host.note("a"), lambda: host.swap("a", None, b"1"), lambda: host.drop(tables),
        lambda: host.writer(tables),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="Check AWS_ENDPOINT_URL"):
            do()
    host.close()
