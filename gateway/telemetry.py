"""Every metric, in one place. Names of the seed project and of OpenTelemetry GenAI are kept."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from adapters.engines.swaps import SWAP_METHODS, SwapMethod
from gateway.admission.places import Places
from gateway.turn import Turn
from negotiator.verdict import Verdict

_STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 20, 60)
# From a change of slots in memory to a server that starts with a large model.
_SWAP_SECONDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 1, 5, 20, 60, 300)
# The buckets that OpenTelemetry's GenAI conventions ask for.
_GENAI_SECONDS = tuple(0.01 * 2**n for n in range(14))


class Telemetry:
    """The counters of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kiki_requests",
            "Chat requests by model asked for and HTTP status.",
            ["model", "status"],
            registry=self.registry,
        )
        self.rejections = Counter(
            "kiki_rejections", "Requests refused, by reason.", ["reason"], registry=self.registry
        )
        self.broken_streams = Counter(
            "kiki_broken_streams",
            "Streams that ended with an error event; their HTTP status had been 200.",
            ["reason"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "kiki_stage_latency_seconds",
            "Time of each pipeline stage.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.overhead_seconds = Histogram(
            "kiki_gateway_overhead_seconds",
            "The gateway's own time of a turn: without embedder, stores and engine.",
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.first_token_seconds = Histogram(
            "gen_ai_server_time_to_first_token",
            "Seconds from the request to its first token, streamed answers.",
            buckets=_GENAI_SECONDS,
            registry=self.registry,
        )
        self.duration_seconds = Histogram(
            "gen_ai_server_request_duration",
            "Seconds of a whole chat request.",
            buckets=_GENAI_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "kiki_tokens", "Tokens that the engine counted.", ["kind"], registry=self.registry
        )
        self.plans = Counter(
            "kiki_plans", "Turns by the plan taken.", ["plan"], registry=self.registry
        )
        self.adapter_turns = Counter(
            "kiki_adapter_turns",
            "Turns in which an adapter was active.",
            ["adapter"],
            registry=self.registry,
        )
        self.adapters_left_out = Counter(
            "kiki_adapters_left_out",
            "Adapters of a chosen mix that the engine had no room for.",
            ["adapter"],
            registry=self.registry,
        )
        self.advice = Counter(
            "kiki_advice",
            "Calls of the router's advisor by outcome; all but used left the router alone.",
            ["outcome"],
            registry=self.registry,
        )
        self.adapters_served = Gauge(
            "kiki_adapters", "Adapters being served.", registry=self.registry
        )
        self.adapters_refused = Gauge(
            "kiki_adapters_refused",
            "Adapters of the folder that are not fit to serve.",
            registry=self.registry,
        )
        self.swap_seconds = Histogram(
            "kiki_adapter_swap_seconds",
            "How long a mix took to become active, by how it did.",
            ["method"],
            buckets=_SWAP_SECONDS,
            registry=self.registry,
        )
        for method in SWAP_METHODS:
            self.swap_seconds.labels(method)
        self.negotiations = Counter(
            "kiki_negotiations",
            "Panels by how their answer was chosen.",
            ["how"],
            registry=self.registry,
        )
        self.audits = Counter(
            "kiki_verdict_audits",
            "Audits of judges' verdicts by bias and outcome.",
            ["bias", "outcome"],
            registry=self.registry,
        )
        self.catfish_considered = Counter(
            "kiki_catfish_considered",
            "Panels in which dissent was considered.",
            registry=self.registry,
        )
        self.catfish_fired = Counter(
            "kiki_catfish_fired",
            "Panels in which it was called for: under 10 % or over 90 % of those considered, "
            "catfish_below is to be calibrated anew.",
            registry=self.registry,
        )
        self.recalled = Counter(
            "kiki_recalled_episodes", "Episodes put into prompts.", registry=self.registry
        )
        self.memory_lag = Gauge(
            "kiki_memory_lag_episodes",
            "Journalled episodes that are not in the stores yet.",
            registry=self.registry,
        )
        self.requests_waiting = Gauge(
            "kiki_queue_requests", "Requests that wait for the engine.", registry=self.registry
        )
        self.rows_running = Gauge(
            "kiki_engine_rows", "Rows that the engine was given.", registry=self.registry
        )
        self.cerebellum_lag = Gauge(
            "kiki_cerebellum_lag_episodes",
            "Journalled episodes of which the cerebellum has not decided what is learnt.",
            registry=self.registry,
        )
        self.cerebellum_decisions = Counter(
            "kiki_cerebellum_decisions",
            "Decisions on what is learnt, by model or rules; why it wasn't the model: late, junk,"
            " failed.",
            ["by"],
            registry=self.registry,
        )
        self.tasks = Gauge(
            "kiki_tasks",
            "Tasks in the event loop; they fall back when it is idle.",
            registry=self.registry,
        )
        self.engine_circuit = Gauge(
            "kiki_engine_circuit",
            "The circuit breaker of each server: 0 closed, 1 half-open, 2 open.",
            ["server"],
            registry=self.registry,
        )
        self.engine_ready = Gauge(
            "kiki_engine_ready", "1 while the engine is ready.", registry=self.registry
        )

    def watch_places(self, places: Places) -> None:
        """Tell, whenever it is asked, how many wait for the engine and how many rows run."""
        self.requests_waiting.set_function(lambda: places.waiting)
        self.rows_running.set_function(lambda: places.rows_running)

    def count_swap(self, method: SwapMethod, seconds: float) -> None:
        """Count a swap that an engine reports, from any thread."""
        self.swap_seconds.labels(method).observe(seconds)

    def count_decision(self, by: str) -> None:
        """Count what the cerebellum reports, from any thread."""
        self.cerebellum_decisions.labels(by).inc()

    def count_advice(self, outcome: str) -> None:
        self.advice.labels(outcome).inc()

    def count_turn(self, turn: Turn) -> None:
        """Count a finished turn."""
        for report in turn.reports:
            self.stage_seconds.labels(report.name).observe(report.ms / 1e3)
        self.overhead_seconds.observe(turn.gateway_ms / 1e3)
        self.plans.labels(turn.mount.plan).inc()
        for name in turn.mount.mix.names:
            self.adapter_turns.labels(name).inc()
        for name in turn.mount.left_out:
            self.adapters_left_out.labels(name).inc()
        if turn.verdict:
            self._count_verdict(turn.verdict)
        self.tokens.labels("prompt").inc(turn.usage.prompt_tokens)
        self.tokens.labels("completion").inc(turn.usage.completion_tokens)
        if turn.recollection:
            self.recalled.inc(len(turn.recollection.episodes))

    def _count_verdict(self, verdict: Verdict) -> None:
        self.negotiations.labels(verdict.how).inc()
        for audit in verdict.audits:
            self.audits.labels(audit.bias, audit.outcome).inc()
        if verdict.gate is not None:
            self.catfish_considered.inc()
            self.catfish_fired.inc(verdict.gate.fired)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
