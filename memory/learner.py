"""Learns facts from episodes, after their answers, in the journal's order."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum import Cerebellum, Verdict
from memory.cerebellum.concepts import Statement, read
from memory.episode import Episode
from memory.fact_index import FactHit, FactIndex
from memory.fact_log import Ending, Learnt
from memory.facts import Fact, fact_id
from memory.journal import Journal
from memory.projector import pause_after
from memory.shelves import Embed
from memory.words import entities, fold

logger = logging.getLogger("kiki.memory")

BATCH = 16
COMPARED = 4
"""Stored facts that a new one is arbitrated against: each may cost a model's time."""
REMEMBERED_ANSWERS = 8
"""Earlier answers of the conversation in which the model may have said it first."""
WARM_UP_S = 30.0
WARM_UP_SLICE_S = 5.0
"""A stop waits so long at most."""
_PERSON = re.compile(r"\b(?:i|you|my|your|we|our|je|tu|vous|mon|ma|mes|ton|ta|tes|votre|vos)\b")


@dataclass(frozen=True, slots=True)
class _New:
    fact: Fact
    statement: Statement
    vector: NDArray[np.float32]


class Learner:
    """A thread that has the cerebellum decide every episode once.

    The journal is its queue and keeps its place: what was not decided when the process died is
    decided at the next start. Only what the user said is evidence; a sentence that repeats an
    earlier answer of the conversation teaches nothing. ``changed`` is called after a change.
    """

    def __init__(
        self,
        journal: Journal,
        index: FactIndex,
        cerebellum: Cerebellum,
        embed: Embed,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.last_error: str | None = None
        self._journal = journal
        self._index = index
        self._cerebellum = cerebellum
        self._embed = embed
        self._tell = changed
        self._cursor = journal.facts.learnt_up_to()
        self._failures = 0
        self._stopping = False
        self._woken = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kiki-cerebellum", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops after the episode in hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def wake(self) -> None:
        """There is something new in the journal."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def lag(self) -> int:
        """How many episodes are not decided yet."""
        return self._journal.count(after=self._cursor)

    def drain(self, timeout: float) -> bool:
        """Waits until every episode that is in the journal now is decided; False after
        ``timeout`` seconds."""
        goal = self._journal.last_seq()
        self.wake()
        with self._changed:
            return self._changed.wait_for(lambda: self._cursor >= goal, timeout)

    def _run(self) -> None:
        self._warm_up()
        while not self._stopping:
            while not self._stopping and self._attempt():
                pass
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or (self._woken and not self._failures),
                    pause_after(self._failures),
                )
                self._woken = False

    def _warm_up(self) -> None:
        deadline = time.monotonic() + WARM_UP_S
        while not self._stopping and not self._cerebellum.warm_up(WARM_UP_SLICE_S):
            if time.monotonic() > deadline:
                logger.warning("the cerebellum's model doesn't answer: rules decide until it does")
                return

    def _attempt(self) -> bool:
        """True when there may be more to do at once."""
        try:
            rows = self._journal.rows_after(self._cursor, BATCH)
            for row in rows:
                if self._stopping:
                    return False
                self._learn(row.seq, row.episode)
        except Exception as error:  # the thread's boundary: it must outlive any fault
            self._failures += 1
            self.last_error = str(error)
            logger.warning("cerebellum: attempt %d failed: %s", self._failures, error)
            return False
        self._failures = 0
        self.last_error = None
        return bool(rows)

    def _learn(self, seq: int, episode: Episode) -> None:
        now = datetime.now(UTC)
        learnt = self._decide(episode, now)
        self._journal.facts.learn(learnt, up_to=seq, now=now)
        if learnt.added or learnt.ended:
            self._tell()
        with self._changed:
            self._cursor = seq
            self._changed.notify_all()

    def _decide(self, episode: Episode, now: datetime) -> Learnt:
        kept = [one.text for one in self._cerebellum.memorize(episode.user_text)]
        if not kept:
            return Learnt()
        answers = self._journal.facts.answers_before(episode, REMEMBERED_ANSWERS)
        said = [text for text in kept if not repeats(text, answers)]
        if not said:
            return Learnt()
        added: list[_New] = []
        ended: dict[str, Ending] = {}
        for number, (text, vector) in enumerate(zip(said, self._embed(said), strict=True), start=1):
            new = _New(_fact(episode, number, text, now), read(text), vector)
            self._weigh(new, added, ended)
        return Learnt(tuple((new.fact, new.vector) for new in added), tuple(ended.values()))

    def _weigh(self, new: _New, added: list[_New], ended: dict[str, Ending]) -> None:
        """Puts the new fact beside those that are stored, and those of the same episode."""
        stored = self._index.near(new.fact.owner, new.statement, new.vector, COMPARED)
        verdicts: list[tuple[Fact, Verdict]] = []
        for hit in [*stored, *_hits(added, new.vector)]:
            if hit.fact.id in ended:
                continue
            verdict = self._cerebellum.arbitrate(hit.fact.text, new.fact.text, hit.cosine)
            if verdict.action == "NONE" and not verdict.added:
                return
            if verdict.action != "NONE":
                verdicts.append((hit.fact, verdict))
        _settle(new, verdicts, added, ended)


def _settle(
    new: _New,
    verdicts: Sequence[tuple[Fact, Verdict]],
    added: list[_New],
    ended: dict[str, Ending],
) -> None:
    """What is older than a stored fact (an import may be) doesn't end it: the older one has
    ended, or is nothing new."""
    fact = new.fact
    later = [old for old, verdict in verdicts if old.valid_from > fact.valid_from]
    before = [old for old, _ in verdicts if old not in later]
    keep = all(verdict.added for _, verdict in verdicts)
    own = {one.fact.id for one in added}
    for old in before:
        if old.id in own:
            added[:] = [one for one in added if one.fact.id != old.id]
        else:
            ended[old.id] = Ending(old.id, fact.source_episode, fact.valid_from)
    if not keep:
        return
    supersedes = tuple(old.id for old in before if old.id not in own)
    end = min((old.valid_from for old in later), default=None)
    made = replace(
        fact,
        valid_to=end,
        recorded_to=None if end is None else fact.recorded_from,
        supersedes=supersedes,
    )
    added.append(_New(made, new.statement, new.vector))


def _hits(added: Sequence[_New], vector: NDArray[np.float32]) -> list[FactHit]:
    found = ((one.fact, float(one.vector @ vector)) for one in added if one.fact.current)
    return [FactHit(fact, cosine, cosine, ()) for fact, cosine in found]


def _fact(episode: Episode, number: int, text: str, now: datetime) -> Fact:
    return Fact(
        id=fact_id(episode.id, number),
        owner=episode.owner,
        text=text,
        entities=tuple(entities(text)),
        source_episode=episode.id,
        valid_from=episode.created,
        valid_to=None,
        recorded_from=now,
        recorded_to=None,
    )


def repeats(text: str, answers: Sequence[str]) -> bool:
    """Whether an answer says ``text`` word for word, "you" for "I" apart."""
    said = _words(text)
    return bool(said) and any(f" {said} " in f" {_words(answer)} " for answer in answers)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", _PERSON.sub("x", fold(text))))
