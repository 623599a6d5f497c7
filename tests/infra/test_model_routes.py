"""Routes change one at a time, remember what they were, and give every user the same variant everywhere."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import CorruptArtifact, PymkError, StoreError, UsageError
from infra.model_routes import (
    CANARY,
    FILE,
    HISTORY,
    STABLE,
    Canary,
    ModelRef,
    Route,
    Routes,
    RouteStore,
    Surface,
    promoted,
    rolled_back,
    routed,
    without_canary,
)
from infra.store import ObjectStore, open_store
from infra.traffic_split import place_of, places_of

AT, HOME = "2026-01-01T00:00:00Z", "home"
A, B, C = (ModelRef.parse(text) for text in ("trees@1", "trees@2", "mlp@1"))


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/routes", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


def canary(model: ModelRef = B, share: float = 0.5, **others: Any) -> Canary:
    return Canary(model=model, share=share, **others)


def change(store: ObjectStore, edit: Any, surface: str = HOME) -> Surface:
    return RouteStore(store).change(surface, edit, AT, "a")


def test_a_surface_that_nobody_routed_has_the_ranker_of_the_release(store: ObjectStore) -> None:
    routes = RouteStore(store).read()
    assert (routes, routes.of(HOME).route) == (Routes(), Route())
    assert Route().of(STABLE) is None
    assert not store.exists(FILE)


def test_a_change_is_read_back_and_leaves_other_surfaces(store: ObjectStore) -> None:
    change(store, routed(Route(stable=C)), "other")
    route = Route(stable=A, canary=canary(), shadows=(C,))
    made = change(store, routed(route))
    read = RouteStore(store).read()
    assert read.of(HOME) == made
    assert (made.route, made.changed_at, made.by, made.history) == (route, AT, "a", (Route(),))
    assert read.of("other").route == Route(stable=C)
    assert read.models() == {A, B, C}


def test_changes_at_once_are_all_made(store: ObjectStore) -> None:
    def add(number: int) -> None:
        def edit(surface: Surface) -> Surface:
            shadows = (*surface.route.shadows, ModelRef.parse(f"m@{number}"))
            return surface.moved_to(Route(shadows=shadows))

        change(store, edit)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    surface = RouteStore(store).read().of(HOME)
    assert {str(one) for one in surface.route.shadows} == {f"m@{n}" for n in range(12)}
    assert [len(route.shadows) for route in surface.history] == list(range(11, -1, -1))


def test_the_same_route_again_changes_nothing(store: ObjectStore) -> None:
    before = change(store, routed(Route(stable=A)))
    assert change(store, routed(Route(stable=A))) == before
    assert before.history == (Route(),)


def test_a_promoted_canary_is_stable_and_its_rollback_brings_back_the_stable_model_alone(store: ObjectStore) -> None:
    change(store, routed(Route(stable=A, canary=canary(), shadows=(C, B))))
    assert change(store, promoted).route == Route(stable=B, shadows=(C,))
    back = change(store, rolled_back("worse", AT))
    assert (back.route, back.history) == (Route(stable=A, shadows=(C,)), (Route(),))
    assert [(one.model, one.why) for one in back.stopped] == [(B, "worse")], "it has no share of the users either"
    again = change(store, rolled_back("all of it", AT))
    assert again.route == Route()
    assert {str(one.model) for one in again.stopped} == {"trees@1", "trees@2", "mlp@1"}
    with pytest.raises(PymkError, match="no earlier route"):
        change(store, rolled_back("", AT))


def test_a_stopped_canary_is_not_routed_again_unless_forced(store: ObjectStore) -> None:
    change(store, routed(Route(stable=A, canary=canary())))
    stopped = change(store, without_canary(B, "scores are NaN", AT))
    assert (stopped.route, stopped.has_stopped(B).why) == (Route(stable=A), "scores are NaN")  # type: ignore[union-attr]
    assert change(store, without_canary(B, "again", AT)) == stopped, "it is off already"
    for route in (Route(stable=B), Route(shadows=(B,)), Route(canary=canary())):
        with pytest.raises(UsageError, match="scores are NaN"):
            change(store, routed(route))
    forced = change(store, routed(Route(canary=canary()), force=True))
    assert (forced.route.canary, forced.stopped) == (canary(), ())


def test_a_rollback_brings_back_no_canary_and_no_shadow_that_was_stopped(store: ObjectStore) -> None:
    change(store, routed(Route(stable=A)))
    change(store, routed(Route(stable=A, canary=canary(share=0.1), shadows=(B, C))))
    change(store, routed(Route(stable=A, canary=canary(share=0.5), shadows=(C,))))
    change(store, routed(Route(stable=B, shadows=(C,)), force=True))
    change(store, without_canary(B, "none of its own", AT))
    change(store, rolled_back("worse", AT))
    back = RouteStore(store).read().of(HOME)
    assert (back.route, len(back.history)) == (Route(stable=A, shadows=(C,)), 3)
    assert [one.why for one in back.stopped] == ["worse"]


def test_a_rollback_passes_over_routes_that_would_change_nothing(store: ObjectStore) -> None:
    """Those of the canary that was stopped: who rolls back then means the stable model."""
    for route in (Route(stable=C), Route(stable=A), Route(stable=A, canary=canary()), Route(stable=A)):
        change(store, routed(route))
    change(store, routed(Route(stable=A, canary=canary()), force=True))
    change(store, without_canary(B, "scores are NaN", AT))
    back = change(store, rolled_back("worse", AT))
    assert (back.route, back.history) == (Route(stable=C), (Route(),))
    assert {one.model for one in back.stopped} == {A, B}


def test_a_smaller_share_comes_back_with_a_rollback(store: ObjectStore) -> None:
    for share in (0.1, 0.5):
        change(store, routed(Route(canary=canary(share=share))))
    back = change(store, rolled_back("", AT))
    assert (back.route, back.stopped) == (Route(canary=canary(share=0.1)), ())


def test_a_rollback_to_a_stable_model_that_was_stopped_is_refused_unless_forced(store: ObjectStore) -> None:
    for model in (A, B, A):
        change(store, routed(Route(stable=model)))
    before = change(store, rolled_back("late", AT))
    with pytest.raises(UsageError, match=f"trees@1: is stable in the route before, and was stopped at {AT}: late"):
        change(store, rolled_back("", AT))
    assert RouteStore(store).read().of(HOME) == before
    forced = change(store, rolled_back("worse", AT, force=True))
    assert (forced.route, [one.model for one in forced.stopped]) == (Route(stable=A), [B])


def test_stopping_a_canary_that_was_replaced_leaves_its_successor(store: ObjectStore) -> None:
    change(store, routed(Route(canary=canary(C))))
    assert change(store, without_canary(B, "late", AT)).route.canary == canary(C)


def test_nothing_is_promoted_where_there_is_no_canary(store: ObjectStore) -> None:
    with pytest.raises(PymkError, match="no canary to promote"):
        change(store, promoted)
    assert not store.exists(FILE)


def test_history_has_an_end(store: ObjectStore) -> None:
    for number in range(HISTORY + 5):
        change(store, routed(Route(stable=ModelRef.parse(f"m@{number}"))))
    assert len(RouteStore(store).read().of(HOME).history) == HISTORY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version": 9}',
        b'{"surfaces": {"a/b": {}}}',
        b'{"surfaces": {"a": {"route": {"stable": "x"}}}}',
        b'{"surfaces": {"a": {"route": {"canary": {"model": "a@1", "share": 2}}}}}',
        b"[" * 100_000,
    ],
)
def test_other_bytes_are_no_routes_and_are_not_replaced(store: ObjectStore, data: bytes) -> None:
    store.put(FILE, data)
    with pytest.raises(CorruptArtifact, match=r"routes\.json"):
        change(store, routed(Route(stable=A)))
    assert store.get(FILE).data == data


@pytest.mark.parametrize("name", ["", "..", "a/b", ".a"])
def test_what_cannot_be_a_surface_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a valid surface"):
        change(open_store(str(tmp_path), create=True), routed(Route()), name)


@pytest.mark.parametrize("text", ["a", "a@", "@1", "../a@1", "a@b/c", "a@1@2 "])
def test_what_names_no_version_of_a_model_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ModelRef.parse(text)


def test_where_conditions_are_ignored_no_route_is_changed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    store.conditional_puts = False  # type: ignore[misc]
    with pytest.raises(StoreError, match="ignores conditional puts"):
        change(store, routed(Route(stable=A)))


IDS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(IDS, min_size=1, max_size=50), st.text(max_size=9), st.text(max_size=9))
def test_one_user_and_many_stand_at_the_same_place(ids: list[int], surface: str, salt: str) -> None:
    many = places_of(surface, salt, np.array(ids, np.int64))
    assert many.tolist() == [place_of(surface, salt, user_id) for user_id in ids]
    assert ((many >= 0) & (many < 1)).all()


def test_places_are_those_of_splitmix64() -> None:
    """The first output of splitmix64 of seed 1234567 is 6457827717110365317 in the reference code."""
    from infra import traffic_split

    assert int(place_of("s", "t", 1234567 ^ traffic_split._seed("s", "t")) * 2**53) == 6457827717110365317 >> 11


USERS = np.arange(-50_000, 50_000, dtype=np.int64)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_a_share_is_that_part_of_the_users(share: float) -> None:
    got = Route(canary=canary(share=share)).variants(HOME, USERS)
    assert got.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / len(USERS)) ** 0.5)


def test_a_share_that_grows_keeps_who_was_in_it_and_another_canary_draws_anew() -> None:
    small, large, other = (
        Route(canary=canary(model, share)).variants(HOME, USERS) for model, share in ((B, 0.1), (B, 0.3), (C, 0.1))
    )
    assert (large | ~small).all()
    assert (small & other).mean() == pytest.approx(0.01, abs=0.002)
    elsewhere = Route(canary=canary(B, 0.1)).variants("elsewhere", USERS)
    assert (small & elsewhere).mean() == pytest.approx(0.01, abs=0.002)


def test_with_one_salt_canaries_have_the_same_users() -> None:
    first, second = (Route(canary=canary(m, 0.1, salt="s")).variants(HOME, USERS) for m in (B, C))
    assert (first == second).all()


def test_live_and_the_night_agree() -> None:
    route = Route(stable=A, canary=canary(share=0.3))
    night = route.variants(HOME, USERS[:500])
    assert [route.variant(HOME, user) == CANARY for user in USERS[:500].tolist()] == night.tolist()
    assert (route.of(STABLE), route.of(CANARY)) == (A, B)


def test_where_clients_choose_nobody_has_the_canary_unasked_and_no_more_than_its_share_does() -> None:
    route = Route(canary=canary(share=0.4, sticky="client"))
    assert not route.variants(HOME, USERS).any()
    asked = [route.variant(HOME, user, CANARY) == CANARY for user in range(2000)]
    assert np.mean(asked) == pytest.approx(0.4, abs=0.05)
    assert {route.variant(HOME, user) for user in range(99)} == {STABLE}
    by_user = Route(canary=canary(share=0.4))
    assert [by_user.variant(HOME, u, STABLE) for u in range(99)] == [by_user.variant(HOME, u) for u in range(99)]
