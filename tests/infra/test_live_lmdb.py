import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from infra import live_lmdb, live_tables
from infra.errors import StoreError
from infra.events import Event
from infra.live_facts import LiveStore, open_live_facts
from infra.live_lmdb import LmdbLiveFacts
from infra.live_tables import EARLIER, FILE, pack_id
from infra.settings import EventSettings, Settings
from tests.suites.live_facts import NOW_US, SETTINGS, LiveFactsSuite, Reopen, event


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], LmdbLiveFacts]]:
    opened = []

    def open_again() -> LmdbLiveFacts:
        facts = open_live_facts(str(tmp_path / "live"), SETTINGS)
        assert isinstance(facts, LmdbLiveFacts)
        opened.append(facts)
        return facts

    yield open_again
    for facts in opened:
        facts.close()


class TestLmdbLiveFacts(LiveFactsSuite):
    pass


RECORDER = """
import sys
from infra.events import Event
from infra.live_facts import open_live_facts
from infra.settings import Settings

facts = open_live_facts(sys.argv[1], Settings())
for i in range(10**6):
    facts.record([Event(f"{i}-{j}", "blocked", 1, 10 * i + j + 2, 10**15) for j in range(10)])
    print(i, flush=True)
"""


def test_what_was_recorded_outlives_a_kill_and_nothing_is_half_recorded(tmp_path: Path, reopen: Reopen) -> None:
    recorder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RECORDER), str(tmp_path / "live")], stdout=subprocess.PIPE, text=True
    )
    assert recorder.stdout is not None
    for line in recorder.stdout:
        if int(line) == 20:
            break
    recorder.send_signal(signal.SIGKILL)
    acknowledged = [20, *(int(line) for line in recorder.stdout.read().split())]
    recorder.wait()
    barred = set(reopen().of(1).barred)
    assert barred >= set(range(2, 10 * (acknowledged[-1] + 1) + 2))
    assert len(barred) % 10 == 0


def test_when_full_nothing_of_a_request_is_stored_and_facts_that_bar_are_refused_last(tmp_path: Path) -> None:
    facts = open_live_facts(str(tmp_path), Settings(events=EventSettings(max_mib=1)))
    facts.record([event("blocked", 1, 2)])
    shown = fill(facts, lambda i: event("shown", 5, i))
    assert len(facts.of(5).fatigue) <= shown
    facts.record([event("blocked", 1, 3)])
    blocked = fill(facts, lambda i: event("blocked", 10**6, i))
    assert dict(facts.of(1).barred) == {2: "blocked", 3: "blocked"}
    assert len(facts.of(10**6).barred) == blocked
    batch = facts.unexported(10**6)
    assert batch is not None
    assert len(batch.events) == shown + blocked + 2
    facts.exported(batch, keep_days=0)
    assert facts.record([event("shown", 6, 7)]) == {}
    facts.close()


def fill(facts: LiveStore, make: Callable[[int], Event]) -> int:
    """Records until it is refused; returns how many were stored."""
    stored = 0
    for start in range(10, 10**6, 100):
        try:
            facts.record([make(start + i) for i in range(100)])
        except StoreError as error:
            refused = str(error)
            break
        stored += 100
    assert stored
    assert "events.max_mib" in refused
    return stored


def test_when_full_an_export_makes_room_whatever_should_be_kept(tmp_path: Path) -> None:
    facts = open_live_facts(str(tmp_path), Settings(events=EventSettings(max_mib=1)))
    fill(facts, lambda i: event("shown", 5, i))
    fill(facts, lambda i: event("banned", i))
    batch = facts.unexported(10**6)
    assert batch is not None
    facts.exported(batch, keep_days=7)
    facts.record([event("blocked", 1, 2)])
    facts.close()


@pytest.mark.parametrize("replaced", [True, False])
def test_nothing_is_accepted_into_a_file_that_was_taken_away(tmp_path: Path, reopen: Reopen, replaced: bool) -> None:
    facts = reopen()
    facts.record([event("blocked", 1, 2)])
    (tmp_path / "live" / FILE).rename(tmp_path / "moved")
    if replaced:
        shutil.copy(tmp_path / "moved", tmp_path / "live" / FILE)
    with pytest.raises(StoreError, match=r"live\.lmdb"):
        facts.record([event("blocked", 1, 3)])


