"""The Explorer in a real browser, on a real server: what a person sees and does."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from onnx import TensorProto, helper

from benchmarks.servers import served
from benchmarks.serving_rows import FIRST_ID, STEP
from infra.blobs import decode_neighbours
from infra.keys import SCOPES, KeyStore, utc_now
from infra.kv import NEIGHBOURS
from infra.model_golden import Golden
from infra.model_reference import write_reference
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.settings import ApiSettings, LadderSettings, ModelSettings, Settings
from jobs.serve import APP, worker_environment
from lookup_api.pages import PATHS
from lookup_api.ranking.model_check import check_model
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.suites.browser import needs_chromium, opened_browser
from tests.suites.model_folders import columns_of, small_spec, write_folder
from tests.suites.served_store import new_store, publish_day

pytestmark = needs_chromium
USER = str(FIRST_ID)
PATIENT = LadderSettings(deadline_ms=60_000)
"""So that a busy machine keeps its deadlines."""


@dataclass
class Site:
    url: str
    store: Any


def push(store: Any, folder: Path, version: str) -> ModelRef:
    """A model of how well friendship factors fit, which learnt where that was between 0 and 1."""
    spec = small_spec(version=version, kind="onnx", inputs=(InputSpec(name="factors", default=7),))
    columns = columns_of(spec)
    learnt = np.random.default_rng(1).random(10_000)
    golden = Golden(columns, columns["factors"])
    same = [helper.make_node("Identity", ["factors"], ["score"])]
    weights = onnx_weights([("factors", TensorProto.FLOAT, ["n"])], same)
    made = write_folder(folder / "model", spec, weights, golden)
    write_reference(made, spec, {"factors": learnt}, learnt)
    Registry(store).push(made, check_model, NOW, "a tester")
    return ModelRef(name=spec.name, version=version)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    store = new_store(tmp_path_factory.mktemp("explorer"))
    publish_day(store, 1)
    small, two, three = (push(store, tmp_path_factory.mktemp("model"), version) for version in ("1", "2", "3"))
    route = Route(stable=small, canary=Canary(model=two, share=0.25), shadows=(three,))
    RouteStore(store).change(LOOKUP, routed(route), "2026-01-01T00:00:00Z", "a tester")
    settings = Settings(api=ApiSettings(poll_s=0.2), models=ModelSettings(drift_every=1), ladder=PATIENT)
    with served(APP, worker_environment(store.uri, settings)) as server:
        yield Site(server.url, store)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """A page that must not complain, nor ask any other host for anything."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(site.url) else complaints.append(asked.url))
    yield page
    context.close()
    assert [line for line in complaints if "the server responded with a status of 4" not in line] == []


def show(page: Any, site: Site, user: str = USER) -> list[str]:
    """Types the user and returns who is shown."""
    page.goto(site.url)
    page.get_by_label("User id").fill(user)
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_selector("#people li")
    return people(page)


def people(page: Any) -> list[str]:
    return [row.get_attribute("data-user") for row in page.query_selector_all("#people li")]


def wait_until_told(page: Any, text: str) -> None:
    page.locator("#told", has_text=text).wait_for()


def told(page: Any) -> str:
    return str(page.locator("#told").inner_text())


def test_a_list_is_shown_with_reasons_rung_and_time(page: Any, site: Site) -> None:
    shown = show(page, site)
    answer = page.request.get(f"{site.url}/v1/users/{USER}/recommendations").json()
    assert shown == [item["user_id"] for item in answer["items"]]
    assert told(page) == f"{len(shown)} people for {USER}."
    facts = page.locator("#facts").inner_text()
    assert "rung precomputed" in facts
    assert " ms" in facts
    assert answer["release"] in facts
    first = page.locator("#people li").first.inner_text()
    assert "in common" in first
    assert "undefined" not in page.locator("main").inner_text()


