"""Arbitrate by rules: what a new statement does to one that is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from memory.cerebellum.concepts import Statement, opposed, word_set
from memory.words import fold

Action = Literal["UPDATE", "DELETE", "NONE"]

# Above it two texts say the same where no name, number or opposite tells them apart.
SAME_COSINE = 0.92
SAME_OVERLAP = 0.6
SAYS_MORE = "says more"

_RETRACTS = re.compile(
    r"n't [^.]*any ?more|\b(?:no longer|not \w+ [^.]*any ?more|(?:stopped|quit|gave up|given up)\b"
    r"|(?:sold|cancell?ed|dropped|abandoned|ended) (?:my|our|the)"
    r"|(?:is|are|was) (?:cancell?ed|over)"
    r"|forget (?:that|about|what)|disregard|n(?:e|')\s?\w+ plus\b|ne \w+ plus\b"
    r"|(?:ai|avons|a|ont) (?:arrete|abandonne|vendu|annule|resilie|quitte)|(?:est|sont) annulee?s?"
    r"|oublie[sz]?(?: que| ce| mon| ma)|plus (?:jamais|besoin) d)"
)
_CUES = word_set(
    """longer stopp stop quit gave give up sell cancel cancell dropp abandon ended forget
    disregard oubli arret annul annulee resili quitt more anymor plus over given subject that
    what switched actual correct correction wrong instead rather plutot finalement final"""
)
_REPLACES = re.compile(
    r"\b(?:instead|switch(?:ed)? (?:from|to)|replaced|upgraded|moved (?:from|to)|rather"
    r"|plutot|remplace|passes? (?:a|de)|maintenant|desormais|now)\b"
)
_CORRECTS = re.compile(
    r"^(?:no|non|actually|correction|en fait)\b|\b(?:actually|en fait|not|pas|wrong|trompe"
    r"|now|maintenant|instead|plutot|desormais)\b"
)
_ADDS = re.compile(r"\b(?:also|too|as well|another|aussi|egalement|en plus|une? autre)\b")

_LIGHT = frozenset({"have", "use"})
# Verbs whose objects stand side by side: liking tea doesn't end liking coffee.
_MANY = word_set(
    """like play speak learn use eat drink know read have listen write travel allergic want need
    buy cook_verb sing teach wear subscribe"""
)
_ONE = word_set("live work called age born birthday prefer attend drive surname address")
_PREDICATES = _MANY | _ONE | word_set("take start end build run runs deploy send")
_GENERAL = _PREDICATES | word_set(
    "day every year month week hour minute new big small number comm my time"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to the stored fact (UPDATE: the new one takes its place; DELETE: it ends), and
    whether the new one is ``added``."""

    action: Action
    added: bool
    reason: str


def about(statement: Statement) -> frozenset[str]:
    """The concepts that tell one statement from another: not the verbs and measures of all."""
    return statement.concepts - _GENERAL - _LIGHT


def arbitrate(stored: Statement, new: Statement, cosine: float) -> Verdict:
    """``cosine`` is that of the two texts' embeddings."""
    old, said = stored.concepts - _LIGHT, new.concepts - _LIGHT - (_CUES - stored.concepts)
    shared = old & said
    folded = fold(new.text.replace("’", "'"))
    if not shared and not opposed(old, said):
        return _unrelated("nothing in common")
    if _other_subject(stored, new):
        return _unrelated("said of something else")
    if _RETRACTS.search(folded) and (shared - _GENERAL or shared == old):
        if _REPLACES.search(folded) and (new.names | new.numbers) - old:
            return Verdict("UPDATE", True, "takes the place")
        return Verdict("DELETE", False, "taken back")
    if opposed(old - said, said - old):
        return Verdict("UPDATE", True, "an opposite value")
    if stored.negative != new.negative and (old <= said or said <= old):
        return Verdict("UPDATE", True, "the contrary")
    if said <= old:
        return Verdict("NONE", False, "says nothing new")
    if old <= said:
        if _ADDS.search(folded):
            return _unrelated("stands beside it")
        return Verdict("UPDATE", True, SAYS_MORE)
    return _differing(stored, new, old, said, folded, cosine)


def _differing(
    stored: Statement,
    new: Statement,
    old: frozenset[str],
    said: frozenset[str],
    folded: str,
    cosine: float,
) -> Verdict:
    """Both say something that the other doesn't."""
    shared = old & said
    corrects = _CORRECTS.search(folded) is not None
    if _conflict(stored, new) and not _ADDS.search(folded):
        predicates = stored.concepts & _PREDICATES, new.concepts & _PREDICATES
        common = predicates[0] & predicates[1]
        beside = common & _MANY and not _clash(stored.numbers, new.numbers)
        about_one = common & _ONE or (predicates[0] == predicates[1] and not beside)
        if about_one and (shared - _GENERAL or shared & _ONE):
            return Verdict("UPDATE", True, "another value")
        if corrects and shared - _GENERAL:
            return Verdict("UPDATE", True, "corrected")
        return _unrelated("another value beside it")
    same = len(shared) / len(old | said) >= SAME_OVERLAP or cosine >= SAME_COSINE
    if same and not _values(stored, new):
        return Verdict("NONE", False, "says the same")
    if corrects and shared - _GENERAL and stored.subject == new.subject:
        return Verdict("UPDATE", True, "corrected")
    return _unrelated("something else")


def _unrelated(reason: str) -> Verdict:
    return Verdict("NONE", True, reason)


def _other_subject(stored: Statement, new: Statement) -> bool:
    first, second = stored.subject - _LIGHT, new.subject - _LIGHT
    if first and second:
        return not (first <= second or second <= first)
    return not (first <= new.concepts and second <= stored.concepts)


def _conflict(stored: Statement, new: Statement) -> bool:
    """Values of the same kind that differ: numbers, or names."""
    return _clash(stored.numbers, new.numbers) or _clash(stored.names, new.names)


def _clash(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one - other and other - one)


def _values(stored: Statement, new: Statement) -> frozenset[str]:
    """Names and numbers that only one of the two has."""
    return (stored.names | stored.numbers) ^ (new.names | new.numbers)
