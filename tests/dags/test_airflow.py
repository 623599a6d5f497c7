"""Every way to start a night, in a real Airflow and its own pages: by schedule, by click, by range of dates, again.

With PYMK_SCREENSHOTS=FOLDER the pages are kept there; docs/images has them.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from infra.audit import deeds
from infra.releases import ReleaseStore
from infra.store import open_store
from tests.suites.airflow import Airflow
from tests.suites.browser import needs_chromium, opened_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400), needs_chromium]

SMALL = ["encoder.max_steps=20", "candidates.per_user=50", "ranker.trees=20", "index.min_recall=0.5"]
LOOSE = ["max_recall_drop=1", "max_input_change=1000", "max_degree_shift=1000", "max_score_shift=1000", "max_gini=1"]
LOOSE += ["max_shown_drop=1", "max_gini_rise=1", "min_against_heuristics=0", "min_shown=0"]
SETTINGS = [*SMALL, *(f"gates.{pair}" for pair in LOOSE)]
"""For 300 people and 11 months between two releases, of which gates rightly doubt that they are of one network."""
DAG, CLICKED = "pymk_nightly", "2025-12-15"
DAYS = [f"2025-12-{day}" for day in range(25, 32)]
RUN_S = 900.0
"""For one run, of which a busy machine has three at once."""


class Site:
    """An Airflow with a lake of 300 people, and a page of a browser."""

    def __init__(self, airflow: Airflow, page: "Page", store: Path) -> None:
        self.airflow, self.page, self.store = airflow, page, store
        self.releases = ReleaseStore(open_store(str(store)))

    def open_form(self, dag: str, kind: str) -> None:
        self.page.goto(f"{self.airflow.url}/dags/{dag}")
        self.page.get_by_role("button", name="Trigger").first.click()
        if kind == "Backfill":
            self.page.get_by_text(kind, exact=True).first.click()
        self.page.locator("#element_reason").wait_for()

    def keep(self, name: str) -> None:
        if folder := os.environ.get("PYMK_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"airflow-{name}.png")

    def show(self, path: str) -> None:
        """A page once its content is there."""
        self.page.goto(f"{self.airflow.url}/dags/{path}")
        self.page.wait_for_load_state("networkidle")

    def ended(self, runs: list[str]) -> dict[str, str]:
        return self.airflow.finished(DAG, runs, RUN_S * len(runs))

    def release_of(self, as_of: str) -> str:
        """The one release of that day."""
        (found,) = [r.release_id for r in self.releases.list() if r.as_of == f"{as_of}T00:00:00Z"]
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    lake, store = folder / "lake", folder / "store"
    store.mkdir()
    config = folder / "pymk.toml"
    sections = sorted({pair.partition(".")[0] for pair in SETTINGS})
    lines = [f"[{s}]\n" + "\n".join(p.partition(".")[2] for p in SETTINGS if p.startswith(f"{s}.")) for s in sections]
    config.write_text("\n".join(lines))
    sample = ["sample", "--users", "300", "--lake", str(lake)]
    subprocess.run([sys.executable, "-m", "jobs.cli", *sample], check=True, capture_output=True)
    variables = {"PYMK_LAKE": str(lake), "PYMK_STORE": str(store), "PYMK_CONFIG": str(config)}
    with Airflow(folder / "airflow", variables) as airflow, opened_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.set_default_timeout(60_000)
        yield Site(airflow, page, store)


def made(task: dict[str, Any]) -> bool:
    return task["state"] in ("success", "skipped")


def test_a_run_clicked_with_a_form_value_and_one_of_the_schedule_are_green(site: Site) -> None:
    site.open_form(DAG, "Single Run")
    site.page.locator("#element_as_of").fill(CLICKED)
    site.page.locator("#element_settings").fill("rank.per_user=20")
    site.keep("form")
    site.page.get_by_test_id("trigger-dag-submit").click()  # unpauses the DAG, and so the schedule begins too
    clicked = site.airflow.until(lambda: site.airflow.runs(DAG, run_type="manual"), RUN_S, "for the clicked run")
    scheduled = site.airflow.until(lambda: site.airflow.runs(DAG, run_type="scheduled"), RUN_S, "for the schedule")
    runs = [run["dag_run_id"] for run in (*clicked, *scheduled)]
    assert set(site.ended(runs).values()) == {"success"}
    assert all(made(task) for run in runs for task in site.airflow.tasks(DAG, run).values())
    release = site.releases.get(site.release_of(CLICKED))
    assert release.artifacts["rankings"].rows <= 20 * release.artifacts["graph"].rows
    current = site.releases.current()
    assert current is not None
    assert current.as_of[:10] == scheduled[0]["logical_date"][:10]
    log = site.airflow.task_log(DAG, clicked[0]["dag_run_id"], "evaluate")
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
    run = site.airflow.api(
        f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": {"as_of": "2025-11-01"}, "dag_run_id": "ended"}
    )["dag_run_id"]

    def commands() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if "--as-of=2025-11-01" in (one.info["cmdline"] or ())]

    site.airflow.until(lambda: any("build_graph" in one.info["cmdline"] for one in commands()), RUN_S, "to build")
    tree = [*commands(), *(child for one in commands() for child in one.children(recursive=True))]
    site.airflow.api(f"dags/{DAG}/dagRuns/{run}/taskInstances/build_graph", {"new_state": "failed"}, "PATCH")
    site.airflow.until(lambda: not any(one.is_running() for one in tree), 120, "to end all processes of the task")
    assert not commands()
    assert site.ended([run]) == {run: "failed"}


def test_a_rollback_by_form_keeps_its_reason(site: Site) -> None:
    release = site.release_of(CLICKED)
    site.open_form("pymk_rollback", "Single Run")
    site.page.locator("#element_to").fill(release)
    site.page.locator("#element_reason").fill("lists show nobody; $(touch /tmp/hacked)")
    site.keep("rollback")
    site.page.get_by_test_id("trigger-dag-submit").click()
    runs = site.airflow.until(lambda: site.airflow.runs("pymk_rollback"), RUN_S, "for the rollback")
    assert set(site.airflow.finished("pymk_rollback", [runs[0]["dag_run_id"]], RUN_S).values()) == {"success"}
    assert site.releases.current_id() == release
    (deed,) = deeds(open_store(str(site.store)))
    assert (deed.action, deed.reason, deed.done) == ("rollback", "lists show nobody; $(touch /tmp/hacked)", True)
    assert deed.by.startswith("pymk_rollback/")
    assert deed.result["release_id"] == release