@pytest.mark.parametrize(("act", "place"), [("Connect", 0), ("Dismiss", 1), ("Block", 2)])
def test_an_act_is_obeyed_before_the_eye_sees_it(page: Any, site: Site, act: str, place: int) -> None:
    shown = show(page, site)
    gone = shown[place]
    page.get_by_role("button", name=f"{act} {gone}", exact=True).click()
    wait_until_told(page, f"{act}: {gone}")
    assert gone not in people(page)
    assert show(page, site)[:2] == [one for one in shown if one != gone][:2], "the others stay"


def test_the_keyboard_alone_is_enough(page: Any, site: Site) -> None:
    page.goto(site.url)
    page.locator("#user").focus()
    page.keyboard.type(USER)
    page.keyboard.press("Enter")
    page.wait_for_selector("#people li")
    gone = people(page)[0]
    page.get_by_role("button", name=f"Dismiss {gone}").focus()
    page.keyboard.press("Enter")
    wait_until_told(page, f"Dismiss: {gone}")
    page.locator("#people button:focus").wait_for()
    assert gone not in people(page)


def test_friends_in_common_are_drawn(page: Any, site: Site) -> None:
    shown = show(page, site)
    asked = [(one, page.request.get(f"{site.url}/v1/users/{USER}/mutual/{one}").json()) for one in shown]
    other, shared = max(asked, key=lambda pair: pair[1]["count"])
    assert shared["count"] > 0
    page.get_by_role("button", name=f"Friends in common with {other}", exact=True).click()
    page.wait_for_selector("svg.graph")
    names = page.locator("svg.graph text").all_text_contents()
    assert sorted(names) == sorted([USER, other, *shared["friends"][:12]])
    assert page.locator("svg.graph line").count() == 2 * len(shared["friends"][:12])
    assert f"{shared['count']} friend" in page.locator("#graph-says").inner_text()
    assert shared["friends"][0] in page.locator("svg.graph").get_attribute("aria-label")


def test_friends_in_common_are_the_stored_ones(site: Site) -> None:
    from infra.releases import ReleaseStore
    from lookup_api.lookup import NO_FACTS
    from lookup_api.mutual import MOST, mutual_friends
    from lookup_api.served_release import ServedRelease

    store = site.store
    release = ServedRelease.open(store, ReleaseStore(store).current())
    friends = {
        u: set(decode_neighbours(release.tables.get(NEIGHBOURS, u)).ids) for u in (FIRST_ID, FIRST_ID + 6 * STEP)
    }
    one, other = friends
    found = mutual_friends(one, other, release, NO_FACTS)
    shared = sorted(friends[one] & friends[other])
    assert ([int(friend) for friend in found["friends"]], found["count"]) == (shared[:MOST], len(shared))
    assert mutual_friends(one, other, release, None)["friends"] == [], "nobody is named unchecked"
    release.give_back()


def test_a_name_leads_to_that_person_s_list_and_back(page: Any, site: Site) -> None:
    first = show(page, site)[0]
    page.locator("#people .who").first.click()
    wait_until_told(page, f"for {first}.")
    page.go_back()
    wait_until_told(page, f"for {USER}.")
    page.goto(f"{site.url}/?user={first}")
    wait_until_told(page, f"for {first}.")


@pytest.mark.parametrize("typed", ["nobody", "007", "<img src=x onerror=alert(1)>", "../../metrics", "1?limit=0"])
def test_what_is_no_id_is_told_and_never_run(page: Any, site: Site, typed: str) -> None:
    page.goto(site.url)
    page.get_by_label("User id").fill(typed)
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_selector("#told.problem")
    assert page.locator("#answer").is_hidden()
    assert page.locator("img").count() == 0


def test_an_unknown_user_sees_popular_people(page: Any, site: Site) -> None:
    assert show(page, site, "123456789")
    assert "rung popular" in page.locator("#facts").inner_text()


