"""From an HTTP body to an ``Ask``."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from typing import Any

from adapters.engines.base import Message
from adapters.mix import Mix
from gateway.admission.sizes import check_sizes
from gateway.api.chat_schemas import ChatRequest
from gateway.api.fields import (
    check_writable,
    clean_text,
    refuse_message_extras,
    refuse_unserved,
)
from gateway.api.owner import owner_of
from gateway.api.sampling import sampling_of, variables_of
from gateway.api.schemas import ChatMessage
from gateway.api.tools import calls_of, check_results, tools_of
from gateway.models import ServedModel
from gateway.services import Services
from gateway.settings import Settings
from gateway.turn import Ask, IdempotencyKey, Options, Plan
from kiki.errors import RequestError
from memory import Owner

MAX_KEY = 255
_KNOWN_FIELDS = frozenset(ChatRequest.model_fields)


def ask_of(
    body: ChatRequest,
    *,
    services: Services,
    key: str | None,
    request_id: str,
    received: float,
) -> Ask:
    """Check what the schema can't. Raises RequestError with the field in ``param``."""
    refuse_unserved(body.model_extra or {}, _KNOWN_FIELDS)
    settings = services.settings
    check_request(settings, body)
    served = services.models.resolve(body.model)
    engine = services.engine.capabilities
    messages = engine_messages(body.messages)
    owner = owner_of(body.user)
    ask = Ask(
        id=request_id,
        model=body.model,
        owner=owner,
        conversation=clean_text(body.kiki.conversation or "", "kiki.conversation")
        or _conversation(owner, messages),
        messages=messages,
        sampling=sampling_of(body, settings, engine),
        options=_options(body, served, settings),
        created=time.time(),
        stream=bool(body.stream),
        idempotency=_idempotency(key, body) if key else None,
        choices=body.n or 1,
        tools=tools_of(body, engine),
        variables=variables_of(body, engine),
        received=received,
    )
    return _as_written(ask, body) if ask.verbatim else ask


def check_request(settings: Settings, body: ChatRequest) -> None:
    """Raises TooLargeError for more messages, tools or levels than the settings allow, and
    RequestError for what can't be written down again for an engine, or in an answer."""
    schemas: dict[str, object] = {"chat_template_kwargs": body.chat_template_kwargs or {}}
    if body.response_format and body.response_format.json_schema:
        schemas["response_format"] = body.response_format.json_schema.schema_
    tools = [tool.function.parameters or {} for tool in body.tools or ()]
    check_sizes(settings, messages=len(body.messages), tools=tools, schemas=schemas)
    given = schemas | {"tools": tools, "stop": body.stop, "kiki.adapters": body.kiki.adapters}
    for param, value in given.items():
        if value:
            check_writable(value, param)


def _as_written(ask: Ask, body: ChatRequest) -> Ask:
    """Without what would rewrite the answer. Raises RequestError where the caller asks for both."""
    kiki = body.kiki
    asked = {"plan": kiki.plan == "panel", "negotiate": kiki.negotiate, "antibias": kiki.antibias}
    for name, wanted in asked.items():
        if wanted:
            raise RequestError(
                f"kiki.{name} would rewrite an answer with tools, JSON, logprobs or n > 1.",
                param=f"kiki.{name}",
                code="unsupported_parameter",
                fix="Leave one of them out.",
            )
    return replace(ask, options=replace(ask.options, negotiate=False, antibias=False))


def engine_messages(given: list[ChatMessage]) -> tuple[Message, ...]:
    """The messages as engines take them. Raises RequestError."""
    messages = []
    for number, message in enumerate(given):
        refuse_message_extras(message.model_extra or {}, number)
        role = "system" if message.role == "developer" else message.role
        param = f"messages[{number}].content"
        if role == "user" and not message.text.strip():
            raise RequestError("A user message is empty.", param=param, fix="Ask something.")
        text = clean_text(message.text, param)
        messages.append(Message(role, text, calls_of(message, number), message.tool_call_id))
    if all(message.role != "user" for message in messages):
        raise RequestError("No message has the role user.", param="messages", fix="Add one.")
    check_results(given)
    return tuple(messages)


def _options(body: ChatRequest, served: ServedModel, settings: Settings) -> Options:
    kiki = body.kiki
    if kiki.adapters is not None and served.kind != "auto":
        raise RequestError(
            f"The model {served.id!r} already says what may answer.",
            param="kiki.adapters",
            fix="Use the model micro-kiki, or leave kiki.adapters out.",
        )
    plan: Plan | None = None if kiki.plan == "auto" else kiki.plan
    return Options(
        plan=plan,
        adapters=served.mix if kiki.adapters is None else Mix.of(kiki.adapters),
        intent=served.intent,
        adapter_missing=served.adapter_missing,
        threshold=kiki.threshold,
        top_k=kiki.top_k or 4,
        memory=settings.memory and kiki.memory and not body.raw_mode,
        negotiate=False if body.raw_mode else kiki.negotiate,
        antibias=False if body.raw_mode or not settings.antibias else kiki.antibias,
        strip_thinking=body.strip_thinking and kiki.strip_thinking,
    )


def _idempotency(key: str, body: ChatRequest) -> IdempotencyKey:
    if len(key) > MAX_KEY:
        raise RequestError(
            f"The key has {len(key)} characters; it may have {MAX_KEY}.", param="Idempotency-Key"
        )
    return IdempotencyKey(key, _fingerprint(body))


def _conversation(owner: Owner, messages: tuple[Message, ...]) -> str:
    """The messages up to the first of the user name a conversation that was not named."""
    digest = hashlib.sha256(repr(owner).encode())
    for message in messages:
        digest.update(json.dumps([message.role, message.content]).encode())
        if message.role == "user":
            break
    return f"conv-{digest.hexdigest()[:24]}"


def _fingerprint(body: ChatRequest) -> str:
    fields: dict[str, Any] = body.model_dump(exclude={"stream", "stream_options"})
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
