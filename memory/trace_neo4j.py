"""Trace on a Neo4j server, which several gateways may share."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from kiki.errors import StoreError, StoreReplacedError, StoreUnavailableError
from memory import neo4j_queries as cypher
from memory.database import to_stamp
from memory.episode import Episode, Owner
from memory.facts import Fact, Summary
from memory.neo4j_rows import to_fact, uid
from memory.neo4j_writes import delete, write_episodes, write_facts, write_summaries
from memory.remote import Limits, LoopThread
from memory.stems import Stemmer
from memory.trace import FOLLOW_UP_WEIGHT, MAX_POSTINGS, TraceHit, rarity, word_score
from memory.words import fold, search_terms

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncManagedTransaction

Result = TypeVar("Result")
Work = Callable[["AsyncManagedTransaction"], Awaitable[Result]]
# A word that is in more of an owner's episodes tells little, and would be read in full to find
# the newest of them.
COMMON = 2000


class Neo4jTrace:
    """Every node carries a ``uid`` made of owner and key, unique by its label.

    Words are nodes too (Word, with HOLDS from the episode): full text then needs no index that
    only Neo4j has (docs/adr/0017-words-as-nodes-in-neo4j.md). ``uri`` is ``neo4j://``,
    ``neo4j+s://``, ``bolt://`` or ``bolt+s://``; transient errors are tried again by the driver.
    """

    def __init__(
        self,
        uri: str,
        *,
        user: str,
        password: str,
        database: str | None = None,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
        anew: bool = False,
    ) -> None:
        self._uri = uri
        self._database = database
        self._limits = limits
        self._stemmer = Stemmer()
        self._loop = LoopThread(f"neo4j {uri}")
        self._driver: AsyncDriver | None = None
        try:
            self._driver = self._run(_connect(uri, user, password, limits), limits.write_s)
            for statement in cypher.SCHEMA:
                self._run(self._define(statement), limits.write_s)
            if anew:
                while self._write(_empty):
                    pass
            self._generation = self._write(_generation)
        except BaseException:
            self.close()
            raise

    @property
    def generation(self) -> str:
        return self._generation

    def scrub(self) -> None:
        """Nothing: the server's files are the server's."""

    def verify(self) -> None:
        found = self._read(lambda tx: _rows(tx, cypher.GENERATION), self._limits.write_s)
        if not found or found[0]["generation"] != self._generation:
            raise StoreReplacedError(f"The graph of {self._uri} was made anew.")

    def write(self, episodes: Sequence[Episode]) -> None:
        stems = {
            one.id: self._stemmer.stems(f"{one.user_text}\n{one.answer_text}") for one in episodes
        }
        self._write(lambda tx: write_episodes(tx, episodes, stems))

    def write_facts(self, facts: Sequence[Fact]) -> None:
        self._write(lambda tx: write_facts(tx, facts))

    def write_summaries(self, summaries: Sequence[Summary]) -> None:
        self._write(lambda tx: write_summaries(tx, summaries))

    def search_text(self, owner: Owner, text: str, limit: int) -> list[TraceHit]:
        """Words that more than `COMMON` episodes hold are left out, unless all are such."""
        stems = self._stemmer.stems(" ".join(search_terms(text)))
        wanted = [uid(owner, stem) for stem in stems]

        async def find(tx: AsyncManagedTransaction) -> tuple[int, dict[str, int], list[Any]]:
            total = await _total(tx, owner)
            words = await _rows(tx, cypher.WORDS, uids=wanted)
            counts = {row["uid"]: row["episodes"] for row in words}
            rare = [one for one in counts if counts[one] <= COMMON] or list(counts)
            rows = await _rows(tx, cypher.HOLDERS, uids=rare, limit=MAX_POSTINGS)
            return total, counts, rows

        total, counts, rows = self._read(find, self._limits.read_s)
        scores: defaultdict[tuple[int, str], float] = defaultdict(float)
        for row in rows:
            gain = word_score(rarity(counts[row["uid"]], total), row["words"])
            scores[row["created"], row["id"]] += gain
        return _hits(scores, {}, limit)

    def neighbours(self, owner: Owner, names: Sequence[str], limit: int) -> list[TraceHit]:
        by_uid = {uid(owner, fold(name)): name for name in names}

        async def find(tx: AsyncManagedTransaction) -> tuple[int, list[Any]]:
            total = await _total(tx, owner)
            rows = await _rows(tx, cypher.MENTIONERS, uids=list(by_uid), limit=MAX_POSTINGS)
            return total, rows

        total, rows = self._read(find, self._limits.read_s)
        found = Counter(row["uid"] for row in rows)
        scores: defaultdict[tuple[int, str], float] = defaultdict(float)
        matched: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            weight = rarity(min(found[row["uid"]], total), total)
            ends = [(row["created"], row["id"], 1.0)]
            if row["follow"] is not None:
                ends.append((row["follow_created"], row["follow"], FOLLOW_UP_WEIGHT))
            for created, id_, share in ends:
                scores[created, id_] += weight * share
                if by_uid[row["uid"]] not in matched[id_]:
                    matched[id_].append(by_uid[row["uid"]])
        return _hits(scores, matched, limit)

    def around(self, owner: Owner, id_: str, reach: int) -> list[str]:
        async def find(tx: AsyncManagedTransaction) -> list[Any]:
            before = await _rows(tx, cypher.before(reach), uid=uid(owner, id_))
            after = await _rows(tx, cypher.after(reach), uid=uid(owner, id_))
            return [*before, *after]

        return [row["id"] for row in self._read(find, self._limits.read_s)]

    def facts_about(
        self,
        owner: Owner,
        names: Sequence[str],
        limit: int,
        *,
        valid_at: datetime,
        known_at: datetime,
    ) -> list[Fact]:
        rows = self._read(
            lambda tx: _rows(
                tx,
                cypher.FACTS_ABOUT,
                uids=[uid(owner, fold(name)) for name in names],
                valid_at=to_stamp(valid_at),
                known_at=to_stamp(known_at),
                limit=limit,
            ),
            self._limits.read_s,
        )
        return [to_fact(owner, row) for row in rows]

    def history(self, owner: Owner, id_: str) -> list[Fact]:
        rows = self._read(
            lambda tx: _rows(tx, cypher.HISTORY, uid=uid(owner, id_)), self._limits.read_s
        )
        return [to_fact(owner, row) for row in rows]

    def summaries_of(self, owner: Owner, ids: Collection[str]) -> dict[str, str]:
        rows = self._read(
            lambda tx: _rows(tx, cypher.SUMMARIES_OF, uids=[uid(owner, id_) for id_ in ids]),
            self._limits.read_s,
        )
        return {row["episode"]: row["summary"] for row in rows}

    def delete(self, owner: Owner, ids: Collection[str]) -> None:
        self._write(lambda tx: delete(tx, owner, list(ids)))

    def count(self, owner: Owner | None = None) -> int:
        async def find(tx: AsyncManagedTransaction) -> int:
            if owner is not None:
                return await _total(tx, owner)
            return int((await _rows(tx, cypher.COUNT))[0]["episodes"])

        return self._read(find, self._limits.read_s)

    def close(self) -> None:
        if self._driver is not None:
            # What hangs has nothing left to close.
            with contextlib.suppress(StoreUnavailableError):
                self._loop.run(self._driver.close(), self._limits.write_s)
            self._driver = None
        self._loop.close()
        self._stemmer.close()

    async def _define(self, statement: str) -> None:
        async with self._open().session(database=self._database) as session:
            await (await session.run(statement)).consume()

    def _read(self, work: Work[Result], seconds: float) -> Result:
        async def call() -> Result:
            async with self._open().session(database=self._database) as session:
                return await session.execute_read(work)

        return self._run(call(), seconds)

    def _write(self, work: Work[Result]) -> Result:
        async def call() -> Result:
            async with self._open().session(database=self._database) as session:
                return await session.execute_write(work)

        return self._run(call(), self._limits.write_s)

    def _open(self) -> AsyncDriver:
        if self._driver is None:
            raise StoreUnavailableError(f"The store neo4j {self._uri} is closed.")
        return self._driver

    def _run(self, call: Coroutine[Any, Any, Result], seconds: float) -> Result:
        try:
            return self._loop.run(call, seconds)
        except StoreError:
            raise
        except Exception as error:
            raise _named(self._uri, error) from error


async def _connect(uri: str, user: str, password: str, limits: Limits) -> AsyncDriver:
    from neo4j import AsyncGraphDatabase

    return AsyncGraphDatabase.driver(
        uri,
        auth=(user, password),
        connection_timeout=limits.write_s,
        connection_acquisition_timeout=limits.write_s,
        max_transaction_retry_time=limits.write_s,
    )


def _named(uri: str, error: Exception) -> StoreError:
    from neo4j.exceptions import AuthError, ClientError, ConfigurationError

    told = f"{type(error).__name__}: {error}".split("\n")[0]
    if isinstance(error, AuthError):
        return StoreError(
            f"Neo4j at {uri} refuses the user or the password.",
            fix="Correct neo4j_user and neo4j_password.",
        )
    if isinstance(error, ConfigurationError):
        return StoreError(f"neo4j_uri = {uri} can't be used: {told}.", fix="Correct neo4j_uri.")
    if isinstance(error, ClientError):
        return StoreError(f"Neo4j at {uri} refused the call: {told}.")
    return StoreUnavailableError(f"Neo4j at {uri} failed: {told}.")


async def _rows(tx: AsyncManagedTransaction, query: str, **values: Any) -> list[Any]:
    return await (await tx.run(query, values)).data()


async def _total(tx: AsyncManagedTransaction, owner: Owner) -> int:
    found = await _rows(tx, cypher.OWNER, uid=uid(owner, ""))
    return int(found[0]["episodes"]) if found else 0


async def _generation(tx: AsyncManagedTransaction) -> str:
    found = await _rows(tx, cypher.MAKE_GENERATION, fresh=uuid.uuid4().hex)
    return str(found[0]["generation"])


async def _empty(tx: AsyncManagedTransaction) -> bool:
    """Deletes some of what kiki wrote; True while there is more."""
    deleted = [await _rows(tx, query) for query in cypher.EMPTY]
    return any(rows[0]["deleted"] for rows in deleted)


def _hits(
    scores: dict[tuple[int, str], float], matched: dict[str, list[str]], limit: int
) -> list[TraceHit]:
    best = sorted(scores, key=lambda one: (-scores[one], -one[0], one[1]))[:limit]
    return [TraceHit(one[1], scores[one], tuple(matched.get(one[1], ()))) for one in best]
