"""OpenTelemetry traces: a span a turn, and below it one a stage, made when the turn has ended.

Spans hold names and numbers, never text. Names: OpenTelemetry's GenAI conventions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway.access.visit import current_visit
from gateway.tracing_settings import TracingSettings
from gateway.turn import Turn
from kiki import __version__
from kiki.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORT_TIMEOUT_S = 5


@contextmanager
def tracing(settings: TracingSettings) -> Iterator[Callable[[Turn], None] | None]:
    """What is to be called with each ended turn; None where tracing is off.

    Raises SettingsError where OpenTelemetry isn't installed.
    """
    if settings.otel_endpoint is None:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            "otel_endpoint is set, and OpenTelemetry isn't installed.",
            fix="Run pip install 'kiki-gateway[otel]', or unset otel_endpoint.",
        ) from error
    resource = Resource.create({"service.name": "kiki", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=settings.otel_endpoint, timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracer(provider).trace
    finally:
        provider.shutdown()


class Tracer:
    """Makes the spans of turns for ``provider``."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("kiki", __version__)

    def trace(self, turn: Turn) -> None:
        """Make the spans of a turn that has ended; a ``traceparent`` header is their parent."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        visit = current_visit.get()
        parent = visit.traceparent if visit else None
        above = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {})
        operation = "chat" if turn.ask.prompt is None else "text_completion"
        at = _wall_clock()
        span = self._tracer.start_span(
            f"{operation} {turn.ask.model}",
            above,
            SpanKind.SERVER,
            start_time=at(turn.ask.received),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": turn.ask.model,
                "gen_ai.response.id": turn.ask.id,
                "gen_ai.response.finish_reasons": [turn.finish_reason],
                "gen_ai.usage.input_tokens": turn.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": turn.usage.completion_tokens,
                "kiki.plan": turn.mount.plan,
                "kiki.adapters": list(turn.mount.mix.names),
                "kiki.gateway_ms": turn.gateway_ms,
            },
        )
        below = set_span_in_context(span)
        for report in turn.reports:
            stage = self._tracer.start_span(
                report.name,
                below,
                start_time=at(report.began),
                attributes={"kiki.waited_ms": report.waited_ms},
            )
            stage.end(at(report.began + report.ms / 1e3))
        span.end(at(turn.ended) if turn.ended is not None else None)


def _wall_clock() -> Callable[[float], int]:
    """Turns a time of ``perf_counter`` into nanoseconds since 1970."""
    since = time.time_ns() - time.perf_counter_ns()
    return lambda moment: since + int(moment * 1e9)
