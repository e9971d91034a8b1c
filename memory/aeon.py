"""Aeon: the memory as the gateway uses it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kiki.errors import StoreError, StoreUnavailableError
from memory.atlas import VectorStore
from memory.cerebellum import Cerebellum
from memory.episode import Episode, IdempotentReply, Owner, RecalledEpisode, Recollection
from memory.journal import Journal
from memory.knowledge import Knowledge
from memory.projection import Embed, Projection
from memory.projector import Projector
from memory.ranking import Question, Ranked
from memory.recall import SPARE, diverse, find, read, recollect, relevant
from memory.response_log import ResponseLog
from memory.rights import Rights
from memory.stores import Stores
from memory.trace import GraphStore

logger = logging.getLogger("kiki.memory")


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """``lag`` is how many episodes the slower store is behind the journal, ``undecided`` how many
    the cerebellum is; ``degraded`` while a store fails. ``decisions`` are counted by who made them
    (see `Cerebellum`)."""

    state: Literal["ok", "degraded"]
    episodes: int
    lag: int
    last_error: str | None
    undecided: int = 0
    cerebellum_error: str | None = None
    decisions: Mapping[str, int] = field(default_factory=dict)


class Aeon:
    """A journal with two stores made from it: Atlas (vectors) and Trace (words and graph).

    ``embed`` maps texts to float32 unit vectors (n, ``dimension``) of the model ``embedding_id``;
    it is called only for episodes written without a vector, or with another model's. All methods
    block and are thread-safe. A store that fails never stops a write: the journal goes on, and
    the store catches up when it is back. With a ``cerebellum`` facts are learnt from what is
    written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        embedding_id: str,
        dimension: int = 768,
        embed: Embed,
        cerebellum: Cerebellum | None = None,
        stores: Stores = Stores(),  # noqa: B008, it is frozen
    ) -> None:
        self.folder = folder
        self._embedding_id = embedding_id
        self._dimension = dimension
        self._embed = embed
        self._cerebellum = cerebellum
        self._stores = stores
        self._knowledge: Knowledge | None = None
        self._rights: Rights | None = None
        self._journal: Journal | None = None
        self._atlas: Projector[VectorStore] | None = None
        self._trace: Projector[GraphStore] | None = None

    def open(self) -> None:
        """Takes the folder and starts projecting.

        Raises `StoreLockedError` when another process owns the folder, and `StoreError` when the
        journal can't be used, or a package that a store needs is not installed. A store that
        can't be used makes the status ``degraded`` instead.
        """
        self._stores.check()
        journal = Journal(self.folder, embedding_id=self._embedding_id)
        self._journal = journal
        made = self._projection(journal)
        self._atlas = Projector(
            "atlas", journal, made.open_atlas, made.to_atlas, made.removals_to_atlas
        )
        self._trace = Projector(
            "trace", journal, made.open_trace, made.to_trace, made.learnt_to_trace
        )
        self._atlas.start()
        self._trace.start()
        self._knowledge = Knowledge(journal, self._embed, self._cerebellum, changed=self._follow)
        self._knowledge.start()
        self._rights = Rights(journal, self._atlas, self._trace, self._knowledge, self._dimension)

    def _follow(self) -> None:
        for projector in (self._atlas, self._trace):
            if projector is not None:
                projector.wake()

    def close(self) -> None:
        """Stops projecting; what is not projected yet waits in the journal for the next open."""
        if self._knowledge is not None:
            self._knowledge.stop()
            self._knowledge = None
        for projector in (self._atlas, self._trace):
            if projector is not None:
                projector.stop()
        if self._journal is not None:
            self._journal.close()
        self._journal = self._atlas = self._trace = self._rights = None

    def write(
        self,
        episode: Episode,
        vector: NDArray[np.float32] | None,
        idempotency: IdempotentReply | None = None,
    ) -> bool:
        """Keeps the episode; durable on return. True if it was new (see `Journal.append`).

        ``vector`` is the embedding of the user's text, float32 (dimension,), unit length.
        """
        journal, atlas, trace = self._parts()
        new = journal.append(episode, vector=vector, idempotency=idempotency)
        if new:
            atlas.wake()
            trace.wake()
            self.knowledge.wake()
        return new

    @property
    def knowledge(self) -> Knowledge:
        """The facts learnt. Raises `StoreUnavailableError` when the memory is not open."""
        if self._knowledge is None:
            raise StoreUnavailableError(f"The memory in {self.folder} is not open.")
        return self._knowledge

    @property
    def rights(self) -> Rights:
        """Lists, corrects, exports and deletes. Raises `StoreUnavailableError` when the memory is
        not open."""
        if self._rights is None:
            raise StoreUnavailableError(f"The memory in {self.folder} is not open.")
        return self._rights

    def recall(
        self,
        owner: Owner,
        text: str,
        vector: NDArray[np.float32],
        *,
        budget_tokens: int,
        count_tokens: Callable[[str], int],
        limit: int = 6,
        conversation: str | None = None,
        exclude_ids: Collection[str] = (),
        now: datetime | None = None,
    ) -> Recollection:
        """What the owner's earlier episodes say about ``text`` (embedded as ``vector``).

        ``conversation`` is the one going on; ``exclude_ids`` are episodes that the prompt holds
        already; ``now`` is what "yesterday" is seen from. An episode whose facts were all
        superseded is left out, but not where the question names a time; a current fact comes
        by itself where its episode does not. Sees every acknowledged write. Raises
        `StoreUnavailableError` when a store is down.
        """
        question = Question.of(text, vector, now)
        found = relevant(self._find(owner, question, exclude_ids))
        near = diverse(found, limit + SPARE)
        if near and not question.spans:
            outdated = self.knowledge.outdated(owner, [one.turn.id for one in near])
            near = [one for one in near if one.turn.id not in outdated]
        recollection = recollect(
            read(near, owner, self._parts()[0], conversation=conversation),
            self.knowledge.notes(
                owner, text, vector, {*exclude_ids, *(one.turn.id for one in near[:limit])}
            ),
            limit=limit,
            budget_tokens=budget_tokens,
            count_tokens=count_tokens,
        )
        self.knowledge.note_uses([one.episode.id for one in recollection.episodes])
        return recollection

    def search(
        self,
        owner: Owner,
        text: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        now: datetime | None = None,
    ) -> list[RecalledEpisode]:
        """The ``limit`` episodes that fit ``text`` best, best first, however little they fit."""
        ranked = self._find(owner, Question.of(text, vector, now), ())
        return read(ranked[:limit], owner, self._parts()[0], conversation=None)

    def _find(self, owner: Owner, question: Question, excluded: Collection[str]) -> list[Ranked]:
        journal, atlas, trace = self._parts()
        return find(
            question,
            owner,
            journal,
            projected=atlas.cursor,
            atlas=atlas.store(),
            trace=trace.store(),
            excluded=set(excluded),
        )

    @property
    def responses(self) -> ResponseLog:
        """What callers go on from. Raises `StoreUnavailableError` when the memory is not open."""
        return self._parts()[0].responses

    def keep_reply(self, owner: Owner, reply: IdempotentReply) -> bool:
        """Keeps the reply of a turn that is not remembered (see `Journal.keep_reply`)."""
        return self._parts()[0].keep_reply(owner, reply)

    def find_reply(self, owner: Owner, key: str) -> IdempotentReply | None:
        """The reply kept under an Idempotency-Key in the last 24 hours."""
        return self._parts()[0].find_reply(owner, key)

    def episodes(self, owner: Owner, conversation: str) -> list[Episode]:
        """A conversation's episodes by turn."""
        return self._parts()[0].episodes(owner, conversation)

    def said_in(self, owner: Owner, conversation: str, texts: Collection[str]) -> set[str]:
        """The ids of a conversation's episodes whose user text is one of ``texts``."""
        return self._parts()[0].said_in(owner, conversation, texts)

    def last_turn(self, owner: Owner, conversation: str) -> int:
        """The highest turn of a conversation; -1 when it has none."""
        return self._parts()[0].last_turn(owner, conversation)

    def drain(self, timeout: float) -> bool:
        """Waits until both stores hold all that is in the journal; False after ``timeout``
        seconds each."""
        _, atlas, trace = self._parts()
        return atlas.drain(timeout) and trace.drain(timeout)

    def newest(self) -> int:
        """The journal's number of the episode that was written last."""
        return self._parts()[0].last_seq()

    def holds(self, seq: int) -> bool:
        """Whether both stores hold the journal up to ``seq``; doesn't block."""
        _, atlas, trace = self._parts()
        return all([atlas.reached(seq), trace.reached(seq)])

    def status(self) -> MemoryStatus:
        journal, atlas, trace = self._parts()
        errors = [
            f"{projector.name}: {projector.last_error}"
            for projector in (atlas, trace)
            if projector.last_error
        ]
        return MemoryStatus(
            state="degraded" if errors else "ok",
            episodes=journal.count(),
            lag=max(atlas.lag(), trace.lag()),
            last_error="; ".join(errors) or None,
            undecided=self.knowledge.lag,
            cerebellum_error=self.knowledge.last_error,
            decisions=self.knowledge.counts,
        )

    def rebuild(self, progress: Callable[[int, int], None]) -> None:
        """Makes both stores again from the journal; ``progress`` gets (done, all).

        The memory must be closed. Raises `StoreError` when it is open here or elsewhere, and
        what a store raises when it can't be made.
        """
        if self._journal is not None:
            raise StoreError("The memory is open.", fix="Close it before it is rebuilt.")
        journal = Journal(self.folder, embedding_id=self._embedding_id)
        try:
            self._projection(journal).rebuild(progress)
        finally:
            journal.close()

    def _parts(self) -> tuple[Journal, Projector[VectorStore], Projector[GraphStore]]:
        if self._journal is None or self._atlas is None or self._trace is None:
            raise StoreUnavailableError(f"The memory in {self.folder} is not open.")
        return self._journal, self._atlas, self._trace

    def _projection(self, journal: Journal) -> Projection:
        return Projection(
            self.folder, journal, self._stores, self._embedding_id, self._dimension, self._embed
        )
