import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import live_log
from infra.errors import InputError
from infra.events import Event
from infra.live_facts import LiveStore, open_live_facts
from infra.schemas import LAKE_TABLES
from infra.settings import Settings
from infra.store import open_store
from jobs.events_export import export_events

_numbers = itertools.count()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake" / "connections"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1, 5], "other_id": [2, 6]}), folder / "old.parquet")
    return folder.parent


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[LiveStore]:
    opened = open_live_facts(str(tmp_path / "live"), Settings())
    yield opened
    opened.close()


def event(
    kind: str,
    user: int,
    other: int | None = None,
    second: int = 0,
    position: int | None = None,
    model: str | None = None,
) -> Event:
    at_us = 1_700_000_000_000_000 + second * 1_000_000
    return Event(f"e{next(_numbers)}", kind, user, other, at_us, position, model)


def at(second: int) -> datetime:
    return datetime.fromtimestamp(1_700_000_000 + second, UTC)


def rows(lake: Path, name: str) -> list[tuple[Any, ...]]:
    """All rows of a table, in the order of its schema's columns."""
    found = []
    for path in sorted((lake / name).rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found.append(tuple(row.get(column) for column in LAKE_TABLES[name].schema.names))
    return sorted(found, key=str)


def test_every_kind_of_event_reaches_its_table_once(lake: Path, facts: LiveStore) -> None:
    facts.record([event("connected", 3, 4, 1), event("blocked", 3, 5, 2), event("dismissed", 3, 6, 3)])
    facts.record([event("banned", 9, None, 4), event("shown", 1, 9, 5, 2, "small@1")])
    facts.record([event("invited", 1, 9, 6)])
    made = export_events(facts, str(lake), 7)
    assert made["events"] == 6
    assert rows(lake, "connections") == [(1, 2, None, None), (3, 4, at(1), None), (5, 6, None, None)]
    assert rows(lake, "blocks") == [(3, 5, at(2), None)]
    assert rows(lake, "dismissals") == [(3, 6, at(3), None)]
    assert rows(lake, "user_events") == [(9, "banned", at(4))]
    assert rows(lake, "impressions") == [
        (1, 9, at(5), 2, "shown", "small@1"),
        (1, 9, at(6), None, "invited", None),
    ]
    assert export_events(facts, str(lake), 7)["events"] == 0
    assert len(rows(lake, "impressions")) == 2


def test_what_ended_ends_in_the_rows_that_the_lake_holds_and_in_those_of_the_same_export(
    lake: Path, facts: LiveStore
) -> None:
    facts.record([event("disconnected", 2, 1, 5), event("connected", 3, 4, 1), event("disconnected", 3, 4, 2)])
    facts.record([event("blocked", 7, 8, 1), event("unblocked", 7, 8, 3), event("connected", 3, 4, 9)])
    assert export_events(facts, str(lake), 7)["files_edited"] == 3
    assert rows(lake, "connections") == [
        (1, 2, None, at(5)), (3, 4, at(1), at(2)), (3, 4, at(9), None), (5, 6, None, None),
    ]  # fmt: skip
    assert rows(lake, "blocks") == [(7, 8, at(1), at(3))]


def test_a_beginning_that_comes_after_its_end_was_exported_is_ended_too(lake: Path, facts: LiveStore) -> None:
    facts.record([event("disconnected", 3, 4, 7)])
    export_events(facts, str(lake), 7)
    facts.record([event("connected", 4, 3, 2)])
    export_events(facts, str(lake), 7)
    assert (4, 3, at(2), at(7)) in rows(lake, "connections")


def test_an_export_that_died_before_it_was_marked_is_done_again_without_repeats(lake: Path, facts: LiveStore) -> None:
    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(facts, name)

        def exported(self, batch: Any, keep_days: int) -> None:
            raise KeyboardInterrupt

    facts.record([event("shown", 1, 9), event("connected", 3, 4, 1)])
    with pytest.raises(KeyboardInterrupt):
        export_events(Dying(), str(lake), 7)  # type: ignore[arg-type]
    facts.record([event("shown", 1, 8, 2), event("disconnected", 3, 4, 5)])
    assert export_events(facts, str(lake), 7)["events"] == 4
    assert rows(lake, "impressions") == [
        (1, 8, at(2), None, "shown", None),
        (1, 9, at(0), None, "shown", None),
    ]
    assert (3, 4, at(1), at(5)) in rows(lake, "connections")


def test_an_export_by_a_clock_that_is_far_ahead_forgets_no_dismissal(
    lake: Path, facts: LiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = time.time_ns() // 1000
    facts.record([Event("dismissal", "dismissed", 1, 2, now_us)])
    monkeypatch.setattr(live_log, "earliest_us", lambda: now_us + 400 * 86_400_000_000)
    assert export_events(facts, str(lake), 7)["events"] == 1
    assert export_events(facts, str(lake), 7)["events"] == 0
    monkeypatch.undo()
    assert dict(facts.of(1).barred) == {2: "dismissed"}


def test_many_events_go_in_several_batches(lake: Path, facts: LiveStore) -> None:
    facts.record([event("shown", 1, other) for other in range(10, 35)])
    assert export_events(facts, str(lake), 7, most=10) == {
        "events": 25, "rows": {"impressions": 25}, "files_edited": 0,
    }  # fmt: skip
    assert len(rows(lake, "impressions")) == 25


def test_live_facts_that_begin_anew_leave_what_others_exported(lake: Path, tmp_path: Path) -> None:
    for place, other in (("lost", 5), ("new", 6)):
        facts = open_live_facts(str(tmp_path / place), Settings())
        facts.record([event("blocked", 1, other)])
        export_events(facts, str(lake), 7)
        facts.close()
    assert [other for _, other, *_ in rows(lake, "blocks")] == [5, 6]


def test_the_record_of_erasures_is_among_the_events_of_users(lake: Path, facts: LiveStore) -> None:
    facts.erase(66, 1_700_000_000_000_000)
    export_events(facts, str(lake), 7)
    export_events(facts, str(lake), 7)
    assert rows(lake, "user_events") == [(66, "erased", at(0))]


def test_a_lake_without_connections_is_refused_and_the_events_stay(tmp_path: Path, facts: LiveStore) -> None:
    facts.record([event("shown", 1, 9)])
    open_store(str(tmp_path / "empty"), create=True)
    with pytest.raises(InputError, match="connections"):
        export_events(facts, str(tmp_path / "empty"), 7)
    assert facts.unexported(10) is not None
