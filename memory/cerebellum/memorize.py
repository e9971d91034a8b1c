"""Memorize by rules: which sentences of what the user said are worth keeping."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memory.cerebellum.concepts import MAX_CHARS, is_french
from memory.words import fold

MAX_KEPT = 4
"""Sentences kept of one turn."""
MAX_READ = 8000

_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_QUOTED = re.compile(r"«[^»]{12,}»|“[^”]{12,}”|\"[^\"\n]{12,}\"")
_COMMIT = re.compile(r"^\s*(?:commit [0-9a-f]{7,40}\b|diff --git |From [0-9a-f]{40} )")
_PASTED_LINE = re.compile(
    r"^\s*(?:>|\||[$%#+@]\s|\+\+\+|---|@@|[-d][rwx-]{9}\s|\[?\d{4}-\d\d-\d\d[T ]\d\d:"
    r"|\d\d:\d\d:\d\d"
    r"|(?:feat|fix|chore|docs|refactor|tests?|style|perf|build|ci|revert)(?:\([^)]*\))?!?:\s"
    r"|Traceback|File \"|Caused by|Merge (?:branch|pull)|Author:|Date:|git |npm |yarn |pip |make: "
    r"|(?:\w+[:.])?(?:INFO|WARN(?:ING)?|ERROR|ERREUR|DEBUG|FATAL|TRACE)\b"
    r"|(?:def|class|import|return|function|const|let|var|public|private|static|void)\s"
    r"|(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER) |#include|\w+(?:\.\w+)*\s*(?:=|\+=)\s)"
    r"|[;{}]\s*$|^\s*\w+Error:"
)
_SENTENCE = re.compile(r"(?<=[.!?…])[\"»”]?\s+(?=[^\W\d_a-z«\"“]|[\"«“\d])|\n+")

_QUESTION = re.compile(
    r"\?\s*$|\b(?:how (?:do|can|should|to)|(?:can|should|do|could|must|may) (?:i|we|they)"
    r"|comment \w+er)\b|^(?:what|which|who|whom|whose|how|when|where|why|is|are|am|do|does|did"
    r"|can|could|would"
    r"|should|will|has|qui|quoi|quels?|quelles?|comment|pourquoi|quand est|ou est|combien|est-ce"
    r"|peux-tu|pouvez-vous|pourrais-tu|pourriez-vous|tu peux|as-tu|sais-tu|dois-je)\b"
)
_IMAGINED = re.compile(
    r"\b(?:if i (?:were|was|had)|imagine|suppose|supposing|let's say|pretend|hypothetically"
    r"|my (?:character|hero|protagonist|novel|story)|in (?:my|the) story|role-?play|act as"
    r"|supposons|imaginons|admettons|disons que|si j'(?:etais|avais)|fais comme si"
    r"|mon (?:personnage|heros|roman)|dans (?:mon|l') ?histoire)\b"
)
_PASSING = re.compile(
    r"\b(?:i(?: have|'ve got| got| get) (?:an? |this |the |some )*"
    r"(?:\w+ )?(?:question|problem|issue|doubt|bug|error|request|idea|exception)s?"
    r"|i (?:don't|do not|can't|cannot|didn't) (?:understand|know|see|get|remember|think|find)"
    r"|i(?:'ll| will| am going to|'m going to) (?:try|test|check|see|look|let you|come back"
    r"|do that)"
    r"|i(?:'m| am) (?:trying|stuck|confused|sorry|not sure|unsure|hungry|tired|ready|back|here|done"
    r"|wondering|curious|asking|afraid|glad|bored|getting|seeing|having)"
    r"|i (?:think|guess|suppose|see|mean|wonder|hope|bet|tried|ran|clicked|pasted|just ran"
    r"|just tried"
    r"|want you|need you|want to (?:know|understand|ask|see)|need (?:help|an? |some |the |to know)"
    r"|would like (?:you|to know|an? |some )|asked|said)\b"
    r"|i'd like (?:you|to know|an? |some )"
    r"|j'ai (?:une? )?(?:petite? |autre |gros(?:se)? )*(?:question|souci|probleme|doute|bug"
    r"|erreur)s?\b"
    r"|j'ai (?:faim|soif|sommeil|essaye|teste|lance|clique|compris|cette erreur|l'erreur)"
    r"|je (?:ne |n')?(?:comprends|sais|vois|trouve|crois|pense|me demande)\b"
    r"|je vais (?:tester|essayer|voir|regarder|verifier|faire ca|reessayer)"
    r"|je (?:voudrais|veux|souhaite|souhaiterais) (?:que tu|savoir|comprendre|une?\b)"
    r"|j'aimerais (?:que|une?\b)"
    r"|j'(?:essaie|essaye)|j'ai besoin (?:d'|de |que)|je suis (?:bloquee?|perdue?|desolee?"
    r"|fatiguee?|la|de retour)\b)"
)
_SECRET = re.compile(
    r"\b(?:passwords?|passphrase|mot de passe|mots de passe|api[ -]?keys?|secret keys?"
    r"|cle (?:api|secrete)"
    r"|access token|credit card|carte (?:bancaire|bleue|de credit)|cvv|pin code|code pin)\b"
    r"|\b(?:\d[ -]?){15,19}\b"
)
_REQUEST = re.compile(
    r"^(?:(?:please|now|ok(?:ay)?|and|then|merci de|s'il te plait|svp|maintenant|et|puis),? )*"
    r"(?:write|make|give|show|explain|fix|correct|translate|summari[sz]e|plan|propose|suggest|list"
    r"|compare|find|help|tell|create|generate|convert|check|review|add|remove|change|rewrite"
    r"|improve"
    r"|describe|let|go|try|continue|use|compute|calculate|draft|design|implement|refactor|debug"
    r"|read"
    r"|look|run|put|format|sort|draw|build|turn|shorten|expand|analy[sz]e|proofread|edit|answer"
    r"|ecri(?:s|vez)|donne[sz]?|mets|mettez|fai(?:s|tes)|explique[sz]?|corrige[sz]?|tradui(?:s|sez)"
    r"|propose[sz]?|trouve[sz]?|aide[sz]?|resume[sz]?|compare[sz]?|montre[sz]?|dis|dites|liste[sz]?"
    r"|cree[sz]?|genere[sz]?|converti(?:s|ssez)|verifie[sz]?|ajoute[sz]?|enleve[sz]?|supprime[sz]?"
    r"|change[sz]?|recommence[sz]?|continue[sz]?|regarde[sz]?|relis|reecri(?:s|vez)|calcule[sz]?"
    r"|ameliore[sz]?|decri(?:s|vez)|analyse[sz]?|reformule[sz]?|redige[sz]?|transforme[sz]?"
    r"|range[sz]?|essaie|essaye[sz]?)\b"
)
_STANDING = re.compile(
    r"\b(?:from now on|in future|whenever you|every time you|call me|desormais|dorenavant"
    r"|a l'avenir|a partir de maintenant|chaque fois que tu|appelle-moi|tutoie-moi|vouvoie-moi)\b"
    r"|^(?:please,? |and |but |quand \w+ [^,]{3,60}, )?(?:always|never|toujours|n(?:e "
    r"|')\w+ jamais)\b"
    r"|^(?:please )?by default,? (?:use|write|answer|give|show|assume)\b|^par defaut,? \w+(?:e"
    r"|s|ez)\b"
    r"|^please (?:never|always|don't ever)\b"
    r"|\b(?:explique|ecris|reponds|utilise|donne|montre|fais|mets|mentionne|cite)\w* toujours\b"
)
_NOTE = re.compile(
    r"\b(?:remember (?:that|this|my|i|we)|note that|keep in mind|for the record"
    r"|for future reference"
    r"|fyi|for your information|don't forget|retiens|retenez|souviens-toi|rappelle-toi|n'oublie pas"
    r"|a retenir|pour info|pour information|sache que|sachez que|note(?:z)? (?:bien|que))\b"
)
# The speaker as the subject of a clause, near its start: "the API of my shop" says nothing of them.
_CLAUSE = r"(?:^|[,;:—–-] |\b(?:and|but|so|because|that|et|mais|car|donc|que)\s)(?:\w+,? ){0,2}?"
_SELF = {
    False: re.compile(
        rf"{_CLAUSE}(?:(?:i|we)(?: |'(?:m|ve|d|ll|re) )(?:\w+)"
        r"|(?:my|our)\s(?:[\w'.-]+\s){1,5}?(?:is|are|was|were|has|have|had|will|can(?:'t|not)?"
        r"|lives?|works?"
        r"|runs?|uses?|plays?|takes?|starts?|ends?|returns?|likes?|goes|died|needs?)\b)"
    ),
    True: re.compile(
        rf"{_CLAUSE}(?:(?:je|on|nous)\s(?:ne |n'|me |m'|nous |l'|les? |la )?\w+|j'\w+"
        r"|(?:mon|ma|mes|notre|nos)\s(?:[\w'.-]+\s){1,5}?(?:est|sont|etait|a|ont|aura|s'appelle"
        r"|habite|vit"
        r"|travaille|tourne|utilise|joue|reste|se|va|fait|dure|commence|finit|aime|ne|n')(?:\b"
        r"|(?<=')))"
    ),
}
_TROUBLE = re.compile(
    r"\b(?:fail(?:s|ed|ing)?|crash(?:es|ed)?|brok(?:e|en)|doesn't|don't work|won't|can't|cannot"
    r"|error|stuck|weird"
    r"|casse|plante|marche pas|erreur|echoue|bug|bloque|n'arrive pas|ne peux pas"
    r"|refuse|hangs?|freezes?|leaks?|slow|lent)\b"
)
_CORRECTS = re.compile(
    r"^(?:you got (?:that|it) wrong|tu te trompes|actually|in fact|correction|erratum|en fait"
    r"|en realite|rectification)\b"
    r"|^(?:no|non),? (?:it|the|that|c'est|ce n'est|le|la|les)\b"
    r"|\b(?:instead of|not [\w.]+ any ?more|au lieu de|ce n'est plus)\b"
)
_LESSON = re.compile(
    r"\b(?:turns out|turned out|the (?:real |actual |root )?(?:fix|solution|trick|cause|problem"
    r"|issue"
    r"|culprit) (?:was|is|came)|lessons? learn(?:ed|t)|solved (?:it|this|the)|fixed (?:it|this|the)"
    r"|(?:was|is) (?:caused by|due to)|works? (?:once|after|only)|worked after|it worked"
    r"|finalement|le (?:vrai )?(?:probleme|souci|bug) (?:venait|vient|etait)"
    r"|la (?:vraie )?(?:cause|solution|parade|faute) (?:\w+ ){0,4}?(?:etait|est|venait)|lecon"
    r"|il fallait"
    r"|il suffisait|a cause d|ca marche (?:si|quand|depuis|apres)|resolu (?:en|par))\b"
)
_SCHEDULED = re.compile(
    r"\b(?:(?:is|are|was) (?:scheduled|planned|due|set for|booked)|takes place|will take place"
    r"|(?:est|sont) (?:prevue?s?|planifiee?s?|fixee?s?|reservee?s?)|aura lieu|a lieu|auront lieu)\b"
)
_STAND = re.compile(r"can't stand")
_NAMED_PART = re.compile(
    r"^(?:the|le|la|les|l')\s?[^.]{0,40}\b(?:server|database|cluster|host|api|repo|repository"
    r"|endpoint"
    r"|printer|router|nas|wifi|serveur|base|depot|carte|reseau|imprimante|cluster|site"
    r"|vpn)\b[^.]{0,40}"
    r"\b(?:is|lives?|runs?|listens?|est|tourne|ecoute|se trouve)\b.*(?:\d|\w+[._/-]\w+)"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A sentence worth keeping, and the rule that says so."""

    text: str
    reason: str


