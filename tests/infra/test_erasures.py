from pathlib import Path

import pytest

from infra.erasures import KEY, digest_of, erased_people, record_erasure
from infra.errors import CorruptArtifact, StoreError, UsageError
from infra.store import ObjectStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path), writable=True)


def test_who_was_erased_stays_recorded_with_the_first_time(store: ObjectStore) -> None:
    assert erased_people(store) == {}
    assert record_erasure(store, -(2**63), 5)
    assert record_erasure(store, 66, 7)
    assert not record_erasure(store, 66, 9)
    assert erased_people(store) == {-(2**63): 5, 66: 7}


def test_two_who_record_at_once_are_both_recorded(store: ObjectStore) -> None:
    class Slow:
        """Another writer records somebody between the look and the write."""

        uri, conditional_puts = store.uri, True

        def get(self, key: str):  # type: ignore[no-untyped-def]
            found = store.get(key)
            record_erasure(store, 2, 2)
            return found

        put = staticmethod(store.put)

    record_erasure(store, 1, 1)
    assert record_erasure(Slow(), 3, 3)  # type: ignore[arg-type]
    assert erased_people(store) == {1: 1, 2: 2, 3: 3}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"version":1}', b'{"version":2,"people":{}}', b'{"version":1,"people":{"x":1}}',
        b'{"version":1,"people":{"1":"2"}}', b'{"version":1,"people":[1]}',
        b'{"version":1,"people":{"9999999999999999999":1}}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_no_empty_one(store: ObjectStore, data: bytes) -> None:
    store.put(KEY, data)
    with pytest.raises(CorruptArtifact, match=KEY):
        erased_people(store)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**19, 10**30])
def test_a_number_that_is_no_id_is_refused_and_the_record_stays_readable(store: ObjectStore, number: int) -> None:
    record_erasure(store, 66, 7)
    with pytest.raises(UsageError, match="64-bit"):
        record_erasure(store, number, 8)
    assert erased_people(store) == {66: 7}


def test_where_two_records_at_once_could_lose_one_none_is_taken(store: ObjectStore) -> None:
    class Careless:
        uri, conditional_puts, get, put = store.uri, False, staticmethod(store.get), staticmethod(store.put)

    with pytest.raises(StoreError, match="conditional"):
        record_erasure(Careless(), 66, 7)  # type: ignore[arg-type]


def test_the_digest_names_the_people_whatever_their_order() -> None:
    assert digest_of([3, -1]) == digest_of({-1: 0, 3: 0}) != digest_of([3, 1])
