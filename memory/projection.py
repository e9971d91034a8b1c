"""What of the journal each store is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory import versions
from memory.atlas import Removed, VectorPoint, VectorStore
from memory.episode import Owner
from memory.episode_rows import JournalRow
from memory.journal import Journal
from memory.removals import Removal
from memory.sharing import follow_removals, to_record
from memory.stores import Stores
from memory.trace import GraphStore

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
BATCH = 256
FACTS = "trace-facts"
SUMMARIES = "trace-summaries"
"""The cursors of what was made of the episodes, in Trace."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The journal of ``folder`` and the two stores made from it."""

    folder: Path
    journal: Journal
    stores: Stores
    embedding_id: str
    dimension: int
    embed: Embed

    def open_atlas(self, *, anew: bool = False) -> VectorStore:
        return self.stores.open_vectors(
            self.folder, embedding_id=self.embedding_id, dimension=self.dimension, anew=anew
        )

    def open_trace(self, *, anew: bool = False) -> GraphStore:
        return self.stores.open_graph(self.folder, anew=anew)

    def to_atlas(self, atlas: VectorStore, rows: Sequence[JournalRow]) -> None:
        """Vectors that are missing are made first, and kept in the journal."""
        vectors = {row.seq: row.vector for row in rows if row.vector is not None}
        missing = [row for row in rows if row.vector is None]
        if missing:
            made = self.embed([row.episode.user_text for row in missing])
            embedded = {row.seq: one for row, one in zip(missing, made, strict=True)}
            self.journal.keep_vectors(embedded)
            vectors |= embedded
        atlas.upsert(
            [
                VectorPoint(
                    row.episode.id,
                    row.episode.owner,
                    vectors[row.seq],
                    to_record(row.episode) if atlas.shared else "",
                    row.written,
                )
                for row in rows
            ]
        )
        atlas.flush()

    def to_trace(self, trace: GraphStore, rows: Sequence[JournalRow]) -> None:
        again = self.journal.removals.noted([row.episode.id for row in rows])
        for row in rows:
            if row.episode.id in again:
                trace.delete(row.episode.owner, [row.episode.id])
        trace.write([row.episode for row in rows])

    def facts_to_trace(self, trace: GraphStore) -> bool:
        """Brings the next changes of facts in; True when there may be more."""
        after = self.journal.cursor(FACTS, trace.generation)
        changes = self.journal.facts.after(after, BATCH)
        if not changes:
            return False
        trace.write_facts([change.fact for change in changes])
        self.journal.advance(FACTS, trace.generation, changes[-1].revision)
        return True

    def removals_to_atlas(self, atlas: VectorStore) -> bool:
        """Takes out of Atlas what was next removed, and here what another gateway of a shared
        store removed; True when there may be more."""

        def take_out(removed: Sequence[Removal], gone: Sequence[Removal]) -> None:
            now = versions.now()
            atlas.delete([Removed(one.id, one.owner, one.until) for one in gone])
            # What was written again is told too: the others have the old text.
            atlas.publish(
                [Removed(one.id, one.owner, one.until, now) for one in removed if not one.followed]
            )

        return self._remove("atlas-removals", atlas.generation, take_out) or (
            atlas.shared and follow_removals(self.journal, atlas)
        )

    def learnt_to_trace(self, trace: GraphStore) -> bool:
        """Brings Trace what follows the episodes: facts, summaries, and removals after them."""

        def take_out(removed: Sequence[Removal], gone: Sequence[Removal]) -> None:
            by_owner: defaultdict[Owner, list[str]] = defaultdict(list)
            for one in gone:
                by_owner[one.owner].append(one.id)
            for owner, ids in by_owner.items():
                trace.delete(owner, ids)
            if len(removed) < BATCH:
                trace.scrub()

        return (
            self.facts_to_trace(trace)
            or self._summaries_to_trace(trace)
            or self._remove("trace-removals", trace.generation, take_out)
        )

    def _summaries_to_trace(self, trace: GraphStore) -> bool:
        after = self.journal.cursor(SUMMARIES, trace.generation)
        made = self.journal.summaries.after(after, BATCH)
        if not made:
            return False
        trace.write_summaries([summary for _, summary in made])
        self.journal.advance(SUMMARIES, trace.generation, made[-1][0])
        return True

    def _remove(
        self,
        cursor: str,
        generation: str,
        take_out: Callable[[Sequence[Removal], Sequence[Removal]], None],
    ) -> bool:
        """``take_out`` gets the next removals, and those of them that were not written again."""
        removed = self.journal.removals.after(self.journal.cursor(cursor, generation), BATCH)
        if not removed:
            return False
        kept = self.journal.removals.written_again([one.id for one in removed])
        take_out(removed, [one for one in removed if (one.owner, one.id) not in kept])
        self.journal.advance(cursor, generation, removed[-1].seq)
        return True

    def rebuild(self, progress: Callable[[int, int], None]) -> None:
        """Makes both stores anew from the journal; ``progress`` gets (done, all)."""
        atlas = self.open_atlas(anew=True)
        trace = self.open_trace(anew=True)
        total = self.journal.count()
        done = seq = 0
        while rows := self.journal.rows_after(seq, BATCH):
            self.to_atlas(atlas, rows)
            self.to_trace(trace, rows)
            seq, done = rows[-1].seq, done + len(rows)
            progress(done, total)
        while self.learnt_to_trace(trace) or self.removals_to_atlas(atlas):
            pass
        self.journal.advance("atlas", atlas.generation, seq)
        self.journal.advance("trace", trace.generation, seq)
        atlas.close()
        trace.close()
