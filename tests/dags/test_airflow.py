"""Every way to start a night, in a real Airflow and its own pages: by schedule, by click, by range of dates, again.

With PYMK_SCREENSHOTS=FOLDER the pages are kept there; docs/images has them.
"""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from infra.audit import deeds
from infra.leases import lease_of
from infra.store import open_store
from tests.suites.airflow_site import NIGHTLY, RUN_S, Site, opened_site
from tests.suites.browser import needs_chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400), needs_chromium]

DAG, CLICKED = NIGHTLY, "2025-12-15"
DAYS = [f"2025-12-{day}" for day in range(25, 32)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with opened_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


def made(task: dict[str, Any]) -> bool:
    return task["state"] in ("success", "skipped")


def test_a_run_clicked_with_a_form_value_and_one_of_the_schedule_are_green(site: Site) -> None:
    site.open_form(DAG, "Single Run")
    site.page.locator("#element_as_of").fill(CLICKED)
    site.page.locator("#element_settings").fill("rank.per_user=20")
    site.keep("form")
    clicked = site.submit(DAG)  # and so the schedule begins too
    scheduled = site.airflow.until(lambda: site.airflow.runs(DAG, run_type="scheduled"), RUN_S, "for the schedule")
    assert all(site.green(DAG, run["dag_run_id"]) for run in (clicked, *scheduled))
    release = site.releases.get(site.release_of(CLICKED))
    assert release.artifacts["rankings"].rows <= 20 * release.artifacts["graph"].rows
    current = site.releases.current()
    assert current is not None
    assert current.as_of[:10] == scheduled[0]["logical_date"][:10]
    log = site.airflow.task_log(DAG, clicked["dag_run_id"], "evaluate")
    assert "Metrics on held-out friendships" in log
    assert "data/report.html" in log
    site.show(f"{DAG}/runs/{scheduled[0]['dag_run_id']}")
    site.keep("scheduled")


def test_a_backfill_of_seven_days_from_the_form_is_green_and_leaves_current(site: Site) -> None:
    before = site.releases.current_id()
    site.open_form(DAG, "Backfill")
    for field, (day, time) in enumerate(((DAYS[0], "00:00"), (DAYS[-1], "23:00"))):
        site.page.get_by_test_id("datetime-input").nth(field).click()
        site.page.get_by_placeholder("YYYY/MM/DD").last.fill(day.replace("-", "/"))
        site.page.get_by_placeholder("HH:mm").last.fill(time)
        site.page.keyboard.press("Escape")
    site.page.locator("input[name=max_active_runs]").fill("3")
    site.page.get_by_text("7 runs will be triggered.").wait_for()
    site.keep("backfill")
    site.page.get_by_role("button", name="Run Backfill").click()
    runs = site.airflow.until(
        lambda: len(found := site.airflow.runs(DAG, run_type="backfill")) == 7 and found, RUN_S, "for the backfill"
    )
    names = [run["dag_run_id"] for run in runs]
    assert set(site.ended(names).values()) == {"success"}
    assert {run["logical_date"][:10] for run in runs} == set(DAYS)
    assert len({site.release_of(day) for day in DAYS}) == 7
    assert site.releases.current_id() == before
    site.show(DAG)
    site.keep("backfilled")


def test_a_cleared_task_is_green_again_and_finds_what_it_made(site: Site) -> None:
    run = site.airflow.runs(DAG, run_type="manual")[0]["dag_run_id"]
    before = site.airflow.tasks(DAG, run)["evaluate"]
    release = site.release_of(CLICKED)
    site.show(f"{DAG}/runs/{run}/tasks/evaluate")
    site.page.get_by_role("button", name="Clear").first.click()
    site.page.get_by_role("button", name="Confirm").wait_for()
    site.keep("clear")
    site.page.get_by_role("button", name="Confirm").click()
    site.airflow.until(
        lambda: (task := site.airflow.tasks(DAG, run)["evaluate"])["try_number"] > before["try_number"] and made(task),
        RUN_S,
        "to run the cleared task",
    )
    assert set(site.ended([run]).values()) == {"success"}
    assert "found report/" in site.airflow.task_log(DAG, run, "evaluate", before["try_number"] + 1)
    assert site.release_of(CLICKED) == release


def test_a_task_marked_failed_while_it_runs_leaves_no_process(site: Site) -> None:
    run = site.trigger(DAG, "ended", as_of="2025-11-01")

    def commands() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if "--as-of=2025-11-01" in (one.info["cmdline"] or ())]

    site.airflow.until(lambda: any("build_graph" in one.info["cmdline"] for one in commands()), RUN_S, "to build")
    tree = [*commands(), *(child for one in commands() for child in one.children(recursive=True))]
    site.airflow.api(f"dags/{DAG}/dagRuns/{run}/taskInstances/build_graph", {"new_state": "failed"}, "PATCH")
    site.airflow.until(lambda: not any(one.is_running() for one in tree), 120, "to end all processes of the task")
    assert not commands()
    assert site.ended([run]) == {run: "failed"}
    store = open_store(str(site.store))
    leases = [lease_of(store, f"graph/{path.name}") for path in (site.store / "leases" / "graph").iterdir()]
    assert all(lease and lease.holder is None for lease in leases), "given back, not left to run out"


def test_a_rollback_by_form_keeps_its_reason(site: Site) -> None:
    release = site.release_of(CLICKED)
    site.open_form("pymk_rollback", "Single Run")
    site.page.locator("#element_to").fill(release)
    site.page.locator("#element_reason").fill("lists show nobody; $(touch /tmp/hacked)")
    site.keep("rollback")
    assert site.green("pymk_rollback", site.submit("pymk_rollback")["dag_run_id"])
    assert site.releases.current_id() == release
    (deed,) = deeds(open_store(str(site.store)))
    assert (deed.action, deed.reason, deed.done) == ("rollback", "lists show nobody; $(touch /tmp/hacked)", True)
    assert deed.by.startswith("pymk_rollback/")
    assert deed.result["release_id"] == release
