"""In a real Airflow: a week anew, a late night, an hour, a rollback under load, cleaning, inputs that are missing."""

import json
import os
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.servers import wait_until_ready
from infra.artifacts import find_manifest, open_artifact
from infra.audit import deeds
from infra.releases import Release
from infra.store import open_store
from infra.times import format_time
from tests.jobs.test_hourly import NEW, add
from tests.jobs.test_serve import start
from tests.suites.airflow_site import HOURLY, NIGHTLY, RUN_S, WEEKLY, Site, opened_site
from tests.suites.askers import Asked, Askers, ask
from tests.suites.browser import needs_chromium
from tests.suites.ports import free_port
from tests.suites.webhook import Inbox, opened_inbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400), needs_chromium]

POLL_S = 5.0
OPENING_S = 2.0
"""What a busy machine may take to open a release, once a worker has seen it."""
ASKED_ABOUT = 40


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with opened_inbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, inbox: Inbox) -> Iterator[Site]:
    """Nights are late after 3 seconds."""
    variables = {"PYMK_ALERT_WEBHOOK": inbox.url, "PYMK_LATE": f"{NIGHTLY}=0.05"}
    with opened_site(tmp_path_factory.mktemp("site"), variables) as opened:
        yield opened


@dataclass
class Api:
    """A real server of the site's store. night: whole answers of the night by user, before anything happened since.

    blocker, blocked: an event since.
    """

    port: int
    night: dict[int, list[int]] = field(default_factory=dict)
    blocker: int = 0
    blocked: int = 0

    def ask(self, user: int) -> Asked:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            return ask(connection, user, 100)
        finally:
            connection.close()

    def post(self, kind: str, user: int, other: int) -> None:
        event = {"event_id": f"{kind}-{user}", "type": kind, "user_id": str(user), "other_id": str(other)}
        body = json.dumps({"events": [event | {"at": "2026-01-02T00:00:00Z"}]}).encode()
        where = f"http://127.0.0.1:{self.port}/v1/events"
        with urllib.request.urlopen(urllib.request.Request(where, body, {"Content-Type": "application/json"})) as got:
            assert json.loads(got.read())["rejected"] == []


@pytest.fixture(scope="module")
def api(site: Site) -> Iterator[Api]:
    made = Api(free_port())
    server = start(str(site.store), made.port, "--set", f"api.poll_s={POLL_S}")
    try:
        wait_until_ready(f"http://127.0.0.1:{made.port}/readyz", server)
        yield made
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def current(site: Site) -> Release:
    found = site.releases.current()
    assert found is not None
    return found


def told(inbox: Inbox, *words: str) -> list[dict[str, Any]]:
    """Alerts that hold all the words."""
    return [alert for alert in list(inbox.posted) if all(word in alert["text"] for word in words)]


def test_a_week_is_made_anew_by_its_schedule(site: Site, inbox: Inbox) -> None:
    run = site.by_schedule(WEEKLY)
    assert site.green(WEEKLY, run["dag_run_id"])
    release = current(site)
    assert release.as_of == f"{run['logical_date'][:10]}T00:00:00Z"
    encoder = find_manifest(site.releases.store, "encoder", release.artifacts["encoder"].artifact_id)
    assert encoder is not None
    assert set(encoder.parents) == {"graph"}, "no encoder to start from"
    assert encoder.settings["encoder"]["warm_start"] == ""
    site.show(f"{WEEKLY}/runs/{run['dag_run_id']}", "preflight")
    site.keep("weekly")
    assert not told(inbox, f"{WEEKLY} is late")


def test_a_night_later_than_its_deadline_is_told(site: Site, inbox: Inbox) -> None:
    run = site.by_schedule(NIGHTLY)
    assert site.green(NIGHTLY, run["dag_run_id"])
    assert current(site).as_of == f"{run['logical_date'][:10]}T00:00:00Z"
    site.airflow.until(lambda: told(inbox, f"{NIGHTLY} is late"), RUN_S, "to tell that the night is late")
    (alert,) = told(inbox, f"{NIGHTLY} is late")
    assert alert["where"] == run["dag_run_id"]
    assert "slot of its pool" in alert["how_to_fix"]


