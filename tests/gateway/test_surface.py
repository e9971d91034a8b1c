from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


async def test_models_are_auto_base_and_one_an_adapter(http, openai, services):
    names = [model.id async for model in await openai.models.list()]
    assert names == ["micro-kiki", "base", *services.engine.adapters]
    assert {"shell", "python", "sql", "cpp", "chat-fr"} <= set(names)


async def test_a_model_can_be_looked_up_by_its_aliases(http):
    assert (await http.get("/v1/models/kiki-niche-shell")).json()["kiki"]["kind"] == "adapter"
    assert (await http.get("/v1/models/kiki-meta-coding")).json()["kiki"]["kind"] == "intent"
    assert (await http.get("/v1/models/rust")).json()["kiki"]["served_by"] == "base"
    missing = await http.get("/v1/models/pyton")
    assert missing.status_code == 404
    assert "Did you mean python" in missing.json()["error"]["message"]


async def test_route_answers_one_query_or_a_list(http):
    one = (await http.post("/v1/route", json={"query": "grep all lines that start with #"})).json()
    assert one["domains"][0]["name"] == "shell"
    assert 0 < one["domains"][0]["score"] <= 1
    assert one["fallback"] is False
    queries = ["grep all lines that start with #", "what a lovely day for a picnic"]
    many = (await http.post("/v1/route", json={"query": queries})).json()["results"]
    assert [answer["query"] for answer in many] == queries
    assert many[0] == one
    assert many[1]["fallback"] is True


async def test_route_takes_threshold_and_top_k(http):
    body = {"query": "join two tables in sqlite from a python script", "threshold": 0.01}
    wide = (await http.post("/v1/route", json=body)).json()["domains"]
    narrow = (await http.post("/v1/route", json=body | {"top_k": 1})).json()["domains"]
    assert len(wide) > 1
    assert narrow == wide[:1]


async def test_route_refuses_what_is_no_query(http):
    bodies: list[dict[str, object]] = [
        {"query": "  "},
        {"query": []},
        {"query": ["a", ""]},
        {},
        {"query": 3},
    ]
    for body in bodies:
        response = await http.post("/v1/route", json=body)
        assert response.status_code == 400, body
        assert response.json()["error"]["param"].startswith("query")
    assert (await http.post("/v1/route", json={"query": "a", "topk": 1})).status_code == 400


async def test_health_says_what_runs(http):
    response = await http.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert body["status"] == "ok"
    assert body["components"]["engine"]["ready"] is True
    assert body["memory"]["state"] == "ok"
    assert "kiki-niche-shell" in body["aliases"]
    assert len([name for name in body["aliases"] if name.startswith("kiki-meta-")]) == 7
    assert len([name for name in body["aliases"] if name.startswith("kiki-niche-")]) == 35


async def test_metrics_count_requests_stages_and_tokens(http):
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    before = await samples(http)
    await http.post("/v1/chat/completions", json=body)
    await http.post("/v1/chat/completions", json=body | {"model": "no-such-model"})
    after = await samples(http)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after.get(key, 0) - before.get(key, 0)

    assert grown("kiki_requests_total", model="base", status="200") == 1
    assert grown("kiki_requests_total", model="unknown", status="404") == 1
    assert grown("kiki_rejections_total", reason="model_not_found") == 1
    assert grown("kiki_tokens_total", kind="completion") == 3
    assert grown("kiki_gateway_overhead_seconds_count") == 1
    for stage in ("route", "mount", "recall", "infer", "negotiate", "antibias", "write"):
        assert grown("kiki_stage_latency_seconds_count", stage=stage) == 1
    assert after[("kiki_engine_ready", ())] == 1


async def samples(http) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await http.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
