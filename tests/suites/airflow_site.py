"""An Airflow with a lake of 300 people, an empty store and a page of a browser: where DAGs are seen to run."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.releases import ReleaseStore
from infra.store import open_store
from tests.suites.airflow import Airflow
from tests.suites.browser import opened_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

NIGHTLY, WEEKLY, HOURLY = "pymk_nightly", "pymk_weekly", "pymk_hourly"
PEOPLE = 300
SMALL = ["encoder.max_steps=20", "candidates.per_user=50", "ranker.trees=20", "index.min_recall=0.5"]
LOOSE = ["max_recall_drop=1", "max_input_change=1000", "max_degree_shift=1000", "max_score_shift=1000", "max_gini=1"]
LOOSE += ["max_shown_drop=1", "max_gini_rise=1", "min_against_heuristics=0", "min_shown=0"]
SETTINGS = [*SMALL, *(f"gates.{pair}" for pair in LOOSE)]
"""For 300 people and 11 months between two releases, of which gates rightly doubt that they are of one network."""
RUN_S = 900.0
"""For one run, of which a busy machine has three at once."""


class Site:
    def __init__(self, airflow: Airflow, page: "Page", lake: Path, store: Path) -> None:
        self.airflow, self.page, self.lake, self.store = airflow, page, lake, store
        self.releases = ReleaseStore(open_store(str(store)))

    def open_form(self, dag: str, kind: str) -> None:
        self.page.goto(f"{self.airflow.url}/dags/{dag}")
        self.page.get_by_role("button", name="Trigger").first.click()
        if kind == "Backfill":
            self.page.get_by_text(kind, exact=True).first.click()
        self.page.locator("#element_reason").wait_for()

    def submit(self, dag: str) -> dict[str, Any]:
        """Sends the form of a single run, which unpauses the DAG; the run it made."""
        self.page.get_by_test_id("trigger-dag-submit").click()
        (run,) = self.airflow.until(lambda: self.airflow.runs(dag, run_type="manual"), RUN_S, f"for a run of {dag}")
        return dict(run)

    def keep(self, name: str) -> None:
        if folder := os.environ.get("PYMK_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"airflow-{name}.png")

    def show(self, path: str, row: str = "") -> None:
        """A page once its content is there. row: text of its table."""
        self.page.goto(f"{self.airflow.url}/dags/{path}")
        self.page.wait_for_load_state("networkidle")
        if row:
            self.page.locator("tbody").get_by_text(row).first.wait_for()

    def trigger(self, dag: str, run: str, **form: Any) -> str:
        """A run by the REST API, with values of the form; its id."""
        self.airflow.api(f"dags/{dag}/dagRuns", {"logical_date": None, "conf": form, "dag_run_id": run})
        return run

    def by_schedule(self, dag: str) -> dict[str, Any]:
        """Lets a DAG run as its schedule says until its first run has ended, and pauses it then; that run."""
        self.airflow.api(f"dags/{dag}", {"is_paused": False}, "PATCH")
        runs = self.airflow.until(lambda: self.airflow.runs(dag, run_type="scheduled"), RUN_S, f"to schedule {dag}")
        first = min(runs, key=lambda run: str(run["run_after"]))
        self.ended([first["dag_run_id"]], dag)
        self.airflow.api(f"dags/{dag}", {"is_paused": True}, "PATCH")
        for run in self.airflow.runs(dag, run_type="scheduled"):
            if run["state"] in ("queued", "running"):  # the clock struck meanwhile
                self.end(dag, run["dag_run_id"])
        return next(run for run in self.airflow.runs(dag) if run["dag_run_id"] == first["dag_run_id"])

    def end(self, dag: str, run: str) -> None:
        """Marks a run as failed, which ends its tasks."""
        self.airflow.api(f"dags/{dag}/dagRuns/{run}", {"state": "failed"}, "PATCH")

    def ended(self, runs: list[str], dag: str = NIGHTLY) -> dict[str, str]:
        return self.airflow.finished(dag, runs, RUN_S * len(runs))

    def green(self, dag: str, run: str) -> bool:
        """Whether a run has succeeded, with all its tasks but those that had nothing to do."""
        (state,) = self.ended([run], dag).values()
        tasks = self.airflow.tasks(dag, run).values()
        return state == "success" and all(task["state"] in ("success", "skipped") for task in tasks)

    def release_of(self, as_of: str) -> str:
        """The one nightly release of that day."""
        released = [r for r in self.releases.list() if r.as_of == f"{as_of}T00:00:00Z" and not r.delta]
        (found,) = [r.release_id for r in released]
        return found


@contextmanager
def opened_site(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Site]:
    """more: further environment of everything that runs in Airflow."""
    lake, store = folder / "lake", folder / "store"
    store.mkdir()
    config = folder / "pymk.toml"
    sections = sorted({pair.partition(".")[0] for pair in SETTINGS})
    lines = [f"[{s}]\n" + "\n".join(p.partition(".")[2] for p in SETTINGS if p.startswith(f"{s}.")) for s in sections]
    config.write_text("\n".join(lines))
    sample = ["sample", "--users", str(PEOPLE), "--lake", str(lake)]
    subprocess.run([sys.executable, "-m", "jobs.cli", *sample], check=True, capture_output=True)
    variables = {"PYMK_LAKE": str(lake), "PYMK_STORE": str(store), "PYMK_CONFIG": str(config), **(more or {})}
    with Airflow(folder / "airflow", variables) as airflow, opened_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.set_default_timeout(60_000)
        yield Site(airflow, page, lake, store)
