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
from memory.aeon import Aeon
from memory.episode import Episode, Owner
from memory.projection import Embed

CUTS = (5, 10, 20)
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
"""The fifth, adversarial, asks for what was never said: it has no evidence to find."""
BATCH = 64
SOURCE = "Give the JSON list of conversations that snap-research/locomo publishes."
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
class _Asked:
    dialogue: str
    question: Question
    found: tuple[str, ...]
    ms: float


def load(path: Path) -> list[Dialogue]:
    """The conversations of a LoCoMo file. Raises `RequestError` when it isn't one."""
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
        dialogues = [_dialogue(sample) for sample in samples]
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}.", param="locomo") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RequestError(
            f"{path} is not a LoCoMo file: {type(error).__name__} {error}.",
            param="locomo",
            fix=SOURCE,
        ) from error
    if not any(dialogue.questions for dialogue in dialogues):
        raise RequestError(f"{path} has no question with evidence.", param="locomo", fix=SOURCE)
    return dialogues


def evaluate(
    dialogues: Sequence[Dialogue],
    folder: Path,
    *,
    embedding_id: str,
    embed: Embed,
    progress: Progress,
) -> dict[str, Any]:
    """Writes all dialogues into a new memory in the empty ``folder`` and asks their questions.

    ``embed`` and ``embedding_id`` as for `Aeon`; ``progress`` gets (what, done, all). Evidence
    recall at k is the share of a question's evidence among the first k turns, averaged over the
    questions; ``any_at_10`` and ``all_at_10`` are the shares of questions with some, and with all,
    of their evidence there. Times leave the embedding out.
    """
    memory = Aeon(folder, embedding_id=embedding_id, embed=embed)
    memory.open()
    try:
        _write(memory, dialogues, embed, progress)
        return _report(list(_ask(memory, dialogues, embed, progress)), dialogues)
    finally:
        memory.close()


def as_text(report: dict[str, Any]) -> str:
    """The report as a table."""
    columns = [f"evidence_recall_at_{cut}" for cut in CUTS]
    groups = {"all": report, **report["by_category"], **report["by_conversation"]}
    lines = [f"{'evidence recall':16}{'n':>6}" + "".join(f"{f'at {cut}':>8}" for cut in CUTS)]
    lines += [
        f"{name:16}{group['n']:>6}" + "".join(f"{group[column]:>8.3f}" for column in columns)
        for name, group in groups.items()
        if group["n"]
    ]
    lines.append(
        f"{report['episodes']} episodes; at 10, {report['any_at_10']:.3f} of the questions have"
        f" some and {report['all_at_10']:.3f} all of their evidence;"
        f" recall takes {report['recall_p50_ms']} ms (p50), {report['recall_p95_ms']} (p95)"
    )
    return "\n".join(lines)


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


def _report(asked: Sequence[_Asked], dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    times = [one.ms for one in asked]
    categories = {
        name: _scores([one for one in asked if one.question.category == number])
        for number, name in CATEGORIES.items()
    }
    names = {
        dialogue.name: _scores([one for one in asked if one.dialogue == dialogue.name])
        for dialogue in dialogues
    }
    return {
        **_scores(asked),
        "by_category": {name: scores for name, scores in categories.items() if scores["n"]},
        "by_conversation": names,
        "episodes": sum(len(dialogue.episodes) for dialogue in dialogues),
        "recall_p50_ms": round(statistics.median(times), 2),
        "recall_p95_ms": round(float(np.quantile(times, 0.95)), 2),
    }


def _scores(asked: Sequence[_Asked]) -> dict[str, float]:
    scores: dict[str, float] = {"n": len(asked)}
    if asked:
        for cut in CUTS:
            shares = [_share(one, cut) for one in asked]
            scores[f"evidence_recall_at_{cut}"] = round(statistics.fmean(shares), 4)
            if cut == 10:
                scores["any_at_10"] = round(statistics.fmean(map(bool, shares)), 4)
                scores["all_at_10"] = round(statistics.fmean(one == 1 for one in shares), 4)
    return scores


def _share(asked: _Asked, cut: int) -> float:
    evidence = asked.question.evidence
    return len(evidence.intersection(asked.found[:cut])) / len(evidence)
