"""Panels to measure the negotiator on: real drafts and votes, and what a right answer holds.

``panels/prompts.jsonl`` is written by hand. ``panels/panels.jsonl`` is what the shipped adapters
said to it, recorded by ``kiki bench negotiator --record``.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kiki.errors import RequestError
from negotiator.ballot import Slate, Vote
from negotiator.candidate import Candidate, merge
from negotiator.prompt import Prompt, Reply

FOLDER = Path(__file__).with_name("panels")
PROMPTS = FOLDER / "prompts.jsonl"
PANELS = FOLDER / "panels.jsonl"


@dataclass(frozen=True, slots=True)
class PanelPrompt:
    """A question, its panel (the attending first), and patterns that a right answer matches."""

    question: str
    adapters: tuple[str, ...]
    expect: tuple[str, ...]

    def right(self, answer: str) -> bool:
        """Whether every pattern is in the answer; code isn't run."""
        flags = re.IGNORECASE | re.MULTILINE
        return all(re.search(pattern, answer, flags) for pattern in self.expect)


@dataclass(frozen=True, slots=True)
class PanelCase:
    """A recorded panel. The votes are on the merged drafts."""

    prompt: PanelPrompt
    drafts: tuple[Candidate, ...]
    votes: tuple[Vote, ...]

    @property
    def seed(self) -> int:
        """Of the order in which the drafts were shown."""
        return zlib.crc32(self.prompt.question.encode())

    def to_dict(self) -> dict[str, Any]:
        return {
            "question": self.prompt.question,
            "drafts": [asdict(draft) for draft in self.drafts],
            "votes": [asdict(vote) for vote in self.votes],
        }


class Replay:
    """A ``generate`` that knows a case's votes, and says nothing to all else: no judgement that
    could be read, and no dissent."""

    def __init__(self, case: PanelCase) -> None:
        self._case = case
        slate = Slate.shuffled(case.prompt.question, merge(case.drafts), case.seed)
        self._letter = slate.letter

    async def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(self._ballot(prompt.adapter), 0) for prompt in prompts]

    def _ballot(self, specialist: str | None) -> str:
        if specialist is None:
            return ""
        return json.dumps(
            {
                self._letter(vote.candidate): {"argument": vote.argument, "vote": vote.choice}
                for vote in self._case.votes
                if vote.specialist == specialist
            }
        )


def read_prompts(path: Path = PROMPTS) -> tuple[PanelPrompt, ...]:
    """Raises RequestError, naming the line, where one is no prompt."""
    return tuple(_prompt(path, *line) for line in _lines(path))


def _prompt(path: Path, number: int, row: dict[str, Any]) -> PanelPrompt:
    try:
        for pattern in row["expect"]:
            re.compile(pattern)
        return PanelPrompt(str(row["question"]), tuple(row["adapters"]), tuple(row["expect"]))
    except (KeyError, TypeError, re.error) as error:
        raise RequestError(
            f"{path}, line {number}: no prompt of a panel: {error!r}.",
            fix='Write {"question": "...", "adapters": ["shell", "sql"], "expect": ["regex"]}.',
        ) from error


def read_panels(path: Path = PANELS, prompts: Path = PROMPTS) -> tuple[PanelCase, ...]:
    """The recorded panels of prompts that there still are."""
    known = {prompt.question: prompt for prompt in read_prompts(prompts)}
    return tuple(
        PanelCase(
            known[row["question"]],
            tuple(Candidate(d["text"], tuple(d["authors"]), d["tokens"]) for d in row["drafts"]),
            tuple(Vote(**vote) for vote in row["votes"]),
        )
        for _, row in _lines(path)
        if row["question"] in known
    )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with their line numbers from 1."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise RequestError(
                f"{path}, line {number}: not JSON: {error}.", fix="Correct or delete the line."
            ) from error
