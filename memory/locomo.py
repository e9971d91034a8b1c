"""LoCoMo (Maharana et al. 2024, arXiv 2402.17753): does recall bring the turns that hold an answer?

Every dialogue turn is written as an episode, each question is asked of the whole memory, and what
comes back is compared with the turns that the data set names as evidence. No model writes or
judges anything.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kiki.errors import RequestError
from memory.aeon import Aeon, Embed
from memory.episode import Episode, Owner

CUTS = (5, 10, 20)
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
"""The fifth, adversarial, asks for what was never said: it has no evidence to find."""
BATCH = 64
_EVIDENCE = re.compile(r"D(\d+):(\d+)")
_DATE = "%I:%M %p on %d %B, %Y"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Question:
    """``evidence`` are the ids of the episodes that hold the answer, at least one."""

    text: str
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One LoCoMo conversation; ``ended`` is the time of its last turn."""

    name: str
    owner: Owner
    episodes: tuple[Episode, ...]
    questions: tuple[Question, ...]

    @property
    def ended(self) -> datetime:
        return self.episodes[-1].created


@dataclass(frozen=True, slots=True)
class Scores:
    """Evidence recall at each of `CUTS`: the share of a question's evidence among the first k
    turns, averaged over questions; ``any`` and ``all`` at 10 count the questions with at least
    one, and with all, of their evidence there."""

    n: int
    at: dict[int, float]
    any_at_10: float
    all_at_10: float


@dataclass(frozen=True, slots=True)
class LocomoResult:
    """Recall times are in milliseconds, embedding apart."""

    overall: Scores
    by_category: dict[str, Scores]
    by_dialogue: dict[str, Scores]
    episodes: int
    recall_p50_ms: float
    recall_p95_ms: float


@dataclass(frozen=True, slots=True)
class _Asked:
    dialogue: str
    question: Question
    found: tuple[str, ...]
    ms: float


def load(path: Path) -> list[Dialogue]:
    """The conversations of a LoCoMo file. Raises `RequestError` when it isn't one."""
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
        return [_dialogue(sample) for sample in samples]
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}.", param="locomo") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RequestError(
            f"{path} is not a LoCoMo file: {type(error).__name__} {error}.",
            param="locomo",
            fix="Give the JSON list of conversations that snap-research/locomo publishes.",
        ) from error


def evaluate(
    dialogues: Sequence[Dialogue],
    folder: Path,
    *,
    embedding_id: str,
    embed: Embed,
    progress: Progress,
) -> LocomoResult:
    """Writes all dialogues into a new memory in the empty ``folder`` and asks their questions.

    ``embed`` and ``embedding_id`` as for `Aeon`; ``progress`` gets (what, done, all).
    """
    memory = Aeon(folder, embedding_id=embedding_id, embed=embed)
    memory.open()
    try:
        _write(memory, dialogues, embed, progress)
        return _result(list(_ask(memory, dialogues, embed, progress)), dialogues)
    finally:
        memory.close()


def _dialogue(sample: dict[str, Any]) -> Dialogue:
    name, talk = str(sample["sample_id"]), sample["conversation"]
    owner = Owner("locomo", name)
    episodes = []
    number = 1
    while f"session_{number}_date_time" in talk:
        started = datetime.strptime(talk[f"session_{number}_date_time"], _DATE).replace(tzinfo=UTC)
        for turn, said in enumerate(talk.get(f"session_{number}", ())):
            episodes.append(_episode(owner, f"session {number}", turn, said, started))
        number += 1
    ids = {episode.id for episode in episodes}
    questions = []
    for asked in sample["qa"]:
        named = {
            _id(name, *match) for item in asked["evidence"] for match in _EVIDENCE.findall(item)
        }
        if asked["category"] in CATEGORIES and named & ids:
            evidence = frozenset(named & ids)
            questions.append(Question(str(asked["question"]), asked["category"], evidence))
    return Dialogue(name, owner, tuple(episodes), tuple(questions))


def _episode(
    owner: Owner, session: str, turn: int, said: dict[str, str], started: datetime
) -> Episode:
    match = _EVIDENCE.fullmatch(said["dia_id"])
    if match is None:
        raise ValueError(f"dia_id {said['dia_id']!r}")
    return Episode(
        id=_id(owner.user, *match.groups()),
        tenant=owner.tenant,
        user=owner.user,
        conversation=session,
        turn=turn,
        user_text=f"{said['speaker']}: {said['text']}",
        answer_text="",
        domains=(),
        adapters=(),
        created=started + timedelta(minutes=turn),
    )


def _id(name: str, session: str, turn: str) -> str:
    return f"{name}-{int(session):03d}-{int(turn):04d}"


def _write(memory: Aeon, dialogues: Sequence[Dialogue], embed: Embed, progress: Progress) -> None:
    episodes = [episode for dialogue in dialogues for episode in dialogue.episodes]
    for start in range(0, len(episodes), BATCH):
        batch = episodes[start : start + BATCH]
        vectors = embed([episode.user_text for episode in batch])
        for episode, vector in zip(batch, vectors, strict=True):
            memory.write(episode, vector)
        progress("turns", start + len(batch), len(episodes))
    while not memory.drain(60):
        progress("turns", len(episodes) - memory.status().lag, len(episodes))


def _ask(
    memory: Aeon, dialogues: Sequence[Dialogue], embed: Embed, progress: Progress
) -> Iterator[_Asked]:
    total = sum(len(dialogue.questions) for dialogue in dialogues)
    done = 0
    for dialogue in dialogues:
        vectors = embed([question.text for question in dialogue.questions])
        for question, vector in zip(dialogue.questions, vectors, strict=True):
            yield _timed(memory, dialogue, question, vector)
            done += 1
            progress("questions", done, total)


def _timed(
    memory: Aeon, dialogue: Dialogue, question: Question, vector: NDArray[np.float32]
) -> _Asked:
    started = time.perf_counter()
    found = memory.search(
        dialogue.owner, question.text, vector, limit=max(CUTS), now=dialogue.ended
    )
    ms = (time.perf_counter() - started) * 1e3
    return _Asked(dialogue.name, question, tuple(one.episode.id for one in found), ms)


def _result(asked: Sequence[_Asked], dialogues: Sequence[Dialogue]) -> LocomoResult:
    if len(asked) < 2:
        raise RequestError("The LoCoMo file has no questions with evidence.", param="locomo")
    times = [one.ms for one in asked]
    return LocomoResult(
        overall=_scores(asked),
        by_category={
            name: _scores(group)
            for number, name in CATEGORIES.items()
            if (group := [one for one in asked if one.question.category == number])
        },
        by_dialogue={
            dialogue.name: _scores(group)
            for dialogue in dialogues
            if (group := [one for one in asked if one.dialogue == dialogue.name])
        },
        episodes=sum(len(dialogue.episodes) for dialogue in dialogues),
        recall_p50_ms=statistics.median(times),
        recall_p95_ms=statistics.quantiles(times, n=20)[-1],
    )


def _scores(asked: Sequence[_Asked]) -> Scores:
    at_10 = [_share(one, 10) for one in asked]
    return Scores(
        n=len(asked),
        at={cut: statistics.fmean(_share(one, cut) for one in asked) for cut in CUTS},
        any_at_10=statistics.fmean(share > 0 for share in at_10),
        all_at_10=statistics.fmean(share == 1 for share in at_10),
    )


def _share(asked: _Asked, cut: int) -> float:
    evidence = asked.question.evidence
    return len(evidence.intersection(asked.found[:cut])) / len(evidence)
