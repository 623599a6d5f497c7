"""What every form of live facts must do; run by each form's module, which provides the fixture `reopen`.

reopen() opens the same live facts once more, as another worker or a restarted one would.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence

import pytest

from infra import live_log
from infra.events import EVENT_TYPES, OUTCOMES, PERSON_TYPES, Event
from infra.live_facts import ERASED_PERSON, REUSED_ID, LiveStore, ViewerFacts
from infra.settings import EventSettings, Settings

SETTINGS = Settings(events=EventSettings(max_mib=64, redis_timeout_ms=5000))
DAY_US = 86_400_000_000
NOW_US = time.time_ns() // 1000

Reopen = Callable[[], LiveStore]

_numbers = itertools.count()


def event(kind: str, user: int, other: int | None = None, at_us: int = NOW_US, event_id: str = "") -> Event:
    return Event(event_id or f"event-{next(_numbers)}", kind, user, other, at_us)


def said(facts: ViewerFacts) -> tuple[dict[int, str], dict[int, int], bool]:
    return dict(facts.barred), dict(facts.fatigue), facts.viewer_hidden


class LiveFactsSuite:
    def test_a_viewer_without_facts_is_barred_from_nobody(self, reopen: Reopen) -> None:
        assert said(reopen().of(7)) == ({}, {}, False)

    @pytest.mark.parametrize(
        ("kind", "theirs", "mine"),
        [("connected", "connected", "connected"), ("blocked", "blocked", "blocked"), ("dismissed", None, "dismissed")],
    )
    def test_a_fact_of_two_is_known_to_those_whom_it_concerns(
        self, reopen: Reopen, kind: str, theirs: str | None, mine: str
    ) -> None:
        facts = reopen()
        facts.record([event(kind, 1, 2)])
        assert dict(facts.of(1).barred) == {2: mine}
        assert dict(facts.of(2).barred) == ({1: theirs} if theirs else {})
        assert dict(facts.of(3).barred) == {}

    def test_a_block_is_told_before_a_friendship_as_friends_may_be_named(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("connected", 1, 2), event("blocked", 2, 1), event("connected", -3, 1)])
        facts.record([event("blocked", 1, -3), event("connected", 1, 4), event("dismissed", 1, 4)])
        assert dict(facts.of(1).barred) == {2: "blocked", -3: "blocked", 4: "connected"}
        facts.record([event("unblocked", 2, 1, NOW_US + 1)])
        assert facts.of(1).barred[2] == "connected"

    @pytest.mark.parametrize(
        ("does", "undoes", "taken_back_by"),
        [
            ("connected", "disconnected", (2, 1)),
            ("connected", "disconnected", (1, 2)),
            ("blocked", "unblocked", (1, 2)),
        ],
    )
    def test_what_is_taken_back_no_longer_bars_and_can_come_again(
        self, reopen: Reopen, does: str, undoes: str, taken_back_by: tuple[int, int]
    ) -> None:
        facts = reopen()
        facts.record([event(does, 1, 2, NOW_US - 3), event(undoes, *taken_back_by, NOW_US - 2)])
        assert not facts.of(1).barred
        assert not facts.of(2).barred
        facts.record([event(does, 1, 2, NOW_US - 1)])
        assert facts.of(1).barred
        assert facts.of(2).barred

    def test_only_the_one_who_blocked_can_lift_the_block(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("blocked", 1, 2, NOW_US - 3), event("unblocked", 2, 1, NOW_US - 2)])
        assert dict(facts.of(1).barred) == {2: "blocked"}
        assert dict(facts.of(2).barred) == {1: "blocked"}

    @pytest.mark.parametrize(
        ("hides", "shows"), [("deactivated", "reactivated"), ("banned", "unbanned"), ("opted_out", "opted_in")]
    )
    def test_a_hidden_person_is_seen_by_nobody_and_shown_nobody_until_it_is_lifted(
        self, reopen: Reopen, hides: str, shows: str
    ) -> None:
        facts, other_worker = reopen(), reopen()
        assert not other_worker.of(5).hidden
        facts.record([event(hides, 9, None, NOW_US - 2)])
        assert other_worker.of(5).hidden[9] == hides
        assert other_worker.of(9).viewer_hidden
        facts.record([event(shows, 9, None, NOW_US - 1)])
        assert 9 not in other_worker.of(5).hidden
        assert not other_worker.of(9).viewer_hidden

    def test_of_several_reasons_to_hide_each_must_be_lifted(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("banned", 9), event("opted_out", 9), event("unbanned", 9, None, NOW_US + 1)])
        assert facts.of(1).hidden[9] == "opted_out"

    def test_a_dismissal_holds_as_long_as_the_setting_says(self, reopen: Reopen) -> None:
        facts = reopen()
        days = SETTINGS.graph.dismissal_days
        facts.record([event("dismissed", 1, 2, NOW_US - (days - 1) * DAY_US)])
        facts.record([event("dismissed", 1, 3, NOW_US - (days + 1) * DAY_US)])
        assert dict(facts.of(1).barred) == {2: "dismissed"}

    def test_showings_count_until_a_reaction_and_are_forgotten_in_time(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("shown", 1, 2, NOW_US - 10 + i) for i in range(3)])
        facts.record([event("shown", 1, 3, NOW_US - (SETTINGS.events.fatigue_days + 1) * DAY_US)])
        assert dict(facts.of(1).fatigue) == {2: 3}
        facts.record([event("clicked", 1, 2, NOW_US)])
        facts.record([event("shown", 1, 2, NOW_US - 1)])
        assert dict(facts.of(1).fatigue) == {}
        facts.record([event("shown", 1, 2, NOW_US + 1)])
        assert dict(facts.of(1).fatigue) == {2: 1}

    def test_what_expired_is_forgotten_and_nothing_else(self, reopen: Reopen) -> None:
        facts = reopen()
        old = NOW_US - 1000 * DAY_US
        facts.record([event(kind, user, 9, old) for user in range(10, 40) for kind in ("dismissed", "shown")])
        facts.record([event(kind, 1, 2, old) for kind in ("connected", "blocked", "dismissed", "shown")])
        facts.record([event("dismissed", 1, 3), event("shown", 1, 4)])
        before = said(facts.of(1))
        assert facts.forget_expired(NOW_US) == 62
        assert facts.forget_expired(NOW_US) == 0
        assert said(facts.of(1)) == before
        assert dict(facts.of(2).barred) == {1: "blocked"}
        facts.record([event("dismissed", 12, 9)])
        assert dict(facts.of(12).barred) == {9: "dismissed"}

    def test_a_clock_far_ahead_forgets_nothing_that_still_holds(
        self, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        facts = reopen()
        day_ahead = event("shown", 1, 3, NOW_US + DAY_US)
        facts.record([event("dismissed", 1, 2), event("shown", 1, 4, event_id="told"), day_ahead])
        before = said(facts.of(1))
        first = facts.unexported(2)
        assert first is not None
        facts.exported(first, keep_days=7)
        monkeypatch.setattr(live_log, "earliest_us", lambda: NOW_US + 400 * DAY_US)
        rest = facts.unexported(10)
        assert rest is not None
        facts.exported(rest, keep_days=7)
        assert facts.forget_expired(max(first.told_us, rest.told_us)) == 0
        monkeypatch.undo()
        assert said(facts.of(1)) == before
        facts.record([event("shown", 1, 4, event_id="told")])
        assert said(facts.of(1)) == before, "its id is still known"

    def test_the_version_changes_with_what_bars_and_not_with_what_was_shown(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("dismissed", 1, 2)])
        before = {viewer: facts.of(viewer).version for viewer in (1, 2, 3)}
        facts.record([event("shown", 1, 5), event("shown", 3, 5)])
        assert {viewer: facts.of(viewer).version for viewer in before} == before
        facts.record([event("blocked", 1, 3)])
        assert facts.of(1).version > before[1]
        assert facts.of(3).version > before[3]
        assert facts.of(2).version == before[2]

    def test_who_is_hidden_has_a_version_of_its_own(self, reopen: Reopen) -> None:
        facts, other_worker = reopen(), reopen()
        facts.record([event("dismissed", 1, 2)])
        before = {viewer: other_worker.of(viewer) for viewer in (1, 3)}
        facts.record([event("opted_out", 8, None, NOW_US - 2), event("banned", 9, None, NOW_US - 2)])
        now = {viewer: other_worker.of(viewer) for viewer in before}
        facts.record([event("opted_in", 8, None, NOW_US - 1)])
        for viewer, known in before.items():
            later = other_worker.of(viewer)
            assert later.version == now[viewer].version == known.version
            assert later.hidden_version > now[viewer].hidden_version > known.hidden_version

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_in_which_events_arrive_makes_no_difference(self, reopen: Reopen, seed: int) -> None:
        draw = random.Random(seed)
        events = random_events(draw, 60)
        draw.shuffle(events)
        facts = reopen()
        for start in range(0, len(events), 7):
            facts.record(events[start : start + 7])
        for person in PEOPLE:
            found = facts.of(person)
            assert dict(found.barred) == barred_by_brute_force(events, person), person
            assert {p: found.hidden[p] for p in PEOPLE if p in found.hidden} == hidden_by_brute_force(events)

    def test_an_event_sent_again_is_not_stored_again(self, reopen: Reopen) -> None:
        facts = reopen()
        once = event("shown", 1, 2, event_id="same")
        assert facts.record([once, once]) == {}
        assert reopen().record([once]) == {}
        assert facts.of(1).fatigue == {2: 1}
        assert len(all_logged(facts)) == 1

    def test_an_id_does_not_stand_for_two_events(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("blocked", 1, 2, event_id="same")])
        refused = facts.record([event("blocked", 1, 4), event("blocked", 1, 3, event_id="same")])
        assert refused == {1: REUSED_ID}
        assert dict(facts.of(1).barred) == {2: "blocked", 4: "blocked"}

    def test_every_worker_and_a_restarted_one_knows_at_once(self, reopen: Reopen) -> None:
        one, two = reopen(), reopen()
        one.record([event("blocked", 1, 2)])
        assert dict(two.of(2).barred) == {1: "blocked"}
        one.close()
        two.close()
        assert dict(reopen().of(1).barred) == {2: "blocked"}

    def test_ids_of_any_size_and_sign(self, reopen: Reopen) -> None:
        facts = reopen()
        ids = (-(2**63), -1, 0, 2**53 + 1, 2**63 - 1)
        facts.record([event("connected", a, b) for a, b in itertools.combinations(ids, 2)])
        facts.record([event("banned", 2**53 + 3)])
        for person in ids:
            assert set(facts.of(person).barred) == set(ids) - {person}
        assert list(facts.of(1).hidden) == [2**53 + 3]

    def test_the_log_hands_out_what_was_not_exported_in_order_until_it_is(self, reopen: Reopen) -> None:
        facts = reopen()
        sent = [Event(f"e{i}", "shown", 1, 10 + i, NOW_US + i, i + 1, "small@1") for i in range(5)]
        sent.append(Event("out", "opted_out", -4, None, NOW_US))
        facts.record(sent)
        first = facts.unexported(4)
        again = reopen().unexported(4)
        assert first is not None
        assert again is not None
        assert first.events == again.events
        assert first.name == again.name
        assert [e.other_id for e in first.events] == [10, 11, 12, 13]
        facts.exported(first, keep_days=7)
        rest = facts.unexported(100)
        assert rest is not None
        assert rest.name != first.name
        assert list(rest.events) == [
            ("shown", 1, 14, NOW_US + 4, 5, "small@1"),
            ("opted_out", -4, None, NOW_US, None, None),
        ]
        facts.exported(rest, keep_days=0)
        assert facts.unexported(1) is None
        assert facts.of(1).fatigue, "facts outlive their export"

    def test_a_batch_is_named_by_its_place_though_its_first_events_be_erased(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("shown", 66, 2), event("shown", 66, 3), event("shown", 1, 2), event("shown", 1, 3)])
        first = facts.unexported(3)
        facts.erase(66, NOW_US)
        again = facts.unexported(3)
        assert first is not None
        assert again is not None
        assert again.name == first.name
        facts.exported(again, keep_days=7)
        rest = facts.unexported(3)
        assert [(e.user_id, e.other_id) for batch in (again, rest) if batch for e in batch.events] == [(1, 2), (1, 3)]

    def test_when_a_fact_ended_is_told_only_of_those_that_ended(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record([event("connected", 1, 2, NOW_US - 5), event("disconnected", 1, 2, NOW_US - 3)])
        facts.record([event("blocked", 1, 3), event("unblocked", 4, 1, NOW_US - 1)])
        asked = [("connected", 2, 1), ("blocked", 1, 3), ("blocked", 4, 1), ("blocked", 1, 4), ("connected", 8, 9)]
        assert facts.ended_at(asked) == [NOW_US - 3, None, NOW_US - 1, None, None]

    def test_an_erased_person_is_gone_from_everything_but_the_record_of_it(self, reopen: Reopen) -> None:
        facts, other_worker = reopen(), reopen()
        facts.record([event("connected", 1, 66), event("dismissed", 2, 66), event("shown", 3, 66)])
        facts.record([event("blocked", 66, 4), event("opted_out", 66), event("connected", 1, 2), event("shown", 66, 9)])
        before = other_worker.of(1).hidden_version
        done = facts.erase(66, NOW_US)
        assert sum(done.rows.values()) > 0
        assert sorted(done.viewers) == [1, 2, 3, 4]
        assert other_worker.of(1).hidden[66] == "erased"
        assert other_worker.of(66).viewer_hidden
        assert other_worker.of(1).hidden_version > before
        assert not facts.of(66).barred
        for viewer in (1, 2, 3, 4):
            assert 66 not in facts.of(viewer).barred
            assert 66 not in facts.of(viewer).fatigue
        assert [(e.user_id, e.other_id) for e in all_logged(facts)] == [(1, 2)]
        assert facts.erased() == {66: NOW_US}

    def test_it_tells_of_whom_it_has_heard(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.record(
            [event("connected", 1, 2), event("dismissed", 3, 4), event("opted_out", 5), event("clicked", 6, 7)]
        )
        facts.erase(8, NOW_US)
        everybody = [*range(-8, 12), 21, 1 << 62]
        assert [person for person in everybody if facts.knows(person)] == [1, 2, 3, 4, 5, 6, 7, 8]
        facts.erase(1, NOW_US)
        assert facts.knows(1)
        assert not facts.knows(2), "all that named them is gone"

    def test_nothing_new_of_an_erased_person_is_stored(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.erase(66, NOW_US)
        events = [event("connected", 1, 66), event("reactivated", 66), event("connected", 1, 2)]
        assert facts.record(events) == {0: ERASED_PERSON, 1: ERASED_PERSON}
        assert dict(facts.of(1).barred) == {2: "connected"}
        assert facts.of(5).hidden[66] == "erased"
        assert len(all_logged(facts)) == 1

    def test_erasing_twice_changes_nothing_and_keeps_the_first_time(self, reopen: Reopen) -> None:
        facts = reopen()
        facts.erase(66, NOW_US)
        done = facts.erase(66, NOW_US + 5)
        assert sum(done.rows.values()) == 0
        assert facts.erased() == {66: NOW_US}


PEOPLE = (1, 2, 3, 4)


def random_events(draw: random.Random, count: int) -> list[Event]:
    """Few people, few times, every type: so that everything meets everything, at the same time too."""
    found = []
    for _ in range(count):
        kind = draw.choice([name for name in EVENT_TYPES if name not in OUTCOMES])
        user, other = draw.sample(PEOPLE, 2)
        found.append(event(kind, user, None if kind in PERSON_TYPES else other, NOW_US - draw.randrange(6)))
    return found


def barred_by_brute_force(events: Sequence[Event], viewer: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for other in PEOPLE:
        both = [e for e in events if {e.user_id, e.other_id} == {viewer, other}]
        dismissed = any(e.type == "dismissed" and e.user_id == viewer for e in both)
        by_each = ([e for e in both if e.user_id == user] for user in (viewer, other))
        blocked = any(_holds(own, "blocked", "unblocked") for own in by_each)
        connected = _holds(both, "connected", "disconnected")
        rule = "blocked" if blocked else "connected" if connected else "dismissed" if dismissed else None
        if rule:
            found[other] = rule
    return found


def hidden_by_brute_force(events: Sequence[Event]) -> dict[int, str]:
    found = {}
    for person in PEOPLE:
        own = [e for e in events if e.user_id == person and e.other_id is None]
        for rule, lifted in (("banned", "unbanned"), ("opted_out", "opted_in"), ("deactivated", "reactivated")):
            if _holds(own, rule, lifted):
                found.setdefault(person, rule)
    return found


def _holds(events: Sequence[Event], begins: str, ends: str) -> bool:
    last = max((e.at_us for e in events if e.type in (begins, ends)), default=None)
    return any(e.type == begins and e.at_us == last for e in events)


def all_logged(facts: LiveStore) -> list:  # type: ignore[type-arg]
    batch = facts.unexported(1000)
    return list(batch.events) if batch else []
