"""docs/api.md against the code: every field is in its table, with what really becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi.routing import APIRoute

from gateway.api.chat_schemas import ChatRequest
from gateway.api.fields import _NEUTRAL, _WITHOUT_EFFECT
from gateway.app import create_app

DOCS = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def fields_that_are(fate: str) -> set[str]:
    table = DOCS.partition("## Fields of a chat")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    return {
        name
        for names, told in rows
        if told.strip().startswith(fate)
        for name in re.findall(r"`(\w+)`", names)
    }


def test_every_field_of_a_chat_is_in_the_table_with_its_fate():
    ignored, refused = fields_that_are("ignored"), fields_that_are("refused")
    assert refused == set(_NEUTRAL)
    assert ignored == {"metadata", *_WITHOUT_EFFECT}
    passed = fields_that_are("passed") | fields_that_are("kiki's own")
    assert passed == set(ChatRequest.model_fields) - ignored


def test_every_endpoint_is_described_with_its_errors(services):
    app = create_app(services)
    described = app.openapi()["paths"]
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            assert route.path in described
            for method in route.methods or ():
                answers = described[route.path][method.lower()]["responses"]
                assert {"200", "401", "429"} <= set(answers)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"):
        assert f"`POST {path}`" in DOCS
        body = described[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = body["$ref"].rpartition("/")[2]
        assert app.openapi()["components"]["schemas"][name]["example"]
        assert "400" in described[path]["post"]["responses"]
