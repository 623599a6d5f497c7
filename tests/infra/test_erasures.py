from pathlib import Path

import pytest

from infra.erasures import KEY, digest_of, erased_people, record_erasure
from infra.errors import CorruptArtifact
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

        uri = store.uri

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
    ],
)  # fmt: skip
def test_a_damaged_record_is_no_empty_one(store: ObjectStore, data: bytes) -> None:
    store.put(KEY, data)
    with pytest.raises(CorruptArtifact, match=KEY):
        erased_people(store)


def test_the_digest_names_the_people_whatever_their_order() -> None:
    assert digest_of([3, -1]) == digest_of({-1: 0, 3: 0}) != digest_of([3, 1])
