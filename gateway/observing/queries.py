"""The PromQL that dashboards are made of, and the panels that several of them share."""

from __future__ import annotations

from gateway.observing.panels import Panel, Query, Unit

INTERVAL = "[$__rate_interval]"
REQUESTS = f"sum(rate(kiki_requests_total{INTERVAL}))"


def rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{INTERVAL}))"


def share(part: str, whole: str) -> str:
    return f"{rate(part)} / {rate(whole)}"


def quantile(at: float, histogram: str, by: str = "", only: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({at}, {rate(f'{histogram}_bucket{only}', labels)})"


def times(title: str, histogram: str, meaning: str, marks: tuple[float, float] | None) -> Panel:
    """The median, and what the slowest 5 and 1 % see."""
    queries = tuple(
        Query(quantile(at, histogram), name)
        for at, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )
    return Panel(title, queries, "s", meaning, marks=marks)


def counted(
    title: str, metric: str, by: str, meaning: str, *, unit: Unit = "cps", rare: bool = False
) -> Panel:
    """A counter's rate by a label; a ``rare`` one may have no series yet, which is a zero."""
    expr = rate(metric, by) + (" or vector(0)" if rare else "")
    return Panel(title, (Query(expr, f"{{{{{by}}}}}"),), unit, meaning)


FIRST_TOKEN = times(
    "Time to first token",
    "gen_ai_server_time_to_first_token_seconds",
    "From the request to the first text of its answer; streamed answers.",
    (5, 10),
)
REQUEST_TIME = times(
    "Request time",
    "gen_ai_server_request_duration_seconds",
    "Whole requests that generate. Long answers take long: compare with the time a token.",
    None,
)
QUEUE_TIME = times(
    "Wait for the engine",
    "kiki_queue_seconds",
    "How long requests waited for a place at the engine; replicas are added by it.",
    (5, 10),
)
