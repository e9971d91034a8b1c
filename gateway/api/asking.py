"""From an HTTP body to an ``Ask``."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from adapters.engines.base import Message, Sampling
from adapters.mix import Mix
from gateway.api.fields import clean_text, refuse_message_extras, refuse_unserved
from gateway.api.owner import owner_of
from gateway.api.schemas import ChatMessage, ChatRequest
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
    served = services.models.resolve(body.model)
    messages = _messages(body.messages)
    owner = owner_of(body.user)
    return Ask(
        id=request_id,
        model=body.model,
        owner=owner,
        conversation=clean_text(body.kiki.conversation or "", "kiki.conversation")
        or _conversation(owner, messages),
        messages=messages,
        sampling=_sampling(body, settings, services.engine.capabilities.context_tokens),
        options=_options(body, served, settings),
        created=time.time(),
        stream=bool(body.stream),
        idempotency=_idempotency(key, body) if key else None,
        received=received,
    )


def _messages(given: list[ChatMessage]) -> tuple[Message, ...]:
    messages = []
    for number, message in enumerate(given):
        refuse_message_extras(message.model_extra or {}, number)
        role = "system" if message.role == "developer" else message.role
        if role == "user" and not message.text.strip():
            raise RequestError(
                "A user message is empty.",
                param=f"messages[{number}].content",
                fix="Ask something.",
            )
        messages.append(Message(role, clean_text(message.text, f"messages[{number}].content")))
    if all(message.role != "user" for message in messages):
        raise RequestError("No message has the role user.", param="messages", fix="Add one.")
    return tuple(messages)


def _sampling(body: ChatRequest, settings: Settings, context_tokens: int) -> Sampling:
    limit = body.max_completion_tokens or body.max_tokens or settings.default_max_tokens
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > 4 or any(not text for text in stop):
        raise RequestError("stop takes one to four texts, none of them empty.", param="stop")
    temperature = body.temperature
    return Sampling(
        max_tokens=min(limit, context_tokens),
        temperature=settings.default_temperature if temperature is None else temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        # llama.cpp's seed has 32 bits, and the last one means "random".
        seed=None if body.seed is None else body.seed % (2**32 - 1),
        stop=stop,
    )


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
