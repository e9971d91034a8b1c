"""Prompts that name their domain, made of prompts that don't.

The prompts of `routing/data` avoid the domain's name, so that a router can't lean on it; other
people's prompts mostly have it. A head that saw only the former misses the plainest ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from routing.domains import DomainTable
from routing.training.rows import Row

KIND = "named"
FORMS = (
    "{word}: {prompt}",
    "{prompt} ({word})",
    "{prompt} in {word}",
    "I'm working with {word}. {prompt}",
    "{word} question: {prompt}",
    "[{word}] {prompt}",
)
FRENCH_FORMS = ("{word} : {prompt}", "{prompt} ({word})", "Question {word} : {prompt}")
UNNAMED = frozenset({"chat-fr", "reasoning"})
"""Domains that nobody names in a prompt."""


def named(rows: Sequence[Row], table: DomainTable, *, seed: int) -> list[tuple[int, Row]]:
    """For each row with one label, a row that also names the domain, with the first row's number.

    Both belong on the same side of a split.
    """
    rng = random.Random(seed)
    plain = {domain.name for domain in table.domains} - UNNAMED
    made: list[tuple[int, Row]] = []
    for number, row in enumerate(rows):
        word, forms = rng.random(), rng.random()
        if len(row.domains) != 1 or row.domains[0] not in plain:
            continue
        words = table.domain(row.domains[0]).words
        choices = FRENCH_FORMS if row.lang == "fr" else FORMS
        text = choices[int(forms * len(choices))].format(
            word=words[int(word * len(words))], prompt=row.prompt
        )
        made.append((number, Row(text, row.domains, row.source, KIND, row.lang)))
    return made
