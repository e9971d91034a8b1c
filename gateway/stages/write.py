"""Stage 7: the episode is durable before the answer is acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

from gateway.replies import completion
from gateway.turn import Turn
from kiki.errors import IdempotencyConflictError, StoreError
from memory import NEXT_TURN, Aeon, Episode, IdempotentReply

log = logging.getLogger("kiki.gateway")


class WriteStage:
    """Journals the turn; embedding it, and projecting it into the stores, happens after."""

    name = "write"

    def __init__(self, aeon: Aeon) -> None:
        self._aeon = aeon

    async def run(self, turn: Turn, decision: dict[str, object]) -> None:
        # The answer to a tool call's result comes with another request, which asks the same again.
        kept = turn.ask.options.memory and turn.finish_reason != "tool_calls"
        reply = None if turn.aborted else _reply(turn)
        if not kept and reply is None:
            decision["memory"] = "off"
            return
        try:
            with turn.waiting():
                await asyncio.to_thread(self._write, turn, reply, kept)
        except StoreError as error:
            log.error("the episode %s was not kept: %s", turn.ask.id, error)
            _not_kept(turn, decision, str(error))
            return
        except IdempotencyConflictError:
            raise
        except Exception as error:  # the answer is there, and is told that it isn't remembered
            log.exception("the episode %s was not kept", turn.ask.id)
            _not_kept(turn, decision, repr(error))
            return
        decision |= {"kept": kept, "episode": turn.ask.id if kept else None}

    def _write(self, turn: Turn, reply: IdempotentReply | None, kept: bool) -> None:
        if kept:
            self._aeon.write(self._episode(turn), turn.vector, reply)
        elif reply is not None:
            self._aeon.keep_reply(turn.ask.owner, reply)

    def _episode(self, turn: Turn) -> Episode:
        ask = turn.ask
        return Episode(
            id=ask.id,
            tenant=ask.owner.tenant,
            user=ask.owner.user,
            conversation=ask.conversation,
            turn=NEXT_TURN,
            user_text=ask.question,
            answer_text=turn.answer,
            domains=tuple(domain.name for domain in turn.route.active) if turn.route else (),
            adapters=turn.mount.mix.weights,
            created=datetime.fromtimestamp(ask.created, UTC),
            status="aborted" if turn.aborted else "complete",
        )


def _not_kept(turn: Turn, decision: dict[str, object], reason: str) -> None:
    turn.memory = "unavailable"
    decision |= {"kept": False, "error": reason}


def _reply(turn: Turn) -> IdempotentReply | None:
    key = turn.ask.idempotency
    if key is None:
        return None
    return IdempotentReply(key.key, key.fingerprint, json.dumps(completion(turn)))
