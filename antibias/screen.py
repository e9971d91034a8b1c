"""The cheap screen: word classes that have to meet before a text may carry a bias.

It decides whether a text is looked at, never whether it is biased: that is the detector's.
"""

from __future__ import annotations

from collections.abc import Collection

from antibias.words import classes_of, tokenize

MAX_CHARACTERS = 20_000

_CUES = {
    "anchoring": (
        "figure amount own",
        "number amount own",
        "amount own prescribes",
        "number amount tag",
        "number leader prescribes",
        "figure leader own",
        "claims own prescribes",
    ),
    "authority": ("leader claims", "claims prescribes", "leader prescribes", "claims tag"),
    "confirmation": ("certain tag", "certain prescribes", "certain own", "tag own", "certain ask"),
    "framing": ("loss own", "loss figure", "flaw own", "flaw figure", "flaw number"),
    "recency": ("recent urgent", "recent own prescribes", "recent claims"),
    "stereotyping": ("group trait", "group person", "person trait"),
}

CUES: dict[str, tuple[frozenset[str], ...]] = {
    kind: tuple(frozenset(cue.split()) for cue in cues) for kind, cues in _CUES.items()
}
"""For each type of bias the sets of word classes of which one must be complete."""


def suspects(classes: Collection[str]) -> frozenset[str]:
    """The types of bias that a passage with these word classes may carry."""
    found = frozenset(classes)
    return frozenset(kind for kind, cues in CUES.items() if any(cue <= found for cue in cues))


def screen_text(text: str) -> bool:
    """Whether the detector should look at the text."""
    return bool(suspects(classes_of(tokenize(text[:MAX_CHARACTERS]))))


def screen_prompt(question: str) -> bool:
    """Whether an answer to this must be whole before it is sent, so that it can be reviewed."""
    return screen_text(question)
