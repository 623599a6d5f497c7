"""Releases come and go while requests run: none fails, none mixes two, and a broken one is never served."""

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient

from benchmarks.serving_rows import FIRST_ID, STEP, TAG, make_release, publish
from infra.errors import StoreError
from infra.lmdb_tables import _SharedFile
from infra.release_files import Pointer, Release
from infra.releases import ReleaseStore
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from lookup_api.app import create_app
from lookup_api.metrics import Metrics
from lookup_api.release_watch import LONGEST_WAIT_S, ReleaseWatch, earlier
from tests.suites.served_store import AS_OF, SETTINGS, USERS, app_on, new_store, publish_day, tag_of, watch_of


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return new_store(tmp_path)


def ask(client: FlaskClient, user: int = FIRST_ID) -> Any:
    return client.get(f"/v1/users/{user}/recommendations")


def tags(body: dict[str, Any]) -> set[str]:
    return {r["value"] for item in body["items"] for r in item["reasons"] if r.get("attribute") == TAG}


def served_id(app: Flask) -> str | None:
    with watch_of(app).hold() as release:
        return release.release_id if release else None


def test_without_a_release_the_api_is_alive_and_not_ready(store: ObjectStore) -> None:
    app = app_on(store)
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    for answer in (client.get("/readyz"), ask(client)):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert orjson.loads(answer.data)["type"] == "urn:pymk:problem:no-release"
    release = publish_day(store, 1)
    watch_of(app).look()
    assert orjson.loads(client.get("/readyz").data)["release"] == release.release_id
    assert ask(client).status_code == 200
    watch_of(app).stop()


def test_a_store_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    app = create_app(str(tmp_path / "later"), SETTINGS)
    assert app.test_client().get("/readyz").status_code == 503
    assert b"pymk_release_poll_failures_total 1.0" in app.extensions["pymk"].metrics.exposition()
    assert not (tmp_path / "later").exists(), "it may be a disk that is not mounted yet"
    publish_day(open_store(str(tmp_path / "later"), create=True), 1)
    watch_of(app).look()
    assert app.test_client().get("/readyz").status_code == 200
    watch_of(app).stop()


def test_the_newest_release_is_taken_up_by_the_background_look(store: ObjectStore) -> None:
    publish_day(store, 1)
    metrics = Metrics()
    watch = ReleaseWatch(store.uri, 0.01, metrics)
    swapped = threading.Event()
    note = metrics.serving

    def noted(release_id: str, as_of_s: float, before: str | None, night_s: float | None = None) -> None:
        note(release_id, as_of_s, before, night_s)
        if before is not None:
            swapped.set()

    metrics.serving = noted  # type: ignore[method-assign]
    watch.start()
    second = publish_day(store, 2)
    assert swapped.wait(60)
    with watch.hold() as release:
        assert release is not None
        assert release.release_id == second.release_id
    watch.stop()


