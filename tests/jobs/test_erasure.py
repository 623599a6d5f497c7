import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.erasures import erased_people
from infra.errors import PymkError, StoreError, UsageError
from infra.events import Event
from infra.lake import GIVEN, REASON
from infra.live_facts import ERASED_PERSON, LiveStore, open_live_facts
from infra.settings import Settings
from infra.shared_cache import SharedCache
from infra.store import ObjectStore, open_store
from jobs.erasure import adopt_erasures, erase, hide_erased, open_score_queue, refuse_erased, refuse_unknown
from jobs.transforms.erased import without_erased


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), writable=True, create=True)


@pytest.fixture
def facts(store: ObjectStore) -> Iterator[LiveStore]:
    opened = open_live_facts(f"{store.uri}/live", Settings())
    opened.record([Event("1", "connected", 1, 66, 10), Event("2", "blocked", 2, 3, 10)])
    yield opened
    opened.close()


def test_a_person_leaves_live_facts_the_shared_cache_and_the_lake(
    store: ObjectStore, facts: LiveStore, redis_uri: str, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    (lake / "connections").mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1, 66], "other_id": [66, 3]}), lake / "connections/a.parquet")
    pq.write_table(pa.table({"user_id": [1, 2], "other_id": [2, 3]}), lake / "connections/b.parquet")
    cache = SharedCache(redis_uri, 5, 60)
    cache.put("1", b"a list that may name 66")
    made = erase(store, facts, 66, 20, redis_uri, str(lake))
    assert made["recorded"]
    assert made["live_facts"]["facts of others"] == 1
    assert made["live_facts"]["events in the log"] == 1
    assert made["cached_lists"] == 1
    assert cache.get("1") is None
    assert made["lake"] == {"connections": 2}
    assert erased_people(store) == facts.erased() == {66: 20}
    assert pq.read_table(lake / "user_events/erased.parquet")["user_id"].to_pylist() == [66]
    assert dict(facts.of(2).barred) == {3: "blocked"}
    cache.close()


@pytest.mark.parametrize("at", ["folder", "redis"])
def test_requests_to_score_later_and_their_results_are_dropped(
    store: ObjectStore, facts: LiveStore, tmp_path: Path, at: str, request: pytest.FixtureRequest
) -> None:
    """Of a folder nothing is left in the file either, or beside it. What was being scored then keeps no result."""
    where = str(tmp_path / "live") if at == "folder" else request.getfixturevalue("redis_uri")
    (tmp_path / "live").mkdir()
    person = 660_123_456_789
    asked = b'{"user_id":%d,"candidate_ids":[2],"models":["release"]}' % person
    with closing(open_score_queue(where, Settings())) as queue:
        works = [queue.put(asked) for _ in range(3)]
        queue.finish(queue.take()[0], asked)  # type: ignore[index]
        taken = queue.take()
        assert taken is not None
        with closing(open_score_queue(where, Settings())) as opened:
            assert erase(store, facts, person, 20, queue=opened)["queued_scores"] == 3
        queue.finish(taken[0], asked)
        assert [queue.get(work or "") for work in works] == [None] * 3
        assert not any(str(person).encode() in path.read_bytes() for path in (tmp_path / "live").iterdir())


def test_erasing_again_changes_nothing(store: ObjectStore, facts: LiveStore) -> None:
    erase(store, facts, 66, 20)
    again = erase(store, facts, 66, 30)
    assert not again["recorded"]
    assert again["known"]
    assert not any(again["live_facts"].values())
    assert facts.erased() == {66: 20}


def test_an_id_that_nothing_knows_is_told_of_and_erased_all_the_same(store: ObjectStore, facts: LiveStore) -> None:
    assert erase(store, facts, 66, 20)["known"]
    made = erase(store, facts, 67, 20)
    assert (made["recorded"], made["known"]) == (True, False)
    assert facts.record([Event("3", "connected", 1, 67, 30)]) == {0: ERASED_PERSON}
    assert set(erased_people(store)) == {66, 67}


