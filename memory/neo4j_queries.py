"""The Cypher that Trace asks of a Neo4j server."""

from __future__ import annotations

_LABELS = ("Owner", "Episode", "Conversation", "Entity", "Word", "Fact", "Summary")
_FACT = ", ".join(
    f"f.{name} AS {name}"
    for name in (
        "key",
        "text",
        "entities",
        "source",
        "supersedes",
        "valid_from",
        "valid_to",
        "recorded_from",
        "recorded_to",
    )
)

SCHEMA = (
    *(
        f"CREATE CONSTRAINT kiki_{label.lower()} IF NOT EXISTS"
        f" FOR (n:{label}) REQUIRE n.uid IS UNIQUE"
        for label in (*_LABELS, "Kiki")
    ),
    "CREATE INDEX kiki_turn IF NOT EXISTS FOR (n:Episode) ON (n.conversation, n.turn)",
)
EMPTY = (
    "MATCH (n:Kiki) DETACH DELETE n RETURN count(*) AS deleted",
    *(
        f"MATCH (n:{label}) WITH n LIMIT 2000 DETACH DELETE n RETURN count(*) AS deleted"
        for label in _LABELS
    ),
)
GENERATION = "MATCH (k:Kiki {uid: 'trace'}) RETURN k.generation AS generation"
MAKE_GENERATION = (
    "MERGE (k:Kiki {uid: 'trace'}) ON CREATE SET k.generation = $fresh"
    " RETURN k.generation AS generation"
)

OWNER = "MATCH (o:Owner {uid: $uid}) RETURN o.episodes AS episodes"
COUNT = "MATCH (e:Episode) RETURN count(e) AS episodes"
WORDS = "MATCH (w:Word) WHERE w.uid IN $uids RETURN w.uid AS uid, w.episodes AS episodes"
HOLDERS = (
    "UNWIND $uids AS uid CALL { WITH uid"
    " MATCH (:Word {uid: uid})<-[:HOLDS]-(e:Episode)"
    " RETURN e.key AS id, e.words AS words, e.created AS created"
    " ORDER BY e.created DESC LIMIT $limit }"
    " RETURN uid, id, words, created"
)
MENTIONERS = (
    "UNWIND $uids AS uid CALL { WITH uid"
    " MATCH (:Entity {uid: uid})<-[:MENTIONS]-(e:Episode)"
    " RETURN e ORDER BY e.created DESC LIMIT $limit }"
    " OPTIONAL MATCH (e)-[:NEXT]->(f:Episode)"
    " RETURN uid, e.key AS id, e.created AS created, f.key AS follow, f.created AS follow_created"
)
FACTS_ABOUT = (
    "MATCH (f:Fact)-[:ABOUT]->(n:Entity) WHERE n.uid IN $uids"
    " AND f.valid_from <= $valid_at AND (f.valid_to IS NULL OR f.valid_to > $valid_at)"
    " AND f.recorded_from <= $known_at AND (f.recorded_to IS NULL OR f.recorded_to > $known_at)"
    f" WITH DISTINCT f RETURN {_FACT} ORDER BY valid_from DESC, key DESC LIMIT $limit"
)
HISTORY = (
    "MATCH (:Fact {uid: $uid})-[:SUPERSEDES*0..64]->(f:Fact) WHERE f.text IS NOT NULL"
    f" WITH DISTINCT f RETURN {_FACT} ORDER BY recorded_from DESC, key DESC"
)
SUMMARIES_OF = (
    "MATCH (s:Summary)-[:SUMMARISES]->(e:Episode) WHERE e.uid IN $uids"
    " RETURN e.key AS episode, s.key AS summary ORDER BY summary"
)

FOUND = "MATCH (e:Episode) WHERE e.uid IN $uids RETURN e.uid AS uid"
COUNT_OWNERS = (
    "UNWIND $rows AS row MERGE (o:Owner {uid: row.uid})"
    " ON CREATE SET o.tenant = row.tenant, o.user = row.user, o.episodes = 0"
    " SET o.episodes = o.episodes + row.count"
)
COUNT_WORDS = (
    "UNWIND $rows AS row MATCH (w:Word {uid: row.uid})"
    " SET w.episodes = coalesce(w.episodes, 0) + row.count"
)
LAST_BEFORE = (
    "UNWIND $spans AS span"
    " OPTIONAL MATCH (b:Episode {conversation: span.uid}) WHERE b.turn < span.turn"
    " RETURN span.uid AS uid, max(b.turn) AS turn"
)
TURNS_FROM = (
    "UNWIND $spans AS span MATCH (e:Episode {conversation: span.uid})"
    " WHERE e.turn >= span.turn"
    " RETURN span.uid AS conversation, e.uid AS uid ORDER BY conversation, e.turn, e.created"
)
UNLINK_TURNS = "MATCH (e:Episode)-[r:NEXT]->(:Episode) WHERE e.uid IN $uids DELETE r"
UNLINK_FACTS = (
    "MATCH (f:Fact)-[r:ABOUT|SUPERSEDES]->() WHERE f.uid IN $uids DELETE r",
    "MATCH (f:Fact)<-[r:CAUSES]-() WHERE f.uid IN $uids DELETE r",
)
UNLINK_SUMMARIES = "MATCH (s:Summary)-[r:SUMMARISES]->() WHERE s.uid IN $uids DELETE r"

DELETED = (
    "MATCH (e:Episode) WHERE e.uid IN $uids RETURN e.conversation AS conversation, e.turn AS turn"
)
HELD_WORDS = (
    "MATCH (e:Episode)-[:HOLDS]->(w:Word) WHERE e.uid IN $uids"
    " RETURN w.uid AS uid, count(*) AS count"
)
DROP_WORDS = "MATCH (w:Word) WHERE w.uid IN $uids AND w.episodes <= 0 DETACH DELETE w"


def before(reach: int) -> str:
    return (
        f"MATCH p = (b:Episode)-[:NEXT*1..{reach:d}]->(:Episode {{uid: $uid}})"
        " RETURN b.key AS id, length(p) AS far ORDER BY far DESC"
    )


def after(reach: int) -> str:
    return (
        f"MATCH p = (:Episode {{uid: $uid}})-[:NEXT*1..{reach:d}]->(a:Episode)"
        " RETURN a.key AS id, length(p) AS far ORDER BY far"
    )


def named(label: str, kind: str) -> str:
    """The entities that these nodes point to."""
    return (
        f"MATCH (e:{label})-[:{kind}]->(n:Entity) WHERE e.uid IN $uids RETURN DISTINCT n.uid AS uid"
    )


def merge_nodes(label: str) -> str:
    """Rows of ``uid`` and ``values``, which are put on the node."""
    return f"UNWIND $rows AS row MERGE (n:{label} {{uid: row.uid}}) SET n += row.values"


def merge_edges(source: str, kind: str, target: str) -> str:
    """Rows of ``source`` and ``target`` uids; an edge whose ends are not there is left out."""
    return (
        f"UNWIND $rows AS row MATCH (a:{source} {{uid: row.source}})"
        f" MATCH (b:{target} {{uid: row.target}}) MERGE (a)-[:{kind}]->(b)"
    )


def drop(label: str) -> str:
    return f"MATCH (n:{label}) WHERE n.uid IN $uids DETACH DELETE n"


def drop_bare(label: str) -> str:
    """Those that no edge reaches."""
    return (
        f"MATCH (n:{label}) WHERE n.uid IN $uids OPTIONAL MATCH (n)<-[r]-()"
        " WITH n, count(r) AS reached WHERE reached = 0 DETACH DELETE n"
    )
