"""The journal: every episode, durable before its answer is acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory import (
    episode_rows,
    fact_log,
    learnt_schema,
    pages,
    removals,
    reply_log,
    response_log,
    summary_log,
    turns,
    versions,
)
from memory.database import Database, to_half
from memory.episode import Episode, IdempotentReply, Owner
from memory.episode_rows import JournalRow
from memory.lock import FolderLock
from memory.when import Span

# Format n + 1 is format n with step n run on it; a step that was shipped is never changed.
_STEPS = (
    episode_rows.SCHEMA,
    learnt_schema.SCHEMA,
    turns.SCHEMA,
    removals.SCHEMA,
    versions.SCHEMA,
    response_log.SCHEMA,
)
SCHEMA_VERSION = len(_STEPS)


class Journal:
    """The episodes of one data folder (mode 0700, owned by one process), in writing order;
    ``facts`` and ``summaries`` are what was made of them, ``responses`` what callers go on from;
    ``removals`` takes out of all.

    Raises `StoreLockedError` when another process owns the folder, `StoreError` when the file is
    damaged or newer, or the disk is full. Thread-safe.
    """

    def __init__(self, folder: Path, *, embedding_id: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._embedding_id = embedding_id
        self._lock = FolderLock(folder)
        try:
            self._database = Database(
                folder / "journal.sqlite",
                schema="".join(_STEPS),
                version=SCHEMA_VERSION,
                upgrades=_STEPS[1:],
                fix="Restore the file from a backup, or use another data folder.",
            )
        except BaseException:
            self._lock.release()
            raise
        self.facts = fact_log.FactLog(self._database, embedding_id)
        self.summaries = summary_log.SummaryLog(self._database, embedding_id)
        self.removals = removals.Removals(self._database)
        self.responses = response_log.ResponseLog(self._database)

    def close(self) -> None:
        self._database.close()
        self._lock.release()

    def append(
        self,
        episode: Episode,
        *,
        vector: NDArray[np.float32] | None = None,
        idempotency: IdempotentReply | None = None,
    ) -> bool:
        """Keeps the episode, and its reply with it; durable on return. True if it was new.

        The same id, or the same key with the same fingerprint, is kept once; `NEXT_TURN` becomes
        the turn after the conversation's last. Raises `IdempotencyConflictError` when the key was
        used for another request.
        """
        with self._database.write() as db:
            if episode_rows.there(db, episode.id):
                return False
            if idempotency and not reply_log.keep(db, episode.owner, idempotency):
                return False
            episode_rows.insert(db, episode, vector, self._embedding_id)
        return True

    def append_all(self, episodes: Sequence[Episode]) -> list[tuple[str, bool]]:
        """Keeps the episodes, all or none; durable on return. Gives the id under which each is
        kept, and whether it was new.

        An id that another owner has used is no news to this one: the episode is kept under one
        made of it and the owner (`episode_rows.owned_id`).
        """
        kept = []
        with self._database.write() as db:
            for episode in episodes:
                id_, new = episode_rows.own_place(db, episode)
                if new:
                    own = replace(episode, id=id_)
                    episode_rows.insert(db, own, None, self._embedding_id)
                kept.append((id_, new))
        return kept

    def append_copy(
        self, episode: Episode, vector: NDArray[np.float32] | None, written: int
    ) -> bool:
        """Keeps another journal's episode of that version; durable on return. False where its id
        is taken, or it was removed here."""
        with self._database.write() as db:
            if episode_rows.there(db, episode.id):
                return False
            if written <= versions.removed_until(db, episode.owner, episode.id):
                return False
            episode_rows.insert(db, episode, vector, self._embedding_id, written)
        return True

    def edit(
        self, owner: Owner, id_: str, *, user_text: str | None, answer_text: str | None
    ) -> Episode | None:
        """Puts other texts (None leaves one) in the owner's episode, with nothing left of what was
        learnt from the old ones; durable on return. None where there is no such episode."""
        with self._database.write() as db:
            found = db.execute(
                f"SELECT {episode_rows.COLUMNS} FROM episode"
                " WHERE id = ? AND tenant = ? AND user = ?",
                (id_, owner.tenant, owner.user),
            ).fetchone()
            if found is None:
                return None
            row = episode_rows.to_row(found, self._embedding_id)
            old = row.episode
            new = replace(
                old,
                user_text=old.user_text if user_text is None else user_text,
                answer_text=old.answer_text if answer_text is None else answer_text,
            )
            removals.take_out(db, owner, [id_])
            kept = row.vector if new.user_text == old.user_text else None
            episode_rows.insert(db, new, kept, self._embedding_id)
        return new

    def keep_reply(self, owner: Owner, reply: IdempotentReply) -> bool:
        """Keeps a reply whose turn is not remembered; durable on return. True if it was new.

        Raises `IdempotencyConflictError` when the key was used for another request.
        """
        with self._database.write() as db:
            return reply_log.keep(db, owner, reply)

    def find_reply(self, owner: Owner, key: str) -> IdempotentReply | None:
        with self._database.read() as db:
            return reply_log.find(db, owner, key)

    def rows_after(self, seq: int, limit: int) -> list[JournalRow]:
        """The next ``limit`` rows of all owners, in writing order."""
        return self._rows("seq > ? ORDER BY seq LIMIT ?", (seq, limit))

    def tail(self, owner: Owner, after: int, limit: int) -> list[JournalRow]:
        """The owner's newest ``limit`` rows written after ``after``, newest first."""
        return self._rows(
            "tenant = ? AND user = ? AND seq > ? ORDER BY seq DESC LIMIT ?",
            (owner.tenant, owner.user, after, limit),
        )

    def page(
        self,
        owner: Owner,
        limit: int,
        *,
        wanted: pages.Filter = pages.EVERYTHING,
        start: int | None = None,
        order: pages.Order = "newest",
    ) -> list[JournalRow]:
        """The owner's next ``limit`` rows after journal number ``start``, in writing order."""
        condition, values = pages.where(owner, wanted, start, order)
        return self._rows(condition, (*values, limit))

    def counts(self, owner: Owner) -> pages.Counts:
        return pages.count(self._database, owner)

    def users(self, tenant: str) -> list[Owner]:
        return pages.users(self._database, tenant)

    def scrub(self) -> bool:
        """Takes what was deleted out of the files (see `Database.scrub`)."""
        return self._database.scrub()

    def get(self, owner: Owner, ids: Collection[str]) -> dict[str, Episode]:
        """The owner's episodes among ``ids``; what is another owner's is not there."""
        marks = ", ".join("?" * len(ids))
        # The unary plus keeps SQLite off the index by owner, which would read all their rows.
        found = self._episodes(
            f"id IN ({marks}) AND +tenant = ? AND +user = ?", (*ids, owner.tenant, owner.user)
        )
        return {one.id: one for one in found}

    def episodes(self, owner: Owner, conversation: str) -> list[Episode]:
        """A conversation's episodes by turn."""
        return self._episodes(
            "tenant = ? AND user = ? AND conversation = ? ORDER BY turn, seq",
            (owner.tenant, owner.user, conversation),
        )

    def around(self, owner: Owner, ids: Collection[str]) -> list[turns.Turn]:
        """The owner's episodes among ``ids`` and those beside them (see `memory.turns`)."""
        with self._database.read() as db:
            return turns.around(db, owner, ids, self._embedding_id)

    def within(self, owner: Owner, spans: Sequence[Span], limit: int) -> list[str]:
        """The ids of what was said in the spans (see `memory.turns`)."""
        with self._database.read() as db:
            return turns.within(db, owner, spans, limit)

    def said_in(self, owner: Owner, conversation: str, texts: Collection[str]) -> set[str]:
        """The ids of a conversation's episodes whose user text is one of ``texts``."""
        marks = ", ".join("?" * len(texts))
        with self._database.read() as db:
            rows = db.execute(
                "SELECT id FROM episode WHERE tenant = ? AND user = ? AND conversation = ?"
                f" AND user_text IN ({marks})",
                (owner.tenant, owner.user, conversation, *texts),
            )
            return {row[0] for row in rows}

    def last_turn(self, owner: Owner, conversation: str) -> int:
        """The highest turn of a conversation; -1 when it has none."""
        with self._database.read() as db:
            found = db.execute(
                "SELECT max(turn) FROM episode WHERE tenant = ? AND user = ? AND conversation = ?",
                (owner.tenant, owner.user, conversation),
            ).fetchone()[0]
        return -1 if found is None else int(found)

    def count(self, *, after: int = 0) -> int:
        # Without a condition SQLite counts a small index; with one it reads every episode.
        condition = f" WHERE seq > {after:d}" if after else ""
        with self._database.read() as db:
            return int(db.execute(f"SELECT count(*) FROM episode{condition}").fetchone()[0])

    def last_seq(self) -> int:
        with self._database.read() as db:
            return int(db.execute("SELECT ifnull(max(seq), 0) FROM episode").fetchone()[0])

    def cursor(self, store: str, generation: str) -> int:
        """How far ``store`` has been brought; 0 when it was made anew (another generation)."""
        with self._database.read() as db:
            found = db.execute(
                "SELECT seq FROM cursor WHERE store = ? AND generation = ?", (store, generation)
            ).fetchone()
        return int(found[0]) if found else 0

    def advance(self, store: str, generation: str, seq: int) -> None:
        """Notes how far ``store`` has been brought; a note that is lost costs a repeat only."""
        with self._database.write(durable=False) as db:
            db.execute("REPLACE INTO cursor VALUES (?, ?, ?)", (store, generation, seq))

    def keep_vectors(self, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Puts the vectors (by ``seq``) of this embedding model in the place of what was there."""
        with self._database.write() as db:
            db.executemany(
                "UPDATE episode SET embedding = ?, vector = ? WHERE seq = ?",
                [(self._embedding_id, to_half(vector), seq) for seq, vector in vectors.items()],
            )

    def _episodes(self, where: str, values: tuple[object, ...]) -> list[Episode]:
        with self._database.read() as db:
            found = db.execute(
                f"SELECT {episode_rows.EPISODE} FROM episode WHERE {where}", values
            ).fetchall()
        return list(map(episode_rows.to_episode, found))

    def _rows(self, where: str, values: tuple[object, ...]) -> list[JournalRow]:
        with self._database.read() as db:
            found = db.execute(
                f"SELECT {episode_rows.COLUMNS} FROM episode WHERE {where}", values
            ).fetchall()
        return [episode_rows.to_row(columns, self._embedding_id) for columns in found]
