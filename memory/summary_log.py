"""The journal's summaries: texts that stand for episodes, and what sleep needs to know of those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from memory.database import Database, from_stamp, to_half, to_stamp, to_vector
from memory.episode import Owner
from memory.facts import Summary

PAGE = 500
MAX_SUMMARIES = 1000
"""An owner's newest summaries that are searched: 3 MB of vectors in memory."""


@dataclass(frozen=True, slots=True)
class Sleeper:
    """An episode as sleep looks at it: ``vector`` is float16 of unit length (None when another
    embedding model made it), ``words`` of both sides, ``uses`` how often it was recalled,
    ``teaches`` whether a current fact was learnt from it."""

    id: str
    seq: int
    created: datetime
    vector: NDArray[np.float16] | None
    words: int
    uses: int
    teaches: bool
    covered: bool


class SummaryLog:
    """Summaries of all owners, in the journal's database. Thread-safe; raises `StoreError`."""

    def __init__(self, database: Database, embedding_id: str) -> None:
        self._database = database
        self._embedding_id = embedding_id

    def keep(self, summary: Summary, made_by: str) -> bool:
        """Keeps the summary, durable on return; False when it is there, or a member is not."""
        with self._database.write() as db:
            marks = ", ".join("?" * len(summary.members))
            there = db.execute(
                f"SELECT count(*) FROM episode WHERE id IN ({marks})", summary.members
            ).fetchone()[0]
            known = db.execute("SELECT 1 FROM summary WHERE id = ?", (summary.id,)).fetchone()
            if known or there != len(summary.members):
                return False
            owner = summary.owner
            db.execute(
                "INSERT INTO summary (id, tenant, user, text, made_by, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    summary.id,
                    owner.tenant,
                    owner.user,
                    summary.text,
                    made_by,
                    to_stamp(summary.created),
                ),
            )
            db.executemany(
                "INSERT INTO summary_member VALUES (?, ?)",
                [(summary.id, member) for member in summary.members],
            )
        return True

    def all(self, owner: Owner) -> list[Summary]:
        """The owner's summaries, oldest first."""
        rows = self._rows(
            "tenant = ? AND user = ? ORDER BY created, seq", (owner.tenant, owner.user)
        )
        return [summary for _, summary in rows]

    def state(self, owner: Owner) -> tuple[int, int]:
        """The owner's newest summary and their number: another after any change."""
        with self._database.read() as db:
            newest, count = db.execute(
                "SELECT max(seq), count(*) FROM summary WHERE tenant = ? AND user = ?",
                (owner.tenant, owner.user),
            ).fetchone()
        return int(newest or 0), int(count)

    def newest(self, owner: Owner) -> list[tuple[Summary, NDArray[np.float32] | None]]:
        """The summaries that are searched, with their vectors."""
        rows = self._rows(
            "tenant = ? AND user = ? ORDER BY seq DESC LIMIT ?",
            (owner.tenant, owner.user, MAX_SUMMARIES),
        )
        with self._database.read() as db:
            vectors = dict(
                db.execute(
                    "SELECT id, vector FROM summary WHERE tenant = ? AND user = ?"
                    " AND embedding = ? AND vector IS NOT NULL",
                    (owner.tenant, owner.user, self._embedding_id),
                ).fetchall()
            )
        return [(one, to_vector(vectors[one.id]) if one.id in vectors else None) for _, one in rows]

    def keep_vectors(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Puts vectors (by summary id) of this embedding model in the place of what was there."""
        with self._database.write(durable=False) as db:
            db.executemany(
                "UPDATE summary SET embedding = ?, vector = ? WHERE id = ?",
                [(self._embedding_id, to_half(vector), id_) for id_, vector in vectors.items()],
            )

    def after(self, seq: int, limit: int) -> list[tuple[int, Summary]]:
        """The next ``limit`` summaries of all owners with their numbers."""
        return self._rows("seq > ? ORDER BY seq LIMIT ?", (seq, limit))

    def note_uses(self, uses: Counter[str]) -> None:
        """Counts recalls by episode; a count that is lost in a crash costs little."""
        with self._database.write(durable=False) as db:
            db.executemany(
                "INSERT INTO recall_use VALUES (?, ?)"
                " ON CONFLICT (episode) DO UPDATE SET count = count + excluded.count",
                list(uses.items()),
            )

    def owners(self) -> list[Owner]:
        """All owners of episodes."""
        with self._database.read() as db:
            rows = db.execute("SELECT DISTINCT tenant, user FROM episode ORDER BY 1, 2").fetchall()
        return [Owner(tenant, user) for tenant, user in rows]

    def covered(self, owner: Owner, episodes: Sequence[str]) -> set[str]:
        """Of ``episodes`` those that one of the owner's summaries stands for."""
        marks = ", ".join("?" * len(episodes))
        with self._database.read() as db:
            rows = db.execute(
                "SELECT episode FROM summary_member JOIN summary ON id = summary"
                f" WHERE episode IN ({marks}) AND +tenant = ? AND +user = ?",
                (*episodes, owner.tenant, owner.user),
            ).fetchall()
        return {row[0] for row in rows}

    def counts(self) -> Mapping[str, int]:
        """Episodes by tenant."""
        with self._database.read() as db:
            rows = db.execute("SELECT tenant, count(*) FROM episode GROUP BY tenant").fetchall()
        return dict(rows)

    def sleepers(self, owner: Owner) -> list[Sleeper]:
        """The owner's episodes without their texts, in the order in which they were written."""
        found: list[Sleeper] = []
        seq = 0
        while rows := self._page(owner, seq):
            found += rows
            seq = rows[-1].seq
        return found

    def _page(self, owner: Owner, after: int) -> list[Sleeper]:
        with self._database.read() as db:
            rows = db.execute(
                "SELECT id, seq, created, CASE embedding WHEN ? THEN vector END,"
                " length(user_text) + length(answer_text),"
                " ifnull((SELECT count FROM recall_use WHERE episode = id), 0),"
                " EXISTS (SELECT 1 FROM fact WHERE source = episode.id AND recorded_to IS NULL),"
                " EXISTS (SELECT 1 FROM summary_member WHERE episode = episode.id)"
                " FROM episode WHERE tenant = ? AND user = ? AND seq > ? ORDER BY seq LIMIT ?",
                (self._embedding_id, owner.tenant, owner.user, after, PAGE),
            ).fetchall()
        return [
            Sleeper(
                id=id_,
                seq=seq,
                created=from_stamp(created),
                vector=None if blob is None else np.frombuffer(blob, "<f2"),
                words=chars // 6,
                uses=uses,
                teaches=bool(teaches),
                covered=bool(covered),
            )
            for id_, seq, created, blob, chars, uses, teaches, covered in rows
        ]

    def _rows(self, where: str, values: Sequence[object]) -> list[tuple[int, Summary]]:
        with self._database.read() as db:
            rows = db.execute(
                f"SELECT seq, id, tenant, user, text, created FROM summary WHERE {where}", values
            ).fetchall()
            found = []
            for seq, id_, tenant, user, text, created in rows:
                members = db.execute(
                    "SELECT episode FROM summary_member WHERE summary = ? ORDER BY episode", (id_,)
                ).fetchall()
                found.append(
                    (
                        int(seq),
                        Summary(
                            id_,
                            Owner(tenant, user),
                            text,
                            tuple(row[0] for row in members),
                            from_stamp(created),
                        ),
                    )
                )
        return found