def test_an_hour_serves_who_joined_and_exports_events(site: Site, api: Api, inbox: Inbox) -> None:
    night = current(site)
    rankings = pq.read_table(
        open_artifact(site.releases.store, "rankings", night.artifacts["rankings"].artifact_id).path
    )
    asked = sorted(set(rankings["user_id"].to_pylist()))[:ASKED_ABOUT]
    for user in asked:
        answer = api.ask(user)
        assert (answer.status, answer.release, answer.body["source"]) == (200, night.release_id, "precomputed")
        api.night[user] = answer.ids
    api.blocker = asked[0]
    api.blocked = api.night[api.blocker][0]
    api.post("blocked", api.blocker, api.blocked)
    since = night.time + timedelta(minutes=30)
    add(site.lake, "profiles", [(NEW, since)])
    add(site.lake, "connections", [(NEW, asked[1], since, None)])
    run = site.by_schedule(HOURLY)
    assert site.green(HOURLY, run["dag_run_id"])
    states = {name: task["state"] for name, task in site.airflow.tasks(HOURLY, run["dag_run_id"]).items()}
    assert states == {"export_events": "success", "hourly": "success", "hand_over": "success"}
    hour = current(site)
    assert (hour.base, hour.as_of) == (night.release_id, f"{run['logical_date'][:16]}:00Z")
    site.airflow.until(lambda: api.ask(NEW).release == hour.release_id, RUN_S, "to be followed by the server")
    answer = api.ask(NEW)
    assert (answer.body["source"], answer.body["degraded"]) == ("precomputed", False)
    assert len(answer.ids) > 20
    blocks = pq.read_table(site.lake / "blocks").to_pylist()
    assert (api.blocker, api.blocked) in [(row["user_id"], row["other_id"]) for row in blocks]
    site.show(f"{HOURLY}/runs/{run['dag_run_id']}", "hand_over")
    site.keep("hourly")


def test_a_rollback_under_load_fails_no_request_and_forgets_no_block(site: Site, api: Api) -> None:
    hour = current(site)
    assert hour.base is not None
    stop = threading.Event()
    at: list[float] = []

    def watch() -> None:
        while not at and not stop.wait(0.02):
            if site.releases.current_id() == hour.base:
                at.append(time.monotonic())

    moved = threading.Thread(target=watch)
    moved.start()
    with Askers(api.port, list(api.night)) as askers:
        site.open_form("pymk_rollback", "Single Run")
        site.page.locator("#element_reason").fill("the hour names strangers")
        run = site.submit("pymk_rollback")
        green = site.green("pymk_rollback", run["dag_run_id"])
        stop.wait(2 * POLL_S)
    stop.set()
    moved.join()
    assert green
    assert current(site).release_id == hour.base
    asked = askers.asked
    assert {one.status for one in asked} == {200}
    assert {one.body["degraded"] for one in asked} == {False}
    assert {one.release for one in asked} == {hour.release_id, hour.base}
    first_old = min(one.got_s for one in asked if one.release == hour.base) - at[0]
    last_new = max(one.sent_s for one in asked if one.release == hour.release_id) - at[0]
    print(f"{len(asked)} requests; old answers {first_old:.2f} s after CURRENT moved, last new {last_new:.2f} s")
    assert max(first_old, last_new) <= POLL_S + OPENING_S
    for one in asked:
        if one.user == api.blocker:
            assert api.blocked not in one.ids
        if one.user == api.blocked:
            assert api.blocker not in one.ids
        if one.release == hour.base and one.user not in (api.blocker, api.blocked):
            assert one.ids == api.night[one.user]
    blockers = [one.ids for one in asked if one.release == hour.base and one.user == api.blocker]
    assert all(set(ids) >= set(api.night[api.blocker]) - {api.blocked} for ids in blockers)
    assert blockers


