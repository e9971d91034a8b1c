"""The words and names that a text is found by, in English and French."""

from __future__ import annotations

import re
import unicodedata

MAX_TERMS = 8
MAX_ENTITIES = 32

_COMMON_WORDS = """
a about after again all also am an and any are as at be because been before being but by can
could did do does doing done for from get give go had has have he hello help her here hi him
his how i if in into is it its just know let like make me might mine more most much must my no
not now of off on one only or other our out over own please same say she should show so some
such tell than thank thanks that the their them then there these they thing this those to too
up us use used using very want was we were what when where which while who whom whose why will
with would write yes you your yours
ai aux avec avez bonjour ce ces cet cette comme comment dans de des dis donc du elle elles en
est et etre faire fait fais ici il ils je la le les leur leurs lui ma mais merci mes moi mon ne
nos notre nous on ou par pas peux plus pour pourquoi quand que quel quelle quelles quels qui
quoi sa sans se ses si son sont suis sur ta te tes toi ton tu un une vos votre vous
"""
MAX_READ = 4000
"""Characters of a text that are searched for names and words: time must not grow with the text."""
_STOP_WORDS = frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"\w+")
_UNIT = (
    r"(?:%|€|\$|£|°[CF]?|(?:k|m|g|t|µ|n)?(?:hz|w|v|a|b|g|m|l|s|j|f|Ω)|[kmgt]i?b|ohms?|cm²?|kg|km/h"
    r"|ms|min|hours?|heures?|days?|jours?|weeks?|semaines?|months?|mois|years?|ans?|euros?)\b"
)
# In order: what an earlier pattern took is not read again by a later one.
_PATTERNS = (
    re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"),
    re.compile(r"https?://[^\s\"'<>)]+"),
    re.compile(
        r"(?<![\w/])(?:~|\.{1,2})?/(?:[\w.+-]+/)*[\w.+-]+"
        r"|(?<![\w-])[\w-]{1,64}(?:/[\w-]{1,64})*\.[a-z]{1,4}\b"
    ),
    re.compile(r"[\"“«`]\s*([^\"“”«»`\n]{2,60}?)\s*[\"”»`]"),
    re.compile(r"\b(?:[A-Za-z]\w*(?:(?:::|\.)[A-Za-z_]\w*)+|[A-Za-z]+(?:_[A-Za-z0-9]+)+)\b"),
    re.compile(r"\b[a-z]+(?:[A-Z][a-z0-9]+)+\b|\b(?:[A-Z][a-z0-9]+){2,}\b"),
    re.compile(rf"\b\d{{1,15}}(?:[.,]\d{{1,15}})?\s?{_UNIT}", re.IGNORECASE),
    re.compile(r"\b[A-Z]{2,}[0-9]*\b|(?<![\w-])[A-Z]{1,16}-?[0-9]{1,16}[A-Z0-9-]{0,32}\b"),
)
_NAME = re.compile(r"\b[^\W\d_a-z][\w'’-]+(?:\s+(?:de\s+|du\s+|of\s+)?[^\W\d_a-z][\w'’-]+)*")


def fold(text: str) -> str:
    """Lower case, without accents, single spaces: how terms and entities are compared."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return " ".join(text.casefold().split())


def search_terms(text: str) -> list[str]:
    """At most `MAX_TERMS` words worth searching for, the longest (as a rule the rarest) first."""
    words = {word for word in _WORD.findall(fold(text[:MAX_READ])) if word not in _STOP_WORDS}
    telling = {word for word in words if len(word) > 1 or word.isdigit()}
    return sorted(telling, key=lambda word: (-len(word), word))[:MAX_TERMS]


def entities(text: str) -> list[str]:
    """Names, quoted terms, identifiers, paths, addresses and quantities, folded, at most
    `MAX_ENTITIES`, in the order of the patterns."""
    text = text[:MAX_READ]
    found: dict[str, None] = {}
    for pattern in _PATTERNS:
        matches = list(pattern.finditer(text))
        for match in matches:
            found[fold(match.group(match.lastindex or 0))] = None
        if matches:
            text = pattern.sub(" ", text)
    for match in _NAME.finditer(text):
        name = _without_leading_stop_words(match.group())
        if len(name) > 1 and match.group()[0].isupper():
            found[name] = None
    return list(found)[:MAX_ENTITIES]


def _without_leading_stop_words(name: str) -> str:
    """``What Alice`` -> ``alice``: a sentence's first word has a capital for no reason."""
    words = fold(re.sub(r"^\w['’]|['’]s\b", "", name)).split()
    while words and words[0] in _STOP_WORDS:
        words.pop(0)
    return " ".join(words)
