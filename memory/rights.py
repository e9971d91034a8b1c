"""What an owner may do with their own memory: see it, correct it, take it along, end it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from kiki.errors import RequestError, StoreUnavailableError, UnknownMemoryError
from memory.atlas import VectorStore
from memory.episode import Episode, Owner
from memory.episode_rows import JournalRow
from memory.facts import Fact, Summary
from memory.journal import Journal
from memory.pages import EVERYTHING, Counts, Filter
from memory.projector import Projector
from memory.sharing import bring_in
from memory.trace import GraphStore

SETTLE_S = 5.0
"""A delete waits so long for the stores; one that is down follows when it is back."""
BATCH = 256
SHARED_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Erased:
    """What was deleted. ``followed``: both stores have done it too, and nothing is left in the
    files; else they do when they are back."""

    counts: Counts
    followed: bool


@dataclass(frozen=True, slots=True)
class Remembered:
    """An episode with what was learnt from it."""

    episode: Episode
    facts: tuple[Fact, ...]
    summaries: tuple[Summary, ...]


class Waker(Protocol):
    def wake(self) -> None: ...


class Rights:
    """Works on one owner at a time; what is another's is not there. All methods block and are
    thread-safe. Raises `StoreError` when the journal can't be used; a store that is down only
    follows later."""

    def __init__(
        self,
        journal: Journal,
        atlas: Projector[VectorStore],
        trace: Projector[GraphStore],
        learner: Waker,
        dimension: int,
    ) -> None:
        self._journal = journal
        self._atlas = atlas
        self._trace = trace
        self._learner = learner
        self._dimension = dimension

    def keep(self, episodes: Sequence[Episode]) -> list[tuple[str, bool]]:
        """Keeps all or none; durable on return. Gives each one's id and whether it was new (see
        `Journal.append_all`)."""
        kept = self._journal.append_all(episodes)
        if any(new for _, new in kept):
            self._wake()
        return kept

    def page(
        self, owner: Owner, limit: int, *, wanted: Filter = EVERYTHING, start: int | None = None
    ) -> list[JournalRow]:
        """The ``limit`` episodes before journal number ``start``, the last written first."""
        return self._journal.page(owner, limit, wanted=wanted, start=start)

    def export(self, owner: Owner) -> Iterator[Episode | Fact | Summary]:
        """All there is, episodes in writing order, then what was learnt."""
        seq = 0
        while rows := self._journal.page(owner, BATCH, start=seq, order="oldest"):
            yield from (row.episode for row in rows)
            seq = rows[-1].seq
        yield from self.facts(owner)
        yield from self.summaries(owner)

    def facts(self, owner: Owner) -> list[Fact]:
        """Current and ended ones, oldest first, each with what contradicts it."""
        conflicts: defaultdict[str, list[str]] = defaultdict(list)
        for first, second in self._journal.facts.conflicts(owner):
            conflicts[first].append(second)
            conflicts[second].append(first)
        return [
            replace(one, conflicts=tuple(conflicts[one.id])) if one.id in conflicts else one
            for one in self._journal.facts.all(owner)
        ]

    def summaries(self, owner: Owner) -> list[Summary]:
        """Oldest first."""
        return self._journal.summaries.all(owner)

    def counts(self, owner: Owner) -> Counts:
        return self._journal.counts(owner)

    def users(self, tenant: str) -> list[Owner]:
        """All owners of a tenant of whom anything is kept here."""
        return self._journal.users(tenant)

    def get(self, owner: Owner, id_: str) -> Remembered | Fact | Summary:
        """What has this id. Raises `UnknownMemoryError` where nothing of the owner's has."""
        self._bring_in(owner, id_)
        episode = self._journal.get(owner, [id_]).get(id_)
        facts, summaries = self.facts(owner), self.summaries(owner)
        if episode is not None:
            return Remembered(
                episode,
                tuple(one for one in facts if one.source_episode == id_),
                tuple(one for one in summaries if id_ in one.members),
            )
        made: list[Fact | Summary] = [*facts, *summaries]
        for one in made:
            if one.id == id_:
                return one
        raise UnknownMemoryError(
            f"No memory has the id {id_!r}.", param="id", fix="List them: GET /v1/memory."
        )

    def edit(
        self, owner: Owner, id_: str, *, user_text: str | None, answer_text: str | None
    ) -> Episode:
        """Puts other texts (None leaves one) in an episode; what was learnt from the old ones is
        deleted, and learnt anew. Raises `RequestError` for what is no episode."""
        found = self.get(owner, id_)
        if not isinstance(found, Remembered):
            raise RequestError(
                f"{id_!r} was learnt from an episode; only episodes can be edited.",
                param="id",
                fix="Edit the episode it came from, or delete this.",
            )
        new = self._journal.edit(owner, id_, user_text=user_text, answer_text=answer_text)
        if new is None:
            raise UnknownMemoryError(f"The memory {id_!r} was deleted meanwhile.", param="id")
        self._followed()
        return new

    def delete(self, owner: Owner, ids: Collection[str]) -> Erased:
        """Deletes episodes with all that was learnt from them, single facts and summaries. Raises
        `UnknownMemoryError`, and deletes nothing, where one is not the owner's."""
        for id_ in ids:
            self.get(owner, id_)
        counts = self._journal.removals.erase(owner, ids)
        return Erased(counts, self._followed())

    def delete_all(self, owners: Sequence[Owner]) -> Erased:
        """Deletes all there is of the owners, and looks whether it is gone from both stores."""
        counts = sum((self._journal.removals.clear(owner) for owner in owners), Counts())
        followed = self._followed()
        try:
            while followed and (more := self._clear_all_shared(owners)) != Counts():
                counts += more
                followed = self._followed()
            return Erased(counts, followed and all(map(self._is_empty, owners)))
        except StoreUnavailableError:
            return Erased(counts, followed=False)

    def _clear_all_shared(self, owners: Sequence[Owner]) -> Counts:
        cleared = (self._clear_shared(owner) for owner in owners)
        return sum((counts for counts in cleared if counts is not None), Counts())

    def _clear_shared(self, owner: Owner) -> Counts | None:
        """What other gateways wrote into a shared store is in no journal here."""
        atlas = self._atlas.store()
        if not atlas.shared:
            return None
        anything = np.full(self._dimension, 1.0, np.float32)
        hits = atlas.search(owner, anything, SHARED_BATCH)
        if not hits:
            return None
        bring_in(self._journal, atlas, owner, {hit.id for hit in hits})
        counts = self._journal.removals.clear(owner)
        return counts if counts.episodes else None

    def _is_empty(self, owner: Owner) -> bool:
        stored = self._atlas.store().count(owner) + self._trace.store().count(owner)
        return stored == 0 and self._journal.counts(owner) == Counts()

    def _bring_in(self, owner: Owner, id_: str) -> None:
        """Copies an episode here that another gateway of a shared store wrote."""
        try:
            bring_in(self._journal, self._atlas.store(), owner, {id_})
        except StoreUnavailableError:
            return

    def _followed(self) -> bool:
        """Whether both stores have followed in time, and the files hold nothing of it."""
        self._learner.wake()
        scrubbed = self._journal.scrub()
        deadline = time.monotonic() + SETTLE_S
        settled = [
            projector.settle(max(0.0, deadline - time.monotonic()))
            for projector in (self._atlas, self._trace)
        ]
        return scrubbed and all(settled)

    def _wake(self) -> None:
        for one in (self._atlas, self._trace, self._learner):
            one.wake()
