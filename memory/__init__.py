"""Aeon, the memory: what was said in earlier turns, kept durably and recalled when it helps.

    journal.py    SQLite (WAL, synchronous=FULL): every episode, durable before it is acknowledged;
                  the truth from which the two stores below are made
    projector.py  a thread a store: brings journal rows in, in order, retries, resumes
    atlas.py      vectors of what the user said (qdrant-edge, in process)
    trace.py      words (FTS5) and a graph of episodes, entities and conversations (SQLite)
    when.py       the times that a question names, in English and French
    turns.py      what recall compares of the journal: vectors, places, neighbours
    ranking.py    vectors, words, names, time and neighbours as one score
    recall.py     the searches, the floors, diversity, and the cut to a token budget
    locomo.py     recall measured on LoCoMo
    render.py     the result as quoted data for the prompt
    cerebellum/   what of a turn is kept, and what it does to what was known
    learner.py    a thread that has the cerebellum decide every episode once
    knowledge.py  the facts learnt: current ones for a question, their history
    sleep.py      conflicts, summaries, eviction, limits
    rights.py     an owner sees, corrects, takes along and deletes what is theirs
    response_log.py  the responses of /v1/responses that callers go on from
    removals.py   what was deleted from the journal, by id, for the stores to follow
    versions.py   which copy of an episode is the newest, where gateways share a store
    aeon.py       all of it behind one class

Everything is kept and searched per `Owner` (tenant and user); nothing crosses one.
One data folder belongs to one process.
"""

from __future__ import annotations

from memory.aeon import Aeon, MemoryStatus
from memory.episode import (
    NEXT_TURN,
    Episode,
    EpisodeStatus,
    IdempotentReply,
    Owner,
    RecalledEpisode,
    Recollection,
    check_text,
)

__all__ = [
    "NEXT_TURN",
    "Aeon",
    "Episode",
    "EpisodeStatus",
    "IdempotentReply",
    "MemoryStatus",
    "Owner",
    "RecalledEpisode",
    "Recollection",
    "check_text",
]
