"""One memory for several gateways: each has a journal, all have the same Atlas."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection

from memory.atlas import VectorPoint, VectorStore
from memory.database import from_stamp, to_stamp
from memory.episode import Episode, Owner
from memory.journal import Journal

OTHERS = "atlas-others"
"""The cursor of what other gateways deleted: the time of the newest note that was read."""
# Clocks differ, and a note is seen some time after its own: those of the last minutes are read
# again, which changes nothing.
OVERLAP_US = 300_000_000


def bring_in(journal: Journal, atlas: VectorStore, owner: Owner, ids: Collection[str]) -> None:
    """Copies the episodes that another gateway wrote into this journal, from where recall reads
    them."""
    if not atlas.shared:
        return
    missing = set(ids).difference(journal.get(owner, ids))
    for point in atlas.fetch(owner, missing):
        journal.append_copy(from_record(point), point.vector, point.written)


def follow_removals(journal: Journal, atlas: VectorStore) -> bool:
    """Deletes here what another gateway deleted, and copies what it wrote in its place; True when
    there was something."""
    seen = journal.cursor(OTHERS, atlas.generation)
    removed = atlas.published(max(0, seen - OVERLAP_US))
    gone = journal.removals.follow(removed)
    by_owner: defaultdict[Owner, set[str]] = defaultdict(set)
    for one in gone:
        by_owner[one.owner].add(one.id)
    for owner, ids in by_owner.items():
        bring_in(journal, atlas, owner, ids)
    newest = max((one.at for one in removed), default=0)
    if newest > seen:
        journal.advance(OTHERS, atlas.generation, newest)
    return bool(gone)


def to_record(episode: Episode) -> str:
    """The episode as JSON, without what its point holds already (id and owner)."""
    return json.dumps(
        {
            "conversation": episode.conversation,
            "turn": episode.turn,
            "user_text": episode.user_text,
            "answer_text": episode.answer_text,
            "domains": episode.domains,
            "adapters": episode.adapters,
            "created": to_stamp(episode.created),
            "status": episode.status,
        }
    )


def from_record(point: VectorPoint) -> Episode:
    told = json.loads(point.record)
    return Episode(
        id=point.id,
        tenant=point.owner.tenant,
        user=point.owner.user,
        conversation=told["conversation"],
        turn=told["turn"],
        user_text=told["user_text"],
        answer_text=told["answer_text"],
        domains=tuple(told["domains"]),
        adapters=tuple((name, weight) for name, weight in told["adapters"]),
        created=from_stamp(told["created"]),
        status=told["status"],
    )
