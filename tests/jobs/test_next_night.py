"""What was accepted as events is known by the next night, also after a kill; who was erased is in nothing it makes."""

import subprocess
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.graph import Graph
from infra.live_facts import LiveStore, open_live_facts
from infra.settings import GraphSettings, Settings
from infra.store import open_store
from jobs.erasure import erase
from jobs.events_export import export_events
from jobs.sample import generate
from tests.conftest import small_pipeline
from tests.suites.person_search import places_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AT_US = 1_767_000_000_000_000
"""2025-12-29, before the as-of."""

SETTINGS = Settings(graph=GraphSettings(dismissal_days=36_500))
"""No dismissal of that day has expired, whenever the test is run."""

STORED = "stored"
RECORDER = """
import random, sys
from infra.events import Event
from infra.live_facts import open_live_facts
from infra.settings import Settings

folder, seed, people = sys.argv[1], int(sys.argv[2]), [int(person) for person in sys.argv[3].split(",")]
draw, facts = random.Random(seed), open_live_facts(folder, Settings())
for batch in range(100_000):
    events = []
    for number in range(20):
        user, other = draw.sample(people, 2)
        kind = draw.choice(("connected", "disconnected", "blocked", "unblocked", "dismissed", "shown"))
        events.append(Event(f"{seed}-{batch}-{number}", kind, user, other, AT_US + draw.randrange(10**9)))
    print(" ".join(f"{e.type},{e.user_id},{e.other_id},{e.at_us}" for e in events), flush=True)
    facts.record(events)
    print("STORED", flush=True)
""".replace("AT_US", str(AT_US)).replace("STORED", STORED)

Pair = tuple[int, int]
Told = tuple[str, int, int, int]
"""(kind, user, other, at_us)."""


@dataclass(frozen=True)
class Evening:
    """A lake after a day of events. doubtful: nobody knows whether they were stored before the kill. erased: with the
    lake, and in the store's record alone."""

    lake: Path
    store: Path
    accepted: list[Told]
    doubtful: list[Told]
    erased: tuple[int, int]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    folder = tmp_path_factory.mktemp("evening")
    lake = open_store(str(folder / "lake"), create=True)
    generate(400, lambda key, path: lake.upload(path, key), 17, date(2026, 1, 1))
    friends = pq.read_table(folder / "lake" / "connections")
    people = np.unique(friends["user_id"].to_numpy())
    erased = int(people[3]), int(people[4])
    add_row_that_is_bad(folder / "lake", erased)
    store = open_store(str(folder / "store"), writable=True, create=True)
    facts = open_live_facts(f"{store.uri}/live", SETTINGS)
    days = [record_and_kill(f"{store.uri}/live", people[:60].tolist(), 5000, seed) for seed in (1, 2)]
    accepted, doubtful = ([event for day in days for event in day[part]] for part in (0, 1))
    erase(store, facts, erased[0], AT_US, lake=str(folder / "lake"))
    export_events(facts, str(folder / "lake"), keep_days=7)
    erase(store, facts, erased[1], AT_US)
    facts.close()
    return Evening(folder / "lake", folder / "store", accepted, doubtful, erased)


def add_row_that_is_bad(lake: Path, people: tuple[int, int]) -> None:
    """Rows for the quarantine that name people in text."""
    rows = {"user_id": [f"{person};9" for person in people], "other_id": ["1", "2"]}
    pq.write_table(pa.table(rows), lake / "connections" / "bad.parquet")


def record_and_kill(folder: str, people: list[int], least: int, seed: int) -> tuple[list[Told], list[Told]]:
    """Events of another process that were stored, as it said, before it was killed; and those that it was storing."""
    command = [sys.executable, "-c", RECORDER, folder, str(seed), ",".join(map(str, people))]
    accepted, begun = list[Told](), list[Told]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:  # to its end: what was said before the kill may be read after it
            if line.strip() != STORED:
                events = (event.split(",") for event in line.split())
                begun = [(kind, int(user), int(other), int(at)) for kind, user, other, at in events]
                continue
            accepted, begun = accepted + begun, []
            if len(accepted) >= least:
                process.kill()
    return accepted, begun