def test_an_id_that_nothing_knows_may_be_mistyped(store: ObjectStore, facts: LiveStore) -> None:
    refuse_unknown(store, facts, 66)
    for mistyped in (67, -66, 660):
        with pytest.raises(UsageError, match=f"{mistyped}: no release or live fact names this id"):
            refuse_unknown(store, facts, mistyped)
    erase(store, facts, 67, 20)
    refuse_unknown(store, facts, 67)
    with pytest.raises(UsageError, match="64-bit"):
        refuse_unknown(store, facts, 1 << 63)


def test_live_facts_that_cannot_be_read_keep_nobody_from_being_erased(
    store: ObjectStore, facts: LiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(person: int) -> bool:
        raise StoreError("away")

    monkeypatch.setattr(facts, "knows", away)
    refuse_unknown(store, facts, 67)


def test_live_facts_that_are_new_learn_who_was_erased_before_they_serve(store: ObjectStore, facts: LiveStore) -> None:
    erase(store, facts, 66, 20)
    settings = Settings.model_validate({"api": {"facts": f"{store.uri}/elsewhere"}})
    adopt_erasures(store.uri, settings)
    fresh = open_live_facts(f"{store.uri}/elsewhere", settings)
    assert fresh.of(1).hidden[66] == "erased"
    fresh.close()


def test_what_is_queued_beside_live_facts_that_learn_of_an_erasure_goes_too(
    store: ObjectStore, facts: LiveStore
) -> None:
    erase(store, facts, 66, 20)
    settings = Settings.model_validate({"api": {"facts": f"{store.uri}/elsewhere"}})
    with closing(open_score_queue(f"{store.uri}/elsewhere", settings)) as queue:
        work = queue.put(b"66")
        assert work is not None
        adopt_erasures(store.uri, settings)
        assert queue.get(work) is None
        work = queue.put(b"67")
        assert work is not None
        adopt_erasures(store.uri, settings)
        assert queue.get(work) is not None, "nobody was unknown"


def test_a_record_that_cannot_be_read_is_logged_and_keeps_nobody_from_serving(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("erasures.json", b"damaged")
    adopt_erasures(store.uri, Settings())
    assert "erasures" in caplog.text


def test_what_a_release_says_of_the_erased_is_not_told(store: ObjectStore, facts: LiveStore) -> None:
    erase(store, facts, 66, 20)
    refuse_erased(store, 1, 2)
    with pytest.raises(PymkError, match="66: was erased"):
        refuse_erased(store, 1, 66)


def test_a_kept_report_shows_the_erased_no_longer(store: ObjectStore, facts: LiveStore) -> None:
    items = [{"rank": 1, "candidate_id": "66"}, {"rank": 2, "candidate_id": "67"}]
    report = {"examples": [{"user_id": "1", "items": items}, {"user_id": "66", "items": items}]}
    assert not hide_erased(store, report)
    erase(store, facts, 66, 20)
    assert hide_erased(store, report)
    assert report == {"examples": [{"user_id": "1", "items": items[1:]}]}


def test_rows_of_the_erased_are_passed_by_in_whatever_column_or_text() -> None:
    rows = {
        "user_id": pa.array([66, 1, 1, None, None, None], pa.int64()),
        "other_id": pa.array([1, 66, 2, 2, 3, 4], pa.int64()),
        REASON: ["", "", "", "user_id is not an integer"] + ["other_id is missing"] * 2,
        GIVEN: [None, None, None, json.dumps({"user_id": "66,x"}), '{"user_id":"166"}', '{"user_id":-66}'],
    }
    kept = without_erased(pa.RecordBatch.from_pydict(rows), frozenset({66}))
    assert kept.column("other_id").to_pylist() == [2, 3, 4]
    assert without_erased(kept, frozenset()) is kept


def test_rows_without_another_person_are_passed_by_too() -> None:
    batch = pa.RecordBatch.from_pydict({"user_id": [66, 67], GIVEN: pa.nulls(2, pa.string())})
    assert without_erased(batch, frozenset({66})).column("user_id").to_pylist() == [67]
