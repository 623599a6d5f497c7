"""OpenTelemetry traces, where the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT …) say where to send them."""

import os
from collections.abc import Mapping
from typing import Any

from infra.errors import UsageError

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "pymk-lookup-api"


class Tracing:
    """Spans of requests, and of the steps within them."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import propagate, trace

        self._kind = trace.SpanKind.SERVER
        self._extract = propagate.extract
        self.provider = provider
        self.tracer = provider.get_tracer("lookup_api")

    def request(self, environ: Mapping[str, Any]) -> Any:
        """A span, as a context manager, that continues the caller's trace. It holds no id of a person and no key."""
        carrier = {name: environ[f"HTTP_{name.upper()}"] for name in _CARRIED if f"HTTP_{name.upper()}" in environ}
        method = environ["REQUEST_METHOD"]
        return self.tracer.start_as_current_span(
            method, context=self._extract(carrier), kind=self._kind, attributes={"http.request.method": method}
        )

    def step(self, name: str) -> Any:
        return self.tracer.start_as_current_span(name)

    def stop(self) -> None:
        """Sends what was not sent yet."""
        self.provider.shutdown()


_CARRIED = ("traceparent", "tracestate", "baggage")


def open_tracing(environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """None where nobody wants traces. Raises UsageError where the packages for it are missing."""
    if not any(environ.get(name) for name in VARIABLES) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        fix = "pip install 'pymk[traces]', or unset the OTEL_EXPORTER_OTLP_… variables."
        raise UsageError(f"traces are configured, but {error.name} is not installed", fix) from error
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME", SERVICE)}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
