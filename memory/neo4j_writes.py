"""Transactions that change the graph in Neo4j, in batches of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memory import neo4j_queries as cypher
from memory.database import to_stamp
from memory.episode import Episode, Owner
from memory.facts import Fact, Summary
from memory.neo4j_rows import fact_row, uid
from memory.words import entities, fold

if TYPE_CHECKING:
    from neo4j import AsyncManagedTransaction

Pairs = Iterable[tuple[str, str]]


async def write_episodes(
    tx: AsyncManagedTransaction, episodes: Sequence[Episode], stems: Mapping[str, Sequence[str]]
) -> None:
    """``stems`` are each episode's different words, by its id."""
    by_uid = {uid(one.owner, one.id): one for one in episodes}
    for row in await _rows(tx, cypher.FOUND, uids=list(by_uid)):
        del by_uid[row["uid"]]
    if not by_uid:
        return
    owners = Counter(one.owner for one in by_uid.values())
    await _each(tx, cypher.COUNT_OWNERS, [_owner_row(*counted) for counted in owners.items()])
    await _merge(tx, "Episode", {one: _episode_row(by_uid[one]) for one in by_uid})
    talks = {one: uid(by_uid[one].owner, by_uid[one].conversation) for one in by_uid}
    await _merge(
        tx, "Conversation", {talks[one]: {"key": by_uid[one].conversation} for one in by_uid}
    )
    await _link(tx, "Episode", "IN", "Conversation", talks.items())
    named = {
        one: {uid(episode.owner, name): name for name in _names(episode)}
        for one, episode in by_uid.items()
    }
    await _point(tx, "MENTIONS", "Entity", named)
    held = {
        one: {uid(episode.owner, stem): stem for stem in stems[episode.id]}
        for one, episode in by_uid.items()
    }
    await _point(tx, "HOLDS", "Word", held)
    counts = Counter(word for words in held.values() for word in words)
    await _each(tx, cypher.COUNT_WORDS, _counted(counts))
    first: dict[str, int] = {}
    for one, episode in by_uid.items():
        first[talks[one]] = min(episode.turn, first.get(talks[one], episode.turn))
    await _relink(tx, first)


async def write_facts(tx: AsyncManagedTransaction, facts: Sequence[Fact]) -> None:
    by_uid = {uid(fact.owner, fact.id): fact for fact in facts}
    former = await _rows(tx, cypher.named("Fact", "ABOUT"), uids=list(by_uid))
    for query in cypher.UNLINK_FACTS:
        await _run(tx, query, uids=list(by_uid))
    await _merge(tx, "Fact", {one: fact_row(fact) for one, fact in by_uid.items()})
    named = {
        one: {uid(fact.owner, fold(name)): fold(name) for name in fact.entities}
        for one, fact in by_uid.items()
    }
    await _point(tx, "ABOUT", "Entity", named, source="Fact")
    superseded = {
        one: {uid(fact.owner, other): other for other in fact.supersedes}
        for one, fact in by_uid.items()
    }
    await _point(tx, "SUPERSEDES", "Fact", superseded, source="Fact")
    causes = [(uid(fact.owner, fact.source_episode), one) for one, fact in by_uid.items()]
    await _link(tx, "Episode", "CAUSES", "Fact", causes)
    await _run(tx, cypher.drop_bare("Entity"), uids=[row["uid"] for row in former])


async def write_summaries(tx: AsyncManagedTransaction, summaries: Sequence[Summary]) -> None:
    by_uid = {uid(summary.owner, summary.id): summary for summary in summaries}
    await _run(tx, cypher.UNLINK_SUMMARIES, uids=list(by_uid))
    rows = {
        one: {"key": summary.id, "text": summary.text, "created": to_stamp(summary.created)}
        for one, summary in by_uid.items()
    }
    await _merge(tx, "Summary", rows)
    members = [
        (one, uid(summary.owner, member))
        for one, summary in by_uid.items()
        for member in summary.members
    ]
    await _link(tx, "Summary", "SUMMARISES", "Episode", members)


