"""A statement as the set of what it is about, the same in English and French."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from memory.words import fold


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _numbered(text: str) -> dict[str, str]:
    """Number words from two on."""
    return {word: str(number) for number, word in enumerate(text.split(), start=2)}


_FRENCH = word_set(
    """je j' tu il elle on nous vous ils elles le la les un une des du de d' l' mon ma mes ton ta
    tes notre nos votre vos leur ce cet cette ces et ou mais donc est suis es sommes sont etait c'
    s' n' ne pas plus que qu' qui chez dans avec sans pour par sur sous au aux en ai tous"""
)
_ENGLISH = word_set(
    """i i'm i've you he she it we they the a an my your his her its our their this that these those
    and or but is am are was were be been not don't doesn't no of to in at on with for from by has
    have there every any"""
)
# What carries no meaning of its own here; negation is read apart.
_EMPTY = (_FRENCH | _ENGLISH) - {"have", "has", "ai", "every", "any", "tous"} | word_set(
    """m' t' me te se y etre avait had do does did will would can could just very so too also aussi
    really vraiment actually maintenant now desormais currently actuellement please merci thanks any
    s m ve re ll d t l j n c qu comme as some few quelques bien tres ici here
    it's that's name's been being si about than then alors non oui yes no d'accord ok hello salut
    fact fait par_contre soon much more most nearly completely since depuis pour for well own only
    seulement last next ago what which who whom where when how why quel quelle quels quelles quand
    comment pourquoi quoi way tell remind dis rappelle"""
)
# Read in one language only: "son" is a child in English and "his" in French.
_NOT_IN_FRENCH = word_set("son car as an nous main on us")
_NOT_IN_ENGLISH = word_set("chat an as bois fume dent mars mai us ne lit")
_NUMBERS = _numbered(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
) | _numbered(
    "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
)
_NEGATION = re.compile(
    r"\b(?:not|never|don'?t|doesn'?t|didn'?t|isn'?t|aren'?t|can'?t|cannot|won'?t|without|nor|pas"
    r"|jamais|aucune?|sans|hates?|dislikes?|detests?|loathes?|avoid|deteste[sz]?|detestons"
    r"|horreur de|evite[sz]?|evitons)\b|n't\b"
)
_HATE = re.compile(
    r"\b(?:hates?|dislikes?|detests?|loathes?|can'?t stand|deteste[sz]?|detestons"
    r"|ai horreur d(?:e|u|es)\b)"
)
_WORD = re.compile(r"[^\W_][\w.+#]*[\w+#]|[^\W_]")
_CLITIC = re.compile(r"\b(?:j|l|d|m|t|s|n|c|qu|jusqu|lorsqu)['’](?=\w)|['’](?:s|m|ve|re|ll|d)\b")
_GLUED_UNIT = re.compile(r"(?<=\d)\s?(?=(?:gb|go|mb|mo|gib|kg|km|h|hrs?|min|ans?|euros?|eur)\b)")
_CAPITAL = re.compile(r"(?<=[^.!?] )(?:[ldLD]')?([A-ZÀ-ÖØ-Þ][\w-]*)")
_PHRASE_WORDS = 4
MAX_CHARS = 400
"""A longer sentence is prose or a paste, not a statement about oneself."""
_OWN_SUBJECT = re.compile(
    r"^(?:(?:no|non|well|so|and|et|but|mais|also|actually|by the way|btw|fyi|for the record|en fait"
    r"|au fait|d'ailleurs|pour info|a retenir)[,:]? )*"
)
_NOUN_PHRASE = re.compile(
    r"^(?:my|our|the|mon|ma|mes|notre|nos|le|la|les|l'|this|cette?|ce)\s?(?P<noun>.+?)"
    r"(?:'s (?!name)|\s(?=(?:is|are|was|were|has|have|will|lives?|works?|plays?|takes?|runs?|uses?"
    r"|likes?|loves?|goes|speaks?|attends?|listens?|lies|needs?|sits|drinks?|eats?|hates?|starts?"
    r"|ends?|est|sont|etait|a|ont|aura|s'appelle|habite|vit|travaille|bosse|joue|tourne|ecoute|aime"
    r"|mange|parle|prend|dure|commence|se|va|utilise|fume|deteste|marche|contient|doit|n'|ne)\b)"
    r"|'s name\b)"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """``concepts`` are what it is about, ``subject`` the part that it is said of (empty: the
    speaker), ``names`` and ``numbers`` the values among them, ``negative`` whether it denies."""

    text: str
    concepts: frozenset[str]
    subject: frozenset[str]
    names: frozenset[str]
    numbers: frozenset[str]
    negative: bool


@cache
def _lexicon() -> tuple[dict[str, str], dict[str, str]]:
    """Words to concepts, and exclusive values to their group."""
    concepts: dict[str, str] = {}
    groups: dict[str, str] = {}
    text = resources.files("memory.cerebellum").joinpath("concepts.txt").read_text("utf-8")
    for line in text.splitlines():
        words = line.split()
        if line.startswith("#"):
            continue
        if line.startswith("!"):
            group = words.pop(0)
            groups[words[0]] = group
        for word in words:
            concepts.setdefault(word.replace("_", " "), words[0])
    return concepts, groups


def opposed(first: frozenset[str], second: frozenset[str]) -> bool:
    """Whether one has a value that the other's value excludes, as short and long do."""
    _, groups = _lexicon()
    values = [{groups[one]: one for one in side if one in groups} for side in (first, second)]
    return any(values[1].get(group, one) != one for group, one in values[0].items())


def read(text: str) -> Statement:
    """The statement in ``text``, one sentence; of a longer text its beginning."""
    plain = text[:MAX_CHARS].replace("’", "'")
    folded = fold(plain)
    french = is_french(folded)
    concepts = _concepts(folded, french)
    capitals = " ".join(_CAPITAL.findall(plain))
    return Statement(
        text,
        concepts,
        _subject(folded, french),
        _concepts(fold(capitals), french) & concepts,
        frozenset(one for one in concepts if any(letter.isdigit() for letter in one)),
        _denies(folded),
    )


def is_french(folded: str) -> bool:
    words = _CLITIC.sub(lambda match: f"{match.group()} ", folded).split()
    french = sum(word in _FRENCH for word in words)
    return french > sum(word in _ENGLISH for word in words)


def _concepts(folded: str, french: bool) -> frozenset[str]:
    skipped = _NOT_IN_FRENCH if french else _NOT_IN_ENGLISH
    plain = _GLUED_UNIT.sub(" ", _HATE.sub(" like ", folded))
    words = _WORD.findall(_CLITIC.sub(" ", plain).replace("-", " "))
    lexicon, _ = _lexicon()
    found: set[str] = set()
    at = 0
    while at < len(words):
        for length in range(_PHRASE_WORDS, 1, -1):
            phrase = " ".join(words[at : at + length])
            if phrase in lexicon and at + length <= len(words):
                found.add(lexicon[phrase])
                at += length
                break
        else:
            if words[at] not in skipped:
                found |= _concept(words[at])
            at += 1
    return frozenset(found)


def _concept(word: str) -> set[str]:
    if word in _EMPTY or _NEGATION.fullmatch(word):
        return set()
    lexicon, _ = _lexicon()
    for form in (word, word.removesuffix("s"), word.removesuffix("x"), word.removesuffix("es")):
        if form in lexicon:
            return {lexicon[form]}
    return {_NUMBERS.get(word) or _stem(word)}


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s", "x", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word


def _subject(folded: str, french: bool) -> frozenset[str]:
    start = _OWN_SUBJECT.sub("", folded, count=1)
    match = _NOUN_PHRASE.match(start)
    return _concepts(match["noun"], french) if match else frozenset()


def _denies(folded: str) -> bool:
    # "not 400" after a comma corrects a value; the statement itself holds.
    head = re.sub(r",? (?:(?:and )?not|(?:et )?(?:non )?pas) [^,;]*$", "", folded)
    return len(_NEGATION.findall(head)) % 2 == 1