def latest(evening: Evening, holds: str, ends: str, mutual: bool) -> dict[Pair, bool]:
    """Pair -> whether the fact holds by the latest accepted event of it, of those that no later one may contradict."""
    found: dict[Pair, tuple[int, bool]] = {}
    doubtful = {frozenset(event[1:3]) for event in evening.doubtful}
    for kind, user, other, at in evening.accepted:
        pair = (min(user, other), max(user, other)) if mutual else (user, other)
        if kind in (holds, ends) and not set(pair) & set(evening.erased) and frozenset(pair) not in doubtful:
            found[pair] = max(found.get(pair, (0, False)), (at, kind == holds))
    return {pair: held for pair, (_, held) in found.items()}


def among(people: Container[int], facts: dict[Pair, bool]) -> dict[Pair, bool]:
    """Of those who are in the graph: some people of the sample have left."""
    return {(user, other): held for (user, other), held in facts.items() if user in people and other in people}


@pytest.fixture
def facts(evening: Evening) -> Iterator[LiveStore]:
    opened = open_live_facts(str(evening.store / "live"), SETTINGS)
    yield opened
    opened.close()


def test_every_accepted_event_holds_after_kills_and_after_the_export(evening: Evening, facts: LiveStore) -> None:
    assert len(evening.accepted) >= 10_000
    connected = latest(evening, "connected", "disconnected", mutual=True)
    blocked = latest(evening, "blocked", "unblocked", mutual=False)
    told = {person: facts.of(person).barred for person in {one for pair in (*connected, *blocked) for one in pair}}
    for (user, other), holds in connected.items():
        if holds:
            apart = any(blocked.get(pair) for pair in ((user, other), (other, user)))
            assert told[user][other] == told[other][user] == ("blocked" if apart else "connected")
    for (user, other), holds in blocked.items():
        if holds:
            assert other in told[user]
            assert user in told[other]
    for kind, user, other, _ in evening.accepted:
        if kind == "dismissed" and not {user, other} & set(evening.erased):
            assert other in told[user]


def test_the_next_night_knows_every_accepted_event_and_nobody_erased(evening: Evening, spark: "SparkSession") -> None:
    with small_pipeline(str(evening.lake), str(evening.store), spark) as pipeline:
        pipeline.run(until="build_graph")
        path = evening.store / "graph" / pipeline.artifact_id("graph") / "data"
    graph = Graph.open(path)
    rows = {int(person): row for row, person in enumerate(graph.ids)}
    connected = among(rows, latest(evening, "connected", "disconnected", mutual=True))
    assert len(connected) > 100
    for (user, other), holds in connected.items():
        assert (rows[other] in graph.now.connections.row(rows[user])) == holds, (user, other)
    for (user, other), holds in among(rows, latest(evening, "blocked", "unblocked", mutual=False)).items():
        if holds:
            assert rows[other] in graph.excluded.row(rows[user])
            assert rows[user] in graph.excluded.row(rows[other])
    for person in evening.erased:
        assert places_of(path, person) == []
    assert pq.read_table(path / "quarantine.parquet").num_rows == 0


def test_an_erased_person_is_in_no_table_of_the_lake_but_the_record(evening: Evening) -> None:
    removed, kept = evening.erased
    assert places_of(evening.lake, removed) == ["user_events/erased.parquet: user_id"]
    assert len(places_of(evening.lake, kept)) > 1, "only the record of the store keeps them out"


def test_an_erased_person_is_in_nothing_of_the_store_but_the_records(evening: Evening) -> None:
    for person in evening.erased:
        assert places_of(evening.store, person) == ["erasures.json: text", "live/live.lmdb: erased"]


@pytest.mark.slow
def test_an_erased_person_is_in_nothing_of_the_next_release(evening: Evening, spark: "SparkSession") -> None:
    with small_pipeline(str(evening.lake), str(evening.store), spark) as pipeline:
        made = pipeline.run()
    assert made["published"]
    someone = int(Graph.open(evening.store / "graph" / made["stages"]["build_graph"]["artifact_id"] / "data").ids[0])
    assert len({place.partition("/")[0] for place in places_of(evening.store, someone)}) >= 4
    for person in evening.erased:
        assert places_of(evening.store, person) == ["erasures.json: text", "live/live.lmdb: erased"]
