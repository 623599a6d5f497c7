"""Answers of the night that are kept: asked again, they name nobody who is hidden meanwhile, and nobody is missing."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from infra.settings import Settings
from infra.store import ObjectStore
from lookup_api.deadline import Deadline
from lookup_api.ladder import NoFacts, Query
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.served_release import ServedRelease
from tests.suites.served_store import current_release

SHOWN = 3


@pytest.fixture
def release(store: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(store) as opened:
        yield opened


class Viewer:
    """One who asks a lookup that keeps answers."""

    def __init__(self, release: ServedRelease) -> None:
        self.lookup, self.release = Lookup.of(Settings(), Metrics()), release
        self.user_id = next(user for user in release.popular.ids() if len(self._asked(user, NoFacts())[0]) == SHOWN)
        self.lookup.answers.clear()

    def asks(self, **facts: Any) -> tuple[list[int], str]:
        return self._asked(self.user_id, NoFacts(**facts))

    def _asked(self, user_id: int, facts: NoFacts) -> tuple[list[int], str]:
        query = Query(user_id, SHOWN, frozenset(), False)
        told = self.lookup.answer(query, self.release, facts, Deadline.after(60)).values
        assert told["source"] in ("precomputed", "popular")
        people = orjson.loads(orjson.dumps(told["items"]))
        return [int(item["user_id"]) for item in people], told["cache"]


def test_an_answer_of_the_night_serves_until_somebody_in_it_is_hidden(release: ServedRelease) -> None:
    viewer = Viewer(release)
    shown, _ = viewer.asks()
    assert viewer.asks(hidden_version=1, hidden={10**9: "banned"}) == (shown, "l1"), "that is of no concern to it"
    hidden = {10**9: "banned", shown[1]: "opted_out"}
    now, cache = viewer.asks(hidden_version=2, hidden=hidden)
    assert (shown[1] in now, cache) == (False, "none")
    assert viewer.asks(hidden_version=3, hidden=hidden | {10**9 + 1: "banned"}) == (now, "l1")
    assert viewer.asks(hidden_version=4, hidden={shown[1]: "opted_out"}) == (now, "l1"), "who is back was not in it"
    assert viewer.asks(hidden_version=5) == (shown, "none"), "who is back was left out of it"


def test_an_answer_of_another_rung_serves_until_anybody_is_hidden(release: ServedRelease) -> None:
    """Its reasons may count them."""
    viewer = Viewer(release)
    viewer.user_id = 10**12
    shown, cache = viewer.asks()
    assert (cache, len(shown)) == ("none", SHOWN)
    assert viewer.asks() == (shown, "l1")
    assert viewer.asks(hidden_version=1, hidden={10**9: "banned"}) == (shown, "none")


def test_an_answer_in_which_somebody_sank_serves_until_they_are_shown_again(release: ServedRelease) -> None:
    viewer = Viewer(release)
    shown, _ = viewer.asks()
    tired = {shown[0]: 1}
    sunk, cache = viewer.asks(fatigue=tired)
    assert cache == "none"
    assert sunk.index(shown[0]) > 0
    assert viewer.asks(fatigue=dict(tired)) == (sunk, "l1")
    deeper, cache = viewer.asks(fatigue={shown[0]: 4})
    assert (shown[0] in deeper, cache) == (False, "none")
