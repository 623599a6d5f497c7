"""Live ranking: it scores and orders as the night did, and shows nobody whom the night or a fact keeps out."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from infra.blobs import decode_candidates, decode_neighbours
from infra.graph import Graph
from infra.kv import BARS, CANDIDATES, NEIGHBOURS
from infra.releases import ReleaseStore
from infra.settings import LadderSettings, Settings
from infra.store import ObjectStore, open_store
from infra.table_hosts import open_host
from jobs.context import Parent
from jobs.release_load import load_release
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, NoFacts, Offer, Query
from lookup_api.live_rung import Live
from lookup_api.load import FEWER, FULL
from lookup_api.lookup import NO_FACTS, Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.features import PAIR_FEATURES
from lookup_api.ranking.sources import TWO_HOP
from lookup_api.release_source import source_of
from lookup_api.served_release import ServedRelease
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.served_store import current_release

NEW_USER = 10**12
PATIENT = {"live_budget_ms": 60_000, "ann_budget_ms": 60_000}
"""A busy machine fails no test."""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def made(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    return live_artifacts(tmp_path_factory.mktemp("night"), graph)


@pytest.fixture(scope="module")
def store(made: dict[str, Parent], tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    store = open_store(str(tmp_path_factory.mktemp("live") / "store"), create=True)
    publish_live(store, made)
    return store


@pytest.fixture(scope="module")
def release(store: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(store) as opened:
        yield opened


def lookup_with(**ladder: object) -> Lookup:
    settings = LIVE_SETTINGS.model_copy(update={"ladder": LadderSettings.model_validate(PATIENT | ladder)})
    return Lookup.of(Settings.model_validate(settings.model_dump()), Metrics())


def live_rung(lookup: Lookup) -> Live:
    return next(rung for rung in lookup.ladder.rungs if isinstance(rung, Live))


def offered(
    release: ServedRelease, user_id: int, facts: NoFacts = NO_FACTS, level: int = FULL, explain: bool = False, **ladder
) -> Offer | None:
    ask = Ask(Query(user_id, 100, frozenset(), explain), release, facts, Deadline.after(60), level)
    return live_rung(lookup_with(**ladder)).offer(ask)


def outdating(graph: Graph, row: int) -> NoFacts:
    """As many friends made since as outdate the nightly list."""
    strangers = [person for person in graph.ids.tolist() if person not in unseen(graph, row)]
    return NoFacts(barred=dict.fromkeys(strangers[:3], "connected"))


def unseen(graph: Graph, row: int) -> set[int]:
    rows = np.union1d(graph.now.connections.row(row), graph.excluded.row(row))
    return {int(graph.ids[row]), *graph.ids[rows].tolist()}


def test_the_stored_candidates_ranked_live_are_the_nightly_list_in_order_and_score(
    graph: Graph, made: dict[str, Parent], release: ServedRelease
) -> None:
    """Exposure prices included. Everybody, to 1e-5."""
    nightly = pq.read_table(made["rankings"].path)
    user = nightly["user_id"].to_numpy()
    for user_id in graph.ids.tolist():
        mine = nightly.filter(user == user_id)
        stored = decode_candidates(release.tables.get(CANDIDATES, user_id) or b"")
        offer = offered(release, user_id, live_candidates=len(stored.ids))
        assert offer is not None
        live = list(offer.ranking.items())[: mine.num_rows]
        assert [offer.ranking.base + record[0] for record in live] == mine["candidate_id"].to_pylist()
        np.testing.assert_allclose([record[1] for record in live], mine["score"].to_numpy(), rtol=0, atol=1e-5)


def test_nobody_is_ranked_live_whom_the_night_keeps_out(graph: Graph, release: ServedRelease) -> None:
    """Friends beyond the few stored, blocks and dismissals of the lake, and the user."""
    more = 0
    for row, user_id in enumerate(graph.ids.tolist()):
        offer = offered(release, user_id, live_candidates=240)
        assert offer is not None
        assert not set(offer.ranking.ids()) & unseen(graph, row)
        stored = decode_candidates(release.tables.get(CANDIDATES, user_id) or b"").ids
        more += len(set(offer.ranking.ids()) - set(stored))
    assert more > 1000


def test_somebody_the_release_does_not_know_is_ranked_by_the_friends_made_since(
    graph: Graph, release: ServedRelease
) -> None:
    """Who has a friend listed beside them has that many of the viewer's new friends, counted here in the tables."""
    friends = graph.ids[0:48:6].tolist()
    facts = NoFacts(barred=dict.fromkeys(friends, "connected"))
    offer = offered(release, NEW_USER, facts, explain=True, live_candidates=100)
    assert offer is not None
    assert offer.evidence is not None
    shown = offer.ranking.ids()
    assert not set(shown) & set(friends)
    stored = [decode_neighbours(release.tables.get(NEIGHBOURS, friend) or b"").ids for friend in friends]
    mutual = {person: sum(person in one for one in stored) for person in shown}
    assert max(mutual.values()) >= 3
    for record in offer.ranking.items():
        person = offer.ranking.base + record[0]
        (reason,) = offer.ranking.reasons(record)
        many = mutual[person]
        assert reason == ({"kind": "mutual_connections", "count": many} if many else {"kind": "near_in_network"})
        bits, features = offer.evidence[person]
        assert set(features) == set(PAIR_FEATURES)
        assert features["common_neighbours"] == pytest.approx(np.log1p(many), rel=1e-3)
        assert bool(bits & TWO_HOP) == bool(many)


