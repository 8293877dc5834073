"""OpenTelemetry traces, where the operator asks for them (``pip install 'ctxplan[otel]'``).

All is set by OpenTelemetry's own environment variables: nothing is sent unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` names a collector.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ctxplan import __version__
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from fastapi import FastAPI

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SWITCH = "OTEL_SDK_DISABLED"
EXCLUDED = "/healthz,/readyz,/metrics,/static"
"""What watches the service is not worth a trace."""


class TelemetryMissing(CtxplanError):
    """A collector is named, and the extra is not installed."""

    code = "telemetry-missing"


def is_wanted(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the environment names a collector, and does not switch all of it off."""
    environment = os.environ if environment is None else environment
    is_off = environment.get(SWITCH, "").strip().lower() == "true"
    return not is_off and any(environment.get(name) for name in ENDPOINTS)


@contextmanager
def traced(app: FastAPI) -> Iterator[None]:
    """Trace every request until the end of the block, where the environment asks for it; what is left is sent then.

    A span has method, path, route, status and the caller's address; neither query, headers nor bodies.

    Raises:
        TelemetryMissing: it asks, and the extra is not installed.
    """
    if not is_wanted():
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TelemetryMissing(
            f"a collector of traces is named, and {error.name} is not installed", allowed="pip install 'ctxplan[otel]'"
        ) from None
    names = {"service.version": __version__}
    # The operator's own name goes before this one.
    if not _is_named():
        names["service.name"] = "ctxplan"
    provider = TracerProvider(resource=Resource.create(names))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=EXCLUDED,
        exclude_spans=["receive", "send"],
        server_request_hook=_without_question,
    )
    try:
        yield
    finally:
        provider.shutdown()


def _without_question(span: Any, scope: Mapping[str, Any]) -> None:
    """A page's address holds a whole job: a span keeps the path alone, and nothing of the browser."""
    for name in ("http.url", "url.full", "http.target", "url.path"):
        span.set_attribute(name, scope["path"])
    for name in ("url.query", "http.user_agent", "user_agent.original"):
        span.set_attribute(name, "")


def _is_named() -> bool:
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
