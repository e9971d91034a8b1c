"""A request with an Idempotency-Key is answered once; a repeat gets the kept reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from gateway.turn import Ask
from kiki.errors import IdempotencyConflictError, StoreError
from memory import Aeon, IdempotentReply, Owner

log = logging.getLogger("kiki.gateway")


class Once:
    """Lets one request a key through at a time; the next one finds what the first one kept."""

    def __init__(self, aeon: Aeon) -> None:
        self._aeon = aeon
        self._locks: WeakValueDictionary[tuple[Owner, str], asyncio.Lock] = WeakValueDictionary()

    @property
    def busy(self) -> bool:
        """Whether a request with a key is being answered."""
        return bool(self._locks)

    def _find(self, owner: Owner, key: str) -> IdempotentReply | None:
        try:
            return self._aeon.find_reply(owner, key)
        except StoreError as error:
            log.warning("a repeat can't be recognised: %s", error)
            return None

    @asynccontextmanager
    async def enter(self, ask: Ask) -> AsyncIterator[str | None]:
        """Give the kept reply, or None when the turn has to run.

        Raises IdempotencyConflictError when the key was used for a different request.
        """
        key = ask.idempotency
        if key is None:
            yield None
            return
        lock = self._locks.setdefault((ask.owner, key.key), asyncio.Lock())
        async with lock:
            kept = await asyncio.to_thread(self._find, ask.owner, key.key)
            if kept and kept.fingerprint != key.fingerprint:
                raise IdempotencyConflictError(
                    f"The Idempotency-Key {key.key!r} was used before for another request.",
                    param="Idempotency-Key",
                    fix="Use a new key for a new request.",
                )
            yield kept.reply if kept else None
