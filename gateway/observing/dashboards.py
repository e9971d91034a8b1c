"""The five dashboards. Each panel's text says what its line means and when to look further."""

from __future__ import annotations

from gateway.observing.panels import Dashboard, Panel, Query, Unit

_INTERVAL = "[$__rate_interval]"
_REQUESTS = f"sum(rate(kiki_requests_total{_INTERVAL}))"


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{_INTERVAL}))"


def _share(part: str, whole: str) -> str:
    return f"{_rate(part)} / {_rate(whole)}"


def _quantile(at: float, histogram: str, by: str = "", only: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({at}, {_rate(f'{histogram}_bucket{only}', labels)})"


def _times(title: str, histogram: str, meaning: str, marks: tuple[float, float] | None) -> Panel:
    """The median, and what the slowest 5 and 1 % see."""
    queries = tuple(
        Query(_quantile(at, histogram), name)
        for at, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )
    return Panel(title, queries, "s", meaning, marks=marks)


def _counted(
    title: str, metric: str, by: str, meaning: str, *, unit: Unit = "cps", rare: bool = False
) -> Panel:
    """A counter's rate by a label; a ``rare`` one may have no series yet, which is a zero."""
    expr = _rate(metric, by) + (" or vector(0)" if rare else "")
    return Panel(title, (Query(expr, f"{{{{{by}}}}}"),), unit, meaning)


_FIRST_TOKEN = _times(
    "Time to first token",
    "gen_ai_server_time_to_first_token_seconds",
    "From the request to the first text of its answer; streamed answers.",
    (5, 10),
)
_REQUEST_TIME = _times(
    "Request time",
    "gen_ai_server_request_duration_seconds",
    "Whole requests that generate. Long answers take long: compare with the time a token.",
    None,
)
_QUEUE_TIME = _times(
    "Wait for the engine",
    "kiki_queue_seconds",
    "How long requests waited for a place at the engine; replicas are added by it.",
    (5, 10),
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
        _counted(
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
                    f'1 - sum(rate(kiki_requests_total{{status!~"5.."}}{_INTERVAL})) / {_REQUESTS}',
                    "5xx",
                ),
            ),
            "percentunit",
            "The share that got a 5xx: kiki's or the engine's fault.",
            marks=(0.01, 0.05),
        ),
        _counted(
            "Refused requests",
            "kiki_rejections_total",
            "reason",
            "Requests refused a second by error code; queue_full asks for more replicas.",
            unit="reqps",
            rare=True,
        ),
        _REQUEST_TIME,
        _FIRST_TOKEN,
        _QUEUE_TIME,
        Panel(
            "Queue and rows",
            (Query("kiki_queue_depth", "waiting"), Query("kiki_engine_rows", "at the engine")),
            "short",
            "Requests that wait, and rows that the engine has been given.",
        ),
        _counted("Tokens", "kiki_tokens_total", "kind", "Tokens a second that the engine counted."),
        _counted(
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
            (Query(_quantile(0.5, "kiki_stage_latency_seconds", "stage"), "{{stage}}"),),
            "s",
            "The time of each of the seven stages; infer is the model's.",
        ),
        Panel(
            "Stages, p95",
            (Query(_quantile(0.95, "kiki_stage_latency_seconds", "stage"), "{{stage}}"),),
            "s",
            "What the slowest 5 % of turns see of each stage.",
        ),
        _times(
            "The gateway's own time",
            "kiki_gateway_overhead_seconds",
            "A turn without embedder, stores and engine: what kiki itself costs.",
            (0.02, 0.05),
        ),
        _FIRST_TOKEN,
        _times(
            "Time per output token",
            "gen_ai_server_time_per_output_token_seconds",
            "Each token after a row's first, as the engine gives them.",
            None,
        ),
        _QUEUE_TIME,
        _REQUEST_TIME,
        Panel(
            "Tokens a turn, p95",
            (
                Query(
                    _quantile(0.95, "gen_ai_client_token_usage", "gen_ai_token_type"),
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

ADAPTERS = Dashboard(
    "kiki-adapters",
    "kiki: adapters and routing",
    (
        _counted(
            "Routes by domain",
            "kiki_routing_decisions_total",
            "domain",
            "Turns by their first domain; base where nothing was sure enough.",
        ),
        _counted(
            "Routes by confidence",
            "kiki_routing_decisions_total",
            "confidence",
            "How sure the router was. A drift downwards: callers ask what it was not trained on.",
        ),
        _counted("Plans", "kiki_plans_total", "plan", "Turns by plan: single, blend or panel."),
        Panel(
            "Adapters",
            (
                Query("kiki_adapters", "served"),
                Query("kiki_adapters_idle", "idle"),
                Query("kiki_active_mixes", "mixes that run"),
            ),
            "short",
            "Served and idle adapters, and how many different mixes run.",
        ),
        Panel(
            "Adapters refused",
            (Query("kiki_adapters_refused", "refused"),),
            "short",
            "Files in the adapters' folder that are not served; GET /v1/adapters has the reasons.",
            "stat",
            (1, 5),
        ),
        _counted(
            "Turns by adapter",
            "kiki_adapter_turns_total",
            "adapter",
            "Turns in which an adapter was active.",
        ),
        _counted(
            "Swaps",
            "kiki_adapter_swap_seconds_count",
            "method",
            "Changes of the active mix a second, by how they are made.",
        ),
        Panel(
            "Swap time, p95",
            (Query(_quantile(0.95, "kiki_adapter_swap_seconds", "method"), "{{method}}"),),
            "s",
            "How long a mix took to become active.",
        ),
        _counted(
            "Left out of a mix",
            "kiki_adapters_left_out_total",
            "adapter",
            "Adapters for which the engine had no room beside the others.",
            rare=True,
        ),
        Panel(
            "Prefix cache",
            (
                Query(
                    _share(
                        "kiki_prefix_cache_hit_tokens_total", 'kiki_tokens_total{kind="prompt"}'
                    ),
                    "hits",
                ),
            ),
            "percentunit",
            "The share of prompt tokens that the engine had in its cache.",
        ),
        _counted(
            "Advisor",
            "kiki_advice_total",
            "outcome",
            "Calls of the router's advisor; all but used left the router alone.",
        ),
    ),
)

MEMORY = Dashboard(
    "kiki-memory",
    "kiki: memory",
    (
        Panel(
            "Memory degraded",
            (Query("kiki_memory_degraded", "{{instance}}"),),
            "short",
            "1 while a store fails: answers go on, without what it would have given.",
            "stat",
            (0.5, 1),
        ),
        Panel(
            "Behind the journal",
            (Query("kiki_memory_lag_episodes", "stores"),),
            "short",
            "Journalled episodes that are not in the stores yet; recall can't find them.",
            marks=(50, 100),
        ),
        Panel(
            "Not learnt from yet",
            (Query("kiki_cerebellum_lag_episodes", "cerebellum"),),
            "short",
            "Journalled episodes that the cerebellum has not decided on.",
            marks=(500, 1000),
        ),
        _counted("Recalls", "kiki_recalls_total", "outcome", "What the memory had for each turn."),
        Panel(
            "Useful recalls",
            (Query(_share("kiki_useful_recalls_total", 'kiki_recalls_total{outcome="hit"}'), ""),),
            "percentunit",
            "The share of hits of which the answer took up a word only they held; an estimate.",
        ),
        Panel(
            "Recalled a hit",
            (
                Query(
                    _share("kiki_recalled_episodes_total", 'kiki_recalls_total{outcome="hit"}'),
                    "episodes",
                ),
                Query(
                    _share("kiki_recalled_notes_total", 'kiki_recalls_total{outcome="hit"}'),
                    "facts and summaries",
                ),
            ),
            "short",
            "How much is put into a prompt when something fits.",
        ),
        _counted(
            "Cerebellum",
            "kiki_cerebellum_decisions_total",
            "by",
            "Who decided what is learnt; late, junk and failed are models that did not.",
        ),
        Panel(
            "Recall and write, p95",
            (
                Query(
                    _quantile(
                        0.95, "kiki_stage_latency_seconds", "stage", '{stage=~"recall|write"}'
                    ),
                    "{{stage}}",
                ),
            ),
            "s",
            "What the memory adds to a turn.",
        ),
    ),
)

QUALITY = Dashboard(
    "kiki-quality",
    "kiki: quality",
    (
        _counted(
            "Panels",
            "kiki_negotiations_total",
            "how",
            "Panels by how their answer was chosen.",
        ),
        Panel(
            "Dissent",
            (
                Query(
                    "increase(kiki_catfish_fired_total[1d])"
                    " / increase(kiki_catfish_considered_total[1d])",
                    "called for",
                ),
            ),
            "percentunit",
            "The share of panels, over a day, in which dissent was called for. Under 10 % or over "
            "90 %: calibrate catfish_below anew.",
        ),
        _counted(
            "Audits of verdicts",
            "kiki_verdict_audits_total",
            "outcome",
            "A hit is a judge whose verdict followed a bias.",
        ),
        _counted(
            "Looks for bias",
            "kiki_bias_reviews_total",
            "action",
            "Answers that were looked at, by what came of it.",
        ),
        _counted(
            "Bias found",
            "kiki_bias_findings_total",
            "type",
            "Passages that read biased, by type.",
        ),
        Panel(
            "Second look, p95",
            (
                Query(
                    _quantile(
                        0.95, "kiki_stage_latency_seconds", "stage", '{stage=~"negotiate|antibias"}'
                    ),
                    "{{stage}}",
                ),
            ),
            "s",
            "What negotiation and the look for bias add to a turn.",
        ),
    ),
)

DASHBOARDS = (OVERVIEW, LATENCY, ADAPTERS, MEMORY, QUALITY)
