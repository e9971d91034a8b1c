"""What vLLM's error answers mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adapters.engines.openai_wire import blamed
from kiki.errors import (
    EngineError,
    EngineUnavailableError,
    PromptTooLongError,
    RequestError,
)

_CONTEXT = re.compile(r"maximum context length is (\d+) tokens")
_TOKENS = re.compile(r"(at least )?(\d+) (?:input )?tokens", re.IGNORECASE)


class ServerLostError(EngineUnavailableError):
    """The server doesn't answer; another one may."""


class AdapterGoneError(EngineError):
    """The server doesn't have the adapter: it was restarted, or someone unloaded it."""


def refusal(status: int, error: dict[str, Any], body: dict[str, Any]) -> EngineError | RequestError:
    """The error to raise for a request; its ``model`` is the base or an adapter."""
    model = body["model"]
    message = str(error.get("message", error))
    if status == 404 and model in message:
        return AdapterGoneError(f"vLLM doesn't have {model!r}: {message}")
    if context := _CONTEXT.search(message):
        return _too_long(message, int(context[1]))
    if status in (401, 403):
        return EngineError(
            f"vLLM refused the key: {message}", fix="Set vllm_api_key to the server's --api-key."
        )
    if status == 400:
        return RequestError(f"The engine refused the request: {message}", param=blamed(body))
    if status == 503:
        return EngineUnavailableError(f"The engine is not ready: {message}")
    return EngineError(f"The engine failed: {message}")


def load_error(status: int, error: dict[str, Any], name: str, path: Path) -> EngineError:
    """Why an adapter was not loaded."""
    message = str(error.get("message", error))
    if status == 404 and "Not Found" in message:
        return EngineError(
            f"vLLM takes no adapters at run time: {message}",
            fix="Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
        )
    if status == 404:
        return EngineError(
            f"vLLM can't read {path}: {message}",
            fix="The server must see this path, on the same machine and as the same user.",
        )
    return EngineError(f"vLLM did not load {name}: {message}")


def is_duplicate(status: int, error: dict[str, Any]) -> bool:
    """Whether a load was refused because the server has an adapter of that name already."""
    return status == 400 and "already been loaded" in str(error.get("message"))


def _too_long(message: str, context: int) -> PromptTooLongError:
    rest = message.partition("However")[2]
    found = _TOKENS.search(rest)
    tokens = f"{found[1] or ''}{found[2]}" if found else f"more than {context}"
    return PromptTooLongError(
        f"The prompt has {tokens} tokens; the context holds {context}.",
        param="messages",
        fix="Send fewer or shorter messages.",
    )