def test_somebody_of_whom_nothing_is_known_is_not_ranked_live(release: ServedRelease) -> None:
    assert offered(release, NEW_USER) is None


def test_a_list_emptied_by_facts_is_made_anew_without_the_people_it_held(
    graph: Graph, made: dict[str, Parent], release: ServedRelease
) -> None:
    user_id = int(graph.ids[7])
    nightly = pq.read_table(made["rankings"].path)
    listed = nightly.filter(nightly["user_id"].to_numpy() == user_id)["candidate_id"].to_pylist()
    facts = NoFacts(barred=dict.fromkeys(listed, "dismissed"))
    lookup = lookup_with()
    answer = told(lookup, release, user_id, facts)
    assert (answer["source"], answer["degraded"], answer["cache"]) == ("live", False, "none")
    shown = {int(item["user_id"]) for item in answer["items"]}
    assert shown
    assert not shown & (set(listed) | unseen(graph, 7))
    again = told(lookup, release, user_id, facts)
    assert (again["items"], again["cache"]) == (answer["items"], "l1")
    other = told(lookup, release, user_id, NoFacts(barred=facts.barred, version=1))
    assert other["cache"] == "none"


def test_friends_made_since_the_release_outdate_the_stored_list(graph: Graph, release: ServedRelease) -> None:
    user_id = int(graph.ids[7])
    strangers = [p for p in graph.ids.tolist() if p not in unseen(graph, 7)][:3]
    before = told(lookup_with(), release, user_id, NoFacts())
    facts = NoFacts(barred=dict.fromkeys(strangers[:2], "connected"))
    assert before["source"] == told(lookup_with(), release, user_id, facts)["source"] == "precomputed"
    facts = NoFacts(barred=dict.fromkeys(strangers, "connected"))
    assert told(lookup_with(), release, user_id, facts)["source"] == "live"
    known = graph.ids[graph.now.connections.row(7)[:5]].tolist()
    facts = NoFacts(barred=dict.fromkeys(known, "connected"))
    assert told(lookup_with(), release, user_id, facts)["source"] == "precomputed"


def test_a_busy_worker_looks_at_fewer_people_and_keeps_no_such_list(graph: Graph, release: ServedRelease) -> None:
    user_id = int(graph.ids[7])
    full, fewer = (offered(release, user_id, level=level, live_candidates=120) for level in (FULL, FEWER))
    assert full is not None
    assert fewer is not None
    assert len(fewer.ranking) <= 30 < len(full.ranking)
    lookup, facts = lookup_with(live_candidates=120), outdating(graph, 7)
    answers = [told(lookup, release, user_id, facts, level) for level in (FEWER, FEWER, FULL, FULL, FEWER)]
    assert {(answer["source"], answer["degraded"]) for answer in answers} == {("live", False)}
    assert [answer["cache"] for answer in answers] == ["none", "none", "none", "l1", "l1"]