async def delete(tx: AsyncManagedTransaction, owner: Owner, ids: Sequence[str]) -> None:
    """The owner's episodes, facts and summaries of these ids, and what is then left bare."""
    uids = [uid(owner, id_) for id_ in ids]
    turns = await _rows(tx, cypher.DELETED, uids=uids)
    names = [
        *await _rows(tx, cypher.named("Episode", "MENTIONS"), uids=uids),
        *await _rows(tx, cypher.named("Fact", "ABOUT"), uids=uids),
    ]
    words = {row["uid"]: -row["count"] for row in await _rows(tx, cypher.HELD_WORDS, uids=uids)}
    for label in ("Episode", "Fact", "Summary"):
        await _run(tx, cypher.drop(label), uids=uids)
    await _each(tx, cypher.COUNT_WORDS, _counted(words))
    await _run(tx, cypher.DROP_WORDS, uids=list(words))
    await _run(tx, cypher.drop_bare("Entity"), uids=[row["uid"] for row in names])
    if turns:
        await _each(tx, cypher.COUNT_OWNERS, [_owner_row(owner, -len(turns))])
        first: dict[str, int] = {}
        for row in turns:
            talk = row["conversation"]
            first[talk] = min(row["turn"], first.get(talk, row["turn"]))
        await _run(tx, cypher.drop_bare("Conversation"), uids=list(first))
        await _relink(tx, first)


async def _relink(tx: AsyncManagedTransaction, first: Mapping[str, int]) -> None:
    """Chains the turns of the conversations anew, from the one before the first that changed."""
    spans = [{"uid": one, "turn": turn} for one, turn in first.items()]
    before = {row["uid"]: row["turn"] for row in await _rows(tx, cypher.LAST_BEFORE, spans=spans)}
    for span in spans:
        if before[span["uid"]] is not None:
            span["turn"] = before[span["uid"]]
    turns = await _rows(tx, cypher.TURNS_FROM, spans=spans)
    await _run(tx, cypher.UNLINK_TURNS, uids=[row["uid"] for row in turns])
    links = [
        (one["uid"], other["uid"])
        for one, other in pairwise(turns)
        if one["conversation"] == other["conversation"]
    ]
    await _link(tx, "Episode", "NEXT", "Episode", links)


async def _point(
    tx: AsyncManagedTransaction,
    kind: str,
    label: str,
    targets: Mapping[str, Mapping[str, str]],
    *,
    source: str = "Episode",
) -> None:
    """Edges to nodes (by uid, with their keys), which are made where there are none."""
    nodes = {one: {"key": key} for named in targets.values() for one, key in named.items()}
    await _merge(tx, label, nodes)
    pairs = [(one, target) for one, named in targets.items() for target in named]
    await _link(tx, source, kind, label, pairs)


async def _merge(
    tx: AsyncManagedTransaction, label: str, nodes: Mapping[str, dict[str, Any]]
) -> None:
    # In one order everywhere, so that two gateways don't lock each other out.
    rows = [{"uid": one, "values": nodes[one]} for one in sorted(nodes)]
    await _each(tx, cypher.merge_nodes(label), rows)


async def _link(
    tx: AsyncManagedTransaction, source: str, kind: str, target: str, pairs: Pairs
) -> None:
    rows = [{"source": one, "target": other} for one, other in sorted(pairs)]
    await _each(tx, cypher.merge_edges(source, kind, target), rows)


async def _each(tx: AsyncManagedTransaction, query: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        await _run(tx, query, rows=rows)


async def _run(tx: AsyncManagedTransaction, query: str, **values: Any) -> None:
    await (await tx.run(query, values)).consume()


async def _rows(tx: AsyncManagedTransaction, query: str, **values: Any) -> list[Any]:
    return await (await tx.run(query, values)).data()


def _names(episode: Episode) -> list[str]:
    return list(dict.fromkeys(entities(episode.user_text) + entities(episode.answer_text)))


def _episode_row(episode: Episode) -> dict[str, Any]:
    return {
        "key": episode.id,
        "conversation": uid(episode.owner, episode.conversation),
        "turn": episode.turn,
        "words": len(episode.user_text.split()) + len(episode.answer_text.split()),
        "created": to_stamp(episode.created),
    }


def _owner_row(owner: Owner, count: int) -> dict[str, Any]:
    return {
        "uid": uid(owner, ""),
        "tenant": owner.tenant,
        "user": owner.user,
        "count": count,
    }


def _counted(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"uid": one, "count": counts[one]} for one in sorted(counts)]
