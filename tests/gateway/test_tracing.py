"""Traces: a span a turn, one a stage below it, and the caller's trace above."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.settings import load_settings
from gateway.tracing import Tracer, tracing
from gateway.turn import STAGES
from kiki.errors import SettingsError

CALLERS_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"


@pytest.fixture
def exported(services, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(services.telemetry, "turn_ended", Tracer(provider).trace)
    yield exporter
    provider.shutdown()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_is_a_span_with_one_a_stage_below_the_callers(http, exported, stream):
    secret = "my cat is called Mirabelle"
    response = await http.post(
        "/v1/chat/completions",
        json={
            "model": "base",
            "messages": [{"role": "user", "content": secret}],
            "max_tokens": 3,
            "stream": stream,
        },
        headers={"traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"},
    )
    assert response.status_code == 200
    *stages, turn = exported.get_finished_spans()
    assert turn.name == "chat base"
    assert turn.attributes["gen_ai.usage.output_tokens"] == 3
    assert f"{turn.context.trace_id:032x}" == CALLERS_TRACE
    assert f"{turn.parent.span_id:016x}" == CALLERS_SPAN
    assert tuple(span.name for span in stages) == STAGES
    for span in stages:
        assert span.parent.span_id == turn.context.span_id
        assert turn.start_time <= span.start_time <= span.end_time <= turn.end_time + 1000
    assert secret not in str([span.to_json() for span in (turn, *stages)])


async def test_without_a_traceparent_a_turn_begins_a_trace_of_its_own(http, exported):
    body = {"model": "base", "prompt": "One, two,", "max_tokens": 2}
    assert (await http.post("/v1/completions", json=body)).status_code == 200
    turn = exported.get_finished_spans()[-1]
    assert turn.name == "text_completion base"
    assert turn.parent is None


async def test_no_traces_are_made_by_default(services):
    assert services.settings.otel_endpoint is None
    assert services.telemetry.turn_ended is None


def test_an_endpoint_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = load_settings(otel_endpoint="http://localhost:4318/v1/traces")
    with pytest.raises(SettingsError, match=r"otel_endpoint .*kiki-gateway\[otel\]"):
        tracing(settings).__enter__()


def test_an_endpoint_that_is_no_address_is_refused_by_name():
    with pytest.raises(SettingsError, match="otel_endpoint"):
        load_settings(otel_endpoint="localhost:4318")
