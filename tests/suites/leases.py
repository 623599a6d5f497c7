"""What leases promise on every store; run by a test module a store, which provides the fixture `store`."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.artifacts import Manifest, find_manifest, open_artifact, write_artifact
from infra.errors import Conflict, CorruptArtifact, Fenced
from infra.leases import FAILED, LOST, MADE, Lease, Maker, key_of, lease_of, take
from infra.process_life import this_process
from infra.store import ObjectStore

NAME = "graph/20260101T000000Z-0123456789abcdef"
KIND, ARTIFACT = NAME.split("/")


def maker(run: str) -> Maker:
    """One on another machine, as far as anybody can tell."""
    return Maker(run, f"host of {run}", "", "1")


class Clock:
    """Time that passes while somebody sleeps; `meanwhile` is what happens then."""

    def __init__(self, meanwhile: list[object] | None = None) -> None:
        self.now = 0.0
        self.meanwhile = meanwhile or []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()  # type: ignore[operator]


def held(store: ObjectStore, run: str, clock: Clock | None = None) -> Lease:
    clock = clock or Clock()
    lease = take(store, NAME, maker(run), clock=clock, sleep=clock.sleep)
    assert lease
    return lease


def beat_of(store: ObjectStore) -> int:
    file = lease_of(store, NAME)
    assert file
    return file.beat


def artifact(store: ObjectStore, content: bytes, lease: Lease) -> Manifest:
    folder = store.scratch()
    (folder / "data").mkdir()
    (folder / "data" / "part").write_bytes(content)
    return write_artifact(
        store, folder, Manifest(KIND, ARTIFACT, "2026-01-01T00:00:00Z", {}, {}, 1, "1", 1, content.hex(), ()), lease
    )


class LeaseSuite:
    def test_one_of_many_takes_it_and_tokens_rise(self, store: ObjectStore) -> None:
        at_once, done = threading.Semaphore(1), []

        def run(number: int) -> int:
            lease = take(store, NAME, maker(str(number)), sleep=lambda s: threading.Event().wait(0.05) and None)
            assert lease
            with lease:
                assert at_once.acquire(blocking=False), "two hold it"
                done.append(lease.token)
                at_once.release()
            return lease.token

        with ThreadPoolExecutor(6) as pool:
            tokens = list(pool.map(run, range(6)))
        assert sorted(tokens) == [1, 2, 3, 4, 5, 6]
        assert done == sorted(done), "in the order in which they held it"
        file = lease_of(store, NAME)
        assert file
        assert [turn.state for turn in file.turns] == [MADE] * 6

    def test_who_took_it_has_it_though_the_answer_was_lost(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that tries again is told that somebody was there before: itself."""
        put, clock = type(store).put, Clock()

        def told_nothing(*args: Any, **conditions: Any) -> None:
            monkeypatch.undo()
            put(*args, **conditions)
            raise Conflict("412")

        monkeypatch.setattr(type(store), "put", told_nothing)
        with held(store, "a", clock) as lease:
            assert (lease.token, clock.now) == (1, 0.0)

    def test_who_waits_is_told_for_whom_and_shares_what_was_finished(self, store: ObjectStore) -> None:
        first, told, finished = held(store, "a"), list[str](), list[int]()
        clock = Clock([lambda: None, lambda: finished.append(1)])
        got = take(
            store, NAME, maker("b"), done=lambda: bool(finished), tell=told.append, clock=clock, sleep=clock.sleep
        )
        assert got is None
        assert len(told) == 1
        assert "waiting for run a on host of a" in told[0]
        first.check()

    def test_a_holder_that_is_silent_is_succeeded_and_can_write_no_more(self, store: ObjectStore) -> None:
        zombie, clock = held(store, "a"), Clock()
        successor = held(store, "b", clock)
        assert clock.now == pytest.approx(60, abs=1)
        assert successor.token == zombie.token + 1
        successor.check()
        with pytest.raises(
            Fenced, match=r"this run \(token 1\).* passed to run b on host of b \(token 2\).*not written"
        ):
            zombie.check()
        with pytest.raises(Fenced):
            zombie.writing()
        with pytest.raises(Fenced):
            artifact(store, b"of the zombie", zombie)
        assert find_manifest(store, KIND, ARTIFACT) is None
        assert artifact(store, b"of the successor", successor).content_hash == b"of the successor".hex()
        with pytest.raises(Fenced):
            artifact(store, b"of the zombie", zombie)
        opened = open_artifact(store, KIND, ARTIFACT)
        assert (opened.path / "part").read_bytes() == b"of the successor"

    def test_a_zombie_that_made_the_same_finds_it(self, store: ObjectStore) -> None:
        zombie = held(store, "a")
        made = artifact(store, b"same", held(store, "b"))
        assert artifact(store, b"same", zombie) == made
        open_artifact(store, KIND, ARTIFACT)

    def test_what_a_zombie_still_writes_does_not_reach_the_files_of_its_successor(self, store: ObjectStore) -> None:
        held(store, "a")
        store.put(f"{NAME}/data/part", b"half of the zomb")
        successor = held(store, "b")
        artifact(store, b"whole", successor)
        if store.local_folder("x") is None:
            store.put(f"{NAME}/data/part", b"of the zombie, late")
        assert (open_artifact(store, KIND, ARTIFACT).path / "part").read_bytes() == b"whole"

    def test_a_sign_of_life_starts_the_wait_anew(self, store: ObjectStore) -> None:
        first = held(store, "a")
        beats = [lambda: None] * 50 + [lambda: first.writing(files=1)]
        clock = Clock(beats)  # type: ignore[arg-type]
        held(store, "b", clock)
        assert clock.now == pytest.approx(111, abs=2)

    def test_a_process_that_ended_on_this_machine_is_succeeded_at_once(self, store: ObjectStore) -> None:
        machine, pid, started = this_process().split("/")
        for process, gone in ((f"{machine}/{pid}/{int(started) - 1}", True), (this_process(), False)):
            clock = Clock()
            assert take(store, NAME, Maker("a", "h", process, "1"), clock=clock, sleep=clock.sleep)
            clock = Clock()
            with held(store, "b", clock):
                assert (clock.now == 0) is gone

    def test_how_a_turn_ended_is_kept_with_who_had_it(self, store: ObjectStore) -> None:
        held(store, "a")
        with pytest.raises(ValueError, match="x"), held(store, "b"):
            raise ValueError("x")
        with held(store, "c") as third:
            third.writing(files={"a": 1})
        file = lease_of(store, NAME)
        assert file
        assert [(t.token, t.maker.run_id, t.state) for t in file.turns] == [
            (1, "a", LOST),
            (2, "b", FAILED),
            (3, "c", MADE),
        ]
        assert file.maker == file.turns[-1]
        assert file.turns[-1].notes == {"files": {"a": 1}}
        assert file.holder is None

    def test_the_lease_is_renewed_while_the_block_runs(self, store: ObjectStore) -> None:
        lease, clock, seen = take(store, NAME, maker("a"), ttl_s=0.3), Clock(), list[int]()
        assert lease

        def until_renewed(seconds: float) -> None:
            """Nearly a lifetime passes, in which there is a sign of life."""
            until = time.monotonic() + 60
            while (beat := beat_of(store)) in seen and time.monotonic() < until:
                time.sleep(0.01)
            seen.append(beat)
            clock.sleep(0.29)

        with lease:
            other = take(store, NAME, maker("b"), done=counted(4), clock=clock, sleep=until_renewed)
            assert other is None, "four lifetimes were waited for"
            assert len(set(seen)) == 4
            lease.check()

    def test_a_damaged_or_removed_lease_says_so(self, store: ObjectStore) -> None:
        lease = held(store, "a")
        store.put(key_of(NAME), b"{")
        with pytest.raises(CorruptArtifact, match=r"not a lease.*delete the file"):
            held(store, "b")
        store.delete(key_of(NAME))
        with pytest.raises(Fenced, match="was removed"):
            lease.check()
        with pytest.raises(Fenced, match="was removed"):
            lease.writing()


def counted(times: int):  # type: ignore[no-untyped-def]
    """False so many times, then true."""
    left = [False] * times
    return lambda: left.pop() if left else True
