"""Friends in common are named to whoever may see both them and the other person, and to nobody else."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from infra.blobs import decode_neighbours
from infra.graph import Graph
from infra.kv import NEIGHBOURS
from infra.live_facts import ViewerFacts
from infra.releases import ReleaseStore
from infra.store import open_store
from lookup_api.mutual import mutual_friends
from lookup_api.served_release import ServedRelease
from tests.suites.live_store import guarded_graph, live_artifacts, publish_live


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def release(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRelease]:
    folder: Path = tmp_path_factory.mktemp("mutual")
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "night", graph))
    current = ReleaseStore(store).current()
    assert current is not None
    opened = ServedRelease.open(store, current)
    yield opened
    opened.give_back()


def stored(release: ServedRelease, user_id: int) -> set[int]:
    return set(decode_neighbours(release.tables.get(NEIGHBOURS, user_id) or b"").ids)


def facts(barred: dict[int, str] | None = None, hidden: dict[int, str] | None = None) -> ViewerFacts:
    return ViewerFacts(barred or {}, hidden or {}, {}, False, 0, 0)


def shared_by(user_id: int, other_id: int, release: ServedRelease, known: ViewerFacts) -> set[int]:
    found = mutual_friends(user_id, other_id, release, known)
    assert found["count"] == len(found["friends"])
    return {int(friend) for friend in found["friends"]}


def pairs_of(graph: Graph, release: ServedRelease, apart: bool) -> list[tuple[int, int]]:
    """Pairs who are no friends and both know somebody whom the release stores; apart: that the night keeps apart."""
    found = []
    for row in range(graph.users):
        kept, friends = set(graph.excluded.row(row).tolist()), set(graph.now.connections.row(row).tolist())
        others = kept - friends if apart else set(range(graph.users)) - kept - friends - {row}
        one = int(graph.ids[row])
        for other in np.sort(graph.ids[sorted(others)]).tolist():
            if stored(release, one) & stored(release, other):
                found.append((one, other))
                break
    return found


def test_whom_events_hide_or_bar_is_neither_asked_about_nor_named(graph: Graph, release: ServedRelease) -> None:
    one, other = pairs_of(graph, release, apart=False)[0]
    everybody = stored(release, one) & stored(release, other)
    assert shared_by(one, other, release, facts()) == everybody
    some = min(everybody)
    for known in (facts(barred={some: "blocked"}), facts(hidden={some: "banned"})):
        assert shared_by(one, other, release, known) == everybody - {some}
    assert shared_by(one, other, release, facts(barred={some: "connected"})) == everybody
    for known in (facts(barred={other: "dismissed"}), facts(hidden={other: "erased"})):
        assert shared_by(one, other, release, known) == set()


def test_who_left_since_the_night_is_neither_asked_about_nor_named(graph: Graph, release: ServedRelease) -> None:
    one, other = pairs_of(graph, release, apart=False)[0]
    everybody, later = stored(release, one) & stored(release, other), copy(release)
    later.departed = {min(everybody): "departed"}
    assert shared_by(one, other, later, facts()) == everybody - {min(everybody)}
    later.departed = {other: "departed"}
    assert shared_by(one, other, later, facts()) == set()


def test_nothing_is_told_of_somebody_whom_the_night_keeps_from_the_viewer(graph: Graph, release: ServedRelease) -> None:
    apart = pairs_of(graph, release, apart=True)
    assert apart
    assert all(shared_by(one, other, release, facts()) == set() for one, other in apart)
