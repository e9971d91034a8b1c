"""What the memory knows: facts learnt from episodes, current ones found for a question."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum import Ask, Cerebellum
from memory.episode import Owner, RecalledNote
from memory.fact_index import FactHit, FactIndex, SummaryHit
from memory.facts import Fact
from memory.journal import Journal
from memory.learner import Learner
from memory.shelves import Embed
from memory.sleep import Sleep, SleepReport, SleepSettings
from memory.summarise import summariser

FACTS_TOLD = 3
SUMMARIES_TOLD = 1
USES_HELD = 256
"""Recalls that are counted in memory before they are written down."""


class Knowledge:
    """The facts of an open memory. With a ``cerebellum`` it learns from every episode, in a
    thread; without one it knows what was learnt before. ``changed`` is called when the stores
    have something to follow. Thread-safe; raises `StoreError`."""

    def __init__(
        self,
        journal: Journal,
        embed: Embed,
        cerebellum: Cerebellum | None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._embed = embed
        self._tell = changed
        self._log = journal.facts
        self._summaries = journal.summaries
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._index = FactIndex(journal.facts, journal.summaries, embed)
        self._cerebellum = cerebellum
        self._learner = (
            Learner(journal, self._index, cerebellum, embed, changed)
            if cerebellum is not None
            else None
        )

    def start(self) -> None:
        if self._learner is not None:
            self._learner.start()

    def stop(self) -> None:
        """Stops learning; what is not decided waits in the journal for the next start."""
        if self._learner is not None:
            self._learner.stop()
        self._keep_uses()

    def wake(self) -> None:
        if self._learner is not None:
            self._learner.wake()

    def drain(self, timeout: float) -> bool:
        """Waits until all that is in the journal now is decided; False after ``timeout`` s."""
        return self._learner is None or self._learner.drain(timeout)

    @property
    def lag(self) -> int:
        """How many episodes are not decided yet."""
        return self._learner.lag() if self._learner is not None else 0

    @property
    def last_error(self) -> str | None:
        return self._learner.last_error if self._learner is not None else None

    @property
    def counts(self) -> Mapping[str, int]:
        """How often the model and the rules decided (see `Cerebellum`)."""
        return self._cerebellum.counts if self._cerebellum is not None else {}

    def facts(self, owner: Owner) -> list[Fact]:
        """All of the owner's facts, current and ended, oldest first."""
        return self._log.all(owner)

    def answering(
        self, owner: Owner, question: str, vector: NDArray[np.float32], limit: int
    ) -> list[FactHit]:
        """The owner's current facts that bear on ``question`` (embedded as ``vector``), best
        first. What was superseded is not among them."""
        return self._index.answering(owner, question, vector, limit)

    def notes(
        self,
        owner: Owner,
        question: str,
        vector: NDArray[np.float32],
        besides: AbstractSet[str],
    ) -> list[RecalledNote]:
        """Current facts and summaries that bear on the question, for the prompt; not what one of
        the episodes ``besides`` says already."""
        notes = []
        for hit in self.answering(owner, question, vector, FACTS_TOLD + len(besides)):
            fact = hit.fact
            if fact.source_episode not in besides:
                notes.append(
                    RecalledNote(
                        fact.id, "fact", fact.text, fact.valid_from, hit.score, hit.reasons
                    )
                )
        del notes[FACTS_TOLD:]
        for near in self.summaries(owner, vector, SUMMARIES_TOLD):
            one = near.summary
            if besides.isdisjoint(one.members):
                reasons = (f"summary {near.cosine:.2f}",)
                notes.append(
                    RecalledNote(one.id, "summary", one.text, one.created, near.cosine, reasons)
                )
        return notes

    def summaries(self, owner: Owner, vector: NDArray[np.float32], limit: int) -> list[SummaryHit]:
        """The owner's summaries near a question embedded as ``vector``, best first. Of an episode
        that sleep evicted they are what is left."""
        return self._index.summaries(owner, vector, limit)

    def conflicts(self, owner: Owner) -> list[tuple[str, str]]:
        """Pairs of current facts that the last sleep found to contradict each other."""
        return self._log.conflicts(owner)

    def note_uses(self, episodes: Collection[str]) -> None:
        """These were recalled; sleep keeps what is used. Written down now and then."""
        with self._lock:
            self._uses.update(episodes)
            full = self._uses.total() >= USES_HELD
        if full:
            self._keep_uses()

    def _keep_uses(self) -> None:
        with self._lock:
            uses, self._uses = self._uses, Counter()
        if uses:
            self._summaries.note_uses(uses)

    def sleep(
        self,
        settings: SleepSettings,
        *,
        ask: Ask | None = None,
        dry_run: bool = False,
        now: datetime | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> SleepReport:
        """Sleeps over all owners' memories (see `memory.sleep`), or says what it would do.

        ``ask`` writes the summaries, else they are the central sentences. Blocks for long:
        ``stopping`` is asked between two changes.
        """
        self._keep_uses()
        night = Sleep(
            self._journal,
            self._index,
            summariser(self._embed, ask),
            settings,
            stopping=stopping,
        )
        report = night.run(dry_run=dry_run, now=now or datetime.now(UTC), progress=progress)
        if not dry_run:
            self._journal.scrub()
        self._tell()
        return report

    def outdated(self, owner: Owner, episodes: Collection[str]) -> set[str]:
        """Of ``episodes`` those whose facts have all ended: not to be recalled as current."""
        return self._log.outdated(owner, episodes)
