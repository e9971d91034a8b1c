"""docs/metrics.md, made from the metrics themselves."""

from __future__ import annotations

from gateway.telemetry.telemetry import Telemetry

LABELS = {
    "action": "`none`, `noted`, `revised`, `rejected revision`, `refused`",
    "adapter": "the adapters that are served",
    "bias": "`position`, `verbosity`, `bandwagon`, `sentiment`",
    "by": "`model`, `rules`; `late`, `junk`, `failed`",
    "confidence": "`0-0.25`, `0.25-0.5`, `0.5-0.75`, `0.75-0.9`, `0.9-1`",
    "domain": "the router's 31 outputs, and `base`",
    "gen_ai_operation_name": "`chat`, `text_completion`",
    "gen_ai_token_type": "`input`, `output`",
    "how": "`identical`, `agreement`, `consensus`, `attending`, `arbitration`, `dissent`, `budget`,"
    " `only one`",
    "kind": "`prompt`, `completion`",
    "method": "`bind`, `load`, `compose`, `restart`",
    "model": "the names of `/v1/models`; `unknown` for all others",
    "outcome": "a few fixed words a metric: what the memory had (`hit`, `empty`, `off`,"
    " `unavailable`), what the advisor did, how an audit ended",
    "plan": "`single`, `blend`, `panel`",
    "reason": "the codes of [the errors](../kiki/errors.py)",
    "server": "the engine's servers, by address or name",
    "stage": "`route`, `mount`, `recall`, `infer`, `negotiate`, `antibias`, `write`",
    "status": "HTTP's",
    "type": "`anchoring`, `authority`, `confirmation`, `framing`, `recency`, `stereotyping`",
}
"""The values of each label: a closed set, so that nobody's request can make series."""

_HEAD = """# Metrics
`GET /metrics` gives them in Prometheus' text format; where callers need a key, one with the scope \
`metrics` ([services](services.md)), or `metrics_public = true`. `deploy/prometheus/rules.yml` has \
the alerts, `deploy/grafana/` the dashboards, [the runbook](runbook.md) what to do when one fires; \
`make observe` shows it all on this machine.

Histograms are in seconds, those of tokens in tokens. `gen_ai_*` are OpenTelemetry's GenAI names \
as its Prometheus exporter writes them; `kiki_requests_total`, `kiki_stage_latency_seconds`, \
`kiki_queue_depth`, `kiki_rejections_total` and `kiki_adapter_swap_seconds` are those of the \
reference system. `process_*` are the gateway process's own, without the engine's.

This page is written by `python -m gateway.telemetry`.

"""
_TRACES = """
## Traces
`pip install 'kiki-gateway[otel]'` and `otel_endpoint = "http://localhost:4318/v1/traces"` (or \
`KIKI_OTEL_ENDPOINT`) send a span for each finished turn, with a span a stage below it, to an \
OpenTelemetry collector by OTLP over HTTP. A `traceparent` header of the request makes it the \
parent. Spans hold the model, the plan, the adapters and the token counts, never text. A turn that \
fails has none: its request is in the log and in `kiki_rejections_total`.
"""


def page() -> str:
    """The page as it is to stand in docs/."""
    described = sorted(Telemetry().described, key=lambda one: one.name)
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for one in described:
        labels = ", ".join(f"`{name}`" for name in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.meaning} |")
    lines += ["", "| label | values |", "|---|---|"]
    used = sorted({name for one in described for name in one.labels})
    lines += [f"| `{name}` | {LABELS[name]} |" for name in used]
    return _HEAD + "\n".join(lines) + "\n" + _TRACES
