"""Who was inactive at night and is let in again by an event sees nobody whom the lake keeps from them, on any rung."""

from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest

from infra.blobs import decode_bars
from infra.kv import BARS, CANDIDATES, NEIGHBOURS, RANKINGS, USERS
from infra.ranking_blob import encode_ranking
from infra.releases import ReleaseStore
from infra.settings import LadderSettings, Settings
from infra.store import open_store
from lookup_api.circle import bars_by_night
from lookup_api.deadline import Deadline
from lookup_api.ladder import NoFacts, Query
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.rungs import Kept
from lookup_api.served_release import ServedRelease
from lookup_api.written_list import NEAR
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live

INACTIVE = FIRST, BETWEEN, LAST = -6, 1000, 10**12
UNKNOWN = 10**12 + 1
"""Inactive users, before, among and after those of the graph, and somebody of whom nothing is known."""
PATIENT = {"live_budget_ms": 60_000, "ann_budget_ms": 60_000}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedRelease]:
    folder = tmp_path_factory.mktemp("inactive")
    graph = guarded_graph()
    assert BETWEEN not in graph.ids
    assert graph.ids[0] < BETWEEN < graph.ids[-1]
    some = graph.ids[::2].tolist()
    inactive = {FIRST: [*some, BETWEEN], BETWEEN: [FIRST, *some], LAST: some}
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "night", graph, inactive=inactive))
    current = ReleaseStore(store).current()
    assert current is not None
    opened = ServedRelease.open(store, current, LadderSettings())
    yield opened
    opened.give_back()


def lookup_of(*sources: str) -> Lookup:
    """With these rungs alone."""
    settings = LIVE_SETTINGS.model_copy(update={"ladder": LadderSettings.model_validate(PATIENT)})
    made = Lookup.of(Settings.model_validate(settings.model_dump()), Metrics())
    rungs = [rung for rung in made.ladder.rungs if rung.source in sources]
    return replace(made, ladder=replace(made.ladder, rungs=rungs))


def shown(asked: Lookup, release: ServedRelease, user_id: int, facts: NoFacts) -> set[int]:
    told = asked.answer(Query(user_id, 100, frozenset(), False), release, facts, Deadline.after(60)).values
    assert not told["degraded"]
    return {int(item["user_id"]) for item in orjson.loads(orjson.dumps(told["items"]))}


def keep(asked: Lookup, release: ServedRelease, user_id: int, people: list[int]) -> None:
    """A list of an earlier release that answered last."""
    n = len(people)
    blob = encode_ranking(people, [1.0] * n, [(NEAR,)] * n, [0] * n)
    asked.last_good.put(user_id, Kept(f"before {release.release_id}", blob), len(blob))


def barred_from(release: ServedRelease, user_id: int) -> set[int]:
    return set(decode_bars(release.tables.get(BARS, user_id) or b""))


@pytest.mark.parametrize("user_id", INACTIVE)
def test_the_night_says_whom_an_inactive_user_must_not_be_shown_and_nothing_else(
    release: ServedRelease, user_id: int
) -> None:
    assert len(barred_from(release, user_id)) > 50
    assert all(release.tables.get(table, user_id) is None for table in (RANKINGS, CANDIDATES, USERS, NEIGHBOURS))


@pytest.mark.parametrize("source", ["live", "heuristic", "popular", "stale"])
@pytest.mark.parametrize("user_id", INACTIVE)
def test_no_rung_shows_them_whom_the_lake_keeps_away(release: ServedRelease, user_id: int, source: str) -> None:
    """Friends whom they made since are the popular whom nothing keeps away."""
    barred = barred_from(release, user_id)
    made = [person for person in release.popular.ids() if person not in barred][:3]
    facts = NoFacts(barred=dict.fromkeys(made, "connected"), version=7)
    asked = lookup_of(source)
    keep(asked, release, user_id, release.popular.ids())
    people = shown(asked, release, user_id, facts)
    assert people
    assert not people & {user_id, *barred, *made}
    assert shown(lookup_of(source), release, UNKNOWN, facts) & barred or source == "stale", (
        "nothing else kept them away"
    )


def test_a_list_of_an_earlier_release_names_nobody_whom_this_one_does_not_know(release: ServedRelease) -> None:
    """Who left since may have been kept from the viewer since, of which this release has no row."""
    viewer, asked = release.popular.ids()[0], lookup_of("stale")
    bars = bars_by_night(release.tables, viewer)
    assert bars is not None
    own = {viewer, *bars.tolist()}
    others = [person for person in release.popular.ids() if person not in own]
    assert others
    keep(asked, release, viewer, [BETWEEN, *others, LAST])
    assert shown(asked, release, viewer, NoFacts()) == set(others)
