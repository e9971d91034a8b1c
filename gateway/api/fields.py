"""What a body may not hold: fields and texts that kiki can't serve are refused by name, never
silently dropped or changed."""

from __future__ import annotations

import json
from typing import Any

from kiki.errors import RequestError
from kiki.names import near

# A field is let through when it has the value that changes nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "verbosity": (),
}
# These never change an answer here; a caller loses nothing.
_WITHOUT_EFFECT = frozenset(
    {"store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)

# Clients send an assistant's answer back with fields that say "nothing".
_NEUTRAL_IN_MESSAGE: dict[str, object] = {"annotations": []}
# What kiki itself gave with an answer; templates take an answer without its thinking.
_GIVEN_BACK = frozenset({"reasoning", "reasoning_content"})


def refuse_message_extras(extra: dict[str, Any], number: int) -> None:
    """Raise RequestError for a field of message ``number`` that kiki would not pass on."""
    for name, value in extra.items():
        if name in _GIVEN_BACK:
            continue
        if value is not None and value != _NEUTRAL_IN_MESSAGE.get(name):
            raise RequestError(
                f"kiki can't serve {name!r} in a message.",
                param=f"messages[{number}].{name}",
                code="unsupported_parameter",
                fix="Leave it out.",
            )


def refuse_unserved(extra: dict[str, Any], known: frozenset[str]) -> None:
    """Raise RequestError for the first field that is unknown, or that kiki can't serve."""
    for name, value in extra.items():
        if name in _WITHOUT_EFFECT or value is None:
            continue
        if name not in _NEUTRAL:
            raise _unknown(name, known)
        if value not in _NEUTRAL[name]:
            raise RequestError(
                f"This version of kiki can't serve {name!r}.",
                param=name,
                code="unsupported_parameter",
                fix="Leave it out.",
            )


def refuse_unknown(extra: dict[str, Any], known: frozenset[str]) -> None:
    """Raise RequestError for the first field that isn't known."""
    for name, value in extra.items():
        if value is not None and name not in _WITHOUT_EFFECT:
            raise _unknown(name, known)


def _unknown(name: str, known: frozenset[str]) -> RequestError:
    return RequestError(
        f"Unknown parameter: {name!r}.{near(name, known)}", param=name, code="unknown_parameter"
    )


def unserved(param: str, message: str) -> RequestError:
    """The error for a field that the engine in use can't serve, alone or beside others."""
    return RequestError(message, param=param, code="unsupported_parameter", fix="Leave it out.")


def clean_text(text: str, param: str) -> str:
    """The text as it is. Raises RequestError for one that no store keeps faithfully."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RequestError(
            "The text holds a NUL character or half a surrogate pair.",
            param=param,
            fix="Send valid Unicode text.",
        )
    return text


def check_writable(value: object, param: str) -> None:
    """Raises RequestError for a value that no JSON in UTF-8 can hold, though a body's may: NaN,
    Infinity, half a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise RequestError(
            "It holds half a surrogate pair, or a number that JSON hasn't (NaN, Infinity).",
            param=param,
            fix="Send valid Unicode text and finite numbers.",
        ) from None
