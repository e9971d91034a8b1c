"""A scripted panel: ballots by what each draft says, the judge by a list of replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from negotiator import Candidate, Prompt, Reply

TEN = Candidate("Bread needs flour, water, salt and yeast, kneaded and baked.", ("shell",), 12)
TEA = Candidate("Prune the roses in late winter, just above a bud.", ("python",), 9)
SQL = Candidate("SELECT returns rows; WHERE keeps some of them.", ("sql",), 9)

Ruling = Callable[[Mapping[str, str]], str]
"""From each draft's letter in the prompt to the judge's reply."""


def apart(texts: Sequence[str]) -> NDArray[np.float64]:
    """Vectors of texts that have nothing in common: the votes are what is tested."""
    return np.eye(len(texts))


def alike(texts: Sequence[str]) -> NDArray[np.float64]:
    """Vectors of texts that are close, and not close enough to agree."""
    return np.array([[1.0, 0.0], [0.8, 0.6]])[: len(texts)]


def ballot(argument: str = "on", **votes: str) -> str:
    return json.dumps(
        {key: {"argument": f"{argument} {key}", "vote": vote} for key, vote in votes.items()}
    )


def letters(prompt: Prompt) -> dict[str, str]:
    """Each draft's letter in the prompt."""
    content = prompt.messages[-1][1]
    parts = content.split("Draft ")[1:]
    return {part.split("<<<\n")[1].split("\n>>>")[0]: part[0] for part in parts}


def chooses(text: str) -> Ruling:
    return lambda shown: json.dumps({"reason": "better argued", "winner": shown[text]})


def says(reply: str) -> Ruling:
    return lambda _: reply


class Script:
    """Answers ballots by what each draft says, all else by a list of winners or faults."""

    def __init__(
        self,
        votes: Mapping[str, Mapping[str, str]],
        rulings: Sequence[Ruling],
        argument: str = "on",
    ) -> None:
        self.votes = votes
        self.rulings = list(rulings)
        self.argument = argument
        self.tokens = 10
        self.judged: list[Prompt] = []

    async def __call__(self, prompts: Sequence[Prompt]) -> list[Reply]:
        return [Reply(self.reply(prompt), self.tokens) for prompt in prompts]

    def reply(self, prompt: Prompt) -> str:
        shown = letters(prompt)
        if prompt.adapter is None:
            self.judged.append(prompt)
            return self.rulings.pop(0)(shown)
        votes = self.votes[prompt.adapter]
        return ballot(self.argument, **{shown[text]: votes[text] for text in shown})


async def no_call(prompts: Sequence[Prompt]) -> list[Reply]:
    raise AssertionError(f"nothing was to be generated, got {len(prompts)} prompts")


DIVIDED = {
    "shell": {TEN.text: "KEEP", TEA.text: "REFUSE"},
    "python": {TEN.text: "REFUSE", TEA.text: "KEEP"},
}
