"""What a user of /metrics can rely on: names, labels, and that each thing is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry
from gateway.telemetry.table import LABELS, page

ROOT = Path(__file__).parents[3]
CHAT = "/v1/chat/completions"


async def samples(http) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await http.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def said(http, path: str, **body) -> dict[str, float]:
    """What a request adds, by the metric's name; labels are summed up."""
    before = await samples(http)
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    grown: dict[str, float] = {}
    for key, value in (await samples(http)).items():
        grown[key[0]] = grown.get(key[0], 0) + value - before.get(key, 0)
    return grown


def test_the_page_says_what_the_code_does():
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), (
        "docs/metrics.md is stale: python -m gateway.telemetry"
    )


def test_the_five_names_of_the_reference_system_are_kept():
    described = {one.name: one.labels for one in Telemetry().described}
    assert described["kiki_requests_total"] == ("model", "status")
    assert described["kiki_stage_latency_seconds"] == ("stage",)
    assert described["kiki_queue_depth"] == ()
    assert described["kiki_rejections_total"] == ("reason",)
    assert described["kiki_adapter_swap_seconds"] == ("method",)


def test_every_label_has_a_closed_set_of_values_in_the_table():
    used = {label for one in Telemetry().described for label in one.labels}
    assert used == set(LABELS)


async def test_a_streamed_chat_counts_first_token_tokens_route_and_queue(http):
    grown = await said(
        http,
        CHAT,
        model="micro-kiki",
        messages=[{"role": "user", "content": "Write a bash loop over all files."}],
        max_tokens=8,
        stream=True,
    )
    assert grown["gen_ai_server_time_to_first_token_seconds_count"] == 1
    assert grown["gen_ai_server_request_duration_seconds_count"] == 1
    assert grown["gen_ai_server_time_per_output_token_seconds_count"] >= 1
    assert grown["kiki_queue_seconds_count"] >= 1
    assert grown["kiki_routing_decisions_total"] == 1
    assert grown["kiki_recalls_total"] == 1
    assert grown["gen_ai_client_token_usage_count"] == 2
    assert grown["gen_ai_client_token_usage_sum"] == grown["kiki_tokens_total"]


async def test_all_paths_that_generate_are_counted_and_others_are_not(http):
    text = await said(http, "/v1/completions", model="base", prompt="One two", max_tokens=2)
    assert text["gen_ai_server_request_duration_seconds_count"] == 1
    assert text["kiki_requests_total"] == 1
    route = await said(http, "/v1/route", query="a loop in bash")
    assert route["kiki_requests_total"] == 0


async def test_models_that_nobody_serves_share_one_series(http):
    for name in ("made-up-1", "made-up-2"):
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
        assert (await http.post(CHAT, json=body)).status_code == 404
    models = {dict(labels).get("model") for _, labels in await samples(http)}
    assert "unknown" in models
    assert not {"made-up-1", "made-up-2"} & models


async def test_a_repeated_start_of_a_conversation_hits_the_prefix_cache(http):
    first = [{"role": "user", "content": "Name three rivers of Europe, please, and say why."}]
    body = {"model": "base", "max_tokens": 8, "kiki": {"memory": False}, "seed": 1}
    answer = (await http.post(CHAT, json=body | {"messages": first})).json()
    reply = answer["choices"][0]["message"]["content"]
    messages = [*first, {"role": "assistant", "content": reply}, {"role": "user", "content": "Go"}]
    grown = await said(http, CHAT, **body, messages=messages)
    assert grown["kiki_prefix_cache_hit_tokens_total"] > 0


async def test_an_adapter_that_no_request_uses_is_idle(http, services):
    found = await samples(http)
    assert found[("kiki_adapters", ())] == len(services.engine.adapters) > 0
    assert found[("kiki_adapters_idle", ())] == len(services.engine.adapters)
    assert found[("kiki_active_mixes", ())] == 0


async def test_the_look_for_bias_is_counted_by_what_came_of_it(http):
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 4,
        "kiki": {"antibias": True, "memory": False},
    }
    assert (await said(http, CHAT, **body))["kiki_bias_reviews_total"] == 1


@pytest.mark.parametrize(
    ("answer", "useful"),
    [
        ("Your cat is called Mirabelle.", True),
        ("Cats are lovely.", False),
        ("I don't know what your pet is called.", False),
    ],
)
def test_a_recall_is_of_use_when_the_answer_takes_up_what_only_it_held(answer, useful):
    from gateway.telemetry.memory import takes_up

    assert takes_up(answer, ["My cat Mirabelle is called so"], ["What is my pet called?"]) is useful
