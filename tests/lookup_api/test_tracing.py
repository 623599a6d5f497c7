"""Traces: a span a request that continues the caller's, and nothing about people or keys in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.serving_rows import FIRST_ID
from lookup_api.tracing import Tracing, open_tracing
from tests.suites.served_store import app_on, new_store, publish_day

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Any, InMemorySpanExporter]]:
    store = new_store(tmp_path)
    publish_day(store, 1, users=20)
    app = app_on(store)
    sent = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(sent))
    tracing = Tracing(provider)
    app.wsgi_app.tracing = tracing
    object.__setattr__(app.view_functions["recommendations"].__self__, "tracing", tracing)
    yield app.test_client(), sent
    app.extensions["pymk"].stop()


def test_a_span_continues_the_caller_s_trace_and_names_what_happened(traced: tuple[Any, Any]) -> None:
    client, sent = traced
    header = f"00-{TRACE}-00f067aa0ba902b7-01"
    client.get(f"/v1/users/{FIRST_ID}/recommendations", headers={"traceparent": header, "X-Request-Id": "mine"})
    facts, ladder, span = sent.get_finished_spans()
    assert [facts.name, ladder.name] == ["live facts", "ladder"]
    assert facts.parent.span_id == ladder.parent.span_id == span.context.span_id
    assert ladder.attributes["pymk.source"] == "precomputed"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert span.name == "GET /v1/users/<user_id>/recommendations"
    assert span.attributes["pymk.source"] == "precomputed"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["pymk.request_id"] == "mine"
    assert str(FIRST_ID) not in str(span.to_json())


def test_a_refusal_has_a_span_and_an_odd_header_is_no_failure(traced: tuple[Any, Any]) -> None:
    client, sent = traced
    answer = client.get("/v1/users/x/recommendations", headers={"traceparent": "nonsense"})
    assert answer.status_code == 400
    assert sent.get_finished_spans()[0].attributes["http.response.status_code"] == 400


def test_nobody_is_traced_unless_somebody_asks() -> None:
    assert open_tracing({}) is None
    assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    assert open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}) is None
    tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SERVICE_NAME": "mine"})
    assert tracing is not None
    assert tracing.provider.resource.attributes["service.name"] == "mine"
    tracing.stop()
