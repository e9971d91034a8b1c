"""The cheap screen: word classes that have to meet before a text may carry a bias.

It decides whether a text is looked at, never what is wrong with it: that is the detector's.
"""

from __future__ import annotations

from antibias.words import classes_of, tokenize

MAX_CHARACTERS = 20_000

CUES: tuple[frozenset[str], ...] = tuple(
    frozenset(cue.split())
    for cue in (
        "group trait",
        "group person",
        "person trait tag",
        "figure amount own",
        "amount own prescribes",
        "figure leader",
        "leader claims",
        "claims prescribes",
        "certain tag",
        "certain prescribes",
        "loss own",
        "loss figure",
        "recent urgent",
        "recent own prescribes",
    )
)
"""A text is looked at when all classes of a cue occur in it."""


def screen_text(text: str) -> bool:
    """Whether the detector should look at the text."""
    found = set(classes_of(tokenize(text[:MAX_CHARACTERS])))
    return any(cue <= found for cue in CUES)


def screen_prompt(question: str) -> bool:
    """Whether an answer to this must be whole before it is sent, so that it can be reviewed."""
    return screen_text(question)