def test_releases_are_listed_with_their_state(page: Any, site: Site) -> None:
    page.goto(f"{site.url}/releases")
    page.wait_for_selector("tbody tr")
    row = page.locator("tbody tr").first.inner_text()
    assert "CURRENT" in row
    assert "served here" in row
    assert told(page).startswith("1 release; this server serves ")


def row_of(page: Any, model: str) -> str:
    return str(page.locator(f"tr[data-model='{model}']").inner_text())


def test_models_are_shown_with_their_routes_and_how_they_do(page: Any, site: Site) -> None:
    others = [str(FIRST_ID + STEP * row) for row in (200, 201)]  # neither friends nor stored candidates
    body = {"user_id": USER, "candidate_ids": others, "models": ["small@1", "small@2"]}
    while not moved(page, site):  # a busy machine turns some away
        page.request.post(f"{site.url}/v1/score", data=body)
    page.goto(f"{site.url}/models")
    page.wait_for_selector("#models tbody tr")
    assert told(page).startswith("1 surface, 2 models asked")
    assert page.locator("#routes tbody th").all_inner_texts() == ["recommendations"]
    routes = [row.locator("td").all_inner_texts() for row in page.locator("#routes tbody tr").all()]
    assert routes == [
        ["stable", "small@1", "75 %", "2026-01-01T00:00:00Z by a tester"],
        ["canary", "small@2", "25 %", ""],
        ["shadow", "small@3", "shown to nobody", ""],
    ]
    row = row_of(page, "small@1")
    assert "stable of recommendations" in row
    assert "100.0 %" in row, "what is not stored of a pair is not known"
    assert "moved" in row
    assert "canary of recommendations" in row_of(page, "small@2")
    assert "0" in row_of(page, "release")
    assert "undefined" not in page.locator("main").inner_text()
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def moved(page: Any, site: Site) -> bool:
    """Whether a worker, which counts beside its requests, has told how far the model has moved."""
    answer = page.request.get(f"{site.url}/v1/models")
    told = answer.json()["models"] if answer.status == 200 else []
    return any(one["score_psi"] is not None for one in told if one["model"] == "small@1")


@pytest.mark.parametrize("path", ["/", "/models", "/releases", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_pass_the_checks_of_axe(page: Any, site: Site, path: str, scheme: str) -> None:
    """axe-core (Deque): names, roles, contrast, landmarks, headings, keyboard."""
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{site.url}{path}")
    if path == "/":
        shown = show(page, site)
        page.get_by_role("button", name=f"Friends in common with {shown[0]}", exact=True).click()
        page.wait_for_selector("svg.graph")
    if path in ("/models", "/releases"):
        page.wait_for_selector("tbody tr")
    # Evaluated by the driver, not loaded by the page, whose policy takes no script but its own.
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [320, 1400])
def test_nothing_is_cut_off_on_a_small_screen(page: Any, site: Site, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    show(page, site)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_pages_are_light(page: Any, site: Site) -> None:
    """All that a page loads, as it travels."""
    sizes = [len(page.request.get(f"{site.url}{path}", headers={"Accept-Encoding": "gzip"}).body()) for path in PATHS]
    assert sum(sizes) < 100_000
    again = page.request.get(site.url)
    tag = again.headers["etag"]
    assert page.request.get(site.url, headers={"If-None-Match": tag}).status == 304


def test_with_keys_the_page_asks_for_one_and_works_with_it(page: Any, site: Site) -> None:
    """Last: from the first key on, the store's doors are locked."""
    key = KeyStore(site.store).create("person", SCOPES, utc_now())[1]
    page.goto(site.url)
    while page.request.get(f"{site.url}/v1/users/{USER}/recommendations").status == 200:
        page.wait_for_timeout(50)
    page.get_by_label("User id").fill(USER)
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_selector("#told.problem")
    assert "API key" in told(page)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_selector("#people li")
    assert key not in page.url
    page.goto(f"{site.url}/releases")
    page.wait_for_selector("tbody tr")  # the key is kept in this tab