def test_swaps_under_load_fail_no_request_and_mix_no_answer(store: ObjectStore) -> None:
    """Four clients ask without pause while three different releases come, and one is rolled back to."""
    days = {publish_day(store, 1).release_id: 1}
    app = app_on(store)
    stop = threading.Event()
    seen: list[tuple[int, str, frozenset[str], str]] = []

    def ask_on(offset: int) -> None:
        client, user = app.test_client(), offset
        while not stop.is_set():
            answer = ask(client, FIRST_ID + STEP * (user % USERS))
            body = orjson.loads(answer.data)
            seen.append((answer.status_code, body.get("release"), frozenset(tags(body)), body.get("as_of")))
            user += 4

    threads = [threading.Thread(target=ask_on, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    wait_for_more(seen, 1)
    for day in (2, 3, 4):
        days[publish_day(store, day).release_id] = day
        watch_of(app).look()
        wait_for_more(seen, 200)
    ReleaseStore(store).rollback()
    watch_of(app).look()
    wait_for_more(seen, 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, *_ in seen} == {200}
    expected = {release: (frozenset({tag_of(day)}), f"2026-01-0{day + 1}T00:00:00Z") for release, day in days.items()}
    assert all((found, as_of) == expected[release] for _, release, found, as_of in seen)
    assert {release for _, release, *_ in seen} == set(days)
    assert days[served_id(app) or ""] == 3
    watch_of(app).stop()
    assert not _SharedFile._open, "every file of every release was closed"


def wait_for_more(seen: list[Any], more: int) -> None:
    wanted = len(seen) + more
    while len(seen) < wanted:
        threading.Event().wait(0.001)


def test_the_old_release_stays_open_until_its_last_request_is_done(store: ObjectStore) -> None:
    publish_day(store, 1)
    app = app_on(store)
    watch = watch_of(app)
    slow = watch.take()
    assert slow is not None
    publish_day(store, 2)
    watch.look()
    assert served_id(app) != slow.release_id
    assert slow.tables.get("rankings", FIRST_ID) is not None
    slow.give_back()
    with pytest.raises(StoreError, match="read after close"):
        slow.tables.get("rankings", FIRST_ID)
    assert not slow.take(), "a closed release is not handed out again"
    watch.stop()


def break_tables(store: ObjectStore, artifact: str, how: str) -> None:
    data = Path(store.uri) / artifact
    file = data / "part-00000.lmdb"
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "one bit":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        (data.parent / "manifest.json").write_text("{")


@pytest.mark.parametrize("how", ["missing", "truncated", "one bit", "manifest"])
def test_a_broken_release_is_refused_and_the_old_one_stays_served(
    store: ObjectStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish_day(store, 1)
    app = app_on(store)
    second = make_release(store, USERS, AS_OF.replace(day=9), "broken")
    break_tables(store, second.artifacts["serving_tables"].path, how)
    ReleaseStore(store).publish(second)
    watch_of(app).look()
    assert served_id(app) == first.release_id
    assert ask(app.test_client()).status_code == 200
    assert "pymk_release_refused_total 1.0" in app.test_client().get("/metrics").text
    assert f"refused release {second.release_id}" in caplog.text
    watch_of(app).stop()


def test_a_refused_release_is_tried_again_ever_more_rarely(store: ObjectStore) -> None:
    now = [0.0]
    metrics = Metrics()
    watch = ReleaseWatch(store.uri, 1.0, metrics, clock=lambda: now[0])
    release = make_release(store, USERS, AS_OF, "late")
    file = Path(store.uri) / release.artifacts["serving_tables"].path / "part-00000.lmdb"
    content = file.read_bytes()
    file.unlink()
    ReleaseStore(store).publish(release)
    tried = []
    for now[0] in range(20):
        before = metrics.refused._value.get()
        watch.look()
        if metrics.refused._value.get() > before:
            tried.append(now[0])
    assert tried == [0, 1, 3, 7, 15]
    file.write_bytes(content)
    now[0] = 40
    watch.look()
    assert watch.ready
    watch.stop()


def test_a_release_that_stays_broken_for_days_is_still_tried(store: ObjectStore) -> None:
    """2.0 ** 1024 is no float: the time between tries must not be computed from it."""
    now, tries = [0.0], 1100
    metrics = Metrics()
    watch = ReleaseWatch(store.uri, 1.0, metrics, clock=lambda: now[0])
    release = make_release(store, USERS, AS_OF, "broken")
    (Path(store.uri) / release.artifacts["serving_tables"].path).parent.joinpath("manifest.json").unlink()
    ReleaseStore(store).publish(release)
    for _ in range(tries):
        watch.look()
        now[0] += LONGEST_WAIT_S
    assert metrics.refused._value.get() == tries
    assert metrics.poll_failures._value.get() == 0
    watch.stop()


def test_a_worker_that_starts_on_a_broken_release_serves_the_one_before_but_none_after(store: ObjectStore) -> None:
    first = publish_day(store, 1)
    second = publish_day(store, 2)
    publish_day(store, 3)
    ReleaseStore(store).rollback(second.release_id)
    break_tables(store, second.artifacts["serving_tables"].path, "missing")
    app = app_on(store)
    assert served_id(app) == first.release_id
    watch_of(app).stop()


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def test_a_worker_that_starts_on_a_truncated_release_file_serves_the_one_before(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish_day(store, 1)
    second = publish_day(store, 2)
    make_release(store, USERS, AS_OF.replace(day=20), "newer, never published")
    publish_day(store, 4)
    ReleaseStore(store).rollback(second.release_id)
    truncate(Path(store.uri) / "releases" / f"{second.release_id}.json", 100)
    (Path(store.uri) / "releases" / ".DS_Store").write_bytes(b"x")
    app = app_on(store)
    assert served_id(app) == first.release_id
    assert f"{second.release_id}.json: not a release" in caplog.text
    watch_of(app).stop()


def test_a_worker_that_starts_on_a_damaged_current_serves_the_newest_that_opens_and_follows_the_repair(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish_day(store, 1)
    second = publish_day(store, 2)
    third = publish_day(store, 3)
    truncate(Path(store.uri) / "CURRENT", 20)
    break_tables(store, third.artifacts["serving_tables"].path, "truncated")
    app = app_on(store)
    assert served_id(app) == second.release_id
    assert "ERROR" in caplog.text
    assert "CURRENT: not a release pointer" in caplog.text
    watch_of(app).look()
    assert served_id(app) == second.release_id
    ReleaseStore(store).publish(first, force=True)
    watch_of(app).look()
    assert served_id(app) == first.release_id
    watch_of(app).stop()


def test_a_worker_that_starts_on_a_damaged_current_serves_no_withdrawn_release(store: ObjectStore) -> None:
    first = publish_day(store, 1)
    publish_day(store, 2)
    ReleaseStore(store).rollback()
    truncate(Path(store.uri) / "CURRENT", 20)
    app = app_on(store)
    assert served_id(app) == first.release_id
    watch_of(app).stop()


def test_a_worker_that_serves_keeps_its_release_when_current_is_damaged(store: ObjectStore) -> None:
    first = publish_day(store, 1)
    app = app_on(store)
    make_release(store, USERS, AS_OF.replace(day=20), "newer, never published")
    truncate(Path(store.uri) / "CURRENT", 20)
    watch_of(app).look()
    assert served_id(app) == first.release_id
    assert b"pymk_release_poll_failures_total 1.0" in app.extensions["pymk"].metrics.exposition()
    watch_of(app).stop()


def fake_release(release_id: str) -> Release:
    return Release(release_id, "2026-01-01T00:00:00Z", 0, (), {})


def test_what_is_served_instead_was_served_before_if_possible_and_is_never_newer_or_withdrawn() -> None:
    listed = [fake_release(f"2026010{day}T000000Z-{name}") for day, name in enumerate("abcdef", 1)]
    a, b, c, d, _, f = (release.release_id for release in listed)
    assert earlier(listed, Pointer(d, history=(a,), withdrawn=(b, f))) == [a, c]
    gone = [release for release in listed if release.release_id != d]
    assert earlier(gone, Pointer(d, history=(f, a), withdrawn=(b,))) == [a, c]
    again = "20260104T000000Z-other"
    assert earlier([*gone, fake_release(again)], Pointer(d)) == [c, b, a]
    assert earlier([*gone, fake_release(again)], Pointer(d, history=(again,)))[0] == again


def test_the_same_tables_in_two_releases_swap_without_a_break(store: ObjectStore) -> None:
    publish(store, USERS, AS_OF, "same")
    app = app_on(store)
    releases = ReleaseStore(store)
    first = releases.current()
    assert first is not None
    publish_day(store, 5)
    watch_of(app).look()
    releases.rollback()
    watch_of(app).look()
    assert served_id(app) == first.release_id
    assert tags(orjson.loads(ask(app.test_client()).data)) == {"same"}
    watch_of(app).stop()


def test_cleaning_is_told_what_a_worker_serves(store: ObjectStore) -> None:
    """One that cannot open anything newer, say; when it stops nobody has it open."""
    first = publish_day(store, 1)
    app = app_on(store)
    releases = ReleaseStore(store)
    for day in (2, 3, 4):
        publish_day(store, day)
    while not list(store.list("readers/")):
        threading.Event().wait(0.01)
    releases.clean(keep=1, grace_s=0)
    assert first in releases.list()
    releases.verify(first)
    watch_of(app).look()
    releases.clean(keep=1, grace_s=0)
    assert first not in releases.list()
    watch_of(app).stop()
    assert not list(store.list("readers/"))


def test_settings_of_the_environment_reach_a_worker(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that `pymk serve` sets are the ones a worker's create_app reads."""
    from infra.settings import load
    from jobs.serve import worker_environment

    settings = Settings.model_validate(
        {"rules": {"max_per_school": 1, "school_attributes": ["lycée", "high_school"]}, "api": {"poll_s": 3600.0}}
    )
    for name, value in worker_environment(store.uri, settings).items():
        monkeypatch.setenv(name, value)
    found, _ = load()
    assert (found.rules, found.api) == (settings.rules, settings.api)
