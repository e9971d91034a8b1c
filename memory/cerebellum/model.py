"""The same two decisions by a small model, held to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from memory.cerebellum.arbitrate import Verdict

MAX_TOKENS = 48

_SAVE = """You decide what a memory keeps of a message. Keep what will still matter in later \
conversations: facts about the user or their work, preferences, corrections, lessons, plans, \
decisions. Don't keep questions, requests, small talk, passing problems, pasted output or what is \
only imagined. SAVE with the numbers of the sentences to keep, or SKIP. Examples:
1. Hi! 2. I work as a nurse in Leeds. -> {"action": "SAVE", "keep": [2]}
1. Write a poem about rain. -> {"action": "SKIP", "keep": []}
1. Réponds-moi toujours en français. -> {"action": "SAVE", "keep": [1]}"""
_ARBITRATE = """You compare a stored fact with a new statement of the same user.
UPDATE: the new one changes the stored one or says more about the same thing.
DELETE: the new one takes the stored one back; it is true no more.
NONE: it says the same in other words or another language ("new": false), or it is about something \
else ("new": true). Examples:
stored: I live in Rome. new: J'habite à Rome. -> {"action": "NONE", "new": false}
stored: I live in Rome. new: I moved to Oslo. -> {"action": "UPDATE", "new": true}
stored: I live in Rome. new: I have a cat. -> {"action": "NONE", "new": true}
stored: I have a boat. new: I sold my boat. -> {"action": "DELETE", "new": false}"""


class Ask(Protocol):
    """A model: chat messages in, the text of its answer out, held to the JSON schema.

    Raises `TimeoutError` after ``timeout_s``, and anything else when the model fails.
    """

    def __call__(
        self,
        messages: Sequence[tuple[str, str]],
        *,
        json_schema: Mapping[str, object],
        max_tokens: int,
        timeout_s: float,
    ) -> str: ...


class JunkError(ValueError):
    """The model's answer is none that was allowed."""


@dataclass(frozen=True, slots=True)
class ModelDecider:
    """Asks the model. Raises `JunkError`, `TimeoutError`, and what ``ask`` raises."""

    ask: Ask

    def memorize(self, sentences: Sequence[str], timeout_s: float) -> list[int]:
        """The places, from 0, of the sentences to keep."""
        numbered = " ".join(f"{number}. {one}" for number, one in enumerate(sentences, start=1))
        schema = _object(
            action={"type": "string", "enum": ["SAVE", "SKIP"]},
            keep={
                "type": "array",
                "items": {"type": "integer", "minimum": 1, "maximum": len(sentences)},
                "maxItems": len(sentences),
            },
        )
        found = self._object(_SAVE, numbered, schema, timeout_s)
        if found.get("action") == "SKIP":
            return []
        keep = found.get("keep")
        if found.get("action") != "SAVE" or not isinstance(keep, list):
            raise JunkError(f"neither SAVE nor SKIP: {found}")
        places = [one - 1 for one in keep if isinstance(one, int) and 0 < one <= len(sentences)]
        if len(sentences) == 1:
            return [0]
        if not places:
            raise JunkError(f"SAVE without a sentence: {found}")
        return sorted(set(places))

    def arbitrate(self, stored: str, new: str, timeout_s: float) -> Verdict:
        schema = _object(
            action={"type": "string", "enum": ["UPDATE", "DELETE", "NONE"]},
            new={"type": "boolean"},
        )
        found = self._object(_ARBITRATE, f"stored: {stored} new: {new}", schema, timeout_s)
        action, is_new = found.get("action"), found.get("new")
        if action == "UPDATE":
            return Verdict("UPDATE", True, "model")
        if action == "DELETE":
            return Verdict("DELETE", False, "model")
        if action == "NONE" and isinstance(is_new, bool):
            return Verdict("NONE", is_new, "model")
        raise JunkError(f"no verdict: {found}")

    def _object(
        self, system: str, user: str, schema: Mapping[str, object], timeout_s: float
    ) -> dict[str, object]:
        text = self.ask(
            (("system", system), ("user", user)),
            json_schema=schema,
            max_tokens=MAX_TOKENS,
            timeout_s=timeout_s,
        )
        try:
            found = json.loads(text)
        except ValueError as error:
            raise JunkError(f"not JSON: {text[:80]!r}") from error
        if not isinstance(found, dict):
            raise JunkError(f"not an object: {text[:80]!r}")
        return found


def _object(**properties: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
