"""How tokens are to be chosen, and what the chat template is to know."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.engines.base import Capabilities, Sampling
from gateway.api.chat_schemas import ChatRequest
from gateway.api.fields import unserved
from gateway.settings import Settings
from gateway.turn import SEEDS
from kiki.errors import RequestError

MAX_STOPS = 4
MAX_BIAS = 100.0
MAX_DIGITS = 10  # of a token's id
ANY_OBJECT: Mapping[str, object] = {"type": "object"}


def sampling_of(body: ChatRequest, settings: Settings, engine: Capabilities) -> Sampling:
    """Raises RequestError for what the engine can't do."""
    limit = body.max_completion_tokens or body.max_tokens or settings.default_max_tokens
    temperature = body.temperature
    return Sampling(
        max_tokens=min(limit, engine.context_tokens),
        temperature=settings.default_temperature if temperature is None else temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=None if body.seed is None else body.seed % SEEDS,
        stop=_stop(body),
        json_schema=_json_schema(body, engine),
        top_logprobs=_top_logprobs(body, engine),
        logprobs=bool(body.logprobs),
        logit_bias=_logit_bias(body, engine),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
    )


def _stop(body: ChatRequest) -> tuple[str, ...]:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stop) > MAX_STOPS or any(not text for text in stop):
        raise RequestError("stop takes one to four texts, none of them empty.", param="stop")
    return stop


def _json_schema(body: ChatRequest, engine: Capabilities) -> Mapping[str, object] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if not engine.json_schema:
        raise unserved("response_format", "This engine can't keep a JSON schema.")
    if wanted.type == "json_object":
        return ANY_OBJECT
    if wanted.json_schema is None:
        raise RequestError("The schema is missing.", param="response_format.json_schema")
    return wanted.json_schema.schema_


def _top_logprobs(body: ChatRequest, engine: Capabilities) -> int:
    if body.logprobs and not engine.logprobs:
        raise unserved("logprobs", "This engine gives no log-probabilities.")
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
    return body.top_logprobs or 0


def _logit_bias(body: ChatRequest, engine: Capabilities) -> tuple[tuple[int, float], ...]:
    biases = []
    for name, bias in (body.logit_bias or {}).items():
        known = name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS
        if not known or (engine.vocabulary is not None and int(name) >= engine.vocabulary):
            raise RequestError(
                f"{name!r} is no token of this model.",
                param="logit_bias",
                fix="POST /tokenize says which tokens a text has.",
            )
        if abs(bias) > MAX_BIAS:
            raise RequestError("A bias is between -100 and 100.", param="logit_bias")
        biases.append((int(name), bias))
    return tuple(biases)


def variables_of(body: ChatRequest, engine: Capabilities) -> Mapping[str, object] | None:
    """What the chat template is to know. Raises RequestError for what it doesn't read."""
    read = engine.variables
    given = dict(body.chat_template_kwargs or {})
    for name in given:
        if read is not None and name not in read:
            raise unserved("chat_template_kwargs", f"The model's template reads no {name!r}.")
    effort = body.reasoning_effort
    if effort is not None:
        told = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        named = {name: value for name, value in told.items() if read is None or name in read}
        if not named:
            raise unserved("reasoning_effort", "The model's template knows no effort.")
        given = named | given
    return given or None