def test_room_is_made_by_form_and_what_is_served_stays(site: Site, api: Api) -> None:
    served = current(site)
    report = site.store / "report"
    left = report / "20250101T000000Z-0123456789abcdef"
    shutil.copytree(report / served.artifacts["report"].artifact_id, left)
    site.open_form("pymk_clean", "Single Run")
    site.page.locator("input[name=element_keep]").fill("1")
    site.page.locator("input[name=element_grace_hours]").fill("0")
    site.page.locator("#element_reason").fill("the disk is nearly full")
    site.keep("clean")
    assert site.green("pymk_clean", site.submit("pymk_clean")["dag_run_id"])
    assert not left.exists()
    site.releases.verify(current(site))
    assert current(site) == served
    cleaned = [deed for deed in deeds(open_store(str(site.store))) if deed.action == "clean"]
    assert [(deed.reason, deed.done) for deed in cleaned] == [("the disk is nearly full", True)]
    assert cleaned[0].by.startswith("pymk_clean/")
    assert {api.ask(user).status for user in api.night} == {200}


def without_connections(lake: Path) -> None:
    (lake / "connections").rename(lake.parent / "away")


def half_written(lake: Path) -> None:
    (lake / "connections" / "_temporary" / "0").mkdir(parents=True)
    (lake / "connections" / "_temporary" / "0" / "part").write_bytes(b"PAR1")


def a_tenth(lake: Path) -> None:
    rows = pq.read_table(lake / "connections")
    shutil.rmtree(lake / "connections")
    (lake / "connections").mkdir()
    pq.write_table(rows.slice(0, rows.num_rows // 10), lake / "connections" / "part.parquet")


@pytest.mark.parametrize(
    ("damage", "said"),
    [(without_connections, "connections"), (half_written, "holds _temporary"), (a_tenth, "gates.min_rows_share")],
    ids=["missing", "partial", "small"],
)
def test_a_night_whose_inputs_are_not_there_waits_and_tells(
    site: Site, inbox: Inbox, damage: Callable[[Path], None], said: str
) -> None:
    whole = shutil.copytree(site.lake, site.lake.parent / "whole")
    before = site.releases.current_id()
    damage(site.lake)
    try:
        site.airflow.api(f"dags/{NIGHTLY}", {"is_paused": False}, "PATCH")
        as_of = format_time(current(site).time + timedelta(minutes=1))  # it is past, as a night's must be
        run = site.trigger(NIGHTLY, f"inputs-{damage.__name__}", as_of=as_of)
        waits = (f"{NIGHTLY}.preflight will be tried again", f"run {run}", said)
        site.airflow.until(lambda: told(inbox, *waits), RUN_S, "to tell that inputs are not there")
        tasks = site.airflow.tasks(NIGHTLY, run)
        assert tasks["preflight"]["state"] == "up_for_retry"
        assert tasks["build_graph"]["state"] is None
        site.end(NIGHTLY, run)
        assert site.ended([run]) == {run: "failed"}
    finally:
        shutil.rmtree(site.lake)
        shutil.rmtree(site.lake.parent / "away", ignore_errors=True)
        os.replace(whole, site.lake)
    assert site.releases.current_id() == before


def test_a_night_that_cannot_succeed_fails_at_once_and_tells(site: Site, inbox: Inbox) -> None:
    run = site.trigger(NIGHTLY, "forced", force=True)
    assert site.ended([run]) == {run: "failed"}
    site.airflow.until(lambda: told(inbox, "preflight failed: force: needs a reason", run), RUN_S, "to tell it")
    assert site.airflow.tasks(NIGHTLY, run)["preflight"]["try_number"] == 1
