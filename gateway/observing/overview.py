"""The dashboards to look at first: the overview, and where the time goes."""

from __future__ import annotations

from gateway.observing.panels import Dashboard, Panel, Query
from gateway.observing.queries import (
    FIRST_TOKEN,
    INTERVAL,
    QUEUE_TIME,
    REQUEST_TIME,
    REQUESTS,
    counted,
    quantile,
    times,
)

OVERVIEW = Dashboard(
    "kiki-overview",
    "kiki: overview",
    (
        Panel(
            "Gateway up",
            (Query('up{job="kiki"}', "{{instance}}"),),
            "short",
            "1 while Prometheus can scrape the gateway.",
            "stat",
            (1, 0.5),
        ),
        Panel(
            "Engine ready",
            (Query("kiki_engine_ready", "{{instance}}"),),
            "short",
            "1 while the engine can generate; without it every request gets a 503.",
            "stat",
            (1, 0.5),
        ),
        Panel(
            "Circuits",
            (Query("kiki_engine_circuit or vector(0)", "{{server}}"),),
            "short",
            "The circuit breaker of each engine server: 0 closed, 1 half-open, "
            "2 open; 0 where the engine has none.",
            "stat",
            (1, 2),
        ),
        counted(
            "Requests",
            "kiki_requests_total",
            "status",
            "Requests a second by HTTP status.",
            unit="reqps",
        ),
        Panel(
            "Failed requests",
            (
                Query(
                    f'1 - sum(rate(kiki_requests_total{{status!~"5.."}}{INTERVAL})) / {REQUESTS}',
                    "5xx",
                ),
            ),
            "percentunit",
            "The share that got a 5xx: kiki's or the engine's fault.",
            marks=(0.01, 0.05),
        ),
        counted(
            "Refused requests",
            "kiki_rejections_total",
            "reason",
            "Requests refused a second by error code; queue_full asks for more replicas.",
            unit="reqps",
            rare=True,
        ),
        REQUEST_TIME,
        FIRST_TOKEN,
        QUEUE_TIME,
        Panel(
            "Queue and rows",
            (Query("kiki_queue_depth", "waiting"), Query("kiki_engine_rows", "at the engine")),
            "short",
            "Requests that wait, and rows that the engine has been given.",
        ),
        counted("Tokens", "kiki_tokens_total", "kind", "Tokens a second that the engine counted."),
        counted(
            "Broken streams",
            "kiki_broken_streams_total",
            "reason",
            "Streams that ended with an error after their 200.",
            rare=True,
        ),
    ),
)

LATENCY = Dashboard(
    "kiki-latency",
    "kiki: stages and latency",
    (
        Panel(
            "Stages, median",
            (Query(quantile(0.5, "kiki_stage_latency_seconds", "stage"), "{{stage}}"),),
            "s",
            "The time of each of the seven stages; infer is the model's.",
        ),
        Panel(
            "Stages, p95",
            (Query(quantile(0.95, "kiki_stage_latency_seconds", "stage"), "{{stage}}"),),
            "s",
            "What the slowest 5 % of turns see of each stage.",
        ),
        times(
            "The gateway's own time",
            "kiki_gateway_overhead_seconds",
            "A turn without embedder, stores and engine: what kiki itself costs.",
            (0.02, 0.05),
        ),
        FIRST_TOKEN,
        times(
            "Time per output token",
            "gen_ai_server_time_per_output_token_seconds",
            "Each token after a row's first, as the engine gives them.",
            None,
        ),
        QUEUE_TIME,
        REQUEST_TIME,
        Panel(
            "Tokens a turn, p95",
            (
                Query(
                    quantile(0.95, "gen_ai_client_token_usage", "gen_ai_token_type"),
                    "{{gen_ai_token_type}}",
                ),
            ),
            "short",
            "Longer prompts and answers explain longer times.",
        ),
        Panel(
            "Process",
            (Query("process_resident_memory_bytes", "memory"),),
            "bytes",
            "The gateway process's memory, without the engine's.",
        ),
        Panel(
            "Event loop",
            (Query("kiki_tasks", "tasks"),),
            "short",
            "Tasks in the event loop; a line that never falls back is a leak.",
        ),
    ),
)