@pytest.mark.parametrize("with_its_lock", [True, False])
def test_who_reads_a_file_that_was_replaced_goes_on_with_the_new_one(
    tmp_path: Path, reopen: Callable[[], LmdbLiveFacts], with_its_lock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_lmdb, "LOOK_S", 600.0)
    monkeypatch.setattr(live_lmdb, "GRACE_S", 600.0)
    facts, live = reopen(), tmp_path / "live"
    facts.record([event("banned", 5), event("blocked", 1, 2)])
    before = facts.of(1)
    if with_its_lock:
        live.rename(tmp_path / "moved")
    else:
        (live / FILE).rename(tmp_path / "moved")
    assert facts.of(1).barred, "what was known is the best there is while nothing is in its place"
    copy = LmdbLiveFacts.open(tmp_path / "copy", Settings())
    copy.erase(66, 1)
    copy.record([event("blocked", 1, 3)])
    copy.close()
    live.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "copy" / FILE, live / FILE)
    assert facts.of(1).barred, "it is looked at every so often"
    facts._look_at_s = 0.0
    for _ in range(2):
        with pytest.raises(StoreError, match="in a moment"):
            facts.of(1)
    facts._close_at_s = 0.0
    found = facts.of(1)
    assert (dict(found.barred), dict(found.hidden)) == ({3: "blocked"}, {66: "erased"})
    assert found.version != before.version
    facts.record([event("blocked", 1, 4)])
    assert reopen().of(1).barred.keys() == {3, 4}


STRANGER = """
import sys
from pathlib import Path
from infra.errors import StoreError
from infra.live_tables import Tables

try:
    Tables.open(Path(sys.argv[1]), 64 << 20)
except StoreError as error:
    print(error, flush=True)
"""


def test_a_file_whose_lock_file_is_in_use_for_another_is_not_opened(tmp_path: Path, reopen: Reopen) -> None:
    """It would go on with the numbers of the other, and lose what is written at the next start."""
    facts = reopen()
    facts.record([event("blocked", 1, 2)])
    (tmp_path / "live" / FILE).rename(tmp_path / "moved")
    with running(STRANGER, tmp_path) as stranger:
        said, _ = stranger.communicate()
    assert "in use for another file" in said


HOLDER = """
import sys
from pathlib import Path
from infra.live_tables import Tables

tables = Tables.open(Path(sys.argv[1]), 64 << 20)
with tables.writing():
    print("holds", flush=True)
    sys.stdin.read()
"""


