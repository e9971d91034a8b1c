"""Stage 3: what earlier conversations of this user say, put into the prompt as quoted data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from adapters.engines.base import Message
from gateway.turn import Turn
from kiki.errors import StoreError
from memory import Aeon, Recollection

log = logging.getLogger("kiki.gateway")


class RecallStage:
    """Searches the caller's own memory; what fails there costs the recall, not the answer."""

    name = "recall"

    def __init__(
        self, aeon: Aeon, *, budget_tokens: int, limit: int, count_tokens: Callable[[str], int]
    ) -> None:
        self._aeon = aeon
        self._budget_tokens = budget_tokens
        self._limit = limit
        self._count_tokens = count_tokens

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        turn.prompt = turn.ask.messages
        if not turn.ask.options.memory:
            turn.memory = "off"
            decision["memory"] = "off"
            return
        try:
            with turn.waiting():
                recollection = await asyncio.to_thread(self._search, turn)
        except StoreError as error:
            log.warning("recall failed: %s", error)
            _without(turn, decision, str(error))
            return
        except Exception as error:  # whatever fails in the memory, the answer goes on
            log.exception("recall failed by an error of kiki's own")
            _without(turn, decision, repr(error))
            return
        turn.recollection = recollection
        if recollection.block:
            turn.prompt = with_notes(turn.ask.messages, recollection.block)
        decision |= {
            "memory": "ok",
            "tokens": recollection.tokens,
            "episodes": _told(recollection),
            "notes": _noted(recollection),
        }

    def _search(self, turn: Turn) -> Recollection:
        ask = turn.ask
        assert turn.vector is not None
        return self._aeon.recall(
            ask.owner,
            ask.question,
            turn.vector,
            budget_tokens=self._budget_tokens,
            count_tokens=self._count_tokens,
            limit=self._limit,
            conversation=ask.conversation,
            exclude_ids=self._in_prompt(turn),
        )

    def _in_prompt(self, turn: Turn) -> set[str]:
        """Episodes of this conversation that the client sent along as messages."""
        said = {message.content for message in turn.ask.messages if message.role == "user"}
        return self._aeon.said_in(turn.ask.owner, turn.ask.conversation, said)


def _without(turn: Turn, decision: dict[str, object], reason: str) -> None:
    turn.memory = "unavailable"
    decision |= {"memory": "unavailable", "error": reason}


def with_notes(messages: tuple[Message, ...], notes: str) -> tuple[Message, ...]:
    """Put the notes at the end of the system message, or make one that holds them."""
    if messages[0].role == "system":
        first = Message("system", f"{messages[0].content}\n\n{notes}")
        return (first, *messages[1:])
    return (Message("system", notes), *messages)


def _told(recollection: Recollection) -> list[dict[str, object]]:
    return [
        {
            "id": recalled.episode.id,
            "conversation": recalled.episode.conversation,
            "user": recalled.episode.user_text[:200],
            "score": round(recalled.score, 4),
            "reasons": list(recalled.reasons),
        }
        for recalled in recollection.episodes
    ]


def _noted(recollection: Recollection) -> list[dict[str, object]]:
    return [
        {
            "id": note.id,
            "kind": note.kind,
            "text": note.text[:200],
            "since": note.since.isoformat(),
            "score": round(note.score, 4),
            "reasons": list(note.reasons),
        }
        for note in recollection.notes
    ]
