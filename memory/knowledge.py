"""What the memory knows: facts learnt from episodes, current ones found for a question."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from memory.cerebellum import Cerebellum
from memory.episode import Owner
from memory.fact_index import Embed, FactHit, FactIndex
from memory.facts import Fact
from memory.journal import Journal
from memory.learner import Learner


class Knowledge:
    """The facts of an open memory. With a ``cerebellum`` it learns from every episode, in a
    thread; without one it knows what was learnt before. Thread-safe; raises `StoreError`."""

    def __init__(self, journal: Journal, embed: Embed, cerebellum: Cerebellum | None) -> None:
        self._log = journal.facts
        self._index = FactIndex(journal.facts, embed)
        self._cerebellum = cerebellum
        self._learner = (
            Learner(journal, self._index, cerebellum, embed) if cerebellum is not None else None
        )

    def start(self) -> None:
        if self._learner is not None:
            self._learner.start()

    def stop(self) -> None:
        """Stops learning; what is not decided waits in the journal for the next start."""
        if self._learner is not None:
            self._learner.stop()

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

    def outdated(self, owner: Owner, episodes: Collection[str]) -> set[str]:
        """Of ``episodes`` those whose facts have all ended: not to be recalled as current."""
        return self._log.outdated(owner, episodes)
