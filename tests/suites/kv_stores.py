"""What every store of serving tables must do; run by each implementation's module, which provides the fixture `load`.

load(rows) writes {table: {key: value}} through the implementation's writer and opens a reader on it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from infra.errors import StoreError, UsageError
from infra.kv import CANDIDATES, META, RANKINGS, USERS, KeyValueReader, KeyValueWriter

Rows = Mapping[str, Mapping[int, bytes]]
Load = Callable[[Rows], KeyValueReader]

EXTREMES = (-(2**63), -(2**31) - 1, -1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1)

FAR = (-(2**63), -6 * 10**18, 0, 1000, 2**63 - 1)


def put_rows(writer: KeyValueWriter, rows: Rows, batch: int = 3) -> None:
    """Writes every table in key order, a few rows a call."""
    for table, values in rows.items():
        keys = np.array(sorted(values), np.int64)
        for start in range(0, len(keys), batch):
            part = keys[start : start + batch]
            parts = [values[int(key)] for key in part]
            data = np.frombuffer(b"".join(parts), np.uint8)
            writer.put(table, part, data, np.cumsum([len(p) for p in parts]))


class KeyValueSuite:
    def test_what_was_written_is_read_whatever_the_sign_and_size_of_the_key(self, load: Load) -> None:
        rows = {RANKINGS: {key: str(key).encode() for key in EXTREMES}}
        reader = load(rows)
        for key in EXTREMES:
            assert reader.get(RANKINGS, key) == str(key).encode()
        assert reader.count(RANKINGS) == len(EXTREMES)

    @pytest.mark.parametrize("keys", [FAR, FAR[::2], FAR[::4]])
    def test_keys_of_one_call_may_be_further_apart_than_the_largest_number(
        self, load: Load, keys: tuple[int, ...]
    ) -> None:
        reader = load({RANKINGS: {key: str(key).encode() for key in keys}})
        assert reader.get_many(RANKINGS, keys) == [str(key).encode() for key in keys]

    def test_a_missing_key_reads_as_none(self, load: Load) -> None:
        reader = load({RANKINGS: {5: b"five"}})
        assert reader.get(RANKINGS, 6) is None
        assert reader.get(USERS, 5) is None

    def test_a_batched_read_keeps_the_order_of_its_keys_and_answers_repeats(self, load: Load) -> None:
        reader = load({USERS: {key: b"%d" % key for key in range(50)}})
        keys = [49, 3, 1000, 3, 0]
        assert reader.get_many(USERS, keys) == [b"49", b"3", None, b"3", b"0"]
        assert reader.get_many(USERS, []) == []

    def test_tables_do_not_share_keys(self, load: Load) -> None:
        reader = load({RANKINGS: {1: b"ranking"}, CANDIDATES: {1: b"candidates"}, META: {1: b"meta"}})
        assert [reader.get(table, 1) for table in (RANKINGS, CANDIDATES, META)] == [b"ranking", b"candidates", b"meta"]

    def test_values_of_any_size_come_back_whole(self, load: Load) -> None:
        sizes = (0, 1, 2040, 2041, 4096, 100_000)
        values = {i: np.random.default_rng(i).bytes(size) for i, size in enumerate(sizes)}
        reader = load({RANKINGS: values})
        assert {i: reader.get(RANKINGS, i) for i in values} == values

    def test_an_unknown_table_is_refused_by_name(self, load: Load) -> None:
        with pytest.raises(UsageError, match="friends"):
            load({RANKINGS: {1: b"x"}}).get("friends", 1)

    def test_reading_after_close_raises_and_closing_twice_does_not(self, load: Load) -> None:
        reader = load({RANKINGS: {1: b"x"}})
        reader.close()
        reader.close()
        with pytest.raises(StoreError, match="close"):
            reader.get(RANKINGS, 1)
