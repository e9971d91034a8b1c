"""The five dashboards. Each panel's text says what its line means and when to look further."""

from __future__ import annotations

from gateway.observing.overview import LATENCY, OVERVIEW
from gateway.observing.panels import Dashboard, Panel, Query
from gateway.observing.queries import counted, quantile, share

ADAPTERS = Dashboard(
    "kiki-adapters",
    "kiki: adapters and routing",
    (
        counted(
            "Routes by domain",
            "kiki_routing_decisions_total",
            "domain",
            "Turns by their first domain; base where nothing was sure enough.",
        ),
        counted(
            "Routes by confidence",
            "kiki_routing_decisions_total",
            "confidence",
            "How sure the router was. A drift downwards: callers ask what it was not trained on.",
        ),
        counted("Plans", "kiki_plans_total", "plan", "Turns by plan: single, blend or panel."),
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
        counted(
            "Turns by adapter",
            "kiki_adapter_turns_total",
            "adapter",
            "Turns in which an adapter was active.",
        ),
        counted(
            "Swaps",
            "kiki_adapter_swap_seconds_count",
            "method",
            "Changes of the active mix a second, by how they are made.",
        ),
        Panel(
            "Swap time, p95",
            (Query(quantile(0.95, "kiki_adapter_swap_seconds", "method"), "{{method}}"),),
            "s",
            "How long a mix took to become active.",
        ),
        counted(
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
                    share("kiki_prefix_cache_hit_tokens_total", 'kiki_tokens_total{kind="prompt"}'),
                    "hits",
                ),
            ),
            "percentunit",
            "The share of prompt tokens that the engine had in its cache.",
        ),
        counted(
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
        counted("Recalls", "kiki_recalls_total", "outcome", "What the memory had for each turn."),
        Panel(
            "Useful recalls",
            (Query(share("kiki_useful_recalls_total", 'kiki_recalls_total{outcome="hit"}'), ""),),
            "percentunit",
            "The share of hits of which the answer took up a word only they held; an estimate.",
        ),
        Panel(
            "Recalled a hit",
            (
                Query(
                    share("kiki_recalled_episodes_total", 'kiki_recalls_total{outcome="hit"}'),
                    "episodes",
                ),
                Query(
                    share("kiki_recalled_notes_total", 'kiki_recalls_total{outcome="hit"}'),
                    "facts and summaries",
                ),
            ),
            "short",
            "How much is put into a prompt when something fits.",
        ),
        counted(
            "Cerebellum",
            "kiki_cerebellum_decisions_total",
            "by",
            "Who decided what is learnt; late, junk and failed are models that did not.",
        ),
        Panel(
            "Recall and write, p95",
            (
                Query(
                    quantile(
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
        counted(
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
        counted(
            "Audits of verdicts",
            "kiki_verdict_audits_total",
            "outcome",
            "A hit is a judge whose verdict followed a bias.",
        ),
        counted(
            "Looks for bias",
            "kiki_bias_reviews_total",
            "action",
            "Answers that were looked at, by what came of it.",
        ),
        counted(
            "Bias found",
            "kiki_bias_findings_total",
            "type",
            "Passages that read biased, by type.",
        ),
        Panel(
            "Second look, p95",
            (
                Query(
                    quantile(
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
