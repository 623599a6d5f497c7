import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from jobs.cli import app
from jobs.stages import STAGE_NAMES
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES
from tests.docs.reference import DOCS, settings_page, tables_page
from tests.suites.printed_metrics import printed_names

README = Path(__file__).parents[2] / "README.md"
PAGES = sorted([*DOCS.rglob("*.md"), README])


EVERYWHERE = {"--json", "--config", "--set", "--help"}
"""Options of most commands, said once for all."""


def commands() -> dict[str, Any]:
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        found |= {f"{name} {sub}": one for sub, one in below.items()} or {name: command}
    return found


@pytest.mark.parametrize(("page", "rendered"), [("settings.md", settings_page), ("tables.md", tables_page)])
def test_reference_pages_follow_the_code(page: str, rendered: object) -> None:
    assert (DOCS / page).read_text() == rendered(), "run: make docs"  # type: ignore[operator]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    assert f"`pymk {command}" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize("command", commands())
def test_every_option_of_a_command_is_documented_beside_it(command: str) -> None:
    (row,) = re.findall(rf"^\| `pymk {command}\b.*", (DOCS / "cli.md").read_text(), re.MULTILINE)
    for parameter in commands()[command].params:
        names = {*parameter.opts, *parameter.secondary_opts}
        if parameter.param_type_name == "option" and not names & EVERYWHERE:
            assert any(re.search(rf"{name}\b", row) for name in names), names


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_every_stage_is_documented(stage: str) -> None:
    assert f"`{stage}`" in (DOCS / "architecture.md").read_text()


def test_every_route_is_documented(tmp_path: Path) -> None:
    from lookup_api.app import create_app

    page = (DOCS / "api.md").read_text()
    app = create_app(str(tmp_path))
    app.extensions["release_watch"].stop()
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            assert re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule) in page, rule.rule


def test_the_metrics_of_the_docs_are_those_that_are_printed() -> None:
    named = {
        name
        for page in PAGES
        if page.name != "airflow.md"  # its names of this kind are of DAGs and pools
        for name in re.findall(r"`(pymk_\w+)(?=[`{])", page.read_text())
    }
    dags = {path.stem for path in (README.parent / "dags").glob("pymk_*.py")}
    assert named - dags == printed_names()


@pytest.mark.parametrize("feature", [*PAIR_FEATURES, *USER_FEATURES])
def test_every_feature_that_explain_shows_is_documented(feature: str) -> None:
    assert f"`{feature}`" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_shown_in_the_docs_exist(page: Path) -> None:
    known = {command.split()[0] for command in commands()}
    for name in re.findall(r"^\s*(?:\$ )?pymk (\w+)", page.read_text(), re.MULTILINE):
        assert name in known, name
