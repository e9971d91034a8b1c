"""What a server says of its model: its vocabulary, and what its chat template can show."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from adapters.engines.chat_template import names


@dataclass(frozen=True, slots=True)
class Template:
    """``tools``: it shows tools and their calls. ``variables``: every name in it.

    ``vocabulary`` is how many tokens the model has.
    """

    known: bool = False
    tools: bool = False
    variables: frozenset[str] | None = None
    vocabulary: int | None = None

    @classmethod
    async def read(cls, client: httpx.AsyncClient, url: str) -> Template:
        """Ask the server at ``url``. Raises httpx.TransportError."""
        told = (await client.get(url + "/props")).json()
        (model,) = (await client.get(url + "/v1/models")).json()["data"]
        caps = told.get("chat_template_caps") or {}
        return cls(
            known=True,
            tools=bool(caps.get("supports_tools") and caps.get("supports_tool_calls")),
            variables=names(str(told.get("chat_template", ""))),
            vocabulary=int(model["meta"]["n_vocab"]),
        )