def running(program: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, str(folder / "live")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_writer_that_hangs_keeps_nobody_from_reading_or_waiting_for_ever(tmp_path: Path, reopen: Reopen) -> None:
    facts = reopen()
    facts.record([event("blocked", 1, 2)])
    with running(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(StoreError, match="another writer"):
            facts.record([event("blocked", 1, 3)])
        assert dict(facts.of(1).barred) == {2: "blocked"}
        holder.kill()
    facts.record([event("blocked", 1, 3)])
    assert set(facts.of(1).barred) == {2, 3}


OPENER = """
import sys
from infra.errors import StoreError
from infra.live_facts import open_live_facts
from infra.settings import Settings

facts = open_live_facts(sys.argv[1], Settings())
try:
    facts.of(1)
except StoreError as error:
    print(error, flush=True)
sys.stdin.readline()
print(dict(facts.of(1).barred), flush=True)
"""


def test_who_opens_them_beside_a_writer_that_hangs_waits_no_longer_and_tries_again(
    tmp_path: Path, reopen: Reopen
) -> None:
    reopen().record([event("blocked", 1, 2)])
    with running(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        with running(OPENER, tmp_path) as opener:
            assert opener.stdout is not None
            told = opener.stdout.readline()
            holder.kill()
            holder.wait()
            assert opener.communicate("again\n")[0] == "{2: 'blocked'}\n"
    assert "another writer" in told


def test_a_folder_that_cannot_be_used_is_told_at_use_and_used_once_it_can_be(tmp_path: Path) -> None:
    place = tmp_path / "live"
    place.write_text("a file is in the way")
    facts = open_live_facts(str(place), SETTINGS)
    with pytest.raises(StoreError, match="live"):
        facts.of(1)
    with pytest.raises(StoreError, match="live"):
        facts.record([event("blocked", 1, 2)])
    place.unlink()
    facts.record([event("blocked", 1, 2)])
    assert dict(facts.of(1).barred) == {2: "blocked"}
    facts.close()


def test_reading_after_close_raises_and_closing_twice_does_not(reopen: Reopen) -> None:
    facts = reopen()
    facts.of(1)
    facts.close()
    facts.close()
    with pytest.raises(StoreError, match="closed"):
        facts.of(1)


def test_those_longest_shown_are_forgotten_where_too_many_were(reopen: Reopen) -> None:
    facts = reopen()
    facts.record([event("blocked", 1, 5)])
    for start in range(10, 1510, 100):
        facts.record([event("shown", 1, person, NOW_US + person) for person in range(start, start + 100)])
    found = facts.of(1)
    assert dict(found.barred) == {5: "blocked"}
    assert 500 <= len(found.fatigue) <= 1000
    assert set(found.fatigue) == set(range(1510 - len(found.fatigue), 1510))


def test_what_expired_is_found_over_many_transactions(reopen: Reopen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_tables, "LOOKED_AT_ONCE", 7)
    facts = reopen()
    old = NOW_US - 1000 * 86_400_000_000
    facts.record([event("dismissed", user, other, old) for user in range(5) for other in range(10, 20)])
    facts.record([event("blocked", user, other) for user in range(5) for other in range(10, 30, 3)])
    assert facts.forget_expired(NOW_US) == 50
    assert [len(facts.of(user).barred) for user in range(5)] == [7] * 5


def test_ids_are_remembered_as_long_as_the_log_keeps_its_events(reopen: Reopen) -> None:
    facts = reopen()
    facts.record([event("shown", 1, 2, event_id="a")])
    batch = facts.unexported(10)
    assert batch is not None
    facts.exported(batch, keep_days=1)
    facts.record([event("shown", 1, 2, event_id="a")])
    assert facts.of(1).fatigue == {2: 1}
    facts.record([event("shown", 1, 3, event_id="b")])
    batch = facts.unexported(10)
    assert batch is not None
    facts.exported(batch, keep_days=0)
    facts.record([event("shown", 1, 2, event_id="a")])
    assert facts.of(1).fatigue == {2: 2, 3: 1}


def test_no_byte_of_an_erased_person_is_in_any_table_but_that_of_the_erased(tmp_path: Path, reopen: Reopen) -> None:
    """Of an earlier version's either, whose tables are left in the file."""
    person = 0x0102030405060708
    facts = reopen()
    assert isinstance(facts, LmdbLiveFacts)
    facts.record([event("connected", 1, person), event("shown", person, 3), event("banned", person)])
    facts.record([event("dismissed", 4, person), event("connected", 1, 4)])
    tables = facts._tables()
    with tables.writing() as txn:
        for name in EARLIER:
            txn.put(b"1", pack_id(person), db=tables.env.open_db(name, txn))
    facts.erase(person, NOW_US)
    facts.erase(person, NOW_US)
    facts.close()
    forms = (person.to_bytes(8, "big", signed=True), (person + 2**63).to_bytes(8, "big"), str(person).encode())
    holding = set()
    with lmdb.open(str(tmp_path / "live" / FILE), subdir=False, readonly=True, lock=False, max_dbs=20) as env:
        with env.begin() as txn:
            names = [name for name, _ in txn.cursor()]
        for name in names:
            table = env.open_db(name, create=False)
            with env.begin(db=table) as txn:
                if any(form in key + value for key, value in txn.cursor() for form in forms):
                    holding.add(name)
    assert holding == {b"erased"}


def test_facts_read_before_an_event_never_have_the_version_of_those_after_it(reopen: Reopen) -> None:
    facts = reopen()
    assert isinstance(facts, LmdbLiveFacts)
    facts.record([event("connected", 1, 3), event("banned", 8)])
    tables, hidden = facts._current()
    with tables.env.begin() as before:  # a request that has begun and waits for its core
        facts.record([event("blocked", 2, 1)])
        facts.record([event("banned", 9)])
        facts.of(7)  # another request has seen all of it
        late = facts._read(tables, hidden, before, 1)
    now = facts.of(1)
    assert (2 in late.barred, 2 in now.barred) == (False, True)
    assert late.version != now.version
