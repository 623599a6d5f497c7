"""Serving tables in DynamoDB, through boto3: a set of tables is one DynamoDB table, removed whole and at no cost.

An item is a row: `k`, the table's name and the key's eight bytes, and `v`, the value. Notes are a small table of their
own. Region, credentials and another vendor's endpoint come from the usual AWS_* variables.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import numpy.typing as npt
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.errors import PymkError, StoreError, UsageError
from infra.kv import SERVING_TABLES, Int64, RowsHash, encode_key, encode_keys
from infra.table_hosts import TableSet

READ_ITEMS, WRITE_ITEMS = 100, 25
"""Of one call, at most: DynamoDB's limits."""
LARGEST_VALUE = 400_000
"""Bytes: an item may have 400 KiB with its names and key."""
THREADS = 16
"""Calls at a time of a batched read or of a load."""
READ_ATTEMPTS, ATTEMPTS = 3, 8
"""Of a batch that DynamoDB did not give or take whole, each after up to twice the wait of the one before."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.005, 2.0
WRITER_TIMEOUT_S = 30.0
CREATION = {"Delay": 1, "MaxAttempts": 600}
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,100}")

Client = Any
"""A boto3 client, which has no types."""


class DynamoHost:
    """See infra.table_hosts.TableHost. Its address is dynamodb://PREFIX; the names of its tables start with PREFIX."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        parts = urlsplit(uri)
        self._prefix = parts.netloc
        if not _PREFIX.fullmatch(self._prefix) or parts.path.strip("/") or parts.query:
            fix = "Write dynamodb://prefix, of letters, digits, '_', '.' and '-'."
            raise UsageError(f"{uri}: names no DynamoDB tables", fix)
        self.uri = f"dynamodb://{self._prefix}"
        self._notes = f"{self._prefix}.notes"
        with _explained(self.uri):
            session = boto3.session.Session()
            self._client = _client(session, timeout_s, attempts=1)
            self._patient = _client(session, WRITER_TIMEOUT_S, attempts=ATTEMPTS)
        self._pool = ThreadPoolExecutor(THREADS, "dynamodb")

    def notes(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with _explained(self.uri), suppress(self._client.exceptions.ResourceNotFoundException):
            for page in self._client.get_paginator("scan").paginate(TableName=self._notes, ConsistentRead=True):
                found |= {item["name"]["S"]: bytes(item["note"]["B"]) for item in page["Items"]}
        return found

    def note(self, name: str) -> bytes | None:
        with _explained(self.uri), suppress(self._client.exceptions.ResourceNotFoundException):
            key = {"name": {"S": name}}
            answer = self._client.get_item(TableName=self._notes, Key=key, ConsistentRead=True)
            return bytes(answer["Item"]["note"]["B"]) if "Item" in answer else None
        return None

    def swap(self, name: str, expected: bytes | None, new: bytes | None) -> bool:
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(#name)" if expected is None else "note = :expected",
            "TableName": self._notes,
        }
        if expected is None:
            condition["ExpressionAttributeNames"] = {"#name": "name"}
        else:
            condition["ExpressionAttributeValues"] = {":expected": {"B": expected}}
        with _explained(self.uri):
            self._make(self._notes, "name", "S")
            try:
                if new is None:
                    self._patient.delete_item(Key={"name": {"S": name}}, **condition)
                else:
                    self._patient.put_item(Item={"name": {"S": name}, "note": {"B": new}}, **condition)
            except self._patient.exceptions.ConditionalCheckFailedException:
                return False
        return True

    def reader(self, tables: TableSet) -> "DynamoTables":
        return DynamoTables(self._client, self._pool, self.uri, self._name(tables), tables)

    def writer(self, tables: TableSet) -> "DynamoWriter":
        with _explained(self.uri):
            self._make(self._name(tables), "k", "B")
        return DynamoWriter(self._patient, self._pool, self.uri, self._name(tables))

    def drop(self, tables: TableSet) -> None:
        name = self._name(tables)
        with _explained(self.uri), suppress(self._patient.exceptions.ResourceNotFoundException):
            self._patient.delete_table(TableName=name)
            self._patient.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig=CREATION)

    def check_room(self, size_bytes: int) -> None:
        """There is always room."""

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._client.close()
        self._patient.close()

    def _name(self, tables: TableSet) -> str:
        return f"{self._prefix}.{tables.name}"

    def _make(self, name: str, key: str, kind: str) -> None:
        """Makes a table that is not there, and waits for it."""
        with suppress(self._patient.exceptions.ResourceNotFoundException):
            if self._patient.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE":
                return
        with suppress(self._patient.exceptions.ResourceInUseException):
            self._patient.create_table(
                TableName=name,
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        self._patient.get_waiter("table_exists").wait(TableName=name, WaiterConfig=CREATION)


class DynamoTables:
    """Reads what DynamoWriter wrote. A row that is not found is asked for again, consistently: reads may lag writes."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor, uri: str, name: str, tables: TableSet) -> None:
        self._client = client
        self._pool = pool
        self._where = f"{uri}, tables {tables.name}"
        self._name = name
        self._rows = dict(tables.rows)
        self._open = True

    def get(self, table: str, key: int) -> bytes | None:
        wanted = {"k": {"B": self._prefix(table) + encode_key(key)}}
        for consistent in (False, True):
            with _explained(self._where):
                answer = self._client.get_item(TableName=self._name, Key=wanted, ConsistentRead=consistent)
            if "Item" in answer:
                return bytes(answer["Item"]["v"]["B"])
        return None

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        """In one round trip for READ_ITEMS keys; more are asked for at the same time, THREADS calls at once."""
        prefix = self._prefix(table)
        wanted = [prefix + encode_key(key) for key in keys]
        found: dict[bytes, bytes] = {}
        for consistent in (False, True):
            missing = [key for key in dict.fromkeys(wanted) if key not in found]
            calls = [missing[at : at + READ_ITEMS] for at in range(0, len(missing), READ_ITEMS)]
            first, others = calls[:1], calls[1:]
            waiting = [self._pool.submit(self._read, call, consistent) for call in others]
            for call in first:
                found |= self._read(call, consistent)
            for one in waiting:
                found |= one.result()
        return [found.get(key) for key in wanted]

    def count(self, table: str) -> int:
        self._prefix(table)
        return self._rows.get(table, 0)

    def close(self) -> None:
        self._open = False

    def _prefix(self, table: str) -> bytes:
        if not self._open:
            raise StoreError(f"{self._where}: read after close")
        if table not in SERVING_TABLES:
            raise UsageError(f"{table!r}: no such table", f"Tables: {', '.join(SERVING_TABLES)}.")
        return table.encode() + b"/"

    def _read(self, keys: Sequence[bytes], consistent: bool) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}

        def ask(request: Mapping[str, Any]) -> Mapping[str, Any]:
            answer = self._client.batch_get_item(RequestItems=request)
            items = answer["Responses"].get(self._name, ())
            found.update({bytes(item["k"]["B"]): bytes(item["v"]["B"]) for item in items})
            left: Mapping[str, Any] = answer.get("UnprocessedKeys") or {}
            return left

        with _explained(self._where):
            wanted = {"Keys": [{"k": {"B": key}} for key in keys], "ConsistentRead": consistent}
            _until_nothing_is_left(ask, {self._name: wanted}, READ_ATTEMPTS, self._where)
        return found


class DynamoWriter:
    """Writes a new set of tables, THREADS calls at a time; see infra.kv.KeyValueWriter."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor, uri: str, name: str) -> None:
        self._client = client
        self._pool = pool
        self._where = f"{uri}, table {name}"
        self._name = name
        self._sent: list[Future[None]] = []
        self.hash = RowsHash()

    def put(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        self.hash.update(table, keys, values, ends)
        starts = np.concatenate([[0], ends[:-1]])
        self._check_sizes(table, keys, ends - starts)
        prefix, encoded, data = table.encode() + b"/", encode_keys(keys).tobytes(), values.tobytes()
        rows = list(zip(starts.tolist(), ends.tolist(), strict=True))
        for first in range(0, len(rows), WRITE_ITEMS):
            items = [
                {"k": {"B": prefix + encoded[8 * row : 8 * row + 8]}, "v": {"B": data[start:end]}}
                for row, (start, end) in enumerate(rows[first : first + WRITE_ITEMS], first)
            ]
            self._send(items)

    def finish(self) -> str:
        self._wait(0)
        return self.hash.hexdigest()

    def _send(self, items: Sequence[Mapping[str, Any]]) -> None:
        self._wait(2 * THREADS)
        self._sent.append(self._pool.submit(self._write, items))

    def _wait(self, most: int) -> None:
        """Until at most so many calls are under way; raises what one of them did."""
        while len(self._sent) > most:
            self._sent.pop(0).result()

    def _write(self, items: Sequence[Mapping[str, Any]]) -> None:
        def ask(request: Mapping[str, Any]) -> Mapping[str, Any]:
            left: Mapping[str, Any] = self._client.batch_write_item(RequestItems=request).get("UnprocessedItems") or {}
            return left

        with _explained(self._where):
            wanted = [{"PutRequest": {"Item": item}} for item in items]
            _until_nothing_is_left(ask, {self._name: wanted}, ATTEMPTS, self._where)

    def _check_sizes(self, table: str, keys: Int64, sizes: Int64) -> None:
        large = np.flatnonzero(sizes > LARGEST_VALUE)
        if len(large):
            what = f"{table}: the row of {keys[large[0]]} has {sizes[large[0]]:,} bytes"
            raise PymkError(f"{what}, DynamoDB keeps up to {LARGEST_VALUE:,}", "Lower serving.popular or neighbours.")


def _until_nothing_is_left(
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]], request: Mapping[str, Any], attempts: int, where: str
) -> None:
    """Asks again for what an answer left out, which is how DynamoDB says that it is asked too much."""
    wait_s = FIRST_WAIT_S
    for _ in range(attempts):
        request = ask(request)
        if not request:
            return
        time.sleep(random.uniform(0, wait_s))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
    raise StoreError(f"{where}: DynamoDB is asked too much", "Raise the capacity of its tables.")


def _client(session: "boto3.session.Session", timeout_s: float, attempts: int) -> Client:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        max_pool_connections=2 * THREADS,
    )
    return session.client("dynamodb", config=config)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns boto3's errors into a StoreError that says what to do."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "ResourceNotFoundException":
            raise StoreError(f"{what}: are gone", "Load the release again with `pymk release load`.") from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        fix = "Check the credentials in AWS_*." if status in (400, 401, 403) and "Access" in code else ""
        raise StoreError(f"{what}: {code}: {error}", fix) from error
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"{what}: {error}", "Check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network.") from error