def memorize(text: str) -> list[Kept]:
    """The sentences of the user's ``text`` to keep, in order, at most `MAX_KEPT`; none is SKIP."""
    kept = []
    for sentence in sentences(text):
        reason = _reason(sentence)
        if reason:
            kept.append(Kept(sentence, reason))
    return kept[:MAX_KEPT]


def sentences(text: str) -> list[str]:
    """What the user says in their own words: no code, no quotes, no pasted output."""
    if _COMMIT.match(text):
        return []
    prose = _FENCE.sub("\n", text[:MAX_READ].replace("’", "'"))
    lines = [line for line in prose.splitlines() if not _PASTED_LINE.search(line)]
    bare = _QUOTED.sub(" ", "\n".join(lines))
    found = (" ".join(piece.split()) for piece in _SENTENCE.split(bare) if piece)
    return [piece for piece in found if piece]


def may_keep(sentence: str) -> bool:
    """Whether a sentence can be a statement at all, whoever decides: not a secret, not too long."""
    return (
        len(sentence) <= MAX_CHARS
        and len(sentence.split()) >= 3
        and not _SECRET.search(fold(sentence))
    )


def _reason(sentence: str) -> str | None:
    if not may_keep(sentence):
        return None
    folded = fold(sentence)
    if _QUESTION.search(folded) or _IMAGINED.search(folded):
        return None
    for reason, pattern in (("asked to remember", _NOTE), ("standing wish", _STANDING)):
        if pattern.search(folded):
            return reason
    if _REQUEST.search(folded):
        return None
    for reason, pattern in (("lesson", _LESSON), ("correction", _CORRECTS), ("date", _SCHEDULED)):
        if pattern.search(folded):
            return reason
    if _PASSING.search(folded):
        return None
    if _SELF[is_french(folded)].search(folded):
        return None if _TROUBLE.search(_STAND.sub("", folded)) else "about the user"
    return "a part by name" if _NAMED_PART.search(folded) else None
