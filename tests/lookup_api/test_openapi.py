"""The API's document is true: schemathesis asks what it allows and what it forbids, and every answer must fit it."""

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from infra.keys import SCOPES, KeyStore, utc_now
from lookup_api.lean_flask import LeanFlask
from lookup_api.openapi import document, int64_pattern
from lookup_api.pages import FILES, OPENAPI
from tests.suites.served_store import SETTINGS, app_on, new_store, publish_day

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "30"))
"""Of each operation that takes something, and each way: 2000 make more than ten thousand in all."""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LeanFlask, str]]:
    """An app of a store with keys, and one that may do everything."""
    store = new_store(tmp_path_factory.mktemp("openapi"))
    publish_day(store, 1, users=30)
    key = KeyStore(store).create("schemathesis", SCOPES, utc_now())[1]
    never_full = SETTINGS.api.model_copy(update={"queue_ms": 60_000})  # however busy the machine is
    app = app_on(store, api=never_full)
    yield app, key
    app.extensions["pymk"].stop()


@pytest.fixture(scope="module")
def api(locked: tuple[LeanFlask, str]) -> Any:
    return schemathesis.openapi.from_wsgi(OPENAPI, locked[0])


OPERATIONS = [(path, method) for path, methods in document("0", 1)["paths"].items() for method in methods]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_one_that_the_document_promises(
    api: Any, locked: tuple[LeanFlask, str], path: str, method: str, mode: GenerationMode
) -> None:
    """Checked by schemathesis: no 5xx; status, content type, headers and body as documented; bad data refused, good
    data taken; a key asked for."""
    operation = api[path][method]
    if mode == GenerationMode.NEGATIVE and not (operation.path_parameters or operation.body):
        return  # it takes nothing that could be wrong

    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        headers = {"Authorization": f"Bearer {locked[1]}", "Accept-Encoding": "identity"}
        answer = case.call(headers=headers)
        fits = mode == GenerationMode.NEGATIVE and fits_as_sent(case, answer.request.url)
        case.validate_response(answer, excluded_checks=[negative_data_rejection] if fits else None, headers=headers)

    ask()


def fits_as_sent(case: Any, url: str) -> bool:
    """Whether values of other types are, once written as text, those that the document allows: [2] and 2 are, and an
    empty object is left out."""
    if case.operation.body:
        return False
    known = document("0", 1)
    schemas = {one["name"]: one["schema"] for one in known["paths"][case.path][case.method.lower()]["parameters"]}
    sent = [*parse_qsl(urlsplit(url).query, keep_blank_values=True), *case.path_parameters.items()]
    return all(
        name in schemas
        and OAS31Validator(schemas[name] | {"components": known["components"]}).is_valid(read(schemas[name], str(text)))
        for name, text in sent
    ) and len(dict(sent)) == len(sent)


def read(schema: dict[str, Any], text: str) -> Any:
    """A parameter as the API reads it."""
    if schema.get("type") == "array":
        return text.split(",")
    return int(text) if schema.get("type") == "integer" and re.fullmatch("-?[0-9]{1,20}", text) else text


def test_what_fits_as_sent_is_told_from_what_does_not(api: Any) -> None:
    case = api["/v1/users/{user_id}/recommendations"]["get"].Case(path_parameters={"user_id": "5"})
    where = "http://localhost/v1/users/5/recommendations"
    assert fits_as_sent(case, f"{where}?exclude=2,3&limit=7")
    for bad in ("exclude=", "exclude=a", "limit=0", "limit=x", "limit=7&limit=8", "other=1"):
        assert not fits_as_sent(case, f"{where}?{bad}")


def test_the_document_is_openapi_and_names_every_route(locked: tuple[LeanFlask, str]) -> None:
    app, _ = locked
    served = app.test_client().get(OPENAPI).json
    validate(served)
    assert served["openapi"] == "3.1.0"
    routes = {re.sub(r"<(\w+)>", r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}
    assert routes - {*FILES, OPENAPI, "/docs"} == set(served["paths"])


@pytest.mark.parametrize("path", document("0", 1)["paths"])
def test_a_method_that_no_path_takes_is_answered_as_the_document_says(
    api: Any, locked: tuple[LeanFlask, str], path: str
) -> None:
    app, key = locked
    documented = document("0", 1)["paths"][path]
    assert all("405" in operation["responses"] for operation in documented.values())
    taken = {method.upper() for method in documented}
    taken |= {"HEAD"} if "GET" in taken else set()
    operation = next(iter(api[path].values()))
    url, headers = path.format(user_id="1", other_id="2", work_id="0"), {"Authorization": f"Bearer {key}"}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} - taken:
        answer = app.test_client().open(url, method=method, headers=headers)
        assert answer.status_code == 405, method
        assert set(answer.headers["Allow"].split(", ")) == taken
        if method != "HEAD":
            operation.validate_response(answer)


@given(st.integers(-(2**65), 2**65))
def test_the_pattern_of_an_id_is_the_numbers_of_64_bits(number: int) -> None:
    for near in (number, 2**63 + number % 7 - 3, -(2**63) + number % 7 - 3):
        assert bool(re.search(int64_pattern(), str(near))) is (-(2**63) <= near < 2**63)


@given(st.text("0123456789-+ ", max_size=21))
def test_the_pattern_takes_one_form_of_a_number_only(text: str) -> None:
    canonical = re.fullmatch(r"-?[0-9]+", text) and str(int(text)) == text and -(2**63) <= int(text) < 2**63
    assert bool(re.search(int64_pattern(), text)) is bool(canonical)


def test_a_full_list_with_explanations_fits_the_document(locked: tuple[LeanFlask, str]) -> None:
    """Generated ids rarely hit somebody: this one is known, and has everything that an answer can have."""
    app, key = locked
    api = document("0", 10)
    answer = app.test_client().get(
        "/v1/users/10000000097/recommendations?explain=1", headers={"Authorization": f"Bearer {key}"}
    )
    wanted = api["components"]["schemas"]["Answer"] | {"components": api["components"]}
    OAS31Validator(wanted).validate(answer.json)
    assert answer.json["items"][0]["explain"]["features"]