def test_breakers_of_parts_are_told_apart(release: ServedRelease) -> None:
    names = [breaker.name for breaker in lookup_with().breakers]
    assert len(set(names)) == len(names)
    assert all(isinstance(breaker, Breaker) for breaker in lookup_with().breakers)


def told(lookup: Lookup, release: ServedRelease, user_id: int, facts: NoFacts, level: int = FULL, limit: int = 20):
    query = Query(user_id, limit, frozenset(), False)
    return orjson.loads(orjson.dumps(lookup.answer(query, release, facts, Deadline.after(60), level).values))


def test_live_ranking_on_a_host_of_tables_is_that_on_the_files(
    store: ObjectStore, graph: Graph, release: ServedRelease, redis_uri: str
) -> None:
    source = source_of(store.uri, redis_uri, 30.0, 1.0)
    host = open_host(redis_uri)
    load_release(store, ReleaseStore(store).get(release.release_id), host, 2, True, lambda line: None)
    host.close()
    hosted = source.open(release.release_id, LadderSettings())
    assert hosted.ranks_live
    for user_id in [*graph.ids[:20].tolist(), NEW_USER]:
        here, there = offered(release, user_id), offered(hosted, user_id)
        assert (here is None) == (there is None)
        if here is not None and there is not None:
            assert list(there.ranking.items()) == list(here.ranking.items())
    hosted.give_back()
    source.close()


def test_a_blend_of_the_night_reorders_live_lists_too(graph: Graph, release: ServedRelease) -> None:
    assert release.live is not None
    user_id = int(graph.ids[7])
    plain = offered(release, user_id)
    release.live.blend = ("mmr", 0.9)
    mixed = offered(release, user_id)
    release.live.blend = ("none", 0.0)
    assert plain is not None
    assert mixed is not None
    assert mixed.ranking.ids() != plain.ranking.ids()
    assert sorted(mixed.ranking.ids()) == sorted(plain.ranking.ids())
    assert mixed.ranking.ids()[0] == plain.ranking.ids()[0]


def test_a_rehearsal_ranks_and_leaves_nothing_behind(release: ServedRelease) -> None:
    lookup = lookup_with()
    lookup.rehearse(release)
    assert len(lookup.caches.l1) == len(lookup.answers) == 0
    assert "pymk_live_people_total 0.0" not in lookup.metrics.exposition().decode()


class Without:
    """The tables of a release from which one was lost."""

    def __init__(self, tables: Any, lost: str) -> None:
        self.tables, self.lost = tables, lost

    def get(self, table: str, key: int) -> bytes | None:
        found: bytes | None = None if table == self.lost else self.tables.get(table, key)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tables, name)


@pytest.mark.parametrize("lost", [NEIGHBOURS, BARS])
def test_where_a_release_does_not_say_whom_to_leave_out_only_the_nights_own_choice_is_ranked(
    graph: Graph, release: ServedRelease, lost: str
) -> None:
    whole, user_id = release.tables, int(graph.ids[9])
    stored = set(decode_candidates(whole.get(CANDIDATES, user_id) or b"").ids)
    strangers = [p for p in graph.ids.tolist() if p not in unseen(graph, 9)][:3]
    release.tables = Without(whole, lost)  # type: ignore[assignment]
    try:
        offer = offered(release, user_id, NoFacts(barred=dict.fromkeys(strangers, "connected")))
    finally:
        release.tables = whole
    assert offer is not None
    assert set(offer.ranking.ids()) <= stored


def test_features_that_change_by_the_day_are_forgotten_where_a_release_is_too_old(
    graph: Graph, release: ServedRelease
) -> None:
    user_id = int(graph.ids[9])
    release_age_days = (time.time() - release.as_of_s) / 86_400
    seen = {}
    for life in (0, release_age_days + 1, 1):
        lookup = lookup_with(features_life_days=life)
        ask = Ask(Query(user_id, 100, frozenset(), False), release, NO_FACTS, Deadline.after(60))
        assert live_rung(lookup).offer(ask) is not None
        seen[life] = 'feature="recency",why="stale"' in lookup.metrics.exposition().decode()
    assert list(seen.values()) == [False, False, True]
