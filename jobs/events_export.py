"""Live events into the lake, as rows of its tables, so that the next night knows them.

Done batch by batch: new rows first, then the ends of facts that the lake holds, then the batch is marked. A batch that
died half way is handed out again, and gets the same files and the same ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from infra.events import OUTCOMES, PERSON_TYPES
from infra.lake import open_lake
from infra.live_facts import BLOCKED, CONNECTED, ERASED, LiveStore, LoggedEvent
from infra.schemas import BLOCKS, CONNECTIONS, DISMISSALS, IMPRESSIONS, TIMESTAMP, USER_EVENTS, LakeTable
from infra.store import ObjectStore, open_store
from jobs.lake_edits import Endings, edit_tables, put_table

BATCH = 500_000
"""Events exported at a time; each batch looks once through the tables whose facts end."""

ENDING = {"disconnected": CONNECTED, "unblocked": BLOCKED}
BEGINNING = {CONNECTED: CONNECTIONS, BLOCKED: BLOCKS}


def export_events(facts: LiveStore, lake: str, keep_days: int, most: int = BATCH) -> dict[str, Any]:
    """Writes what was not exported yet.

    Returns {"events": how many, "rows": {table: new rows}, "files_edited": files of the lake in which facts ended}.
    """
    store = open_store(lake)
    open_lake(lake)
    made: dict[str, Any] = {"events": 0, "rows": {}, "files_edited": 0}
    told_us = 0
    with store.sole_writer():
        put_erasures(store, facts.erased())
        while (batch := facts.unexported(most)) is not None:
            for name, rows in rows_of(batch.events).items():
                put_table(store, f"{name}/live-{batch.name}.parquet", rows)
                made["rows"][name] = made["rows"].get(name, 0) + rows.num_rows
            made["files_edited"] += edit_tables(lake, endings_of(facts, batch.events))
            facts.exported(batch, keep_days)
            made["events"] += len(batch.events)
            told_us = max(told_us, batch.told_us)
        facts.forget_expired(told_us)
    return made


def put_erasures(store: ObjectStore, erased: Mapping[int, int]) -> None:
    """The record of erasures among the events of users, whole each time."""
    if not erased:
        return
    events = [LoggedEvent(ERASED, person, None, at, None) for person, at in sorted(erased.items())]
    put_table(store, "user_events/erased.parquet", _table(USER_EVENTS, events, event=[ERASED] * len(events)))


def rows_of(events: Sequence[LoggedEvent]) -> dict[str, pa.Table]:
    """New rows by table, for the tables that get any."""
    chosen: dict[str, list[LoggedEvent]] = {}
    for event in events:
        chosen.setdefault(event.type, []).append(event)
    people = [event for kind in PERSON_TYPES for event in chosen.get(kind, ())]
    shown = [event for kind in OUTCOMES for event in chosen.get(kind, ())]
    outcomes: dict[str, list[Any]] = {
        "position": [event.position for event in shown],
        "outcome": [event.type for event in shown],
        "model": [event.model for event in shown],
    }
    made = {
        CONNECTIONS: _table(CONNECTIONS, chosen.get(CONNECTED, [])),
        BLOCKS: _table(BLOCKS, chosen.get(BLOCKED, [])),
        DISMISSALS: _table(DISMISSALS, chosen.get("dismissed", [])),
        USER_EVENTS: _table(USER_EVENTS, people, event=[event.type for event in people]),
        IMPRESSIONS: _table(IMPRESSIONS, shown, **outcomes),
    }
    return {table.name: rows for table, rows in made.items() if rows.num_rows}


def _table(table: LakeTable, events: Sequence[LoggedEvent], **columns: Sequence[Any]) -> pa.Table:
    """Rows of a lake table from events; columns that are neither people, start nor given are null."""
    values: dict[str, Any] = {name: [None] * len(events) for name in table.schema.names}
    values |= {"user_id": [event.user_id for event in events], **columns}
    values[str(table.start)] = pa.array([event.at_us for event in events], pa.int64()).cast(TIMESTAMP)
    if "other_id" in values:
        values["other_id"] = [event.other_id for event in events]
    return pa.table(values, schema=table.schema)


def endings_of(facts: LiveStore, events: Sequence[LoggedEvent]) -> dict[str, Endings]:
    """By table, the ends that the events tell; and of facts that they begin, those that are known already.

    The latter because events arrive in any order: the end of such a fact may have been exported before its start.
    """
    found: dict[str, list[tuple[int, int, int]]] = {CONNECTED: [], BLOCKED: []}
    begun: list[tuple[str, int, int]] = []
    for kind, user, other, at_us, *_ in events:
        if other is not None and kind in ENDING:
            found[ENDING[kind]].append((user, other, at_us))
        elif other is not None and kind in BEGINNING:
            begun.append((kind, user, other))
    for (kind, user, other), ended_us in zip(begun, facts.ended_at(begun), strict=True):
        if ended_us is not None:
            found[kind].append((user, other, ended_us))
    return {BEGINNING[kind].name: _endings(BEGINNING[kind], rows) for kind, rows in found.items() if rows}


def _endings(table: LakeTable, rows: Sequence[tuple[int, int, int]]) -> Endings:
    user, other, at_us = np.array(rows, np.int64).T
    return Endings(table, user, other, at_us)
