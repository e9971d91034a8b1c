"""Memory: what is recalled and of use, and how far the stores and the cerebellum are behind."""

from __future__ import annotations

import re

from gateway.telemetry.metrics import Metrics
from gateway.turn import Turn

_OUTCOMES = ("hit", "empty", "off", "unavailable")
_WORD = re.compile(r"[^\W_]{4,}")


class MemoryMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.recalls = self.counter(
            "kiki_recalls", "Turns by what the memory had for them.", "outcome", values=_OUTCOMES
        )
        self.recalled = self.counter("kiki_recalled_episodes", "Episodes put into prompts.")
        self.recalled_notes = self.counter(
            "kiki_recalled_notes", "Facts and summaries put into prompts."
        )
        self.useful_recalls = self.counter(
            "kiki_useful_recalls",
            "Hits of which the answer took up a word of four letters or more that the request did "
            "not hold. An estimate: the word may be chance.",
        )
        self.memory_lag = self.gauge(
            "kiki_memory_lag_episodes", "Journalled episodes that are not in the stores yet."
        )
        self.memory_degraded = self.gauge(
            "kiki_memory_degraded", "1 while a store of the memory fails."
        )
        self.cerebellum_lag = self.gauge(
            "kiki_cerebellum_lag_episodes",
            "Journalled episodes of which the cerebellum has not decided what is learnt.",
        )
        self.cerebellum_decisions = self.counter(
            "kiki_cerebellum_decisions",
            "Decisions on what is learnt, by model or rules; why it wasn't the model: late, junk,"
            " failed.",
            "by",
            values=("model", "rules", "late", "junk", "failed"),
        )

    def count_decision(self, by: str) -> None:
        """Count what the cerebellum reports, from any thread."""
        self.cerebellum_decisions.labels(by).inc()

    def count_recall(self, turn: Turn) -> None:
        found = turn.recollection
        if found is None:
            self.recalls.labels(turn.memory).inc()
            return
        self.recalls.labels("hit" if found.block else "empty").inc()
        self.recalled.inc(len(found.episodes))
        self.recalled_notes.inc(len(found.notes))
        recalled = [one.episode.user_text for one in found.episodes]
        recalled += [note.text for note in found.notes]
        if takes_up(turn.answer, recalled, [said.content for said in turn.ask.messages]):
            self.useful_recalls.inc()


def takes_up(answer: str, recalled: list[str], said: list[str]) -> bool:
    """Whether the answer holds a word of the recalled texts that what was said did not hold."""
    return bool((_words([answer]) & _words(recalled)) - _words(said))


def _words(texts: list[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.casefold())}
