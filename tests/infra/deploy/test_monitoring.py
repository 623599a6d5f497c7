"""The dashboard and the alerts ask for what servers print, in words that Prometheus understands."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.reference import DOCS
from tests.suites.printed_metrics import printed_samples

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "infra" / "deploy"
ALERTS, CONFIG = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "pymk.json").read_text())
CASES = Path(__file__).parent / "alert_cases.yml"

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(ROOT / ".venv" / "bin"))
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="promtool is missing; `make promtool` fetches it where there is apt",
)

RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*"}
"""What Grafana puts in their place."""


def expressions() -> Iterator[tuple[str, str]]:
    """(who asks, what) of every alert, panel, annotation and variable."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        yield note["name"], note["expr"]


ASKED = dict(expressions())
QUERIES = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]


@pytest.fixture(scope="module")
def printed() -> dict[str, set[str]]:
    return printed_samples()


def test_every_question_has_a_name_of_its_own() -> None:
    assert len(ASKED) == len(list(expressions()))


@pytest.mark.parametrize("expr", [*ASKED.values(), *QUERIES], ids=[*ASKED, *QUERIES])
def test_what_is_asked_for_is_printed(expr: str, printed: dict[str, set[str]]) -> None:
    named = set(re.findall(r"\bpymk_\w+", expr))
    assert named
    assert named <= printed.keys()
    for name, matchers in re.findall(r"\b(pymk_\w+)\{([^}]*)\}", expr):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers)) <= printed[name], name
    labels = set.union(*(printed[name] for name in named))
    for grouped in re.findall(r"\b(?:by|on|without|group_left)\s*\(([^)]*)\)", expr):
        assert {label.strip() for label in grouped.split(",")} - {""} <= labels


def test_most_of_what_is_printed_is_on_the_dashboard(printed: dict[str, set[str]]) -> None:
    shown = {
        name for panel in PANELS for target in panel["targets"] for name in re.findall(r"pymk_\w+", target["expr"])
    }
    base = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in printed if not name.endswith("_created")}
    left_out = base - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert len(left_out) <= len(base) // 10, left_out


def test_panels_have_ids_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert DASHBOARD["uid"] == "pymk"
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_ask_the_source_that_is_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert panel["datasource"] == chosen
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)) > 0
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_alert_says_how_urgent_it_is_and_is_in_the_runbook() -> None:
    page = (DOCS / "operations.md").read_text()
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert f"`{rule['alert']}`" in page
    assert set(re.findall(r"`(Pymk[A-Z]\w+)`", page)) == {rule["alert"] for rule in RULES}


def promtool(*words: str | Path) -> str:
    done = subprocess.run([str(PROMTOOL), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_alerts_and_the_example() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", ALERTS)
    promtool("check", "config", CONFIG)


@needs_promtool
def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules: list[Any] = []
    for number, expr in enumerate(ASKED.values()):
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        rules.append({"record": f"asked:{number}", "expr": expr})
    path = tmp_path / "asked.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


@needs_promtool
def test_alerts_are_raised_by_what_they_are_for_and_end() -> None:
    promtool("test", "rules", CASES)
