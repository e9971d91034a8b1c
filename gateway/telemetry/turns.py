"""Turns: the seven stages, what of their time is the gateway's own, tokens and plans."""

from __future__ import annotations

from typing import get_args

from gateway.telemetry.metrics import GENAI_SECONDS, Metrics
from gateway.turn import Plan, Turn

_STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 20, 60)
# As OpenTelemetry's GenAI conventions ask for, up to the longest context that is served.
_TOKENS = tuple(4**n for n in range(11))


class TurnMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.stage_seconds = self.histogram(
            "kiki_stage_latency_seconds",
            "Time of each pipeline stage.",
            "stage",
            buckets=_STAGE_SECONDS,
        )
        self.overhead_seconds = self.histogram(
            "kiki_gateway_overhead_seconds",
            "The gateway's own time of a turn: without embedder, stores and engine.",
            buckets=_STAGE_SECONDS,
        )
        self.first_token_seconds = self.histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request to the first text of its answer, streamed answers.",
            buckets=GENAI_SECONDS,
        )
        self.tokens = self.counter("kiki_tokens", "Tokens that the engine counted.", "kind")
        self.token_usage = self.histogram(
            "gen_ai_client_token_usage",
            "Tokens of a turn, votes, judgement and revisions among them.",
            "gen_ai_token_type",
            buckets=_TOKENS,
        )
        self.prefix_hits = self.counter(
            "kiki_prefix_cache_hit_tokens",
            "Prompt tokens that the engine had in its prefix cache.",
        )
        self.plans = self.counter(
            "kiki_plans", "Turns by the plan taken.", "plan", values=get_args(Plan)
        )

    def count_stages(self, turn: Turn) -> None:
        for report in turn.reports:
            self.stage_seconds.labels(report.name).observe(report.ms / 1e3)
        self.overhead_seconds.observe(turn.gateway_ms / 1e3)
        if turn.ask.stream and turn.first_text is not None:
            self.first_token_seconds.observe(turn.first_text - turn.ask.received)
        self.plans.labels(turn.mount.plan).inc()
        usage = turn.usage
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("completion").inc(usage.completion_tokens)
        self.token_usage.labels("input").observe(usage.prompt_tokens)
        self.token_usage.labels("output").observe(usage.completion_tokens)
        self.prefix_hits.inc(usage.cached_tokens)
